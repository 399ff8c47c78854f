//! Nodes that are *apart*: they have connections with one host and with nobody else; everybody else they reach, and are
//! reached by, through the host.
//!
//! A node that becomes apart tells so to those it is connected with, over `/dawn/apart/1` (its host's id), and opens new
//! streams through the host from then on, as they do. What runs over the connections that there are goes on: a connection
//! ends when no stream is left on it, when nothing was said on any of them for
//! [`MeshLimits::drain_quiet`](crate::MeshLimits::drain_quiet) and no answer is awaited, and after `drain_most` at the
//! latest. Whether an answer is awaited knows who answers ([`Answering`]): of its own streams the node itself, of those that
//! it opened the neighbour, which it asks over the same protocol: the byte that comes back is 1 where the neighbour still
//! works on something, and 0 otherwise. Who dials it later is told in the membership handshake through whom it is reached,
//! and takes that way at once.
//!
//! That a member is apart is believed for as long as its host is there. While the host is away the member may have come out
//! by itself, and has nobody through whom it could say so: then it is dialled again ([`Mesh::doubt_apart`]), and says itself
//! how it is.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::OpenError;
use crate::handle::{Incoming, Mesh, Protocol, lock};
use crate::peer::{Counters, PeerEvent};

/// A node says over it that it is apart.
pub(crate) const APART: Protocol = Protocol("/dawn/apart/1");
/// How long the word of it may take, each way.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection that ends has been without a stream for so long: what was opened before its end was told has come.
const GRACE: Duration = Duration::from_secs(2);
/// The answer of a neighbour that still works on something.
const OWES: u8 = 1;
/// How long nobody is asked again whether it does.
const ASKED: Duration = Duration::from_secs(2);
/// How often it is looked whether connections can end.
const LOOK: Duration = Duration::from_millis(250);
/// For so long it is waited for a host that was lost just now.
const LOST: Duration = Duration::from_secs(3);
/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(150);
/// A host has to be away for so long before those that are apart behind it are dialled.
const DOUBT: Duration = Duration::from_secs(5);
/// Before one that has said again that it is apart is dialled again.
const DOUBT_AGAIN: Duration = Duration::from_secs(20);

/// With whom a node has connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Neighbours {
    /// With anybody.
    #[default]
    All,
    /// With this one alone.
    Only(NodeId),
}

/// Why there is no connection between two members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are no connections with it: it is reached through {0}")]
pub(crate) struct Denied(pub(crate) NodeId);

/// What a stream does, as far as it says whether it can end.
#[derive(Debug)]
pub(crate) struct Use {
    /// When something moved last, as milliseconds since the state began.
    moved: AtomicU64,
    /// Whether what moved last was said by who opened the stream: then an answer is expected.
    awaits: AtomicBool,
    /// What who answers on it says: whether an answer is to come. Zero where it never said so; then what moved last decides.
    said: AtomicU8,
    is_opener: bool,
    begun: Instant,
}

/// Nothing is awaited.
const ANSWERED: u8 = 1;
/// An answer is to come.
const ANSWERING: u8 = 2;

/// How whoever answers on a stream says whether it owes an answer: bytes alone do not tell, since word of progress, a
/// question back, and the answer to something else come before it.
#[derive(Debug, Clone)]
pub struct Answering(pub(crate) Arc<Use>);

impl Answering {
    /// Whether an answer is to come. What was never said is guessed by who wrote last.
    pub fn set(&self, answering: bool) {
        let said = if answering { ANSWERING } else { ANSWERED };
        self.0.said.store(said, Ordering::Relaxed);
    }
}

impl Use {
    /// Something was written, or read.
    pub(crate) fn moved(&self, is_written: bool) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
        self.awaits.store(is_written == self.is_opener, Ordering::Relaxed);
    }

    fn awaits(&self) -> bool {
        match self.said.load(Ordering::Relaxed) {
            ANSWERED => false,
            ANSWERING => true,
            _ => self.awaits.load(Ordering::Relaxed),
        }
    }

    /// Whether this node owes an answer on a stream that the other one opened.
    fn owes(&self) -> bool {
        !self.is_opener && self.said.load(Ordering::Relaxed) == ANSWERING
    }

    fn is_quiet(&self, quiet: Duration) -> bool {
        let moved = self.begun + Duration::from_millis(self.moved.load(Ordering::Relaxed));
        !self.awaits() && moved.elapsed() >= quiet
    }
}

