//! What the swarm tells, and what the actor makes of it.

use std::net::SocketAddr;
use std::time::Instant;

use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, mdns, ping};

use dawn_identity::NodeId;

use super::address::{ADDRESSES, is_circuit, node_id, tcp_address, transport_of, way};
use super::connections::Connection;
use super::{Actor, BESIDE, BehaviourEvent};
use crate::handle::lock;
use crate::peer::{Counters, PeerEvent};
use crate::quic;

/// Nodes of the local network that are remembered.
const DISCOVERED: usize = 1024;

/// The address of a peer that this node has dialled, and leads through no relay.
fn dialled(endpoint: &ConnectedPoint) -> Option<&Multiaddr> {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } if !is_circuit(address) => Some(address),
        _ => None,
    }
}

/// The same over QUIC.
fn dialled_over_quic(endpoint: &ConnectedPoint) -> Option<SocketAddr> {
    dialled(endpoint).and_then(quic::socket_address)
}

impl Actor {
    /// A peer says where it sees this node: that says something where this node has dialled it from where it listens.
    fn identified(&self, peer: PeerId, connection: ConnectionId, seen: &Multiaddr) {
        let connections = node_id(peer)
            .map(|node| self.control.connections.of(node))
            .unwrap_or_default();
        let known = connections.into_iter().find(|known| known.id == connection);
        let by = known
            .filter(|known| known.is_dialled)
            .and_then(|known| known.address.parse().ok());
        if let (Some(by), Some(seen)) = (by.as_ref().and_then(tcp_address), tcp_address(seen)) {
            self.control.watch.observed_tcp(by, seen);
        }
        if let Some(by) = by.as_ref().and_then(quic::socket_address)
            && let Some(seen) = quic::socket_address(seen)
        {
            self.control.watch.observed(by, seen);
        }
    }

    /// An address of this machine came or went.
    fn address_changed(&self, address: &Multiaddr) {
        if !is_circuit(address) {
            self.control.watch.network_changed();
        }
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint, is_first: bool) {
        Counters::count(&self.mesh.shared.counters.connections);
        let begun = self.incoming.remove(&id);
        let Some(node) = node_id(peer) else { return };
        let (address, route) = way(endpoint, self.control.watch.sockets());
        if let Some(at) = dialled_over_quic(endpoint) {
            self.control.watch.dialled(at);
        }
        let before = self.control.connections.best(node);
        let connection = Connection {
            id,
            route,
            transport: transport_of(&address),
            address: address.to_string(),
            is_dialled: endpoint.is_dialer(),
            since: Instant::now(),
        };
        let is_relayed = connection.is_relayed();
        if is_relayed {
            Counters::count(&self.mesh.shared.counters.relayed);
        }
        for stale in self.control.connections.add(node, connection, begun) {
            tracing::debug!(%peer, "a peer has dialled anew; the older connection is closed");
            self.swarm.close_connection(stale);
        }
        if is_first {
            // Who is to be told only that this node is apart has as long as that takes.
            let limits = &self.mesh.shared.limits;
            let patience = match self.mesh.shared.apart.turns_away(node) {
                Some(_) => limits.handshake,
                None => limits.stranger,
            };
            self.strangers.insert(node, Instant::now() + patience);
            if endpoint.is_listener() {
                self.make_room();
            }
        }
        self.mesh.shared.shown(node, None);
        self.connected(node, id, is_relayed);
        let shows_chain = !self.mesh.shared.gate.own_chain().is_empty() && !self.is_shown_a_token(node);
        if endpoint.is_dialer() && shows_chain {
            self.control.show_chain(node, self.mesh.clone());
        }
        self.route_changed(node, before.as_ref());
    }

    fn closed(&mut self, peer: PeerId, id: ConnectionId, is_last: bool) {
        let Some(node) = node_id(peer) else { return };
        let before = self.control.connections.best(node);
        self.control.connections.remove(node, id);
        if !is_last {
            return self.route_changed(node, before.as_ref());
        }
        self.upgrades.remove(&node);
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

    /// Whatever a new best connection to a node, or the end of one, brings with it.
    fn route_changed(&mut self, node: NodeId, before: Option<&Connection>) {
        self.look_for_better(node);
        let connections = self.control.connections.of(node);
        let Some(best) = connections.first() else { return };
        if !best.is_relayed() && connections.iter().any(Connection::is_relayed) {
            let at = Instant::now() + BESIDE;
            self.tidy_at = Some(self.tidy_at.map_or(at, |tidy| tidy.max(at)));
        }
        if before.is_some_and(|before| before.route != best.route) {
            self.mesh.shared.say(PeerEvent::RouteChanged {
                node,
                route: best.route.clone(),
            });
        }
    }

    pub(super) fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                let text = address.to_string();
                lock(&self.control.addresses)
                    .entry(listener_id)
                    .or_default()
                    .push(address.clone());
                self.address_changed(&address);
                self.mesh.shared.say(PeerEvent::Listening { address: text });
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                if let Some(addresses) = lock(&self.control.addresses).get_mut(&listener_id) {
                    addresses.retain(|known| *known != address);
                }
                self.address_changed(&address);
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
            } => self.established(peer_id, connection_id, &endpoint, num_established.get() == 1),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                endpoint,
                ..
            } => {
                if let Some(at) = dialled_over_quic(&endpoint) {
                    self.control.watch.ended(at);
                }
                if let Some(at) = dialled(&endpoint).and_then(tcp_address) {
                    self.control.watch.ended_tcp(at);
                }
                self.closed(peer_id, connection_id, num_established == 0);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                connection_id,
                info,
            })) => self.identified(peer_id, connection_id, &info.observed_addr),
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                connection_id,
                error,
            } => {
                if let Some(node) = node_id(peer) {
                    self.dial_failed(node, connection_id, &error.to_string());
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result,
            })) => match result {
                Ok(rtt) => {
                    let is_best = |node: &NodeId| {
                        self.control
                            .connections
                            .best(*node)
                            .is_some_and(|best| best.id == connection)
                    };
                    if let Some(node) = node_id(peer).filter(is_best) {
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
