//! Streamable HTTP, as far as tests of Dawn's upstream client need it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::server::{Connection, Failure, Server};
use crate::{Eras, door};

struct Session {
    connection: Arc<Connection>,
    messages: Mutex<Option<mpsc::UnboundedReceiver<Value>>>,
}

struct Shared {
    server: Arc<Server>,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    next: AtomicU64,
}

fn session(shared: &Shared, headers: &HeaderMap) -> Option<Arc<Session>> {
    let id = headers.get("mcp-session-id")?.to_str().ok()?;
    shared.sessions.lock().unwrap().get(id).cloned()
}

fn new_session(server: &Arc<Server>) -> Arc<Session> {
    let (sink, messages) = mpsc::unbounded_channel();
    Arc::new(Session {
        connection: Connection::new(server, sink),
        messages: Mutex::new(Some(messages)),
    })
}

/// Keeps what must live as long as a response is read.
struct Reading {
    messages: mpsc::UnboundedReceiver<Value>,
    done: bool,
    _session: Arc<Session>,
    stateless: bool,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.stateless && !self.done {
            self._session.connection.cancel_all();
        }
    }
}

fn events(first: Option<Value>, reading: Reading) -> Response {
    let stream = futures::stream::unfold((first, reading), |(first, mut reading)| async move {
        if reading.done {
            return None;
        }
        let message = match first {
            Some(message) => message,
            None => reading.messages.recv().await?,
        };
        reading.done = message.get("method").is_none();
        let event = format!("event: message\ndata: {message}\n\n");
        Some((Ok::<_, Infallible>(Bytes::from(event)), (None, reading)))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
}

/// Lets no web page in.
async fn guard(request: Request, next: Next) -> Response {
    if door::is_local(request.headers()) {
        next.run(request).await
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

fn json_response(status: StatusCode, message: &Value) -> Response {
    (status, [("content-type", "application/json")], message.to_string()).into_response()
}

fn refused(id: &Value, failure: Failure) -> Response {
    let message = json!({ "jsonrpc": "2.0", "id": id, "error": failure.into_error() });
    json_response(StatusCode::BAD_REQUEST, &message)
}

async fn post(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let message = match serde_json::from_slice::<Value>(&body) {
        Ok(message) => message,
        Err(error) => return refused(&Value::Null, Failure::new(-32700, error.to_string())),
    };
    let stateless = door::is_modern(&headers, &message);
    let initialize = message["method"] == "initialize" && !stateless;
    if stateless && shared.server.eras == Eras::Legacy {
        // As servers do that were written before there was a stateless revision.
        return refused(&Value::Null, Failure::new(-32000, "Unsupported protocol version"));
    }
    if stateless
        && message.get("id").is_some()
        && let Err(failure) = door::check_modern(&headers, &message)
    {
        return refused(&message["id"], failure);
    }
    let session = if stateless || initialize {
        new_session(&shared.server)
    } else {
        match session(&shared, &headers) {
            Some(session) => session,
            None if shared.server.eras == Eras::Modern => {
                let failure = Failure::new(-32602, "params._meta lacks the protocol version");
                return refused(&message["id"], failure);
            }
            None if headers.contains_key("mcp-session-id") => return StatusCode::NOT_FOUND.into_response(),
            None => return StatusCode::BAD_REQUEST.into_response(),
        }
    };
    let mut id = None;
    if initialize && shared.server.eras != Eras::Modern {
        let number = shared.next.fetch_add(1, Ordering::Relaxed).to_string();
        shared
            .sessions
            .lock()
            .unwrap()
            .insert(number.clone(), Arc::clone(&session));
        id = Some(number);
    }
    let is_request = message.get("id").is_some() && message.get("method").is_some();
    let (sink, mut messages) = mpsc::unbounded_channel();
    shared.server.handle(&session.connection, message, &sink);
    drop(sink);
    if !is_request {
        return StatusCode::ACCEPTED.into_response();
    }
    let Some(first) = messages.recv().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if first.get("method").is_some() {
        return events(
            Some(first),
            Reading {
                messages,
                done: false,
                _session: session,
                stateless,
            },
        );
    }
    let status = match first["error"]["code"].as_i64() {
        Some(-32601) if stateless => StatusCode::NOT_FOUND,
        Some(-32022..=-32020) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    let mut response = json_response(status, &first);
    if let Some(id) = id.filter(|_| first.get("result").is_some()) {
        response
            .headers_mut()
            .insert("mcp-session-id", id.parse().expect("a number"));
    }
    response
}

async fn get(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(session) = session(&shared, &headers) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let messages = session.messages.lock().unwrap().take();
    match messages {
        Some(messages) => events(
            None,
            Reading {
                messages,
                done: false,
                _session: session,
                stateless: false,
            },
        ),
        None => StatusCode::CONFLICT.into_response(),
    }
}

async fn delete(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> StatusCode {
    let id = headers
        .get("mcp-session-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    match shared.sessions.lock().unwrap().remove(id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(address: &str, server: Arc<Server>) {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .expect("an address to listen on");
    println!("listening on http://{}/mcp", listener.local_addr().expect("an address"));
    let shared = Arc::new(Shared {
        server,
        sessions: Mutex::default(),
        next: AtomicU64::new(1),
    });
    let routes = Router::new().route("/mcp", axum::routing::post(post).get(get).delete(delete));
    let routes = routes
        .layer(axum::extract::DefaultBodyLimit::max(256 << 20))
        .layer(axum::middleware::from_fn(guard))
        .with_state(shared);
    axum::serve(listener, routes).await.expect("served");
}
