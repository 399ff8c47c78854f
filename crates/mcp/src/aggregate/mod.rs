//! All agents of the network as one MCP server.
//!
//! Tools and prompts are named `node__agent__name`, resources and tasks `dawn://node/agent/<their own>`. What is called
//! goes to its agent with only the name replaced; lists are the agents' own items, renamed. An agent that is dead or
//! slow is left out, never the whole.

mod catalogue;
mod exchange;
mod find;
mod list;
mod names;
mod params;
mod search;
mod session;
mod upstream;
mod view;

use std::borrow::Cow;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dawn_identity::AgentAddress;
use dawn_registry::AgentState;
use tokio::sync::mpsc;

use crate::bridge::task;
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Message, Params, Peek, text};
use crate::link::Link;
use crate::router::{AgentEntry, Router};
use crate::wire::Mode;
use catalogue::Catalogue;
pub(crate) use find::CALL_TOOL;
use list::{Item, ListKind, joined};
use names::Names;
pub(crate) use names::Owned;
pub(crate) use params::Called;
use params::ParamLists;
pub use view::{Disclosure, View, Views};

/// Changes of the network within this time are told as one.
const SETTLE: Duration = Duration::from_millis(30);
/// The least time between two tellings.
const GAP: Duration = Duration::from_millis(250);
/// Items of one page. Few clients turn pages, so it is long.
const PAGE: usize = 1000;

/// What a caller may use, by the name under which it is shown.
pub(crate) type May = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// All agents that can be used, each with how it is called in names, as of a state of the directory.
type Listed = Arc<Vec<(AgentEntry, AgentAddress)>>;

/// The sending half towards the client of the aggregate.
type ToClient = mpsc::Sender<Result<Frame, Fault>>;
/// The receiving half from the client of the aggregate.
type FromClient = mpsc::Receiver<Result<Frame, Fault>>;

/// Opens links to all agents as one, or to those of a view.
#[derive(Clone)]
pub struct Aggregate {
    router: Router,
    listed: Arc<Mutex<Option<(u64, Listed)>>>,
    may: Option<May>,
    names: Arc<Names>,
    catalogue: Arc<Catalogue>,
    params: Arc<ParamLists>,
    view: Arc<View>,
    disclosure: Disclosure,
}

impl std::fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aggregate")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

impl Aggregate {
    /// An aggregate over everything the router reaches.
    #[must_use]
    pub fn new(router: Router) -> Self {
        let names = Arc::<Names>::default();
        Self {
            catalogue: Arc::new(Catalogue::new(router.clone(), Arc::clone(&names))),
            params: Arc::default(),
            router,
            listed: Arc::default(),
            may: None,
            names,
            view: Arc::default(),
            disclosure: Disclosure::Full,
        }
    }

    /// The same through a view; `disclosure` is the client's choice, if it made one.
    #[must_use]
    pub fn within(&self, view: Arc<View>, disclosure: Option<Disclosure>) -> Self {
        Self {
            disclosure: disclosure.unwrap_or(view.disclosure),
            view,
            ..self.clone()
        }
    }

    /// The same for a person: with links that this router opens, and of what the lists hold only what `may` says. They
    /// hold what this node may see.
    #[must_use]
    pub(crate) fn on_behalf(&self, router: Router, may: Option<May>) -> Self {
        Self {
            router,
            may,
            ..self.clone()
        }
    }

    fn may(&self, shown: &str) -> bool {
        self.may.as_ref().is_none_or(|may| may(shown))
    }

    /// A link to all agents. Dropping it ends what it began.
    #[must_use]
    pub fn open(&self, mode: Mode) -> Link {
        let capacity = self.router.limits().queue_messages;
        let (near, from_client) = mpsc::channel(capacity);
        let (to_client, far) = mpsc::channel(capacity);
        let aggregate = self.clone();
        tokio::spawn(async move {
            match mode {
                Mode::Exchange => exchange::serve(aggregate, from_client, to_client).await,
                Mode::Session => session::serve(aggregate, from_client, to_client).await,
            }
        });
        Link::from_channels(near, far)
    }

    /// The agents of the view that can be used now, each with how it is called in names: by its node's name, or by id
    /// where two nodes share a name.
    fn agents(&self) -> Vec<(AgentEntry, AgentAddress)> {
        let listed = self.listed();
        let shown = listed.iter().filter(|(_, address)| self.view.has_agent(address));
        shown.cloned().collect()
    }

