//! The handle of a mesh, the same over the swarm and over the in-memory network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_identity::{Membership, NodeId};
use libp2p::swarm::ConnectionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::apart::{self, APART};
use crate::config::{MeshConfig, MeshLimits};
use crate::dial_back::Reach;
use crate::error::{AcceptError, OpenError, StartError};
use crate::forward::{Forward, Forwarding, Tunnel};
use crate::memory;
use crate::nat::{Nat, PortMapping};
use crate::peer::{Audience, Counters, Gate, Peer, PeerEvent, PeerInfo, Route, Transport};
use crate::per_node::PerNode;
use crate::pubsub::{self, PUBSUB, Published};
use crate::punch::PunchOutcome;
use crate::relaying::{KnownRelay, RelayInfo};
use crate::stream::MeshStream;
use crate::swarm::{self, Connection};

/// A protocol's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub &'static str);

/// Round trips are measured over it.
pub(crate) const PING: Protocol = Protocol("/dawn/ping/1");

/// A stream that a peer opened.
#[derive(Debug)]
pub struct Inbound {
    /// Who opened it.
    pub peer: Peer,
    /// The stream.
    pub stream: MeshStream,
}

/// The streams of one protocol that peers open.
#[derive(Debug)]
pub struct Incoming(pub(crate) mpsc::Receiver<Inbound>);

impl Incoming {
    /// The next stream; `None` when the mesh is shut down.
    pub async fn next(&mut self) -> Option<Inbound> {
        self.0.recv().await
    }
}

/// The mesh of one node. Clones share it.
#[derive(Clone)]
pub struct Mesh {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backend: Backend,
}

#[derive(Clone)]
pub(crate) enum Backend {
    Swarm(swarm::Control),
    Memory(memory::Port),
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("node", &self.shared.local)
            .finish_non_exhaustive()
    }
}

/// A member that is connected.
pub(crate) struct Member {
    pub(crate) peer: Peer,
    pub(crate) membership: Membership,
    pub(crate) since: Instant,
    pub(crate) address: String,
    pub(crate) transport: Transport,
    pub(crate) rtt: Option<Duration>,
    pub(crate) cut: CancellationToken,
    pub(crate) outbox: mpsc::Sender<(&'static str, Bytes)>,
    streams: Arc<Semaphore>,
}

pub(crate) struct Shared {
    pub(crate) local: NodeId,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) limits: MeshLimits,
    pub(crate) counters: Counters,
    pub(crate) events: broadcast::Sender<PeerEvent>,
    pub(crate) stop: CancellationToken,
    pub(crate) changed: Notify,
    /// The gate may answer otherwise than before.
    pub(crate) rechecked: Notify,
    members: Mutex<HashMap<NodeId, Member>>,
    acceptors: Mutex<HashMap<&'static str, (Audience, mpsc::Sender<Inbound>)>>,
    pub(crate) topics: Mutex<HashMap<&'static str, broadcast::Sender<Published>>>,
    streams: Arc<Semaphore>,
    /// Streams of one member, over connections and tunnels alike.
    member_streams: PerNode<Semaphore>,
    /// Streams of peers that are no members, or not yet.
    strangers: Arc<Semaphore>,
    /// Bytes that published messages may take.
    pub(crate) room: Arc<Semaphore>,
    /// Who has connections with one host alone.
    pub(crate) apart: Arc<apart::State>,
    /// Who refused this node, and why.
    refused_by: Mutex<HashMap<NodeId, String>>,
    /// How it stands with relays.
    pub(crate) relays: Mutex<Vec<RelayInfo>>,
    /// Forwarded routes, where the mesh has any.
    pub(crate) forward: OnceLock<Forward>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(local: NodeId, gate: Arc<dyn Gate>, limits: MeshLimits, apart: Arc<apart::State>) -> Arc<Self> {
        const EVENTS: usize = 1024;
        let streams = Arc::new(Semaphore::new(limits.streams));
        let strangers = Arc::new(Semaphore::new(limits.stranger_streams));
        let room = Arc::new(Semaphore::new(limits.published_waiting.max(limits.published_bytes)));
        Arc::new(Self {
            local,
            gate,
            limits,
            counters: Counters::default(),
            events: broadcast::channel(EVENTS).0,
            stop: CancellationToken::new(),
            changed: Notify::new(),
            rechecked: Notify::new(),
            members: Mutex::default(),
            acceptors: Mutex::default(),
            topics: Mutex::default(),
            streams,
            member_streams: PerNode::default(),
            strangers,
            room,
            apart,
            refused_by: Mutex::default(),
            relays: Mutex::default(),
            forward: OnceLock::new(),
        })
    }

