//! What handlers take out of a request, with refusals that say what is wrong.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use dawn_control_api::Code;
use serde::de::DeserializeOwned;

use crate::caller::Caller;
use crate::refusal::Refusal;

/// The ids in the path.
#[derive(Debug)]
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(Refusal::because(Code::Malformed, "an id in the path is none")),
        }
    }
}

/// The query.
#[derive(Debug)]
pub(super) struct Ask<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Ask<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        // PostgreSQL keeps no such character in a text, so nothing that is kept has one.
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Refusal::because(Code::Malformed, "there is a NUL in the query"));
        }
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(Refusal::because(Code::Malformed, shortened(&error.body_text()))),
        }
    }
}

/// The body, JSON. None at all is the same as `{}`.
#[derive(Debug)]
pub(super) struct In<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for In<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|_| Refusal::new(Code::TooLarge))?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        match serde_json::from_slice(text) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(Refusal::because(
                Code::Malformed,
                shortened(&format!("the body: {error}")),
            )),
        }
    }
}

/// What a parser says may quote what was sent; no more than fits in a line of it is sent back.
fn shortened(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect()
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        // The gate puts it there before any handler is called.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Refusal::new(Code::Internal))
    }
}
