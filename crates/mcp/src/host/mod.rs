//! The agent host: runs this node's agents and opens links to them.
//!
//! An agent is a child process that speaks over standard I/O (a process for each session, or one shared by all), a
//! Streamable HTTP server, or code of this process. The host asks each what it offers, keeps a summary for the
//! network, tells agents who calls, and leaves no process behind.

pub(crate) mod access;
pub(crate) mod audit;
mod caller;
mod http;
mod mux;
mod oauth;
mod probe;
mod process;
mod source;
mod tasks;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dawn_identity::{AgentName, NodeName};
use dawn_registry::{AgentState, AgentSummary};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::bridge;
use crate::fault::{Fault, FaultCode};
use crate::limits::McpLimits;
use crate::link::Link;
use crate::websocket::Identity;
use crate::wire::{Caller, Counted, Mode};
use access::{Access, Place};
pub use access::{Approver, CallerLimits, NetworkPolicy, Question, Rule, Verdict};
pub use audit::{AuditEntry, AuditSink, Outcome};
pub(crate) use http::client as http_client;
use mux::Mux;
pub use oauth::{Login, LoginState, OauthClient, Vault};
pub use process::{locate, widen};
pub use source::{AgentSpec, CallerHint, FarEnd, InProcess, Isolation, Source, shown};

/// What is put before every command, so that no process outlives its node.
#[derive(Debug, Clone, Default)]
pub enum Guard {
    /// Nothing: processes end with their pipes, or by a signal of the host.
    #[default]
    None,
    /// A supervisor that takes the command as its arguments.
    Command(Vec<OsString>),
}

/// What a node does for its host.
#[derive(Clone, Default)]
pub struct Services {
    /// The name by which callers know the node.
    pub node: Option<NodeName>,
    /// Keeps credentials; without it the host never logs in anywhere.
    pub vault: Option<Arc<dyn Vault>>,
    /// Records calls; without it none is recorded.
    pub audit: Option<Arc<dyn AuditSink>>,
    /// Asks the owner; without it the answer is no.
    pub approver: Option<Arc<dyn Approver>>,
    /// What the node is in secure channels; without it none is begun.
    pub identity: Option<Arc<dyn Identity>>,
    /// The network's policy; without it only the node's own rules count.
    pub policy: Option<Arc<dyn NetworkPolicy>>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

/// Why an agent is not hosted.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is one of that name.
    #[error("there is an agent {0} already")]
    Exists(AgentName),
    /// A header of a server cannot be sent.
    #[error("{0:?} is no header that can be sent")]
    Header(String),
    /// A secure channel is asked for, and the host has no key for one.
    #[error("this host has no key for a secure channel")]
    NoIdentity,
}

/// One of this node's agents, as its owner sees it.
#[derive(Debug, Clone)]
pub struct AgentStatus {
    /// What the network is told.
    pub summary: AgentSummary,
    /// Why it cannot be used, when it cannot.
    pub error: Option<Fault>,
    /// Links opened so far.
    pub links: u64,
    /// How often it crashed.
    pub crashes: Crashes,
}

/// The agents of one node. Clones share them.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    limits: Arc<McpLimits>,
    guard: Guard,
    agents: Mutex<BTreeMap<AgentName, Arc<Agent>>>,
    changes: watch::Sender<u64>,
    tasks: TaskTracker,
    stop: CancellationToken,
    http: std::sync::OnceLock<reqwest::Client>,
    vault: Option<Arc<dyn Vault>>,
    audit: Option<Arc<dyn AuditSink>>,
    owner: access::Owner,
    identity: Option<Arc<dyn Identity>>,
    policy: Option<Arc<dyn NetworkPolicy>>,
}

struct Agent {
    name: AgentName,
    /// Its address, for words; its name where the host does not know its node.
    address: String,
    /// Whether it was ready at any time.
    has_worked: AtomicBool,
    /// How often a process of it ended by itself with an error, and when the last did.
    crashes: Mutex<Crashes>,
    spec: AgentSpec,
    status: Mutex<(AgentSummary, Option<Fault>)>,
    shared: tokio::sync::Mutex<Shared>,
    processes: Arc<Semaphore>,
    /// Processes that run for each other node.
    others: Mutex<HashMap<Counted, usize>>,
    links: AtomicU64,
    /// Asks for a new probe.
    stale: tokio::sync::Notify,
    headers: http::ParamHeaders,
    /// Whose its tasks are.
    tasks: Arc<tasks::Owners>,
    access: Arc<access::Access>,
    /// Its account at its server, where this host can keep credentials.
    account: Option<oauth::Account>,
    /// The node at the far end, where it is reached in a secure channel.
    far: Option<Arc<http::Far>>,
    /// Its legacy sessions on behalf of modern clients, where it speaks only the legacy era.
    bridged: Arc<bridge::Sessions>,
    stop: CancellationToken,
}