    pub(crate) fn say(&self, event: PeerEvent) {
        // Nobody needs to listen.
        let _ = self.events.send(event);
        self.changed.notify_waiters();
    }

    pub(crate) fn with_members<T>(&self, act: impl FnOnce(&mut HashMap<NodeId, Member>) -> T) -> T {
        act(&mut lock(&self.members))
    }

    pub(crate) fn peer(&self, node: NodeId) -> Option<(Peer, CancellationToken)> {
        self.with_members(|members| {
            members
                .get(&node)
                .map(|member| (member.peer.clone(), member.cut.clone()))
        })
    }

    /// What bounds the streams of a member.
    pub(crate) fn streams_of(&self, node: NodeId) -> Arc<Semaphore> {
        self.member_streams
            .of(node, || Semaphore::new(self.limits.streams_per_peer))
    }

    pub(crate) fn is_served(&self, protocol: &str) -> Option<Audience> {
        lock(&self.acceptors).get(protocol).map(|(audience, _)| *audience)
    }

    /// Hands an inbound stream to whoever serves its protocol.
    pub(crate) async fn deliver(
        &self,
        protocol: &'static str,
        node: NodeId,
        make: impl FnOnce(CancellationToken, Vec<OwnedSemaphorePermit>) -> MeshStream,
    ) {
        let Some((audience, sender)) = lock(&self.acceptors).get(protocol).cloned() else {
            return;
        };
        let mut permits = Vec::new();
        if self.peer(node).is_none() {
            if audience == Audience::Anyone && self.apart.turns_away(node).is_some() {
                return Counters::count(&self.counters.refused_strangers);
            }
            match Arc::clone(&self.strangers).try_acquire_owned() {
                Ok(permit) => permits.push(permit),
                Err(_) => return Counters::count(&self.counters.refused_streams),
            }
        }
        let known = match audience {
            Audience::Members | Audience::Neighbours => self.wait_for_member(node, false).await.ok(),
            Audience::Anyone => self.peer(node),
        };
        let (peer, cut) = match (known, audience) {
            (Some(known), _) => known,
            (None, Audience::Anyone) => (
                Peer {
                    node,
                    membership: None,
                    chain: Bytes::new(),
                },
                self.stop.child_token(),
            ),
            (None, Audience::Members | Audience::Neighbours) => {
                return Counters::count(&self.counters.refused_strangers);
            }
        };
        let own = self.with_members(|members| members.get(&node).map(|member| Arc::clone(&member.streams)));
        if own.is_some() {
            permits.clear();
        }
        for semaphore in own.iter().chain([&self.streams]) {
            match Arc::clone(semaphore).try_acquire_owned() {
                Ok(permit) => permits.push(permit),
                Err(_) => return Counters::count(&self.counters.refused_streams),
            }
        }
        let mut stream = make(cut, permits);
        // A stranger's connection ends with what it came for.
        if audience != Audience::Neighbours && peer.membership.is_some() {
            stream = stream.used(self.apart.used(node, false));
        }
        if sender.send(Inbound { peer, stream }).await.is_err() {
            tracing::debug!(protocol, "nobody serves this protocol any more");
        }
    }

