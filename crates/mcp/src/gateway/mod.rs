//! The gateway: where MCP clients of this machine meet the agents of the whole network.
//!
//! A door is a transport and an era (Streamable HTTP for legacy sessions and for modern exchanges, framed streams for
//! `dawn mcp`, WebSocket); behind every door stands a [`Target`]: one agent, unchanged, or all agents as one server. The rules of
//! HTTP (sessions, headers, statuses) of each revision live here and nowhere else.
//! Source: MCP 2025-11-25 and 2026-07-28, "Streamable HTTP".

mod era;
mod exchange;
mod headers;
mod http;
pub mod resource;
mod session;
mod sse;
mod stdio;
mod websocket;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dawn_identity::{AgentAddress, AgentName, NodeRef};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use era::{Era, LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS};
pub use websocket::{Owner, asks_for_channel, bearer};

use crate::aggregate::{Aggregate, Called, Owned};
pub use crate::aggregate::{Disclosure, View, Views};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::Peek;
use crate::limits::McpLimits;
use crate::link::Link;
use crate::router::Router;
use crate::websocket::{Reason, Settings};
use crate::wire::{Caller, Mode, User};
use session::Session;
use websocket::Room;

/// What a door leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One agent, nothing changed.
    Agent(AgentAddress),
    /// Every agent of the network as one server, or those of a group.
    All {
        /// The group, if it is one's endpoint.
        group: Option<String>,
        /// How the client wants tools disclosed, if it said so.
        disclosure: Option<Disclosure>,
    },
}

