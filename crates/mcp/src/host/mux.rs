//! One connection to an agent, shared by several links.
//!
//! Ids, progress tokens and subscription ids are replaced by numbers of the connection's own, so that clients which
//! use the same ones never meet; nothing else of a message changes. Legacy sessions share one `initialize`.

mod outbox;
mod state;
mod tasks;

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::state::State;
use super::{Agent, lock};
use crate::fault::Fault;
use crate::frame::Frame;
use crate::jsonrpc::Message;
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

impl Mux {
    /// Takes over a connection to an agent.
    pub(super) fn start(link: Link, agent: &Arc<Agent>, limits: &McpLimits, tasks: &TaskTracker) -> Self {
        let (commands, receiver) = mpsc::channel(limits.queue_messages);
        let spill = limits.backlog_bytes;
        let state = Mutex::new(State::new(Arc::clone(agent), spill));
        tasks.spawn(run(state, agent.stop.clone(), link, receiver));
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
            let opening = commands.send(Command::Open {
                link,
                mode,
                caller,
                client,
            });
            let mut open = tokio::select! {
                opened = opening => opened.is_ok(),
                () = gone.closed() => false,
            };
            while open {
                // A client that stopped listening is gone, whether or not it says so.
                let frame = tokio::select! {
                    frame = from_client.recv() => frame,
                    () = gone.closed() => None,
                };
                let Some(Ok(frame)) = frame else { break };
                let saying = commands.send(Command::Say {
                    link,
                    message: frame.message,
                });
                open = tokio::select! {
                    said = saying => said.is_ok(),
                    () = gone.closed() => false,
                };
            }
            // A connection that ended has told its clients.
            let _ = commands.send(Command::Close { link }).await;
        });
        Link::from_channels(near, far)
    }
}

/// Writing and reading go side by side: an agent that writes before it reads on is read, and a client that does not
/// read keeps nobody waiting.
async fn run(state: Mutex<State>, stop: CancellationToken, link: Link, mut commands: mpsc::Receiver<Command>) {
    let answers = Notify::new();
    let fault = tokio::select! {
        () = stop.cancelled() => lock(&state).stopped(),
        fault = write(&state, link.sender, &mut commands, &answers) => fault,
        fault = read(&state, link.receiver, &answers) => fault,
    };
    commands.close();
    lock(&state).end(&fault);
    while let Some(command) = commands.recv().await {
        if let Command::Open { client, .. } = command {
            // A client that left needs no word.
            let _ = client.try_send(Err(fault.clone()));
        }
    }
}

/// Takes what the clients say, and writes what is for the agent.
async fn write(
    state: &Mutex<State>,
    mut to_agent: LinkSender,
    commands: &mut mpsc::Receiver<Command>,
    answers: &Notify,
) -> Fault {
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = answers.notified() => None,
        };
        let mut next = command;
        loop {
            let messages = {
                let mut state = lock(state);
                if let Some(command) = next.take() {
                    state.command(command);
                }
                state.take()
            };
            for message in messages {
                if let Err(error) = to_agent.feed(message.into()).await {
                    return error.fault(&lock(state).lost());
                }
            }
            match commands.try_recv() {
                Ok(command) => next = Some(command),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return lock(state).stopped(),
            }
        }
        if to_agent.flush().await.is_err() {
            return lock(state).lost();
        }
    }
}

/// Reads what the agent says, and hands it to the clients.
async fn read(state: &Mutex<State>, mut from_agent: LinkReceiver, answers: &Notify) -> Fault {
    loop {
        match from_agent.recv().await {
            Ok(Some(frame)) => {
                let has_answers = {
                    let mut state = lock(state);
                    state.heard(frame.message);
                    state.has_answers()
                };
                if has_answers {
                    answers.notify_one();
                }
            }
            Ok(None) => return lock(state).lost(),
            Err(error) => return error.fault(&lock(state).lost()),
        }
    }
}
