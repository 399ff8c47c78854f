//! Nodes of which a control plane has told: its word makes nobody a member, and takes nothing from those who are. Of those
//! that nobody else has told of a bounded number is tried; what a node says of itself is tried first.

use std::collections::BTreeSet;

use dawn_identity::NodeId;

use super::Directory;
use crate::sync::lock;

/// How many are tried: enough to find the network through, and few beside what the gossip has room for.
const MOST: usize = 2_000;

/// Those that are tried.
#[derive(Debug, Default)]
pub(super) struct Hinted {
    nodes: BTreeSet<NodeId>,
}

impl Hinted {
    /// Adds one where there is room; `is_known` are those that have said something themselves.
    fn add(&mut self, node: NodeId, is_known: impl Fn(&NodeId) -> bool) -> bool {
        if self.nodes.contains(&node) {
            return true;
        }
        if self.nodes.len() >= MOST {
            self.nodes.retain(|node| !is_known(node));
        }
        self.nodes.len() < MOST && self.nodes.insert(node)
    }
}

impl Directory {
    /// A control plane says that a node may be at these addresses.
    pub(crate) fn hint(&self, node: NodeId, addresses: Vec<String>) {
        if addresses.is_empty() || node == self.0.key.node_id() {
            return;
        }
        let hinted = |addresses| lock(&self.0.places).entry(node).or_default().hinted = addresses;
        let known = lock(&self.0.known);
        if let Some(itself) = known.get(&node) {
            let said = itself.said.addresses.clone();
            drop(known);
            hinted(addresses);
            return self.find_at(node, said);
        }
        let is_tried = lock(&self.0.hinted).add(node, |node| known.contains_key(node));
        drop(known);
        if is_tried {
            hinted(addresses);
            self.meet_member(node, Vec::new());
        }
    }

    /// It says so no more.
    pub(crate) fn unhint(&self, node: &NodeId) {
        if let Some(places) = lock(&self.0.places).get_mut(node) {
            places.hinted.clear();
        }
        let was_hinted = lock(&self.0.hinted).nodes.remove(node);
        if was_hinted && !self.has_said(node) {
            self.forget_member(node);
        }
    }

    /// Nothing of what it said counts any more.
    pub(crate) fn unhint_all(&self) {
        lock(&self.0.places)
            .values_mut()
            .for_each(|places| places.hinted.clear());
        let nodes = std::mem::take(&mut lock(&self.0.hinted).nodes);
        for node in nodes.iter().filter(|node| !self.has_said(node)) {
            self.forget_member(node);
        }
    }

    /// Whether a node has said something of itself.
    fn has_said(&self, node: &NodeId) -> bool {
        lock(&self.0.known).contains_key(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn however_many_are_named_a_bounded_number_is_tried() {
        let mut hinted = Hinted::default();
        let tried = (0..20_000).filter(|n| hinted.add(node(*n), |_| false)).count();
        assert_eq!((tried, hinted.nodes.len()), (MOST, MOST));
        assert!(hinted.add(node(0), |_| false) && !hinted.add(node(30_000), |_| false));
        // Who has said something of itself makes room.
        assert!(hinted.add(node(30_000), |known| *known < node(10)));
        assert_eq!(hinted.nodes.len(), MOST - 9);
    }
}
