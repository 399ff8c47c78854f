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
                node.answered(request, &bytes, now, wall, |_| Standing::Member, |_| true);
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
            Event::Found(of, found) if of == lookup => Some((found.providers, found.asked, found.hops)),
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
            Event::Found(of, found) if of == lookup => Some(found.nodes),
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
    let standing = |node: &NodeId| match *node == stranger {
        true => Standing::Out,
        false => Standing::Member,
    };
    node.answered(id, &answer.encode(), later, wall, standing, |_| true);
    while let Some(Action::Ask { id, .. }) = node.poll_action() {
        node.failed(id, later);
    }
    let event = std::iter::from_fn(|| node.poll_event()).last();
    assert!(
        matches!(&event, Some(Event::Found(of, found)) if *of == lookup && found.providers.is_empty()),
        "{event:?}"
    );
}

/// A node that knows so many others.
fn knowing(others: std::ops::Range<u32>) -> Kademlia {
    let network = keypair(u32::MAX).network_id();
    let mut node = Kademlia::new(keypair(0).node_id(), network, Config::default());
    others.for_each(|other| node.heard(contact(keypair(other).node_id()), Duration::ZERO));
    node
}

/// Who is asked now.
fn asked(node: &mut Kademlia) -> Vec<(RequestId, Contact)> {
    let actions = std::iter::from_fn(|| node.poll_action());
    actions.map(|Action::Ask { id, to, .. }| (id, to)).collect()
}

/// Answers requests with nothing.
fn answer_all(node: &mut Kademlia, asked: &[(RequestId, Contact)], at: Duration) {
    let nothing = message::Answer {
        closer: Vec::new(),
        providers: Vec::new(),
    }
    .encode();
    for (request, _) in asked {
        node.answered(*request, &nothing, at, START, |_| Standing::Member, |_| true);
    }
}

#[test]
fn who_does_not_answer_is_named_by_each_lookup_and_one_that_is_given_up_tells_what_it_found() {
    let mut node = knowing(1..4);
    let (now, later) = (Duration::ZERO, Duration::from_secs(1));
    let [first, second] = [1, 2].map(|number| node.find_providers(thing(number), 1, now, START).unwrap());
    let (lookups, others): (Vec<_>, Vec<_>) = asked(&mut node)
        .into_iter()
        .partition(|(_, to)| to.node == keypair(1).node_id());
    assert_eq!((lookups.len(), others.len()), (2, 4), "both ask all three");
    answer_all(&mut node, &others, now);
    node.handle_timeout(later, START, &keypair(0), [0; 32]);
    node.failed(lookups[0].0, later);
    let over: Vec<(LookupId, Vec<NodeId>)> = std::iter::from_fn(|| node.poll_event())
        .filter_map(|event| match event {
            Event::Found(id, found) => Some((id, found.silent)),
            Event::Provided { .. } => None,
        })
        .collect();
    assert_eq!(over, [(first, vec![keypair(1).node_id()])]);
    // The other one still waits for it.
    let found = node.give_up(second);
    assert_eq!((found.nodes.len(), found.silent), (2, vec![keypair(1).node_id()]));
    node.failed(lookups[1].0, later);
    assert_eq!(node.poll_event(), None);
    assert_eq!(node.give_up(second), Outcome::default());
}

#[test]
fn few_of_those_that_a_member_makes_up_are_asked_and_only_where_they_may_be_dialled() {
    let mut node = knowing(1..2);
    let lookup = node.find_nodes(thing(1), Duration::ZERO).unwrap();
    let [(id, _)] = asked(&mut node)[..] else {
        unreachable!()
    };
    let mut closer: Vec<Contact> = (100..120).map(|other| contact(keypair(other).node_id())).collect();
    closer[19].addresses.push("/ip4/127.0.0.1/tcp/22".to_owned());
    let [known, out] = [closer[19].node, closer[18].node];
    let answer = message::Answer {
        closer: closer.clone(),
        providers: Vec::new(),
    };
    let standing = |node: &NodeId| match *node {
        node if node == known => Standing::Member,
        node if node == out => Standing::Out,
        _ => Standing::Unknown,
    };
    let may_dial = |address: &str| !address.contains("127.0.0.1");
    node.answered(id, &answer.encode(), Duration::ZERO, START, standing, may_dial);
    let mut all: Vec<Contact> = Vec::new();
    while let next @ [_, ..] = &asked(&mut node)[..] {
        for (id, to) in next {
            all.push(to.clone());
            node.failed(*id, Duration::ZERO);
        }
    }
    // The member, and of the others the closest.
    closer.retain(|contact| ![known, out].contains(&contact.node));
    closer.sort_by_key(|contact| thing(1).distance(&Key::node(&contact.node)));
    let expected = closer.iter().take(8).map(|contact| contact.node).chain([known]);
    let expected: HashSet<NodeId> = expected.collect();
    assert_eq!(all.iter().map(|contact| contact.node).collect::<HashSet<_>>(), expected);
    assert!(
        all.iter().all(|to| to.addresses == contact(to.node).addresses),
        "{all:?}"
    );
    let event = node.poll_event();
    assert!(
        matches!(&event, Some(Event::Found(of, found)) if *of == lookup && found.asked == 10),
        "{event:?}"
    );
}

