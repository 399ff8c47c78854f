//! Noise (revision 34) by `snow`, with the primitives of `aws-lc-rs` and the caller's randomness.
//!
//! `snow` keeps its chaining key in plain memory; [`Noise`] overwrites it when it is dropped.

use aws_lc_rs::digest;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use crate::aead::{AeadKey, TAG_BYTES};
use crate::dh::{Agreement, StaticKey, StaticPublic};
use crate::kdf::Secret;

/// What Noise adds to a payload at most: ephemeral key, encrypted static key, tag.
const MAX_ADDED_BYTES: usize = 32 + 32 + TAG_BYTES + TAG_BYTES;

/// A message that is not of this exchange, or an exchange that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoiseFailed;

impl From<snow::Error> for NoiseFailed {
    /// Why is deliberately lost: all an attacker may learn is that it failed.
    fn from(_: snow::Error) -> Self {
        Self
    }
}

/// Which exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The initiator knows the responder's static key.
    Ik,
    /// First contact.
    Xx,
    /// Both know both static keys and a secret: the rekey of a channel.
    KkPsk0,
}

impl Pattern {
    const fn name(self) -> &'static str {
        match self {
            Self::Ik => "Noise_IK_25519_AESGCM_SHA256",
            Self::Xx => "Noise_XX_25519_AESGCM_SHA256",
            Self::KkPsk0 => "Noise_KKpsk0_25519_AESGCM_SHA256",
        }
    }
}

/// Who speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// What an exchange is begun with.
pub(crate) struct Setup<'a> {
    pub(crate) pattern: Pattern,
    pub(crate) role: Role,
    pub(crate) prologue: &'a [u8],
    pub(crate) local: &'a StaticKey,
    /// The peer's static key, where the pattern knows it beforehand.
    pub(crate) remote: Option<&'a StaticPublic>,
    /// The pre-shared key of [`Pattern::KkPsk0`].
    pub(crate) psk: Option<&'a Secret>,
    /// 32 fresh random bytes.
    pub(crate) ephemeral: Secret,
}

/// What an exchange ends in.
pub(crate) struct Outcome {
    /// The hash of all that was said: the same for both, and for nobody else.
    pub(crate) hash: [u8; 32],
    /// What the initiator seals with.
    pub(crate) initiator: Secret,
    /// What the responder seals with.
    pub(crate) responder: Secret,
}

/// An exchange under way.
pub(crate) struct Noise(Box<HandshakeState>);

impl Noise {
    pub(crate) fn new(setup: Setup<'_>) -> Result<Self, NoiseFailed> {
        let backend = Backend {
            ephemeral: setup.ephemeral,
        };
        let mut builder = Builder::with_resolver(setup.pattern.name().parse()?, Box::new(backend))
            .prologue(setup.prologue)?
            .local_private_key(setup.local.secret().as_ref())?;
        if let Some(remote) = setup.remote {
            builder = builder.remote_public_key(remote.as_bytes())?;
        }
        let mut state = Box::new(match setup.role {
            Role::Initiator => builder.build_initiator()?,
            Role::Responder => builder.build_responder()?,
        });
        if let Some(psk) = setup.psk {
            state.set_psk(0, psk.as_ref())?;
        }
        Ok(Self(state))
    }

    /// The next message, with `payload` in it, behind `front`.
    pub(crate) fn write(&mut self, front: &[u8], payload: &[u8]) -> Result<Vec<u8>, NoiseFailed> {
        let mut message = front.to_vec();
        message.resize(front.len() + payload.len() + MAX_ADDED_BYTES, 0);
        let written = self
            .0
            .write_message(payload, message.get_mut(front.len()..).ok_or(NoiseFailed)?)?;
        message.truncate(front.len() + written);
        Ok(message)
    }

