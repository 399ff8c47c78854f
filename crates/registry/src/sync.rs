//! Anti-entropy: two replicas find out in what they differ, and each gets what it lacks.
//!
//! They speak in turns. In its turn a side says, in messages of at most [`MAX_MESSAGE_BYTES`] ([`Session::transmit`]
//! until there is nothing), what it makes of the fingerprints that came, what it has where the two differ, of whom it wants
//! more, and the deltas that it knows the other to lack; the last message says that it is the last.
//!
//! ```text
//!   begins                                    answers
//!     ├─ Open: fingerprints ──────────────────▶│   of ranges of nodes; of what differs, those of its parts, until a
//!     │◀──────────────────── Step: fingerprints ┤   range holds few heads
//!     │   …                                    │
//!     │◀──────────────────────────── Step, Has ┤   what it has in such a range: of each node the clocks
//!     ├─ Want ─ Stream: deltas ───────────────▶│   each delta from what the other has of that node
//!     │◀──────────────────────── Stream: deltas ┤
//! ```
//!
//! Whose turn leaves nothing to be answered ends the session with it. A replica that has nothing does not compare, it is
//! sent everything; one that has less than half as many heads as the other lists them all, which is less than a
//! comparison would take.
//!
//! What is streamed is as little trusted as anything else: it goes through [`Replica::apply`].

mod message;
mod range;
mod session;
mod snapshot;
mod stream;
#[cfg(test)]
mod tests;

pub use message::{Has, MAX_MESSAGE_BYTES, Message, Said};
pub use session::{Session, Traffic};
pub use snapshot::Snapshot;

#[cfg(doc)]
use crate::replica::Replica;
use crate::wire::Malformed;

/// Why a session ends before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// Not a message, or longer than any.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A message that does not belong here.
    #[error("the other side sent what was not due")]
    OutOfTurn,
    /// The other side lists or streams more than a registry holds.
    #[error("the other side sends more than a registry holds")]
    TooMuch,
}
