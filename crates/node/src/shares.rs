//! Fair shares: what one member asks for takes neither the room nor the attention that is for the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;

use crate::sync::lock;

/// Room for so many things at once, and for so many of each node.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    total: usize,
    each: usize,
    taken: Arc<Mutex<BTreeMap<NodeId, usize>>>,
}

/// Room that was taken; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    node: NodeId,
    taken: Arc<Mutex<BTreeMap<NodeId, usize>>>,
}

impl Shares {
    pub(crate) fn new(total: usize, each: usize) -> Self {
        Self {
            total,
            each,
            taken: Arc::default(),
        }
    }

    /// Whether anybody else has taken something.
    pub(crate) fn are_taken_beside(&self, node: &NodeId) -> bool {
        lock(&self.taken).keys().any(|taken| taken != node)
    }

    /// Room for one more thing of a node, if there is any.
    pub(crate) fn take(&self, node: NodeId) -> Option<Share> {
        let mut taken = lock(&self.taken);
        let own = taken.get(&node).copied().unwrap_or_default();
        if own >= self.each || taken.values().sum::<usize>() >= self.total {
            return None;
        }
        taken.insert(node, own + 1);
        Some(Share {
            node,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.node);
            }
        }
    }
}

/// Who, or what, was spoken of lately: of each once a minute, however often it happens.
#[derive(Debug)]
pub(crate) struct Seldom<K = NodeId>(Mutex<BTreeMap<K, Instant>>);

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord> Seldom<K> {
    const SPAN: Duration = Duration::from_secs(60);
    /// Of how many is spoken within that time.
    const MOST: usize = 1024;

    /// Whether to speak of this now.
    pub(crate) fn may_speak_of(&self, what: K) -> bool {
        let now = Instant::now();
        let mut told = lock(&self.0);
        told.retain(|_, at| now.duration_since(*at) < Self::SPAN);
        told.len() < Self::MOST && !told.contains_key(&what) && told.insert(what, now).is_none()
    }
}

/// What each member may do within a span of time: so much, and then nothing until the span is over.
#[derive(Debug)]
pub(crate) struct Pace {
    span: Duration,
    most: u32,
    done: Mutex<BTreeMap<NodeId, (Instant, u32)>>,
}

impl Pace {
    pub(crate) fn new(most: u32, span: Duration) -> Self {
        Self {
            span,
            most,
            done: Mutex::default(),
        }
    }

    /// Counts one thing of a member; how many that makes in its span.
    pub(crate) fn count(&self, node: NodeId) -> u32 {
        self.add(node, 1)
    }

    /// Counts so many things of a member; how many that makes in its span.
    pub(crate) fn add(&self, node: NodeId, many: u32) -> u32 {
        let now = Instant::now();
        let mut done = lock(&self.done);
        done.retain(|_, (since, _)| now.duration_since(*since) < self.span);
        let (_, count) = done.entry(node).or_insert((now, 0));
        *count = count.saturating_add(many);
        *count
    }

    /// Counts one thing of a member, and says whether that was one it may do.
    pub(crate) fn may(&self, node: NodeId) -> bool {
        self.count(node) <= self.most
    }

    /// Whether a member has done all that it may.
    pub(crate) fn is_spent(&self, node: NodeId) -> bool {
        let done = lock(&self.done);
        let spent = |(since, count): &(Instant, u32)| since.elapsed() < self.span && *count >= self.most;
        done.get(&node).is_some_and(spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    #[test]
    fn nobody_takes_more_than_its_share_and_what_is_given_back_can_be_taken_again() {
        let shares = Shares::new(3, 2);
        let own: Vec<Share> = std::iter::from_fn(|| shares.take(node(1))).collect();
        assert_eq!(own.len(), 2);
        let other = shares.take(node(2)).unwrap();
        assert!(shares.take(node(3)).is_none(), "three are all");
        drop(other);
        assert!(shares.take(node(3)).is_some());
        drop(own);
        assert!(shares.take(node(1)).is_some());
        assert!(lock(&shares.taken).is_empty());
    }

    #[test]
    fn each_member_has_a_pace_of_its_own_which_begins_anew_with_every_span() {
        let pace = Pace::new(2, Duration::from_secs(60));
        assert!(pace.may(node(1)) && !pace.is_spent(node(1)));
        assert!(pace.may(node(1)) && pace.is_spent(node(1)));
        assert!(!pace.may(node(1)) && pace.may(node(2)));
        assert_eq!(pace.add(node(3), 7), 7);
        assert!(pace.is_spent(node(3)));
        let over = Pace::new(1, Duration::ZERO);
        assert!(over.may(node(1)) && over.may(node(1)) && !over.is_spent(node(1)));
    }

    #[test]
    fn of_each_node_is_spoken_once_in_a_while() {
        let seldom = Seldom::<NodeId>::default();
        assert!(seldom.may_speak_of(node(1)) && seldom.may_speak_of(node(2)));
        assert!(!seldom.may_speak_of(node(1)));
    }
}
