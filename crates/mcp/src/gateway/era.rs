//! The two eras of MCP and the revisions that belong to them.

use axum::http::HeaderMap;

use crate::jsonrpc::{Peek, text};

/// Revisions with `initialize`, newest first.
pub const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The newest revision with `initialize`.
pub const LATEST_LEGACY: &str = LEGACY_VERSIONS[0];
/// Stateless revisions, newest first.
pub const MODERN_VERSIONS: [&str; 1] = ["2026-07-28"];

/// Which of the two ways of speaking MCP a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Sessions that begin with `initialize`.
    Legacy,
    /// Stateless requests that carry their version.
    Modern,
}

/// The header that names the revision.
pub(super) const VERSION_HEADER: &str = "mcp-protocol-version";

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Era {
    /// The era of an HTTP request: a version in `_meta` or a header that names no legacy revision makes it modern.
    pub(super) fn of_http(headers: &HeaderMap, peek: &Peek<'_>) -> Self {
        let by_header = || header(headers, VERSION_HEADER).is_some_and(|version| !LEGACY_VERSIONS.contains(&version));
        if Self::of_message(peek) == Self::Modern || by_header() {
            Self::Modern
        } else {
            Self::Legacy
        }
    }

    /// The era of a message on a byte stream.
    pub(super) fn of_message(peek: &Peek<'_>) -> Self {
        let version = peek.meta().and_then(|meta| meta.protocol_version).and_then(text);
        if version.is_some() { Self::Modern } else { Self::Legacy }
    }
}