/// What went through the gateway since it was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// HTTP requests with a JSON-RPC message.
    pub posts: AtomicU64,
    /// Legacy sessions opened.
    pub sessions: AtomicU64,
    /// Modern exchanges.
    pub exchanges: AtomicU64,
    /// Connections of `dawn mcp`.
    pub bridges: AtomicU64,
    /// Plain WebSocket connections.
    pub sockets: AtomicU64,
    /// WebSocket connections in a secure channel.
    pub secure_sockets: AtomicU64,
    /// Requests refused before they reached an agent (malformed, wrong headers, too large, unknown session).
    pub refused: AtomicU64,
    /// Requests from beyond this machine that were let in.
    pub admitted: AtomicU64,
    /// Requests from beyond this machine that were not: no token, or one that does not do.
    pub challenged: AtomicU64,
    faults: [AtomicU64; FaultCode::ALL.len()],
    ended: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fault(&self, code: FaultCode) {
        if let Some(at) = FaultCode::ALL.iter().position(|known| *known == code) {
            Self::count(&self.faults[at]);
        }
    }

    pub(crate) fn ended(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|known| *known == reason) {
            Self::count(&self.ended[at]);
        }
    }

    /// How often WebSocket connections ended for each reason.
    pub fn endings(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .into_iter()
            .zip(self.ended.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// How often each fault was told to a client.
    pub fn faults(&self) -> impl Iterator<Item = (FaultCode, u64)> + '_ {
        FaultCode::ALL
            .into_iter()
            .zip(self.faults.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// The gateway of one node. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
    /// Who came in from beyond this machine, and where; `None` is this node's owner.
    guest: Option<Guest>,
    /// Whether only such are served.
    guests_only: bool,
    /// The member that came in by its certificate; it may use this node's agents alone.
    member: Option<Arc<Caller>>,
}

/// Somebody whom an exposed endpoint let in, under its rules as they were then.
#[derive(Debug, Clone)]
struct Guest {
    user: User,
    endpoint: Arc<resource::Exposed>,
}

impl Guest {
    /// Whether it is the same person under the same rules.
    fn is(&self, other: &Self) -> bool {
        self.user == other.user && Arc::ptr_eq(&self.endpoint.access, &other.endpoint.access)
    }
}

struct Inner {
    router: Router,
    aggregate: Aggregate,
    views: Views,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    counters: Counters,
    websocket: RwLock<Settings>,
    sockets: Room,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway over a router. It runs tasks until [`shutdown`](Self::shutdown); must be called within a runtime.
    #[must_use]
    pub fn new(router: Router) -> Self {
        let aggregate = Aggregate::new(router.clone());
        let inner = Inner {
            websocket: RwLock::default(),
            sockets: Room::new(router.limits().sockets),
            router,
            aggregate,
            views: Views::default(),
            sessions: Mutex::default(),
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let gateway = Self {
            inner: Arc::new(inner),
            guest: None,
            guests_only: false,
            member: None,
        };
        let reaper = gateway.clone();
        gateway
            .inner
            .tasks
            .spawn(async move { reaper.reap_idle_sessions().await });
        gateway
    }

    /// The HTTP routes: `/mcp`, `/mcp/groups/{group}` and `/mcp/{node}/{agent}`, and the same under `/ws` for WebSocket.
    /// Authentication is the caller's; at `/ws` only a request that is marked as the [`Owner`]'s is taken for the owner's.
    pub fn routes(&self) -> axum::Router {
        http::routes(self.clone()).merge(websocket::routes(self.clone()))
    }

    /// Sets how WebSocket is served: connections that come later are.
    pub fn set_websocket(&self, settings: Settings) {
        *self.inner.websocket.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// How WebSocket is served.
    #[must_use]
    pub fn websocket(&self) -> Settings {
        self.inner
            .websocket
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// WebSocket connections that are open.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.inner.sockets.len()
    }

    /// The same routes for somebody from beyond this machine: a request without a [`Guest`] is refused.
    fn guest_routes(&self) -> axum::Router {
        http::routes(Self {
            guests_only: true,
            ..self.clone()
        })
    }

    /// The router behind the gateway.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.inner.router
    }

    /// What the endpoints of all agents and of groups show.
    #[must_use]
    pub fn views(&self) -> &Views {
        &self.inner.views
    }

    /// What went through.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Legacy sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.with_sessions(|sessions| sessions.len())
    }

    /// Ends every session and task.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.with_sessions(HashMap::clear);
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn limits(&self) -> &McpLimits {
        self.inner.router.limits()
    }

    fn with_sessions<T>(&self, act: impl FnOnce(&mut HashMap<String, Arc<Session>>) -> T) -> T {
        act(&mut self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same gateway for who sends a request; `None` where nobody may who does not say so.
    fn entered(self, guest: Option<Guest>) -> Option<Self> {
        (guest.is_some() || !self.guests_only).then_some(Self { guest, ..self })
    }

    /// The same gateway for a member, or for this node's owner.
    fn for_member(&self, member: Option<Caller>) -> Self {
        Self {
            member: member.map(Arc::new),
            ..self.clone()
        }
    }

    fn user(&self) -> Option<&User> {
        self.guest.as_ref().map(|guest| &guest.user)
    }

    /// Whether one more session may be begun: guests have half of them together, and a sixteenth each.
    fn has_room(&self) -> bool {
        let most = self.limits().sessions;
        self.with_sessions(|sessions| {
            let Some(guest) = &self.guest else {
                return sessions.len() < most;
            };
            let guests = sessions.values().filter_map(|session| session.guest());
            let (mut all, mut own) = (0, 0);
            for other in guests {
                all += 1;
                own += usize::from(other.user == guest.user);
            }
            sessions.len() < most && all < most.div_ceil(2) && own < most.div_ceil(16)
        })
    }

    /// Opens a link to what stands behind a door.
    async fn open(&self, target: &Target, mode: Mode) -> Result<Link, Fault> {
        self.open_about(target, mode, None).await
    }

    /// The same for a request about something that one instance of an agent alone may know.
    async fn open_about(&self, target: &Target, mode: Mode, about: Option<&str>) -> Result<Link, Fault> {
        let router = self.inner.router.on_behalf(self.user().cloned());
        if let Some(member) = &self.member {
            let opened = match target {
                Target::Agent(address) => router.open_for(member, address, mode).await,
                Target::All { .. } => Err(Fault::new(FaultCode::Denied, "several agents as one are the owner's")),
            };
            return opened.inspect_err(|fault| self.inner.counters.fault(fault.code));
        }
        let opened = match target {
            Target::All { group, disclosure } => match self.inner.views.get(group.as_deref()) {
                Some(view) => {
                    let access = self.guest.as_ref().map(|guest| &guest.endpoint.access);
                    let may = access.and_then(|access| access.may(&router.caller()));
                    let aggregate = self.inner.aggregate.on_behalf(router.clone(), may);
                    Ok(aggregate.within(view, *disclosure).open(mode))
                }
                None => Err(unknown_group(group.as_deref().unwrap_or_default())),
            },
            Target::Agent(address) => router.open_about(address, mode, about).await,
        };
        let guarded = match &self.guest {
            Some(guest) => opened.and_then(|link| router.exposed(link, &guest.endpoint.access, &guest.endpoint.path)),
            None => opened,
        };
        guarded.inspect_err(|fault| self.inner.counters.fault(fault.code))
    }

    /// Which agent's tool a call is for.
    fn called(&self, target: &Target, peek: &Peek<'_>) -> Option<Called<'_>> {
        match target {
            Target::All { group, disclosure } => {
                let view = self.inner.views.get(group.as_deref())?;
                let shown = self.inner.aggregate.within(view, *disclosure).callee(peek)?;
                self.inner.aggregate.called(shown)
            }
            Target::Agent(address) => {
                let own = peek.params()?.name.and_then(crate::jsonrpc::text)?.into_owned();
                let address = address.clone();
                self.inner.aggregate.called(Owned { address, own })
            }
        }
    }

    /// What a client is told when the way to the target breaks.
    fn lost(&self, target: &Target) -> Fault {
        match target {
            Target::Agent(address) => self.inner.router.lost(address),
            Target::All { .. } => Fault::new(FaultCode::SessionLost, "the node is shutting down"),
        }
    }

    async fn reap_idle_sessions(self) {
        let every = (self.limits().session_idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(60));
        while self
            .inner
            .stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            let idle = self.limits().session_idle;
            self.with_sessions(|sessions| sessions.retain(|_, session| !session.is_idle(idle)));
        }
    }
}

fn unknown_group(group: &str) -> Fault {
    Fault::new(
        FaultCode::UnknownAgent,
        format!("there is no group {group:?}; groups are made in config.toml, as [groups.{group}]"),
    )
}

/// Reads `{node}` and `{agent}` of a path.
fn target(node: &str, agent: &str) -> Result<Target, Fault> {
    let node: NodeRef = node.parse().map_err(|error| {
        Fault::new(
            FaultCode::UnknownNode,
            format!("{node:?} is neither a node name nor a node id ({error}); see `dawn peers`"),
        )
    })?;
    let agent: AgentName = agent.parse().map_err(|error| {
        Fault::new(
            FaultCode::UnknownAgent,
            format!("{agent:?} is no agent name ({error}); see `dawn agent list`"),
        )
    })?;
    Ok(Target::Agent(AgentAddress { node, agent }))
}
