//! The composition root: everything a running node is made of, and how it starts and ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::keyfile::Passphrase;
use dawn_identity::{AgentName, NodeId, NodeName};
use dawn_mcp::gateway::Gateway;
use dawn_mcp::gateway::resource::ResourceServer;
use dawn_mcp::host::{AgentSpec, AuditSink, FarEnd, Guard, Host, InProcess, NetworkPolicy, Services, Source};
use dawn_mcp::memory::{MemoryAgent, MemoryStore};
use dawn_mcp::router::Router;
use dawn_mcp::websocket::Identity;
use dawn_mcp::wire::{Caller, PROTOCOL};
use dawn_mesh::{Audience, Backoff, Forwarding, Mesh, MeshConfig, Protocol};
use dawn_registry::replica::Limits;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Events, Guarded};
use crate::approvals::Approvals;
use crate::audit::Audit;
use crate::charter::{CHARTER, Charter};
use crate::config::{AccessRule, AgentConfig, CallerHint, Config, Isolation, Overrides, edit};
use crate::control::{self, Control};
use crate::directory::{self, DIFF, Directory, GOSSIP, REGISTRY};
use crate::envelopes::Envelopes;
use crate::error::NodeError;
use crate::exchange::{self, KEYS, KeyExchange};
use crate::exposed::Exposed;
use crate::home::{Home, HomeLock};
use crate::keyring::Keyring;
use crate::lock as network_lock;
use crate::lookup::{self, KADEMLIA, Lookup, Seeking};
use crate::mail::{MAIL, Mail};
use crate::members::{ADMISSION, Members};
use crate::migrate::{self, MIGRATE, Migrations};
use crate::modes::{self, Modes};
use crate::netcheck::{self, NETCHECK};
use crate::party::Keys;
use crate::policy::Policies;
use crate::relays;
use crate::store::Store;
use crate::sync::lock;
use crate::vault::Credentials;
use crate::websocket::{self, NodeIdentity};

mod reload;

/// What the parts of the local API share.
#[derive(Clone)]
pub struct NodeState {
    /// Membership.
    pub members: Members,
    /// This node's static keys.
    pub keys: Keys,
    /// Keys shared with other nodes.
    pub keyring: Keyring,
    /// How they come about.
    pub exchange: KeyExchange,
    /// Messages that stand by themselves.
    pub envelopes: Envelopes,
    /// Notices to members that are away.
    pub mail: Mail,
    /// Nodes and agents.
    pub directory: Directory,
    /// With whom this node talks.
    pub modes: Modes,
    /// How the network gets from one mode to another.
    pub migrations: Migrations,
    /// What of them the registry does not tell.
    pub lookup: Lookup,
    /// What the network's authorities have signed and holds for all.
    pub charter: Charter,
    /// The control plane, where there is one.
    pub control: Control,
    /// Who may do what.
    pub policies: Policies,
    /// The mesh.
    pub mesh: Mesh,
    /// This node's agents.
    pub host: Host,
    /// Links to agents.
    pub router: Router,
    /// MCP clients' doors.
    pub gateway: Gateway,
    /// What happens.
    pub events: Events,
    /// Calls that wait for the owner.
    pub approvals: Approvals,
    inner: Arc<Inner>,
}

struct Inner {
    home: Home,
    agents: Mutex<BTreeMap<AgentName, AgentConfig>>,
    /// The configuration as it was at the start, and as it was read last.
    read_at_start: Config,
    config: Mutex<Config>,
    reloading: tokio::sync::Mutex<()>,
    started: Instant,
    api: String,
    mdns: bool,
    punching: bool,
    port_mapping: bool,
    exposed: Option<(ResourceServer, SocketAddr)>,
    ready: AtomicBool,
    stop: CancellationToken,
}

impl std::fmt::Debug for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeState")
            .field("node", &self.node_id())
            .finish_non_exhaustive()
    }
}

/// The name of the built-in agent.
const MEMORY: &str = "memory";

