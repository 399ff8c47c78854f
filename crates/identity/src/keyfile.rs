//! The text of a key file: a key pair, optionally under a passphrase. Reading and writing the file itself is the
//! caller's part.
//!
//! Without a passphrase:
//! ```text
//! dawn-key 1 plain
//! public z6Mk…
//! seed <64 hexadecimal digits>
//! ```
//! Under a passphrase, with Argon2id (RFC 9106; memory in KiB, passes, lanes) and XChaCha20-Poly1305. Everything above
//! the last line is authenticated with it.
//! ```text
//! dawn-key 1 sealed
//! public z6Mk…
//! argon2id 65536 3 4 <salt, 32 hexadecimal digits>
//! nonce <48 hexadecimal digits>
//! seed <96 hexadecimal digits>
//! ```

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::{Keypair, NetworkId};

const MAGIC: &str = "dawn-key ";
const PLAIN: &str = "dawn-key 1 plain";
const SEALED: &str = "dawn-key 1 sealed";
/// Longest text that [`open`] looks at, bytes.
const MAX_TEXT: usize = 1024;

/// Why a key file could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The key is sealed and no passphrase was given.
    #[error("the key file is sealed: it needs its passphrase")]
    NeedsPassphrase,
    /// The passphrase does not open the seal, or the file was altered: the two cannot be told apart.
    #[error("the passphrase does not open the key file, or the file was altered")]
    WrongPassphrase,
    /// Not a key file, or a damaged one.
    #[error("the key file is damaged: {0}")]
    Malformed(&'static str),
    /// A key file of a version this one does not know.
    #[error("the key file was made by a newer version of Dawn")]
    UnsupportedVersion,
    /// The key derivation or the cipher refused to work, for want of memory for instance.
    #[error("the key could not be derived from the passphrase")]
    Derivation,
}

/// A passphrase: wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl From<String> for Passphrase {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// What Argon2id is asked to spend.
#[derive(Clone, Copy)]
struct Cost {
    /// Memory, KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The second recommended option of RFC 9106, section 4.
    const DEFAULT: Self = Self {
        memory: 64 * 1024,
        passes: 3,
        lanes: 4,
    };
    /// The most that a file may ask for, so that a hostile one can exhaust neither memory nor patience.
    const MAX: Self = Self {
        memory: 256 * 1024,
        passes: 16,
        lanes: 16,
    };

    fn is_bearable(self) -> bool {
        self.memory <= Self::MAX.memory && self.passes <= Self::MAX.passes && self.lanes <= Self::MAX.lanes
    }

    fn derive(self, passphrase: &Passphrase, salt: &[u8; 16]) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
        let parameters = Params::new(self.memory, self.passes, self.lanes, Some(32))
            .map_err(|_| KeyFileError::Malformed("impossible Argon2id parameters"))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into(passphrase.0.as_bytes(), salt, key.as_mut())
            .map_err(|_| KeyFileError::Derivation)?;
        Ok(key)
    }
}

/// The text of a key file with `key`, sealed under `passphrase` if there is one. `rng` gives salt and nonce.
///
/// # Errors
/// [`KeyFileError::Derivation`] if the passphrase could not be turned into a key.
pub fn seal<R: CryptoRng + ?Sized>(
    key: &Keypair,
    passphrase: Option<&Passphrase>,
    rng: &mut R,
) -> Result<Zeroizing<String>, KeyFileError> {
    seal_at(Cost::DEFAULT, key, passphrase, rng)
}

fn seal_at<R: CryptoRng + ?Sized>(
    cost: Cost,
    key: &Keypair,
    passphrase: Option<&Passphrase>,
    rng: &mut R,
) -> Result<Zeroizing<String>, KeyFileError> {
    let public = key.network_id();
    let seed = key.seed();
    let Some(passphrase) = passphrase else {
        let seed = Zeroizing::new(HEXLOWER.encode(seed.as_ref()));
        return Ok(Zeroizing::new(format!(
            "{PLAIN}\npublic {public}\nseed {}\n",
            seed.as_str()
        )));
    };
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut nonce);
    let Cost { memory, passes, lanes } = cost;
    let head = format!(
        "{SEALED}\npublic {public}\nargon2id {memory} {passes} {lanes} {}\nnonce {}\n",
        HEXLOWER.encode(&salt),
        HEXLOWER.encode(&nonce)
    );
    let secret = cost.derive(passphrase, &salt)?;
    let sealed = XChaCha20Poly1305::new((&*secret).into())
        .encrypt(
            XNonce::from_slice(&nonce),
            Payload {
                msg: seed.as_ref(),
                aad: head.as_bytes(),
            },
        )
        .map_err(|_| KeyFileError::Derivation)?;
    Ok(Zeroizing::new(format!("{head}seed {}\n", HEXLOWER.encode(&sealed))))
}

