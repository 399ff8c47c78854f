//! Opening: a frame becomes a message, where it is.

use std::time::Instant;

use dawn_identity::SIGNATURE_BYTES;

use super::channel::Channel;
use super::close::Close;
use super::frame::{HEADER_BYTES, Header, Kind, MAX_OVERHEAD_BYTES, to_be_signed};
use super::rekey::Rekey;
use crate::aead::{AeadKey, TAG_BYTES};
use crate::context::Signing;
use crate::noise::Role;

/// Why a frame was not opened. In [`Delivery::Ordered`](crate::Delivery::Ordered) the channel has then failed. In
/// [`Delivery::Window`](crate::Delivery::Window) the frame is dropped and the channel goes on, unless the frame is authentic and the peer broke the
/// rules with it ([`Channel::is_failed`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a frame.
    #[error("this is not a frame of a secure channel")]
    Malformed,
    /// Longer than a frame may be.
    #[error("a frame of {length} bytes; {limit} are allowed")]
    TooLarge {
        /// The frame's length.
        length: usize,
        /// The longest.
        limit: usize,
    },
    /// The frame was altered, or is of another session, or of the other direction.
    #[error("the frame was altered, or is of another channel")]
    NotAuthentic,
    /// Frames before this one are missing.
    #[error("frames are missing: number {found} came instead of {expected}")]
    Missing {
        /// The number that was to come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// A frame with this number has come already.
    #[error("frame {0} was repeated")]
    Repeated(u64),
    /// So many later frames have come that nobody knows whether this one had.
    #[error("frame {0} comes too late")]
    TooOld(u64),
    /// There are no keys of this epoch: they are gone, or never were.
    #[error("there are no keys of epoch {0}")]
    UnknownEpoch(u32),
    /// The keys have served as long as they may, and the peer seals messages under them all the same.
    #[error("the peer goes on under keys that have served as long as they may")]
    EpochExpired,
    /// The frame is authentic, but the signature in it is not the peer's.
    #[error("the signature of the message is not the peer's")]
    BadSignature,
    /// The frame is authentic, but its content, or its coming now, is against the rules.
    #[error("the peer broke the rules of the channel: {0}")]
    Misbehaved(&'static str),
    /// The peer had said its last word.
    #[error("the peer had closed the channel")]
    AfterClose,
    /// The channel has failed before.
    #[error("the channel has failed")]
    Failed,
}

/// What a frame held.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'f> {
    /// A message. It begins at [`HEADER_BYTES`] in the frame.
    Message(&'f mut [u8]),
    /// Something between the two channels: nothing for the caller, but [`Channel::poll_transmit`] and
    /// [`Channel::poll_timeout`] may say something new.
    Control,
    /// The peer's last word.
    Closed(Close),
}

impl Channel {
    /// Opens a frame where it is.
    ///
    /// # Errors
    /// [`OpenError`] says why not. What is in `frame` is then of no use.
    pub fn open<'f>(&mut self, frame: &'f mut [u8], now: Instant) -> Result<Opened<'f>, OpenError> {
        if self.failed {
            return Err(OpenError::Failed);
        }
        let opened = self.open_frame(frame, now);
        let fatal = match &opened {
            Ok(_) => false,
            Err(OpenError::BadSignature | OpenError::Misbehaved(_)) => true,
            Err(_) => !self.is_lossy(),
        };
        if fatal {
            self.failed = true;
        }
        opened
    }

    fn open_frame<'f>(&mut self, frame: &'f mut [u8], now: Instant) -> Result<Opened<'f>, OpenError> {
        let length = frame.len();
        let limit = self.limits.max_message_bytes.saturating_add(MAX_OVERHEAD_BYTES);
        if length > limit {
            return Err(OpenError::TooLarge { length, limit });
        }
        let (front, sealed) = frame.split_first_chunk_mut().ok_or(OpenError::Malformed)?;
        let front: [u8; HEADER_BYTES] = *front;
        let header = Header::decode(front).ok_or(OpenError::Malformed)?;
        if sealed.len() < TAG_BYTES {
            return Err(OpenError::Malformed);
        }
        self.received.check(header.sequence)?;
        if self.closed_at.is_some_and(|last| header.sequence > last) {
            return Err(OpenError::AfterClose);
        }
        let key = self.opening_key(&header)?;
        let text = key
            .open(header.sequence, &front, sealed)
            .map_err(|_| OpenError::NotAuthentic)?;
        let content = self.check_signature(&front, text)?;
        self.received.mark(header.sequence);
        self.note_epoch(header, length, now)?;
        match header.kind {
            Kind::Message => {
                self.check_age(&header, now)?;
                Ok(Opened::Message(content))
            }
            Kind::Close => {
                let close = Close::decode(content).ok_or(OpenError::Misbehaved("a last word that is none"))?;
                self.closed_at = Some(header.sequence);
                Ok(Opened::Closed(close))
            }
            kind => {
                self.on_rekey_frame(kind, header.epoch, content, now)?;
                Ok(Opened::Control)
            }
        }
    }

    /// The key that a frame with this header was sealed with, if it is authentic.
    fn opening_key(&self, header: &Header) -> Result<&AeadKey, OpenError> {
        if header.epoch == self.current.number {
            return Ok(&self.current.open);
        }
        if let Rekey::Answered { next, .. } = &self.rekey
            && header.epoch == next.number
        {
            return Ok(&next.open);
        }
        let former = self.former.iter().find(|former| former.number == header.epoch);
        match former {
            // Once a frame came under a later epoch, this one has smaller sequences only.
            Some(former) if former.before.is_none_or(|before| header.sequence < before) => Ok(&former.open),
            _ => Err(OpenError::UnknownEpoch(header.epoch)),
        }
    }

    /// What the peer wrote, without the signature, if it is there as agreed.
    fn check_signature<'f>(&self, header: &[u8; HEADER_BYTES], text: &'f mut [u8]) -> Result<&'f mut [u8], OpenError> {
        if self.terms.signing == Signing::ChannelOnly {
            return Ok(text);
        }
        let (content, signature) = text
            .split_last_chunk_mut::<SIGNATURE_BYTES>()
            .ok_or(OpenError::BadSignature)?;
        let sender = match self.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let signed = to_be_signed(&self.session, sender, header, content);
        let node = self.peer.node;
        node.verify(&signed, signature).map_err(|_| OpenError::BadSignature)?;
        Ok(content)
    }

    /// A message under keys that the limits do not bear any more is refused.
    fn check_age(&self, header: &Header, now: Instant) -> Result<(), OpenError> {
        let keys = &self.current;
        if header.epoch != keys.number {
            return Ok(());
        }
        // Frames on their way when the limit was reached have the time that frames of a former epoch have.
        let most = self.limits.reject_after.saturating_add(self.limits.linger);
        if now.saturating_duration_since(keys.began) >= most {
            return Err(OpenError::EpochExpired);
        }
        Ok(())
    }
}
