//! A network of some nodes: links with a delay, loss, crashes, partitions and nodes that are stopped, from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use dawn_identity::{NetworkId, NodeId, SIGNATURE_BYTES};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use crate::{Action, Config, Event, Gossip, Presence, Verdict, Voice};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const ONE_WAY: Duration = Duration::from_millis(50);

/// Signs by hashing: nobody here forges what is not meant to be found out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashing(pub(super) NodeId);

fn hashed(node: &NodeId, statement: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(node.as_bytes())
        .chain_update(statement)
        .finalize()
        .into();
    let mut signature = [0; SIGNATURE_BYTES];
    signature[..32].copy_from_slice(&hash);
    signature
}

impl Voice for Hashing {
    fn sign(&self, statement: &[u8]) -> [u8; SIGNATURE_BYTES] {
        hashed(&self.0, statement)
    }

    fn verify(&self, node: &NodeId, statement: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        hashed(node, statement) == *signature
    }
}

/// As in large networks, but for the size from which on not everybody is linked with everybody.
pub(super) fn small() -> Config {
    Config {
        full: 16,
        ..Config::default()
    }
}

pub(super) fn network() -> NetworkId {
    NetworkId::from_bytes([9; 32])
}

pub(super) fn id(number: usize) -> NodeId {
    NodeId::from_bytes(Sha256::digest((number as u64).to_be_bytes()).into())
}

pub(super) struct Node {
    pub(super) gossip: Gossip<Hashing>,
    /// What it knows, and since when.
    pub(super) has: BTreeMap<Vec<u8>, Duration>,
    pub(super) events: Vec<(Duration, Event)>,
    pub(super) is_up: bool,
    fingerprint: [u8; 32],
    /// Until when it is stopped.
    stopped: Duration,
    timer: Option<Duration>,
    /// Messages and bytes sent, and news that came once more than needed.
    pub(super) sent: (u64, usize),
    pub(super) received_news: u64,
    /// Which part of the network it is in.
    pub(super) part: u8,
}

enum Happening {
    Dial(NodeId, NodeId),
    Message(NodeId, NodeId, u64, Vec<u8>),
    Down(NodeId, NodeId, u64),
    Timeout(NodeId),
    Session(NodeId, NodeId),
}

pub(super) struct Network {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) order: Vec<NodeId>,
    pub(super) now: Duration,
    /// Messages of a thousand that are lost.
    pub(super) loss: u32,
    /// Whom each node can reach, besides being in one part with it.
    pub(super) reaches: fn(NodeId, NodeId) -> bool,
    /// Whether the first drops links unread that the second begins.
    pub(super) drops: fn(NodeId, NodeId) -> bool,
    /// Who was dialled, and when.
    pub(super) dials: Vec<(Duration, NodeId, NodeId)>,
    pub(super) sessions: usize,
    /// Sessions bring nothing.
    pub(super) is_without_sessions: bool,
    config: Config,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    count: u64,
    ends: BTreeMap<(NodeId, NodeId), u64>,
    rng: StdRng,
    /// Stands for all that happened.
    pub(super) hash: Sha256,
}

