//! The messages of a session.

use dawn_identity::NodeId;

use crate::head::HeadId;
use crate::owner::{Known, MAX_HEADS};
use crate::wire::{self, Malformed, Reader};

/// Longest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

const COMPARE: u8 = 0;
const ENUMERATE: u8 = 1;
const LISTS: u8 = 2;
const WANT: u8 = 3;
const STREAM: u8 = 4;
const END: u8 = 5;

const IS_LAST: u8 = 1;
const ASKS_ALL: u8 = 2;

/// A node, a number of heads.
const MIN_HAS_BYTES: usize = 33;
/// A clock of nothing, and the front of an id.
const MIN_KNOWN_BYTES: usize = 10;

/// What somebody has of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Has {
    pub(crate) node: NodeId,
    pub(crate) heads: Vec<Known>,
}

/// A message as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A piece of a step of the comparison.
    Compare {
        /// How many heads the sender has.
        heads: u64,
        /// Whether the step is complete with this.
        is_last: bool,
        /// What the reconciliation says.
        bytes: &'a [u8],
    },
    /// The receiver has so little that it is to list it.
    Enumerate,
    /// What the sender wants and has.
    Lists {
        /// Whether it wants everything, also of nodes that it does not name.
        asks_all: bool,
        /// Whether no more follow.
        is_last: bool,
        /// The heads that it wants.
        needs: Vec<HeadId>,
        /// What it has of nodes of whom the two differ.
        has: Vec<Has>,
    },
    /// Of whom the sender wants more, and what it has of them.
    Want {
        /// Whether no more follow.
        is_last: bool,
        /// What it has of them.
        has: Vec<Has>,
    },
    /// A piece of the stream of deltas, each after its length.
    Stream(&'a [u8]),
    /// Nothing follows.
    End,
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, or longer than [`MAX_MESSAGE_BYTES`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed("a message longer than any"));
        }
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            COMPARE => {
                let is_last = flags(&mut reader, IS_LAST)? != 0;
                let heads = reader.number()?;
                let bytes = reader.rest();
                Ok(Self::Compare { heads, is_last, bytes })
            }
            STREAM => Ok(Self::Stream(reader.rest())),
            ENUMERATE => reader.end().map(|()| Self::Enumerate),
            END => reader.end().map(|()| Self::End),
            LISTS => {
                let flags = flags(&mut reader, IS_LAST | ASKS_ALL)?;
                let count = reader.count(32)?;
                let needs = (0..count)
                    .map(|_| reader.array().map(HeadId))
                    .collect::<Result<_, _>>()?;
                let has = has(&mut reader)?;
                reader.end()?;
                Ok(Self::Lists {
                    asks_all: flags & ASKS_ALL != 0,
                    is_last: flags & IS_LAST != 0,
                    needs,
                    has,
                })
            }
            WANT => {
                let flags = flags(&mut reader, IS_LAST)?;
                let has = has(&mut reader)?;
                reader.end()?;
                let is_last = flags & IS_LAST != 0;
                Ok(Self::Want { is_last, has })
            }
            _ => Err(Malformed("a message of another kind")),
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Compare { heads, is_last, bytes } => {
                let mut out = vec![COMPARE, u8::from(*is_last)];
                wire::put_number(&mut out, *heads);
                out.extend_from_slice(bytes);
                out
            }
            Self::Enumerate => vec![ENUMERATE],
            Self::End => vec![END],
            Self::Stream(bytes) => [&[STREAM], *bytes].concat(),
            Self::Lists {
                asks_all,
                is_last,
                needs,
                has,
            } => {
                let flags = if *asks_all { ASKS_ALL } else { 0 } | u8::from(*is_last);
                let mut out = vec![LISTS, flags];
                wire::put_number(&mut out, needs.len() as u64);
                needs.iter().for_each(|id| out.extend_from_slice(&id.0));
                put_has(&mut out, has);
                out
            }
            Self::Want { is_last, has } => {
                let mut out = vec![WANT, u8::from(*is_last)];
                put_has(&mut out, has);
                out
            }
        }
    }
}

impl Has {
    /// Bytes that it takes in a message, at most.
    pub(super) fn size(&self) -> usize {
        let clock = |known: &Known| 30 + 20 * known.clock.last().len();
        MIN_HAS_BYTES + self.heads.iter().map(clock).sum::<usize>()
    }
}

fn flags(reader: &mut Reader<'_>, known: u8) -> Result<u8, Malformed> {
    let flags = reader.byte()?;
    if flags & !known == 0 {
        Ok(flags)
    } else {
        Err(Malformed("flags that are none"))
    }
}

fn has(reader: &mut Reader<'_>) -> Result<Vec<Has>, Malformed> {
    let count = reader.count(MIN_HAS_BYTES)?;
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        let node = reader.node()?;
        let count = reader.count(MIN_KNOWN_BYTES)?;
        if count > MAX_HEADS {
            return Err(Malformed("more heads than are kept of a node"));
        }
        let mut heads = Vec::with_capacity(count);
        for _ in 0..count {
            let (clock, id) = (reader.clock()?, reader.array()?);
            heads.push(Known { clock, id });
        }
        list.push(Has { node, heads });
    }
    Ok(list)
}

fn put_has(out: &mut Vec<u8>, list: &[Has]) {
    wire::put_number(out, list.len() as u64);
    for Has { node, heads } in list {
        out.extend_from_slice(node.as_bytes());
        wire::put_number(out, heads.len() as u64);
        for known in heads {
            wire::put_clock(out, &known.clock);
            out.extend_from_slice(&known.id);
        }
    }
}
