//! Anti-entropy: two replicas find out in what they differ, and each gets what it lacks.
//!
//! The one that begins and the other exchange messages of at most [`MAX_MESSAGE_BYTES`], strictly in turns: whoever has
//! something to say says all of it ([`Session::transmit`] until there is nothing), then the other.
//!
//! ```text
//!   begins                                      answers
//!     ├─ Compare ──────────────────────────────▶│   range-based reconciliation (negentropy) of the ids of all heads,
//!     │◀────────────────────────────── Compare ─┤   sorted by their nodes, so that old and new head of a node are
//!     │   …                                     │   neighbours
//!     ├─ Lists: which ids it needs, what it has ▶│
//!     │◀───────── Stream: deltas ─ Want: of whom ┤   each delta from what the other has of that node
//!     ├─ Stream: deltas ─ End ─────────────────▶│
//! ```
//!
//! A replica that has nothing does not compare: its lists are empty and ask for everything. Where one has less than half
//! as many heads as the other, it lists them all, which is less than a comparison would take; the one that answers asks
//! for that by `Enumerate`, or lists its own, whereupon the two change places.
//!
//! What is streamed is as little trusted as anything else: it goes through [`Replica::apply`].

mod message;
mod session;
mod snapshot;
mod stream;
#[cfg(test)]
mod tests;

pub use message::{MAX_MESSAGE_BYTES, Message};
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
    /// The comparison does not work.
    #[error("the comparison failed: {0}")]
    Comparison(String),
    /// The comparison does not come to an end.
    #[error("the comparison takes more than {0} rounds")]
    Endless(u32),
    /// The other side lists or streams more than a registry holds.
    #[error("the other side sends more than a registry holds")]
    TooMuch,
}

impl From<negentropy::Error> for SyncError {
    fn from(error: negentropy::Error) -> Self {
        Self::Comparison(error.to_string())
    }
}
