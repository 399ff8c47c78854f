//! An invite, as the node that made it keeps it, and the rules of redeeming it.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{InviteId, NodeId, Roles, UnixTime};

/// The secret that a ticket carries: whoever knows it may redeem the invite. Wiped from memory when dropped, never
/// printed, and without serde, so that it does not land in a listing by accident.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret([u8; 16]);

impl InviteSecret {
    /// Wraps 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The secret itself, for the ticket and for storage.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

/// An invite: who knows its secret may become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its name at this node.
    pub id: InviteId,
    /// What the ticket's holder proves to know.
    pub secret: InviteSecret,
    /// When it was made.
    pub created: UnixTime,
    /// From when on it cannot be redeemed any more.
    pub expires: UnixTime,
    /// How many nodes may redeem it.
    pub max_uses: u32,
    /// How many nodes have redeemed it.
    pub uses: u32,
    /// The roles that redeeming it grants.
    pub roles: Roles,
    /// Whether a person has to approve each joiner.
    pub approval: bool,
    /// Whether it was withdrawn.
    pub revoked: bool,
    /// The nodes that have redeemed it.
    pub redeemed_by: Vec<NodeId>,
}

/// How an invite was redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// By a node new to it: one use was consumed.
    New,
    /// By a node that had redeemed it before (its answer was lost, say): no use was consumed.
    Again,
}

/// Why an invite cannot be redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Its time is over.
    #[error("the invite has expired")]
    Expired,
    /// As many nodes as it is for have redeemed it.
    #[error("the invite has been used up")]
    UsedUp,
    /// It was withdrawn.
    #[error("the invite was withdrawn")]
    Revoked,
}

impl Invite {
    /// Redeems the invite for `node`. A node that comes again does not consume another use.
    ///
    /// # Errors
    /// [`InviteError`], and nothing changes.
    pub fn redeem(&mut self, node: NodeId, now: UnixTime) -> Result<Redemption, InviteError> {
        let redemption = self.check(node, now)?;
        if redemption == Redemption::New {
            self.uses = self.uses.saturating_add(1);
            self.redeemed_by.push(node);
        }
        Ok(redemption)
    }

    /// What [`Self::redeem`] would say, without redeeming.
    ///
    /// # Errors
    /// [`InviteError`] as from `redeem`.
    pub fn check(&self, node: NodeId, now: UnixTime) -> Result<Redemption, InviteError> {
        if self.revoked {
            Err(InviteError::Revoked)
        } else if now >= self.expires {
            Err(InviteError::Expired)
        } else if self.redeemed_by.contains(&node) {
            Ok(Redemption::Again)
        } else if self.uses >= self.max_uses {
            Err(InviteError::UsedUp)
        } else {
            Ok(Redemption::New)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    fn invite(max_uses: u32) -> Invite {
        Invite {
            id: InviteId::from_bytes([1; 8]),
            secret: InviteSecret::from_bytes([2; 16]),
            created: UnixTime(100),
            expires: UnixTime(200),
            max_uses,
            uses: 0,
            roles: Role::Member.into(),
            approval: false,
            revoked: false,
            redeemed_by: Vec::new(),
        }
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn an_invite_serves_as_many_nodes_as_it_is_for() {
        let mut invite = invite(2);
        assert_eq!(invite.redeem(node(1), UnixTime(100)), Ok(Redemption::New));
        assert_eq!(invite.redeem(node(2), UnixTime(100)), Ok(Redemption::New));
        assert_eq!(invite.redeem(node(3), UnixTime(100)), Err(InviteError::UsedUp));
        assert_eq!(invite.uses, 2);
        assert_eq!(invite.redeemed_by, [node(1), node(2)]);
    }

    #[test]
    fn a_node_that_comes_again_consumes_no_use() {
        let mut invite = invite(1);
        assert_eq!(invite.redeem(node(1), UnixTime(100)), Ok(Redemption::New));
        assert_eq!(invite.redeem(node(1), UnixTime(150)), Ok(Redemption::Again));
        assert_eq!(invite.uses, 1);
        assert_eq!(invite.redeem(node(1), UnixTime(200)), Err(InviteError::Expired));
    }

    #[test]
    fn an_invite_ends_when_it_expires_or_is_withdrawn() {
        let mut invite = invite(1);
        assert_eq!(invite.redeem(node(1), UnixTime(200)), Err(InviteError::Expired));
        invite.revoked = true;
        assert_eq!(invite.redeem(node(1), UnixTime(150)), Err(InviteError::Revoked));
        assert_eq!(invite.uses, 0);
    }

    #[test]
    fn the_secret_of_an_invite_is_not_printed() {
        assert!(!format!("{:?}", invite(1)).contains("2, 2"));
    }
}
