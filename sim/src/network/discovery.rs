//! How nodes' discovery is driven: requests go out, answers come in.

use dawn_kademlia::{Action, Contact, RequestId};
use rand::RngExt as _;

use super::{Happening, Network, Purpose};
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
            let mut at = self.stream(place, to, bytes.len(), Purpose::Discovery);
            // The stream needs a connection, which takes a round trip.
            at += 2 * self.weather.latency;
            let (from, life) = (place, self.nodes[place].life);
            let asked = Happening::Asked { from, to, life, id, bytes };
            self.queue.plan(at, asked);
        }
        let node = &mut self.nodes[place];
        let Some(at) = node.kademlia.poll_timeout() else { return };
        if node.wakes.is_none_or(|planned| at < planned) {
            node.wakes = Some(at);
            let life = node.life;
            self.queue.plan(at, Happening::Wakes { node: place, life });
        }
    }

    pub(super) fn discovery_wakes(&mut self, place: Place, life: u32) {
        let now = self.now();
        let node = &mut self.nodes[place];
        // One that was planned for a later time than another that came since is of no use any more.
        if !node.is_up || node.life != life || node.wakes.is_none_or(|planned| planned > now) {
            return;
        }
        node.wakes = None;
        if node.kademlia.poll_timeout().is_some_and(|at| at <= now) {
            let wall = node.wall(now);
            node.kademlia.handle_timeout(now, wall, &node.member.key, self.chance.random());
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
            let at = self.stream(to, from, bytes.len(), Purpose::Discovery);
            let (from, to) = (to, from);
            let answered = Happening::Answered { from, to, life, id, bytes };
            self.queue.plan(at, answered);
        }
        self.settle_discovery(to);
    }

    pub(super) fn answered(&mut self, from: Place, to: Place, life: u32, id: RequestId, bytes: &[u8]) {
        if !self.is_passable(from, to) || self.nodes[to].life != life {
            return;
        }
        let now = self.now();
        let (node, roll) = (&mut self.nodes[to], &self.roll);
        let wall = node.wall(now);
        let is_member = |node: &_| roll.place(node).is_some();
        node.kademlia.answered(id, bytes, now, wall, is_member);
        self.settle_discovery(to);
    }
}
