//! A quick look at whether an agent does what clients count on, in each era that it speaks by itself.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use dawn_identity::AgentAddress;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::{AgentClient, ClientError};
use crate::fault::{Fault, FaultCode};
use crate::gateway::Era;
use crate::jsonrpc::codes;
use crate::router::Router;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the time of an answer is measured.
const ROUNDS: usize = 20;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Clients may trip over it.
    Warning,
    /// Clients do trip over it.
    Failed,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `legacy` or `modern`.
    pub era: &'static str,
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub state: State,
    /// What was found.
    pub message: String,
}

struct Checks {
    era: &'static str,
    all: Vec<Check>,
}

impl Checks {
    fn add(&mut self, name: &'static str, state: State, message: impl Into<String>) {
        self.all.push(Check {
            era: self.era,
            name,
            state,
            message: message.into(),
        });
    }
}

/// Looks at an agent.
///
/// # Errors
/// There is no such agent, or its node cannot be reached.
pub async fn check(router: &Router, address: &AgentAddress) -> Result<Vec<Check>, Fault> {
    let nodes = router.instances(address)?;
    let agents = router.directory().agents();
    let entry = agents
        .iter()
        .find(|entry| nodes.first() == Some(&entry.node) && entry.summary.name == address.agent);
    let summary = entry.map(|entry| &entry.summary).ok_or_else(|| {
        let words = format!("there is no agent {address} that is online; see `dawn agent list`");
        Fault::new(FaultCode::UnknownAgent, words)
    })?;
    let mut found = Vec::new();
    for (era, name, speaks) in [
        (Era::Legacy, "legacy", summary.legacy),
        (Era::Modern, "modern", summary.modern),
    ] {
        // An agent that was never ready is looked at as most clients would.
        if speaks || (era == Era::Legacy && !summary.modern) {
            let mut checks = Checks {
                era: name,
                all: Vec::new(),
            };
            look(router, address, era, &mut checks).await;
            found.append(&mut checks.all);
        }
    }
    Ok(found)
}

async fn soon<T>(asked: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
        let words = format!("no answer within {} s", PATIENCE.as_secs());
        Err(Fault::new(FaultCode::Timeout, words).into())
    })
}

async fn look(router: &Router, address: &AgentAddress, era: Era, checks: &mut Checks) {
    let begun = Instant::now();
    let connected = soon(AgentClient::connect_in(router.clone(), address.clone(), era)).await;
    let mut client = match connected {
        Ok(client) => client,
        Err(error) => return checks.add("begin", State::Failed, error.to_string()),
    };
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let server: Value = client
        .server()
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    checks.add("begin", State::Ok, format!("{} in {took:.0} ms", revision(&server)));
    name(&server, checks);
    let offers = |what: &str| server["capabilities"].get(what).is_some();
    if offers("tools") {
        tools(&mut client, checks).await;
    }
    for (what, method, member) in [
        ("resources", "resources/list", "resources"),
        ("prompts", "prompts/list", "prompts"),
    ] {
        if offers(what) {
            match soon(client.list(method, member)).await {
                Ok(items) => checks.add(what, State::Ok, format!("{} listed", items.len())),
                Err(error) => checks.add(
                    what,
                    State::Failed,
                    format!("it says it has {what}, and {method}: {error}"),
                ),
            }
        }
    }
    refusals(&mut client, checks, offers("tools")).await;
    speed(&mut client, era, checks).await;
}

fn revision(server: &Value) -> String {
    let offered = server["supportedVersions"].as_array().map(|versions| {
        let versions: Vec<&str> = versions.iter().filter_map(Value::as_str).collect();
        versions.join(", ")
    });
    let spoken = offered.or_else(|| server["protocolVersion"].as_str().map(str::to_owned));
    spoken.map_or_else(|| "it names no revision".to_owned(), |spoken| format!("MCP {spoken}"))
}

