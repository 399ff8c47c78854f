//! Who is admitted: whether a lock key stands behind a membership.

use std::collections::BTreeSet;

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
    /// Lock keys stand behind it, and it takes more of them.
    #[error("{have} of the {needed} lock keys that it takes have signed for it")]
    TooFew {
        /// How many do.
        have: u8,
        /// How many it takes.
        needed: u8,
    },
}

impl Why {
    /// The key that it is about, where it is about one.
    pub const fn key(&self) -> Option<NodeId> {
        match self {
            Self::KeyGone(key) | Self::OtherTerms(key) => Some(*key),
            Self::NotSigned | Self::TooFew { .. } => None,
        }
    }

    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotSigned => "not_signed",
            Self::KeyGone(_) => "key_gone",
            Self::OtherTerms(_) => "other_terms",
            Self::TooFew { .. } => "too_few_signatures",
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
        if state.keys.contains(&membership.node) {
            return Ok(());
        }
        let have = self.behind(state, membership).len();
        if have >= usize::from(state.signatures) {
            return Ok(());
        }
        if have > 0 {
            let have = u8::try_from(have).unwrap_or(u8::MAX);
            let needed = state.signatures;
            return Err(Why::TooFew { have, needed });
        }
        let mut why = Why::NotSigned;
        for endorsement in self.about(membership) {
            let counts = state.keys.contains(&endorsement.key);
            match endorsement.covers(membership) {
                true => why = Why::KeyGone(endorsement.key),
                false if counts && why == Why::NotSigned => why = Why::OtherTerms(endorsement.key),
                false => {}
            }
        }
        Err(why)
    }

    /// Whether a membership would still count with another state of the lock: after a removal, say.
    pub fn admits_at(&self, state: &State, membership: &Membership) -> bool {
        !state.is_on()
            || state.keys.contains(&membership.node)
            || self.behind(state, membership).len() >= usize::from(state.signatures)
    }

    /// The lock keys that stand behind a membership, each once: one that issued it, those that signed for it, and those that
    /// signed for whomever its issuer admits.
    fn behind(&self, state: &State, membership: &Membership) -> BTreeSet<NodeId> {
        let signed = self
            .about(membership)
            .filter(|endorsement| endorsement.covers(membership));
        let keys = membership
            .issuer
            .into_iter()
            .chain(signed.map(|endorsement| endorsement.key));
        keys.filter(|key| state.keys.contains(key)).collect()
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
