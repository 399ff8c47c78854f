//! The policy of a network: one file that says who may do what.
//!
//! A [`Policy`] is read from TOML ([`Policy::parse`]), checks itself ([`Policy::check`]: the named tests in the file, rules
//! that another one covers), and decides ([`Policy::decide`]). What holds in a network is a [`Log`] of [`SignedPolicy`]s:
//! each carries its text, its version, the hash of the one before, and the signature of who may administer the policy by
//! the one before. No clock, no I/O.
//!
//! ```
//! use dawn_policy::{Action, Policy, Subject, Target, Verdict};
//!
//! let policy = Policy::parse(r#"
//!     [[allow]]
//!     name = "guests read the notes"
//!     who = ["role:guest"]
//!     what = ["call home:notes/read_*"]
//! "#)?;
//! let guest = Subject::with_role("guest".parse()?);
//! let notes = Target { node: "home", node_id: "12D3KooW…", agent: "notes" };
//! let decision = policy.decide(&guest, &Action::Call(notes, Some("read_note")));
//! assert_eq!(decision.verdict, Verdict::Allow);
//! assert_eq!(decision.reason.to_string(), "the rule \"guests read the notes\"");
//! let decision = policy.decide(&guest, &Action::Call(notes, Some("delete_note")));
//! assert_eq!(decision.verdict, Verdict::Deny);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod action;
mod check;
mod file;
mod log;
mod pattern;
mod policy;
mod signed;
mod subject;
#[cfg(test)]
mod tests;
mod who;

pub use action::{Action, Administered, Target};
pub use check::{Failed, Findings, Named, Shadowed};
pub use file::{Errors, MAX_POLICY_BYTES, Problem};
pub use log::{Log, LogError, MAX_LOG_BYTES, Taken};
pub use pattern::Pattern;
pub use policy::{Calls, Decision, Policy, Reason, Verdict};
pub use signed::{Author, MAX_SIGNED_BYTES, SignedError, SignedPolicy};
pub use subject::{Person, Subject};
pub use who::{NoSubject, Who};
