//! The HTTP endpoint: tells the eras apart and hands each request to its door.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::error::Elapsed;

use super::era::{Era, LEGACY_VERSIONS, VERSION_HEADER, header as text_header};
use super::{Counters, Gateway, Guest, Target, exchange, session, stdio};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Message, codes};

pub(super) fn routes(gateway: Gateway) -> Router {
    Router::new()
        .route("/mcp", axum::routing::any(all))
        // A node may be called `groups`: its agents are reached by its id.
        .route("/mcp/groups/{group}", axum::routing::any(group))
        .route("/mcp/{node}/{agent}", axum::routing::any(one))
        .with_state(gateway)
}

async fn all(State(gateway): State<Gateway>, request: Request) -> Response {
    many(gateway, None, request).await
}

async fn group(State(gateway): State<Gateway>, Path(group): Path<String>, request: Request) -> Response {
    many(gateway, Some(group), request).await
}

async fn many(gateway: Gateway, group: Option<String>, request: Request) -> Response {
    match several(&gateway, group, request.uri()) {
        Ok(target) => serve(gateway, target, request).await,
        Err(NoTarget::Fault(fault)) => refuse_fault(gateway, fault, request).await,
        Err(NoTarget::Query(words)) => refuse(&gateway, StatusCode::BAD_REQUEST, codes::INVALID_REQUEST, &words),
    }
}

/// Why a request for several agents leads nowhere.
pub(super) enum NoTarget {
    /// There is no such group.
    Fault(Fault),
    /// The query is not understood.
    Query(String),
}

/// All agents, or those of a group; `?tools=search` or `?tools=full` says how tools are disclosed.
pub(super) fn several(gateway: &Gateway, group: Option<String>, uri: &Uri) -> Result<Target, NoTarget> {
    if let Some(name) = &group
        && gateway.views().get(Some(name)).is_none()
    {
        return Err(NoTarget::Fault(super::unknown_group(name)));
    }
    let query = uri.query().unwrap_or_default();
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("tools="));
    let disclosure = wanted.map(str::parse).transpose();
    let disclosure = disclosure.map_err(|words| NoTarget::Query(format!("?tools=: {words}")))?;
    Ok(Target::All { group, disclosure })
}

async fn refuse_fault(gateway: Gateway, fault: Fault, request: Request) -> Response {
    gateway.counters().fault(fault.code);
    // The request's id makes the answer readable for its client.
    let id = match axum::body::to_bytes(request.into_body(), gateway.limits().message_bytes).await {
        Ok(body) => exchange::raw_id(&Message::new(body)),
        Err(_) => None,
    };
    json(fault.code.http_status(), fault.answer(id.as_deref()))
}

async fn one(
    State(gateway): State<Gateway>,
    Path((node, agent)): Path<(String, String)>,
    request: Request,
) -> Response {
    match super::target(&node, &agent) {
        Ok(target) => serve(gateway, target, request).await,
        Err(fault) => refuse_fault(gateway, fault, request).await,
    }
}

async fn serve(gateway: Gateway, target: Target, request: Request) -> Response {
    let guest = request.extensions().get::<Guest>().cloned();
    let Some(gateway) = gateway.entered(guest) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    if gateway.guest.is_none() && stdio::is_upgrade(request.headers()) {
        return stdio::upgrade(&gateway, target, request);
    }
    match *request.method() {
        Method::POST => post(gateway, target, request).await,
        Method::GET => session::listen(&gateway, &target, request.headers()),
        Method::DELETE => session::delete(&gateway, &target, request.headers()),
        _ => refuse(
            &gateway,
            StatusCode::METHOD_NOT_ALLOWED,
            codes::INVALID_REQUEST,
            "use POST, GET or DELETE",
        ),
    }
}

async fn post(gateway: Gateway, target: Target, request: Request) -> Response {
    Counters::count(&gateway.counters().posts);
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    if !is_json(&headers) {
        return refuse(
            &gateway,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            codes::INVALID_REQUEST,
            "Content-Type must be application/json",
        );
    }
    let message = match read(&gateway, &headers, body).await {
        Ok(message) => message,
        Err(response) => return response,
    };
    if message.is_batch() {
        return session::post_batch(&gateway, &target, &headers, &message).await;
    }
    let era = match message.peek() {
        Ok(peek) => Era::of_http(&headers, &peek),
        Err(error) => return refuse(&gateway, StatusCode::BAD_REQUEST, error.code(), &error.to_string()),
    };
    match era {
        Era::Modern => exchange::serve(&gateway, target, &headers, message).await,
        Era::Legacy => session::post(&gateway, target, &headers, message).await,
    }
}

/// How long a body that is too large is read on, unkept, so that its sender comes to read the answer.
const DRAIN: Duration = Duration::from_secs(5);

async fn read(gateway: &Gateway, headers: &HeaderMap, mut body: Body) -> Result<Message, Response> {
    let limit = gateway.limits().message_bytes;
    let declared =
        text_header(headers, header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<usize>().ok());
    if declared.is_none_or(|length| length <= limit) {
        match Limited::new(&mut body, limit).collect().await {
            Ok(collected) => return Ok(Message::new(collected.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => {}
            Err(error) => {
                return Err(refuse(
                    gateway,
                    StatusCode::BAD_REQUEST,
                    codes::PARSE_ERROR,
                    &format!("the body broke off: {error}"),
                ));
            }
        }
    }
    let rest = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    // When the time is over the connection is closed on its sender, who may then miss the answer.
    let _: Result<(), Elapsed> = tokio::time::timeout(DRAIN, rest).await;
    let fault = Fault::new(
        FaultCode::TooLarge,
        format!("the message is larger than the limit of {limit} bytes"),
    );
    gateway.counters().fault(fault.code);
    Err(json(fault.code.http_status(), fault.answer(None)))
}

fn is_json(headers: &HeaderMap) -> bool {
    text_header(headers, header::CONTENT_TYPE.as_str())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether a legacy request names a revision that is not known.
pub(super) fn unknown_version(headers: &HeaderMap) -> Option<&str> {
    text_header(headers, VERSION_HEADER).filter(|version| !LEGACY_VERSIONS.contains(version))
}

/// A JSON response with one message.
pub(super) fn json(status: StatusCode, message: Message) -> Response {
    let mut response = Response::new(Body::from(message.into_bytes()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer to what needs none.
pub(super) fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

/// An error about the HTTP request itself.
pub(super) fn refuse(gateway: &Gateway, status: StatusCode, code: i64, words: &str) -> Response {
    Counters::count(&gateway.counters().refused);
    json(status, Message::error(None, code, words, None))
}
