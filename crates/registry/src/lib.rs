//! The nodes and agents that a network knows.
//!
//! Floor 1: signed records and beats come in with the time, a view and events come out; there is no clock and no
//! socket here. A record replaces an older one of the same node, whatever way and however often it comes; a node is
//! online while it beats. A CRDT can take the place of the map behind the same interface.
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
