//! Legacy sessions with a Streamable HTTP server: begun, resumed, and begun anew when the server lost them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{FromClient, LAST_EVENT, SESSION, ToClient, Upstream, VERSION};
use crate::fault::{Fault, FaultCode};
use crate::host::lock;
use crate::jsonrpc::{Kind, Message, text};
use crate::link::Link;

/// How long the stream of a new session is waited for.
const OPENING: Duration = Duration::from_millis(250);
/// Subscriptions of a session that survive its loss.
pub(super) const SETTINGS: usize = 1024;

impl Upstream {
    /// A link for a legacy session.
    pub(in crate::host) fn session(self: Arc<Self>, tasks: &TaskTracker) -> Link {
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
                let is_spoken = tokio::select! {
                    is_spoken = self.initialize_or_tell(&message) => is_spoken?,
                    () = self.to_client.closed() => return Ok(()),
                };
                if !is_spoken {
                    return self.upstream.sse(message, from_client, self.to_client).await;
                }
                if method == "notifications/initialized" {
                    let (opened, is_open) = oneshot::channel();
                    let (state, to_client) = (Arc::clone(&self.state), self.to_client.clone());
                    let listening = Arc::clone(&self.upstream).listen(state, to_client, opened);
                    let end = end.clone();
                    self.requests.spawn(async move {
                        // It ends with the session.
                        let _ = end.run_until_cancelled(listening).await;
                    });
                    // What the server asks of its own accord comes on that stream: a call that it answers with a
                    // question must not overtake it. A server that says nothing before it has to is not waited for.
                    let _ = tokio::time::timeout(OPENING, is_open).await;
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

    /// `false` when the server speaks no Streamable HTTP, as it answers `initialize`: it may speak what came before.
    async fn initialize_or_tell(&self, message: &Message) -> Result<bool, Fault> {
        let Ok(peek) = message.peek() else { return Ok(true) };
        let related = peek
            .id
            .filter(|_| peek.kind() == Kind::Request)
            .map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
        let Some(related) = related else {
            return self.upstream.post_in(&self.state, message).await.map(|_| true);
        };
        let response = self.upstream.post(message.clone(), HeaderMap::new()).await?;
        if matches!(
            response.status(),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        ) && !super::is_json(&response)
        {
            return Ok(false);
        }
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
            .map(|()| true)
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
                self.agent.address
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
        let mut last_event = None;
        let relaying = self.relay(response, related, &answer, &mut last_event);
        tokio::pin!(relaying);
        let is_answer = |message: &Message| message.peek().is_ok_and(|peek| peek.kind() == Kind::Response);
        let begun = loop {
            // What else comes before the answer is about a session that the client does not know.
            tokio::select! {
                biased;
                Some(Ok(frame)) = answered.recv() => {
                    if is_answer(&frame.message) {
                        break Some(frame);
                    }
                }
                relayed = &mut relaying => {
                    let _is_answered = relayed?;
                    break answered.try_recv().ok().and_then(Result::ok);
                }
            }
        };
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

    pub(super) async fn get(&self, headers: HeaderMap, last_event: Option<&str>) -> Result<reqwest::Response, Fault> {
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
    async fn listen(self: Arc<Self>, state: Arc<Mutex<Identity>>, to_client: ToClient, opened: oneshot::Sender<()>) {
        let mut opened = Some(opened);
        let mut last_event: Option<(String, Duration)> = None;
        let mut pause = self.limits.restart_first;
        loop {
            let headers = lock(&state).headers();
            let asked_in = headers.get(SESSION).cloned();
            let id = last_event.as_ref().map(|(id, _)| id.clone());
            let answered = self.get(headers, id.as_deref()).await;
            if let Some(opened) = opened.take() {
                // Nobody waits for it longer than that.
                let _ = opened.send(());
            }
            match answered {
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
