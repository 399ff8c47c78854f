//! Recovery secrets: what a person keeps on paper, for when the lock keys are lost or stolen.
//!
//! A secret is the seed of an Ed25519 key, and an opening names the public halves. A recovery is signed with it, so that
//! using a secret does not show it to anybody, as a secret behind a hash would.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use dawn_identity::{Keypair, NetworkId};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of chance in a secret.
const SECRET_BYTES: usize = 20;
/// Bytes of a hash of it, so that a slip of the pen is seen.
const CHECK_BYTES: usize = 5;
/// Characters between two dashes.
const GROUP: usize = 5;

/// Why a text is no recovery secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSecretError {
    /// Another number of characters, or others than letters and the digits 2 to 7.
    #[error("a recovery secret is 40 letters and digits (A to Z, 2 to 7) in groups of five")]
    Shape,
    /// The last characters do not fit the others.
    #[error("the recovery secret has a wrong letter somewhere, or two that changed places")]
    Check,
}

/// A secret that begins the lock anew. Wiped from memory when it is dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoverySecret(Zeroizing<[u8; SECRET_BYTES]>);

fn check(secret: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = Sha256::new_with_prefix(b"dawn lock recovery check\0")
        .chain_update(secret)
        .finalize();
    let mut check = [0; CHECK_BYTES];
    check.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    check
}

impl RecoverySecret {
    /// The secret of these random bytes.
    pub fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key that it stands for in a network.
    pub fn key(&self, network: &NetworkId) -> Keypair {
        let seed = Sha256::new_with_prefix(b"dawn lock recovery key\0")
            .chain_update(network.as_bytes())
            .chain_update(self.0.as_slice())
            .finalize();
        Keypair::from_seed(seed.into())
    }

    /// The text that a person writes down: eight groups of five characters.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend(check(self.0.as_slice()));
        let plain = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        let mut text = Zeroizing::new(String::with_capacity(plain.len() + plain.len() / GROUP));
        for (at, character) in plain.chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(character);
        }
        text
    }
}

impl FromStr for RecoverySecret {
    type Err = ParseSecretError;

    /// Reads the text in upper or lower case, with dashes and spaces anywhere.
    fn from_str(text: &str) -> Result<Self, ParseSecretError> {
        if text.len() > 256 {
            return Err(ParseSecretError::Shape);
        }
        let plain: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|character| *character != '-' && !character.is_whitespace())
                .map(|character| character.to_ascii_uppercase())
                .collect(),
        );
        let bytes = BASE32_NOPAD
            .decode(plain.as_bytes())
            .map_err(|_| ParseSecretError::Shape)?;
        let bytes = Zeroizing::new(bytes);
        let (secret, given) = bytes.split_at_checked(SECRET_BYTES).ok_or(ParseSecretError::Shape)?;
        if given.len() != CHECK_BYTES {
            return Err(ParseSecretError::Shape);
        }
        let secret: [u8; SECRET_BYTES] = secret.try_into().map_err(|_| ParseSecretError::Shape)?;
        if given == check(&secret) {
            Ok(Self::from_bytes(secret))
        } else {
            Err(ParseSecretError::Check)
        }
    }
}

impl fmt::Debug for RecoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoverySecret(…)")
    }
}
