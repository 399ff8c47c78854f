//! What the statements of the ledger have in common: the labels of their claims, how long they may be, and amounts.

use ciborium::Value;
use coset::cwt::ClaimsSet;
use dawn_identity::statement::claims::number;
use dawn_identity::statement::{Kind, Signed};

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

/// An amount of credits.
pub(crate) fn amount(value: &Value) -> Option<Credits> {
    Credits::from_amount(number(value)?)
}

/// Bytes as a claim.
pub(crate) fn bytes_value(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}
