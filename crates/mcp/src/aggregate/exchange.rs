//! One modern request to the aggregate.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use dawn_identity::AgentAddress;

use super::list::{ListKind, PAGES, joined, page, page_params, wrap};
use super::{Aggregate, FromClient, ToClient};
use crate::fault::{Fault, FaultCode};
use crate::gateway::MODERN_VERSIONS;
use crate::jsonrpc::{Kind, Message, Peek, codes};
use crate::link::Link;
use crate::wire::Mode;

/// Serves the one request that comes.
pub(super) async fn serve(aggregate: Aggregate, mut from_client: FromClient, to_client: ToClient) {
    let Some(Ok(frame)) = from_client.recv().await else {
        return;
    };
    tokio::select! {
        () = answer(&aggregate, frame.message, &to_client) => {}
        // Closing the link cancels whatever was begun.
        _ = from_client.recv() => {}
    }
}

async fn answer(aggregate: &Aggregate, message: Message, to_client: &ToClient) {
    let Ok(peek) = message.peek() else { return };
    let Some(id) = peek.id.map(RawValue::get) else { return };
    let reply = match peek.method() {
        "server/discover" => Message::result(id, &discovered(aggregate)),
        "subscriptions/listen" => match listen(aggregate, &message, &peek, id, to_client).await {
            Ok(()) => return,
            Err(fault) => fault.answer(Some(id)),
        },
        "tools/call"
        | "prompts/get"
        | "resources/read"
        | "completion/complete"
        | "tasks/get"
        | "tasks/update"
        | "tasks/cancel" => match forward(aggregate, &message, &peek, to_client).await {
            Ok(()) => return,
            Err(fault) => fault.answer(Some(id)),
        },
        method => match ListKind::of(method).filter(|kind| *kind != ListKind::Tasks) {
            Some(kind) => {
                let meta = peek.params().and_then(|params| params.meta);
                Message::result(id, &joined(kind, &list(aggregate, kind, meta).await, true))
            }
            None => unsupported(&peek, id),
        },
    };
    // A client that left needs no answer.
    let _ = to_client.send(Ok(reply.into())).await;
}

/// Refuses a method that only single agents answer, or a version that is not spoken.
fn unsupported(peek: &Peek<'_>, id: &str) -> Message {
    let version = peek
        .meta()
        .and_then(|meta| meta.protocol_version)
        .and_then(crate::jsonrpc::text);
    if let Some(version) = version.filter(|version| !MODERN_VERSIONS.contains(&&**version)) {
        let data = serde_json::json!({ "supported": MODERN_VERSIONS, "requested": version });
        return Message::error(
            Some(id),
            codes::UNSUPPORTED_VERSION,
            "Unsupported protocol version",
            Some(&data),
        );
    }
    let words = format!(
        "Method not found: {}; a single agent may know it, at /mcp/{{node}}/{{agent}}",
        peek.method()
    );
    Message::error(Some(id), codes::METHOD_NOT_FOUND, &words, None)
}

fn discovered(aggregate: &Aggregate) -> String {
    serde_json::json!({
        "resultType": "complete",
        "supportedVersions": MODERN_VERSIONS,
        "capabilities": {
            "tools": { "listChanged": true },
            "prompts": { "listChanged": true },
            "resources": { "listChanged": true, "subscribe": true },
            "completions": {},
            "extensions": { "io.modelcontextprotocol/tasks": {} },
        },
        "instructions": aggregate.instructions(),
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "dawn", "version": env!("CARGO_PKG_VERSION") } },
    })
    .to_string()
}

/// The items of all agents; those that fail or are late are left out.
async fn list(aggregate: &Aggregate, kind: ListKind, meta: Option<&RawValue>) -> Vec<String> {
    let asked = aggregate
        .agents()
        .into_iter()
        .enumerate()
        .map(|(at, entry)| async move {
            let address = aggregate.address(&entry);
            let items = tokio::time::timeout(
                aggregate.router.limits().aggregate,
                list_of(aggregate, kind, meta, &address),
            )
            .await;
            let items = items.unwrap_or_else(|_| Err(Fault::new(FaultCode::Timeout, "it did not answer in time")));
            let items = items.unwrap_or_else(|fault| {
                tracing::warn!(agent = %address, %fault, "left out of a list");
                Vec::new()
            });
            (at, items)
        });
    let mut parts: Vec<_> = asked.collect::<FuturesUnordered<_>>().collect().await;
    parts.sort_by_key(|(at, _)| *at);
    parts.into_iter().flat_map(|(_, items)| items).collect()
}

