//! The claims that this crate's statements have beside those of RFC 8392, all of the private range (below -65536; those
//! down to -65539 are of certificates).

use ciborium::Value;
use coset::cwt::{ClaimName, ClaimsSet};
use dawn_identity::statement::Malformed;

/// How the content of an envelope is encrypted, text.
pub(crate) const ENCRYPTION: i64 = -65_540;
/// The id of the key that it is encrypted with, bytes.
pub(crate) const KEY_ID: i64 = -65_541;
/// The content of an envelope, bytes.
pub(crate) const CONTENT: i64 = -65_542;
/// An ephemeral public key, 32 bytes.
pub(crate) const EPHEMERAL: i64 = -65_543;
/// When a shared key ends, seconds since 1970.
pub(crate) const KEY_EXPIRES: i64 = -65_544;
/// How often a shared key was renewed.
pub(crate) const GENERATION: i64 = -65_545;
/// The SHA-256 of the statement that this one answers, 32 bytes.
pub(crate) const ANSWERS: i64 = -65_546;
/// A MAC that shows who holds a key, 32 bytes.
pub(crate) const PROOF: i64 = -65_547;

/// The private claim with this label.
pub(crate) fn private(claims: &ClaimsSet, label: i64) -> Option<&Value> {
    let wanted = ClaimName::PrivateUse(label);
    claims
        .rest
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value)
}

/// Its bytes.
pub(crate) fn bytes(claims: &ClaimsSet, label: i64) -> Option<&[u8]> {
    private(claims, label)?.as_bytes().map(Vec::as_slice)
}

/// Its bytes, without a copy.
pub(crate) fn take_bytes(claims: &mut ClaimsSet, label: i64) -> Option<Vec<u8>> {
    let wanted = ClaimName::PrivateUse(label);
    let place = claims.rest.iter().position(|(name, _)| *name == wanted)?;
    claims.rest.swap_remove(place).1.into_bytes().ok()
}

/// Its bytes, so many.
pub(crate) fn array<const N: usize>(
    claims: &ClaimsSet,
    label: i64,
    missing: &'static str,
) -> Result<[u8; N], Malformed> {
    bytes(claims, label)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(Malformed(missing))
}

/// Its number.
pub(crate) fn number(claims: &ClaimsSet, label: i64, missing: &'static str) -> Result<u64, Malformed> {
    private(claims, label)
        .and_then(Value::as_integer)
        .and_then(|number| number.try_into().ok())
        .ok_or(Malformed(missing))
}

/// The CWT id, so many bytes.
pub(crate) fn id<const N: usize>(claims: &ClaimsSet) -> Result<[u8; N], Malformed> {
    claims
        .cwt_id
        .as_deref()
        .and_then(|id| id.try_into().ok())
        .ok_or(Malformed("no valid cti"))
}
