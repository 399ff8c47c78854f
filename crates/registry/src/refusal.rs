//! What is not taken, and how often.

use std::collections::BTreeMap;

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

/// How many kinds of refusals there are.
const CODES: usize = 15;

impl Refusal {
    /// Every code, in the order of the counters.
    pub const CODES: [&'static str; CODES] = [
        "malformed",
        "bad_signature",
        "from_the_future",
        "expired",
        "too_long",
        "too_often",
        "gap",
        "not_signed",
        "no_node",
        "no_member",
        "too_many",
        "too_large",
        "too_many_heads",
        "full",
        "other_version",
    ];

    fn place(&self) -> usize {
        match self {
            Self::Malformed(_) => 0,
            Self::BadSignature => 1,
            Self::FromTheFuture(_) => 2,
            Self::Expired(_) => 3,
            Self::TooLong(_) => 4,
            Self::TooOften => 5,
            Self::Gap(_) => 6,
            Self::NotSigned => 7,
            Self::NoNode => 8,
            Self::NoMember(_) => 9,
            Self::TooMany(_) => 10,
            Self::TooLarge(_) => 11,
            Self::TooManyHeads => 12,
            Self::Full => 13,
            Self::OtherVersion(_) => 14,
        }
    }

    /// A stable word for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        Self::CODES.get(self.place()).copied().unwrap_or_default()
    }
}

/// How often what was refused, and what whom sent.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    codes: [u64; CODES],
    senders: BTreeMap<NodeId, u64>,
}

impl Refusals {
    /// Senders of whom is counted apart.
    const SENDERS: usize = 1024;

    pub(crate) fn count(&mut self, refusal: &Refusal, from: NodeId) {
        if let Some(count) = self.codes.get_mut(refusal.place()) {
            *count = count.saturating_add(1);
        }
        if self.senders.len() < Self::SENDERS || self.senders.contains_key(&from) {
            let count = self.senders.entry(from).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Each code with its number.
    pub fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Refusal::CODES.into_iter().zip(self.codes)
    }

    /// How much of what a node sent was refused, of the first 1,024 of whom anything was.
    #[must_use]
    pub fn of(&self, sender: &NodeId) -> u64 {
        self.senders.get(sender).copied().unwrap_or_default()
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.codes.iter().sum()
    }
}
