//! Conversations of two replicas: who begins one, how its messages travel, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_registry::sync::{Session, Snapshot};

use super::{Happening, Network, Purpose};
use crate::member::Place;

/// Conversations that a node begins at once, and answers at once.
const BEGUN: usize = 4;
const ANSWERED: usize = 16;
/// After how long a conversation is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One side of a conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    session: Session,
    is_begun_here: bool,
}

/// What one side says to the other.
#[derive(Debug)]
pub(crate) enum Said {
    /// The first message of a conversation.
    Opens(Vec<u8>),
    /// A message.
    Says(Vec<u8>),
    /// There is nobody here who takes part in it.
    Breaks,
}

impl Said {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Opens(bytes) | Self::Says(bytes) => bytes,
            Self::Breaks => &[],
        }
    }
}

impl Network {
    fn snapshot(&self, place: Place) -> Arc<Snapshot> {
        let node = &self.nodes[place];
        Arc::new(Snapshot::of(&node.replica, node.wall(self.now())).expect("ids of heads are not too many"))
    }

    /// A node compares all that it knows with another, unless it does already, or does enough of it.
    pub(crate) fn compare(&mut self, place: Place, with: Place) {
        if self.may_begin(place, with) {
            let session = Session::initiate(self.snapshot(place));
            self.begin(place, with, session);
        }
    }

    /// A node gets what it lacks of some nodes from another.
    pub(crate) fn fetch(&mut self, place: Place, from: Place, nodes: impl IntoIterator<Item = NodeId>) {
        if self.may_begin(place, from) {
            let session = Session::fetch(self.snapshot(place), nodes);
            self.begin(place, from, session);
        }
    }

    fn may_begin(&self, place: Place, with: Place) -> bool {
        let all = self.nodes[place].conversations.iter();
        let mut begun = all.filter(|(_, conversation)| conversation.is_begun_here);
        begun.clone().count() < BEGUN && begun.all(|((other, _), _)| *other != with)
    }

    fn begin(&mut self, place: Place, with: Place, session: Session) {
        self.conversations += 1;
        let number = self.conversations;
        let conversation = Conversation {
            session,
            is_begun_here: true,
        };
        self.joins(place, with, number, conversation);
        self.speaks(place, with, number, true);
    }

    fn joins(&mut self, place: Place, with: Place, number: u64, conversation: Conversation) {
        let node = &mut self.nodes[place];
        node.conversations.insert((with, number), conversation);
        let life = node.life;
        let ends = Happening::GivesUp {
            node: place,
            life,
            with,
            conversation: number,
        };
        self.queue.plan(self.queue.now() + PATIENCE, ends);
    }

    /// Says everything that there is to say now.
    fn speaks(&mut self, place: Place, with: Place, number: u64, opens: bool) {
        let mut is_first = opens;
        loop {
            let node = &mut self.nodes[place];
            let Some(conversation) = node.conversations.get_mut(&(with, number)) else {
                return;
            };
            let said = match conversation.session.transmit(&node.replica) {
                Ok(Some(bytes)) if is_first => Said::Opens(bytes),
                Ok(Some(bytes)) => Said::Says(bytes),
                Ok(None) if !conversation.session.is_done() => return,
                Ok(None) => {
                    node.conversations.remove(&(with, number));
                    return;
                }
                Err(_) => {
                    node.conversations.remove(&(with, number));
                    Said::Breaks
                }
            };
            is_first = false;
            self.send(place, with, number, said);
        }
    }

    fn send(&mut self, from: Place, to: Place, conversation: u64, said: Said) {
        let at = self.stream(from, to, said.bytes().len(), Purpose::Sync);
        let happening = Happening::Said {
            from,
            to,
            conversation,
            said,
        };
        self.queue.plan(at, happening);
    }

    pub(super) fn said(&mut self, from: Place, to: Place, number: u64, said: Said) {
        if !self.is_passable(from, to) {
            return;
        }
        let bytes = match said {
            Said::Opens(bytes) => {
                let node = &self.nodes[to];
                let answered = node.conversations.values().filter(|other| !other.is_begun_here);
                if answered.count() >= ANSWERED {
                    return self.send(to, from, number, Said::Breaks);
                }
                let conversation = Conversation {
                    session: Session::respond(self.snapshot(to)),
                    is_begun_here: false,
                };
                self.joins(to, from, number, conversation);
                bytes
            }
            Said::Says(bytes) => bytes,
            Said::Breaks => {
                self.nodes[to].conversations.remove(&(from, number));
                return;
            }
        };
        let node = &mut self.nodes[to];
        let Some(conversation) = node.conversations.get_mut(&(from, number)) else {
            return self.send(to, from, number, Said::Breaks);
        };
        match conversation.session.receive(&node.replica, &bytes) {
            Ok(deltas) => {
                for delta in deltas {
                    self.learns(to, from, &delta);
                }
                self.speaks(to, from, number, false);
            }
            Err(_) => {
                node.conversations.remove(&(from, number));
                self.send(to, from, number, Said::Breaks);
            }
        }
    }

    pub(super) fn gives_up(&mut self, place: Place, life: u32, with: Place, conversation: u64) {
        let node = &mut self.nodes[place];
        if node.life == life {
            node.conversations.remove(&(with, conversation));
        }
    }
}
