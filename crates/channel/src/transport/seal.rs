//! Sealing: a message becomes a frame, where it is.

use std::time::Instant;

use dawn_identity::SIGNATURE_BYTES;

use super::channel::{Channel, Closing};
use super::frame::{HEADER_BYTES, Header, Kind, MAX_OVERHEAD_BYTES, to_be_signed};
use crate::aead::TAG_BYTES;
use crate::context::Signing;

/// Why a message was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The buffer has no room for the header in front of the message.
    #[error("the buffer has no room for the header of a frame")]
    NoRoom,
    /// Longer than [`Limits::max_message_bytes`](super::Limits::max_message_bytes).
    #[error("the message has {length} bytes; {limit} are allowed")]
    TooLarge {
        /// The message's length.
        length: usize,
        /// The longest.
        limit: usize,
    },
    /// The peer has not completed the handshake yet.
    #[error("the peer has not completed the handshake yet")]
    Unconfirmed,
    /// The keys have served as long as they may. A rekey is under way, or begins at the next time-out; then it goes on.
    #[error("the keys of the channel have served as long as they may; they are being replaced")]
    RekeyNeeded,
    /// This side has closed the channel.
    #[error("the channel is closed")]
    Closed,
    /// The peer broke the rules, or frames went missing.
    #[error("the channel has failed")]
    Failed,
    /// All sequence numbers are used up, or there is no memory for the cipher.
    #[error("the channel cannot seal any more")]
    Exhausted,
}

impl Channel {
    /// Seals the message in `buffer` where it is; `buffer` is then the frame. The message begins at [`HEADER_BYTES`];
    /// what is in front is overwritten. With [`MAX_OVERHEAD_BYTES`] more capacity than the message is long, nothing is
    /// moved.
    ///
    /// # Errors
    /// [`SealError`]; the message in `buffer` is then untouched, but for [`SealError::Exhausted`].
    pub fn seal(&mut self, buffer: &mut Vec<u8>, now: Instant) -> Result<(), SealError> {
        let length = buffer.len().checked_sub(HEADER_BYTES).ok_or(SealError::NoRoom)?;
        let limit = self.limits.max_message_bytes;
        if self.failed {
            return Err(SealError::Failed);
        }
        if self.closing != Closing::No {
            return Err(SealError::Closed);
        }
        if !self.confirmed {
            return Err(SealError::Unconfirmed);
        }
        if length > limit {
            return Err(SealError::TooLarge { length, limit });
        }
        let keys = &self.current;
        let age = now.saturating_duration_since(keys.began);
        if keys.sealed.is_too_much(&self.limits) || age >= self.limits.reject_after {
            self.want_rekey(now);
            return Err(SealError::RekeyNeeded);
        }
        self.seal_frame(Kind::Message, buffer)?;
        if self.current.sealed.is_much(&self.limits) {
            self.want_rekey(now);
        }
        Ok(())
    }

    /// The frame of a message that is elsewhere: one copy more than [`Self::seal`].
    ///
    /// # Errors
    /// [`SealError`] as for [`Self::seal`].
    pub fn seal_message(&mut self, message: &[u8], now: Instant) -> Result<Vec<u8>, SealError> {
        let mut buffer = Vec::with_capacity(message.len() + MAX_OVERHEAD_BYTES);
        buffer.resize(HEADER_BYTES, 0);
        buffer.extend_from_slice(message);
        self.seal(&mut buffer, now)?;
        Ok(buffer)
    }

    /// A frame of the channel's own.
    pub(super) fn seal_control(&mut self, kind: Kind, content: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut buffer = Vec::with_capacity(content.len() + MAX_OVERHEAD_BYTES);
        buffer.resize(HEADER_BYTES, 0);
        buffer.extend_from_slice(content);
        self.seal_frame(kind, &mut buffer)?;
        Ok(buffer)
    }

    fn seal_frame(&mut self, kind: Kind, buffer: &mut Vec<u8>) -> Result<(), SealError> {
        let sequence = self.next_sequence;
        // The last number is never used, so that the next one always fits.
        let next = sequence.checked_add(1).ok_or(SealError::Exhausted)?;
        let header = Header {
            kind,
            epoch: self.current.number,
            sequence,
        }
        .encode();
        let (front, content) = buffer.split_first_chunk_mut().ok_or(SealError::NoRoom)?;
        *front = header;
        if self.terms.signing == Signing::EachMessage {
            let signed = to_be_signed(&self.session, self.role, &header, content);
            let signature: [u8; SIGNATURE_BYTES] = self.party.identity().sign(&signed);
            buffer.reserve(SIGNATURE_BYTES + TAG_BYTES);
            buffer.extend_from_slice(&signature);
        }
        let content = buffer.get_mut(HEADER_BYTES..).ok_or(SealError::NoRoom)?;
        let sealed = self.current.seal.seal(sequence, &header, content);
        let tag = sealed.map_err(|_| SealError::Exhausted)?;
        buffer.extend_from_slice(&tag);
        self.next_sequence = next;
        self.current.sealed.add(buffer.len());
        Ok(())
    }
}
