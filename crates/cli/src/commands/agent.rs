//! `dawn agent`: what this node shares, and what the network offers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use dawn_identity::{AgentAddress, AgentName, NodeId};
use dawn_node::client::{Client, ClientError, segment};
use dawn_node::config::{
    AgentConfig, CallerHint, CallerLimitsConfig, Isolation, OauthConfig, SecureConfig, SigningConfig, edit,
};
use dawn_node::error::NodeError;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{client_file, inspect, listing};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{BAD, CAUTION, GOOD, STRONG, styled, understood, words};

/// Where the secret of a registered OAuth client comes from: arguments can be seen by others.
const CLIENT_SECRET: &str = "DAWN_OAUTH_CLIENT_SECRET";
/// How long `dawn agent add` waits for the first answer of what was added: longer than its host does, which says why
/// there is none.
const FIRST_ANSWER: Duration = Duration::from_secs(40);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
/// After how long it says that it waits.
const WAITED: Duration = Duration::from_secs(2);

/// The agents (MCP servers) of this node and of the network
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    Add(AddArgs),
    Import(ImportArgs),
    List(listing::ListArgs),
    /// Stop sharing an agent of this node
    Remove {
        /// Its name
        name: AgentName,
    },
    /// End an agent's processes and start it anew
    Restart {
        /// Its name
        name: AgentName,
    },
    Login(super::login::LoginArgs),
    /// Forget the login at an agent's server
    Logout {
        /// Its name
        name: AgentName,
    },
    /// A quick look at whether an agent does what clients count on; fails when it does not
    Check {
        /// Its address, node:agent; any:agent is the nearest node that has it
        address: AgentAddress,
    },
    Inspect(inspect::InspectArgs),
}

