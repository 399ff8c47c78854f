//! The client of the local API: what a program on this machine uses to talk to the running node.
//!
//! Each request has a connection of its own: it is one on loopback, and nothing has to be kept alive between two
//! commands. [`Client::upgrade`] turns such a connection into the framed stream of the standard I/O bridge.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dawn_mcp::fault::Fault;
use dawn_mcp::jsonrpc::Message;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::home::Home;

/// How long the node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer is waited for before it is asked whether the node answers at all, and how long that may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The protocol that [`Client::upgrade`] asks for.
const UPGRADE: &str = "dawn-mcp";

/// Why a request to the local API failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node runs in this home folder, or it just ended.
    #[error("no node is running in this home folder")]
    NotRunning,
    /// A node runs, and answers nothing.
    #[error("the node{} does not answer", .0.map_or_else(String::new, |id| format!(" (pid {id})")))]
    Silent(Option<u32>),
    /// The node does not accept the token of this home folder.
    #[error("the node did not accept the token of this home folder")]
    Unauthorized,
    /// The node answered with an error.
    #[error("{message}")]
    Api {
        /// The HTTP status; 0 when the error came as an event.
        status: u16,
        /// The stable name of the error.
        code: String,
        /// What went wrong.
        message: String,
        /// What to do next.
        next: Option<String>,
    },
    /// A file of the home folder could not be read.
    #[error("{path} could not be read: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The connection to the node broke.
    #[error("the connection to the node broke: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node's answer is not what this version understands.
    #[error("the node's answer was not understood: {0}")]
    Answer(String),
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.into())
    }
}

/// Speaks to the node that runs in one home folder.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    token: String,
    /// The node's process, where the home folder tells.
    process: Option<u32>,
    patience: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: String,
}

/// Server-sent events as they come.
pub struct Events(sse_stream::SseStream<Incoming>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events(…)")
    }
}

impl Events {
    /// The next event, or `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            match self.0.next().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Broken(error.to_string().into())),
                // A comment that keeps the connection alive.
                Some(Ok(event)) if event.event.is_none() && event.data.is_none() => {}
                Some(Ok(event)) => {
                    return Ok(Some(Event {
                        name: event.event.unwrap_or_else(|| "message".to_owned()),
                        data: event.data.unwrap_or_default(),
                    }));
                }
            }
        }
    }
}

/// A connection that carries frames from here on.
#[derive(Debug)]
pub struct Bridge {
    /// The connection, blocking.
    pub stream: std::net::TcpStream,
    /// What the node sent right after its answer.
    pub early: Bytes,
}

/// The body of an answer that is an error.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: String,
    message: String,
    #[serde(default)]
    next: Option<String>,
}

impl Client {
    /// A client of the node that runs in `home`. Nothing is sent yet, and the token goes nowhere but to a process that
    /// holds the lock of this home folder.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], or a file of the home folder could not be read.
    pub fn connect(home: &Home) -> Result<Self, ClientError> {
        let address = read(&home.api_address())?;
        if !is_running(home)? {
            return Err(ClientError::NotRunning);
        }
        let address = address
            .parse()
            .map_err(|_| ClientError::Answer(format!("{address:?} in the home folder is no address")))?;
        let token = read(&home.api_token())?;
        Ok(Self {
            process: holder(home),
            ..Self::new(address, token)
        })
    }

    /// A client of the node at this address, with its token.
    #[must_use]
    pub fn new(address: SocketAddr, token: String) -> Self {
        Self {
            address,
            token,
            process: None,
            patience: PATIENCE,
        }
    }