/// Processes of an agent that ended by themselves with an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crashes {
    /// How many since the agent was added.
    pub count: u32,
    /// When the last one did.
    pub last: Option<tokio::time::Instant>,
}

/// The connection that several clients share, and when it may be made again.
#[derive(Default)]
struct Shared {
    mux: Option<Mux>,
    failures: u32,
    not_before: Option<tokio::time::Instant>,
    born: Option<tokio::time::Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("agents", &lock(&self.0.agents).keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host without agents, with what its node does for it.
    #[must_use]
    pub fn new(limits: Arc<McpLimits>, guard: Guard, services: Services) -> Self {
        let Services {
            node,
            vault,
            audit,
            approver,
            identity,
            policy,
        } = services;
        Self(Arc::new(Inner {
            limits,
            guard,
            agents: Mutex::default(),
            changes: watch::channel(0).0,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            http: std::sync::OnceLock::new(),
            vault,
            owner: access::Owner {
                node,
                approver,
                audit: audit.clone(),
            },
            audit,
            identity,
            policy,
        }))
    }

    /// Hosts an agent, and asks it in the background what it offers. Must be called within a runtime.
    ///
    /// # Errors
    /// There is one of that name, or a header cannot be sent.
    pub fn add(&self, name: AgentName, spec: AgentSpec) -> Result<(), HostError> {
        if let Source::Http { headers, .. } | Source::WebSocket { headers, .. } = &spec.source {
            http::check_headers(headers)?;
        }
        let far = match &spec.source {
            Source::WebSocket {
                secure: Some(FarEnd { node, signing }),
                ..
            } => {
                let identity = self.0.identity.clone().ok_or(HostError::NoIdentity)?;
                Some(Arc::new(http::Far::new(*node, *signing, identity)))
            }
            _ => None,
        };
        let account = match (&spec.source, &self.0.vault) {
            (Source::Http { url, oauth, .. }, Some(vault)) => Some(oauth::Account::new(
                name.clone(),
                url.clone(),
                oauth.clone(),
                Arc::clone(vault),
            )),
            // A node of this network knows members, and its own token.
            (
                Source::WebSocket {
                    url,
                    oauth,
                    secure: None,
                    ..
                },
                Some(vault),
            ) => Some(
                oauth::Account::new(name.clone(), http::upgrade_url(url), oauth.clone(), Arc::clone(vault))
                    .at_websocket(),
            ),
            _ => None,
        };
        let access = access::Access::new(spec.access.clone(), spec.limits);
        if let Some(policy) = &self.0.policy {
            access.ask_network(Arc::clone(policy), name.clone());
        }
        let agent = Arc::new(Agent {
            access,
            account,
            far,
            status: Mutex::new((AgentSummary::starting(name.clone()), None)),
            address: self.address_of(&name),
            has_worked: AtomicBool::new(false),
            crashes: Mutex::default(),
            name: name.clone(),
            spec,
            shared: tokio::sync::Mutex::default(),
            processes: Arc::new(Semaphore::new(self.0.limits.processes_per_agent)),
            others: Mutex::default(),
            links: AtomicU64::new(0),
            stale: tokio::sync::Notify::new(),
            headers: http::ParamHeaders::default(),
            tasks: Arc::default(),
            bridged: Arc::default(),
            stop: self.0.stop.child_token(),
        });
        {
            let mut agents = lock(&self.0.agents);
            if agents.contains_key(&name) {
                return Err(HostError::Exists(name));
            }
            agents.insert(name, Arc::clone(&agent));
        }
        self.changed();
        let host = self.clone();
        self.0
            .tasks
            .spawn(async move { probe::keep_summary(host, agent).await });
        Ok(())
    }

    /// Ends an agent; `false` when there is none of that name.
    pub async fn remove(&self, name: &AgentName) -> bool {
        let Some(agent) = lock(&self.0.agents).remove(name) else {
            return false;
        };
        agent.stop.cancel();
        agent.shared.lock().await.mux = None;
        self.changed();
        true
    }

    /// Ends an agent's processes and asks it again what it offers; `false` when there is none of that name.
    pub async fn restart(&self, name: &AgentName) -> bool {
        let Some(agent) = lock(&self.0.agents).remove(name) else {
            return false;
        };
        agent.stop.cancel();
        agent.shared.lock().await.mux = None;
        let (access, limits) = agent.access.policy();
        let spec = AgentSpec {
            access,
            limits,
            ..agent.spec.clone()
        };
        self.add(agent.name.clone(), spec).is_ok()
    }

    /// Puts other rules and limits of an agent in force, for open sessions from their next message on; `false` when
    /// there is none of that name.
    pub fn set_access(&self, name: &AgentName, access: Vec<Rule>, limits: CallerLimits) -> bool {
        let Some(agent) = lock(&self.0.agents).get(name).cloned() else {
            return false;
        };
        let place = Place::Agent(name.clone());
        agent
            .access
            .change(access, limits, &place, &self.0.owner, &self.0.tasks);
        true
    }

    /// The network's policy has changed: open sessions feel it from their next message on.
    pub fn policy_changed(&self) {
        let agents: Vec<_> = lock(&self.0.agents).values().cloned().collect();
        for agent in agents {
            let place = Place::Agent(agent.name.clone());
            agent.access.network_changed(&place, &self.0.owner, &self.0.tasks);
        }
    }

    fn account(&self, name: &AgentName) -> Result<Arc<Agent>, Fault> {
        let agent = lock(&self.0.agents).get(name).cloned();
        let agent =
            agent.ok_or_else(|| Fault::new(FaultCode::UnknownAgent, format!("there is no agent {name} here")))?;
        if agent.account.is_none() {
            return Err(agent.failed("it is no HTTP server: there is nothing to log in to"));
        }
        Ok(agent)
    }

    /// Begins a login at an agent's server; the browser is sent back to `redirect_uri`.
    ///
    /// # Errors
    /// There is none of that name, or its server offers no login.
    pub async fn begin_login(&self, name: &AgentName, redirect_uri: &str) -> Result<Login, Fault> {
        let agent = self.account(name)?;
        match &agent.account {
            Some(account) => {
                let works = agent.state() == AgentState::Ready;
                account.begin(redirect_uri, works).await
            }
            None => Err(agent.failed("it has no account")),
        }
    }

    /// Ends the login that waits for this answer, and says of which agent it was.
    ///
    /// # Errors
    /// No login waits for it, or it was refused.
    pub async fn finish_login(&self, callback: &Url) -> Result<AgentName, Fault> {
        let state = callback.query_pairs().find(|(key, _)| key == "state");
        let state = state.map(|(_, value)| value.into_owned()).unwrap_or_default();
        let agents: Vec<_> = lock(&self.0.agents).values().cloned().collect();
        for agent in agents {
            if let Some(account) = &agent.account
                && account.awaits(&state).await
            {
                account.finish(callback).await?;
                if agent.set(AgentSummary::starting(agent.name.clone()), None) {
                    self.changed();
                }
                agent.stale.notify_one();
                return Ok(agent.name.clone());
            }
        }
        Err(Fault::new(
            FaultCode::Denied,
            "no login waits for this answer; begin anew with `dawn agent login`",
        ))
    }

    /// Forgets the credentials for an agent's server.
    ///
    /// # Errors
    /// There is none of that name, or they could not be removed.
    pub async fn logout(&self, name: &AgentName) -> Result<(), Fault> {
        let agent = self.account(name)?;
        if let Some(account) = &agent.account {
            account.forget().await?;
        }
        agent.stale.notify_one();
        Ok(())
    }

    /// How an agent's login stands.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn login_state(&self, name: &AgentName) -> Result<LoginState, Fault> {
        let agent = self.account(name)?;
        match &agent.account {
            Some(account) => Ok(account.login_state().await),
            None => Ok(LoginState::None),
        }
    }

