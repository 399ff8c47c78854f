//! Errors of the local API: a stable code, what went wrong, what to do next.

use axum::Json;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use dawn_mcp::client::ClientError;
use dawn_mcp::fault::Fault;

/// An error as the API answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    next: Option<String>,
    data: Option<serde_json::Value>,
}

impl ApiError {
    /// An error with its status, stable code and words.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            next: None,
            data: None,
        }
    }

    /// With what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// A request that cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Something that is not there.
    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// A failure of the node itself.
    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request to the local API failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()).next("see the node's log")
    }
}

impl ApiError {
    /// The body of the answer.
    pub(super) fn json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({ "code": self.code, "message": self.message });
        if let Some(next) = &self.next {
            error["next"] = next.as_str().into();
        }
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        serde_json::json!({ "error": error })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.json())).into_response()
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        use dawn_mcp::fault::FaultCode;
        let status = match fault.code {
            FaultCode::NodeOffline
            | FaultCode::HostAway
            | FaultCode::AgentFailed
            | FaultCode::SessionLost
            | FaultCode::Protocol => StatusCode::BAD_GATEWAY,
            FaultCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            other => other.http_status(),
        };
        let next = match fault.code {
            FaultCode::NodeOffline | FaultCode::UnknownNode => "dawn peers",
            FaultCode::HostAway => "if the host is lost for good, on each node: dawn migrate here --to decentralized",
            FaultCode::UnknownAgent | FaultCode::AgentFailed => "dawn agent list",
            FaultCode::Denied => "ask the owner of the agent's node",
            FaultCode::PinMismatch => "dawn keys list",
            FaultCode::PolicyDenied => "dawn policy show, or ask who administers the network",
            _ => "dawn doctor",
        };
        Self::new(status, fault.code.slug(), fault.message).next(next)
    }
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Fault(fault) => fault.into(),
            ClientError::Agent { code, message, error } => {
                let mut answer = Self::new(
                    StatusCode::BAD_GATEWAY,
                    "agent_error",
                    format!("the agent answered: {message} ({code})"),
                );
                answer.data = serde_json::from_str(&error).ok();
                answer
            }
        }
    }
}

/// The answer to a path that is none.
pub(super) async fn unknown_route(uri: Uri) -> ApiError {
    ApiError::not_found("unknown_route", format!("there is no {}", uri.path())).next("see /api/openapi.json")
}

impl From<crate::error::NodeError> for ApiError {
    fn from(error: crate::error::NodeError) -> Self {
        use crate::error::NodeError;
        use crate::lock::LockError;
        let status = match &error {
            NodeError::NotAllowed(_)
            | NodeError::Issue(_)
            | NodeError::TooManyRevocations(_)
            | NodeError::PolicyDenied(_) => StatusCode::FORBIDDEN,
            NodeError::Policy(_) => StatusCode::UNPROCESSABLE_ENTITY,
            NodeError::Control(_) => StatusCode::BAD_GATEWAY,
            NodeError::Exists { .. }
            | NodeError::SeveralRequests(_)
            | NodeError::BehindHost(_)
            | NodeError::MigrationOver
            | NodeError::MigrationUnderWay => StatusCode::CONFLICT,
            NodeError::Config(_)
            | NodeError::NoProgram(_)
            | NodeError::SharedKey(_)
            | NodeError::GuestHost(_)
            | NodeError::MigrationNeedsHost(_) => StatusCode::BAD_REQUEST,
            NodeError::NotFound { .. } | NodeError::Lock(LockError::NoProposal(_)) => StatusCode::NOT_FOUND,
            NodeError::Lock(LockError::NoNetworkKey | LockError::NoKey) => StatusCode::FORBIDDEN,
            NodeError::Lock(LockError::None | LockError::Exists | LockError::Refused(_)) => StatusCode::CONFLICT,
            NodeError::Lock(_) => StatusCode::BAD_REQUEST,
            _ => return Self::internal(&error),
        };
        let mut answer = Self::new(status, error.code(), error.to_string());
        answer.next = error.next();
        answer
    }
}
