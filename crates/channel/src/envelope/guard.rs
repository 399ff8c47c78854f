//! Each envelope counts once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::{NodeId, UnixTime};

use super::{EnvelopeId, VerifiedEnvelope};

/// What a guard remembers, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardLimits {
    /// Envelopes, of all senders.
    pub capacity: usize,
    /// Envelopes of one sender, so that none takes the room of the others.
    pub per_sender: usize,
    /// The longest time from when an envelope is sent to when it expires.
    pub max_lifetime: Duration,
    /// How far apart the clocks of two nodes may be.
    pub clock_skew: Duration,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            capacity: 65_536,
            per_sender: 4_096,
            max_lifetime: Duration::from_secs(7 * 24 * 3600),
            clock_skew: Duration::from_secs(60),
        }
    }
}

/// Why an envelope does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It has come before.
    #[error("the envelope has come before")]
    Repeated,
    /// It does not count any more, and whether it has come before is forgotten.
    #[error("the envelope has expired")]
    Expired,
    /// It was sent in the future. One of the two clocks is wrong.
    #[error("the envelope was sent in the future")]
    FromTheFuture,
    /// It is to count longer than is remembered.
    #[error("the envelope counts longer than envelopes are remembered")]
    LivesTooLong,
    /// It was sent before anything was remembered.
    #[error("the envelope was sent before envelopes were remembered here")]
    BeforeMemory,
    /// There is no room to remember it. Later there may be.
    #[error("there is no room to remember the envelope")]
    Full,
}

/// An envelope that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remembered {
    /// Until when it would count.
    pub expires: UnixTime,
    /// Whose it is.
    pub sender: NodeId,
    /// Its id.
    pub id: EnvelopeId,
}

/// Remembers which envelopes have come, until they expire. What it cannot remember it refuses, so that nothing counts
/// twice.
#[derive(Clone, Debug)]
pub struct ReplayGuard {
    limits: GuardLimits,
    since: UnixTime,
    /// By when they are forgotten.
    known: BTreeSet<Remembered>,
    ids: BTreeMap<NodeId, BTreeSet<EnvelopeId>>,
    /// The latest expiry of what was forgotten: a clock that was set back must not bring it to life.
    forgotten: UnixTime,
}

impl ReplayGuard {
    /// A guard that remembers from `since` on: what was sent before, it refuses.
    pub fn new(limits: GuardLimits, since: UnixTime) -> Self {
        Self {
            limits,
            since,
            known: BTreeSet::new(),
            ids: BTreeMap::new(),
            forgotten: UnixTime::EPOCH,
        }
    }

    /// A guard that goes on where another ended, as [`Self::since`], [`Self::forgotten`] and [`Self::remembered`] of that
    /// one said.
    pub fn restore(
        limits: GuardLimits,
        since: UnixTime,
        forgotten: UnixTime,
        remembered: impl IntoIterator<Item = Remembered>,
    ) -> Self {
        let mut guard = Self::new(limits, since);
        guard.forgotten = forgotten;
        for envelope in remembered {
            guard.remember(envelope);
        }
        guard
    }

    /// From when on it remembers.
    pub fn since(&self) -> UnixTime {
        self.since
    }

    /// The latest expiry of what it has forgotten: nothing that expires by then counts, whatever the clock says.
    pub fn forgotten(&self) -> UnixTime {
        self.forgotten
    }

    /// What it remembers, the first to be forgotten first.
    pub fn remembered(&self) -> impl ExactSizeIterator<Item = &Remembered> {
        self.known.iter()
    }

    /// Lets an envelope count, once.
    ///
    /// # Errors
    /// [`ReplayError`] says why it does not.
    pub fn admit(&mut self, envelope: &VerifiedEnvelope, now: UnixTime) -> Result<(), ReplayError> {
        let cover = envelope.cover();
        let skew = self.limits.clock_skew;
        self.forget(now);
        if now >= cover.expires + skew || cover.expires <= self.forgotten {
            return Err(ReplayError::Expired);
        }
        if now + skew < cover.sent {
            return Err(ReplayError::FromTheFuture);
        }
        if cover.expires.since(cover.sent) > self.limits.max_lifetime {
            return Err(ReplayError::LivesTooLong);
        }
        if cover.sent < self.since {
            return Err(ReplayError::BeforeMemory);
        }
        let of_sender = self.ids.get(&cover.sender);
        if of_sender.is_some_and(|ids| ids.contains(&cover.id)) {
            return Err(ReplayError::Repeated);
        }
        let count = of_sender.map_or(0, BTreeSet::len);
        if self.known.len() >= self.limits.capacity || count >= self.limits.per_sender {
            return Err(ReplayError::Full);
        }
        self.remember(Remembered {
            expires: cover.expires,
            sender: cover.sender,
            id: cover.id,
        });
        Ok(())
    }

    /// Lets an envelope that counted count once more: for who could not keep what it said.
    pub fn withdraw(&mut self, envelope: &Remembered) {
        if self.known.remove(envelope) {
            self.forget_id(envelope);
        }
    }

    fn remember(&mut self, envelope: Remembered) {
        if self.ids.entry(envelope.sender).or_default().insert(envelope.id) {
            self.known.insert(envelope);
        }
    }

    /// Forgets what has expired for every clock.
    fn forget(&mut self, now: UnixTime) {
        while let Some(first) = self.known.first().copied()
            && now >= first.expires + self.limits.clock_skew
        {
            self.known.pop_first();
            self.forgotten = self.forgotten.max(first.expires);
            self.forget_id(&first);
        }
    }

    fn forget_id(&mut self, envelope: &Remembered) {
        if let Some(ids) = self.ids.get_mut(&envelope.sender) {
            ids.remove(&envelope.id);
            if ids.is_empty() {
                self.ids.remove(&envelope.sender);
            }
        }
    }
}
