//! What holds for a whole network: its policy, its relays, and where others are found.

use dawn_identity::{NodeId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::encoded::Encoded;

/// `GET /v1/networks/{network}/policy`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDocument {
    /// The signed document. The control plane keeps it as it came; who reads it verifies it.
    pub document: Encoded,
    /// When it was put here.
    pub updated_at: UnixTime,
}

/// `PUT /v1/networks/{network}/policy`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyUpload {
    /// The signed document, at most `limits::MAX_SIGNED_POLICY_BYTES`.
    pub document: Encoded,
}

/// A node and where it can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Which.
    pub node: NodeId,
    /// Multiaddresses, without `/p2p/…`.
    pub addresses: Vec<String>,
}

/// `GET` and `PUT /v1/networks/{network}/bootstrap`: members through which others are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// At most `limits::MAX_CONTACTS`.
    pub nodes: Vec<Contact>,
}

/// A relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Its key.
    pub node: NodeId,
    /// Multiaddresses, without `/p2p/…`.
    pub addresses: Vec<String>,
    /// A static token that it asks for; members show their membership without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// `GET` and `PUT /v1/networks/{network}/relays`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relays {
    /// At most `limits::MAX_CONTACTS`.
    pub relays: Vec<Relay>,
}
