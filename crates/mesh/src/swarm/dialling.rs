//! Dialling: whom, where, and when again. Addresses that lead through relays wait until the others had a head start.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::core::Endpoint;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::Actor;
use super::address::{ADDRESSES, is_circuit, node_id, parse, peer_id, preference, relay_of};
use crate::peer::Route;
use crate::quic;

/// How long the direct addresses of a node are tried before those that lead through relays are tried beside them.
const HEAD_START: Duration = Duration::from_millis(250);
/// Before a node that is connected, or being dialled, is looked at again.
const LATER: Duration = Duration::from_secs(30);

/// A node that is to stay connected, or one whose relayed connection is to become a direct one.
pub(super) struct Kept {
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) attempt: u32,
    pub(super) next: Instant,
}

impl Kept {
    pub(super) fn new(next: Instant) -> Self {
        Self {
            addresses: Vec::new(),
            attempt: 0,
            next,
        }
    }
}

/// What is under way to reach a node.
#[derive(Default)]
pub(super) struct Dialling {
    replies: Vec<oneshot::Sender<Result<(), String>>>,
    tries: HashSet<ConnectionId>,
    /// Where direct connections were asked for beside them.
    at: Vec<Multiaddr>,
    /// Addresses that lead through relays, and when they are tried.
    circuits: Vec<Multiaddr>,
    circuits_at: Option<Instant>,
}

impl Dialling {
    fn is_over(&self) -> bool {
        self.tries.is_empty() && self.circuits.is_empty()
    }
}

impl Actor {
    pub(super) fn connect(&mut self, node: NodeId, addresses: &[String], reply: oneshot::Sender<Result<(), String>>) {
        let answer = |reply: oneshot::Sender<_>, result| drop(reply.send(result));
        let Some(peer) = peer_id(node) else {
            return answer(reply, Err("its id is no key".to_owned()));
        };
        if self.swarm.is_connected(&peer) {
            return answer(reply, Ok(()));
        }
        let mut addresses = parse(addresses);
        addresses.extend(self.noted(&node));
        if addresses.is_empty() {
            return answer(reply, Err("no address is known".to_owned()));
        }
        self.dialling.entry(node).or_default().replies.push(reply);
        self.dial(node, peer, addresses);
    }

    /// Sees to a connection that leads through nobody, whatever others there are or are under way. Each address is
    /// dialled once at a time.
    pub(super) fn connect_directly(
        &mut self,
        node: NodeId,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<(), String>>,
    ) {
        let Some(peer) = peer_id(node).filter(|_| !self.control.connections.is_direct(node)) else {
            // Whoever asked looks for the connection; without a key there is none.
            drop(reply.send(Ok(())));
            return;
        };
        let dialling = self.dialling.entry(node).or_default();
        dialling.replies.push(reply);
        let is_fresh = |address: &Multiaddr| !is_circuit(address) && !dialling.at.contains(address);
        let mut fresh: Vec<Multiaddr> = addresses.into_iter().filter(is_fresh).collect();
        fresh.truncate(ADDRESSES.saturating_sub(dialling.at.len()));
        dialling.at.extend(fresh.iter().cloned());
        if !fresh.is_empty() {
            self.try_at(node, peer, fresh, Endpoint::Dialer);
        } else if dialling.is_over() {
            self.dialled(node, &Err("no address is known".to_owned()));
        }
    }

    /// Looks for another connection beside those there are, through other relays.
    pub(super) fn connect_again(&mut self, node: NodeId) {
        let Some(peer) = peer_id(node) else { return };
        let connections = self.control.connections.of(node);
        if connections.iter().any(|connection| !connection.is_relayed()) {
            return;
        }
        let is_other = |address: &Multiaddr| {
            let relay = relay_of(address).and_then(node_id);
            relay.is_none_or(|relay| {
                let mut routes = connections.iter().map(|connection| &connection.route);
                !routes.any(|route| *route == Route::Relayed { relay })
            })
        };
        let addresses: Vec<Multiaddr> = self.noted(&node).into_iter().filter(is_other).collect();
        if !addresses.is_empty() {
            self.dial(node, peer, addresses);
        }
    }

    /// Where a node is, as this node was told to keep it, as it says and as it was found.
    fn noted(&self, node: &NodeId) -> Vec<Multiaddr> {
        let kept = self.kept.get(node).into_iter().flat_map(|kept| &kept.addresses);
        let said = self.book.get(node).into_iter().flatten();
        kept.chain(said)
            .chain(self.known.get(node).into_iter().flatten())
            .cloned()
            .collect()
    }