    /// The address of the local API.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET` of a JSON document.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        parsed(self.send(Method::GET, path, None, None).await?).await
    }

    /// `POST` of a JSON document; the answer to an empty response is `null`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        parsed(self.send(Method::POST, path, Some(encoded(body)?), None).await?).await
    }

    /// `DELETE`; the answer to an empty response is `null`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        parsed(self.send(Method::DELETE, path, None, None).await?).await
    }

    /// `GET` of a stream of events.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self, path: &str) -> Result<Events, ClientError> {
        events(self.send(Method::GET, path, None, Some("text/event-stream")).await?)
    }

    /// `POST` of a JSON document that is answered with a stream of events.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_events(&self, path: &str, body: &impl Serialize) -> Result<Events, ClientError> {
        events(
            self.send(Method::POST, path, Some(encoded(body)?), Some("text/event-stream"))
                .await?,
        )
    }

    /// Turns a connection into the framed stream of the standard I/O bridge, at `/mcp` or `/mcp/{node}/{agent}`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upgrade(&self, path: &str) -> Result<Bridge, ClientError> {
        let request = self
            .request(Method::POST, path)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, UPGRADE);
        let response = self.exchange(request, Bytes::new()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            return Err(ClientError::Answer(format!("status {status} instead of an upgrade")));
        }
        let upgraded = hyper::upgrade::on(response).await?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| ClientError::Answer("the upgraded connection is of another kind".to_owned()))?;
        let stream = parts.io.into_inner().into_std().map_err(broken)?;
        stream.set_nonblocking(false).map_err(broken)?;
        Ok(Bridge {
            stream,
            early: parts.read_buf,
        })
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        accept: Option<&str>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = self
            .request(method, path)
            .header(header::ACCEPT, accept.unwrap_or("application/json"));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.exchange(request, body.unwrap_or_default().into()).await
    }

    /// Sends one request; an answer that is an error becomes one. It may take its time, as long as the node answers at all.
    async fn exchange(&self, request: http::request::Builder, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        tokio::select! {
            answer = self.exchange_patiently(request, body) => answer,
            () = self.falls_silent() => Err(ClientError::Silent(self.process)),
        }
    }

    /// Ends when the node answers nothing at all.
    async fn falls_silent(&self) {
        loop {
            tokio::time::sleep(self.patience).await;
            let asked = self.exchange_patiently(self.request(Method::GET, "/healthz"), Bytes::new());
            if tokio::time::timeout(self.patience, asked).await.is_err() {
                return;
            }
        }
    }

    /// Sends one request on a connection of its own; an answer that is an error becomes one.
    async fn exchange_patiently(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = request
            .body(Full::new(body))
            .map_err(|error| ClientError::Broken(error.into()))?;
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(self.address))
            .await
            .map_err(|_| ClientError::Broken("it did not accept a connection in time".into()))?
            .map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
                _ => broken(error),
            })?;
        stream.set_nodelay(true).map_err(broken)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // It also fails the response or its body, which is where the error is told.
            let _ = connection.with_upgrades().await;
        });
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = response.into_body().collect().await?.to_bytes();
        Err(refusal(status, &body))
    }
}

/// The error that an event named `error` tells of.
#[must_use]
pub fn told(event: &Event) -> ClientError {
    from_body(0, event.data.as_bytes())
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    if status == StatusCode::UNAUTHORIZED {
        return ClientError::Unauthorized;
    }
    from_body(status.as_u16(), body)
}

/// The error of a body; a text that is no such document is quoted.
fn from_body(status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => ClientError::Api {
            status,
            code: error.code,
            message: error.message,
            next: error.next,
        },
        Err(_) => match Fault::of(&Message::new(Bytes::copy_from_slice(body))) {
            Some(fault) => ClientError::Api {
                status,
                code: fault.code.slug().to_owned(),
                message: fault.message,
                next: None,
            },
            None => ClientError::Answer(format!("status {status}: {}", String::from_utf8_lossy(body).trim())),
        },
    }
}

/// A file that a running node has written.
fn read(path: &Path) -> Result<String, ClientError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ClientError::NotRunning),
        Err(source) => Err(file_error(path, source)),
    }
}

/// Whether a node holds the lock of this home. After a crash its address is still written there, and its port may be
/// another program's by now.
///
/// # Errors
/// The lock cannot be looked at.
pub fn is_running(home: &Home) -> Result<bool, ClientError> {
    let path = home.lock_file();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(file_error(&path, source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(file_error(&path, source)),
    }
}

/// The process of the node that runs, which it writes into its lock.
fn holder(home: &Home) -> Option<u32> {
    let text = std::fs::read_to_string(home.lock_file()).ok()?;
    text.trim().parse().ok()
}

fn file_error(path: &Path, source: io::Error) -> ClientError {
    ClientError::File {
        path: path.display().to_string(),
        source,
    }
}

/// A text as one segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    use fmt::Write;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn broken(error: io::Error) -> ClientError {
    ClientError::Broken(error.into())
}

fn encoded(body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|error| ClientError::Broken(error.into()))
}

fn events(response: Response<Incoming>) -> Result<Events, ClientError> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        Ok(Events(sse_stream::SseStream::new(response.into_body())))
    } else {
        Err(ClientError::Answer("no stream of events".to_owned()))
    }
}

