//! What the statements of the ledger have in common: how claims are read, and that each meaning has one encoding.

use ciborium::Value;
use coset::cwt::{ClaimName, ClaimsSet};
use coset::{CborSerializable as _, CoseSign1, TaggedCborSerializable as _};
use dawn_identity::SIGNATURE_BYTES;
use dawn_identity::statement::{Kind, Malformed, Signed};

use crate::{Credits, Refused};

/// Private-use claims (below -65536).
pub(crate) mod claim {
    pub(crate) const NUMBER: i64 = -65_600;
    pub(crate) const PREVIOUS: i64 = -65_601;
    pub(crate) const WHAT: i64 = -65_602;
    pub(crate) const HOLD: i64 = -65_610;
    pub(crate) const COUNT: i64 = -65_611;
    pub(crate) const TOTAL: i64 = -65_612;
    pub(crate) const BEFORE: i64 = -65_613;
    pub(crate) const RESULT: i64 = -65_614;
    pub(crate) const DRAW: i64 = -65_615;
    pub(crate) const OUTCOME: i64 = -65_616;
    pub(crate) const AMOUNT: i64 = -65_617;
}

/// Reads a statement of at most so many bytes. The signature is not checked yet.
pub(crate) fn parse(kind: Kind, bytes: &[u8], most: usize) -> Result<(Signed, ClaimsSet), Refused> {
    if bytes.len() > most {
        return Err(Refused::TooLarge);
    }
    Ok(Signed::parse(kind, bytes)?)
}

/// What the signature covers and nothing else: the statement without its signature, which stands at its end.
pub(crate) fn unsigned(signed: &Signed) -> &[u8] {
    let bytes = signed.bytes();
    bytes
        .get(..bytes.len().saturating_sub(SIGNATURE_BYTES))
        .unwrap_or(bytes)
}

/// Refuses a statement that says what these claims say in other bytes, or says more.
pub(crate) fn check_canonical(signed: &Signed, claims: ClaimsSet) -> Result<(), Malformed> {
    const OTHER: Malformed = Malformed("not in the one encoding of what it says");
    let written = CoseSign1::from_tagged_slice(signed.bytes()).map_err(|_| OTHER)?;
    let meant = claims.to_vec().map_err(|_| OTHER)?;
    if written.payload.as_deref() == Some(&meant[..]) {
        Ok(())
    } else {
        Err(OTHER)
    }
}

/// The private claim of a label, if it is there once.
pub(crate) fn private(claims: &ClaimsSet, label: i64) -> Option<&Value> {
    let wanted = ClaimName::PrivateUse(label);
    let mut found = claims.rest.iter().filter(|(name, _)| *name == wanted);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// A number.
pub(crate) fn number(value: &Value) -> Option<u64> {
    u64::try_from(value.as_integer()?).ok()
}

/// An amount of credits.
pub(crate) fn amount(value: &Value) -> Option<Credits> {
    Credits::from_amount(number(value)?)
}

/// So many bytes.
pub(crate) fn bytes<const N: usize>(value: &Value) -> Option<[u8; N]> {
    value.as_bytes()?.as_slice().try_into().ok()
}

/// Bytes as a claim.
pub(crate) fn bytes_value(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}
