//! The stream of deltas: each after its length, cut into messages wherever one is full. What gets shorter by it is packed,
//! message by message, so that whoever reads needs no more memory than for one of them.

use std::collections::BTreeMap;

use super::SyncError;
use super::message::{MAX_MESSAGE_BYTES, Message, Said};
use crate::delta::{MAX_DELTA_BYTES, MIN_DELTA_BYTES};
use crate::owner::Known;
use crate::replica::Replica;
use crate::wire::{self, Malformed, Reader};

/// Bytes of the stream in a message, before it is packed.
const PIECE: usize = MAX_MESSAGE_BYTES - 16;

/// Deltas on their way: of the nodes in some places, what the other has not.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    theirs: BTreeMap<u64, Vec<Known>>,
    buffer: Vec<u8>,
}

impl Outbox {
    /// `theirs` says where, and what the other has there.
    pub(super) fn new(theirs: BTreeMap<u64, Vec<Known>>) -> Self {
        Self {
            theirs,
            buffer: Vec::new(),
        }
    }

    /// Whether nothing is left, for certain.
    pub(super) fn is_empty(&self) -> bool {
        self.theirs.is_empty() && self.buffer.is_empty()
    }

    pub(super) fn piece(&mut self, replica: &Replica) -> Option<Vec<u8>> {
        self.fill(replica);
        if self.buffer.is_empty() {
            return None;
        }
        let rest = self.buffer.split_off(self.buffer.len().min(PIECE));
        let piece = std::mem::replace(&mut self.buffer, rest);
        if self.buffer.is_empty() {
            // So that it is known whether this is the last one.
            self.fill(replica);
        }
        let mut packed = Vec::new();
        wire::put_number(&mut packed, piece.len() as u64);
        packed.append(&mut lz4_flex::block::compress(&piece));
        let is_packed = packed.len() < piece.len();
        let bytes = if is_packed { &packed } else { &piece };
        let said = Said::Stream { is_packed, bytes };
        Some(Message { is_last: false, said }.encode())
    }

    fn fill(&mut self, replica: &Replica) {
        while self.buffer.len() < PIECE
            && let Some((place, known)) = self.theirs.pop_first()
        {
            let owners = replica.owners_at(place..=place);
            let deltas = owners.flat_map(|(_, owner)| owner.deltas_for(&known));
            deltas.for_each(|delta| wire::put_bytes(&mut self.buffer, &delta));
        }
    }
}

/// Deltas that come, in pieces.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    total: usize,
}

impl Inbox {
    pub(super) fn read(&mut self, is_packed: bool, piece: &[u8], most: usize) -> Result<Vec<Vec<u8>>, SyncError> {
        if is_packed {
            self.take(&unpacked(piece)?, most)
        } else {
            self.take(piece, most)
        }
    }

    fn take(&mut self, piece: &[u8], most: usize) -> Result<Vec<Vec<u8>>, SyncError> {
        self.total = self.total.saturating_add(piece.len().max(1));
        if self.total > most {
            return Err(SyncError::TooMuch);
        }
        self.buffer.extend_from_slice(piece);
        let (mut deltas, mut reader) = (Vec::new(), Reader::new(&self.buffer));
        loop {
            let mut ahead = reader;
            // A length has at most ten bytes: of fewer, the rest may be on its way.
            let length = match ahead.number() {
                Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
                Err(_) if reader.rest().len() < 10 => break,
                Err(error) => return Err(error.into()),
            };
            if length > MAX_DELTA_BYTES {
                return Err(Malformed("a delta longer than any").into());
            }
            // A few packed bytes would else become tens of thousands of deltas, each to be refused by itself.
            if length < MIN_DELTA_BYTES {
                return Err(Malformed("a delta shorter than any").into());
            }
            let Ok(delta) = ahead.take(length) else { break };
            deltas.push(delta.to_vec());
            reader = ahead;
        }
        let rest = reader.rest().len();
        self.buffer.drain(..self.buffer.len() - rest);
        Ok(deltas)
    }

    /// Bytes that came so far, unpacked.
    pub(super) fn unpacked(&self) -> u64 {
        self.total as u64
    }

    pub(super) fn end(&self) -> Result<(), SyncError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(Malformed("a stream that ends within a delta").into())
        }
    }
}

/// What was packed, no more than fits into a message.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, Malformed> {
    const WRONG: Malformed = Malformed("a packed piece that is none");
    let mut reader = Reader::new(packed);
    let length = usize::try_from(reader.number()?).ok().filter(|length| *length <= PIECE);
    let mut piece = vec![0; length.ok_or(WRONG)?];
    match lz4_flex::block::decompress_into(reader.rest(), &mut piece) {
        Ok(length) if length == piece.len() => Ok(piece),
        Ok(_) | Err(_) => Err(WRONG),
    }
}
