//! Who is there, with whom a node keeps links, and how news travel, among the members of a network.
//!
//! Floor 1: time, randomness, links that come and go and messages come in; messages, wishes for links and events come
//! out. There is no clock, no socket and no randomness here. Whoever drives a [`Gossip`] tells it of members
//! ([`Gossip::add_member`], [`Gossip::reachable`]) and links ([`Gossip::link_up`], [`Gossip::link_down`]), hands in what came over them
//! ([`Gossip::receive`]), does what [`Gossip::poll_action`] says, and calls [`Gossip::handle_timeout`] at
//! [`Gossip::poll_timeout`].
//!
//! - *Neighbours*: with whom a node keeps links, and when it tries again.
//! - *Spread*: news go along a tree and are announced beside it (Plumtree; Leitão, Pereira, Rodrigues, 2007).
//! - *Presence*: every link is watched (φ accrual; Hayashibara et al., 2004), who is not heard is suspected, who is
//!   suspected may refute it (SWIM; Das, Gupta, Motivala, 2002).
//! - *Comparison*: 32 bytes stand for everything known; where they differ, the driver is told, and presence is mended.
//!
//! News are opaque: the driver says by [`Gossip::accept`] what became of them, and only what was new travels on.
#![deny(unsafe_code, missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod budget;
mod compare;
mod config;
mod detector;
mod gossip;
mod message;
mod neighbours;
mod outbox;
mod presence;
mod receive;
mod refusal;
mod spread;
mod table;
#[cfg(test)]
mod tests;
mod word;

pub use config::Config;
pub use gossip::{Gossip, Size, Verdict};
pub use message::{MAX_MESSAGE_BYTES, MAX_NEWS_BYTES, Malformed, NewsId, TooLong};
pub use outbox::{Action, Event};
pub use refusal::{Refusals, Refused};
pub use table::Presence;
pub use word::Voice;

pub use dawn_identity::SIGNATURE_BYTES;

/// Time since an arbitrary start, the same for all calls of one [`Gossip`].
pub type Instant = std::time::Duration;
