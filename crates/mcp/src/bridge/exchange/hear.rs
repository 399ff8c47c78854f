//! What a legacy agent says by itself: its questions and notifications, and to which call they belong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Asked, Event, Listener, Live, PARKED, Pending, STALLED, lock};
use crate::bridge::{
    LISTS, RELATED_TASK_KEY, SUBSCRIPTION_KEY, amended, members_of, quoted, severity, task, text_of, value,
    without_meta,
};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Id, Kind, Message, Peek, codes, text};
use crate::link::{LinkReceiver, LinkSender};

impl Live {
    /// Whether nobody needs the session any more.
    fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        let unused = state
            .used
            .is_none_or(|used| used.elapsed() >= self.place.limits.session_idle);
        state.pending.is_empty() && state.listeners.is_empty() && unused && !state.is_held(Instant::now())
    }

    pub(super) async fn read(self: Arc<Self>, mut from_agent: LinkReceiver) {
        let every = (self.place.limits.session_idle / 2).max(Duration::from_millis(50));
        // By the clock: an agent that logs now and then is no less idle.
        let mut looks = tokio::time::interval(every);
        let fault = loop {
            let received = tokio::select! {
                () = self.place.stop.cancelled() => break self.place.lost(),
                _ = looks.tick() => {
                    if self.is_idle() {
                        break self.place.lost();
                    }
                    continue;
                }
                received = from_agent.recv() => received,
            };
            match received {
                Ok(Some(frame)) => {
                    let parts = if frame.message.is_batch() {
                        frame.message.batch().unwrap_or_default()
                    } else {
                        vec![frame.message]
                    };
                    let related = frame.related.and_then(|raw| String::from_utf8_lossy(&raw).parse().ok());
                    for part in parts {
                        self.heard(&part, related).await;
                    }
                }
                Ok(None) => break self.place.lost(),
                Err(error) => break error.fault(&self.place.lost()),
            }
        };
        self.done.cancel();
        let (pending, listeners) = {
            let mut state = lock(&self.state);
            state.over = Some(fault.clone());
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.listeners))
        };
        let all = pending.into_values().map(|pending| pending.events);
        for events in all.chain(listeners.into_values().map(|listener| listener.events)) {
            // One whose queue is full learns it from the queue's end.
            let _ = events.try_send(Event::Lost(fault.clone()));
        }
    }

    /// A message of the agent; `related` is the request that an HTTP server says it belongs to.
    async fn heard(self: &Arc<Self>, message: &Message, related: Option<u64>) {
        let Ok(peek) = message.peek() else {
            tracing::warn!(agent = %self.place.agent, "it sent what is no JSON-RPC message; it is dropped");
            return;
        };
        match peek.kind() {
            Kind::Response => {
                let Some(Id::Integer(number)) = peek.id() else { return };
                let number = u64::try_from(number).unwrap_or_default();
                let events = lock(&self.state)
                    .pending
                    .get(&number)
                    .map(|pending| pending.events.clone());
                if let Some(events) = events
                    && events
                        .send_timeout(Event::Answer(message.clone()), STALLED)
                        .await
                        .is_err()
                {
                    // A client that stalls or left loses its answer, and learns so by the queue's end.
                    lock(&self.state).pending.remove(&number);
                }
            }
            Kind::Request => self.questioned(&peek, related).await,
            Kind::Notification => self.notified(message, &peek, related),
        }
    }

    async fn questioned(&self, peek: &Peek<'_>, related: Option<u64>) {
        let Some(raw) = peek.id.map(|raw| raw.get().to_owned()) else {
            return;
        };
        let refusal = match peek.method() {
            "ping" => Some(Message::result(&raw, "{}")),
            "sampling/createMessage" | "elicitation/create" | "roots/list" => None,
            method => {
                let words = format!("Method not found: {method}");
                Some(Message::error(Some(&raw), codes::METHOD_NOT_FOUND, &words, None))
            }
        };
        if let Some(refusal) = refusal {
            return self.reply(refusal);
        }
        const WORDS: &str = "the client does not offer what the agent asks for";
        let lacking = lacking(&self.capabilities, peek);
        let params = peek
            .params
            .map_or_else(|| "{}".to_owned(), |params| without_meta(params, RELATED_TASK_KEY));
        let asked = Asked {
            request: format!(r#"{{"method":{},"params":{params}}}"#, quoted(peek.method())),
            raw_id: raw.clone(),
        };
        let task = peek
            .meta()
            .and_then(|meta| meta.related_task)
            .map(value)
            .and_then(|task| task["taskId"].as_str().map(str::to_owned));
        let awaiting = task
            .as_ref()
            .and_then(|task| lock(&self.state).awaited.get(task).copied());
        if let Some(task) = task.filter(|_| awaiting.is_none()) {
            return match lacking {
                None => self.question_of_task(&task, asked),
                Some(_) => self.reply(Message::error(Some(&raw), codes::INVALID_PARAMS, WORDS, None)),
            };
        }
        let target = {
            let mut state = lock(&self.state);
            let exact = awaiting.or(related).filter(|number| state.pending.contains_key(number));
            let latest = || {
                state
                    .pending
                    .iter()
                    .rev()
                    .find(|(_, pending)| pending.may_ask)
                    .map(|(number, _)| *number)
            };
            match exact.or_else(latest) {
                None if lacking.is_some() => None,
                Some(number) => state.pending.get(&number).map(|pending| pending.events.clone()),
                None if state.parked.len() < PARKED => {
                    state.parked.push(asked);
                    return;
                }
                None => None,
            }
        };
        if let Some(required) = lacking {
            if let Some(events) = target {
                let error = json!({
                    "code": codes::MISSING_CAPABILITY,
                    "message": WORDS,
                    "data": { "requiredCapabilities": required },
                });
                // A client that left needs no answer.
                let _ = events.send_timeout(Event::Refused(error), STALLED).await;
            }
            return self.reply(Message::error(Some(&raw), codes::INVALID_PARAMS, WORDS, None));
        }
        let taken = match target {
            Some(events) => events.send_timeout(Event::Question(asked), STALLED).await.is_ok(),
            None => false,
        };
        if !taken {
            self.reply(Fault::new(FaultCode::SessionLost, "no client is there to answer").answer(Some(&raw)));
        }
    }

    /// Answers the agent without waiting for it: it may be waiting to be read itself.
    pub(super) fn reply(&self, message: Message) {
        if self.to_agent.try_send(message).is_err() {
            tracing::warn!(agent = %self.place.agent, "it asks and does not read; an answer is dropped");
        }
    }

    fn notified(self: &Arc<Self>, message: &Message, peek: &Peek<'_>, related: Option<u64>) {
        let params = peek.params();
        match peek.method() {
            "notifications/progress" => {
                let Some(raw) = params.and_then(|params| params.progress_token) else {
                    return;
                };
                let state = lock(&self.state);
                let number: Option<u64> = raw.get().parse().ok();
                let Some(pending) = number.and_then(|number| state.pending.get(&number)) else {
                    return;
                };
                if let Some(token) = &pending.token {
                    let mut edit = message.edit();
                    edit.replace(raw, token.clone());
                    pending.tell(edit.finish());
                }
            }
            "notifications/message" => {
                let level = peek
                    .params
                    .map(value)
                    .and_then(|params| severity(params["level"].as_str()?));
                let state = lock(&self.state);
                let exact = related.and_then(|number| state.pending.get(&number));
                let target = exact.or_else(|| state.pending.values().rev().find(|pending| pending.log.is_some()));
                if let Some(pending) = target.filter(|pending| pending.log.is_some_and(|log| level >= Some(log))) {
                    pending.tell(message.clone());
                }
            }
            "notifications/cancelled" => {
                let raw = params.and_then(|params| params.request_id).map(RawValue::get);
                lock(&self.state)
                    .parked
                    .retain(|asked| Some(asked.raw_id.as_str()) != raw);
            }
            "notifications/resources/updated" => {
                let uri = params.and_then(|params| params.uri).and_then(text);
                self.tell_listeners(message, |listener| {
                    uri.as_ref().is_some_and(|uri| listener.uris.contains(&**uri))
                });
            }
            "notifications/tasks/status" => {
                let shown = task::to_modern(&peek.params.map(value).unwrap_or_default());
                let id = text_of(&shown["taskId"]).to_owned();
                let is_wanted = lock(&self.state)
                    .listeners
                    .values()
                    .any(|listener| listener.tasks.contains(&id));
                if !is_wanted {
                    return;
                }
                if task::status(&shown) == "working" {
                    return self.tell_of_task(&id, &members_of(&shown));
                }
                // It is told with what came of it, or what it needs.
                let live = Arc::clone(self);
                self.place.tasks.spawn(async move {
                    if let Ok(detailed) = live.detailed(&id).await {
                        live.tell_of_task(&id, &detailed);
                    }
                });
            }
            method => {
                let list = LISTS
                    .iter()
                    .position(|list| method == format!("notifications/{list}/list_changed"));
                if let Some(at) = list {
                    self.tell_listeners(message, |listener| listener.lists[at]);
                    if at == 0 && self.has_task_calls() {
                        let live = Arc::clone(self);
                        self.place.tasks.spawn(async move {
                            if let Err(fault) = live.learn_task_tools().await {
                                tracing::debug!(agent = %live.place.agent, %fault, "its tools were not read again");
                            }
                        });
                    }
                    return;
                }
                let state = lock(&self.state);
                let exact = related.and_then(|number| state.pending.get(&number));
                if let Some(pending) = exact.or_else(|| state.pending.values().next_back()) {
                    pending.tell(message.clone());
                }
            }
        }
    }

    fn tell_of_task(&self, id: &str, members: &str) {
        let told = Message::notification("notifications/tasks", Some(&format!("{{{members}}}")));
        self.tell_listeners(&told, |listener| listener.tasks.contains(id));
    }

    fn tell_listeners(&self, message: &Message, wants: impl Fn(&Listener) -> bool) {
        for listener in lock(&self.state).listeners.values().filter(|listener| wants(listener)) {
            let meta = members_of(&json!({ SUBSCRIPTION_KEY: "ID" })).replace("\"ID\"", &listener.raw_id);
            let told = Event::Notification(amended(message, "", &meta));
            if listener.events.try_send(told).is_err() {
                tracing::debug!(agent = %self.place.agent, "a subscriber is too slow; a notification is dropped");
            }
        }
    }
}

