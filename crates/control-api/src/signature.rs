//! Requests signed by a device: HTTP Message Signatures (RFC 9421) with Ed25519.
//!
//! A request has exactly one signature, with the tag `dawn-control`. It covers `@method`, `@authority`, `@path`, `@query`,
//! `content-digest` where there is a body, and such other headers as change what the request does ([`COVERED_HEADERS`]).
//! Its parameters are `created`, `expires` (at most five minutes later), `nonce` (16 random bytes), `keyid` (the device's
//! node id, which is its public key), `alg="ed25519"` and `tag`. Anything else is refused, so that a request means one
//! thing only.
//!
//! ```
//! use dawn_control_api::{challenge::Nonce, limits, signature::{Parts, sign, verify}};
//! use dawn_identity::{Keypair, UnixTime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (device, now) = (Keypair::from_seed([7; 32]), UnixTime(1_800_000_000));
//! let parts = Parts {
//!     method: "POST",
//!     authority: "control.example",
//!     path: "/v1/networks/N/devices/D/heartbeat",
//!     query: None,
//!     headers: &[],
//!     body: br#"{"leaving":true}"#,
//! };
//! let headers = sign(&parts, &device, now, Nonce::from_bytes([1; 16]))?;
//! let verified = verify(&parts, &headers.as_ref(), now, limits::CLOCK_SKEW)?;
//! assert_eq!(verified.node, device.node_id());
//! # Ok(())
//! # }
//! ```

mod base;
#[cfg(test)]
mod tests;

use std::time::Duration;

use dawn_identity::{Keypair, NodeId, UnixTime};

use crate::challenge::Nonce;
use crate::digest::{self, DigestError};
use crate::limits::{MAX_SIGNATURE_VALIDITY, SIGNATURE_VALIDITY};
use base::{Component, Read};

/// The header with what is covered, and how.
pub const SIGNATURE_INPUT: &str = "signature-input";
/// The header with the signature.
pub const SIGNATURE: &str = "signature";
/// Headers that are covered where a request has them: they change what it does.
pub const COVERED_HEADERS: [&str; 3] = ["idempotency-key", "if-match", "if-none-match"];
/// What these signatures are for.
pub const TAG: &str = "dawn-control";
/// The label of a signature that is made here; others are read too.
const LABEL: &str = "dawn";
/// Longest `Signature-Input` that is read, bytes.
const MAX_INPUT_BYTES: usize = 1_024;
/// Longest `Signature` that is read, bytes.
const MAX_SIGNATURE_HEADER_BYTES: usize = 256;
/// Longest value of any component, bytes.
const MAX_VALUE_BYTES: usize = 8_192;

/// What of a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `GET`, `POST`, as sent.
    pub method: &'a str,
    /// The authority of the control plane: host, and port where it is not the scheme's own, in lower case. A server passes
    /// what it knows to be its own, not what the request says.
    pub authority: &'a str,
    /// The path, as sent: it begins with a slash.
    pub path: &'a str,
    /// The query as sent, without `?`.
    pub query: Option<&'a str>,
    /// Those of [`COVERED_HEADERS`] that the request has, by their names in lower case, each once.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// The headers of a signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// `Content-Digest`, where there is a body.
    pub content_digest: Option<String>,
    /// `Signature-Input`
    pub signature_input: String,
    /// `Signature`
    pub signature: String,
}

/// The same, borrowed: from a request that was received. Each header once; who has two of a name refuses the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadersRef<'a> {
    /// `Content-Digest`
    pub content_digest: Option<&'a str>,
    /// `Signature-Input`
    pub signature_input: &'a str,
    /// `Signature`
    pub signature: &'a str,
}

impl Headers {
    /// Borrows them.
    pub fn as_ref(&self) -> HeadersRef<'_> {
        HeadersRef {
            content_digest: self.content_digest.as_deref(),
            signature_input: &self.signature_input,
            signature: &self.signature,
        }
    }
}

/// What a signed request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who signed it.
    pub node: NodeId,
    /// Its nonce, for [`crate::Nonces`].
    pub nonce: Nonce,
    /// When it was signed, by the signer's clock.
    pub created: UnixTime,
    /// Until when it counts, by the signer's clock.
    pub expires: UnixTime,
    /// Until when its nonce is to be remembered: the end, and the skew.
    pub remember_until: UnixTime,
}