    /// Hands a stream that came through other members to whoever serves its protocol. Nothing that belongs between
    /// neighbours comes so.
    pub(crate) async fn deliver_forwarded(
        &self,
        protocol: &str,
        peer: Peer,
        permits: &mut Vec<OwnedSemaphorePermit>,
        make: impl FnOnce(Vec<OwnedSemaphorePermit>) -> MeshStream,
    ) {
        let Some((audience, sender)) = lock(&self.acceptors).get(protocol).cloned() else {
            return;
        };
        if audience == Audience::Neighbours {
            return Counters::count(&self.counters.refused_streams);
        }
        match Arc::clone(&self.streams).try_acquire_owned() {
            Ok(permit) => permits.push(permit),
            Err(_) => return Counters::count(&self.counters.refused_streams),
        }
        let stream = make(std::mem::take(permits));
        if sender.send(Inbound { peer, stream }).await.is_err() {
            tracing::debug!(protocol, "nobody serves this protocol any more");
        }
    }

    /// A member's first streams may arrive before the answer to the membership handshake does. Whom this node has dialled
    /// may say that it is apart; who dials this one is not, whatever it said before.
    async fn wait_for_member(&self, node: NodeId, is_dialled: bool) -> Result<(Peer, CancellationToken), OpenError> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if let Some(peer) = self.peer(node) {
                    return Ok(peer);
                }
                let denied = match is_dialled {
                    true => self.apart.admits(node).err().map(|apart::Denied(host)| host),
                    false => self.apart.turns_away(node),
                };
                if let Some(host) = denied {
                    return Err(OpenError::Apart { node, host });
                }
                if let Some(reason) = lock(&self.refused_by).get(&node).cloned() {
                    return Err(OpenError::Refused { node, reason });
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or(Err(OpenError::NotAMember(node)))
    }

    /// Notes what became of showing this node's chain to a peer.
    pub(crate) fn shown(&self, node: NodeId, refusal: Option<String>) {
        const MOST: usize = 1024;
        {
            let mut refused_by = lock(&self.refused_by);
            match refusal {
                Some(_) if refused_by.len() >= MOST && !refused_by.contains_key(&node) => {}
                Some(reason) => drop(refused_by.insert(node, reason)),
                None => drop(refused_by.remove(&node)),
            }
        }
        self.changed.notify_waiters();
    }
}

/// How a node was reached.
enum Reached {
    Direct(CancellationToken),
    Forwarded(Tunnel),
}

/// Neither a connection nor, as far as this goes, a tunnel.
fn neither(direct: &OpenError, forwarded: Result<Tunnel, OpenError>) -> Result<Reached, OpenError> {
    forwarded.map(Reached::Forwarded).map_err(|error| both(direct, error))
}

/// What is said when there is neither a connection nor a tunnel.
fn both(direct: &OpenError, forwarded: OpenError) -> OpenError {
    match forwarded {
        OpenError::NotConnected { node, reason } => OpenError::NotConnected {
            node,
            reason: format!("{direct}; {reason}"),
        },
        error => error,
    }
}

impl Mesh {
    /// Starts the libp2p swarm of a node.
    ///
    /// # Errors
    /// A transport cannot be made or an address cannot be listened on.
    pub async fn start(config: MeshConfig, gate: Arc<dyn Gate>) -> Result<Self, StartError> {
        swarm::start(config, gate).await
    }

