//! The libp2p swarm as one actor.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use futures::StreamExt as _;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, mdns, noise, ping, tcp, yamux};
use libp2p_stream as streams;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::MeshConfig;
use crate::error::{AcceptError, OpenError, StartError};
use crate::handle::{Backend, Mesh, Protocol, Shared, lock};
use crate::inbound;
use crate::membership;
use crate::peer::{Counters, Gate, PeerEvent, Transport};
use crate::quic;
use crate::stream::MeshStream;

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    inbound: inbound::Behaviour,
    streams: streams::Behaviour,
}

enum Command {
    Connect {
        node: NodeId,
        addresses: Vec<String>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Know {
        node: NodeId,
        addresses: Vec<String>,
    },
    Keep {
        node: NodeId,
        addresses: Vec<String>,
    },
    Forget(NodeId),
    Disconnect(NodeId),
    Shutdown(oneshot::Sender<()>),
}

/// How the handle speaks to the actor.
#[derive(Clone)]
pub(crate) struct Control {
    commands: mpsc::UnboundedSender<Command>,
    streams: streams::Control,
    served: inbound::Served,
    addresses: Arc<Mutex<HashMap<ListenerId, Vec<Multiaddr>>>>,
    connections: Arc<Mutex<HashMap<NodeId, First>>>,
}

/// The first connection with a peer.
struct First {
    address: String,
    transport: Transport,
    /// Whether this node dialled it.
    is_dialled: bool,
}

pub(crate) fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

fn node_id(peer: PeerId) -> Option<NodeId> {
    peer.to_string().parse().ok()
}

impl Control {
    fn command(&self, command: Command) {
        // After a shutdown nothing is to be done.
        let _ = self.commands.send(command);
    }

    pub(crate) async fn connect(&self, node: NodeId, addresses: Vec<String>) -> Result<(), OpenError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Connect { node, addresses, reply });
        answer
            .await
            .map_err(|_| OpenError::Closed)?
            .map_err(|reason| OpenError::NotConnected { node, reason })
    }

    pub(crate) async fn open(
        &self,
        node: NodeId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        let not_connected = |reason: String| OpenError::NotConnected { node, reason };
        let peer = peer_id(node).ok_or_else(|| not_connected("its id is no key".into()))?;
        let opened = self
            .streams
            .clone()
            .open_stream(peer, StreamProtocol::new(protocol.0))
            .await;
        match opened {
            Ok(stream) => Ok(MeshStream::libp2p(stream, node, cut, Vec::new())),
            Err(streams::OpenStreamError::UnsupportedProtocol(_)) => Err(OpenError::Unsupported {
                node,
                protocol: protocol.0,
            }),
            Err(error) => Err(not_connected(error.to_string())),
        }
    }

    pub(crate) fn accept(&self, protocol: Protocol, shared: &Arc<Shared>) -> Result<(), AcceptError> {
        let mut incoming = self.served.accept(protocol.0).ok_or(AcceptError::Taken(protocol.0))?;
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            while let Some(Some((peer, stream))) = stop.run_until_cancelled(incoming.recv()).await {
                let Some(node) = node_id(peer) else { continue };
                if shared.is_served(protocol.0).is_none() {
                    continue;
                }
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    shared
                        .deliver(protocol.0, node, |cut, permits| {
                            MeshStream::libp2p(stream, node, cut, permits)
                        })
                        .await;
                });
            }
        });
        Ok(())
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        lock(&self.addresses)
            .values()
            .flatten()
            .map(ToString::to_string)
            .collect()
    }

    pub(crate) fn know(&self, node: NodeId, addresses: Vec<String>) {
        self.command(Command::Know { node, addresses });
    }

    pub(crate) fn keep(&self, node: NodeId, addresses: Vec<String>) {
        self.command(Command::Keep { node, addresses });
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.command(Command::Forget(node));
    }

    pub(crate) fn disconnect(&self, node: NodeId) {
        self.command(Command::Disconnect(node));
    }

    pub(crate) async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        self.command(Command::Shutdown(reply));
        // An actor that is already gone has closed everything.
        let _ = done.await;
    }

    /// Shows this node's chain to a connected peer, as the dialler's side of the membership handshake.
    pub(crate) fn show_chain(&self, node: NodeId, mesh: Mesh) {
        let control = self.clone();
        tokio::spawn(async move {
            let limits = mesh.shared.limits.clone();
            let shown = async {
                let mut stream = control
                    .open(node, Protocol(membership::PROTOCOL), mesh.shared.stop.child_token())
                    .await
                    .map_err(|error| error.to_string())?;
                let shown = membership::show(&mut stream, &*mesh.shared.gate, node, limits.chain_bytes).await;
                let refusal = match &shown {
                    Err(membership::HandshakeError::RefusedThere(reason)) => Some(reason.clone()),
                    _ => None,
                };
                mesh.shared.shown(node, refusal);
                shown.map_err(|error| error.to_string())
            };
            let shown = tokio::time::timeout(limits.handshake, shown)
                .await
                .unwrap_or_else(|_| Err("no answer in time".to_owned()));
            match shown {
                Ok((membership, chain)) => {
                    let (address, transport) = control.address_of(node);
                    mesh.member_shown(membership, chain, address, transport);
                }
                Err(error) => {
                    Counters::count(&mesh.shared.counters.refused_members);
                    tracing::debug!(%node, %error, "no membership");
                    mesh.disconnect(node);
                }
            }
        });
    }

    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        lock(&self.connections).contains_key(&node)
    }

    fn address_of(&self, node: NodeId) -> (String, Transport) {
        lock(&self.connections)
            .get(&node)
            .map_or((String::new(), Transport::Quic), |first| {
                (first.address.clone(), first.transport)
            })
    }

    /// Whether this node dialled the connection to a node.
    pub(crate) fn has_dialled(&self, node: NodeId) -> Option<bool> {
        lock(&self.connections).get(&node).map(|first| first.is_dialled)
    }
}

