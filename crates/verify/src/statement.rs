//! What the statements here have in common: their claims, their ids, and that each has one encoding.

use ciborium::Value;
use coset::cwt::{ClaimName, ClaimsSet};
use coset::{CborSerializable as _, CoseSign1, TaggedCborSerializable as _};
use dawn_identity::SIGNATURE_BYTES;
use dawn_identity::statement::{Malformed, Signed};

use crate::Root;
use crate::id::hash;

/// Most items of one part.
pub const MAX_ITEMS: u32 = 65_536;
/// Most bytes of the items of one part together.
pub const MAX_INPUT_BYTES: u64 = 16 << 20;

/// Private-use claims (below -65536).
pub(crate) mod claim {
    pub(crate) const PART: i64 = -65_620;
    pub(crate) const SPEC: i64 = -65_621;
    pub(crate) const INPUT: i64 = -65_622;
    pub(crate) const LIMITS: i64 = -65_623;
    pub(crate) const MOST: i64 = -65_624;
    pub(crate) const RATE: i64 = -65_625;
    pub(crate) const HOLD: i64 = -65_626;
    pub(crate) const JOB: i64 = -65_630;
    pub(crate) const OUTPUT: i64 = -65_631;
    pub(crate) const UNITS: i64 = -65_632;
    pub(crate) const CLASS: i64 = -65_633;
    pub(crate) const AMOUNT: i64 = -65_634;
    pub(crate) const RECORD: i64 = -65_640;
    pub(crate) const WRONG: i64 = -65_641;
}

/// What somebody committed to: items by the root of a tree over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// How many items there are: from 1 to [`MAX_ITEMS`].
    pub items: u32,
    /// How long they are together, bytes.
    pub bytes: u64,
    /// The root of the tree.
    pub root: Root,
}

impl Committed {
    pub(crate) fn to_value(self) -> Value {
        let root = Value::Bytes(self.root.as_bytes().to_vec());
        Value::Array(vec![self.items.into(), self.bytes.into(), root])
    }

    pub(crate) fn from_value(value: &Value) -> Option<Self> {
        let [items, bytes, root] = value.as_array()?.as_slice() else {
            return None;
        };
        let committed = Self {
            items: number(items)?,
            bytes: number(bytes)?,
            root: Root::from_bytes(fixed(root)?),
        };
        (1..=MAX_ITEMS).contains(&committed.items).then_some(committed)
    }
}

/// What work is counted by: tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Tokens that went in.
    pub input: u64,
    /// Tokens that came out.
    pub output: u64,
}

impl Units {
    /// Both together; `None` where that is more than can be counted.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            input: self.input.checked_add(other.input)?,
            output: self.output.checked_add(other.output)?,
        })
    }
}

/// The private claim of a label.
pub(crate) fn private(claims: &ClaimsSet, label: i64) -> Option<&Value> {
    let wanted = ClaimName::PrivateUse(label);
    let found = claims.rest.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, value)| value)
}

/// A number that is none below zero and fits.
pub(crate) fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    let number = u64::try_from(value.as_integer()?).ok()?;
    T::try_from(number).ok()
}

/// So many bytes.
pub(crate) fn fixed<const N: usize>(value: &Value) -> Option<[u8; N]> {
    value.as_bytes()?.as_slice().try_into().ok()
}

/// What of a statement its signature covers, whole and in its one encoding: all of it but the signature, which stands
/// at its end.
fn covered(signed: &Signed) -> &[u8] {
    let bytes = signed.bytes();
    bytes
        .split_at_checked(bytes.len().saturating_sub(SIGNATURE_BYTES))
        .map_or(bytes, |(front, _)| front)
}

/// The id of a statement. Who signs can make many signatures of one text; they have one id.
pub(crate) fn id_of(domain: &str, signed: &Signed) -> [u8; 32] {
    hash(domain, &[covered(signed)])
}

/// Checks that a statement says what it says as `claims`, made of what was read of it, would say it: nothing more, in the
/// same order, each number in its shortest form.
pub(crate) fn is_shortest(signed: &Signed, claims: ClaimsSet) -> Result<(), Malformed> {
    const OTHER: Malformed = Malformed("not in its shortest encoding");
    let written = CoseSign1::from_tagged_slice(signed.bytes()).map_err(|_| OTHER)?;
    let meant = claims.to_vec().map_err(|_| OTHER)?;
    if written.payload.as_deref() == Some(&meant[..]) {
        Ok(())
    } else {
        Err(OTHER)
    }
}
