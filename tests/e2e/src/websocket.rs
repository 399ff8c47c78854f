//! A plain MCP client over WebSocket that hides nothing, and the same in a secure channel: written from the
//! documentation, with nothing of the node's own code but the channel.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dawn_channel::handshake::Initiator;
use dawn_channel::transport::Opened;
use dawn_channel::{Channel, Context, Limits, Party, Signing, StaticKey, Terms};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::PATIENCE;

/// A connection.
#[derive(Debug)]
pub struct WebSocket {
    stream: WebSocketStream<TcpStream>,
    channel: Option<Box<Channel>>,
    /// The subprotocol that the server chose.
    pub protocol: Option<String>,
    /// Notifications and requests that came while an answer was waited for.
    pub heard: Vec<Value>,
    /// Close code and reason, once the server closed.
    pub closed: Option<(u16, String)>,
}

/// What a server answered instead of a WebSocket.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

/// How a client begins a secure channel.
#[derive(Debug, Clone)]
pub struct Secure {
    /// Who it is.
    pub party: Arc<Party>,
    /// The network that it believes to be in.
    pub network: NetworkId,
    /// Whom it expects.
    pub node: NodeId,
    /// The path that it believes to speak with.
    pub path: String,
    /// Whether it signs its messages.
    pub signing: Signing,
}

impl Secure {
    /// Somebody new, who expects a node.
    #[must_use]
    pub fn stranger(network: NetworkId, node: NodeId, path: &str) -> Self {
        let now = UnixTime::from(SystemTime::now());
        let (identity, key) = (
            Keypair::generate(&mut rand::rng()),
            StaticKey::generate(&mut rand::rng()),
        );
        let party = Party::new(identity, key, now, Duration::from_secs(3600)).expect("a party");
        Self {
            party: Arc::new(party),
            network,
            node,
            path: path.to_owned(),
            signing: Signing::EachMessage,
        }
    }
}

impl WebSocket {
    /// Asks for a WebSocket; `address` is `http://…` or `ws://…`.
    ///
    /// # Errors
    /// What the server answered instead.
    pub async fn open(address: &str, headers: &[(&'static str, &str)]) -> Result<Self, Refusal> {
        let address = address.replacen("http://", "ws://", 1);
        let mut request = address.as_str().into_client_request().expect("an address");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        let host = address
            .strip_prefix("ws://")
            .and_then(|rest| rest.split(['/', '?']).next());
        let stream = TcpStream::connect(host.expect("a host")).await.expect("connected");
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((stream, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                Ok(Self {
                    stream,
                    channel: None,
                    protocol: protocol.map(|value| value.to_str().expect("text").to_owned()),
                    heard: Vec::new(),
                    closed: None,
                })
            }
            Err(Error::Http(response)) => Err(Refusal {
                status: response.status().as_u16(),
                body: serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap_or_default(),
            }),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a plain connection with the token.
    pub async fn plain(address: &str, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("sec-websocket-protocol", "mcp")];
        let opened = Self::open(address, &headers).await.expect("let in");
        assert_eq!(opened.protocol.as_deref(), Some("mcp"));
        opened
    }

    /// Opens a secure channel, with the token or without.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn secure(address: &str, token: Option<&str>, secure: &Secure) -> Result<Self, String> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("sec-websocket-protocol", "dawn-secure.v1")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let mut socket = Self::open(address, &headers)
            .await
            .map_err(|refusal| format!("{refusal:?}"))?;
        assert_eq!(socket.protocol.as_deref(), Some("dawn-secure.v1"));
        let carrier = [b"websocket\0", secure.path.as_bytes()].concat();
        let context = Context::new(secure.network, carrier).with_terms(Terms {
            signing: secure.signing,
            ..Terms::default()
        });
        let (party, node) = (Arc::clone(&secure.party), Some(secure.node));
        let initiator = Initiator::xx(party, node, context, Limits::default(), &mut rand::rng());
        let initiator = initiator.map_err(|error| error.to_string())?;
        socket.send_bytes(initiator.message().to_vec()).await;
        let answer = socket
            .bytes()
            .await
            .ok_or_else(|| format!("closed: {:?}", socket.closed))?;
        let now = UnixTime::from(SystemTime::now());
        let channel = initiator.read(&answer, now, Instant::now());
        socket.channel = Some(Box::new(channel.map_err(|error| error.to_string())?));
        socket.transmit().await;
        while !socket.channel().is_confirmed() {
            let mut frame = socket
                .bytes()
                .await
                .ok_or_else(|| format!("closed: {:?}", socket.closed))?;
            let opened = socket.channel().open(&mut frame, Instant::now()).map(|_| ());
            opened.map_err(|error| error.to_string())?;
            socket.transmit().await;
        }
        if token.is_some() {
            // The node says first who it is; to a member, when it knows who that is.
            let _chain = socket.opened().await.ok_or("it says nothing of itself")?;
        }
        Ok(socket)
    }

    /// The channel.
    pub fn channel(&mut self) -> &mut Channel {
        self.channel.as_mut().expect("a secure connection")
    }

    async fn transmit(&mut self) {
        while let Some(frame) = self.channel().poll_transmit(Instant::now()) {
            self.send_bytes(frame).await;
        }
    }

    /// Sends a binary message.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        // A server that is gone is noticed by who waits for an answer.
        let _ = self.stream.send(Message::Binary(bytes.into())).await;
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: &str) {
        // A server that is gone is noticed by who waits for an answer.
        let _ = self.stream.send(Message::Text(text.into())).await;
    }

    /// Sends a message, sealed where there is a channel.
    pub async fn send(&mut self, message: &Value) {
        let text = message.to_string();
        if self.channel.is_some() {
            let frame = self.seal(text.as_bytes());
            self.send_bytes(frame).await;
        } else {
            self.send_text(&text).await;
        }
    }

    /// The frame of a message.
    pub fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        self.channel().seal_message(message, Instant::now()).expect("sealed")
    }