fn name(server: &Value, checks: &mut Checks) {
    let info = &server["serverInfo"];
    let own = &server["_meta"]["io.modelcontextprotocol/serverInfo"];
    let info = if info.is_object() { info } else { own };
    match (info["name"].as_str(), info["version"].as_str()) {
        (Some(name), Some(version)) => checks.add("name", State::Ok, format!("{name} {version}")),
        (Some(name), None) => checks.add("name", State::Warning, format!("{name}, without a version")),
        (None, _) => checks.add("name", State::Warning, "it does not say what it is"),
    }
}

async fn tools(client: &mut AgentClient, checks: &mut Checks) {
    let listed = match soon(client.list("tools/list", "tools")).await {
        Ok(listed) => listed,
        Err(error) => {
            return checks.add(
                "tools",
                State::Failed,
                format!("it says it has tools, and tools/list: {error}"),
            );
        }
    };
    let tools: Vec<Value> = listed
        .iter()
        .filter_map(|raw| serde_json::from_str(raw.get()).ok())
        .collect();
    let mut seen = HashSet::new();
    let mut wrong = Vec::new();
    let mut odd = Vec::new();
    for tool in &tools {
        let name = tool["name"].as_str().unwrap_or_default();
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || !seen.insert(name) {
            wrong.push(format!("{name:?} is no name, or comes twice"));
        } else if name.len() > 128 || !name.bytes().all(is_legal) {
            odd.push(format!("{name:?} has characters that clients may refuse"));
        }
        if tool["inputSchema"]["type"] != "object" {
            wrong.push(format!("{name}: its inputSchema is not of the type object"));
        }
        if tool["description"].as_str().is_none_or(|text| text.trim().is_empty()) {
            odd.push(format!("{name} has no description, by which a model would choose it"));
        }
    }
    let count = format!("{} listed", tools.len());
    match (wrong.as_slice(), odd.as_slice()) {
        ([], []) => checks.add("tools", State::Ok, count),
        ([], odd) => checks.add("tools", State::Warning, format!("{count}; {}", odd.join("; "))),
        (wrong, _) => checks.add("tools", State::Failed, format!("{count}; {}", wrong.join("; "))),
    }
}

/// What is not there has to be refused, not ignored.
async fn refusals(client: &mut AgentClient, checks: &mut Checks, has_tools: bool) {
    const NONE: &str = "dawn/check/no-such-method";
    match soon(client.request(NONE, "{}", &mut |_| {})).await {
        Err(ClientError::Agent {
            code: codes::METHOD_NOT_FOUND,
            ..
        }) => checks.add("unknown method", State::Ok, "refused with -32601"),
        Err(ClientError::Agent { code, .. }) => {
            checks.add(
                "unknown method",
                State::Warning,
                format!("refused with {code} in place of -32601"),
            );
        }
        Err(error) => checks.add("unknown method", State::Failed, error.to_string()),
        Ok(_) => checks.add("unknown method", State::Failed, "answered with a result"),
    }
    if !has_tools {
        return;
    }
    let called = soon(client.call_tool("dawn-check-no-such-tool", "{}", &mut |_| {})).await;
    let is_error =
        |result: &RawValue| serde_json::from_str::<Value>(result.get()).is_ok_and(|result| result["isError"] == true);
    match called {
        Err(ClientError::Agent { code, .. }) => checks.add("unknown tool", State::Ok, format!("refused with {code}")),
        Ok(result) if is_error(&result) => checks.add("unknown tool", State::Ok, "answered with isError"),
        Ok(_) => checks.add(
            "unknown tool",
            State::Failed,
            "answered with a result, as if it were there",
        ),
        Err(error) => checks.add("unknown tool", State::Failed, error.to_string()),
    }
}

async fn speed(client: &mut AgentClient, era: Era, checks: &mut Checks) {
    let method = match era {
        Era::Legacy => "ping",
        Era::Modern => "server/discover",
    };
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        if let Err(error) = soon(client.request(method, "{}", &mut |_| {})).await {
            return checks.add("answers", State::Failed, format!("{method}: {error}"));
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (median, most) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    checks.add(
        "answers",
        State::Ok,
        format!("{method} in {median:.1} ms, at most {most:.1} ms"),
    );
}
