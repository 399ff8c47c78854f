//! The directory: the registry kept in step with the other members, and the router's view of it.
//!
//! A node announces its signed record when something of it changed, and beats. Records and beats that are news are
//! passed on once, so that they reach members that are not connected to their origin. When two members meet, each
//! sends its digest and gets what it lacks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_channel::{Binding, BindingError, Bound};
use dawn_identity::{AgentName, Keypair, Membership, NodeId, NodeRef};
use dawn_mcp::fault::{Fault, FaultCode};
use dawn_mcp::host::Host;
use dawn_mcp::router::{AgentEntry, Presence, ToolList};
use dawn_mesh::{Mesh, PeerEvent, Published};
use dawn_registry::{
    Applied, Beat, Digest, Limits, NodeRecord, NodeView, RecordError, Registry, RegistryEvent, Version,
};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::api::Events;
use crate::error::NodeError;
use crate::members::{Members, REVOCATION, SKEW};
use crate::party::Keys;
use crate::shares::Seldom;
use crate::store::Store;
use crate::sync::lock;

const DIGEST: &str = "dawn/registry/digest";
const RECORD: &str = "dawn/registry/record";
const BEAT: &str = "dawn/registry/beat";

/// Between two beats.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// Changes within this time make one record.
const SETTLE: Duration = Duration::from_millis(30);

