//! Agents that are WebSocket servers: any that speaks MCP in text messages, or a node of this network in a secure
//! channel. The upgrade is a request like every other, with the same TLS, headers and account.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_channel::{Signing, StaticPublic};
use dawn_identity::NodeId;
use http::StatusCode;
use http::header::{
    AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use url::Url;

use super::session::SETTINGS;
use super::{FromClient, ToClient, Upstream};
use crate::fault::{Fault, FaultCode};
use crate::host::{lock, shown};
use crate::jsonrpc::{Id, Kind, Message, text};
use crate::link::Link;
use crate::pump::InFlight;
use crate::websocket::{
    Coding, Ended, Expected, Identity, Member, PLAIN, Reason, SECURE, Side, Socket, dial, drive, unusable,
};

/// A connection that lasted so long says something about its server when it breaks: the server is asked anew what it
/// offers.
const PROVEN: Duration = Duration::from_secs(30);

/// The node at the far end of a secure channel.
pub(in crate::host) struct Far {
    node: NodeId,
    signing: Signing,
    identity: Arc<dyn Identity>,
    /// Its static key, once it has been spoken with.
    key: Mutex<Option<StaticPublic>>,
}

impl Far {
    pub(in crate::host) fn new(node: NodeId, signing: Signing, identity: Arc<dyn Identity>) -> Self {
        Self {
            node,
            signing,
            identity,
            key: Mutex::default(),
        }
    }
}

/// A connection, and the member at its far end with what knows whether it is one still.
type Connected = (Coding, Option<(Member, Arc<dyn Identity>)>);

/// The address of the upgrade: that of the WebSocket, as HTTP names it.
pub(in crate::host) fn upgrade_url(url: &Url) -> Url {
    let mut url = url.clone();
    let scheme = if url.scheme() == "wss" { "https" } else { "http" };
    // Those schemes may replace each other.
    let _: Result<(), ()> = url.set_scheme(scheme);
    url
}

impl Upstream {
    /// A connection, as a link.
    pub(in crate::host) async fn socket(
        self: &Arc<Self>,
        far: Option<&Far>,
        tasks: &TaskTracker,
    ) -> Result<Link, Fault> {
        let late = |_| {
            self.agent
                .failed(format!("its server at {} does not answer", shown(&self.url)))
        };
        let connecting = timeout(self.limits.open, self.connect(far));
        let (coding, far_end) = connecting.await.map_err(late)??;
        let (stop, upstream) = (self.agent.stop.clone(), Arc::clone(self));
        let mut far_end = far_end;
        let until = async move {
            let ended = async {
                match &mut far_end {
                    Some((member, identity)) => member.ends(&**identity).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => Ended::new(Reason::Done, "the agent was removed"),
                why = ended => Ended::new(Reason::Refused, format!("its node is not accepted any more: {why}")),
            }
        };
        let told = move |ended: &Ended| (ended.reason != Reason::Done).then(|| upstream.lost(ended));
        let (link, driving) = drive(coding, until, told);
        let (agent, born) = (Arc::clone(&self.agent), Instant::now());
        tasks.spawn(async move {
            let ended = driving.await;
            tracing::debug!(agent = %agent.name, reason = ended.reason.slug(), %ended, "a WebSocket connection ended");
            if ended.reason != Reason::Done && born.elapsed() > PROVEN {
                agent.stale.notify_one();
            }
        });
        Ok(link)
    }

    fn lost(&self, ended: &Ended) -> Fault {
        unusable(&format!("agent {}", self.agent.address), ended)
    }

    async fn connect(&self, far: Option<&Far>) -> Result<Connected, Fault> {
        let Some(far) = far else {
            return Ok((Coding::Plain(self.upgraded(PLAIN).await?), None));
        };
        let known = *lock(&far.key);
        if known.is_some() {
            match self.secure(far, known).await {
                Ok(connected) => return Ok(connected),
                // It may have another key by now; who it is, is as sure without it.
                Err(fault) => tracing::debug!(%fault, "a secure WebSocket begins again as a first contact"),
            }
            *lock(&far.key) = None;
        }
        self.secure(far, None).await
    }

    async fn secure(&self, far: &Far, key: Option<StaticPublic>) -> Result<Connected, Fault> {
        let socket = self.upgraded(SECURE).await?;
        let shows_token =
            self.headers.contains_key(AUTHORIZATION) || self.url.query_pairs().any(|(name, _)| name == "token");
        let expected = Expected {
            node: far.node,
            key,
            signing: far.signing,
            as_member: !shows_token,
        };
        let dialled = dial(socket, &*far.identity, self.url.path(), expected).await;
        let (secured, member) = dialled.map_err(|ended| self.lost(&ended))?;
        secured.socket.trust();
        *lock(&far.key) = Some(secured.channel.peer().key);
        Ok((Coding::Secure(secured), Some((member, Arc::clone(&far.identity)))))
    }

    /// The connection after its upgrade to a subprotocol.
    async fn upgraded(&self, protocol: &'static str) -> Result<Socket, Fault> {
        let key = generate_key();
        let request = || {
            let request = self.client.get(self.url.clone()).headers(self.headers.clone());
            request
                .version(http::Version::HTTP_11)
                .header(CONNECTION, "Upgrade")
                .header(UPGRADE, "websocket")
                .header(SEC_WEBSOCKET_VERSION, "13")
                .header(SEC_WEBSOCKET_KEY, &key)
                .header(SEC_WEBSOCKET_PROTOCOL, protocol)
        };
        let response = self.authorised(request).await?;
        let named = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let status = response.status();
                let said = self.said(response).await;
                return Err(self
                    .agent
                    .failed(format!("its server does not let this node in ({status}{said})")));
            }
            status => {
                let said = self.said(response).await;
                return Err(self.agent.failed(format!(
                    "its server at {} answers {status} and no WebSocket{said}",
                    shown(&self.url)
                )));
            }
        }
        if named(SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()).as_str()) {
            return Err(self
                .agent
                .failed("its server's answer to the WebSocket handshake is wrong"));
        }
        match named(SEC_WEBSOCKET_PROTOCOL) {
            Some(chosen) if chosen == protocol => {}
            // Servers of the first days name none.
            None if protocol == PLAIN => {}
            other => {
                let other = other.unwrap_or("none");
                return Err(self.agent.failed(format!(
                    "its server chose the subprotocol {other}, not {protocol}: it is no node, or one that does not speak it"
                )));
            }
        }
        let upgraded = response.upgrade().await;
        let upgraded = upgraded.map_err(|error| self.agent.failed(format!("the upgrade failed ({error})")))?;
        // Who is to be a node has to show that it is before it is heard at length.
        Ok(Socket::new(upgraded, Side::Client, protocol == PLAIN, &self.limits).await)
    }

    /// What a server says of why it refuses, if it says it as JSON-RPC does or as this API does.
    async fn said(&self, response: reqwest::Response) -> String {
        #[derive(serde::Deserialize)]
        struct Told {
            error: Words,
        }
        #[derive(serde::Deserialize)]
        struct Words {
            message: String,
        }
        const MOST: usize = 300;
        let body = timeout(Duration::from_secs(2), self.body(response)).await;
        let told = body.ok().and_then(Result::ok);
        let told = told.and_then(|body| serde_json::from_slice::<Told>(&body).ok());
        told.map_or_else(String::new, |told| {
            let words = told.error.message.chars().filter(|c| !c.is_control());
            format!(": {}", words.take(MOST).collect::<String>())
        })
    }

    /// A link for a legacy session, on a connection of its own that is made anew when it breaks.
    pub(in crate::host) fn socket_session(self: Arc<Self>, far: Option<Arc<Far>>, tasks: &TaskTracker) -> Link {
        let (near, from_client) = mpsc::channel(self.limits.queue_messages);
        let (to_client, far_end) = mpsc::channel(self.limits.queue_messages);
        let (stop, connections) = (self.agent.stop.clone(), tasks.clone());
        let session = Session {
            upstream: self,
            far,
            to_client,
            tasks: connections,
            initialize: None,
            is_initialized: false,
            settings: BTreeMap::new(),
            open: InFlight::default(),
        };
        tasks.spawn(async move {
            let lost = session.to_client.clone();
            if let Some(Err(fault)) = stop.run_until_cancelled(session.run(from_client)).await {
                // A client that left needs no word.
                let _ = lost.send(Err(fault)).await;
            }
        });
        Link::from_channels(near, far_end)
    }
}

