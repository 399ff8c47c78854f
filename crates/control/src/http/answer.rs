//! Answers and problems on the wire.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dawn_control_api::{Code, PROBLEM_JSON, Problem, RequestId};

use crate::caller::Caller;
use crate::control::{Answer, etag};
use crate::error::ControlError;
use crate::refusal::Refusal;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(super) struct Failure(pub(super) ControlError);

impl<E: Into<ControlError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// What a handler gives.
pub(super) type Outcome = Result<Response, Failure>;

/// A problem that waits for the id of its request.
#[derive(Debug, Clone)]
pub(super) struct Told(pub(super) Problem, pub(super) Option<u64>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let refusal = match self.0 {
            ControlError::Refused(refusal) => refusal,
            ControlError::Overloaded => Refusal::new(Code::Busy).after(1),
            ControlError::Database(sqlx::Error::PoolTimedOut) => Refusal::new(Code::Busy).after(2),
            ControlError::Stopping => Refusal::new(Code::Draining).after(5),
            error @ ControlError::Unknown => Refusal::because(Code::Internal, error.to_string())
                .next("ask again with the same Idempotency-Key, or look whether it was done"),
            // What it says may tell strangers about the database: it is for the log.
            error => {
                tracing::error!(%error, "a request failed");
                Refusal::new(Code::Internal).next("see the log of the control plane")
            }
        };
        refusal.into_response()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut problem = Problem::new(self.code);
        problem.detail = self.detail;
        problem.next = self.next;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(Told(problem, self.retry_after));
        response
    }
}

/// Writes the problem of a response, with the id of its request.
pub(super) fn tell(mut response: Response, request: RequestId) -> Response {
    let Some(Told(mut problem, retry_after)) = response.extensions_mut().remove::<Told>() else {
        return response;
    };
    problem.request = Some(request);
    let status = problem.status;
    // A problem is made of texts and numbers: it can be written.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // What is left of the body is not read.
    if matches!(status, 408 | 413) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    *response.body_mut() = Body::from(body);
    response
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = match self.body {
            Some(body) => {
                let kind = HeaderValue::from_static("application/json");
                (status, [(header::CONTENT_TYPE, kind)], body).into_response()
            }
            None => status.into_response(),
        };
        for (name, value) in [(header::ETAG, self.etag), (header::LOCATION, self.location)] {
            // Both are made of ids and numbers.
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// 200 with a body.
pub(super) fn ok(body: &impl serde::Serialize) -> Outcome {
    Ok((StatusCode::OK, Json(body)).into_response())
}

/// 200 with a body and the revision of what is in it, or 304 where who asks has that.
pub(super) fn tagged(caller: &Caller, revision: i64, body: &impl serde::Serialize) -> Outcome {
    let tag = etag(revision);
    let is_known = caller.if_none_match.as_deref().is_some_and(|tags| {
        let mut tags = tags.split(',').map(str::trim);
        tags.any(|one| one == "*" || one == tag || one.strip_prefix("W/") == Some(&tag))
    });
    let answer = if is_known {
        Answer {
            status: 304,
            ..Answer::empty()
        }
    } else {
        Answer::with(200, body)?
    };
    Ok(answer.tagged(revision).into_response())
}

/// Makes sure that what is to be changed is what `If-Match` names, where there is such a header. A revision of 0 stands
/// for what is not there.
///
/// # Errors
/// It is not.
pub(super) fn unchanged(if_match: Option<&str>, revision: i64) -> Result<(), Refusal> {
    let is_same = match if_match.map(str::trim) {
        None => true,
        Some("*") => revision != 0,
        Some(tags) => {
            let tag = etag(revision);
            revision != 0 && tags.split(',').any(|one| one.trim() == tag)
        }
    };
    if is_same { Ok(()) } else { Err(Refusal::stale()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_revision_that_is_named_is_changed() {
        assert!(unchanged(None, 0).is_ok() && unchanged(None, 7).is_ok());
        assert!(unchanged(Some("\"7\""), 7).is_ok() && unchanged(Some("\"6\", \"7\""), 7).is_ok());
        assert!(unchanged(Some("*"), 7).is_ok());
        for (tags, revision) in [("*", 0), ("\"7\"", 8), ("7", 7), ("W/\"7\"", 7), ("\"0\"", 0), ("", 7)] {
            assert!(unchanged(Some(tags), revision).is_err(), "{tags} {revision}");
        }
    }
}
