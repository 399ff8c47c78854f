//! Envelopes: messages that stand by themselves, for what is stored, forwarded or flooded.
//!
//! An envelope is a CWT (RFC 8392) signed by its sender: who sent it (`iss`), to whom (`sub`; nobody for a public one), in
//! which network (`aud`), when (`iat`), until when it counts (`exp`), its id (`cti`), and the content, encrypted as its
//! [`Encryption`] says:
//!
//! | | content | for |
//! |---|---|---|
//! | [`Encryption::Asymmetric`] | HPKE (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode: encapsulated key (32), ciphertext, tag | whoever has a binding |
//! | [`Encryption::Symmetric`] | salt (32), AES-256-GCM under a key made of salt and shared key, tag | the peer of a key exchange |
//! | [`Encryption::None`] | the payload | announcements; an opener must ask for it |
//!
//! Everything but the content is the associated data of the encryption: whoever takes the content out of an envelope and
//! signs it as his own gets an envelope that does not open.
//!
//! An envelope is read in three steps: [`Envelope::decode`], [`Envelope::verify`] (whoever carries it can do that),
//! [`VerifiedEnvelope::open`]; and [`ReplayGuard::admit`] between the last two, so that it counts once.

mod content;
mod guard;
mod notice;

use std::fmt;
use std::time::Duration;

use ciborium::Value;
use coset::cwt::ClaimsSetBuilder;
use dawn_identity::statement::claims::{fixed, id, private, required, take};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::claims;
use crate::dh::StaticKey;
use crate::party::KnownPeer;
use crate::shared_key::{KeyId, SharedKey};

pub use guard::{GuardLimits, Remembered, ReplayError, ReplayGuard};
pub use notice::{MAX_KIND_BYTES, NoNotice, Notice};

/// Longest payload, bytes.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;
/// Longest encoded envelope that is read, bytes.
pub const MAX_ENVELOPE_BYTES: usize = MAX_PAYLOAD_BYTES + 1024;

const KIND: Kind = Kind::new("application/dawn-envelope+cwt");

/// How the content of envelopes is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// To the receiver's static key.
    #[default]
    Asymmetric,
    /// Under a key that sender and receiver share.
    Symmetric,
    /// Not at all: everybody on the way can read it.
    None,
}

impl Encryption {
    /// The word on the wire and in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asymmetric => "asymmetric",
            Self::Symmetric => "symmetric",
            Self::None => "none",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Asymmetric, Self::Symmetric, Self::None]
            .into_iter()
            .find(|encryption| encryption.as_str() == word)
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Names an envelope: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopeId([u8; 16]);

impl EnvelopeId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A new one.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Hexadecimal.
impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeId({self})")
    }
}

/// What an envelope says beside its content, and everybody on the way can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    /// Its name.
    pub id: EnvelopeId,
    /// The network of sender and receiver.
    pub network: NetworkId,
    /// Who sent it.
    pub sender: NodeId,
    /// For whom it is; `None` for everybody.
    pub receiver: Option<NodeId>,
    /// When it was sent.
    pub sent: UnixTime,
    /// From when on it does not count any more.
    pub expires: UnixTime,
}

/// For whom an envelope is sealed, and with what.
#[derive(Clone, Copy, Debug)]
pub enum Sealing<'a> {
    /// To this peer's static key.
    Asymmetric(&'a KnownPeer),
    /// To the peer of this key.
    Symmetric(&'a SharedKey),
    /// Readable, to somebody or to everybody.
    None(Option<NodeId>),
}

impl Sealing<'_> {
    /// How that is encrypted.
    pub fn encryption(&self) -> Encryption {
        match self {
            Self::Asymmetric(_) => Encryption::Asymmetric,
            Self::Symmetric(_) => Encryption::Symmetric,
            Self::None(_) => Encryption::None,
        }
    }

    fn receiver(&self) -> Option<NodeId> {
        match self {
            Self::Asymmetric(peer) => Some(peer.node),
            Self::Symmetric(key) => Some(key.peer),
            Self::None(receiver) => *receiver,
        }
    }
}

/// What is put into an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Its name: a new one for each.
    pub id: EnvelopeId,
    /// The network.
    pub network: NetworkId,
    /// When it is sent.
    pub sent: UnixTime,
    /// From when on it does not count any more.
    pub expires: UnixTime,
    /// The message.
    pub payload: &'a [u8],
}

/// Why an envelope cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeSealError {
    /// Longer than [`MAX_PAYLOAD_BYTES`].
    #[error("the message is longer than {MAX_PAYLOAD_BYTES} bytes")]
    TooLarge,
    /// It would expire before it is sent.
    #[error("the message would expire before it is sent")]
    NeverValid,
    /// The shared key has ended.
    #[error("the shared key {0} has ended")]
    KeyExpired(KeyId),
    /// The receiver's static key is none to seal to, or there is no memory for the cipher.
    #[error("nothing can be sealed with the receiver's key")]
    Key,
    /// A time beyond what an envelope can say.
    #[error("the envelope cannot be written: {0}")]
    Malformed(&'static str),
}

