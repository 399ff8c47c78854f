//! Reservations at relays: so many are kept as are wanted, and one is begun elsewhere when one ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_identity::NodeId;
use libp2p::Multiaddr;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol as Part;
use tokio_util::task::AbortOnDropHandle;

use super::Actor;
use super::address::{ip_and_port, is_circuit, node_id, peer_id};
use super::reserve::{Lost, Reserving};
use crate::handle::lock;
use crate::nat::{Scope, scope};
use crate::peer::{Counters, PeerEvent};
use crate::relaying::{KnownRelay, RelayInfo, RelayState, Relaying};

/// Relays that are remembered of those told.
const RELAYS: usize = 256;
/// Addresses of one relay under which others are told to find this node.
const LISTENS: usize = 8;
/// The longest pause before a relay of the configuration is tried again: one that was started again is to be used again
/// within seconds.
const LONGEST: Duration = Duration::from_secs(10);
/// A reservation that was kept for so long is no failure when it ends.
const LONG: Duration = Duration::from_secs(60);

/// A reservation that there is, or that is being made.
struct Held {
    /// Which try it is: the word of another counts no more.
    attempt: u64,
    /// Makes and keeps it.
    _task: AbortOnDropHandle<()>,
    /// Where it is listened, once it is made.
    listeners: Vec<ListenerId>,
    made: Option<Instant>,
}

/// A relay at which this node does not reserve now.
#[derive(Default)]
struct Failed {
    attempt: u32,
    next: Option<Instant>,
    /// Why, at the last try.
    why: Option<Lost>,
    /// It is in the log that it refuses this node.
    is_told: bool,
}

/// The reservations of this node.
pub(super) struct Reservations {
    relaying: Relaying,
    /// Where the relays are: those of the configuration, and those of members.
    written: Vec<(NodeId, Multiaddr)>,
    told: Vec<(NodeId, Multiaddr)>,
    held: BTreeMap<NodeId, Held>,
    failed: HashMap<NodeId, Failed>,
    attempts: u64,
    /// While this node is apart, it reserves nowhere.
    is_apart: bool,
}

/// A relay and its address without it.
fn relay(address: &str) -> Option<(NodeId, Multiaddr)> {
    let mut address: Multiaddr = address.parse().ok()?;
    match address.pop()? {
        Part::P2p(peer) if !is_circuit(&address) => Some((node_id(peer)?, address)),
        _ => None,
    }
}

/// Whether far nodes may reach an address: a name, or a public one.
fn is_public(address: &Multiaddr) -> bool {
    ip_and_port(address).is_none_or(|(ip, ..)| scope(ip) == Scope::Public)
}

impl Reservations {
    pub(super) fn new(relaying: Relaying) -> Self {
        Self {
            written: relaying.relays.iter().filter_map(|address| relay(address)).collect(),
            relaying,
            told: Vec::new(),
            held: BTreeMap::new(),
            failed: HashMap::new(),
            attempts: 0,
            is_apart: false,
        }
    }

    fn known(&self) -> impl Iterator<Item = &(NodeId, Multiaddr)> {
        self.written.iter().chain(&self.told)
    }

    fn is_known(&self, node: NodeId) -> bool {
        self.known().any(|(known, _)| *known == node)
    }

    /// The relays of the configuration.
    pub(super) fn written(&self) -> HashSet<NodeId> {
        self.written.iter().map(|(node, _)| *node).collect()
    }

    fn addresses(&self, node: NodeId) -> Vec<Multiaddr> {
        self.known()
            .filter(|(known, _)| *known == node)
            .map(|(_, address)| address.clone())
            .collect()
    }

    /// The addresses of a relay under which others are told to find this node: of those that this node knew before, the
    /// one that it dialled first. What a relay says of itself is not asked.
    fn listens(&self, node: NodeId, dialled: Option<&str>) -> Vec<Multiaddr> {
        let dialled = dialled.and_then(|address| address.parse::<Multiaddr>().ok());
        let dialled = dialled.map(|address| {
            let own = |part: &Part<'_>| !matches!(part, Part::P2p(_));
            address.iter().filter(own).collect::<Multiaddr>()
        });
        let mut known = self.addresses(node);
        if known.is_empty() {
            known.extend(dialled.clone());
        }
        known.sort_by_key(|address| (Some(address) != dialled.as_ref(), !is_public(address)));
        known.dedup();
        known.truncate(LISTENS);
        known
    }

