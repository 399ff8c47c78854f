//! What a device signs when it registers: that it holds its key, and for what it uses it this once.
//!
//! Requests of devices are signed too, and bind the same key; the challenge makes a registration a fresh statement of its
//! own that the control plane can keep and show: whose key, which network, which name, at which control plane.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use dawn_identity::{Keypair, NetworkId, NodeId, NodeName, SafetyWords, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Keeps these signatures apart from all others of the same key.
const DOMAIN: &[u8] = b"dawn control registration 1\0";
/// Keeps the words apart from the signature.
const WORDS: &[u8] = b"dawn control words 1\0";

/// A text that is not what was wanted: bytes in unpadded base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0} bytes in unpadded base64url")]
pub struct ParseError(usize);

macro_rules! bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $length]);

        impl $name {
            /// Wraps the bytes.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE64URL_NOPAD.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let read = || {
                    let text = Some(text).filter(|text| text.len() == usize::div_ceil($length * 4, 3))?;
                    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
                };
                read().map(Self).ok_or(ParseError($length))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(bytes: $name) -> Self {
                bytes.to_string()
            }
        }
    };
}

bytes!(
    /// What makes a challenge, and a signed request, different from all others: random bytes.
    Nonce,
    16
);
bytes!(
    /// A device's signature over its challenge.
    ChallengeSignature,
    64
);

/// The answer to a request for a challenge: everything that the device is to sign. The device checks that it says what it
/// asked for before it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The network.
    pub network: NetworkId,
    /// The device.
    pub node: NodeId,
    /// The name under which it registers.
    pub name: NodeName,
    /// From the control plane's randomness.
    pub nonce: Nonce,
    /// The control plane's address, as [`crate::Info::url`] says it.
    pub url: String,
    /// Until when it can be answered.
    pub expires: UnixTime,
}

/// Why an answered challenge is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Its time is over.
    #[error("the challenge expired at {0}")]
    Expired(UnixTime),
    /// It was not signed with the device's key.
    #[error("the challenge was not signed with the device's key")]
    BadSignature,
}

impl Challenge {
    /// What is signed: a domain, and every field behind its length.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        let name = self.name.to_string();
        for field in [
            &self.network.as_bytes()[..],
            self.node.as_bytes(),
            name.as_bytes(),
            self.nonce.as_bytes(),
            self.url.as_bytes(),
            &self.expires.0.to_be_bytes(),
        ] {
            bytes.extend(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend(field);
        }
        bytes
    }

    /// The device's answer.
    pub fn sign(&self, key: &Keypair) -> ChallengeSignature {
        ChallengeSignature(key.sign(&self.to_be_signed()))
    }

    /// Whether the device has answered, in time. That the control plane made the challenge, for this network, itself and
    /// whoever signs the request, and that it is the first answer, is for the caller to check.
    ///
    /// # Errors
    /// [`ChallengeError`] says why not.
    pub fn verify(&self, signature: &ChallengeSignature, now: UnixTime) -> Result<(), ChallengeError> {
        if now >= self.expires {
            return Err(ChallengeError::Expired(self.expires));
        }
        self.node
            .verify(&self.to_be_signed(), &signature.0)
            .map_err(|_| ChallengeError::BadSignature)
    }
}

/// Three words that both sides show, so that who approves a device sees that it is the one at hand. They are a hash over
/// network and device: 33 bits, enough against chance and mistakes. Against somebody who makes keys until one has the same
/// words, the ids are to be compared.
pub fn words(network: &NetworkId, node: &NodeId) -> SafetyWords {
    let hash = Sha256::new()
        .chain_update(WORDS)
        .chain_update(network.as_bytes())
        .chain_update(node.as_bytes());
    SafetyWords::from_hash(&hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge() -> Challenge {
        Challenge {
            network: Keypair::from_seed([1; 32]).network_id(),
            node: Keypair::from_seed([2; 32]).node_id(),
            name: "laptop".parse().unwrap(),
            nonce: Nonce::from_bytes([3; 16]),
            url: "https://control.example".to_owned(),
            expires: UnixTime(1_800_000_000),
        }
    }

    #[test]
    fn only_the_device_itself_answers_and_only_in_time() {
        let (challenge, key) = (challenge(), Keypair::from_seed([2; 32]));
        let signature = challenge.sign(&key);
        assert_eq!(challenge.verify(&signature, UnixTime(1_799_999_999)), Ok(()));
        let late = challenge.verify(&signature, UnixTime(1_800_000_000));
        assert_eq!(late, Err(ChallengeError::Expired(UnixTime(1_800_000_000))));
        let other = challenge.sign(&Keypair::from_seed([4; 32]));
        assert_eq!(challenge.verify(&other, UnixTime(0)), Err(ChallengeError::BadSignature));
    }

    #[test]
    fn every_field_is_bound() {
        let now = UnixTime(0);
        let signature = challenge().sign(&Keypair::from_seed([2; 32]));
        let changes: [fn(&mut Challenge); 5] = [
            |it| it.network = Keypair::from_seed([9; 32]).network_id(),
            |it| it.name = "laptop2".parse().unwrap(),
            |it| it.nonce = Nonce::from_bytes([4; 16]),
            |it| it.url.push('x'),
            |it| it.expires = UnixTime(1_800_000_001),
        ];
        for change in changes {
            let mut changed = challenge();
            change(&mut changed);
            assert_eq!(changed.verify(&signature, now), Err(ChallengeError::BadSignature));
        }
        // What stands at a border belongs to one field: a name cannot lend a letter to the nonce.
        let json = serde_json::to_string(&challenge()).unwrap();
        assert_eq!(serde_json::from_str::<Challenge>(&json).unwrap(), challenge());
    }

    #[test]
    fn a_nonce_has_one_text() {
        let nonce = Nonce::from_bytes([0xff; 16]);
        let text = nonce.to_string();
        assert_eq!(text.len(), 22);
        assert_eq!(text.parse(), Ok(nonce));
        for other in [
            "",
            "AAAA",
            &format!("{text}="),
            &text.replace('w', "x"),
            &"A".repeat(23),
        ] {
            assert!(other.parse::<Nonce>().is_err(), "{other}");
        }
    }
}