/// What is known of who is apart.
#[derive(Debug)]
pub(crate) struct State {
    local: NodeId,
    inner: Mutex<Inner>,
    uses: Mutex<HashMap<NodeId, Vec<Weak<Use>>>>,
}

#[derive(Debug, Default)]
struct Inner {
    rule: Neighbours,
    /// How often the rule changed.
    changes: u64,
    /// Members that are apart, and their hosts.
    behind: HashMap<NodeId, NodeId>,
    /// Since when hosts are away.
    lost: HashMap<NodeId, Instant>,
    /// Of those members, whose word was doubted.
    doubts: HashMap<NodeId, Doubt>,
}

/// Whether a member is apart still is not known, as its host is away.
#[derive(Debug)]
struct Doubt {
    since: Instant,
    /// Until it has said again that it is.
    is_open: bool,
}

impl Inner {
    fn is_doubted(&self, node: &NodeId) -> bool {
        self.doubts.get(node).is_some_and(|doubt| doubt.is_open)
    }
}

impl State {
    pub(crate) fn new(local: NodeId) -> Arc<Self> {
        Arc::new(Self {
            local,
            inner: Mutex::default(),
            uses: Mutex::default(),
        })
    }

    /// This node's host, if it is apart.
    pub(crate) fn host(&self) -> Option<NodeId> {
        match lock(&self.inner).rule {
            Neighbours::All => None,
            Neighbours::Only(host) => Some(host),
        }
    }

    /// The host that a node is told of which this one does not take.
    pub(crate) fn turns_away(&self, node: NodeId) -> Option<NodeId> {
        self.host().filter(|host| *host != node)
    }

    /// Whether there may be a new connection with a node.
    pub(crate) fn admits(&self, node: NodeId) -> Result<(), Denied> {
        let inner = lock(&self.inner);
        match inner.rule {
            Neighbours::Only(host) if host != node => return Err(Denied(host)),
            Neighbours::Only(_) => return Ok(()),
            Neighbours::All => {}
        }
        match inner.behind.get(&node) {
            Some(host) if *host != self.local && !inner.is_doubted(&node) => Err(Denied(*host)),
            _ => Ok(()),
        }
    }

    /// The members in between on the way to a node that has to be taken; `None` where there is none of these.
    pub(crate) fn way(&self, node: NodeId) -> Option<Vec<NodeId>> {
        let inner = lock(&self.inner);
        let theirs = inner.behind.get(&node).copied().filter(|host| *host != self.local);
        match inner.rule {
            Neighbours::Only(host) if host == node => None,
            Neighbours::Only(host) => {
                let second = theirs.filter(|theirs| *theirs != host);
                Some(std::iter::once(host).chain(second).collect())
            }
            Neighbours::All => theirs.map(|host| vec![host]),
        }
    }

    /// Notes through whom a node is reached; whether that is new, or was doubted.
    pub(crate) fn set_behind(&self, node: NodeId, host: Option<NodeId>) -> bool {
        let mut inner = lock(&self.inner);
        let Some(host) = host.filter(|host| *host != node) else {
            inner.doubts.remove(&node);
            return inner.behind.remove(&node).is_some();
        };
        let doubt = inner.doubts.get_mut(&node);
        let was_doubted = doubt.is_some_and(|doubt| std::mem::take(&mut doubt.is_open));
        inner.behind.insert(node, host) != Some(host) || was_doubted
    }

    /// A node made a connection: it is not apart, or this node is its host. Whether it was taken for one that is.
    pub(crate) fn met(&self, node: NodeId) -> bool {
        let mut inner = lock(&self.inner);
        inner.lost.remove(&node);
        inner.doubts.remove(&node);
        let was_apart = inner.behind.get(&node).is_some_and(|host| *host != self.local);
        if was_apart {
            inner.behind.remove(&node);
        }
        was_apart
    }

    /// Whether a node said last that it is apart.
    fn is_apart(&self, node: NodeId) -> bool {
        lock(&self.inner).behind.contains_key(&node)
    }

