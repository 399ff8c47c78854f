//! Agents that are Streamable HTTP servers, in both eras.
//! Source: MCP 2025-11-25 and 2026-07-28, "Streamable HTTP".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use futures::StreamExt as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sse_stream::SseStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use url::Url;

use self::events::bounded;
use super::{Agent, HostError, shown};
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Kind, Message, Peek, text};
use crate::limits::McpLimits;
use crate::link::Link;
use crate::param_headers::encoded;
use crate::wire::Caller;

mod events;
mod params;
mod session;
mod sse;
mod websocket;

pub(super) use params::ParamHeaders;
use params::without_invalid;
pub(super) use websocket::{Far, upgrade_url};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

type ToClient = mpsc::Sender<Result<Frame, Fault>>;
type FromClient = mpsc::Receiver<Result<Frame, Fault>>;

/// The client for all servers.
pub(crate) fn client() -> reqwest::Client {
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
            "dawn-caller-user",
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
            let user = caller.user.as_ref();
            let user = user.map(|user| ("dawn-caller-user", user.to_string()));
            for (name, value) in told.into_iter().chain(user) {
                if let Some(value) = crate::param_headers::encoded(&value) {
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
                let (url, cause) = (shown(&self.url), cause(&error));
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
            let mut events = SseStream::from_bytes_stream(bounded(response, self.limits.message_bytes));
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
                        format!("agent {} sent a message of {} bytes", self.agent.address, data.len()),
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
                    format!("agent {} sent a message of more than {limit} bytes", self.agent.address),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Whether a response is a JSON-RPC message rather than a web server's own words.
fn is_json(response: &reqwest::Response) -> bool {
    let kind = response
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json") || kind.starts_with("text/event-stream"))
}

/// The innermost cause of a failed request, without its address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
