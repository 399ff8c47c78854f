//! The messages of a session.

use super::range::{FINGERPRINT_BYTES, WIDTH};
use crate::owner::{Known, MAX_HEADS};
use crate::wire::{self, Malformed, Reader};

/// Longest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

const OPEN: u8 = 0;
const ALL: u8 = 1;
const STEP: u8 = 2;
const HAS: u8 = 3;
const WANT: u8 = 4;
const RAW: u8 = 5;
const LZ4: u8 = 6;
const END: u8 = 7;

/// A place, a number of heads.
const MIN_HAS_BYTES: usize = 9;
/// A clock of nothing, and the front of an id.
const MIN_KNOWN_BYTES: usize = 10;

/// What somebody has of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Has {
    /// The first eight bytes of the node's id.
    pub(crate) place: u64,
    pub(crate) heads: Vec<Known>,
}

/// A message as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Whether it is the other side's turn with this.
    pub is_last: bool,
    /// What is said.
    pub said: Said<'a>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<'a> {
    /// Begins a comparison.
    Open {
        /// How many heads the sender has.
        heads: u64,
        /// The root of its snapshot, with which everything else is salted.
        root: [u8; 16],
        /// The fingerprints of its sixteen widest ranges.
        parts: &'a [u8],
    },
    /// Begins without one: the sender has nothing but what it lists.
    All,
    /// A piece of what the sender makes of the fingerprints that came.
    Step(&'a [u8]),
    /// What the sender has of some nodes.
    Has(Vec<Has>),
    /// Of whom the sender wants more, and what it has of them.
    Want(Vec<Has>),
    /// A piece of the stream of deltas, each after its length.
    Stream {
        /// Whether it is an LZ4 block, after the length of what is in it.
        is_packed: bool,
        /// The piece.
        bytes: &'a [u8],
    },
    /// Nothing.
    End,
}

impl<'a> Message<'a> {
    /// Set in the first byte of the last message of a turn.
    pub(super) const LAST: u8 = 0x80;

    /// What the first byte tells of a message: whether it is to be answered, and how many bytes of the stream it holds.
    pub(super) fn outline(bytes: &[u8]) -> (bool, u64) {
        match bytes {
            [kind, stream @ ..] => match kind & !Self::LAST {
                RAW | LZ4 => (false, stream.len() as u64),
                kind => (kind != END, 0),
            },
            [] => (false, 0),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, or longer than [`MAX_MESSAGE_BYTES`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed("a message longer than any"));
        }
        let mut reader = Reader::new(bytes);
        let kind = reader.byte()?;
        let said = match kind & !Self::LAST {
            OPEN => {
                let (heads, root) = (reader.number()?, reader.array()?);
                let parts = reader.take(WIDTH * FINGERPRINT_BYTES)?;
                reader.end()?;
                Said::Open { heads, root, parts }
            }
            STEP => Said::Step(reader.rest()),
            HAS => Said::Has(has(reader)?),
            WANT => Said::Want(has(reader)?),
            kind @ (RAW | LZ4) => Said::Stream {
                is_packed: kind == LZ4,
                bytes: reader.rest(),
            },
            ALL => reader.end().map(|()| Said::All)?,
            END => reader.end().map(|()| Said::End)?,
            _ => return Err(Malformed("a message of another kind")),
        };
        let is_last = kind & Self::LAST != 0;
        Ok(Self { is_last, said })
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.is_last { Self::LAST } else { 0 }];
        let kind = match &self.said {
            Said::Open { heads, root, parts } => {
                wire::put_number(&mut out, *heads);
                out.extend_from_slice(root);
                out.extend_from_slice(parts);
                OPEN
            }
            Said::All => ALL,
            Said::Step(bytes) => {
                out.extend_from_slice(bytes);
                STEP
            }
            Said::Has(list) => {
                put_has(&mut out, list);
                HAS
            }
            Said::Want(list) => {
                put_has(&mut out, list);
                WANT
            }
            Said::Stream { is_packed, bytes } => {
                out.extend_from_slice(bytes);
                if *is_packed { LZ4 } else { RAW }
            }
            Said::End => END,
        };
        if let Some(first) = out.first_mut() {
            *first |= kind;
        }
        out
    }
}

impl Has {
    /// Bytes that it takes in a message, at most.
    pub(super) fn size(&self) -> usize {
        let clock = |known: &Known| 30 + 20 * known.clock.last().len();
        MIN_HAS_BYTES + self.heads.iter().map(clock).sum::<usize>()
    }
}

fn has(mut reader: Reader<'_>) -> Result<Vec<Has>, Malformed> {
    let mut list = Vec::new();
    while !reader.rest().is_empty() {
        let place = u64::from_be_bytes(reader.array()?);
        let count = reader.count(MIN_KNOWN_BYTES)?;
        if count > MAX_HEADS {
            return Err(Malformed("more heads than are kept of a node"));
        }
        let mut heads = Vec::with_capacity(count);
        for _ in 0..count {
            let (clock, id) = (reader.clock()?, reader.array()?);
            heads.push(Known { clock, id });
        }
        list.push(Has { place, heads });
    }
    Ok(list)
}

fn put_has(out: &mut Vec<u8>, list: &[Has]) {
    for Has { place, heads } in list {
        out.extend_from_slice(&place.to_be_bytes());
        wire::put_number(out, heads.len() as u64);
        for known in heads {
            wire::put_clock(out, &known.clock);
            out.extend_from_slice(&known.id);
        }
    }
}
