//! Beats: a node's signed signs of life.

use dawn_identity::{Keypair, NetworkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::cbor::{self, bytes};
use crate::wire::Malformed;

/// Longest encoded beat, bytes.
pub const MAX_BEAT_BYTES: usize = 512;

const LABEL: &[u8] = b"dawn beat 1";
const NONE: &str = "not a beat";

/// Which beat of a node it is; a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The incarnation of the node.
    pub epoch: u64,
    /// Counted up from beat to beat.
    pub sequence: u64,
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

/// Why a beat is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeatError {
    /// Not a beat, longer than any, or not in its one encoding.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Not signed by the node it speaks of.
    #[error("it is not signed by the node it speaks of")]
    BadSignature,
    /// Of another network.
    #[error("it belongs to another network")]
    OtherNetwork,
    /// More nodes than there is room for.
    #[error("{0} nodes are watched, which is the limit")]
    Full(usize),
    /// Its node is not known.
    #[error("nothing is known of its node")]
    Unknown,
}

impl BeatError {
    /// A stable word for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "beat_malformed",
            Self::BadSignature => "beat_bad_signature",
            Self::OtherNetwork => "beat_other_network",
            Self::Full(_) => "beat_full",
            Self::Unknown => "beat_unknown",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    #[serde(with = "bytes")]
    body: Vec<u8>,
    #[serde(with = "bytes")]
    signature: Vec<u8>,
}

impl Beat {
    /// The signed bytes.
    #[must_use]
    pub fn sign(&self, key: &Keypair) -> Vec<u8> {
        let body = cbor::encode(self);
        let signature = key.sign(&[LABEL, &body].concat()).to_vec();
        cbor::encode(&Envelope { body, signature })
    }

    /// Reads signed bytes.
    ///
    /// # Errors
    /// They are too long, malformed, or not signed by the node they speak of.
    pub fn open(bytes: &[u8]) -> Result<Self, BeatError> {
        if bytes.len() > MAX_BEAT_BYTES {
            return Err(Malformed("a beat longer than any").into());
        }
        let envelope: Envelope = cbor::decode(bytes, NONE)?;
        // One statement has one encoding: what spells the same differently is refused, so that bytes can be compared.
        if cbor::encode(&envelope) != bytes {
            return Err(Malformed("a beat that is not in its one encoding").into());
        }
        let beat: Self = cbor::decode(&envelope.body, NONE)?;
        let signature: [u8; 64] = envelope.signature.try_into().map_err(|_| BeatError::BadSignature)?;
        beat.node
            .verify(&[LABEL, &envelope.body].concat(), &signature)
            .map_err(|_| BeatError::BadSignature)?;
        Ok(beat)
    }
}