async fn list_of(
    aggregate: &Aggregate,
    kind: ListKind,
    meta: Option<&RawValue>,
    address: &AgentAddress,
) -> Result<Vec<String>, Fault> {
    let mut items = Vec::new();
    let mut cursor = None;
    for _ in 0..PAGES {
        let request = Message::request("\"dawn-list\"", kind.method(), &page_params(meta, cursor.as_deref()));
        let mut link = open(aggregate, address, request).await?;
        let response = loop {
            let message = next(aggregate, address, &mut link).await?;
            if message.peek().is_ok_and(|peek| peek.kind() == Kind::Response) {
                break message;
            }
        };
        // An agent without such a list answers an error: it has nothing to add.
        let Some(page) = page(kind, &response, address, &aggregate.names) else {
            break;
        };
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(items)
}

async fn open(aggregate: &Aggregate, address: &AgentAddress, message: Message) -> Result<Link, Fault> {
    let mut link = aggregate.router.open(address, Mode::Exchange).await?;
    link.sender
        .send(message.into())
        .await
        .map_err(|error| error.fault(&aggregate.router.lost(address)))?;
    Ok(link)
}

async fn next(aggregate: &Aggregate, address: &AgentAddress, link: &mut Link) -> Result<Message, Fault> {
    let lost = || aggregate.router.lost(address);
    let frame = link.receiver.recv().await.map_err(|error| error.fault(&lost()))?;
    frame.map(|frame| frame.message).ok_or_else(lost)
}

/// Carries one request to its agent and everything that belongs to it back.
async fn forward(aggregate: &Aggregate, message: &Message, peek: &Peek<'_>, to_client: &ToClient) -> Result<(), Fault> {
    let (address, message) = aggregate.route(message, peek)?;
    let mut link = open(aggregate, &address, message).await?;
    loop {
        let message = wrap(next(aggregate, &address, &mut link).await?, &address);
        let last = message.peek().is_ok_and(|peek| peek.kind() == Kind::Response);
        if to_client.send(Ok(message.into())).await.is_err() || last {
            return Ok(());
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: Vec<String>,
    task_ids: Vec<String>,
}

impl Filter {
    fn lists(&self) -> Vec<&'static str> {
        let all = [
            (self.tools_list_changed, "tools"),
            (self.prompts_list_changed, "prompts"),
            (self.resources_list_changed, "resources"),
        ];
        all.into_iter()
            .filter_map(|(wanted, list)| wanted.then_some(list))
            .collect()
    }

    /// The filter with these resources and tasks instead of its own.
    fn json(&self, resources: &[String], tasks: &[String]) -> serde_json::Value {
        let mut value = serde_json::json!({});
        for list in self.lists() {
            value[format!("{list}ListChanged")] = true.into();
        }
        if !resources.is_empty() {
            value["resourceSubscriptions"] = resources.into();
        }
        if !tasks.is_empty() {
            value["taskIds"] = tasks.into();
        }
        value
    }
}

/// One subscription at the aggregate is one at each agent, and one to the coming and going of agents.
async fn listen(
    aggregate: &Aggregate,
    message: &Message,
    peek: &Peek<'_>,
    id: &str,
    to_client: &ToClient,
) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Listen {
        #[serde(default)]
        notifications: Filter,
    }
    let filter = peek
        .params
        .and_then(|raw| serde_json::from_str::<Listen>(raw.get()).ok())
        .map(|listen| listen.notifications);
    let filter =
        filter.ok_or_else(|| Fault::new(FaultCode::Protocol, "the subscription has no valid `notifications`"))?;
    let meta = format!(r#"{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
    let acknowledged = format!(
        r#"{{"_meta":{meta},"notifications":{}}}"#,
        filter.json(&filter.resource_subscriptions, &filter.task_ids)
    );
    let acknowledged = Message::notification("notifications/subscriptions/acknowledged", Some(&acknowledged));
    if to_client.send(Ok(acknowledged.into())).await.is_err() {
        return Ok(());
    }
    let mut changes = aggregate.router.directory().changes();
    loop {
        changes.mark_unchanged();
        let (gather, mut gathered) = mpsc::channel(aggregate.router.limits().queue_messages);
        let listening = aggregate.agents().into_iter().map(|entry| {
            let address = aggregate.address(&entry);
            listen_to(aggregate, message, peek, &filter, address, gather.clone())
        });
        let mut listening: FuturesUnordered<_> = listening.collect();
        drop(gather);
        loop {
            tokio::select! {
                Some(message) = gathered.recv() => {
                    if to_client.send(Ok(Message::into(message))).await.is_err() {
                        return Ok(());
                    }
                }
                Some(()) = listening.next() => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Err(Fault::new(FaultCode::SessionLost, "the node is shutting down"));
                    }
                    break;
                }
            }
        }
        drop(listening);
        for list in filter.lists() {
            let changed = Message::notification(
                &format!("notifications/{list}/list_changed"),
                Some(&format!(r#"{{"_meta":{meta}}}"#)),
            );
            if to_client.send(Ok(changed.into())).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Subscribes at one agent under the client's own request id, which thereby is the subscription id too.
async fn listen_to(
    aggregate: &Aggregate,
    message: &Message,
    peek: &Peek<'_>,
    filter: &Filter,
    address: AgentAddress,
    gather: mpsc::Sender<Message>,
) {
    let own = |addresses: &[String]| -> Vec<String> {
        let owned = addresses.iter().filter_map(|uri| super::names::unwrap_uri(uri));
        owned
            .filter(|owned| owned.address == address)
            .map(|owned| owned.own)
            .collect()
    };
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        notifications: &'a RawValue,
    }
    let Some(raw) = peek
        .params
        .and_then(|raw| serde_json::from_str::<Raw<'_>>(raw.get()).ok())
    else {
        return;
    };
    let mut edit = message.edit();
    edit.replace(
        raw.notifications,
        filter
            .json(&own(&filter.resource_subscriptions), &own(&filter.task_ids))
            .to_string(),
    );
    let Ok(mut link) = open(aggregate, &address, edit.finish()).await else {
        return;
    };
    while let Ok(message) = next(aggregate, &address, &mut link).await {
        let Ok(peek) = message.peek() else { continue };
        if peek.kind() == Kind::Response {
            return;
        }
        if peek.method() == "notifications/subscriptions/acknowledged" {
            continue;
        }
        if gather.send(wrap(message.clone(), &address)).await.is_err() {
            return;
        }
    }
}
