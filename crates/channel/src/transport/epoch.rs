//! The keys of one epoch.

use std::fmt;
use std::time::Instant;

use super::Limits;
use crate::aead::{AeadKey, CipherFailed};
use crate::kdf::{Derivation, Secret};
use crate::noise::{Outcome, Role};

/// What has passed under a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    frames: u64,
    bytes: u64,
}

impl Usage {
    pub(super) fn add(&mut self, bytes: usize) {
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether a rekey is due.
    pub(super) fn is_much(&self, limits: &Limits) -> bool {
        self.frames >= limits.rekey_after_messages || self.bytes >= limits.rekey_after_bytes
    }

    /// Whether no message may follow.
    pub(super) fn is_too_much(&self, limits: &Limits) -> bool {
        self.frames >= limits.reject_after_messages || self.bytes >= limits.reject_after_bytes
    }
}

/// The keys of an epoch that frames are sealed under, or soon will be.
pub(super) struct Keys {
    pub(super) number: u32,
    pub(super) seal: AeadKey,
    pub(super) open: AeadKey,
    /// The pre-shared key of the exchange that makes the next epoch.
    pub(super) successor: Secret,
    pub(super) began: Instant,
    pub(super) sealed: Usage,
    pub(super) opened: Usage,
}

impl Keys {
    /// The keys that an exchange ended in, for the side that had this role in it.
    pub(super) fn new(number: u32, outcome: &Outcome, role: Role, now: Instant) -> Result<Self, CipherFailed> {
        let (seal, open) = match role {
            Role::Initiator => (&outcome.initiator, &outcome.responder),
            Role::Responder => (&outcome.responder, &outcome.initiator),
        };
        let secrets = [&outcome.initiator[..], &outcome.responder[..]];
        Ok(Self {
            number,
            seal: AeadKey::new(seal)?,
            open: AeadKey::new(open)?,
            successor: Derivation::new(&outcome.hash, &secrets).key("dawn channel 1 rekey"),
            began: now,
            sealed: Usage::default(),
            opened: Usage::default(),
        })
    }

    /// What is left of the keys when frames are sealed under the next ones.
    pub(super) fn retire(self, until: Option<Instant>) -> Former {
        Former {
            number: self.number,
            open: self.open,
            before: None,
            until,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// A former epoch: frames under it may still be on their way.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) number: u32,
    pub(super) open: AeadKey,
    /// The smallest sequence known to be under a later epoch: frames under this one have smaller ones.
    pub(super) before: Option<u64>,
    /// When it is dropped at the latest.
    pub(super) until: Option<Instant>,
}
