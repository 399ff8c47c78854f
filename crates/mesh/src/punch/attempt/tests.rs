//! Two ends behind NATs that are made here, with a clock of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::nat::{Mapping, Ports};

const LATENCY: Duration = Duration::from_millis(20);

/// A NAT that lets in only what answers something sent to just that address and port.
struct Nat {
    outside: IpAddr,
    mapping: Mapping,
    step: Option<u16>,
    last: u16,
    /// Which port a socket has towards an address.
    ports: BTreeMap<(Socket, Option<SocketAddr>), u16>,
    /// What may come in.
    open: HashSet<(u16, SocketAddr)>,
}

impl Nat {
    fn new(outside: &str, mapping: Mapping, step: Option<u16>) -> Self {
        Self {
            outside: outside.parse().unwrap(),
            mapping,
            step,
            last: 20_000,
            ports: BTreeMap::new(),
            open: HashSet::new(),
        }
    }

    fn out(&mut self, socket: Socket, to: SocketAddr, rng: &mut StdRng) -> SocketAddr {
        let towards = self.mapping.is_hard().then_some(to);
        if !self.ports.contains_key(&(socket, towards)) {
            self.last = match (self.mapping, self.step) {
                (Mapping::AddressAndPortDependent, None) => rng.random_range(1024..=65535),
                (_, step) => self.last.wrapping_add(step.unwrap_or(1)),
            };
            self.ports.insert((socket, towards), self.last);
        }
        let port = self.ports[&(socket, towards)];
        self.open.insert((port, to));
        SocketAddr::new(self.outside, port)
    }

    fn come(&self, port: u16, from: SocketAddr) -> Option<Socket> {
        let open = self.open.contains(&(port, from));
        let mapped = self.ports.iter().find(|(_, mapped)| **mapped == port);
        mapped.filter(|_| open).map(|((socket, _), _)| *socket)
    }

    /// What its node says of it: a server has seen it.
    fn offer(&mut self, nonce: u8, rng: &mut StdRng) -> Offer {
        let seen = self.out(0, "9.9.9.9:3478".parse().unwrap(), rng);
        Offer {
            nonce: [nonce; 16],
            mapping: self.mapping,
            ports: self.step.map_or(Ports::Random, |step| Ports::Steps(step.into())),
            mapped: vec![seen],
            latest: Some(seen),
            local: vec![],
            udp: None,
            tcp: None,
            is_other: false,
        }
    }
}

/// Lets two ends try; whether they found a pair, how long it took, and what was sent.
fn punch(mut nats: [Nat; 2], seed: u64) -> (bool, Duration, usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let begun = Instant::now();
    let offers = [nats[0].offer(1, &mut rng), nats[1].offer(2, &mut rng)];
    let plan = Plan::of(&offers[0], &offers[1]).unwrap();
    let mut end = |side: Side, peer: &Offer| {
        let secrets = Secrets::new(&offers[0], &offers[1], side);
        let own = ["192.168.0.2".parse().unwrap()];
        Attempt::new(plan, side, &own, peer, secrets, begun, &mut rng)
    };
    let mut ends = [end(Side::Initiator, &offers[1]), end(Side::Responder, &offers[0])];
    let dialler = usize::from(plan.dialler == Side::Responder);
    let mut under_way: Vec<(Instant, SocketAddr, SocketAddr, Vec<u8>)> = Vec::new();
    let (mut now, mut sent) = (begun, 0);
    while ends[dialler].found().is_none() && !ends.iter().all(|end| end.is_over(now)) {
        let arrivals = under_way.iter().map(|(at, ..)| *at);
        now = arrivals.chain(ends.iter().map(Attempt::next)).min().unwrap().max(now);
        let mut out: Vec<(usize, Send)> = Vec::new();
        let (arrived, later) = under_way.into_iter().partition(|(at, ..)| *at <= now);
        under_way = later;
        for (_, from, to, bytes) in arrived {
            let Some(at) = nats.iter().position(|nat| nat.outside == to.ip()) else {
                continue;
            };
            let Some(socket) = nats[at].come(to.port(), from) else {
                continue;
            };
            let message = Message::decode(&bytes).unwrap();
            let sends = ends[at].received(now, socket, from, &message, &mut rng);
            out.extend(sends.into_iter().map(|send| (at, send)));
        }
        for (at, end) in ends.iter_mut().enumerate() {
            out.extend(end.poll(now, &mut rng).into_iter().map(|send| (at, send)));
        }
        for (at, send) in out {
            sent += 1;
            let from = nats[at].out(send.socket, send.to, &mut rng);
            under_way.push((now + LATENCY, from, send.to, send.bytes));
        }
        if ends.iter().all(|end| end.next() <= now) && under_way.is_empty() {
            break;
        }
    }
    (ends[dialler].found().is_some(), now - begun, sent)
}

fn cone(ip: &str) -> Nat {
    Nat::new(ip, Mapping::EndpointIndependent, Some(1))
}

#[test]
fn two_cones_meet_within_three_ways_and_a_few_datagrams() {
    let (found, took, sent) = punch([cone("1.1.1.1"), cone("2.2.2.2")], 1);
    assert!(found && took <= 4 * LATENCY && sent < 20, "{found} {took:?} {sent}");
}

#[test]
fn a_cone_foresees_the_port_of_a_symmetric_nat_that_moves_by_steps() {
    for sides in [false, true] {
        let mut nats = [
            cone("1.1.1.1"),
            Nat::new("2.2.2.2", Mapping::AddressAndPortDependent, Some(3)),
        ];
        if sides {
            nats.reverse();
        }
        let (found, took, _) = punch(nats, 2);
        assert!(found && took <= HEAD_START, "{found} {took:?}");
    }
}

