//! Credits, without a common order.
//!
//! What a node has is what certified [`Entry`]s come to ([`Accounts`]). An entry is written by one author and names what it
//! uses up ([`Place`]): a number in its author's account, the end of a hold, the fate of a reward. It counts when a quorum of
//! the network's witnesses ([`Terms`]) has acknowledged it ([`Certificate`]). A [`Witness`] acknowledges one entry for each
//! place, and two quorums share an honest one; so nothing is used up twice, in any order of messages and however the network
//! is divided. This is Byzantine consistent broadcast, as in FastPay (Baudet et al., 2020), and not consensus: between
//! accounts no order is needed, since an account is spent by its owner alone, in numbered entries.
//!
//! Work is paid out of a hold, credits set aside for one payee, by [`Receipt`]s that are cumulative and ask no witness. The
//! payee closes the hold with the last one. What it earned is immature until a quorum lets it mature, and can be forfeited
//! instead.
//!
//! ```text
//!  payer: Purse ──Hold──▶ Quest ──▶ witnesses: Witness          Accounts  of whoever keeps them
//!    │  ▲                              ▲                           ▲
//!    │  └─────────── result ───────┐   │ Close, Mature             │ certificates, compared by Summary
//!    └── Receipt, Receipt, … ──▶ payee: Till                       └ audit() recomputes all
//! ```
//!
//! Floor 1: no clock, no randomness, no I/O. What has to be on a disk before it leaves is said where it is made.
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

mod accounts;
mod audit;
mod certificate;
mod claims;
mod credits;
mod entry;
mod id;
mod mature;
mod purse;
mod quest;
mod receipt;
mod refused;
mod sync;
mod terms;
#[cfg(test)]
mod tests;
mod till;
mod witness;

pub use accounts::{Account, Accounts, Balance, End, Fate, Held, Posting};
pub use audit::{Fault, audit};
pub use certificate::{ACK_BYTES, Ack, Certificate, Certified, MAX_CERTIFICATE_BYTES};
pub use credits::{Credits, ParseCreditsError};
pub use entry::{Entry, Hold, MAX_ENTRY_BYTES, MAX_HOLD, MAX_REWARDS, MIN_HOLD, Place, What};
pub use id::{EntryHash, JobId, ReceiptId, RecordId, ResultId, SetId};
pub use mature::{MATURE_AFTER, MATURE_BEHIND};
pub use purse::{MARGIN, MAX_OPEN_HOLDS, Need, Purse};
pub use quest::{Action, Answer, Quest};
pub use receipt::{Draw, MAX_RECEIPT_BYTES, Outcome, Receipt, Said};
pub use refused::Refused;
pub use sync::{BUCKETS, Short, Summary};
pub use terms::{MAX_WITNESSES, Terms};
pub use till::{MAX_UNPAID, Paid, Till};
pub use witness::{Considered, GRACE, Lock, Missing, SKEW, Standing, Witness};
