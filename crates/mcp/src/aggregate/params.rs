//! Which arguments the tools of the network want repeated as headers: asked once of each agent whose node says that it
//! has such tools, and kept until the agent's list of tools is another one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dawn_identity::{AgentAddress, AgentName, NodeId, NodeRef};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::catalogue::ask_page;
use super::list::PAGES;
use super::names::Owned;
use super::{Aggregate, ListKind};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Peek, text};
use crate::param_headers::{ParamHeader, of_tools};
use crate::router::Router;

/// Most bytes of a list that are read.
const BYTES: usize = 8 << 20;
/// Agents of which is remembered what they want before those that are gone are forgotten.
const REMEMBERED: usize = 256;
/// How long what an agent wants counts as just asked.
const FRESH: Duration = Duration::from_secs(1);

type Known = HashMap<String, Arc<[ParamHeader]>>;

/// What one agent wants, as of a state of its list.
#[derive(Debug)]
struct Cell {
    digest: u64,
    asked: Instant,
    known: OnceCell<Known>,
}

/// What the agents of the network want.
#[derive(Debug, Default)]
pub(super) struct ParamLists(Mutex<HashMap<(NodeId, AgentName), Arc<Cell>>>);

/// A tool that is called.
#[derive(Debug)]
pub(crate) struct Called<'a> {
    router: &'a Router,
    lists: &'a ParamLists,
    key: (NodeId, AgentName),
    digest: u64,
    tool: String,
}

impl Aggregate {
    /// Whose tool a call through the view is for; `None` when it is for none of the agents'.
    pub(crate) fn callee(&self, peek: &Peek<'_>) -> Option<Owned> {
        if self.is_find(peek) || self.call_of(peek).is_some() {
            return None;
        }
        self.owner_of(&text(peek.params()?.name?)?)
    }

    /// The tool, where its agent has some that want arguments repeated as headers.
    pub(crate) fn called(&self, owned: Owned) -> Option<Called<'_>> {
        let Owned { address, own } = owned;
        let node = match &address.node {
            NodeRef::Any => *self.router.instances(&address).ok()?.first()?,
            one => self.router.directory().resolve(one).ok()?,
        };
        let tools = self.router.directory().tools(node, &address.agent)?;
        if tools.has_param_headers == Some(false) {
            return None;
        }
        Some(Called {
            router: &self.router,
            lists: &self.params,
            key: (node, address.agent),
            digest: tools.digest,
            tool: own,
        })
    }
}

impl Called<'_> {
    /// Which arguments of the tool are to be repeated as headers. `is_fresh` asks again, unless that was done just now.
    ///
    /// What an agent that does not answer wants is not known: the call will fare no better.
    pub(crate) async fn param_headers(&self, is_fresh: bool) -> Option<Arc<[ParamHeader]>> {
        let cell = self.lists.cell(self, is_fresh);
        let asked = cell.known.get_or_try_init(|| self.ask());
        let asked = tokio::time::timeout(self.router.limits().aggregate, asked).await;
        let late = || Err(Fault::new(FaultCode::Timeout, "it did not answer in time"));
        match asked.unwrap_or_else(|_| late()) {
            Ok(known) => known.get(&self.tool).cloned(),
            Err(fault) => {
                tracing::warn!(agent = %self.key.1, %fault, "what its tools want as headers is not known");
                None
            }
        }
    }

    async fn ask(&self) -> Result<Known, Fault> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Page {
            tools: Vec<Value>,
            next_cursor: Option<String>,
        }
        let (node, agent) = self.key.clone();
        let address = AgentAddress {
            node: node.into(),
            agent,
        };
        let mut known = HashMap::new();
        let (mut bytes, mut cursor) = (0, None);
        for _ in 0..PAGES {
            let answer = ask_page(self.router, &address, ListKind::Tools.method(), cursor.as_deref()).await?;
            bytes += answer.len();
            let page = answer.peek().ok().and_then(|peek| peek.result);
            let page: Page = page
                .and_then(|page| serde_json::from_str(page.get()).ok())
                .unwrap_or_default();
            known.extend(of_tools(&page.tools));
            cursor = page.next_cursor;
            if cursor.is_none() || bytes > BYTES {
                break;
            }
        }
        Ok(known)
    }
}

impl ParamLists {
    fn cell(&self, called: &Called<'_>, is_fresh: bool) -> Arc<Cell> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = |cell: &&Arc<Cell>| {
            cell.digest == called.digest && !(is_fresh && cell.known.initialized() && cell.asked.elapsed() > FRESH)
        };
        if let Some(cell) = cells.get(&called.key).filter(is_good) {
            return Arc::clone(cell);
        }
        if cells.len() >= REMEMBERED {
            let directory = called.router.directory();
            cells.retain(|(node, agent), _| directory.tools(*node, agent).is_some());
        }
        let cell = Arc::new(Cell {
            digest: called.digest,
            asked: Instant::now(),
            known: OnceCell::new(),
        });
        cells.insert(called.key.clone(), Arc::clone(&cell));
        cell
    }
}