    /// The address of an agent of this host, as callers know it.
    fn address_of(&self, name: &AgentName) -> String {
        let node = self.0.owner.node.as_ref();
        node.map_or_else(|| name.to_string(), |node| format!("{node}:{name}"))
    }

    /// What a caller is told when an agent ended while it worked.
    pub(crate) fn lost(&self, name: &AgentName) -> Fault {
        let agent = lock(&self.0.agents).get(name).cloned();
        agent.map_or_else(|| ended(&self.address_of(name)), |agent| agent.lost())
    }

    /// What the network is told of each agent.
    #[must_use]
    pub fn summaries(&self) -> Vec<AgentSummary> {
        lock(&self.0.agents)
            .values()
            .map(|agent| lock(&agent.status).0.clone())
            .collect()
    }

    /// One agent as its owner sees it.
    #[must_use]
    pub fn status_of(&self, name: &AgentName) -> Option<AgentStatus> {
        let agents = lock(&self.0.agents);
        let agent = agents.get(name)?;
        let (summary, error) = lock(&agent.status).clone();
        Some(AgentStatus {
            summary,
            error,
            links: agent.links.load(Ordering::Relaxed),
            crashes: *lock(&agent.crashes),
        })
    }

    /// Changes whenever a summary does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Opens a link to an agent.
    ///
    /// # Errors
    /// There is none of that name, it does not start, or a limit is reached.
    ///
    /// `is_own` says that the caller is the host's own node.
    pub async fn open(&self, name: &AgentName, mode: Mode, caller: &Caller, is_own: bool) -> Result<Link, Fault> {
        let agent = lock(&self.0.agents).get(name).cloned();
        let agent = agent.ok_or_else(|| {
            let address = self.address_of(name);
            Fault::new(
                FaultCode::UnknownAgent,
                format!("there is no agent {address}; see `dawn agent list`"),
            )
        })?;
        agent.links.fetch_add(1, Ordering::Relaxed);
        let (owner, tasks) = (self.0.owner.clone(), &self.0.tasks);
        let place = Place::Agent(agent.name.clone());
        // For who may use nothing of it no process is started.
        if agent.access.is_closed_to(caller, is_own) {
            let link = agent.access.shut(caller, &place, is_own, owner, tasks)?;
            return Ok(self.recorded(link, caller, agent.name.to_string()));
        }
        let link = if self.speaks(&agent, mode).await {
            self.link(&agent, mode, Some(caller), is_own).await?
        } else {
            self.bridged(&agent, mode, caller, is_own)
        };
        let link = agent.tasks.kept_apart(link, caller, is_own);
        let watched = Arc::clone(&agent);
        let link = link.with_observer(Arc::new(move |message| {
            // A name within the text of a small result costs no more than a probe too many.
            if message.len() < 1024 && memchr::memmem::find(message.as_bytes(), b"/list_changed\"").is_some() {
                watched.stale.notify_one();
            }
        }));
        let link = agent.access.guarded(link, caller, &place, is_own, owner, tasks)?;
        Ok(self.recorded(link, caller, agent.name.to_string()))
    }