    /// Serves what every mesh serves, and forwarded routes where it can.
    pub(crate) fn begin(&self, forwarding: Option<Forwarding>) {
        if let Some(forwarding) = forwarding {
            self.begin_forwarding(forwarding);
        }
        let ping = self.accept(PING, Audience::Members);
        let pubsub = self.accept(PUBSUB, Audience::Neighbours);
        let apart = self.accept(APART, Audience::Neighbours);
        let (Ok(mut ping), Ok(pubsub), Ok(apart)) = (ping, pubsub, apart) else {
            return;
        };
        tokio::spawn(apart::hear(self.clone(), apart));
        tokio::spawn(async move {
            while let Some(mut inbound) = ping.next().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 32];
                    while inbound.stream.read_exact(&mut bytes).await.is_ok() {
                        if inbound.stream.write_all(&bytes).await.is_err() || inbound.stream.flush().await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        tokio::spawn(pubsub::serve(Arc::clone(&self.shared), pubsub));
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shared.local
    }

    /// Opens a stream to a member, dialling it first if it is not connected but its addresses are known, and through
    /// other members where no connection comes to be within a moment. What a relay or other members carry goes on over
    /// another way when that one ends, or a better one comes to be. Where one of the two is apart it goes through its host;
    /// what fails in the moment in which that comes about is tried once more.
    ///
    /// # Errors
    /// It cannot be reached, is no member, or does not serve the protocol.
    pub async fn open(&self, node: NodeId, protocol: Protocol) -> Result<MeshStream, OpenError> {
        let before = self.shared.apart.way(node);
        let opened = self.open_by(node, protocol, before.as_deref()).await;
        if opened.is_err() {
            let now = self.shared.apart.way(node);
            if now != before {
                return Box::pin(self.open_by(node, protocol, now.as_deref())).await;
            }
        }
        opened
    }

    async fn open_by(&self, node: NodeId, protocol: Protocol, way: Option<&[NodeId]>) -> Result<MeshStream, OpenError> {
        if let Some(way) = way {
            return Box::pin(self.open_behind(node, way, protocol)).await;
        }
        if let Some((_, cut)) = self.shared.peer(node)
            && !self.needs_tunnel(node)
        {
            return self.backend_open(node, protocol, cut).await;
        }
        if let Some(tunnel) = self.tunnel(node) {
            return tunnel.open(protocol).await;
        }
        match Box::pin(self.reach(node)).await? {
            Reached::Direct(cut) => self.backend_open(node, protocol, cut).await,
            Reached::Forwarded(tunnel) => tunnel.open(protocol).await,
        }
    }

    /// Opens a stream to a member over a connection, dialling it first if there is none; never through other members.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_to_neighbour(&self, node: NodeId, protocol: Protocol) -> Result<MeshStream, OpenError> {
        self.check_apart(node)?;
        let cut = match self.shared.peer(node) {
            Some((_, cut)) => cut,
            None => tokio::time::timeout(self.shared.limits.open, self.connect(node))
                .await
                .map_err(|_| OpenError::Timeout(node))??,
        };
        self.backend_open(node, protocol, cut).await
    }

    pub(crate) async fn connect(&self, node: NodeId) -> Result<CancellationToken, OpenError> {
        self.check_apart(node)?;
        self.backend_connect(node).await?;
        Ok(self.shared.wait_for_member(node, true).await?.1)
    }

    async fn connect_directly(&self, node: NodeId) -> Result<Reached, OpenError> {
        let cut = self.connect(node).await?;
        if self.needs_tunnel(node) {
            return self.tunnel_to(node).await.map(Reached::Forwarded);
        }
        Ok(Reached::Direct(cut))
    }

    /// The connections with a node, the best first; none in memory.
    pub(crate) fn connections(&self, node: NodeId) -> Vec<Connection> {
        match &self.backend {
            Backend::Swarm(control) => control.connections.of(node),
            Backend::Memory(_) => Vec::new(),
        }
    }

    /// Whether streams to a connected node go through a tunnel, because a relay carries every connection with it.
    pub(crate) fn needs_tunnel(&self, node: NodeId) -> bool {
        match &self.backend {
            Backend::Swarm(control) => self.forward().is_some() && control.connections.is_only_relayed(node),
            Backend::Memory(_) => false,
        }
    }

    /// Looks for another connection with a node beside those there are.
    pub(crate) fn connect_again(&self, node: NodeId) {
        if let Backend::Swarm(control) = &self.backend {
            control.again(node);
        }
    }

    /// A connection, or a tunnel where none comes to be in time.
    async fn reach(&self, node: NodeId) -> Result<Reached, OpenError> {
        let mut direct = std::pin::pin!(self.connect_directly(node));
        let Some(forward) = self.forward() else {
            return direct.await;
        };
        let early = tokio::time::timeout(forward.config.head_start, &mut direct).await;
        let error = match early {
            Ok(Ok(reached)) => return Ok(reached),
            // Who refuses this node does so on every route.
            Ok(Err(error @ (OpenError::Refused { .. } | OpenError::Apart { .. } | OpenError::Closed))) => {
                return Err(error);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let mut forwarded = std::pin::pin!(self.tunnel_to(node));
                tokio::select! {
                    reached = &mut direct => match reached {
                        Ok(reached) => return Ok(reached),
                        Err(error @ OpenError::Apart { .. }) => return Err(error),
                        Err(error) => return neither(&error, forwarded.await),
                    },
                    tunnel = &mut forwarded => match tunnel {
                        Ok(tunnel) => return Ok(Reached::Forwarded(tunnel)),
                        Err(error @ (OpenError::Refused { .. } | OpenError::NotAccepted { .. })) => return Err(error),
                        Err(error) => return direct.await.map_err(|direct| both(&direct, error)),
                    },
                }
            }
        };
        neither(&error, self.tunnel_to(node).await)
    }

    /// Opens a stream to a connected peer whether or not it is a member.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_stranger(&self, node: NodeId, protocol: Protocol) -> Result<MeshStream, OpenError> {
        self.backend_open(node, protocol, self.shared.stop.child_token()).await
    }

