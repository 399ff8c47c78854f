//! A legacy session with the aggregate: one session with each agent that it touches.

use std::collections::HashMap;

use dawn_identity::AgentAddress;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::exchange::{cursor, stale_cursor};
use super::list::{Item, ListKind, PAGES, joined, page, page_params, unwrap_related_task, wrap};
use super::upstream::{Asker, FromAgent, Upstream};
use super::{Aggregate, FromClient, GAP, SETTLE, ToClient};
use crate::gateway::{LATEST_LEGACY, LEGACY_VERSIONS};
use crate::jsonrpc::{Id, Kind, Message, Peek, codes, text};

/// Found tools that a session lists.
const DISCLOSED: usize = 64;

struct Session {
    aggregate: Aggregate,
    to_client: ToClient,
    events: mpsc::Sender<FromAgent>,
    agents: HashMap<AgentAddress, Upstream>,
    /// The client's `initialize` parameters, for the agents' sessions.
    initialize: Option<String>,
    initialized: bool,
    log_level: Option<Message>,
    /// Requests of the client in flight, by id: which agent works on them.
    working: HashMap<Id, AgentAddress>,
    /// Requests of agents to the client, by the number they were given.
    questions: HashMap<u64, (AgentAddress, String)>,
    next_question: u64,
    lists: TaskTracker,
    /// What the lists were made of when the client was last told.
    known: [u64; 3],
    /// Tools that this session found.
    disclosed: Vec<Item>,
}

/// Serves one legacy session until its client leaves.
pub(super) async fn serve(aggregate: Aggregate, mut from_client: FromClient, to_client: ToClient) {
    let (events, mut from_agents) = mpsc::channel(aggregate.router.limits().queue_messages);
    let mut changes = aggregate.router.directory().changes();
    let _watched = aggregate.catalogue.watched();
    let known = aggregate.fingerprint();
    let mut session = Session {
        aggregate,
        to_client,
        events,
        agents: HashMap::new(),
        initialize: None,
        initialized: false,
        log_level: None,
        working: HashMap::new(),
        questions: HashMap::new(),
        next_question: 0,
        lists: TaskTracker::new(),
        known,
        disclosed: Vec::new(),
    };
    let mut due = None;
    let mut told = None;
    loop {
        let settled = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = from_client.recv() => match message {
                Some(Ok(frame)) => session.hear_client(frame.message).await,
                Some(Err(_)) | None => return session.finish(&mut from_agents).await,
            },
            Some(event) = from_agents.recv() => session.hear_agent(event).await,
            Ok(()) = changes.changed(), if due.is_none() => {
                let soon = Instant::now() + SETTLE;
                due = Some(told.map_or(soon, |told: Instant| soon.max(told + GAP)));
            }
            () = settled => {
                due = None;
                told = Some(Instant::now());
                changes.mark_unchanged();
                session.agents_changed().await;
            }
        }
    }
}

impl Session {
    async fn tell(&self, message: Message) {
        // When the client left, receiving from it ends the session.
        let _ = self.to_client.send(Ok(message.into())).await;
    }

    /// The client says nothing more: what it asked is still answered, as long as it listens.
    async fn finish(&mut self, from_agents: &mut mpsc::Receiver<FromAgent>) {
        let patience = tokio::time::sleep(self.aggregate.router.limits().linger);
        tokio::pin!(patience);
        self.lists.close();
        while !self.working.is_empty() || !self.lists.is_empty() {
            tokio::select! {
                Some(event) = from_agents.recv() => self.hear_agent(event).await,
                () = self.lists.wait(), if !self.lists.is_empty() => {}
                () = self.to_client.closed() => return,
                () = &mut patience => return,
            }
        }
    }

    async fn hear_client(&mut self, message: Message) {
        if !message.is_batch() {
            return self.hear_one(message).await;
        }
        for part in message.batch().unwrap_or_default() {
            self.hear_one(part).await;
        }
    }

    async fn hear_one(&mut self, message: Message) {
        let Ok(peek) = message.peek() else { return };
        match peek.kind() {
            Kind::Request => {
                let Some(id) = peek.id.map(RawValue::get) else { return };
                if let Some(answer) = self.request(&message, &peek, id).await {
                    self.tell(answer).await;
                }
            }
            Kind::Notification => self.notification(&message, &peek).await,
            Kind::Response => self.response(&message, &peek).await,
        }
    }