    /// The same link, with its calls recorded where calls are.
    fn recorded(&self, link: Link, caller: &Caller, agent: String) -> Link {
        match &self.0.audit {
            Some(sink) => audit::recorded(link, caller, agent, Arc::clone(sink)),
            None => link,
        }
    }

    /// A link to an exposed endpoint as this caller may use it, with its calls recorded.
    ///
    /// # Errors
    /// The caller has as many links as it may have.
    pub(crate) fn exposed(&self, link: Link, access: &Arc<Access>, caller: &Caller, path: &str) -> Result<Link, Fault> {
        let (owner, place) = (self.0.owner.clone(), Place::Endpoint(path.to_owned()));
        let link = access.guarded(link, caller, &place, true, owner, &self.0.tasks)?;
        Ok(self.recorded(link, caller, path.to_owned()))
    }

    /// Whether an agent speaks the era of a link by itself; until it was asked, that is waited for.
    async fn speaks(&self, agent: &Agent, mode: Mode) -> bool {
        let mut changes = self.changes();
        let probed = async { while agent.state() == AgentState::Starting && changes.changed().await.is_ok() {} };
        // One that cannot be asked is treated as one that speaks it: the error is the agent's own.
        let _ = tokio::time::timeout(self.0.limits.probe, probed).await;
        let status = lock(&agent.status);
        let speaks = match mode {
            Mode::Session => status.0.legacy,
            Mode::Exchange => status.0.modern,
        };
        speaks || status.0.state != AgentState::Ready
    }

