//! Asks an agent what it is and offers, and keeps its summary fresh.

use std::sync::Arc;
use std::time::Duration;

use dawn_registry::{AgentState, AgentSummary, ToolSummary};
use serde_json::{Value, json};

use super::{Agent, Host, Isolation, Source};
use crate::fault::{Fault, FaultCode};
use crate::gateway::{LEGACY_VERSIONS, MODERN_VERSIONS};
use crate::jsonrpc::{Id, Kind, Message, codes};
use crate::link::Link;
use crate::wire::Mode;

const PAGES: usize = 32;
/// A legacy server may not answer `server/discover` at all.
const DISCOVER: Duration = Duration::from_secs(3);
/// Several changes of an agent's lists make one probe.
const SETTLE: Duration = Duration::from_millis(200);

/// Probes until the agent is removed: at once, when its lists changed, and again after failures.
pub(super) async fn keep_summary(host: Host, agent: Arc<Agent>) {
    let mut failures: u32 = 0;
    while !agent.stop.is_cancelled() {
        let Some(probed) = agent.stop.run_until_cancelled(probe(&host, &agent)).await else {
            return;
        };
        let pause = match probed {
            Ok(summary) => {
                failures = 0;
                tracing::info!(agent = %agent.name, tools = summary.tools_total, legacy = summary.legacy, modern = summary.modern, "ready");
                if agent.set(summary, None) {
                    host.changed();
                }
                None
            }
            Err(fault) => {
                failures = failures.saturating_add(1);
                // The same words again and again say nothing new.
                if agent.error().as_ref() == Some(&fault) {
                    tracing::debug!(agent = %agent.name, %fault, failures, "it does not answer still");
                } else {
                    tracing::warn!(agent = %agent.name, %fault, "it does not answer; it is tried again");
                }
                let mut summary = AgentSummary::starting(agent.name.clone());
                summary.state = AgentState::Failed;
                if agent.set(summary, Some(fault)) {
                    host.changed();
                }
                let limits = &host.0.limits;
                Some(
                    limits
                        .restart_first
                        .saturating_mul(1 << failures.min(16))
                        .min(limits.restart_max),
                )
            }
        };
        let again = async {
            match pause {
                // A login may help at once.
                Some(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = agent.stale.notified() => {}
                },
                None => agent.stale.notified().await,
            }
            tokio::time::sleep(SETTLE).await;
        };
        if agent.stop.run_until_cancelled(again).await.is_none() {
            return;
        }
    }
}

async fn probe(host: &Host, agent: &Arc<Agent>) -> Result<AgentSummary, Fault> {
    let modern = match tokio::time::timeout(DISCOVER, discover(host, agent)).await {
        Ok(Ok(modern)) => Some(modern),
        // Whatever era it speaks, it says nothing before the login.
        Ok(Err(fault)) if fault.code == FaultCode::LoginRequired => return Err(fault),
        Ok(Err(_)) | Err(_) => None,
    };
    if let Some((summary, versions)) = &modern
        && matches!(agent.spec.source, Source::Http { .. })
        && !versions
            .iter()
            .any(|version| LEGACY_VERSIONS.contains(&version.as_str()))
    {
        // Over HTTP a client that found a modern server stays modern.
        let mut summary = summary.clone();
        summary.modern = true;
        summary.state = AgentState::Ready;
        return Ok(summary);
    }
    let modern = modern.map(|(summary, _)| summary);
    if modern.is_none()
        && matches!(
            &agent.spec.source,
            Source::Stdio {
                isolation: Isolation::Session,
                ..
            } | Source::WebSocket { .. }
        )
    {
        // A process or a connection that nobody can share need not be there.
        agent.shared.lock().await.mux = None;
    }
    let legacy = tokio::time::timeout(host.0.limits.probe, initialize(host, agent)).await;
    let legacy = legacy.unwrap_or_else(|_| {
        Err(agent.failed(match &agent.spec.source {
            Source::Http { .. } | Source::WebSocket { .. } => "its server did not answer initialize in time",
            Source::Stdio { .. } | Source::InProcess(_) => {
                "it did not answer initialize in time; what it printed, if anything, is in the node's log"
            }
        }))
    });
    let mut summary = match (&modern, &legacy) {
        (_, Ok(summary)) | (Some(summary), Err(_)) => summary.clone(),
        (None, Err(fault)) => return Err(fault.clone()),
    };
    summary.modern = modern.is_some();
    summary.legacy = legacy.is_ok();
    summary.state = AgentState::Ready;
    Ok(summary)
}

/// A conversation of the probe's own.
struct Conversation<'a> {
    host: &'a Host,
    agent: &'a Arc<Agent>,
    session: Option<Link>,
    next: u64,
}

