//! What a shared connection knows: its clients, their requests, and the questions of the agent.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Command;
use super::outbox::Outbox;
use super::tasks::{Maker, Tasks};
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::host::Agent;
use crate::jsonrpc::{Id, Kind, Message, Peek, codes};
use crate::wire::Mode;

/// Questions of the agent that are open at once.
const QUESTIONS: usize = 1024;
/// And open with one client.
const QUESTIONS_EACH: usize = 64;

/// A request of a client that the agent works on.
struct Pending {
    link: u64,
    raw_id: Bytes,
    token: Option<Bytes>,
    is_initialize: bool,
    hears: Hears,
}

/// Which notifications that name no request may belong to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hears {
    /// None: it is a subscription, or of a session, which hears all of them.
    Nothing,
    /// All but log messages.
    NoLogs,
    /// Log messages too: the request asked for them.
    All,
}

struct Client {
    mode: Mode,
    /// Who is behind it; the host itself when nobody.
    caller: Option<String>,
    outbox: Outbox,
    /// When it last asked something, in requests of the connection.
    asked: u64,
}

/// What the connection knows of its clients and their requests. Nothing here waits.
pub(super) struct State {
    agent: Arc<Agent>,
    /// What is to be written to the agent.
    to_agent: Vec<Message>,
    /// Bytes that a client may leave unread.
    spill: usize,
    clients: HashMap<u64, Client>,
    pending: HashMap<u64, Pending>,
    /// Legacy `initialize`: the raw result once it came, and who else waits for it.
    initialized: Option<Bytes>,
    initializing: bool,
    waiting: Vec<(u64, Bytes)>,
    told_initialized: bool,
    /// Requests of the agent, by id: which client was asked.
    questions: HashMap<Id, u64>,
    /// Whose the tasks of legacy sessions are.
    tasks: Tasks,
    next: u64,
}

impl State {
    pub(super) fn new(agent: Arc<Agent>, spill: usize) -> Self {
        Self {
            agent,
            to_agent: Vec::new(),
            spill,
            clients: HashMap::new(),
            pending: HashMap::new(),
            initialized: None,
            initializing: false,
            waiting: Vec::new(),
            told_initialized: false,
            questions: HashMap::new(),
            tasks: Tasks::default(),
            next: 0,
        }
    }

