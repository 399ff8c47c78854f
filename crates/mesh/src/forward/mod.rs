//! Forwarded routes: streams to members that are not connected, carried by other members, readable by none of them.
//!
//! ```text
//!  streams ──yamux──▶ session ──records──▶ path: secure channel over a carrier ──▶ member ──▶ member ──▶ peer
//! ```
//!
//! `discovery` finds which members are in between, `carrier` is what they do, `path` is one way with a secure channel
//! of its own, `session` keeps what is under way when a path dies, `tunnel` multiplexes streams over the session, and
//! `connect` finds and makes paths.

mod carrier;
mod config;
mod connect;
mod discovery;
mod path;
mod places;
mod queries;
mod query;
mod record;
mod session;
mod tunnel;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dawn_channel::transport::CloseCode;
use dawn_channel::{KnownPeer, Party, SessionId};
use dawn_identity::{NodeId, UnixTime};
use tokio::sync::{Notify, broadcast};

use crate::error::OpenError;
use crate::handle::{Incoming, Mesh, lock};
use crate::peer::{Audience, Counters, Gate, Peer, PeerEvent, PeerInfo, Route};
use crate::pubsub::Published;
use carrier::{Carriers, Refused};
use discovery::{Discovery, Found, Then};
use path::{Ends, Path, PathError};
use places::{Place, Places};
use session::{Session, SessionLimits};
use tunnel::Command;

pub(crate) use carrier::FORWARD;
pub(crate) use tunnel::Tunnel;

pub use config::{ForwardConfig, Forwarding, MAX_HOPS, MIN_WINDOW, PartySource};

/// The parsers of what members send each other, for fuzzing and for tests.
pub mod wire {
    pub use super::carrier::{Refused, check_route, split_route};
    pub use super::query::{Answer, Asked, Query, QueryError, Told};

    /// Whether bytes are a message between the two ends of a route.
    #[must_use]
    pub fn decode_message(bytes: &[u8]) -> bool {
        super::record::Message::decode(bytes).is_ok()
    }
}

const QUERY: &str = "dawn/route/query";
const ANSWER: &str = "dawn/route/answer";
/// How long a peer may take to begin or resume a session.
const PATIENCE: Duration = Duration::from_secs(5);
/// Routes that are remembered of one node, and nodes of which.
const ROUTES: usize = 4;
const TARGETS: usize = 1024;
/// For how long.
const FRESH: Duration = Duration::from_secs(600);
/// Sessions that one node may have begun here.
const PER_PEER: usize = 2;
/// How long a newer session of a node waits until an older one has ended.
const REPLACED: Duration = Duration::from_secs(2);
/// A node to which no route was found is not looked for again within this.
const REST: Duration = Duration::from_millis(500);

/// What is remembered of a node that was asked for.
#[derive(Default)]
struct Target {
    /// The newest first.
    routes: Vec<(Instant, Vec<NodeId>)>,
    key: Option<KnownPeer>,
}

/// One tunnel to a node is made at a time.
#[derive(Default)]
struct Making(tokio::sync::Mutex<Option<(Instant, String)>>);

/// The forwarded routes of one mesh.
pub(crate) struct Forward {
    forwarding: Forwarding,
    pub(crate) config: ForwardConfig,
    pub(crate) carriers: Arc<Carriers>,
    discovery: Mutex<Discovery>,
    targets: Mutex<HashMap<NodeId, Target>>,
    /// A route was found.
    found: Notify,
    tunnels: Mutex<HashMap<SessionId, Tunnel>>,
    /// For the tunnels that this node begins.
    begun: Arc<Places>,
    /// For those that peers begin.
    taken: Arc<Places>,
    making: Mutex<HashMap<NodeId, Arc<Making>>>,
}

fn time() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// Asks the gate about the member at the other end of a tunnel, which ends if it is refused.
fn recheck(tunnel: &Tunnel, gate: &dyn Gate) {
    if let Err(refusal) = tunnel.recheck(gate) {
        tracing::info!(node = %tunnel.node(), %refusal, "a member is cut");
        let words = "the membership is not accepted any more";
        tunnel.tell(Command::End(CloseCode::Refused, words));
    }
}

