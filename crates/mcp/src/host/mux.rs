//! One connection to an agent, shared by several links.
//!
//! Ids, progress tokens and subscription ids are replaced by numbers of the connection's own, so that clients which
//! use the same ones never meet; nothing else of a message changes. Legacy sessions share one `initialize`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Agent;
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Id, Kind, Message, Peek};
use crate::limits::McpLimits;
use crate::link::{Link, LinkReceiver, LinkSender};
use crate::wire::Mode;

/// The shared connection. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Mux {
    commands: mpsc::Sender<Command>,
    queue: usize,
}

#[derive(Debug)]
enum Command {
    Open {
        link: u64,
        mode: Mode,
        caller: Option<String>,
        client: mpsc::Sender<Result<Frame, Fault>>,
    },
    Say {
        link: u64,
        message: Message,
    },
    Close {
        link: u64,
    },
}

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
    sender: mpsc::Sender<Result<Frame, Fault>>,
    /// When it last asked something, in requests of the connection.
    asked: u64,
}

struct Actor {
    agent: Arc<Agent>,
    to_agent: LinkSender,
    clients: HashMap<u64, Client>,
    pending: HashMap<u64, Pending>,
    /// Legacy `initialize`: the raw result once it came, and who else waits for it.
    initialized: Option<Bytes>,
    initializing: bool,
    waiting: Vec<(u64, Bytes)>,
    told_initialized: bool,
    /// Requests of the agent, by id: which client was asked.
    questions: HashMap<Id, u64>,
    next: u64,
}

impl Mux {
    /// Takes over a connection to an agent.
    pub(super) fn start(link: Link, agent: Arc<Agent>, limits: &McpLimits, tasks: &TaskTracker) -> Self {
        let (commands, receiver) = mpsc::channel(limits.queue_messages);
        let actor = Actor {
            agent,
            to_agent: link.sender,
            clients: HashMap::new(),
            pending: HashMap::new(),
            initialized: None,
            initializing: false,
            waiting: Vec::new(),
            told_initialized: false,
            questions: HashMap::new(),
            next: 0,
        };
        tasks.spawn(actor.run(link.receiver, receiver));
        Self {
            commands,
            queue: limits.queue_messages,
        }
    }

    /// Whether the connection ended.
    pub(super) fn is_over(&self) -> bool {
        self.commands.is_closed()
    }

    /// A link over the connection.
    pub(super) fn open(&self, mode: Mode, caller: Option<String>, tasks: &TaskTracker) -> Link {
        let (near, mut from_client) = mpsc::channel::<Result<Frame, Fault>>(self.queue);
        let (client, far) = mpsc::channel(self.queue);
        let commands = self.commands.clone();
        let link = rand::random();
        tasks.spawn(async move {
            let gone = client.clone();
            let mut open = commands
                .send(Command::Open {
                    link,
                    mode,
                    caller,
                    client,
                })
                .await
                .is_ok();
            while open {
                // A client that stopped listening is gone, whether or not it says so.
                let frame = tokio::select! {
                    frame = from_client.recv() => frame,
                    () = gone.closed() => None,
                };
                let Some(Ok(frame)) = frame else { break };
                open = commands
                    .send(Command::Say {
                        link,
                        message: frame.message,
                    })
                    .await
                    .is_ok();
            }
            // A connection that ended has told its clients.
            let _ = commands.send(Command::Close { link }).await;
        });
        Link::from_channels(near, far)
    }
}

impl Actor {
    async fn run(mut self, mut from_agent: LinkReceiver, mut commands: mpsc::Receiver<Command>) {
        let stop = self.agent.stop.clone();
        let fault = loop {
            tokio::select! {
                () = stop.cancelled() => break self.agent.failed("it was stopped"),
                command = commands.recv() => {
                    let Some(mut command) = command else { return };
                    let mut broken = None;
                    loop {
                        if let Err(fault) = self.command(command).await {
                            broken = Some(fault);
                            break;
                        }
                        match commands.try_recv() {
                            Ok(next) => command = next,
                            Err(_) => break,
                        }
                    }
                    if broken.is_none() && self.to_agent.flush().await.is_err() {
                        broken = Some(self.lost());
                    }
                    if let Some(fault) = broken {
                        break fault;
                    }
                }
                received = from_agent.recv() => match received {
                    Ok(Some(frame)) => self.heard(frame.message).await,
                    Ok(None) => break self.lost(),
                    Err(error) => break error.fault(&self.lost()),
                },
            }
        };
        commands.close();
        for client in self.clients.values() {
            // A client that left needs no word.
            let _ = client.sender.try_send(Err(fault.clone()));
        }
        while let Some(command) = commands.recv().await {
            if let Command::Open { client, .. } = command {
                let _ = client.try_send(Err(fault.clone()));
            }
        }
    }

    fn lost(&self) -> Fault {
        self.agent
            .failed("it ended while it worked; it is started again by the next call")
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    async fn command(&mut self, command: Command) -> Result<(), Fault> {
        match command {
            Command::Open {
                link,
                mode,
                caller,
                client,
            } => {
                self.clients.insert(
                    link,
                    Client {
                        mode,
                        caller,
                        sender: client,
                        asked: 0,
                    },
                );
                Ok(())
            }
            Command::Say { link, message } => {
                let parts = if message.is_batch() {
                    message.batch().unwrap_or_default()
                } else {
                    vec![message]
                };
                for part in parts {
                    self.said(link, part).await?;
                }
                Ok(())
            }
            Command::Close { link } => self.close(link).await,
        }
    }

    async fn feed(&mut self, message: Message) -> Result<(), Fault> {
        let lost = self.lost();
        self.to_agent
            .feed(message.into())
            .await
            .map_err(|error| error.fault(&lost))
    }

    /// A client left: what it still waits for is cancelled.
    async fn close(&mut self, link: u64) -> Result<(), Fault> {
        if self.clients.remove(&link).is_none() {
            return Ok(());
        }
        let open: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.link == link)
            .map(|(number, _)| *number)
            .collect();
        for number in open {
            self.pending.remove(&number);
            self.feed(cancelled(number)).await?;
        }
        self.waiting.retain(|(waits, _)| *waits != link);
        self.questions.retain(|_, asked| *asked != link);
        Ok(())
    }

