//! Why an exposed endpoint does not let a request in, and the challenge that says so.
//! Source: RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1, MCP "Authorization".

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It shows no token.
    #[error("an access token is needed")]
    Missing,
    /// It shows tokens in a way that is not allowed.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its token does not do.
    #[error("{0}")]
    Invalid(String),
    /// What it shows to prove that the token's key is its own does not do.
    #[error("{0}")]
    InvalidProof(&'static str),
    /// Its token lacks scopes.
    #[error("the token lacks a scope that this endpoint needs")]
    InsufficientScope,
    /// Whom the token is for may not use this endpoint.
    #[error("{0} may not use this endpoint")]
    Forbidden(String),
    /// Whether the token does cannot be found out now.
    #[error("{0}; try again")]
    Unavailable(String),
}

/// What a challenge tells a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Challenge<'a> {
    /// Address of the protected resource's metadata.
    pub(super) metadata: &'a str,
    /// The scopes that are needed, by spaces.
    pub(super) scope: &'a str,
    /// Whether only tokens that are bound to a key are taken.
    pub(super) bound_only: bool,
}

/// The signatures that proofs may have, by spaces: those of [`ALGORITHMS`](super::token::ALGORITHMS).
pub(super) const PROOF_ALGORITHMS: &str = "EdDSA ES256 ES384 RS256 RS384 RS512 PS256 PS384 PS512";

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Invalid(_) | Self::InvalidProof(_) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code of the error, where there is one: a request that shows nothing is told none (RFC 6750, 3.1).
    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::Malformed(_) => Some("invalid_request"),
            Self::Invalid(_) => Some("invalid_token"),
            Self::InvalidProof(_) => Some("invalid_dpop_proof"),
            Self::InsufficientScope => Some("insufficient_scope"),
            Self::Forbidden(_) => Some("access_denied"),
            Self::Unavailable(_) => Some("temporarily_unavailable"),
        }
    }

    /// The answer.
    pub(super) fn response(&self, challenge: Challenge<'_>) -> Response {
        let words = self.to_string();
        let code = self.code();
        let body = serde_json::json!({
            "error": code.unwrap_or("unauthorized"),
            "error_description": words,
            "resource_metadata": challenge.metadata,
        });
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::Unavailable(_)) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            return response;
        }
        let mut parameters = format!("resource_metadata=\"{}\"", challenge.metadata);
        if !challenge.scope.is_empty() {
            parameters += &format!(", scope=\"{}\"", challenge.scope);
        }
        if let Some(code) = code {
            // What a token says is part of no header; the words are in the body.
            parameters += &format!(", error=\"{code}\"");
        }
        let schemes = [
            (!challenge.bound_only).then(|| format!("Bearer {parameters}")),
            Some(format!("DPoP {parameters}, algs=\"{PROOF_ALGORITHMS}\"")),
        ];
        for challenge in schemes.into_iter().flatten() {
            // Addresses and scopes were checked for this when they were read from the configuration.
            if let Ok(value) = challenge.parse() {
                headers.append(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: Challenge<'_> = Challenge {
        metadata: "https://mcp.example/.well-known/oauth-protected-resource/mcp",
        scope: "mcp:tools",
        bound_only: false,
    };

    fn challenges(refusal: &Refusal, challenge: Challenge<'_>) -> (u16, Vec<String>) {
        let response = refusal.response(challenge);
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let texts = headers.iter().map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), texts.collect())
    }

    #[test]
    fn who_shows_nothing_is_told_where_to_go_and_no_error() {
        let (status, texts) = challenges(&Refusal::Missing, CHALLENGE);
        assert_eq!(status, 401);
        assert_eq!(
            texts[0],
            "Bearer resource_metadata=\"https://mcp.example/.well-known/oauth-protected-resource/mcp\", scope=\"mcp:tools\""
        );
        assert!(texts[1].starts_with("DPoP ") && texts[1].contains("algs="));
        let only = Challenge {
            bound_only: true,
            ..CHALLENGE
        };
        assert_eq!(challenges(&Refusal::Missing, only).1.len(), 1);
    }

    #[test]
    fn each_refusal_has_its_status_and_code() {
        for (refusal, status, code) in [
            (Refusal::Malformed("x"), 400, "invalid_request"),
            (Refusal::Invalid("x".into()), 401, "invalid_token"),
            (Refusal::InvalidProof("x"), 401, "invalid_dpop_proof"),
            (Refusal::InsufficientScope, 403, "insufficient_scope"),
            (Refusal::Forbidden("bob".into()), 403, "access_denied"),
        ] {
            let (found, texts) = challenges(&refusal, CHALLENGE);
            assert_eq!(found, status);
            assert!(
                texts.iter().all(|text| text.contains(&format!("error=\"{code}\""))),
                "{texts:?}"
            );
        }
        let (status, texts) = challenges(&Refusal::Unavailable("x".into()), CHALLENGE);
        assert_eq!((status, texts.len()), (503, 0));
    }
}
