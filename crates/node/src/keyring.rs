//! The keys that this node shares with others: in the database sealed, in memory at hand.
//!
//! A key is *unconfirmed* from when this node has it until the peer has said that it has it too: it opens, and seals
//! nothing. Of the confirmed keys of a peer the last one made is *current*; those before it are *former* and open for the
//! grace time. Both nodes order keys alike, so that two exchanges that cross each other leave both with one current key.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dawn_channel::{KeyId, SharedKey};
use dawn_identity::{NodeId, UnixTime, Vault};
use zeroize::Zeroizing;

use crate::error::NodeError;
use crate::store::{SharedKeyRow, Store};
use crate::sync::lock;

/// Keys of one peer that are kept; the oldest former ones go first.
const PER_PEER: usize = 16;

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The two nodes agreed on it.
    Exchange,
    /// A person gave it to both.
    PreShared,
}

impl Origin {
    /// Its stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::PreShared => "pre-shared",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Exchange, Self::PreShared]
            .into_iter()
            .find(|origin| origin.as_str() == word)
    }
}

/// What a key is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It opens; the peer has not said that it has it.
    Unconfirmed,
    /// It seals and opens.
    Current,
    /// It opens what was sealed before another took its place.
    Former,
    /// It opens what was sealed before its time was over.
    Expired,
}

impl KeyState {
    /// Its stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Current => "current",
            Self::Former => "former",
            Self::Expired => "expired",
        }
    }
}

/// A key with what this node knows of it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The key.
    pub key: SharedKey,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether the peer has it too.
    pub confirmed: bool,
    /// When this node got it.
    pub added: UnixTime,
    /// When another took its place.
    pub retired: Option<UnixTime>,
}

impl Held {
    /// What it is good for at this time.
    #[must_use]
    pub fn state(&self, now: UnixTime) -> KeyState {
        if self.retired.is_some() {
            KeyState::Former
        } else if now >= self.key.expires() {
            KeyState::Expired
        } else if self.confirmed {
            KeyState::Current
        } else {
            KeyState::Unconfirmed
        }
    }

    /// How long it was to be valid.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.key.expires().since(self.key.created())
    }

    /// From when on nothing is opened with it any more.
    fn ends(&self, grace: Duration) -> UnixTime {
        let last = self.retired.map_or(self.key.expires(), |at| at.min(self.key.expires()));
        last + grace
    }
}

/// The shared keys of this node. Clones share them.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    store: Store,
    vault: Vault,
    grace: Duration,
    held: Mutex<BTreeMap<KeyId, Held>>,
    /// One change at a time, so that memory and database say the same.
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keyring").field(&self.held().len()).finish()
    }
}

fn label(id: KeyId) -> String {
    format!("shared-key/{id}")
}

impl Keyring {
    /// Reads the kept keys.
    ///
    /// # Errors
    /// The store failed.
    pub async fn load(store: Store, vault: Vault, grace: Duration) -> Result<Self, NodeError> {
        let mut held = BTreeMap::new();
        for row in store.shared_keys().await? {
            let opened = vault.open(&label(row.id), &row.sealed).ok();
            let key = opened.and_then(|bytes| SharedKey::from_bytes(&bytes).ok());
            let (Some(key), Some(origin)) = (key.filter(|key| key.id() == row.id), Origin::parse(&row.origin)) else {
                tracing::warn!(key = %row.id, "a kept shared key cannot be read and is left out");
                continue;
            };
            let confirmed = row.confirmed;
            let (added, retired) = (row.added, row.retired);
            let entry = Held {
                key,
                origin,
                confirmed,
                added,
                retired,
            };
            held.insert(row.id, entry);
        }
        Ok(Self(Arc::new(Inner {
            store,
            vault,
            grace,
            held: Mutex::new(held),
            changing: tokio::sync::Mutex::default(),
        })))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<KeyId, Held>> {
        lock(&self.0.held)
    }

    /// Every key.
    #[must_use]
    pub fn all(&self) -> Vec<Held> {
        self.held().values().cloned().collect()
    }

    /// One key.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<Held> {
        self.held().get(&id).cloned()
    }

    /// The keys shared with a node, whatever they are good for.
    #[must_use]
    pub fn of(&self, peer: NodeId) -> Vec<Held> {
        self.held()
            .values()
            .filter(|held| held.key.peer() == peer)
            .cloned()
            .collect()
    }

    /// The key under which to seal to a node now.
    #[must_use]
    pub fn current(&self, peer: NodeId, now: UnixTime) -> Option<Held> {
        let mut keys = self.of(peer);
        keys.retain(|held| held.state(now) == KeyState::Current);
        keys.into_iter().max_by_key(order)
    }

    /// The keys with which to open what comes from a node.
    #[must_use]
    pub fn openers(&self, peer: NodeId, now: UnixTime) -> Vec<SharedKey> {
        let keys = self.of(peer).into_iter();
        keys.filter(|held| now < held.ends(self.0.grace))
            .map(|held| held.key)
            .collect()
    }

