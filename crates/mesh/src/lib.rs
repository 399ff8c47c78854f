//! The mesh: one handle over the libp2p swarm, or over an in-memory network.
//!
//! The only crate that names libp2p. Above it there are byte streams to members under a protocol name, published
//! messages, and peers that come and go.

mod apart;
mod backoff;
mod circuit;
mod config;
mod dial_back;
mod error;
pub mod forward;
mod handle;
mod inbound;
mod membership;
pub mod memory;
pub mod nat;
mod outbound;
mod peer;
mod per_node;
mod pubsub;
mod punch;
mod quic;
mod relaying;
mod stream;
mod swarm;
mod transport;

pub use apart::{Answering, Neighbours};
pub use backoff::Backoff;
pub use config::{MeshConfig, MeshLimits};
pub use dawn_relay::Server as RelayServer;
pub use dawn_relay::token::to_text as relay_token_text;
pub use dial_back::{AddressSource, Reach, ReachVerdict};
pub use error::{AcceptError, OpenError, StartError};
pub use forward::{ForwardConfig, Forwarding};
pub use handle::{Inbound, Incoming, Mesh, Protocol};
pub use nat::{MappedBy, PortMapping};
pub use peer::{Audience, Counters, Gate, Peer, PeerEvent, PeerInfo, Refusal, Route, Transport};
pub use pubsub::Published;
pub use punch::PunchOutcome;
pub use relaying::{KnownRelay, RelayInfo, RelayState, Relaying, RevocationSource};
pub use stream::MeshStream;
pub use swarm::check_address;
pub use transport::relay_transport;
