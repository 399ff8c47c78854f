//! Who is kept out by the lock, and whether this node is.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dawn_identity::{Membership, NodeId, NodeName, UnixTime};
use dawn_lock::Why;

use crate::shares::Seldom;
use crate::sync::{Counts, lock};

/// Nodes that are remembered.
const REMEMBERED: usize = 256;

/// A node with valid certificates that the lock keeps out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What its certificates say.
    pub membership: Membership,
    /// Why it is kept out.
    pub why: Why,
    /// Since when it comes.
    pub since: UnixTime,
    /// When it came last.
    pub seen: UnixTime,
}

/// Members that keep this node out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedOut {
    /// Who said so last.
    pub by: NodeId,
    /// When.
    pub at: UnixTime,
}

/// Who makes room for one that this issuer has certified: of the issuer that has most of all waiting who came last; nobody
/// where that is the same issuer. So whoever certifies without end drives nobody out that others have certified.
fn last_of_the_most(kept: &BTreeMap<NodeId, Kept>, issuer: Option<NodeId>) -> Option<NodeId> {
    let mut by_issuer: BTreeMap<Option<NodeId>, Vec<&Kept>> = BTreeMap::new();
    for kept in kept.values() {
        by_issuer.entry(kept.membership.issuer).or_default().push(kept);
    }
    let own = by_issuer.get(&issuer).map_or(0, Vec::len);
    let most = by_issuer.into_values().max_by_key(Vec::len)?;
    let last = most.iter().max_by_key(|kept| (kept.since, kept.membership.node))?;
    (most.len() > own).then_some(last.membership.node)
}

/// What is remembered of that.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    kept: Mutex<BTreeMap<NodeId, Kept>>,
    told: Mutex<Option<LockedOut>>,
    counts: Counts,
    seldom: Seldom<NodeId>,
}

impl Waiting {
    /// Takes note that a node is kept out; whether it is time to speak of it.
    pub(super) fn note(&self, membership: &Membership, why: &Why, now: UnixTime) -> bool {
        self.counts.count(why.code());
        let mut kept = lock(&self.kept);
        if kept.len() >= REMEMBERED && !kept.contains_key(&membership.node) {
            let Some(last) = last_of_the_most(&kept, membership.issuer) else {
                return false;
            };
            kept.remove(&last);
        }
        let since = kept.get(&membership.node).map_or(now, |kept| kept.since);
        let entry = Kept {
            membership: membership.clone(),
            why: why.clone(),
            since,
            seen: now,
        };
        kept.insert(membership.node, entry);
        self.seldom.may_speak_of(membership.node)
    }

    /// Those of whom that still holds; the others are forgotten.
    pub(super) fn all(&self, holds: impl Fn(&Kept) -> bool) -> Vec<Kept> {
        let mut kept = lock(&self.kept);
        kept.retain(|_, kept| holds(kept));
        kept.values().cloned().collect()
    }

    /// The name of somebody who is kept out.
    pub(super) fn name_of(&self, node: NodeId) -> Option<NodeName> {
        lock(&self.kept).get(&node).map(|kept| kept.membership.name.clone())
    }

    /// Takes note that a member keeps this node out; whether it is time to speak of it.
    pub(super) fn locked_out(&self, by: NodeId, at: UnixTime) -> bool {
        *lock(&self.told) = Some(LockedOut { by, at });
        self.counts.count("locked_out");
        self.seldom.may_speak_of(by)
    }

    /// Who keeps this node out.
    pub(super) fn told(&self) -> Option<LockedOut> {
        *lock(&self.told)
    }

    /// How often that was, by code.
    pub(super) fn counted(&self) -> Vec<(&'static str, u64)> {
        self.counts.all()
    }
}
