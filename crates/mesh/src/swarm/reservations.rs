//! Reservations at relays: so many are kept as are wanted, each begun by showing what lets this node reserve, and begun
//! elsewhere when one ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_identity::NodeId;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, StreamProtocol};

use super::Actor;
use super::address::{is_circuit, node_id, peer_id};
use super::control::{Command, Control};
use crate::handle::{Mesh, lock};
use crate::peer::{Counters, PeerEvent};
use crate::relaying::Relaying;

/// How long a relay may take for a reservation.
const PATIENCE: Duration = Duration::from_secs(15);
/// Revocations that are shown to a relay.
const REVOCATIONS: usize = 32;
/// Relays that are remembered, of those told and those in addresses of others.
const RELAYS: usize = 256;

/// The peers that are dialled because they are relays: no members, as a rule, and kept all the same.
#[derive(Clone, Default)]
pub(super) struct Relays(Arc<Mutex<HashSet<NodeId>>>);

impl Relays {
    pub(super) fn contains(&self, node: NodeId) -> bool {
        lock(&self.0).contains(&node)
    }

    pub(super) fn insert(&self, node: NodeId) {
        let mut relays = lock(&self.0);
        if relays.len() < RELAYS {
            relays.insert(node);
        }
    }
}

/// A reservation that there is, or that is being made.
struct Held {
    /// Where it is listened, once it was asked for.
    listener: Option<ListenerId>,
    is_made: bool,
    /// When it is given up if it is not made.
    until: Instant,
}

/// A relay at which this node does not reserve now.
#[derive(Default)]
struct Failed {
    attempt: u32,
    next: Option<Instant>,
}

/// The reservations of this node.
pub(super) struct Reservations {
    relaying: Relaying,
    /// Where the relays are: those of the configuration, and those of members.
    written: Vec<(NodeId, Multiaddr)>,
    told: Vec<(NodeId, Multiaddr)>,
    held: BTreeMap<NodeId, Held>,
    failed: HashMap<NodeId, Failed>,
}

/// A relay and its address without it.
fn relay(address: &str) -> Option<(NodeId, Multiaddr)> {
    let mut address: Multiaddr = address.parse().ok()?;
    match address.pop()? {
        Part::P2p(peer) if !is_circuit(&address) => Some((node_id(peer)?, address)),
        _ => None,
    }
}

impl Reservations {
    pub(super) fn new(relaying: Relaying) -> Self {
        Self {
            written: relaying.relays.iter().filter_map(|address| relay(address)).collect(),
            relaying,
            told: Vec::new(),
            held: BTreeMap::new(),
            failed: HashMap::new(),
        }
    }

    fn known(&self) -> impl Iterator<Item = &(NodeId, Multiaddr)> {
        self.written.iter().chain(&self.told)
    }

    fn addresses(&self, node: NodeId) -> Vec<Multiaddr> {
        self.known()
            .filter(|(known, _)| *known == node)
            .map(|(_, address)| address.clone())
            .collect()
    }

    /// The relay at which a listener has its reservation.
    fn of(&self, listener: ListenerId) -> Option<NodeId> {
        let mut held = self.held.iter();
        held.find(|(_, held)| held.listener == Some(listener))
            .map(|(node, _)| *node)
    }

    /// The next relay to reserve at, and when something is due.
    fn next(&self, now: Instant) -> (Option<NodeId>, Option<Instant>) {
        let until = self
            .held
            .values()
            .filter(|held| !held.is_made)
            .map(|held| held.until)
            .min();
        if self.held.len() >= self.relaying.wanted {
            return (None, until);
        }
        let free: Vec<NodeId> = self
            .known()
            .map(|(node, _)| *node)
            .filter(|node| !self.held.contains_key(node))
            .collect();
        let at = |node: &NodeId| {
            self.failed
                .get(node)
                .and_then(|failed| failed.next)
                .filter(|at| *at > now)
        };
        let ready = free.iter().find(|node| at(node).is_none()).copied();
        (ready, free.iter().filter_map(at).chain(until).min())
    }
}