/// Why a request is not signed, or cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header is longer than is read, no structured field, or says what is not understood here.
    #[error("the signature is malformed: {0}")]
    Malformed(&'static str),
    /// Something of the request is not covered.
    #[error("the signature does not cover {0}")]
    NotCovered(&'static str),
    /// A part of the request cannot be signed: a line break in it, say.
    #[error("the request cannot be signed: {0}")]
    Unsignable(&'static str),
    /// Signed for longer than is allowed, or ended before it began.
    #[error("the signature is valid for longer than is allowed, or for no time at all")]
    Validity,
    /// Signed in the future.
    #[error("the request was signed in the future, at {0}")]
    FromTheFuture(UnixTime),
    /// Its time is over.
    #[error("the signature of the request expired at {0}")]
    Expired(UnixTime),
    /// The digest is not the body's.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The signature is not that of the named key over this request.
    #[error("the signature does not fit the request")]
    BadSignature,
}

/// Signs a request for a minute.
///
/// # Errors
/// [`SignatureError::Unsignable`] if a part is none of a request.
pub fn sign(parts: &Parts<'_>, key: &Keypair, now: UnixTime, nonce: Nonce) -> Result<Headers, SignatureError> {
    sign_for(parts, key, now, SIGNATURE_VALIDITY, nonce)
}

/// Signs a request for as long as is said.
///
/// # Errors
/// [`SignatureError::Unsignable`] if a part is none of a request.
pub fn sign_for(
    parts: &Parts<'_>,
    key: &Keypair,
    now: UnixTime,
    validity: Duration,
    nonce: Nonce,
) -> Result<Headers, SignatureError> {
    let content_digest = (!parts.body.is_empty()).then(|| digest::of(parts.body));
    let covered: Vec<Component<'_>> = base::components(parts, content_digest.as_deref())?;
    let expires = now + validity;
    let input = base::input(&covered, now, expires, nonce, key.node_id())?;
    let signature = key.sign(base::base(&covered, &input).as_bytes());
    Ok(Headers {
        content_digest,
        signature_input: format!("{LABEL}={input}"),
        signature: base::written(LABEL, &signature),
    })
}

/// Verifies a request. `now` and the signer's clock may be up to `skew` apart. That its nonce is fresh is for the caller
/// to ask of its [`crate::Nonces`].
///
/// # Errors
/// [`SignatureError`] says what is wrong with it.
pub fn verify(
    parts: &Parts<'_>,
    headers: &HeadersRef<'_>,
    now: UnixTime,
    skew: Duration,
) -> Result<Verified, SignatureError> {
    let verified = verify_head(parts, headers, now, skew)?;
    verify_body(parts.body, headers)?;
    Ok(verified)
}

/// Who is named as the signer. Nothing is verified by that.
///
/// # Errors
/// The signature is malformed.
pub fn named(headers: &HeadersRef<'_>) -> Result<NodeId, SignatureError> {
    if headers.signature_input.len() > MAX_INPUT_BYTES {
        return Err(SignatureError::Malformed("a header is too long"));
    }
    Ok(base::read(headers.signature_input)?.node)
}

/// Verifies everything but the body, which may not have come yet: of `parts.body` nothing is read. Only with
/// [`verify_body`] the request is verified.
///
/// # Errors
/// [`SignatureError`] says what is wrong with it.
pub fn verify_head(
    parts: &Parts<'_>,
    headers: &HeadersRef<'_>,
    now: UnixTime,
    skew: Duration,
) -> Result<Verified, SignatureError> {
    if headers.signature_input.len() > MAX_INPUT_BYTES || headers.signature.len() > MAX_SIGNATURE_HEADER_BYTES {
        return Err(SignatureError::Malformed("a header is too long"));
    }
    let Read {
        label,
        covered,
        input,
        created,
        expires,
        nonce,
        node,
    } = base::read(headers.signature_input)?;
    let signature = base::signature(headers.signature, &label)?;
    let available = base::components(parts, headers.content_digest)?;
    let covered = base::choose(&covered, &available)?;
    let validity = expires.0.checked_sub(created.0).filter(|seconds| *seconds > 0);
    if validity.is_none_or(|seconds| seconds > MAX_SIGNATURE_VALIDITY.as_secs()) {
        return Err(SignatureError::Validity);
    }
    if created > now + skew {
        return Err(SignatureError::FromTheFuture(created));
    }
    if now > expires + skew {
        return Err(SignatureError::Expired(expires));
    }
    node.verify(base::base(&covered, &input).as_bytes(), &signature)
        .map_err(|_| SignatureError::BadSignature)?;
    Ok(Verified {
        node,
        nonce,
        created,
        expires,
        remember_until: expires + skew,
    })
}

/// Verifies the body of a request of which [`verify_head`] has verified the rest.
///
/// # Errors
/// [`SignatureError::NotCovered`] if there is a body and no digest of it, [`SignatureError::Digest`] if it is another one.
pub fn verify_body(body: &[u8], headers: &HeadersRef<'_>) -> Result<(), SignatureError> {
    match headers.content_digest {
        Some(header) => Ok(digest::check(header, body)?),
        None if body.is_empty() => Ok(()),
        None => Err(SignatureError::NotCovered(digest::CONTENT_DIGEST)),
    }
}
