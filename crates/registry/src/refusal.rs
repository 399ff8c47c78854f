//! What is not taken.

use dawn_identity::{NodeId, UnixTime};

use crate::wire::Malformed;

/// Why a delta is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a delta, or longer than any.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its head is not signed by the node it names, or for another network.
    #[error("it is not signed by the node it speaks of, for this network")]
    BadSignature,
    /// Its head was signed in the future. One of the two clocks is wrong.
    #[error("it was signed in the future, at {0}")]
    FromTheFuture(UnixTime),
    /// Its head has expired so long ago that its node is forgotten.
    #[error("it expired at {0}, and its node is forgotten")]
    Expired(UnixTime),
    /// Its head counts for longer than any may.
    #[error("it would count until {0}, which is too long")]
    TooLong(UnixTime),
    /// Its node has said more lately than it may.
    #[error("its node says more than it may")]
    TooOften,
    /// What came before it is missing; the whole set of this node is wanted.
    #[error("what came before it is missing of {0}")]
    Gap(NodeId),
    /// It tells a whole set, and not the one that was signed.
    #[error("what it tells is not what was signed")]
    NotSigned,
    /// Its node says nothing of itself, by which one could tell whether it is a member.
    #[error("its node says nothing of itself")]
    NoNode,
    /// Its node is no member.
    #[error("it does not come from a member: {0}")]
    NoMember(String),
    /// The set has more entries than one may have.
    #[error("{0} entries are more than a node may have")]
    TooMany(usize),
    /// The set has more bytes than one may have.
    #[error("{0} bytes are more than a node may have")]
    TooLarge(usize),
    /// Its node has more incarnations at work at once than are kept.
    #[error("its node has too many heads at once")]
    TooManyHeads,
    /// There is no room for another node.
    #[error("the registry holds all that it may")]
    Full,
    /// A delta in a later version of the format, perhaps: whoever passes it on may be ahead.
    #[error("it is in version {0} of the format, which is not known here")]
    OtherVersion(u8),
}

impl Refusal {
    /// A stable word for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::BadSignature => "bad_signature",
            Self::FromTheFuture(_) => "from_the_future",
            Self::Expired(_) => "expired",
            Self::TooLong(_) => "too_long",
            Self::TooOften => "too_often",
            Self::Gap(_) => "gap",
            Self::NotSigned => "not_signed",
            Self::NoNode => "no_node",
            Self::NoMember(_) => "no_member",
            Self::TooMany(_) => "too_many",
            Self::TooLarge(_) => "too_large",
            Self::TooManyHeads => "too_many_heads",
            Self::Full => "full",
            Self::OtherVersion(_) => "other_version",
        }
    }
}