#[test]
fn nobody_is_told_where_others_say_that_a_member_is() {
    let mut node = knowing(1..2);
    assert!(node.find_nodes(thing(1), Duration::ZERO).is_some());
    let (id, _) = asked(&mut node).remove(0);
    let [heard, unheard] = [2, 3].map(|other| keypair(other).node_id());
    let nowhere = |node| Contact {
        node,
        addresses: vec!["/ip4/198.51.100.1/udp/1/quic-v1".to_owned()],
    };
    let lie = message::Answer {
        closer: vec![nowhere(heard), nowhere(unheard)],
        providers: Vec::new(),
    };
    let standing = |_: &NodeId| Standing::Member;
    node.answered(id, &lie.encode(), Duration::ZERO, START, standing, |_| true);
    node.heard(contact(heard), Duration::ZERO);
    let nothing = message::Answer {
        closer: Vec::new(),
        providers: Vec::new(),
    };
    let requests = asked(&mut node);
    assert_eq!(requests.len(), 2);
    for (id, to) in requests {
        assert_eq!(to, nowhere(to.node), "it is asked there");
        node.answered(id, &nothing.encode(), Duration::ZERO, START, standing, |_| true);
    }
    let ask = message::Request::Nodes(thing(1)).encode();
    let answer = node.answer(contact(keypair(1).node_id()), &ask, Duration::ZERO, START);
    let told = message::Answer::decode(&answer.unwrap()).unwrap().closer;
    let of = |node| told.iter().find(|contact| contact.node == node);
    assert_eq!(of(heard), Some(&contact(heard)));
    assert!(
        of(unheard).is_some_and(|unheard| unheard.addresses.is_empty()),
        "{told:?}"
    );
}

#[test]
fn providers_that_a_member_makes_up_neither_end_a_lookup_nor_come_before_real_ones() {
    let mut node = knowing(1..4);
    let lookup = node.find_providers(thing(1), 1, Duration::ZERO, START).unwrap();
    let network = keypair(u32::MAX).network_id();
    let word = |of: u32, since: u64| {
        let (time, expires) = (UnixTime(START.0 - since), START + Duration::from_secs(3600));
        Provider::sign(&network, thing(1), time, expires, &keypair(of)).unwrap()
    };
    let [member, unknown] = [10, 11].map(|of| keypair(of).node_id());
    let made_up: Vec<Provider> = (100..116).map(|of| word(of, 0)).collect();
    let lies: Vec<&Provider> = made_up.iter().collect();
    let (known, real) = (word(10, 50), word(11, 100));
    // Who says the same twice has said it once.
    let answers = [lies.clone(), vec![&real, &real], vec![&real, &known]];
    let standing = |node: &NodeId| match *node == member {
        true => Standing::Member,
        false => Standing::Unknown,
    };
    let requests = asked(&mut node);
    assert_eq!(requests.len(), answers.len());
    for ((id, _), words) in requests.into_iter().zip(&answers) {
        assert_eq!(node.poll_event(), None, "it goes on");
        let words = words.iter().map(|word| serde_bytes::ByteBuf::from(word.bytes()));
        let answer = message::Answer {
            closer: Vec::new(),
            providers: words.collect(),
        };
        node.answered(id, &answer.encode(), Duration::ZERO, START, standing, |_| true);
    }
    let Some(Event::Found(of, outcome)) = node.poll_event() else {
        unreachable!()
    };
    let found: Vec<NodeId> = outcome.providers.iter().map(|word| word.node).collect();
    assert_eq!(of, lookup);
    assert_eq!(found[..2], [member, unknown]);
    assert_eq!(found.len(), 2 + made_up.len());
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
