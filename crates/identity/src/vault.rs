//! Secrets that a node keeps at rest, sealed under a key that only its identity key gives.
//!
//! XChaCha20-Poly1305 under the SHA-256 of a domain and the seed, both of fixed length; `label` is authenticated, so that a secret cannot be put in the
//! place of another.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::Keypair;

/// What sets this key apart from everything else made of the seed.
const DOMAIN: &[u8] = b"dawn vault v1\0";
/// Bytes of the nonce before what is sealed.
const NONCE_BYTES: usize = 24;

/// What is kept cannot be read with this key, or was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kept secret was altered, or sealed under another key")]
pub struct VaultError;

/// Seals and opens a node's kept secrets.
#[derive(Clone)]
pub struct Vault(Zeroizing<[u8; 32]>);

impl Vault {
    /// The vault of the node that holds `key`.
    pub fn new(key: &Keypair) -> Self {
        let mut hash = Sha256::new_with_prefix(DOMAIN);
        hash.update(key.seed().as_ref());
        Self(Zeroizing::new(hash.finalize().into()))
    }

    /// Seals `secret` for the place `label`: 24 bytes of nonce, then the ciphertext with its tag of 16 bytes.
    ///
    /// # Errors
    /// [`VaultError`] if `secret` is longer than the cipher can seal (256 GiB).
    pub fn seal<R: CryptoRng + ?Sized>(&self, label: &str, secret: &[u8], rng: &mut R) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let payload = Payload {
            msg: secret,
            aad: label.as_bytes(),
        };
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| VaultError)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what [`Vault::seal`] sealed for the place `label`.
    ///
    /// # Errors
    /// [`VaultError`] if it was altered, or sealed under another key or for another place.
    pub fn open(&self, label: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(VaultError)?;
        let payload = Payload {
            msg: sealed,
            aad: label.as_bytes(),
        };
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let secret = cipher
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| VaultError)?;
        Ok(Zeroizing::new(secret))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_in_its_place_with_its_key_and_unaltered() {
        let vault = Vault::new(&Keypair::from_seed([7; 32]));
        let sealed = vault.seal("a", b"secret", &mut rand::rng()).unwrap();
        assert_eq!(vault.open("a", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(vault.open("b", &sealed), Err(VaultError));
        assert_eq!(
            Vault::new(&Keypair::from_seed([8; 32])).open("a", &sealed),
            Err(VaultError)
        );
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(vault.open("a", &altered), Err(VaultError));
            assert_eq!(vault.open("a", &sealed[..at]), Err(VaultError));
        }
    }
}
