//! What is compared: the ids of all heads at one time.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use dawn_identity::UnixTime;

use super::SyncError;
use super::range::{FINGERPRINT_BYTES, Fingerprint, Parts, Range};
use crate::head::hash_of;
use crate::owner::MAX_HEADS;
use crate::replica::Replica;

/// The ids of all heads of a replica at one time, 40 bytes each. Sessions may share one.
pub struct Snapshot {
    /// Of whom each head is, ascending.
    places: Vec<u64>,
    /// The ids of the heads, in the same order.
    ids: Vec<[u8; 32]>,
    root: [u8; 32],
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} heads)", self.places.len())
    }
}

/// SHA-256 over a domain or salt and some ids.
fn hash(front: &[u8], ids: &[[u8; 32]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(front);
    context.update(ids.as_flattened());
    hash_of(context)
}

impl Snapshot {
    /// What a replica has now.
    ///
    /// # Errors
    /// [`SyncError::TooMuch`] if that is more heads than a session can be about.
    pub fn of(replica: &Replica, now: UnixTime) -> Result<Self, SyncError> {
        let (places, ids): (Vec<u64>, Vec<[u8; 32]>) = replica.all_heads(now).unzip();
        if ids.len() > replica.limits().nodes.saturating_mul(MAX_HEADS) {
            return Err(SyncError::TooMuch);
        }
        let root = hash(b"dawn registry snapshot 1\0", &ids);
        Ok(Self { places, ids, root })
    }

    /// How many heads there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Stands for all of it: SHA-256 over the ids of the heads. Replicas with equal roots know the same.
    #[must_use]
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// The front of the root, with which a session is salted.
    pub(super) fn salt(&self) -> [u8; 16] {
        let (front, _) = self.root.split_at(16);
        front.try_into().unwrap_or_default()
    }

    fn ids_of(&self, range: Range) -> &[[u8; 32]] {
        let (first, last) = range.places().into_inner();
        let from = self.places.partition_point(|place| *place < first);
        let behind = self.places.partition_point(|place| *place <= last);
        self.ids.get(from..behind).unwrap_or_default()
    }

    /// Heads in a range.
    pub(super) fn count(&self, range: Range) -> usize {
        self.ids_of(range).len()
    }

    /// What stands for a range in a session.
    pub(super) fn fingerprint(&self, range: Range, salt: &[u8; 16]) -> Fingerprint {
        let hash = hash(salt, self.ids_of(range));
        let (front, _) = hash.split_at(FINGERPRINT_BYTES);
        front.try_into().unwrap_or_default()
    }

    /// What stands for the parts of a range.
    pub(super) fn parts(&self, range: Range, salt: &[u8; 16]) -> Parts {
        let mut parts = Parts::default();
        for (part, range) in parts.iter_mut().zip(range.parts()) {
            *part = self.fingerprint(range, salt);
        }
        parts
    }
}
