//! Who lets peers reserve: the server's process by its configuration, a member by who is a member.

use dawn_identity::{NodeId, UnixTime};

use crate::desk::Grant;
use crate::token::Shown;

/// What became of something that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The peer may reserve.
    Granted(Grant),
    /// A revocation was new: what others have shown is looked at again.
    Noted,
    /// A revocation that was known.
    Known,
}

/// Why something that was shown is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// A stable code, for metrics.
    pub code: &'static str,
    /// In words.
    pub reason: String,
}

/// Decides who may reserve.
pub trait Gate: Send + Sync + 'static {
    /// What a peer may by what it has shown.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn shown(&self, peer: NodeId, shown: Shown, now: UnixTime) -> Result<Verdict, Denied>;

    /// What a peer may that has shown nothing here.
    fn known(&self, peer: NodeId, now: UnixTime) -> Option<Grant>;

    /// Whether a peer still may.
    fn holds(&self, peer: NodeId, grant: &Grant, now: UnixTime) -> bool;

    /// Whether circuits are carried that a peer asks for, to those who have reserved.
    fn carries(&self, _source: NodeId) -> bool {
        true
    }
}
