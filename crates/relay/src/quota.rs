//! Quotas: how much of what, for all together, a token, a peer and a circuit. `None` is as much as there is.

use std::time::Duration;

use dawn_identity::RelayQuota;
use serde::{Deserialize, Serialize};

/// What a relay gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// For all together.
    pub total: Total,
    /// For all who show the same token, or are of the same network without one.
    pub token: Token,
    /// For one peer.
    pub peer: Peer,
    /// For one circuit.
    pub circuit: Circuit,
    /// How long a reservation lasts before it has to be renewed, seconds.
    pub reservation_seconds: u64,
    /// What is counted in bytes begins anew after so many seconds.
    pub period_seconds: u64,
}

/// Quotas for all together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Total {
    /// Reservations at once.
    pub reservations: usize,
    /// Circuits at once.
    pub circuits: usize,
    /// Bytes a second, both ways.
    pub bytes_per_second: Option<u64>,
}

/// Quotas for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// Reservations at once.
    pub reservations: usize,
    /// Circuits at once.
    pub circuits: usize,
    /// Bytes in a period, both ways.
    pub bytes: Option<u64>,
    /// Bytes a second, both ways.
    pub bytes_per_second: Option<u64>,
}

/// Quotas for a peer; it has one reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// Circuits at once that lead to it.
    pub circuits: usize,
    /// Circuits at once that it asks for.
    pub asked: usize,
    /// Bytes in a period, both ways, of the circuits that lead to it.
    pub bytes: Option<u64>,
    /// Bytes a second of these.
    pub bytes_per_second: Option<u64>,
}

/// Quotas for a circuit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Circuit {
    /// Bytes each way.
    pub bytes: Option<u64>,
    /// For how long, seconds.
    pub seconds: Option<u64>,
    /// Bytes a second, both ways.
    pub bytes_per_second: Option<u64>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            total: Total::default(),
            token: Token::default(),
            peer: Peer::default(),
            circuit: Circuit::default(),
            reservation_seconds: 3600,
            period_seconds: 86_400,
        }
    }
}

impl Default for Total {
    fn default() -> Self {
        Self {
            reservations: 4096,
            circuits: 8192,
            bytes_per_second: None,
        }
    }
}

impl Default for Token {
    fn default() -> Self {
        Self {
            reservations: 1024,
            circuits: 4096,
            bytes: None,
            bytes_per_second: None,
        }
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            circuits: 256,
            asked: 128,
            bytes: None,
            bytes_per_second: None,
        }
    }
}

/// Longest time that a quota may name: what is further away cannot be counted to.
const LONGEST: u64 = 366 * 86_400;

impl Quotas {
    /// # Errors
    /// Which quota cannot be kept to, and what it may be.
    pub(crate) fn check(&self) -> Result<(), String> {
        let times = [
            ("circuit.seconds", self.circuit.seconds.unwrap_or(1)),
            ("reservation_seconds", self.reservation_seconds),
            ("period_seconds", self.period_seconds),
        ];
        for (name, seconds) in times {
            if seconds == 0 || seconds > LONGEST {
                return Err(format!("quotas.{name}: between 1 and {LONGEST}, a year"));
            }
        }
        Ok(())
    }

    /// How long a reservation lasts.
    pub(crate) fn reservation(&self) -> Duration {
        // What a client renews at once would be asked for all the time.
        Duration::from_secs(self.reservation_seconds.max(10))
    }

    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs(self.period_seconds.max(1))
    }
}

impl Token {
    /// With what a signed token says, where that is less.
    pub(crate) fn within(&self, quota: &RelayQuota) -> Self {
        let less = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let circuits = quota
            .circuits
            .map(|circuits| usize::try_from(circuits).unwrap_or(usize::MAX));
        Self {
            reservations: self.reservations,
            circuits: circuits.map_or(self.circuits, |circuits| circuits.min(self.circuits)),
            bytes: less(self.bytes, quota.bytes),
            bytes_per_second: less(self.bytes_per_second, quota.bytes_per_second),
        }
    }
}