/// Serves the built-in agent on a pipe.
struct Memory(MemoryAgent);

impl InProcess for Memory {
    fn serve(&self, stream: tokio::io::DuplexStream) -> futures::future::BoxFuture<'static, ()> {
        let agent = MemoryAgent::new(self.0.store().clone());
        Box::pin(async move {
            if let Err(error) = agent.serve(stream).await {
                tracing::debug!(%error, "a conversation with the agent memory ended early");
            }
        })
    }
}

impl NodeState {
    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.mesh.node_id()
    }

    /// Its name.
    #[must_use]
    pub fn node_name(&self) -> NodeName {
        self.members.own().name
    }

    /// Its home.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.inner.home
    }

    /// The address of its local API, `http://…`.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.inner.api
    }

    /// Where the gateway listens beyond this machine, and the addresses of what it exposes there.
    #[must_use]
    pub fn exposed(&self) -> Option<(SocketAddr, Vec<String>)> {
        let (server, address) = self.inner.exposed.as_ref()?;
        Some((*address, server.resources()))
    }

    /// Whether it looks for others on the local network.
    #[must_use]
    pub fn uses_mdns(&self) -> bool {
        self.inner.mdns
    }

    /// Whether holes are punched to members that are reached through others only.
    #[must_use]
    pub fn uses_punching(&self) -> bool {
        self.inner.punching
    }

    /// Whether the gateway of this network is asked to map ports.
    #[must_use]
    pub fn maps_ports(&self) -> bool {
        self.inner.port_mapping
    }

    /// For how long it runs.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Whether it serves everything it is to serve.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire)
    }

    /// Cancelled when the node ends.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// The last measured round trip to a node, milliseconds; zero for this one.
    #[must_use]
    pub fn latency_ms(&self, node: NodeId) -> Option<f64> {
        if node == self.node_id() {
            return Some(0.0);
        }
        let rtt = self.mesh.peers().into_iter().find(|peer| peer.node == node)?.rtt?;
        Some((rtt.as_secs_f64() * 1e6).round() / 1e3)
    }

    /// Where one of this node's agents comes from, as the API shows it.
    #[must_use]
    pub fn source_of(&self, name: &AgentName) -> Value {
        let agents = lock(&self.inner.agents);
        match agents.get(name) {
            Some(config) => api::source(config),
            None => serde_json::json!({ "builtin": name }),
        }
    }

    /// Writes an agent into the configuration and starts it.
    ///
    /// # Errors
    /// There is one of that name, or it cannot be written or started.
    pub async fn add_agent(&self, name: AgentName, config: AgentConfig) -> Result<(), NodeError> {
        config.check()?;
        if self.host.status_of(&name).is_some() {
            return Err(NodeError::Exists {
                what: "agent",
                name: name.to_string(),
            });
        }
        if let Some(command) = &config.command {
            dawn_mcp::host::locate(command, &config.env, config.directory.as_deref()).map_err(NodeError::NoProgram)?;
        }
        edit::add_agent(self.home(), &name, &config)?;
        self.host
            .add(name.clone(), spec(&config)?)
            .map_err(|error| NodeError::Agent(error.to_string()))?;
        lock(&self.inner.agents).insert(name, config);
        Ok(())
    }

    /// Ends an agent and takes it out of the configuration.
    ///
    /// # Errors
    /// There is none of that name in the configuration, or it cannot be written.
    pub async fn remove_agent(&self, name: &AgentName) -> Result<(), NodeError> {
        edit::remove_agent(self.home(), name)?;
        // A process or the code of this node has no credentials; those of a server go with it.
        let _ = self.host.logout(name).await;
        lock(&self.inner.agents).remove(name);
        self.host.remove(name).await;
        Ok(())
    }

    /// Ends an agent's processes and asks it again what it offers.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn restart_agent(&self, name: &AgentName) -> Result<(), NodeError> {
        if self.host.restart(name).await {
            Ok(())
        } else {
            Err(NodeError::NotFound {
                what: "agent",
                name: name.to_string(),
            })
        }
    }

    /// Asks the node to end.
    pub fn ask_to_stop(&self) {
        self.inner.stop.cancel();
    }
}

