//! Who lets peers reserve: the server's process by its configuration, a member by who is a member.

use dawn_identity::{NodeId, RelayQuota, UnixTime};

use crate::desk::Grant;
use crate::token::Shown;

/// What became of something that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The peer may reserve.
    Granted(Box<Grant>),
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

    /// What a peer may use now by what it has shown; `None` where it may not any more.
    fn holds(&self, grant: &Grant, now: UnixTime) -> Option<RelayQuota>;

    /// Whether circuits are carried that a peer asks for, to those who have reserved.
    fn carries(&self, _source: NodeId) -> bool {
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Grants nothing by itself, and lets everybody keep what it has.
    pub(crate) struct Nobody;

    impl Gate for Nobody {
        fn shown(&self, _: NodeId, _: Shown, _: UnixTime) -> Result<Verdict, Denied> {
            Ok(Verdict::Known)
        }

        fn known(&self, _: NodeId, _: UnixTime) -> Option<Grant> {
            None
        }

        fn holds(&self, grant: &Grant, _: UnixTime) -> Option<RelayQuota> {
            Some(grant.quota)
        }
    }
}
