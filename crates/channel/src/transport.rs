//! The channel itself: messages in, frames out, and the other way round.
//!
//! A [`Channel`] does nothing by itself. Whoever drives it
//! - seals messages ([`Channel::seal`]) and gives the frames to the carrier,
//! - hands in the frames that come ([`Channel::open`]) and takes what they hold,
//! - after each of these asks for frames of the channel's own ([`Channel::poll_transmit`]) and gives them to the carrier,
//!   in the order in which all frames were made,
//! - and comes back at [`Channel::poll_timeout`] with fresh randomness ([`Channel::handle_timeout`]).
//!
//! A frame is
//!
//! ```text
//!  0      1               5                              13                        n-16      n
//!  ┌──────┬───────────────┬──────────────────────────────┬─────────────────────────┬─────────┐
//!  │ kind │ epoch, u32 BE │ sequence, u64 BE             │ ciphertext of           │ tag     │
//!  │      │               │                              │ message ‖ signature (64)│         │
//!  └──────┴───────────────┴──────────────────────────────┴─────────────────────────┴─────────┘
//!  └────────── authenticated, not encrypted ─────────────┘
//! ```
//!
//! The carrier keeps frames apart: each is a message of its own there.

mod channel;
mod close;
mod epoch;
mod frame;
mod limits;
mod open;
mod rekey;
mod seal;
mod window;

use std::fmt;

pub(crate) use channel::Start;
pub use channel::{Channel, Peer};
pub use close::{Close, CloseCode, MAX_CLOSE_MESSAGE_BYTES, Truncated};
pub use frame::{HEADER_BYTES, MAX_OVERHEAD_BYTES};
pub use limits::Limits;
pub use open::{OpenError, Opened};
pub use seal::SealError;
pub use window::WINDOW_FRAMES;

/// Names one channel: the hash of everything that was said in its handshake. Both parties have the same, and no other
/// channel has it; who proves something to the peer signs it along.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// The session with this hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Hexadecimal.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}
