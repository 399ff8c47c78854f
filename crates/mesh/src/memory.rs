//! An in-memory network behind the same handle, with latency, loss and partitions from a seed.
//!
//! Streams are reliable, as those of the swarm are: latency delays every chunk, a partition cuts every stream across
//! it, and loss drops published messages only.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_identity::NodeId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use crate::apart;
use crate::config::MeshLimits;
use crate::error::OpenError;
use crate::forward::Forwarding;
use crate::handle::{Backend, Mesh, Protocol, Shared, lock};
use crate::membership;
use crate::peer::{Gate, Transport};
use crate::pubsub::PUBSUB;
use crate::stream::MeshStream;

/// A network in memory. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    nodes: HashMap<NodeId, Mesh>,
    kept: HashSet<(NodeId, NodeId)>,
    group: HashMap<NodeId, usize>,
    /// Pairs that have no connection to each other.
    apart: HashSet<(NodeId, NodeId)>,
    /// What goes to and from them is lost, and nobody is told.
    silent: HashSet<NodeId>,
    tap: Option<Tap>,
    latency: Range<Duration>,
    loss: f64,
    rng: StdRng,
}

/// A node's place in the network.
#[derive(Clone)]
pub(crate) struct Port {
    network: Network,
    local: NodeId,
}

/// Sees what one node sends another: from, to, and the bytes. There is no encryption between neighbours here, so these are
/// the bytes that each of them handles.
pub type Tap = Arc<dyn Fn(NodeId, NodeId, &[u8]) + Send + Sync>;

const PIPE: usize = 256 << 10;

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("nodes", &lock(&self.0).nodes.len())
            .finish_non_exhaustive()
    }
}

impl Network {
    /// A network whose chances come from a seed; no latency and no loss at first.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            nodes: HashMap::new(),
            kept: HashSet::new(),
            group: HashMap::new(),
            apart: HashSet::new(),
            silent: HashSet::new(),
            tap: None,
            latency: Duration::ZERO..Duration::ZERO,
            loss: 0.0,
            rng: StdRng::seed_from_u64(seed),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Adds a node.
    #[must_use]
    pub fn node(&self, node: NodeId, gate: Arc<dyn Gate>) -> Mesh {
        self.node_with(node, gate, None)
    }

    /// Adds a node that takes part in forwarded routes.
    #[must_use]
    pub fn node_with(&self, node: NodeId, gate: Arc<dyn Gate>, forwarding: Option<Forwarding>) -> Mesh {
        let shared = Shared::new(node, gate, MeshLimits::default(), apart::State::new(node));
        let mesh = Mesh {
            shared,
            backend: Backend::Memory(Port {
                network: self.clone(),
                local: node,
            }),
        };
        lock(&self.0).nodes.insert(node, mesh.clone());
        mesh.begin(forwarding);
        self.reconnect();
        mesh
    }

    /// One-way latency of every chunk, drawn from a range.
    pub fn set_latency(&self, latency: Range<Duration>) {
        lock(&self.0).latency = latency;
    }

    /// The share of published messages that is lost, 0 to 1.
    pub fn set_loss(&self, share: f64) {
        lock(&self.0).loss = share;
    }

    /// Has everything seen that goes from node to node from now on.
    pub fn set_tap(&self, tap: Option<Tap>) {
        lock(&self.0).tap = tap;
    }

    /// Has everything lost that goes to a node and comes from it, without a word to anybody, as when its machine loses its
    /// power. Where the network has latency.
    pub fn silence(&self, node: NodeId) {
        lock(&self.0).silent.insert(node);
    }

    /// Cuts the connection between two nodes, until [`Self::join`].
    pub fn part(&self, a: NodeId, b: NodeId) {
        let meshes = {
            let mut state = lock(&self.0);
            state.apart.extend([(a, b), (b, a)]);
            [(a, b), (b, a)].map(|(near, far)| (state.nodes.get(&near).cloned(), far))
        };
        for (mesh, far) in meshes {
            if let Some(mesh) = mesh {
                mesh.member_gone(far);
            }
        }
    }

    /// Ends what [`Self::part`] did.
    pub fn join(&self, a: NodeId, b: NodeId) {
        {
            let mut state = lock(&self.0);
            state.apart.remove(&(a, b));
            state.apart.remove(&(b, a));
        }
        self.reconnect();
    }

    /// Cuts every connection between nodes of different groups.
    pub fn partition(&self, groups: &[&[NodeId]]) {
        let cut: Vec<(Mesh, NodeId)> = {
            let mut state = lock(&self.0);
            state.group = groups
                .iter()
                .enumerate()
                .flat_map(|(at, group)| group.iter().map(move |node| (*node, at)))
                .collect();
            let pairs = state
                .nodes
                .keys()
                .flat_map(|a| state.nodes.keys().map(move |b| (*a, *b)));
            pairs
                .filter(|(a, b)| a != b && state.is_cut(*a, *b))
                .filter_map(|(a, b)| Some((state.nodes.get(&a)?.clone(), b)))
                .collect()
        };
        for (mesh, other) in cut {
            mesh.member_gone(other);
        }
    }

    /// Ends every partition and connects again what is to be kept.
    pub fn heal(&self) {
        lock(&self.0).group.clear();
        self.reconnect();
    }

    /// Takes a node away as a crash does.
    pub fn kill(&self, node: NodeId) {
        let (gone, others) = {
            let mut state = lock(&self.0);
            (
                state.nodes.remove(&node),
                state.nodes.values().cloned().collect::<Vec<_>>(),
            )
        };
        if let Some(mesh) = gone {
            mesh.shared.stop.cancel();
        }
        for mesh in others {
            mesh.member_gone(node);
        }
    }

