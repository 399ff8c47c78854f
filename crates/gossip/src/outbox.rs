//! What a node wants done, and what it tells.

use std::collections::{BTreeMap, VecDeque};

use dawn_identity::NodeId;

use crate::Instant;
use crate::message::{Message, NewsId};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A link to this member is wanted: [`Gossip::link_up`](crate::Gossip::link_up) when there is one,
    /// [`Gossip::link_down`](crate::Gossip::link_down) when none can be made.
    Connect(NodeId),
    /// The link to this node is not wanted any more, after what was sent on it before. Nothing more is heard of it;
    /// [`Gossip::link_down`](crate::Gossip::link_down) need not be called.
    Disconnect(NodeId),
    /// A message to a neighbour, over its link. Messages of a link arrive in their order.
    Send {
        /// Whom it is for.
        to: NodeId,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// News came; [`Gossip::accept`](crate::Gossip::accept) says what became of them.
    News {
        /// Names them.
        id: NewsId,
        /// The neighbour that sent them, not their author.
        from: NodeId,
        /// What somebody published.
        bytes: Vec<u8>,
    },
    /// A member is there: it said so.
    Online(NodeId),
    /// A member was not heard by somebody; it has a while to say that it is there.
    Suspected(NodeId),
    /// A member is not there: it said so, or has not refuted that it was not heard.
    Offline(NodeId),
    /// This neighbour knows something else than this node: the two should compare what they have. It is told on one side
    /// of a link only. While that is under way with somebody, others may be passed over: what still differs then is told
    /// again.
    Differs(NodeId),
    /// This neighbour sent too much that was refused, and is not heard for a while.
    Muted(NodeId),
}

/// Actions and events that nobody has taken yet, and when each link carried something last.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    sent: BTreeMap<NodeId, Instant>,
}

impl Outbox {
    pub(crate) fn connect(&mut self, node: NodeId) {
        self.actions.push_back(Action::Connect(node));
    }

    pub(crate) fn disconnect(&mut self, node: NodeId) {
        self.sent.remove(&node);
        self.actions.push_back(Action::Disconnect(node));
    }

    /// The link carries messages from now on.
    pub(crate) fn open(&mut self, node: NodeId, now: Instant) {
        self.sent.insert(node, now);
    }

    /// The link is gone.
    pub(crate) fn close(&mut self, node: &NodeId) {
        self.sent.remove(node);
    }

    pub(crate) fn send(&mut self, to: NodeId, message: &Message, now: Instant) {
        self.send_bytes(to, message.encode(), now);
    }

    /// Sends an encoded message.
    pub(crate) fn send_bytes(&mut self, to: NodeId, bytes: Vec<u8>, now: Instant) {
        if let Some(sent) = self.sent.get_mut(&to) {
            *sent = now;
            self.actions.push_back(Action::Send { to, bytes });
        }
    }

    /// Since when each link has carried nothing.
    pub(crate) fn quiet(&self) -> impl Iterator<Item = (&NodeId, &Instant)> {
        self.sent.iter()
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