    /// Answers a request, or sends it on and returns nothing.
    async fn request(&mut self, message: &Message, peek: &Peek<'_>, id: &str) -> Option<Message> {
        match peek.method() {
            "initialize" => {
                let params = peek.params.map_or("{}", RawValue::get);
                let wanted = peek.params().and_then(|params| params.protocol_version);
                let version = wanted
                    .and_then(text)
                    .and_then(|wanted| LEGACY_VERSIONS.into_iter().find(|known| *known == wanted));
                let version = version.unwrap_or(LATEST_LEGACY);
                let mut own: serde_json::Value = serde_json::from_str(params).unwrap_or_default();
                if own.get("protocolVersion").is_some_and(|wanted| wanted == version) {
                    self.initialize = Some(params.to_owned());
                } else {
                    own["protocolVersion"] = version.into();
                    self.initialize = Some(own.to_string());
                }
                Some(Message::result(id, &self.initialize_result(version)))
            }
            "ping" => Some(Message::result(id, "{}")),
            "logging/setLevel" => {
                self.log_level = Some(Message::request(
                    "\"dawn-log-level\"",
                    "logging/setLevel",
                    peek.params.map_or("{}", RawValue::get),
                ));
                for agent in self.agents.values() {
                    let (asker, params) = (agent.asker(), peek.params.map_or("{}", RawValue::get).to_owned());
                    self.lists
                        .spawn(async move { asker.ask("logging/setLevel", &params).await });
                }
                Some(Message::result(id, "{}"))
            }
            "tools/call" if self.aggregate.is_find(peek) => Some(self.find(peek, id).await),
            "tools/call"
            | "prompts/get"
            | "resources/read"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "completion/complete"
            | "tasks/get"
            | "tasks/result"
            | "tasks/cancel" => {
                if let Some(refusal) = self.aggregate.unknown_task(peek, id) {
                    return Some(refusal);
                }
                let (address, message) = match self.aggregate.route(message, peek) {
                    Ok(routed) => routed,
                    Err(fault) => return Some(fault.answer(Some(id))),
                };
                if let Err(fault) = self.aggregate.router.directory().resolve(&address.node) {
                    return Some(fault.answer(Some(id)));
                }
                if let Some(id) = peek.id() {
                    self.working.insert(id, address.clone());
                }
                let sent = self.agent(&address).send(message).await;
                (!sent).then(|| self.aggregate.router.lost(&address).answer(Some(id)))
            }
            method => match ListKind::of(method) {
                Some(kind) => {
                    self.list(kind, id.to_owned(), peek.params.and_then(cursor));
                    None
                }
                None => {
                    let words =
                        format!("Method not found: {method}; a single agent may know it, at /mcp/{{node}}/{{agent}}");
                    Some(Message::error(Some(id), codes::METHOD_NOT_FOUND, &words, None))
                }
            },
        }
    }

