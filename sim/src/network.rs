//! A network of simulated nodes: everything that happens in it, one event after the other.

mod discovery;
mod exchange;
mod knowledge;
mod life;
mod links;
mod talk;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_kademlia::RequestId;
use dawn_registry::head::HeadId;
use dawn_registry::set::Dot;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::event::{Queue, Time, Trace, Traced};
use crate::link::{HANDSHAKE, Weather, on_wire};
use crate::member::{Place, Roll};
use crate::node::Node;
use crate::voice::Signatures;

pub(crate) use exchange::Conversation;
pub(crate) use knowledge::Heard;
use links::Link;

/// What happens in a network.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A part of a node has something to do.
    Wakes {
        node: Place,
        life: u32,
        part: Part,
    },
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
    /// A node that wants a link has reached the other, or found that it cannot.
    Dialled {
        from: Place,
        to: Place,
        life: u32,
    },
    DialFailed {
        from: Place,
        to: Place,
        life: u32,
    },
    /// A message of the gossip arrives over a link.
    Gossiped {
        from: Place,
        to: Place,
        link: u64,
        bytes: Vec<u8>,
    },
    /// The other end of a link hears, or finds out, that it is no more.
    LinkEnds {
        node: Place,
        with: Place,
        link: u64,
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
    Stores {
        node: Place,
        life: u32,
    },
}

impl Traced for Happening {
    fn trace(&self, trace: &mut Trace) {
        let (kind, places, bytes): (u64, [usize; 2], &[u8]) = match self {
            Self::Wakes { node, part, .. } => (1 + *part as u64, [*node, 0], &[]),
            Self::Asked { from, to, bytes, .. } => (4, [*from, *to], bytes),
            Self::Answered { from, to, bytes, .. } => (5, [*from, *to], bytes),
            Self::Dialled { from, to, .. } => (6, [*from, *to], &[]),
            Self::DialFailed { from, to, .. } => (7, [*from, *to], &[]),
            Self::Gossiped { from, to, bytes, .. } => (8, [*from, *to], bytes),
            Self::LinkEnds { node, with, .. } => (9, [*node, *with], &[]),
            Self::Said { from, to, said, .. } => (10, [*from, *to], said.bytes()),
            Self::GivesUp { node, with, .. } => (11, [*node, *with], &[]),
            Self::Stores { node, .. } => (12, [*node, 0], &[]),
        };
        trace.number(kind);
        places.iter().for_each(|place| trace.number(*place as u64));
        trace.bytes(bytes);
    }
}

/// What of a node wants to be woken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Gossip,
    Discovery,
    Registry,
}

/// What a message is counted as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Gossip,
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
    /// Links between nodes, by their ends, the smaller place first.
    links: BTreeMap<(Place, Place), Link>,
    /// Connections beside links, and until when they stay.
    connections: HashMap<(Place, Place), Time>,
    signatures: Rc<Signatures>,
    /// Which part of a network that is cut each node is in.
    parts: Option<Vec<u8>>,
    /// How many links and conversations there were.
    counted: u64,
    /// What was signed under each dot, and how often one was used for two things.
    dots: BTreeMap<(NodeId, Dot), HeadId>,
    pub(crate) dots_used_twice: u64,
    /// Who holds a proof that whom lied.
    pub(crate) lies: Vec<(Place, NodeId)>,
    /// How often who refused a delta, by its code.
    pub(crate) deltas_refused: BTreeMap<(Place, &'static str), u64>,
    /// Messages that were refused, and by whom who was not heard any more for it.
    pub(crate) messages_refused: u64,
    pub(crate) muted: Vec<(Place, Place)>,
    /// How often a node was told that another is gone which was there.
    pub(crate) wrongly_gone: u64,
    /// While somebody looks: what was heard, and when whom somebody tried to reach.
    pub(crate) heard: Option<Vec<Heard>>,
    pub(crate) dialled: Option<Vec<(Time, Place)>>,
}

