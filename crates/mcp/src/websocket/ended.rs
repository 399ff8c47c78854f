//! Why a connection ended: for the peer a close code, for people words, for metrics a name.

use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Longest explanation in a close frame, bytes (RFC 6455, 5.5: 125, of which the code takes two).
const MAX_EXPLANATION: usize = 123;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// This side was done.
    Done,
    /// The peer closed it.
    Closed,
    /// It broke.
    Broken,
    /// Nothing was heard of the peer.
    Silent,
    /// The node shuts down.
    GoingAway,
    /// A message above the limit.
    TooLarge,
    /// A text message where binary ones are spoken, or the other way round.
    Unsupported,
    /// A violation of RFC 6455.
    Protocol,
    /// The handshake of the secure channel failed.
    Handshake,
    /// A frame of the secure channel was altered, repeated, lost, or against the rules.
    Channel,
    /// The peer is not a member, or not one any more.
    Refused,
    /// What came in time did not come in time.
    Late,
}

impl Reason {
    /// Every reason, for counters.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::Closed,
        Self::Broken,
        Self::Silent,
        Self::GoingAway,
        Self::TooLarge,
        Self::Unsupported,
        Self::Protocol,
        Self::Handshake,
        Self::Channel,
        Self::Refused,
        Self::Late,
    ];

    /// Its stable name.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::GoingAway => "going_away",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::Protocol => "protocol",
            Self::Handshake => "handshake",
            Self::Channel => "channel",
            Self::Refused => "refused",
            Self::Late => "late",
        }
    }

    /// The close code that the peer is told; `None` where nobody listens any more.
    fn code(self) -> Option<CloseCode> {
        match self {
            Self::Done => Some(CloseCode::Normal),
            Self::Closed | Self::Broken => None,
            Self::GoingAway | Self::Silent => Some(CloseCode::Away),
            Self::TooLarge => Some(CloseCode::Size),
            Self::Unsupported => Some(CloseCode::Unsupported),
            Self::Protocol | Self::Channel => Some(CloseCode::Protocol),
            Self::Handshake | Self::Refused | Self::Late => Some(CloseCode::Policy),
        }
    }

    /// Whether the other direction may go on for a moment, to say what is to be said.
    pub(super) fn leaves_time(self) -> bool {
        matches!(self, Self::TooLarge)
    }
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub(crate) struct Ended {
    pub(crate) reason: Reason,
    pub(crate) words: String,
}

impl Ended {
    pub(crate) fn new(reason: Reason, words: impl Into<String>) -> Self {
        Self {
            reason,
            words: words.into(),
        }
    }

    pub(super) fn done() -> Self {
        Self::new(Reason::Done, "the session is over")
    }

    pub(super) fn by_peer(frame: Option<&CloseFrame>) -> Self {
        let words = match frame {
            Some(frame) if frame.reason.is_empty() => format!("the peer closed the connection ({})", frame.code),
            Some(frame) => format!(
                "the peer closed the connection ({}: {})",
                frame.code,
                clean(&frame.reason)
            ),
            None => "the peer closed the connection".to_owned(),
        };
        Self::new(Reason::Closed, words)
    }

    /// What the peer is told, if it is there to be told.
    pub(super) fn close_frame(&self) -> Option<CloseFrame> {
        let mut words = self.words.clone();
        while words.len() > MAX_EXPLANATION {
            words.pop();
        }
        Some(CloseFrame {
            code: self.reason.code()?,
            reason: words.into(),
        })
    }
}

/// What a peer wrote, as one line without control characters.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::by_peer(None),
            Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => Self::new(
                Reason::TooLarge,
                format!("a message is larger than the limit of {max_size} bytes"),
            ),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::new(Reason::Broken, "the connection was cut off")
            }
            Error::Io(error) => Self::new(Reason::Broken, format!("the connection broke ({error})")),
            Error::Utf8(_) => Self::new(Reason::Protocol, "a text message that is no UTF-8"),
            error => Self::new(
                Reason::Protocol,
                format!("the peer broke the WebSocket protocol ({error})"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explanations_fit_a_close_frame() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::slug).into_iter().collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let told = Ended::new(reason, "ä".repeat(200)).close_frame();
            assert!(told.is_none_or(|frame| frame.code.is_allowed() && frame.reason.len() <= MAX_EXPLANATION));
        }
    }
}
