//! The network lock: which keys may admit members, by a signed log that nobody changes alone.
//!
//! Without a lock whoever holds the network key admits. With one, a membership counts only where a *lock key* stands
//! behind it: it issued the certificate itself, or signed an [`Endorsement`] of it. Which keys are lock keys is said by a
//! log that a quorum of them writes. So a control plane that is broken into, its operator, or a thief of the network key
//! can add nobody.
//!
//! ```text
//!  opening 0 (genesis, network key) ──▶ change ──▶ change ──▶ change          generation 0
//!       │
//!       └─▶ opening 1 (recovery key) ──▶ change ──▶ …                         generation 1
//! ```
//!
//! - [`Opening`]: the keys, the quorum and the recovery keys with which a generation begins. The first is signed with the
//!   network key, and the first that a member sees is the only one it ever takes. Each further one is signed with a recovery
//!   key of the one before, stands on that opening and not on the log behind it, and puts the log aside.
//! - [`Vote`]: a lock key's signature for one [`Change`] behind a certain statement. A change is in the log when as many keys
//!   that are trusted there voted for it as the quorum asks. There is no other form of a change: a proposal is a change with
//!   votes still missing.
//! - [`Lock`]: the replica. Bytes come in, in any order; [`State`], proposals and the answer to
//!   [`Lock::admits`] come out. What it holds is a set: two replicas with the same statements say the same.
//!
//! # Forks
//!
//! A change that has its votes has them for ever, so a fork are two such changes behind one statement. Each key that was
//! trusted there counts once, for the branch in which its latest vote is (each vote has a number, which only grows); the
//! branch with more keys wins, then the one that begins with a removal, then the smaller id. Who holds one stolen key can
//! complete an old proposal of an honest one, but not win: the honest keys have voted further on. Behind
//! [`SETTLED`] statements nothing is taken any more.
//!
//! Two openings behind one are a fork, too: the one that more recovery keys signed counts. What stands on the other one is
//! not kept, so that a thief of one recovery secret takes no room by it, however far it goes from there.
//!
//! Floor 1: no clock, no randomness, no I/O.
#![deny(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod change;
mod endorsement;
mod lock;
mod opening;
mod refused;
mod secret;
mod statement;
#[cfg(test)]
mod tests;
mod vote;

pub use change::{Change, ChangeError, MAX_KEYS, State};
pub use endorsement::{Endorsement, Subject};
pub use lock::{
    Beginning, Entry, Fork, Lock, MAX_ENDORSEMENTS_OF_KEY, MAX_LOCK_BYTES, MAX_LOG, MAX_VOTES_OF_KEY, Outcome,
    Proposal, Recoverable, SETTLED, Why,
};
pub use opening::{MAX_GENERATIONS, MAX_RECOVERY, Opening, Terms};
pub use refused::Refused;
pub use secret::{ParseSecretError, RecoverySecret};
pub use statement::{MAX_SHORT_BYTES, MAX_STATEMENT_BYTES, Statement, StatementId};
pub use vote::Vote;
