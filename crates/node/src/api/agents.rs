//! `/api/agents`, `/api/inspect` and `/api/call`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use dawn_identity::{AgentAddress, AgentName};
use dawn_mcp::client::{AgentClient, ClientError};
use dawn_mcp::gateway::Era;
use dawn_mcp::jsonrpc::Message;
use dawn_mcp::router::{AgentEntry, Directory as _};
use dawn_registry::AgentState;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::peers::ago;
use crate::config::AgentConfig;
use crate::node::NodeState;

fn state_name(state: AgentState) -> &'static str {
    match state {
        AgentState::Starting => "starting",
        AgentState::Ready => "ready",
        AgentState::Failed => "failed",
    }
}

/// An agent as the API shows it.
fn shown(state: &NodeState, entry: &AgentEntry) -> Value {
    let summary = &entry.summary;
    let this = entry.node == state.node_id();
    let mut eras = Vec::new();
    if summary.legacy {
        eras.push("legacy");
    }
    if summary.modern {
        eras.push("modern");
    }
    let status = this.then(|| state.host.status_of(&summary.name)).flatten();
    let error = status.as_ref().and_then(|status| status.error.as_ref());
    json!({
        "address": format!("{}:{}", entry.node_name, summary.name),
        "node": { "id": entry.node, "name": entry.node_name },
        "name": summary.name,
        "title": summary.title,
        "version": summary.version,
        "state": state_name(summary.state),
        "eras": eras,
        "tools": summary.tools_total,
        "resources": summary.resources,
        "prompts": summary.prompts,
        "this": this,
        "latency_ms": state.latency_ms(entry.node),
        "error": error.map(|fault| &fault.message),
        "error_code": error.map(|fault| fault.code.slug()),
        "crashes": status.as_ref().map(|status| status.crashes.count),
        "last_crash": status.as_ref().and_then(|status| status.crashes.last).map(|last| ago(last.elapsed())),
        "source": status.as_ref().map(|_| state.source_of(&summary.name)),
    })
}