impl Forward {
    pub(crate) fn new(local: NodeId, forwarding: Forwarding) -> Self {
        let config = forwarding.config.clone();
        Self {
            carriers: Carriers::new(config.clone()),
            discovery: Mutex::new(Discovery::new(local, config.clone())),
            forwarding,
            begun: Places::new(config.tunnels, config.tunnels),
            taken: Places::new(config.tunnels, PER_PEER),
            config,
            targets: Mutex::default(),
            found: Notify::new(),
            tunnels: Mutex::default(),
            making: Mutex::default(),
        }
    }

    /// What queries and answers are sealed and read with, now.
    fn sealing<'a>(&self, party: &'a Party) -> query::Now<'a> {
        query::Now {
            network: self.forwarding.network,
            party,
            time: time(),
            at: Instant::now(),
        }
    }

    fn ends(&self, mesh: &Mesh) -> Ends {
        Ends {
            network: self.forwarding.network,
            party: (self.forwarding.party)(),
            signing: self.config.signing,
            clock_skew: self.config.clock_skew,
            chain_bytes: mesh.shared.limits.chain_bytes,
            record_bytes: SessionLimits::default().record,
        }
    }

    /// What this node takes of the other end of a session without having acknowledged it.
    fn window(&self) -> usize {
        self.config.window.max(MIN_WINDOW)
    }

    fn session(&self, peer_window: u32) -> Session {
        let limits = SessionLimits {
            window: self.window(),
            ..SessionLimits::default()
        };
        Session::new(limits, usize::try_from(peer_window).unwrap_or(usize::MAX))
    }

    /// The routes to a node that are known.
    fn routes(&self, node: NodeId) -> Vec<Found> {
        let targets = lock(&self.targets);
        let Some(target) = targets.get(&node) else {
            return Vec::new();
        };
        let fresh = target.routes.iter().filter(|(at, _)| at.elapsed() < FRESH);
        fresh
            .map(|(_, via)| Found {
                target: node,
                via: via.clone(),
                known: target.key,
            })
            .collect()
    }

    fn known(&self, node: NodeId) -> Option<KnownPeer> {
        lock(&self.targets).get(&node)?.key
    }

    fn forget_route(&self, node: NodeId, via: &[NodeId]) {
        if let Some(target) = lock(&self.targets).get_mut(&node) {
            target.routes.retain(|(_, known)| known != via);
        }
    }

    fn forget_key(&self, node: NodeId) {
        if let Some(target) = lock(&self.targets).get_mut(&node) {
            target.key = None;
        }
    }

    fn remember(&self, found: Found) {
        let mut targets = lock(&self.targets);
        if targets.len() >= TARGETS && !targets.contains_key(&found.target) {
            targets.retain(|_, target| target.routes.iter().any(|(at, _)| at.elapsed() < FRESH));
            if targets.len() >= TARGETS {
                return;
            }
        }
        let target = targets.entry(found.target).or_default();
        target.routes.retain(|(_, known)| *known != found.via);
        target.routes.insert(0, (Instant::now(), found.via));
        target.routes.truncate(ROUTES);
        target.key = found.known.or(target.key);
        drop(targets);
        self.found.notify_waiters();
    }

    fn tunnels(&self) -> Vec<Tunnel> {
        lock(&self.tunnels).values().cloned().collect()
    }

    /// Nodes that tunnels lead to.
    pub(crate) fn reached(&self) -> Vec<NodeId> {
        lock(&self.tunnels).values().map(Tunnel::node).collect()
    }

    fn tunnel_of(&self, session: SessionId) -> Option<Tunnel> {
        lock(&self.tunnels).get(&session).cloned()
    }

    /// A place for another session of a peer. One that has begun too many loses the oldest.
    async fn place_for(&self, peer: NodeId) -> Option<Place> {
        let make_room = || {
            let tunnels = self.tunnels().into_iter();
            let own = tunnels.filter(|tunnel| !tunnel.is_initiator() && tunnel.node() == peer && !tunnel.is_over());
            if let Some(oldest) = own.min_by_key(|tunnel| (tunnel.has_path(), tunnel.since())) {
                oldest.tell(Command::End(CloseCode::Busy, "a newer session has taken its place"));
            }
        };
        let place = tokio::time::timeout(REPLACED, self.taken.replace(peer, make_room)).await;
        place.ok()?.ok()
    }

    /// Keeps a tunnel. Its peer is asked about again: who was put out since it was let in found no tunnel to be cut.
    fn add(&self, tunnel: &Tunnel, gate: &dyn Gate) {
        lock(&self.tunnels).insert(tunnel.id(), tunnel.clone());
        recheck(tunnel, gate);
        // Its driver may have ended already.
        if tunnel.is_over() {
            lock(&self.tunnels).remove(&tunnel.id());
        }
    }
}

