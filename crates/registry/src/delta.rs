//! Deltas: what travels. A head, what is new in its set, and what became of the rest.

use std::fmt;
use std::sync::Arc;

use dawn_identity::AgentName;

use crate::clock::Dot;
use crate::head::{Head, HeadId, Parsed, sha256};
use crate::set::{Entry, Rest};
use crate::wire::{self, Malformed, Reader};

/// Longest value, bytes.
pub const MAX_VALUE_BYTES: usize = 32 << 10;
/// Longest encoded delta, bytes.
pub const MAX_DELTA_BYTES: usize = 512 << 10;
/// The first byte of every delta.
const VERSION: u8 = 1;
/// Key, dot and length of a value take no fewer bytes.
const MIN_ENTRY_BYTES: usize = 4;

/// What an element is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// What a node says of itself.
    Node,
    /// One of its agents.
    Agent(AgentName),
}

/// The encoded value of an element. Clones share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    hash: [u8; 32],
    bytes: Arc<[u8]>,
}

impl Value {
    /// The value with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            hash: sha256(bytes),
            bytes: bytes.into(),
        }
    }

    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Their SHA-256.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// Shows how long it is.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.bytes.len())
    }
}

/// One entry of a node's set.
pub type Element = Entry<Key, Value>;

/// A delta as it was read: nothing of it is verified.
#[derive(Debug)]
pub struct Delta {
    pub(crate) head: Parsed,
    pub(crate) added: Vec<Element>,
    pub(crate) rest: Rest,
}

impl Delta {
    /// Reads what came.
    ///
    /// # Errors
    /// [`Malformed`] if it is no delta, longer than any, or not in its one encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_DELTA_BYTES {
            return Err(Malformed("a delta longer than any"));
        }
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(Malformed("a delta of another version"));
        }
        let head = Head::parse(reader.bytes()?).map_err(|error| Malformed(error.0))?;
        let count = reader.count(MIN_ENTRY_BYTES)?;
        let mut added: Vec<Element> = Vec::with_capacity(count);
        for _ in 0..count {
            let element = element(&mut reader)?;
            if added
                .last()
                .is_some_and(|last| (&last.key, last.dot) >= (&element.key, element.dot))
            {
                return Err(Malformed("elements that are not in their order"));
            }
            if !head.head().clock.covers(element.dot) {
                return Err(Malformed("an element that its head does not cover"));
            }
            added.push(element);
        }
        let form = reader.byte()?;
        let dots = dots(&mut reader)?;
        let rest = match form {
            0 => Rest::Without(dots),
            1 => Rest::Only(dots),
            _ => return Err(Malformed("a delta of another form")),
        };
        reader.end()?;
        Ok(Self { head, added, rest })
    }

    /// The id of the head that a delta begins with, without a look at anything else.
    pub(crate) fn peek(bytes: &[u8]) -> Option<HeadId> {
        let mut reader = Reader::new(bytes);
        let is_delta = reader.byte().ok()? == VERSION;
        let head = reader.bytes().ok().filter(|_| is_delta)?;
        Some(HeadId(sha256(head)))
    }

    /// What it says, whether true or not.
    #[must_use]
    pub fn head(&self) -> &Head {
        self.head.head()
    }

    /// What is new, by key and dot.
    #[must_use]
    pub fn added(&self) -> &[Element] {
        &self.added
    }

    /// What becomes of the rest.
    #[must_use]
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Whether it tells the whole set: nothing needs to be known before.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(&self.rest, Rest::Only(kept) if kept.is_empty())
    }
}

/// The bytes of a delta; `added` are sorted by key and dot, the dots of `rest` ascend.
pub(crate) fn encode<'a>(head: &Head, added: impl ExactSizeIterator<Item = &'a Element>, rest: &Rest) -> Vec<u8> {
    let mut out = vec![VERSION];
    wire::put_bytes(&mut out, head.bytes());
    wire::put_number(&mut out, added.len() as u64);
    for element in added {
        wire::put_bytes(&mut out, element.key.as_str().as_bytes());
        wire::put_dot(&mut out, element.dot);
        wire::put_bytes(&mut out, element.value.bytes());
    }
    let (form, dots) = match rest {
        Rest::Without(dots) => (0, dots),
        Rest::Only(dots) => (1, dots),
    };
    out.push(form);
    wire::put_number(&mut out, dots.len() as u64);
    let mut before = NO_DOT;
    for dot in dots {
        let epoch = dot.epoch - before.epoch;
        wire::put_number(&mut out, epoch);
        wire::put_number(&mut out, dot.sequence - if epoch == 0 { before.sequence } else { 0 });
        before = *dot;
    }
    out
}

const NO_DOT: Dot = Dot { epoch: 0, sequence: 0 };

/// Ascending dots, each as what it is more than the one before.
fn dots(reader: &mut Reader<'_>) -> Result<Vec<Dot>, Malformed> {
    let wrong = Malformed("dots that do not ascend");
    let count = reader.count(2)?;
    let mut dots = Vec::with_capacity(count);
    let mut before = NO_DOT;
    for _ in 0..count {
        let (epoch, sequence) = (reader.number()?, reader.number()?);
        if sequence == 0 {
            return Err(wrong);
        }
        let from = if epoch == 0 { before.sequence } else { 0 };
        before = Dot {
            epoch: before.epoch.checked_add(epoch).ok_or(wrong)?,
            sequence: from.checked_add(sequence).ok_or(wrong)?,
        };
        dots.push(before);
    }
    Ok(dots)
}

fn element(reader: &mut Reader<'_>) -> Result<Element, Malformed> {
    let key = match reader.bytes()? {
        [] => Key::Node,
        name => {
            let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            Key::Agent(name.ok_or(Malformed("no valid name of an agent"))?)
        }
    };
    let dot = reader.dot()?;
    if dot.sequence == 0 {
        return Err(Malformed("a write without a number"));
    }
    let value = reader.bytes()?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(Malformed("a value longer than any"));
    }
    let value = Value::new(value);
    Ok(Element { key, dot, value })
}
