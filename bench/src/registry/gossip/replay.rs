//! What a server of `chitchat` is told in a first sync, kept as it came and told to others at once: no sockets, no turns,
//! nobody who makes the messages. How long a server takes for it is all that is left.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};
use chitchat::{ChitchatEnvelope, ChitchatMessage, Deserializable, ProtocolVersion, Serializable as _, spawn_chitchat};
use tokio::sync::oneshot;

use super::{Server, Wire, config, meet, server};
use crate::registry::{AGENTS, MERGES, NODES, median};

/// A server that listens to a record, and one whose first sync is recorded.
const LISTENER: u32 = NODES + 3;
const RECORDER: u32 = NODES + 4;
/// What is sent there is kept, and not sent.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// What a server was told.
#[derive(Default)]
struct Record {
    /// The deltas in the bytes of the protocol.
    deltas: Vec<Vec<u8>>,
    /// What tells which nodes there are: one for everybody who listens.
    introductions: Vec<ChitchatMessage>,
}

/// A transport that records.
struct Recorder {
    wire: Wire,
    record: Arc<Mutex<Record>>,
}

struct Recorded {
    socket: Box<dyn Socket>,
    record: Arc<Mutex<Record>>,
}

#[async_trait]
impl Transport for Recorder {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.wire.open(listen).await?;
        let record = Arc::clone(&self.record);
        Ok(Box::new(Recorded { socket, record }))
    }
}

#[async_trait]
impl Socket for Recorded {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        if to != NOWHERE {
            return self.socket.send(to, envelope).await;
        }
        let mut record = self.record.lock().expect("not poisoned");
        record.introductions.push(envelope.message);
        Ok(SendOutcome { num_bytes_sent: 0 })
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        let outcome = self.socket.recv().await?;
        if let ChitchatMessage::SynAck { delta, .. } = &outcome.envelope.message {
            let mut record = self.record.lock().expect("not poisoned");
            record.deltas.push(delta.serialize_to_vec());
        }
        Ok(outcome)
    }
}

/// A transport whose one socket tells a server what was recorded, as fast as it takes it.
struct Player(Mutex<Option<Played>>);

struct Played {
    /// Whether the server spoke: it asks a seed node when it starts, and does nothing by itself for an hour after that.
    has_begun: bool,
    introduction: Option<ChitchatMessage>,
    deltas: Arc<Vec<Vec<u8>>>,
    next: usize,
    /// When the first delta was asked for.
    begun: Option<Instant>,
    /// Gets how long it took until the server asked for more than there is.
    spent: Option<oneshot::Sender<Duration>>,
}

#[async_trait]
impl Transport for Player {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let played = self.0.lock().expect("not poisoned").take();
        Ok(Box::new(played.expect("it is opened once")))
    }
}

#[async_trait]
impl Socket for Played {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(NOWHERE)
    }

    async fn send(&mut self, _: SocketAddr, _: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.has_begun = true;
        Ok(SendOutcome { num_bytes_sent: 0 })
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        if !self.has_begun {
            return std::future::pending().await;
        }
        if let Some(introduction) = self.introduction.take() {
            return Ok(outcome(introduction, 0));
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let Some(bytes) = self.deltas.get(self.next) else {
            if let Some(spent) = self.spent.take() {
                spent.send(begun.elapsed()).expect("somebody waits");
            }
            return std::future::pending().await;
        };
        self.next += 1;
        // As its transport over UDP decodes what came.
        let delta = Deserializable::deserialize(&mut &bytes[..])?;
        Ok(outcome(ChitchatMessage::Ack { delta }, bytes.len()))
    }
}

fn outcome(message: ChitchatMessage, bytes: usize) -> RecvOutcome {
    let version = ProtocolVersion::V1;
    RecvOutcome {
        from_addr: NOWHERE,
        envelope: ChitchatEnvelope { version, message },
        num_bytes_received: bytes,
    }
}

/// Agents a second that a server takes in of all that `source` knows.
pub(super) async fn merges(source: &Server, wire: &Wire) -> f64 {
    let record = Arc::new(Mutex::new(Record::default()));
    let recorder = Recorder {
        wire: wire.clone(),
        record: Arc::clone(&record),
    };
    let recorder = server(RECORDER, wire, &recorder).await;
    meet(&recorder, source, wire).await;
    for _ in 0..MERGES {
        recorder.handle.gossip(NOWHERE).expect("it runs");
    }
    while record.lock().expect("not poisoned").introductions.len() < MERGES as usize {
        tokio::task::yield_now().await;
    }
    let Record { deltas, introductions } = std::mem::take(&mut *record.lock().expect("not poisoned"));
    let deltas = Arc::new(deltas);
    let mut merges = Vec::new();
    for introduction in introductions {
        let spent = listen(introduction, &deltas).await;
        merges.push(f64::from(NODES * AGENTS) / spent.as_secs_f64());
    }
    median(merges)
}

/// How long a server that knows the nodes takes to know their agents.
async fn listen(introduction: ChitchatMessage, deltas: &Arc<Vec<Vec<u8>>>) -> Duration {
    let (spent, known) = oneshot::channel();
    let player = Player(Mutex::new(Some(Played {
        has_begun: false,
        introduction: Some(introduction),
        deltas: Arc::clone(deltas),
        next: 0,
        begun: None,
        spent: Some(spent),
    })));
    let mut config = config(LISTENER);
    config.seed_nodes.push(NOWHERE.to_string());
    let handle = spawn_chitchat(config, Vec::new(), &player).await.expect("it starts");
    let spent = known.await.expect("it takes all");
    let count = |chitchat: &mut chitchat::Chitchat| {
        let states = chitchat.node_states().values();
        states.map(|state| state.num_key_values()).sum::<usize>()
    };
    assert_eq!(handle.with_chitchat(count).await, (NODES * AGENTS) as usize);
    handle.shutdown().await.expect("it runs");
    spent
}