    pub(crate) async fn backend_open(
        &self,
        node: NodeId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        let opening = async {
            match &self.backend {
                Backend::Swarm(control) => control.open(node, protocol, cut).await,
                Backend::Memory(port) => port.open(node, protocol, cut).await,
            }
        };
        let stream = tokio::time::timeout(self.shared.limits.open, opening)
            .await
            .map_err(|_| OpenError::Timeout(node))??;
        Ok(match self.shared.is_served(protocol.0) {
            Some(Audience::Neighbours) => stream,
            _ => stream.used(self.shared.apart.used(node, true)),
        })
    }

    /// Has the swarm look for nobody while this node is apart.
    pub(crate) fn backend_apart(&self, is_apart: bool) {
        if let Backend::Swarm(control) = &self.backend {
            control.set_apart(is_apart);
        }
    }

    /// Opens a stream on one connection of a member.
    pub(crate) async fn open_on(
        &self,
        node: NodeId,
        connection: ConnectionId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        let Backend::Swarm(control) = &self.backend else {
            return self.backend_open(node, protocol, cut).await;
        };
        let opening = control.open_on(node, connection, protocol, cut);
        tokio::time::timeout(self.shared.limits.open, opening)
            .await
            .map_err(|_| OpenError::Timeout(node))?
    }

    async fn backend_connect(&self, node: NodeId) -> Result<(), OpenError> {
        match &self.backend {
            Backend::Swarm(control) => control.connect(node, Vec::new()).await,
            Backend::Memory(port) => port.connect(node),
        }
    }

    /// Connects to a node at one of these addresses.
    ///
    /// # Errors
    /// None of them answers as this node.
    pub async fn dial_stranger(&self, addresses: Vec<String>, node: NodeId) -> Result<(), OpenError> {
        self.check_apart(node)?;
        match &self.backend {
            Backend::Swarm(control) => {
                let dialling = control.connect(node, addresses);
                tokio::time::timeout(self.shared.limits.open, dialling)
                    .await
                    .map_err(|_| OpenError::Timeout(node))?
            }
            Backend::Memory(port) => port.connect(node),
        }
    }

    /// Serves a protocol.
    ///
    /// # Errors
    /// It is served already.
    pub fn accept(&self, protocol: Protocol, audience: Audience) -> Result<Incoming, AcceptError> {
        const WAITING: usize = 256;
        let (sender, receiver) = mpsc::channel(WAITING);
        {
            let mut acceptors = lock(&self.shared.acceptors);
            if acceptors.get(protocol.0).is_some_and(|(_, sender)| !sender.is_closed()) {
                return Err(AcceptError::Taken(protocol.0));
            }
            acceptors.insert(protocol.0, (audience, sender));
        }
        if let Backend::Swarm(control) = &self.backend {
            control.accept(protocol, &self.shared)?;
        }
        Ok(Incoming(receiver))
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.shared.events.subscribe()
    }

