//! Agents that are Streamable HTTP servers, in both eras.
//! Source: MCP 2025-11-25 and 2026-07-28, "Streamable HTTP".

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use futures::StreamExt as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use sse_stream::SseStream;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;
use url::Url;

use super::{Agent, HostError, lock};
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Kind, Members, Message, Peek, text};
use crate::limits::McpLimits;
use crate::link::Link;
use crate::wire::Caller;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// How deep the annotations of a schema are looked for.
const SCHEMA_DEPTH: usize = 16;

/// Subscriptions of a session that survive its loss.
const SETTINGS: usize = 1024;

type ToClient = mpsc::Sender<Result<Frame, Fault>>;
type FromClient = mpsc::Receiver<Result<Frame, Fault>>;

/// The client for all servers.
pub(super) fn client() -> reqwest::Client {
    // A second installation only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none());
    builder.build().unwrap_or_default()
}

/// Refuses headers that cannot be sent.
pub(super) fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), HostError> {
    headers_of(headers).map(drop)
}

fn headers_of(headers: &BTreeMap<String, String>) -> Result<HeaderMap, HostError> {
    let header = |(name, value): (&String, &String)| {
        let bad = || HostError::Header(name.clone());
        let mut value: HeaderValue = value.parse().map_err(|_| bad())?;
        value.set_sensitive(true);
        Ok((name.parse::<HeaderName>().map_err(|_| bad())?, value))
    };
    headers.iter().map(header).collect()
}

/// Which arguments of which tools are repeated as `Mcp-Param-*` headers (`x-mcp-header` in their schemas).
#[derive(Debug, Default)]
pub(super) struct ParamHeaders(Mutex<HashMap<String, Vec<Annotated>>>);

/// Whether a tool's annotations are such that its arguments can be repeated as headers; a tool of which they are not
/// is left out by clients (MCP 2026-07-28, "Custom headers from tool parameters").
fn has_valid_headers(tool: &Value) -> bool {
    let mut names = HashSet::new();
    let mut is_valid = true;
    each_annotation(&tool["inputSchema"], 0, &mut |property| {
        let name = property["x-mcp-header"].as_str().unwrap_or_default();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_name = !name.is_empty() && name.bytes().all(is_token);
        let is_primitive = matches!(property["type"].as_str(), Some("string" | "integer" | "boolean"));
        is_valid &= is_name && is_primitive && names.insert(name.to_ascii_lowercase());
    });
    is_valid
}

fn each_annotation(schema: &Value, depth: usize, found: &mut dyn FnMut(&Value)) {
    let properties = schema["properties"].as_object().filter(|_| depth < SCHEMA_DEPTH);
    for property in properties.into_iter().flat_map(serde_json::Map::values) {
        if property.get("x-mcp-header").is_some() {
            found(property);
        }
        each_annotation(property, depth + 1, found);
    }
}

/// A list of tools without those that must be left out.
fn without_invalid(message: &Message, agent: &Agent) -> Message {
    if memchr::memmem::find(message.as_bytes(), b"\"x-mcp-header\"").is_none() {
        return message.clone();
    }
    let list = message
        .peek()
        .ok()
        .and_then(|peek| Members::of(peek.result?)?.get("tools"));
    let Some(list) = list else { return message.clone() };
    let Ok(tools) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
        return message.clone();
    };
    let kept = tools.iter().map(|raw| raw.get()).filter(|raw| {
        let tool: Value = serde_json::from_str(raw).unwrap_or_default();
        let is_valid = has_valid_headers(&tool);
        if !is_valid {
            tracing::warn!(agent = %agent.name, tool = %tool["name"], "its x-mcp-header is not valid: the tool is left out");
        }
        is_valid
    });
    let kept: Vec<&str> = kept.collect();
    if kept.len() == tools.len() {
        return message.clone();
    }
    let mut edit = message.edit();
    edit.replace(list, format!("[{}]", kept.join(",")));
    edit.finish()
}

/// Where an argument lies, and the name of its header.
type Annotated = (Vec<String>, String);

