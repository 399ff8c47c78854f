//! Conversations of two replicas: who begins one, how its messages travel, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_registry::replica::Applied;
use dawn_registry::sync::{Session, Snapshot};

use super::{Happening, Network, Purpose};
use crate::link::Lane;
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
    /// Whether it brought something new.
    has_brought: bool,
    lane: Lane,
}

impl Conversation {
    fn new(session: Session, is_begun_here: bool) -> Self {
        Self {
            session,
            is_begun_here,
            has_brought: false,
            lane: Lane::default(),
        }
    }
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
        if self.is_filling(place) {
            return false;
        }
        let all = self.nodes[place].conversations.iter();
        let mut begun = all.filter(|(_, conversation)| conversation.is_begun_here);
        begun.clone().count() < BEGUN && begun.all(|((other, _), _)| *other != with)
    }

    /// Whether a node that knows nobody yet gets everything from somebody: once is enough.
    fn is_filling(&self, place: Place) -> bool {
        /// Itself, who invited it, and one more.
        const NEW: usize = 3;
        let node = &self.nodes[place];
        !node.conversations.is_empty() && node.replica.nodes(node.wall(self.now())).take(NEW + 1).count() <= NEW
    }

    fn begin(&mut self, place: Place, with: Place, session: Session) {
        self.counted += 1;
        let number = self.counted;
        self.joins(place, with, number, Conversation::new(session, true));
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
                Some(bytes) if is_first => Said::Opens(bytes),
                Some(bytes) => Said::Says(bytes),
                None if !conversation.session.is_done() => return,
                None => return self.ends(place, with, number),
            };
            is_first = false;
            self.send(place, with, number, said);
        }
    }

    fn send(&mut self, from: Place, to: Place, conversation: u64, said: Said) {
        let left = self.leaves(from, said.bytes().len(), Purpose::Sync);
        let mut fresh = Lane::default();
        let conversations = &mut self.nodes[from].conversations;
        let open = conversations.get_mut(&(to, conversation));
        let lane = open.map_or(&mut fresh, |open| &mut open.lane);
        let at = lane.arrival(left, &self.weather, &mut self.chance);
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
                let all = self.nodes[to].conversations.values();
                if self.is_filling(to) || all.filter(|other| !other.is_begun_here).count() >= ANSWERED {
                    return self.send(to, from, number, Said::Breaks);
                }
                let session = Session::respond(self.snapshot(to));
                self.joins(to, from, number, Conversation::new(session, false));
                bytes
            }
            Said::Says(bytes) => bytes,
            Said::Breaks => return self.ends(to, from, number),
        };
        let node = &mut self.nodes[to];
        let Some(conversation) = node.conversations.get_mut(&(from, number)) else {
            return self.send(to, from, number, Said::Breaks);
        };
        let Ok(deltas) = conversation.session.receive(&node.replica, &bytes) else {
            return self.breaks(to, from, number);
        };
        for delta in deltas {
            // What is refused is counted.
            if self.hears(to, &delta) == Ok(Applied::New)
                && let Some(conversation) = self.nodes[to].conversations.get_mut(&(from, number))
            {
                conversation.has_brought = true;
            }
        }
        self.speaks(to, from, number, false);
    }

    /// A conversation is over at one side.
    fn ends(&mut self, place: Place, with: Place, number: u64) {
        let ended = self.nodes[place].conversations.remove(&(with, number));
        if ended.is_some_and(|conversation| conversation.has_brought) {
            self.has_learned(place);
        }
    }

    fn breaks(&mut self, place: Place, with: Place, number: u64) {
        self.ends(place, with, number);
        self.send(place, with, number, Said::Breaks);
    }

    pub(super) fn gives_up(&mut self, place: Place, life: u32, with: Place, conversation: u64) {
        if self.nodes[place].life == life {
            self.ends(place, with, conversation);
        }
    }
}
