//! Deltas: what travels. A head, what is new in its set, and what became of the rest.

use std::fmt;
use std::sync::Arc;

use dawn_identity::{AgentName, NodeId, SIGNATURE_BYTES};

use crate::clock::Clock;
use crate::dots::Dots;
use crate::head::{Head, Parsed, sha256};
use crate::set::{Entry, Rest};
use crate::wire::{self, Malformed, Reader};

/// Longest value, bytes.
pub const MAX_VALUE_BYTES: usize = 32 << 10;
/// Longest encoded delta, bytes.
pub const MAX_DELTA_BYTES: usize = 512 << 10;
/// Most dots that a delta names: runs of them take a few bytes, whatever their length.
pub const MAX_DOTS: usize = 1 << 16;
/// Shortest encoded delta, bytes: version, node, a clock of nothing, two numbers, digest and signature; no elements, form,
/// no dots.
pub(crate) const MIN_DELTA_BYTES: usize = 1 + 32 + 2 + 2 + 32 + SIGNATURE_BYTES + 3;
/// The first byte of every delta.
const VERSION: u8 = 2;
/// The last version that there may be: so that most of what begins with any other byte is no delta of any version.
const LAST_VERSION: u8 = 15;
/// Key, dot and length of a value take no fewer bytes.
const MIN_ENTRY_BYTES: usize = 4;
/// Incarnation, first number and how many more take no fewer bytes.
const MIN_RUN_BYTES: usize = 3;

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
        let (head, rest) = Self::begin(bytes)?;
        Self::finish(head, rest)
    }

    /// Whom the head of a delta names, where the bytes are long enough for one: nothing else of it is read. It may be a
    /// lie, or no delta at all.
    #[must_use]
    pub fn speaker(bytes: &[u8]) -> Option<NodeId> {
        if !(MIN_DELTA_BYTES..=MAX_DELTA_BYTES).contains(&bytes.len()) {
            return None;
        }
        let mut reader = Reader::new(bytes);
        let version = reader.byte().ok()?;
        reader.node().ok().filter(|_| version == VERSION)
    }

    /// The version of bytes that may be a delta of a later one.
    pub(crate) fn later_version(bytes: &[u8]) -> Option<u8> {
        let version = bytes.first().copied()?;
        let is_later = version > VERSION && version <= LAST_VERSION;
        let may_be = (MIN_DELTA_BYTES..=MAX_DELTA_BYTES).contains(&bytes.len());
        (is_later && may_be).then_some(version)
    }

    /// Reads the head with which a delta begins; what follows it is left.
    pub(crate) fn begin(bytes: &[u8]) -> Result<(Parsed, Reader<'_>), Malformed> {
        if bytes.len() > MAX_DELTA_BYTES {
            return Err(Malformed("a delta longer than any"));
        }
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(Malformed("a delta of another version"));
        }
        Ok((Head::read(&mut reader)?, reader))
    }

    /// Reads what follows the head.
    pub(crate) fn finish(head: Parsed, mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.count(MIN_ENTRY_BYTES)?;
        let mut added: Vec<Element> = Vec::with_capacity(count);
        for _ in 0..count {
            let element = element(&mut reader, &head.head().clock)?;
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
        let dots = dots(&mut reader, &head.head().clock)?;
        let rest = match form {
            0 => Rest::Without(dots),
            1 => Rest::Only(dots),
            _ => return Err(Malformed("a delta of another form")),
        };
        reader.end()?;
        Ok(Self { head, added, rest })
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

/// The bytes of a delta; `added` are sorted by key and dot.
pub(crate) fn encode<'a>(head: &Head, added: impl ExactSizeIterator<Item = &'a Element>, rest: &Rest) -> Vec<u8> {
    let clock = head.clock();
    let mut out = vec![VERSION];
    out.extend_from_slice(head.bytes());
    wire::put_number(&mut out, added.len() as u64);
    for element in added {
        wire::put_bytes(&mut out, element.key.as_str().as_bytes());
        wire::put_dot_under(&mut out, clock, element.dot);
        wire::put_bytes(&mut out, element.value.bytes());
    }
    let (form, dots) = match rest {
        Rest::Without(dots) => (0, dots),
        Rest::Only(dots) => (1, dots),
    };
    out.push(form);
    put_dots(&mut out, clock, dots);
    out
}

/// Incarnation, first number, how many more follow each other.
fn put_dots(out: &mut Vec<u8>, clock: &Clock, dots: &Dots) {
    wire::put_number(out, dots.runs().len() as u64);
    for (first, last) in dots.runs() {
        wire::put_dot_under(out, clock, *first);
        wire::put_number(out, last - first.sequence);
    }
}

fn dots(reader: &mut Reader<'_>, clock: &Clock) -> Result<Dots, Malformed> {
    let runs = reader.count(MIN_RUN_BYTES)?;
    let (mut dots, mut room) = (Dots::default(), MAX_DOTS as u64);
    for _ in 0..runs {
        let (first, more) = (reader.dot_under(clock)?, reader.number()?);
        let (last, left) = (
            first.sequence.checked_add(more),
            room.checked_sub(more.saturating_add(1)),
        );
        let (Some(last), Some(left)) = (last, left) else {
            return Err(Malformed("more dots than a delta names"));
        };
        if !dots.push(first, last) {
            return Err(Malformed("dots that do not ascend, or not in runs"));
        }
        room = left;
    }
    Ok(dots)
}

fn element(reader: &mut Reader<'_>, clock: &Clock) -> Result<Element, Malformed> {
    let key = match reader.bytes()? {
        [] => Key::Node,
        name => {
            let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            Key::Agent(name.ok_or(Malformed("no valid name of an agent"))?)
        }
    };
    let dot = reader.dot_under(clock)?;
    let value = reader.bytes()?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(Malformed("a value longer than any"));
    }
    let value = Value::new(value);
    Ok(Element { key, dot, value })
}
