//! One agent's legacy session on behalf of a legacy session with the aggregate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dawn_identity::AgentAddress;
use tokio::sync::{mpsc, oneshot};

use super::Aggregate;
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Id, Kind, Message};
use crate::link::Link;
use crate::pump::InFlight;
use crate::wire::Mode;

/// What comes from an agent.
#[derive(Debug)]
pub(super) struct FromAgent {
    pub(super) address: AgentAddress,
    /// `None` when the session ended.
    pub(super) frame: Option<Frame>,
}

/// Requests of the aggregate's own, by their id.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<Mutex<HashMap<Id, oneshot::Sender<Message>>>>);

impl Asked {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Id, oneshot::Sender<Message>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A session with one agent; dropping it ends the session.
#[derive(Debug)]
pub(super) struct Upstream {
    to_agent: mpsc::Sender<Message>,
    asked: Asked,
}

/// Asks an agent questions of the aggregate's own.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    to_agent: mpsc::Sender<Message>,
    asked: Asked,
}

impl Upstream {
    /// Begins a session with the client's own `initialize` parameters.
    pub(super) fn start(
        aggregate: Aggregate,
        address: AgentAddress,
        initialize: String,
        log_level: Option<Message>,
        events: mpsc::Sender<FromAgent>,
    ) -> Self {
        let (to_agent, commands) = mpsc::channel(aggregate.router.limits().queue_messages);
        let asked = Asked::default();
        let run = Run {
            aggregate,
            address,
            asked: asked.clone(),
            open: InFlight::default(),
            events,
        };
        tokio::spawn(run.run(initialize, log_level, commands));
        Self { to_agent, asked }
    }

    /// Sends a message of the client; `false` when the session is over.
    pub(super) async fn send(&self, message: Message) -> bool {
        self.to_agent.send(message).await.is_ok()
    }

    pub(super) fn is_over(&self) -> bool {
        self.to_agent.is_closed()
    }

    pub(super) fn asker(&self) -> Asker {
        Asker {
            to_agent: self.to_agent.clone(),
            asked: self.asked.clone(),
        }
    }
}

impl Asker {
    /// Sends a request of the aggregate's own and waits for its response; `None` when the session ended.
    pub(super) async fn ask(&self, method: &str, params: &str) -> Option<Message> {
        let id = format!("dawn-{:032x}", rand::random::<u128>());
        let (sender, receiver) = oneshot::channel();
        self.asked.with(|asked| asked.insert(Id::Text(id.clone()), sender));
        let request = Message::request(&format!("\"{id}\""), method, params);
        let answer = match self.to_agent.send(request).await {
            Ok(()) => receiver.await.ok(),
            Err(_) => None,
        };
        self.asked.with(|asked| asked.remove(&Id::Text(id)));
        answer
    }
}

struct Run {
    aggregate: Aggregate,
    address: AgentAddress,
    asked: Asked,
    open: InFlight,
    events: mpsc::Sender<FromAgent>,
}

/// How many requests a client may have in flight is decided where it comes in.
const AT_THE_DOOR: usize = usize::MAX;

impl Run {
    async fn run(self, initialize: String, log_level: Option<Message>, mut commands: mpsc::Receiver<Message>) {
        let mut fault = match self.begin(initialize, log_level).await {
            Ok(link) => self.carry(link, &mut commands).await,
            Err(fault) => Some(fault),
        };
        commands.close();
        while let Some(message) = commands.recv().await {
            if self.open.sent(&message, AT_THE_DOOR).is_ok() && fault.is_none() {
                fault = Some(self.aggregate.router.lost(&self.address));
            }
        }
        self.asked.with(HashMap::clear);
        let fault = fault.unwrap_or_else(|| self.aggregate.router.lost(&self.address));
        for raw in self.open.drain() {
            self.tell(Some(fault.answer(Some(&String::from_utf8_lossy(&raw))).into()))
                .await;
        }
        self.tell(None).await;
    }

    async fn tell(&self, frame: Option<Frame>) {
        // A client session that ended takes nothing more.
        let _ = self
            .events
            .send(FromAgent {
                address: self.address.clone(),
                frame,
            })
            .await;
    }

    async fn begin(&self, initialize: String, log_level: Option<Message>) -> Result<Link, Fault> {
        let limits = self.aggregate.router.limits();
        let lost = self.aggregate.router.lost(&self.address);
        let opening = async {
            let mut link = self.aggregate.router.open(&self.address, Mode::Session).await?;
            let request = Message::request("\"dawn-initialize\"", "initialize", &initialize);
            link.sender
                .send(request.into())
                .await
                .map_err(|error| error.fault(&lost))?;
            loop {
                let frame = link
                    .receiver
                    .recv()
                    .await
                    .map_err(|error| error.fault(&lost))?
                    .ok_or_else(|| lost.clone())?;
                let peek = frame.message.peek().map_err(|_| lost.clone())?;
                if peek.kind() != Kind::Response {
                    continue;
                }
                if peek.result.is_none() {
                    return Err(Fault::new(
                        FaultCode::AgentFailed,
                        format!("agent {} refused to initialize", self.address),
                    ));
                }
                break;
            }
            link.sender
                .feed(Message::notification("notifications/initialized", None).into())
                .await
                .map_err(|error| error.fault(&lost))?;
            if let Some(message) = log_level {
                link.sender
                    .feed(message.into())
                    .await
                    .map_err(|error| error.fault(&lost))?;
            }
            link.sender.flush().await.map_err(|error| error.fault(&lost))?;
            Ok(link)
        };
        let words = format!("agent {} did not answer initialize in time", self.address);
        tokio::time::timeout(limits.probe, opening)
            .await
            .map_err(|_| Fault::new(FaultCode::Timeout, words))?
    }

    /// Carries messages both ways; `None` when the client's session ended.
    async fn carry(&self, link: Link, commands: &mut mpsc::Receiver<Message>) -> Option<Fault> {
        let Link {
            mut sender,
            mut receiver,
        } = link;
        let lost = self.aggregate.router.lost(&self.address);
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let message = command?;
                    // Messages were read before; what they ask is remembered for the case of loss.
                    if self.open.sent(&message, AT_THE_DOOR).is_ok() && let Err(error) = sender.send(message.into()).await {
                        return Some(error.fault(&lost));
                    }
                }
                received = receiver.recv() => match received {
                    Ok(Some(frame)) => self.received(frame).await,
                    Ok(None) => return Some(lost),
                    Err(error) => return Some(error.fault(&lost)),
                },
            }
        }
    }

    async fn received(&self, frame: Frame) {
        let Ok(peek) = frame.message.peek() else { return };
        if peek.kind() == Kind::Response
            && let Some(id) = peek.id()
        {
            // The id was read a line above, so this succeeds.
            let _ = self.open.received(&frame.message);
            if let Some(waiting) = self.asked.with(|asked| asked.remove(&id)) {
                // Who asked may have given up.
                let _ = waiting.send(frame.message);
                return;
            }
        }
        drop(peek);
        self.tell(Some(frame)).await;
    }
}