impl Actor {
    /// The relays of members, in the place of those told before.
    pub(super) fn set_relays(&mut self, addresses: &[String]) {
        let told = addresses.iter().take(RELAYS).filter_map(|address| relay(address));
        let local = self.mesh.shared.local;
        self.reservations.told = told.filter(|(node, _)| *node != local).collect();
        let told: HashSet<NodeId> = self.reservations.told.iter().map(|(node, _)| *node).collect();
        let written: HashSet<NodeId> = self.reservations.written.iter().map(|(node, _)| *node).collect();
        self.reservations
            .failed
            .retain(|node, _| told.contains(node) || written.contains(node));
    }

    /// When a reservation is to be begun or given up.
    pub(super) fn next_reservation(&self) -> Option<Instant> {
        let now = Instant::now();
        match self.reservations.next(now) {
            (Some(_), _) => Some(now),
            (None, at) => at,
        }
    }

    /// Begins reservations that are wanted, and gives those up that were not made in time.
    pub(super) fn reserve_due(&mut self, now: Instant) {
        let is_late = |(node, held): (&NodeId, &Held)| (!held.is_made && held.until <= now).then_some(*node);
        let late: Vec<NodeId> = self.reservations.held.iter().filter_map(is_late).collect();
        for node in late {
            self.reservation_failed(node, "no answer in time");
        }
        while let (Some(node), _) = self.reservations.next(now) {
            let held = Held {
                listener: None,
                is_made: false,
                until: now + PATIENCE,
            };
            self.reservations.held.insert(node, held);
            self.control.relays.insert(node);
            let addresses = self.reservations.addresses(node);
            let (mesh, control) = (self.mesh.clone(), self.control.clone());
            let token = self.reservations.relaying.token.clone().map(Bytes::from);
            let shown = std::iter::once(token.unwrap_or_else(|| mesh.shared.gate.own_chain().into()));
            let revocations = (self.reservations.relaying.revocations)().into_iter().take(REVOCATIONS);
            let shown: Vec<Bytes> = shown.chain(revocations).collect();
            tokio::spawn(async move {
                let addresses = addresses.iter().map(ToString::to_string).collect();
                let outcome = prepare(&mesh, &control, node, addresses, shown).await;
                control.command(Command::Reserve(node, outcome));
            });
        }
    }

    /// A relay was shown what lets this node reserve, or not.
    pub(super) fn reserve(&mut self, node: NodeId, prepared: Result<(), String>) {
        let addresses = self.reservations.addresses(node);
        let Some(held) = self
            .reservations
            .held
            .get_mut(&node)
            .filter(|held| held.listener.is_none())
        else {
            return;
        };
        if let Err(error) = prepared {
            return self.reservation_failed(node, &error);
        }
        let connection = self
            .control
            .connections
            .of(node)
            .into_iter()
            .find(|known| !known.is_relayed());
        let dialled = connection
            .filter(|known| known.is_dialled)
            .and_then(|known| known.address.parse().ok());
        let (Some(peer), Some(mut address)) = (peer_id(node), dialled.or_else(|| addresses.first().cloned())) else {
            return self.reservation_failed(node, "its address is not known");
        };
        if !matches!(address.iter().last(), Some(Part::P2p(_))) {
            address.push(Part::P2p(peer));
        }
        match self.swarm.listen_on(address.with(Part::P2pCircuit)) {
            Ok(listener) => held.listener = Some(listener),
            Err(error) => self.reservation_failed(node, &error.to_string()),
        }
    }

    /// A listener has an address: a reservation was made, if it is one.
    pub(super) fn reserved(&mut self, listener: ListenerId) {
        let Some(node) = self.reservations.of(listener) else {
            return;
        };
        if let Some(held) = self.reservations.held.get_mut(&node)
            && !held.is_made
        {
            held.is_made = true;
            self.reservations.failed.remove(&node);
            Counters::count(&self.mesh.shared.counters.reservations);
            tracing::debug!(relay = %node, "a reservation was made");
        }
    }

    /// A listener has ended: a reservation is lost, if it was one.
    pub(super) fn reservation_ended(&mut self, listener: ListenerId, why: &str) {
        if let Some(node) = self.reservations.of(listener) {
            if let Some(held) = self.reservations.held.get_mut(&node) {
                held.listener = None;
            }
            self.reservation_failed(node, why);
        }
    }