    fn initialize_result(&self, version: &str) -> String {
        serde_json::json!({
            "protocolVersion": version,
            "capabilities": {
                "tools": { "listChanged": true },
                "prompts": { "listChanged": true },
                "resources": { "listChanged": true, "subscribe": true },
                "completions": {},
                "logging": {},
                "tasks": { "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } },
            },
            "serverInfo": { "name": "dawn", "title": "Dawn network", "version": env!("CARGO_PKG_VERSION") },
            "instructions": self.aggregate.instructions(),
        })
        .to_string()
    }

    /// The session with an agent, begun if there is none.
    fn agent(&mut self, address: &AgentAddress) -> &Upstream {
        self.agents.retain(|_, agent| !agent.is_over());
        self.agents.entry(address.clone()).or_insert_with(|| {
            let initialize = self.initialize.clone().unwrap_or_else(|| "{}".to_owned());
            Upstream::start(
                self.aggregate.clone(),
                address.clone(),
                initialize,
                self.log_level.clone(),
                self.events.clone(),
            )
        })
    }

    /// Answers with a list of all agents, in the background.
    fn list(&mut self, kind: ListKind, id: String, cursor: Option<String>) {
        let (aggregate, to_client) = (self.aggregate.clone(), self.to_client.clone());
        if kind != ListKind::Tasks {
            let disclosed = self.disclosed.clone();
            self.lists.spawn(async move {
                let listed = aggregate.list(kind, cursor.as_deref(), &disclosed, false).await;
                let answer = listed.map_or_else(|| stale_cursor(&id), |listed| Message::result(&id, &listed));
                // When the client left, nobody needs the list.
                let _ = to_client.send(Ok(answer.into())).await;
            });
            return;
        }
        // Tasks belong to the session: only agents that it spoke with can have any.
        let askers: Vec<_> = self
            .agents
            .iter()
            .map(|(address, agent)| (address.clone(), agent.asker()))
            .collect();
        self.lists.spawn(async move {
            let patience = aggregate.router.limits().aggregate;
            let aggregate = &aggregate;
            let asked = askers.into_iter().map(|(address, asker)| async move {
                let items = tokio::time::timeout(patience, tasks_of(aggregate, &asker, &address)).await;
                items.unwrap_or_else(|_| {
                    tracing::warn!(agent = %address, "left out of a list: it did not answer in time");
                    Vec::new()
                })
            });
            let parts = futures::future::join_all(asked).await;
            let items: Vec<&str> = parts.iter().flatten().map(|item| item.json.as_str()).collect();
            // When the client left, nobody needs the list.
            let _ = to_client
                .send(Ok(Message::result(&id, &joined(kind, &items, None, false)).into()))
                .await;
        });
    }

    /// Answers `find_tools`; what it found is listed from then on.
    async fn find(&mut self, peek: &Peek<'_>, id: &str) -> Message {
        let (result, found) = self.aggregate.find(peek.params, false).await;
        let before = self.disclosed.len();
        for tool in found {
            if !self.disclosed.iter().any(|known| known.name == tool.name) {
                self.disclosed.push(tool);
            }
        }
        if self.disclosed.len() > DISCLOSED {
            self.disclosed.drain(..self.disclosed.len() - DISCLOSED);
        }
        if self.disclosed.len() != before && self.initialized {
            self.tell(Message::notification("notifications/tools/list_changed", None))
                .await;
        }
        Message::result(id, &result)
    }

    async fn notification(&mut self, message: &Message, peek: &Peek<'_>) {
        match peek.method() {
            "notifications/initialized" => self.initialized = true,
            "notifications/cancelled" => {
                let id = peek
                    .params()
                    .and_then(|params| params.request_id)
                    .and_then(|raw| Id::parse(raw.get()).ok());
                let agent = id
                    .and_then(|id| self.working.remove(&id))
                    .and_then(|address| self.agents.get(&address));
                if let Some(agent) = agent {
                    // A session that is over has nothing left to cancel.
                    let _ = agent.send(message.clone()).await;
                }
            }
            _ => self.tell_agents(message).await,
        }
    }

    async fn tell_agents(&self, message: &Message) {
        for agent in self.agents.values() {
            // A session that is over needs to hear nothing.
            let _ = agent.send(message.clone()).await;
        }
    }

    /// The client answers a question of an agent.
    async fn response(&mut self, message: &Message, peek: &Peek<'_>) {
        let Some(Id::Text(id)) = peek.id() else { return };
        let number = id.strip_prefix("dawn-question-").and_then(|number| number.parse().ok());
        let Some((address, own)) = number.and_then(|number: u64| self.questions.remove(&number)) else {
            return;
        };
        if let (Some(agent), Some(raw)) = (self.agents.get(&address), peek.id) {
            let mut edit = message.edit();
            edit.replace(raw, own);
            // An agent whose session is over waits for no answer.
            let _ = agent.send(unwrap_related_task(edit.finish())).await;
        }
    }

    async fn hear_agent(&mut self, event: FromAgent) {
        let FromAgent { address, frame } = event;
        let Some(mut frame) = frame else {
            self.agents.retain(|_, agent| !agent.is_over());
            self.questions.retain(|_, (asker, _)| *asker != address);
            return;
        };
        let message = wrap(frame.message.clone(), &address);
        let Ok(peek) = message.peek() else { return };
        frame.message = match peek.kind() {
            Kind::Response => {
                if let Some(id) = peek.id() {
                    self.working.remove(&id);
                }
                if peek.id().is_some_and(|id| id == Id::Text("dawn-log-level".into())) {
                    return;
                }
                message
            }
            Kind::Request => {
                let Some(raw) = peek.id else { return };
                self.next_question += 1;
                self.questions
                    .insert(self.next_question, (address, raw.get().to_owned()));
                let mut edit = message.edit();
                edit.replace(raw, format!("\"dawn-question-{}\"", self.next_question));
                edit.finish()
            }
            Kind::Notification => {
                if peek.method() == "notifications/cancelled" {
                    match self.cancelled_question(&message, &peek, &address) {
                        Some(message) => message,
                        None => return,
                    }
                } else {
                    message
                }
            }
        };
        // When the client left, receiving from it ends the session.
        let _ = self.to_client.send(Ok(frame)).await;
    }

    /// An agent takes a question back: under the number by which the client knows it.
    fn cancelled_question(&mut self, message: &Message, peek: &Peek<'_>, address: &AgentAddress) -> Option<Message> {
        let raw = peek.params()?.request_id?;
        let own = Id::parse(raw.get()).ok()?;
        let number = *self
            .questions
            .iter()
            .find(|(_, (asker, id))| asker == address && Id::parse(id).is_ok_and(|id| id == own))?
            .0;
        self.questions.remove(&number);
        let mut edit = message.edit();
        edit.replace(raw, format!("\"dawn-question-{number}\""));
        Some(edit.finish())
    }

    async fn agents_changed(&mut self) {
        let now = self.aggregate.fingerprint();
        let before = std::mem::replace(&mut self.known, now);
        if !self.initialized {
            return;
        }
        for (list, (now, before)) in ["tools", "prompts", "resources"]
            .into_iter()
            .zip(now.into_iter().zip(before))
        {
            if now != before {
                let method = format!("notifications/{list}/list_changed");
                self.tell(Message::notification(&method, None)).await;
            }
        }
    }
}

async fn tasks_of(aggregate: &Aggregate, asker: &Asker, address: &AgentAddress) -> Vec<Item> {
    let kind = ListKind::Tasks;
    let mut items = Vec::new();
    let mut cursor = None;
    for _ in 0..PAGES {
        let Some(response) = asker.ask(kind.method(), &page_params(None, cursor.as_deref())).await else {
            break;
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
    items
}
