//! `dawn keys`: keys shared with other nodes, and names pinned to them.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use dawn_node::client::segment;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::duration;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, styled, words};

/// The longest pre-shared key that is read, bytes.
const LONGEST: u64 = 64 << 10;

/// Keys shared with other nodes, and names pinned to them
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn keys exchange lab              agree on a key with lab, now or when it is back\n  dawn keys list\n  dawn keys rotate lab                a new key in its place\n  dawn keys rotate THIS-NODE          a new static key of this node\n  dawn keys revoke lab                end it on both sides\n  dawn keys add lab --psk-file FILE   a key that you give to both nodes\n  dawn keys pin lab                   nobody else may ever be called lab here"
)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: Option<KeysCommand>,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Shared keys, what is being agreed on, and pins
    List,
    /// Agree on a key with a node, now or when it can be reached
    Exchange {
        /// The node's name or id
        node: String,
        /// For how long, such as 12h or 30d; it is renewed by itself before it ends
        #[arg(long, value_name = "TIME", value_parser = duration)]
        lifetime: Option<Duration>,
    },
    /// Put a new key in the place of one
    Rotate {
        /// A node, a key's id, or this node for its static key
        #[arg(value_name = "NODE|KEY")]
        target: String,
    },
    /// End a key, or all keys shared with a node: here at once, on the other side as soon as it hears of it
    Revoke {
        /// A node, or a key's id
        #[arg(value_name = "NODE|KEY")]
        target: String,
    },
    /// Add a key that you give to both nodes yourself
    Add {
        /// The node's name or id
        node: String,
        /// The file with the key, readable by you alone; - reads standard input
        #[arg(long, value_name = "FILE")]
        psk_file: PathBuf,
        /// For how long
        #[arg(long, value_name = "TIME", value_parser = duration)]
        lifetime: Option<Duration>,
    },
    /// Let a node that asks for a key have one
    Approve {
        /// The node's name or id
        node: String,
    },
    /// Refuse a node that asks for a key
    Deny {
        /// The node's name or id
        node: String,
    },
    /// Bind a node's name to its identity: nobody else is accepted under it
    Pin {
        /// The node's name or id
        node: String,
        /// Accept no other static key of it either, until it is pinned anew or unpinned; a rotation then needs a new pin
        #[arg(long)]
        static_key: bool,
    },
    /// Take a pin away
    Unpin {
        /// The node's name or id
        node: String,
    },
}

pub(crate) fn run(context: &Context, args: KeysArgs) -> Result<(), Failure> {
    match args.command {
        None | Some(KeysCommand::List) => list(context),
        Some(KeysCommand::Exchange { node, lifetime }) => {
            let lifetime = lifetime.map(|lifetime| lifetime.as_secs());
            outcome(context, &node, "exchange", &json!({ "lifetime_s": lifetime }))
        }
        Some(KeysCommand::Rotate { target }) => outcome(context, &target, "rotate", &json!({})),
        Some(KeysCommand::Revoke { target }) => revoke(context, &target),
        Some(KeysCommand::Add {
            node,
            psk_file,
            lifetime,
        }) => add(context, &node, &psk_file, lifetime),
        Some(KeysCommand::Approve { node }) => answer(context, &node, "approve"),
        Some(KeysCommand::Deny { node }) => answer(context, &node, "deny"),
        Some(KeysCommand::Pin { node, static_key }) => pin(context, &node, static_key),
        Some(KeysCommand::Unpin { node }) => unpin(context, &node),
    }
}

fn post(context: &Context, target: &str, verb: &str, body: &Value) -> Result<Box<RawValue>, Failure> {
    let client = context.client()?;
    let path = format!("/api/keys/{}/{verb}", segment(target));
    context.wait(async { Ok(client.post(&path, body).await?) })
}

#[derive(Deserialize)]
struct Listed {
    static_key: StaticKey,
    keys: Vec<Key>,
    waiting: Vec<Waiting>,
    requests: Vec<Asks>,
    pins: Vec<Pin>,
}

#[derive(Deserialize)]
struct StaticKey {
    public: String,
    rotates: Timestamp,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: Option<String>,
}

impl Named {
    fn shown(&self) -> String {
        words::clean(self.name.as_ref().unwrap_or(&self.id)).into_owned()
    }
}

