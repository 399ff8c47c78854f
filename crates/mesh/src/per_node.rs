//! What is shared by everything that concerns one node, for as long as somebody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use dawn_identity::NodeId;

use crate::handle::lock;

/// One `T` for each node that has something to do with it now.
#[derive(Debug)]
pub(crate) struct PerNode<T>(Mutex<HashMap<NodeId, Weak<T>>>);

impl<T> Default for PerNode<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PerNode<T> {
    /// That of a node, made if nobody holds one.
    pub(crate) fn of(&self, node: NodeId, make: impl FnOnce() -> T) -> Arc<T> {
        let mut known = lock(&self.0);
        if let Some(held) = known.get(&node).and_then(Weak::upgrade) {
            return held;
        }
        known.retain(|_, held| held.strong_count() > 0);
        let made = Arc::new(make());
        known.insert(node, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    #[test]
    fn who_asks_for_a_node_gets_the_same_while_somebody_holds_it() {
        let [a, b] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]).node_id());
        let known = PerNode::default();
        let held = known.of(a, || 1);
        assert_eq!((*known.of(a, || 2), *known.of(b, || 3)), (1, 3));
        assert_eq!(lock(&known.0).len(), 2);
        drop(held);
        // What nobody holds is gone.
        assert_eq!(*known.of(a, || 4), 4);
        assert_eq!(lock(&known.0).len(), 1);
    }
}
