//! The legacy door over HTTP: sessions with an `Mcp-Session-Id`, several event streams each, resumable.
//! Source: MCP 2025-11-25, "Transports: Streamable HTTP".
//!
//! What the agent says goes to the stream it belongs to: a response to the POST of its request; what an HTTP upstream
//! marked as related, or a progress token names, to that POST too; everything else to the only POST that waits, or to
//! the GET stream, or it is kept until a stream comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::era::{Era, MODERN_VERSIONS, VERSION_HEADER, header};
use super::http::{accepted, json, refuse, unknown_version};
use super::sse::{self, AsyncNext};
use super::{Counters, Gateway, Guest, Target};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Kind, Message, Peek, codes};
use crate::link::{Link, LinkReceiver, LinkSender};
use crate::wire::Mode;
use streams::{Event, Streams};

mod streams;

const SESSION_HEADER: &str = "mcp-session-id";
const LAST_EVENT_HEADER: &str = "last-event-id";
/// A client that does not read its stream for this long loses the stream.
const STALLED: Duration = Duration::from_secs(30);

/// One legacy session of one client with one target.
pub(super) struct Session {
    id: String,
    target: Target,
    /// Whose it is: nobody else may use it, whatever id they send.
    guest: Option<Guest>,
    to_agent: tokio::sync::Mutex<LinkSender>,
    streams: Streams,
    stop: CancellationToken,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Session {
    /// Whether nobody used it for this long.
    pub(super) fn is_idle(&self, idle: Duration) -> bool {
        self.streams.is_idle(idle, Instant::now())
    }

    /// Who came in from beyond this machine to begin it.
    pub(super) fn guest(&self) -> Option<&Guest> {
        self.guest.as_ref()
    }

    fn is_of(&self, gateway: &Gateway) -> bool {
        match (&self.guest, &gateway.guest) {
            (Some(begun), Some(now)) => begun.is(now),
            (None, None) => true,
            _ => false,
        }
    }

    fn start(gateway: &Gateway, target: Target, link: Link) -> Arc<Self> {
        let limits = gateway.limits();
        let session = Arc::new(Self {
            id: BASE64URL_NOPAD.encode(&rand::random::<[u8; 24]>()),
            target,
            guest: gateway.guest.clone(),
            to_agent: tokio::sync::Mutex::new(link.sender),
            streams: Streams::new(limits),
            stop: gateway.inner.stop.child_token(),
        });
        let (task, gateway, stop) = (Arc::downgrade(&session), gateway.clone(), session.stop.clone());
        let (id, lost) = (session.id.clone(), gateway.lost(&session.target));
        gateway.inner.tasks.clone().spawn(async move {
            let fault = stop.run_until_cancelled(read(link.receiver, &task, &lost)).await;
            let fault = fault.unwrap_or_else(|| Fault::new(FaultCode::SessionLost, "the session was closed"));
            if let Some(session) = task.upgrade() {
                session.streams.end(&fault).await;
            }
            gateway.with_sessions(|sessions| sessions.remove(&id));
        });
        session
    }

    /// Sends requests, notifications and responses of the client to the agent.
    async fn send(&self, messages: Vec<Message>) -> Result<(), Fault> {
        let lost = || {
            Fault::new(
                FaultCode::SessionLost,
                "the agent ended this session; begin a new one with initialize",
            )
        };
        let mut to_agent = self.to_agent.lock().await;
        for message in messages {
            to_agent
                .feed(message.into())
                .await
                .map_err(|error| error.fault(&lost()))?;
        }
        to_agent.flush().await.map_err(|error| error.fault(&lost()))
    }
}

/// Hands what the agent says to the streams until the agent's side ends; says why it did.
async fn read(mut from_agent: LinkReceiver, session: &std::sync::Weak<Session>, lost: &Fault) -> Fault {
    loop {
        let frame = match from_agent.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return lost.clone(),
            Err(error) => return error.fault(lost),
        };
        let Some(session) = session.upgrade() else {
            return lost.clone();
        };
        let message = frame.message;
        let parts = if message.is_batch() {
            message.batch()
        } else {
            Ok(vec![message])
        };
        for part in parts.unwrap_or_default() {
            match part.peek() {
                Ok(peek) => {
                    let slot = session.streams.place(&part, &peek, frame.related.as_deref());
                    if let Some((sender, event)) = slot
                        && sender.send_timeout(event, STALLED).await.is_err()
                    {
                        session.streams.give_up(&sender);
                        tracing::debug!("a client left its event stream; what belonged to it can be resumed");
                    }
                }
                Err(error) => tracing::warn!(%error, "an agent sent what is no JSON-RPC message; it is dropped"),
            }
        }
    }
}

