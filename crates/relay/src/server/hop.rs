//! The hop protocol: reservations, and what is answered.

use std::io;
use std::sync::atomic::Ordering;

use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};

use super::{PATIENCE, Server, lock, now};
use crate::desk::Refusal;
use crate::message::{self, HopMessage, HopType, Reservation, Status};

impl Server {
    /// Serves a stream of the hop protocol. `is_asked` is dropped once it is known what is asked.
    pub(crate) async fn hop<P>(self, peer: PeerId, connection: ConnectionId, mut stream: Stream, is_asked: P) {
        let asked = tokio::time::timeout(PATIENCE, message::read::<HopMessage>(&mut stream)).await;
        let served = match asked {
            Ok(Ok(asked)) => match asked.kind.and_then(|kind| HopType::try_from(kind).ok()) {
                Some(HopType::Reserve) => self.reserve(peer, connection, &mut stream).await,
                Some(HopType::Connect) => {
                    let target = asked.peer.and_then(|peer| PeerId::from_bytes(&peer.id?).ok());
                    match target {
                        Some(target) => self.connect(peer, connection, target, stream, is_asked).await,
                        None => say(&mut stream, Status::MalformedMessage).await,
                    }
                }
                Some(HopType::Status) | None => say(&mut stream, Status::UnexpectedMessage).await,
            },
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.0.counters.refuse("malformed");
                say(&mut stream, Status::MalformedMessage).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(()),
        };
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "a stream of the hop protocol ended");
        }
    }

    async fn reserve(&self, peer: PeerId, connection: ConnectionId, stream: &mut Stream) -> io::Result<()> {
        let now = now();
        let known = self.known(peer, now);
        let reserved = self.desk_for(connection).and_then(|mut desk| {
            if let Some(grant) = known {
                desk.show(peer, grant);
            }
            let lasts = desk.reserve(peer, connection, now)?;
            if let Some(known) = lock(&self.0.connections).get(&connection) {
                known.is_kept.store(true, Ordering::Relaxed);
            }
            Ok(lasts)
        });
        let lasts = match reserved {
            Ok(lasts) => lasts,
            Err(refusal) => return self.refuse(peer, stream, refusal).await,
        };
        self.0.counters.reserved.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%peer, seconds = lasts.as_secs(), "a reservation");
        let addresses = lock(&self.0.addresses).clone().into_iter();
        let addresses = addresses.map(|address| address.with_p2p(self.0.local).unwrap_or_else(|named| named).to_vec());
        let answer = HopMessage {
            reservation: Some(Reservation {
                expire: Some((now.time + lasts).as_secs()),
                addresses: addresses.collect(),
                voucher: None,
            }),
            ..HopMessage::answer(Status::Ok)
        };
        finish(stream, &answer).await
    }

    pub(super) async fn refuse(&self, peer: PeerId, stream: &mut Stream, refusal: Refusal) -> io::Result<()> {
        tracing::debug!(%peer, %refusal, "refused");
        self.0.counters.refuse(refusal.code());
        say(stream, refusal.status()).await
    }
}

pub(super) async fn say(stream: &mut Stream, status: Status) -> io::Result<()> {
    finish(stream, &HopMessage::answer(status)).await
}

/// Writes the last message of a stream.
async fn finish(stream: &mut Stream, message: &HopMessage) -> io::Result<()> {
    use futures::AsyncWriteExt as _;
    let writing = async {
        message::write(stream, message).await?;
        stream.close().await
    };
    tokio::time::timeout(PATIENCE, writing).await?
}