#[derive(Deserialize)]
struct Key {
    id: String,
    node: Named,
    origin: String,
    state: String,
    expires: Timestamp,
    renews: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Waiting {
    node: Named,
    state: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Asks {
    node: Named,
    expires: Timestamp,
}

#[derive(Deserialize)]
struct Pin {
    name: String,
    node: String,
    static_key: Option<String>,
    violation: Option<Violation>,
}

#[derive(Deserialize)]
struct Violation {
    message: String,
}

fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let listed: Box<RawValue> = context.wait(async { Ok(client.get("/api/keys").await?) })?;
    let out = context.out;
    out.answer(&listed, |listed: Listed| {
        let rotates = words::when(Some(listed.static_key.rotates));
        let public = styled(FAINT, &listed.static_key.public);
        out.line(format!("static key  {public}, is replaced {rotates}"))?;
        if !listed.keys.is_empty() {
            let mut rows = Rows::new(
                out.on_terminal(),
                &["NODE", "STATE", "ORIGIN", "EXPIRES", "RENEWED", "KEY"],
            );
            for key in listed.keys {
                let style = match key.state.as_str() {
                    "current" => GOOD,
                    "expired" => BAD,
                    _ => FAINT,
                };
                let renews = key
                    .renews
                    .map_or_else(|| "–".to_owned(), |time| words::when(Some(time)));
                rows.row([
                    (key.node.shown(), STRONG),
                    (key.state, style),
                    plain(key.origin),
                    plain(words::when(Some(key.expires))),
                    plain(renews),
                    (key.id, FAINT),
                ]);
            }
            out.line(format!("\n{}", rows.render()))?;
        }
        if !listed.waiting.is_empty() {
            let mut rows = Rows::new(out.on_terminal(), &["WAITS FOR", "STATE", "BECAUSE"]);
            for waiting in listed.waiting {
                let state = match waiting.state.as_str() {
                    "asked" => "its owner is asked",
                    _ => "is tried again",
                };
                let reason = waiting.reason.unwrap_or_default();
                rows.row([
                    (waiting.node.shown(), STRONG),
                    (state.into(), CAUTION),
                    plain(words::clean(&reason)),
                ]);
            }
            out.line(format!("\n{}", rows.render()))?;
        }
        let asked = !listed.requests.is_empty();
        if asked {
            let mut rows = Rows::new(out.on_terminal(), &["ASKS FOR A KEY", "UNTIL"]);
            for request in listed.requests {
                rows.row([
                    (request.node.shown(), STRONG),
                    plain(words::when(Some(request.expires))),
                ]);
            }
            out.line(format!("\n{}", rows.render()))?;
        }
        if !listed.pins.is_empty() {
            let mut rows = Rows::new(out.on_terminal(), &["PINNED", "STATIC KEY", "STATE", "NODE"]);
            for pin in listed.pins {
                let state = match pin.violation {
                    Some(violation) => (words::clean(&violation.message).into_owned(), BAD),
                    None => ("as pinned".to_owned(), GOOD),
                };
                let key = if pin.static_key.is_some() { "pinned" } else { "–" };
                rows.row([(pin.name, STRONG), plain(key), state, (pin.node, FAINT)]);
            }
            out.line(format!("\n{}", rows.render()))?;
        }
        if asked {
            out.note("Next: dawn keys approve NODE, or dawn keys deny NODE");
        }
        Ok(())
    })
}

#[derive(Deserialize)]
struct Outcome {
    node: Option<Named>,
    state: String,
    code: Option<String>,
    reason: Option<String>,
    key: Option<Key>,
}

fn outcome(context: &Context, target: &str, verb: &str, body: &Value) -> Result<(), Failure> {
    let answer = post(context, target, verb, body)?;
    let out = context.out;
    out.answer(&answer, |outcome: Outcome| {
        let node = outcome.node.as_ref().map_or_else(|| target.to_owned(), Named::shown);
        match outcome.state.as_str() {
            "agreed" => {
                let key = outcome.key.map(|key| {
                    let until = words::when(Some(key.expires));
                    format!("; it ends {until}: {}", styled(FAINT, key.id))
                });
                out.line(format!(
                    "a key is shared with {}{}",
                    styled(STRONG, node),
                    key.unwrap_or_default()
                ))
            }
            "rotated" => out.line("this node has a new static key; the one before opens for a while longer"),
            "asked" => {
                out.line(format!("the owner of {node} is asked"))?;
                out.note("Next: `dawn keys approve` on that node; `dawn keys list` shows how it goes");
                Ok(())
            }
            _ => {
                let reason = outcome.reason.map(|reason| format!(" ({})", words::clean(&reason)));
                out.line(format!("no key yet{}", reason.unwrap_or_default()))?;
                out.note(match outcome.code.as_deref() {
                    Some("unreachable") => format!("It is agreed on by itself when {node} can be reached."),
                    _ => "It is tried again by itself; `dawn keys list` shows how it goes.".to_owned(),
                });
                Ok(())
            }
        }
    })
}

#[derive(Deserialize)]
struct Revoked {
    node: Named,
    revoked: Vec<String>,
    given_up: bool,
    online: bool,
}

fn revoke(context: &Context, target: &str) -> Result<(), Failure> {
    let answer = post(context, target, "revoke", &json!({}))?;
    let out = context.out;
    out.answer(&answer, |revoked: Revoked| {
        let node = revoked.node.shown();
        if revoked.given_up {
            out.line(format!("no key is asked of {node} any more"))?;
        }
        if revoked.revoked.is_empty() {
            return Ok(());
        }
        let keys = words::count(revoked.revoked.len() as u64, "key");
        let told = if revoked.online {
            "is told"
        } else {
            "is told through other members, and when it is back"
        };
        out.line(format!("{keys} shared with {node} ended here; {node} {told}"))
    })
}

fn read_secret(file: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: &std::io::Error| Failure::io(&format!("{} could not be read", file.display()), error);
    let mut secret = Zeroizing::new(Vec::new());
    let read = if file == Path::new("-") {
        std::io::stdin().take(LONGEST).read_to_end(&mut secret)
    } else {
        let file_ = std::fs::File::open(file).map_err(|error| failed(&error))?;
        let metadata = file_.metadata().map_err(|error| failed(&error))?;
        if metadata.is_file() && metadata.mode() & 0o077 != 0 {
            let words = format!("{} can be read by others", file.display());
            return Err(
                Failure::new(Exit::Failed, "key_permissions", words).next(format!("chmod 600 {}", file.display()))
            );
        }
        file_.take(LONGEST).read_to_end(&mut secret)
    };
    read.map_err(|error| failed(&error))?;
    // The line break that an editor or `echo` puts at the end is no part of the key.
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    Ok(secret)
}

fn add(context: &Context, node: &str, file: &Path, lifetime: Option<Duration>) -> Result<(), Failure> {
    let secret = read_secret(file)?;
    let lifetime = lifetime.map(|lifetime| lifetime.as_secs());
    let body = json!({ "secret": BASE64.encode(&secret), "lifetime_s": lifetime });
    let added = post(context, node, "psk", &body)?;
    let out = context.out;
    out.answer(&added, |_: Value| {
        out.line(format!("the key is kept; add the same on {node}, for this node"))
    })
}

fn answer(context: &Context, node: &str, verb: &str) -> Result<(), Failure> {
    let _nothing = post(context, node, verb, &json!({}))?;
    if context.out.json {
        return context.out.document(&json!({ "node": node, "answer": verb }));
    }
    context.out.line(match verb {
        "approve" => format!("{node} gets a key"),
        _ => format!("{node} gets no key"),
    })
}

fn pin(context: &Context, node: &str, static_key: bool) -> Result<(), Failure> {
    let pinned = post(context, node, "pin", &json!({ "static_key": static_key }))?;
    let out = context.out;
    #[derive(Deserialize)]
    struct Pinned {
        pin: Pin,
    }
    out.answer(&pinned, |Pinned { pin }: Pinned| {
        let (name, id) = (styled(STRONG, &pin.name), styled(FAINT, &pin.node));
        out.line(format!("the name {name} belongs to {id} from now on"))?;
        if static_key {
            out.note(format!(
                "When {} takes a new static key, pin it anew with --static-key: new channels and envelopes to it wait for that.",
                pin.name
            ));
        }
        Ok(())
    })
}

fn unpin(context: &Context, node: &str) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/keys/{}/pin", segment(node));
    let unpinned: Box<RawValue> = context.wait(async { Ok(client.delete(&path).await?) })?;
    context.out.answer(&unpinned, |_: Value| {
        context.out.line(format!("{node} is not pinned any more"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused_and_a_line_break_is_no_part_of_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\r\n").unwrap();
        assert_eq!(read_secret(file.path()).unwrap().as_slice(), b"secret");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let failure = read_secret(file.path()).unwrap_err();
        assert_eq!(failure.document().unwrap()["error"]["code"], "key_permissions");
    }
}
