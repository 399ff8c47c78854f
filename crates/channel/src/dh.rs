//! X25519 (RFC 7748): static keys of nodes, and one exchange of secrets.

use std::fmt;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use rand::CryptoRng;
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::kdf::Secret;

/// The two keys agree on nothing: the public one is of small order, so the outcome would be no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAgreement;

/// The public half of a [`StaticKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StaticPublic([u8; 32]);

impl StaticPublic {
    /// The key with these bytes. All 32 bytes are a key; with some of them nobody can agree on a secret.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key, as RFC 7748 has them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Hexadecimal.
impl fmt::Debug for StaticPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticPublic(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// An X25519 key pair. The secret half is wiped from memory when the value is dropped, and never printed.
#[derive(Clone)]
pub struct StaticKey {
    secret: Secret,
    public: StaticPublic,
}

impl StaticKey {
    /// The key pair of these 32 secret bytes.
    pub fn from_bytes(secret: [u8; 32]) -> Self {
        let secret = Zeroizing::new(secret);
        let scalar = StaticSecret::from(*secret);
        let public = StaticPublic(x25519_dalek::PublicKey::from(&scalar).to_bytes());
        Self { secret, public }
    }

    /// A new key pair from the randomness of `rng`.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self::from_bytes(*secret)
    }

    /// The secret half, for a key file.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// The public half.
    pub fn public(&self) -> StaticPublic {
        self.public
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// Shows the public half only.
impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StaticKey").field(&self.public).finish()
    }
}

/// A secret made ready for several agreements.
pub(crate) struct Agreement {
    key: PrivateKey,
    public: [u8; 32],
}

impl Agreement {
    pub(crate) fn new(secret: &[u8; 32]) -> Result<Self, NoAgreement> {
        let key = PrivateKey::from_private_key(&X25519, secret).map_err(|_| NoAgreement)?;
        let public = key.compute_public_key().map_err(|_| NoAgreement)?;
        let public = public.as_ref().try_into().map_err(|_| NoAgreement)?;
        Ok(Self { key, public })
    }

    pub(crate) fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The secret shared with the holder of `public`.
    pub(crate) fn with(&self, public: &[u8; 32]) -> Result<Secret, NoAgreement> {
        let mut shared = Zeroizing::new([0; 32]);
        agreement::agree(
            &self.key,
            UnparsedPublicKey::new(&X25519, public),
            NoAgreement,
            |secret| {
                let secret = secret.first_chunk::<32>().ok_or(NoAgreement)?;
                shared.copy_from_slice(secret);
                Ok(())
            },
        )?;
        // RFC 7748, section 6.1: a public key of small order makes zeros of every secret.
        if bool::from(shared.ct_eq(&[0; 32])) {
            return Err(NoAgreement);
        }
        Ok(shared)
    }
}
