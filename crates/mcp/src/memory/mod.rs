//! The built-in agent `memory`: shared notes that a node can offer from its first minute.
//!
//! It is an MCP server in process. Four tools (`remember`, `recall`, `list`, `forget`), two resources
//! (`memory://recent`, `memory://stats`) and two prompts (`brief`, `capture`) over one [`MemoryStore`]: SQLite with a
//! full-text index (FTS5). Any number of connections share a store, and clients that subscribed to a resource hear
//! of every change, whoever made it.
//!
//! [`MemoryAgent::serve`] runs one connection over a byte stream that carries one JSON-RPC message a line. Both eras
//! of MCP work, also mixed on one connection: legacy after `initialize`, modern by the metadata of each request.
//!
//! Notes are attributed to the node that calls, as the host tells it in `_meta["io.dawn/caller"]`.

mod agent;
mod answer;
mod connection;
pub mod limits;
mod note;
mod prompts;
mod query;
mod resources;
mod schema;
mod snippet;
mod store;
mod subscriptions;
mod tools;

#[cfg(test)]
mod tests;

pub use agent::MemoryAgent;
pub use answer::{Before, Hit, Hits, Outcome, Page, Remembered, Stats, Tally};
pub use connection::ConnectionError;
pub use note::{Draft, Key, Note, NoteError, NoteRef, Tag};
pub use query::Query;
pub use store::{MemoryError, MemoryStore};
