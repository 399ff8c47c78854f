//! What is compared: the ids of all heads at one time.

use std::fmt;

use dawn_identity::{NodeId, UnixTime};
use negentropy::{Id, NegentropyStorageBase, NegentropyStorageVector};

use super::SyncError;
use crate::head::HeadId;
use crate::replica::Replica;

/// The ids of all heads of a replica at one time, some 100 bytes each. Sessions may share one.
pub struct Snapshot {
    pub(super) storage: NegentropyStorageVector,
    /// Sorted by id.
    heads: Vec<(HeadId, NodeId)>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} heads)", self.heads.len())
    }
}

/// Where the heads of a node stand among all: beside each other, and nodes evenly spread. Three bytes tell some millions
/// of nodes apart well enough, and are short where ranges are named.
fn place(node: &NodeId) -> u64 {
    let [a, b, c, ..] = node.as_bytes();
    u64::from_be_bytes([0, 0, 0, 0, 0, *a, *b, *c])
}

impl Snapshot {
    /// What a replica has now.
    ///
    /// # Errors
    /// [`SyncError::Comparison`] if the comparison cannot hold it.
    pub fn of(replica: &Replica, now: UnixTime) -> Result<Self, SyncError> {
        let mut storage = NegentropyStorageVector::new();
        let mut heads = Vec::new();
        for head in replica.all_heads(now) {
            storage.insert(place(&head.node), Id::from_byte_array(head.id.0))?;
            heads.push((head.id, head.node));
        }
        storage.seal()?;
        heads.sort_unstable();
        Ok(Self { storage, heads })
    }

    /// How many heads there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.storage.size().unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whose head this is.
    pub(super) fn node_of(&self, id: &HeadId) -> Option<NodeId> {
        let place = self.heads.binary_search_by_key(id, |(id, _)| *id).ok()?;
        self.heads.get(place).map(|(_, node)| *node)
    }
}