/// Share an MCP server with the network
#[derive(Debug, Args)]
#[command(
    after_help = "It waits for the agent's first answer. One that gives none is added all the same, and tried again by itself; the exit code is then 1. A server that asks for a login has answered.\n\nExamples:\n  dawn agent add files -- npx -y @modelcontextprotocol/server-filesystem ~/notes\n  dawn agent add search --url http://127.0.0.1:9000/mcp --header 'X-Key: secret'\n  dawn agent add desk --url wss://desk.example.org/ws/desk/files --node 12D3KooW…\n  dawn agent add git --env TOKEN=… --directory ~/src --isolation shared -- mcp-server-git"
)]
struct AddArgs {
    /// Its name on this node
    name: AgentName,
    /// A variable of the program's environment, repeatable
    #[arg(long, value_name = "K=V", value_parser = variable, conflicts_with = "url")]
    env: Vec<(String, String)>,
    /// A header sent to the server, repeatable
    #[arg(long, value_name = "K:V", value_parser = header, requires = "url")]
    header: Vec<(String, String)>,
    /// The program's working directory
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    directory: Option<PathBuf>,
    /// Whether clients share one process
    #[arg(long, value_enum, default_value_t = Isolated::Session)]
    isolation: Isolated,
    /// How the agent is told who calls
    #[arg(long, value_enum, default_value_t = Caller::Auto)]
    caller: Caller,
    /// The address of a Streamable HTTP server, or of a WebSocket server (`ws://`, `wss://`)
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    url: Option<String>,
    /// The node that the WebSocket server is: it is spoken with in a secure channel
    #[arg(long, value_name = "NODE-ID", requires = "url")]
    node: Option<NodeId>,
    /// What vouches for each message in the secure channel; the node there has to want the same
    #[arg(long, value_enum, requires = "node", default_value_t = Signing::EachMessage)]
    signing: Signing,
    /// The id of an OAuth client that was registered at the server beforehand; its secret is read from the variable
    /// `DAWN_OAUTH_CLIENT_SECRET`
    #[arg(long, value_name = "ID", requires = "url")]
    oauth_client_id: Option<String>,
    /// The address of an OAuth client id metadata document, `https://…`
    #[arg(long, value_name = "URL", requires = "url")]
    oauth_client_metadata: Option<String>,
    /// A scope to ask for at login beside those that the server names, repeatable
    #[arg(long, value_name = "SCOPE", requires = "url")]
    oauth_scope: Vec<String>,
    /// A program that speaks MCP over standard I/O, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Isolated {
    /// A process for each session
    Session,
    /// One process for all
    Shared,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Signing {
    /// Its sender's signature
    EachMessage,
    /// The channel alone
    ChannelOnly,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Caller {
    /// By environment, headers or `_meta`, as fits the agent
    Auto,
    /// By `_meta` always
    Meta,
    /// Not at all
    None,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write it as NAME: VALUE".to_owned()),
    }
}

pub(crate) fn run(context: &Context, args: AgentArgs) -> Result<(), Failure> {
    match args.command {
        AgentCommand::Add(args) => add(context, args),
        AgentCommand::Import(args) => import(context, &args),
        AgentCommand::List(args) => listing::run(context, &args),
        AgentCommand::Remove { name } => remove(context, &name),
        AgentCommand::Restart { name } => restart(context, &name),
        AgentCommand::Login(args) => super::login::run(context, &args),
        AgentCommand::Logout { name } => super::login::forget(context, &name),
        AgentCommand::Check { address } => check(context, &address),
        AgentCommand::Inspect(args) => inspect::run(context, &args),
    }
}

/// The node has another working directory: what is relative here is made absolute.
fn configured(args: AddArgs) -> Result<AgentConfig, Failure> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path)
            .map_err(|error| Failure::io(&format!("{} could not be found", path.display()), &error))
    };
    if args.command.is_empty() && args.url.is_none() {
        return Err(Failure::usage("neither a program nor an address was given")
            .next("dawn agent add NAME -- PROGRAM ARGUMENTS, or dawn agent add NAME --url URL"));
    }
    let mut command = args.command;
    if let Some(program) = command.first_mut()
        && program.contains('/')
    {
        *program = absolute(PathBuf::from(program.as_str()))?
            .to_string_lossy()
            .into_owned();
    }
    let config = AgentConfig {
        command: (!command.is_empty()).then_some(command),
        url: args.url,
        env: args.env.into_iter().collect(),
        headers: args.header.into_iter().collect::<BTreeMap<_, _>>(),
        oauth: OauthConfig {
            client_secret: args
                .oauth_client_id
                .as_ref()
                .and_then(|_| std::env::var(CLIENT_SECRET).ok()),
            client_id: args.oauth_client_id,
            metadata_url: args.oauth_client_metadata,
            scopes: args.oauth_scope,
        },
        secure: args.node.map(|node| SecureConfig {
            node,
            signing: match args.signing {
                Signing::EachMessage => SigningConfig::EachMessage,
                Signing::ChannelOnly => SigningConfig::ChannelOnly,
            },
        }),
        directory: args.directory.map(absolute).transpose()?,
        isolation: match args.isolation {
            Isolated::Session => Isolation::Session,
            Isolated::Shared => Isolation::Shared,
        },
        caller: match args.caller {
            Caller::Auto => CallerHint::Auto,
            Caller::Meta => CallerHint::Meta,
            Caller::None => CallerHint::None,
        },
        limits: CallerLimitsConfig::default(),
        access: Vec::new(),
    };
    config.check().map_err(|error| match error {
        NodeError::Config(words) => Failure::usage(words).next("see `dawn agent add --help`"),
        other => other.into(),
    })?;
    Ok(config)
}

