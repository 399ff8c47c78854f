//! The gate that every request passes: how often, how large, how slow, and who asks.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use dawn_control_api::signature::{self, Parts};
use dawn_control_api::{Asker, Code, RequestId, limits};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use sha2::{Digest as _, Sha256};

use super::answer::{Failure, Told, tell};
use super::door;
use super::headers::{Headers, Shown};
use crate::caller::{Caller, Who};
use crate::control::Control;
use crate::origin::{self, Origin, Peer};
use crate::refusal::Refusal;

/// Lets a request through, or answers why not.
pub(super) async fn gate(State(control): State<Control>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = Control::request_id();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let waits = route.as_deref().is_some_and(|route| route.ends_with("/changes"));
    let response = match admit(&control, request, id).await {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
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

/// What health checks and scrapers ask all the time.
fn is_free(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

/// Where a request comes from; the socket, where nothing else is known.
fn from(control: &Control, peer: Option<&Peer>, headers: &HeaderMap) -> Origin {
    let Some(Origin::Address(address)) = peer.map(|peer| peer.origin) else {
        return Origin::Socket;
    };
    let forwarded = headers.get_all("x-forwarded-for").iter();
    // What is no text ends what can be believed.
    let forwarded = forwarded.map(|value| value.to_str().unwrap_or_default());
    let forwarded: Vec<_> = forwarded.collect();
    let proxies = &control.config.trusted_proxies;
    Origin::Address(origin::client(proxies, address, forwarded.into_iter()))
}

/// Reads the request and who asks it.
async fn admit(control: &Control, request: Request, id: RequestId) -> Result<Request, Failure> {
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().cloned();
    let from = from(control, peer.as_ref(), &parts.headers);
    let (caller, body) = if is_free(parts.uri.path()) {
        // Nothing of it is read: who it is makes no difference.
        (caller(Who::Anybody, id, from), Bytes::new())
    } else {
        control.certain()?;
        let (caller, body, asker) = asked(control, &parts, body, id, from).await?;
        if let (Some(peer), Asker::Known) = (&peer, asker) {
            peer.recognise();
        }
        (caller, body)
    };
    parts.extensions.insert(caller);
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Somebody who asks, and nothing more.
fn caller(who: Who, request: RequestId, from: Origin) -> Caller {
    Caller {
        who,
        request,
        from: match from {
            Origin::Address(address) => address.to_string(),
            Origin::Socket => "socket".to_owned(),
        },
        key: None,
        asked: String::new(),
        if_match: None,
        if_none_match: None,
    }
}

/// Reads who asks, and then the body.
async fn asked(
    control: &Control,
    head: &Head,
    body: Body,
    id: RequestId,
    from: Origin,
) -> Result<(Caller, Bytes, Asker), Failure> {
    // Whoever is refused before it is known who it is has paid all the same.
    let unpaid = |refusal: Refusal| door::pay(control, from).err().unwrap_or(refusal);
    let headers = Headers::read(&head.headers).map_err(unpaid)?;
    let shown = headers.shown().map_err(unpaid)?;
    let asked = Parts {
        method: head.method.as_str(),
        authority: &control.authority,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &headers.covered,
        body: &[],
    };
    // A body is not read before it is known who sends it.
    let (who, asker) = door::who(control, &asked, &headers, &shown, from).await?;
    let is_reading = matches!(head.method, Method::GET | Method::HEAD);
    if headers.if_none_match.is_some() && !is_reading {
        let refusal = Refusal::because(Code::Invalid, "If-None-Match belongs to requests that read");
        return Err(refusal.next("send If-Match with the ETag of what is changed").into());
    }
    let body = read(control, body, headers.length, asker).await?;
    if let Shown::Signature(signed) = &shown {
        signature::verify_body(&body, signed).map_err(door::unsigned)?;
    }
    if !body.is_empty() && !headers.is_json {
        return Err(Refusal::new(Code::WrongType).into());
    }
    let caller = Caller {
        key: headers.key.map(str::to_owned),
        asked: fingerprint(&asked, headers.if_match, &body),
        if_match: headers.if_match.map(str::to_owned),
        if_none_match: headers.if_none_match.map(str::to_owned),
        ..caller(who, id, from)
    };
    Ok((caller, body, asker))
}

/// Tells one request from another: SHA-256 of method, path, query, `If-Match` and body, hexadecimal.
fn fingerprint(asked: &Parts<'_>, if_match: Option<&str>, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    let query = asked.query.unwrap_or_default();
    for part in [asked.method, asked.path, query, if_match.unwrap_or_default()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// Reads a body, in time and of bounded length. Those of strangers are shorter, and not many at once.
async fn read(control: &Control, mut body: Body, length: Option<u64>, asker: Asker) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let limits = &control.config.limits;
    let (most, _room) = match asker {
        Asker::Known => (limits::MAX_BODY_BYTES, None),
        Asker::Stranger => {
            let room = control.strangers.try_acquire();
            let room = room.map_err(|_| Refusal::because(Code::Busy, "too many strangers ask at once").after(5))?;
            (limits.stranger_body, Some(room))
        }
    };
    if length.is_some_and(|length| length > most as u64) {
        return Err(Refusal::new(Code::TooLarge));
    }
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::because(Code::Malformed, "the body broke off"))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > most {
                    return Err(Refusal::new(Code::TooLarge));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(limits.body, whole)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Code::TooSlow)))
}
