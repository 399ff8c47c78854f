//! Who may speak to the local API: the token, `Host` and `Origin`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dawn_mcp::gateway::{Owner, asks_for_channel, bearer};
use subtle::ConstantTimeEq;

use super::error::ApiError;

/// What a request must show.
#[derive(Debug, Clone)]
pub struct Guarded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    token: String,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guarded {
    /// The token, and hosts and origins allowed beside loopback.
    #[must_use]
    pub fn new(token: String, hosts: Vec<String>, origins: Vec<String>) -> Self {
        Self(Arc::new(Inner { token, hosts, origins }))
    }

    fn is_token(&self, given: &str) -> bool {
        given.as_bytes().ct_eq(self.0.token.as_bytes()).into()
    }
}

/// Lets a request through or answers why not.
pub(super) async fn check(State(guarded): State<Guarded>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !host_is_allowed(headers, &guarded.0.hosts) {
        let words = "the Host header names neither this machine's loopback nor one of api.allowed_hosts";
        return ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", words).into_response();
    }
    if !origin_is_allowed(headers, &guarded.0.origins) {
        let words = "the Origin header names neither this machine's loopback nor one of api.allowed_origins";
        return ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", words).into_response();
    }
    let path = request.uri().path();
    let open = matches!(path, "/healthz" | "/readyz" | "/oauth/callback");
    let shown = shown(&guarded, &request);
    // A member shows in the secure channel who it is; the gateway lets nobody else further than that.
    let is_proven_later = shown.is_none() && is_websocket(path) && asks_for_channel(headers);
    if !open && shown != Some(true) && !is_proven_later {
        let error = ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the token is missing or wrong",
        )
        .next("send `Authorization: Bearer TOKEN`; the token is in the file api-token of the node's home folder");
        let mut response = error.into_response();
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    let mut request = request;
    if shown == Some(true) {
        request.extensions_mut().insert(Owner);
    }
    next.run(request).await
}

/// Whether a request shows the token; `None` when it shows none at all.
fn shown(guarded: &Guarded, request: &Request) -> Option<bool> {
    let headers = request.headers();
    if let Some(bearer) = headers.get(header::AUTHORIZATION) {
        let bearer = bearer.to_str().ok().and_then(|bearer| bearer.split_once(' '));
        return Some(
            bearer
                .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && guarded.is_token(token.trim())),
        );
    }
    let path = request.uri().path();
    // A browser can set no header of a WebSocket.
    if let Some(token) = bearer(headers).filter(|_| is_websocket(path)) {
        return Some(guarded.is_token(token));
    }
    // Some MCP clients take nothing but an address.
    let is_gateway = path == "/mcp" || path.starts_with("/mcp/") || is_websocket(path);
    let query = request.uri().query().filter(|_| is_gateway).unwrap_or_default();
    let mut tokens = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("token="))
        .peekable();
    tokens.peek()?;
    Some(tokens.any(|token| guarded.is_token(token)))
}

fn is_websocket(path: &str) -> bool {
    path == "/ws" || path.starts_with("/ws/")
}

fn host_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    is_loopback(host)
        || allowed
            .iter()
            .any(|known| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(without_port(host)))
}

fn origin_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.all(|value| {
        let Ok(origin) = value.to_str() else { return false };
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(is_loopback) || allowed.iter().any(|known| known.eq_ignore_ascii_case(origin))
    })
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = without_port(authority);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, value: &str) -> HeaderMap {
        [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn only_loopback_and_listed_hosts_are_let_in() {
        for good in ["localhost", "localhost:7400", "127.0.0.1:1", "[::1]:7400", "127.5.5.5"] {
            assert!(host_is_allowed(&headers("host", good), &[]), "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "192.168.0.1:7400",
            "",
        ] {
            assert!(!host_is_allowed(&headers("host", bad), &[]), "{bad}");
        }
        assert!(!host_is_allowed(&HeaderMap::new(), &[]));
        assert!(host_is_allowed(
            &headers("host", "lab.home:7400"),
            &["lab.home".to_owned()]
        ));
    }

    #[test]
    fn only_loopback_and_listed_origins_are_let_in() {
        assert!(origin_is_allowed(&HeaderMap::new(), &[]));
        assert!(origin_is_allowed(&headers("origin", "http://localhost:5173"), &[]));
        for bad in [
            "https://evil.example",
            "null",
            "http://127.0.0.1.evil.example",
            "file://localhost",
        ] {
            assert!(!origin_is_allowed(&headers("origin", bad), &[]), "{bad}");
        }
    }
}
