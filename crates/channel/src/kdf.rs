//! HKDF-SHA256 (RFC 5869) for keys of 32 bytes, each for one purpose that its label names.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// A key, wiped when it is dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// The extracted key of some secrets, from which keys are derived by label.
pub(crate) struct Derivation(Hkdf<Sha256>);

impl Derivation {
    /// HKDF-Extract over the secrets one after the other; each has a length known from `salt` or fixed.
    pub(crate) fn new(salt: &[u8], secrets: &[&[u8]]) -> Self {
        let mut extract = hkdf::HkdfExtract::<Sha256>::new(Some(salt));
        for secret in secrets {
            extract.input_ikm(secret);
        }
        let (mut extracted, derivation) = extract.finalize();
        zeroize::Zeroize::zeroize(extracted.as_mut_slice());
        Self(derivation)
    }

    /// HKDF-Expand: the key that `label` names.
    pub(crate) fn key(&self, label: &str) -> Secret {
        let mut key = Zeroizing::new([0; 32]);
        self.expand(label.as_bytes(), key.as_mut());
        key
    }

    /// HKDF-Expand for up to 8,160 bytes, the most there are.
    pub(crate) fn expand(&self, info: &[u8], bytes: &mut [u8]) {
        let expanded = self.0.expand(info, bytes);
        debug_assert!(expanded.is_ok(), "255 blocks of 32 bytes at most");
    }
}
