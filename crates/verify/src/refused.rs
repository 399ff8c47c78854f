//! Why something is not taken.

use dawn_identity::UnixTime;
use dawn_identity::statement::Malformed;

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
        }
    }
}

impl From<Malformed> for Refused {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}
