//! What a node says about itself: its record, and its beats.

use dawn_identity::{Keypair, NetworkId, NodeId, NodeName};
use serde::{Deserialize, Serialize};

use crate::summary::AgentSummary;

/// Longest encoded record, bytes.
pub const MAX_RECORD_BYTES: usize = 256 << 10;
/// Longest encoded key binding in a record, bytes.
pub const MAX_BINDING_BYTES: usize = 512;
/// Longest encoded beat, bytes.
pub const MAX_BEAT_BYTES: usize = 512;

const RECORD_LABEL: &[u8] = b"dawn record 1";
const BEAT_LABEL: &[u8] = b"dawn beat 1";

/// The version of a record: a restart counts up the epoch, a change the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Counted up at every start of the node, so that a restarted node never repeats a version.
    pub epoch: u64,
    /// Counted up at every change.
    pub sequence: u64,
}

/// A node's statement of its name, addresses and agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Its network.
    pub network: NetworkId,
    /// Itself.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its certificate chain, encoded: by it everybody can tell that it is a member, whoever passed the record on.
    #[serde(with = "bytes")]
    pub chain: Vec<u8>,
    /// Which statement of its this is.
    pub version: Version,
    /// The version of its software.
    pub software: String,
    /// Multiaddresses at which it can be dialled; others take note of the first sixteen.
    pub addresses: Vec<String>,
    /// Its agents.
    pub agents: Vec<AgentSummary>,
    /// Its binding: which static key is its own, for the secure channel and for envelopes. Empty where it says nothing
    /// of that. Whether it is valid, the caller's `verify` says.
    #[serde(default, with = "bytes", skip_serializing_if = "Vec::is_empty")]
    pub binding: Vec<u8>,
}

/// A node's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// Its network.
    pub network: NetworkId,
    /// Itself.
    pub node: NodeId,
    /// Which sign this is: epoch and number.
    pub version: Version,
    /// Whether it is the last one: the node is shutting down.
    pub leaving: bool,
}

/// Why a record or beat is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than allowed.
    #[error("{length} bytes are more than the limit of {limit}")]
    TooLong {
        /// Bytes that came.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not the CBOR of a record or beat.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Not signed by the node it speaks of.
    #[error("it is not signed by the node it speaks of")]
    BadSignature,
    /// Of another network.
    #[error("it belongs to another network")]
    OtherNetwork,
    /// More nodes than the registry holds.
    #[error("the registry holds {0} nodes, which is its limit")]
    Full(usize),
    /// The node's certificate does not make it a member.
    #[error("it does not come from a member: {0}")]
    NoMember(String),
    /// This node does not accept it, member or not.
    #[error("it is not accepted here: {0}")]
    Refused(String),
    /// The key binding in it is not that of its node.
    #[error("its key binding is not valid: {0}")]
    BadBinding(String),
    /// A beat of a node without a record.
    #[error("nothing is known of its node")]
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(with = "bytes")]
    body: Vec<u8>,
    #[serde(with = "bytes")]
    signature: Vec<u8>,
}

/// Byte strings in CBOR.
pub(crate) mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        match ciborium::Value::deserialize(deserializer)? {
            ciborium::Value::Bytes(bytes) => Ok(bytes),
            _ => Err(serde::de::Error::custom("a byte string was expected")),
        }
    }
}

const DEPTH: usize = 16;

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail, and these types hold nothing that CBOR cannot express.
    let written = ciborium::into_writer(value, &mut bytes);
    debug_assert!(written.is_ok(), "plain data");
    bytes
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH);
    let value = value.map_err(|error| RecordError::Malformed(error.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(RecordError::Malformed("something follows it".into()))
    }
}

fn sign(label: &[u8], body: Vec<u8>, key: &Keypair) -> Vec<u8> {
    let signature = key.sign(&[label, &body].concat()).to_vec();
    encode(&Envelope { body, signature })
}

fn open<T: serde::de::DeserializeOwned>(
    label: &[u8],
    bytes: &[u8],
    limit: usize,
    node: impl Fn(&T) -> NodeId,
) -> Result<T, RecordError> {
    if bytes.len() > limit {
        return Err(RecordError::TooLong {
            length: bytes.len(),
            limit,
        });
    }
    let envelope: Envelope = decode(bytes)?;
    // One statement has one encoding: what spells the same differently is refused, so that bytes can be compared.
    if encode(&envelope) != bytes {
        return Err(RecordError::Malformed("it is not in its one encoding".into()));
    }
    let value: T = decode(&envelope.body)?;
    let signature: [u8; 64] = envelope.signature.try_into().map_err(|_| RecordError::BadSignature)?;
    node(&value)
        .verify(&[label, &envelope.body].concat(), &signature)
        .map_err(|_| RecordError::BadSignature)?;
    Ok(value)
}

impl NodeRecord {
    /// The same record, short enough to be sent: of many agents with many tools it tells fewer tools of each. How many
    /// an agent has, and whether its lists changed, it tells always.
    #[must_use]
    pub fn fit(mut self) -> Self {
        /// Label, signature and envelope.
        const AROUND: usize = 256;
        for most in [32, 8, 2, 0] {
            if encode(&self).len() + AROUND <= MAX_RECORD_BYTES {
                break;
            }
            self.agents.iter_mut().for_each(|agent| agent.tools.truncate(most));
        }
        self
    }

    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, key: &Keypair) -> Vec<u8> {
        sign(RECORD_LABEL, encode(self), key)
    }

    /// Reads signed bytes.
    ///
    /// # Errors
    /// They are too long, malformed, or not signed by the node they speak of.
    pub fn open(bytes: &[u8]) -> Result<Self, RecordError> {
        let record = open(RECORD_LABEL, bytes, MAX_RECORD_BYTES, |record: &Self| record.node)?;
        let length = record.binding.len();
        if length > MAX_BINDING_BYTES {
            let limit = MAX_BINDING_BYTES;
            return Err(RecordError::TooLong { length, limit });
        }
        Ok(record)
    }
}

impl Beat {
    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, key: &Keypair) -> Vec<u8> {
        sign(BEAT_LABEL, encode(self), key)
    }

    /// Reads signed bytes.
    ///
    /// # Errors
    /// They are too long, malformed, or not signed by the node they speak of.
    pub fn open(bytes: &[u8]) -> Result<Self, RecordError> {
        open(BEAT_LABEL, bytes, MAX_BEAT_BYTES, |beat: &Self| beat.node)
    }
}

/// The versions of the records that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Whether this answers another digest: an answer is not answered.
    pub is_answer: bool,
    /// The version of each node's record.
    pub versions: Vec<(NodeId, Version)>,
}

impl Digest {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads bytes that came.
    ///
    /// # Errors
    /// They are too long or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong {
                length: bytes.len(),
                limit: MAX_RECORD_BYTES,
            });
        }
        decode(bytes)
    }
}