    /// Whose word that they are apart is doubted from now on, since their hosts have been away for so long, and, with their
    /// hosts, whose no more.
    fn doubt(&self, is_there: impl Fn(NodeId) -> bool, long: Duration) -> Vec<(NodeId, Option<NodeId>)> {
        let mut inner = lock(&self.inner);
        let Inner {
            rule,
            behind,
            lost,
            doubts,
            ..
        } = &mut *inner;
        doubts.retain(|node, _| behind.contains_key(node));
        let (mut changed, may_dial) = (Vec::new(), *rule == Neighbours::All);
        for (node, host) in behind.iter().filter(|(_, host)| **host != self.local) {
            let is_lost = if is_there(*host) {
                lost.remove(host);
                false
            } else {
                lost.entry(*host).or_insert_with(Instant::now).elapsed() >= long
            };
            let doubt = doubts.get(node);
            if !(is_lost && may_dial) {
                if doubt.is_some_and(|doubt| doubt.is_open) {
                    changed.push((*node, Some(*host)));
                }
                doubts.remove(node);
            } else if doubt.is_none_or(|doubt| !doubt.is_open && doubt.since.elapsed() >= DOUBT_AGAIN) {
                let (since, is_open) = (Instant::now(), true);
                doubts.insert(*node, Doubt { since, is_open });
                changed.push((*node, None));
            }
        }
        changed
    }

    /// The connection with a node has ended.
    pub(crate) fn gone(&self, node: NodeId) {
        let mut inner = lock(&self.inner);
        let is_host = inner.rule == Neighbours::Only(node) || inner.behind.values().any(|host| *host == node);
        if is_host {
            inner.lost.insert(node, Instant::now());
        }
        drop(inner);
        // Its streams end with it.
        lock(&self.uses).remove(&node);
    }

    fn lost_at(&self, host: NodeId) -> Instant {
        *lock(&self.inner).lost.entry(host).or_insert_with(Instant::now)
    }

    /// Takes a rule; the number of the change, if it is one.
    fn set_rule(&self, rule: Neighbours) -> Option<u64> {
        let mut inner = lock(&self.inner);
        if inner.rule == rule {
            return None;
        }
        inner.rule = rule;
        inner.changes += 1;
        Some(inner.changes)
    }

    fn is_current(&self, change: u64) -> bool {
        lock(&self.inner).changes == change
    }

    /// A stream with a node, which its connection does not end before.
    pub(crate) fn used(&self, node: NodeId, is_opener: bool) -> Arc<Use> {
        let used = Arc::new(Use {
            moved: AtomicU64::default(),
            awaits: AtomicBool::new(true),
            said: AtomicU8::default(),
            is_opener,
            begun: Instant::now(),
        });
        let mut uses = lock(&self.uses);
        let of_node = uses.entry(node).or_default();
        // Those that are over go whenever there are twice as many as before.
        if of_node.len() == of_node.capacity() {
            of_node.retain(|used| used.strong_count() > 0);
        }
        of_node.push(Arc::downgrade(&used));
        used
    }

    /// The streams with a node.
    fn uses(&self, node: NodeId) -> Vec<Arc<Use>> {
        let mut uses = lock(&self.uses);
        let Some(of_node) = uses.get_mut(&node) else {
            return Vec::new();
        };
        of_node.retain(|used| used.strong_count() > 0);
        let open = of_node.iter().filter_map(Weak::upgrade).collect();
        if of_node.is_empty() {
            uses.remove(&node);
        }
        open
    }
}

impl Mesh {
    /// With whom this node has connections from now on. Those with others end when nothing runs over them any more; what is
    /// opened from now on goes through the only neighbour that is left, which is kept connected.
    pub fn set_neighbours(&self, neighbours: Neighbours) {
        let before = self.shared.apart.host();
        let Some(change) = self.shared.apart.set_rule(neighbours) else {
            return;
        };
        if let Some(host) = before {
            self.forget(host);
        }
        self.backend_apart(matches!(neighbours, Neighbours::Only(_)));
        if let Neighbours::Only(host) = neighbours {
            self.keep(host, Vec::new());
            tokio::spawn(drain(self.clone(), host, change));
        }
    }

    /// With whom this node has connections.
    #[must_use]
    pub fn neighbours(&self) -> Neighbours {
        self.shared.apart.host().map_or(Neighbours::All, Neighbours::Only)
    }

    /// Notes that a member is apart, and through whom it is reached, or, with nothing, that it is not.
    pub fn reach_through(&self, node: NodeId, host: Option<NodeId>) {
        if self.shared.apart.set_behind(node, host) {
            self.shared.say(PeerEvent::Apart { node, host });
        }
    }

    /// Whether a member said last that it is reached through one host alone.
    #[must_use]
    pub fn is_apart(&self, node: NodeId) -> bool {
        self.shared.apart.is_apart(node)
    }

