//! The names that cannot be chosen: [`NodeId`] and [`NetworkId`] are Ed25519 public keys.
//!
//! A node id is written as libp2p writes it: base58btc of the identity multihash of the protobuf-encoded key
//! (`12D3KooW…`). A network id is written as multibase base58btc of the multicodec key (`z6Mk…`, the form `did:key`
//! uses), so that one cannot be taken for the other.

use std::fmt;
use std::str::FromStr;

use crate::bytes::serde_text_or_bytes;
use crate::key::{BadSignature, SIGNATURE_BYTES, verify};

/// Identity multihash (0x00) of 36 bytes (0x24): protobuf field 1 (key type) = 1 (Ed25519), field 2 (data), 32 bytes.
const NODE_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// Multicodec `ed25519-pub` as a varint.
const NETWORK_PREFIX: [u8; 2] = [0xed, 0x01];

/// Why a text is not a [`NodeId`] or a [`NetworkId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not a node id: it should be a base58 peer id of an Ed25519 key.
    #[error("not a node id: expected a peer id such as 12D3KooW…")]
    Node,
    /// Not a network id: it should be the multibase text of an Ed25519 key.
    #[error("not a network id: expected a key such as z6Mk…")]
    Network,
}

/// Who a node is: its Ed25519 public key, which is also its libp2p peer id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// Which network: the public half of the network key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId([u8; 32]);

/// The key behind `prefix` in base58, or `None`. `N` is the length of prefix and key together.
fn decode_key<const N: usize>(text: &str, prefix: &[u8]) -> Option<[u8; 32]> {
    let mut buffer = [0; N];
    // The buffer has no room for more than N bytes, so that a long text is refused early.
    let length = bs58::decode(text).onto(&mut buffer).ok()?;
    buffer.get(..length)?.strip_prefix(prefix)?.try_into().ok()
}

macro_rules! key_id {
    ($type:ident) => {
        impl $type {
            /// The id of the Ed25519 public key with these bytes. Not every 32 bytes are a key: signatures of one that
            /// is none never verify.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The Ed25519 public key.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Checks that the holder of this key signed `message`.
            ///
            /// # Errors
            /// [`BadSignature`] if it did not.
            pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), BadSignature> {
                verify(&self.0, message, signature)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
    };
}
key_id!(NodeId);
key_id!(NetworkId);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode([&NODE_PREFIX[..], &self.0].concat()).into_string())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        decode_key::<38>(text, &NODE_PREFIX).map(Self).ok_or(ParseIdError::Node)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "z{}",
            bs58::encode([&NETWORK_PREFIX[..], &self.0].concat()).into_string()
        )
    }
}

impl FromStr for NetworkId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix('z')
            .and_then(|text| decode_key::<34>(text, &NETWORK_PREFIX))
            .map(Self)
            .ok_or(ParseIdError::Network)
    }
}

serde_text_or_bytes!(NodeId, "a node id");
serde_text_or_bytes!(NetworkId, "a network id");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keypair;

    #[test]
    fn a_node_id_is_written_as_libp2p_writes_it() {
        for seed in 0..32 {
            let theirs = libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).unwrap();
            let ours = Keypair::from_seed([seed; 32]).node_id();
            assert_eq!(ours.to_string(), theirs.public().to_peer_id().to_base58());
            assert_eq!(ours.to_string().parse(), Ok(ours));
        }
    }

    #[test]
    fn ids_are_text_in_json_and_bytes_in_cbor() {
        let key = Keypair::from_seed([3; 32]);
        let (node, network) = (key.node_id(), key.network_id());
        let json = serde_json::to_string(&(node, network)).unwrap();
        assert_eq!(json, format!("[\"{node}\",\"{network}\"]"));
        assert_eq!(
            serde_json::from_str::<(NodeId, NetworkId)>(&json).unwrap(),
            (node, network)
        );
        let mut cbor = Vec::new();
        ciborium::into_writer(&(node, network), &mut cbor).unwrap();
        assert_eq!(cbor.len(), 1 + 2 * (2 + 32));
        assert_eq!(
            ciborium::from_reader::<(NodeId, NetworkId), _>(&cbor[..]).unwrap(),
            (node, network)
        );
    }

    #[test]
    fn one_kind_of_id_is_not_read_as_the_other() {
        let key = Keypair::from_seed([3; 32]);
        assert!(key.network_id().to_string().starts_with("z6Mk"));
        assert!(key.node_id().to_string().starts_with("12D3KooW"));
        assert_eq!(key.network_id().to_string().parse::<NodeId>(), Err(ParseIdError::Node));
        assert_eq!(
            key.node_id().to_string().parse::<NetworkId>(),
            Err(ParseIdError::Network)
        );
        assert_eq!("1".repeat(100_000).parse::<NodeId>(), Err(ParseIdError::Node));
    }
}
