//! The gate that every request passes: how often, how large, how slow, and who asks.

use std::net::IpAddr;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use dawn_control_api::signature::{self, HeadersRef, Parts, SignatureError};
use dawn_control_api::{BearerToken, Code, DigestError, NotFresh, RequestId, TokenView, limits};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use super::answer::{Failure, Told, tell};
use super::headers::{Headers, Shown, bad_token};
use crate::caller::{Caller, Who};
use crate::control::{Control, locked, now};
use crate::error::ControlError;
use crate::refusal::Refusal;
use crate::store::tokens;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An address.
    Address(IpAddr),
    /// The socket of the operator.
    Socket,
}

/// Lets a request through, or answers why not.
pub(super) async fn gate(State(control): State<Control>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = Control::request_id();
    let origin = request.extensions().get::<Origin>().copied();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let waits = route.as_deref().is_some_and(|route| route.ends_with("/changes"));
    let response = match admit(&control, request, id, origin).await {
        Ok(request) => next.run(request).await,
        Err(failure) => {
            let response = failure.into_response();
            charge(&control, origin, &response);
            response
        }
    };
    if let Some(Told(problem, _)) = response.extensions().get() {
        control.metrics.refused(problem.code);
    }
    let mut response = tell(response, id);
    let took = (!waits).then(|| began.elapsed());
    let status = response.status().as_u16();
    control
        .metrics
        .answered(route.as_deref().unwrap_or("none"), known(&method), status, took);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        headers.insert("x-request-id", value);
    }
    response
}

/// Who is not let in counts against where it comes from.
fn charge(control: &Control, origin: Option<Origin>, response: &Response) {
    let is_limited = |told: &Told| told.0.code == Code::RateLimited;
    if let (Some(Origin::Address(address)), false) = (origin, response.extensions().get().is_some_and(is_limited)) {
        // Whether that was the last is told with the next request.
        let _ = locked(&control.rates.addresses).take(&address, Instant::now());
    }
}

/// The methods that are counted each for itself: anybody can make up others.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn too_often(seconds: u64) -> Refusal {
    Refusal::new(Code::RateLimited).after(seconds)
}

/// What health checks and scrapers ask all the time.
fn is_free(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

/// Reads the request and who asks it.
async fn admit(control: &Control, request: Request, id: RequestId, origin: Option<Origin>) -> Result<Request, Failure> {
    let (mut parts, body) = request.into_parts();
    if let Some(Origin::Address(address)) = origin
        && !is_free(parts.uri.path())
    {
        locked(&control.rates.addresses)
            .look(&address, Instant::now())
            .map_err(too_often)?;
    }
    let (caller, body) = {
        let headers = Headers::read(&parts.headers)?;
        if headers
            .length
            .is_some_and(|length| length > limits::MAX_BODY_BYTES as u64)
        {
            return Err(Refusal::new(Code::TooLarge).into());
        }
        let asked = Parts {
            method: parts.method.as_str(),
            authority: &control.authority,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &headers.covered,
            body: &[],
        };
        let shown = headers.shown()?;
        // A body is not read before it is known who sends it.
        let who = match &shown {
            Shown::Nothing if origin == Some(Origin::Socket) => Who::Operator,
            Shown::Nothing => {
                if let Some(Origin::Address(address)) = origin
                    && !is_free(asked.path)
                {
                    locked(&control.rates.addresses)
                        .take(&address, Instant::now())
                        .map_err(too_often)?;
                }
                Who::Anybody
            }
            Shown::Token(token) => Who::Token(Box::new(accepted(control, token).await?)),
            Shown::Signature(signed) => {
                if !headers
                    .host
                    .is_some_and(|host| host.eq_ignore_ascii_case(&control.authority))
                {
                    let refusal = Refusal::because(Code::WrongAuthority, format!("this is {}", control.authority));
                    return Err(refusal.next("sign for the address in /v1/info").into());
                }
                verified(control, &asked, signed)?
            }
        };
        let body = read(control, body).await?;
        if let Shown::Signature(signed) = &shown {
            signature::verify_body(&body, signed).map_err(unsigned)?;
        }
        if !body.is_empty() && !headers.is_json {
            return Err(Refusal::new(Code::WrongType).into());
        }
        let caller = Caller {
            who,
            request: id,
            from: match origin {
                Some(Origin::Address(address)) => address.to_string(),
                Some(Origin::Socket) | None => "socket".to_owned(),
            },
            key: headers.key.map(str::to_owned),
            asked: fingerprint(&asked, &body),
            if_match: headers.if_match.map(str::to_owned),
            if_none_match: headers.if_none_match.map(str::to_owned),
        };
        (caller, body)
    };
    parts.extensions.insert(caller);
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Tells one request from another: SHA-256 of method, path, query and body, hexadecimal.
fn fingerprint(asked: &Parts<'_>, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [asked.method, asked.path, asked.query.unwrap_or_default()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// Reads a body, in time and of bounded length.
async fn read(control: &Control, mut body: Body) -> Result<Bytes, Refusal> {
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::because(Code::Malformed, "the body broke off"))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > limits::MAX_BODY_BYTES {
                    return Err(Refusal::new(Code::TooLarge));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(control.config.limits.body, whole)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Code::TooSlow)))
}