pub(super) async fn list(State(state): State<NodeState>) -> Json<Value> {
    let sorted = |mut agents: Vec<AgentEntry>| -> Vec<Value> {
        agents.sort_by(|a, b| (&a.node_name, &a.summary.name).cmp(&(&b.node_name, &b.summary.name)));
        agents.iter().map(|entry| shown(&state, entry)).collect()
    };
    let (agents, away) = (state.directory.agents(), state.directory.agents_away());
    Json(json!({ "agents": sorted(agents), "away": sorted(away) }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Added {
    name: AgentName,
    #[serde(flatten)]
    config: AgentConfig,
}

pub(super) async fn add(
    State(state): State<NodeState>,
    body: Result<Json<Added>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(added) = body.map_err(|error| ApiError::bad_request(error.body_text()))?;
    state.add_agent(added.name.clone(), added.config).await?;
    let agents = state.directory.agents();
    let entry = agents
        .iter()
        .find(|entry| entry.node == state.node_id() && entry.summary.name == added.name);
    let answer = entry.map_or_else(
        || json!({ "address": format!("{}:{}", state.node_name(), added.name), "name": added.name, "state": "starting" }),
        |entry| shown(&state, entry),
    );
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

pub(super) async fn remove(
    State(state): State<NodeState>,
    Path(name): Path<AgentName>,
) -> Result<StatusCode, ApiError> {
    state.remove_agent(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restart(
    State(state): State<NodeState>,
    Path(name): Path<AgentName>,
) -> Result<StatusCode, ApiError> {
    state.restart_agent(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn address(text: &str) -> Result<AgentAddress, ApiError> {
    text.parse().map_err(|error| {
        ApiError::bad_request(format!("{text:?} is no agent's address ({error})"))
            .next("node:agent, as in `dawn agent list`")
    })
}

pub(super) async fn inspect(
    State(state): State<NodeState>,
    Path((node, agent)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let address = address(&format!("{node}:{agent}"))?;
    let mut client = AgentClient::connect(state.router.clone(), address).await?;
    Ok(Json(client.inspect().await?).into_response())
}

pub(super) async fn check(
    State(state): State<NodeState>,
    Path((node, agent)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let address = address(&format!("{node}:{agent}"))?;
    let checks = dawn_mcp::check::check(&state.router, &address).await?;
    let ok = checks.iter().all(|check| check.state != dawn_mcp::check::State::Failed);
    Ok(Json(
        json!({ "address": address.to_string(), "ok": ok, "checks": checks }),
    ))
}

/// A call as it is asked for: of a tool, a prompt or a resource.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    agent: String,
    tool: Option<String>,
    prompt: Option<String>,
    resource: Option<String>,
    arguments: Option<Box<RawValue>>,
}

/// Why an agent was not reached: of others' agents a node that was put out has nothing to hope for.
fn from_outside(state: &NodeState, address: &AgentAddress, error: ClientError) -> ApiError {
    let node = state.directory.resolve(&address.node);
    match state.members.standing() {
        Err(why) if node != Ok(state.node_id()) => {
            let words = format!("this node is no member of its network any more: {why}");
            ApiError::new(StatusCode::FORBIDDEN, "not_allowed", words).next("dawn status")
        }
        Ok(()) | Err(_) => error.into(),
    }
}

enum What {
    Tool(String),
    Prompt(String),
    Resource(String),
}

struct Call {
    address: AgentAddress,
    what: What,
    arguments: Option<Box<RawValue>>,
}

impl TryFrom<Asked> for Call {
    type Error = ApiError;

    fn try_from(asked: Asked) -> Result<Self, ApiError> {
        let what = match (asked.tool, asked.prompt, asked.resource) {
            (Some(tool), None, None) => What::Tool(tool),
            (None, Some(prompt), None) => What::Prompt(prompt),
            (None, None, Some(uri)) => What::Resource(uri),
            _ => {
                return Err(ApiError::bad_request(
                    "a call names one of `tool`, `prompt` and `resource`",
                ));
            }
        };
        Ok(Self {
            address: address(&asked.agent)?,
            what,
            arguments: asked.arguments,
        })
    }
}

impl Call {
    async fn run(
        &self,
        state: &NodeState,
        on_notification: &mut (dyn FnMut(&Message) + Send),
    ) -> Result<Value, ApiError> {
        let begun = Instant::now();
        let client = AgentClient::connect(state.router.clone(), self.address.clone()).await;
        let mut client = client.map_err(|error| from_outside(state, &self.address, error))?;
        let arguments = self.arguments.as_ref().map_or("{}", |arguments| arguments.get());
        let result = match &self.what {
            What::Tool(tool) => client.call_tool(tool, arguments, on_notification).await,
            What::Prompt(prompt) => client.get_prompt(prompt, arguments, on_notification).await,
            What::Resource(uri) => client.read_resource(uri, on_notification).await,
        };
        let result = result.map_err(|error| match error {
            error @ ClientError::Agent { .. } => {
                ApiError::from(error).next(format!("`dawn agent inspect {}` shows what it offers", self.address))
            }
            error @ ClientError::Fault(_) => error.into(),
        })?;
        let era = match client.era() {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        };
        let latency = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        Ok(json!({ "result": result, "era": era, "latency_ms": latency }))
    }
}

pub(super) async fn call(
    State(state): State<NodeState>,
    headers: HeaderMap,
    body: Result<Json<Asked>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(asked) = body.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let call = Call::try_from(asked)?;
    let streams = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if !streams {
        return Ok(Json(call.run(&state, &mut |_| {}).await?).into_response());
    }
    let (sender, mut receiver) = mpsc::unbounded_channel::<Message>();
    let stream = async_stream(move |yielder| async move {
        let mut pass_on = |message: &Message| {
            // The reader below lives as long as this call.
            let _ = sender.send(message.clone());
        };
        let run = call.run(&state, &mut pass_on);
        tokio::pin!(run);
        loop {
            tokio::select! {
                Some(message) = receiver.recv() => {
                    let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
                    yielder.send(Event::default().event("notification").data(text)).await;
                }
                result = &mut run => {
                    let event = match result {
                        Ok(value) => Event::default().event("result").data(value.to_string()),
                        Err(error) => Event::default().event("error").data(error.json().to_string()),
                    };
                    return yielder.send(event).await;
                }
            }
        }
    });
    Ok(Sse::new(stream).into_response())
}

/// The sending half of a stream of events.
struct Yielder(mpsc::Sender<Event>);

impl Yielder {
    async fn send(&self, event: Event) {
        // A client that left cancels the stream by dropping it.
        let _ = self.0.send(event).await;
    }
}

/// A stream of what `produce` sends; dropping the stream drops `produce`.
fn async_stream<F>(produce: impl FnOnce(Yielder) -> F) -> impl futures::Stream<Item = Result<Event, Infallible>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(16);
    let producing = Box::pin(produce(Yielder(sender)));
    futures::stream::unfold(
        (receiver, Some(producing)),
        |(mut receiver, mut producing)| async move {
            loop {
                let Some(work) = &mut producing else {
                    return receiver.recv().await.map(|event| (Ok(event), (receiver, None)));
                };
                tokio::select! {
                    biased;
                    event = receiver.recv() => return event.map(|event| (Ok(event), (receiver, producing))),
                    () = work => producing = None,
                }
            }
        },
    )
}

/// What the API shows of where an agent comes from.
pub(crate) fn source(config: &AgentConfig) -> Value {
    let environment: BTreeMap<&String, &str> = config.env.keys().map(|key| (key, "…")).collect();
    match (&config.command, &config.url) {
        (Some(command), _) => json!({ "command": command, "env": environment }),
        (None, Some(url)) => {
            let url = url
                .parse()
                .map_or_else(|_| url.clone(), |url| dawn_mcp::host::shown(&url));
            match &config.secure {
                Some(secure) => json!({ "url": url, "secure": secure }),
                None => json!({ "url": url }),
            }
        }
        (None, None) => Value::Null,
    }
}
