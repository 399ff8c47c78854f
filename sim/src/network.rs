//! A network of simulated nodes: everything that happens in it, one event after the other.

mod discovery;
mod exchange;
mod knowledge;
mod talk;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_kademlia::RequestId;
use dawn_registry::head::HeadId;
use dawn_registry::set::Dot;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::event::{Queue, Time, Trace, Traced};
use crate::link::{Lane, Weather, on_wire};
use crate::member::{Place, Roll};
use crate::node::Node;

pub(crate) use exchange::Conversation;
pub(crate) use knowledge::Heard;

/// What happens in a network.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The discovery of a node has something to do.
    Wakes { node: Place, life: u32 },
    /// A request of the discovery arrives; `life` is that of who asks.
    Asked {
        from: Place,
        to: Place,
        life: u32,
        id: RequestId,
        bytes: Vec<u8>,
    },
    /// Its answer arrives.
    Answered {
        from: Place,
        to: Place,
        life: u32,
        id: RequestId,
        bytes: Vec<u8>,
    },
    /// Something of a conversation arrives.
    Said {
        from: Place,
        to: Place,
        conversation: u64,
        said: exchange::Said,
    },
    /// A conversation takes too long.
    GivesUp {
        node: Place,
        life: u32,
        with: Place,
        conversation: u64,
    },
    /// A node stores what is new.
    Stores { node: Place, life: u32 },
}

impl Traced for Happening {
    fn trace(&self, trace: &mut Trace) {
        let (kind, places, bytes): (u64, [usize; 2], &[u8]) = match self {
            Self::Wakes { node, .. } => (1, [*node, 0], &[]),
            Self::Asked { from, to, bytes, .. } => (2, [*from, *to], bytes),
            Self::Answered { from, to, bytes, .. } => (3, [*from, *to], bytes),
            Self::Said { from, to, said, .. } => (4, [*from, *to], said.bytes()),
            Self::GivesUp { node, with, .. } => (5, [*node, *with], &[]),
            Self::Stores { node, .. } => (6, [*node, 0], &[]),
        };
        trace.number(kind);
        places.iter().for_each(|place| trace.number(*place as u64));
        trace.bytes(bytes);
    }
}

/// What a message is counted as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Sync,
    Discovery,
}

/// A network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) nodes: Vec<Node>,
    pub(crate) roll: Roll,
    pub(crate) chance: StdRng,
    pub(crate) weather: Weather,
    queue: Queue<Happening>,
    lanes: HashMap<(Place, Place), Lane>,
    /// Which part of a network that is cut each node is in.
    parts: Option<Vec<u8>>,
    conversations: u64,
    /// What was signed under each dot, and how often one was used for two things.
    dots: BTreeMap<(NodeId, Dot), HeadId>,
    pub(crate) dots_used_twice: u64,
    /// Who holds a proof that whom lied.
    pub(crate) lies: Vec<(Place, NodeId)>,
    /// What was heard, while somebody looks.
    pub(crate) heard: Option<Vec<Heard>>,
}

impl Network {
    /// A network of nodes none of which is up.
    pub(crate) fn new(size: usize, weather: Weather, seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut roll = Roll::new(&mut chance);
        let members: Vec<_> = (0..size).map(|_| roll.admit(&mut chance)).collect();
        Self {
            nodes: members.into_iter().map(|member| Node::new(member, &roll)).collect(),
            roll,
            chance,
            weather,
            queue: Queue::new(),
            lanes: HashMap::new(),
            parts: None,
            conversations: 0,
            dots: BTreeMap::new(),
            dots_used_twice: 0,
            lies: Vec::new(),
            heard: None,
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.queue.now()
    }

    /// How many events there were.
    pub(crate) fn happened(&self) -> u64 {
        self.queue.happened()
    }

    /// The hash over all of them.
    pub(crate) fn trace(&self) -> String {
        self.queue.trace().finish()
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        self.run_until(self.now() + span);
    }

    pub(crate) fn run_until(&mut self, until: Time) {
        while let Some(happening) = self.queue.next(until) {
            self.happens(happening);
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Wakes { node, life } => self.discovery_wakes(node, life),
            Happening::Asked {
                from,
                to,
                life,
                id,
                bytes,
            } => self.asked(from, to, life, id, &bytes),
            Happening::Answered {
                from,
                to,
                life,
                id,
                bytes,
            } => self.answered(from, to, life, id, &bytes),
            Happening::Said {
                from,
                to,
                conversation,
                said,
            } => self.said(from, to, conversation, said),
            Happening::GivesUp {
                node,
                life,
                with,
                conversation,
            } => self.gives_up(node, life, with, conversation),
            Happening::Stores { node, life } => {
                let node = &mut self.nodes[node];
                if node.life == life && node.is_up {
                    node.disk.store(&node.replica);
                }
            }
        }
    }

    /// Any of the nodes that are up.
    pub(crate) fn any(&mut self) -> Place {
        loop {
            let place = self.chance.random_range(..self.nodes.len());
            if self.nodes[place].is_up {
                return place;
            }
        }
    }

    /// Whether anything can come from one node to another now.
    fn is_passable(&self, from: Place, to: Place) -> bool {
        let apart = self.parts.as_ref().is_some_and(|parts| parts[from] != parts[to]);
        self.nodes[to].is_up && !apart
    }

    /// Sends a part of a stream: it arrives after all before it, if at all.
    fn stream(&mut self, from: Place, to: Place, bytes: usize, purpose: Purpose) -> Time {
        let left = self.leaves(from, bytes, purpose);
        let lane = self.lanes.entry((from, to)).or_default();
        lane.stream(left, &self.weather, &mut self.chance)
    }

    /// When the last byte of a message has left its node; counts it.
    fn leaves(&mut self, from: Place, bytes: usize, purpose: Purpose) -> Time {
        let (now, wire) = (self.queue.now(), on_wire(bytes));
        let node = &mut self.nodes[from];
        match purpose {
            Purpose::Sync => node.sent.sync += wire,
            Purpose::Discovery => node.sent.discovery += wire,
        }
        node.uplink.out(wire, now, &self.weather)
    }
}