impl Network {
    /// So many nodes that know of each other, started within a second.
    pub(super) fn new(size: usize, seed: u64, config: &Config) -> Self {
        let mut network = Self {
            nodes: BTreeMap::new(),
            order: (0..size).map(id).collect(),
            now: 10 * SECOND,
            loss: 0,
            reaches: |_, _| true,
            drops: |_, _| false,
            dials: Vec::new(),
            sessions: 0,
            is_without_sessions: false,
            config: config.clone(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            ends: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            hash: Sha256::new(),
        };
        for node in network.order.clone() {
            network.start(node);
            network.run(SECOND / u32::try_from(size).unwrap());
        }
        network
    }

    /// Starts a node, for the first time or anew: with what it had stored, and a greater incarnation.
    pub(super) fn start(&mut self, node: NodeId) {
        let incarnation = u64::try_from(self.now.as_millis()).unwrap();
        let mut gossip = Gossip::new(node, network(), incarnation, self.config.clone(), Hashing(node));
        for member in &self.order {
            gossip.add_member(*member, self.now);
        }
        let before = self.nodes.remove(&node);
        let mut new = Node {
            gossip,
            fingerprint: before.as_ref().map(|node| node.fingerprint).unwrap_or_default(),
            has: before.as_ref().map(|node| node.has.clone()).unwrap_or_default(),
            events: Vec::new(),
            is_up: true,
            stopped: Duration::ZERO,
            timer: None,
            sent: (0, 0),
            received_news: 0,
            part: before.map_or(0, |node| node.part),
        };
        new.gossip.known(new.fingerprint);
        self.nodes.insert(node, new);
        self.settle(node);
    }

    /// Ends a node without a word; the others are told by their side of the links, or not even that.
    pub(super) fn crash(&mut self, node: NodeId, is_noticed: bool) {
        self.nodes.get_mut(&node).unwrap().is_up = false;
        let ends = self.ends.iter().filter(|((of, _), _)| *of == node);
        let ends: Vec<(NodeId, u64)> = ends.map(|((_, to), number)| (*to, *number)).collect();
        for (to, number) in ends {
            self.ends.remove(&(node, to));
            if is_noticed {
                self.after(ONE_WAY, Happening::Down(to, node, number));
            }
        }
    }

    /// A node goes, and says so.
    pub(super) fn leave(&mut self, node: NodeId) {
        let now = self.now;
        self.with(node, |gossip| gossip.leave(now));
        self.nodes.get_mut(&node).unwrap().is_up = false;
    }

    /// A node does nothing for so long, and does then what it would have done before.
    pub(super) fn stop(&mut self, node: NodeId, span: Duration) {
        self.nodes.get_mut(&node).unwrap().stopped = self.now + span;
    }

    /// A node is told by somebody else where another is, and dials it.
    pub(super) fn introduce(&mut self, node: NodeId, to: NodeId) {
        self.after(2 * ONE_WAY, Happening::Dial(node, to));
    }

    /// The link between two breaks, on both sides.
    pub(super) fn cut(&mut self, one: NodeId, two: NodeId) {
        for (of, to) in [(one, two), (two, one)] {
            if self.ends.remove(&(of, to)).is_some() {
                let now = self.now;
                self.with(of, |gossip| gossip.link_down(to, now));
            }
        }
    }

    /// Somebody tells all something; it begins with the number, so that no two are the same.
    pub(super) fn publish(&mut self, node: NodeId, number: u32) -> Vec<u8> {
        let news = [&number.to_be_bytes()[..], &[7; 196]].concat();
        let now = self.now;
        self.learn(node, &news);
        self.with(node, |gossip| gossip.publish(&news, now).unwrap());
        news
    }

    /// A node has something that does not travel.
    pub(super) fn hold(&mut self, node: NodeId, what: &[u8]) {
        let now = self.now;
        self.learn(node, what);
        self.with(node, |gossip| gossip.changed(now));
    }

    pub(super) fn with<T>(&mut self, node: NodeId, act: impl FnOnce(&mut Gossip<Hashing>) -> T) -> T {
        let done = act(&mut self.nodes.get_mut(&node).unwrap().gossip);
        self.settle(node);
        done
    }

    pub(super) fn pick(&mut self) -> NodeId {
        loop {
            let node = self.order[self.rng.random_range(0..self.order.len())];
            if self.nodes[&node].is_up {
                return node;
            }
        }
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes.iter().filter(|(_, node)| node.is_up)
    }

    /// What those who live hold of a node.
    pub(super) fn seen_as(&self, node: NodeId) -> BTreeSet<Option<Presence>> {
        let others = self.live().filter(|(other, _)| **other != node);
        others.map(|(_, other)| other.gossip.presence(&node)).collect()
    }

    /// How long news took to each who lives; `None` for those who lack them.
    pub(super) fn took(&self, news: &[u8], since: Duration) -> Vec<Option<Duration>> {
        self.live()
            .map(|(_, node)| node.has.get(news).map(|at| *at - since))
            .collect()
    }

    /// A node has something, and its fingerprint stands for it; whether it was new.
    fn learn(&mut self, node: NodeId, news: &[u8]) -> bool {
        let now = self.now;
        let node = self.nodes.get_mut(&node).unwrap();
        if node.has.contains_key(news) {
            return false;
        }
        node.has.insert(news.to_vec(), now);
        let hash = Sha256::digest(news);
        node.fingerprint.iter_mut().zip(hash).for_each(|(a, b)| *a ^= b);
        node.gossip.known(node.fingerprint);
        true
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse((at, self.count)));
        self.happenings.insert(self.count, happening);
    }