    /// What is to be written to the agent, once.
    pub(super) fn take(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.to_agent)
    }

    /// Whether something is to be written to the agent.
    pub(super) fn has_answers(&self) -> bool {
        !self.to_agent.is_empty()
    }

    pub(super) fn stopped(&self) -> Fault {
        self.agent.failed("it was stopped")
    }

    /// The connection is over: every client is told.
    pub(super) fn end(&mut self, fault: &Fault) {
        for client in self.clients.values_mut() {
            client.outbox.end(fault.clone());
        }
    }

    pub(super) fn lost(&self) -> Fault {
        self.agent.lost()
    }

    /// Hands a client a message. One that has left far too much unread is given up.
    fn tell(&mut self, link: u64, frame: Frame) {
        let Some(client) = self.clients.get_mut(&link) else {
            return;
        };
        if !client.outbox.send(frame) {
            let fault = self.agent.failed("the session ended: the client left too much unread");
            client.outbox.end(fault);
            tracing::warn!(agent = %self.agent.name, "a client that reads nothing is given up");
            self.close(link);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A client came, left or said something.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Open {
                link,
                mode,
                caller,
                client,
            } => {
                let outbox = Outbox::new(client, self.spill);
                self.clients.insert(
                    link,
                    Client {
                        mode,
                        caller,
                        outbox,
                        asked: 0,
                    },
                );
            }
            Command::Say { link, message } => {
                let parts = if message.is_batch() {
                    message.batch().unwrap_or_default()
                } else {
                    vec![message]
                };
                for part in parts {
                    self.said(link, &part);
                }
            }
            Command::Close { link } => self.close(link),
        }
    }

    /// Puts a message for the agent at the end of what is to be written.
    fn feed(&mut self, message: Message) {
        self.to_agent.push(message);
    }

    /// A client left: what it still waits for is cancelled.
    fn close(&mut self, link: u64) {
        if self.clients.remove(&link).is_none() {
            return;
        }
        // `initialize` is for all of them, and is waited for when the one that asked has left.
        let open: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.link == link && !pending.is_initialize)
            .map(|(number, _)| *number)
            .collect();
        for number in open {
            self.pending.remove(&number);
            self.feed(cancelled(number));
        }
        self.waiting.retain(|(waits, _)| *waits != link);
        self.questions.retain(|_, asked| *asked != link);
    }

    /// A message of a client.
    fn said(&mut self, link: u64, message: &Message) {
        // One that was given up may still talk.
        if !self.clients.contains_key(&link) {
            return;
        }
        let Ok(peek) = message.peek() else { return };
        match peek.kind() {
            Kind::Request => self.asked(link, message, &peek),
            Kind::Response => {
                if let Some(id) = peek.id()
                    && self.questions.get(&id) == Some(&link)
                {
                    self.questions.remove(&id);
                    self.feed(message.clone());
                }
            }
            Kind::Notification => match peek.method() {
                "notifications/cancelled" => {
                    let id = peek
                        .params()
                        .and_then(|params| params.request_id)
                        .and_then(|raw| Id::parse(raw.get()).ok());
                    let found = self.pending.iter().find(|(_, pending)| {
                        pending.link == link && !pending.is_initialize && parse(&pending.raw_id) == id
                    });
                    let Some((&number, _)) = found else { return };
                    let Some(raw) = peek.params().and_then(|params| params.request_id) else {
                        return;
                    };
                    self.pending.remove(&number);
                    let mut edit = message.edit();
                    edit.replace(raw, number.to_string());
                    self.feed(edit.finish());
                }
                "notifications/initialized" if self.told_initialized || self.initialized.is_none() => {}
                "notifications/initialized" => {
                    self.told_initialized = true;
                    self.feed(message.clone());
                }
                // Progress is of a question, and told by the one that was asked.
                "notifications/progress" if !self.questions.values().any(|asked| *asked == link) => {}
                _ => self.feed(message.clone()),
            },
        }
    }

    fn asked(&mut self, link: u64, message: &Message, peek: &Peek<'_>) {
        let Some(raw_id) = peek.id else { return };
        let owned_id = Bytes::copy_from_slice(raw_id.get().as_bytes());
        let is_legacy = self
            .clients
            .get(&link)
            .is_some_and(|client| client.mode == Mode::Session);
        let is_initialize = is_legacy && peek.method() == "initialize";
        if is_initialize {
            if let Some(result) = &self.initialized {
                let answer = Message::result(raw_id.get(), &String::from_utf8_lossy(result));
                return self.tell(link, answer.into());
            }
            if self.initializing {
                if self.waiting.iter().any(|(waits, _)| *waits == link) {
                    let words = "this session is being initialized";
                    let refusal = Message::error(Some(raw_id.get()), codes::INVALID_REQUEST, words, None);
                    return self.tell(link, refusal.into());
                }
                return self.waiting.push((link, owned_id));
            }
            self.initializing = true;
        }
        let number = self.number();
        let meta = peek.meta();
        let hears = match &meta {
            _ if is_legacy || peek.method() == "subscriptions/listen" => Hears::Nothing,
            Some(meta) if meta.log_level.is_some() => Hears::All,
            _ => Hears::NoLogs,
        };
        let token = meta.and_then(|meta| meta.progress_token);
        let mut edit = message.edit();
        edit.replace(raw_id, number.to_string());
        if let Some(token) = token {
            edit.replace(token, number.to_string());
        }
        let token = token.map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
        self.pending.insert(
            number,
            Pending {
                link,
                raw_id: owned_id,
                token,
                is_initialize,
                hears,
            },
        );
        if let Some(client) = self.clients.get_mut(&link) {
            client.asked = number;
        }
        self.feed(edit.finish());
    }

    /// A message of the agent.
    pub(super) fn heard(&mut self, message: Message) {
        let parts = if message.is_batch() {
            message.batch().unwrap_or_default()
        } else {
            vec![message]
        };
        for part in parts {
            let Ok(peek) = part.peek() else {
                tracing::warn!(agent = %self.agent.name, "it sent what is no JSON-RPC message; it is dropped");
                continue;
            };
            match peek.kind() {
                Kind::Response => self.answered(&part, &peek),
                Kind::Request => self.questioned(&part, &peek),
                Kind::Notification => self.notified(&part, &peek),
            }
        }
    }

    fn answered(&mut self, message: &Message, peek: &Peek<'_>) {
        let (Some(raw), Some(Id::Integer(number))) = (peek.id, peek.id()) else {
            return;
        };
        let Some(pending) = u64::try_from(number)
            .ok()
            .and_then(|number| self.pending.remove(&number))
        else {
            return;
        };
        if pending.is_initialize {
            self.initialize_answered(peek);
        }
        self.tasks.learn(message, peek, || Maker {
            link: pending.link,
            caller: self.clients.get(&pending.link).and_then(|client| client.caller.clone()),
        });
        let mut edit = message.edit();
        edit.replace(raw, pending.raw_id.clone());
        // The closing answer of a subscription names it once more.
        let subscription = peek
            .result
            .and_then(subscription_of)
            .filter(|raw| parse_raw(raw) == Some(Id::Integer(number)));
        if let Some(subscription) = subscription {
            edit.replace(subscription, pending.raw_id.clone());
        }
        let related = Some(pending.raw_id.clone());
        self.tell(
            pending.link,
            Frame {
                message: edit.finish(),
                related,
            },
        );
    }

    fn initialize_answered(&mut self, peek: &Peek<'_>) {
        self.initializing = false;
        let waiting = std::mem::take(&mut self.waiting);
        if let Some(result) = peek.result {
            self.initialized = Some(Bytes::copy_from_slice(result.get().as_bytes()));
        }
        for (link, raw_id) in waiting {
            let id = String::from_utf8_lossy(&raw_id);
            let answer = match (peek.result, peek.error) {
                (Some(result), _) => Message::result(&id, result.get()),
                (None, _) => self.agent.failed("it refused to initialize").answer(Some(&id)),
            };
            self.tell(link, answer.into());
        }
    }

    /// Who is to answer a question that names no request: the session that last asked something, first among those with
    /// a request in flight. While several callers use the agent nobody is asked, so that no caller's model or user works
    /// for another: an agent may ask long after the call that made it ask.
    fn answerer(&self) -> Result<u64, &'static str> {
        // The host itself, which asks what the agent offers, is no caller.
        let mut clients = self.clients.iter().filter(|(_, client)| client.caller.is_some());
        let first = clients.next().map(|(_, client)| &client.caller);
        if clients.any(|(_, client)| Some(&client.caller) != first) {
            return Err(
                "several nodes use this agent just now, and it does not say whose call its question belongs to",
            );
        }
        let sessions = self
            .clients
            .iter()
            .filter(|(_, client)| client.mode == Mode::Session && client.caller.is_some());
        let is_busy = |link: &u64| self.pending.values().any(|pending| pending.link == *link);
        let latest = sessions.max_by_key(|(link, client)| (is_busy(link), client.asked));
        let (link, _) = latest.ok_or("no client is there to answer")?;
        self.has_room(*link)
    }

    fn refuse(&mut self, peek: &Peek<'_>, why: &str) {
        if self.to_agent.len() >= QUESTIONS {
            tracing::warn!(agent = %self.agent.name, "it asks and does not read; a question is dropped");
            return;
        }
        let refusal = Fault::new(FaultCode::SessionLost, why).answer(peek.id.map(RawValue::get));
        self.feed(refusal);
    }

    /// Who is to answer a question about a task: the session that made it, or another one of its caller.
    fn answerer_of_task(&self, maker: &Maker) -> Result<u64, &'static str> {
        let is_theirs = |client: &Client| client.mode == Mode::Session && client.caller == maker.caller;
        let theirs = self.clients.iter().filter(|(_, client)| is_theirs(client));
        let best = theirs.max_by_key(|(link, client)| (**link == maker.link, client.asked));
        let (link, _) = best.ok_or("the client that made the task left")?;
        self.has_room(*link)
    }

    fn has_room(&self, link: u64) -> Result<u64, &'static str> {
        let open = self.questions.values().filter(|asked| **asked == link).count();
        if open >= QUESTIONS_EACH || self.questions.len() >= QUESTIONS {
            return Err("as many of its questions as can be are open");
        }
        Ok(link)
    }

    /// The agent asks something of a client.
    fn questioned(&mut self, message: &Message, peek: &Peek<'_>) {
        let answerer = match self.tasks.asked_of(peek) {
            Some(maker) => self.answerer_of_task(maker),
            None => self.answerer(),
        };
        let link = match answerer {
            Ok(link) => link,
            Err(why) => return self.refuse(peek, why),
        };
        if let Some(id) = peek.id() {
            self.questions.insert(id, link);
        }
        let related = self
            .pending
            .values()
            .find(|pending| pending.link == link)
            .map(|pending| pending.raw_id.clone());
        self.tell(
            link,
            Frame {
                message: message.clone(),
                related,
            },
        );
    }

    fn notified(&mut self, message: &Message, peek: &Peek<'_>) {
        if peek.method().ends_with("/list_changed") {
            self.agent.stale.notify_one();
        }
        let params = peek.params();
        let number = |raw: &RawValue| match parse_raw(raw) {
            Some(Id::Integer(number)) => u64::try_from(number).ok(),
            _ => None,
        };
        if peek.method() == "notifications/progress"
            && let Some(raw) = params.as_ref().and_then(|params| params.progress_token)
        {
            let Some(pending) = number(raw).and_then(|number| self.pending.get(&number)) else {
                return;
            };
            let mut edit = message.edit();
            edit.replace(raw, pending.token.clone().unwrap_or_else(|| pending.raw_id.clone()));
            let frame = Frame {
                message: edit.finish(),
                related: Some(pending.raw_id.clone()),
            };
            return self.tell(pending.link, frame);
        }
        let subscription = peek.meta().and_then(|meta| meta.subscription_id);
        if let Some(raw) = subscription {
            let Some(pending) = number(raw).and_then(|number| self.pending.get(&number)) else {
                return;
            };
            let mut edit = message.edit();
            edit.replace(raw, pending.raw_id.clone());
            let frame = Frame {
                message: edit.finish(),
                related: Some(pending.raw_id.clone()),
            };
            return self.tell(pending.link, frame);
        }
        if peek.method() == "notifications/cancelled" {
            let Some(raw) = params.as_ref().and_then(|params| params.request_id) else {
                return;
            };
            // Of a subscription that the agent ends, or of a question that it takes back.
            if let Some(pending) = number(raw).and_then(|number| self.pending.get(&number)) {
                let mut edit = message.edit();
                edit.replace(raw, pending.raw_id.clone());
                let frame = Frame {
                    message: edit.finish(),
                    related: Some(pending.raw_id.clone()),
                };
                return self.tell(pending.link, frame);
            }
            let Some(link) = parse_raw(raw).and_then(|id| self.questions.remove(&id)) else {
                return;
            };
            return self.tell(link, message.clone().into());
        }
        if peek.method() == "notifications/tasks/status" {
            // What becomes of a task is its maker's business, who need not be told.
            let maker = params.and_then(|params| self.tasks.maker(params.task_id?));
            if let Some(link) = maker.map(|maker| maker.link) {
                self.tell(link, message.clone().into());
            }
            return;
        }
        // What names no request is for every session, and for an exchange when it can only be its caller's.
        let is_log = peek.method() == "notifications/message";
        let hearing = self.pending.iter().filter(|(_, pending)| match pending.hears {
            Hears::Nothing => false,
            Hears::NoLogs => !is_log,
            Hears::All => true,
        });
        let hearing: Vec<(&u64, &Pending)> = hearing.collect();
        let caller = |pending: &Pending| self.clients.get(&pending.link).map(|client| &client.caller);
        let is_one_callers = hearing.windows(2).all(|pair| caller(pair[0].1) == caller(pair[1].1));
        if let Some((_, oldest)) = hearing.iter().min_by_key(|(number, _)| **number)
            && is_one_callers
            && !peek.method().ends_with("/list_changed")
        {
            let frame = Frame {
                message: message.clone(),
                related: Some(oldest.raw_id.clone()),
            };
            self.tell(oldest.link, frame);
        }
        let sessions: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.mode == Mode::Session)
            .map(|(link, _)| *link)
            .collect();
        for link in sessions {
            self.tell(link, message.clone().into());
        }
    }
}

fn cancelled(number: u64) -> Message {
    Message::notification(
        "notifications/cancelled",
        Some(&format!(r#"{{"requestId":{number},"reason":"the client left"}}"#)),
    )
}

fn parse(raw: &[u8]) -> Option<Id> {
    std::str::from_utf8(raw).ok().and_then(|raw| Id::parse(raw).ok())
}

fn parse_raw(raw: &RawValue) -> Option<Id> {
    Id::parse(raw.get()).ok()
}

/// The subscription id in a result's `_meta`.
fn subscription_of(result: &RawValue) -> Option<&RawValue> {
    // Only the closing answer of a subscription carries one; other results can be large.
    memchr::memmem::find(result.get().as_bytes(), b"io.modelcontextprotocol/subscriptionId")?;
    let params: crate::jsonrpc::Params<'_> = serde_json::from_str(result.get()).ok()?;
    params.meta()?.subscription_id
}

#[cfg(test)]
mod tests;
