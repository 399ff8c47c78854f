//! The content of an envelope: sealed so that it opens in that envelope only.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand::CryptoRng;
use sha2::{Digest, Sha256};

use super::{Cover, EnvelopeOpenError, EnvelopeSealError, Opener, Sealed, Sealing};
use crate::aead::{AeadKey, CipherFailed};
use crate::dh::{StaticKey, StaticPublic};
use crate::kdf::Derivation;
use crate::shared_key::SharedKey;

/// The info of HPKE, and what sets the associated data apart.
const DOMAIN: &[u8] = b"dawn envelope 1\0";
/// The salt of a symmetric content.
const SALT_BYTES: usize = 32;

impl From<CipherFailed> for EnvelopeSealError {
    fn from(_: CipherFailed) -> Self {
        Self::Key
    }
}

/// By which the holder of several static keys knows which one is meant.
fn key_hint(key: &StaticPublic) -> [u8; 8] {
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// Everything that the envelope says beside the content. All parts have a fixed length but the id of the key, which is the
/// last.
fn associated_data(cover: &Cover, sealed: Sealed) -> Vec<u8> {
    let (kind, receiver) = (sealed.encryption() as u8, cover.receiver);
    [
        DOMAIN,
        cover.network.as_bytes(),
        cover.id.as_bytes(),
        cover.sender.as_bytes(),
        receiver.as_ref().map_or(&[0; 32], |receiver| receiver.as_bytes()),
        &cover.sent.as_secs().to_be_bytes(),
        &cover.expires.as_secs().to_be_bytes(),
        &[kind],
        sealed.key_id(),
    ]
    .concat()
}

/// The key for one envelope, so that random nonces never meet.
fn symmetric(key: &SharedKey, salt: &[u8]) -> Result<AeadKey, CipherFailed> {
    AeadKey::new(&Derivation::new(salt, &[&key.key[..]]).key("dawn envelope 1 symmetric"))
}

pub(super) fn seal<R: CryptoRng + ?Sized>(
    cover: &Cover,
    sealing: Sealing<'_>,
    payload: &[u8],
    mut rng: &mut R,
) -> Result<(Sealed, Vec<u8>), EnvelopeSealError> {
    match sealing {
        Sealing::None(_) => Ok((Sealed::None, payload.to_vec())),
        Sealing::Asymmetric(peer) => {
            let sealed = Sealed::Asymmetric(key_hint(&peer.key));
            let aad = associated_data(cover, sealed);
            let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(peer.key.as_bytes());
            let public = public.map_err(|_| EnvelopeSealError::Key)?;
            let (encapsulated, ciphertext) =
                hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                    &OpModeS::Base,
                    &public,
                    DOMAIN,
                    payload,
                    &aad,
                    &mut rng,
                )
                .map_err(|_| EnvelopeSealError::Key)?;
            Ok((sealed, [encapsulated.to_bytes().as_slice(), &ciphertext].concat()))
        }
        Sealing::Symmetric(key) => {
            if cover.sent >= key.expires {
                return Err(EnvelopeSealError::KeyExpired(key.id));
            }
            let sealed = Sealed::Symmetric(key.id);
            let aad = associated_data(cover, sealed);
            let mut salt = [0; SALT_BYTES];
            rng.fill_bytes(&mut salt);
            let mut content = [&salt[..], payload].concat();
            let text = content.get_mut(SALT_BYTES..).unwrap_or_default();
            let tag = symmetric(key, &salt)?.seal(0, &aad, text)?;
            content.extend_from_slice(&tag);
            Ok((sealed, content))
        }
    }
}

pub(super) fn open(
    cover: &Cover,
    sealed: Sealed,
    content: &[u8],
    opener: &Opener<'_>,
) -> Result<Vec<u8>, EnvelopeOpenError> {
    let aad = associated_data(cover, sealed);
    match sealed {
        Sealed::None if opener.readable => Ok(content.to_vec()),
        Sealed::None => Err(EnvelopeOpenError::NotEncrypted),
        Sealed::Asymmetric(hint) => {
            let is_it = |key: &&StaticKey| key_hint(&key.public()) == hint;
            let key = opener
                .static_keys
                .iter()
                .find(is_it)
                .ok_or(EnvelopeOpenError::UnknownStaticKey)?;
            open_asymmetric(key, content, &aad).ok_or(EnvelopeOpenError::NotAuthentic)
        }
        Sealed::Symmetric(id) => {
            let is_it = |key: &&SharedKey| key.id == id && key.peer == cover.sender;
            let key = opener
                .shared_keys
                .iter()
                .find(is_it)
                .ok_or(EnvelopeOpenError::UnknownSharedKey(id))?;
            if cover.sent >= key.expires {
                return Err(EnvelopeOpenError::KeyExpired(id));
            }
            open_symmetric(key, content, &aad).ok_or(EnvelopeOpenError::NotAuthentic)
        }
    }
}

fn open_asymmetric(key: &StaticKey, content: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let (encapsulated, ciphertext) = content.split_first_chunk::<32>()?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &<X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(key.secret().as_ref()).ok()?,
        &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?,
        DOMAIN,
        ciphertext,
        aad,
    )
    .ok()
}

fn open_symmetric(key: &SharedKey, content: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let (salt, sealed) = content.split_first_chunk::<SALT_BYTES>()?;
    let mut sealed = sealed.to_vec();
    let length = symmetric(key, salt).ok()?.open(0, aad, &mut sealed).ok()?.len();
    sealed.truncate(length);
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// The suite in use, mode base, of the vectors that go with RFC 9180.
    #[test]
    fn hpke_is_that_of_rfc_9180() {
        type Hpke = X25519HkdfSha256;
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
        let ephemeral = hex("2cd7c601cefb3d42a62b04b7a9041494c06c7843818e0ce28a8f704ae7ab20f9");
        let recipient = hex("dac33b0e9db1b59dbbea58d59a14e7b5896e9bdf98fad6891e99d1686492b9ee");
        let (derived, public) = Hpke::derive_keypair(&recipient);
        // As published; the library clamps the bytes of the scalar beforehand.
        let secret = "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d";
        let secret = <Hpke as Kem>::PrivateKey::from_bytes(&hex(secret)).unwrap();
        assert_eq!(Hpke::sk_to_pk(&secret), Hpke::sk_to_pk(&derived));
        assert_eq!(
            public.to_bytes()[..],
            hex("430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c")[..]
        );
        let (info, aad) = (b"Ode on a Grecian Urn", b"Count-0");
        let text = b"Beauty is truth, truth beauty";
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, Hpke>(
            &OpModeS::Base,
            &public,
            info,
            text,
            aad,
            &mut Given(ephemeral),
        )
        .unwrap();
        assert_eq!(
            encapsulated.to_bytes()[..],
            hex("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256")[..]
        );
        let expected = "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a";
        assert_eq!(ciphertext, hex(expected));
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, Hpke>(
            &OpModeR::Base,
            &secret,
            &encapsulated,
            info,
            &ciphertext,
            aad,
        );
        assert_eq!(opened.unwrap(), text);
    }

    /// The randomness of a vector.
    struct Given(Vec<u8>);

    impl rand::TryRng for Given {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            panic!("only bytes are drawn");
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            panic!("only bytes are drawn");
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.copy_from_slice(&self.0.split_off(self.0.len() - bytes.len()));
            Ok(())
        }
    }

    impl rand::TryCryptoRng for Given {}
}