    /// Does what a node wants, as a driver does.
    pub(super) fn settle(&mut self, id: NodeId) {
        let now = self.now;
        loop {
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(event) = node.gossip.poll_event() else { break };
            if let Event::News { id: name, bytes, .. } = &event {
                node.received_news += 1;
                let verdict = if bytes.starts_with(b"bad") {
                    Verdict::Refused
                } else if self.learn(id, bytes) {
                    Verdict::New
                } else {
                    Verdict::Known
                };
                self.nodes.get_mut(&id).unwrap().gossip.accept(name, verdict, now);
            } else {
                if let Event::Differs(with) = event {
                    self.after(2 * ONE_WAY, Happening::Session(id, with));
                }
                self.nodes.get_mut(&id).unwrap().events.push((now, event));
            }
        }
        while let Some(action) = self.nodes.get_mut(&id).unwrap().gossip.poll_action() {
            self.act(id, action);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(at) = node.gossip.poll_timeout()
            && node.timer.is_none_or(|timer| at < timer)
        {
            node.timer = Some(at.max(now));
            self.at(at.max(now), Happening::Timeout(id));
        }
    }

    fn act(&mut self, id: NodeId, action: Action) {
        match action {
            Action::Connect(to) => {
                self.dials.push((self.now, id, to));
                self.after(2 * ONE_WAY, Happening::Dial(id, to));
            }
            Action::Disconnect(to) => {
                if let Some(number) = self.ends.remove(&(id, to)) {
                    self.after(ONE_WAY, Happening::Down(to, id, number));
                }
            }
            Action::Send { to, bytes } => {
                self.hash.update(self.now.as_nanos().to_be_bytes());
                self.hash.update(&bytes);
                let node = self.nodes.get_mut(&id).unwrap();
                node.sent.0 += 1;
                node.sent.1 += bytes.len();
                let is_lost = self.rng.random_range(0..1000) < self.loss;
                if let Some(number) = self.ends.get(&(id, to)).filter(|_| !is_lost) {
                    self.after(ONE_WAY, Happening::Message(id, to, *number, bytes));
                }
            }
        }
    }

    fn can_reach(&self, one: NodeId, two: NodeId) -> bool {
        let (Some(first), Some(second)) = (self.nodes.get(&one), self.nodes.get(&two)) else {
            return false;
        };
        let is_awake = |node: &Node| node.is_up && node.stopped <= self.now;
        is_awake(first) && is_awake(second) && first.part == second.part && (self.reaches)(one, two)
    }

    pub(super) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(Reverse((at, number))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            self.queue.pop();
            self.now = at;
            let happening = self.happenings.remove(&number).unwrap();
            self.happen(happening);
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        let to = match &happening {
            Happening::Message(_, to, ..) | Happening::Down(to, ..) | Happening::Timeout(to) => *to,
            Happening::Dial(from, _) | Happening::Session(from, _) => *from,
        };
        let Some(node) = self.nodes.get_mut(&to).filter(|node| node.is_up) else {
            return;
        };
        if node.stopped > now {
            let at = node.stopped;
            return self.at(at, happening);
        }
        match happening {
            Happening::Dial(from, to) if self.can_reach(from, to) => {
                if self.ends.contains_key(&(from, to)) {
                    return;
                }
                self.count += 1;
                if (self.drops)(to, from) {
                    // Who begins it has a stream, and learns only then that it is gone.
                    self.ends.insert((from, to), self.count);
                    self.after(2 * ONE_WAY, Happening::Down(from, to, self.count));
                    return self.with(from, |gossip| gossip.link_up(to, now));
                }
                for (of, with) in [(from, to), (to, from)] {
                    self.ends.insert((of, with), self.count);
                }
                self.with(from, |gossip| gossip.link_up(to, now));
                self.with(to, |gossip| gossip.link_up(from, now));
            }
            Happening::Dial(from, to) => self.with(from, |gossip| gossip.link_down(to, now)),
            Happening::Message(from, to, number, bytes) => {
                if self.ends.get(&(to, from)) == Some(&number) && self.nodes[&from].part == self.nodes[&to].part {
                    self.with(to, |gossip| {
                        // What is refused is counted.
                        let _refused = gossip.receive(from, &bytes, now);
                    });
                }
            }
            Happening::Down(of, with, number) => {
                if self.ends.get(&(of, with)) == Some(&number) {
                    self.ends.remove(&(of, with));
                    self.with(of, |gossip| gossip.link_down(with, now));
                }
            }
            Happening::Timeout(of) => {
                let node = self.nodes.get_mut(&of).unwrap();
                node.timer = None;
                if node.gossip.poll_timeout().is_some_and(|at| at <= now) {
                    node.gossip.handle_timeout(now, &mut self.rng);
                }
                self.settle(of);
            }
            Happening::Session(one, two) => {
                if self.can_reach(one, two) {
                    self.sessions += 1;
                    if self.is_without_sessions {
                        return;
                    }
                    for (of, with) in [(one, two), (two, one)] {
                        let theirs: Vec<Vec<u8>> = self.nodes[&with].has.keys().cloned().collect();
                        let learnt = theirs.iter().filter(|news| self.learn(of, news)).count();
                        if learnt > 0 {
                            self.with(of, |gossip| gossip.changed(now));
                        }
                    }
                }
            }
        }
    }
}