    /// Whether an agent belongs to the view and is called so: there is one way to call each.
    fn has(&self, address: &AgentAddress) -> bool {
        self.view.has_agent(address) && self.listed().iter().any(|(_, listed)| listed == address)
    }

    fn listed(&self) -> Listed {
        let now = *self.router.directory().changes().borrow();
        let mut known = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, listed)) = known.as_ref().filter(|(of, _)| *of == now) {
            return Arc::clone(listed);
        }
        let listed = Arc::new(self.addressed());
        *known = Some((now, Arc::clone(&listed)));
        listed
    }

    fn addressed(&self) -> Vec<(AgentEntry, AgentAddress)> {
        let mut agents = self.router.directory().agents();
        agents.sort_by(|a, b| (&a.node_name, a.node, &a.summary.name).cmp(&(&b.node_name, b.node, &b.summary.name)));
        let mut shared = std::collections::BTreeSet::new();
        for pair in agents.windows(2) {
            if let [one, other] = pair
                && one.node_name == other.node_name
                && one.node != other.node
            {
                shared.insert(one.node_name.clone());
            }
        }
        let addressed = agents.into_iter().map(|entry| {
            let node = if shared.contains(&entry.node_name) {
                entry.node.into()
            } else {
                entry.node_name.clone().into()
            };
            let agent = entry.summary.name.clone();
            (entry, AgentAddress { node, agent })
        });
        addressed
            .filter(|(entry, _)| entry.summary.state == AgentState::Ready)
            .collect()
    }

    /// Changes whenever the view's lists do: tools, prompts, resources.
    fn fingerprint(&self) -> [u64; 3] {
        let mut hashers = [(); 3].map(|()| std::hash::DefaultHasher::new());
        for (entry, address) in self.agents() {
            for (hasher, list) in hashers.iter_mut().zip(entry.summary.lists) {
                (address.to_string(), list).hash(hasher);
            }
        }
        hashers.map(|hasher| hasher.finish())
    }

    /// The items of a list as the view shows them.
    fn shown<'a>(&'a self, kind: ListKind, lists: &'a [Arc<Vec<Item>>]) -> Vec<Cow<'a, Item>> {
        let is_named = matches!(kind, ListKind::Tools | ListKind::Prompts);
        let items = lists.iter().flat_map(|items| items.iter());
        let items = items.filter(|item| !is_named || self.view.has_name(&item.name));
        let item = |item: &'a Item| {
            let name = self.view.shown(&item.name);
            let description = self.view.describe.get(&item.name).filter(|_| kind == ListKind::Tools);
            if !is_named || (name == item.name && description.is_none()) {
                Cow::Borrowed(item)
            } else {
                Cow::Owned(item.renamed(&name, description.map(String::as_str)))
            }
        };
        items.map(item).collect()
    }

    /// The result of a list, from `cursor` on; `None` when the cursor is none of the list as it is now.
    async fn list(&self, kind: ListKind, cursor: Option<&str>, disclosed: &[Item], modern: bool) -> Option<String> {
        let lists = self.catalogue.lists(kind, &self.agents()).await;
        let mut items = if kind == ListKind::Tools && self.disclosure == Disclosure::Search {
            let own = find::tools().into_iter().map(Cow::Owned);
            own.chain(disclosed.iter().map(Cow::Borrowed)).collect()
        } else {
            self.shown(kind, &lists)
        };
        items.retain(|item| self.may(&item.name));
        let mut hasher = std::hash::DefaultHasher::new();
        for item in &items {
            item.name.hash(&mut hasher);
        }
        let stamp = hasher.finish();
        let begin = match cursor {
            None => 0,
            Some(cursor) => {
                let (at, of) = cursor.split_once('-')?;
                let at: usize = at.parse().ok()?;
                (u64::from_str_radix(of, 16) == Ok(stamp) && at < items.len()).then_some(at)?
            }
        };
        let end = (begin + PAGE).min(items.len());
        let next = (end < items.len()).then(|| format!("{end}-{stamp:x}"));
        let page = items.iter().skip(begin).take(end - begin);
        let json: Vec<&str> = page.map(|item| item.json.as_str()).collect();
        Some(joined(kind, &json, next.as_deref(), modern))
    }

    /// Whose tool or prompt is shown under a name.
    fn owner_of(&self, shown: &str) -> Option<Owned> {
        let full = self.view.full(shown);
        let owned = self.names.resolve(&full);
        // Only what is listed, and only as it is listed: rules go by names.
        let is_listed = |owned: &Owned| {
            self.may(shown)
                && self.view.shown(&full) == shown
                && self.view.has_name(&full)
                && self.names.alias(&owned.address, &owned.own) == *full
                && self.has(&owned.address)
        };
        owned.filter(is_listed)
    }

    /// Whose task a request names.
    fn owner_of_task(&self, params: &Params<'_>) -> Option<Owned> {
        let owned = names::unwrap_uri(&text(params.task_id?)?);
        owned.filter(|owned| self.has(&owned.address))
    }

    /// Refuses a request about a task that is none of an agent here, as a server does that does not know it.
    fn unknown_task(&self, peek: &Peek<'_>, raw_id: &str) -> Option<Message> {
        let is_known = || {
            peek.params()
                .is_some_and(|params| self.owner_of_task(&params).is_some())
        };
        let names_one = matches!(
            peek.method(),
            "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel"
        );
        (names_one && !is_known()).then(|| task::not_found(raw_id))
    }

    /// Which agent a request is for, and the request with the agent's own name in it.
    fn route(&self, message: &Message, peek: &Peek<'_>) -> Result<(AgentAddress, Message), Fault> {
        let unknown = |what: &str| {
            Fault::new(
                FaultCode::UnknownAgent,
                format!("{what}; list again to see what there is now"),
            )
        };
        let params = peek.params().ok_or_else(|| unknown("the request has no parameters"))?;
        let by_name = |raw: Option<&serde_json::value::RawValue>| {
            let name = raw.and_then(text).ok_or_else(|| unknown("the request names nothing"))?;
            self.owner_of(&name)
                .ok_or_else(|| unknown(&format!("there is no {name:?} here")))
        };
        let by_uri = |raw: Option<&serde_json::value::RawValue>| {
            let uri = raw
                .and_then(text)
                .ok_or_else(|| unknown("the request names no resource"))?;
            names::unwrap_uri(&uri)
                .filter(|owned| self.may(&uri) && self.has(&owned.address))
                .ok_or_else(|| unknown(&format!("there is no {uri:?} here; addresses are dawn://node/agent/…")))
        };
        if let Some(inner) = self.call_of(peek) {
            let inner = inner?;
            let Owned { address, own } = by_name(Some(inner.name))?;
            let mut edit = message.edit();
            if let Some(raw) = params.name {
                edit.replace(raw, serde_json::Value::from(own).to_string());
            }
            let arguments = inner.arguments.map_or("{}", serde_json::value::RawValue::get);
            edit.replace(inner.outer, arguments.to_owned());
            return Ok((address, edit.finish()));
        }
        let (raw, owned) = match peek.method() {
            "tools/call" | "prompts/get" => (params.name, by_name(params.name)?),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => (params.uri, by_uri(params.uri)?),
            "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => {
                let owned = self.owner_of_task(&params);
                (params.task_id, owned.ok_or_else(|| unknown("there is no such task"))?)
            }
            "completion/complete" => {
                #[derive(serde::Deserialize)]
                struct Completion<'a> {
                    #[serde(borrow, rename = "ref")]
                    reference: crate::jsonrpc::Params<'a>,
                }
                let reference = peek
                    .params
                    .and_then(|raw| serde_json::from_str::<Completion<'_>>(raw.get()).ok());
                let reference = reference
                    .ok_or_else(|| unknown("the completion has no reference"))?
                    .reference;
                match reference.name {
                    Some(name) => (Some(name), by_name(Some(name))?),
                    None => (reference.uri, by_uri(reference.uri)?),
                }
            }
            other => return Err(unknown(&format!("the method {other} cannot be routed to one agent"))),
        };
        let Owned { address, own } = owned;
        let mut edit = message.edit();
        if let Some(raw) = raw {
            edit.replace(raw, serde_json::Value::from(own).to_string());
        }
        Ok((address, edit.finish()))
    }

    /// What the aggregate says about itself to people and models.
    fn instructions(&self) -> String {
        use std::fmt::Write as _;
        let mut words = String::from(
            "The agents of a private Dawn network as one server. A tool or prompt node__agent__name belongs to that agent on that node; resources are addressed dawn://node/agent/….",
        );
        if self.disclosure == Disclosure::Search {
            words.push_str(" Tools are found with find_tools and called with call_tool.");
        }
        for (entry, address) in self.agents() {
            // Writing to a string cannot fail.
            let _ = write!(
                words,
                "\n- {address}: {} ({} tools)",
                entry.summary.title, entry.summary.tools_total
            );
        }
        words
    }
}
