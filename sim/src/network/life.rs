//! How nodes come and go, and how the network is cut.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use dawn_registry::replica::{Limits, Replica};

use super::{Happening, Network, Part};
use crate::member::{Place, START, agent, summary};

/// How often a node looks after its registry.
const KEEPS_EVERY: Duration = Duration::from_secs(60);

impl Network {
    /// Gives the first `nodes` nodes so many agents each and lets all of them know each other, as if they had run before,
    /// for days, and stopped.
    pub(crate) fn settled(&mut self, nodes: usize, agents: usize) {
        let mut all = Replica::new(self.nodes[0].member.membership.clone(), 0, Limits::default());
        let epoch = (START - Duration::from_secs(3600)).0 * 1000;
        for place in 0..nodes {
            let names = (0..agents).map(agent);
            self.nodes[place].agents = names.map(|name| (name.clone(), summary(&name, 0))).collect();
            let node = &mut self.nodes[place];
            node.replica = Replica::new(node.member.membership.clone(), epoch, Limits::default());
            self.declares(place);
            let node = &self.nodes[place];
            for state in node.replica.states(&node.member.id) {
                let taken = all.apply(&state, START, |_, value| self.roll.verify(value, START));
                taken.expect("a node says what all take");
            }
        }
        let ids = self.nodes[..nodes].iter().map(|node| node.member.id);
        let states: BTreeMap<_, _> = ids.map(|id| (id, all.states(&id))).collect();
        let states = Rc::new(states);
        for node in &mut self.nodes[..nodes] {
            node.replica = all.copy_for(node.member.membership.clone(), epoch);
            node.disk.held(Rc::clone(&states), epoch);
        }
    }

    /// Starts nodes that know each other, spread over a time, without reading what they have stored: the replica that
    /// they were given is the same.
    pub(crate) fn start_settled(&mut self, places: impl IntoIterator<Item = Place>, over: Duration) {
        let places: Vec<Place> = places.into_iter().collect();
        let pause = over / u32::try_from(places.len().max(1)).unwrap_or(u32::MAX);
        for place in places {
            let now = self.now();
            self.nodes[place].continues(&self.roll, &self.signatures, now);
            self.comes_up(place);
            self.run(pause);
        }
    }

    /// Starts a node with what it has stored.
    pub(crate) fn start(&mut self, place: Place) {
        let now = self.now();
        self.nodes[place].begins(&self.roll, &self.signatures, now);
        self.comes_up(place);
    }

    /// A node that has an invite: it knows who made it, and nobody else.
    pub(crate) fn join(&mut self, place: Place, known: Place) {
        let node = &self.nodes[known];
        let (id, states) = (node.member.id, node.replica.states(&node.member.id));
        self.nodes[place].disk.learns(id, states);
        self.start(place);
    }

    fn comes_up(&mut self, place: Place) {
        self.declares(place);
        self.registry_wakes(place);
        let now = self.now();
        let node = &mut self.nodes[place];
        for name in node.agents.keys() {
            node.kademlia.provide(dawn_kademlia::Key::agent(name), now);
        }
        self.settle_gossip(place);
        self.settle_discovery(place);
    }

    /// A node stops without a word, and loses what it has not stored.
    pub(crate) fn crash(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        node.is_up = false;
        node.disk.lose();
        self.loses_links(place);
    }

    /// A node stops, and says so.
    pub(crate) fn leave(&mut self, place: Place) {
        let now = self.now();
        let node = &mut self.nodes[place];
        node.disk.store(&node.replica);
        node.gossip.leave(now);
        self.settle_gossip(place);
        self.nodes[place].is_up = false;
        self.loses_links(place);
    }

    /// Cuts the network: nothing comes from one part to another.
    pub(crate) fn cut(&mut self, parts: Vec<u8>) {
        self.parts = Some(parts);
        self.cuts_links();
    }

    /// Ends the cut.
    pub(crate) fn heal(&mut self) {
        self.parts = None;
    }

    pub(super) fn registry_wakes(&mut self, place: Place) {
        let now = self.now();
        let node = &mut self.nodes[place];
        node.replica.tick(node.wall(now));
        self.registry_events(place);
        self.refreshes(place);
        self.wakes_at(place, Part::Registry, Some(now + KEEPS_EVERY));
    }

    pub(super) fn stores(&mut self, place: Place, life: u32) {
        let node = &mut self.nodes[place];
        if node.life == life && node.is_up {
            node.disk.store(&node.replica);
        }
    }

    /// A node's gossip says that another is gone.
    pub(super) fn thought_offline(&mut self, by: Place, node: Place) {
        if self.nodes[by].is_up && self.is_passable(by, node) {
            self.wrongly_gone += 1;
        }
    }

    /// Plans that a node stores what is new.
    pub(super) fn will_store(&mut self, place: Place, after: Duration) {
        let (now, life) = (self.now(), self.nodes[place].life);
        self.queue.plan(now + after, Happening::Stores { node: place, life });
    }
}