    fn dial(&mut self, node: NodeId, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.sort_by_key(preference);
        addresses.dedup();
        let dialling = self.dialling.entry(node).or_default();
        if !dialling.is_over() {
            return;
        }
        let (circuits, direct): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_circuit);
        dialling.circuits = circuits;
        dialling.circuits_at = Some(Instant::now() + HEAD_START);
        if direct.is_empty() {
            self.dial_circuits(node, "no address is known");
        } else {
            self.try_at(node, peer, direct, Endpoint::Dialer);
        }
    }

    /// Dials a node at these addresses, whatever else is under way, with this part in what is spoken then.
    fn try_at(&mut self, node: NodeId, peer: PeerId, addresses: Vec<Multiaddr>, part: Endpoint) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(addresses);
        let options = match part {
            Endpoint::Dialer => options.build(),
            Endpoint::Listener => options.override_role().build(),
        };
        let id = options.connection_id();
        self.dialling.entry(node).or_default().tries.insert(id);
        if let Err(error) = self.swarm.dial(options) {
            self.dial_failed(node, id, &error.to_string());
        }
    }

    /// Dials what leads through relays; where there is nothing of this kind, dialling has failed.
    fn dial_circuits(&mut self, node: NodeId, why: &str) {
        let Some(dialling) = self.dialling.get_mut(&node) else {
            return;
        };
        let circuits = std::mem::take(&mut dialling.circuits);
        dialling.circuits_at = None;
        match peer_id(node) {
            Some(peer) if !circuits.is_empty() => self.try_at(node, peer, circuits, Endpoint::Dialer),
            _ if dialling.tries.is_empty() => self.dialled(node, &Err(why.to_owned())),
            _ => {}
        }
    }

    /// Dials a node over a hole that was found.
    pub(super) fn dial_found(&mut self, node: NodeId, to: SocketAddr) {
        if let Some(peer) = peer_id(node) {
            self.try_at(node, peer, vec![quic::multiaddr(to)], Endpoint::Dialer);
        }
    }

    /// Dials a node over TCP while it dials this one.
    pub(super) fn dial_both(
        &mut self,
        node: NodeId,
        to: &[SocketAddr],
        is_listener: bool,
        reply: oneshot::Sender<Result<(), String>>,
    ) {
        let Some(peer) = peer_id(node) else { return };
        let address = |at: &SocketAddr| Multiaddr::from(at.ip()).with(Part::Tcp(at.port()));
        let part = if is_listener {
            Endpoint::Listener
        } else {
            Endpoint::Dialer
        };
        self.dialling.entry(node).or_default().replies.push(reply);
        self.try_at(node, peer, to.iter().map(address).collect(), part);
    }

    /// The network has changed: whatever waits to be dialled again is dialled now.
    pub(super) fn dial_anew(&mut self) {
        let now = Instant::now();
        self.unreachable.clear();
        self.reserve_anew();
        for kept in self.kept.values_mut().chain(self.upgrades.values_mut()) {
            kept.attempt = 0;
            kept.next = now;
        }
    }

    pub(super) fn dial_failed(&mut self, node: NodeId, connection: ConnectionId, error: &str) {
        if let Some(dialling) = self.dialling.get_mut(&node)
            && dialling.tries.remove(&connection)
            && dialling.tries.is_empty()
        {
            self.dial_circuits(node, error);
        }
    }

    /// A connection has come to be, by whomever it was dialled.
    pub(super) fn connected(&mut self, node: NodeId, connection: ConnectionId, is_relayed: bool) {
        self.dialled(node, &Ok(()));
        let Some(dialling) = self.dialling.get_mut(&node) else {
            return;
        };
        dialling.tries.remove(&connection);
        if !is_relayed {
            dialling.circuits.clear();
            dialling.circuits_at = None;
        }
        if dialling.is_over() {
            self.dialling.remove(&node);
        }
    }

    /// Tells those who wait, and when it is tried again. Tries that are under way go on: a better connection may come.
    fn dialled(&mut self, node: NodeId, result: &Result<(), String>) {
        if let Some(dialling) = self.dialling.get_mut(&node) {
            for reply in dialling.replies.drain(..) {
                // Whoever asked may have given up.
                let _ = reply.send(result.clone());
            }
            if dialling.is_over() {
                self.dialling.remove(&node);
            }
        }
        match (result, self.kept.get_mut(&node)) {
            (Ok(()), _) => {
                self.unreachable.remove(&node);
            }
            // A direct connection did not come to be; there is another.
            (Err(_), _) if self.control.connections.is_connected(node) => {}
            (Err(error), Some(kept)) => {
                tracing::debug!(%node, %error, attempt = kept.attempt, "a node could not be dialled");
                self.unreachable.insert(node);
                kept.next = Instant::now() + self.backoff.delay(kept.attempt, rand::random());
                kept.attempt = kept.attempt.saturating_add(1);
            }
            (Err(_), None) => {}
        }
    }

    /// Where a node says that it is, when it is wanted.
    pub(super) fn know(&mut self, node: NodeId, addresses: &[String]) {
        let addresses = parse(addresses);
        self.name(node, &addresses);
        self.book.insert(node, addresses);
    }

    /// Members with public addresses are each other's STUN servers.
    fn name(&self, node: NodeId, addresses: &[Multiaddr]) {
        let direct = addresses.iter().filter(|address| !is_circuit(address));
        let sockets: Vec<SocketAddr> = direct.filter_map(quic::socket_address).collect();
        self.control.watch.names(node, &sockets);
    }

    pub(super) fn keep(&mut self, node: NodeId, addresses: &[String]) {
        let addresses = parse(addresses);
        self.name(node, &addresses);
        let now = Instant::now();
        let known = self.kept.get(&node);
        let fresh = known.is_none_or(|kept| addresses.iter().any(|address| !kept.addresses.contains(address)));
        let kept = self.kept.entry(node).or_insert_with(|| Kept::new(now));
        if !addresses.is_empty() {
            kept.addresses = addresses;
        }
        if fresh && !self.unreachable.contains(&node) {
            kept.attempt = 0;
            kept.next = now;
        }
    }

    /// When something is to be dialled.
    pub(super) fn next_dial(&self) -> Option<Instant> {
        let kept = self.kept.values().chain(self.upgrades.values()).map(|kept| kept.next);
        let circuits = self.dialling.values().filter_map(|dialling| dialling.circuits_at);
        kept.chain(circuits).min()
    }

    /// Dials what is due.
    pub(super) fn dial_due(&mut self, now: Instant) {
        let due = |(node, kept): (&NodeId, &Kept)| (kept.next <= now).then_some(*node);
        let kept: Vec<NodeId> = self.kept.iter().filter_map(due).collect();
        let upgrades: Vec<NodeId> = self.upgrades.iter().filter_map(due).collect();
        for node in kept {
            let Some(peer) = peer_id(node) else { continue };
            let is_connected = self.swarm.is_connected(&peer);
            let Some(kept) = self.kept.get_mut(&node) else { continue };
            // While it is connected or being dialled there is nothing to do; the event that ends this sets the next time.
            kept.next = now + LATER;
            let addresses = self.noted(&node);
            if !is_connected && !addresses.is_empty() {
                self.dial(node, peer, addresses);
            }
        }
        for node in upgrades {
            self.upgrade(node, now);
        }
        let late =
            |(node, dialling): (&NodeId, &Dialling)| dialling.circuits_at.is_some_and(|at| at <= now).then_some(*node);
        let circuits: Vec<NodeId> = self.dialling.iter().filter_map(late).collect();
        for node in circuits {
            self.dial_circuits(node, "no address is known");
        }
    }

    /// Tries the direct addresses of a node that is reached through relays only.
    fn upgrade(&mut self, node: NodeId, now: Instant) {
        let is_relayed = self.control.connections.is_only_relayed(node);
        let (Some(peer), true) = (peer_id(node), is_relayed) else {
            self.upgrades.remove(&node);
            return;
        };
        let delay = self
            .backoff
            .delay(self.upgrades.get(&node).map_or(0, |kept| kept.attempt), rand::random());
        let kept = self.upgrades.entry(node).or_insert_with(|| Kept::new(now));
        kept.next = now + delay.max(HEAD_START);
        kept.attempt = kept.attempt.saturating_add(1);
        let direct: Vec<Multiaddr> = self.noted(&node).into_iter().filter(|at| !is_circuit(at)).collect();
        if !direct.is_empty() {
            self.dial(node, peer, direct);
        }
    }

    /// Sees to it that the relayed connection to a node becomes a direct one.
    pub(super) fn look_for_better(&mut self, node: NodeId) {
        if self.control.connections.is_only_relayed(node) {
            self.upgrades.entry(node).or_insert_with(|| Kept::new(Instant::now()));
        } else {
            self.upgrades.remove(&node);
        }
    }
}