impl Mesh {
    pub(crate) fn forward(&self) -> Option<&Forward> {
        self.shared.forward.get()
    }

    fn forward_config(&self) -> ForwardConfig {
        self.forward().map(|forward| forward.config.clone()).unwrap_or_default()
    }

    /// Serves forwarded routes.
    pub(crate) fn begin_forwarding(&self, forwarding: Forwarding) {
        if self
            .shared
            .forward
            .set(Forward::new(self.shared.local, forwarding))
            .is_err()
        {
            return;
        }
        let (queries, answers) = (self.subscribe(QUERY), self.subscribe(ANSWER));
        tokio::spawn(discover(self.clone(), queries, answers, self.events()));
        if let Ok(incoming) = self.accept(FORWARD, Audience::Neighbours) {
            tokio::spawn(serve(self.clone(), incoming));
        }
    }

    /// A tunnel to a node that is in use: of several, one that has a path.
    pub(crate) fn tunnel(&self, node: NodeId) -> Option<Tunnel> {
        let tunnels = self.forward()?.tunnels().into_iter();
        tunnels
            .filter(|tunnel| tunnel.node() == node && !tunnel.is_over())
            // Who began a session brings it back, if it is still there.
            .filter(|tunnel| tunnel.has_path() || tunnel.is_initiator())
            .max_by_key(|tunnel| (tunnel.has_path(), tunnel.is_initiator()))
    }

    /// A tunnel to a node, made if there is none.
    pub(crate) async fn tunnel_to(&self, node: NodeId) -> Result<Tunnel, OpenError> {
        let forward = self.forward().ok_or(OpenError::Closed)?;
        let making = {
            let mut making = lock(&forward.making);
            let rests = |failed: &Option<(Instant, String)>| failed.as_ref().is_some_and(|(at, _)| at.elapsed() < REST);
            making.retain(|_, making| {
                Arc::strong_count(making) > 1 || making.0.try_lock().is_ok_and(|failed| rests(&failed))
            });
            Arc::clone(making.entry(node).or_default())
        };
        let mut failed = making.0.lock().await;
        if let Some(tunnel) = self.tunnel(node) {
            return Ok(tunnel);
        }
        if let Some((at, reason)) = failed.take()
            && at.elapsed() < REST
        {
            *failed = Some((at, reason.clone()));
            return Err(OpenError::NotConnected { node, reason });
        }
        let Ok(place) = forward.begun.take(node) else {
            let reason = "there are too many forwarded routes".into();
            return Err(OpenError::NotConnected { node, reason });
        };
        match connect::begin(self, node, place).await {
            Ok(beginning) => {
                let tunnel = Tunnel::start(self, forward.session(beginning.peer_window), beginning);
                Counters::count(&self.shared.counters.tunnels);
                forward.add(&tunnel, &*self.shared.gate);
                Ok(tunnel)
            }
            Err(error) => {
                if let OpenError::NotConnected { reason, .. } = &error {
                    *failed = Some((Instant::now(), reason.clone()));
                }
                Err(error)
            }
        }
    }

