//! The nodes and agents that a network knows.

mod summary;

pub use summary::{AgentState, AgentSummary, ToolSummary};