    /// The payload of the peer's message.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseFailed> {
        let mut payload = vec![0; message.len()];
        let read = self.0.read_message(message, &mut payload)?;
        payload.truncate(read);
        Ok(payload)
    }

    /// The peer's static key, once it is known.
    pub(crate) fn remote(&self) -> Option<StaticPublic> {
        let bytes = self.0.get_remote_static()?;
        bytes.first_chunk().copied().map(StaticPublic::from_bytes)
    }

    /// The end of a finished exchange.
    pub(crate) fn finish(mut self) -> Result<Outcome, NoiseFailed> {
        if !self.0.is_handshake_finished() {
            return Err(NoiseFailed);
        }
        let hash = self.0.get_handshake_hash().try_into().map_err(|_| NoiseFailed)?;
        let (mut initiator, mut responder) = self.0.dangerously_get_raw_split();
        let outcome = Outcome {
            hash,
            initiator: Zeroizing::new(initiator),
            responder: Zeroizing::new(responder),
        };
        initiator.zeroize();
        responder.zeroize();
        Ok(outcome)
    }
}

/// `snow` offers no way to wipe the chaining key; a blank state of the same shape written over it does.
impl Drop for Noise {
    fn drop(&mut self) {
        let blank = || -> Result<HandshakeState, snow::Error> {
            let backend = Backend {
                ephemeral: Zeroizing::new([0; 32]),
            };
            Builder::with_resolver("Noise_NN_25519_AESGCM_SHA256".parse()?, Box::new(backend)).build_initiator()
        };
        if let Ok(blank) = blank() {
            *self.0 = blank;
            std::hint::black_box(&mut *self.0);
        }
    }
}

impl std::fmt::Debug for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Noise")
    }
}

/// Gives `snow` its primitives, and the randomness of the caller as its only randomness.
struct Backend {
    ephemeral: Secret,
}

impl CryptoResolver for Backend {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Curve25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256::default()) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm(None)) as Box<dyn Cipher>)
    }
}

/// The 32 random bytes of one exchange; each side of these patterns makes one ephemeral key.
struct Once(Option<Secret>);

impl Random for Once {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(ephemeral) if bytes.len() == ephemeral.len() => {
                bytes.copy_from_slice(ephemeral.as_ref());
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

#[derive(Default)]
struct Curve25519 {
    secret: Secret,
    /// `None` until there is a secret, or if there is no memory for it.
    agreement: Option<Agreement>,
}

impl Dh for Curve25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        if let Some(secret) = secret.first_chunk::<32>() {
            self.secret.copy_from_slice(secret);
            self.agreement = Agreement::new(secret).ok();
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(secret.as_mut())?;
        self.set(secret.as_ref());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.agreement.as_ref().map_or(&[0; 32], |agreement| agreement.public())
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_ref()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // `snow` hands over buffers of the longest key it knows; ours is the front part.
        let public = public.first_chunk::<32>().ok_or(snow::Error::Dh)?;
        let out = out.first_chunk_mut::<32>().ok_or(snow::Error::Dh)?;
        let agreement = self.agreement.as_ref().ok_or(snow::Error::Dh)?;
        let shared = agreement.with(public).map_err(|_| snow::Error::Dh)?;
        out.copy_from_slice(shared.as_ref());
        Ok(())
    }
}

struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.clone().finish();
        for (out, byte) in out.iter_mut().zip(hash.as_ref()) {
            *out = *byte;
        }
    }
}

/// `None` until there is a key, or if there is no memory for it.
struct AesGcm(Option<AeadKey>);

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = AeadKey::new(key).ok();
    }

    fn encrypt(&self, nonce: u64, aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let length = plaintext.len() + TAG_BYTES;
        let sealed = out.split_at_mut_checked(plaintext.len()).and_then(|(text, tag)| {
            let tag = tag.first_chunk_mut::<TAG_BYTES>()?;
            text.copy_from_slice(plaintext);
            *tag = self.0.as_ref()?.seal(nonce, aad, text).ok()?;
            Some(())
        });
        if sealed.is_none() {
            // The interface knows no failure: zeros tell nothing, and the peer refuses them.
            out.iter_mut().take(length).for_each(|byte| *byte = 0);
        }
        length
    }

    fn decrypt(&self, nonce: u64, aad: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let mut text = Zeroizing::new(ciphertext.to_vec());
        let key = self.0.as_ref().ok_or(snow::Error::Decrypt)?;
        let text = key.open(nonce, aad, &mut text).map_err(|_| snow::Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(text);
        Ok(text.len())
    }
}
