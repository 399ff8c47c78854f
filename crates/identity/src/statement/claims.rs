//! How the claims of a statement are read: those of the private range (below -65536) by their labels, each required or
//! optional, and the id.
//!
//! No claim is there twice: `coset` refuses a set that has one label two times. Claims that nobody asks for are ignored
//! (RFC 8392, section 3), but where [`Signed::check_canonical`](super::Signed::check_canonical) is asked.

use std::str::FromStr;

use ciborium::Value;
use coset::cwt::{ClaimName, ClaimsSet};

use super::Malformed;

/// The private claim of a label.
pub fn private(claims: &ClaimsSet, label: i64) -> Option<&Value> {
    let wanted = ClaimName::PrivateUse(label);
    let found = claims.rest.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, value)| value)
}

/// The private claim of a label without a copy. It is gone then.
pub fn take(claims: &mut ClaimsSet, label: i64) -> Option<Value> {
    let wanted = ClaimName::PrivateUse(label);
    let place = claims.rest.iter().position(|(name, _)| *name == wanted)?;
    Some(claims.rest.swap_remove(place).1)
}

/// What `read` makes of the private claim of a label.
///
/// # Errors
/// [`Malformed`] with the words of `missing` if it is not there, or nothing that is meant.
pub fn required<T>(
    claims: &ClaimsSet,
    label: i64,
    read: impl FnOnce(&Value) -> Option<T>,
    missing: &'static str,
) -> Result<T, Malformed> {
    private(claims, label).and_then(read).ok_or(Malformed(missing))
}

/// What `read` makes of the private claim of a label, which need not be there.
///
/// # Errors
/// [`Malformed`] with the words of `invalid` if it is there and nothing that is meant.
pub fn optional<T>(
    claims: &ClaimsSet,
    label: i64,
    read: impl FnOnce(&Value) -> Option<T>,
    invalid: &'static str,
) -> Result<Option<T>, Malformed> {
    match private(claims, label) {
        Some(value) => read(value).map(Some).ok_or(Malformed(invalid)),
        None => Ok(None),
    }
}

/// The CWT id (`cti`), so many bytes.
///
/// # Errors
/// [`Malformed`] if there is none, or one of another length.
pub fn id<const N: usize>(claims: &ClaimsSet) -> Result<[u8; N], Malformed> {
    let id = claims.cwt_id.as_deref().and_then(|id| id.try_into().ok());
    id.ok_or(Malformed("no valid cti"))
}

/// A number that is none below zero and fits.
pub fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    let number = u64::try_from(value.as_integer()?).ok()?;
    T::try_from(number).ok()
}

/// So many bytes.
pub fn fixed<const N: usize>(value: &Value) -> Option<[u8; N]> {
    value.as_bytes()?.as_slice().try_into().ok()
}

/// What a text stands for.
pub fn text<T: FromStr>(value: &Value) -> Option<T> {
    value.as_text()?.parse().ok()
}

/// A list, each of its items read alike. How many there may be is for the caller to say; there are never more than a
/// statement has items of CBOR.
pub fn list<T>(value: &Value, read: impl FnMut(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use coset::cwt::ClaimsSetBuilder;

    use super::*;

    const NUMBER: i64 = -70_000;
    const BYTES: i64 = -70_001;
    const TEXT: i64 = -70_002;
    const LIST: i64 = -70_003;
    const NOWHERE: i64 = -70_004;

    fn claims() -> ClaimsSet {
        ClaimsSetBuilder::new()
            .cwt_id(vec![7; 16])
            .private_claim(NUMBER, 300.into())
            .private_claim(BYTES, Value::Bytes(vec![1, 2]))
            .private_claim(TEXT, Value::Text("12".to_owned()))
            .private_claim(LIST, Value::Array(vec![1.into(), 2.into()]))
            .build()
    }

    #[test]
    fn a_claim_is_read_by_its_label_as_what_it_is_meant_to_be() {
        let claims = claims();
        assert_eq!(required(&claims, NUMBER, number, "none"), Ok(300u16));
        assert_eq!(required(&claims, BYTES, fixed, "none"), Ok([1, 2]));
        assert_eq!(required(&claims, TEXT, text, "none"), Ok(12u8));
        let numbers = required(&claims, LIST, |value| list(value, number), "none");
        assert_eq!(numbers, Ok(vec![1u64, 2]));
        assert_eq!(id(&claims), Ok([7; 16]));
        assert_eq!(id::<8>(&claims), Err(Malformed("no valid cti")));
    }

    #[test]
    fn a_claim_that_is_not_what_it_is_meant_to_be_is_refused_and_none_only_where_it_is_required() {
        let claims = claims();
        let none = Malformed("none");
        assert_eq!(required(&claims, NOWHERE, number::<u64>, "none"), Err(none));
        assert_eq!(optional(&claims, NOWHERE, number::<u64>, "none"), Ok(None));
        assert_eq!(optional(&claims, NUMBER, number, "none"), Ok(Some(300u64)));
        assert_eq!(optional(&claims, NUMBER, number::<u8>, "none"), Err(none));
        assert_eq!(optional(&claims, BYTES, fixed::<3>, "none"), Err(none));
        assert_eq!(optional(&claims, NUMBER, text::<u64>, "none"), Err(none));
        let below_zero = ClaimsSetBuilder::new().private_claim(NUMBER, (-1).into()).build();
        assert_eq!(required(&below_zero, NUMBER, number::<u64>, "none"), Err(none));
        let mixed = Value::Array(vec![1.into(), Value::Null]);
        assert_eq!(list(&mixed, number::<u64>), None);
    }

    #[test]
    fn what_was_taken_is_gone() {
        let mut claims = claims();
        assert_eq!(take(&mut claims, BYTES), Some(Value::Bytes(vec![1, 2])));
        assert_eq!(take(&mut claims, BYTES), None);
        assert!(private(&claims, LIST).is_some());
    }
}
