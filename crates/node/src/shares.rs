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

/// Who was spoken of lately: of each node once a minute, however much it does.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<BTreeMap<NodeId, Instant>>);

impl Seldom {
    const SPAN: Duration = Duration::from_secs(60);
    /// Nodes of which is spoken within that time.
    const MOST: usize = 1024;

    /// Whether to speak of a node now.
    pub(crate) fn may_speak_of(&self, node: NodeId) -> bool {
        let now = Instant::now();
        let mut told = lock(&self.0);
        told.retain(|_, at| now.duration_since(*at) < Self::SPAN);
        told.len() < Self::MOST && !told.contains_key(&node) && told.insert(node, now).is_none()
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
    fn of_each_node_is_spoken_once_in_a_while() {
        let seldom = Seldom::default();
        assert!(seldom.may_speak_of(node(1)) && seldom.may_speak_of(node(2)));
        assert!(!seldom.may_speak_of(node(1)));
    }
}
