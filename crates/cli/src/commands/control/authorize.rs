//! `dawn control authorize`: the owner lets a control plane admit members.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use dawn_identity::{NetworkId, NodeId};
use dawn_node::client::Client;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Plane, Trust};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{GOOD, STRONG, ask, styled, words};

/// Longest request that is read from a file, bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// On the owner's node: let a control plane admit members and guests to this network
///
/// Its key gets a certificate signed with the network's key. It is no member by it, appoints nobody, and can be put out
/// like any other. Compare its key with what the control plane prints where it runs.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn control authorize https://control.example\n  dawn control authorize                                    its certificate ends: for another year\n  dawn control authorize request.json --out certificate.json     where there is no way to it"
)]
pub(super) struct AuthorizeArgs {
    /// The address of the control plane, or the file with its request [default: this node's own control plane, for
    /// longer]
    #[arg(value_name = "FILE|URL")]
    target: Option<String>,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "365d", value_parser = crate::commands::duration)]
    lifetime: Duration,
    /// Where to write the certificate, where the request was a file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Do not ask whether the key is the one that is meant
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    trust: Trust,
}

/// What a file asks for.
#[derive(Deserialize)]
struct Request {
    issuer: NodeId,
    network: Option<NetworkId>,
}

/// What a control plane asks for.
#[derive(Deserialize)]
struct Shown {
    issuer: NodeId,
    network: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Authorised {
    issuer: NodeId,
    network: NetworkId,
    certificate: Value,
    expires: Timestamp,
}

pub(super) fn run(context: &Context, args: AuthorizeArgs) -> Result<(), Failure> {
    let client = context.client()?;
    match args.target.clone() {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => at_url(context, &client, args, url),
        Some(file) => for_file(context, &client, &args, Path::new(&file)),
        None => again(context, &client, args),
    }
}

/// The control plane that this node is registered at, by the key that is pinned.
#[derive(Deserialize)]
struct Own {
    url: Option<String>,
    issuer: Option<NodeId>,
    ca: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
}

fn again(context: &Context, client: &Client, mut args: AuthorizeArgs) -> Result<(), Failure> {
    let own: Own = context.wait(async { Ok(client.get("/api/control").await?) })?;
    let (Some(url), Some(issuer)) = (own.url, own.issuer) else {
        return Err(Failure::usage("this node has no control plane").next("name one: dawn control authorize URL"));
    };
    args.trust.issuer.get_or_insert(issuer);
    args.trust.ca = args.trust.ca.or(own.ca);
    args.trust.insecure |= own.insecure;
    at_url(context, client, args, url)
}

fn at_url(context: &Context, client: &Client, args: AuthorizeArgs, url: String) -> Result<(), Failure> {
    let out = context.out;
    let expected = args.trust.issuer;
    let plane = Plane { url, trust: args.trust };
    let shown: Shown = context.wait(async { Ok(client.post("/api/control/issuer", &plane.json()).await?) })?;
    if let Some(expected) = expected.filter(|expected| *expected != shown.issuer) {
        let words = format!("the control plane issues with the key {}, not {expected}", shown.issuer);
        return Err(Failure::new(crate::failure::Exit::NotAllowed, "other_issuer", words)
            .next("ask who runs it which key is the right one"));
    }
    if expected.is_none() && !args.yes {
        let network = words::clean(&shown.network.name);
        out.note(format!(
            "{} would admit members to {network} with the key {}",
            words::clean(&plane.url),
            shown.issuer
        ));
        if !ask::agreed(out.json, "Is that the key it shows where it runs?")? {
            return Err(Failure::usage("nobody has said that this key is the one that is meant")
                .next(format!("add --issuer {}", shown.issuer)));
        }
    }
    let body = json!({ "issuer": shown.issuer, "plane": plane.json(), "valid_s": args.lifetime.as_secs() });
    let done: Box<RawValue> = context.wait(async { Ok(client.post("/api/control/authorize", &body).await?) })?;
    out.answer(&done, |done: Authorised| {
        out.line(format!(
            "{} {} may admit members, until {}",
            styled(GOOD, "✓"),
            styled(STRONG, words::clean(&plane.url)),
            done.expires
        ))?;
        let own: Own = context.wait(async { Ok(client.get("/api/control").await?) })?;
        if own.url.is_none() {
            out.note(format!(
                "Next: {}, here and on other members: a new device finds those alone that are registered there",
                plane.joining()
            ));
        }
        Ok(())
    })
}

fn for_file(context: &Context, client: &Client, args: &AuthorizeArgs, file: &Path) -> Result<(), Failure> {
    let out = context.out;
    let request = request(file)?;
    if let Some(expected) = args.trust.issuer.filter(|expected| *expected != request.issuer) {
        let words = format!("the file asks for the key {}, not {expected}", request.issuer);
        return Err(Failure::new(crate::failure::Exit::NotAllowed, "other_issuer", words));
    }
    let body = json!({ "issuer": request.issuer, "valid_s": args.lifetime.as_secs() });
    let done: Authorised = context.wait(async { Ok(client.post("/api/control/authorize", &body).await?) })?;
    if let Some(network) = request.network.filter(|network| *network != done.network) {
        let words = format!("the file is for the network {network}; this node's is {}", done.network);
        return Err(Failure::usage(words));
    }
    let certificate = json!({ "certificate": done.certificate });
    let Some(path) = &args.out else {
        return out.document(&certificate);
    };
    let text = format!("{certificate:#}\n");
    std::fs::write(path, text)
        .map_err(|error| Failure::io(&format!("{} could not be written", path.display()), &error))?;
    if out.json {
        return out.document(&json!({ "issuer": done.issuer, "expires": done.expires, "file": path }));
    }
    out.line(format!(
        "{} {} may admit members, until {}: bring {} to the control plane",
        styled(GOOD, "✓"),
        done.issuer,
        done.expires,
        path.display()
    ))
}

fn request(path: &Path) -> Result<Request, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Failure::io(&format!("{} could not be read", path.display()), &error);
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{} is no request of a control plane: {error}", path.display()))
            .next("it is what `GET /v1/networks/NETWORK/issuer` answers there")
    })
}