    /// Has members dialled that were apart, and whose hosts have been away for a while: they may have come out by
    /// themselves. Who has not says so again. `is_there` is asked whether a host is.
    pub fn doubt_apart(&self, is_there: impl Fn(NodeId) -> bool) {
        for (node, host) in self.shared.apart.doubt(is_there, DOUBT) {
            tracing::debug!(%node, ?host, "a member's host is away, or is back");
            self.shared.say(PeerEvent::Apart { node, host });
        }
    }

    /// Whether there may be a new connection with a node.
    pub(crate) fn check_apart(&self, node: NodeId) -> Result<(), OpenError> {
        let admitted = self.shared.apart.admits(node);
        admitted.map_err(|Denied(host)| OpenError::Apart { node, host })
    }

    /// Opens a stream that has to go through these members.
    pub(crate) async fn open_behind(
        &self,
        node: NodeId,
        via: &[NodeId],
        protocol: Protocol,
    ) -> Result<crate::MeshStream, OpenError> {
        if let Some(tunnel) = self.tunnel(node).filter(crate::forward::Tunnel::has_path) {
            return tunnel.open(protocol).await;
        }
        if let Some(host) = via.first() {
            self.reach_host(*host, node).await?;
        }
        self.tunnel_to(node).await?.open(protocol).await
    }

    /// Waits a moment for the host through which alone a node is reached.
    async fn reach_host(&self, host: NodeId, node: NodeId) -> Result<(), OpenError> {
        if self.shared.peer(host).is_some() {
            return Ok(());
        }
        let until = self.shared.apart.lost_at(host) + LOST;
        let connecting = async {
            while self.connect(host).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        if tokio::time::timeout_at(until.into(), connecting).await.is_ok() {
            return Ok(());
        }
        // It is looked for all the same, so that what is asked for next finds it.
        let mesh = self.clone();
        tokio::spawn(async move { mesh.connect(host).await });
        Err(OpenError::HostAway { node, host })
    }

    /// Whether streams of a node can be carried through others to `node`: makes a secure channel with it over this way, and
    /// gives it up again.
    ///
    /// # Errors
    /// There is no such way.
    pub async fn try_way(&self, node: NodeId, via: &[NodeId]) -> Result<Duration, OpenError> {
        let begun = Instant::now();
        let trying = self.try_path(node, via);
        match tokio::time::timeout(self.shared.limits.open, trying).await {
            Ok(tried) => tried.map(|()| begun.elapsed()),
            Err(_) => Err(OpenError::Timeout(node)),
        }
    }
}

/// Says to a neighbour that this node is apart from now on; whether it still works on something that this node asked for.
async fn tell(mesh: &Mesh, node: NodeId, host: NodeId) -> bool {
    let telling = async {
        let (_, cut) = mesh.shared.peer(node)?;
        let mut stream = mesh.backend_open(node, APART, cut).await.ok()?;
        stream.write_all(host.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        stream.read_u8().await.ok()
    };
    // Who does not hear it is told when it dials.
    let told = tokio::time::timeout(PATIENCE, telling).await.ok().flatten();
    tracing::debug!(%node, heard = told.is_some(), "a neighbour is told that this node is apart");
    told == Some(OWES)
}

/// Hears who is apart from now on.
pub(crate) async fn hear(mesh: Mesh, mut incoming: Incoming) {
    while let Some(mut inbound) = incoming.next().await {
        let mesh = mesh.clone();
        tokio::spawn(async move {
            let hearing = async {
                let mut host = [0; 32];
                let _ = inbound.stream.read_exact(&mut host).await?;
                mesh.reach_through(inbound.peer.node, Some(NodeId::from_bytes(host)));
                let mut uses = mesh.shared.apart.uses(inbound.peer.node).into_iter();
                let owes = uses.any(|used| used.owes());
                inbound.stream.write_u8(if owes { OWES } else { 0 }).await?;
                inbound.stream.flush().await?;
                // It ends when the other one has the answer.
                let _ended = inbound.stream.read_u8().await;
                Ok::<_, std::io::Error>(())
            };
            // Who says nothing has said nothing.
            let _ = tokio::time::timeout(PATIENCE, hearing).await;
        });
    }
}

/// Ends the connections with all but the host, each when nothing runs over it any more, while the rule is the same.
async fn drain(mesh: Mesh, host: NodeId, change: u64) {
    let limits = &mesh.shared.limits;
    let mut told: HashMap<NodeId, Instant> = HashMap::new();
    let mut unused: HashMap<NodeId, Instant> = HashMap::new();
    let mut owing: HashMap<NodeId, Instant> = HashMap::new();
    let stop = mesh.shared.stop.clone();
    while mesh.shared.apart.is_current(change) {
        let others: HashSet<NodeId> = mesh
            .shared
            .with_members(|members| members.keys().copied().filter(|node| *node != host).collect());
        told.retain(|node, _| others.contains(node));
        unused.retain(|node, _| others.contains(node));
        owing.retain(|_, asked| asked.elapsed() < ASKED);
        for node in others {
            let since = told.entry(node).or_insert_with(|| {
                let mesh = mesh.clone();
                tokio::spawn(async move { tell(&mesh, node, host).await });
                Instant::now()
            });
            let since = since.elapsed();
            let uses = mesh.shared.apart.uses(node);
            let is_over = if uses.is_empty() {
                unused.entry(node).or_insert_with(Instant::now).elapsed() >= GRACE
            } else {
                unused.remove(&node);
                uses.iter().all(|used| used.is_quiet(limits.drain_quiet))
            };
            let is_late = since >= limits.drain_most;
            if is_over && !is_late && !uses.is_empty() {
                // Who does not say so any more works on nothing of this node's.
                if owing.contains_key(&node) || tell(&mesh, node, host).await {
                    owing.entry(node).or_insert_with(Instant::now);
                    continue;
                }
            }
            if is_over || is_late {
                tracing::debug!(%node, streams = uses.len(), "a connection ends: this node is apart");
                mesh.disconnect(node);
            }
        }
        let changed = mesh.shared.changed.notified();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if told.is_empty() { PATIENCE } else { LOOK }) => {}
            () = changed, if told.is_empty() => {}
        }
    }
}

