//! A node: configuration, storage, membership, directory, agents and the local API, put together.

pub mod api;
pub mod approvals;
pub mod audit;
pub mod client;
pub mod config;
mod connections;
pub mod directory;
pub mod envelopes;
pub mod error;
pub mod exchange;
mod exposed;
pub mod home;
pub mod keyring;
pub mod mail;
pub mod members;
mod metrics;
mod netcheck;
pub mod node;
pub mod party;
pub mod pins;
pub mod setup;
mod shares;
pub mod store;
mod sync;
pub mod time;
mod vault;
mod websocket;
