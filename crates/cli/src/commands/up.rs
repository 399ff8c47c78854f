//! `dawn up`: the node itself.

use std::ffi::OsString;

use clap::Args;
use dawn_identity::Passphrase;
use dawn_identity::keyfile::KeyFileError;
use dawn_mcp::host::Guard;
use dawn_node::api::NodeEvent;
use dawn_node::config::{Config, Overrides};
use dawn_node::error::NodeError;
use dawn_node::node::Node;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::context::Context;
use crate::failure::Failure;
use crate::memory;
use crate::output::{BAD, CAUTION, FAINT, GOOD, Output, STRONG, styled, words};
use crate::passphrase;

/// How long an agent's processes may take to end after they were asked to, milliseconds.
const KILL_AFTER_MS: u32 = 2000;

/// Run the node, until Ctrl-C or `dawn down`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn up\n  dawn up --api 127.0.0.1:0 --json                the API on a free port, told in one JSON line\n  dawn up --listen /ip4/0.0.0.0/udp/7401/quic-v1  a fixed port, for a port forwarding"
)]
pub(crate) struct UpArgs {
    /// Where the local API listens; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS")]
    api: Option<String>,
    /// A multiaddress to listen on for other nodes, repeatable
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// A multiaddress under which others reach this node, repeatable
    #[arg(long, value_name = "MULTIADDR")]
    announce: Vec<String>,
    /// A node to stay connected to: a multiaddress that ends in /p2p/NODE, repeatable
    #[arg(long, value_name = "MULTIADDR")]
    bootstrap: Vec<String>,
    /// Neither look for nodes on the local network nor be found there
    #[arg(long)]
    no_mdns: bool,
}

pub(crate) fn run(context: &Context, args: UpArgs) -> Result<(), Failure> {
    memory::prepare();
    let overrides = Overrides {
        api: args.api,
        listen: args.listen,
        no_mdns: args.no_mdns,
    };
    let mut config = Config::load(&context.home.config_file(), &overrides)?;
    config.mesh.announce.extend(args.announce);
    config.mesh.bootstrap.extend(args.bootstrap);
    context.log(&config.log.filter)?;
    let passphrase = passphrase(context)?;
    let guard = guard()?;
    context.wait_on_threads(async {
        let failed = |error: std::io::Error| Failure::io("signals could not be listened for", &error);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let told = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        tokio::pin!(told);
        let start = Box::pin(Node::start(context.home.clone(), config, passphrase, guard));
        let node = tokio::select! {
            node = start => node?,
            () = &mut told => return Ok(()),
        };
        let events = node.state().events.subscribe();
        ready(context, &node)?;
        let telling = tokio::spawn(tell_joins(context.out, events));
        let tidying = tokio::spawn(memory::give_back());
        let out = context.out;
        node.run_until(async {
            told.await;
            out.note("the node is ending…");
        })
        .await;
        telling.abort();
        tidying.abort();
        out.note("the node has ended");
        Ok(())
    })
}

/// The passphrase of sealed keys: from the environment, or asked for.
fn passphrase(context: &Context) -> Result<Option<Passphrase>, Failure> {
    let given = passphrase::from_environment();
    let key = context.home.identity_key();
    if given.is_some() || !key.exists() {
        return Ok(given);
    }
    match context.home.read_key(&key, None) {
        Err(NodeError::Key {
            source: KeyFileError::NeedsPassphrase,
            ..
        }) => Ok(Some(passphrase::unlock()?)),
        // Any other error is told by the start.
        Ok(_) | Err(_) => Ok(None),
    }
}

/// This program as the supervisor of agents' processes.
fn guard() -> Result<Guard, Failure> {
    let own =
        std::env::current_exe().map_err(|error| Failure::io("this program's own path could not be found", &error))?;
    let mut command = vec![own.into_os_string()];
    let (patience, parent) = (KILL_AFTER_MS.to_string(), std::process::id().to_string());
    command.extend(["guard", "--kill-after-ms", &patience, "--parent", &parent, "--"].map(OsString::from));
    Ok(Guard::Command(command))
}