    /// A message of a client.
    async fn said(&mut self, link: u64, message: Message) -> Result<(), Fault> {
        let Ok(peek) = message.peek() else { return Ok(()) };
        match peek.kind() {
            Kind::Request => self.asked(link, &message, &peek).await,
            Kind::Response => {
                let asked = peek.id().and_then(|id| self.questions.remove(&id));
                if asked == Some(link) {
                    self.feed(message).await
                } else {
                    Ok(())
                }
            }
            Kind::Notification => match peek.method() {
                "notifications/cancelled" => {
                    let id = peek
                        .params()
                        .and_then(|params| params.request_id)
                        .and_then(|raw| Id::parse(raw.get()).ok());
                    let found = self
                        .pending
                        .iter()
                        .find(|(_, pending)| pending.link == link && parse(&pending.raw_id) == id);
                    let Some((&number, _)) = found else { return Ok(()) };
                    let Some(raw) = peek.params().and_then(|params| params.request_id) else {
                        return Ok(());
                    };
                    self.pending.remove(&number);
                    let mut edit = message.edit();
                    edit.replace(raw, number.to_string());
                    self.feed(edit.finish()).await
                }
                "notifications/initialized" if self.told_initialized => Ok(()),
                "notifications/initialized" => {
                    self.told_initialized = true;
                    self.feed(message).await
                }
                _ => self.feed(message).await,
            },
        }
    }

    async fn asked(&mut self, link: u64, message: &Message, peek: &Peek<'_>) -> Result<(), Fault> {
        let Some(raw_id) = peek.id else { return Ok(()) };
        let owned_id = Bytes::copy_from_slice(raw_id.get().as_bytes());
        let is_legacy = self
            .clients
            .get(&link)
            .is_some_and(|client| client.mode == Mode::Session);
        let is_initialize = is_legacy && peek.method() == "initialize";
        if is_initialize {
            if let Some(result) = &self.initialized {
                let answer = Message::result(raw_id.get(), &String::from_utf8_lossy(result));
                tell(&self.clients, link, answer.into()).await;
                return Ok(());
            }
            if self.initializing {
                self.waiting.push((link, owned_id));
                return Ok(());
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
        self.feed(edit.finish()).await
    }

    /// A message of the agent.
    async fn heard(&mut self, message: Message) {
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
                Kind::Response => self.answered(&part, &peek).await,
                Kind::Request => self.questioned(&part, &peek).await,
                Kind::Notification => self.notified(&part, &peek).await,
            }
        }
    }

    async fn answered(&mut self, message: &Message, peek: &Peek<'_>) {
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
            self.initialize_answered(peek).await;
        }
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
        tell(
            &self.clients,
            pending.link,
            Frame {
                message: edit.finish(),
                related,
            },
        )
        .await;
    }

    async fn initialize_answered(&mut self, peek: &Peek<'_>) {
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
            tell(&self.clients, link, answer.into()).await;
        }
    }

    /// The agent asks something of a client: the one that last asked something of it.
    async fn questioned(&mut self, message: &Message, peek: &Peek<'_>) {
        let busy = self
            .pending
            .values()
            .map(|pending| pending.link)
            .filter_map(|link| Some((link, self.clients.get(&link)?)));
        let latest = busy
            .filter(|(_, client)| client.mode == Mode::Session)
            .max_by_key(|(_, client)| client.asked)
            .map(|(link, _)| link);
        let any = || {
            self.clients
                .iter()
                .filter(|(_, client)| client.mode == Mode::Session)
                .max_by_key(|(_, client)| client.asked)
                .map(|(link, _)| *link)
        };
        let Some(link) = latest.or_else(any) else {
            let refusal =
                Fault::new(FaultCode::SessionLost, "no client is there to answer").answer(peek.id.map(RawValue::get));
            // When the agent is gone, reading from it says so.
            let _ = self.to_agent.send(refusal.into()).await;
            return;
        };
        if let Some(id) = peek.id() {
            self.questions.insert(id, link);
        }
        let related = self
            .pending
            .values()
            .find(|pending| pending.link == link)
            .map(|pending| pending.raw_id.clone());
        tell(
            &self.clients,
            link,
            Frame {
                message: message.clone(),
                related,
            },
        )
        .await;
    }

    async fn notified(&mut self, message: &Message, peek: &Peek<'_>) {
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
            return tell(&self.clients, pending.link, frame).await;
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
            return tell(&self.clients, pending.link, frame).await;
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
                return tell(&self.clients, pending.link, frame).await;
            }
            let Some(link) = parse_raw(raw).and_then(|id| self.questions.remove(&id)) else {
                return;
            };
            return tell(&self.clients, link, message.clone().into()).await;
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
            tell(&self.clients, oldest.link, frame).await;
        }
        let sessions: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.mode == Mode::Session)
            .map(|(link, _)| *link)
            .collect();
        for link in sessions {
            tell(&self.clients, link, message.clone().into()).await;
        }
    }
}

async fn tell(clients: &HashMap<u64, Client>, link: u64, frame: Frame) {
    if let Some(client) = clients.get(&link) {
        // A client that left is closed by its own task.
        let _ = client.sender.send(Ok(frame)).await;
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
