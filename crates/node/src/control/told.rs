//! Which revocations the control plane knows, as far as this node has told it or heard of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::error::NodeError;
use crate::store::Store;
use crate::sync::lock;

/// The key in the store: 8 bytes of each hash, one after the other.
const TOLD: &str = "control-told";

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<BTreeSet<[u8; 8]>>>);

fn short_hash(bytes: &[u8]) -> [u8; 8] {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    [a, b, c, d, e, f, g, h]
}

impl Told {
    /// Begins with what was kept.
    pub(super) async fn recall(&self, store: &Store) -> Result<(), NodeError> {
        let kept = store.get(TOLD).await?.unwrap_or_default();
        let hashes = kept.as_chunks::<8>().0.iter().copied();
        lock(&self.0).extend(hashes);
        Ok(())
    }

    /// Whether an encoded revocation is to be told.
    pub(super) fn wants(&self, revocation: &[u8]) -> bool {
        !lock(&self.0).contains(&short_hash(revocation))
    }

    /// Takes note of one that the control plane knows. Only of one that was verified: of those there is a bounded number.
    pub(super) fn note(&self, revocation: &[u8]) {
        lock(&self.0).insert(short_hash(revocation));
    }

    /// Forgets all but these, which this node knows.
    pub(super) fn keep_only(&self, revocations: &[Bytes]) {
        let known: BTreeSet<_> = revocations.iter().map(|bytes| short_hash(bytes)).collect();
        lock(&self.0).retain(|hash| known.contains(hash));
    }

    /// Forgets all: the control plane may have forgotten them, too.
    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }

    /// Keeps it for the next start.
    pub(super) async fn keep(&self, store: &Store) -> Result<(), NodeError> {
        let bytes: Vec<u8> = lock(&self.0).iter().flatten().copied().collect();
        store.set(TOLD, &bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_told_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        let told = Told::default();
        assert!(told.wants(b"one"));
        told.note(b"one");
        told.keep(&store).await.unwrap();
        let again = Told::default();
        again.recall(&store).await.unwrap();
        assert!(!again.wants(b"one") && again.wants(b"two"));
        again.keep_only(&[Bytes::from_static(b"two")]);
        assert!(again.wants(b"one"));
    }
}