    /// A link in the era that an agent does not speak.
    fn bridged(&self, agent: &Arc<Agent>, mode: Mode, caller: &Caller, is_own: bool) -> Link {
        let native = match mode {
            Mode::Session => Mode::Exchange,
            Mode::Exchange => Mode::Session,
        };
        let (host, served, told) = (self.clone(), Arc::clone(agent), caller.clone());
        let open: bridge::Open = Arc::new(move || {
            let (host, agent, caller) = (host.clone(), Arc::clone(&served), told.clone());
            Box::pin(async move { host.link(&agent, native, Some(&caller), is_own).await })
        });
        let place = bridge::Place {
            agent: agent.address.clone(),
            limits: Arc::clone(&self.0.limits),
            tasks: self.0.tasks.clone(),
            stop: agent.stop.clone(),
        };
        match mode {
            Mode::Session => bridge::session(open, place),
            // Who was given other roles, or another certificate, begins anew.
            Mode::Exchange => agent.bridged.exchange(&caller.session_key(is_own), open, place),
        }
    }

    /// A link for a caller, or for the host itself.
    async fn link(&self, agent: &Arc<Agent>, mode: Mode, caller: Option<&Caller>, is_own: bool) -> Result<Link, Fault> {
        let hint = agent.spec.caller;
        match (&agent.spec.source, mode) {
            (
                Source::Stdio {
                    isolation: Isolation::Session,
                    ..
                },
                Mode::Session,
            ) => {
                let told = (hint == CallerHint::Auto).then_some(caller).flatten();
                let link = process::open(&self.0, agent, told, caller.and_then(|caller| caller.counted(is_own)))?;
                let meta = (hint == CallerHint::Meta).then_some(caller).flatten();
                Ok(link.with_filter(caller::filter(meta)))
            }
            (Source::Http { url, headers, .. }, _) => {
                let client = self.0.http.get_or_init(http::client).clone();
                let told = (hint == CallerHint::Auto).then_some(caller).flatten();
                let upstream = http::Upstream::new(
                    client,
                    url.clone(),
                    headers,
                    told,
                    Arc::clone(&self.0.limits),
                    Arc::clone(agent),
                );
                let meta = (hint == CallerHint::Meta).then_some(caller).flatten();
                let link = match mode {
                    Mode::Exchange => upstream.exchange(&self.0.tasks),
                    Mode::Session => upstream.session(&self.0.tasks),
                };
                Ok(link.with_filter(caller::filter(meta)))
            }
            (
                Source::WebSocket {
                    url, headers, secure, ..
                },
                Mode::Session,
            ) => {
                // What a proxy may read says nothing about who calls; a node would not believe it anyway.
                let told = (hint == CallerHint::Auto && secure.is_none())
                    .then_some(caller)
                    .flatten();
                let upstream = self.websocket(agent, url, headers, told);
                let link = upstream.socket_session(agent.far.clone(), &self.0.tasks);
                let meta = (hint == CallerHint::Meta).then_some(caller).flatten();
                Ok(link.with_filter(caller::filter(meta)))
            }
            (Source::InProcess(code), Mode::Session) => {
                let link = self.in_process(agent, code);
                let meta = (hint != CallerHint::None).then_some(caller).flatten();
                Ok(link.with_filter(caller::filter(meta)))
            }
            (Source::Stdio { .. } | Source::WebSocket { .. } | Source::InProcess(_), _) => {
                let meta = (hint != CallerHint::None).then_some(caller).flatten();
                let link = self
                    .shared(agent)
                    .await?
                    .open(mode, caller.map(Caller::identity), &self.0.tasks);
                Ok(link.with_filter(caller::filter(meta)))
            }
        }
    }

    fn websocket(
        &self,
        agent: &Arc<Agent>,
        url: &Url,
        headers: &BTreeMap<String, String>,
        caller: Option<&Caller>,
    ) -> Arc<http::Upstream> {
        let client = self.0.http.get_or_init(http::client).clone();
        let (url, limits) = (http::upgrade_url(url), Arc::clone(&self.0.limits));
        http::Upstream::new(client, url, headers, caller, limits, Arc::clone(agent))
    }

