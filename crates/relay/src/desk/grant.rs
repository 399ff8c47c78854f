//! What lets a peer reserve.

use dawn_identity::{NetworkId, NodeId, RelayQuota, Roles, Serial, UnixTime};

/// Whose quota is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The members of a network, each by itself.
    Member(NetworkId, NodeId),
    /// A signed token: its network, its peer and its number.
    Signed(NetworkId, NodeId, Serial),
    /// A token of the operator's, by its name.
    Static(String),
}

/// One on whom a grant rests: the peer itself, or who signed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Who.
    pub node: NodeId,
    /// With which roles: they say whose revocations touch it.
    pub roles: Roles,
    /// Since when: a revocation of then or later ends the grant.
    pub since: UnixTime,
}

/// What a peer has shown that lets it reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The peer.
    pub node: NodeId,
    /// Whose quota it uses.
    pub holder: Holder,
    /// What the token says of it.
    pub quota: RelayQuota,
    /// Whose revocation ends it.
    pub links: Vec<Link>,
    /// SHA-256 of the operator's token that was shown.
    pub secret: Option<[u8; 32]>,
    /// When it ends; `None` is never.
    pub expires: Option<UnixTime>,
}