impl From<Malformed> for EnvelopeSealError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// Why an envelope is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than [`MAX_ENVELOPE_BYTES`].
    #[error("the envelope is longer than {MAX_ENVELOPE_BYTES} bytes")]
    TooLarge,
    /// Not an envelope, or a damaged one.
    #[error("the envelope is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the sender it names.
    #[error("the signature of the envelope is not its sender's")]
    BadSignature,
    /// It is of another network.
    #[error("the envelope is of another network")]
    WrongNetwork,
    /// It was sent in the future. One of the two clocks is wrong.
    #[error("the envelope was sent in the future, {0}")]
    FromTheFuture(UnixTime),
    /// It does not count any more.
    #[error("the envelope expired at {0}")]
    Expired(UnixTime),
}

impl From<Malformed> for EnvelopeError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// Why an envelope cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeOpenError {
    /// It is for somebody else.
    #[error("the envelope is for somebody else")]
    NotForThisNode,
    /// It is sealed to a static key that this node does not have (any more).
    #[error("the envelope is sealed to a key that this node does not have")]
    UnknownStaticKey,
    /// It is sealed under a shared key that this node does not share with the sender (any more).
    #[error("the envelope is sealed under key {0}, which this node does not share with its sender")]
    UnknownSharedKey(KeyId),
    /// It was sent when the shared key had ended.
    #[error("the envelope was sent when key {0} had ended")]
    KeyExpired(KeyId),
    /// It is not encrypted, and only encrypted ones are wanted.
    #[error("the envelope is not encrypted")]
    NotEncrypted,
    /// The content was sealed for another envelope, or with another key.
    #[error("the content of the envelope is not what was sealed")]
    NotAuthentic,
}

/// What a node opens envelopes with.
#[derive(Clone, Copy, Debug)]
pub struct Opener<'a> {
    /// Who opens.
    pub node: NodeId,
    /// Its static keys, present and former.
    pub static_keys: &'a [StaticKey],
    /// The keys it shares.
    pub shared_keys: &'a [SharedKey],
    /// Whether what is not encrypted is wanted too.
    pub readable: bool,
}

/// How the content was sealed, and with which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sealed {
    /// The first bytes of the hash of the receiver's static key.
    Asymmetric([u8; 8]),
    Symmetric(KeyId),
    None,
}

impl Sealed {
    fn encryption(self) -> Encryption {
        match self {
            Self::Asymmetric(_) => Encryption::Asymmetric,
            Self::Symmetric(_) => Encryption::Symmetric,
            Self::None => Encryption::None,
        }
    }

    fn key_id(&self) -> &[u8] {
        match self {
            Self::Asymmetric(id) => id,
            Self::Symmetric(id) => id.as_bytes(),
            Self::None => &[],
        }
    }
}

/// An envelope. Having one proves nothing: [`Envelope::verify`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    cover: Cover,
    sealed: Sealed,
    content: Vec<u8>,
    signed: Signed,
}