/// What the host is told about a configured agent.
fn spec(config: &AgentConfig) -> Result<AgentSpec, NodeError> {
    let source = match (&config.command, &config.url) {
        (Some(command), _) => Source::Stdio {
            command: command.clone(),
            env: config.env.clone(),
            directory: config.directory.clone(),
            isolation: match config.isolation {
                Isolation::Session => dawn_mcp::host::Isolation::Session,
                Isolation::Shared => dawn_mcp::host::Isolation::Shared,
            },
        },
        (None, Some(url)) => {
            let url = url
                .parse::<url::Url>()
                .map_err(|error| NodeError::Config(format!("{url:?}: {error}")))?;
            let (headers, oauth) = (config.headers.clone(), config.oauth.client());
            if config.is_websocket() {
                let secure = config.secure.as_ref().map(|secure| FarEnd {
                    node: secure.node,
                    signing: secure.signing.into(),
                });
                Source::WebSocket {
                    url,
                    headers,
                    oauth,
                    secure,
                }
            } else {
                Source::Http { url, headers, oauth }
            }
        }
        (None, None) => return Err(NodeError::Config("an agent needs a command or a url".into())),
    };
    let caller = match config.caller {
        CallerHint::Auto => dawn_mcp::host::CallerHint::Auto,
        CallerHint::Meta => dawn_mcp::host::CallerHint::Meta,
        CallerHint::None => dawn_mcp::host::CallerHint::None,
    };
    Ok(AgentSpec {
        source,
        caller,
        access: config.access.iter().map(AccessRule::rule).collect(),
        limits: config.limits.limits(),
    })
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    state: NodeState,
    store: Store,
    notes: Option<MemoryStore>,
    tasks: TaskTracker,
    background: CancellationToken,
    api_stop: CancellationToken,
    _lock: HomeLock,
}

