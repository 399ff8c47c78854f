//! Why something is not taken.

use dawn_identity::statement::Malformed;
use dawn_identity::{NodeId, UnixTime};

use crate::RecordId;

/// Why a statement, an opening or a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Longer than one of its kind may be.
    #[error("it is longer than one of its kind may be")]
    TooLarge,
    /// None of its kind, or a damaged one.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the node it names.
    #[error("the signature is not that of the node it names")]
    BadSignature,
    /// It is for another node, of another network, or answers something else.
    #[error("it is for something else: {0}")]
    NotForThis(&'static str),
    /// It is dated in the future: one of the two clocks is wrong.
    #[error("it is dated {0}, which is still to come")]
    FromTheFuture(UnixTime),
    /// Its time is over.
    #[error("its time ended at {0}")]
    DeadlinePassed(UnixTime),
    /// The output is of another class than the one that was asked for.
    #[error("the output is of another class than the one that was asked for")]
    OtherClass,
    /// More is to be paid than was agreed to.
    #[error("{amount} is to be paid, where {most} was agreed to")]
    Price {
        /// What is to be paid, millionths of a credit.
        amount: u64,
        /// What was agreed to.
        most: u64,
    },
    /// What is opened is not what was committed to.
    #[error("what is opened is not what was committed to")]
    BadOpening,
    /// The draw is not the one of this result and its requester.
    #[error("the draw is not the one of this result and its requester")]
    BadDraw,
    /// A node in it is no member.
    #[error("{0}, which is in it, is no member")]
    NoMember(NodeId),
    /// It is about a record that is not kept here.
    #[error("it is about the record {0}, which is not kept here")]
    UnknownRecord(RecordId),
    /// It is so old that it is not kept any more.
    #[error("it is of {0}, and not kept any more")]
    TooOld(UnixTime),
    /// Others fill the room that there is.
    #[error("others fill the room that there is")]
    Full,
}

impl Refused {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::BadSignature => "bad_signature",
            Self::NotForThis(_) => "not_for_this",
            Self::FromTheFuture(_) => "from_the_future",
            Self::DeadlinePassed(_) => "deadline_passed",
            Self::OtherClass => "other_class",
            Self::Price { .. } => "price",
            Self::BadOpening => "bad_opening",
            Self::BadDraw => "bad_draw",
            Self::NoMember(_) => "no_member",
            Self::UnknownRecord(_) => "unknown_record",
            Self::TooOld(_) => "too_old",
            Self::Full => "full",
        }
    }

    /// Whether an honest node may have passed it on: it may know what is not known here, or not know what is, and its
    /// clock may differ.
    pub const fn is_innocent(&self) -> bool {
        matches!(
            self,
            Self::FromTheFuture(_) | Self::NoMember(_) | Self::UnknownRecord(_) | Self::TooOld(_) | Self::Full
        )
    }
}

impl From<Malformed> for Refused {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}