impl Network {
    /// A network of nodes none of which is up.
    pub(crate) fn new(size: usize, weather: Weather, seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut roll = Roll::new(&mut chance);
        let signatures = Rc::default();
        let members: Vec<_> = (0..size).map(|_| roll.admit(&mut chance)).collect();
        Self {
            nodes: members
                .into_iter()
                .map(|member| Node::new(member, &roll, &signatures))
                .collect(),
            roll,
            chance,
            weather,
            queue: Queue::new(),
            links: BTreeMap::new(),
            connections: HashMap::new(),
            signatures,
            parts: None,
            counted: 0,
            dots: BTreeMap::new(),
            dots_used_twice: 0,
            lies: Vec::new(),
            deltas_refused: BTreeMap::new(),
            messages_refused: 0,
            muted: Vec::new(),
            heard: None,
            wrongly_gone: 0,
            dialled: None,
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
            Happening::Wakes { node, life, part } => self.part_wakes(node, life, part),
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
            Happening::Dialled { from, to, life } => self.dialled(from, to, life),
            Happening::DialFailed { from, to, life } => self.dial_failed(from, to, life),
            Happening::Gossiped { from, to, link, bytes } => self.gossiped(from, to, link, &bytes),
            Happening::LinkEnds { node, with, link } => self.link_ends(node, with, link),
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
            Happening::Stores { node, life } => self.stores(node, life),
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

    /// The nodes that are up.
    pub(crate) fn up(&self) -> impl Iterator<Item = Place> + '_ {
        let all = self.nodes.iter().enumerate();
        all.filter(|(_, node)| node.is_up).map(|(place, _)| place)
    }

    /// How many different states the replicas of the nodes have that are up.
    pub(crate) fn states(&self) -> usize {
        let all = self.up().map(|place| self.nodes[place].replica.fingerprint());
        all.collect::<BTreeSet<_>>().len()
    }

    /// Lets time pass until all replicas are equal, for so long at most; how long it took.
    pub(crate) fn until_equal(&mut self, most: Duration) -> Option<Duration> {
        const STEP: Duration = Duration::from_secs(1);
        let begun = self.now();
        while self.now() - begun < most {
            if self.states() == 1 {
                return Some(self.now() - begun);
            }
            self.run(STEP);
        }
        None
    }

    /// Whether anything can come from one node to another now.
    fn is_passable(&self, from: Place, to: Place) -> bool {
        let apart = self.parts.as_ref().is_some_and(|parts| parts[from] != parts[to]);
        self.nodes[to].is_up && !apart
    }

    /// Lets a part of a node be woken then, if it is not before.
    fn wakes_at(&mut self, place: Place, part: Part, at: Option<Time>) {
        let Some(at) = at else { return };
        let node = &mut self.nodes[place];
        let planned = &mut node.wakes[part as usize];
        if planned.is_none_or(|planned| at < planned) {
            *planned = Some(at);
            let life = node.life;
            self.queue.plan(
                at,
                Happening::Wakes {
                    node: place,
                    life,
                    part,
                },
            );
        }
    }

    fn part_wakes(&mut self, place: Place, life: u32, part: Part) {
        let now = self.now();
        let node = &mut self.nodes[place];
        let planned = &mut node.wakes[part as usize];
        // One that was planned for a later time than another that came since is of no use any more.
        if !node.is_up || node.life != life || planned.is_none_or(|planned| planned > now) {
            return;
        }
        *planned = None;
        match part {
            Part::Gossip => self.gossip_wakes(place),
            Part::Discovery => self.discovery_wakes(place),
            Part::Registry => self.registry_wakes(place),
        }
    }

    /// When the last byte of a message has left its node; counts it.
    fn leaves(&mut self, from: Place, bytes: usize, purpose: Purpose) -> Time {
        let (now, wire) = (self.queue.now(), on_wire(bytes));
        let node = &mut self.nodes[from];
        match purpose {
            Purpose::Gossip => node.sent.gossip += wire,
            Purpose::Sync => node.sent.sync += wire,
            Purpose::Discovery => node.sent.discovery += wire,
        }
        node.uplink.out(wire, now, &self.weather)
    }

    /// One side of a handshake is sent.
    fn handshakes(&mut self, place: Place) {
        let now = self.queue.now();
        let node = &mut self.nodes[place];
        node.sent.handshakes += HANDSHAKE;
        node.uplink.out(HANDSHAKE, now, &self.weather);
    }
}