    pub(crate) fn tunnel_over(&self, tunnel: &Tunnel) {
        if let Some(forward) = self.forward() {
            lock(&forward.tunnels).remove(&tunnel.id());
        }
    }

    /// Asks every neighbour for routes to a node.
    fn ask_for_routes(&self, node: NodeId, wide: bool) {
        let Some(forward) = self.forward() else { return };
        let party = (forward.forwarding.party)();
        let sealing = forward.sealing(&party);
        let chain = self.shared.gate.own_chain();
        let asked = lock(&forward.discovery).ask(node, wide, chain, sealing, &mut rand::rng());
        match asked {
            Ok(bytes) => {
                Counters::count(&self.shared.counters.route_queries);
                self.publish(QUERY, &bytes.into());
            }
            Err(error) => tracing::debug!(%node, %error, "no route is asked for"),
        }
    }

    fn route_message(&self, message: &Published, is_query: bool) {
        let Some(forward) = self.forward() else { return };
        let party = (forward.forwarding.party)();
        let sealing = forward.sealing(&party);
        let then = if is_query {
            let mut neighbours: Vec<NodeId> = self.shared.with_members(|members| members.keys().copied().collect());
            neighbours.retain(|node| self.shared.apart.admits(*node).is_ok());
            let is_member = |node, chain: &[u8]| self.shared.gate.verify(node, chain).is_ok();
            let (from, mut rng) = (message.from, rand::rng());
            lock(&forward.discovery).query(from, &message.bytes, &neighbours, sealing, is_member, &mut rng)
        } else {
            lock(&forward.discovery).answer(message.from, &message.bytes, sealing)
        };
        match then {
            Ok(Then::Pass { to, bytes }) => {
                let bytes = Bytes::from(bytes);
                for node in to {
                    // A neighbour that is too slow is not part of the route.
                    let _sent = self.send_to(node, QUERY, bytes.clone());
                }
            }
            Ok(Then::Answer { to, bytes }) => {
                let _sent = self.send_to(to, ANSWER, bytes.into());
            }
            Ok(Then::Found(found)) => forward.remember(found),
            Ok(Then::Nothing) => {}
            Err(error) => {
                Counters::count(&self.shared.counters.refused_queries);
                tracing::debug!(from = %message.from, %error, "a message of route discovery is refused");
            }
        }
    }

    /// What the tunnels lead to, beside those who are connected.
    pub(crate) fn forwarded_peers(&self, connected: &[PeerInfo]) -> Vec<PeerInfo> {
        let Some(forward) = self.forward() else {
            return Vec::new();
        };
        let mut found: HashMap<NodeId, PeerInfo> = HashMap::new();
        for tunnel in forward.tunnels() {
            let node = tunnel.node();
            if connected.iter().any(|peer| peer.node == node) {
                continue;
            }
            let info = tunnel.status(|status| {
                let via = status.via.clone().filter(|via| !via.is_empty())?;
                Some(PeerInfo {
                    node,
                    membership: status.membership.clone(),
                    address: None,
                    transport: None,
                    dialled: None,
                    route: Route::Forwarded { via },
                    rtt: status.rtt,
                    since: tunnel.since(),
                })
            });
            if let Some(info) = info.filter(|_| tunnel.is_initiator() || !found.contains_key(&node)) {
                found.insert(node, info);
            }
        }
        found.into_values().collect()
    }

    /// Asks the gate again about the members at the other ends of tunnels, and ends the tunnels to those that it refuses.
    pub(crate) fn recheck_tunnels(&self) {
        for tunnel in self.forward().map(Forward::tunnels).unwrap_or_default() {
            recheck(&tunnel, &*self.shared.gate);
        }
    }

    pub(crate) fn show_tunnels_own_chain(&self) {
        let chain = Bytes::from(self.shared.gate.own_chain());
        for tunnel in self.forward().map(Forward::tunnels).unwrap_or_default() {
            tunnel.tell(Command::Chain(chain.clone()));
        }
    }

