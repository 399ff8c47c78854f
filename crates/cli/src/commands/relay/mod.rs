//! `dawn relay`: a server that carries circuits of nodes which cannot be dialled, and tokens for it.

mod serve;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dawn_relay::config::{Config, ConfigError, hash};
use dawn_relay::kept;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::words;

/// Run a relay for nodes that cannot be dialled, and make tokens for it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn relay serve --config /etc/dawn/relay.toml\n  dawn relay check --config /etc/dawn/relay.toml\n  dawn relay token --for 12D3KooW… --expires 30d    for a peer that is no member\n  dawn relay secret --name ops                      for a relay without a network\n  dawn relay status --config /etc/dawn/relay.toml"
)]
pub(crate) struct RelayArgs {
    #[command(subcommand)]
    command: RelayCommand,
}

#[derive(Debug, Subcommand)]
enum RelayCommand {
    /// Run the relay, until Ctrl-C or SIGTERM; SIGHUP reads the configuration again
    Serve(FileArgs),
    /// Check the configuration, and say what it gives to whom
    Check(FileArgs),
    /// What the running relay says of itself
    Status(FileArgs),
    /// Make a token by which one peer reserves at relays of this network
    Token(TokenArgs),
    /// Make a token of the operator's, and its entry for the configuration
    Secret(SecretArgs),
}

const EXAMPLE: &str = "\
An example of such a file; docs/relay.md has the rest:
  listen = [\"/ip4/0.0.0.0/udp/7442/quic-v1\", \"/ip4/0.0.0.0/tcp/7442\"]
  external = [\"/dns4/relay.example.org/udp/7442/quic-v1\", \"/dns4/relay.example.org/tcp/7442\"]
  networks = [\"z6Mk…\"]              # `dawn status` of a member shows it
  identity = \"relay.key\"           # made at the first start, beside this file
  observe = \"127.0.0.1:7441\"       # for `dawn relay status`";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
struct FileArgs {
    /// The relay's configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FileArgs {
    fn file(&self) -> Result<&Path, Failure> {
        self.config.as_deref().ok_or_else(|| {
            Failure::usage("the relay's configuration is missing: --config FILE")
                .next("`dawn relay serve --help` shows such a file; a member with a public address relays without one")
        })
    }
}

/// What a node does with a token.
const MESH: &str = "[mesh]\nrelays = [\"/dns4/relay.example.org/tcp/7442/p2p/12D3KooW…\"]\nrelay_token = \"TOKEN\"";

#[derive(Debug, Args)]
struct TokenArgs {
    /// The peer, by its id, as `dawn status` there shows it; or a node of this network by its name
    #[arg(long = "for", value_name = "PEER")]
    peer: String,
    /// How long the token is good, such as 12h or 30d; one that an admin signs ends with the admin's certificate
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = super::duration)]
    expires: Duration,
    /// Circuits at once
    #[arg(long, value_name = "N")]
    relay_circuits: Option<u64>,
    /// Bytes in a period of the relay, a day by default
    #[arg(long, value_name = "BYTES")]
    relay_bytes: Option<u64>,
    /// Bytes a second
    #[arg(long, value_name = "BYTES")]
    relay_rate: Option<u64>,
}

#[derive(Debug, Args)]
struct SecretArgs {
    /// What the relay calls it: whose quota it is
    #[arg(long)]
    name: String,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let message = error.to_string();
        let (message, next) = match &error {
            ConfigError::File { path, source } if source.kind() == std::io::ErrorKind::NotFound => (
                format!("there is no file {}", path.display()),
                "name the file that is meant; `dawn relay serve --help` shows one",
            ),
            ConfigError::File { .. } => (message, "let the user who runs the relay read and write it"),
            ConfigError::Invalid { .. } => (
                message,
                "mend it there and try again; `dawn relay serve --help` shows an example",
            ),
        };
        Self::new(Exit::Failed, "config", message).next(next)
    }
}