/// Share the servers of an MCP client's configuration file
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn agent import ~/.cursor/mcp.json\n  dawn agent import .vscode/mcp.json --only files --only git"
)]
struct ImportArgs {
    /// The file: of Claude, Cursor, VS Code, Windsurf, Zed or Codex
    file: PathBuf,
    /// Only this server, repeatable
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// Adds every server of a file; one that cannot be added does not keep the others out.
fn import(context: &Context, args: &ImportArgs) -> Result<(), Failure> {
    let servers = client_file::servers(&args.file)?;
    let missing: Vec<&String> = args.only.iter().filter(|name| !servers.contains_key(*name)).collect();
    if let [missing, ..] = missing.as_slice() {
        let words = format!("{} has no server {missing:?}", args.file.display());
        return Err(Failure::new(Exit::Failed, "not_found", words));
    }
    let out = context.out;
    let mut answers = Vec::new();
    let mut exit = 0;
    for (name, server) in servers {
        if !args.only.is_empty() && !args.only.contains(&name) {
            continue;
        }
        match imported(&name, server).and_then(|(name, config)| share(context, &name, &config)) {
            Ok(added) => {
                exit = exit.max(u8::from(!has_answered(&added)));
                if out.json {
                    answers.push(added);
                } else {
                    say(context, &added)?;
                }
            }
            Err(failure) => {
                exit = failure.exit_code();
                let why = failure.words().map_or("", |(words, _)| words);
                out.note(format!("{} is left out: {why}", words::clean(&name)));
                answers.push(json!({ "name": name, "error": why }));
            }
        }
    }
    if out.json {
        out.document(&answers)?;
    }
    if exit == 0 { Ok(()) } else { Err(Failure::Said(exit)) }
}

/// A server of a client as an agent of this node.
fn imported(name: &str, server: client_file::Server) -> Result<(AgentName, AgentConfig), Failure> {
    let bad = |words: String| Failure::new(Exit::Failed, "client_config", words);
    let plain: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let plain = plain.trim_matches('-').parse();
    let agent: AgentName = plain.map_err(|error| bad(format!("{name:?} gives no agent's name ({error})")))?;
    if server.command.as_deref()
        == std::env::current_exe()
            .ok()
            .as_deref()
            .and_then(std::path::Path::to_str)
    {
        return Err(bad("it is this node itself; it is left out".to_owned()));
    }
    let input = |text: &String| text.contains("${");
    if server
        .args
        .iter()
        .chain(server.env.values())
        .chain(server.headers.values())
        .any(input)
    {
        return Err(bad(
            "it has values that its client fills in (${…}); add it with `dawn agent add` and the values".to_owned(),
        ));
    }
    let command = server
        .command
        .map(|command| std::iter::once(command).chain(server.args).collect());
    let config = AgentConfig {
        command,
        url: server.url,
        env: server.env,
        headers: server.headers,
        directory: server.cwd,
        ..AgentConfig::default()
    };
    config.check()?;
    Ok((agent, config))
}

fn add(context: &Context, args: AddArgs) -> Result<(), Failure> {
    let name = args.name.clone();
    let config = configured(args)?;
    let added = share(context, &name, &config)?;
    if context.out.json {
        context.out.document(&added)?;
    } else {
        say(context, &added)?;
    }
    if has_answered(&added) {
        Ok(())
    } else {
        Err(Failure::Said(Exit::Failed as u8))
    }
}

/// Whether an agent that was added is as good as it can be for now: a server that asks for a login has answered.
fn has_answered(added: &Value) -> bool {
    match added["state"].as_str() {
        Some("failed") => wants_login(added),
        state => state != Some("starting"),
    }
}

fn wants_login(added: &Value) -> bool {
    added["error_code"] == "login_required"
}

/// Adds an agent to the running node, or to the configuration of one that does not run; returns what became of it.
fn share(context: &Context, name: &AgentName, config: &AgentConfig) -> Result<Value, Failure> {
    let client = match Client::connect(&context.home) {
        Ok(client) => client,
        Err(ClientError::NotRunning) => {
            context.home.create()?;
            if let Some(command) = &config.command {
                let found = dawn_mcp::host::locate(command, &config.env, config.directory.as_deref());
                found.map_err(NodeError::NoProgram)?;
            }
            edit::add_agent(&context.home, name, config)?;
            return Ok(json!({ "name": name, "state": "configured" }));
        }
        Err(error) => return Err(error.into()),
    };
    let mut body = serde_json::to_value(config).map_err(|error| {
        Failure::new(
            Exit::Failed,
            "internal",
            format!("the agent could not be expressed: {error}"),
        )
    })?;
    body["name"] = json!(name);
    context.wait(async {
        let mut added: Value = client.post("/api/agents", &body).await?;
        // What it is, its first answer says.
        let asked = async {
            let begun = Instant::now();
            let mut is_told = false;
            while added["state"] == "starting" {
                if !is_told && begun.elapsed() > WAITED {
                    is_told = true;
                    context.out.note(format!("waiting for the first answer of {name}…"));
                }
                tokio::time::sleep(LOOK).await;
                let all: Value = client.get("/api/agents").await?;
                let all = all["agents"].as_array().cloned().unwrap_or_default();
                let own = |agent: &Value| agent["this"] == true && agent["name"] == name.as_str();
                added = all.into_iter().find(own).unwrap_or_default();
            }
            Ok::<(), ClientError>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(FIRST_ANSWER, asked).await {
            return Err(error.into());
        }
        Ok(added)
    })
}

fn say(context: &Context, added: &Value) -> Result<(), Failure> {
    let out = context.out;
    let name = words::clean(added["name"].as_str().unwrap_or_default());
    let Some(address) = added["address"].as_str() else {
        return out.line(format!("agent {name} is configured; it starts with `dawn up`"));
    };
    let address = words::clean(address);
    let strong = styled(STRONG, &address);
    match added["state"].as_str() {
        Some("ready") => {
            let tools = words::count(added["tools"].as_u64().unwrap_or_default(), "tool");
            out.line(format!("{} agent {strong} is ready, with {tools}", styled(GOOD, "✓")))?;
            out.note(format!("Next: dawn agent inspect {address}"));
        }
        Some("failed") if wants_login(added) => {
            out.line(format!(
                "{} agent {strong} is added; its server asks for a login",
                styled(CAUTION, "!")
            ))?;
            out.note(format!("Next: dawn agent login {name}"));
        }
        _ => {
            let late = || format!("no answer within {} s", FIRST_ANSWER.as_secs());
            let why = added["error"].as_str().map_or_else(late, words::one_line);
            out.line(format!(
                "{} agent {strong} is added, but does not work yet: {why}",
                styled(BAD, "✗")
            ))?;
            out.note(format!(
                "It is tried again by itself: `dawn agent list --watch` shows when it is ready, `dawn agent remove {name}` takes it out."
            ));
        }
    }
    Ok(())
}

fn remove(context: &Context, name: &AgentName) -> Result<(), Failure> {
    match Client::connect(&context.home) {
        Ok(client) => {
            let path = format!("/api/agents/{}", segment(name.as_str()));
            context.wait(async { Ok(client.delete::<Value>(&path).await?) })?;
        }
        Err(ClientError::NotRunning) => edit::remove_agent(&context.home, name)?,
        Err(error) => return Err(error.into()),
    }
    if context.out.json {
        return context.out.document(&json!({ "name": name, "removed": true }));
    }
    context.out.line(format!("agent {name} is no longer shared"))
}

#[derive(Deserialize)]
struct Checked {
    ok: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    era: String,
    name: String,
    state: String,
    message: String,
}

fn check(context: &Context, address: &AgentAddress) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!(
        "/api/check/{}/{}",
        segment(&address.node.to_string()),
        segment(address.agent.as_str())
    );
    let answer: Box<RawValue> = context.wait(async { Ok(client.get(&path).await?) })?;
    let Checked { ok, checks } = understood(&answer)?;
    let out = context.out;
    out.answer(&answer, |_: Value| {
        for check in checks {
            let mark = match check.state.as_str() {
                "ok" => styled(GOOD, "✓"),
                "warning" => styled(CAUTION, "!"),
                _ => styled(BAD, "✗"),
            };
            let (era, name) = (words::clean(&check.era), words::clean(&check.name));
            out.line(format!("{mark} {era:<7} {name:<15} {}", words::clean(&check.message)))?;
        }
        Ok(())
    })?;
    if ok {
        Ok(())
    } else {
        Err(Failure::Said(Exit::Failed as u8))
    }
}

fn restart(context: &Context, name: &AgentName) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/agents/{}/restart", segment(name.as_str()));
    context.wait(async { Ok(client.post::<Value>(&path, &json!({})).await?) })?;
    if context.out.json {
        return context.out.document(&json!({ "name": name, "restarted": true }));
    }
    context.out.line(format!("agent {name} starts anew"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_headers_are_pairs() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("=x").is_err() && variable("A").is_err());
        assert_eq!(header("X-Key: a:b"), Ok(("X-Key".to_owned(), "a:b".to_owned())));
        assert!(header("X-Key").is_err());
    }
}