impl Node {
    /// Starts the node of a home. It is ready when this returns; agents are asked what they offer in the background.
    ///
    /// # Errors
    /// The home belongs to no network or is in use, a key cannot be read, or an address cannot be listened on.
    pub async fn start(
        home: Home,
        config: Config,
        passphrase: Option<Passphrase>,
        guard: Guard,
    ) -> Result<Self, NodeError> {
        let started = Instant::now();
        if !home.has_network() {
            return Err(NodeError::NoNetwork(home.data().to_owned()));
        }
        let lock = home.lock()?;
        let key = home.read_key(&home.identity_key(), passphrase.as_ref())?;
        let root = if home.network_key().exists() {
            Some(home.read_key(&home.network_key(), passphrase.as_ref())?)
        } else {
            None
        };
        let token = home.token()?;
        let store = Store::open(&home.database()).await?;
        let events = Events::default();
        let members = Members::load(store.clone(), key.clone(), root, &config, events.clone(), home.data()).await?;
        let policies = Policies::load(store.clone(), members.clone(), events.clone()).await?;
        members.set_policies(policies.clone());
        let keys = Keys::load(store.clone(), key.clone(), config.keys.clone()).await?;
        let mesh_config = MeshConfig {
            listen: with_remembered_ports(&store, &config.mesh.listen).await?,
            mdns: config.mesh.mdns,
            stun: config.mesh.stun.clone(),
            port_mapping: config.mesh.port_mapping,
            punching: config.mesh.punching,
            limits: config.network.mesh(config.limits.mesh()),
            backoff: Backoff::default(),
            forwarding: config.forwarding.enabled.then(|| {
                let keys = keys.clone();
                Forwarding {
                    config: config.forwarding.mesh(),
                    ..Forwarding::new(members.network(), Arc::new(move || keys.party()))
                }
            }),
            relaying: relays::relaying(&config.mesh, &members),
            ..MeshConfig::new(*key.seed())
        };
        let mesh = match Mesh::start(mesh_config.clone(), members.gate()).await {
            Ok(mesh) => mesh,
            Err(error) if mesh_config.listen != config.mesh.listen => {
                tracing::warn!(%error, "the ports of the last start are taken; others are chosen");
                Mesh::start(
                    MeshConfig {
                        listen: config.mesh.listen.clone(),
                        ..mesh_config
                    },
                    members.gate(),
                )
                .await?
            }
            Err(error) => return Err(error.into()),
        };
        remember_ports(&store, &mesh.listen_addresses()).await?;
        members.set_mesh(mesh.clone());
        let place = modes::first(&store, &config).await?;
        // Before anybody is dialled.
        mesh.set_neighbours(modes::neighbours(key.node_id(), place));
        let limits = Arc::new(config.limits.mcp());
        let credentials = Credentials {
            store: store.clone(),
            vault: dawn_identity::Vault::new(&key),
        };
        let audit = config
            .audit
            .enabled
            .then(|| Audit::new(home.audit(), config.audit.keep.0));
        let sink = audit.clone().map(|audit| Arc::new(audit) as Arc<dyn AuditSink>);
        let approvals = Approvals::new(events.clone());
        let identity: Arc<dyn Identity> = Arc::new(NodeIdentity {
            keys: keys.clone(),
            members: members.clone(),
        });
        let services = Services {
            node: Some(members.own().name),
            vault: Some(Arc::new(credentials)),
            audit: sink,
            approver: Some(Arc::new(approvals.clone())),
            identity: Some(Arc::clone(&identity)),
            policy: Some(Arc::new(policies.clone()) as Arc<dyn NetworkPolicy>),
        };
        let host = Host::new(Arc::clone(&limits), guard, services);
        let notes = add_agents(&host, &home, &config).await?;
        let directory = Directory::open(directory::Parts {
            store: store.clone(),
            members: members.clone(),
            mesh: mesh.clone(),
            host: host.clone(),
            key: key.clone(),
            keys: keys.clone(),
            events: events.clone(),
            config: config.registry.clone(),
            gossip: config.gossip.clone(),
            bootstrap: bootstrap(&config)?,
            place,
            limits: Limits {
                validity: config.registry.validity.0,
                ..Limits::default()
            },
        })
        .await?;
        let modes = Modes::new(mesh.clone(), store.clone(), directory.clone(), events.clone(), &config);
        let migrations = Migrations::load(migrate::Parts {
            key: key.clone(),
            store: store.clone(),
            members: members.clone(),
            mesh: mesh.clone(),
            directory: directory.clone(),
            modes: modes.clone(),
            events: events.clone(),
        })
        .await?;
        let lookup = Lookup::new(lookup::Parts {
            directory: directory.clone(),
            members: members.clone(),
            mesh: mesh.clone(),
            host: host.clone(),
            key: key.clone(),
        });
        let vault = dawn_identity::Vault::new(&key);
        let keyring = Keyring::load(store.clone(), vault, config.keys.grace.0).await?;
        let envelopes = Envelopes::load(
            key.clone(),
            members.network(),
            store.clone(),
            (keys.clone(), keyring.clone()),
            directory.clone(),
            config.envelopes.clone(),
        )
        .await?;
        let mail = Mail::new(
            store.clone(),
            mesh.clone(),
            directory.clone(),
            envelopes.clone(),
            &config.limits,
        );
        let exchange = KeyExchange::load(exchange::Parts {
            identity: key.clone(),
            network: members.network(),
            store: store.clone(),
            members: members.clone(),
            keyring: keyring.clone(),
            mesh: mesh.clone(),
            directory: directory.clone(),
            mail: mail.clone(),
            events: events.clone(),
            config: config.keys.clone(),
            requests_per_minute: config.limits.key_requests_per_minute,
        })
        .await?;
        let charter = Charter::new(mesh.clone(), events.clone());
        let control = Control::new(control::Parts {
            store: store.clone(),
            members: members.clone(),
            directory: directory.clone(),
            charter: charter.clone(),
            policies: policies.clone(),
            key: key.clone(),
            events: events.clone(),
            home: home.clone(),
        });
        charter.add(Arc::new(members.network_lock().clone()));
        policies.set_parts(host.clone(), charter.clone());
        charter.add(Arc::new(policies.clone()));
        let router = Router::new(
            mesh.clone(),
            host.clone(),
            Arc::new(Seeking {
                directory: directory.clone(),
                lookup: lookup.clone(),
            }),
            own_caller(&members),
            limits,
        );
        let gateway = Gateway::new(router.clone());
        gateway.views().set(config.views()?);
        gateway.set_websocket(websocket::settings(&config.api.websocket, identity));
        let exposed = match &config.gateway {
            Some(config) => Some(Exposed::bind(gateway.clone(), config).await?),
            None => None,
        };
        let address = config.api.listen.clone();
        let api_error = |source| NodeError::Api {
            address: address.clone(),
            source,
        };
        let listener = TcpListener::bind(&address).await.map_err(api_error)?;
        let bound: SocketAddr = listener.local_addr().map_err(api_error)?;
        home.write_private(&home.api_address(), bound.to_string().as_bytes())?;
        // Without what the command line overrides.
        let written = Config::load(&home.config_file(), &Overrides::default()).unwrap_or_else(|_| config.clone());
        let inner = Inner {
            home,
            agents: Mutex::new(config.agents.clone()),
            read_at_start: written.clone(),
            config: Mutex::new(written),
            reloading: tokio::sync::Mutex::default(),
            started,
            api: format!("http://{bound}"),
            mdns: config.mesh.mdns,
            punching: config.mesh.punching,
            port_mapping: config.mesh.port_mapping,
            exposed: exposed
                .as_ref()
                .map(|exposed| (exposed.server.clone(), exposed.address)),
            ready: AtomicBool::new(false),
            stop: CancellationToken::new(),
        };
        let state = NodeState {
            members,
            keys,
            keyring,
            exchange,
            envelopes,
            mail,
            directory,
            modes,
            migrations,
            lookup,
            charter,
            control,
            policies,
            mesh,
            host,
            router,
            gateway,
            events,
            approvals,
            inner: Arc::new(inner),
        };
        let node = Self {
            state,
            store,
            notes,
            tasks: TaskTracker::new(),
            background: CancellationToken::new(),
            api_stop: CancellationToken::new(),
            _lock: lock,
        };
        if let Some(audit) = audit {
            node.tasks.spawn(audit.run(node.background.clone()));
        }
        if let Some(exposed) = exposed {
            node.tasks.spawn(exposed.serve(node.api_stop.clone()));
        }
        node.run(&config, token, listener)?;
        node.state.inner.ready.store(true, Ordering::Release);
        Ok(node)
    }