pub(crate) fn run(context: &Context, args: RelayArgs) -> Result<(), Failure> {
    match args.command {
        RelayCommand::Serve(args) => serve::run(context, args.file()?),
        RelayCommand::Check(args) => check(context, args.file()?),
        RelayCommand::Status(args) => status::run(context, args.file()?),
        RelayCommand::Token(args) => token(context, &args),
        RelayCommand::Secret(args) => secret(context, &args.name),
    }
}

fn check(context: &Context, file: &Path) -> Result<(), Failure> {
    let config = Config::read(file)?;
    let kept = kept::read(&config.revocations)?;
    let networks: Vec<String> = config.networks.iter().map(ToString::to_string).collect();
    let tokens: Vec<&str> = config.tokens.iter().map(|token| token.name.as_str()).collect();
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let external: Vec<String> = config.external.iter().map(ToString::to_string).collect();
    if context.out.json {
        return context.out.document(&json!({
            "valid": true,
            "listen": listen,
            "external": external,
            "networks": networks,
            "tokens": tokens,
            "revocations": kept.revocations.len(),
            "quotas": config.quotas,
            "drain_s": config.drain.as_secs(),
        }));
    }
    let list = |what: &[String]| {
        if what.is_empty() {
            "none".to_owned()
        } else {
            what.join(", ")
        }
    };
    let named: Vec<String> = tokens.iter().map(|name| words::clean(name).into_owned()).collect();
    context.out.line(format!("{} is in order", file.display()))?;
    context.out.line(format!("listens on    {}", list(&listen)))?;
    context.out.line(format!("dialled at    {}", list(&external)))?;
    context.out.line(format!("networks      {}", list(&networks)))?;
    context.out.line(format!("tokens        {}", list(&named)))?;
    context.out.line(format!("revocations   {}", kept.revocations.len()))?;
    if kept.is_cut_off {
        let file = config.revocations.display();
        context.out.note(format!(
            "the last line of {file} was cut off; it is left out and overwritten"
        ));
    }
    if external.is_empty() {
        context
            .out
            .note("Next: name under `external` where the relay is reached from outside, if it is behind a NAT");
    }
    Ok(())
}

#[derive(Deserialize)]
struct Made {
    token: String,
    expires: String,
    is_shorter: bool,
}

fn token(context: &Context, args: &TokenArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let wanted = json!({
        "peer": args.peer,
        "expires_s": args.expires.as_secs(),
        "circuits": args.relay_circuits,
        "bytes": args.relay_bytes,
        "bytes_per_second": args.relay_rate,
    });
    context.wait(async {
        let answer: Value = client.post("/api/relay/tokens", &wanted).await?;
        if context.out.json {
            return context.out.document(&answer);
        }
        let made: Made = serde_json::from_value(answer).map_err(|error| {
            Failure::new(
                Exit::Failed,
                "internal",
                format!("the node's answer is not understood: {error}"),
            )
        })?;
        context.out.line(&made.token)?;
        context.out.note(format!(
            "good until {} for this peer alone, which shows it where its configuration says\n\n{MESH}\n\nThe relay's file names the network under `networks`.",
            made.expires
        ));
        if made.is_shorter {
            context.out.note(
                "That is sooner than was asked: it ends with the certificate of this node. Next: on the owner's node, which has the network's key, a token lasts as long as you say",
            );
        }
        Ok(())
    })
}

fn secret(context: &Context, name: &str) -> Result<(), Failure> {
    let token = BASE64URL_NOPAD.encode(&rand_bytes()?);
    let hash = HEXLOWER.encode(&hash(&token));
    if context.out.json {
        return context
            .out
            .document(&json!({ "name": name, "token": token, "sha256": hash }));
    }
    context.out.line(&token)?;
    let name = toml::Value::String(name.to_owned());
    context.out.note(format!(
        "That is the token, shown this once. Next: this entry in the relay's file, then SIGHUP\n\n[[token]]\nname = {name}\nsha256 = \"{hash}\"\n\nand in the configuration of each node that is to use it\n\n{MESH}"
    ));
    Ok(())
}

/// Chance enough for a token.
fn rand_bytes() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    let file = std::fs::File::open("/dev/urandom");
    file.and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|error| Failure::io("no random numbers could be read", &error))?;
    Ok(bytes)
}