    /// Keeps a key. A confirmed one may take the place of another.
    ///
    /// # Errors
    /// The store failed.
    pub async fn add(&self, key: SharedKey, origin: Origin, confirmed: bool, now: UnixTime) -> Result<(), NodeError> {
        let _one = self.0.changing.lock().await;
        let bytes: Zeroizing<Vec<u8>> = key.to_bytes();
        let sealed = self
            .0
            .vault
            .seal(&label(key.id()), &bytes, &mut rand::rng())
            .map_err(|error| NodeError::Corrupt(error.to_string()))?;
        let row = SharedKeyRow {
            id: key.id(),
            peer: key.peer(),
            sealed,
            origin: origin.as_str().to_owned(),
            confirmed,
            added: now,
            retired: None,
        };
        self.0.store.set_shared_key(&row).await?;
        let peer = key.peer();
        let entry = Held {
            key,
            origin,
            confirmed,
            added: now,
            retired: None,
        };
        self.held().insert(row.id, entry);
        self.settle(peer, now).await
    }

    /// The peer has said that it has the key.
    ///
    /// # Errors
    /// The store failed.
    pub async fn confirm(&self, id: KeyId, now: UnixTime) -> Result<(), NodeError> {
        let _one = self.0.changing.lock().await;
        self.0.store.confirm_shared_key(id).await?;
        let peer = {
            let mut held = self.held();
            let Some(entry) = held.get_mut(&id) else { return Ok(()) };
            entry.confirmed = true;
            entry.key.peer()
        };
        self.settle(peer, now).await
    }

    /// Of the confirmed keys of a peer one is current; those before it are retired.
    async fn settle(&self, peer: NodeId, now: UnixTime) -> Result<(), NodeError> {
        let mut keys = self.of(peer);
        let usable = |held: &&Held| held.state(now) == KeyState::Current;
        let current = keys
            .iter()
            .filter(usable)
            .max_by_key(|held| order(held))
            .map(|held| held.key.id());
        let retired: Vec<KeyId> = keys
            .iter()
            .filter(usable)
            .map(|held| held.key.id())
            .filter(|id| Some(*id) != current)
            .collect();
        for id in retired {
            self.0.store.retire_shared_key(id, now).await?;
            if let Some(entry) = self.held().get_mut(&id) {
                entry.retired = Some(now);
            }
        }
        keys.retain(|held| Some(held.key.id()) != current);
        keys.sort_by_key(|held| held.added);
        let beyond = keys.len().saturating_sub(PER_PEER - 1);
        for held in keys.into_iter().take(beyond) {
            self.forget(held.key.id()).await?;
        }
        Ok(())
    }

    async fn forget(&self, id: KeyId) -> Result<(), NodeError> {
        self.0.store.remove_shared_key(id).await?;
        self.held().remove(&id);
        Ok(())
    }

    /// Forgets a key at once; nothing is sealed or opened with it any more. `None` when there is none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove(&self, id: KeyId) -> Result<Option<Held>, NodeError> {
        let _one = self.0.changing.lock().await;
        let held = self.get(id);
        self.forget(id).await?;
        Ok(held)
    }

    /// Forgets the keys with which nothing is opened any more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tidy(&self, now: UnixTime) -> Result<Vec<Held>, NodeError> {
        let _one = self.0.changing.lock().await;
        let mut over = self.all();
        over.retain(|held| held.ends(self.0.grace) <= now);
        for held in &over {
            self.forget(held.key.id()).await?;
        }
        Ok(over)
    }
}