    fn run(&self, config: &Config, token: String, listener: TcpListener) -> Result<(), NodeError> {
        let state = &self.state;
        let taken = |error: dawn_mesh::AcceptError| NodeError::Agent(error.to_string());
        let admissions = state.mesh.accept(ADMISSION, Audience::Anyone).map_err(taken)?;
        let links = state
            .mesh
            .accept(Protocol(PROTOCOL), Audience::Members)
            .map_err(taken)?;
        let exchanges = state.mesh.accept(KEYS, Audience::Members).map_err(taken)?;
        let mail = state.mesh.accept(MAIL, Audience::Members).map_err(taken)?;
        let neighbours = state.mesh.accept(GOSSIP, Audience::Neighbours).map_err(taken)?;
        self.tasks.spawn(state.directory.clone().listen(neighbours));
        let comparisons = state.mesh.accept(REGISTRY, Audience::Members).map_err(taken)?;
        self.tasks.spawn(state.directory.clone().serve(comparisons));
        let questions = state.mesh.accept(DIFF, Audience::Members).map_err(taken)?;
        self.tasks.spawn(state.directory.clone().tell_differences(questions));
        let lookups = state.mesh.accept(KADEMLIA, Audience::Members).map_err(taken)?;
        self.tasks.spawn(state.lookup.clone().serve(lookups));
        self.tasks.spawn(state.lookup.clone().run(self.background.clone()));
        let comparisons = state.mesh.accept(CHARTER, Audience::Members).map_err(taken)?;
        self.tasks.spawn(state.charter.clone().serve(comparisons));
        self.tasks.spawn(state.charter.clone().run(self.background.clone()));
        let (members, charter) = (state.members.clone(), state.charter.clone());
        self.tasks
            .spawn(network_lock::follow(members, charter, self.background.clone()));
        let checks = state.mesh.accept(NETCHECK, Audience::Members).map_err(taken)?;
        self.tasks.spawn(netcheck::serve(state.mesh.clone(), checks));
        let orders = state.mesh.accept(MIGRATE, Audience::Members).map_err(taken)?;
        self.tasks.spawn(state.migrations.clone().serve(orders));
        self.tasks.spawn(state.migrations.clone().run(self.background.clone()));
        self.tasks.spawn(state.exchange.clone().serve(exchanges));
        let revoked = state.mail.subscribe(exchange::REVOKED);
        self.tasks
            .spawn(state.exchange.clone().run(revoked, self.background.clone()));
        self.tasks.spawn(state.mail.clone().serve(mail));
        self.tasks.spawn(state.mail.clone().run(self.background.clone()));
        self.tasks.spawn(state.members.clone().serve(admissions));
        self.tasks.spawn(state.router.clone().serve(links));
        let (watched, stop) = (state.clone(), self.background.clone());
        self.tasks.spawn(async move {
            // Whatever comes of it is told in the log.
            let _ = stop.run_until_cancelled(watched.watch_configuration()).await;
        });
        let (router, members, stop) = (state.router.clone(), state.members.clone(), self.background.clone());
        self.tasks.spawn(async move {
            let mut renewed = members.renewed();
            while let Some(Ok(())) = stop.run_until_cancelled(renewed.changed()).await {
                router.set_local(own_caller(&members));
            }
        });
        state.control.set(config.control.as_ref())?;
        self.tasks.spawn(state.keys.clone().run(self.background.clone()));
        self.tasks.spawn(state.directory.clone().run(self.background.clone()));
        self.tasks
            .spawn(state.members.clone().renew(state.mesh.clone(), self.background.clone()));
        let guarded = Guarded::new(
            token,
            config.api.allowed_hosts.clone(),
            config.api.allowed_origins.clone(),
        );
        let connections = config.limits.api_connections;
        let serving = api::serve(state.clone(), guarded, listener, connections, self.api_stop.clone());
        let stop = state.stopping();
        self.tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the local API failed; the node ends");
                stop.cancel();
            }
        });
        Ok(())
    }

    /// What the node is made of.
    #[must_use]
    pub fn state(&self) -> &NodeState {
        &self.state
    }

    /// The address of its local API, `http://…`.
    #[must_use]
    pub fn api_url(&self) -> &str {
        self.state.api_url()
    }

    /// Runs until the future ends or somebody asks the node to end, then shuts it down in order.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let stop = self.state.stopping();
        tokio::select! {
            () = shutdown => {}
            () = stop.cancelled() => {}
        }
        self.shutdown().await;
    }

    /// Says goodbye, ends sessions and agents, closes the mesh and the database.
    pub async fn shutdown(self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.state.inner.ready.store(false, Ordering::Release);
        self.state.inner.stop.cancel();
        tokio::join!(self.state.directory.leave(), self.state.control.shutdown());
        self.api_stop.cancel();
        self.state.gateway.shutdown().await;
        self.state.host.shutdown().await;
        self.background.cancel();
        self.state.mesh.shutdown().await;
        self.tasks.close();
        if tokio::time::timeout(PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!("something did not end in time and is left behind");
        }
        if let Some(notes) = &self.notes {
            notes.close().await;
        }
        self.store.close().await;
        let address = self.state.home().api_address();
        if let Err(error) = std::fs::remove_file(&address) {
            tracing::debug!(%error, "the address file was gone already");
        }
    }
}

