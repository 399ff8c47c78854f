//! One modern request to the aggregate.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use dawn_identity::AgentAddress;

use super::list::{ListKind, wrap};
use super::{Aggregate, FromClient, GAP, ToClient};
use crate::bridge::task;
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
    let refused = unspoken(&peek, id).or_else(|| without_tasks(&peek, id)).or_else(|| {
        aggregate
            .unknown_task(&peek, id)
            .filter(|_| peek.method() != "tasks/result")
    });
    if let Some(refusal) = refused {
        // A client that left needs no answer.
        let _ = to_client.send(Ok(refusal.into())).await;
        return;
    }
    let reply = match peek.method() {
        "server/discover" => Message::result(id, &discovered(aggregate)),
        "subscriptions/listen" => match listen(aggregate, &peek, id, to_client).await {
            Ok(()) => return,
            Err(fault) => fault.answer(Some(id)),
        },
        "tools/call" if aggregate.is_find(&peek) => Message::result(id, &aggregate.find(peek.params, true).await.0),
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
                let cursor = peek.params.and_then(cursor);
                let listed = aggregate.list(kind, cursor.as_deref(), &[], true).await;
                listed.map_or_else(|| stale_cursor(id), |listed| Message::result(id, &listed))
            }
            None => unknown(&peek, id),
        },
    };
    // A client that left needs no answer.
    let _ = to_client.send(Ok(reply.into())).await;
}

/// The cursor of a request for a page.
pub(super) fn cursor(params: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Paged {
        #[serde(default)]
        cursor: Option<String>,
    }
    serde_json::from_str::<Paged>(params.get()).ok()?.cursor
}

/// Refuses a cursor of a list that is another one by now.
pub(super) fn stale_cursor(id: &str) -> Message {
    let words = "the cursor belongs to no list, or the list changed: begin anew without it";
    Message::error(Some(id), codes::INVALID_PARAMS, words, None)
}

/// Refuses a version that is not spoken.
fn unspoken(peek: &Peek<'_>, id: &str) -> Option<Message> {
    let version = peek
        .meta()
        .and_then(|meta| meta.protocol_version)
        .and_then(crate::jsonrpc::text);
    let version = version.filter(|version| !MODERN_VERSIONS.contains(&&**version))?;
    let data = serde_json::json!({ "supported": MODERN_VERSIONS, "requested": version });
    let words = "Unsupported protocol version";
    Some(Message::error(Some(id), codes::UNSUPPORTED_VERSION, words, Some(&data)))
}

/// Refuses what is about tasks to a client that does not know them.
fn without_tasks(peek: &Peek<'_>, id: &str) -> Option<Message> {
    #[derive(Deserialize)]
    struct Listen {
        notifications: Filter,
    }
    let is_about_tasks = match peek.method() {
        "tasks/get" | "tasks/update" | "tasks/cancel" => true,
        "subscriptions/listen" => peek
            .params
            .and_then(|raw| serde_json::from_str::<Listen>(raw.get()).ok())
            .is_some_and(|listen| !listen.notifications.task_ids.is_empty()),
        _ => false,
    };
    if !is_about_tasks || task::is_known_to(peek) {
        return None;
    }
    let error = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, task::missing());
    Some(Message::new(error.into()))
}

/// Refuses a method that only single agents answer.
fn unknown(peek: &Peek<'_>, id: &str) -> Message {
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
    /// The lists of which the client wants to hear, each with its place in a fingerprint.
    fn lists(&self) -> Vec<(&'static str, usize)> {
        let all = [
            (self.tools_list_changed, ("tools", 0)),
            (self.prompts_list_changed, ("prompts", 1)),
            (self.resources_list_changed, ("resources", 2)),
        ];
        all.into_iter()
            .filter_map(|(wanted, list)| wanted.then_some(list))
            .collect()
    }

    /// What is granted of it.
    fn granted(&self) -> serde_json::Value {
        let mut value = serde_json::json!({});
        for (list, _) in self.lists() {
            value[format!("{list}ListChanged")] = true.into();
        }
        if !self.resource_subscriptions.is_empty() {
            value["resourceSubscriptions"] = serde_json::json!(self.resource_subscriptions);
        }
        if !self.task_ids.is_empty() {
            value["taskIds"] = serde_json::json!(self.task_ids);
        }
        value
    }

    /// The resources and tasks of one agent, as it knows them. That lists changed is known by their digests.
    fn own_of(&self, address: &AgentAddress) -> Own {
        let own = |addresses: &[String]| -> Vec<String> {
            let owned = addresses.iter().filter_map(|uri| super::names::unwrap_uri(uri));
            owned
                .filter(|owned| owned.address == *address)
                .map(|owned| owned.own)
                .collect()
        };
        Own {
            resources: own(&self.resource_subscriptions),
            tasks: own(&self.task_ids),
        }
    }
}