/// The directory of one node. Clones share it.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    store: Store,
    members: Members,
    mesh: Mesh,
    host: Host,
    key: Keypair,
    keys: Keys,
    epoch: u64,
    sequence: Mutex<(u64, u64)>,
    started: Instant,
    /// How often each member asked lately.
    asked: Mutex<HashMap<NodeId, (Instant, u32)>>,
    /// Of whom was complained lately.
    told: Seldom,
    refused: AtomicU64,
    changes: watch::Sender<u64>,
    events: Events,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("nodes", &self.nodes().len())
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Reads what is known from earlier, counts a new epoch and announces this node.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn open(
        store: Store,
        members: Members,
        mesh: Mesh,
        host: Host,
        key: Keypair,
        keys: Keys,
        events: Events,
    ) -> Result<Self, NodeError> {
        let mut registry = Registry::new(members.network(), key.node_id(), Limits::default());
        for bytes in store.records().await? {
            if let Err(error) = registry.apply_record(&bytes, |record| membership(&members, record)) {
                tracing::warn!(%error, "a kept record is left out");
            }
        }
        let _before = registry.events();
        let epoch = store.next_epoch().await?;
        let inner = Inner {
            registry: Mutex::new(registry),
            store,
            members,
            mesh,
            host,
            key,
            keys,
            epoch,
            sequence: Mutex::new((0, 0)),
            started: Instant::now(),
            asked: Mutex::default(),
            told: Seldom::default(),
            refused: AtomicU64::new(0),
            changes: watch::channel(0).0,
            events,
        };
        let directory = Self(Arc::new(inner));
        directory.announce();
        Ok(directory)
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Every node that is known.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let mut nodes = lock(&self.0.registry).view();
        // Who is no member any more reaches nobody.
        if self.0.members.is_out() {
            let own = self.0.key.node_id();
            nodes.iter_mut().for_each(|view| view.online &= view.record.node == own);
        }
        nodes
    }

    /// How much of what others sent was refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// How long ago a node was last heard of.
    #[must_use]
    pub fn silent_for(&self, view: &NodeView) -> Option<Duration> {
        view.last_seen.map(|seen| self.now().saturating_sub(seen))
    }

    /// A node's static key, as its last record says, if the binding is valid now: what Noise `IK` and envelopes to it
    /// need (`KnownPeer::from`).
    #[must_use]
    pub fn binding(&self, node: NodeId) -> Option<Bound> {
        let pins = self.0.members.pins();
        self.shown_binding(node)
            .filter(|bound| pins.check_key(node, &bound.key).is_ok())
    }

    /// The same, whether or not it is the static key that is pinned.
    pub(crate) fn shown_binding(&self, node: NodeId) -> Option<Bound> {
        let binding = lock(&self.0.registry).record(&node)?.binding.clone();
        let bound = Binding::decode(&binding)
            .ok()?
            .verify(crate::members::now(), SKEW)
            .ok()?;
        (bound.node == node).then_some(bound)
    }

    /// The name of a node, as its record says.
    #[must_use]
    pub fn name_of(&self, node: NodeId) -> Option<String> {
        lock(&self.0.registry)
            .record(&node)
            .map(|record| record.name.to_string())
    }

    /// Whether a node is a member now, by its last record, and who is pinned, if it is.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        let registry = lock(&self.0.registry);
        registry
            .record(&node)
            .is_some_and(|record| membership(&self.0.members, record).is_ok())
    }

    /// Says anew what this node is and has.
    fn announce(&self) {
        let sequence = {
            let mut sequence = lock(&self.0.sequence);
            sequence.0 += 1;
            sequence.0
        };
        let own = self.0.members.own();
        let record = NodeRecord {
            network: own.network,
            node: own.node,
            name: own.name,
            chain: self.0.members.chain().to_vec(),
            version: Version {
                epoch: self.0.epoch,
                sequence,
            },
            software: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: self.0.members.addresses(),
            agents: self.0.host.summaries(),
            binding: self.0.keys.party().binding().encode(),
        };
        let bytes = record.fit().sign(&self.0.key);
        let own = self.0.members.own();
        if let Err(error) = lock(&self.0.registry).apply_record(&bytes, |_| Ok(own)) {
            tracing::error!(%error, "this node's own record is refused");
        }
        self.0.mesh.publish(RECORD, &bytes.into());
        self.settle_events();
    }

    fn beat(&self, leaving: bool) {
        let sequence = {
            let mut sequence = lock(&self.0.sequence);
            sequence.1 += 1;
            sequence.1
        };
        let beat = Beat {
            network: self.0.members.network(),
            node: self.0.key.node_id(),
            version: Version {
                epoch: self.0.epoch,
                sequence,
            },
            leaving,
        };
        self.0.mesh.publish(BEAT, &beat.sign(&self.0.key).into());
    }

    /// Tells the others that this node leaves.
    pub(crate) fn leave(&self) {
        self.beat(true);
    }

    /// Tells listeners what the registry noticed.
    fn settle_events(&self) {
        let (events, view) = {
            let mut registry = lock(&self.0.registry);
            let events = registry.events();
            if events.is_empty() {
                return;
            }
            (events, registry.view())
        };
        let name = |node: &NodeId| {
            view.iter()
                .find(|view| view.record.node == *node)
                .map(|view| view.record.name.to_string())
        };
        for event in &events {
            match event {
                RegistryEvent::Online(node) => self
                    .0
                    .events
                    .say("peer.up", &serde_json::json!({ "id": node, "name": name(node) })),
                RegistryEvent::Offline(node) => self
                    .0
                    .events
                    .say("peer.down", &serde_json::json!({ "id": node, "name": name(node) })),
                RegistryEvent::Changed(node) => self
                    .0
                    .events
                    .say("agent.changed", &serde_json::json!({ "id": node, "name": name(node) })),
            }
        }
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut peers = self.0.mesh.events();
        let mut digests = self.0.mesh.subscribe(DIGEST);
        let mut records = self.0.mesh.subscribe(RECORD);
        let mut beats = self.0.mesh.subscribe(BEAT);
        let mut revocations = self.0.mesh.subscribe(REVOCATION);
        let mut agents = self.0.host.changes();
        let mut renewed = self.0.members.renewed();
        let mut party = self.0.keys.changes();
        // An agent may have become ready before anybody listened.
        self.announce();
        self.keep_known().await;
        self.meet_all();
        let mut heart = tokio::time::interval(BEAT_EVERY);
        heart.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let silence = lock(&self.0.registry)
                .next_tick()
                .map_or(Duration::from_secs(3600), |at| at.saturating_sub(self.now()));
            tokio::select! {
                () = stop.cancelled() => return,
                _ = heart.tick() => {
                    self.beat(false);
                    self.drop_expired().await;
                }
                Ok(()) = renewed.changed() => self.announce(),
                Ok(()) = party.changed() => self.announce(),
                () = tokio::time::sleep(silence.max(Duration::from_millis(10))) => {
                    let now = self.now();
                    lock(&self.0.registry).tick(now);
                    self.settle_events();
                }
                Ok(()) = agents.changed() => {
                    tokio::time::sleep(SETTLE).await;
                    agents.mark_unchanged();
                    self.announce();
                }
                event = peers.recv() => match event {
                    Ok(event) => self.peer_event(event).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => self.meet_all(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(message) = next(&mut digests) => self.digest(&message),
                Some(message) = next(&mut records) => self.record(&message).await,
                Some(message) = next(&mut beats) => self.heard_beat(&message),
                Some(message) = next(&mut revocations) => self.revocation(&message).await,
            }
        }
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
            self.keep(view.record.node, view.record.addresses);
        }
    }

    fn keep(&self, node: NodeId, addresses: Vec<String>) {
        if node != self.0.key.node_id() {
            self.0.mesh.keep(node, addresses);
        }
    }

    async fn peer_event(&self, event: PeerEvent) {
        match event {
            PeerEvent::MemberUp(peer) => self.met(peer.node),
            PeerEvent::MemberDown { node } => {
                let now = self.now();
                lock(&self.0.registry).suspect(node, now);
            }
            PeerEvent::Discovered { node, addresses } => {
                let known = self.nodes().iter().any(|view| view.record.node == node);
                if known {
                    self.keep(node, addresses);
                }
            }
            PeerEvent::Listening { .. } => self.announce(),
        }
    }

    /// Asks every connected member for what this node lacks.
    pub(crate) fn meet_all(&self) {
        self.0.mesh.connected().iter().for_each(|peer| self.met(peer.node));
    }

    /// A member is connected: it gets this node's digest, beat and the revocations.
    fn met(&self, node: NodeId) {
        let digest = lock(&self.0.registry).digest(false).encode();
        let _sent = self.0.mesh.send_to(node, DIGEST, digest.into());
        // The newest first: it may be of one who would rather not have it known.
        let mut revocations = self.0.members.revocations_encoded();
        revocations.reverse();
        self.0.mesh.send_all(node, REVOCATION, revocations);
        self.beat(false);
    }

    /// Whether a member has asked less often than it may: each answer is as long as the registry.
    fn may_ask(&self, from: NodeId) -> bool {
        const SPAN: Duration = Duration::from_secs(10);
        const MOST: u32 = 20;
        let now = Instant::now();
        let mut asked = lock(&self.0.asked);
        asked.retain(|_, (since, _)| now.duration_since(*since) < SPAN);
        let (_, count) = asked.entry(from).or_insert((now, 0));
        *count += 1;
        *count <= MOST
    }

    /// Says what a member sent that is refused: once a minute, however much it sends.
    fn complain(&self, from: NodeId, what: &str, error: &dyn std::fmt::Display) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        if self.0.told.may_speak_of(from) {
            tracing::warn!(%from, %error, "{what} is refused");
        }
    }

    fn digest(&self, message: &Published) {
        if !self.may_ask(message.from) {
            return self.complain(message.from, "a digest", &"it asks too often");
        }
        match Digest::decode(&message.bytes) {
            Ok(digest) => {
                let (missing, lacks) = {
                    let registry = lock(&self.0.registry);
                    (registry.missing_for(&digest), registry.lacks(&digest))
                };
                if lacks && !digest.is_answer {
                    let own = lock(&self.0.registry).digest(true).encode();
                    let _sent = self.0.mesh.send_to(message.from, DIGEST, own.into());
                }
                let missing = missing.into_iter().map(Bytes::from).collect();
                self.0.mesh.send_all(message.from, RECORD, missing);
            }
            Err(error) => self.complain(message.from, "a digest", &error),
        }
    }

    async fn record(&self, message: &Published) {
        let applied = lock(&self.0.registry).apply_record(&message.bytes, |record| membership(&self.0.members, record));
        match applied {
            Ok(Applied::New) => {
                self.0.mesh.publish(RECORD, &message.bytes);
                self.settle_events();
                self.learn(&message.bytes).await;
            }
            Ok(Applied::Known) => {}
            Err(error) => self.complain(message.from, "a record", &error),
        }
    }

    async fn learn(&self, bytes: &Bytes) {
        let Ok(record) = NodeRecord::open(bytes) else { return };
        self.keep(record.node, record.addresses.clone());
        // A static key that is not the pinned one is told of at once, not when it is first needed.
        let _bound = self.binding(record.node);
        let kept = async {
            self.0.store.set_record(record.node, bytes).await?;
            self.0.store.set_contact(record.node, &record.addresses).await
        };
        if let Err(error) = kept.await {
            tracing::error!(%error, "a record could not be kept");
        }
    }

    fn heard_beat(&self, message: &Published) {
        let now = self.now();
        let is_member = |node: &NodeId| self.0.mesh.peers().iter().any(|peer| peer.node == *node);
        let applied = lock(&self.0.registry).apply_beat(&message.bytes, now, is_member);
        match applied {
            Ok(Applied::New) => {
                self.0.mesh.publish(BEAT, &message.bytes);
                self.settle_events();
            }
            Ok(Applied::Known) => {}
            Err(error) => {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(from = %message.from, %error, "a beat is refused");
            }
        }
    }

    async fn revocation(&self, message: &Published) {
        match self.0.members.add_revocation(&message.bytes).await {
            Ok(true) => self.drop_revoked().await,
            Ok(false) => {}
            Err(error) => self.complain(message.from, "a revocation", &error),
        }
    }

    /// Forgets nodes that were put out.
    pub(crate) async fn drop_revoked(&self) {
        let members = self.0.members.clone();
        self.retain(|record, _| membership(&members, record).is_ok()).await;
    }

    /// Forgets nodes whose membership ended and was not renewed.
    async fn drop_expired(&self) {
        let now = crate::members::now();
        self.retain(|_, membership| now < membership.expires + crate::members::SKEW)
            .await;
    }

    async fn retain(&self, is_member: impl FnMut(&NodeRecord, &Membership) -> bool) {
        let out = lock(&self.0.registry).retain(is_member);
        for node in out {
            tracing::info!(%node, "a node is no member any more");
            self.0.mesh.forget(node);
            if let Err(error) = self.0.store.remove_record(node).await {
                tracing::error!(%error, "a record could not be forgotten");
            }
        }
        self.settle_events();
    }

    /// A node by name or id, whether or not it is online.
    ///
    /// # Errors
    /// Nobody is called so, or several are.
    pub fn find(&self, node: &NodeRef) -> Result<NodeView, Fault> {
        let nodes = self.nodes();
        let names: Vec<String> = nodes.iter().map(|view| view.record.name.to_string()).collect();
        let mut found = nodes.into_iter().filter(|view| match node {
            NodeRef::Id(id) => view.record.node == *id,
            NodeRef::Name(name) => view.record.name == *name,
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

/// What a record's certificate chain makes of its node. Its binding, if it has one, must be its own; one whose time is
/// over is of no use, and no reason to refuse the record.
fn membership(members: &Members, record: &NodeRecord) -> Result<Membership, RecordError> {
    if !record.binding.is_empty() {
        let bad = |error: BindingError| RecordError::BadBinding(error.to_string());
        let binding = Binding::decode(&record.binding).map_err(bad)?;
        match binding.verify(crate::members::now(), SKEW) {
            Ok(_) | Err(BindingError::Expired(_) | BindingError::NotYetValid(_)) => {}
            Err(error) => return Err(bad(error)),
        }
        if binding.node() != record.node {
            return Err(RecordError::BadBinding("it is that of another node".into()));
        }
    }
    let membership = members
        .membership(&record.chain)
        .map_err(|error| RecordError::NoMember(error.to_string()))?;
    match members.pins().check(&membership) {
        Ok(()) => Ok(membership),
        Err(violation) => Err(RecordError::Refused(violation.to_string())),
    }
}

const _: () = assert!(dawn_channel::MAX_BINDING_BYTES <= dawn_registry::MAX_BINDING_BYTES);

/// The next published message; what a slow reader missed is caught up with by the next digest.
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

impl dawn_mcp::router::Directory for Directory {
    fn resolve(&self, node: &NodeRef) -> Result<NodeId, Fault> {
        // Asked for every call: nothing is copied unless there is something to explain.
        let found = {
            let registry = lock(&self.0.registry);
            let is_it = |record: &&NodeRecord| match node {
                NodeRef::Id(id) => record.node == *id,
                NodeRef::Name(name) => record.name == *name,
                NodeRef::Any => false,
            };
            let mut found = registry.records().filter(is_it).map(|record| record.node);
            found.next().filter(|_| found.next().is_none())
        };
        match found {
            Some(node) => Ok(node),
            None => Ok(self.find(node)?.record.node),
        }
    }

    fn tools(&self, node: NodeId, agent: &AgentName) -> Option<ToolList> {
        let registry = lock(&self.0.registry);
        let summary = registry
            .record(&node)?
            .agents
            .iter()
            .find(|known| known.name == *agent)?;
        Some(ToolList {
            digest: summary.lists[0],
            has_param_headers: summary.param_headers,
        })
    }

    fn presence(&self, node: NodeId) -> Presence {
        let (online, seen) = lock(&self.0.registry).presence(&node);
        Presence {
            online,
            silent_for: seen.map(|seen| self.now().saturating_sub(seen)),
        }
    }

    fn agents(&self) -> Vec<AgentEntry> {
        let own = self.0.key.node_id();
        let online = self.nodes().into_iter().filter(|view| view.online);
        online
            .flat_map(|view| {
                let (node, name) = (view.record.node, view.record.name);
                // Its own agents a node knows better than its last record says.
                let agents = if node == own {
                    self.0.host.summaries()
                } else {
                    view.record.agents
                };
                agents.into_iter().map(move |summary| AgentEntry {
                    node,
                    node_name: name.clone(),
                    summary,
                })
            })
            .collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}