/// Serves one legacy message.
pub(super) async fn post(gateway: &Gateway, target: Target, headers: &HeaderMap, message: Message) -> Response {
    if let Some(version) = unknown_version(headers) {
        let words = format!(
            "revision {version} is not supported; supported are {}",
            super::LEGACY_VERSIONS.join(", ")
        );
        return refuse(gateway, StatusCode::BAD_REQUEST, codes::INVALID_REQUEST, &words);
    }
    let initialize = message
        .peek()
        .is_ok_and(|peek| peek.method() == "initialize" && peek.kind() == Kind::Request);
    if initialize {
        return open(gateway, target, message).await;
    }
    match find(gateway, &target, headers, Some(&message)) {
        Ok(session) => forward(gateway, &session, vec![message], false).await,
        Err(response) => *response,
    }
}

/// Serves a batch, which revisions up to 2025-03-26 allow.
pub(super) async fn post_batch(gateway: &Gateway, target: &Target, headers: &HeaderMap, message: &Message) -> Response {
    let parts = match message.batch() {
        Ok(parts) => parts,
        Err(error) => return refuse(gateway, StatusCode::BAD_REQUEST, error.code(), &error.to_string()),
    };
    for part in &parts {
        let words = match part.peek() {
            Err(error) => error.to_string(),
            Ok(peek) if Era::of_http(headers, &peek) == Era::Modern => "this revision has no batches".to_owned(),
            Ok(peek) if peek.method() == "initialize" => "initialize must not be part of a batch".to_owned(),
            Ok(_) => continue,
        };
        return refuse(gateway, StatusCode::BAD_REQUEST, codes::INVALID_REQUEST, &words);
    }
    match find(gateway, target, headers, None) {
        Ok(session) => forward(gateway, &session, parts, true).await,
        Err(response) => *response,
    }
}

/// The session that a request names.
fn find(
    gateway: &Gateway,
    target: &Target,
    headers: &HeaderMap,
    message: Option<&Message>,
) -> Result<Arc<Session>, Box<Response>> {
    let raw = message.and_then(super::exchange::raw_id);
    let refuse = |status, words: &str| {
        Counters::count(&gateway.counters().refused);
        Err(Box::new(json(
            status,
            Message::error(raw.as_deref(), codes::INVALID_REQUEST, words, None),
        )))
    };
    let Some(id) = header(headers, SESSION_HEADER) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the header Mcp-Session-Id is missing: begin with initialize and send the id it answers with",
        );
    };
    match gateway.with_sessions(|sessions| sessions.get(id).cloned()) {
        Some(session) if session.target == *target && session.is_of(gateway) => Ok(session),
        _ => refuse(
            StatusCode::NOT_FOUND,
            "no such session: it ended or never was; begin a new one with initialize",
        ),
    }
}

async fn open(gateway: &Gateway, target: Target, message: Message) -> Response {
    let raw = super::exchange::raw_id(&message);
    let answer = |fault: Fault| json(fault.code.http_status(), fault.answer(raw.as_deref()));
    if !gateway.has_room() {
        let fault = Fault::new(
            FaultCode::Busy,
            format!(
                "as many sessions are open as may be: {}, of which people from beyond this machine have a half, and each of them a sixteenth",
                gateway.limits().sessions
            ),
        );
        gateway.counters().fault(fault.code);
        return answer(fault);
    }
    let link = match gateway.open(&target, Mode::Session).await {
        Ok(link) => link,
        Err(fault) => return answer(fault),
    };
    Counters::count(&gateway.counters().sessions);
    let session = Session::start(gateway, target, link);
    gateway.with_sessions(|sessions| sessions.insert(session.id.clone(), Arc::clone(&session)));
    let mut opening = Opening {
        gateway,
        session: Some(Arc::clone(&session)),
    };
    let mut response = forward(gateway, &session, vec![message], false).await;
    let failed = response.extensions().get::<Failed>().is_some();
    if failed {
        drop(opening);
        return response;
    }
    opening.session = None;
    if let Ok(value) = HeaderValue::from_str(&session.id) {
        response.headers_mut().insert(SESSION_HEADER, value);
    }
    response
}

/// A session whose client has not got its answer: one that leaves before takes the session along.
struct Opening<'a> {
    gateway: &'a Gateway,
    session: Option<Arc<Session>>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            self.gateway.with_sessions(|sessions| sessions.remove(&session.id));
        }
    }
}

/// Marks the response to an `initialize` that opened nothing.
#[derive(Clone)]
struct Failed;

