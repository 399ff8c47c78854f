//! The control plane: an optional server that issues certificates, keeps devices, presence, invites and policy for a
//! network that wants a centre. It is no member of the network and holds no network key: the owner signs an issuer's
//! certificate for its key, and what it issues is verified by every member.
//!
//! ```text
//!  device ──signed request──▶ gate ─▶ handler ─▶ writer ─▶ database (SQLite or PostgreSQL)
//!  person ──token───────────▶                └─▶ memory (who is there, who waits)
//! ```
//!
//! [`server::Server`] is all that a program needs; the rest is public for its tests.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod backup;
pub mod caller;
pub mod challenges;
pub mod config;
pub mod control;
pub mod error;
pub mod feed;
mod housekeeping;
pub mod http;
pub mod issue;
pub mod key;
pub mod live;
pub mod metrics;
pub mod operator;
pub mod origin;
mod places;
pub mod rate;
pub mod refusal;
pub mod server;
pub mod store;
mod wire;
