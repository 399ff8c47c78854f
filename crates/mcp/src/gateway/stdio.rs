//! The door of `dawn mcp`: a connection turned into a framed stream, for clients that speak over standard I/O; and the
//! session that such a connection is, as a WebSocket is one too.
//!
//! Legacy messages go over one session link, as they come. Modern requests get an exchange each; both may come on one
//! connection, as clients of both eras probe with `server/discover` before they fall back to `initialize`. When the
//! agent's side of a legacy session is lost, open requests are answered with the fault, and the next request begins a
//! new session with the client's own `initialize`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::era::Era;
use super::{Counters, Gateway, Target};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Id, Kind, Message};
use crate::link::{Link, LinkReceiver, LinkSender};
use crate::pump::InFlight;
use crate::wire::Mode;

const UPGRADE: &str = "dawn-mcp";

pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    super::era::header(headers, header::UPGRADE.as_str()).is_some_and(|value| value.eq_ignore_ascii_case(UPGRADE))
}

/// Answers 101 and serves the connection from then on.
pub(super) fn upgrade(gateway: &Gateway, target: Target, request: Request) -> Response {
    let gateway = gateway.clone();
    gateway.inner.tasks.clone().spawn(async move {
        let stop = gateway.inner.stop.clone();
        let served = stop.run_until_cancelled(async {
            match hyper::upgrade::on(request).await {
                Ok(upgraded) => {
                    Counters::count(&gateway.counters().bridges);
                    let link = Link::from_stream(TokioIo::new(upgraded), gateway.limits().message_bytes);
                    Box::pin(serve(gateway.clone(), target, link)).await;
                }
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        });
        // A shutdown ends the connection, which tells the client.
        let _ = served.await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
        .headers_mut()
        .insert(header::UPGRADE, HeaderValue::from_static(UPGRADE));
    response
}

type ToClient = Arc<tokio::sync::Mutex<LinkSender>>;

struct Bridge {
    gateway: Gateway,
    target: Target,
    client: ToClient,
    session: Option<Session>,
    /// The client's `initialize` and `notifications/initialized`, to begin a lost session again.
    opening: Vec<Message>,
    exchanges: Arc<Mutex<HashMap<Id, CancellationToken>>>,
    tasks: TaskTracker,
}

struct Session {
    to_agent: LinkSender,
    open: Arc<InFlight>,
    lost: CancellationToken,
    stop: CancellationToken,
}

/// Serves a client until it is gone, or done.
pub(super) async fn serve(gateway: Gateway, target: Target, link: Link) {
    let mut from_client = link.receiver;
    let mut bridge = Bridge {
        gateway,
        target,
        client: Arc::new(tokio::sync::Mutex::new(link.sender)),
        session: None,
        opening: Vec::new(),
        exchanges: Arc::default(),
        tasks: TaskTracker::new(),
    };
    let mut gone = false;
    loop {
        let mut next = match from_client.recv().await {
            Ok(Some(frame)) => Some(frame.message),
            Ok(None) => break,
            Err(error) => {
                let lost = Fault::new(FaultCode::Protocol, "the client is gone");
                let fault = error.fault(&lost);
                gone = fault == lost;
                bridge.tell(fault.answer(None)).await;
                break;
            }
        };
        while let Some(message) = next {
            bridge.message(message).await;
            next = from_client.ready().ok().flatten().map(|frame| frame.message);
        }
        bridge.flush().await;
    }
    bridge.finish(gone).await;
}

impl Bridge {
    async fn tell(&mut self, message: Message) {
        // A client that is gone needs no answer; its absence ends the loop that reads it.
        let _ = self.client.lock().await.send(message.into()).await;
    }

    async fn message(&mut self, message: Message) {
        let peek = match message.peek() {
            Ok(peek) => peek,
            Err(_) if message.is_batch() => return self.legacy(message).await,
            Err(error) => {
                Counters::count(&self.gateway.counters().refused);
                return self
                    .tell(Message::error(None, error.code(), &error.to_string(), None))
                    .await;
            }
        };
        if peek.kind() == Kind::Request && Era::of_message(&peek) == Era::Modern {
            return self.exchange(message).await;
        }
        if peek.method() == "notifications/cancelled" {
            let id = peek
                .params()
                .and_then(|params| params.request_id)
                .and_then(|raw| Id::parse(raw.get()).ok());
            let exchange = id.and_then(|id| lock(&self.exchanges).remove(&id));
            if let Some(exchange) = exchange {
                exchange.cancel();
                return;
            }
        }
        self.legacy(message).await;
    }

    async fn legacy(&mut self, message: Message) {
        let (method, raw_id) = match message.peek() {
            Ok(peek) => (
                peek.method().to_owned(),
                peek.id
                    .filter(|_| peek.kind() == Kind::Request)
                    .map(|raw| raw.get().to_owned()),
            ),
            Err(_) => (String::new(), None),
        };
        match method.as_str() {
            "initialize" => {
                self.opening = vec![message.clone()];
                if let Some(before) = self.session.take() {
                    before.stop.cancel();
                }
            }
            "notifications/initialized" => self.opening.push(message.clone()),
            _ => {}
        }
        for is_again in [false, true] {
            let is_lost = self.session.as_ref().is_none_or(|session| session.lost.is_cancelled());
            if is_lost {
                if raw_id.is_none() {
                    return;
                }
                if let Some(before) = self.session.take() {
                    before.stop.cancel();
                }
                if let Err(fault) = self.begin(method == "initialize").await {
                    self.gateway.counters().fault(fault.code);
                    return self.tell(fault.answer(raw_id.as_deref())).await;
                }
            }
            let Some(session) = &mut self.session else { return };
            if let Err(refusal) = session.open.sent(&message, self.gateway.limits().in_flight) {
                return self.tell(refusal).await;
            }
            // Lost meanwhile: the reading side has answered what was open, this request among it, or this one is taken back.
            if session.lost.is_cancelled() && session.open.withdraw(&message) {
                if is_again {
                    let fault = self.gateway.lost(&self.target);
                    return self.tell(fault.answer(raw_id.as_deref())).await;
                }
                continue;
            }
            // When the agent is gone the reading side answers what is open.
            let _ = session.to_agent.feed(message.into()).await;
            return;
        }
    }

    /// Opens the session link; unless the client is just initialising, its own `initialize` is said again first.
    async fn begin(&mut self, initialising: bool) -> Result<(), Fault> {
        let mut link = self.gateway.open(&self.target, Mode::Session).await?;
        let lost = self.gateway.lost(&self.target);
        if !initialising && let Some((initialize, rest)) = self.opening.split_first() {
            link.sender
                .send(initialize.clone().into())
                .await
                .map_err(|error| error.fault(&lost))?;
            let answered = tokio::time::timeout(self.gateway.limits().probe, answer(&mut link.receiver)).await;
            answered
                .map_err(|_| Fault::new(FaultCode::Timeout, "the agent did not answer initialize"))?
                .map_err(|error| error.unwrap_or(lost.clone()))?;
            for message in rest {
                link.sender
                    .feed(message.clone().into())
                    .await
                    .map_err(|error| error.fault(&lost))?;
            }
        }
        let session = Session {
            to_agent: link.sender,
            open: Arc::default(),
            lost: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let (client, open) = (Arc::clone(&self.client), Arc::clone(&session.open));
        let (ended, stop, gateway) = (session.lost.clone(), session.stop.clone(), self.gateway.clone());
        self.tasks.spawn(async move {
            let Some(fault) = stop
                .run_until_cancelled(down(link.receiver, &client, &open, &lost))
                .await
            else {
                return;
            };
            ended.cancel();
            let mut client = client.lock().await;
            for raw in open.drain() {
                gateway.counters().fault(fault.code);
                // A client that is gone needs no answer.
                let _ = client
                    .feed(fault.answer(Some(&String::from_utf8_lossy(&raw))).into())
                    .await;
            }
            let _ = client.flush().await;
        });
        self.session = Some(session);
        Ok(())
    }

    async fn exchange(&mut self, message: Message) {
        let Ok(peek) = message.peek() else { return };
        let (Some(id), Some(raw)) = (peek.id(), peek.id.map(RawValue::get).map(str::to_owned)) else {
            return;
        };
        let stop = CancellationToken::new();
        let admitted = {
            let mut exchanges = lock(&self.exchanges);
            let free = exchanges.len() < self.gateway.limits().in_flight && !exchanges.contains_key(&id);
            if free {
                exchanges.insert(id.clone(), stop.clone());
            }
            free
        };
        if !admitted {
            let fault = Fault::new(
                FaultCode::Busy,
                "too many requests in flight, or this id is in use; wait for answers",
            );
            return self.tell(fault.answer(Some(&raw))).await;
        }
        Counters::count(&self.gateway.counters().exchanges);
        let (gateway, target, client, exchanges) = (
            self.gateway.clone(),
            self.target.clone(),
            Arc::clone(&self.client),
            Arc::clone(&self.exchanges),
        );
        self.tasks.spawn(async move {
            let served = stop
                .run_until_cancelled(exchange(&gateway, &target, &client, message))
                .await;
            lock(&exchanges).remove(&id);
            if let Some(Err(fault)) = served {
                gateway.counters().fault(fault.code);
                // A client that is gone needs no answer.
                let _ = client.lock().await.send(fault.answer(Some(&raw)).into()).await;
            }
        });
    }

    async fn flush(&mut self) {
        if let Some(session) = &mut self.session {
            // When the agent is gone the reading side answers what is open.
            let _ = session.to_agent.flush().await;
        }
    }

    /// The client says nothing more: the agent may finish what is open, unless the client is gone.
    async fn finish(mut self, gone: bool) {
        self.tasks.close();
        let lost = match &mut self.session {
            Some(session) if !gone => {
                session.to_agent.close().await;
                Some(session.lost.clone())
            }
            Some(session) => {
                session.stop.cancel();
                None
            }
            None => None,
        };
        if gone {
            lock(&self.exchanges)
                .drain()
                .for_each(|(_, exchange)| exchange.cancel());
        }
        let ended = async {
            if let Some(lost) = lost {
                lost.cancelled().await;
            }
            self.tasks.wait().await;
        };
        // Subscriptions never end by themselves: the bound ends them with the client's connection.
        if tokio::time::timeout(self.gateway.limits().linger, ended).await.is_err() {
            lock(&self.exchanges)
                .drain()
                .for_each(|(_, exchange)| exchange.cancel());
            if let Some(session) = &self.session {
                session.stop.cancel();
            }
        }
        self.tasks.wait().await;
        self.client.lock().await.close().await;
    }
}

fn lock(
    exchanges: &Mutex<HashMap<Id, CancellationToken>>,
) -> std::sync::MutexGuard<'_, HashMap<Id, CancellationToken>> {
    exchanges.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the answer to a repeated `initialize`; `Err(None)` when the link is lost.
async fn answer(from: &mut LinkReceiver) -> Result<(), Option<Fault>> {
    loop {
        let frame = match from.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(None),
            Err(error) => {
                let unknown = Fault::new(FaultCode::SessionLost, String::new());
                let fault = error.fault(&unknown);
                return Err(Some(fault).filter(|fault| *fault != unknown));
            }
        };
        if frame.message.peek().is_ok_and(|peek| peek.kind() == Kind::Response) {
            return Ok(());
        }
    }
}

/// Carries what the agent says to the client; says why it ended.
async fn down(mut from: LinkReceiver, client: &ToClient, open: &InFlight, lost: &Fault) -> Fault {
    loop {
        let mut next = match from.recv().await {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => return lost.clone(),
            Err(error) => return error.fault(lost),
        };
        let mut client = client.lock().await;
        while let Some(mut frame) = next {
            // Standard I/O knows no relation between messages.
            frame.related = None;
            if let Err(error) = open.received(&frame.message) {
                tracing::warn!(%error, "an agent sent what is no JSON-RPC message; it is dropped");
            } else if client.feed(frame).await.is_err() {
                return lost.clone();
            }
            next = match from.ready() {
                Ok(next) => next,
                Err(error) => return error.fault(lost),
            };
        }
        if client.flush().await.is_err() {
            return lost.clone();
        }
    }
}

async fn exchange(gateway: &Gateway, target: &Target, client: &ToClient, message: Message) -> Result<(), Fault> {
    let mut link = gateway.open(target, Mode::Exchange).await?;
    let lost = gateway.lost(target);
    link.sender
        .send(message.into())
        .await
        .map_err(|error| error.fault(&lost))?;
    loop {
        let frame = link
            .receiver
            .recv()
            .await
            .map_err(|error| error.fault(&lost))?
            .ok_or_else(|| lost.clone())?;
        let last = frame.message.peek().is_ok_and(|peek| peek.kind() == Kind::Response);
        if client.lock().await.send(frame.message.into()).await.is_err() || last {
            return Ok(());
        }
    }
}