/// The key pair in the text of a key file. A passphrase given for a file that has none is not used.
///
/// # Errors
/// [`KeyFileError`] says what is missing or wrong; nothing of the key is given away.
pub fn open(text: &str, passphrase: Option<&Passphrase>) -> Result<Keypair, KeyFileError> {
    if text.len() > MAX_TEXT {
        return Err(KeyFileError::Malformed("too long"));
    }
    // An editor may have changed the line ends; nothing else about the text is negotiable.
    let text = Zeroizing::new(text.replace("\r\n", "\n"));
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    let key = match first {
        PLAIN => open_plain(lines)?,
        SEALED => open_sealed(text, lines, passphrase.ok_or(KeyFileError::NeedsPassphrase)?)?,
        _ if is_other_version(first) => return Err(KeyFileError::UnsupportedVersion),
        _ => return Err(KeyFileError::Malformed("not a key file")),
    };
    let public = text.split('\n').nth(1).and_then(|line| line.strip_prefix("public "));
    if public.and_then(|public| public.parse().ok()) != Some(NetworkId::from_bytes(key.public())) {
        return Err(KeyFileError::Malformed("the public key does not fit the secret one"));
    }
    Ok(key)
}

/// `dawn-key N …` with a number other than 1.
fn is_other_version(line: &str) -> bool {
    line.strip_prefix(MAGIC)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|version| version.parse::<u32>().ok())
        .is_some_and(|version| version != 1)
}

fn open_plain<'a>(mut lines: impl Iterator<Item = &'a str>) -> Result<Keypair, KeyFileError> {
    let (Some(_public), Some(seed), None) = (lines.next(), lines.next(), lines.next()) else {
        return Err(KeyFileError::Malformed("expected three lines"));
    };
    let seed = Zeroizing::new(hex::<32>(seed, "seed ")?);
    Ok(Keypair::from_seed(*seed))
}

fn open_sealed<'a>(
    text: &str,
    mut lines: impl Iterator<Item = &'a str>,
    passphrase: &Passphrase,
) -> Result<Keypair, KeyFileError> {
    let (Some(_public), Some(derivation), Some(nonce), Some(sealed), None) =
        (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err(KeyFileError::Malformed("expected five lines"));
    };
    let (cost, salt) = parse_derivation(derivation)?;
    let nonce = hex::<24>(nonce, "nonce ")?;
    let head = text.strip_suffix(sealed).unwrap_or_default();
    let sealed = hex::<48>(sealed, "seed ")?;
    let secret = cost.derive(passphrase, &salt)?;
    let seed = XChaCha20Poly1305::new((&*secret).into())
        .decrypt(
            XNonce::from_slice(&nonce),
            Payload {
                msg: &sealed,
                aad: head.as_bytes(),
            },
        )
        .map(Zeroizing::new)
        .map_err(|_| KeyFileError::WrongPassphrase)?;
    let seed: Zeroizing<[u8; 32]> = seed
        .as_slice()
        .try_into()
        .map(Zeroizing::new)
        .map_err(|_| KeyFileError::Malformed("the seed has a wrong length"))?;
    Ok(Keypair::from_seed(*seed))
}

fn parse_derivation(line: &str) -> Result<(Cost, [u8; 16]), KeyFileError> {
    let parts: Vec<&str> = line.split(' ').collect();
    let ["argon2id", memory, passes, lanes, salt] = parts[..] else {
        return Err(KeyFileError::Malformed("expected the parameters of Argon2id"));
    };
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| KeyFileError::Malformed("a parameter of Argon2id is not a number"))
    };
    let cost = Cost {
        memory: number(memory)?,
        passes: number(passes)?,
        lanes: number(lanes)?,
    };
    if !cost.is_bearable() {
        return Err(KeyFileError::Malformed("Argon2id would take too much memory or time"));
    }
    Ok((cost, hex(salt, "")?))
}