impl Conversation<'_> {
    async fn ask(&mut self, method: &str, params: Value) -> Result<Value, Fault> {
        let answer = self.answer(method, params).await?;
        answer.map_err(|error| self.agent.failed(format!("it answered {method} with {error}")))
    }

    /// The result, or the error of the agent.
    async fn answer(&mut self, method: &str, mut params: Value) -> Result<Result<Value, Value>, Fault> {
        self.next += 1;
        let id = format!("\"dawn-probe-{}\"", self.next);
        let broken = self
            .agent
            .failed("it ended while it was asked what it offers; what it printed, if anything, is in the node's log");
        let mut exchange;
        let link = match &mut self.session {
            Some(session) => session,
            None => {
                params["_meta"] = json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                    "io.modelcontextprotocol/clientInfo": { "name": "dawn", "version": env!("CARGO_PKG_VERSION") },
                });
                exchange = self.host.link(self.agent, Mode::Exchange, None, true).await?;
                &mut exchange
            }
        };
        link.sender
            .send(Message::request(&id, method, &params.to_string()).into())
            .await
            .map_err(|error| error.fault(&broken))?;
        loop {
            let frame = link
                .receiver
                .recv()
                .await
                .map_err(|error| error.fault(&broken))?
                .ok_or_else(|| broken.clone())?;
            let Ok(peek) = frame.message.peek() else { continue };
            if peek.kind() != Kind::Response || peek.id() != Id::parse(&id).ok() {
                continue;
            }
            let result = peek.result.and_then(|raw| serde_json::from_str(raw.get()).ok());
            let error = || peek.error.and_then(|raw| serde_json::from_str(raw.get()).ok());
            return Ok(result.ok_or_else(|| error().unwrap_or_default()));
        }
    }

    async fn list(&mut self, method: &str, member: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut params = json!({});
        for _ in 0..PAGES {
            // An agent without such a list answers an error.
            let Ok(mut page) = self.ask(method, params).await else {
                break;
            };
            if let Some(part) = page[member].as_array_mut() {
                items.append(part);
            }
            let Some(cursor) = page["nextCursor"].as_str() else {
                break;
            };
            params = json!({ "cursor": cursor });
        }
        items
    }

    async fn summary(&mut self, info: &Value, capabilities: &Value) -> AgentSummary {
        let mut summary = AgentSummary::starting(self.agent.name.clone());
        let name = info["title"].as_str().or(info["name"].as_str()).unwrap_or_default();
        summary.title = shorten(name);
        summary.version = shorten(info["version"].as_str().unwrap_or_default());
        let offers = |what: &str| capabilities.get(what).is_some();
        summary.param_headers = Some(false);
        self.agent.tasks.offered_by(capabilities);
        if offers("tools") {
            let tools = self.list("tools/list", "tools").await;
            summary.param_headers = Some(self.agent.headers.learn(&tools));
            summary.lists[0] = digest(&tools);
            summary.tools_total = count(&tools);
            summary.tools = tools
                .iter()
                .take(AgentSummary::TOOLS)
                .map(|tool| ToolSummary {
                    name: tool["name"].as_str().unwrap_or_default().chars().take(128).collect(),
                    description: shorten(tool["description"].as_str().unwrap_or_default()),
                })
                .collect();
        }
        if offers("resources") {
            let mut resources = self.list("resources/list", "resources").await;
            summary.resources = count(&resources);
            resources.extend(self.list("resources/templates/list", "resourceTemplates").await);
            summary.lists[2] = digest(&resources);
        }
        if offers("prompts") {
            let prompts = self.list("prompts/list", "prompts").await;
            summary.prompts = count(&prompts);
            summary.lists[1] = digest(&prompts);
        }
        summary
    }
}

/// A number that tells one list from another.
fn digest(items: &[Value]) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    for item in items {
        item.to_string().hash(&mut hasher);
    }
    hasher.finish()
}

fn count(items: &[Value]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn shorten(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(AgentSummary::DESCRIPTION_CHARS)
        .collect()
}

/// What a modern agent offers, and the revisions that it says it speaks.
async fn discover(host: &Host, agent: &Arc<Agent>) -> Result<(AgentSummary, Vec<String>), Fault> {
    let mut conversation = Conversation {
        host,
        agent,
        session: None,
        next: 0,
    };
    let mut answer = conversation.answer("server/discover", json!({})).await?;
    if let Err(error) = &answer
        && error["code"] == codes::UNSUPPORTED_VERSION
        && let Some(supported) = error["data"]["supported"].as_array()
        && MODERN_VERSIONS
            .iter()
            .any(|known| supported.iter().any(|version| version == known))
    {
        // It names a version that this node speaks as well.
        answer = conversation.answer("server/discover", json!({})).await?;
    }
    let found = answer.map_err(|error| agent.failed(format!("it answered server/discover with {error}")))?;
    let versions = found["supportedVersions"].as_array().into_iter().flatten();
    let versions: Vec<String> = versions.filter_map(Value::as_str).map(str::to_owned).collect();
    if versions.is_empty() {
        return Err(agent.failed("its answer to server/discover names no version"));
    }
    let info = found["_meta"]["io.modelcontextprotocol/serverInfo"].clone();
    Ok((conversation.summary(&info, &found["capabilities"]).await, versions))
}

async fn initialize(host: &Host, agent: &Arc<Agent>) -> Result<AgentSummary, Fault> {
    let session = host.link(agent, Mode::Session, None, true).await?;
    let mut conversation = Conversation {
        host,
        agent,
        session: Some(session),
        next: 0,
    };
    let params = json!({
        "protocolVersion": crate::gateway::LATEST_LEGACY,
        "capabilities": {},
        "clientInfo": { "name": "dawn", "version": env!("CARGO_PKG_VERSION") },
    });
    let answer = conversation.ask("initialize", params).await?;
    if let Some(session) = &mut conversation.session {
        let broken = agent.failed("it ended after initialize");
        session
            .sender
            .send(Message::notification("notifications/initialized", None).into())
            .await
            .map_err(|error| error.fault(&broken))?;
    }
    let summary = conversation
        .summary(&answer["serverInfo"], &answer["capabilities"])
        .await;
    if let Some(mut session) = conversation.session.take() {
        session.sender.close().await;
    }
    Ok(summary)
}
