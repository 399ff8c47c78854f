//! Published messages: to every connected member, without forwarding.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dawn_identity::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::handle::{Inbound, Incoming, Mesh, Protocol, Shared, lock};
use crate::peer::Counters;
use crate::stream::MeshStream;

/// Published messages go over it.
pub(crate) const PUBSUB: Protocol = Protocol("/dawn/pubsub/1");
/// A stream on which nothing was published for so long is closed: alone it keeps no connection.
const QUIET: Duration = Duration::from_secs(30);
/// A published message of at most so many bytes needs no room.
const SMALL: usize = 8 << 10;

/// A published message.
#[derive(Debug, Clone)]
pub struct Published {
    /// The member it came from.
    pub from: NodeId,
    /// The message.
    pub bytes: Bytes,
    /// Its share of what messages may take, all together and of this member, until everybody who listens has read them.
    _room: Arc<(Option<OwnedSemaphorePermit>, OwnedSemaphorePermit)>,
}

impl Shared {
    fn topic(&self, topic: &'static str) -> broadcast::Sender<Published> {
        const WAITING: usize = 4096;
        lock(&self.topics)
            .entry(topic)
            .or_insert_with(|| broadcast::channel(WAITING).0)
            .clone()
    }

    fn publish_locally(&self, topic: &str, published: Published) {
        if let Some(sender) = lock(&self.topics).get(topic) {
            // Nobody needs to listen.
            let _ = sender.send(published);
        }
    }
}

impl Mesh {
    /// Sends a message to every connected member. A member that is too slow misses it, which is counted.
    pub fn publish(&self, topic: &'static str, bytes: &Bytes) {
        self.shared.with_members(|members| {
            for member in members.values() {
                if member.outbox.try_send((topic, bytes.clone())).is_err() {
                    Counters::count(&self.shared.counters.dropped_messages);
                }
            }
        });
    }

    /// Sends a message to one connected member; `false` when it is not connected or too slow.
    pub fn send_to(&self, node: NodeId, topic: &'static str, bytes: Bytes) -> bool {
        let sent = self.shared.with_members(|members| {
            members
                .get(&node)
                .is_some_and(|member| member.outbox.try_send((topic, bytes)).is_ok())
        });
        if !sent {
            Counters::count(&self.shared.counters.dropped_messages);
        }
        sent
    }

