//! How nodes' gossip is driven: messages travel over links, and news go to the registry.

use dawn_gossip::{Action, Event, NewsId, Presence, Verdict};
use dawn_identity::NodeId;
use dawn_registry::Refusal;
use dawn_registry::replica::Applied;

use super::{Happening, Network, Part, Purpose};
use crate::member::Place;

impl Network {
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
        let heard = self.hears(place, bytes);
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

    fn gossips(&mut self, from: Place, to: Place, bytes: Vec<u8>) {
        if !self.has_link(from, to) {
            return;
        }
        let left = self.leaves(from, bytes.len(), Purpose::Gossip);
        if let Some((link, at)) = self.over_link(from, to, left) {
            self.queue.plan(at, Happening::Gossiped { from, to, link, bytes });
        }
    }

    pub(super) fn gossiped(&mut self, from: Place, to: Place, link: u64, bytes: &[u8]) {
        if !self.is_passable(from, to) || !self.has_this_link(to, from, link) {
            return;
        }
        let (now, sender) = (self.now(), self.nodes[from].member.id);
        if self.nodes[to].gossip.receive(sender, bytes, now).is_err() {
            self.messages_refused += 1;
        }
        self.settle_gossip(to);
    }
}

/// What a refusal says of who passed the news on: only what no honest node would have taken counts against it.
fn verdict_on(refusal: &Refusal) -> Verdict {
    match refusal {
        Refusal::Malformed(_)
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
        | Refusal::OtherVersion(_)
        | Refusal::Full => Verdict::Ignored,
    }
}
