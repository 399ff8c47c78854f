//! A node: configuration, storage, membership, directory, agents and the local API, put together.

pub mod api;
pub mod approvals;
pub mod audit;
pub mod client;
pub mod config;
pub mod directory;
pub mod error;
mod exposed;
pub mod home;
pub mod members;
mod metrics;
pub mod node;
pub mod party;
pub mod setup;
pub mod store;
pub mod time;
mod vault;
mod websocket;
