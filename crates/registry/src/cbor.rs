//! CBOR of plain data: what a node says of itself and of its agents.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::Malformed;

const DEPTH: usize = 16;

/// Byte strings.
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

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail, and these types hold nothing that CBOR cannot express.
    let written = ciborium::into_writer(value, &mut bytes);
    debug_assert!(written.is_ok(), "plain data");
    bytes
}

/// # Errors
/// [`Malformed`] with `what` it is not.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Malformed> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH);
    let value = value.map_err(|_| Malformed(what))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Malformed("something follows it"))
    }
}
