//! Links between nodes: how they are made, and how they end.

use std::time::Duration;

use super::{Happening, Network};
use crate::event::Time;
use crate::link::Lane;
use crate::member::Place;

/// After how long a try to reach somebody has failed.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// After how long a connection is given up whose other end says nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// A link between two nodes.
#[derive(Debug)]
pub(super) struct Link {
    number: u64,
    /// Each end: whether it is there, and the way from it.
    ends: [(bool, Lane); 2],
}

/// The name of a link, and which end of it the first of two nodes is.
fn link_of(place: Place, other: Place) -> ((Place, Place), usize) {
    ((place.min(other), place.max(other)), usize::from(place > other))
}

impl Network {
    pub(super) fn has_link(&self, place: Place, other: Place) -> bool {
        let (name, end) = link_of(place, other);
        self.links.get(&name).is_some_and(|link| link.ends[end].0)
    }

    /// When something arrives at the other end that left one end of a link; `None` where there is no link.
    pub(super) fn over_link(&mut self, from: Place, to: Place, left: Time) -> Option<(u64, Time)> {
        let (name, end) = link_of(from, to);
        let link = self.links.get_mut(&name).filter(|link| link.ends[end].0)?;
        let at = link.ends[end].1.arrival(left, &self.weather, &mut self.chance);
        Some((link.number, at))
    }

    /// Whether a node's end of this link is there.
    pub(super) fn has_this_link(&self, place: Place, other: Place, number: u64) -> bool {
        let (name, end) = link_of(place, other);
        let link = self.links.get(&name);
        link.is_some_and(|link| link.number == number && link.ends[end].0)
    }

    /// A node wants a link with another.
    pub(super) fn dials(&mut self, from: Place, to: Place) {
        if self.has_link(from, to) {
            return;
        }
        let now = self.now();
        let life = self.nodes[from].life;
        if let Some(dialled) = &mut self.dialled {
            dialled.push((now, to));
        }
        self.handshakes(from);
        // One and a half round trips: then both ends have it.
        let mut chance = || Lane::default().arrival(now, &self.weather, &mut self.chance) - now;
        let at = now + chance() + chance() + chance();
        self.queue.plan(at, Happening::Dialled { from, to, life });
    }

    pub(super) fn dialled(&mut self, from: Place, to: Place, life: u32) {
        let now = self.now();
        if self.nodes[from].life != life || !self.nodes[from].is_up {
            return;
        }
        if !self.is_passable(from, to) || !self.is_passable(to, from) {
            let failed = Happening::DialFailed { from, to, life };
            return self.queue.plan(now + DIAL_PATIENCE, failed);
        }
        if self.has_link(from, to) && self.has_link(to, from) {
            return;
        }
        // A link whose end one of them has not heard of yet.
        for (place, other) in [(from, to), (to, from)] {
            if self.has_link(place, other) {
                let id = self.nodes[other].member.id;
                self.nodes[place].gossip.link_down(id, now);
            }
        }
        self.handshakes(to);
        self.counted += 1;
        let link = Link {
            number: self.counted,
            ends: [(true, Lane::default()), (true, Lane::default())],
        };
        self.links.insert(link_of(from, to).0, link);
        for (place, other) in [(from, to), (to, from)] {
            let id = self.nodes[other].member.id;
            self.nodes[place].gossip.link_up(id, now);
            self.settle_gossip(place);
            self.discovers(place, other);
        }
    }

    pub(super) fn dial_failed(&mut self, from: Place, to: Place, life: u32) {
        let now = self.now();
        if self.nodes[from].life != life || !self.nodes[from].is_up || self.has_link(from, to) {
            return;
        }
        let id = self.nodes[to].member.id;
        self.nodes[from].gossip.link_down(id, now);
        self.settle_gossip(from);
    }

    /// A node ends a link; the other end hears of it after what was sent before.
    pub(super) fn disconnects(&mut self, place: Place, other: Place) {
        let (name, end) = link_of(place, other);
        let now = self.now();
        let Some(link) = self.links.get_mut(&name).filter(|link| link.ends[end].0) else {
            return;
        };
        link.ends[end].0 = false;
        let at = link.ends[end].1.arrival(now, &self.weather, &mut self.chance);
        let (node, with, link) = (other, place, link.number);
        self.queue.plan(at, Happening::LinkEnds { node, with, link });
    }

    /// All links of a node that is gone, without a word: their other ends find out.
    pub(super) fn loses_links(&mut self, place: Place) {
        let now = self.now();
        let of = |(low, high): &(Place, Place)| *low == place || *high == place;
        for (name, link) in self.links.iter_mut().filter(|(name, _)| of(name)) {
            let with = place;
            let node = name.0 + name.1 - place;
            link.ends[usize::from(place == name.1)].0 = false;
            let link = link.number;
            self.queue.plan(now + SILENCE, Happening::LinkEnds { node, with, link });
        }
    }

    /// Links that lead from one part of a cut network to another: their ends find out.
    pub(super) fn cuts_links(&mut self) {
        let now = self.now();
        for ((low, high), link) in &self.links {
            let is_cut = self.parts.as_ref().is_some_and(|parts| parts[*low] != parts[*high]);
            for (node, with) in [(*low, *high), (*high, *low)].into_iter().filter(|_| is_cut) {
                let link = link.number;
                self.queue.plan(now + SILENCE, Happening::LinkEnds { node, with, link });
            }
        }
    }

    pub(super) fn link_ends(&mut self, place: Place, with: Place, number: u64) {
        let (name, end) = link_of(place, with);
        let Some(link) = self.links.get_mut(&name).filter(|link| link.number == number) else {
            return;
        };
        let was_there = std::mem::replace(&mut link.ends[end].0, false);
        if link.ends.iter().all(|(is_there, _)| !is_there) {
            self.links.remove(&name);
        }
        if was_there && self.nodes[place].is_up {
            let (now, id) = (self.now(), self.nodes[with].member.id);
            self.nodes[place].gossip.link_down(id, now);
            self.settle_gossip(place);
        }
    }
}