async fn parsed<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let body = response.into_body().collect().await?.to_bytes();
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text).map_err(|error| ClientError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use serde_json::{Value, json};

    use super::*;

    /// A server that answers one connection with `answer` and gives what it was sent up to the end of the headers.
    fn server(answer: &'static [u8]) -> (Client, std::thread::JoinHandle<(String, std::net::TcpStream)>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(listener.local_addr().unwrap(), "secret".to_owned());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            while !got.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                got.extend(byte);
            }
            stream.write_all(answer).unwrap();
            (String::from_utf8(got).unwrap().to_ascii_lowercase(), stream)
        });
        (client, served)
    }

    #[tokio::test]
    async fn a_request_carries_the_token_and_its_answer_is_parsed() {
        let (client, served) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}");
        let answer: Value = client.get("/api/status").await.unwrap();
        assert_eq!(answer, json!({ "a": 1 }));
        let (got, _) = served.join().unwrap();
        assert!(got.starts_with("get /api/status http/1.1\r\n"), "{got}");
        assert!(got.contains("authorization: bearer secret\r\n"), "{got}");
        assert!(got.contains("host: 127.0.0.1:"), "{got}");
    }

    #[tokio::test]
    async fn an_empty_answer_is_null() {
        let (client, _served) = server(b"HTTP/1.1 204 No Content\r\n\r\n");
        let answer: Value = client.delete("/api/agents/files").await.unwrap();
        assert_eq!(answer, Value::Null);
    }

    #[tokio::test]
    async fn an_error_keeps_its_code_and_its_next_step() {
        let (client, _served) = server(
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 69\r\n\r\n{\"error\":{\"code\":\"unknown_node\",\"message\":\"no lab\",\"next\":\"look it\"}}",
        );
        match client.post::<Value>("/api/peers/lab/ping", &json!({})).await {
            Err(ClientError::Api {
                status,
                code,
                message,
                next,
            }) => {
                assert_eq!(
                    (status, code.as_str(), message.as_str()),
                    (404, "unknown_node", "no lab")
                );
                assert_eq!(next.as_deref(), Some("look it"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_refused_token_and_an_absent_node_are_told_apart() {
        let (client, served) = server(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        assert!(matches!(client.get::<Value>("/").await, Err(ClientError::Unauthorized)));
        drop(served.join().unwrap());
        assert!(matches!(client.get::<Value>("/").await, Err(ClientError::NotRunning)));
    }

    #[tokio::test]
    async fn a_node_that_answers_nothing_is_said_to_and_one_that_takes_its_time_is_waited_for() {
        // Connections are accepted by the system, and nobody reads them: as those of a node that was stopped.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::new(listener.local_addr().unwrap(), "secret".to_owned());
        client.patience = Duration::from_millis(50);
        client.process = Some(7);
        let failed = client.get::<Value>("/api/status").await.unwrap_err();
        assert!(matches!(failed, ClientError::Silent(Some(7))));
        assert_eq!(failed.to_string(), "the node (pid 7) does not answer");
        // The same node, which answers whether it lives, and the request when that was asked twice.
        let slow = std::thread::spawn(move || {
            let (mut asked, mut healthy) = (Vec::new(), 0);
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = [0; 4096];
                let length = stream.read(&mut line).unwrap_or_default();
                let line = String::from_utf8_lossy(&line[..length]).into_owned();
                if line.starts_with("GET /api/peers") {
                    asked.push(stream);
                } else if line.starts_with("GET /healthz") {
                    healthy += 1;
                    // Those of the request that was given up before are answered into nothing.
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                }
                if healthy >= 3
                    && let Some(stream) = asked.first_mut()
                {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue")
                        .unwrap();
                    return;
                }
            }
        });
        client.patience = Duration::from_millis(300);
        assert!(client.get::<bool>("/api/peers").await.unwrap());
        slow.join().unwrap();
    }

    #[tokio::test]
    async fn events_come_with_their_names_and_comments_do_not() {
        let (client, served) = server(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n:\n\nevent: peer.up\ndata: {\"a\":1}\n\ndata: bare\n\n",
        );
        let mut events = client.events("/api/events").await.unwrap();
        drop(served.join().unwrap());
        let first = events.next().await.unwrap().unwrap();
        assert_eq!((first.name.as_str(), first.data.as_str()), ("peer.up", "{\"a\":1}"));
        assert_eq!(events.next().await.unwrap().unwrap().name, "message");
        assert_eq!(events.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_upgraded_connection_is_handed_over_with_what_came_early() {
        let (client, served) =
            server(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: dawn-mcp\r\n\r\nearly\n");
        let mut bridge = client.upgrade("/mcp").await.unwrap();
        let (got, mut theirs) = served.join().unwrap();
        assert!(
            got.contains("upgrade: dawn-mcp\r\n") && got.contains("connection: upgrade\r\n"),
            "{got}"
        );
        theirs.write_all(b"late\n").unwrap();
        drop(theirs);
        let mut all = bridge.early.to_vec();
        bridge.stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"early\nlate\n");
    }

    #[test]
    fn an_address_that_a_crashed_node_left_behind_gets_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(folder.path().to_owned()));
        std::fs::write(home.api_address(), "127.0.0.1:9").unwrap();
        std::fs::write(home.api_token(), "secret").unwrap();
        assert!(matches!(Client::connect(&home), Err(ClientError::NotRunning)));
        let lock = home.lock().unwrap();
        assert_eq!(
            Client::connect(&home).unwrap().address(),
            "127.0.0.1:9".parse().unwrap()
        );
        drop(lock);
        assert!(matches!(Client::connect(&home), Err(ClientError::NotRunning)));
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("lab-1"), "lab-1");
        assert_eq!(segment("../a b?ü"), "..%2Fa%20b%3F%C3%BC");
    }
}
