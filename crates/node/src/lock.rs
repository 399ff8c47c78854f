//! The network lock of this node: the log and the endorsements (`dawn_lock`), kept, shared with the other members by the
//! charter, and asked by the gate.
//!
//! [`NetworkLock::admits`] is asked whenever a chain is verified, wherever it comes from. Whom it refuses although the
//! certificates are valid *waits*: it is remembered, shown in `dawn lock status`, and may be signed for.

mod actions;
mod document;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dawn_identity::{Issuer, Keypair, Membership, NetworkId, NodeId, NodeName};
use dawn_lock::{Lock, Opening, Outcome, Refused, Statement, Why};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::actions::{Beginning, Begun, LockError, Proposed};
pub(crate) use self::document::KIND;
use self::waiting::Waiting;
pub use self::waiting::{Kept, LockedOut};
use crate::api::Events;
use crate::charter::Charter;
use crate::error::NodeError;
use crate::members::{Members, SKEW, now};
use crate::shares::Seldom;
use crate::store::Store;
use crate::sync::{Counts, lock};

/// Most bytes of the lock that are shown with a refusal, and said to one: what the mesh carries of each by itself.
const EVIDENCE_BYTES: usize = 4 << 10;
const MAX_OBJECTION_BYTES: usize = 64 << 10;

/// The lock of the network, as this node knows it. Clones share it.
#[derive(Clone)]
pub struct NetworkLock(Arc<Inner>);

struct Inner {
    store: Store,
    events: Events,
    network: NetworkId,
    key: Keypair,
    root: Option<Keypair>,
    lock: Mutex<Lock>,
    /// Held while something is taken and kept, so that the store never goes back.
    keeping: tokio::sync::Mutex<()>,
    waiting: Waiting,
    refused: Counts,
    told: Seldom<(NodeId, &'static str)>,
    changed: watch::Sender<()>,
}

/// Looks again at everybody whenever the lock has changed, and lets the other members know, until `stop`.
pub(crate) async fn follow(members: Members, charter: Charter, stop: CancellationToken) {
    let mut changes = members.network_lock().changes();
    while let Some(Ok(())) = stop.run_until_cancelled(changes.changed()).await {
        members.recheck();
        charter.changed();
    }
}

impl std::fmt::Debug for NetworkLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkLock")
            .field("network", &self.0.network)
            .finish_non_exhaustive()
    }
}

