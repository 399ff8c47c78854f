//! How nodes' gossip is driven.

use dawn_identity::NodeId;

use super::Network;
use crate::member::Place;

impl Network {
    pub(super) fn publish(&mut self, _place: Place, _delta: Vec<u8>) {}
    pub(super) fn passes_on(&mut self, _place: Place, _from: Place, _delta: &[u8]) {}
    pub(super) fn knows(&mut self, _place: Place, _of: NodeId) {}
}
