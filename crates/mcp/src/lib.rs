//! MCP between machines: agents hosted by a node, and the gateway through which clients reach the agents of the
//! whole network.
//!
//! Messages are routed as they came, byte for byte ([`jsonrpc::Message`]); where an id or a name must change, only
//! its span is replaced. A [`link::Link`] is a conversation with one agent, wherever it runs.

pub mod aggregate;
mod bridge;
pub mod check;
pub mod client;
pub mod fault;
pub mod frame;
pub mod gateway;
pub mod host;
pub mod jsonrpc;
pub mod limits;
pub mod link;
pub mod memory;
mod param_headers;
pub mod pump;
pub mod router;
pub mod websocket;
pub mod wire;
