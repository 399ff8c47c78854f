//! The libp2p swarm as one actor.
//!
//! `control` is how the handle speaks to it, `connections` says which connection a stream takes, `dialling` how they come
//! to be, `handshake` whether a peer is a member, `strangers` how long it may stay if it is none.

mod address;
mod connections;
mod control;
mod dialling;
mod events;
mod handshake;
mod network;
mod reservations;
mod reserve;
mod show;
mod strangers;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use futures::StreamExt as _;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::transport::ListenerId;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns, noise, ping};
use tokio::sync::{mpsc, watch};

use crate::apart;
use crate::backoff::Backoff;
use crate::circuit::{self, Relays};
use crate::config::MeshConfig;
use crate::dial_back::DialBacks;
use crate::error::{AcceptError, StartError};
use crate::handle::{Backend, Mesh, Shared, lock};
use crate::inbound;
use crate::nat::mapping::keeper::{Keeper, Ways};
use crate::nat::sockets::Sockets;
use crate::nat::watch::Watch;
use crate::outbound;
use crate::peer::Gate;
use crate::punch::Puncher;
use crate::quic;
use crate::relaying::Members;
use crate::transport::node_transport;
use address::causes;
use connections::Connections;
use control::Command;
use dialling::{Dialling, Kept};
use reservations::Reservations;
use show::Credentials;

pub use address::check_address;
pub(crate) use address::{ip_and_port, moved, node_id, peer_id};
pub(crate) use connections::Connection;
pub(crate) use control::Control;