    /// How it stands with the relays of the configuration, and with those of others at which this node reserves.
    fn shown(&self) -> Vec<RelayInfo> {
        let (mut seen, mut shown) = (HashSet::new(), Vec::new());
        for (node, _) in self.known().filter(|(node, _)| seen.insert(*node)) {
            let held = self.held.get(node);
            let lost = self.failed.get(node).and_then(|failed| failed.why.as_ref());
            let state = match (held, lost) {
                (Some(held), _) if held.made.is_some() => RelayState::Reserved,
                (_, Some(lost)) if lost.is_refused => RelayState::Refused(lost.why.clone()),
                (_, Some(lost)) => RelayState::Failed(lost.why.clone()),
                (Some(_), None) => RelayState::Asking,
                (None, None) => RelayState::Spare,
            };
            let is_configured = self.written.iter().any(|(written, _)| written == node);
            if is_configured || state != RelayState::Spare {
                shown.push(RelayInfo {
                    node: *node,
                    addresses: self.addresses(*node).iter().map(ToString::to_string).collect(),
                    is_configured,
                    state,
                });
            }
        }
        shown
    }

    /// The next relay to reserve at, and when something is due.
    fn next(&self, now: Instant) -> (Option<NodeId>, Option<Instant>) {
        if self.is_apart || self.held.len() >= self.relaying.wanted {
            return (None, None);
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
        (ready, free.iter().filter_map(at).min())
    }
}

impl Actor {
    /// The relays beside those of the configuration, in the place of those told before. Reservations at others end.
    pub(super) fn set_relays(&mut self, relays: Vec<KnownRelay>) {
        let local = self.mesh.shared.local;
        let (mut told, mut tokens) = (Vec::new(), HashMap::new());
        for KnownRelay { address, token } in relays.into_iter().take(RELAYS) {
            let Some((node, address)) = relay(&address).filter(|(node, _)| *node != local) else {
                continue;
            };
            if let Some(token) = token {
                tokens.insert(node, Bytes::from(token));
            }
            told.push((node, address));
        }
        self.reservations.told = told;
        self.control.credentials.set_told(tokens);
        let held: Vec<NodeId> = self.reservations.held.keys().copied().collect();
        for node in held {
            if !self.reservations.is_known(node) {
                self.drop_reservation(node, "it relays no more");
            }
        }
        let known: HashSet<NodeId> = self.reservations.known().map(|(node, _)| *node).collect();
        self.reservations.failed.retain(|node, _| known.contains(node));
        self.show_relays();
    }

    fn show_relays(&self) {
        *lock(&self.mesh.shared.relays) = self.reservations.shown();
    }

    /// When a reservation is to be begun.
    pub(super) fn next_reservation(&self) -> Option<Instant> {
        let now = Instant::now();
        match self.reservations.next(now) {
            (Some(_), _) => Some(now),
            (None, at) => at,
        }
    }

    /// Begins reservations that are wanted.
    pub(super) fn reserve_due(&mut self, now: Instant) {
        while let (Some(node), _) = self.reservations.next(now) {
            self.reservations.attempts += 1;
            let attempt = self.reservations.attempts;
            let reserving = Reserving {
                mesh: self.mesh.clone(),
                control: self.control.clone(),
                relay: node,
                addresses: self.reservations.addresses(node),
                attempt,
                revocations: self.reservations.relaying.revocations.clone(),
            };
            let held = Held {
                attempt,
                _task: AbortOnDropHandle::new(tokio::spawn(reserving.keep())),
                listeners: Vec::new(),
                made: None,
            };
            self.reservations.held.insert(node, held);
            self.show_relays();
        }
    }