    async fn data(&mut self) -> Option<Message> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next());
            match next.await.expect("something comes in time") {
                Some(Ok(Message::Close(frame))) => {
                    self.closed = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(data)) => return Some(data),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next binary message; nothing when the server closed.
    pub async fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.data().await? {
            Message::Binary(bytes) => Some(bytes.to_vec()),
            other => panic!("{other:?} is not binary"),
        }
    }

    /// The next message; nothing when the server closed.
    pub async fn next(&mut self) -> Option<Value> {
        if self.channel.is_none() {
            return match self.data().await? {
                Message::Text(text) => Some(serde_json::from_str(&text).expect("JSON")),
                other => panic!("{other:?} is not text"),
            };
        }
        let message = self.opened().await?;
        Some(serde_json::from_slice(&message).expect("JSON"))
    }

    /// The next message of the channel; nothing when the server closed.
    async fn opened(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut frame = self.bytes().await?;
            let opened = self.channel().open(&mut frame, Instant::now()).expect("authentic");
            let message = match opened {
                Opened::Message(message) => Some(message.to_vec()),
                Opened::Control => None,
                Opened::Closed(_) => continue,
            };
            self.transmit().await;
            if message.is_some() {
                return message;
            }
        }
    }

    /// Reads until the server closes; gives code and reason.
    pub async fn end(&mut self) -> Option<(u16, String)> {
        while self.data().await.is_some() {}
        self.closed.clone()
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
        self.answer(id).await
    }

    /// Waits for the answer to a request.
    pub async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.next().await;
            let message = message.unwrap_or_else(|| panic!("closed: {:?}", self.closed));
            if message["method"].is_null() && message["id"] == id {
                return message;
            }
            self.heard.push(message);
        }
    }

    /// Begins a legacy session.
    pub async fn initialize(&mut self) -> Value {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "sampling": {}, "elicitation": { "form": {} } },
            "clientInfo": { "name": "e2e", "version": "1" },
        });
        let answer = self.request(0, "initialize", params).await;
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
        answer
    }

    /// Calls a tool and gives the whole answer.
    pub async fn call(&mut self, id: u64, tool: &str, arguments: Value) -> Value {
        self.request(id, "tools/call", json!({ "name": tool, "arguments": arguments }))
            .await
    }

    /// Sends a stateless request and waits for its answer.
    pub async fn modern(&mut self, id: u64, method: &str, mut params: Value) -> Value {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        self.request(id, method, params).await
    }
}
