//! How nodes' discovery is driven: requests go out, answers come in.

use std::time::Duration;

use dawn_kademlia::{Action, Contact, RequestId, Standing};
use rand::RngExt as _;

use super::{Happening, Network, Part, Purpose};
use crate::link::Lane;
use crate::member::Place;

impl Network {
    /// What others are told of a node.
    pub(crate) fn contact(&self, place: Place) -> Contact {
        let [a, b, c] = [place >> 16, place >> 8, place].map(|part| part & 0xff);
        Contact {
            node: self.nodes[place].member.id,
            addresses: vec![format!("/ip4/10.{a}.{b}.{c}/udp/7401/quic-v1")],
        }
    }

    /// A node has a connection to another: its discovery hears of it.
    pub(crate) fn discovers(&mut self, place: Place, other: Place) {
        let (contact, now) = (self.contact(other), self.now());
        self.nodes[place].kademlia.heard(contact, now);
        self.settle_discovery(place);
    }

    /// Carries out what a node's discovery wants.
    pub(crate) fn settle_discovery(&mut self, place: Place) {
        while let Some(Action::Ask { id, to, bytes }) = self.nodes[place].kademlia.poll_action() {
            let Some(to) = self.roll.place(&to.node) else { continue };
            let handshake = self.connects(place, to);
            let left = handshake + self.leaves(place, bytes.len(), Purpose::Discovery);
            let at = Lane::default().arrival(left, &self.weather, &mut self.chance);
            let (from, life) = (place, self.nodes[place].life);
            let asked = Happening::Asked {
                from,
                to,
                life,
                id,
                bytes,
            };
            self.queue.plan(at, asked);
        }
        let due = self.nodes[place].kademlia.poll_timeout();
        self.wakes_at(place, Part::Discovery, due);
    }

    /// A node that asks another needs a connection to it: the one of their link, or one that it made lately; otherwise a
    /// handshake is due, and takes so long.
    fn connects(&mut self, from: Place, to: Place) -> Duration {
        /// How long a connection stays that nobody uses.
        const STAYS: Duration = Duration::from_secs(60);
        let now = self.now();
        if self.has_link(from, to) {
            return Duration::ZERO;
        }
        let until = self.connections.insert((from.min(to), from.max(to)), now + STAYS);
        if until.is_some_and(|until| until > now) {
            return Duration::ZERO;
        }
        for place in [from, to] {
            self.handshakes(place);
        }
        2 * self.weather.latency
    }

    pub(super) fn discovery_wakes(&mut self, place: Place) {
        let now = self.now();
        let node = &mut self.nodes[place];
        if node.kademlia.poll_timeout().is_some_and(|at| at <= now) {
            let wall = node.wall(now);
            node.kademlia
                .handle_timeout(now, wall, &node.member.key, self.chance.random());
        }
        self.settle_discovery(place);
    }

    pub(super) fn asked(&mut self, from: Place, to: Place, life: u32, id: RequestId, bytes: &[u8]) {
        if !self.is_passable(from, to) {
            return;
        }
        let (contact, now) = (self.contact(from), self.now());
        let node = &mut self.nodes[to];
        let wall = node.wall(now);
        if let Ok(bytes) = node.kademlia.answer(contact, bytes, now, wall) {
            let left = self.leaves(to, bytes.len(), Purpose::Discovery);
            let at = Lane::default().arrival(left, &self.weather, &mut self.chance);
            let (from, to) = (to, from);
            let answered = Happening::Answered {
                from,
                to,
                life,
                id,
                bytes,
            };
            self.queue.plan(at, answered);
        }
        self.settle_discovery(to);
    }

    pub(super) fn answered(&mut self, from: Place, to: Place, life: u32, id: RequestId, bytes: &[u8]) {
        if !self.is_passable(from, to) || self.nodes[to].life != life {
            return;
        }
        let (contact, now) = (self.contact(from), self.now());
        let (node, roll) = (&mut self.nodes[to], &self.roll);
        node.kademlia.heard(contact, now);
        let wall = node.wall(now);
        let standing = |node: &_| match roll.place(node) {
            Some(_) => Standing::Member,
            None => Standing::Out,
        };
        node.kademlia.answered(id, bytes, now, wall, standing, |_| true);
        self.settle_discovery(to);
    }
}
