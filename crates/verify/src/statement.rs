//! What the statements here have in common: the labels of their claims, what they count, and their ids.

use ciborium::Value;
use dawn_identity::statement::Signed;
use dawn_identity::statement::claims::{fixed, number};

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

/// The id of a statement. Who signs can make many signatures of one text; they have one id.
pub(crate) fn id_of(domain: &str, signed: &Signed) -> [u8; 32] {
    hash(domain, &[signed.covered()])
}