/// The `N` bytes written in hexadecimal after `prefix`.
fn hex<const N: usize>(line: &str, prefix: &str) -> Result<[u8; N], KeyFileError> {
    let digits = line
        .strip_prefix(prefix)
        .ok_or(KeyFileError::Malformed("a line is missing or out of order"))?;
    let mut bytes = Zeroizing::new([0; N]);
    match HEXLOWER.decode_len(digits.len()) {
        Ok(length) if length == N => {}
        _ => return Err(KeyFileError::Malformed("a value has a wrong length")),
    }
    HEXLOWER
        .decode_mut(digits.as_bytes(), bytes.as_mut())
        .map_err(|_| KeyFileError::Malformed("a value is not lowercase hexadecimal"))?;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// The least that Argon2id accepts: these tests are about the file, not about the effort.
    const CHEAP: Cost = Cost {
        memory: 8,
        passes: 1,
        lanes: 1,
    };

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::from(text.to_owned())
    }

    fn sealed(seed: u8, words: Option<&Passphrase>) -> (Keypair, Zeroizing<String>) {
        let key = Keypair::from_seed([seed; 32]);
        let text = seal_at(CHEAP, &key, words, &mut StdRng::seed_from_u64(u64::from(seed))).unwrap();
        (key, text)
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_only() {
        let words = passphrase("correct horse");
        let (key, text) = sealed(1, Some(&words));
        assert_eq!(open(&text, Some(&words)).unwrap().node_id(), key.node_id());
        assert_eq!(open(&text, None).unwrap_err(), KeyFileError::NeedsPassphrase);
        assert_eq!(
            open(&text, Some(&passphrase("correct house"))).unwrap_err(),
            KeyFileError::WrongPassphrase
        );
    }

    #[test]
    fn a_key_sealed_at_the_cost_for_people_opens() {
        let words = passphrase("p");
        let key = Keypair::from_seed([1; 32]);
        let text = seal(&key, Some(&words), &mut StdRng::seed_from_u64(1)).unwrap();
        assert!(text.contains("\nargon2id 65536 3 4 "));
        assert_eq!(open(&text, Some(&words)).unwrap().node_id(), key.node_id());
    }

    #[test]
    fn a_plain_key_opens_without_a_passphrase() {
        let (key, text) = sealed(2, None);
        assert_eq!(open(&text, None).unwrap().node_id(), key.node_id());
        assert_eq!(open(&text, Some(&passphrase("x"))).unwrap().node_id(), key.node_id());
        assert_eq!(
            open(&text.replace('\n', "\r\n"), None).unwrap().node_id(),
            key.node_id()
        );
    }

    #[test]
    fn the_format_does_not_change_unnoticed() {
        insta::assert_snapshot!("key_file_plain", sealed(1, None).1.as_str());
        insta::assert_snapshot!("key_file_sealed", sealed(1, Some(&passphrase("p"))).1.as_str());
    }

    #[test]
    fn a_file_that_asks_for_too_much_is_refused() {
        let words = passphrase("p");
        let (_, text) = sealed(1, Some(&words));
        for greedy in [
            "100000000 1 1",
            "8 4000000000 1",
            "8 1 1000",
            "262145 1 1",
            "0 1 1",
            "8 0 1",
        ] {
            let text = text.replace("argon2id 8 1 1", &format!("argon2id {greedy}"));
            assert!(
                matches!(open(&text, Some(&words)), Err(KeyFileError::Malformed(_))),
                "{greedy}"
            );
        }
    }

    #[test]
    fn other_versions_and_other_files_are_told_apart() {
        let (_, text) = sealed(1, None);
        assert_eq!(
            open(&text.replace("dawn-key 1", "dawn-key 2"), None).unwrap_err(),
            KeyFileError::UnsupportedVersion
        );
        for other in [
            "",
            "\n",
            "ssh-ed25519 AAAA",
            "dawn-key",
            "dawn-key one plain",
            &"x".repeat(2000),
        ] {
            assert!(matches!(open(other, None), Err(KeyFileError::Malformed(_))), "{other}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", passphrase("hunter2")), "Passphrase(…)");
    }

    #[test]
    fn any_flipped_bit_in_a_key_file_is_refused() {
        let words = passphrase("p");
        for protection in [None, Some(&words)] {
            let (_, text) = sealed(3, protection);
            for bit in 0..text.len() * 8 {
                let mut bytes = text.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                if let Ok(text) = std::str::from_utf8(&bytes) {
                    assert!(open(text, protection).is_err(), "bit {bit} of {text:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_open_panic(text in "(dawn-key [0-9] (plain|sealed)\n)?(\\PC|\n){0,200}") {
            let opened = open(&text, Some(&passphrase("p")));
            prop_assert!(opened.is_err());
        }
    }
}
