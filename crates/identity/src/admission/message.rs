//! The messages of admission: CBOR maps of a version and one message by its name.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{AdmissionError, Commitment, Nonce, Proof};
use crate::name::is_plain;
use crate::ticket::MAX_ADDRESS_BYTES;
use crate::{CertificateChain, InviteError, InviteId, NetworkName, NodeId, NodeName, Revocation};

/// Longest encoded message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u64 = 1;
/// Longest explanation of a refusal, bytes.
const MAX_EXPLANATION_BYTES: usize = 512;

/// One message of admission, or of the renewal of a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmissionMessage {
    /// Joiner: I hold this invite, and have chosen a nonce.
    Commit(Commit),
    /// Admitter: this is my nonce.
    Challenge(Challenge),
    /// Joiner: this is my nonce, and the proof that I know the secret.
    Reveal(Reveal),
    /// Admitter: you are a member.
    Admitted(Box<Admitted>),
    /// Admitter: a person has to approve; wait for another answer.
    Pending {},
    /// Admitter: no.
    Refused(Refused),
    /// Member: renew my certificate.
    Renew {},
    /// Authority: here it is.
    Renewed(Box<Renewed>),
}

/// The first message, of the joiner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The invite that the joiner holds a ticket of.
    pub invite: InviteId,
    /// Hash of the joiner's nonce and of what is known so far.
    pub commitment: Commitment,
    /// The name the joiner would like.
    pub name: NodeName,
}

/// The answer to a [`Commit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The admitter's nonce.
    pub nonce: Nonce,
}

/// The answer to a [`Challenge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    /// The joiner's nonce.
    pub nonce: Nonce,
    /// HMAC of the transcript under the invite's secret.
    pub proof: Proof,
}

/// The good end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// The joiner's certificate, which also says the name it was given.
    pub chain: CertificateChain,
    /// What people call the network.
    pub network_name: NetworkName,
    /// Members to dial, with their addresses.
    #[serde(deserialize_with = "contacts")]
    pub contacts: Vec<(NodeId, Vec<String>)>,
    /// Revocations that the joiner should know. As many as the size of a message allows; others reach a member later.
    pub revocations: Vec<Revocation>,
}

/// The bad end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for programs.
    pub code: RefusalCode,
    /// Why, for people: one line, up to 512 bytes.
    #[serde(deserialize_with = "explanation")]
    pub message: String,
}

/// A renewed membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The new certificate.
    pub chain: CertificateChain,
}

/// Why admission or renewal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The invite has expired.
    Expired,
    /// The invite has been used up.
    UsedUp,
    /// The invite was withdrawn, or the member that asks for renewal was revoked.
    Revoked,
    /// The admitter has no such invite.
    UnknownInvite,
    /// The proof is wrong.
    BadProof,
    /// Another member has the name.
    NameTaken,
    /// A person said no.
    Denied,
    /// The admitter has too much to do; later it may have less.
    Busy,
    /// The admitter may not admit or renew, or may not do so for this one.
    NotAuthorised,
}

impl RefusalCode {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::UsedUp => "used_up",
            Self::Revoked => "revoked",
            Self::UnknownInvite => "unknown_invite",
            Self::BadProof => "bad_proof",
            Self::NameTaken => "name_taken",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::NotAuthorised => "not_authorised",
        }
    }
}

impl std::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<InviteError> for RefusalCode {
    fn from(error: InviteError) -> Self {
        match error {
            InviteError::Expired => Self::Expired,
            InviteError::UsedUp => Self::UsedUp,
            InviteError::Revoked => Self::Revoked,
        }
    }
}

/// Read first, so that a message of another version is known as such whatever it holds.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

#[derive(Serialize)]
struct Sending<'a> {
    v: u64,
    m: &'a AdmissionMessage,
}

#[derive(Deserialize)]
struct Received {
    m: AdmissionMessage,
}

impl AdmissionMessage {
    /// The message in CBOR.
    ///
    /// # Errors
    /// [`AdmissionError::TooLarge`] if it does not fit [`MAX_MESSAGE_BYTES`]: give fewer contacts or revocations.
    pub fn encode(&self) -> Result<Vec<u8>, AdmissionError> {
        let mut bytes = Vec::new();
        let message = Sending {
            v: PROTOCOL_VERSION,
            m: self,
        };
        ciborium::into_writer(&message, &mut bytes).map_err(|_| AdmissionError::Malformed)?;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(AdmissionError::TooLarge);
        }
        Ok(bytes)
    }

    /// Reads a message: exactly what [`Self::encode`] makes. A new field needs a new version.
    ///
    /// # Errors
    /// [`AdmissionError::TooLarge`], [`AdmissionError::UnsupportedVersion`] or [`AdmissionError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AdmissionError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(AdmissionError::TooLarge);
        }
        let Version { v } = whole(bytes)?;
        if v != PROTOCOL_VERSION {
            return Err(AdmissionError::UnsupportedVersion(v));
        }
        let Received { m } = whole(bytes)?;
        // The same message has other encodings; like everything signed here, it is read in one only.
        if m.encode()? != bytes {
            return Err(AdmissionError::Malformed);
        }
        Ok(m)
    }
}

/// The value in `bytes`, with nothing behind it.
fn whole<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, AdmissionError> {
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).map_err(|_| AdmissionError::Malformed)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(AdmissionError::Malformed)
    }
}

fn contacts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(NodeId, Vec<String>)>, D::Error> {
    let contacts = Vec::<(NodeId, Vec<String>)>::deserialize(deserializer)?;
    let sound = contacts
        .iter()
        .flat_map(|(_, addresses)| addresses)
        .all(|address| is_plain(address, MAX_ADDRESS_BYTES));
    if sound {
        Ok(contacts)
    } else {
        Err(D::Error::custom("an address that cannot be one"))
    }
}

fn explanation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_plain(&text, MAX_EXPLANATION_BYTES) {
        Ok(text)
    } else {
        Err(D::Error::custom("an explanation that is not one line of text"))
    }
}
