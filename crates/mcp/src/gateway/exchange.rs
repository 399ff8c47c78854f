//! The modern door over HTTP: each POST is one exchange.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use dawn_identity::NodeRef;
use serde_json::value::RawValue;

use super::http::{accepted, json};
use super::sse::{self, AsyncNext};
use super::{Counters, Gateway, Target, headers};
use crate::fault::Fault;
use crate::jsonrpc::{Kind, Message};
use crate::link::Link;
use crate::wire::Mode;

/// Serves one modern request or notification.
pub(super) async fn serve(gateway: &Gateway, target: Target, headers: &HeaderMap, message: Message) -> Response {
    let peek = match message.peek() {
        Ok(peek) => peek,
        Err(error) => {
            return json(
                StatusCode::BAD_REQUEST,
                Message::error(None, error.code(), &error.to_string(), None),
            );
        }
    };
    match peek.kind() {
        Kind::Request => {}
        // The revision defines no client notification on HTTP: closing the stream cancels. Nothing is lost by taking one.
        Kind::Notification => return accepted(),
        Kind::Response => {
            let error = Message::error(
                None,
                crate::jsonrpc::codes::INVALID_REQUEST,
                "responses are not sent in this revision",
                None,
            );
            return json(StatusCode::BAD_REQUEST, error);
        }
    }
    let checked = match headers::check(headers, &peek) {
        Ok(()) => headers::check_params(gateway, &target, headers, &peek).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = checked {
        Counters::count(&gateway.counters().refused);
        return json(refusal.status, refusal.message);
    }
    let id = peek.id.map(|raw| raw.get().to_owned()).unwrap_or_default();
    Counters::count(&gateway.counters().exchanges);
    let is_any = matches!(&target, Target::Agent(address) if address.node == NodeRef::Any);
    let about = if is_any { crate::router::about(&peek) } else { None };
    let mut link = match gateway.open_about(&target, Mode::Exchange, about.as_deref()).await {
        Ok(link) => link,
        Err(fault) => return json(fault.code.http_status(), fault.answer(Some(&id))),
    };
    let lost = gateway.lost(&target);
    if let Err(error) = link.sender.send(message.into()).await {
        let fault = error.fault(&lost);
        gateway.counters().fault(fault.code);
        return json(fault.code.http_status(), fault.answer(Some(&id)));
    }
    let mut exchange = Exchange {
        link,
        id,
        lost,
        gateway: gateway.clone(),
        done: false,
    };
    let keep_alive = gateway.limits().keep_alive;
    match tokio::time::timeout(gateway.limits().sse_after, exchange.next()).await {
        Ok(Answer::Final(message, status)) => json(status, message),
        Ok(Answer::Interim(message)) => sse::response(exchange, keep_alive, Events { first: Some(message) }),
        Err(_) => sse::response(exchange, keep_alive, Events { first: None }),
    }
}

struct Exchange {
    link: Link,
    id: String,
    lost: Fault,
    gateway: Gateway,
    done: bool,
}

enum Answer {
    Final(Message, StatusCode),
    Interim(Message),
}

impl Exchange {
    /// The next message; a broken way becomes the final answer. Cancel safe.
    async fn next(&mut self) -> Answer {
        let fault = match self.link.receiver.recv().await {
            Ok(Some(frame)) => {
                let answer = match frame.message.peek() {
                    Ok(peek) if peek.kind() == Kind::Response => Some(headers::status(&peek)),
                    Ok(_) => None,
                    Err(error) => {
                        tracing::warn!(%error, "an agent sent what is no JSON-RPC message");
                        let fault = Fault::new(
                            crate::fault::FaultCode::AgentFailed,
                            "the agent sent what is no JSON-RPC message",
                        );
                        self.gateway.counters().fault(fault.code);
                        return Answer::Final(fault.answer(Some(&self.id)), fault.code.http_status());
                    }
                };
                return match answer {
                    Some(status) => Answer::Final(frame.message, status),
                    None => Answer::Interim(frame.message),
                };
            }
            Ok(None) => self.lost.clone(),
            Err(error) => error.fault(&self.lost),
        };
        self.gateway.counters().fault(fault.code);
        Answer::Final(fault.answer(Some(&self.id)), fault.code.http_status())
    }
}

struct Events {
    first: Option<Message>,
}

impl AsyncNext<Exchange> for Events {
    async fn next(&mut self, exchange: &mut Exchange) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(sse::event(&first, None));
        }
        if exchange.done {
            return None;
        }
        match exchange.next().await {
            Answer::Interim(message) => Some(sse::event(&message, None)),
            Answer::Final(message, _) => {
                exchange.done = true;
                Some(sse::event(&message, None))
            }
        }
    }
}

/// The raw id of a request, for errors about it.
pub(super) fn raw_id(message: &Message) -> Option<String> {
    message
        .peek()
        .ok()
        .and_then(|peek| peek.id.map(RawValue::get).map(str::to_owned))
}
