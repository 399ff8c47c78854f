//! The side that is asked for a key.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dawn_channel::exchange::{Acceptor, ExchangeError, KeyRequest, Message, RefusalCode};
use dawn_identity::NodeId;
use dawn_mesh::{Inbound, Incoming, MeshStream};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::stream::{receive, send};
use super::{ASKED, AcceptKeys, Asked, AskedFor, DEADLINE, ExchangeFailure, KeyExchange, Origin, Progress, STEP};
use crate::members::{SKEW, now};
use crate::sync::lock;
use crate::time::rfc3339;

impl KeyExchange {
    /// Answers members, until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        while let Some(inbound) = incoming.next().await {
            let Some(share) = self.0.streams.take(inbound.peer.node) else {
                self.count(ExchangeFailure::TooOften.code());
                continue;
            };
            let exchange = self.clone();
            self.0.tasks.spawn(async move {
                exchange.serve_one(inbound).await;
                drop(share);
            });
        }
    }

    async fn serve_one(&self, Inbound { peer, mut stream }: Inbound) {
        let peer = peer.node;
        let Err(error) = self.answer_stream(&mut stream, peer).await else {
            return;
        };
        self.count(error.code());
        if matches!(error, ExchangeFailure::Unreachable(_)) {
            tracing::debug!(%error, %peer, "a key exchange broke off");
            return;
        }
        if self.0.told.may_speak_of(peer) {
            tracing::warn!(%error, %peer, "a key exchange is refused");
            self.0.parts.events.say(
                "key.refused",
                &json!({ "node": peer, "name": self.name(peer), "code": error.code(), "message": error.to_string() }),
            );
        }
        let told = send(&mut stream, &Message::Refused(error.refusal())).await;
        if let Err(error) = told {
            tracing::debug!(%error, "who is refused does not listen");
        }
    }

    /// Whether a member has asked less often than it may.
    fn may_ask(&self, peer: NodeId) -> bool {
        const SPAN: Duration = Duration::from_secs(60);
        let at = Instant::now();
        let mut pace = lock(&self.0.pace);
        pace.retain(|_, (since, _)| at.duration_since(*since) < SPAN);
        let (_, count) = pace.entry(peer).or_insert((at, 0));
        *count += 1;
        *count <= self.0.parts.requests_per_minute
    }

    async fn answer_stream(&self, stream: &mut MeshStream, peer: NodeId) -> Result<(), ExchangeFailure> {
        if !self.may_ask(peer) {
            return Err(ExchangeFailure::TooOften);
        }
        let first = timeout(STEP, receive(stream)).await;
        match first.map_err(|_| ExchangeFailure::Late)?? {
            Message::Request(request) => self.accept(stream, peer, &request).await,
            Message::Revocation(revocation) => {
                self.revoked(&revocation, peer).await?;
                send(stream, &Message::Noted).await
            }
            _ => Err(ExchangeFailure::NotUnderstood),
        }
    }

    async fn accept(&self, stream: &mut MeshStream, peer: NodeId, request: &[u8]) -> Result<(), ExchangeFailure> {
        let parts = &self.0.parts;
        let request = KeyRequest::read(request, &parts.network, &self.local(), now(), SKEW)?;
        if request.requester() != peer {
            return Err(ExchangeError::WrongPeer(request.requester()).into());
        }
        let former = match request.former() {
            None => None,
            Some(id) => match self.keyring().get(id).filter(|held| held.key.peer() == peer) {
                Some(held) => Some(held.key),
                None => {
                    let revocations = parts.store.key_revocations().await?;
                    let own = revocations.into_iter().find(|row| row.key == id && row.peer == peer);
                    let own = own.ok_or(ExchangeFailure::Refused(RefusalCode::UnknownKey))?;
                    return send(stream, &Message::Revocation(own.bytes)).await;
                }
            },
        };
        let is_wanted = former.is_some() || self.is_wanted(peer);
        if parts.config.accept == AcceptKeys::Ask && !is_wanted {
            self.ask_owner(stream, peer, &request).await?;
        }
        let longest = now() + parts.config.longest.0;
        let former = former.as_ref();
        let acceptor = Acceptor::accept(&parts.identity, request, former, longest, now(), &mut rand::rng())?;
        send(stream, &Message::Acceptance(acceptor.acceptance().to_vec())).await?;
        let confirmation = timeout(STEP, receive(stream)).await;
        let Message::Confirmation(confirmation) = confirmation.map_err(|_| ExchangeFailure::Late)?? else {
            return Err(ExchangeFailure::NotUnderstood);
        };
        let key = acceptor.read(&confirmation, now(), SKEW)?;
        self.is_kept(former)?;
        self.keyring().add(key.clone(), Origin::Exchange, true, now()).await?;
        self.count("agreed");
        self.said("key.agreed", &key);
        self.drop_wish(peer, Progress::Agreed(key.id())).await?;
        send(stream, &Message::Done).await
    }

    /// Waits for this node's owner to say whether a key is agreed on.
    async fn ask_owner(
        &self,
        stream: &mut MeshStream,
        peer: NodeId,
        request: &KeyRequest,
    ) -> Result<(), ExchangeFailure> {
        let offer = request.offer();
        let (answer, answered) = oneshot::channel();
        let since = now();
        {
            let mut asked = lock(&self.0.asked);
            if asked.len() >= ASKED && !asked.contains_key(&peer) {
                return Err(ExchangeFailure::Refused(RefusalCode::Busy));
            }
            let entry = Asked {
                since,
                expires: offer.key_expires,
                answer,
            };
            asked.insert(peer, entry);
        }
        let waiting = AskedFor {
            peer,
            since,
            expires: offer.key_expires,
        };
        self.0.parts.events.say(
            "key.requested",
            &json!({ "node": peer, "name": self.name(peer), "expires": rfc3339(waiting.expires) }),
        );
        let _until_then = Question {
            asked: &self.0.asked,
            peer,
        };
        send(stream, &Message::Pending).await?;
        let left = Duration::from_secs(offer.deadline.0.saturating_sub(since.0)).min(DEADLINE);
        tokio::select! {
            answer = answered => match answer {
                Ok(true) => Ok(()),
                Ok(false) => Err(ExchangeFailure::Refused(RefusalCode::Denied)),
                // The same node asked anew.
                Err(_) => Err(ExchangeFailure::Late),
            },
            // Who asks has nothing to say meanwhile: it has left.
            _ = stream.read_u8() => Err(ExchangeFailure::Unreachable("it did not wait for an answer".to_owned())),
            () = tokio::time::sleep(left) => Err(ExchangeFailure::Late),
        }
    }
}

/// A question to the owner; it ends with who waits for its answer.
struct Question<'a> {
    asked: &'a Mutex<BTreeMap<NodeId, Asked>>,
    peer: NodeId,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut asked = lock(self.asked);
        if asked.get(&self.peer).is_some_and(|asked| asked.answer.is_closed()) {
            asked.remove(&self.peer);
        }
    }
}
