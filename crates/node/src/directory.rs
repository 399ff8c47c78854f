//! The directory: the registry kept in step with the other members, and the router's view of it.
//!
//! A node says what it is and has when something of it changed, under one signature for its whole set. What it says, and
//! what is news of others, is published to every connected member, so that it reaches those that are not connected to its
//! origin. When two members meet, and now and then, they compare all that they know, and each gets what it lacks. Whatever
//! changes is kept in one transaction, with what the log says of it, before it is told to anybody.
//!
//! Presence is apart from that: nodes beat, and beats are passed on once.

mod book;
mod compared;
mod journal;
mod own;
mod refusing;
mod said;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_channel::{Binding, Bound};
use dawn_identity::{AgentName, Keypair, NodeId, NodeRef};
use dawn_mcp::fault::{Fault, FaultCode};
use dawn_mcp::host::Host;
use dawn_mcp::router::{AgentEntry, Presence as Present, ToolList};
use dawn_mesh::{Mesh, PeerEvent, Published};
use dawn_registry::log::Entry;
use dawn_registry::replica::{Applied, Limits, Replica};
use dawn_registry::{Beat, BeatError, Presence, PresenceEvent, PresenceLimits, Refusal, Version};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Events;
use crate::config::RegistryConfig;
use crate::error::NodeError;
use crate::members::{Members, REVOCATION, SKEW, now};
use crate::party::Keys;
use crate::store::Store;
use crate::sync::{Counts, lock};
use book::{Book, Known};
use journal::{Journal, Note};
use own::Budget;
use refusing::Refusing;
use sessions::Sessions;

pub(crate) use compared::DIFF;
pub use compared::{Compared, Difference, EntryLine, HeadLine, Held, How, Lines, key_name};
pub use said::{NodeView, Said};
pub(crate) use sessions::REGISTRY;
pub use sessions::Synced;

const DELTA: &str = "dawn/registry/delta";
const BEAT: &str = "dawn/registry/beat";

/// Between two beats.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// Nodes of the local network that are counted.
const DISCOVERED: usize = 1024;
/// Deltas that are taken at once, and their bytes: what else there is to do comes in between.
const PORTION: (usize, usize) = (128, 1 << 20);
/// Changes within this time are said at once.
const SETTLE: Duration = Duration::from_millis(30);

/// The directory of one node. Clones share it.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    book: Arc<tokio::sync::Mutex<Book>>,
    /// What the registry says, read: at hand without waiting for it.
    known: Mutex<BTreeMap<NodeId, Known>>,
    presence: Mutex<Presence>,
    store: Store,
    members: Members,
    mesh: Mesh,
    host: Host,
    key: Keypair,
    keys: Keys,
    config: RegistryConfig,
    limits: Limits,
    /// This incarnation, and how often it has beaten.
    epoch: AtomicU64,
    beats: AtomicU64,
    started: Instant,
    /// Nodes that were found on the local network.
    discovered: Mutex<BTreeSet<NodeId>>,
    refusing: Refusing,
    sessions: Sessions,
    counts: Counts,
    /// Bytes of memory of all sets.
    bytes: AtomicUsize,
    changes: watch::Sender<u64>,
    events: Events,
    tasks: TaskTracker,
}

/// How much is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Nodes that are shown.
    pub nodes: usize,
    /// Their entries: themselves, and their agents.
    pub entries: usize,
    /// Nodes of which all has expired.
    pub expired: usize,
}

