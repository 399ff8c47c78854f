//! How nodes' gossip is driven: links are made and end, messages travel over them, news go to the registry.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use dawn_gossip::{Action, Event, NewsId, Presence, Verdict, Voice};
use dawn_identity::{Keypair, NodeId, SIGNATURE_BYTES};
use dawn_registry::Refusal;
use dawn_registry::replica::Applied;

use super::{Happening, Network, Part, Purpose};
use crate::link::Lane;
use crate::member::Place;

/// After how long a try to reach somebody has failed.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// After how long a connection is given up whose other end says nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// Signatures that were verified, by the hash of who signed what: each comes to a thousand nodes.
pub(crate) type Signatures = RefCell<HashMap<[u8; 32], bool>>;

/// What a node signs with.
#[derive(Debug, Clone)]
pub(crate) struct Tongue {
    key: Keypair,
    signatures: Rc<Signatures>,
}

impl Tongue {
    pub(crate) fn new(key: Keypair, signatures: &Rc<Signatures>) -> Self {
        Self {
            key,
            signatures: Rc::clone(signatures),
        }
    }
}

impl Voice for Tongue {
    fn sign(&self, statement: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(statement)
    }

    fn verify(&self, node: &NodeId, statement: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let mut context = Context::new(&SHA256);
        [&node.as_bytes()[..], signature, statement]
            .iter()
            .for_each(|part| context.update(part));
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        let mut known = self.signatures.borrow_mut();
        *known
            .entry(hash)
            .or_insert_with(|| node.verify(statement, signature).is_ok())
    }
}

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

    /// How many links a node has.
    pub(crate) fn links_of(&self, place: Place) -> usize {
        self.nodes[place].gossip.links().count()
    }

    /// Carries out what a node's gossip wants, and hears what it tells.
    pub(crate) fn settle_gossip(&mut self, place: Place) {
        loop {
            if let Some(event) = self.nodes[place].gossip.poll_event() {
                self.gossip_tells(place, event);
            } else if let Some(action) = self.nodes[place].gossip.poll_action() {
                self.gossip_wants(place, action);
            } else {
                break;
            }
        }
        let due = self.nodes[place].gossip.poll_timeout();
        self.wakes_at(place, Part::Gossip, due);
    }

    pub(super) fn gossip_wakes(&mut self, place: Place) {
        let now = self.now();
        let node = &mut self.nodes[place];
        if node.gossip.poll_timeout().is_some_and(|at| at <= now) {
            node.gossip.handle_timeout(now, &mut self.chance);
        }
        self.settle_gossip(place);
    }

    fn gossip_wants(&mut self, place: Place, action: Action) {
        match action {
            Action::Connect(node) => {
                if let Some(other) = self.roll.place(&node) {
                    self.dials(place, other);
                }
            }
            Action::Disconnect(node) => {
                if let Some(other) = self.roll.place(&node) {
                    self.disconnects(place, other);
                }
            }
            Action::Send { to, bytes } => {
                if let Some(other) = self.roll.place(&to) {
                    self.gossips(place, other, bytes);
                }
            }
        }
    }

    fn gossip_tells(&mut self, place: Place, event: Event) {
        match event {
            Event::News { id, from, bytes } => self.news(place, &id, &from, &bytes),
            Event::Differs(node) => {
                if let Some(other) = self.roll.place(&node) {
                    self.compare(place, other);
                }
            }
            Event::Offline(node) => {
                if let Some(other) = self.roll.place(&node) {
                    self.thought_offline(place, other);
                }
            }
            Event::Muted(node) => {
                let of = self.roll.place(&node);
                self.muted.extend(of.map(|of| (place, of)));
            }
            Event::Online(_) | Event::Suspected(_) => {}
        }
    }

    fn news(&mut self, place: Place, id: &NewsId, from: &NodeId, bytes: &[u8]) {
        let Some(sender) = self.roll.place(from) else { return };
        let heard = self.hears(place, sender, bytes);
        let verdict = match &heard {
            Ok(Applied::New) => Verdict::New,
            Ok(Applied::Known) => Verdict::Known,
            Err(refusal) => verdict_on(refusal),
        };
        let (now, node) = (self.now(), &mut self.nodes[place]);
        node.gossip.accept(id, verdict, now);
        match heard {
            Ok(Applied::New) => node.tells_gossip(),
            Err(Refusal::Gap(of)) => self.fetch(place, sender, [of]),
            Ok(Applied::Known) | Err(_) => {}
        }
    }

    /// A member that lies gives its neighbours what it likes, as news.
    pub(crate) fn spreads(&mut self, place: Place, news: &[u8]) {
        let now = self.now();
        let taken = self.nodes[place].gossip.publish(news, now);
        taken.expect("no longer than news may be");
        self.settle_gossip(place);
    }

    /// A member that lies sends what it likes, if it has a link.
    pub(crate) fn utters(&mut self, from: Place, to: Place, bytes: Vec<u8>) {
        self.gossips(from, to, bytes);
    }

    /// Whether a node thinks that another is gone.
    pub(crate) fn thinks_gone(&self, by: Place, of: Place) -> bool {
        let presence = self.nodes[by].gossip.presence(&self.nodes[of].member.id);
        by != of && !matches!(presence, Some(Presence::Online | Presence::Suspected))
    }

    /// News of this node go out.
    pub(super) fn publish(&mut self, place: Place, delta: &[u8]) {
        let now = self.now();
        let node = &mut self.nodes[place];
        node.tells_gossip();
        if node.gossip.publish(delta, now).is_err() {
            // Longer than news may be: it is found by comparison.
            node.gossip.changed(now);
        }
        self.settle_gossip(place);
    }

    /// A comparison has brought something: the neighbours may lack it too.
    pub(super) fn has_learned(&mut self, place: Place) {
        let now = self.now();
        let node = &mut self.nodes[place];
        node.tells_gossip();
        node.gossip.changed(now);
        self.settle_gossip(place);
    }

    /// Something is known of a node, or nothing any more.
    pub(super) fn knows(&mut self, place: Place, of: NodeId) {
        let now = self.now();
        let node = &mut self.nodes[place];
        if node.replica.node(&of, node.wall(now)).is_some() {
            node.gossip.add_member(of, now);
        } else {
            node.gossip.remove_member(&of, now);
        }
    }

    fn dials(&mut self, from: Place, to: Place) {
        if self.has_link(from, to) {
            return;
        }
        let now = self.now();
        let life = self.nodes[from].life;
        self.dials += 1;
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

    fn gossips(&mut self, from: Place, to: Place, bytes: Vec<u8>) {
        let (name, end) = link_of(from, to);
        if !self.has_link(from, to) {
            return;
        }
        let left = self.leaves(from, bytes.len(), Purpose::Gossip);
        let Some(link) = self.links.get_mut(&name) else { return };
        let at = link.ends[end].1.arrival(left, &self.weather, &mut self.chance);
        let link = link.number;
        self.queue.plan(at, Happening::Gossiped { from, to, link, bytes });
    }

    pub(super) fn gossiped(&mut self, from: Place, to: Place, number: u64, bytes: &[u8]) {
        let (name, end) = link_of(to, from);
        let link = self.links.get(&name);
        if !self.is_passable(from, to) || link.is_none_or(|link| link.number != number || !link.ends[end].0) {
            return;
        }
        let (now, sender) = (self.now(), self.nodes[from].member.id);
        if self.nodes[to].gossip.receive(sender, bytes, now).is_err() {
            self.messages_refused += 1;
        }
        self.settle_gossip(to);
    }

    /// A node ends a link; the other end hears of it after what was sent before.
    fn disconnects(&mut self, place: Place, other: Place) {
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

/// What a refusal says of who passed the news on: only what no honest node would have taken counts against it.
fn verdict_on(refusal: &Refusal) -> Verdict {
    match refusal {
        Refusal::Malformed(_)
        | Refusal::OtherNetwork
        | Refusal::BadSignature
        | Refusal::TooLong(_)
        | Refusal::NotSigned
        | Refusal::NoNode
        | Refusal::NoMember(_)
        | Refusal::TooMany(_)
        | Refusal::TooLarge(_) => Verdict::Refused,
        Refusal::FromTheFuture(_)
        | Refusal::Expired(_)
        | Refusal::TooOften
        | Refusal::Gap(_)
        | Refusal::TooManyHeads
        | Refusal::Full => Verdict::Ignored,
    }
}
