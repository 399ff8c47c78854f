//! Joins two links: what the client says goes to the agent, and back.
//!
//! Requests in flight are remembered, so that none has the id of another, and an agent gets the time to answer them when
//! its client says that nothing more comes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dawn_mesh::Answering;
use serde_json::value::RawValue;

use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Id, Kind, Message, MessageError, Peek, codes};
use crate::link::{Link, LinkError, LinkReceiver, LinkSender};
use crate::wire::Mode;

/// The requests that wait for a response.
#[derive(Debug, Default)]
pub struct InFlight {
    open: Mutex<HashMap<Id, Bytes>>,
    /// Hears whether there are any.
    answering: Option<Answering>,
}

impl InFlight {
    /// The requests of a stream, which ends for nobody's sake while there are any.
    #[must_use]
    pub fn on(answering: Option<Answering>) -> Self {
        Self {
            answering,
            ..Self::default()
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Id, Bytes>) -> T) -> T {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let done = act(&mut open);
        if let Some(answering) = &self.answering {
            answering.set(!open.is_empty());
        }
        done
    }

    fn begin(&self, id: &Id, raw: Option<&str>, most: usize) -> Result<(), Message> {
        self.with(|open| {
            if open.contains_key(id) {
                let words = "a request with this id is still in flight on this session";
                return Err(Message::error(raw, codes::INVALID_REQUEST, words, None));
            }
            if open.len() >= most {
                let words = format!("{most} requests are in flight on this session; wait for answers");
                return Err(Fault::new(FaultCode::Busy, words).answer(raw));
            }
            open.insert(id.clone(), Bytes::copy_from_slice(raw.unwrap_or("null").as_bytes()));
            Ok(())
        })
    }

    /// Notes what is no request: a cancellation ends one.
    fn noted(&self, peek: &Peek<'_>) {
        if peek.kind() == Kind::Notification && peek.method() == "notifications/cancelled" {
            let id = peek
                .params()
                .and_then(|params| params.request_id)
                .and_then(|raw| Id::parse(raw.get()).ok());
            if let Some(id) = id {
                self.with(|open| open.remove(&id));
            }
        }
    }

    /// Notes what the client sends, a batch as a whole or not at all.
    ///
    /// # Errors
    /// The answer to what does not go on: it is no JSON-RPC message, its id is in use, or `most` requests are in flight.
    pub fn sent(&self, message: &Message, most: usize) -> Result<(), Message> {
        let invalid = |error: MessageError| Message::error(None, error.code(), &error.to_string(), None);
        let parts = if message.is_batch() {
            message.batch().map_err(invalid)?
        } else {
            vec![message.clone()]
        };
        let mut begun = Vec::new();
        let noted = parts.iter().try_for_each(|part| {
            let peek = part.peek().map_err(invalid)?;
            match peek.id().filter(|_| peek.kind() == Kind::Request) {
                Some(id) => {
                    self.begin(&id, peek.id.map(RawValue::get), most)?;
                    begun.push(id);
                }
                None => self.noted(&peek),
            }
            Ok(())
        });
        if noted.is_err() {
            self.with(|open| begun.iter().for_each(|id| drop(open.remove(id))));
        }
        noted
    }

    /// Notes what the agent answers.
    ///
    /// # Errors
    /// It is no JSON-RPC message.
    pub fn received(&self, message: &Message) -> Result<(), MessageError> {
        if message.is_batch() {
            return message.batch()?.iter().try_for_each(|part| self.received(part));
        }
        let peek = message.peek()?;
        if peek.kind() == Kind::Response
            && let Some(id) = peek.id()
        {
            self.with(|open| open.remove(&id));
        }
        Ok(())
    }

