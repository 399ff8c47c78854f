//! The key exchange: two nodes agree on a [`SharedKey`] by three signed messages, over whatever carries them.
//!
//! ```text
//!   requester                                                          acceptor
//!      │  KeyRequest { exchange, parties, ephemeral key, times } ──────────▶ │  may ask its owner
//!      │ ◀──────── KeyAcceptance { hash of the request, ephemeral key, MAC } │
//!   has the key                                                              │
//!      │  KeyConfirmation { hash of the acceptance, MAC } ─────────────────▶ │
//!                                                                       has the key
//! ```
//!
//! As in SIGMA, both ephemeral X25519 keys are signed by both (the acceptance holds the hash of the request, the
//! confirmation that of the acceptance), and a MAC of each side under keys of the agreement shows that it holds the secret.
//! The key of a rotation is made of the former key too, so that it is at least as good; a pre-shared key can be rotated into an
//! agreed one in this way.

mod acceptor;
mod message;
mod request;
mod requester;
mod revocation;

use dawn_identity::statement::Malformed;
use dawn_identity::{NodeId, UnixTime};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use acceptor::Acceptor;
pub use message::{MAX_MESSAGE_BYTES, Message, NoMessage, RefusalCode};
pub use request::{KeyRequest, Offer};
pub use requester::Requester;
pub use revocation::{KeyRevocation, KeyRevocationError, MAX_KEY_REVOCATION_BYTES};

use crate::dh::NoAgreement;
use crate::kdf::{Derivation, Secret};
use crate::shared_key::{KeyId, SharedKey};

/// Longest message of an exchange, bytes.
pub const MAX_EXCHANGE_MESSAGE_BYTES: usize = 1024;

/// Why an exchange fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Longer than [`MAX_EXCHANGE_MESSAGE_BYTES`].
    #[error("a message of the key exchange is longer than {MAX_EXCHANGE_MESSAGE_BYTES} bytes")]
    TooLarge,
    /// Not the message that was to come, or a damaged one.
    #[error("the message of the key exchange is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the node it names.
    #[error("the signature of the message is not its sender's")]
    BadSignature,
    /// The message is for another node.
    #[error("the message of the key exchange is for {0}")]
    NotForThisNode(NodeId),
    /// The message is of another network.
    #[error("the message of the key exchange is of another network")]
    WrongNetwork,
    /// Somebody else than the peer of this exchange sent it.
    #[error("the message of the key exchange is from {0}, who has no part in it")]
    WrongPeer(NodeId),
    /// The message is of another exchange, or answers something that was not said.
    #[error("the message is of another key exchange")]
    WrongExchange,
    /// The message is dated in the future. One of the two clocks is wrong.
    #[error("the message of the key exchange is dated in the future, {0}")]
    FromTheFuture(UnixTime),
    /// The exchange took longer than the requester allowed.
    #[error("the key exchange was not complete by {0}")]
    TooLate(UnixTime),
    /// The key would end before it begins, or later than the requester wants.
    #[error("the times of the key do not fit")]
    WrongTimes,
    /// The request renews a key that this node does not share with the requester.
    #[error("the request renews key {0}, which is not there")]
    UnknownFormerKey(KeyId),
    /// The ephemeral key of the peer makes no secret.
    #[error("the peer's ephemeral key makes no secret")]
    NoAgreement,
    /// The peer has not shown that it holds the key.
    #[error("the peer does not hold the key")]
    WrongProof,
    /// A node agrees on no key with itself.
    #[error("a node agrees on no key with itself")]
    Oneself,
}

impl From<Malformed> for ExchangeError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

impl From<NoAgreement> for ExchangeError {
    fn from(_: NoAgreement) -> Self {
        Self::NoAgreement
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What both sides have agreed on: the request, and what the acceptor added to it.
struct Agreed {
    transcript: [u8; 32],
    created: UnixTime,
    expires: UnixTime,
    generation: u32,
    secrets: Derivation,
}

/// What the acceptor says in its answer.
#[derive(Clone, Copy)]
struct Answered {
    ephemeral: [u8; 32],
    created: UnixTime,
    expires: UnixTime,
}

impl Agreed {
    /// `shared` is what the two ephemeral keys make, `former` the key that is renewed.
    fn new(request: &KeyRequest, answered: Answered, shared: &Secret, former: Option<&SharedKey>) -> Self {
        let transcript: [u8; 32] = Sha256::new()
            .chain_update(b"dawn key exchange 1\0")
            .chain_update(request.hash())
            .chain_update(answered.ephemeral)
            .chain_update(answered.created.as_secs().to_be_bytes())
            .chain_update(answered.expires.as_secs().to_be_bytes())
            .finalize()
            .into();
        // Whether there is a former key, the transcript says: both inputs have fixed lengths.
        let former = former.map(|former| &former.key[..]).unwrap_or_default();
        Self {
            transcript,
            created: answered.created,
            expires: answered.expires,
            generation: request.generation(),
            secrets: Derivation::new(&transcript, &[&shared[..], former]),
        }
    }

    fn key(&self, peer: NodeId) -> SharedKey {
        let (id, key) = SharedKey::derived(&self.secrets);
        SharedKey {
            id,
            peer,
            key,
            created: self.created,
            expires: self.expires,
            generation: self.generation,
        }
    }

    fn mac(&self, whose: &str) -> Hmac<Sha256> {
        // A key shorter than the block is padded with zeros (RFC 2104): doing it here leaves nothing that can fail.
        let mut block = Zeroizing::new([0; 64]);
        for (byte, key) in block.iter_mut().zip(self.secrets.key(whose).iter()) {
            *byte = *key;
        }
        Hmac::<Sha256>::new((&*block).into()).chain_update(self.transcript)
    }

    /// Shows that the acceptor holds the key.
    fn acceptor_mac(&self) -> Hmac<Sha256> {
        self.mac("dawn key exchange 1 acceptor")
    }

    /// Shows that the requester does.
    fn requester_mac(&self) -> Hmac<Sha256> {
        self.mac("dawn key exchange 1 requester")
    }
}

fn check_proof(mac: Hmac<Sha256>, proof: &[u8; 32]) -> Result<(), ExchangeError> {
    mac.verify_slice(proof).map_err(|_| ExchangeError::WrongProof)
}