    /// Ends every tunnel, and waits a moment until the peers were told.
    pub(crate) async fn end_tunnels(&self) {
        const MOMENT: Duration = Duration::from_millis(500);
        let Some(forward) = self.forward() else { return };
        for tunnel in forward.tunnels() {
            tunnel.tell(Command::End(CloseCode::GoingAway, "the node shuts down"));
        }
        let ended = async {
            while !lock(&forward.tunnels).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Who is not told finds out by itself.
        let _ = tokio::time::timeout(MOMENT, ended).await;
    }

    /// Tunnels that are open.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.forward().map_or(0, |forward| lock(&forward.tunnels).len())
    }

    /// How many streams of other members are carried from now on, in all and of one neighbour.
    pub fn set_carriers(&self, all: usize, each: usize) {
        if let Some(forward) = self.forward() {
            forward.carriers.set_most(all, each);
        }
    }

    /// Streams of other members that are carried now.
    #[must_use]
    pub fn carriers(&self) -> usize {
        self.forward().map_or(0, |forward| forward.carriers.count())
    }
}

async fn discover(
    mesh: Mesh,
    mut queries: broadcast::Receiver<Published>,
    mut answers: broadcast::Receiver<Published>,
    mut events: broadcast::Receiver<PeerEvent>,
) {
    let stop = mesh.shared.stop.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(message) = next(&mut queries) => mesh.route_message(&message, true),
            Some(message) = next(&mut answers) => mesh.route_message(&message, false),
            Some(event) = next(&mut events) => {
                if let PeerEvent::MemberUp(Peer { node, .. }) | PeerEvent::RouteChanged { node, .. } = event {
                    let tunnels = mesh.forward().map(Forward::tunnels).unwrap_or_default().into_iter();
                    tunnels.filter(|tunnel| tunnel.node() == node).for_each(|tunnel| tunnel.tell(Command::Direct));
                }
            }
            else => return,
        }
    }
}

/// The next of what is told; `None` when nobody tells anything any more.
async fn next<T: Clone>(receiver: &mut broadcast::Receiver<T>) -> Option<T> {
    loop {
        match receiver.recv().await {
            Ok(told) => return Some(told),
            // What was missed is asked again by who wants to know.
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::info!(missed, "messages of route discovery were missed");
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

async fn serve(mesh: Mesh, mut incoming: Incoming) {
    while let Some(inbound) = incoming.next().await {
        let mesh = mesh.clone();
        tokio::spawn(async move {
            let Some(forward) = mesh.forward() else { return };
            let Some(stream) = carrier::serve(&mesh, &forward.carriers, inbound.stream).await else {
                return;
            };
            let answering = async {
                let path = Path::respond(stream, &forward.ends(&mesh)).await?;
                connect::answer(&mesh, path).await
            };
            match tokio::time::timeout(PATIENCE, answering).await {
                Ok(Ok(connect::Answered::Begun(beginning))) => {
                    let tunnel = Tunnel::start(&mesh, forward.session(beginning.peer_window), *beginning);
                    Counters::count(&mesh.shared.counters.tunnels);
                    forward.add(&tunnel, &*mesh.shared.gate);
                }
                Ok(Ok(connect::Answered::Resumed(tunnel, path, received))) => {
                    tunnel.tell(Command::Resume(path, received));
                }
                Ok(Err(error)) => {
                    if matches!(error, PathError::Refused(Refused::Unsigned)) {
                        Counters::count(&mesh.shared.counters.refused_carriers);
                    }
                    tracing::debug!(neighbour = %inbound.peer.node, %error, "a path did not come to be");
                }
                Err(_) => tracing::debug!(neighbour = %inbound.peer.node, "a path did not come to be in time"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_missed_some_of_what_is_told_hears_the_rest() {
        let (teller, mut told) = broadcast::channel(2);
        for number in 0..5 {
            teller.send(number).unwrap();
        }
        assert_eq!((next(&mut told).await, next(&mut told).await), (Some(3), Some(4)));
        drop(teller);
        assert_eq!(next(&mut told).await, None);
    }
}
