//! Fixed-size byte strings that are not secret: text where a person reads them, bytes on the wire.

use std::fmt;

/// Why a text is not a byte string of the size wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0} bytes in lowercase hexadecimal")]
pub struct ParseBytesError(pub usize);

/// Serde as text (`Display`, `FromStr`) in formats a person reads, as a byte string in all others. The type has
/// `as_bytes(&self) -> &[u8; N]` and `from_bytes([u8; N])`.
macro_rules! serde_text_or_bytes {
    ($type:ident, $expecting:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(self.as_bytes())
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<$type, E> {
                        bytes
                            .try_into()
                            .map($type::from_bytes)
                            .map_err(|_| E::invalid_length(bytes.len(), &self))
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_bytes(Visitor)
                }
            }
        }
    };
}
pub(crate) use serde_text_or_bytes;

macro_rules! byte_string {
    ($(#[$doc:meta])* $name:ident, $len:literal, $expecting:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps the bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes themselves.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        /// Lowercase hexadecimal.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseBytesError;

            fn from_str(text: &str) -> Result<Self, ParseBytesError> {
                data_encoding::HEXLOWER
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or(ParseBytesError($len))
            }
        }

        serde_text_or_bytes!($name, $expecting);
    };
}

byte_string!(
    /// Names an invite at the node that keeps it. Not secret: it travels in the clear inside admission.
    InviteId,
    8,
    "an invite id of 8 bytes"
);
byte_string!(
    /// The serial number of a certificate, from random bytes (the CWT claim `cti`).
    Serial,
    16,
    "a serial number of 16 bytes"
);
byte_string!(
    /// A party's random contribution to one admission.
    Nonce,
    32,
    "a nonce of 32 bytes"
);
byte_string!(
    /// The hash by which a joiner commits to its nonce before it sees the admitter's.
    Commitment,
    32,
    "a commitment of 32 bytes"
);
byte_string!(
    /// The joiner's proof that it knows the secret of the invite.
    Proof,
    32,
    "a proof of 32 bytes"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_id_reads_back_from_its_text() {
        let id = InviteId::from_bytes([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(id.to_string(), "00010203fcfdfeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00010203fcfdfe".parse::<InviteId>(), Err(ParseBytesError(8)));
        assert_eq!("00010203FCFDFEFF".parse::<InviteId>(), Err(ParseBytesError(8)));
    }
}
