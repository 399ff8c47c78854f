//! A circuit as the desk grants it.

use std::time::Instant;

use dawn_identity::UnixTime;
use libp2p::swarm::ConnectionId;

use crate::message::Limit;

/// Now, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// For what is signed.
    pub time: UnixTime,
}

/// Names a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitId(pub(super) u64);

/// A circuit that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// Its name.
    pub id: CircuitId,
    /// Where the target reserved.
    pub connection: ConnectionId,
    /// What the ends are told of its limits.
    pub limit: Option<Limit>,
    /// When it ends at the latest.
    pub ends: Option<Instant>,
    /// Whether what it carries is held back by a rate.
    pub has_rates: bool,
}