/// A legacy session, over one connection after another.
struct Session {
    upstream: Arc<Upstream>,
    far: Option<Arc<Far>>,
    to_client: ToClient,
    tasks: TaskTracker,
    /// What began it, and what was set in it: log level and subscriptions, by method and resource.
    initialize: Option<Message>,
    is_initialized: bool,
    settings: BTreeMap<String, Message>,
    open: InFlight,
}

impl Session {
    async fn run(mut self, mut from_client: FromClient) -> Result<(), Fault> {
        let limits = Arc::clone(&self.upstream.limits);
        let mut connection: Option<Link> = None;
        let mut failures: u32 = 0;
        let mut retry_at: Option<Instant> = None;
        loop {
            let retry = retry_at.filter(|_| connection.is_none());
            let lost = tokio::select! {
                frame = from_client.recv() => {
                    let Some(Ok(frame)) = frame else { return Ok(()) };
                    self.say(&mut connection, frame.message).await?
                }
                () = self.to_client.closed() => return Ok(()),
                heard = hear(&mut connection) => match heard {
                    Ok(message) => {
                        if let Err(error) = self.open.received(&message) {
                            tracing::warn!(%error, "an agent sent what is no JSON-RPC message; it is dropped");
                        } else if self.to_client.send(Ok(message.into())).await.is_err() {
                            return Ok(());
                        }
                        None
                    }
                    Err(fault) => Some(fault),
                },
                () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now).into()), if retry.is_some() => {
                    self.again(&mut connection).await.err()
                }
            };
            if let Some(fault) = lost {
                connection = None;
                self.answer_open(&fault).await;
                if !self.is_initialized {
                    return Err(fault);
                }
                failures = failures.saturating_add(1);
                let pause = limits.restart_first.saturating_mul(1 << failures.min(16));
                retry_at = Some(Instant::now() + pause.min(limits.restart_max));
            } else if connection.is_some() {
                (failures, retry_at) = (0, None);
            }
        }
    }

    /// Hands a message of the client on; returns why the connection was lost, if it was.
    async fn say(&mut self, connection: &mut Option<Link>, message: Message) -> Result<Option<Fault>, Fault> {
        let begins = self.note(&message);
        if let Err(refusal) = self.open.sent(&message, self.upstream.limits.in_flight) {
            // A client that left needs no word.
            let _ = self.to_client.send(Ok(refusal.into())).await;
            return Ok(None);
        }
        if connection.is_none() {
            let made = if begins {
                self.connect().await.map(|link| *connection = Some(link))
            } else {
                self.again(connection).await
            };
            if let Err(fault) = made {
                return Ok(Some(fault));
            }
        }
        let Some(link) = connection else { return Ok(None) };
        // Whether it is lost, and why, the other direction learns.
        let _ = link.sender.send(message.into()).await;
        Ok(None)
    }

    /// Remembers what a session that is begun anew must be told; `true` of what begins one.
    fn note(&mut self, message: &Message) -> bool {
        let Ok(peek) = message.peek() else { return false };
        let uri = || {
            let uri = peek.params().and_then(|params| params.uri.and_then(text));
            uri.unwrap_or_default().into_owned()
        };
        match peek.method() {
            "initialize" => {
                self.initialize = Some(message.clone());
                self.is_initialized = false;
                return true;
            }
            "notifications/initialized" => self.is_initialized = true,
            "logging/setLevel" => {
                self.settings.insert(String::new(), message.clone());
            }
            "resources/subscribe" if self.settings.len() < SETTINGS => {
                self.settings.insert(uri(), message.clone());
            }
            "resources/unsubscribe" => {
                self.settings.remove(&uri());
            }
            _ => {}
        }
        false
    }

    async fn connect(&self) -> Result<Link, Fault> {
        self.upstream.socket(self.far.as_deref(), &self.tasks).await
    }

    /// Connects again, and begins the session again with the client's own words.
    async fn again(&self, connection: &mut Option<Link>) -> Result<(), Fault> {
        let mut link = self.connect().await?;
        if let Some(initialize) = self.initialize.clone().filter(|_| self.is_initialized) {
            self.ask(&mut link, initialize).await?;
            self.tell(&mut link, Message::notification("notifications/initialized", None))
                .await?;
            for setting in self.settings.values() {
                self.ask(&mut link, setting.clone()).await?;
            }
            tracing::info!(agent = %self.upstream.agent.name, "a session was begun anew: its connection was lost");
        }
        *connection = Some(link);
        Ok(())
    }

    async fn tell(&self, link: &mut Link, message: Message) -> Result<(), Fault> {
        let broken = self
            .upstream
            .agent
            .failed("its connection broke while a session was begun anew");
        link.sender
            .send(message.into())
            .await
            .map_err(|error| error.fault(&broken))
    }

    /// Says something again whose answer the client has had; whatever else comes goes on to the client.
    async fn ask(&self, link: &mut Link, message: Message) -> Result<(), Fault> {
        let id = message.peek().ok().and_then(|peek| peek.id());
        self.tell(link, message).await?;
        let broken = self
            .upstream
            .agent
            .failed("its connection broke while a session was begun anew");
        let answered = async {
            loop {
                let frame = link.receiver.recv().await.map_err(|error| error.fault(&broken))?;
                let message = frame.ok_or_else(|| broken.clone())?.message;
                let is_answer = |id: &Option<Id>| {
                    message
                        .peek()
                        .is_ok_and(|peek| peek.kind() == Kind::Response && peek.id() == *id)
                };
                if is_answer(&id) {
                    return Ok(());
                }
                // A client that left ends the session by that.
                let _ = self.to_client.send(Ok(message.into())).await;
            }
        };
        let late = |_| self.upstream.agent.failed("it did not begin a session anew in time");
        timeout(self.upstream.limits.probe, answered).await.map_err(late)?
    }

    /// Tells the client of every open request that its answer is lost; the session goes on.
    async fn answer_open(&self, fault: &Fault) {
        if !self.is_initialized {
            // The link ends with the fault itself.
            return;
        }
        for raw in self.open.drain() {
            let answer = fault.answer(Some(&String::from_utf8_lossy(&raw)));
            // A client that left needs no word.
            let _ = self.to_client.send(Ok(answer.into())).await;
        }
    }
}

/// The next message of a connection; without one, never anything.
async fn hear(connection: &mut Option<Link>) -> Result<Message, Fault> {
    let Some(link) = connection else {
        return std::future::pending().await;
    };
    let broken = Fault::new(FaultCode::SessionLost, "the connection to the agent's server was lost");
    match link.receiver.recv().await {
        Ok(Some(frame)) => Ok(frame.message),
        Ok(None) => Err(broken),
        Err(error) => Err(error.fault(&broken)),
    }
}