impl ParamHeaders {
    /// Reads tool definitions.
    pub(super) fn learn(&self, tools: &[Value]) {
        let mut known = HashMap::new();
        for tool in tools {
            let mut found = Vec::new();
            annotated(&tool["inputSchema"], &mut Vec::new(), &mut found);
            if let Some(name) = tool["name"].as_str().filter(|_| !found.is_empty()) {
                known.insert(name.to_owned(), found);
            }
        }
        *lock(&self.0) = known;
    }

    fn of_call(&self, tool: &str, params: &RawValue) -> Vec<(HeaderName, HeaderValue)> {
        let Some(known) = lock(&self.0).get(tool).cloned() else {
            return Vec::new();
        };
        let Ok(params) = serde_json::from_str::<Value>(params.get()) else {
            return Vec::new();
        };
        let header = |(path, name): (Vec<String>, String)| {
            let value = path
                .iter()
                .try_fold(&params["arguments"], |value, key| value.get(key))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => return None,
            };
            Some((
                format!("mcp-param-{}", name.to_ascii_lowercase()).parse().ok()?,
                encoded(&text)?,
            ))
        };
        known.into_iter().filter_map(header).collect()
    }
}

fn annotated(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    let Some(properties) = schema["properties"].as_object().filter(|_| path.len() < SCHEMA_DEPTH) else {
        return;
    };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property["x-mcp-header"].as_str() {
            found.push((path.clone(), header.to_owned()));
        }
        annotated(property, path, found);
        path.pop();
    }
}

/// A value as a header may carry it: plain, or Base64 between marks.
fn encoded(value: &str) -> Option<HeaderValue> {
    let plain = value.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        && value.trim() == value
        && !(value.starts_with("=?base64?") && value.ends_with("?="));
    let text = if plain {
        value.to_owned()
    } else {
        format!("=?base64?{}?=", BASE64.encode(value.as_bytes()))
    };
    text.parse().ok()
}

/// One server, for one link.
pub(super) struct Upstream {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    limits: Arc<McpLimits>,
    agent: Arc<Agent>,
}

