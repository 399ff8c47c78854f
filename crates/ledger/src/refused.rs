//! Why something is not taken.

use dawn_identity::statement::Malformed;
use dawn_identity::{NetworkId, NodeId, UnixTime};

use crate::{Credits, EntryHash, RecordId};

/// Why a statement is not taken, or an entry not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Longer than one of its kind may be.
    #[error("the statement is longer than one of its kind may be")]
    TooLarge,
    /// No statement of a ledger, or a damaged one.
    #[error("the statement is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the node it names.
    #[error("the signature is not that of {0}")]
    Forged(NodeId),
    /// Of another network.
    #[error("the statement is of another network, {0}")]
    WrongNetwork(NetworkId),
    /// An acknowledgement of somebody whom the terms do not list, or for another set.
    #[error("{0} is no witness of this set")]
    NotAWitness(NodeId),
    /// Fewer acknowledgements than a quorum.
    #[error("{found} acknowledgements are no quorum; {needed} are needed")]
    NoQuorum {
        /// How many there are.
        found: usize,
        /// How many it takes.
        needed: usize,
    },
    /// Dated in the future: one of the two clocks is wrong.
    #[error("the entry is dated {0}, which is still to come; set the clock")]
    FromTheFuture(UnixTime),
    /// Its author is no member now.
    #[error("{0} is no member of the network")]
    NotAMember(NodeId),
    /// More than the terms grant.
    #[error("the grant is {0} at most")]
    WrongGrant(Credits),
    /// It does not follow the last certified entry of its account.
    #[error("it does not follow the last certified entry of its account; ask a quorum of witnesses for that one")]
    Gap,
    /// There is less than it would set aside.
    #[error("only {0} credits are free")]
    Insufficient(Credits),
    /// Its author signed two entries under one number.
    #[error("{0} signed two entries under one number")]
    DoubleSpend(NodeId),
    /// Its author, or whom it pays, is in quarantine.
    #[error("{0} is in quarantine")]
    Quarantined(NodeId),
    /// A hold that is not known here as certified, or a reward that is not.
    #[error("there is no certified hold {0} here; show its certificate")]
    UnknownHold(EntryHash),
    /// Its author is not the payee of the hold, or the receipt is not its payer's.
    #[error("it is not for its author to end the hold {0} so")]
    NotYours(EntryHash),
    /// A receipt over more than is held.
    #[error("the receipt is for more than is held, {0}")]
    OverHold(Credits),
    /// The hold ended by time; from now on it is its payer's.
    #[error("the hold expired at {0}")]
    Expired(UnixTime),
    /// It can be done later.
    #[error("it is too early; it can be done from {0} on")]
    TooEarly(UnixTime),
    /// A reward for which there are not enough newer ones.
    #[error("there are {found} newer rewards than {reward}; {needed} are needed")]
    Immature {
        /// The reward: its hold.
        reward: EntryHash,
        /// How many newer ones there are.
        found: u64,
        /// How many it takes.
        needed: u64,
    },
    /// There is no such record in force here.
    #[error("the record {0} is not in force here")]
    NoRecord(RecordId),
    /// Its payer has not paid for what was done before.
    #[error("{0} jobs of this payer are not paid yet")]
    Unpaid(usize),
    /// No quorum of witnesses was reached lately, so that a hold might end unknown to this node.
    #[error("no quorum of witnesses is in reach; jobs that cost nothing are still taken")]
    Alone,
    /// Receipts that do not follow each other.
    #[error("the receipt does not follow the one before: {0}")]
    OutOfChain(&'static str),
    /// More credits than there are numbers for.
    #[error("there are too many credits in circulation")]
    TooMuch,
    /// Two certificates for what can be used once: more witnesses lie than may. Nothing is acknowledged any more.
    #[error("two certificates were shown for one place, {0} and {1}: too many witnesses lie")]
    Broken(EntryHash, EntryHash),
}

impl Refused {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::Forged(_) => "forged",
            Self::WrongNetwork(_) => "wrong_network",
            Self::NotAWitness(_) => "other_set",
            Self::NoQuorum { .. } => "no_quorum",
            Self::FromTheFuture(_) => "from_the_future",
            Self::NotAMember(_) => "not_allowed",
            Self::WrongGrant(_) => "wrong_grant",
            Self::Gap => "gap",
            Self::Insufficient(_) => "insufficient_credit",
            Self::DoubleSpend(_) => "double_spend",
            Self::Quarantined(_) => "quarantined",
            Self::UnknownHold(_) => "no_hold",
            Self::NotYours(_) => "not_payee",
            Self::OverHold(_) => "over_hold",
            Self::Expired(_) => "hold_expiring",
            Self::TooEarly(_) => "too_early",
            Self::Immature { .. } => "immature",
            Self::NoRecord(_) => "no_record",
            Self::Unpaid(_) => "unpaid",
            Self::Alone => "no_quorum",
            Self::OutOfChain(_) => "out_of_chain",
            Self::TooMuch => "too_much",
            Self::Broken(..) => "broken",
        }
    }
}

impl From<Malformed> for Refused {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}