/// The token, if it is accepted: it is not told why it is not.
async fn accepted(control: &Control, token: &BearerToken) -> Result<TokenView, ControlError> {
    let mut connection = control.store.read().await?;
    let found = tokens::by_hash(&mut connection, &token.hashed()).await?;
    drop(connection);
    let now = now();
    let found = found
        .filter(|token| !token.revoked && token.expires.is_none_or(|expires| now < expires))
        .ok_or_else(bad_token)?;
    locked(&control.rates.tokens)
        .take(&found.id, Instant::now())
        .map_err(too_often)?;
    let is_noted = found.last_used.is_some_and(|used| now.since(used).as_secs() < 60);
    if !is_noted {
        let (store, id) = (control.store.clone(), found.id);
        tokio::spawn(async move {
            let noted = store
                .write(move |tx| Box::pin(async move { tx.used_token(id).await }))
                .await;
            if let Err(error) = noted {
                tracing::warn!(%error, "the use of a token was not noted");
            }
        });
    }
    Ok(found)
}

/// The device that signed the request, all of it but the body.
fn verified(control: &Control, asked: &Parts<'_>, signed: &HeadersRef<'_>) -> Result<Who, Refusal> {
    let now = now();
    let verified = signature::verify_head(asked, signed, now, limits::CLOCK_SKEW).map_err(unsigned)?;
    let (node, nonce, until) = (verified.node, verified.nonce, verified.remember_until);
    locked(&control.rates.devices)
        .take(&node, Instant::now())
        .map_err(too_often)?;
    let fresh = locked(&control.nonces).take(node, nonce, verified.created, until, now);
    match fresh {
        Ok(()) => Ok(Who::Device { node, nonce, until }),
        Err(NotFresh::Replayed) => Err(Refusal::new(Code::Replayed).next("sign it anew")),
        Err(error @ NotFresh::BeforeStart) => {
            Err(Refusal::because(Code::BadTime, error.to_string()).next("sign it anew"))
        }
        Err(error @ NotFresh::TooMany) => Err(Refusal::because(Code::RateLimited, error.to_string()).after(60)),
        Err(error @ NotFresh::Full) => Err(Refusal::because(Code::Busy, error.to_string()).after(60)),
    }
}

/// Why a signature is not accepted.
fn unsigned(error: SignatureError) -> Refusal {
    let code = match error {
        SignatureError::BadSignature => Code::BadSignature,
        SignatureError::Digest(DigestError::Mismatch) => Code::BadDigest,
        SignatureError::Validity | SignatureError::FromTheFuture(_) | SignatureError::Expired(_) => Code::BadTime,
        SignatureError::Malformed(_)
        | SignatureError::NotCovered(_)
        | SignatureError::Unsignable(_)
        | SignatureError::Digest(DigestError::Malformed) => Code::BadSignatureForm,
    };
    let refusal = Refusal::because(code, error.to_string());
    match code {
        Code::BadTime => refusal.next("check the clock of the device, and sign it anew"),
        _ => refusal,
    }
}
