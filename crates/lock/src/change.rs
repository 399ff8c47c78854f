//! What a statement of the log changes, and what the log comes to.

use std::collections::BTreeSet;

use ciborium::Value;
use dawn_identity::NodeId;
use dawn_identity::statement::claims::{fixed, number};

/// Most lock keys at once.
pub const MAX_KEYS: usize = 64;

/// One change of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// One more key is trusted.
    Add(NodeId),
    /// A key is trusted no more, nor is what it alone stands behind.
    Remove(NodeId),
    /// A key takes the place of another.
    Rotate {
        /// The key that goes.
        from: NodeId,
        /// The key that comes.
        to: NodeId,
    },
    /// From now on so many keys have to agree.
    Quorum(u8),
    /// From now on so many keys have to stand behind a member.
    Signatures(u8),
}

/// Why a change cannot be made where it is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The key is a lock key already.
    #[error("{0} is a lock key already")]
    IsKey(NodeId),
    /// The key is no lock key.
    #[error("{0} is no lock key")]
    IsNoKey(NodeId),
    /// There are as many keys as there may be.
    #[error("there are {MAX_KEYS} lock keys, and there may be no more")]
    TooManyKeys,
    /// Fewer keys would be left than have to agree.
    #[error("with fewer than {0} keys the quorum of {0} could never be reached; lower the quorum first")]
    TooFewKeys(u8),
    /// A quorum of none, or of more than there are keys.
    #[error("a quorum is at least one and at most the number of lock keys, {keys}, not {wanted}")]
    NoQuorum {
        /// What was asked for.
        wanted: u8,
        /// How many keys there are.
        keys: u8,
    },
    /// Fewer keys would be left than have to stand behind a member.
    #[error(
        "with fewer than {0} keys nobody could get the {0} signatures that a member needs; lower that number first"
    )]
    TooFewToSign(u8),
    /// A number of signatures of none, or of more than there are keys.
    #[error("a member needs the signatures of at least one key and at most of all {keys}, not of {wanted}")]
    NoSignatures {
        /// What was asked for.
        wanted: u8,
        /// How many keys there are.
        keys: u8,
    },
    /// So many signatures are needed already.
    #[error("a member needs {0} of the keys already")]
    IsSignatures(u8),
    /// The quorum is that already.
    #[error("the quorum is {0} already")]
    IsQuorum(u8),
    /// The lock is switched off: there are no keys.
    #[error("the lock is switched off; only a recovery secret begins it anew")]
    Disabled,
}

impl Change {
    /// A stable word for what it does.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Remove(_) => "remove",
            Self::Rotate { .. } => "rotate",
            Self::Quorum(_) => "quorum",
            Self::Signatures(_) => "signatures",
        }
    }

    /// Whether it takes a key's trust away.
    pub const fn removes(&self) -> bool {
        matches!(self, Self::Remove(_) | Self::Rotate { .. })
    }

    /// What it says, in one form: a byte for the kind, then the keys or the number.
    pub(crate) fn canonical(&self) -> Vec<u8> {
        match self {
            Self::Add(key) => [&[1], &key.as_bytes()[..]].concat(),
            Self::Remove(key) => [&[2], &key.as_bytes()[..]].concat(),
            Self::Rotate { from, to } => [&[3], &from.as_bytes()[..], &to.as_bytes()[..]].concat(),
            Self::Quorum(quorum) => vec![4, *quorum],
            Self::Signatures(signatures) => vec![5, *signatures],
        }
    }

    pub(crate) fn to_value(self) -> Value {
        let key = |key: NodeId| Value::Bytes(key.as_bytes().to_vec());
        Value::Array(match self {
            Self::Add(added) => vec![1.into(), key(added)],
            Self::Remove(removed) => vec![2.into(), key(removed)],
            Self::Rotate { from, to } => vec![3.into(), key(from), key(to)],
            Self::Quorum(quorum) => vec![4.into(), quorum.into()],
            Self::Signatures(signatures) => vec![5.into(), signatures.into()],
        })
    }

    pub(crate) fn from_value(value: &Value) -> Option<Self> {
        let items = value.as_array()?;
        let key = |value: &Value| fixed(value).map(NodeId::from_bytes);
        let kind: u8 = number(items.first()?)?;
        match (kind, items.get(1..)?) {
            (1, [added]) => key(added).map(Self::Add),
            (2, [removed]) => key(removed).map(Self::Remove),
            (3, [from, to]) => Some(Self::Rotate {
                from: key(from)?,
                to: key(to)?,
            }),
            (4, [quorum]) => number(quorum).map(Self::Quorum),
            (5, [signatures]) => number(signatures).map(Self::Signatures),
            _ => None,
        }
    }
}

/// What the log comes to at one of its statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The generation it belongs to.
    pub generation: u32,
    /// How many changes were made in this generation.
    pub height: u32,
    /// The trusted keys. None: the lock is switched off.
    pub keys: BTreeSet<NodeId>,
    /// How many of them have to agree on a change.
    pub quorum: u8,
    /// How many of them have to stand behind a member.
    pub signatures: u8,
}

impl State {
    /// Whether the lock keeps anybody out.
    pub fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// How many keys have to vote for this change: a greater quorum has to be able to agree on itself.
    pub fn votes_for(&self, change: &Change) -> u8 {
        match change {
            Change::Quorum(wanted) => self.quorum.max(*wanted),
            _ => self.quorum,
        }
    }

    /// What it comes to with one more change.
    ///
    /// # Errors
    /// [`ChangeError`]: the change cannot be made here.
    pub fn with(&self, change: &Change) -> Result<Self, ChangeError> {
        if !self.is_on() {
            return Err(ChangeError::Disabled);
        }
        let mut next = self.clone();
        next.height = self.height.saturating_add(1);
        let keys = u8::try_from(self.keys.len()).unwrap_or(u8::MAX);
        match *change {
            Change::Add(key) => {
                if !next.keys.insert(key) {
                    return Err(ChangeError::IsKey(key));
                }
                if next.keys.len() > MAX_KEYS {
                    return Err(ChangeError::TooManyKeys);
                }
            }
            Change::Remove(key) => {
                if !next.keys.remove(&key) {
                    return Err(ChangeError::IsNoKey(key));
                }
                if next.keys.len() < usize::from(next.quorum) {
                    return Err(ChangeError::TooFewKeys(next.quorum));
                }
                if next.keys.len() < usize::from(next.signatures) {
                    return Err(ChangeError::TooFewToSign(next.signatures));
                }
            }
            Change::Rotate { from, to } => {
                if !next.keys.remove(&from) {
                    return Err(ChangeError::IsNoKey(from));
                }
                if from == to || !next.keys.insert(to) {
                    return Err(ChangeError::IsKey(to));
                }
            }
            Change::Quorum(wanted) => {
                if wanted == 0 || wanted > keys {
                    return Err(ChangeError::NoQuorum { wanted, keys });
                }
                if wanted == next.quorum {
                    return Err(ChangeError::IsQuorum(wanted));
                }
                next.quorum = wanted;
            }
            Change::Signatures(wanted) => {
                if wanted == 0 || wanted > keys {
                    return Err(ChangeError::NoSignatures { wanted, keys });
                }
                if wanted == next.signatures {
                    return Err(ChangeError::IsSignatures(wanted));
                }
                next.signatures = wanted;
            }
        }
        Ok(next)
    }
}