/// What a directory is made of.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) members: Members,
    pub(crate) mesh: Mesh,
    pub(crate) host: Host,
    pub(crate) key: Keypair,
    pub(crate) keys: Keys,
    pub(crate) events: Events,
    pub(crate) config: RegistryConfig,
    pub(crate) limits: Limits,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("nodes", &lock(&self.0.known).len())
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Reads what is known from earlier, begins a new incarnation and says what this node is and has.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn open(parts: Parts) -> Result<Self, NodeError> {
        let Parts {
            store,
            members,
            mesh,
            host,
            key,
            keys,
            events,
            config,
            limits,
        } = parts;
        let local = key.node_id();
        // Nothing is said before there is an incarnation to say it.
        let mut replica = Replica::new(members.own(), 0, limits);
        let (nodes, states): (Vec<NodeId>, Vec<Vec<u8>>) = store.registry_states().await?.into_iter().unzip();
        let verify = |node: &NodeId, value: &_| match *node == local {
            true => Ok(members.own()),
            false => said::membership(&members, node, value),
        };
        let applied = replica.apply_all(&states, now(), verify);
        for (node, applied) in nodes.iter().zip(applied) {
            // It stays in the store, with the addresses: it may be this node's clock that is wrong.
            if let Err(error) = applied {
                tracing::warn!(%node, %error, "something that was kept of a node is left out");
            }
        }
        let epoch = own::begin(&store, own::last_epoch(&replica, &local)).await?;
        replica.begin(epoch);
        let _before = replica.events();
        let known = book::read(&replica, now());
        for (node, known) in &known {
            members.heard(*node, Some(&known.said.chain));
        }
        let presence = Presence::new(members.network(), local, PresenceLimits::default());
        let journal = Journal::open(&store, local).await?;
        let bytes = AtomicUsize::new(replica.bytes());
        let inner = Inner {
            book: Arc::new(tokio::sync::Mutex::new(Book::new(replica, journal))),
            known: Mutex::new(known),
            presence: Mutex::new(presence),
            store,
            members,
            mesh,
            host,
            key,
            keys,
            config,
            limits,
            epoch: AtomicU64::new(epoch),
            beats: AtomicU64::new(0),
            started: Instant::now(),
            discovered: Mutex::default(),
            refusing: Refusing::default(),
            sessions: Sessions::default(),
            counts: Counts::default(),
            bytes,
            changes: watch::channel(0).0,
            events,
            tasks: TaskTracker::new(),
        };
        let directory = Self(Arc::new(inner));
        let note = Note::new(local, "node.started", json!({ "epoch": epoch }));
        directory.note(note).await;
        directory.announce().await;
        Ok(directory)
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Every node that is known.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let shown: Vec<Arc<Said>> = {
            let known = lock(&self.0.known);
            let shown = known.values().filter(|known| !known.is_hidden);
            shown.map(|known| Arc::clone(&known.said)).collect()
        };
        // Who is no member any more reaches nobody.
        let (is_out, own) = (self.0.members.is_out(), self.0.key.node_id());
        let presence = lock(&self.0.presence);
        let view = |said: Arc<Said>| {
            let (online, last_seen) = presence.of(&said.node);
            NodeView {
                online: online && (!is_out || said.node == own),
                said,
                last_seen,
            }
        };
        shown.into_iter().map(view).collect()
    }

    fn presence_of(&self, node: NodeId) -> (bool, Option<Duration>) {
        lock(&self.0.presence).of(&node)
    }

    fn said(&self, node: NodeId) -> Option<Arc<Said>> {
        lock(&self.0.known).get(&node).map(|known| Arc::clone(&known.said))
    }

    /// How much of what others sent was refused, by code.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.0.refusing.all()
    }

    /// What became of deltas: new, known, published.
    #[must_use]
    pub fn deltas(&self) -> Vec<(&'static str, u64)> {
        self.0.counts.all()
    }

    /// How many comparisons with other members ended how.
    #[must_use]
    pub fn sessions(&self) -> Vec<(&'static str, u64)> {
        self.0.sessions.counted()
    }

    /// Bytes of all comparisons: what was said to find out who lacks what, and what was lacking.
    #[must_use]
    pub fn session_bytes(&self) -> [(&'static str, u64); 2] {
        self.0.sessions.bytes()
    }

    /// How many nodes were found on the local network since the start.
    #[must_use]
    pub fn discovered(&self) -> usize {
        lock(&self.0.discovered).len()
    }

    /// This incarnation of the node.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Relaxed)
    }

    /// Whether all that a node said has expired.
    #[must_use]
    pub fn has_expired(&self, node: NodeId) -> bool {
        lock(&self.0.known).get(&node).is_some_and(|known| known.is_hidden)
    }

    /// How much is known.
    pub async fn size(&self) -> Size {
        let book = self.book().await;
        let entries = book.replica.nodes(now()).map(|view| view.elements().len()).sum();
        let known = lock(&self.0.known);
        let expired = known.values().filter(|known| known.is_hidden).count();
        Size {
            nodes: known.len() - expired,
            entries,
            expired,
        }
    }

    /// The log, the oldest entry first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn log(&self) -> Result<Vec<Entry>, NodeError> {
        self.0.store.log(u32::MAX).await
    }

    /// The last comparison that went through: with this member, or with anybody.
    #[must_use]
    pub fn synced(&self, with: Option<NodeId>) -> Option<Synced> {
        self.0.sessions.last(with)
    }

    /// Bytes of memory that all that is known takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// How long ago a node was last heard of.
    #[must_use]
    pub fn silent_for(&self, view: &NodeView) -> Option<Duration> {
        view.last_seen.map(|seen| self.now().saturating_sub(seen))
    }

    /// A node's static key, as it said last, if the binding is valid now: what Noise `IK` and envelopes to it need
    /// (`KnownPeer::from`).
    #[must_use]
    pub fn binding(&self, node: NodeId) -> Option<Bound> {
        let pins = self.0.members.pins();
        self.shown_binding(node)
            .filter(|bound| pins.check_key(node, &bound.key).is_ok())
    }

    /// The same, whether or not it is the static key that is pinned.
    pub(crate) fn shown_binding(&self, node: NodeId) -> Option<Bound> {
        let said = self.said(node)?;
        let bound = Binding::decode(&said.binding).ok()?.verify(now(), SKEW).ok()?;
        (bound.node == node).then_some(bound)
    }

    /// The name of a node, as it says.
    #[must_use]
    pub fn name_of(&self, node: NodeId) -> Option<String> {
        self.said(node).map(|said| said.name.to_string())
    }

    /// Whether a node is a member now, by what it said last, and who is pinned, if it is.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.said(node)
            .is_some_and(|said| self.0.members.accepts(&said.chain).is_ok())
    }

    fn beat(&self, leaving: bool) {
        let beat = Beat {
            network: self.0.members.network(),
            node: self.0.key.node_id(),
            version: Version {
                epoch: self.0.epoch.load(Ordering::Relaxed),
                sequence: self.0.beats.fetch_add(1, Ordering::Relaxed) + 1,
            },
            leaving,
        };
        self.0.mesh.publish(BEAT, &beat.sign(&self.0.key).into());
    }

    /// Tells the others that this node leaves.
    pub(crate) fn leave(&self) {
        self.beat(true);
    }

    /// Tells listeners who came and who went.
    fn tell_presence(&self) {
        let events = lock(&self.0.presence).events();
        if events.is_empty() {
            return;
        }
        for event in events {
            let (kind, node) = match event {
                PresenceEvent::Online(node) => ("peer.up", node),
                PresenceEvent::Offline(node) => ("peer.down", node),
                PresenceEvent::Restarted(node) => {
                    // It has a new connection, and what it says now is wanted at once.
                    if self.0.sessions.may_ask_for(node) {
                        self.compare_with(node);
                    }
                    continue;
                }
            };
            let data = json!({ "id": node, "name": self.name_of(node) });
            self.0.events.say(kind, &data);
        }
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut peers = self.0.mesh.events();
        let mut deltas = self.0.mesh.subscribe(DELTA);
        let mut beats = self.0.mesh.subscribe(BEAT);
        let mut revocations = self.0.mesh.subscribe(REVOCATION);
        let mut revoked = self.0.members.revoked();
        let mut agents = self.0.host.changes();
        let mut renewed = self.0.members.renewed();
        let mut party = self.0.keys.changes();
        self.0.tasks.spawn(self.clone().keep_in_step(stop.clone()));
        self.keep_known().await;
        self.meet_all();
        let mut heart = tokio::time::interval(BEAT_EVERY);
        heart.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What this node says is signed anew in time, however short it counts.
        let mut look = tokio::time::interval(BEAT_EVERY.min(self.0.limits.validity / 8));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut budget = Budget::new(tokio::time::Instant::now());
        // An agent may have become ready before anybody listened.
        let mut say_at = Some(tokio::time::Instant::now());
        loop {
            let silence = lock(&self.0.presence)
                .next_tick()
                .map_or(Duration::from_secs(3600), |at| at.saturating_sub(self.now()));
            let soon = || Some(tokio::time::Instant::now() + SETTLE);
            let announced = say_at.map(|at| at.max(budget.ready()));
            tokio::select! {
                () = stop.cancelled() => break,
                _ = heart.tick() => {
                    self.beat(false);
                }
                _ = look.tick() => self.look_after().await,
                () = at(announced) => {
                    say_at = None;
                    budget.spend(tokio::time::Instant::now());
                    self.announce().await;
                }
                Ok(()) = revoked.changed() => self.drop_revoked().await,
                Ok(()) = agents.changed() => say_at = say_at.or_else(soon),
                Ok(()) = renewed.changed() => say_at = say_at.or_else(soon),
                Ok(()) = party.changed() => say_at = say_at.or_else(soon),
                () = tokio::time::sleep(silence.max(Duration::from_millis(10))) => {
                    let now = self.now();
                    lock(&self.0.presence).tick(now);
                    self.tell_presence();
                }
                event = peers.recv() => match event {
                    Ok(PeerEvent::Listening { .. }) => say_at = say_at.or_else(soon),
                    Ok(event) => self.peer_event(event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.meet_all(),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(message) = next(&mut deltas) => {
                    let messages = with_waiting(message, &mut deltas).await;
                    self.heard_deltas(messages).await;
                }
                Some(message) = next(&mut beats) => self.heard_beat(&message).await,
                Some(message) = next(&mut revocations) => self.revocation(&message).await,
            }
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Stays connected to everybody whose addresses are known.
    async fn keep_known(&self) {
        match self.0.store.contacts().await {
            Ok(contacts) => contacts
                .into_iter()
                .for_each(|(node, addresses)| self.keep(node, addresses)),
            Err(error) => tracing::error!(%error, "the known addresses could not be read"),
        }
        for view in self.nodes() {
            self.keep(view.said.node, view.said.addresses.clone());
        }
    }

    fn keep(&self, node: NodeId, addresses: Vec<String>) {
        if node != self.0.key.node_id() {
            self.0.mesh.keep(node, addresses);
        }
    }

    fn peer_event(&self, event: PeerEvent) {
        match event {
            PeerEvent::MemberUp(peer) => self.met(peer.node),
            PeerEvent::MemberDown { node } => {
                let now = self.now();
                lock(&self.0.presence).suspect(node, now);
            }
            PeerEvent::Discovered { node, addresses } => {
                let mut discovered = lock(&self.0.discovered);
                if discovered.len() < DISCOVERED {
                    discovered.insert(node);
                }
                drop(discovered);
                if lock(&self.0.known).contains_key(&node) {
                    self.keep(node, addresses);
                }
            }
            PeerEvent::Listening { .. } => {}
        }
    }

    /// Compares with every connected member.
    pub(crate) fn meet_all(&self) {
        self.0.mesh.connected().iter().for_each(|peer| self.met(peer.node));
    }

    /// A member is connected: it gets the revocations and a beat, and the two compare.
    fn met(&self, node: NodeId) {
        // The newest first: it may be of one who would rather not have it known.
        let mut revocations = self.0.members.revocations_encoded();
        revocations.reverse();
        self.0.mesh.send_all(node, REVOCATION, revocations);
        self.beat(false);
        self.compare_with(node);
    }

    /// Takes deltas that came from anybody, and says of each what became of it.
    fn apply_all(&self, replica: &mut Replica, deltas: &[impl AsRef<[u8]>]) -> Vec<Result<Applied, Refusal>> {
        let own = self.0.key.node_id();
        let applied = replica.apply_all(deltas, now(), |node, value| match *node == own {
            true => Ok(self.0.members.own()),
            false => said::membership(&self.0.members, node, value),
        });
        for applied in &applied {
            match applied {
                Ok(Applied::New) => self.0.counts.count("new"),
                Ok(Applied::Known) => self.0.counts.count("known"),
                Err(_) => {}
            }
        }
        applied
    }

    /// Takes deltas that came one by one, from anybody, and waited for each other.
    async fn heard_deltas(&self, mut messages: Vec<Published>) {
        messages.retain(|message| !self.0.refusing.is_limited(message.from));
        if messages.is_empty() {
            return;
        }
        let deltas: Vec<&Bytes> = messages.iter().map(|message| &message.bytes).collect();
        let mut book = self.book().await;
        let applied = self.apply_all(&mut book.replica, &deltas);
        let speaks_for_all = book.replica.speaks_for_all();
        self.settle(book, "", Vec::new()).await;
        for (message, applied) in messages.iter().zip(applied) {
            match applied {
                Ok(Applied::New) => self.0.mesh.publish(DELTA, &message.bytes),
                Ok(Applied::Known) => {}
                // Of a member that is limited by what was before it, nothing more is told.
                Err(_) if self.0.refusing.is_limited(message.from) => {}
                Err(refusal) => {
                    if let Refusal::Gap(node) = refusal {
                        self.fetch(message.from, node);
                    }
                    self.refuse_delta(message.from, &message.bytes, &refusal).await;
                }
            }
        }
        if !speaks_for_all {
            self.renew_own().await;
        }
    }

    async fn heard_beat(&self, message: &Published) {
        if self.0.refusing.is_limited(message.from) {
            return;
        }
        let now = self.now();
        let is_known = |node: &NodeId| {
            let is_said = lock(&self.0.known).contains_key(node);
            is_said || self.0.mesh.peers().iter().any(|peer| peer.node == *node)
        };
        let applied = lock(&self.0.presence).apply(&message.bytes, now, is_known);
        match applied {
            Ok(Applied::New) => {
                self.0.mesh.publish(BEAT, &message.bytes);
                self.tell_presence();
            }
            Ok(Applied::Known) => {}
            Err(error) => {
                // Each knows for itself of whom it was told already.
                let is_blamed = !matches!(error, BeatError::Unknown | BeatError::Full(_));
                if is_blamed {
                    self.refuse(message.from, error.code(), &error.to_string(), true).await;
                } else {
                    self.refuse_unblamed(message.from, error.code()).await;
                }
            }
        }
    }

    async fn revocation(&self, message: &Published) {
        match self.0.members.add_revocation(&message.bytes).await {
            // Whoever is out is forgotten, whoever told of it.
            Ok(_) => {}
            Err(error) => {
                let is_blamed = matches!(error, NodeError::Corrupt(_));
                self.refuse(message.from, "revocation", &error.to_string(), is_blamed)
                    .await;
            }
        }
    }

    /// Forgets nodes that were put out, or are not who was pinned.
    pub(crate) async fn drop_revoked(&self) {
        let own = self.0.key.node_id();
        self.change("revoked", |replica| {
            // Under the lock of the registry: what was taken in before the revocation counted is among it.
            let known = lock(&self.0.known).clone();
            let is_out = |node: &NodeId| {
                let known = known.get(node);
                known.is_some_and(|known| self.0.members.accepts(&known.said.chain).is_err())
            };
            replica.retain(|node, _| !is_out(node))
        })
        .await;
        // Who beats, and has said nothing.
        let known: BTreeSet<NodeId> = lock(&self.0.known).keys().copied().collect();
        for node in self.0.members.revoked_nodes() {
            if node != own && !known.contains(&node) {
                lock(&self.0.presence).forget(&node);
            }
        }
        self.tell_presence();
    }

    /// Does what time brings: forgets nodes whose membership ended and was not renewed, hides what has expired, signs anew
    /// what this node says, and keeps what could not be kept.
    async fn look_after(&self) {
        let now = now();
        self.change("expired", |replica| {
            replica.tick(now);
            replica.retain(|_, membership| now < membership.expires + SKEW)
        })
        .await;
        self.tell_presence();
        self.renew_own().await;
        self.compact_log().await;
    }

    /// A node by name or id, also one of which all has expired.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn find_any(&self, node: &NodeRef) -> Result<NodeId, Fault> {
        let is_it = |known: &&Known| match node {
            NodeRef::Id(id) => known.said.node == *id,
            NodeRef::Name(name) => known.said.name == *name,
            NodeRef::Any => false,
        };
        let hidden: Vec<NodeId> = {
            let known = lock(&self.0.known);
            let hidden = known.values().filter(|known| known.is_hidden).filter(is_it);
            hidden.map(|known| known.said.node).collect()
        };
        match (self.find(node), hidden.as_slice()) {
            (Err(fault), [only]) if fault.code == FaultCode::UnknownNode => Ok(*only),
            (found, _) => Ok(found?.said.node),
        }
    }

    /// A node by name or id, whether or not it is online.
    ///
    /// # Errors
    /// Nobody is called so, or several are.
    pub fn find(&self, node: &NodeRef) -> Result<NodeView, Fault> {
        let nodes = self.nodes();
        let names: Vec<String> = nodes.iter().map(|view| view.said.name.to_string()).collect();
        let mut found = nodes.into_iter().filter(|view| match node {
            NodeRef::Id(id) => view.said.node == *id,
            NodeRef::Name(name) => view.said.name == *name,
            NodeRef::Any => false,
        });
        let Some(first) = found.next() else {
            if let NodeRef::Name(name) = node
                && let Some(violation) = self.0.members.pins().violation(name)
            {
                return Err(Fault::new(
                    FaultCode::PinMismatch,
                    format!("{violation}; `dawn keys unpin {name}` if that is as it should be, then pin it anew"),
                ));
            }
            return Err(Fault::new(
                FaultCode::UnknownNode,
                format!(
                    "there is no node {node} in this network{}; see `dawn peers`",
                    meant(&node.to_string(), &names)
                ),
            ));
        };
        if found.next().is_some() {
            return Err(Fault::new(
                FaultCode::UnknownNode,
                format!("several nodes are called {node}; use an id from `dawn peers --json`"),
            ));
        }
        Ok(first)
    }
}

/// The name that somebody may have meant, as the end of a sentence.
fn meant(said: &str, names: &[String]) -> String {
    const ALIKE: f64 = 0.7;
    let alike = |name: &&String| strsim::jaro_winkler(said, name);
    let best = names.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    best.filter(|name| alike(name) >= ALIKE)
        .map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// Waits until then; for ever where there is no such time.
async fn at(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The next published message; what a slow reader missed is caught up with by the next comparison.
async fn next(receiver: &mut broadcast::Receiver<Published>) -> Option<Published> {
    loop {
        match receiver.recv().await {
            Ok(message) => return Some(message),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::info!(missed, "published messages were missed");
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// A published message with those that wait behind it, as many as are taken at once.
async fn with_waiting(first: Published, receiver: &mut broadcast::Receiver<Published>) -> Vec<Published> {
    let (mut bytes, mut all) = (first.bytes.len(), vec![first]);
    while all.len() < PORTION.0
        && bytes < PORTION.1
        && !receiver.is_empty()
        && let Some(message) = next(receiver).await
    {
        bytes += message.bytes.len();
        all.push(message);
    }
    all
}

impl dawn_mcp::router::Directory for Directory {
    fn resolve(&self, node: &NodeRef) -> Result<NodeId, Fault> {
        // Asked for every call: nothing is copied unless there is something to explain.
        let found = {
            let known = lock(&self.0.known);
            let is_it = |known: &&Known| match node {
                _ if known.is_hidden => false,
                NodeRef::Id(id) => known.said.node == *id,
                NodeRef::Name(name) => known.said.name == *name,
                NodeRef::Any => false,
            };
            let mut found = known.values().filter(is_it).map(|known| known.said.node);
            found.next().filter(|_| found.next().is_none())
        };
        match found {
            Some(node) => Ok(node),
            None => Ok(self.find(node)?.said.node),
        }
    }

    fn tools(&self, node: NodeId, agent: &AgentName) -> Option<ToolList> {
        let said = self.said(node)?;
        let summary = said.agent(agent)?;
        Some(ToolList {
            digest: summary.lists[0],
            has_param_headers: summary.param_headers,
        })
    }

    fn presence(&self, node: NodeId) -> Present {
        let (online, seen) = self.presence_of(node);
        Present {
            online,
            silent_for: seen.map(|seen| self.now().saturating_sub(seen)),
        }
    }

    fn agents(&self) -> Vec<AgentEntry> {
        let own = self.0.key.node_id();
        let online = self.nodes().into_iter().filter(|view| view.online);
        online
            .flat_map(|view| {
                // Its own agents a node knows better than what it said last.
                let agents = if view.said.node == own {
                    self.0.host.summaries()
                } else {
                    view.said.agents.clone()
                };
                agents.into_iter().map(move |summary| AgentEntry {
                    node: view.said.node,
                    node_name: view.said.name.clone(),
                    summary,
                })
            })
            .collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}
