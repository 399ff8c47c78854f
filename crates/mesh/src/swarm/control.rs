//! How the handle speaks to the actor, and what it can do without it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use dawn_identity::NodeId;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, StreamProtocol};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::address::{ip_and_port, is_circuit, moved, node_id, tcp_address};
use super::connections::{Connection, Connections};
use super::reserve::Lost;
use super::show::Credentials;
use crate::circuit::Relays;
use crate::dial_back::{AddressSource, Candidate, DialBacks, ReachVerdict, Seen, candidates};
use crate::error::{AcceptError, OpenError};
use crate::handle::{Protocol, Shared, lock};
use crate::inbound;
use crate::nat::mapping::Protocol as Mapped;
use crate::nat::mapping::keeper::{Keeper, Port};
use crate::nat::watch::Watch;
use crate::nat::{Scope, scope};
use crate::outbound::{OpenFailure, Opener};
use crate::punch::Puncher;
use crate::quic;
use crate::relaying::KnownRelay;
use crate::stream::MeshStream;

pub(super) enum Command {
    Connect {
        node: NodeId,
        addresses: Vec<String>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A connection that leads through nobody is wanted.
    Direct {
        node: NodeId,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Another connection is wanted beside those there are: they may have died.
    Again(NodeId),
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
    /// Whether this node is apart: then it looks for nobody on the local network, and reserves nowhere.
    Apart(bool),
    /// A hole leads to a node at this address of QUIC.
    Found {
        node: NodeId,
        to: SocketAddr,
    },
    /// A node is dialled at these addresses of TCP, while it dials this one there.
    Both {
        node: NodeId,
        to: Vec<SocketAddr>,
        is_listener: bool,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Whatever failed to be dialled may be reached now.
    Anew,
    /// The relays of members.
    Relays(Vec<KnownRelay>),
    /// A reservation was made, at this address if it was dialled.
    Reserved {
        relay: NodeId,
        attempt: u64,
        dialled: Option<String>,
    },
    /// There is none, or none any more.
    Unreserved {
        relay: NodeId,
        attempt: u64,
        why: Lost,
    },
    Shutdown(oneshot::Sender<()>),
}

/// How the handle speaks to the actor.
#[derive(Clone)]
pub(crate) struct Control {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(crate) opener: Opener,
    pub(crate) served: inbound::Served,
    pub(super) addresses: Arc<Mutex<HashMap<ListenerId, Vec<Multiaddr>>>>,
    pub(crate) connections: Connections,
    /// What is known of the way to others.
    pub(crate) watch: Watch,
    /// Ports that the gateway maps.
    pub(crate) keeper: Keeper,
    /// Which addresses lead here.
    pub(crate) dial_backs: DialBacks,
    /// Holes that are punched.
    pub(crate) puncher: Puncher,
    /// The relays in use.
    pub(crate) relays: Relays,
    /// What relays are shown.
    pub(super) credentials: Credentials,
    /// Changes with each revocation that relays are to know of.
    pub(super) revoked: watch::Sender<()>,
    /// This node as a relay.
    pub(crate) relay: dawn_relay::Server,
}

impl Control {
    pub(super) fn command(&self, command: Command) {
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

    /// A connection with a node that leads through nobody: the one there is, or one to these addresses.
    pub(crate) async fn direct(&self, node: NodeId, addresses: Vec<Multiaddr>) -> Result<Connection, String> {
        if let Some(connection) = self.connections.direct(node) {
            return Ok(connection);
        }
        let (reply, answer) = oneshot::channel();
        self.command(Command::Direct { node, addresses, reply });
        answer.await.map_err(|_| "the mesh has ended".to_owned())??;
        let connection = self.connections.direct(node);
        connection.ok_or_else(|| "the connection ended".to_owned())
    }

    /// Opens a stream on the best connection that there is.
    pub(crate) async fn open(
        &self,
        node: NodeId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        let mut failure = OpenFailure::Gone;
        for connection in self.connections.of(node) {
            match self.opener.open(connection.id, StreamProtocol::new(protocol.0)).await {
                Ok(stream) => return Ok(MeshStream::libp2p(stream, node, connection.id, cut, Vec::new())),
                // It ended just now; another may not have.
                Err(OpenFailure::Gone) => {}
                Err(other) => {
                    failure = other;
                    break;
                }
            }
        }
        Err(open_error(node, protocol, &failure))
    }

    /// Opens a stream on one connection.
    pub(crate) async fn open_on(
        &self,
        node: NodeId,
        connection: ConnectionId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        match self.opener.open(connection, StreamProtocol::new(protocol.0)).await {
            Ok(stream) => Ok(MeshStream::libp2p(stream, node, connection, cut, Vec::new())),
            Err(failure) => Err(open_error(node, protocol, &failure)),
        }
    }

    pub(crate) fn accept(&self, protocol: Protocol, shared: &Arc<Shared>) -> Result<(), AcceptError> {
        let mut incoming = self.served.accept(protocol.0).ok_or(AcceptError::Taken(protocol.0))?;
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            while let Some(Some(opened)) = stop.run_until_cancelled(incoming.recv()).await {
                let Some(node) = node_id(opened.peer) else { continue };
                if shared.is_served(protocol.0).is_none() {
                    continue;
                }
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    shared
                        .deliver(protocol.0, node, |cut, permits| {
                            MeshStream::libp2p(opened.stream, node, opened.connection, cut, permits)
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

    /// Looks for another connection beside those there are.
    pub(crate) fn again(&self, node: NodeId) {
        self.command(Command::Again(node));
    }

    /// Addresses of this machine at which it is listened, of any transport, and none that lead through a relay.
    fn own_addresses(&self) -> Vec<Multiaddr> {
        let addresses = lock(&self.addresses);
        addresses
            .values()
            .flatten()
            .filter(|address| !is_circuit(address))
            .cloned()
            .collect()
    }

    /// Those of QUIC.
    pub(crate) fn quic_addresses(&self) -> Vec<SocketAddr> {
        self.own_addresses().iter().filter_map(quic::socket_address).collect()
    }

    /// Those of TCP.
    pub(crate) fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = self.own_addresses().iter().filter_map(tcp_address).collect();
        // With several ports it is the same one each time that others are told; loopback is of no use.
        addresses.sort_by_key(|at| (scope(at.ip()) == Scope::Loopback, at.port()));
        addresses
    }

    /// The addresses of this machine.
    pub(crate) fn own_ips(&self) -> BTreeSet<IpAddr> {
        self.own_addresses()
            .iter()
            .filter_map(ip_and_port)
            .map(|(ip, ..)| ip)
            .collect()
    }

    /// Ports on private networks, which a gateway can map.
    pub(crate) fn private_ports(&self) -> BTreeSet<Port> {
        let ports = self.own_addresses();
        let ports = ports.iter().filter_map(|address| {
            let (ip, port, protocol) = ip_and_port(address)?;
            let IpAddr::V4(ip) = ip else { return None };
            (scope(ip.into()) == Scope::Private).then(|| Port {
                protocol,
                local: SocketAddrV4::new(ip, port),
            })
        });
        ports.collect()
    }

    /// What gateways map, if that is far away: this node's addresses at other places.
    fn mapped_addresses(&self) -> Vec<Multiaddr> {
        let own = self.own_addresses();
        let external = self.keeper.mappings().into_iter().filter_map(|mapping| {
            if scope(mapping.external.ip()) != Scope::Public {
                return None;
            }
            let is_mapped = |address: &&Multiaddr| {
                ip_and_port(address).is_some_and(|(ip, port, protocol)| {
                    SocketAddr::new(ip, port) == mapping.local && (protocol == Mapped::Udp) == mapping.is_udp
                })
            };
            own.iter()
                .find(is_mapped)
                .map(|address| moved(address, mapping.external))
        });
        external.collect()
    }

    /// Where this node may be reached from far away; nowhere while it is apart, since nobody is to dial it then.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        if self.watch.is_apart() {
            return Vec::new();
        }
        let seen = Seen {
            udp: self.watch.nat().seen,
            tcp: self.watch.over_tcp(&self.own_ips()).seen,
        };
        candidates(&self.own_addresses(), &self.mapped_addresses(), &seen)
    }

    /// Where this node is reached beside where it listens: what gateways map, unless members have dialled it in vain, and
    /// where it is seen, if members have reached it there.
    pub(crate) fn external_addresses(&self) -> Vec<String> {
        let known = self.dial_backs.all();
        let is = |address: &str, verdict| {
            let mut known = known.iter();
            known.any(|reach| reach.address == address && reach.verdict == verdict)
        };
        let mapped = self.mapped_addresses().into_iter().map(|address| address.to_string());
        let mut external: Vec<String> = mapped.filter(|at| !is(at, ReachVerdict::NotReached)).collect();
        let seen = known.iter().filter(|reach| reach.source == AddressSource::Observed);
        for reach in seen.filter(|reach| reach.verdict == ReachVerdict::Reached) {
            if !external.contains(&reach.address) {
                external.push(reach.address.clone());
            }
        }
        external
    }

    /// Dials a node over a hole that was found.
    pub(crate) fn dial_found(&self, node: NodeId, to: SocketAddr) {
        self.command(Command::Found { node, to });
    }

    /// Dials a node over TCP while it dials this one, from the port that is listened on. Who is the listener has its part
    /// in what is spoken over the connection.
    pub(crate) async fn dial_both(&self, node: NodeId, to: &[SocketAddr], is_listener: bool) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Both {
            node,
            to: to.to_vec(),
            is_listener,
            reply,
        });
        answer.await.unwrap_or_else(|_| Err("the mesh has ended".to_owned()))
    }

    /// Dials whoever is to be connected, without a pause.
    pub(crate) fn dial_anew(&self) {
        self.command(Command::Anew);
    }

    pub(crate) fn know(&self, node: NodeId, addresses: Vec<String>) {
        self.command(Command::Know { node, addresses });
    }

    pub(crate) fn keep(&self, node: NodeId, addresses: Vec<String>) {
        self.command(Command::Keep { node, addresses });
    }

    pub(crate) fn set_relays(&self, relays: Vec<KnownRelay>) {
        self.command(Command::Relays(relays));
    }

    /// Tells the relays at which this node has reserved of what was revoked.
    pub(crate) fn tell_relays(&self) {
        self.revoked.send_replace(());
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.command(Command::Forget(node));
    }

    pub(crate) fn disconnect(&self, node: NodeId) {
        self.command(Command::Disconnect(node));
    }

    pub(crate) fn set_apart(&self, is_apart: bool) {
        self.watch.set_apart(is_apart);
        self.command(Command::Apart(is_apart));
    }

    pub(crate) async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        self.command(Command::Shutdown(reply));
        // An actor that is already gone has closed everything.
        let _ = done.await;
    }
}

fn open_error(node: NodeId, protocol: Protocol, failure: &OpenFailure) -> OpenError {
    match failure {
        OpenFailure::Unsupported => OpenError::Unsupported {
            node,
            protocol: protocol.0,
        },
        OpenFailure::Gone | OpenFailure::Io(_) => OpenError::NotConnected {
            node,
            reason: failure.to_string(),
        },
    }
}
