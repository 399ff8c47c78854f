//! What is between this node and others: STUN over the node's own QUIC socket, and what follows from it.
//!
//! - `stun`: the messages.
//! - `kind`: what kind of NAT it is, from what several see.
//! - `limit`: how much is answered.
//! - `mapping`: ports that the gateway maps.
//! - `sockets`: asking and answering over the sockets that QUIC listens on.
//! - `watch`: what is known at the moment.

mod kind;
mod limit;
pub(crate) mod mapping;
pub(crate) mod sockets;
pub(crate) mod stun;
pub(crate) mod watch;

pub use mapping::MappedBy;
pub use mapping::keeper::PortMapping;

pub use kind::{Mapping, Nat, Observation, Ports, Scope, classify, is_shared, scope};

/// The parsers of what comes from outside, for fuzzing and for tests.
pub mod wire {
    use super::{mapping, stun};

    /// Whether a datagram is a message of STUN that is understood.
    #[must_use]
    pub fn decode_stun(datagram: &[u8]) -> bool {
        stun::Message::decode(datagram).is_ok()
    }

    /// Whether bytes are what members tell each other before they punch a hole.
    #[must_use]
    pub fn decode_offer(bytes: &[u8]) -> bool {
        crate::punch::is_offer(bytes)
    }

    /// Whether bytes are an address that a member may ask about.
    #[must_use]
    pub fn decode_dial_back(bytes: &[u8]) -> bool {
        crate::dial_back::is_request(bytes)
    }

    /// Whether any of the protocols of gateways takes bytes for an answer.
    #[must_use]
    pub fn decode_gateway(answer: &[u8]) -> bool {
        mapping::is_answer(answer)
    }
}
