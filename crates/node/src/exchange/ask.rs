//! The side that asks for a key.

use std::time::Instant;

use dawn_channel::exchange::{Message, Offer, Requester};
use dawn_channel::{KeyId, SharedKey};
use dawn_identity::NodeId;
use dawn_mesh::MeshStream;
use serde_json::json;
use tokio::time::timeout;

use super::stream::{receive, send};
use super::{DEADLINE, ExchangeFailure, KEYS, KeyExchange, Origin, Progress, RETRY, STEP, Wish};
use crate::members::{SKEW, now};
use crate::store::WishRow;
use crate::sync::lock;

/// A key that the peer has accepted and this node has not yet.
struct Accepted {
    stream: MeshStream,
    key: SharedKey,
    confirmation: Vec<u8>,
}

impl KeyExchange {
    /// Tries once to get what is wanted of a peer.
    pub(super) async fn attempt(&self, peer: NodeId) {
        let wish = |wish: &Wish| (wish.row, wish.progress.subscribe());
        let Some((row, mut progress)) = lock(&self.0.wishes).get(&peer).map(wish) else {
            return;
        };
        // It is dropped with the wish: when the key is not wanted any more, is there, or is wanted otherwise.
        let unwanted = async { while progress.changed().await.is_ok() {} };
        let told = match self.try_exchange(&row, unwanted).await {
            Ok(None) => return tracing::debug!(%peer, "a key is not wanted any more"),
            Ok(Some(key)) => {
                self.count("agreed");
                self.said("key.agreed", &key);
                self.drop_wish(peer, Progress::Agreed(key.id())).await
            }
            Err(error) if error.is_final() => {
                self.failed(peer, &error);
                lock(&self.0.given_up).extend(row.former);
                self.drop_wish(peer, Progress::Failed(error)).await
            }
            Err(error) => {
                self.failed(peer, &error);
                self.put_off(peer, error);
                Ok(())
            }
        };
        if let Err(error) = told {
            tracing::error!(%error, "what is wanted of a key exchange could not be kept");
        }
    }

    fn failed(&self, peer: NodeId, error: &ExchangeFailure) {
        self.count(error.code());
        // A peer that is away is nothing to speak of: the exchange comes about when it is back.
        if matches!(error, ExchangeFailure::Unreachable(_)) {
            tracing::info!(%error, %peer, "no key is agreed on yet");
            return;
        }
        tracing::warn!(%error, %peer, "no key is agreed on");
        self.0.parts.events.say(
            "key.failed",
            &json!({ "node": peer, "name": self.name(peer), "code": error.code(), "message": error.to_string() }),
        );
    }

    fn put_off(&self, peer: NodeId, error: ExchangeFailure) {
        if let Some(wish) = lock(&self.0.wishes).get_mut(&peer) {
            let pause = RETRY.0.saturating_mul(1 << wish.tries.min(16)).min(RETRY.1);
            wish.tries = wish.tries.saturating_add(1);
            wish.next = Instant::now() + pause.mul_f64(rand::random_range(0.75..1.0));
            wish.progress.send_replace(Progress::Waiting(Some(error)));
        }
    }

    async fn open(&self, peer: NodeId) -> Result<MeshStream, ExchangeFailure> {
        let opened = self.0.parts.mesh.open(peer, KEYS).await;
        opened.map_err(|error| ExchangeFailure::Unreachable(error.to_string()))
    }

    /// The key; `None` if it was `unwanted` before this node had agreed.
    async fn try_exchange(
        &self,
        row: &WishRow,
        unwanted: impl Future<Output = ()>,
    ) -> Result<Option<SharedKey>, ExchangeFailure> {
        let former = match row.former {
            None => None,
            // What was to be renewed has been revoked or forgotten since.
            Some(id) => Some(self.keyring().get(id).ok_or(ExchangeFailure::Revoked(id))?.key),
        };
        let asked = tokio::select! {
            asked = self.ask(row, former.as_ref()) => asked?,
            () = unwanted => return Ok(None),
        };
        self.confirm(asked, former.as_ref()).await.map(Some)
    }

    /// Asks for a key, until the peer has accepted.
    async fn ask(&self, row: &WishRow, former: Option<&SharedKey>) -> Result<Accepted, ExchangeFailure> {
        let parts = &self.0.parts;
        let mut stream = self.open(row.peer).await?;
        let now_ = now();
        let offer = Offer {
            network: parts.network,
            peer: row.peer,
            deadline: now_ + DEADLINE,
            key_expires: now_ + row.lifetime,
        };
        let requester = Requester::begin(&parts.identity, offer, former.cloned(), now_, &mut rand::rng())?;
        let request = requester.request().bytes().to_vec();
        send(&mut stream, &Message::Request(request)).await?;
        let mut answer = self.next(&mut stream, STEP).await?;
        if answer == Message::Pending {
            if let Some(wish) = lock(&self.0.wishes).get(&row.peer) {
                wish.progress.send_replace(Progress::Asked);
            }
            answer = self.next(&mut stream, DEADLINE).await?;
        }
        let acceptance = match answer {
            Message::Acceptance(acceptance) => acceptance,
            Message::Refused(code) => return Err(ExchangeFailure::Refused(code)),
            Message::Revocation(bytes) => {
                self.revoked(&bytes, row.peer).await?;
                let former = row.former.unwrap_or(KeyId::from_bytes([0; 16]));
                return Err(ExchangeFailure::Revoked(former));
            }
            _ => return Err(ExchangeFailure::NotUnderstood),
        };
        let (key, confirmation) = requester.read(&parts.identity, &acceptance, now(), SKEW)?;
        Ok(Accepted {
            stream,
            key,
            confirmation,
        })
    }

    /// Agrees to the key: from here on it exists, here or at both ends.
    async fn confirm(&self, accepted: Accepted, former: Option<&SharedKey>) -> Result<SharedKey, ExchangeFailure> {
        let Accepted {
            mut stream,
            key,
            confirmation,
        } = accepted;
        self.is_kept(former)?;
        // The peer may seal with it as soon as it has the confirmation: from then on it has to open here, whatever becomes
        // of this stream, or of this node.
        self.keyring().add(key.clone(), Origin::Exchange, false, now()).await?;
        send(&mut stream, &Message::Confirmation(confirmation)).await?;
        match self.next(&mut stream, STEP).await? {
            Message::Done => {}
            Message::Refused(code) => return Err(ExchangeFailure::Refused(code)),
            _ => return Err(ExchangeFailure::NotUnderstood),
        }
        self.keyring().confirm(key.id(), now()).await?;
        Ok(key)
    }

    async fn next(&self, stream: &mut MeshStream, within: std::time::Duration) -> Result<Message, ExchangeFailure> {
        timeout(within, receive(stream))
            .await
            .map_err(|_| ExchangeFailure::Late)?
    }

    /// Tells a peer of one revocation.
    pub(super) async fn tell_revocation(&self, peer: NodeId, bytes: &[u8]) -> Result<(), ExchangeFailure> {
        let mut stream = self.open(peer).await?;
        send(&mut stream, &Message::Revocation(bytes.to_vec())).await?;
        match self.next(&mut stream, STEP).await? {
            Message::Noted => Ok(()),
            Message::Refused(code) => Err(ExchangeFailure::Refused(code)),
            _ => Err(ExchangeFailure::NotUnderstood),
        }
    }
}
