//! Why the desk refuses.

use crate::message::Status;

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The peer has shown nothing that lets it reserve.
    #[error("no token was shown that is accepted here")]
    NoToken,
    /// What it has shown has ended.
    #[error("the token has expired")]
    Expired,
    /// The relay is about to end.
    #[error("the relay is shutting down")]
    Draining,
    /// All reservations are taken.
    #[error("the relay has as many reservations as it may")]
    Full,
    /// The token's are.
    #[error("the token has as many reservations as it may")]
    TokenFull,
    /// All circuits, those of the token, or of the peer are taken.
    #[error("there are as many circuits as there may be")]
    Circuits,
    /// All circuits that are there for peers which have shown nothing are taken.
    #[error("there are as many circuits as there may be of peers that have shown nothing")]
    Strangers,
    /// The bytes of the token or of the peer are used up.
    #[error("the bytes of this period are used up")]
    Bytes,
    /// The target has no reservation.
    #[error("the target has no reservation here")]
    NoReservation,
    /// The peer that asks for a circuit may have none.
    #[error("the peer may not have its streams carried here")]
    NotCarried,
    /// A peer asks for a circuit to itself, or over a circuit.
    #[error("no circuit leads to where it begins")]
    Loop,
    /// The connection on which it was asked has ended.
    #[error("the connection has ended")]
    Gone,
}

impl Refusal {
    /// Its status in the protocol.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::NoToken | Self::Expired | Self::NotCarried | Self::Loop => Status::PermissionDenied,
            Self::Draining | Self::Full | Self::Gone => Status::ReservationRefused,
            Self::TokenFull | Self::Circuits | Self::Strangers | Self::Bytes => Status::ResourceLimitExceeded,
            Self::NoReservation => Status::NoReservation,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Expired => "expired",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::TokenFull => "token_full",
            Self::Circuits => "circuits",
            Self::Strangers => "strangers",
            Self::Bytes => "bytes",
            Self::NoReservation => "no_reservation",
            Self::NotCarried => "not_carried",
            Self::Loop => "loop",
            Self::Gone => "gone",
        }
    }
}
