//! This node as a party of secure channels: its static key, rotated, and its binding, renewed.
//!
//! The static keys are kept in the database, sealed under a key that only the identity gives: where a passphrase seals
//! the identity, nobody reads them without it. A rotation makes a new key; former ones open for a grace time, as others
//! may have sealed to them, or hold an older record of this node. Bindings are made anew whenever they are needed, and
//! published in this node's record.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_channel::{Party, StaticKey};
use dawn_identity::{Keypair, UnixTime, Vault};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::KeysConfig;
use crate::error::NodeError;
use crate::members::now;
use crate::store::{StaticKeyRow, Store};
use crate::sync::lock;

/// Between two looks at what is due, at most and at least.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// Former keys that are kept, whatever the grace time; the oldest go first.
const FORMER: usize = 16;

/// This node's static keys. Clones share them.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    safe: Safe,
    present: watch::Sender<Arc<Party>>,
    times: Mutex<Times>,
    former: Mutex<Vec<Former>>,
    rotating: tokio::sync::Mutex<()>,
}

/// Where the keys are kept, and who vouches for them.
struct Safe {
    store: Store,
    vault: Vault,
    identity: Keypair,
    config: KeysConfig,
}

/// What is due when.
#[derive(Debug, Clone, Copy)]
struct Times {
    made: UnixTime,
    renews: UnixTime,
}

/// A key that was replaced.
struct Former {
    party: Arc<Party>,
    until: UnixTime,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.party().key().public()).finish()
    }
}

fn unbound(error: &dyn std::fmt::Display) -> NodeError {
    NodeError::StaticKey(error.to_string())
}

/// Where a static key is sealed for.
fn label(public: &[u8]) -> String {
    format!("static-key/{}", data_encoding::HEXLOWER.encode(public))
}

impl Safe {
    fn open(&self, row: &StaticKeyRow) -> Option<StaticKey> {
        let secret = self.vault.open(&label(&row.public), &row.sealed).ok()?;
        let key = StaticKey::from_bytes(secret.as_slice().try_into().ok()?);
        (key.public().as_bytes()[..] == row.public[..]).then_some(key)
    }

    fn bind(&self, key: StaticKey, length: Duration, now: UnixTime) -> Result<Arc<Party>, NodeError> {
        Party::new(self.identity.clone(), key, now, length)
            .map(Arc::new)
            .map_err(|error| unbound(&error))
    }

    /// When a binding that was made now is renewed.
    fn renews(&self, now: UnixTime) -> UnixTime {
        now + self.config.binding.0 / 2
    }

    async fn make(&self, now: UnixTime) -> Result<StaticKey, NodeError> {
        let key = StaticKey::generate(&mut rand::rng());
        let public = key.public();
        let sealed = self
            .vault
            .seal(&label(public.as_bytes()), &key.to_bytes()[..], &mut rand::rng())
            .map_err(|error| unbound(&error))?;
        self.store.add_static_key(public.as_bytes(), &sealed, now).await?;
        Ok(key)
    }
}