#[test]
fn a_burst_finds_the_port_of_a_symmetric_nat_that_gives_them_by_chance() {
    for seed in 0..10 {
        let mut nats = [
            cone("1.1.1.1"),
            Nat::new("2.2.2.2", Mapping::AddressAndPortDependent, None),
        ];
        if seed % 2 == 1 {
            nats.reverse();
        }
        let (found, took, sent) = punch(nats, seed);
        assert!(found && took < LONG && sent < 4000, "{seed}: {found} {took:?} {sent}");
    }
}

#[test]
fn a_try_without_an_answer_ends_and_stops_sending() {
    let mut rng = StdRng::seed_from_u64(1);
    let now = Instant::now();
    let offers = [cone("1.1.1.1").offer(1, &mut rng), cone("2.2.2.2").offer(2, &mut rng)];
    let plan = Plan::of(&offers[0], &offers[1]).unwrap();
    let secrets = Secrets::new(&offers[0], &offers[1], Side::Initiator);
    let mut end = Attempt::new(plan, Side::Initiator, &[], &offers[1], secrets, now, &mut rng);
    let (mut at, mut sent) = (now, 0);
    while !end.is_over(at) {
        sent += end.poll(at, &mut rng).len();
        at = end.next().max(at + Duration::from_micros(1));
    }
    assert!((10..30).contains(&sent), "{sent}");
    assert_eq!(end.poll(at, &mut rng), Vec::new());
    assert!(end.found().is_none() && !end.has_met());
}

#[test]
fn a_peer_that_says_it_writes_from_elsewhere_is_not_answered_there_and_only_so_often_at_all() {
    let mut rng = StdRng::seed_from_u64(4);
    let now = Instant::now();
    let offers = [cone("1.1.1.1").offer(1, &mut rng), cone("2.2.2.2").offer(2, &mut rng)];
    let plan = Plan::of(&offers[0], &offers[1]).unwrap();
    let secrets = Secrets::new(&offers[0], &offers[1], Side::Initiator);
    let (name, key) = (secrets.name, secrets.peer.clone());
    let mut end = Attempt::new(plan, Side::Initiator, &[], &offers[1], secrets, now, &mut rng);
    let mut sent = |ip: [u8; 4], port: u16| {
        let probe = stun::probe(TransactionId(rng.random()), &name, &key);
        let from = SocketAddr::new(ip.into(), port);
        end.received(now, 0, from, &Message::decode(&probe).unwrap(), &mut rng)
            .len()
    };
    assert_eq!(sent([9, 9, 9, 9], 53), 0);
    let all: usize = (1..2000).map(|port| sent([2, 2, 2, 2], port)).sum();
    assert_eq!(all, ANSWERS + FOUND);
}

#[test]
fn no_burst_goes_to_a_private_address() {
    let mut rng = StdRng::seed_from_u64(5);
    let now = Instant::now();
    let mut liar = Nat::new("2.2.2.2", Mapping::AddressAndPortDependent, None).offer(2, &mut rng);
    liar.mapped = vec!["192.168.0.1:1".parse().unwrap()];
    let own = cone("1.1.1.1").offer(1, &mut rng);
    let plan = Plan::of(&own, &liar).unwrap();
    let secrets = Secrets::new(&own, &liar, Side::Initiator);
    let here = ["192.168.0.2".parse().unwrap()];
    let mut end = Attempt::new(plan, Side::Initiator, &here, &liar, secrets, now, &mut rng);
    let (mut at, mut sent) = (now, 0);
    while !end.is_over(at) {
        sent += end.poll(at, &mut rng).len();
        at = end.next().max(at + Duration::from_micros(1));
    }
    assert!(sent < 60, "{sent}");
}

proptest! {
    #[test]
    fn what_the_peer_did_not_make_changes_nothing(bytes: [u8; 12], port: u16, own: bool, success: bool) {
        let mut rng = StdRng::seed_from_u64(3);
        let now = Instant::now();
        let offers = [cone("1.1.1.1").offer(1, &mut rng), cone("2.2.2.2").offer(2, &mut rng)];
        let plan = Plan::of(&offers[0], &offers[1]).unwrap();
        let secrets = || Secrets::new(&offers[0], &offers[1], Side::Initiator);
        let mut end = Attempt::new(plan, Side::Initiator, &[], &offers[1], secrets(), now, &mut rng);
        end.poll(now, &mut rng);
        // A reflection of what this end sent itself, and what somebody else made.
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"other");
        let secrets = secrets();
        let key = if own { &secrets.own } else { &other };
        let from = SocketAddr::new([2, 2, 2, 2].into(), port);
        let transaction = TransactionId(bytes);
        let forged = match success {
            true => stun::probe_answer(transaction, &secrets.name, from, key),
            false => stun::probe(transaction, &secrets.name, key),
        };
        let sends = end.received(now, 0, from, &Message::decode(&forged).unwrap(), &mut rng);
        prop_assert!(sends.is_empty() && end.found().is_none() && !end.has_met());
        // The peer's own answer to what was never asked.
        let unasked = stun::probe_answer(transaction, &secrets.name, from, &secrets.peer);
        end.received(now, 0, from, &Message::decode(&unasked).unwrap(), &mut rng);
        prop_assert!(end.found().is_none());
    }
}
