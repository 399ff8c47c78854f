//! What nodes ask each other: CBOR in its one encoding.

use dawn_identity::NodeId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::key::Key;
use crate::provider::MAX_PROVIDER_BYTES;

/// Longest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Most contacts in an answer.
pub(crate) const MAX_CONTACTS: usize = 20;
/// Most providers in an answer.
pub(crate) const MAX_PROVIDERS: usize = 16;
/// Most addresses of a contact, and the longest.
pub(crate) const MAX_ADDRESSES: usize = 4;
const MAX_ADDRESS_BYTES: usize = 96;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

/// A member, and where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Who it is.
    #[serde(with = "node")]
    pub node: NodeId,
    /// Multiaddresses; what others say of them is a hint.
    pub addresses: Vec<String>,
}

impl Contact {
    /// Itself with no more addresses than travel.
    pub(crate) fn bounded(mut self) -> Self {
        self.addresses.retain(|address| address.len() <= MAX_ADDRESS_BYTES);
        self.addresses.truncate(MAX_ADDRESSES);
        self
    }
}

mod node {
    use dawn_identity::NodeId;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(node: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(node.as_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        serde_bytes::ByteArray::deserialize(deserializer).map(|bytes| NodeId::from_bytes(bytes.into_array()))
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Who is close to the key?
    Nodes(Key),
    /// Who provides what the key stands for, and who is close to it?
    Providers(Key),
    /// Keep this provider's word.
    Keep(ByteBuf),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The closest that the answering node knows.
    pub(crate) closer: Vec<Contact>,
    /// Providers' words.
    pub(crate) providers: Vec<ByteBuf>,
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Nothing that is written here can fail: it goes to memory, and has no maps with odd keys.
    let written = ciborium::into_writer(message, &mut bytes);
    debug_assert!(written.is_ok());
    bytes
}

fn decode<T: for<'de> Deserialize<'de> + Serialize>(bytes: &[u8]) -> Result<T, Malformed> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Malformed("a message longer than any"));
    }
    /// Deeper than any message.
    const DEPTH: usize = 8;
    let message = ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH);
    let message: T = message.map_err(|_| Malformed("no message"))?;
    if encode(&message) != bytes {
        return Err(Malformed("not in its one encoding"));
    }
    Ok(message)
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        match decode(bytes)? {
            Self::Keep(word) if word.len() > MAX_PROVIDER_BYTES => Err(Malformed("a provider's word longer than any")),
            request => Ok(request),
        }
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let answer: Self = decode(bytes)?;
        let is_bounded = |contact: &Contact| *contact == contact.clone().bounded();
        if answer.closer.len() > MAX_CONTACTS || !answer.closer.iter().all(is_bounded) {
            return Err(Malformed("more contacts than an answer has"));
        }
        if answer.providers.len() > MAX_PROVIDERS {
            return Err(Malformed("more providers than an answer has"));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn contact(seed: u8) -> Contact {
        Contact {
            node: Keypair::from_seed([seed; 32]).node_id(),
            addresses: vec!["x".repeat(MAX_ADDRESS_BYTES); MAX_ADDRESSES],
        }
    }

    #[test]
    fn the_longest_answer_fits() {
        let answer = Answer {
            closer: (0..20).map(contact).collect(),
            providers: vec![ByteBuf::from([7; 300]); MAX_PROVIDERS],
        };
        let bytes = answer.encode();
        assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{}", bytes.len());
        assert_eq!(Answer::decode(&bytes), Ok(answer.clone()));
        let more = Answer {
            closer: (0..21).map(contact).collect(),
            ..answer
        };
        assert!(Answer::decode(&more.encode()).is_err());
    }

    #[test]
    fn requests_come_back() {
        for request in [
            Request::Nodes(Key::capability("a")),
            Request::Providers(Key::capability("b")),
            Request::Keep(ByteBuf::from([1; MAX_PROVIDER_BYTES])),
        ] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        assert!(Request::decode(&Request::Keep(ByteBuf::from([1; MAX_PROVIDER_BYTES + 1])).encode()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
