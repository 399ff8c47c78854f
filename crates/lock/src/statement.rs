//! What all statements of the lock have in common: how long they may be, their ids, and reading one of unknown kind.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ciborium::Value;
use data_encoding::HEXLOWER;
use dawn_identity::NodeId;
use dawn_identity::statement::Malformed;
use dawn_identity::statement::claims::{fixed, list};
use sha2::{Digest as _, Sha256};

use crate::{Endorsement, Opening, Refused, Vote};

/// Longest statement that is read, bytes: an opening with all its keys.
pub const MAX_STATEMENT_BYTES: usize = 4096;
/// Longest vote or endorsement that is read, bytes: one with all its roles, keys and the longest name is shorter. What a key
/// may have kept is counted, so it must not be long.
pub const MAX_SHORT_BYTES: usize = 512;

/// Names an opening or a change: a hash of what it says, whoever signed it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementId([u8; 32]);

impl StatementId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id of what these parts say together, each of a fixed length or with its length in front.
    pub(crate) fn of(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(domain.as_bytes());
        hash.update([0]);
        for part in parts {
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Lowercase hexadecimal.
impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatementId({self})")
    }
}

impl FromStr for StatementId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(Malformed("not the id of a statement"))
    }
}

/// One signed statement of the lock, whose signature fits the key it names. Whether that key counts is for
/// [`Lock::take`](crate::Lock::take).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Begins a generation.
    Opening(Opening),
    /// Votes for a change.
    Vote(Vote),
    /// Stands behind a member or an admin.
    Endorsement(Endorsement),
}

impl Statement {
    /// Reads a statement and checks its signature.
    ///
    /// # Errors
    /// [`Refused`]: it is too long, none, or not signed by the key that it names.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let statement = Self::parse(bytes)?;
        if statement.is_signed() {
            Ok(statement)
        } else {
            Err(Refused::BadSignature)
        }
    }

    /// Reads a statement; its signature is not checked yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(Refused::TooLarge);
        }
        let is_short = Vote::is_kind(bytes) || Endorsement::is_kind(bytes);
        if is_short && bytes.len() > MAX_SHORT_BYTES {
            return Err(Refused::TooLarge);
        }
        if Vote::is_kind(bytes) {
            Vote::parse(bytes).map(Self::Vote)
        } else if Endorsement::is_kind(bytes) {
            Endorsement::parse(bytes).map(Self::Endorsement)
        } else {
            Opening::parse(bytes).map(Self::Opening)
        }
    }

    fn is_signed(&self) -> bool {
        match self {
            Self::Opening(opening) => opening.is_signed(),
            Self::Vote(vote) => vote.is_signed(),
            Self::Endorsement(endorsement) => endorsement.is_signed(),
        }
    }

    /// The statement, CBOR.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Opening(opening) => opening.bytes(),
            Self::Vote(vote) => vote.bytes(),
            Self::Endorsement(endorsement) => endorsement.bytes(),
        }
    }
}

/// Private-use claims (below -65536).
pub(crate) mod claim {
    pub(crate) const PARENT: i64 = -65_540;
    pub(crate) const CHANGE: i64 = -65_541;
    pub(crate) const NUMBER: i64 = -65_542;
    pub(crate) const GENERATION: i64 = -65_543;
    pub(crate) const KEYS: i64 = -65_544;
    pub(crate) const QUORUM: i64 = -65_545;
    pub(crate) const RECOVERY: i64 = -65_546;
    pub(crate) const SIGNATURES: i64 = -65_547;
    pub(crate) const NAME: i64 = -65_537;
    pub(crate) const ROLES: i64 = -65_538;
}

/// Keys in a claim, ascending and each once.
pub(crate) fn keys(value: &Value, most: usize) -> Option<BTreeSet<NodeId>> {
    let keys = list(value, |key| fixed(key).map(NodeId::from_bytes))?;
    let is_valid = keys.len() <= most && keys.is_sorted_by(|a, b| a < b);
    is_valid.then(|| keys.into_iter().collect())
}

/// Keys as a claim.
pub(crate) fn keys_value<'a>(keys: impl Iterator<Item = &'a NodeId>) -> Value {
    Value::Array(keys.map(|key| Value::Bytes(key.as_bytes().to_vec())).collect())
}
