//! Who provides what, found in few hops: Kademlia (Maymounkov and Mazières, 2002) among the members of a network.
//!
//! Floor 1: messages and the time come in, messages and events go out; there is no clock, no socket and no randomness
//! here. Requests and their answers are of whoever drives it: it opens a stream to a member, writes what
//! [`Kademlia::poll_action`] says, and hands the answer to [`Kademlia::answered`], or says [`Kademlia::failed`].
//!
//! - [`Key`]: where nodes, agents and capabilities lie, all in one space of 256 bits with XOR as its distance.
//! - [`Table`]: the members known, in a bucket for each distance.
//! - [`Provider`]: a node's signed word that it provides something, for a while.
//! - [`Kademlia`]: asks, answers, keeps what others provide, and says anew what this node provides.
#![deny(unsafe_code, missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod key;
mod lookup;
mod message;
mod node;
mod provider;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use key::{Distance, Key};
pub use lookup::Standing;
pub use message::{Contact, MAX_MESSAGE_BYTES, Malformed};
pub use node::{Action, Config, Event, Instant, Kademlia, LookupId, Outcome, Refused, RequestId};
pub use provider::{MAX_PROVIDER_BYTES, Provider};
pub use table::Table;
