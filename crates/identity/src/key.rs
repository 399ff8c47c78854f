//! Ed25519 key pairs (RFC 8032), of nodes and of networks, and the check of their signatures.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::{NetworkId, NodeId};

/// Length of an Ed25519 signature, bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// A signature that does not fit the key and the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit the key and the message")]
pub struct BadSignature;

/// The key pair of a node or of a network. The secret half is wiped from memory when the value is dropped, and never
/// printed.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// The key pair of a 32-byte Ed25519 seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// A new key pair from the randomness of `rng`.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self(SigningKey::from_bytes(&seed))
    }

    /// The secret seed, for handing to the transport or to a key file.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key, bytes.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The id of the node that holds this key.
    pub fn node_id(&self) -> NodeId {
        NodeId::from_bytes(self.public())
    }

    /// The id of the network that this key makes.
    pub fn network_id(&self) -> NetworkId {
        NetworkId::from_bytes(self.public())
    }

    /// Signs `message`. Deterministic: the same message has the same signature.
    ///
    /// A message begins with what it is for, and is never 32 bytes long. The same key makes verifiable random functions
    /// (RFC 9381), whose nonce is SHA-512 over half of the secret and 32 bytes (section 5.4.2.2); Ed25519's is over the same
    /// half and the message. A signature of those very bytes would share the nonce, and the two together give the secret away.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        debug_assert_ne!(
            message.len(),
            32,
            "a proof of RFC 9381 may have the nonce of this signature"
        );
        self.0.sign(message).to_bytes()
    }
}

/// Shows the public half only.
impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({})", self.node_id())
    }
}

/// Checks an Ed25519 signature, strictly: keys of small order and signatures in a second, equivalent form are refused,
/// so that a signature cannot be altered by anyone.
///
/// # Errors
/// [`BadSignature`] if `signature` was not made over `message` with the secret of `public`, or `public` is no key.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), BadSignature> {
    VerifyingKey::from_bytes(public)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .map_err(|_| BadSignature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_signature_fits_its_key_and_message_only() {
        let (key, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        let signature = key.sign(b"dawn");
        assert_eq!(key.node_id().verify(b"dawn", &signature), Ok(()));
        assert_eq!(key.network_id().verify(b"dusk", &signature), Err(BadSignature));
        assert_eq!(other.node_id().verify(b"dawn", &signature), Err(BadSignature));
        assert_eq!(verify(&[0xff; 32], b"dawn", &signature), Err(BadSignature));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "RFC 9381")]
    fn what_could_share_its_nonce_with_a_proof_is_not_signed() {
        Keypair::from_seed([1; 32]).sign(&[7; 32]);
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // The neutral element as key and as commitment, and a zero: it fits the equation for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; SIGNATURE_BYTES];
        signature[0] = 1;
        assert_eq!(verify(&neutral, b"dawn", &signature), Err(BadSignature));
        // The other of the two points that are their own opposites: minus one.
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for message in 0..8u8 {
            assert_eq!(verify(&minus_one, &[message], &signature), Err(BadSignature));
        }
    }

    #[test]
    fn the_key_of_the_first_vector_of_rfc_8032_comes_out() {
        let seed = data_encoding::HEXLOWER
            .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let key = Keypair::from_seed(seed.try_into().unwrap());
        assert_eq!(
            data_encoding::HEXLOWER.encode(&key.public()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn a_generated_key_comes_back_from_its_seed_and_is_not_printed() {
        let key = Keypair::generate(&mut rand::rngs::StdRng::seed_from_u64(1));
        assert_eq!(Keypair::from_seed(*key.seed()).node_id(), key.node_id());
        assert_eq!(format!("{key:?}"), format!("Keypair({})", key.node_id()));
    }
}
