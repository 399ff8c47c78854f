//! The directory: the registry kept in step with the other members, and the router's view of it.
//!
//! A node says what it is and has when something of it changed, under one signature for its whole set. What it says, and
//! what is news of others, travels by gossip from neighbour to neighbour. When two of them know different things, they
//! compare all that they know, and each gets what it lacks. Whatever changes is kept in one transaction, with what the log
//! says of it, before it is told to anybody. Who is there the gossip tells, apart from that.
//!
//! Here it is read, by the router and the API; `run` keeps it going.

mod agenda;
mod book;
mod compared;
mod conversation;
mod gossip;
mod hinted;
mod journal;
mod learnt;
mod own;
mod refusing;
mod relaying;
mod run;
mod said;
mod sessions;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_channel::{Binding, Bound};
use dawn_identity::{AgentName, Keypair, NodeId, NodeRef};
use dawn_mcp::fault::{Fault, FaultCode};
use dawn_mcp::host::Host;
use dawn_mcp::router::{AgentEntry, Presence as Present, ToolList};
use dawn_mesh::{KnownRelay, Mesh};
use dawn_registry::log::Entry;
use dawn_registry::replica::{Limits, Replica};
use dawn_registry::{AgentSummary, Place};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::api::Events;
use crate::config::{GossipConfig, RegistryConfig};
use crate::error::NodeError;
use crate::members::{Members, SKEW, now};
use crate::party::Keys;
use crate::store::Store;
use crate::sync::{Counts, lock};
use book::{Book, Known};
use gossip::Talk;
use hinted::Hinted;
use journal::{Journal, Note};
use refusing::Refusing;
use sessions::Sessions;
use told::Told;

pub(crate) use compared::DIFF;
pub use compared::{Compared, Difference, EntryLine, HeadLine, Held, How, Lines, key_name};
pub(crate) use gossip::GOSSIP;
pub use gossip::Linked;
pub use said::{NodeView, Said};
pub(crate) use sessions::REGISTRY;
pub use sessions::Synced;

/// The directory of one node. Clones share it.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    book: Arc<tokio::sync::Mutex<Book>>,
    /// What the registry says, read: at hand without waiting for it.
    known: Mutex<BTreeMap<NodeId, Known>>,
    talk: Talk,
    store: Store,
    members: Members,
    mesh: Mesh,
    host: Host,
    key: Keypair,
    keys: Keys,
    config: RegistryConfig,
    limits: Limits,
    /// Where members are, as the configuration says.
    bootstrap: BTreeMap<NodeId, Vec<String>>,
    /// Where they were and may be besides.
    places: Mutex<BTreeMap<NodeId, Places>>,
    /// This incarnation.
    epoch: AtomicU64,
    started: Instant,
    /// Nodes of which only a control plane has told.
    hinted: Mutex<Hinted>,
    /// Nodes that were found on the local network.
    discovered: Mutex<BTreeSet<NodeId>>,
    /// Relays that somebody beside the registry names: the control plane.
    named_relays: Mutex<Vec<KnownRelay>>,
    /// The log says that this node was put out, or said so before it was started.
    has_left: AtomicBool,
    refusing: Refusing,
    told: Mutex<Told>,
    sessions: Sessions,
    counts: Counts,
    /// Bytes of memory of all sets.
    bytes: AtomicUsize,
    changes: watch::Sender<u64>,
    /// With whom this node talks.
    place: watch::Sender<Place>,
    events: Events,
    tasks: TaskTracker,
}

/// Addresses of a node that count beside those that it says now.
#[derive(Default)]
struct Places {
    /// What it said last that it has, also where it says none any more: if the host is lost that it is reached through, it
    /// is found there.
    said: Vec<String>,
    /// What a control plane says.
    hinted: Vec<String>,
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
    pub(crate) gossip: GossipConfig,
    pub(crate) bootstrap: BTreeMap<NodeId, Vec<String>>,
    pub(crate) place: Place,
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
            gossip,
            bootstrap,
            place,
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
        let talk = Talk::new(&key, members.network(), epoch, gossip.gossip());
        let journal = Journal::open(&store, local).await?;
        let bytes = AtomicUsize::new(replica.bytes());
        let has_left = AtomicBool::new(members.is_out());
        let inner = Inner {
            book: Arc::new(tokio::sync::Mutex::new(Book::new(replica, journal))),
            known: Mutex::new(known),
            talk,
            store,
            members,
            mesh,
            host,
            key,
            keys,
            config,
            limits,
            bootstrap,
            places: Mutex::default(),
            epoch: AtomicU64::new(epoch),
            started: Instant::now(),
            hinted: Mutex::default(),
            discovered: Mutex::default(),
            named_relays: Mutex::default(),
            has_left,
            refusing: Refusing::default(),
            told: Mutex::default(),
            sessions: Sessions::default(),
            counts: Counts::default(),
            bytes,
            changes: watch::channel(0).0,
            place: watch::channel(place).0,
            events,
            tasks: TaskTracker::new(),
        };
        let directory = Self(Arc::new(inner));
        let note = Note::new(local, "node.started", json!({ "epoch": epoch }));
        directory.note(note).await;
        directory.announce().await;
        Ok(directory)
    }

    /// With whom this node talks.
    #[must_use]
    pub fn place(&self) -> Place {
        *self.0.place.borrow()
    }

    /// With whom a node talks, as it said last.
    #[must_use]
    pub fn place_of(&self, node: NodeId) -> Place {
        if node == self.0.key.node_id() {
            return self.place();
        }
        self.said(node).map(|said| said.place).unwrap_or_default()
    }

    /// Whether a node is there, as far as is known.
    #[must_use]
    pub fn is_online(&self, node: NodeId) -> bool {
        self.presence_of(node).0
    }

    /// With whom this node talks from now on, which it says to the others.
    pub(crate) fn set_place(&self, place: Place) {
        self.talk_from(place);
        self.0.place.send_replace(place);
    }

    /// A member is where it said last.
    pub(crate) fn find_again(&self, node: NodeId) {
        let said = self.said(node).map(|said| said.addresses.clone());
        self.find_at(node, said.unwrap_or_default());
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
        let presences = self.presences(shown.iter().map(|said| said.node));
        let view = |said: Arc<Said>| {
            let (online, last_seen) = presences.get(&said.node).copied().unwrap_or_default();
            NodeView {
                online: online && (!is_out || said.node == own),
                said,
                last_seen,
            }
        };
        shown.into_iter().map(view).collect()
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

impl Directory {
    /// The agents of nodes that are not online, as they said last.
    #[must_use]
    pub fn agents_away(&self) -> Vec<AgentEntry> {
        let away = self.nodes().into_iter().filter(|view| !view.online);
        away.flat_map(|view| entries(&view, view.said.agents.clone())).collect()
    }
}

/// Agents of a node, as the router and the API know them.
fn entries(view: &NodeView, agents: Vec<AgentSummary>) -> Vec<AgentEntry> {
    let entry = |summary| AgentEntry {
        node: view.said.node,
        node_name: view.said.name.clone(),
        summary,
    };
    agents.into_iter().map(entry).collect()
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
                entries(&view, agents)
            })
            .collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}
