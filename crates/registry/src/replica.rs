//! A replica of the registry: of every node the set that it signed, merged with whatever comes from anybody.
//!
//! A node's set is written by that node alone. Every change makes a new [`Head`], signed over the whole set, and a
//! [`Delta`](crate::delta::Delta) from the one before. A replica keeps of each node the heads that no other one replaces:
//! union without those, which is commutative, associative and idempotent. Usually that is one head; incarnations of a node
//! that do not know of each other have one each, what is shown is the join of their sets, and whichever of them hears of
//! the other signs a head that covers both.
//!
//! Whoever passes a delta on can neither add to it nor leave anything out: the set that comes of it must be the one that
//! the head was signed over.

mod apply;
mod copy;
mod local;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use dawn_identity::{Membership, NetworkId, NodeId, UnixTime};

use crate::clock::Clock;
use crate::delta::Element;
use crate::head::{Equivocation, Head, HeadId, place};
use crate::owner::{self, Known, Owner, Stored};
use crate::refusal::Refusal;

pub use local::{Change, LocalError};
pub use view::NodeView;

/// How much a replica takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Nodes known at once.
    pub nodes: usize,
    /// Entries in the set of a node: itself and its agents.
    pub entries: usize,
    /// Bytes of memory of the set of a node, for each of its heads.
    pub owner_bytes: usize,
    /// Bytes of memory of all sets.
    pub bytes: usize,
    /// Heads of a node that are taken within a minute.
    pub heads_a_minute: u32,
    /// How far ahead of this node's clock another's may be.
    pub skew: Duration,
    /// How long a head counts that this node signs.
    pub validity: Duration,
    /// How long the heads of others may count.
    pub longest: Duration,
    /// How long an expired head is kept, unseen.
    pub keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            nodes: 16_384,
            entries: 513,
            owner_bytes: 256 << 10,
            bytes: 256 << 20,
            heads_a_minute: 120,
            skew: Duration::from_secs(120),
            validity: DAY * 7,
            longest: DAY * 7,
            keep: DAY * 23,
        }
    }
}

/// What became of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is news: others should get it too.
    New,
    /// It was known, or something newer is.
    Known,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something else is known of a node: what it says, or that it says nothing any more.
    Changed(NodeId),
    /// A node signed two different heads of one clock. Told once of each node.
    Lied(Box<Equivocation>),
}

/// A node of whom something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// What came between.
    Part,
    /// Its whole set: what came between did not fit.
    Whole,
}

/// The registry as one node has it.
#[derive(Debug)]
pub struct Replica {
    network: NetworkId,
    local: NodeId,
    /// What the certificate of this node says.
    membership: Arc<Membership>,
    /// This incarnation.
    epoch: u64,
    limits: Limits,
    owners: BTreeMap<NodeId, Owner>,
    bytes: usize,
    /// The heads of all owners, by the place of their node, with their ends: by it is known what comes again, and read
    /// what is compared, without going from owner to owner.
    heads: BTreeMap<(u64, HeadId), UnixTime>,
    missing: BTreeMap<NodeId, Missing>,
    events: Vec<Event>,
}

impl Replica {
    /// An empty replica of the node that `membership` is of. `epoch` names this incarnation of it: greater than that of
    /// any before, and kept before it is used.
    #[must_use]
    pub fn new(membership: Membership, epoch: u64, limits: Limits) -> Self {
        Self {
            network: membership.network,
            local: membership.node,
            membership: Arc::new(membership),
            epoch,
            limits,
            owners: BTreeMap::new(),
            bytes: 0,
            heads: BTreeMap::new(),
            missing: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// The bytes of memory of so many elements, if they fit in place of those whose heads one with this clock replaces.
    fn has_room_for<'a>(
        &self,
        node: &NodeId,
        clock: &Clock,
        entries: usize,
        elements: impl Iterator<Item = &'a Element>,
    ) -> Result<usize, Refusal> {
        if entries > self.limits.entries {
            return Err(Refusal::TooMany(entries));
        }
        let size = owner::size_of_elements(elements);
        if size > self.limits.owner_bytes {
            return Err(Refusal::TooLarge(size));
        }
        // Who is known already may go on changing when the registry is full, but not say more and more side by side.
        let heads = self.owners.get(node).into_iter().flat_map(|owner| &owner.heads);
        let replaced = heads.filter(|stored| clock.includes(&stored.head.clock));
        let replaced: usize = replaced.map(|stored| stored.size).sum();
        if self.bytes.saturating_sub(replaced).saturating_add(size) > self.limits.bytes {
            return Err(Refusal::Full);
        }
        Ok(size)
    }

    /// Whether it was kept, among those of its node.
    fn keep(&mut self, stored: Stored, now: UnixTime) -> bool {
        let node = stored.head.node;
        let owner = self.owners.entry(node).or_default();
        owner.count(now);
        self.bytes = self.bytes.saturating_sub(size_of(owner));
        places(owner).for_each(|(place, _)| {
            self.heads.remove(&place);
        });
        let is_kept = owner.insert(stored);
        owner.live = live(owner, now);
        self.bytes += size_of(owner);
        self.heads.extend(places(owner));
        if is_kept {
            self.events.push(Event::Changed(node));
        }
        is_kept
    }

    /// Forgets what expired long ago, and tells of what expired.
    pub fn tick(&mut self, now: UnixTime) {
        let (local, keep) = (self.local, self.limits.keep);
        for (node, owner) in &mut self.owners {
            let before = size_of(owner);
            let gone = owner
                .heads
                .extract_if(.., |stored| *node != local && stored.head.expires + keep <= now);
            let mut is_forgotten = false;
            gone.for_each(|stored| {
                self.heads.remove(&(place(node), stored.head.id));
                is_forgotten = true;
            });
            self.bytes = (self.bytes + size_of(owner)).saturating_sub(before);
            let live = live(owner, now);
            // Also what is shown no more: whoever keeps it is to let it go.
            if is_forgotten || live != owner.live {
                owner.live = live;
                self.events.push(Event::Changed(*node));
            }
        }
        self.owners.retain(|_, owner| !owner.heads.is_empty());
        self.missing.retain(|node, _| self.owners.contains_key(node));
    }

    /// When [`tick`](Self::tick) has something to do next.
    #[must_use]
    pub fn next_tick(&self, now: UnixTime) -> Option<UnixTime> {
        let heads = self.owners.values().flat_map(|owner| &owner.heads);
        let ends = heads.map(|stored| match stored.head.expires {
            expires if expires > now => expires,
            expires => expires + self.limits.keep,
        });
        ends.filter(|end| *end > now).min()
    }

    /// Forgets the nodes that are no members any more, and says which they are. This node stays.
    pub fn retain(&mut self, mut is_member: impl FnMut(&NodeId, &Membership) -> bool) -> Vec<NodeId> {
        let local = self.local;
        let out = self.owners.extract_if(.., |node, owner| {
            let is_out = |stored: &Stored| !is_member(node, &stored.membership);
            *node != local && owner.heads.last().is_some_and(is_out)
        });
        let out: Vec<(NodeId, Owner)> = out.collect();
        for (node, owner) in &out {
            self.missing.remove(node);
            places(owner).for_each(|(place, _)| {
                self.heads.remove(&place);
            });
            self.bytes = self.bytes.saturating_sub(size_of(owner));
            self.events.push(Event::Changed(*node));
        }
        out.into_iter().map(|(node, _)| node).collect()
    }

    /// What changed since this was last asked.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Bytes of memory that the sets take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a node says now; `None` if nothing is known of it, or it has expired.
    #[must_use]
    pub fn node(&self, node: &NodeId, now: UnixTime) -> Option<NodeView<'_>> {
        let owner = self.owners.get(node)?;
        view::view(*node, owner, now)
    }