impl Envelope {
    /// Seals a message, in the name of the node that holds `identity`.
    ///
    /// # Errors
    /// [`EnvelopeSealError`] says why not.
    pub fn seal<R: CryptoRng + ?Sized>(
        identity: &Keypair,
        draft: &Draft<'_>,
        sealing: Sealing<'_>,
        rng: &mut R,
    ) -> Result<Self, EnvelopeSealError> {
        if draft.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(EnvelopeSealError::TooLarge);
        }
        if draft.expires <= draft.sent {
            return Err(EnvelopeSealError::NeverValid);
        }
        let cover = Cover {
            id: draft.id,
            network: draft.network,
            sender: identity.node_id(),
            receiver: sealing.receiver(),
            sent: draft.sent,
            expires: draft.expires,
        };
        let (sealed, content) = content::seal(&cover, sealing, draft.payload, rng)?;
        Ok(Self::sign(identity, cover, sealed, content)?)
    }

    fn sign(identity: &Keypair, cover: Cover, sealed: Sealed, content: Vec<u8>) -> Result<Self, Malformed> {
        let mut builder = ClaimsSetBuilder::new()
            .issuer(cover.sender.to_string())
            .audience(cover.network.to_string())
            .expiration_time(statement::date(cover.expires)?)
            .issued_at(statement::date(cover.sent)?)
            .cwt_id(cover.id.as_bytes().to_vec())
            .private_claim(claims::ENCRYPTION, Value::Text(sealed.encryption().as_str().to_owned()))
            .private_claim(claims::CONTENT, Value::Bytes(content.clone()));
        if let Some(receiver) = cover.receiver {
            builder = builder.subject(receiver.to_string());
        }
        if sealed != Sealed::None {
            builder = builder.private_claim(claims::KEY_ID, Value::Bytes(sealed.key_id().to_vec()));
        }
        Ok(Self {
            cover,
            sealed,
            content,
            signed: Signed::sign(KIND, builder.build(), identity)?,
        })
    }

    /// The envelope, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }

    /// Reads an envelope. Nothing is verified yet.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] or [`EnvelopeError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge);
        }
        let (signed, mut set) = Signed::parse(KIND, bytes)?;
        let receiver = match set.subject.take() {
            Some(receiver) => Some(statement::parsed(Some(receiver), "no valid sub")?),
            None => None,
        };
        let read = |encryption: &Value| Encryption::parse(encryption.as_text()?);
        let encryption = required(&set, claims::ENCRYPTION, read, "no valid encryption")?;
        let key_id = "no valid key id";
        let sealed = match encryption {
            Encryption::Asymmetric => Sealed::Asymmetric(required(&set, claims::KEY_ID, fixed, key_id)?),
            Encryption::Symmetric => {
                Sealed::Symmetric(required(&set, claims::KEY_ID, fixed, key_id).map(KeyId::from_bytes)?)
            }
            Encryption::None => Sealed::None,
        };
        if sealed == Sealed::None && private(&set, claims::KEY_ID).is_some() {
            return Err(Malformed(key_id).into());
        }
        if sealed != Sealed::None && receiver.is_none() {
            return Err(Malformed("encrypted to nobody").into());
        }
        let cover = Cover {
            id: id(&set).map(EnvelopeId)?,
            network: statement::parsed(set.audience.take(), "no valid aud")?,
            sender: statement::parsed(set.issuer.take(), "no valid iss")?,
            receiver,
            sent: statement::time(set.issued_at.as_ref(), "no valid iat")?,
            expires: statement::time(set.expiration_time.as_ref(), "no valid exp")?,
        };
        let content = take(&mut set, claims::CONTENT).and_then(|content| content.into_bytes().ok());
        let content = content.ok_or(Malformed("no valid content"))?;
        if cover.expires <= cover.sent {
            return Err(Malformed("expires before it is sent").into());
        }
        Ok(Self {
            cover,
            sealed,
            content,
            signed,
        })
    }

    /// What it says on the outside, whether true or not.
    pub fn cover(&self) -> &Cover {
        &self.cover
    }

    /// How the content is encrypted.
    pub fn encryption(&self) -> Encryption {
        self.sealed.encryption()
    }

    /// Checks that the sender it names sealed it, in this network, and that it counts now. Clocks may be up to `skew`
    /// apart.
    ///
    /// # Errors
    /// [`EnvelopeError`] says why it is not accepted.
    pub fn verify(self, network: &NetworkId, now: UnixTime, skew: Duration) -> Result<VerifiedEnvelope, EnvelopeError> {
        let Cover {
            sender, sent, expires, ..
        } = self.cover;
        if self.cover.network != *network {
            Err(EnvelopeError::WrongNetwork)
        } else if now + skew < sent {
            Err(EnvelopeError::FromTheFuture(sent))
        } else if now >= expires + skew {
            Err(EnvelopeError::Expired(expires))
        } else if !self.signed.is_signed_by(sender.as_bytes()) {
            Err(EnvelopeError::BadSignature)
        } else {
            Ok(VerifiedEnvelope(self))
        }
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("cover", &self.cover)
            .field("encryption", &self.encryption())
            .finish_non_exhaustive()
    }
}

/// An envelope whose sender is who it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEnvelope(Envelope);

impl VerifiedEnvelope {
    /// The envelope itself, to carry it further.
    pub fn as_envelope(&self) -> &Envelope {
        &self.0
    }

    /// What it says on the outside.
    pub fn cover(&self) -> &Cover {
        &self.0.cover
    }

    /// The message in it.
    ///
    /// # Errors
    /// [`EnvelopeOpenError`] says why it cannot be had.
    pub fn open(&self, opener: &Opener<'_>) -> Result<Vec<u8>, EnvelopeOpenError> {
        let Envelope {
            cover, sealed, content, ..
        } = &self.0;
        if cover.receiver.is_some_and(|receiver| receiver != opener.node) {
            return Err(EnvelopeOpenError::NotForThisNode);
        }
        content::open(cover, *sealed, content, opener)
    }
}

/// What a thief would make of an envelope.
#[cfg(test)]
impl Envelope {
    /// The same content, with another cover, signed by the thief.
    pub(crate) fn resigned(&self, thief: &Keypair, change: fn(&mut Cover)) -> Self {
        let mut cover = self.cover;
        cover.sender = thief.node_id();
        change(&mut cover);
        Self::sign(thief, cover, self.sealed, self.content.clone()).unwrap()
    }
}
