//! The lists of all agents, asked once and kept until an agent's summary says that they changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dawn_identity::{AgentAddress, AgentName, NodeId};
use dawn_registry::AgentState;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::list::{Item, ListKind, PAGES, page, page_params};
use super::names::Names;
use super::search::Index;
use crate::fault::{Fault, FaultCode};
use crate::gateway::MODERN_VERSIONS;
use crate::jsonrpc::{Kind, Message};
use crate::router::{AgentEntry, Router};
use crate::wire::Mode;

/// Agents that are asked at the same time.
const AT_ONCE: usize = 64;
/// Most bytes that are kept of one agent's list.
const BYTES: usize = 8 << 20;
/// Indexes that are kept: one for each view in use.
const INDEXES: usize = 16;

/// Changes of the network within this time are one.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two attempts to subscribe, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// What every request of the node's own carries.
fn own_meta() -> serde_json::Value {
    serde_json::json!({
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSIONS[0],
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "dawn", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// Asks an agent for a page of a list, as the node itself; what comes is its answer, whatever that says.
pub(super) async fn ask_page(
    router: &Router,
    address: &AgentAddress,
    method: &str,
    cursor: Option<&str>,
) -> Result<Message, Fault> {
    let meta = serde_json::value::to_raw_value(&own_meta());
    let meta = meta.map_err(|error| Fault::new(FaultCode::Protocol, error.to_string()))?;
    let request = Message::request("\"dawn-list\"", method, &page_params(Some(&meta), cursor));
    let lost = || router.lost(address);
    let mut link = router.open(address, Mode::Exchange).await?;
    let sent = link.sender.send(request.into()).await;
    sent.map_err(|error| error.fault(&lost()))?;
    loop {
        let frame = link.receiver.recv().await.map_err(|error| error.fault(&lost()))?;
        let message = frame.ok_or_else(lost)?.message;
        if message.peek().is_ok_and(|peek| peek.kind() == Kind::Response) {
            return Ok(message);
        }
    }
}

type Key = (NodeId, AgentName, ListKind);

/// One agent's list as of a state of its summary.
struct Cell {
    lists: [u64; 3],
    address: AgentAddress,
    items: OnceCell<Arc<Vec<Item>>>,
}

/// Kept lists, for every view of a node.
pub(super) struct Catalogue {
    router: Router,
    names: Arc<Names>,
    cells: Mutex<HashMap<Key, Arc<Cell>>>,
    indexes: Mutex<Vec<(u64, Arc<Index>)>>,
    watch: Mutex<Weak<Watch>>,
}

/// Subscriptions to every agent's list changes, while somebody wants to hear of them. The hosts see what the agents
/// tell, ask them anew and announce new summaries; so nothing is to be done with it here.
pub(super) struct Watch {
    _stop: DropGuard,
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").finish_non_exhaustive()
    }
}

impl Catalogue {
    pub(super) fn new(router: Router, names: Arc<Names>) -> Self {
        Self {
            router,
            names,
            cells: Mutex::default(),
            indexes: Mutex::default(),
            watch: Mutex::default(),
        }
    }

    /// Keeps the lists fresh for as long as what is returned lives.
    pub(super) fn watched(self: &Arc<Self>) -> Arc<Watch> {
        let mut kept = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = kept.upgrade() {
            return watch;
        }
        let stop = CancellationToken::new();
        let catalogue = Arc::clone(self);
        tokio::spawn(stop.clone().run_until_cancelled_owned(catalogue.watch()));
        let watch = Arc::new(Watch {
            _stop: stop.drop_guard(),
        });
        *kept = Arc::downgrade(&watch);
        watch
    }

    async fn watch(self: Arc<Self>) {
        let mut changes = self.router.directory().changes();
        let mut listening = HashMap::new();
        loop {
            changes.mark_unchanged();
            let mut agents = self.router.directory().agents();
            agents.retain(|entry| entry.summary.state == AgentState::Ready);
            listening.retain(|key: &(NodeId, AgentName), _| {
                agents
                    .iter()
                    .any(|entry| entry.node == key.0 && entry.summary.name == key.1)
            });
            for entry in agents {
                let key = (entry.node, entry.summary.name.clone());
                let address = AgentAddress {
                    node: entry.node.into(),
                    agent: entry.summary.name,
                };
                listening
                    .entry(key)
                    .or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).listen(address))));
            }
            if changes.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Subscribes to the changes of an agent's lists, again and again.
    async fn listen(self: Arc<Self>, address: AgentAddress) {
        let lists =
            serde_json::json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
        let params = serde_json::json!({ "notifications": lists, "_meta": own_meta() }).to_string();
        let mut pause = PAUSE;
        loop {
            let request = Message::request("\"dawn-watch\"", "subscriptions/listen", &params);
            let begun = tokio::time::Instant::now();
            if let Ok(mut link) = self.router.open(&address, Mode::Exchange).await
                && link.sender.send(request.into()).await.is_ok()
            {
                while let Ok(Some(_)) = link.receiver.recv().await {}
            }
            // One that offers no such thing answers at once.
            pause = if begun.elapsed() > LONGEST {
                PAUSE
            } else {
                (pause * 2).min(LONGEST)
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<Key, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lists of these agents in their order; an agent that fails or is late has none.
    pub(super) async fn lists(&self, kind: ListKind, agents: &[(AgentEntry, AgentAddress)]) -> Vec<Arc<Vec<Item>>> {
        self.forget(agents.len());
        let room = Semaphore::new(AT_ONCE);
        let mut asked = FuturesOrdered::new();
        for (entry, address) in agents {
            asked.push_back(self.list_in_time(kind, entry, address, &room));
        }
        asked.collect().await
    }

    async fn list_in_time(
        &self,
        kind: ListKind,
        entry: &AgentEntry,
        address: &AgentAddress,
        room: &Semaphore,
    ) -> Arc<Vec<Item>> {
        // The semaphore is never closed.
        let _permit = room.acquire().await;
        let items = tokio::time::timeout(self.router.limits().aggregate, self.list(kind, entry, address)).await;
        let items = items.unwrap_or_else(|_| Err(Fault::new(FaultCode::Timeout, "it did not answer in time")));
        items.unwrap_or_else(|fault| {
            tracing::warn!(agent = %address, %fault, "left out of a list");
            Arc::default()
        })
    }

    async fn list(&self, kind: ListKind, entry: &AgentEntry, address: &AgentAddress) -> Result<Arc<Vec<Item>>, Fault> {
        let cell = {
            let mut cells = self.cells();
            let key = (entry.node, entry.summary.name.clone(), kind);
            let known = cells.get(&key);
            match known.filter(|cell| cell.lists == entry.summary.lists && cell.address == *address) {
                Some(cell) => Arc::clone(cell),
                None => {
                    let cell = Arc::new(Cell {
                        lists: entry.summary.lists,
                        address: address.clone(),
                        items: OnceCell::new(),
                    });
                    cells.insert(key, Arc::clone(&cell));
                    cell
                }
            }
        };
        let items = cell.items.get_or_try_init(|| self.ask(kind, address)).await?;
        Ok(Arc::clone(items))
    }

    /// Drops lists of agents that are gone, once there are many.
    fn forget(&self, agents: usize) {
        const KINDS: usize = 4;
        let mut cells = self.cells();
        if cells.len() > 2 * KINDS * (agents + 8) {
            let known = self.router.directory().agents();
            cells.retain(|(node, name, _), _| {
                known
                    .iter()
                    .any(|entry| entry.node == *node && entry.summary.name == *name)
            });
        }
    }

    async fn ask(&self, kind: ListKind, address: &AgentAddress) -> Result<Arc<Vec<Item>>, Fault> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut cursor = None;
        for _ in 0..PAGES {
            let response = ask_page(&self.router, address, kind.method(), cursor.as_deref()).await?;
            // An agent without such a list answers an error: it has nothing to add.
            let Some(page) = page(kind, &response, address, &self.names) else {
                break;
            };
            for item in page.items {
                bytes += item.json.len();
                if bytes > BYTES {
                    tracing::warn!(agent = %address, list = kind.method(), "its list is longer than what is kept of it");
                    return Ok(Arc::new(items));
                }
                items.push(item);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(Arc::new(items))
    }

    /// The index of tools that `make` makes, kept by what it is made of.
    pub(super) fn index(&self, made_of: u64, make: impl FnOnce() -> Index) -> Arc<Index> {
        let kept = || self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, index)) = kept().iter().find(|(key, _)| *key == made_of) {
            return Arc::clone(index);
        }
        let index = Arc::new(make());
        let mut kept = kept();
        if kept.len() >= INDEXES {
            kept.remove(0);
        }
        kept.push((made_of, Arc::clone(&index)));
        index
    }
}