impl Pending {
    fn tell(&self, message: Message) {
        if self.events.try_send(Event::Notification(message)).is_err() {
            tracing::debug!("a client is too slow; a notification is dropped");
        }
    }
}

pub(super) async fn write(mut outgoing: mpsc::Receiver<Message>, mut to_agent: LinkSender, done: CancellationToken) {
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            let mut next = Some(message);
            while let Some(message) = next {
                if to_agent.feed(message.into()).await.is_err() {
                    return;
                }
                next = outgoing.try_recv().ok();
            }
            if to_agent.flush().await.is_err() {
                return;
            }
        }
        to_agent.close().await;
    };
    // An agent that does not take what it is sent is let go of all the same.
    let _ = done.run_until_cancelled(writing).await;
}

/// What a question needs of a client that did not declare it.
fn lacking(capabilities: &Value, peek: &Peek<'_>) -> Option<Value> {
    let has = |name: &str| capabilities.get(name).is_some();
    match peek.method() {
        "sampling/createMessage" if !has("sampling") => Some(json!({ "sampling": {} })),
        "roots/list" if !has("roots") => Some(json!({ "roots": {} })),
        "elicitation/create" if !has("elicitation") => Some(json!({ "elicitation": {} })),
        "elicitation/create" => {
            let mode = peek.params.map(value).unwrap_or_default()["mode"].clone();
            let lacks_url = mode == "url" && capabilities["elicitation"].get("url").is_none();
            lacks_url.then(|| json!({ "elicitation": { "url": {} } }))
        }
        _ => None,
    }
}
