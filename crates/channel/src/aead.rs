//! AES-256-GCM (NIST SP 800-38D), in place, with the nonces of the Noise protocol.
//!
//! `aws-lc-rs` wipes the key when it is dropped.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Length of a key, bytes.
pub(crate) const KEY_BYTES: usize = 32;
/// Length of the tag behind a ciphertext, bytes.
pub(crate) const TAG_BYTES: usize = 16;

/// The cipher refused: there is no memory left, or the text is longer than it takes (64 GiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CipherFailed;

/// A ciphertext that was not made with this key, this nonce and this associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// A key that seals and opens. Whoever holds one sees to it that no number is used twice for sealing.
pub(crate) struct AeadKey(LessSafeKey);

/// Noise, section 12.4: four zero bytes, then the number, big-endian.
fn nonce(number: u64) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

impl AeadKey {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Result<Self, CipherFailed> {
        UnboundKey::new(&AES_256_GCM, key)
            .map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| CipherFailed)
    }

    /// Encrypts `text` where it is; the tag comes back.
    pub(crate) fn seal(&self, number: u64, aad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_BYTES], CipherFailed> {
        self.seal_with(nonce(number), aad, text)
    }

    pub(crate) fn seal_with(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], CipherFailed> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        let tag = tag.map_err(|_| CipherFailed)?;
        tag.as_ref().try_into().map_err(|_| CipherFailed)
    }

    /// Decrypts ciphertext and tag where they are; the plaintext is the front part of them.
    pub(crate) fn open<'a>(&self, number: u64, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], NotAuthentic> {
        self.open_with(nonce(number), aad, sealed)
    }

    pub(crate) fn open_with<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(aad), sealed);
        opened.map_err(|_| NotAuthentic)
    }
}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey")
    }
}