    /// A reservation was made: from now on it is listened there.
    pub(super) fn reserved(&mut self, node: NodeId, attempt: u64, dialled: Option<&str>) {
        let addresses = self.reservations.listens(node, dialled);
        let is_this = |held: &&mut Held| held.attempt == attempt && held.made.is_none();
        let Some(held) = self.reservations.held.get_mut(&node).filter(is_this) else {
            return;
        };
        held.made = Some(Instant::now());
        Counters::count(&self.mesh.shared.counters.reservations);
        tracing::debug!(relay = %node, "a reservation was made");
        for address in addresses {
            let Some(peer) = peer_id(node) else { break };
            match self
                .swarm
                .listen_on(address.with(Part::P2p(peer)).with(Part::P2pCircuit))
            {
                Ok(listener) => held.listeners.push(listener),
                Err(error) => tracing::debug!(relay = %node, %error, "it is not listened there"),
            }
        }
        if held.listeners.is_empty() {
            return self.unreserved(node, attempt, &"its address is not known".into());
        }
        if let Some(failed) = self.reservations.failed.get_mut(&node) {
            (failed.why, failed.is_told) = (None, false);
        }
        self.show_relays();
    }

    /// There is no reservation, or none any more.
    pub(super) fn unreserved(&mut self, node: NodeId, attempt: u64, lost: &Lost) {
        let held = self.reservations.held.get(&node);
        let Some(held) = held.filter(|held| held.attempt == attempt) else {
            return;
        };
        let mut pauses = self.backoff;
        if self.reservations.written().contains(&node) {
            pauses.max = pauses.max.min(LONGEST);
        }
        let was_long = held.made.is_some_and(|made| made.elapsed() >= LONG);
        let failed = self.reservations.failed.entry(node).or_default();
        if was_long {
            failed.attempt = 0;
        }
        let delay = pauses.delay(failed.attempt, rand::random());
        failed.attempt = failed.attempt.saturating_add(1);
        failed.next = Some(Instant::now() + delay);
        let lasts = lost.is_refused && failed.why.as_ref().is_some_and(|before| before.is_refused);
        if lasts && !std::mem::replace(&mut failed.is_told, true) {
            tracing::warn!(relay = %node, why = lost.why, "a relay refuses this node; see `dawn netcheck`");
        }
        failed.why = Some(lost.clone());
        self.drop_reservation(node, &lost.why);
        self.show_relays();
    }

    /// Keeps no reservations while this node is apart: nobody but its host has a connection with it.
    pub(super) fn reserve_apart(&mut self, is_apart: bool) {
        self.reservations.is_apart = is_apart;
        if !is_apart {
            return self.reserve_anew();
        }
        let held: Vec<NodeId> = self.reservations.held.keys().copied().collect();
        for node in held {
            self.drop_reservation(node, "this node is apart");
        }
        self.show_relays();
    }

    /// Relays that failed are tried again without a pause.
    pub(super) fn reserve_anew(&mut self) {
        for failed in self.reservations.failed.values_mut() {
            (failed.attempt, failed.next) = (0, None);
        }
    }

    fn drop_reservation(&mut self, node: NodeId, why: &str) {
        let Some(held) = self.reservations.held.remove(&node) else {
            return;
        };
        for listener in held.listeners {
            self.swarm.remove_listener(listener);
        }
        tracing::info!(relay = %node, why, "there is no reservation");
        self.mesh.shared.say(PeerEvent::Unreserved { relay: node });
    }

    /// Whether a peer is a relay that learns no more of this node than the token that it is shown: one of the
    /// configuration or named with a token, which is not wanted as a member.
    pub(super) fn is_shown_a_token(&self, node: NodeId) -> bool {
        let is_wanted = self.kept.contains_key(&node) || self.book.contains_key(&node);
        self.control.credentials.token(node).is_some() && !is_wanted
    }
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

    fn held() -> Held {
        Held {
            attempt: 1,
            _task: AbortOnDropHandle::new(tokio::spawn(std::future::pending())),
            listeners: Vec::new(),
            made: None,
        }
    }

    #[tokio::test]
    async fn as_many_reservations_are_made_as_are_wanted_and_elsewhere_when_one_fails() {
        let nodes = [1, 2, 3].map(|seed| dawn_identity::Keypair::from_seed([seed; 32]).node_id());
        let (mut reservations, now) = (reservations(&nodes), Instant::now());
        for node in &nodes[..2] {
            assert_eq!(reservations.next(now).0, Some(*node));
            reservations.held.insert(*node, held());
        }
        assert_eq!(reservations.next(now), (None, None));
        reservations.held.remove(&nodes[0]);
        let next = now + Duration::from_secs(1);
        let failed = Failed {
            attempt: 1,
            next: Some(next),
            ..Failed::default()
        };
        reservations.failed.insert(nodes[0], failed);
        assert_eq!(reservations.next(now), (Some(nodes[2]), Some(next)));
        reservations.held.insert(nodes[2], held());
        reservations.held.remove(&nodes[1]);
        reservations.failed.insert(
            nodes[1],
            Failed {
                attempt: 1,
                next: Some(next),
                ..Failed::default()
            },
        );
        assert_eq!(reservations.next(now), (None, Some(next)));
        assert_eq!(reservations.next(next).0, Some(nodes[0]));
    }

