//! A Circuit Relay v2 server: peers that cannot be dialled reserve at it, and others reach them over circuits, which it
//! carries and cannot read.
//!
//! ```text
//!  stream of /dawn/relay-token/1 ──▶ gate ──grant──▶ desk ◀── hop (RESERVE, CONNECT) ── client
//!                                                     │
//!                                   copy ◀──circuit───┴──▶ stop (CONNECT) ──▶ target
//! ```
//!
//! `message` and `token` are what travels, `client` is the other side of it, `desk` says who may what (no I/O, no clock), `copy` moves bytes, `server` serves
//! streams, [`Behaviour`] is the server in a libp2p swarm: in that of a member, who relays for its network, or in that of a
//! process of its own (`daemon`, with `config`).
//!
//! Ours, because libp2p's server knows no tokens, answers every refusal as RESOURCE_LIMIT_EXCEEDED, and keeps circuits of
//! those who are revoked.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod account;
mod behaviour;
pub mod client;
pub mod config;
mod copy;
pub mod daemon;
pub mod desk;
mod door;
mod gate;
pub mod kept;
pub mod message;
mod observe;
mod operator;
pub mod quota;
mod server;
pub mod token;

pub use behaviour::{Accept, Asked, Behaviour, Handler};
pub use gate::{Denied, Gate, Verdict};
pub use quota::Quotas;
pub use server::{Counters, Server};