    fn in_process(&self, agent: &Agent, code: &Arc<dyn InProcess>) -> Link {
        const PIPE: usize = 64 << 10;
        let (near, far) = tokio::io::duplex(PIPE);
        let serving = code.serve(far);
        let stop = agent.stop.clone();
        self.0.tasks.spawn(async move {
            // When the agent is removed its conversations end.
            let _ = stop.run_until_cancelled(serving).await;
        });
        Link::from_stream(near, self.0.limits.message_bytes)
    }

    /// The shared connection of an agent, made anew when it ended, though never in quick succession.
    async fn shared(&self, agent: &Arc<Agent>) -> Result<Mux, Fault> {
        /// One that lived longer is no failure.
        const PROVEN: std::time::Duration = std::time::Duration::from_secs(30);
        let mut shared = agent.shared.lock().await;
        if let Some(mux) = shared.mux.as_ref().filter(|mux| !mux.is_over()) {
            return Ok(mux.clone());
        }
        let now = tokio::time::Instant::now();
        if shared.mux.take().is_some() {
            let lived = shared.born.is_some_and(|born| now - born > PROVEN);
            shared.failures = if lived { 0 } else { shared.failures.saturating_add(1) };
            let pause = self
                .0
                .limits
                .restart_first
                .saturating_mul(1 << shared.failures.saturating_sub(1).min(16));
            shared.not_before = (shared.failures > 0).then_some(now + pause.min(self.0.limits.restart_max));
        }
        if let Some(at) = shared.not_before.filter(|at| *at > now) {
            let patience = self.0.limits.restart_first * 4;
            if at - now > patience {
                let (was, again) = match &agent.spec.source {
                    Source::WebSocket { .. } => ("was lost", "tried"),
                    _ => ("crashed", "started"),
                };
                let words = format!(
                    "agent {} {was} {} times, each time within {} s; it is {again} again in {} s",
                    agent.address,
                    shared.failures,
                    PROVEN.as_secs(),
                    (at - now).as_secs() + 1
                );
                return Err(Fault::new(FaultCode::AgentFailed, words));
            }
            tokio::time::sleep_until(at).await;
        }
        let link = match &agent.spec.source {
            Source::InProcess(code) => self.in_process(agent, code),
            Source::WebSocket { url, headers, .. } => {
                let upstream = self.websocket(agent, url, headers, None);
                upstream.socket(agent.far.as_deref(), &self.0.tasks).await?
            }
            _ => process::open(&self.0, agent, None, None)?,
        };
        let mux = Mux::start(link, agent, &self.0.limits, &self.0.tasks);
        shared.mux = Some(mux.clone());
        shared.born = Some(now);
        Ok(mux)
    }

    /// Ends every agent and waits until none of their processes is left.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        let agents: Vec<_> = lock(&self.0.agents).values().cloned().collect();
        for agent in agents {
            agent.shared.lock().await.mux = None;
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// An agent ended in the middle of something.
fn ended(address: &str) -> Fault {
    let words = format!("agent {address} ended while it worked; it is started again by the next call");
    Fault::new(FaultCode::AgentFailed, words)
}

impl Agent {
    fn failed(&self, why: impl std::fmt::Display) -> Fault {
        Fault::new(FaultCode::AgentFailed, format!("agent {}: {why}", self.address))
    }

    /// What a caller is told when it ended while it worked, if it ever did.
    fn lost(&self) -> Fault {
        if self.has_worked.load(Ordering::Relaxed) || self.state() != AgentState::Failed {
            return ended(&self.address);
        }
        let words = format!(
            "agent {} has not worked since it was added; `dawn agent list` on its node says why",
            self.address
        );
        Fault::new(FaultCode::AgentFailed, words)
    }

    /// A process of it ended by itself with an error.
    fn crashed(&self) {
        let mut crashes = lock(&self.crashes);
        crashes.count = crashes.count.saturating_add(1);
        crashes.last = Some(tokio::time::Instant::now());
    }

    fn set(&self, summary: AgentSummary, error: Option<Fault>) -> bool {
        if summary.state == AgentState::Ready {
            self.has_worked.store(true, Ordering::Relaxed);
        }
        let mut status = lock(&self.status);
        let changed = status.0 != summary;
        *status = (summary, error);
        changed
    }

    fn error(&self) -> Option<Fault> {
        lock(&self.status).1.clone()
    }

    fn state(&self) -> AgentState {
        lock(&self.status).0.state
    }
}