fn transport_of(address: &Multiaddr) -> Transport {
    let mut transport = Transport::Tcp;
    for part in address {
        match part {
            Part::QuicV1 | Part::Quic => return Transport::Quic,
            Part::Ws(_) | Part::Wss(_) => transport = Transport::WebSocket,
            _ => {}
        }
    }
    transport
}

/// QUIC first, then TCP, then WebSocket.
fn preference(address: &Multiaddr) -> u8 {
    match transport_of(address) {
        Transport::Quic => 0,
        Transport::Tcp | Transport::Memory => 1,
        Transport::WebSocket => 2,
    }
}

/// An error with everything that caused it; some say nothing themselves.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut words: Vec<String> = chain
        .map(ToString::to_string)
        .filter(|words| !words.is_empty())
        .collect();
    words.dedup();
    if words.is_empty() {
        return format!("{error:?}");
    }
    words.join(": ")
}

/// Whether a text is a multiaddr.
///
/// # Errors
/// Why it is not.
pub fn check_address(text: &str) -> Result<(), String> {
    text.parse::<Multiaddr>().map(|_| ()).map_err(|error| error.to_string())
}

/// Addresses of one node that are tried: a record cannot make others knock at every door.
const ADDRESSES: usize = 16;
/// How soon a connection is looked for again.
const SOON: Duration = Duration::from_millis(2);
/// Nodes of the local network that are remembered.
const DISCOVERED: usize = 1024;

fn parse(addresses: &[String]) -> Vec<Multiaddr> {
    let addresses = addresses.iter().take(ADDRESSES);
    let mut parsed: Vec<Multiaddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    parsed.sort_by_key(preference);
    parsed
}

/// A node that is to stay connected.
struct Kept {
    addresses: Vec<Multiaddr>,
    attempt: u32,
    next: Instant,
}

struct Actor {
    swarm: Swarm<Behaviour>,
    mesh: Mesh,
    control: Control,
    commands: mpsc::UnboundedReceiver<Command>,
    kept: HashMap<NodeId, Kept>,
    /// Where nodes say that they are.
    book: HashMap<NodeId, Vec<Multiaddr>>,
    /// Where they were found on the local network.
    known: HashMap<NodeId, Vec<Multiaddr>>,
    dialling: HashMap<NodeId, Vec<oneshot::Sender<Result<(), String>>>>,
    strangers: HashMap<NodeId, Instant>,
    backoff: Backoff,
    local: PeerId,
    unreachable: HashSet<NodeId>,
    established: HashMap<PeerId, Vec<(ConnectionId, Instant)>>,
    /// When the handshakes began that others have begun.
    incoming: HashMap<ConnectionId, Instant>,
}