    fn reconnect(&self) {
        let kept: Vec<(NodeId, NodeId)> = lock(&self.0).kept.iter().copied().collect();
        for (from, to) in kept {
            let port = Port {
                network: self.clone(),
                local: from,
            };
            // A node that is away is tried again when it returns.
            let _ = port.connect(to);
        }
    }

    /// A pipe between two nodes.
    fn pipe(&self, here: NodeId, there: NodeId) -> (DuplexStream, DuplexStream) {
        let (near, far) = tokio::io::duplex(PIPE);
        let (latency, is_tapped) = {
            let state = lock(&self.0);
            (state.latency.clone(), state.tap.is_some())
        };
        if latency.end.is_zero() && !is_tapped {
            return (near, far);
        }
        let (middle, end) = tokio::io::duplex(PIPE);
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let (mut middle_read, mut middle_write) = tokio::io::split(middle);
        let network = self.clone();
        let back = self.clone();
        tokio::spawn(async move { network.delay((here, there), &mut far_read, &mut middle_write).await });
        tokio::spawn(async move { back.delay((there, here), &mut middle_read, &mut far_write).await });
        (near, end)
    }

    async fn delay(
        &self,
        ends: (NodeId, NodeId),
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWriteExt + Unpin),
    ) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let wait = {
                let mut state = lock(&self.0);
                if let Some(tap) = &state.tap {
                    tap(ends.0, ends.1, &bytes[..length]);
                }
                let range = state.latency.clone();
                if range.is_empty() {
                    range.start
                } else {
                    state.rng.random_range(range)
                }
            };
            tokio::time::sleep(wait).await;
            if [ends.0, ends.1].iter().any(|end| lock(&self.0).silent.contains(end)) {
                continue;
            }
            if to.write_all(&bytes[..length]).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
        // The reader may be gone already.
        let _ = to.shutdown().await;
    }
}

impl State {
    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.apart.contains(&(a, b)) || (!self.group.is_empty() && self.group.get(&a) != self.group.get(&b))
    }
}

impl Port {
    fn far(&self, node: NodeId) -> Option<Mesh> {
        let state = lock(&self.network.0);
        state
            .nodes
            .get(&node)
            .filter(|_| !state.is_cut(self.local, node))
            .cloned()
    }

    fn near(&self) -> Option<Mesh> {
        lock(&self.network.0).nodes.get(&self.local).cloned()
    }

    pub(crate) fn connect(&self, node: NodeId) -> Result<(), OpenError> {
        let away = || OpenError::NotConnected {
            node,
            reason: "it is not in the network, or cut off".into(),
        };
        let (near, far) = (self.near().ok_or(OpenError::Closed)?, self.far(node).ok_or_else(away)?);
        if let Err(apart::Denied(host)) = near.shared.apart.admits(node) {
            return Err(OpenError::Apart { node, host });
        }
        if near.shared.gate.own_chain().is_empty() || far.shared.gate.own_chain().is_empty() {
            return Ok(());
        }
        let (mut here, mut there) = self.network.pipe(self.local, node);
        let (local, limit) = (self.local, membership::Limits::from(&near.shared.limits));
        tokio::spawn(async move {
            let shown = membership::show(&mut here, &*near.shared.gate, node, limit);
            let host = far.shared.apart.turns_away(local);
            let answered = membership::answer(&mut there, &*far.shared.gate, local, limit, host);
            let (shown, answered) = tokio::join!(shown, answered);
            if let Err(membership::HandshakeError::RefusedThere(reason)) = &shown {
                near.shared.shown(node, Some(reason.clone()));
            }
            if let Err(membership::HandshakeError::ApartThere(host)) = &shown {
                near.reach_through(node, Some(*host));
            }
            match (shown, answered) {
                (Ok((theirs, their_chain)), Ok((ours, our_chain))) => {
                    far.member_shown(ours, our_chain, format!("/memory/{local}"), Transport::Memory);
                    near.shared.shown(node, None);
                    near.member_shown(theirs, their_chain, format!("/memory/{node}"), Transport::Memory);
                }
                (shown, answered) => {
                    tracing::debug!(?shown, ?answered, "no membership");
                }
            }
        });
        Ok(())
    }

    pub(crate) fn keep(&self, node: NodeId) {
        lock(&self.network.0).kept.insert((self.local, node));
        let connected = self.near().is_some_and(|near| near.shared.peer(node).is_some());
        if !connected {
            // A node that is away is tried again when it returns.
            let _ = self.connect(node);
        }
    }

    pub(crate) fn forget(&self, node: NodeId) {
        lock(&self.network.0).kept.remove(&(self.local, node));
    }

    pub(crate) async fn open(
        &self,
        node: NodeId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        let away = || OpenError::NotConnected {
            node,
            reason: "it is not in the network, or cut off".into(),
        };
        let far = self.far(node).ok_or_else(away)?;
        if far.shared.is_served(protocol.0).is_none() {
            return Err(OpenError::Unsupported {
                node,
                protocol: protocol.0,
            });
        }
        let lost = protocol == PUBSUB && {
            let mut state = lock(&self.network.0);
            let loss = state.loss;
            state.rng.random::<f64>() < loss
        };
        if lost {
            return Err(away());
        }
        let (here, there) = self.network.pipe(self.local, node);
        let local = self.local;
        tokio::spawn(async move {
            far.shared
                .deliver(protocol.0, local, |cut, _| MeshStream::memory(there, local, cut))
                .await;
        });
        Ok(MeshStream::memory(here, node, cut))
    }
}