    fn reservation_failed(&mut self, node: NodeId, why: &str) {
        let Some(held) = self.reservations.held.remove(&node) else {
            return;
        };
        if let Some(listener) = held.listener {
            // It is not there any more, or ends now.
            let _ = self.swarm.remove_listener(listener);
        }
        tracing::info!(relay = %node, why, "there is no reservation");
        let failed = self.reservations.failed.entry(node).or_default();
        let delay = self.backoff.delay(failed.attempt, rand::random());
        failed.attempt = failed.attempt.saturating_add(1);
        failed.next = Some(Instant::now() + delay);
        self.mesh.shared.say(PeerEvent::Unreserved { relay: node });
    }

    /// Whether a peer is a relay that is in use.
    pub(super) fn is_used_as_relay(&self, node: NodeId) -> bool {
        self.reservations.held.contains_key(&node) || self.control.connections.lead_through(node)
    }
}

/// Connects to a relay, and shows it what lets this node reserve.
async fn prepare(
    mesh: &Mesh,
    control: &Control,
    node: NodeId,
    addresses: Vec<String>,
    shown: Vec<Bytes>,
) -> Result<(), String> {
    use tokio::time::timeout;
    let limits = &mesh.shared.limits;
    let connecting = timeout(limits.open, control.connect(node, addresses)).await;
    connecting
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    for (number, shown) in shown.into_iter().enumerate() {
        let Some(connection) = control
            .connections
            .of(node)
            .into_iter()
            .find(|known| !known.is_relayed())
        else {
            return Err("the connection ended".into());
        };
        let showing = async {
            let opening = control
                .opener
                .open(connection.id, StreamProtocol::new(dawn_relay::token::TOKEN));
            let mut stream = opening.await.map_err(std::io::Error::other)?;
            dawn_relay::token::show(&mut stream, &shown).await
        };
        match timeout(limits.handshake, showing).await {
            Ok(Ok(Ok(()))) => {}
            // A revocation of before a relay's time may be no news, or of no use to it.
            Ok(Ok(Err(_))) if number > 0 => {}
            Ok(Ok(Err(reason))) => return Err(reason),
            // Other relays know no tokens.
            Ok(Err(error)) => {
                tracing::debug!(relay = %node, %error, "a relay takes no tokens");
                return Ok(());
            }
            Err(_) => return Err("no answer in time".into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservations(relays: &[NodeId]) -> Reservations {
        let address = |node: &NodeId| format!("/ip4/192.0.2.1/tcp/1/p2p/{node}");
        Reservations::new(Relaying {
            relays: relays.iter().map(address).collect(),
            ..Relaying::default()
        })
    }

    fn held(until: Instant) -> Held {
        Held {
            listener: None,
            is_made: true,
            until,
        }
    }

    #[test]
    fn as_many_reservations_are_made_as_are_wanted_and_elsewhere_when_one_fails() {
        let nodes = [1, 2, 3].map(|seed| dawn_identity::Keypair::from_seed([seed; 32]).node_id());
        let (mut reservations, now) = (reservations(&nodes), Instant::now());
        for node in &nodes[..2] {
            assert_eq!(reservations.next(now).0, Some(*node));
            reservations.held.insert(*node, held(now));
        }
        assert_eq!(reservations.next(now), (None, None));
        reservations.held.remove(&nodes[0]);
        let next = now + Duration::from_secs(1);
        let failed = Failed {
            attempt: 1,
            next: Some(next),
        };
        reservations.failed.insert(nodes[0], failed);
        assert_eq!(reservations.next(now), (Some(nodes[2]), Some(next)));
        reservations.held.insert(nodes[2], held(now));
        reservations.held.remove(&nodes[1]);
        reservations.failed.insert(
            nodes[1],
            Failed {
                attempt: 1,
                next: Some(next),
            },
        );
        assert_eq!(reservations.next(now), (None, Some(next)));
        assert_eq!(reservations.next(next).0, Some(nodes[0]));
    }

    #[test]
    fn a_relay_is_an_address_that_ends_in_its_peer_and_leads_through_no_other() {
        let node = dawn_identity::Keypair::from_seed([1; 32]).node_id();
        assert!(relay(&format!("/ip4/192.0.2.1/tcp/1/p2p/{node}")).is_some());
        assert!(relay("/ip4/192.0.2.1/tcp/1").is_none());
        assert!(relay(&format!("/ip4/192.0.2.1/tcp/1/p2p/{node}/p2p-circuit/p2p/{node}")).is_none());
    }
}
