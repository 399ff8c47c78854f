//! Errors that Dawn itself puts into an MCP conversation.
//!
//! Their codes lie outside the ranges that JSON-RPC (-32768 to -32000) and MCP reserve, and `error.data.dawn` marks
//! them, so that a client can tell a failure of the way from a failure of the agent.

use serde::{Deserialize, Serialize};

use crate::jsonrpc::Message;

/// What went wrong on the way to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The node is known but cannot be reached.
    NodeOffline,
    /// No node of that name or id.
    UnknownNode,
    /// The node has no such agent.
    UnknownAgent,
    /// The agent does not start, crashed, or broke the protocol.
    AgentFailed,
    /// The client and the agent speak different eras of MCP.
    EraMismatch,
    /// A message above the limit.
    TooLarge,
    /// The caller may not use this agent.
    Denied,
    /// A limit on sessions, processes or requests in flight is reached.
    Busy,
    /// No answer in time.
    Timeout,
    /// The session ended on the agent's side.
    SessionLost,
    /// The other node broke the mesh protocol.
    Protocol,
    /// The agent's server asks that its owner logs in.
    LoginRequired,
    /// Who has the name is not who it is pinned to.
    PinMismatch,
    /// The host through which alone the node is reached is away.
    HostAway,
    /// The network's policy does not let the caller use this.
    PolicyDenied,
}

impl FaultCode {
    /// Every code, for counters.
    pub const ALL: [Self; 15] = [
        Self::NodeOffline,
        Self::UnknownNode,
        Self::UnknownAgent,
        Self::AgentFailed,
        Self::EraMismatch,
        Self::TooLarge,
        Self::Denied,
        Self::Busy,
        Self::Timeout,
        Self::SessionLost,
        Self::Protocol,
        Self::LoginRequired,
        Self::PinMismatch,
        Self::HostAway,
        Self::PolicyDenied,
    ];

    /// The JSON-RPC error code.
    #[must_use]
    pub fn rpc_code(self) -> i64 {
        match self {
            Self::NodeOffline => -31001,
            Self::UnknownNode => -31002,
            Self::UnknownAgent => -31003,
            Self::AgentFailed => -31004,
            Self::EraMismatch => -31005,
            Self::TooLarge => -31006,
            Self::Denied => -31007,
            Self::Busy => -31008,
            Self::Timeout => -31009,
            Self::SessionLost => -31010,
            Self::Protocol => -31011,
            Self::LoginRequired => -31012,
            Self::PinMismatch => -31020,
            Self::HostAway => -31030,
            Self::PolicyDenied => -31021,
        }
    }

    /// The stable name in `error.data.dawn.code`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::NodeOffline => "node_offline",
            Self::UnknownNode => "unknown_node",
            Self::UnknownAgent => "unknown_agent",
            Self::AgentFailed => "agent_failed",
            Self::EraMismatch => "era_mismatch",
            Self::TooLarge => "too_large",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::SessionLost => "session_lost",
            Self::Protocol => "protocol",
            Self::LoginRequired => "login_required",
            Self::PinMismatch => "pin_mismatch",
            Self::HostAway => "host_away",
            Self::PolicyDenied => "policy_denied",
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::NodeOffline | Self::AgentFailed | Self::Busy | Self::Timeout | Self::SessionLost | Self::HostAway
        )
    }

    /// The HTTP status under which the gateway sends such an error when nothing was streamed yet.
    ///
    /// Where the gateway itself works and only the way behind it does not, the status is 200: clients read a JSON-RPC
    /// error from the body of a 200, but throw the body of a 5xx away.
    #[must_use]
    pub fn http_status(self) -> http::StatusCode {
        use http::StatusCode;
        match self {
            Self::NodeOffline
            | Self::AgentFailed
            | Self::SessionLost
            | Self::Protocol
            | Self::Timeout
            | Self::HostAway
            | Self::LoginRequired => StatusCode::OK,
            Self::UnknownNode | Self::UnknownAgent => StatusCode::NOT_FOUND,
            Self::EraMismatch => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Denied | Self::PinMismatch | Self::PolicyDenied => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A failure on the way to an agent, in words a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind.
    pub code: FaultCode,
    /// What was attempted, why it failed, what to do next.
    pub message: String,
}

impl Fault {
    /// A fault of this kind with these words.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The fault that an answer of Dawn's own tells; `None` of every other message.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        #[derive(Deserialize)]
        struct Told {
            message: String,
            data: Marked,
        }
        #[derive(Deserialize)]
        struct Marked {
            dawn: Mark,
        }
        #[derive(Deserialize)]
        struct Mark {
            code: FaultCode,
        }
        let told: Told = serde_json::from_str(message.peek().ok()?.error?.get()).ok()?;
        Some(Self::new(told.data.dawn.code, told.message))
    }

    /// `error.data` of the JSON-RPC error.
    #[must_use]
    pub fn data(&self) -> serde_json::Value {
        serde_json::json!({ "dawn": { "code": self.code.slug(), "retryable": self.code.retryable() } })
    }

    /// The JSON-RPC error response to the request with this raw id.
    #[must_use]
    pub fn answer(&self, raw_id: Option<&str>) -> Message {
        Message::error(raw_id, self.code.rpc_code(), &self.message, Some(&self.data()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_lies_in_a_reserved_range_and_none_is_used_twice() {
        let codes: std::collections::BTreeSet<_> = FaultCode::ALL.iter().map(|code| code.rpc_code()).collect();
        assert_eq!(codes.len(), FaultCode::ALL.len());
        assert!(codes.iter().all(|code| !(-32768..=-32000).contains(code)));
    }

    #[test]
    fn the_slug_is_the_serialised_name() {
        for code in FaultCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.slug());
        }
    }
}