    /// The members that are connected, and those that tunnels lead to.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut peers = self.connected();
        peers.extend(self.forwarded_peers(&peers));
        peers
    }

    /// The connected members.
    #[must_use]
    pub fn connected(&self) -> Vec<PeerInfo> {
        self.shared.with_members(|members| {
            let info = |member: &Member| {
                let best = match &self.backend {
                    Backend::Swarm(control) => control.connections.best(member.peer.node),
                    Backend::Memory(_) => None,
                };
                let address = best.as_ref().map_or(&member.address, |best| &best.address);
                PeerInfo {
                    node: member.peer.node,
                    membership: member.membership.clone(),
                    address: Some(address.clone()),
                    transport: Some(best.as_ref().map_or(member.transport, |best| best.transport)),
                    dialled: best.as_ref().map(|best| best.is_dialled),
                    route: best.map_or(Route::Direct, |best| best.route),
                    rtt: member.rtt,
                    since: member.since,
                }
            };
            members.values().map(info).collect()
        })
    }

    /// The addresses at which this node can be dialled.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        match &self.backend {
            Backend::Swarm(control) => control.addresses(),
            Backend::Memory(_) => vec![format!("/memory/{}", self.shared.local)],
        }
    }

    /// What is known of the public addresses of this node: whether members that dialled them have come here.
    #[must_use]
    pub fn public_addresses(&self) -> Vec<Reach> {
        match &self.backend {
            Backend::Swarm(control) => control.dial_backs.all(),
            Backend::Memory(_) => Vec::new(),
        }
    }

    /// Addresses beside those it listens on at which this node is reached from far away: what its gateway maps, unless
    /// members have dialled that in vain, and where others see it, if members have reached it there.
    #[must_use]
    pub fn external_addresses(&self) -> Vec<String> {
        match &self.backend {
            Backend::Swarm(control) => control.external_addresses(),
            Backend::Memory(_) => Vec::new(),
        }
    }

    /// Ports that the gateway of this network maps.
    #[must_use]
    pub fn port_mappings(&self) -> Vec<PortMapping> {
        match &self.backend {
            Backend::Swarm(control) => control.keeper.mappings(),
            Backend::Memory(_) => Vec::new(),
        }
    }

    /// What is known of what is between this node and others.
    #[must_use]
    pub fn nat(&self) -> Nat {
        match &self.backend {
            Backend::Swarm(control) => control.watch.nat(),
            Backend::Memory(_) => Nat::default(),
        }
    }

    /// What became of the last try to punch a hole to a node, if there was one.
    #[must_use]
    pub fn punched(&self, node: NodeId) -> Option<PunchOutcome> {
        match &self.backend {
            Backend::Swarm(control) => control.puncher.outcome(node),
            Backend::Memory(_) => None,
        }
    }

    /// Members that are reached through others only.
    pub(crate) fn indirect(&self) -> Vec<NodeId> {
        let Backend::Swarm(control) = &self.backend else {
            return Vec::new();
        };
        let mut nodes = control.connections.only_relayed();
        nodes.retain(|node| self.shared.peer(*node).is_some());
        let others = self.forward().map(Forward::reached).unwrap_or_default();
        nodes.extend(
            others
                .into_iter()
                .filter(|node| !control.connections.is_connected(*node)),
        );
        nodes.sort_unstable();
        nodes.dedup();
        // With who is apart, or where this node is, there is to be no connection.
        nodes.retain(|node| self.shared.apart.way(*node).is_none());
        nodes
    }

    /// Where a node can be dialled when it is wanted, in the place of what was said before.
    pub fn know(&self, node: NodeId, addresses: Vec<String>) {
        match &self.backend {
            Backend::Swarm(control) => control.know(node, addresses),
            // Everybody is found there.
            Backend::Memory(_) => {}
        }
    }

    /// Stays connected to a node: dials it again, with growing pauses, whenever it is not.
    pub fn keep(&self, node: NodeId, addresses: Vec<String>) {
        match &self.backend {
            Backend::Swarm(control) => control.keep(node, addresses),
            Backend::Memory(port) => port.keep(node),
        }
    }

    /// Relays beside those of the configuration, such as members that relay for their network, in the place of those told
    /// before: this node reserves at some of them, the first ones first, where the relays of its configuration are not
    /// enough. A reservation at one that is told no more ends.
    pub fn set_relays(&self, relays: impl IntoIterator<Item = impl Into<KnownRelay>>) {
        if let Backend::Swarm(control) = &self.backend {
            control.set_relays(relays.into_iter().map(Into::into).collect());
        }
    }

    /// The relays of the configuration, those of others at which this node reserves, and how it stands with each.
    #[must_use]
    pub fn relays(&self) -> Vec<RelayInfo> {
        lock(&self.shared.relays).clone()
    }

    /// There is a revocation that relays are to know of ([`Relaying::revocations`](crate::Relaying)): those at which this
    /// node has reserved are told at once.
    pub fn tell_relays(&self) {
        if let Backend::Swarm(control) = &self.backend {
            control.tell_relays();
        }
    }

    /// Relays for members at these addresses from now on; with none it does no more.
    pub fn relay_at(&self, addresses: &[String]) {
        if let Backend::Swarm(control) = &self.backend {
            let addresses = addresses.iter().filter_map(|address| address.parse().ok());
            control.relay.serve_at(addresses.collect());
        }
    }

    /// This node as a relay, where the mesh is a swarm.
    #[must_use]
    pub fn relay(&self) -> Option<&dawn_relay::Server> {
        match &self.backend {
            Backend::Swarm(control) => Some(&control.relay),
            Backend::Memory(_) => None,
        }
    }

    /// Stops staying connected to a node, and knowing where it is.
    pub fn forget(&self, node: NodeId) {
        match &self.backend {
            Backend::Swarm(control) => control.forget(node),
            Backend::Memory(port) => port.forget(node),
        }
    }

    /// Closes every connection to a node.
    pub fn disconnect(&self, node: NodeId) {
        self.member_gone(node);
        if let Backend::Swarm(control) = &self.backend {
            control.disconnect(node);
        }
    }

    /// Measures a round trip to a member. It is tried once more where the connection ended meanwhile: of two that dial each
    /// other at once, one connection stays.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn ping(&self, node: NodeId) -> Result<Duration, OpenError> {
        match self.ping_once(node).await {
            Err(OpenError::NotConnected { .. }) => self.ping_once(node).await,
            measured => measured,
        }
    }

    async fn ping_once(&self, node: NodeId) -> Result<Duration, OpenError> {
        let mut stream = self.open(node, PING).await?;
        let round = async {
            // The first message carries the stream's negotiation with it; the second is the round trip.
            let mut bytes = [7; 32];
            let mut measured = Duration::ZERO;
            for _ in 0..2 {
                let begun = Instant::now();
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                let _ = stream.read_exact(&mut bytes).await?;
                measured = begun.elapsed();
            }
            Ok(measured)
        };
        let rtt = tokio::time::timeout(self.shared.limits.open, round)
            .await
            .map_err(|_| OpenError::Timeout(node))?;
        let rtt = rtt.map_err(|error: std::io::Error| OpenError::NotConnected {
            node,
            reason: error.to_string(),
        })?;
        self.shared.with_members(|members| {
            if let Some(member) = members.get_mut(&node) {
                member.rtt = Some(rtt);
            }
        });
        if let Some(tunnel) = self.tunnel(node) {
            tunnel.set_rtt(rtt);
        }
        Ok(rtt)
    }

    /// Asks the gate again about every connected member, and cuts those that it refuses now, and what is carried for those
    /// who may not relay.
    pub fn recheck(&self) {
        let shown: Vec<(NodeId, Bytes)> = self.shared.with_members(|members| {
            members
                .values()
                .map(|member| (member.peer.node, member.peer.chain.clone()))
                .collect()
        });
        for (node, chain) in shown {
            if let Err(refusal) = self.shared.gate.verify(node, &chain) {
                tracing::info!(%node, %refusal, "a member is cut");
                self.disconnect(node);
            }
        }
        self.recheck_tunnels();
        self.shared.rechecked.notify_waiters();
        if let Some(relay) = self.relay() {
            relay.recheck();
        }
    }

    /// Shows this node's chain to every connected member again, after it was renewed.
    pub fn refresh_own_chain(&self) {
        let nodes: Vec<NodeId> = self.shared.with_members(|members| members.keys().copied().collect());
        for node in nodes {
            if let Backend::Swarm(control) = &self.backend {
                control.show_chain(node, self.clone());
            }
        }
        self.show_tunnels_own_chain();
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Closes listeners, connections and streams.
    pub async fn shutdown(&self) {
        self.end_tunnels().await;
        let nodes: Vec<NodeId> = self.shared.with_members(|members| members.keys().copied().collect());
        for node in nodes {
            self.member_gone(node);
        }
        lock(&self.shared.acceptors).clear();
        if let Backend::Swarm(control) = &self.backend {
            control.shutdown().await;
        }
        self.shared.stop.cancel();
    }

    /// Notes that a peer showed a valid chain. It is asked about again once the peer is in: what came to be known in
    /// between, a revocation say, found nobody to cut.
    pub(crate) fn member_shown(&self, membership: Membership, chain: Bytes, address: String, transport: Transport) {
        let node = membership.node;
        let peer = Peer {
            node,
            membership: Some(membership.clone()),
            chain,
        };
        let shown = peer.chain.clone();
        let (outbox, queue) = mpsc::channel(self.shared.limits.queue);
        let streams = self.shared.streams_of(node);
        let is_new = self.shared.with_members(|members| match members.get_mut(&node) {
            Some(member) => {
                member.peer = peer.clone();
                member.membership = membership;
                false
            }
            None => {
                let member = Member {
                    peer: peer.clone(),
                    membership,
                    since: Instant::now(),
                    address,
                    transport,
                    rtt: None,
                    cut: self.shared.stop.child_token(),
                    outbox,
                    streams,
                };
                members.insert(node, member);
                true
            }
        });
        if is_new {
            if self.shared.apart.met(node) {
                self.shared.say(PeerEvent::Apart { node, host: None });
            }
            let mesh = self.clone();
            tokio::spawn(async move { mesh.write_published(node, queue).await });
            // A relayed connection is measured by itself: no tunnel is made for that.
            if !self.needs_tunnel(node) {
                let mesh = self.clone();
                tokio::spawn(async move {
                    // Where it does not answer, nothing is known yet.
                    let _ = mesh.ping(node).await;
                });
            }
            let member = peer.membership.as_ref();
            if let Some(relay) = self.relay()
                && member.is_some_and(|member| self.shared.gate.may_relay(member).is_err())
            {
                // It may have asked for circuits before it said who it is.
                relay.recheck();
            }
            self.shared.say(PeerEvent::MemberUp(peer));
        }
        if let Err(refusal) = self.shared.gate.verify(node, &shown) {
            tracing::info!(%node, %refusal, "a member is cut");
            self.disconnect(node);
        } else if let Backend::Swarm(control) = &self.backend
            && !control.connections.is_connected(node)
        {
            self.member_gone(node);
        }
    }

    /// Notes that a member is gone: its streams end.
    pub(crate) fn member_gone(&self, node: NodeId) {
        if let Some(member) = self.shared.with_members(|members| members.remove(&node)) {
            member.cut.cancel();
            self.shared.apart.gone(node);
            self.shared.say(PeerEvent::MemberDown { node });
        }
    }
}