/// The key of the ports under which others knew this node.
const PORTS: &str = "mesh-ports";

/// Transport and port of a multiaddress: `udp/7401/quic-v1`, `tcp/7401`, `tcp/7401/ws`.
fn port_of(address: &str) -> Option<(String, &str)> {
    let mut parts = address.split('/').skip(3);
    let (protocol, port) = (parts.next()?, parts.next()?);
    let rest: Vec<&str> = parts.collect();
    Some((format!("{protocol}/{}", rest.join("/")), port))
}

/// Where a port is left to chance, the one of the last start: others know it, and may have nothing else to find this
/// node by.
async fn with_remembered_ports(store: &Store, listen: &[String]) -> Result<Vec<String>, NodeError> {
    let bytes = store.get(PORTS).await?.unwrap_or_default();
    let ports: BTreeMap<String, String> = serde_json::from_slice(&bytes).unwrap_or_default();
    let remembered = |address: &String| {
        let (kind, port) = port_of(address)?;
        let known = ports.get(&kind).filter(|_| port == "0")?;
        let mut parts: Vec<&str> = address.split('/').collect();
        parts[4] = known;
        Some(parts.join("/"))
    };
    Ok(listen
        .iter()
        .map(|address| remembered(address).unwrap_or_else(|| address.clone()))
        .collect())
}