impl Upstream {
    pub(super) fn new(
        client: reqwest::Client,
        url: Url,
        configured: &BTreeMap<String, String>,
        caller: Option<&Caller>,
        limits: Arc<McpLimits>,
        agent: Arc<Agent>,
    ) -> Arc<Self> {
        // They were checked when the agent was added.
        let mut headers = headers_of(configured).unwrap_or_default();
        for name in [
            "dawn-caller-node",
            "dawn-caller-name",
            "dawn-caller-roles",
            "dawn-caller-certificate",
        ] {
            headers.remove(name);
        }
        if let Some(caller) = caller {
            let told = [
                ("dawn-caller-node", caller.node.to_string()),
                ("dawn-caller-name", caller.name.to_string()),
                ("dawn-caller-roles", caller.roles.join(",")),
                ("dawn-caller-certificate", BASE64URL_NOPAD.encode(&caller.chain)),
            ];
            for (name, value) in told {
                if let Ok(value) = value.parse() {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
        Arc::new(Self {
            client,
            url,
            headers,
            limits,
            agent,
        })
    }

    /// A link for one modern request.
    pub(super) fn exchange(self: Arc<Self>, tasks: &TaskTracker) -> Link {
        let (near, mut from_client) = mpsc::channel(self.limits.queue_messages);
        let (to_client, far) = mpsc::channel(self.limits.queue_messages);
        let stop = self.agent.stop.clone();
        tasks.spawn(async move {
            let Some(Ok(Frame { message, .. })) = from_client.recv().await else {
                return;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                // Closing the link drops the response, which is how the server learns of it.
                _ = from_client.recv() => {}
                () = to_client.closed() => {}
                () = self.exchange_once(message, &to_client) => {}
            }
        });
        Link::from_channels(near, far)
    }

    async fn exchange_once(&self, message: Message, to_client: &ToClient) {
        let Ok(peek) = message.peek() else { return };
        let headers = self.modern_headers(&peek);
        let related = peek.id.map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
        let sent = self.post(message.clone(), headers).await;
        let served = match sent {
            Ok(response) if peek.method() == "tools/list" => {
                let change = |message| without_invalid(&message, &self.agent);
                self.relay_changed(response, related, to_client, change).await
            }
            Ok(response) => self.relay(response, related, to_client, &mut None).await.map(drop),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = served {
            // A client that left needs no word.
            let _ = to_client.send(Err(fault)).await;
        }
    }

    fn modern_headers(&self, peek: &Peek<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let params = peek.params();
        let version = peek.meta().and_then(|meta| meta.protocol_version).and_then(text);
        if let Some(version) = version.and_then(|version| version.parse().ok()) {
            headers.insert(VERSION, version);
        }
        if let Some(method) = encoded(peek.method()) {
            headers.insert("mcp-method", method);
        }
        let named = match peek.method() {
            "tools/call" | "prompts/get" => params.as_ref().and_then(|params| params.name),
            "resources/read" => params.as_ref().and_then(|params| params.uri),
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.as_ref().and_then(|params| params.task_id),
            _ => None,
        };
        let Some(name) = named.and_then(text) else {
            return headers;
        };
        if let Some(value) = encoded(&name) {
            headers.insert("mcp-name", value);
        }
        if let Some(params) = peek.params.filter(|_| peek.method() == "tools/call") {
            headers.extend(self.agent.headers.of_call(&name, params));
        }
        headers
    }

    async fn post(&self, message: Message, headers: HeaderMap) -> Result<reqwest::Response, Fault> {
        let body = message.into_bytes();
        let request = || {
            let request = self.client.post(self.url.clone()).headers(self.headers.clone());
            let request = request
                .headers(headers.clone())
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream");
            request.body(body.clone())
        };
        self.authorised(request).await
    }

    /// Sends a request with the account's token, and once more when a renewed one may help.
    async fn authorised(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<reqwest::Response, Fault> {
        let sent = async |token: Option<&str>| {
            let request = match token {
                Some(token) => request().bearer_auth(token),
                None => request(),
            };
            request.send().await.map_err(|error| {
                let (url, cause) = (&self.url, cause(&error));
                self.agent
                    .failed(format!("its server at {url} does not answer ({cause})"))
            })
        };
        let account = self.agent.account.as_ref();
        let Some(account) = account.filter(|_| !self.headers.contains_key(AUTHORIZATION)) else {
            return sent(None).await;
        };
        let token = account.token().await?;
        let response = sent(token.as_deref()).await?;
        let refused = account.refused(response.status(), response.headers(), token.as_deref());
        match refused.await {
            None => Ok(response),
            Some(renewed) => sent(Some(&renewed?)).await,
        }
    }

    /// Passes on what a response carries; `true` when the answer to the request was among it.
    async fn relay(
        &self,
        response: reqwest::Response,
        related: Option<Bytes>,
        to_client: &ToClient,
        last_event: &mut Option<(String, Duration)>,
    ) -> Result<bool, Fault> {
        let status = response.status();
        let kind = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let send = async |message: Message| -> bool {
            let frame = Frame {
                message,
                related: related.clone(),
            };
            to_client.send(Ok(frame)).await.is_ok()
        };
        if status.is_success() && kind.starts_with("text/event-stream") {
            let mut events = SseStream::from_bytes_stream(response.bytes_stream());
            while let Some(event) = events.next().await {
                let event =
                    event.map_err(|error| self.agent.failed(format!("its event stream broke off ({error})")))?;
                if let Some(id) = event.id {
                    *last_event = Some((id, Duration::from_millis(event.retry.unwrap_or(1000))));
                } else if let (Some(retry), Some((_, pause))) = (event.retry, last_event.as_mut()) {
                    *pause = Duration::from_millis(retry);
                }
                let Some(data) = event.data.filter(|data| !data.trim().is_empty()) else {
                    continue;
                };
                if data.len() > self.limits.message_bytes {
                    return Err(Fault::new(
                        FaultCode::TooLarge,
                        format!("agent {} sent a message of {} bytes", self.agent.name, data.len()),
                    ));
                }
                let message = Message::new(data.into());
                let is_answer = message.peek().is_ok_and(|peek| peek.kind() == Kind::Response);
                if !send(message).await {
                    return Ok(true);
                }
                if is_answer {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        if status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT {
            return Ok(related.is_none());
        }
        let body = self.body(response).await?;
        let message = Message::new(body);
        let is_message =
            message.is_batch() && status.is_success() || message.peek().is_ok_and(|peek| peek.kind() == Kind::Response);
        if is_message {
            let answer = self.with_id(message, related.as_deref());
            send(answer).await;
            return Ok(true);
        }
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                self.agent.failed(format!("its server does not accept its credentials ({status}); `dawn agent login {}` gets new ones, unless its configuration has an Authorization header", self.agent.name))
            }
            _ => self.agent.failed(format!("its server answered {status} and no JSON-RPC message")),
        })
    }

    /// Passes on what a response carries, after a look at each message.
    async fn relay_changed(
        &self,
        response: reqwest::Response,
        related: Option<Bytes>,
        to_client: &ToClient,
        mut change: impl FnMut(Message) -> Message,
    ) -> Result<(), Fault> {
        let (spy, mut spied) = mpsc::channel(self.limits.queue_messages);
        let relayed = async {
            let relayed = self.relay(response, related, &spy, &mut None).await;
            drop(spy);
            relayed
        };
        let passed = async {
            while let Some(Ok(Frame { message, related })) = spied.recv().await {
                let message = change(message);
                if to_client.send(Ok(Frame { message, related })).await.is_err() {
                    return;
                }
            }
        };
        let (relayed, ()) = tokio::join!(relayed, passed);
        relayed.map(drop)
    }

    /// An error about a request that the server could not read carries no id: here it is known.
    fn with_id(&self, message: Message, related: Option<&[u8]>) -> Message {
        let (Ok(peek), Some(id)) = (message.peek(), related) else {
            return message;
        };
        if peek.error.is_none() || peek.id.is_some_and(|raw| raw.get() != "null") {
            return message.clone();
        }
        let mut edit = message.edit();
        match peek.id {
            Some(raw) => edit.replace(raw, id.to_vec()),
            None => edit.replace_range(1..1, [b"\"id\":", id, b","].concat()),
        };
        edit.finish()
    }

    async fn body(&self, response: reqwest::Response) -> Result<Bytes, Fault> {
        let limit = self.limits.message_bytes;
        let mut body = bytes::BytesMut::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|error| self.agent.failed(format!("its answer broke off ({})", cause(&error))))?;
            if body.len() + chunk.len() > limit {
                return Err(Fault::new(
                    FaultCode::TooLarge,
                    format!("agent {} sent a message of more than {limit} bytes", self.agent.name),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// A link for a legacy session.
    pub(super) fn session(self: Arc<Self>, tasks: &TaskTracker) -> Link {
        let (near, from_client) = mpsc::channel(self.limits.queue_messages);
        let (to_client, far) = mpsc::channel(self.limits.queue_messages);
        let stop = self.agent.stop.clone();
        let session = Session {
            upstream: self,
            state: Arc::default(),
            to_client,
            requests: TaskTracker::new(),
        };
        tasks.spawn(async move {
            let identity = Arc::clone(&session.state);
            let upstream = Arc::clone(&session.upstream);
            let lost = session.to_client.clone();
            let served = stop.run_until_cancelled(session.run(from_client)).await;
            if let Some(Err(fault)) = served {
                // A client that left needs no word.
                let _ = lost.send(Err(fault)).await;
            }
            upstream.delete(&identity).await;
        });
        Link::from_channels(near, far)
    }

    async fn delete(&self, state: &Mutex<Identity>) {
        let headers = lock(state).headers();
        if headers.contains_key(SESSION) {
            let request = self
                .client
                .delete(self.url.clone())
                .headers(self.headers.clone())
                .headers(headers)
                .timeout(Duration::from_secs(2));
            if let Err(error) = request.send().await {
                tracing::debug!(agent = %self.agent.name, %error, "a session could not be ended at its server");
            }
        }
    }
}

/// What a legacy server gave the session.
#[derive(Debug, Default)]
struct Identity {
    session: Option<HeaderValue>,
    version: Option<HeaderValue>,
    /// What began the session, and what was set in it: log level and subscriptions, by method and resource.
    initialize: Option<Message>,
    settings: BTreeMap<String, Message>,
    /// Held while the session is begun anew, and told when it was.
    renewing: Arc<tokio::sync::Mutex<()>>,
    renewed: Arc<Notify>,
}

impl Identity {
    /// Remembers what a session that is begun anew must be told.
    fn note(&mut self, message: &Message) {
        let Ok(peek) = message.peek() else { return };
        let uri = || {
            peek.params()
                .and_then(|params| params.uri.and_then(text))
                .unwrap_or_default()
        };
        match peek.method() {
            "logging/setLevel" => {
                self.settings.insert(String::new(), message.clone());
            }
            "resources/subscribe" if self.settings.len() < SETTINGS => {
                self.settings.insert(uri().into_owned(), message.clone());
            }
            "resources/unsubscribe" => {
                self.settings.remove(&*uri());
            }
            _ => {}
        }
    }

    fn headers(&self) -> HeaderMap {
        let pairs = [(SESSION, &self.session), (VERSION, &self.version)];
        pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect()
    }
}

struct Session {
    upstream: Arc<Upstream>,
    state: Arc<Mutex<Identity>>,
    to_client: ToClient,
    requests: TaskTracker,
}

impl Session {
    async fn run(self, mut from_client: FromClient) -> Result<(), Fault> {
        let (failed, mut failures) = mpsc::channel::<Fault>(1);
        let end = tokio_util::sync::CancellationToken::new();
        let _end = end.clone().drop_guard();
        loop {
            let message = tokio::select! {
                frame = from_client.recv() => match frame {
                    Some(Ok(frame)) => frame.message,
                    Some(Err(_)) | None => break,
                },
                () = self.to_client.closed() => return Ok(()),
                Some(fault) = failures.recv() => return Err(fault),
            };
            let (method, is_request) = match message.peek() {
                Ok(peek) => (peek.method().to_owned(), peek.kind() == Kind::Request),
                Err(_) => (String::new(), true),
            };
            if method == "initialize" || !is_request {
                // These set the order of everything else.
                self.initialize_or_tell(message).await?;
                if method == "notifications/initialized" {
                    let listening = Arc::clone(&self.upstream).listen(Arc::clone(&self.state), self.to_client.clone());
                    let end = end.clone();
                    self.requests.spawn(async move {
                        // It ends with the session.
                        let _ = end.run_until_cancelled(listening).await;
                    });
                }
                continue;
            }
            let (upstream, state, to_client, failed, end) = (
                Arc::clone(&self.upstream),
                Arc::clone(&self.state),
                self.to_client.clone(),
                failed.clone(),
                end.clone(),
            );
            self.requests.spawn(async move {
                let served = end
                    .run_until_cancelled(upstream.request(&state, message, &to_client))
                    .await;
                if let Some(Err(fault)) = served {
                    // The session ends with the first failure; later ones say nothing new.
                    let _ = failed.try_send(fault);
                }
            });
        }
        // The client says nothing more: what is open may finish, as long as somebody listens.
        self.requests.close();
        tokio::select! {
            () = tokio::time::sleep(self.upstream.limits.kill_after) => {}
            () = self.to_client.closed() => {}
        }
        Ok(())
    }

    async fn initialize_or_tell(&self, message: Message) -> Result<(), Fault> {
        let Ok(peek) = message.peek() else { return Ok(()) };
        let related = peek
            .id
            .filter(|_| peek.kind() == Kind::Request)
            .map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
        let Some(related) = related else {
            return self.upstream.post_in(&self.state, &message).await.map(drop);
        };
        let response = self.upstream.post(message.clone(), HeaderMap::new()).await?;
        {
            let mut state = lock(&self.state);
            state.session = response.headers().get(SESSION).cloned();
            state.initialize = Some(message.clone());
        }
        // The answer names the revision that later requests carry.
        let change = |message: Message| {
            if let Some(version) = negotiated(&message) {
                lock(&self.state).version = Some(version);
            }
            message
        };
        self.upstream
            .relay_changed(response, Some(related), &self.to_client, change)
            .await
    }
}

/// A request under another id.
fn under_id(message: &Message, id: &'static str) -> Message {
    let mut edit = message.edit();
    if let Ok(peek) = message.peek()
        && let Some(raw) = peek.id
    {
        edit.replace(raw, id);
    }
    edit.finish()
}

fn negotiated(message: &Message) -> Option<HeaderValue> {
    let peek = message.peek().ok()?;
    let params: crate::jsonrpc::Params<'_> = serde_json::from_str(peek.result?.get()).ok()?;
    text(params.protocol_version?)?.parse().ok()
}

impl Upstream {
    fn session_lost(&self) -> Fault {
        Fault::new(
            FaultCode::SessionLost,
            format!(
                "agent {} ended the session; begin a new one with initialize",
                self.agent.name
            ),
        )
    }

    /// Sends a message within a session; one that the server lost is begun anew, once.
    async fn post_in(&self, state: &Mutex<Identity>, message: &Message) -> Result<reqwest::Response, Fault> {
        let headers = lock(state).headers();
        let session = headers.get(SESSION).cloned();
        let response = self.post(message.clone(), headers).await?;
        let Some(session) = session.filter(|_| response.status() == StatusCode::NOT_FOUND) else {
            return Ok(response);
        };
        self.renew(state, &session).await?;
        let headers = lock(state).headers();
        let response = self.post(message.clone(), headers).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(self.session_lost());
        }
        Ok(response)
    }

    /// Begins the session anew that the server lost, as it was begun, with what was set in it.
    async fn renew(&self, state: &Mutex<Identity>, lost: &HeaderValue) -> Result<(), Fault> {
        const ID: &str = "\"dawn-renewal\"";
        let renewing = Arc::clone(&lock(state).renewing);
        let _turn = renewing.lock().await;
        let (initialize, settings) = {
            let state = lock(state);
            if state.session.as_ref() != Some(lost) {
                return Ok(());
            }
            (state.initialize.clone(), state.settings.clone())
        };
        let initialize = initialize.ok_or_else(|| self.session_lost())?;
        let response = self.post(under_id(&initialize, ID), HeaderMap::new()).await?;
        let session = response.headers().get(SESSION).cloned();
        let (answer, mut answered) = mpsc::channel(self.limits.queue_messages);
        let related = Some(Bytes::from_static(ID.as_bytes()));
        self.relay(response, related, &answer, &mut None).await?;
        let begun = answered.recv().await.and_then(Result::ok);
        let version = begun.and_then(|frame| negotiated(&frame.message));
        let version = version.ok_or_else(|| self.session_lost())?;
        {
            let mut state = lock(state);
            state.session = session;
            state.version = Some(version);
        }
        let headers = || lock(state).headers();
        let initialized = Message::notification("notifications/initialized", None);
        let _accepted = self.post(initialized, headers()).await?;
        for setting in settings.into_values() {
            // What the server does not take back it says to nobody: the client was told when it set it.
            let _set = self.post(under_id(&setting, ID), headers()).await?;
        }
        tracing::info!(agent = %self.agent.name, "its server lost a session; it was begun anew");
        lock(state).renewed.notify_waiters();
        Ok(())
    }

    /// One request of a session, resumed where the server allows it.
    async fn request(&self, state: &Mutex<Identity>, message: Message, to_client: &ToClient) -> Result<(), Fault> {
        const RESUMES: u32 = 10;
        let raw = message
            .peek()
            .ok()
            .and_then(|peek| peek.id.map(|raw| Bytes::copy_from_slice(raw.get().as_bytes())));
        let mut response = match self.post_in(state, &message).await {
            Ok(response) => response,
            Err(fault) if fault.code == FaultCode::SessionLost => return Err(fault),
            Err(fault) => return self.answer(fault, raw, to_client).await,
        };
        lock(state).note(&message);
        let headers = lock(state).headers();
        let mut last_event = None;
        for _ in 0..RESUMES {
            match self.relay(response, raw.clone(), to_client, &mut last_event).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(fault) if last_event.is_none() => return self.answer(fault, raw, to_client).await,
                Err(_) => {}
            }
            let Some((id, pause)) = last_event.clone() else { break };
            tokio::time::sleep(pause).await;
            match self.get(headers.clone(), Some(&id)).await {
                Ok(next) if next.status().is_success() => response = next,
                _ => break,
            }
        }
        self.answer(
            self.agent.failed("its server ended the response without an answer"),
            raw,
            to_client,
        )
        .await
    }

    async fn answer(&self, fault: Fault, raw: Option<Bytes>, to_client: &ToClient) -> Result<(), Fault> {
        let Some(raw) = raw else { return Ok(()) };
        let message = fault.answer(Some(&String::from_utf8_lossy(&raw)));
        // A client that left needs no answer.
        let _ = to_client.send(Ok(message.into())).await;
        Ok(())
    }

    async fn get(&self, headers: HeaderMap, last_event: Option<&str>) -> Result<reqwest::Response, Fault> {
        let request = || {
            let request = self.client.get(self.url.clone()).headers(self.headers.clone());
            let request = request.headers(headers.clone()).header("accept", "text/event-stream");
            match last_event {
                Some(id) => request.header(LAST_EVENT, id),
                None => request,
            }
        };
        self.authorised(request).await
    }

    /// Reads the session's GET stream, as long as the server offers one.
    async fn listen(self: Arc<Self>, state: Arc<Mutex<Identity>>, to_client: ToClient) {
        let mut last_event: Option<(String, Duration)> = None;
        let mut pause = self.limits.restart_first;
        loop {
            let headers = lock(&state).headers();
            let asked_in = headers.get(SESSION).cloned();
            let id = last_event.as_ref().map(|(id, _)| id.clone());
            match self.get(headers, id.as_deref()).await {
                Ok(response) if response.status().is_success() => {
                    pause = last_event
                        .as_ref()
                        .map_or(self.limits.restart_first, |(_, pause)| *pause);
                    // This stream answers no request, so it ends only by breaking.
                    if let Err(fault) = self.relay(response, None, &to_client, &mut last_event).await {
                        tracing::debug!(agent = %self.agent.name, %fault, "its event stream ended");
                    }
                }
                // The session is lost, or the server has no such stream: when it was begun anew that is tried again.
                Ok(response) if response.status() == StatusCode::NOT_FOUND => {
                    let renewed = Arc::clone(&lock(&state).renewed);
                    let mut renewed = std::pin::pin!(renewed.notified());
                    renewed.as_mut().enable();
                    if lock(&state).session == asked_in {
                        tokio::select! {
                            () = renewed => {}
                            () = to_client.closed() => return,
                        }
                    }
                }
                // 405: the server has none.
                Ok(response) if response.status().is_client_error() => return,
                Ok(_) | Err(_) => {}
            }
            if to_client.is_closed() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.limits.restart_max);
        }
    }
}

/// The innermost cause of a failed request, without its address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_encoded_when_they_must_be() {
        for (value, expected) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encoded(value).unwrap(), expected);
        }
    }

    #[test]
    fn annotated_arguments_become_headers() {
        let headers = ParamHeaders::default();
        headers.learn(&[serde_json::json!({ "name": "sql", "inputSchema": { "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "properties": { "on": { "type": "boolean", "x-mcp-header": "On" } } },
        }}})]);
        let params: Box<RawValue> =
            serde_json::from_str(r#"{"name":"sql","arguments":{"region":"eu","deep":{"on":true}}}"#).unwrap();
        let found: BTreeMap<String, String> = headers
            .of_call("sql", &params)
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        assert_eq!(
            found,
            BTreeMap::from([
                ("mcp-param-on".into(), "true".into()),
                ("mcp-param-region".into(), "eu".into())
            ])
        );
    }
}
