//! Why a statement is not taken.

use dawn_identity::statement::Malformed;
use dawn_identity::{NetworkId, NodeId, UnixTime};

use crate::{ChangeError, StatementId};

/// Why a statement is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Longer than a statement of its kind may be.
    #[error("the statement is longer than one of its kind may be")]
    TooLarge,
    /// No statement of a lock, or a damaged one.
    #[error("the statement is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the key it names.
    #[error("the signature of the statement is not that of the key it names")]
    BadSignature,
    /// Of another network.
    #[error("the statement is of another network, {0}")]
    WrongNetwork(NetworkId),
    /// There is a lock, and this would be another: whoever signed it has the network key.
    #[error("there is a lock already, and this one, {0}, begins otherwise; the network key may be stolen")]
    OtherGenesis(StatementId),
    /// What it builds on is not known here (yet).
    #[error("it builds on {0}, which is not known here")]
    UnknownParent(StatementId),
    /// Its key does not count where it is to count (yet).
    #[error("{0} is no lock key there")]
    NotAKey(NodeId),
    /// It is signed with no recovery key of the generation before.
    #[error("{0} is no recovery key")]
    NotARecoveryKey(NodeId),
    /// It belongs to a generation that is over.
    #[error("it belongs to a generation of the lock that is over")]
    FormerGeneration,
    /// Too much has been built on what it would change.
    #[error("it would change what was settled long ago")]
    Settled,
    /// The change cannot be made there.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// It is dated in the future, and would cover what is still to come.
    #[error("the endorsement is dated in the future, {0}")]
    FromTheFuture(UnixTime),
    /// As much of this key, or of the log, is kept as there is room for.
    #[error("there is no room for more; a recovery secret begins a new generation of the lock")]
    Full,
}

impl Refused {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::BadSignature => "bad_signature",
            Self::WrongNetwork(_) => "wrong_network",
            Self::OtherGenesis(_) => "other_genesis",
            Self::UnknownParent(_) => "unknown_parent",
            Self::NotAKey(_) => "not_a_key",
            Self::NotARecoveryKey(_) => "not_a_recovery_key",
            Self::FormerGeneration => "former_generation",
            Self::Settled => "settled",
            Self::Change(_) => "impossible_change",
            Self::FromTheFuture(_) => "from_the_future",
            Self::Full => "full",
        }
    }

    /// Whether it may be taken once something else is known.
    pub const fn may_come(&self) -> bool {
        matches!(self, Self::UnknownParent(_) | Self::NotAKey(_) | Self::FormerGeneration)
    }

    /// Whether an honest node may have passed it on: it may know what is not known here, or not know what is.
    pub const fn is_innocent(&self) -> bool {
        self.may_come() || matches!(self, Self::Settled | Self::FromTheFuture(_) | Self::Full)
    }
}

impl From<Malformed> for Refused {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}