/// Both nodes order the keys they share by this: what renews a key within the same second comes after it.
fn order(held: &Held) -> (UnixTime, u32, KeyId) {
    (held.key.created(), held.key.generation(), held.key.id())
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const GRACE: Duration = Duration::from_secs(100);

    fn key(seed: u8, peer: u8, created: u64) -> SharedKey {
        let network = Keypair::from_seed([9; 32]).network_id();
        let node = |seed| Keypair::from_seed([seed; 32]).node_id();
        let created = UnixTime(NOW.0 + created);
        let expires = created + Duration::from_secs(1000);
        SharedKey::pre_shared(&[seed; 32], &network, &node(1), &node(peer), created, expires).unwrap()
    }

    fn peer(seed: u8) -> NodeId {
        Keypair::from_seed([seed; 32]).node_id()
    }

    async fn ring(folder: &tempfile::TempDir) -> Keyring {
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        let vault = Vault::new(&Keypair::from_seed([1; 32]));
        Keyring::load(store, vault, GRACE).await.unwrap()
    }

    fn states(ring: &Keyring, now: UnixTime) -> Vec<(u8, KeyState)> {
        let secrets: Vec<(KeyId, u8)> = (1..=4).map(|seed| (key(seed, 2, 0).id(), seed)).collect();
        let seed = |id| secrets.iter().find(|(known, _)| *known == id).unwrap().1;
        let mut states: Vec<_> = ring
            .of(peer(2))
            .iter()
            .map(|held| (seed(held.key.id()), held.state(now)))
            .collect();
        states.sort_by_key(|(seed, _)| *seed);
        states
    }

    #[tokio::test]
    async fn a_key_seals_when_it_is_confirmed_and_opens_for_the_grace_time_when_another_took_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let ring = ring(&folder).await;
        ring.add(key(1, 2, 0), Origin::PreShared, true, NOW).await.unwrap();
        ring.add(key(2, 2, 1), Origin::Exchange, false, NOW).await.unwrap();
        assert_eq!(states(&ring, NOW), [(1, KeyState::Current), (2, KeyState::Unconfirmed)]);
        assert_eq!(ring.current(peer(2), NOW).unwrap().key, key(1, 2, 0));
        ring.confirm(key(2, 2, 1).id(), NOW).await.unwrap();
        assert_eq!(states(&ring, NOW), [(1, KeyState::Former), (2, KeyState::Current)]);
        assert_eq!(ring.openers(peer(2), NOW).len(), 2);
        let later = NOW + GRACE;
        assert_eq!(ring.openers(peer(2), later), [key(2, 2, 1)]);
        assert_eq!(ring.tidy(later).await.unwrap().len(), 1);
        let expired = UnixTime(NOW.0 + 1001);
        assert_eq!(states(&ring, expired), [(2, KeyState::Expired)]);
        assert!(ring.current(peer(2), expired).is_none());
        assert_eq!(ring.openers(peer(2), expired).len(), 1);
        assert!(ring.remove(key(2, 2, 1).id()).await.unwrap().is_some());
        assert!(ring.all().is_empty() && ring.remove(key(2, 2, 1).id()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_renews_a_key_within_the_same_second_comes_after_it() {
        let renewed = |seed| {
            let mut bytes = key(seed, 2, 0).to_bytes();
            bytes[68] = 2;
            SharedKey::from_bytes(&bytes).unwrap()
        };
        // Whichever has the smaller id.
        for (first, second) in [(1, 2), (2, 1)] {
            let folder = tempfile::tempdir().unwrap();
            let ring = ring(&folder).await;
            ring.add(key(first, 2, 0), Origin::Exchange, true, NOW).await.unwrap();
            ring.add(renewed(second), Origin::Exchange, true, NOW).await.unwrap();
            assert_eq!(ring.current(peer(2), NOW).unwrap().key, renewed(second));
        }
    }

    #[tokio::test]
    async fn keys_survive_a_restart_and_are_not_readable_in_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let before = ring(&folder).await;
        before.add(key(1, 2, 0), Origin::PreShared, true, NOW).await.unwrap();
        before.add(key(2, 2, 1), Origin::Exchange, true, NOW).await.unwrap();
        let known = states(&before, NOW);
        before.0.store.close().await;
        let secrets = [key(1, 2, 0), key(2, 2, 1)].map(|key| key.to_bytes()[69..].to_vec());
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(
                secrets
                    .iter()
                    .all(|secret| !bytes.windows(32).any(|window| window == &secret[..]))
            );
        }
        let after = ring(&folder).await;
        assert_eq!(states(&after, NOW), known);
        assert_eq!(after.current(peer(2), NOW).unwrap().key, key(2, 2, 1));
    }

    #[tokio::test]
    async fn a_peer_that_exchanges_without_end_takes_no_more_room_than_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let ring = ring(&folder).await;
        for at in 0..40 {
            ring.add(key(at + 10, 2, u64::from(at)), Origin::Exchange, at % 2 == 0, NOW)
                .await
                .unwrap();
        }
        assert_eq!(ring.all().len(), PER_PEER);
        assert_eq!(ring.current(peer(2), NOW).unwrap().key, key(48, 2, 38));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Whatever order the keys come in, both nodes end with the same current one.
        #[test]
        fn the_order_in_which_keys_arrive_makes_no_difference(order in Just([1_u8, 2, 3, 4]).prop_shuffle()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let ring = ring(&folder).await;
                for seed in order {
                    ring.add(key(seed, 2, u64::from(seed / 2)), Origin::Exchange, true, NOW).await.unwrap();
                }
                let last = (1..=4_u8).map(|seed| key(seed, 2, u64::from(seed / 2)));
                let last = last.max_by_key(|key| (key.created(), key.id())).unwrap();
                prop_assert_eq!(ring.current(peer(2), NOW).unwrap().key, last);
                let current = states(&ring, NOW).into_iter().filter(|(_, state)| *state == KeyState::Current);
                prop_assert_eq!(current.count(), 1);
                Ok(())
            })?;
        }
    }
}
