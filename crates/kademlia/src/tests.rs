//! Nodes that ask each other, in simulated time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::Duration;

use dawn_identity::{Keypair, NodeId, UnixTime};

use super::*;

const START: UnixTime = UnixTime(1_800_000_000);
const ONE_WAY: Duration = Duration::from_millis(50);

/// Numbers that look like chance (xorshift), the same for the same seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_be_bytes()));
        bytes
    }
}

enum Happening {
    Request(NodeId, NodeId, RequestId, Vec<u8>),
    Answer(NodeId, RequestId, Vec<u8>),
    Timeout(NodeId),
}

fn keypair(node: u32) -> Keypair {
    let mut seed = [3; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    Keypair::from_seed(seed)
}

struct Network {
    nodes: BTreeMap<NodeId, (Kademlia, Keypair)>,
    order: Vec<NodeId>,
    dead: HashSet<NodeId>,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    count: u64,
    chance: Chance,
}

impl Network {
    fn new(size: u32, seed: u64) -> Self {
        Self::configured(size, seed, &Config::default())
    }

    fn configured(size: u32, seed: u64, config: &Config) -> Self {
        let mut network = Self {
            nodes: BTreeMap::new(),
            order: Vec::new(),
            dead: HashSet::new(),
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            chance: Chance(seed),
        };
        let id = keypair(u32::MAX).network_id();
        for node in 0..size {
            let keypair = keypair(node);
            let local = keypair.node_id();
            let mut kademlia = Kademlia::new(local, id, config.clone());
            if node > 0 {
                // It knows one that is there already, as an invite names one.
                let known = network.order[network.chance.below(network.order.len())];
                kademlia.heard(contact(known), network.now);
            }
            network.nodes.insert(local, (kademlia, keypair));
            network.order.push(local);
            network.settle(local);
            network.run(Duration::from_millis(200));
        }
        network.run(Duration::from_secs(30));
        network
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse((self.now + wait, self.count)));
        self.happenings.insert(self.count, happening);
    }

    /// Carries out what a node wants.
    fn settle(&mut self, id: NodeId) {
        let (node, _) = self.nodes.get_mut(&id).unwrap();
        let actions: Vec<Action> = std::iter::from_fn(|| node.poll_action()).collect();
        let timeout = node.poll_timeout();
        for Action::Ask { id: request, to, bytes } in actions {
            self.after(ONE_WAY, Happening::Request(id, to.node, request, bytes));
        }
        if let Some(at) = timeout {
            let wait = at.saturating_sub(self.now);
            self.after(wait, Happening::Timeout(id));
        }
    }

    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(Reverse((at, count))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            self.queue.pop();
            self.now = at;
            let happening = self.happenings.remove(&count).unwrap();
            self.happen(happening);
        }
        self.now = until;
    }

    fn wall(&self) -> UnixTime {
        START + self.now
    }

    fn happen(&mut self, happening: Happening) {
        let (now, wall, chance) = (self.now, self.wall(), self.chance.bytes());
        match happening {
            Happening::Request(from, to, request, bytes) if !self.dead.contains(&to) => {
                let (node, _) = self.nodes.get_mut(&to).unwrap();
                if let Ok(answer) = node.answer(contact(from), &bytes, now, wall) {
                    self.after(ONE_WAY, Happening::Answer(from, request, answer));
                }
                self.settle(to);
            }
            Happening::Answer(to, request, bytes) if !self.dead.contains(&to) => {
                let (node, _) = self.nodes.get_mut(&to).unwrap();
                node.answered(request, &bytes, now, wall, |_| true);
                self.settle(to);
            }
            Happening::Timeout(id) if !self.dead.contains(&id) => {
                let (node, keypair) = self.nodes.get_mut(&id).unwrap();
                if node.poll_timeout().is_some_and(|at| at <= now) {
                    node.handle_timeout(now, wall, keypair, chance);
                    self.settle(id);
                }
            }
            _ => {}
        }
    }

    fn live(&mut self) -> NodeId {
        loop {
            let id = self.order[self.chance.below(self.order.len())];
            if !self.dead.contains(&id) {
                return id;
            }
        }
    }

    /// Events of a node, after some time.
    fn events(&mut self, id: NodeId) -> Vec<Event> {
        self.run(Duration::from_secs(20));
        let (node, _) = self.nodes.get_mut(&id).unwrap();
        std::iter::from_fn(|| node.poll_event()).collect()
    }

    /// Looks for the providers of a key from somewhere.
    fn providers(&mut self, key: Key) -> (Vec<Provider>, u32, u32) {
        let id = self.live();
        let (now, wall) = (self.now, self.wall());
        let lookup = self
            .nodes
            .get_mut(&id)
            .unwrap()
            .0
            .find_providers(key, 1, now, wall)
            .unwrap();
        self.settle(id);
        let found = self.events(id).into_iter().find_map(|event| match event {
            Event::Providers {
                lookup: of,
                providers,
                asked,
                hops,
                ..
            } if of == lookup => Some((providers, asked, hops)),
            _ => None,
        });
        found.expect("each lookup ends")
    }

    fn provide(&mut self, id: NodeId, key: Key) {
        let now = self.now;
        self.nodes.get_mut(&id).unwrap().0.provide(key, now);
        self.settle(id);
    }
}

fn contact(node: NodeId) -> Contact {
    Contact {
        node,
        addresses: vec!["/ip4/192.0.2.1/udp/7401/quic-v1".to_owned()],
    }
}

fn thing(number: usize) -> Key {
    Key::capability(&format!("model-{number}"))
}

