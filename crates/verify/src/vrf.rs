//! A verifiable random function: ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381), by the crate `vrf-rfc9381`.
//!
//! Who holds a key computes from an input bytes that nobody else can know before, and a proof by which everybody can check
//! them after. There is one output for each key and input, so there is nothing to choose.
//!
//! That crate reads a proof in more than one encoding (`s` is reduced, `gamma` is decompressed from any `y`). Here only the
//! encoding that it writes is read. Its maker can still add a point of small order to `gamma`; the output stays the same.
//! So a proof names nothing: what has to be named is named by the output.
//!
//! The key is the Ed25519 key of a node. The nonce of a proof is `SHA-512(prefix ‖ 32 bytes)`, that of a signature
//! `SHA-512(prefix ‖ message)`: nothing that is exactly 32 bytes long may be signed with that key.

use std::fmt;

use dawn_identity::{Keypair, NodeId};
use vrf_rfc9381::ec::edwards25519::EdVrfProof;
use vrf_rfc9381::ec::edwards25519::tai::{EdVrfEdwards25519TaiPublicKey, EdVrfEdwards25519TaiSecretKey};
use vrf_rfc9381::{Proof as _, Prover as _, Verifier as _};

/// Length of a proof, bytes.
pub const PROOF_BYTES: usize = 80;

/// A proof that does not fit the key and the input, or is not in its one encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not fit the key and the input")]
pub struct BadProof;

/// What the function gives. Having one says that a proof of it was made or checked, or that it was kept since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Beta([u8; 64]);

impl Beta {
    /// The output with these bytes, from where it was kept.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Beta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Beta({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// A proof of an output. It is no name of anything: who makes one can make others of the same output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof([u8; PROOF_BYTES]);

impl Proof {
    /// The proof with these bytes; whether it is one is said by [`Proof::verify`].
    pub const fn from_bytes(bytes: [u8; PROOF_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; PROOF_BYTES] {
        &self.0
    }

    /// The output for `alpha` under the key of `by`. That `by` is the key of a member is for the caller to know.
    ///
    /// # Errors
    /// [`BadProof`] if this is no proof of that node and input, or not in its one encoding.
    pub fn verify(&self, by: &NodeId, alpha: &[u8]) -> Result<Beta, BadProof> {
        let proof = EdVrfProof::decode_pi(&self.0).map_err(|_| BadProof)?;
        if proof.encode_to_pi() != self.0 {
            return Err(BadProof);
        }
        let key = EdVrfEdwards25519TaiPublicKey::from_slice(by.as_bytes()).map_err(|_| BadProof)?;
        let beta = key.verify(alpha, proof).map_err(|_| BadProof)?;
        Ok(Beta(beta.into()))
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// The output of `key` for `alpha`, with its proof. The same key and input give the same bytes.
///
/// # Errors
/// [`BadProof`] if no point of the curve is found for `alpha`, which happens to one of 2^255 inputs.
pub fn prove(key: &Keypair, alpha: &[u8]) -> Result<(Proof, Beta), BadProof> {
    let seed = key.seed();
    let prover = EdVrfEdwards25519TaiSecretKey::from_slice(seed.as_slice()).map_err(|_| BadProof)?;
    let proof = prover.prove(alpha).map_err(|_| BadProof)?;
    let beta = proof
        .proof_to_hash(vrf_rfc9381::Ciphersuite::ECVRF_EDWARDS25519_SHA512_TAI)
        .map_err(|_| BadProof)?;
    let bytes = proof.encode_to_pi().try_into().map_err(|_| BadProof)?;
    Ok((Proof(bytes), Beta(beta.into())))
}
