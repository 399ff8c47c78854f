//! The end of a shared key before its time: either of the two nodes says so.

use std::time::Duration;

use coset::cwt::ClaimsSetBuilder;
use dawn_identity::statement::claims::id;
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::shared_key::{KeyId, SharedKey};

/// Longest encoded revocation of a key that is read, bytes.
pub const MAX_KEY_REVOCATION_BYTES: usize = 512;

const KIND: Kind = Kind::new("application/dawn-key-revocation+cwt");

/// Why the revocation of a key is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRevocationError {
    /// Longer than [`MAX_KEY_REVOCATION_BYTES`].
    #[error("the revocation of the key is longer than {MAX_KEY_REVOCATION_BYTES} bytes")]
    TooLarge,
    /// Not a revocation of a key, or a damaged one.
    #[error("the revocation of the key is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the node it names.
    #[error("the signature of the revocation is not its sender's")]
    BadSignature,
    /// It is of another network.
    #[error("the revocation of the key is of another network")]
    WrongNetwork,
    /// It is dated in the future.
    #[error("the revocation of the key is dated in the future, {0}")]
    FromTheFuture(UnixTime),
}

impl From<Malformed> for KeyRevocationError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// A node's signed word that a key it shares is to be used no more. Whether it shares the key, [`Self::revokes`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRevocation {
    issuer: NodeId,
    key: KeyId,
    at: UnixTime,
    signed: Signed,
}

impl KeyRevocation {
    /// Revokes a key.
    ///
    /// # Errors
    /// [`KeyRevocationError::Malformed`] for a time beyond what a date can say.
    pub fn sign(
        identity: &Keypair,
        network: &NetworkId,
        key: KeyId,
        now: UnixTime,
    ) -> Result<Self, KeyRevocationError> {
        let issuer = identity.node_id();
        let set = ClaimsSetBuilder::new()
            .issuer(issuer.to_string())
            .audience(network.to_string())
            .issued_at(statement::date(now)?)
            .cwt_id(key.as_bytes().to_vec())
            .build();
        Ok(Self {
            issuer,
            key,
            at: now,
            signed: Signed::sign(KIND, set, identity)?,
        })
    }

    /// Reads a revocation. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`KeyRevocationError`] says what is wrong with it.
    pub fn read(bytes: &[u8], network: &NetworkId, now: UnixTime, skew: Duration) -> Result<Self, KeyRevocationError> {
        if bytes.len() > MAX_KEY_REVOCATION_BYTES {
            return Err(KeyRevocationError::TooLarge);
        }
        let (signed, set) = Signed::parse(KIND, bytes)?;
        let revocation = Self {
            key: KeyId::from_bytes(id(&set)?),
            at: statement::time(set.issued_at.as_ref(), "no valid iat")?,
            issuer: statement::parsed(set.issuer, "no valid iss")?,
            signed,
        };
        let of: NetworkId = statement::parsed(set.audience, "no valid aud")?;
        if !revocation.signed.is_signed_by(revocation.issuer.as_bytes()) {
            Err(KeyRevocationError::BadSignature)
        } else if of != *network {
            Err(KeyRevocationError::WrongNetwork)
        } else if revocation.at > now + skew {
            Err(KeyRevocationError::FromTheFuture(revocation.at))
        } else {
            Ok(revocation)
        }
    }

    /// Whether it revokes this key of the node `local`: one of the two who share it must have said so.
    pub fn revokes(&self, key: &SharedKey, local: &NodeId) -> bool {
        self.key == key.id && (self.issuer == key.peer || self.issuer == *local)
    }

    /// Who says so.
    pub fn issuer(&self) -> NodeId {
        self.issuer
    }

    /// The key.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// When.
    pub fn at(&self) -> UnixTime {
        self.at
    }

    /// The message, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }
}