/// Says that the node runs, and where to go from here.
fn ready(context: &Context, node: &Node) -> Result<(), Failure> {
    let (out, state) = (context.out, node.state());
    let own = state.members.own();
    let listen = state.mesh.listen_addresses();
    if out.json {
        return out.json_line(&json!({
            "event": "ready",
            "api": node.api_url(),
            "gateway": state.exposed().map(|(listen, resources)| json!({ "listen": listen, "resources": resources })),
            "listen": listen,
            "node": { "id": own.node, "name": own.name },
        }));
    }
    let network = state.members.network_name();
    out.line(format!(
        "{} node {} of network {} is up",
        styled(GOOD, "✓"),
        styled(STRONG, &own.name),
        styled(STRONG, network)
    ))?;
    if let Err(why) = state.members.standing() {
        out.line(match words::waits(&why) {
            Some(_) => format!("{} {}", styled(CAUTION, "!"), words::no_member(&why)),
            None => format!("{} {}", styled(BAD, "✗"), words::no_member(&why)),
        })?;
    }
    let line = |name: &str, text: &str| out.line(format!("  {}  {text}", styled(FAINT, format!("{name:<7}"))));
    line("API", node.api_url())?;
    line("token", &context.home.api_token().display().to_string())?;
    if let Some((listen, resources)) = state.exposed() {
        for resource in resources {
            line("exposes", &format!("{resource} (on {listen})"))?;
        }
    }
    for address in &listen {
        line("listens", address)?;
    }
    if out.quiet {
        return Ok(());
    }
    out.line("")?;
    if state.members.may_admit() {
        out.line(format!(
            "  {:<32}{}",
            "dawn invite",
            styled(FAINT, "let another machine join")
        ))?;
    }
    for (command, what) in [
        ("dawn agent add NAME -- COMMAND", "share an MCP server"),
        (
            "dawn mcp --print-config claude",
            "connect an MCP client (or cursor, vscode, …)",
        ),
        (
            "dawn status",
            "see how it goes; dawn doctor when something does not work",
        ),
    ] {
        out.line(format!("  {command:<32}{}", styled(FAINT, what)))?;
    }
    out.line("\nCtrl-C or `dawn down` ends the node.")
}

/// Who sits at the node sees the words to compare, and the calls that wait.
async fn tell_joins(out: Output, mut events: Receiver<NodeEvent>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some(line) = join(event.name, &event.data) {
                    out.note(words::clean(&line));
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn join(event: &str, data: &Value) -> Option<String> {
    let text = |key: &str| data[key].as_str();
    if event == "call.waiting" {
        let (id, caller, agent, what) = (text("id")?, text("caller")?, text("agent")?, text("what")?);
        let caller = words::caller(caller, text("user"));
        return Some(format!(
            "{caller} wants to use {what} of {agent}: `dawn calls` shows it, `dawn calls allow {id}` lets it, `dawn calls deny {id}` does not"
        ));
    }
    let (name, words) = (text("name")?, text("words")?);
    match event {
        "join.admitted" => Some(format!(
            "{name} has joined; its safety words are {words}: compare them aloud, and if they differ, `dawn peers revoke {name}`"
        )),
        "join.requested" => {
            let id = text("id").unwrap_or("ID");
            Some(format!(
                "{name} asks to join; its safety words are {words}: if they are the same there, `dawn approve {id}`"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_is_told_with_its_words() {
        let data = json!({ "id": "r1", "name": "lab", "words": "a-b-c" });
        assert!(join("join.admitted", &data).unwrap().contains("a-b-c"));
        assert!(join("join.requested", &data).unwrap().contains("dawn approve r1"));
        assert_eq!(join("peer.up", &data), None);
    }
}