async fn forward(gateway: &Gateway, session: &Arc<Session>, messages: Vec<Message>, batch: bool) -> Response {
    let mut peeks = Vec::with_capacity(messages.len());
    for message in &messages {
        match message.peek() {
            Ok(peek) => peeks.push(peek),
            Err(error) => return refuse(gateway, StatusCode::BAD_REQUEST, error.code(), &error.to_string()),
        }
    }
    let registered = match session.streams.register(&peeks) {
        Ok(registered) => registered,
        Err(fault) => {
            gateway.counters().fault(fault.code);
            return json(
                fault.code.http_status(),
                fault.answer(peeks[0].id.map(serde_json::value::RawValue::get)),
            );
        }
    };
    let raw = peeks.iter().find_map(|peek| peek.id).map(|raw| raw.get().to_owned());
    drop(peeks);
    if let Err(fault) = session.send(messages).await {
        gateway.counters().fault(fault.code);
        let mut response = json(fault.code.http_status(), fault.answer(raw.as_deref()));
        response.extensions_mut().insert(Failed);
        return response;
    }
    let Some((stream, mut events)) = registered else {
        return accepted();
    };
    let first = match tokio::time::timeout(gateway.limits().sse_after, events.recv()).await {
        Ok(Some(event)) if event.last && !batch => {
            let failed = event.message.peek().is_ok_and(|peek: Peek<'_>| peek.error.is_some());
            let mut response = json(StatusCode::OK, event.message);
            if failed {
                response.extensions_mut().insert(Failed);
            }
            return response;
        }
        Ok(Some(event)) => Some(event),
        Ok(None) => {
            let fault = gateway.lost(&session.target);
            return json(fault.code.http_status(), fault.answer(raw.as_deref()));
        }
        Err(_) => {
            session.streams.begin_events(stream);
            None
        }
    };
    stream_events(gateway, session, first.into_iter().collect(), events)
}

/// Opens the GET stream of a session, or resumes a broken stream.
pub(super) fn listen(gateway: &Gateway, target: &Target, headers: &HeaderMap) -> Response {
    let modern = header(headers, VERSION_HEADER).is_some_and(|version| MODERN_VERSIONS.contains(&version));
    if modern {
        return refuse(
            gateway,
            StatusCode::METHOD_NOT_ALLOWED,
            codes::INVALID_REQUEST,
            "this revision has no GET stream; use subscriptions/listen",
        );
    }
    if !header(headers, "accept").is_some_and(|accept| accept.contains("text/event-stream") || accept.contains("*/*")) {
        return refuse(
            gateway,
            StatusCode::NOT_ACCEPTABLE,
            codes::INVALID_REQUEST,
            "Accept must include text/event-stream",
        );
    }
    let session = match find(gateway, target, headers, None) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    let (replay, events) = session.streams.listen(header(headers, LAST_EVENT_HEADER));
    stream_events(gateway, &session, replay, events)
}

/// Ends a session.
pub(super) fn delete(gateway: &Gateway, target: &Target, headers: &HeaderMap) -> Response {
    if header(headers, VERSION_HEADER).is_some_and(|version| MODERN_VERSIONS.contains(&version)) {
        return refuse(
            gateway,
            StatusCode::METHOD_NOT_ALLOWED,
            codes::INVALID_REQUEST,
            "this revision has no sessions",
        );
    }
    match find(gateway, target, headers, None) {
        Ok(session) => {
            gateway.with_sessions(|sessions| sessions.remove(&session.id));
            session.stop.cancel();
            StatusCode::NO_CONTENT.into_response()
        }
        Err(response) => *response,
    }
}

fn stream_events(
    gateway: &Gateway,
    session: &Arc<Session>,
    replay: Vec<Event>,
    events: mpsc::Receiver<Event>,
) -> Response {
    let state = Reading {
        replay: replay.into(),
        events,
        ended: false,
        _session: Arc::clone(session),
    };
    let response: Response<Body> = sse::response(state, gateway.limits().keep_alive, Events);
    response
}

struct Reading {
    replay: std::collections::VecDeque<Event>,
    events: mpsc::Receiver<Event>,
    ended: bool,
    /// A session lives at least as long as somebody reads it.
    _session: Arc<Session>,
}

struct Events;

impl AsyncNext<Reading> for Events {
    async fn next(&mut self, reading: &mut Reading) -> Option<Bytes> {
        if reading.ended {
            return None;
        }
        let event = match reading.replay.pop_front() {
            Some(event) => event,
            None => reading.events.recv().await?,
        };
        reading.ended = event.last;
        Some(sse::event(&event.message, Some(&event.id)))
    }
}