    /// What every node says now.
    pub fn nodes(&self, now: UnixTime) -> impl Iterator<Item = NodeView<'_>> {
        self.owners
            .iter()
            .filter_map(move |(node, owner)| view::view(*node, owner, now))
    }

    /// The heads that are kept of a node, the most recent one last.
    pub fn heads(&self, node: &NodeId) -> impl Iterator<Item = &Head> {
        let owner = self.owners.get(node);
        owner
            .into_iter()
            .flat_map(|owner| owner.heads.iter().map(|stored| &stored.head))
    }

    /// Everything known of a node, a delta for each of its heads: what is kept in storage, and applied at the next start.
    #[must_use]
    pub fn states(&self, node: &NodeId) -> Vec<Vec<u8>> {
        let owner = self.owners.get(node);
        owner.map_or_else(Vec::new, |owner| owner.heads.iter().map(owner::whole).collect())
    }

    /// The known nodes of whom a delta came without what was before it.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> impl Iterator<Item = NodeId> {
        self.missing.keys().copied()
    }

    /// What is known of a node, as another is told who is to send more; nothing where the whole is wanted.
    pub(crate) fn known(&self, node: &NodeId) -> Vec<Known> {
        match (self.missing.get(node), self.owners.get(node)) {
            (Some(Missing::Whole), _) | (_, None) => Vec::new(),
            (_, Some(owner)) => owner.known(),
        }
    }

    #[cfg(test)]
    pub(crate) fn owner(&self, node: &NodeId) -> Option<&Owner> {
        self.owners.get(node)
    }

    /// The nodes whose ids begin with these eight bytes.
    pub(crate) fn owners_at(&self, places: RangeInclusive<u64>) -> impl Iterator<Item = (&NodeId, &Owner)> + Clone {
        let bound = |place: u64, rest: u8| {
            let mut id = [rest; 32];
            id.iter_mut()
                .zip(place.to_be_bytes())
                .for_each(|(byte, front)| *byte = front);
            NodeId::from_bytes(id)
        };
        self.owners
            .range(bound(*places.start(), 0)..=bound(*places.end(), u8::MAX))
    }

    /// The ids of all heads that are not to be forgotten, by the places of their nodes.
    pub(crate) fn all_heads(&self, now: UnixTime) -> impl Iterator<Item = (u64, [u8; 32])> {
        let heads = self.heads.iter();
        let heads = heads.filter(move |(_, expires)| **expires + self.limits.keep > now);
        heads.map(|((place, id), _)| (*place, id.0))
    }

    /// Whether these are all the heads in a place.
    pub(crate) fn has_just(&self, place: u64, known: &[Known]) -> bool {
        let here = self
            .heads
            .range((place, HeadId([0; 32]))..=(place, HeadId([u8::MAX; 32])));
        let mut here = here.map(|((_, id), _)| id.front());
        known.len() == here.clone().count() && here.all(|id| known.iter().any(|known| known.id == id))
    }

    /// How many heads there are, of all nodes.
    pub(crate) fn count_heads(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Where the heads of an owner are found, and when they expire.
fn places(owner: &Owner) -> impl Iterator<Item = ((u64, HeadId), UnixTime)> {
    let heads = owner.heads.iter().map(|stored| &stored.head);
    heads.map(|head| ((place(&head.node), head.id), head.expires))
}

fn live(owner: &Owner, now: UnixTime) -> usize {
    owner.heads.iter().filter(|stored| stored.head.expires > now).count()
}

fn size_of(owner: &Owner) -> usize {
    owner.heads.iter().map(|stored| stored.size).sum()
}
