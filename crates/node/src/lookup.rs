//! Who provides what, and where a node is, beyond what the registry tells: Kademlia (`dawn_kademlia`) over the mesh.
//!
//! One task (`run`) drives the state machine: it asks members what is to be asked (`ask`), over streams of
//! `/dawn/kademlia/1` (`stream`), where it answers them, too. What this node provides (`provided`) it says by itself; what
//! others do is found by `find`, for `dawn find` and for calls to what the registry does not know.

mod ask;
mod find;
pub(crate) mod hints;
mod provided;
mod router;
mod run;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_identity::{Keypair, NodeId};
use dawn_kademlia::{Config, Contact, Kademlia, LookupId, Outcome, Standing};
use dawn_mcp::host::Host;
use dawn_mesh::Mesh;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::directory::Directory;
use crate::members::Members;
use crate::shares::{Seldom, Shares};
use crate::sync::{Counts, lock};
use ask::Resting;
pub use find::{Provides, Sought};
pub(crate) use router::Seeking;
pub(crate) use stream::KADEMLIA;

/// A member that does not answer within this has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lookups of one node. Clones share them.
#[derive(Clone)]
pub struct Lookup(Arc<Inner>);

struct Inner {
    core: Mutex<Core>,
    /// What [`Kademlia`] takes for the beginning of time.
    started: Instant,
    /// There may be something to do for the task that drives it.
    wake: Notify,
    directory: Directory,
    members: Members,
    mesh: Mesh,
    host: Host,
    key: Keypair,
    answering: Shares,
    resting: Resting,
    /// Turns to dial nodes where members say that they are.
    hinted: Arc<Semaphore>,
    refused: Counts,
    asked: Counts,
    /// Of whom it was told lately that something of it is refused.
    told: Seldom<(NodeId, &'static str)>,
    /// What was looked for lately because a call wanted it.
    sought: Seldom<String>,
    provided: AtomicUsize,
    tasks: TaskTracker,
}

/// What changes together.
struct Core {
    kademlia: Kademlia,
    /// Who waits for which lookup.
    waiting: BTreeMap<LookupId, oneshot::Sender<Outcome>>,
}

/// What lookups are made of.
pub(crate) struct Parts {
    pub(crate) directory: Directory,
    pub(crate) members: Members,
    pub(crate) mesh: Mesh,
    pub(crate) host: Host,
    pub(crate) key: Keypair,
}

/// How much is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Members in the table.
    pub members: usize,
    /// Words of providers that are kept here.
    pub words: usize,
    /// Keys that this node provides.
    pub provided: usize,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup")
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Lookup {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            directory,
            members,
            mesh,
            host,
            key,
        } = parts;
        let config = Config {
            patience: PATIENCE,
            ..Config::default()
        };
        let core = Core {
            kademlia: Kademlia::new(key.node_id(), members.network(), config),
            waiting: BTreeMap::new(),
        };
        Self(Arc::new(Inner {
            core: Mutex::new(core),
            started: Instant::now(),
            wake: Notify::new(),
            directory,
            members,
            mesh,
            host,
            key,
            answering: Shares::new(stream::STREAMS.0, stream::STREAMS.1),
            resting: Resting::default(),
            hinted: Arc::new(Semaphore::new(ask::HINTS)),
            refused: Counts::default(),
            asked: Counts::default(),
            told: Seldom::default(),
            sought: Seldom::default(),
            provided: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
        }))
    }

    /// How much is known.
    #[must_use]
    pub fn size(&self) -> Size {
        let (members, words) = lock(&self.0.core).kademlia.size();
        let provided = self.0.provided.load(std::sync::atomic::Ordering::Relaxed);
        Size {
            members,
            words,
            provided,
        }
    }

    /// How many requests of members were refused, by code.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.0.refused.all()
    }

    /// What became of requests to members.
    #[must_use]
    pub fn asked(&self) -> Vec<(&'static str, u64)> {
        self.0.asked.all()
    }

    /// Lets `act` change what is known, at this time; what is to be done then is done soon.
    fn change<T>(&self, act: impl FnOnce(&mut Core, Duration) -> T) -> T {
        let done = act(&mut lock(&self.0.core), self.0.started.elapsed());
        self.0.wake.notify_one();
        done
    }

    /// A member, with where it can be dialled: as it says, or at least as this node has dialled it.
    fn contact(&self, node: NodeId) -> Contact {
        let said = self.0.directory.addresses_of(node).unwrap_or_default();
        let dialled = || {
            let connected = self.0.mesh.connected().into_iter();
            let peer = connected
                .filter(|peer| peer.dialled == Some(true))
                .find(|peer| peer.node == node);
            peer.and_then(|peer| peer.address)
        };
        let addresses = if said.is_empty() {
            dialled().into_iter().collect()
        } else {
            said
        };
        Contact { node, addresses }
    }

    /// What is known of a node. Of whom nothing is known the handshake shows whether it is a member.
    fn standing(&self, node: NodeId) -> Standing {
        if self.0.members.revoked_at(node).is_some() && !self.0.directory.is_member(node) {
            Standing::Out
        } else if self.0.directory.addresses_of(node).is_some() {
            Standing::Member
        } else {
            Standing::Unknown
        }
    }
}
