//! `chitchat`, gossip of key-value pairs with Scuttlebutt reconciliation: a node's agents are its keys. Two servers of it
//! speak over UDP on loopback.

mod replay;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpTransport};
use chitchat::{
    ChitchatConfig, ChitchatEnvelope, ChitchatHandle, ChitchatId, DeletionStatus, FailureDetectorConfig,
    ProtocolVersion, VersionedValue, spawn_chitchat,
};

use super::{AGENTS, BATCH, BATCHES, Figures, Meeting, NODES, batch, key, median, resident, summary};

/// How often two servers meet again.
const MEETINGS: u32 = 9;

/// Its UDP transport on loopback, counted.
#[derive(Clone, Default)]
struct Wire {
    messages: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    /// Where the last socket listens that was opened.
    opened: Arc<Mutex<Option<SocketAddr>>>,
}

struct Counted {
    socket: Box<dyn Socket>,
    wire: Wire,
}

#[async_trait]
impl Transport for Wire {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = UdpTransport.open(listen).await?;
        *self.opened.lock().expect("not poisoned") = Some(socket.local_addr()?);
        let wire = self.clone();
        Ok(Box::new(Counted { socket, wire }))
    }
}

#[async_trait]
impl Socket for Counted {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let outcome = self.socket.send(to, envelope).await?;
        self.wire.bytes.fetch_add(outcome.num_bytes_sent, Ordering::Relaxed);
        self.wire.messages.fetch_add(1, Ordering::Relaxed);
        Ok(outcome)
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.socket.recv().await
    }
}

/// A server, and where it listens.
struct Server {
    handle: ChitchatHandle,
    address: SocketAddr,
}

fn address(node: u32) -> SocketAddr {
    let [_, b, c, d] = node.to_be_bytes();
    SocketAddr::from(([127, b, c, d], 7400))
}

fn id(node: u32) -> ChitchatId {
    ChitchatId::new(key(node).node_id().to_string(), 1, address(node))
}

fn config(node: u32) -> ChitchatConfig {
    let hour = Duration::from_secs(3600);
    ChitchatConfig {
        chitchat_id: id(node),
        cluster_id: "bench".to_owned(),
        // It speaks when it is told to.
        gossip_interval: hour,
        listen_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: hour,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    }
}

/// A server with a transport over this wire.
async fn server(node: u32, wire: &Wire, transport: &dyn Transport) -> Server {
    let handle = spawn_chitchat(config(node), Vec::new(), transport).await;
    let address = wire.opened.lock().expect("not poisoned").expect("it listens");
    let handle = handle.expect("it starts");
    Server { handle, address }
}

fn value(node: u32, agent: u32, version: u32) -> String {
    serde_json::to_string(&summary(node, agent, version)).expect("plain data")
}

/// What `server` knows of a node: all of its agents, the agent 7 in a version.
async fn load(server: &Server, node: u32, changed: u32) {
    let values = (0..AGENTS).map(|agent| {
        let is_changed = agent == 7 && changed > 0;
        let versioned = VersionedValue {
            value: value(node, agent, if is_changed { changed } else { 0 }),
            version: if is_changed {
                u64::from(AGENTS + changed)
            } else {
                u64::from(agent) + 1
            },
            status: DeletionStatus::Set,
        };
        (format!("agent-{agent}"), versioned)
    });
    let values: Vec<_> = values.collect();
    let newest = u64::from(AGENTS + changed);
    let take = |chitchat: &mut chitchat::Chitchat| {
        chitchat.reset_node_state_if_update(&id(node), values.clone().into_iter(), newest, 0);
    };
    server.handle.with_chitchat(take).await;
}

/// One handshake: three messages.
async fn exchange(begins: &Server, with: &Server, wire: &Wire) {
    const MESSAGES: usize = 3;
    let until = wire.messages.load(Ordering::Relaxed) + MESSAGES;
    begins.handle.gossip(with.address).expect("it runs");
    while wire.messages.load(Ordering::Relaxed) < until {
        tokio::task::yield_now().await;
    }
}

/// The sum of all versions: equal where everything is known.
async fn known(server: &Server) -> u64 {
    let versions =
        |chitchat: &mut chitchat::Chitchat| chitchat.node_states().values().map(|state| state.max_version()).sum();
    server.handle.with_chitchat(versions).await
}

async fn meet(sink: &Server, source: &Server, wire: &Wire) -> Meeting {
    let goal = known(source).await;
    let before = wire.bytes.load(Ordering::Relaxed);
    let begun = Instant::now();
    while known(sink).await < goal {
        exchange(sink, source, wire).await;
    }
    Meeting {
        milliseconds: begun.elapsed().as_secs_f64() * 1e3,
        bytes: (wire.bytes.load(Ordering::Relaxed) - before) as f64,
    }
}

pub(super) fn figures() -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work())
}

async fn work() -> Figures {
    let wire = Wire::default();
    let source = server(NODES + 1, &wire, &wire).await;
    let before = resident();
    for node in 0..NODES {
        load(&source, node, 0).await;
    }
    let entry_bytes = (resident() - before) / f64::from(NODES * AGENTS);
    let sink = server(NODES + 2, &wire, &wire).await;
    let first = meet(&sink, &source, &wire).await;
    let merges = replay::merges(&source, &wire).await;
    let mut meetings = Vec::new();
    for round in 0..MEETINGS {
        for node in batch(round) {
            load(&source, node, 1).await;
        }
        meetings.push(meet(&sink, &source, &wire).await);
    }
    // A server sets what is its own: the changes are those of one node.
    let mut changes = Vec::new();
    let before = wire.bytes.load(Ordering::Relaxed);
    for round in 0..BATCHES {
        let mut spent = Duration::ZERO;
        for change in batch(round) {
            let text = value(NODES + 1, 7, change + 1);
            let set = |chitchat: &mut chitchat::Chitchat| chitchat.self_node_state().set("agent-7", &text);
            source.handle.with_chitchat(set).await;
            let begun = Instant::now();
            exchange(&sink, &source, &wire).await;
            spent += begun.elapsed();
        }
        changes.push(f64::from(BATCH) / spent.as_secs_f64());
    }
    Figures {
        changes: median(changes),
        changes_signed: None,
        changes_together: None,
        merges,
        change_bytes: (wire.bytes.load(Ordering::Relaxed) - before) as f64 / f64::from(BATCHES * BATCH),
        entry_bytes,
        first,
        again: Meeting::median(&meetings),
    }
}
