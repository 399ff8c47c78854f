//! Whether an output is right, and who is to be believed.
//!
//! A check is a job: another worker is given the same part, does not know why, and signs an output of its own before it can
//! have seen the first. Nobody ever says of another's output that it is right, so who is lazy as a verifier, or lies, is a
//! worker with a wrong output.
//!
//! ```text
//!  Job (requester) ──▶ JobResult (worker) ──▶ Draw (requester) ──not drawn──▶ taken
//!                       commits to items          │
//!                                                 └─drawn──▶ the same part elsewhere ──▶ compared
//! ```
//!
//! - [`Job`] and [`JobResult`] are statements; their ids are hashes of what is signed.
//! - [`Commitment`]: a result commits to each of its items by a tree, so that one can be opened to everybody.
//! - [`Draw`]: whether a result is checked, and who is asked, by a verifiable random function of the requester over the
//!   result's id. The worker cannot know it before it has signed, the requester cannot choose it.
//! - [`compare`]: which outputs agree. [`Jury`]: who is wrong where two differ. [`Record`]: what proves it to others, who may
//!   back it with a [`Confirmation`]; [`Frauds`] is the set of both that members keep in step.
//! - [`Book`]: what was seen of others, how much of their work is checked, whom to believe. [`Provisional`]: what has to be
//!   done again when one of them is wrong.
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

mod class;
mod commit;
pub mod compare;
mod confirmation;
mod draw;
pub mod frauds;
mod id;
mod job;
pub mod jury;
mod provisional;
mod record;
mod refused;
mod result;
mod statement;
#[cfg(test)]
mod tests;
mod tree;
pub mod trust;
pub mod vrf;

pub use class::{Class, MAX_PRECISION_BYTES, Precision, Tolerance, Workload};
pub use commit::{Commitment, Opening, Output, Salt};
pub use compare::Agreement;
pub use confirmation::{Confirmation, MAX_CONFIRMATION_BYTES, Said};
pub use draw::{Draw, Rate};
pub use frauds::Frauds;
pub use id::{JobHash, JobId, ModelDigest, RecordId, ResultId, Root};
pub use job::{Asked, Job, LONGEST, Limits, MAX_JOB_BYTES, MAX_OPTION_BYTES, MAX_PARTS, Part, Spec};
pub use jury::Jury;
pub use provisional::{DOUBTED, Provisional};
pub use record::{Basis, Finding, MAX_RECORD_BYTES, Record, Testimony};
pub use refused::Refused;
pub use result::{Given, JobResult, MAX_RESULT_BYTES};
pub use statement::{Committed, MAX_INPUT_BYTES, MAX_ITEMS, Units};
pub use trust::{Book, Observed};
