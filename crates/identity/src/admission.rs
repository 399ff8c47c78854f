//! Admission: how a stranger that holds a ticket becomes a member.
//!
//! ```text
//!  joiner                                              admitter
//!    │  Commit { invite, commitment to nonce, name }  ──▶  │
//!    │  ◀──────────────────────────  Challenge { nonce }   │
//!    │  Reveal { nonce, proof }  ───────────────────────▶  │
//!    │  ◀──  Admitted { chain, … }, or Pending (then       │
//!    │       Admitted or Refused), or Refused { code }     │
//! ```
//!
//! Both sides compute the transcript, a SHA-256 hash over a protocol label, network, admitter, joiner, invite, name and
//! both nonces. The proof is an HMAC of it under the invite's secret, which itself never travels. The safety words are
//! a hash of it too: they come out the same on both sides only if both saw the same values. Because the joiner commits
//! to its nonce before it sees the admitter's, and the admitter chooses its own before it sees the joiner's, nobody in
//! the middle can search for values that make the words agree: one try in 2³³ is all there is.
//!
//! The messages travel on a stream that is encrypted and authenticated for the node ids of both ends; the id of the
//! peer comes from there. [`Joiner`] and [`Admitter`] are the two sides, without I/O; [`AdmissionMessage`] is what they
//! exchange.

mod admitter;
mod joiner;
mod message;
mod transcript;

pub use crate::bytes::{Commitment, Nonce, Proof};
pub use admitter::{Admitter, Verified};
pub use joiner::{Answer, Joiner, Welcome};
pub use message::{
    AdmissionMessage, Admitted, Challenge, Commit, MAX_MESSAGE_BYTES, PROTOCOL_VERSION, RefusalCode, Refused, Renewed,
    Reveal,
};

use crate::{CertificateError, NodeId, RevocationError};

/// Why an admission, or the reading of one of its messages, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("the admission message is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
    /// Not an admission message, or a damaged one.
    #[error("the admission message is malformed")]
    Malformed,
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {0} of the admission protocol, this node version {PROTOCOL_VERSION}")]
    UnsupportedVersion(u64),
    /// A message that does not belong at this point of the protocol.
    #[error("the peer sent a message that does not belong at this point of the admission")]
    OutOfOrder,
    /// The admitter said no.
    #[error("admission was refused ({}): {}", .0.code, .0.message)]
    Refused(Refused),
    /// The joiner does not know the secret of the invite, or somebody altered what was agreed on.
    #[error("the proof that the joiner was invited is wrong")]
    BadProof,
    /// The certificate given to the joiner is not accepted.
    #[error("the certificate given by the admitter is not accepted: {0}")]
    Certificate(#[source] CertificateError),
    /// The certificate given to the joiner is that of another node.
    #[error("the certificate given by the admitter is that of {0}")]
    NotForThisNode(NodeId),
    /// A revocation given to the joiner is not accepted.
    #[error("a revocation given by the admitter is not accepted: {0}")]
    Revocation(#[source] RevocationError),
}
