//! The stream of deltas: each after its length, cut into messages wherever one is full.

use std::collections::BTreeMap;
use std::ops::Bound;

use dawn_identity::NodeId;

use super::SyncError;
use super::message::{MAX_MESSAGE_BYTES, Message};
use crate::delta::MAX_DELTA_BYTES;
use crate::owner::Known;
use crate::replica::Replica;
use crate::wire::{self, Malformed, Reader};

/// Bytes of the stream in a message.
const PIECE: usize = MAX_MESSAGE_BYTES - 1;

/// Deltas on their way: of some nodes, or of all, what the other has not.
#[derive(Debug)]
pub(super) struct Outbox {
    of_all: bool,
    pub(super) theirs: BTreeMap<NodeId, Vec<Known>>,
    last: Option<NodeId>,
    buffer: Vec<u8>,
}

impl Outbox {
    /// Of the nodes that `theirs` names, or `of_all`; it says what the other has of them.
    pub(super) fn new(of_all: bool, theirs: BTreeMap<NodeId, Vec<Known>>) -> Self {
        Self {
            of_all,
            theirs,
            last: None,
            buffer: Vec::new(),
        }
    }

    fn next_node(&self, replica: &Replica) -> Option<NodeId> {
        if self.of_all {
            return replica.next_owner(self.last);
        }
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        self.theirs
            .range((from, Bound::Unbounded))
            .next()
            .map(|(node, _)| *node)
    }

    pub(super) fn piece(&mut self, replica: &Replica) -> Option<Vec<u8>> {
        while self.buffer.len() < PIECE {
            let Some(node) = self.next_node(replica) else { break };
            self.last = Some(node);
            let known = self.theirs.get(&node).map_or(&[][..], Vec::as_slice);
            let deltas = replica
                .owner(&node)
                .map_or_else(Vec::new, |owner| owner.deltas_for(known));
            deltas.iter().for_each(|delta| wire::put_bytes(&mut self.buffer, delta));
        }
        if self.buffer.is_empty() {
            return None;
        }
        let rest = self.buffer.split_off(self.buffer.len().min(PIECE));
        Some(Message::Stream(&std::mem::replace(&mut self.buffer, rest)).encode())
    }
}

/// Deltas that come, in pieces.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    total: usize,
}

impl Inbox {
    pub(super) fn read(&mut self, piece: &[u8], most: usize) -> Result<Vec<Vec<u8>>, SyncError> {
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
            let Ok(delta) = ahead.take(length) else { break };
            deltas.push(delta.to_vec());
            reader = ahead;
        }
        let rest = reader.rest().len();
        self.buffer.drain(..self.buffer.len() - rest);
        Ok(deltas)
    }

    pub(super) fn end(&self) -> Result<(), SyncError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(Malformed("a stream that ends within a delta").into())
        }
    }
}