    #[tokio::test]
    async fn it_is_said_of_each_relay_whether_it_is_used_and_why_not() {
        let nodes = [1, 2, 3, 4].map(|seed| dawn_identity::Keypair::from_seed([seed; 32]).node_id());
        let mut reservations = reservations(&nodes);
        let made = Held {
            made: Some(Instant::now()),
            ..held()
        };
        reservations.held.extend([(nodes[0], made), (nodes[1], held())]);
        let lost = |why: &str, is_refused| Failed {
            why: Some(Lost {
                why: why.to_owned(),
                is_refused,
            }),
            ..Failed::default()
        };
        // What it was before a reservation was made counts no more; while it is asked again it does.
        reservations.failed.insert(nodes[0], lost("late", false));
        reservations
            .failed
            .insert(nodes[1], lost("the token is not known here", true));
        reservations.failed.insert(nodes[2], lost("late", false));
        let states: Vec<RelayState> = reservations.shown().into_iter().map(|relay| relay.state).collect();
        let expected = [
            RelayState::Reserved,
            RelayState::Refused("the token is not known here".into()),
            RelayState::Failed("late".into()),
            RelayState::Spare,
        ];
        assert_eq!(states, expected);
        reservations.told = std::mem::take(&mut reservations.written);
        assert_eq!(reservations.shown().len(), 3, "spare ones of others are not shown");
    }

    #[test]
    fn who_is_apart_reserves_nowhere() {
        let node = dawn_identity::Keypair::from_seed([1; 32]).node_id();
        let (mut reservations, now) = (reservations(&[node]), Instant::now());
        reservations.is_apart = true;
        assert_eq!(reservations.next(now), (None, None));
        reservations.is_apart = false;
        assert_eq!(reservations.next(now).0, Some(node));
    }

    #[test]
    fn a_relay_is_an_address_that_ends_in_its_peer_and_leads_through_no_other() {
        let node = dawn_identity::Keypair::from_seed([1; 32]).node_id();
        assert!(relay(&format!("/ip4/192.0.2.1/tcp/1/p2p/{node}")).is_some());
        assert!(relay("/ip4/192.0.2.1/tcp/1").is_none());
        assert!(relay(&format!("/ip4/192.0.2.1/tcp/1/p2p/{node}/p2p-circuit/p2p/{node}")).is_none());
    }

    #[test]
    fn it_is_listened_where_a_relay_was_known_to_be_first_where_it_was_dialled_and_at_so_many_places() {
        let node = dawn_identity::Keypair::from_seed([1; 32]).node_id();
        let [lan, public, name] = [
            "/ip4/192.168.1.2/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
            "/dns4/relay.example/udp/1/quic-v1",
        ];
        let known = |addresses: &[&str]| {
            Reservations::new(Relaying {
                relays: addresses
                    .iter()
                    .map(|address| format!("{address}/p2p/{node}"))
                    .collect(),
                ..Relaying::default()
            })
        };
        let all = known(&[lan, public, name]);
        let listens = |reservations: &Reservations, dialled: Option<&str>| -> Vec<String> {
            let listens = reservations.listens(node, dialled);
            listens.iter().map(ToString::to_string).collect()
        };
        assert_eq!(listens(&all, Some(&format!("{lan}/p2p/{node}"))), [lan, public, name]);
        assert_eq!(listens(&all, Some(name)), [name, public, lan]);
        assert_eq!(listens(&all, None), [public, name, lan]);
        // Where it was dialled for another reason says nothing, unless nothing else is known.
        assert_eq!(listens(&known(&[public]), Some("/ip4/192.168.1.9/tcp/9")), [public]);
        assert_eq!(listens(&known(&[]), Some(lan)), [lan]);
        let many: Vec<String> = (1..40).map(|port| format!("/ip4/8.8.8.8/tcp/{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(listens(&known(&many), None).len(), LISTENS);
    }
}