async fn remember_ports(store: &Store, addresses: &[String]) -> Result<(), NodeError> {
    let ports = addresses.iter().filter_map(|address| port_of(address));
    let ports: BTreeMap<String, String> = ports.map(|(kind, port)| (kind, port.to_owned())).collect();
    let bytes = serde_json::to_vec(&ports).map_err(|error| NodeError::Corrupt(error.to_string()))?;
    store.set(PORTS, &bytes).await
}

/// Where members are that others are found through.
fn bootstrap(config: &Config) -> Result<BTreeMap<NodeId, Vec<String>>, NodeError> {
    let read = |address: &String| {
        let (at, node) = address.rsplit_once("/p2p/")?;
        Some((node.parse().ok()?, at.to_owned()))
    };
    let wrong = |address: &String| NodeError::Config(format!("mesh.bootstrap: {address:?} does not end in /p2p/NODE"));
    let mut known: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for address in &config.mesh.bootstrap {
        let (node, at) = read(address).ok_or_else(|| wrong(address))?;
        known.entry(node).or_default().push(at);
    }
    Ok(known)
}

/// This node as the caller of its own agents.
fn own_caller(members: &Members) -> Caller {
    let own = members.own();
    Caller {
        node: own.node,
        name: own.name,
        roles: own.roles.iter().map(|role| role.to_string()).collect(),
        chain: members.chain(),
        user: None,
    }
}

/// Hosts the configured agents; returns the notes of the built-in one.
async fn add_agents(host: &Host, home: &Home, config: &Config) -> Result<Option<MemoryStore>, NodeError> {
    let failed = |error: &dyn std::fmt::Display| NodeError::Agent(error.to_string());
    let mut notes = None;
    if config.memory.enabled {
        let store = MemoryStore::open(home.memory_database()).await?;
        let name: AgentName = MEMORY.parse().map_err(|error| failed(&error))?;
        notes = Some(store.clone());
        let source = Source::InProcess(Arc::new(Memory(MemoryAgent::new(store))));
        host.add(
            name,
            AgentSpec {
                source,
                caller: dawn_mcp::host::CallerHint::Auto,
                access: config.memory.access.iter().map(AccessRule::rule).collect(),
                limits: config.memory.limits.limits(),
            },
        )
        .map_err(|error| failed(&error))?;
    }
    for (name, agent) in &config.agents {
        host.add(name.clone(), spec(agent)?).map_err(|error| failed(&error))?;
    }
    Ok(notes)
}