/// A relayed connection is closed when there was another beside it for so long.
const BESIDE: Duration = Duration::from_secs(10);
#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    apart: apart::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    inbound: inbound::Behaviour,
    outbound: outbound::Behaviour,
    relay: dawn_relay::Behaviour,
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
    dialling: HashMap<NodeId, Dialling>,
    reservations: Reservations,
    /// Nodes that are reached through relays only, and when their direct addresses are tried again.
    upgrades: HashMap<NodeId, Kept>,
    /// When relayed connections are closed that nothing needs any more.
    tidy_at: Option<Instant>,
    strangers: HashMap<NodeId, Instant>,
    backoff: Backoff,
    local: PeerId,
    unreachable: HashSet<NodeId>,
    /// Whether the local network is looked at, unless this node is apart.
    uses_mdns: bool,
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
    let failed = |error: &dyn std::fmt::Display| StartError::Transport(error.to_string());
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
    let apart = apart::State::new(node);
    let behaviour_apart = Arc::clone(&apart);
    let sockets = Sockets::default();
    let opener = outbound::Opener::default();
    let shared = Shared::new(node, gate, config.limits.clone(), apart);
    let members = Arc::new(Members(Arc::clone(&shared)));
    let relay = dawn_relay::Behaviour::new(local, members, config.relaying.quotas.clone());
    let reservations = Reservations::new(config.relaying.clone());
    let watch = Watch::new(sockets.clone(), config.stun);
    let (sender, commands) = mpsc::unbounded_channel();
    let control = Control {
        keeper: Keeper::new(Ways::default()),
        puncher: Puncher::new(watch.clone(), limits.punches_per_minute),
        dial_backs: DialBacks::default(),
        watch,
        commands: sender,
        opener: opener.clone(),
        served: served.clone(),
        addresses: Arc::default(),
        connections: Connections::default(),
        relays: Relays::default(),
        credentials: Credentials::new(
            config.relaying.token.as_deref(),
            reservations.written(),
            Arc::clone(&shared),
        ),
        revoked: watch::Sender::new(()),
        relay: relay.server().clone(),
    };
    let (door, inside) = circuit::doors();
    let transport = {
        let noise = noise::Config::new(&keypair).map_err(|error| failed(&error))?;
        let upgrade = circuit::Upgrade::new(noise, limits.handshake);
        let circuits = circuit::Transport::new(local, upgrade, circuit::Dialler(control.clone()), inside);
        node_transport(&keypair, settings, sockets, circuits)?
    };
    let mdns = if use_mdns {
        let looking = mdns::tokio::Behaviour::new(mdns::Config::default(), local);
        Some(looking.map_err(|error| failed(&error))?)
    } else {
        None
    };
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits),
        apart: apart::Behaviour(behaviour_apart),
        identify: identify::Behaviour::new(
            identify::Config::new("/dawn/1".into(), keypair.public())
                .with_agent_version("dawn".into())
                .with_hide_listen_addrs(true),
        ),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(interval)
                .with_timeout(Duration::from_secs(5)),
        ),
        mdns: mdns.into(),
        inbound: inbound::Behaviour(served),
        outbound: outbound::Behaviour(opener),
        relay,
    };
    let swarm_config = libp2p::swarm::Config::with_tokio_executor()
        // Who is wanted has a stream; strangers are closed by the actor, too.
        .with_idle_connection_timeout(idle)
        .with_substream_upgrade_protocol_override(libp2p::core::upgrade::Version::V1Lazy)
        .with_max_negotiating_inbound_streams(4096)
        .with_dial_concurrency_factor(NonZeroU8::MIN.saturating_add(3));
    let swarm = Swarm::new(transport, behaviour, local, swarm_config);
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
        reservations,
        upgrades: HashMap::new(),
        tidy_at: None,
        strangers: HashMap::new(),
        backoff: config.backoff,
        local,
        unreachable: HashSet::new(),
        uses_mdns: use_mdns,
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
    handshake::serve(&mesh, &control)?;
    mesh.begin(config.forwarding);
    let taken = |error: AcceptError| StartError::Transport(error.to_string());
    door.serve(&mesh.shared, &control).map_err(taken)?;
    let (punching, port_mapping) = (config.punching, config.port_mapping);
    network::begin(&mesh, &control, port_mapping);
    let taken = |error: AcceptError| StartError::Transport(error.to_string());
    control.dial_backs.begin(&mesh, &control).map_err(taken)?;
    if punching {
        control.puncher.begin(&mesh, &control).map_err(taken)?;
    }
    tokio::spawn(actor.run());
    Ok(mesh)
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
            let strangers = self.strangers.values().copied();
            let next = strangers
                .chain(self.next_dial())
                .chain(self.tidy_at)
                .chain(self.next_reservation())
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
            Command::Know { node, addresses } => self.know(node, &addresses),
            Command::Keep { node, addresses } => self.keep(node, &addresses),
            Command::Direct { node, addresses, reply } => self.connect_directly(node, addresses, reply),
            Command::Again(node) => self.connect_again(node),
            Command::Forget(node) => {
                self.kept.remove(&node);
                self.book.remove(&node);
                self.control.watch.names(node, &[]);
            }
            Command::Disconnect(node) => {
                if let Some(peer) = peer_id(node) {
                    // Already gone is as good.
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            Command::Apart(is_apart) => {
                self.look_around(!is_apart);
                self.reserve_apart(is_apart);
            }
            Command::Found { node, to } => self.dial_found(node, to),
            Command::Both {
                node,
                to,
                is_listener,
                reply,
            } => self.dial_both(node, &to, is_listener, reply),
            Command::Anew => self.dial_anew(),
            Command::Relays(relays) => self.set_relays(relays),
            Command::Reserved {
                relay,
                attempt,
                dialled,
            } => self.reserved(relay, attempt, dialled.as_deref()),
            Command::Unreserved { relay, attempt, why } => self.unreserved(relay, attempt, &why),
            Command::Shutdown(_) => {}
        }
    }

    /// Looks for others on the local network, where that is wanted, and is found there, or not.
    fn look_around(&mut self, may: bool) {
        let looking = (may && self.uses_mdns).then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), self.local));
        let looking = looking.transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "others on the local network are not looked for");
            None
        });
        self.swarm.behaviour_mut().mdns = looking.into();
        self.known.clear();
    }

    /// Does what is due.
    fn due(&mut self) {
        let now = Instant::now();
        self.dial_due(now);
        self.strangers_due(now);
        self.reserve_due(now);
        self.control.relay.tidy();
        if self.tidy_at.is_some_and(|at| at <= now) {
            self.tidy_at = None;
            for connection in self.control.connections.surplus(BESIDE) {
                tracing::debug!(%connection, "a relayed connection is not needed any more");
                self.swarm.close_connection(connection);
            }
        }
    }
}
