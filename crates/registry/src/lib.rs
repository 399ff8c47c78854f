//! The nodes and agents that a network knows.
//!
//! Floor 1: signed statements come in with the time, a view, bytes to send and events come out; there is no clock, no
//! socket and no randomness here.
//!
//! - [`replica`]: the registry as a CRDT. Each node signs an OR-Set ([`set`]) of what it says of itself and of its agents;
//!   deltas of it ([`delta`], [`head`]) are merged whatever way and however often they come.
//! - [`sync`]: two replicas find out in what they differ, and each gets what it lacks.
//! - [`log`]: what happened, in a chain of hashes.
//! - [`Registry`]: what the directory works with until it is moved over to the replica. A record replaces an older one of
//!   the same node; a node is online while it beats.
#![deny(unsafe_code, missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod clock;
pub mod delta;
mod element;
pub mod head;
pub mod log;
mod owner;
mod record;
mod refusal;
mod registry;
pub mod replica;
pub mod set;
mod signature;
mod summary;
pub mod sync;
#[cfg(test)]
mod tests;
mod wire;

pub use element::NodeElement;
pub use record::{Beat, Digest, MAX_BEAT_BYTES, MAX_BINDING_BYTES, MAX_RECORD_BYTES, NodeRecord, RecordError, Version};
pub use refusal::{Refusal, Refusals};
pub use registry::{Applied, Instant, Limits, NodeView, Registry, RegistryEvent};
pub use summary::{AgentState, AgentSummary, ToolSummary};
pub use wire::Malformed;