    /// Takes back what was noted as sent; whether one of its requests still waited. Whoever takes a request out of those
    /// that wait is the one to see to it.
    #[must_use]
    pub fn withdraw(&self, message: &Message) -> bool {
        let parts = match message.is_batch() {
            true => message.batch().unwrap_or_default(),
            false => vec![message.clone()],
        };
        let ids = parts.iter().filter_map(|part| {
            let peek = part.peek().ok()?;
            peek.id().filter(|_| peek.kind() == Kind::Request)
        });
        let ids: Vec<Id> = ids.collect();
        self.with(|open| ids.iter().filter(|id| open.remove(id).is_some()).count() > 0)
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.with(|open| open.len())
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The raw ids of those that wait, which then wait no more.
    #[must_use]
    pub fn drain(&self) -> Vec<Bytes> {
        self.with(|open| open.drain().map(|(_, raw)| raw).collect())
    }
}

/// How a pump treats its two ends.
#[derive(Debug, Clone)]
pub struct Pumping {
    /// A session may be half closed by the client; an exchange is cancelled by that.
    pub mode: Mode,
    /// What the client is told when the agent's side ends.
    pub lost: Fault,
    /// Requests in flight before further ones are answered with `busy`.
    pub in_flight: usize,
    /// How long the agent may go on after the client said that nothing more comes.
    pub linger: Duration,
    /// Hears whether the client waits for an answer.
    pub answering: Option<Answering>,
}

/// Carries frames both ways until either side ends, then closes both; the client is told why, where it was the agent's.
pub async fn pump(client: Link, agent: Link, how: &Pumping) {
    let open = InFlight::on(how.answering.clone());
    let Link {
        sender: to_client,
        receiver: mut from_client,
    } = client;
    let Link {
        sender: mut to_agent,
        receiver: mut from_agent,
    } = agent;
    let to_client = tokio::sync::Mutex::new(to_client);
    let up = async {
        let end = up(&mut from_client, &mut to_agent, &to_client, &open, how).await;
        if how.mode == Mode::Exchange || end == UpEnd::ClientGone {
            return;
        }
        to_agent.close().await;
        let drained = async {
            while !open.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep(how.linger).await;
        };
        // The agent ending (the other branch of the select) is the usual end; this is the bound on it.
        let _ = tokio::time::timeout(how.linger * 10, drained).await;
    };
    let down = down(&mut from_agent, &to_client, &open);
    let lost = tokio::select! {
        biased;
        lost = down => lost,
        () = up => return,
    };
    let fault = lost.map_or_else(|| how.lost.clone(), |error| error.fault(&how.lost));
    // The client knows better what it waits for: what it said just now may not have come here.
    to_client.lock().await.end(fault).await;
}

#[derive(PartialEq, Eq)]
enum UpEnd {
    ClientDone,
    ClientGone,
}

async fn up(
    from: &mut LinkReceiver,
    to: &mut LinkSender,
    back: &tokio::sync::Mutex<LinkSender>,
    open: &InFlight,
    how: &Pumping,
) -> UpEnd {
    loop {
        let mut next = match from.recv().await {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => return UpEnd::ClientDone,
            Err(error) => {
                if let LinkError::Frame(crate::frame::FrameError::TooLarge { .. }) = &error {
                    let fault = error.fault(&how.lost);
                    // The client may be gone already; the conversation ends either way.
                    let _ = back.lock().await.send(fault.answer(None).into()).await;
                }
                return UpEnd::ClientGone;
            }
        };
        while let Some(frame) = next {
            if let Err(refusal) = open.sent(&frame.message, how.in_flight) {
                if back.lock().await.send(refusal.into()).await.is_err() {
                    return UpEnd::ClientGone;
                }
            } else if to.feed(frame).await.is_err() {
                // The reading side learns why and tells the client.
                return std::future::pending().await;
            }
            next = from.ready().unwrap_or(None);
        }
        if to.flush().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Returns why the agent's side ended; `None` when it ended in order.
async fn down(from: &mut LinkReceiver, to: &tokio::sync::Mutex<LinkSender>, open: &InFlight) -> Option<LinkError> {
    loop {
        let mut next = match from.recv().await {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => return None,
            Err(error) => return Some(error),
        };
        let mut to = to.lock().await;
        while let Some(frame) = next {
            if let Err(error) = open.received(&frame.message) {
                tracing::warn!(%error, "an agent sent what is no JSON-RPC message; it is dropped");
            } else if to.feed(frame).await.is_err() {
                // The client is gone: the other direction ends the pump.
                return std::future::pending().await;
            }
            next = match from.ready() {
                Ok(next) => next,
                Err(error) => return Some(error),
            };
        }
        if to.flush().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultCode;

    #[tokio::test]
    async fn what_comes_behind_the_agents_end_is_told_of_it_before_it_is_answered() {
        let (near, far) = tokio::io::duplex(4096);
        let (agent, mut process) = Link::pair(8);
        let lost = Fault::new(FaultCode::AgentFailed, "the agent ended");
        let how = Pumping {
            mode: Mode::Session,
            lost: lost.clone(),
            in_flight: 8,
            linger: Duration::from_secs(1),
            answering: None,
        };
        let mut client = Link::from_stream(near, 4096).leading_to_host();
        let mut host = Link::from_stream(far, 4096);
        host.sender
            .send(Message::new(Bytes::from_static(br#"{"ok":{}}"#)).into())
            .await
            .unwrap();
        let request = |id| Message::request(id, "tools/call", "{}");
        client.sender.send(request("1").into()).await.unwrap();
        let pumped = tokio::spawn(async move { pump(host, agent, &how).await });
        let taken = process.receiver.recv().await.unwrap().unwrap();
        assert_eq!(taken.message, request("1"));
        drop(process);
        pumped.await.unwrap();
        // The agent has ended, and the client does not know yet.
        let _too_late = client.sender.send(request("2").into()).await;
        let error = client.receiver.recv().await.unwrap_err();
        assert!(matches!(error, crate::link::LinkError::Fault(fault) if fault == lost));
    }
}
