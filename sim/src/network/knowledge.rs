//! What nodes say in the registry, hear and store.

use std::time::Duration;

use dawn_identity::NodeId;
use dawn_registry::Refusal;
use dawn_registry::delta::Key;
use dawn_registry::head::HeadId;
use dawn_registry::replica::{Applied, Change, Event};
use dawn_registry::set::Dot;

use super::Network;
use crate::event::Time;
use crate::member::{Place, agent, summary};

/// How long what is new waits to be stored.
const STORES_AFTER: Duration = Duration::from_secs(1);

/// A node has heard something new of another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) of: NodeId,
    pub(crate) by: Place,
    pub(crate) at: Time,
}

impl Network {
    /// A node says in the registry what it is and which agents it has; nothing where it has said so before.
    pub(crate) fn declares(&mut self, place: Place) {
        let now = self.now();
        let node = &mut self.nodes[place];
        let agents = node.agents.iter();
        let agents = agents.map(|(name, value)| (Key::Agent(name.clone()), value.clone()));
        let own = (Key::Node, node.member.element.clone());
        let values = std::iter::once(own).chain(agents).collect();
        let said = node.replica.declare(values, &node.member.key, node.wall(now));
        self.said_own(place, said.expect("a node may say what it is"));
    }

    /// A node says something new of one of its agents.
    pub(crate) fn changes(&mut self, place: Place, number: usize, version: u64) {
        let name = agent(number);
        let value = summary(&name, version);
        let now = self.now();
        let node = &mut self.nodes[place];
        node.agents.insert(name.clone(), value.clone());
        let changes = [Change::Set(Key::Agent(name), value)];
        let said = node.replica.change(changes, &node.member.key, node.wall(now));
        self.said_own(place, said.expect("a node may say what its agents are"));
    }

    /// Signs anew what is due.
    pub(super) fn refreshes(&mut self, place: Place) {
        let now = self.now();
        let node = &mut self.nodes[place];
        let said = node.replica.refresh(&node.member.key, node.wall(now));
        self.said_own(place, said.expect("a node may say again what it said"));
    }

    fn said_own(&mut self, place: Place, delta: Option<Vec<u8>>) {
        let Some(delta) = delta else { return };
        let node = &self.nodes[place];
        let own = node.member.id;
        let newest = node.replica.heads(&own).last().expect("it has just been signed");
        let (id, epoch) = (newest.id(), node.replica.epoch());
        let sequence = newest.clock().sequence(epoch);
        self.signs(own, Dot { epoch, sequence }, id);
        self.registry_events(place);
        self.publish(place, &delta);
    }

    /// A node has signed a head whose own dot is this one.
    fn signs(&mut self, node: NodeId, dot: Dot, id: HeadId) {
        let before = self.dots.insert((node, dot), id);
        if before.is_some_and(|before| before != id) {
            self.dots_used_twice += 1;
        }
    }

    /// A node takes a delta that came by itself, or from a comparison.
    pub(crate) fn hears(&mut self, place: Place, delta: &[u8]) -> Result<Applied, Refusal> {
        let now = self.now();
        let (node, roll) = (&mut self.nodes[place], &self.roll);
        let wall = node.wall(now);
        let verify = |_: &_, value: &_| roll.verify(value, wall);
        let applied = node.replica.apply(delta, wall, verify);
        match &applied {
            Ok(Applied::New) => self.registry_events(place),
            Ok(Applied::Known) => {}
            Err(refusal) => *self.deltas_refused.entry((place, refusal.code())).or_default() += 1,
        }
        applied
    }

    /// How many of a node's agents another does not know as they are; one more where it does not know the node.
    pub(crate) fn lacks(&self, by: Place, of: Place) -> usize {
        let (knower, node) = (&self.nodes[by], &self.nodes[of]);
        let Some(view) = knower.replica.node(&node.member.id, knower.wall(self.now())) else {
            return node.agents.len() + 1;
        };
        let is_known = |(name, value): (_, &Vec<u8>)| view.agent(name).is_some_and(|known| known.bytes() == value);
        node.agents
            .iter()
            .filter(|(name, value)| !is_known((*name, *value)))
            .count()
    }

    /// What follows from a change of a replica: it is stored, and who is new can be talked to.
    pub(super) fn registry_events(&mut self, place: Place) {
        let now = self.now();
        for event in self.nodes[place].replica.events() {
            let of = match event {
                Event::Changed(node) => node,
                Event::Lied(proof) => {
                    self.lies.push((place, proof.node()));
                    continue;
                }
            };
            if let Some(heard) = &mut self.heard {
                heard.push(Heard { of, by: place, at: now });
            }
            let node = &mut self.nodes[place];
            if node.disk.changed(of) {
                self.will_store(place, STORES_AFTER);
            }
            self.knows(place, of);
        }
        let node = &self.nodes[place];
        if !node.replica.speaks_for_all() {
            self.refreshes(place);
        }
    }
}