struct Own {
    resources: Vec<String>,
    tasks: Vec<String>,
}

impl Own {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.tasks.is_empty()
    }

    /// The parameters of a subscription to these, with the client's own `_meta`.
    fn params(&self, peek: &Peek<'_>) -> String {
        let meta = peek.params().and_then(|params| params.meta);
        let meta = meta.map_or_else(String::new, |meta| format!(r#""_meta":{},"#, meta.get()));
        let resources = serde_json::json!(self.resources);
        let tasks = serde_json::json!(self.tasks);
        format!(r#"{{{meta}"notifications":{{"resourceSubscriptions":{resources},"taskIds":{tasks}}}}}"#)
    }
}

/// One subscription at the aggregate is one at each agent, and one to the coming and going of agents.
async fn listen(aggregate: &Aggregate, peek: &Peek<'_>, id: &str, to_client: &ToClient) -> Result<(), Fault> {
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
    let acknowledged = format!(r#"{{"_meta":{meta},"notifications":{}}}"#, filter.granted());
    let acknowledged = Message::notification("notifications/subscriptions/acknowledged", Some(&acknowledged));
    if to_client.send(Ok(acknowledged.into())).await.is_err() {
        return Ok(());
    }
    let _watched = aggregate.catalogue.watched();
    let mut changes = aggregate.router.directory().changes();
    let (gather, mut gathered) = mpsc::channel(aggregate.router.limits().queue_messages);
    let mut listening: HashMap<AgentAddress, AbortOnDropHandle<()>> = HashMap::new();
    let mut known = aggregate.fingerprint();
    loop {
        changes.mark_unchanged();
        let agents: Vec<AgentAddress> = aggregate.agents().into_iter().map(|(_, address)| address).collect();
        listening.retain(|address, task| agents.contains(address) && !task.is_finished());
        for address in agents {
            let own = filter.own_of(&address);
            if !own.is_empty() && !listening.contains_key(&address) {
                let request = Message::request(id, "subscriptions/listen", &own.params(peek));
                let (aggregate, gather) = (aggregate.clone(), gather.clone());
                let task = listen_to(aggregate, request, address.clone(), gather);
                listening.insert(address, AbortOnDropHandle::new(tokio::spawn(task)));
            }
        }
        let settled = async {
            let changed = changes.changed().await;
            tokio::time::sleep(GAP).await;
            changed
        };
        tokio::pin!(settled);
        let changed = loop {
            tokio::select! {
                Some(message) = gathered.recv() => {
                    if to_client.send(Ok(Message::into(message))).await.is_err() {
                        return Ok(());
                    }
                }
                () = to_client.closed() => return Ok(()),
                changed = &mut settled => break changed,
            }
        };
        if changed.is_err() {
            return Err(Fault::new(FaultCode::SessionLost, "the node is shutting down"));
        }
        let now = aggregate.fingerprint();
        for (list, at) in filter.lists() {
            if now.get(at) == known.get(at) {
                continue;
            }
            let changed = Message::notification(
                &format!("notifications/{list}/list_changed"),
                Some(&format!(r#"{{"_meta":{meta}}}"#)),
            );
            if to_client.send(Ok(changed.into())).await.is_err() {
                return Ok(());
            }
        }
        known = now;
    }
}

/// Subscribes at one agent under the client's own request id, which thereby is the subscription id too.
async fn listen_to(aggregate: Aggregate, request: Message, address: AgentAddress, gather: mpsc::Sender<Message>) {
    let Ok(mut link) = open(&aggregate, &address, request).await else {
        return;
    };
    while let Ok(message) = next(&aggregate, &address, &mut link).await {
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