#[test]
fn what_is_provided_is_found_from_anywhere_in_few_steps() {
    let mut network = Network::new(120, 1);
    let owners: Vec<NodeId> = (0..20).map(|_| network.live()).collect();
    for (number, owner) in owners.iter().enumerate() {
        network.provide(*owner, thing(number));
    }
    network.run(Duration::from_secs(10));
    for (number, owner) in owners.iter().enumerate() {
        let (providers, _, hops) = network.providers(thing(number));
        assert_eq!(providers.first().map(|word| word.node), Some(*owner), "model-{number}");
        assert!(hops <= 4, "{hops}");
    }
    let (nobody, asked, _) = network.providers(Key::capability("nothing"));
    assert!(nobody.is_empty() && asked >= 20, "everybody close was asked: {asked}");
}

#[test]
fn a_lookup_finds_the_closest_of_all() {
    let mut network = Network::new(150, 2);
    for number in 0..10 {
        let key = thing(number);
        let id = network.live();
        let now = network.now;
        let lookup = network.nodes.get_mut(&id).unwrap().0.find_nodes(key, now).unwrap();
        network.settle(id);
        let events = network.events(id);
        let found = events.into_iter().find_map(|event| match event {
            Event::Nodes { lookup: of, nodes, .. } if of == lookup => Some(nodes),
            _ => None,
        });
        let found: Vec<NodeId> = found.unwrap().into_iter().map(|contact| contact.node).collect();
        let mut all: Vec<NodeId> = network.order.iter().copied().filter(|node| *node != id).collect();
        all.sort_by_key(|node| key.distance(&Key::node(node)));
        assert_eq!(found, all[..20]);
    }
}

#[test]
fn what_is_provided_outlives_a_fifth_of_its_keepers_and_is_said_anew() {
    const HOURS: Duration = Duration::from_secs(2 * 3600);
    let config = Config {
        validity: HOURS,
        refresh: HOURS,
        ..Config::default()
    };
    let mut network = Network::configured(40, 3, &config);
    let owner = network.order[0];
    network.provide(owner, thing(1));
    network.run(Duration::from_secs(10));
    for at in (5..40).step_by(5) {
        let id = network.order[at];
        network.dead.insert(id);
    }
    for _ in 0..5 {
        assert_eq!(network.providers(thing(1)).0.len(), 1);
    }
    // Long after it would have been over it was said anew; after its end it is over.
    network.run(2 * HOURS);
    let (providers, ..) = network.providers(thing(1));
    assert_eq!(providers.len(), 1);
    assert!(providers[0].time > START + HOURS);
    network.nodes.get_mut(&owner).unwrap().0.stop(&thing(1));
    network.run(2 * HOURS);
    assert!(network.providers(thing(1)).0.is_empty());
}

#[test]
fn a_member_that_lies_changes_nothing_that_counts() {
    let mut network = Network::new(30, 4);
    let [honest, liar] = [network.order[0], network.order[1]];
    let (now, wall) = (network.now, network.wall());
    let word = |of: u32, key| {
        let expires = wall + Duration::from_secs(3600);
        let id = keypair(u32::MAX).network_id();
        Provider::sign(&id, key, wall, expires, &keypair(of)).unwrap()
    };
    let node = &mut network.nodes.get_mut(&honest).unwrap().0;
    let keep = |word: &[u8]| message::Request::Keep(serde_bytes::ByteBuf::from(word)).encode();
    let theirs = word(2, thing(1));
    assert_eq!(
        node.answer(contact(liar), &keep(theirs.bytes()), now, wall),
        Err(Refused::NotItsOwn)
    );
    let forged = [&theirs.bytes()[..theirs.bytes().len() - 1], &[0]].concat();
    assert!(matches!(
        node.answer(contact(liar), &keep(&forged), now, wall),
        Err(Refused::Malformed(_))
    ));
    // A flood: so many a second, and the next second again.
    let ask = message::Request::Nodes(thing(1)).encode();
    let later = now + Duration::from_secs(5);
    let answered = (0..1000).filter(|_| node.answer(contact(liar), &ask, later, wall).is_ok());
    assert_eq!(answered.count(), 50);
    assert!(
        node.answer(contact(liar), &ask, later + Duration::from_secs(1), wall)
            .is_ok()
    );
    // An answer about providers that nobody asked for, of another key, and of somebody who is no member.
    let lookup = node.find_providers(thing(7), 1, later, wall).unwrap();
    let Some(Action::Ask { id, .. }) = node.poll_action() else {
        unreachable!()
    };
    let lies = [word(2, thing(8)), word(3, thing(7))];
    let answer = message::Answer {
        closer: Vec::new(),
        providers: lies
            .iter()
            .map(|word| serde_bytes::ByteBuf::from(word.bytes()))
            .collect(),
    };
    let stranger = keypair(3).node_id();
    node.answered(id, &answer.encode(), later, wall, |node| *node != stranger);
    while let Some(Action::Ask { id, .. }) = node.poll_action() {
        node.failed(id, later);
    }
    let event = std::iter::from_fn(|| node.poll_event()).last();
    assert!(
        matches!(&event, Some(Event::Providers { lookup: of, providers, .. }) if *of == lookup && providers.is_empty()),
        "{event:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut network = Network::new(40, seed);
        let owner = network.live();
        network.provide(owner, thing(1));
        network.run(Duration::from_secs(5));
        let (providers, asked, hops) = network.providers(thing(1));
        (network.count, providers.len(), asked, hops)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}