    /// Sends messages to one connected member, waiting for room; those that are left when it goes are dropped.
    pub fn send_all(&self, node: NodeId, topic: &'static str, messages: Vec<Bytes>) {
        let outbox = self
            .shared
            .with_members(|members| Some(members.get(&node)?.outbox.clone()));
        let Some(outbox) = outbox else { return };
        tokio::spawn(async move {
            for bytes in messages {
                if outbox.send((topic, bytes)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// The messages that members publish under a topic.
    #[must_use]
    pub fn subscribe(&self, topic: &'static str) -> broadcast::Receiver<Published> {
        self.shared.topic(topic).subscribe()
    }

    /// Writes what is published for a member, until the member is gone.
    pub(crate) async fn write_published(&self, node: NodeId, mut queue: mpsc::Receiver<(&'static str, Bytes)>) {
        let mut stream: Option<MeshStream> = None;
        loop {
            let next = match &mut stream {
                None => queue.recv().await,
                Some(open) => match tokio::time::timeout(QUIET, queue.recv()).await {
                    Ok(next) => next,
                    Err(_) => {
                        // Whoever reads may have left.
                        let _ = open.shutdown().await;
                        stream = None;
                        continue;
                    }
                },
            };
            let Some((topic, bytes)) = next else { return };
            // A peer that was started again has closed the stream of before: then what is written first goes on another.
            let is_first = stream.is_none();
            let mut sent = self.write_to(node, &mut stream, topic, &bytes, queue.is_empty()).await;
            if !sent && !is_first {
                sent = self.write_to(node, &mut stream, topic, &bytes, queue.is_empty()).await;
            }
            if !sent {
                Counters::count(&self.shared.counters.dropped_messages);
            }
        }
    }

    /// Writes one message, on a new stream where there is none; `false` when that fails, and the stream is given up.
    async fn write_to(
        &self,
        node: NodeId,
        stream: &mut Option<MeshStream>,
        topic: &str,
        bytes: &[u8],
        flush: bool,
    ) -> bool {
        let written = async {
            if stream.is_none() {
                let opened = self.open_to_neighbour(node, PUBSUB).await;
                *stream = Some(opened.map_err(std::io::Error::other)?);
            }
            match stream {
                Some(stream) => write_one(stream, topic, bytes, flush).await,
                None => Ok(()),
            }
        };
        let written = written.await;
        if let Err(error) = &written {
            tracing::debug!(%node, %error, "a published message was not sent");
            *stream = None;
        }
        written.is_ok()
    }
}

/// Reads what members publish, until `incoming` ends.
pub(crate) async fn serve(shared: Arc<Shared>, mut incoming: Incoming) {
    // One stream of each peer: a newer one takes the place of the older.
    let mut streams: HashMap<NodeId, (CancellationToken, Arc<Semaphore>)> = HashMap::new();
    while let Some(inbound) = incoming.next().await {
        streams.retain(|_, (stop, _)| !stop.is_cancelled());
        let node = inbound.peer.node;
        let unread = match streams.remove(&node) {
            Some((before, unread)) => {
                before.cancel();
                unread
            }
            None => Arc::new(Semaphore::new(shared.limits.published_unread)),
        };
        let stop = CancellationToken::new();
        streams.insert(node, (stop.clone(), Arc::clone(&unread)));
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let reading = stop.run_until_cancelled(read_published(&shared, inbound, &unread));
            if let Some(Err(error)) = reading.await {
                tracing::debug!(%error, "a peer's published messages ended");
            }
            stop.cancel();
        });
    }
}

async fn write_one(stream: &mut MeshStream, topic: &str, bytes: &[u8], flush: bool) -> std::io::Result<()> {
    let too_long = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
    let mut frame = Vec::with_capacity(5 + topic.len() + bytes.len());
    frame.push(u8::try_from(topic.len()).map_err(too_long)?);
    frame.extend_from_slice(topic.as_bytes());
    frame.extend_from_slice(&u32::try_from(bytes.len()).map_err(too_long)?.to_be_bytes());
    frame.extend_from_slice(bytes);
    stream.write_all(&frame).await?;
    if flush { stream.flush().await } else { Ok(()) }
}

async fn read_published(shared: &Shared, inbound: Inbound, unread: &Arc<Semaphore>) -> std::io::Result<()> {
    let Inbound { peer, mut stream } = inbound;
    loop {
        let mut topic = vec![0; usize::from(stream.read_u8().await?)];
        let _ = stream.read_exact(&mut topic).await?;
        let length = stream.read_u32().await? as usize;
        if length > shared.limits.published_bytes {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("a published message of {length} bytes"),
            ));
        }
        let own = Arc::clone(unread)
            .acquire_owned()
            .await
            .map_err(std::io::Error::other)?;
        // What is small always passes: revocations and signs of life do not wait behind large messages.
        let room = if length > SMALL {
            let room = u32::try_from(length).map_err(std::io::Error::other)?;
            let room = Arc::clone(&shared.room).acquire_many_owned(room);
            // Whoever waits for room is slow, and its peer asks again when it has more to say.
            let room = tokio::time::timeout(shared.limits.open, room).await?;
            Some(room.map_err(std::io::Error::other)?)
        } else {
            None
        };
        let mut bytes = vec![0; length];
        // Whoever holds room has to use it.
        let _ = tokio::time::timeout(shared.limits.open, stream.read_exact(&mut bytes)).await??;
        let topic = String::from_utf8_lossy(&topic);
        shared.publish_locally(
            &topic,
            Published {
                from: peer.node,
                bytes: bytes.into(),
                _room: Arc::new((room, own)),
            },
        );
    }
}
