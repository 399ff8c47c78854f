//! What is asked of a node because somebody looks for it.

use dawn_identity::NodeId;

use super::Directory;
use crate::sync::lock;

impl Directory {
    /// Where a node can be dialled, as it says; `None` where nothing is known of it, or all of it has expired.
    pub(crate) fn addresses_of(&self, node: NodeId) -> Option<Vec<String>> {
        let known = lock(&self.0.known);
        let known = known.get(&node).filter(|known| !known.is_hidden)?;
        Some(known.said.addresses.clone())
    }

    /// Fetches from a connected member what it says of itself, where that is not known; waits until it is.
    pub(crate) async fn learn(&self, node: NodeId) -> bool {
        let mut changes = self.0.changes.subscribe();
        if self.addresses_of(node).is_none() {
            self.fetch(node, node);
        }
        while self.addresses_of(node).is_none() {
            if changes.changed().await.is_err() {
                return false;
            }
        }
        true
    }
}