impl NetworkLock {
    /// Reads what was kept.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn load(
        store: Store,
        events: Events,
        network: NetworkId,
        key: Keypair,
        root: Option<Keypair>,
    ) -> Result<Self, NodeError> {
        let kept = store.document(KIND).await?.unwrap_or_default();
        let has_begun = !kept.is_empty();
        let (kept, refused) = match document::split(&kept) {
            Some(statements) => Lock::load(network, statements),
            None => return Err(NodeError::Corrupt("the network lock is not as it was kept".into())),
        };
        for refused in refused {
            tracing::error!(%refused, "a kept statement of the network lock is left out");
        }
        // Without its beginning nothing would be left of it, and everybody would be let in.
        if has_begun && kept.genesis().is_none() {
            return Err(NodeError::Corrupt("the network lock is not as it was kept".into()));
        }
        Ok(Self(Arc::new(Inner {
            store,
            events,
            network,
            key,
            root,
            lock: Mutex::new(kept),
            keeping: tokio::sync::Mutex::default(),
            waiting: Waiting::default(),
            refused: Counts::default(),
            told: Seldom::default(),
            changed: watch::channel(()).0,
        })))
    }

    /// The lock, as it is now.
    #[must_use]
    pub fn read<T>(&self, read: impl FnOnce(&Lock) -> T) -> T {
        read(&lock(&self.0.lock))
    }

    /// Whether there is a lock, and it is not switched off.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.read(|lock| lock.state().is_some_and(dawn_lock::State::is_on))
    }

    /// The lock keys.
    #[must_use]
    pub fn keys(&self) -> Vec<NodeId> {
        self.read(|lock| {
            lock.state()
                .map(|state| state.keys.iter().copied().collect())
                .unwrap_or_default()
        })
    }

    /// Whether this node's identity is a lock key.
    #[must_use]
    pub fn holds_key(&self) -> bool {
        let own = self.0.key.node_id();
        self.read(|lock| lock.state().is_some_and(|state| state.keys.contains(&own)))
    }

    /// Whether a verified membership counts; who is kept out is remembered and told.
    ///
    /// # Errors
    /// Why it does not.
    pub fn admits(&self, membership: &Membership) -> Result<(), Why> {
        let admitted = self.read(|lock| lock.admits(membership));
        if let Err(why) = &admitted
            && membership.node != self.0.key.node_id()
            && self.0.waiting.note(membership, why, now())
        {
            tracing::warn!(node = %membership.name, id = %membership.node, %why, "a member is kept out by the network lock");
            self.0.events.say(
                "lock.kept_out",
                &json!({ "node": membership.node, "name": membership.name, "code": why.code(), "message": why.to_string() }),
            );
        }
        admitted
    }

    /// Who was kept out and still is.
    #[must_use]
    pub fn kept_out(&self) -> Vec<Kept> {
        let now = now();
        self.read(|lock| {
            self.0
                .waiting
                .all(|kept| lock.admits(&kept.membership).is_err() && now < kept.membership.expires)
        })
    }

    /// The name of somebody who is kept out.
    pub(crate) fn name_of(&self, node: NodeId) -> Option<NodeName> {
        self.0.waiting.name_of(node)
    }

    /// What is shown to whom the lock keeps out: with what it begins, which tells that there is one.
    pub(crate) fn evidence(&self) -> Bytes {
        self.decisive(EVIDENCE_BYTES)
    }

    /// What is said to a refusal by a lock: what decided here who counts. Nothing where the refusal is none by a lock, or there
    /// is no lock here.
    pub(crate) fn objection(&self, evidence: &[u8]) -> Bytes {
        match self.beginning_in(evidence) {
            Some(_) => self.decisive(MAX_OBJECTION_BYTES),
            None => Bytes::new(),
        }
    }

    fn decisive(&self, most: usize) -> Bytes {
        let statements = self.read(|lock| lock.decisive(most));
        document::join(statements.iter().map(AsRef::as_ref)).into()
    }

    /// The beginning of a lock of this network that these bytes show first.
    fn beginning_in(&self, bytes: &[u8]) -> Option<Opening> {
        let first = document::split(bytes)?.into_iter().next()?;
        match Statement::decode(first) {
            Ok(Statement::Opening(opening)) if opening.signer == Issuer::Network(self.0.network) => Some(opening),
            _ => None,
        }
    }

    /// Takes note that a member refused this node, if what it shows is the beginning of a lock; whether it was.
    pub(crate) async fn refused_by(&self, by: NodeId, evidence: &[u8]) -> bool {
        let Some(opening) = self.beginning_in(evidence) else {
            return false;
        };
        let is_first = self.0.waiting.told().is_none();
        if self.0.waiting.locked_out(by, now()) {
            let keys: Vec<NodeId> = opening.terms.keys.iter().copied().collect();
            let node = self.0.key.node_id();
            if is_first {
                tracing::error!(%by, "the network lock keeps this node out; on a node with a lock key: dawn lock sign {node}");
            } else {
                tracing::debug!(%by, "another member keeps this node out, by the network lock");
            }
            self.0.events.say("lock.locked_out", &json!({ "by": by, "keys": keys }));
        }
        self.hear(by, evidence).await;
        true
    }

    /// Takes what somebody shows of the lock who need not be admitted by it: openings and votes say themselves whether they
    /// count. A node that knows no lock takes none so; members alone give it the whole.
    pub(crate) async fn hear(&self, from: NodeId, shown: &[u8]) {
        let Some(statements) = document::split(shown) else {
            return;
        };
        if self.read(|lock| lock.genesis().is_none()) {
            return;
        }
        if let Err(error) = self.take(Some(from), &statements).await {
            tracing::error!(%error, "what a peer showed of the network lock could not be kept");
        }
    }

    /// Who said last that the lock keeps this node out, where nobody has let it in since.
    #[must_use]
    pub fn locked_out_by(&self) -> Option<LockedOut> {
        self.0.waiting.told()
    }

    /// Changes whenever the lock does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Statements that were refused since the start, by code.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.0.refused.all()
    }

    /// How often members were kept out since the start, by code.
    #[must_use]
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        self.0.waiting.counted()
    }

    /// Takes statements from another member, or made here, and keeps them before anything is done with them.
    async fn take(&self, from: Option<NodeId>, statements: &[&[u8]]) -> Result<Outcome, NodeError> {
        let _one = self.0.keeping.lock().await;
        let (next, outcome) = {
            let mut next = self.read(Clone::clone);
            let statements: Vec<Bytes> = statements.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
            let taking = move || {
                let outcome = next.take(statements.iter().map(AsRef::as_ref), now(), SKEW);
                (next, outcome)
            };
            // Thousands of signatures may have to be looked at.
            let taken = tokio::task::spawn_blocking(taking).await;
            taken.map_err(|error| NodeError::Corrupt(error.to_string()))?
        };
        for refused in &outcome.refused {
            self.refuse(from, refused);
        }
        if !outcome.has_changed {
            return Ok(outcome);
        }
        let kept = document::join(next.statements().iter().map(AsRef::as_ref));
        self.0.store.set_document(KIND, &kept).await?;
        let before = {
            let mut lock = lock(&self.0.lock);
            std::mem::replace(&mut *lock, next)
        };
        self.tell(&before);
        self.0.changed.send_replace(());
        Ok(outcome)
    }

    fn refuse(&self, from: Option<NodeId>, refused: &Refused) {
        self.0.refused.count(refused.code());
        let Some(from) = from.filter(|from| self.0.told.may_speak_of((*from, refused.code()))) else {
            return;
        };
        tracing::warn!(%from, code = refused.code(), %refused, "a statement of the network lock is refused");
        self.0.events.say(
            "lock.refused",
            &json!({ "from": from, "code": refused.code(), "message": refused.to_string() }),
        );
    }

    /// Tells what is new since the lock was as before.
    fn tell(&self, before: &Lock) {
        let (state, forks) = self.read(|lock| (lock.state().cloned(), lock.forks()));
        let Some(state) = state else { return };
        if before.state() != Some(&state) {
            let keys: Vec<NodeId> = state.keys.iter().copied().collect();
            tracing::info!(
                generation = state.generation,
                height = state.height,
                quorum = state.quorum,
                "the network lock has changed"
            );
            self.0.events.say(
                "lock.changed",
                &json!({ "generation": state.generation, "height": state.height, "quorum": state.quorum, "keys": keys }),
            );
        }
        let known = before.forks();
        for fork in forks.iter().filter(|fork| !known.contains(fork)) {
            tracing::warn!(parent = %fork.parent, twice = ?fork.twice, "the log of the network lock forked; some keys voted twice");
            self.0.events.say(
                "lock.forked",
                &json!({
                    "parent": fork.parent.to_string(),
                    "kept": fork.kept.to_string(),
                    "lost": fork.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "twice": fork.twice,
                }),
            );
        }
    }
}