/// Sees to it that nothing in the swarm dials whom it may not: neither the actor nor what punches holes.
pub(crate) struct Behaviour(pub(crate) Arc<State>);

impl Behaviour {
    fn check(&self, peer: Option<PeerId>) -> Result<(), ConnectionDenied> {
        let Some(node) = peer.and_then(|peer| peer.to_string().parse().ok()) else {
            // Who is there is not known: nobody but the host is dialled then, and that one by its name.
            return self
                .0
                .host()
                .map_or(Ok(()), |host| Err(ConnectionDenied::new(Denied(host))));
        };
        self.0.admits(node).map_err(ConnectionDenied::new)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.check(peer)?;
        Ok(Vec::new())
    }

    /// Whoever dials is told in the membership handshake why it is not taken.
    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(Some(peer))?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Notes a stranger, or a member that dialled, that was told through whom this node is reached.
pub(crate) fn turned_away(counters: &Counters, node: NodeId, host: NodeId) {
    Counters::count(&counters.turned_away);
    tracing::debug!(%node, %host, "a member was told through whom this node is reached");
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    fn nodes<const N: usize>() -> [NodeId; N] {
        std::array::from_fn(|at| Keypair::from_seed([u8::try_from(at + 1).unwrap(); 32]).node_id())
    }

    #[test]
    fn who_is_apart_has_one_way_to_everybody_but_its_host() {
        let [local, host, other, far, their_host] = nodes();
        let state = State::new(local);
        assert_eq!((state.way(other), state.admits(other)), (None, Ok(())));
        assert!(state.set_rule(Neighbours::Only(host)).is_some() && state.set_rule(Neighbours::Only(host)).is_none());
        assert_eq!((state.way(host), state.admits(host)), (None, Ok(())));
        assert_eq!(
            (state.way(other), state.admits(other)),
            (Some(vec![host]), Err(Denied(host)))
        );
        // One with another host, and one with the same.
        assert!(state.set_behind(far, Some(their_host)) && !state.set_behind(far, Some(their_host)));
        assert_eq!(state.way(far), Some(vec![host, their_host]));
        assert!(state.set_behind(far, Some(host)));
        assert_eq!(state.way(far), Some(vec![host]));
    }

    #[test]
    fn a_member_that_is_apart_is_reached_through_its_host_until_it_comes_itself() {
        let [local, host, apart] = nodes();
        let state = State::new(local);
        assert!(state.set_behind(apart, Some(host)));
        assert_eq!(
            (state.way(apart), state.admits(apart)),
            (Some(vec![host]), Err(Denied(host)))
        );
        assert_eq!(state.way(host), None);
        assert!(state.met(apart));
        assert_eq!((state.way(apart), state.admits(apart)), (None, Ok(())));
        // Whose host this node is it has a connection with.
        assert!(state.set_behind(apart, Some(local)) && !state.met(apart));
        assert_eq!((state.way(apart), state.admits(apart)), (None, Ok(())));
        assert!(state.set_behind(apart, None) && !state.set_behind(apart, None));
    }

    #[test]
    fn that_a_member_is_apart_is_doubted_while_its_host_is_away_and_until_it_says_so_again() {
        let [local, host, apart, own] = nodes();
        let state = State::new(local);
        let (gone, there) = (|_| false, |_| true);
        assert!(state.set_behind(apart, Some(host)) && state.set_behind(own, Some(local)));
        assert_eq!(state.doubt(there, Duration::ZERO), []);
        assert_eq!(state.doubt(gone, Duration::from_secs(60)), [], "it may come back");
        assert_eq!(state.admits(apart), Err(Denied(host)));
        assert_eq!(state.doubt(gone, Duration::ZERO), [(apart, None)]);
        assert_eq!(state.admits(apart), Ok(()));
        assert_eq!(
            state.way(apart),
            Some(vec![host]),
            "what is opened takes its way, still"
        );
        assert_eq!(state.doubt(gone, Duration::ZERO), [], "once");
        // It says that it is, and is left alone for a while.
        assert!(state.set_behind(apart, Some(host)) && !state.set_behind(apart, Some(host)));
        assert_eq!(state.admits(apart), Err(Denied(host)));
        assert_eq!(state.doubt(gone, Duration::ZERO), []);
        // The host is back.
        assert_eq!(state.doubt(there, Duration::ZERO), []);
        assert_eq!(state.doubt(gone, Duration::ZERO), [(apart, None)]);
        assert_eq!(state.doubt(there, Duration::ZERO), [(apart, Some(host))]);
        assert_eq!(state.admits(apart), Err(Denied(host)));
        // Who has one host itself dials nobody else.
        assert!(state.set_rule(Neighbours::Only(host)).is_some());
        assert_eq!(state.doubt(gone, Duration::ZERO), []);
        assert!(state.set_rule(Neighbours::All).is_some());
        assert_eq!(state.doubt(gone, Duration::ZERO), [(apart, None)]);
        assert!(state.met(apart) && !state.met(apart));
        assert_eq!(
            (state.way(apart), state.doubt(gone, Duration::ZERO)),
            (None, Vec::new())
        );
    }

    #[test]
    fn who_answers_says_whether_an_answer_is_to_come_whatever_moved_last() {
        let [local, other] = nodes();
        let state = State::new(local);
        let theirs = state.used(other, false);
        let answering = Answering(Arc::clone(&theirs));
        theirs.moved(false);
        answering.set(true);
        // Word of progress.
        theirs.moved(true);
        assert!(!theirs.is_quiet(Duration::ZERO) && theirs.owes());
        answering.set(false);
        theirs.moved(false);
        assert!(theirs.is_quiet(Duration::ZERO) && !theirs.owes());
        state.gone(other);
        assert!(lock(&state.uses).is_empty(), "a node that is gone is forgotten");
    }

    #[test]
    fn a_stream_is_quiet_when_its_last_word_was_an_answer_and_some_time_ago() {
        let [local, other] = nodes();
        let state = State::new(local);
        let (ours, theirs) = (state.used(other, true), state.used(other, false));
        assert_eq!(state.uses(other).len(), 2);
        let is_quiet = |used: &Use| used.is_quiet(Duration::ZERO);
        assert!(!is_quiet(&ours) && !is_quiet(&theirs), "nothing was said yet");
        ours.moved(true);
        theirs.moved(false);
        assert!(!is_quiet(&ours) && !is_quiet(&theirs), "an answer is expected");
        ours.moved(false);
        theirs.moved(true);
        assert!(is_quiet(&ours) && is_quiet(&theirs));
        assert!(!ours.is_quiet(Duration::from_secs(60)));
        drop(ours);
        assert_eq!(state.uses(other).len(), 1);
        for _ in 0..1000 {
            drop(state.used(other, true));
        }
        assert!(lock(&state.uses)[&other].len() < 100, "what is over is forgotten");
        drop(theirs);
        assert!(state.uses(other).is_empty() && lock(&state.uses).is_empty());
    }
}