/// Starts the swarm and its actor.
pub(crate) async fn start(config: MeshConfig, gate: Arc<dyn Gate>) -> Result<Mesh, StartError> {
    let mut seed = *config.seed;
    let keypair =
        libp2p::identity::Keypair::ed25519_from_bytes(&mut seed).map_err(|error| StartError::Key(error.to_string()))?;
    let local = keypair.public().to_peer_id();
    let node = node_id(local).ok_or_else(|| StartError::Key("no node id".into()))?;
    let transport = |error: &dyn std::fmt::Display| StartError::Transport(error.to_string());
    let limits = &config.limits;
    let connection_limits = ConnectionLimits::default()
        .with_max_established(Some(limits.connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
        .with_max_pending_incoming(Some(limits.pending))
        .with_max_pending_outgoing(Some(limits.pending));
    let (interval, idle, use_mdns) = (config.ping, limits.idle, config.mdns);
    let streams_per_peer = u32::try_from(limits.streams_per_peer).unwrap_or(u32::MAX);
    let settings = quic::Settings::new(streams_per_peer);
    let served = inbound::Served::default();
    let behaviour_served = served.clone();
    let swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .map_err(|error| transport(&error))?
        .with_other_transport(|key| Ok(quic::Transport::new(key, settings)?))
        .map_err(|error| transport(&error))?
        .with_dns()
        .map_err(|error| transport(&error))?
        .with_websocket(noise::Config::new, yamux::Config::default)
        .await
        .map_err(|error| transport(&error))?
        .with_behaviour(|key| {
            let mdns = if use_mdns {
                Some(mdns::tokio::Behaviour::new(mdns::Config::default(), local)?)
            } else {
                None
            };
            Ok(Behaviour {
                limits: connection_limits::Behaviour::new(connection_limits),
                identify: identify::Behaviour::new(
                    identify::Config::new("/dawn/1".into(), key.public())
                        .with_agent_version("dawn".into())
                        .with_hide_listen_addrs(true),
                ),
                ping: ping::Behaviour::new(
                    ping::Config::new()
                        .with_interval(interval)
                        .with_timeout(Duration::from_secs(5)),
                ),
                mdns: mdns.into(),
                inbound: inbound::Behaviour(behaviour_served),
                streams: streams::Behaviour::new(),
            })
        })
        .map_err(|error| transport(&error))?
        .with_swarm_config(|swarm| {
            swarm
                // Who is wanted has a stream; strangers are closed by the actor, too.
                .with_idle_connection_timeout(idle)
                .with_substream_upgrade_protocol_override(libp2p::core::upgrade::Version::V1Lazy)
                .with_max_negotiating_inbound_streams(4096)
                .with_dial_concurrency_factor(NonZeroU8::MIN.saturating_add(3))
        })
        .build();
    let (sender, commands) = mpsc::unbounded_channel();
    let control = Control {
        commands: sender,
        streams: swarm.behaviour().streams.new_control(),
        served,
        addresses: Arc::default(),
        connections: Arc::default(),
    };
    let shared = Shared::new(node, gate, config.limits.clone());
    let mesh = Mesh {
        shared,
        backend: Backend::Swarm(control.clone()),
    };
    let mut actor = Actor {
        swarm,
        mesh: mesh.clone(),
        control: control.clone(),
        commands,
        kept: HashMap::new(),
        book: HashMap::new(),
        known: HashMap::new(),
        dialling: HashMap::new(),
        strangers: HashMap::new(),
        backoff: config.backoff,
        local,
        unreachable: HashSet::new(),
        established: HashMap::new(),
        incoming: HashMap::new(),
    };
    let mut waiting = HashSet::new();
    for address in &config.listen {
        let refuse = |reason: String| StartError::Listen {
            address: address.clone(),
            reason,
        };
        let parsed: Multiaddr = address
            .parse()
            .map_err(|error: libp2p::multiaddr::Error| refuse(error.to_string()))?;
        waiting.insert(actor.swarm.listen_on(parsed).map_err(|error| refuse(causes(&error)))?);
    }
    actor.first_addresses(waiting).await?;
    serve_membership(&mesh, &control)?;
    mesh.begin(config.forwarding);
    tokio::spawn(actor.run());
    Ok(mesh)
}

/// Answers the membership handshake of those who dial.
fn serve_membership(mesh: &Mesh, control: &Control) -> Result<(), StartError> {
    let taken = || StartError::Transport(format!("{} is served already", membership::PROTOCOL));
    let mut incoming = control.served.accept(membership::PROTOCOL).ok_or_else(taken)?;
    let (mesh, control) = (mesh.clone(), control.clone());
    tokio::spawn(async move {
        let stop = mesh.shared.stop.clone();
        // One handshake of a peer at a time.
        let under_way: Arc<Mutex<HashSet<NodeId>>> = Arc::default();
        while let Some(Some((peer, stream))) = stop.run_until_cancelled(incoming.recv()).await {
            let Some(node) = node_id(peer) else { continue };
            if !lock(&under_way).insert(node) {
                Counters::count(&mesh.shared.counters.refused_streams);
                continue;
            }
            let (mesh, control, under_way) = (mesh.clone(), control.clone(), Arc::clone(&under_way));
            tokio::spawn(async move {
                let mut stream = stream.compat();
                let limits = &mesh.shared.limits;
                let answered = async {
                    // A stream may come before the word of its connection; until then nothing can be opened to the peer.
                    while !control.is_connected(node) {
                        tokio::time::sleep(SOON).await;
                    }
                    membership::answer(&mut stream, &*mesh.shared.gate, node, limits.chain_bytes).await
                };
                let answered = tokio::time::timeout(limits.handshake, answered).await;
                lock(&under_way).remove(&node);
                match answered {
                    Ok(Ok((membership, chain))) => {
                        mesh.shared.shown(node, None);
                        let (address, transport) = control.address_of(node);
                        mesh.member_shown(membership, chain, address, transport);
                    }
                    Ok(Err(error)) => {
                        Counters::count(&mesh.shared.counters.refused_members);
                        tracing::debug!(%node, %error, "no membership");
                        // The reason is on its way; then the connection ends.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        mesh.disconnect(node);
                    }
                    Err(_) => mesh.disconnect(node),
                }
            });
        }
    });
    Ok(())
}

impl Actor {
    /// Waits until every listener has an address, so that a started mesh can say where it listens.
    async fn first_addresses(&mut self, mut waiting: HashSet<ListenerId>) -> Result<(), StartError> {
        while !waiting.is_empty() {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    waiting.remove(&listener_id);
                    lock(&self.control.addresses)
                        .entry(listener_id)
                        .or_default()
                        .push(address);
                }
                SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                    let address = addresses.first().map(ToString::to_string).unwrap_or_default();
                    return Err(StartError::Listen {
                        address,
                        reason: reason
                            .err()
                            .map_or_else(|| "it was closed".to_owned(), |error| causes(&error)),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn run(mut self) {
        loop {
            let next = self
                .kept
                .values()
                .map(|kept| kept.next)
                .chain(self.strangers.values().copied())
                .min();
            let sleep = tokio::time::sleep_until(
                next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
                    .into(),
            );
            tokio::select! {
                event = self.swarm.select_next_some() => self.event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown(done)) => {
                        self.close().await;
                        // Whoever asked may have left.
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.command(command),
                    None => return,
                },
                () = sleep => self.due(),
            }
        }
    }

    /// Closes every connection and waits until the peers were told, so that none of them keeps a dead one.
    async fn close(&mut self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Already gone is as good.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                let _event = self.swarm.select_next_some().await;
            }
            // The last packets are handed to the socket by the next turns of the swarm.
            let _ = tokio::time::timeout(Duration::from_millis(20), self.swarm.select_next_some()).await;
        };
        // A peer that does not take the goodbye finds out by itself.
        let _ = tokio::time::timeout(PATIENCE, closing).await;
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect { node, addresses, reply } => self.connect(node, &addresses, reply),
            Command::Know { node, addresses } => {
                self.book.insert(node, parse(&addresses));
            }
            Command::Keep { node, addresses } => {
                let addresses = parse(&addresses);
                let fresh = self
                    .kept
                    .get(&node)
                    .is_none_or(|kept| addresses.iter().any(|address| !kept.addresses.contains(address)));
                let kept = self.kept.entry(node).or_insert_with(|| Kept {
                    addresses: Vec::new(),
                    attempt: 0,
                    next: Instant::now(),
                });
                if !addresses.is_empty() {
                    kept.addresses = addresses;
                }
                if fresh && !self.unreachable.contains(&node) {
                    kept.attempt = 0;
                    kept.next = Instant::now();
                }
            }
            Command::Forget(node) => {
                self.kept.remove(&node);
                self.book.remove(&node);
            }
            Command::Disconnect(node) => {
                if let Some(peer) = peer_id(node) {
                    // Already gone is as good.
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            Command::Shutdown(_) => {}
        }
    }

    fn connect(&mut self, node: NodeId, addresses: &[String], reply: oneshot::Sender<Result<(), String>>) {
        let answer = |reply: oneshot::Sender<_>, result| drop(reply.send(result));
        let Some(peer) = peer_id(node) else {
            return answer(reply, Err("its id is no key".to_owned()));
        };
        if self.swarm.is_connected(&peer) {
            return answer(reply, Ok(()));
        }
        let mut addresses = parse(addresses);
        addresses.extend(self.kept.get(&node).into_iter().flat_map(|kept| kept.addresses.clone()));
        addresses.extend(self.noted(&node));
        if addresses.is_empty() {
            return answer(reply, Err("no address is known".to_owned()));
        }
        self.dialling.entry(node).or_default().push(reply);
        self.dial(node, peer, addresses);
    }

    /// Where a node is, as it says and as it was found.
    fn noted(&self, node: &NodeId) -> Vec<Multiaddr> {
        let said = self.book.get(node).into_iter().flatten();
        said.chain(self.known.get(node).into_iter().flatten())
            .cloned()
            .collect()
    }

    fn dial(&mut self, node: NodeId, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.sort_by_key(preference);
        addresses.dedup();
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .build();
        match self.swarm.dial(options) {
            Ok(()) | Err(libp2p::swarm::DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.dialled(node, &Err(error.to_string())),
        }
    }

    fn dialled(&mut self, node: NodeId, result: &Result<(), String>) {
        for reply in self.dialling.remove(&node).unwrap_or_default() {
            // Whoever asked may have given up.
            let _ = reply.send(result.clone());
        }
        match (result, self.kept.get_mut(&node)) {
            (Ok(()), _) => {
                self.unreachable.remove(&node);
            }
            (Err(error), Some(kept)) => {
                tracing::debug!(%node, %error, attempt = kept.attempt, "a node could not be dialled");
                self.unreachable.insert(node);
                kept.next = Instant::now() + self.backoff.delay(kept.attempt, rand::random());
                kept.attempt = kept.attempt.saturating_add(1);
            }
            (Err(_), None) => {}
        }
    }

    /// Dials what is due and closes strangers whose time is up.
    fn due(&mut self) {
        let now = Instant::now();
        let due: Vec<NodeId> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.next <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            let Some(peer) = peer_id(node) else { continue };
            let is_connected = self.swarm.is_connected(&peer);
            let Some(kept) = self.kept.get_mut(&node) else { continue };
            // While it is connected or being dialled there is nothing to do; the event that ends this sets the next time.
            kept.next = now + Duration::from_secs(30);
            if is_connected {
                continue;
            }
            let mut addresses = kept.addresses.clone();
            addresses.extend(self.noted(&node));
            if !addresses.is_empty() {
                self.dial(node, peer, addresses);
            }
        }
        let late: Vec<NodeId> = self
            .strangers
            .iter()
            .filter(|(_, end)| **end <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.strangers.remove(&node);
            if self.mesh.shared.peer(node).is_none() {
                self.command(Command::Disconnect(node));
            }
        }
    }

    /// So that strangers cannot take every connection: when there are too many, the one that came first goes.
    fn make_room(&mut self) {
        let shared = Arc::clone(&self.mesh.shared);
        self.strangers.retain(|node, _| shared.peer(*node).is_none());
        while self.strangers.len() > shared.limits.strangers {
            let Some(first) = self
                .strangers
                .iter()
                .min_by_key(|(_, end)| **end)
                .map(|(node, _)| *node)
            else {
                return;
            };
            self.strangers.remove(&first);
            Counters::count(&shared.counters.refused_strangers);
            self.command(Command::Disconnect(first));
        }
    }

    /// A peer dials only when it has no connection: one that dials again has lost the older ones, by a restart say,
    /// and whatever went over them would go nowhere. What counts is when it began: a handshake takes its time, and both
    /// may have dialled at once.
    fn close_stale(&mut self, peer: PeerId, connection: ConnectionId) {
        const AT_ONCE: Duration = Duration::from_secs(2);
        let begun = self.incoming.remove(&connection);
        let connections = self.established.entry(peer).or_default();
        for (older, since) in connections.iter() {
            if begun.is_some_and(|begun| begun > *since + AT_ONCE) {
                tracing::debug!(%peer, "a peer has dialled anew; the older connection is closed");
                self.swarm.close_connection(*older);
            }
        }
        connections.push((connection, Instant::now()));
    }

    fn forget_connection(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(connections) = self.established.get_mut(&peer) {
            connections.retain(|(known, _)| *known != connection);
        }
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                let text = address.to_string();
                lock(&self.control.addresses)
                    .entry(listener_id)
                    .or_default()
                    .push(address);
                self.mesh.shared.say(PeerEvent::Listening { address: text });
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                if let Some(addresses) = lock(&self.control.addresses).get_mut(&listener_id) {
                    addresses.retain(|known| *known != address);
                }
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                lock(&self.control.addresses).remove(&listener_id);
            }
            SwarmEvent::IncomingConnection { connection_id, .. } => {
                self.incoming.insert(connection_id, Instant::now());
            }
            SwarmEvent::IncomingConnectionError { connection_id, .. } => {
                self.incoming.remove(&connection_id);
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                num_established,
                ..
            } => {
                self.close_stale(peer_id, connection_id);
                Counters::count(&self.mesh.shared.counters.connections);
                let Some(node) = node_id(peer_id) else { return };
                let address = endpoint.get_remote_address().clone();
                if num_established.get() == 1 {
                    let first = First {
                        address: address.to_string(),
                        transport: transport_of(&address),
                        is_dialled: endpoint.is_dialer(),
                    };
                    lock(&self.control.connections).insert(node, first);
                    self.strangers
                        .insert(node, Instant::now() + self.mesh.shared.limits.stranger);
                    if endpoint.is_listener() {
                        self.make_room();
                    }
                }
                self.mesh.shared.shown(node, None);
                self.dialled(node, &Ok(()));
                if endpoint.is_dialer() && !self.mesh.shared.gate.own_chain().is_empty() {
                    self.control.show_chain(node, self.mesh.clone());
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                ..
            } if num_established > 0 => {
                self.forget_connection(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                ..
            } => {
                self.established.remove(&peer_id);
                let Some(node) = node_id(peer_id) else { return };
                lock(&self.control.connections).remove(&node);
                self.strangers.remove(&node);
                let was_member = self.mesh.shared.peer(node).is_some();
                self.mesh.member_gone(node);
                if let Some(kept) = self.kept.get_mut(&node) {
                    if was_member {
                        kept.attempt = 0;
                    }
                    kept.next = Instant::now() + self.backoff.delay(kept.attempt, rand::random());
                    kept.attempt = kept.attempt.saturating_add(1);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                if let Some(node) = node_id(peer) {
                    self.dialled(node, &Err(error.to_string()));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result,
            })) => match result {
                Ok(rtt) => {
                    if let Some(node) = node_id(peer) {
                        self.mesh.shared.with_members(|members| {
                            if let Some(member) = members.get_mut(&node) {
                                member.rtt = Some(rtt);
                            }
                        });
                    }
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "a ping failed; the connection is closed");
                    self.swarm.close_connection(connection);
                }
            },
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    let Some(node) = node_id(peer).filter(|_| peer != self.local) else {
                        continue;
                    };
                    if self.known.len() >= DISCOVERED && !self.known.contains_key(&node) {
                        continue;
                    }
                    let known = self.known.entry(node).or_default();
                    if !known.contains(&address) && known.len() < ADDRESSES {
                        known.push(address.clone());
                    }
                    if let Some(kept) = self.kept.get_mut(&node) {
                        kept.next = Instant::now();
                    }
                    self.mesh.shared.say(PeerEvent::Discovered {
                        node,
                        addresses: vec![address.to_string()],
                    });
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Expired(gone))) => {
                for (peer, address) in gone {
                    if let Some(known) = node_id(peer).and_then(|node| self.known.get_mut(&node)) {
                        known.retain(|known| *known != address);
                    }
                }
                self.known.retain(|_, addresses| !addresses.is_empty());
            }
            _ => {}
        }
    }
}