impl Keys {
    /// Reads the kept static keys; the first start makes one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn load(store: Store, identity: Keypair, config: KeysConfig) -> Result<Self, NodeError> {
        let now = now();
        let rows = store.static_keys().await?;
        let safe = Safe {
            vault: Vault::new(&identity),
            store,
            identity,
            config,
        };
        let (mut present, mut former) = (None, Vec::new());
        for row in rows {
            let Some(key) = safe.open(&row) else {
                tracing::warn!("a kept static key cannot be read and is left out");
                continue;
            };
            match row.retired {
                None => present = present.or(Some((key, row.made))),
                Some(retired) => {
                    let until = retired + safe.config.grace.0;
                    if until > now {
                        let party = safe.bind(key, until.since(now), now)?;
                        former.push(Former { party, until });
                    }
                }
            }
        }
        let (key, made) = match present {
            Some(present) => present,
            None => (safe.make(now).await?, now),
        };
        let party = safe.bind(key, safe.config.binding.0, now)?;
        let renews = safe.renews(now);
        let keys = Self(Arc::new(Inner {
            safe,
            present: watch::channel(party).0,
            times: Mutex::new(Times { made, renews }),
            former: Mutex::new(former),
            rotating: tokio::sync::Mutex::default(),
        }));
        keys.look().await?;
        Ok(keys)
    }

    /// What this node brings to a channel now.
    #[must_use]
    pub fn party(&self) -> Arc<Party> {
        self.0.present.borrow().clone()
    }

    /// The same with its present key, then with each former one that still opens: a responder whose peer may have an
    /// older record of this node tries them in this order.
    #[must_use]
    pub fn parties(&self) -> Vec<Arc<Party>> {
        let now = now();
        let former = lock(&self.0.former);
        let former = former.iter().filter(|former| now < former.until);
        std::iter::once(self.party())
            .chain(former.map(|former| Arc::clone(&former.party)))
            .collect()
    }

    /// The static keys that open envelopes: the present one, then former ones.
    #[must_use]
    pub fn static_keys(&self) -> Vec<StaticKey> {
        self.parties().iter().map(|party| party.key().clone()).collect()
    }

    /// Changes with key and binding.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Party>> {
        self.0.present.subscribe()
    }

    /// When the static key was made, and when another takes its place.
    #[must_use]
    pub fn age(&self) -> (UnixTime, UnixTime) {
        let made = lock(&self.0.times).made;
        (made, made + self.0.safe.config.rotate_every.0)
    }

    /// Takes a new static key now. The one before opens for the grace time.
    ///
    /// # Errors
    /// The store failed; the key is then the same as before.
    pub async fn rotate(&self) -> Result<(), NodeError> {
        let _one = self.0.rotating.lock().await;
        let now = now();
        let key = self.0.safe.make(now).await?;
        let party = self.0.safe.bind(key, self.0.safe.config.binding.0, now)?;
        let before = self.party();
        let grace = self.0.safe.config.grace.0;
        let former = Former {
            party: self.0.safe.bind(before.key().clone(), grace, now)?,
            until: now + grace,
        };
        lock(&self.0.former).insert(0, former);
        let renews = self.0.safe.renews(now);
        *lock(&self.0.times) = Times { made: now, renews };
        self.0.present.send_replace(party);
        Ok(())
    }

    /// Does what is due: a new key, a new binding, former keys forgotten. Says when to look again.
    async fn look(&self) -> Result<UnixTime, NodeError> {
        let now = now();
        self.forget(now).await?;
        if self.age().1 <= now {
            self.rotate().await?;
        } else if lock(&self.0.times).renews <= now {
            let party = self
                .0
                .safe
                .bind(self.party().key().clone(), self.0.safe.config.binding.0, now)?;
            lock(&self.0.times).renews = self.0.safe.renews(now);
            self.0.present.send_replace(party);
        }
        let renews = lock(&self.0.times).renews;
        let former = lock(&self.0.former).iter().map(|former| former.until).min();
        Ok(renews.min(self.age().1).min(former.unwrap_or(renews)))
    }

    /// Forgets the keys whose grace time is over.
    async fn forget(&self, now: UnixTime) -> Result<(), NodeError> {
        let rows = self.0.safe.store.static_keys().await?;
        for (at, row) in rows.iter().enumerate() {
            let is_over = |retired: UnixTime| retired + self.0.safe.config.grace.0 <= now || at > FORMER;
            if row.retired.is_some_and(is_over) {
                self.0.safe.store.remove_static_key(&row.public).await?;
            }
        }
        let mut former = lock(&self.0.former);
        former.retain(|former| now < former.until);
        former.truncate(FORMER);
        Ok(())
    }

    /// Renews and rotates until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let wait = match self.look().await {
                Ok(due) => Duration::from_secs(due.0.saturating_sub(now().0)),
                Err(error) => {
                    tracing::error!(%error, "the static key could not be renewed yet");
                    Duration::from_secs(60)
                }
            };
            let pause = tokio::time::sleep(wait.clamp(LOOK.0, LOOK.1));
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().join("dawn.db")).await.unwrap()
    }

    fn config() -> KeysConfig {
        KeysConfig::default()
    }

    #[tokio::test]
    async fn the_static_key_survives_a_restart_and_is_not_readable_in_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Keypair::from_seed([3; 32]);
        let keys = Keys::load(store(&folder).await, identity.clone(), config())
            .await
            .unwrap();
        let (public, secret) = (keys.party().key().public(), keys.party().key().to_bytes());
        keys.0.safe.store.close().await;
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(32).any(|window| window == &secret[..]));
        }
        let again = Keys::load(store(&folder).await, identity, config()).await.unwrap();
        assert_eq!(again.party().key().public(), public);
        // With another identity nothing of it can be read, and a new one is made.
        let stolen = Keypair::from_seed([4; 32]);
        let stolen = Keys::load(store(&folder).await, stolen, config()).await.unwrap();
        assert_ne!(stolen.party().key().public(), public);
    }

    #[tokio::test]
    async fn a_rotated_key_opens_for_the_grace_time_also_after_a_restart_and_then_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Keypair::from_seed([3; 32]);
        let keys = Keys::load(store(&folder).await, identity.clone(), config())
            .await
            .unwrap();
        let mut changes = keys.changes();
        let first = keys.party().key().public();
        keys.rotate().await.unwrap();
        assert!(changes.has_changed().unwrap());
        let second = changes.borrow_and_update().key().public();
        assert_ne!(first, second);
        let opens = |keys: &Keys| keys.static_keys().iter().map(StaticKey::public).collect::<Vec<_>>();
        assert_eq!(opens(&keys), [second, first]);
        // The former key is still vouched for, so that a handshake with it goes on.
        for party in keys.parties() {
            let bound = party.binding().verify(now(), Duration::ZERO).unwrap();
            assert_eq!((bound.node, bound.key), (identity.node_id(), party.key().public()));
        }
        let keys = Keys::load(keys.0.safe.store.clone(), identity.clone(), config())
            .await
            .unwrap();
        assert_eq!(opens(&keys), [second, first]);
        keys.forget(now() + config().grace.0).await.unwrap();
        assert_eq!(opens(&keys), [second]);
        assert_eq!(keys.0.safe.store.static_keys().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_key_that_is_due_is_rotated_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Keypair::from_seed([3; 32]);
        let store = store(&folder).await;
        let keys = Keys::load(store.clone(), identity.clone(), config()).await.unwrap();
        let first = keys.party().key().public();
        let made = now().0 - config().rotate_every.0.as_secs();
        store.remove_static_key(first.as_bytes()).await.unwrap();
        let sealed = keys.0.safe.vault.seal(
            &label(first.as_bytes()),
            &keys.party().key().to_bytes()[..],
            &mut rand::rng(),
        );
        store
            .add_static_key(first.as_bytes(), &sealed.unwrap(), UnixTime(made))
            .await
            .unwrap();
        let due = KeysConfig {
            grace: Span(Duration::from_secs(60)),
            ..config()
        };
        let keys = Keys::load(store, identity, due).await.unwrap();
        assert_ne!(keys.party().key().public(), first);
        assert_eq!(keys.static_keys().len(), 2);
    }
}
