//! Who is admitted: whether a lock key stands behind a membership.

use dawn_identity::{Membership, NodeId};

use super::Lock;
use crate::{Endorsement, State};

/// Why a membership does not count, although its certificates are valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// No lock key stands behind it.
    #[error("no lock key has signed for it")]
    NotSigned,
    /// A key stands behind it that is no lock key any more.
    #[error("{0} signed for it, which is no lock key any more")]
    KeyGone(NodeId),
    /// A lock key stands behind another membership of this node: another name, fewer roles, or one that began earlier.
    #[error("{0} signed for it under another name, with fewer roles, or before it was admitted anew")]
    OtherTerms(NodeId),
}

impl Why {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotSigned => "not_signed",
            Self::KeyGone(_) => "key_gone",
            Self::OtherTerms(_) => "other_terms",
        }
    }
}

impl Lock {
    /// Whether a membership, whose certificates were verified, counts under the lock. Without a lock, or with one that is
    /// switched off, every membership does.
    ///
    /// # Errors
    /// [`Why`] it does not.
    pub fn admits(&self, membership: &Membership) -> Result<(), Why> {
        let Some(state) = self.state.as_ref().filter(|state| state.is_on()) else {
            return Ok(());
        };
        let is_key = |node: &NodeId| state.keys.contains(node);
        if is_key(&membership.node) || membership.issuer.as_ref().is_some_and(is_key) {
            return Ok(());
        }
        let mut why = Why::NotSigned;
        for endorsement in self.about(membership) {
            let counts = is_key(&endorsement.key);
            match (endorsement.covers(membership), counts) {
                (true, true) => return Ok(()),
                (true, false) => why = Why::KeyGone(endorsement.key),
                (false, true) if why == Why::NotSigned => why = Why::OtherTerms(endorsement.key),
                _ => {}
            }
        }
        Err(why)
    }

    /// Whether a membership would still count with another state of the lock: after a removal, say.
    pub fn admits_at(&self, state: &State, membership: &Membership) -> bool {
        let is_key = |node: &NodeId| state.keys.contains(node);
        !state.is_on()
            || is_key(&membership.node)
            || membership.issuer.as_ref().is_some_and(is_key)
            || self
                .about(membership)
                .any(|endorsement| is_key(&endorsement.key) && endorsement.covers(membership))
    }

    /// The endorsements of a member, and of the admin that issued its certificate.
    fn about(&self, membership: &Membership) -> impl Iterator<Item = &Endorsement> {
        let least = NodeId::from_bytes([0; 32]);
        let most = NodeId::from_bytes([0xff; 32]);
        let of_node = (membership.node, false, least)..=(membership.node, false, most);
        let of_issuer = membership
            .issuer
            .map(|issuer| (issuer, true, least)..=(issuer, true, most));
        let by_issuer = of_issuer.into_iter().flat_map(|range| self.endorsements.range(range));
        self.endorsements
            .range(of_node)
            .chain(by_issuer)
            .map(|(_, endorsement)| endorsement)
    }
}
