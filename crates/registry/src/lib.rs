//! The nodes and agents that a network knows.
//!
//! Floor 1: signed statements come in with the time, a view, bytes to send and events come out; there is no clock, no
//! socket and no randomness here.
//!
//! - [`replica`]: the registry as a CRDT. Each node signs an OR-Set ([`set`]) of what it says of itself and of its agents;
//!   deltas of it ([`delta`], [`head`]) are merged whatever way and however often they come.
//! - [`sync`]: two replicas find out in what they differ, and each gets what it lacks.
//! - [`log`]: what happened, in a chain of hashes.
//! - [`order`]: what an authority of the network tells a node about its [`Place`].
#![deny(unsafe_code, missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cbor;
mod clock;
pub mod delta;
mod dots;
mod element;
pub mod head;
pub mod log;
pub mod order;
mod owner;
mod place;
mod refusal;
pub mod replica;
pub mod set;
mod signature;
mod summary;
pub mod sync;
mod wire;

pub use element::{MAX_BINDING_BYTES, NodeElement};
pub use place::{Mode, Place, UnknownMode};
pub use refusal::Refusal;
pub use summary::{AgentState, AgentSummary, ToolSummary};
pub use wire::Malformed;
