//! The configuration: `config.toml`, then `DAWN_*` variables (`__` separates levels), then flags. Every limit that a
//! person can set has its home here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dawn_identity::AgentName;
use dawn_mcp::gateway::{Disclosure, View};
use dawn_mcp::host::{CallerLimits, OauthClient, Rule, Verdict};
use dawn_mcp::limits::McpLimits;
use dawn_mesh::MeshLimits;
use dawn_policy::{Pattern, Who};
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::NodeError;
use mistake::mistake;

mod check;
mod control;
pub mod edit;
mod forwarding;
mod gateway;
mod gossip;
mod keys;
mod mistake;
mod network;
mod registry;
mod signing;
mod websocket;

pub use control::ControlConfig;
pub use dawn_mcp::gateway::resource::Secret;
pub use forwarding::ForwardingConfig;
pub use gateway::{DpopConfig, ExposeConfig, GatewayConfig, IntrospectionConfig};
pub use gossip::GossipConfig;
pub use keys::{AcceptKeys, EnvelopesConfig, KeysConfig, SHORTEST_LIFETIME};
pub use network::{ModeConfig, NetworkConfig};
pub use registry::RegistryConfig;
pub use signing::SigningConfig;
pub use websocket::{SecureConfig, WebSocketConfig};

/// A length of time, written as `7d`, `90s` or `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            serde::de::Error::custom(format!("{text:?} is no length of time such as 7d or 90s: {error}"))
        })
    }
}

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct Config {
    /// The local API.
    pub api: ApiConfig,
    /// With whom this node talks.
    pub network: NetworkConfig,
    /// The mesh.
    pub mesh: MeshSection,
    /// Membership certificates that this node issues.
    pub certificate: CertificateConfig,
    /// Streams carried by other members, and for them.
    pub forwarding: ForwardingConfig,
    /// This node's keys beside its identity.
    pub keys: KeysConfig,
    /// How messages that stand by themselves are encrypted.
    pub envelopes: EnvelopesConfig,
    /// The built-in agent `memory`.
    pub memory: MemoryConfig,
    /// Limits.
    pub limits: LimitsConfig,
    /// Logging.
    pub log: LogConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// The log of the registry.
    pub registry: RegistryConfig,
    /// With how many members this node keeps links.
    pub gossip: GossipConfig,
    /// The control plane that this node is registered at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlConfig>,
    /// The agents that this node hosts, by name.
    pub agents: BTreeMap<AgentName, AgentConfig>,
    /// What `/mcp` shows of all agents.
    #[serde(skip_serializing_if = "GroupConfig::is_empty")]
    pub mcp: GroupConfig,
    /// Groups of agents, each with an endpoint `/mcp/groups/NAME`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupConfig>,
    /// What the gateway exposes beyond this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayConfig>,
}

/// `[mcp]` and `[groups.NAME]`: what an endpoint of several agents shows. In agents and names, `*` stands for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// Agents, as `node:agent`; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// Tools and prompts that are shown, as `node__agent__name`; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Tools and prompts that are not shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hide: Vec<String>,
    /// Other names, by `node__agent__name`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
    /// Other descriptions of tools, by `node__agent__name`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub describe: BTreeMap<String, String>,
    /// Whether tools are all listed or found by search, when the client does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolsConfig>,
}

/// How tools are disclosed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolsConfig {
    /// All are listed.
    Full,
    /// `find_tools` and `call_tool` stand for all.
    Search,
}

impl GroupConfig {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Two things of one name, or a name that MCP does not allow.
    fn check(&self, place: &str) -> Result<(), NodeError> {
        let mut taken = std::collections::BTreeSet::new();
        for (from, name) in &self.rename {
            let stars = |text: &str| text.matches('*').count();
            if stars(from) > 1 || stars(from) != stars(name) {
                let words = format!("{place}.rename: {from:?} and {name:?} have to have one `*` each, or none");
                return Err(NodeError::Config(words));
            }
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.*".contains(&byte);
            if name.is_empty() || name.len() > 128 || !name.bytes().all(is_name) {
                let words =
                    format!("{place}.rename: {name:?} is no name of at most 128 letters, digits, `_`, `-` and `.`");
                return Err(NodeError::Config(words));
            }
            // Of patterns the first has the name; what comes second keeps its own.
            if !taken.insert(name) && !name.contains('*') {
                return Err(NodeError::Config(format!(
                    "{place}.rename: two things would be called {name:?}"
                )));
            }
        }
        Ok(())
    }

    fn view(&self) -> View {
        let patterns = |texts: &[String]| texts.iter().map(Pattern::new).collect();
        View {
            agents: patterns(&self.agents),
            only: patterns(&self.only),
            hide: patterns(&self.hide),
            rename: self.rename.clone(),
            describe: self.describe.clone(),
            disclosure: match self.tools {
                Some(ToolsConfig::Search) => Disclosure::Search,
                Some(ToolsConfig::Full) | None => Disclosure::Full,
            },
        }
    }
}

impl Config {
    /// What the gateway's endpoints of several agents show.
    ///
    /// # Errors
    /// A group has no proper name, or cannot be shown as it is written.
    pub fn views(&self) -> Result<BTreeMap<Option<String>, View>, NodeError> {
        self.mcp.check("mcp")?;
        let mut views = BTreeMap::from([(None, self.mcp.view())]);
        for (name, group) in &self.groups {
            // A group's name is part of an address, as an agent's is.
            if let Err(error) = name.parse::<AgentName>() {
                return Err(NodeError::Config(format!(
                    "groups.{name}: it is no name of a group ({error})"
                )));
            }
            group.check(&format!("groups.{name}"))?;
            views.insert(Some(name.clone()), group.view());
        }
        Ok(views)
    }
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Whether calls of this node's agents are recorded.
    pub enabled: bool,
    /// For how long.
    pub keep: Span,
}

impl Default for AuditConfig {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            enabled: true,
            keep: Span(Duration::from_secs(90 * DAY)),
        }
    }
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Where the local API listens; port 0 picks a free one.
    pub listen: String,
    /// Names and addresses beside loopback that the `Host` header may hold.
    pub allowed_hosts: Vec<String>,
    /// Origins beside loopback from which browsers may call, as `https://name`.
    pub allowed_origins: Vec<String>,
    /// MCP over WebSocket.
    pub websocket: WebSocketConfig,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7400".into(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            websocket: WebSocketConfig::default(),
        }
    }
}

/// `[mesh]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshSection {
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Multiaddresses that others should use beside those listened on, such as a forwarded port's.
    pub announce: Vec<String>,
    /// Nodes to stay connected to: multiaddresses that end in `/p2p/NODE`.
    pub bootstrap: Vec<String>,
    /// Whether to find and be found on the local network.
    pub mdns: bool,
    /// STUN servers beside the members, as `host:port`: asked from where this node is seen. None by default: then nobody
    /// but members is asked.
    pub stun: Vec<String>,
    /// Whether the gateway of this network is asked to map this node's ports (PCP, NAT-PMP, UPnP).
    pub port_mapping: bool,
    /// Whether holes are punched to members that are reached through others only.
    pub punching: bool,
    /// Relays at which this node reserves, so that others reach it: multiaddresses that end in `/p2p/PEER`.
    pub relays: Vec<String>,
    /// What is shown to them in the place of the membership: a relay token, or one of their operators'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_token: Option<String>,
    /// Whether this node relays for members of its network: `true`, `false`, or `"auto"`, which is where it has a public
    /// address.
    pub relay: RelayChoice,
}

/// Whether a node relays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RelayChoice {
    /// Yes or no.
    Said(bool),
    /// Where it has a public address.
    #[default]
    #[serde(with = "auto")]
    Auto,
}

/// The word `auto`.
mod auto {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("auto")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(()),
            other => Err(D::Error::custom(format!(
                "{other:?} is neither true, false nor \"auto\""
            ))),
        }
    }
}

impl Default for MeshSection {
    fn default() -> Self {
        Self {
            listen: vec![
                "/ip4/0.0.0.0/udp/0/quic-v1".into(),
                "/ip4/0.0.0.0/tcp/0".into(),
                "/ip4/0.0.0.0/tcp/0/ws".into(),
            ],
            announce: Vec::new(),
            bootstrap: Vec::new(),
            mdns: true,
            stun: Vec::new(),
            port_mapping: true,
            punching: true,
            relays: Vec::new(),
            relay_token: None,
            relay: RelayChoice::Auto,
        }
    }
}

/// `[certificate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateConfig {
    /// How long an issued certificate is valid. It is renewed when half of it is gone.
    pub lifetime: Span,
}

impl Default for CertificateConfig {
    fn default() -> Self {
        Self {
            lifetime: Span(Duration::from_secs(7 * 86_400)),
        }
    }
}

/// `[memory]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Whether this node hosts the agent `memory`.
    pub enabled: bool,
    /// How much each other node may ask of it.
    #[serde(skip_serializing_if = "CallerLimitsConfig::is_empty")]
    pub limits: CallerLimitsConfig,
    /// Who may call what of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessRule>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            limits: CallerLimitsConfig::default(),
            access: Vec::new(),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged, as `tracing` filters are written: `info`, `dawn_mesh=debug`. Empty means the command line decides.
    pub filter: String,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Longest JSON-RPC message, bytes.
    pub message_bytes: usize,
    /// Legacy MCP sessions at once.
    pub sessions: usize,
    /// A legacy session that nobody uses for this long ends.
    pub session_idle: Span,
    /// WebSocket connections at once.
    pub sockets: usize,
    /// A WebSocket of which nothing was heard for this long, not even an answer to a ping, is closed.
    pub socket_idle: Span,
    /// Connections of the API at once, where it listens beyond this machine.
    pub api_connections: usize,
    /// Requests in flight on one session.
    pub in_flight: usize,
    /// Processes that one agent may have at once.
    pub processes_per_agent: usize,
    /// Connections of the mesh at once.
    pub connections: u32,
    /// A connection of the mesh that nothing uses for this long is closed; it is made anew when it is wanted.
    pub connection_idle: Span,
    /// Streams that one node may have open here at once.
    pub streams_per_peer: usize,
    /// Tries to punch a hole to a member, begun here or there, per minute.
    pub punches_per_minute: usize,
    /// Addresses of other members that are dialled at their wish, to see whether they lead to them, per minute.
    pub dial_backs_per_minute: usize,
    /// Attempts to be admitted, per minute.
    pub admissions_per_minute: u32,
    /// Requests of one member for keys, per minute.
    pub key_requests_per_minute: u32,
    /// Notices that wait for members that are away, those of other members among them.
    pub mailbox_messages: u64,
    /// Their bytes.
    pub mailbox_bytes: u64,
    /// Notices of one other member among them.
    pub mailbox_per_sender: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let (mcp, mesh) = (McpLimits::default(), MeshLimits::default());
        Self {
            message_bytes: mcp.message_bytes,
            sessions: mcp.sessions,
            session_idle: Span(mcp.session_idle),
            sockets: mcp.sockets,
            socket_idle: Span(mcp.socket_idle),
            api_connections: 1024,
            in_flight: mcp.in_flight,
            processes_per_agent: mcp.processes_per_agent,
            connections: mesh.connections,
            connection_idle: Span(mesh.idle),
            streams_per_peer: mesh.streams_per_peer,
            punches_per_minute: mesh.punches_per_minute,
            dial_backs_per_minute: mesh.dial_backs_per_minute,
            admissions_per_minute: 60,
            key_requests_per_minute: 30,
            mailbox_messages: 1024,
            mailbox_bytes: 8 << 20,
            mailbox_per_sender: 32,
        }
    }
}

impl LimitsConfig {
    /// As the gateway and the host take them.
    #[must_use]
    pub fn mcp(&self) -> McpLimits {
        McpLimits {
            message_bytes: self.message_bytes,
            sessions: self.sessions,
            session_idle: self.session_idle.0,
            sockets: self.sockets,
            socket_idle: self.socket_idle.0,
            in_flight: self.in_flight,
            processes_per_agent: self.processes_per_agent,
            ..McpLimits::default()
        }
    }

    /// As the mesh takes them.
    #[must_use]
    pub fn mesh(&self) -> MeshLimits {
        MeshLimits {
            connections: self.connections,
            idle: self.connection_idle.0,
            streams_per_peer: self.streams_per_peer,
            punches_per_minute: self.punches_per_minute,
            dial_backs_per_minute: self.dial_backs_per_minute,
            ..MeshLimits::default()
        }
    }
}

/// Whether clients share one process of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A process for each session.
    #[default]
    Session,
    /// One process for all.
    Shared,
}

/// How an agent is told who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum CallerHint {
    /// By environment for a process of its own, by headers over HTTP, by `_meta` for a shared process.
    #[default]
    Auto,
    /// By `_meta` always.
    Meta,
    /// Not at all.
    None,
}

/// `[agents.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Program and arguments of a server that speaks over standard I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Address of a Streamable HTTP server, or of a WebSocket server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Environment variables of the program.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Headers sent to the server.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// As which OAuth client to log in at the server.
    #[serde(skip_serializing_if = "OauthConfig::is_empty")]
    pub oauth: OauthConfig,
    /// The node that the WebSocket server is, and is spoken with in a secure channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<SecureConfig>,
    /// Working directory of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Whether clients share one process.
    pub isolation: Isolation,
    /// How the agent is told who calls.
    pub caller: CallerHint,
    /// How much each other node may ask of it.
    #[serde(skip_serializing_if = "CallerLimitsConfig::is_empty")]
    pub limits: CallerLimitsConfig,
    /// Who may call what of it; the first rule that fits decides, and without one a call goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessRule>,
}

/// `[[agents.NAME.access]]`. In names, `*` stands for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// Callers: names or ids of nodes, `role:NAME`, `user:SUBJECT` of this node's exposed gateway, or
    /// `NODE/user:SUBJECT` of another's; none means every caller but this node itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub who: Vec<Who>,
    /// Tools and prompts by name, resources by address; none means everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
    /// What becomes of the call.
    pub then: AccessVerdict,
}

/// What a rule says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessVerdict {
    /// It goes on.
    Allow,
    /// The owner is asked: `dawn calls`.
    Ask,
    /// It is refused, and what it names is not listed.
    Deny,
}

impl AccessRule {
    /// As the host takes it.
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule {
            who: self.who.clone(),
            what: self.what.iter().map(Pattern::new).collect(),
            then: match self.then {
                AccessVerdict::Allow => Verdict::Allow,
                AccessVerdict::Ask => Verdict::Ask,
                AccessVerdict::Deny => Verdict::Deny,
            },
        }
    }
}

/// `[agents.NAME.limits]`: how much each other node may ask of an agent; what is not set is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallerLimitsConfig {
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<usize>,
    /// Sessions and stateless requests that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<usize>,
    /// Bytes a second towards the agent; what is beyond waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl CallerLimitsConfig {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the host takes them.
    #[must_use]
    pub fn limits(&self) -> CallerLimits {
        CallerLimits {
            requests_per_second: self.requests_per_second,
            in_flight: self.in_flight,
            links: self.sessions,
            bytes_per_second: self.bytes_per_second,
        }
    }
}

/// As which OAuth client a node logs in at a server. Empty: it registers by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OauthConfig {
    /// The id of a client that was registered beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// Address of a client id metadata document, `https://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_url: Option<String>,
    /// Scopes to ask for beside those that the server names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

impl OauthConfig {
    /// As the host takes it.
    #[must_use]
    pub fn client(&self) -> OauthClient {
        OauthClient {
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.clone(),
            metadata_url: self.metadata_url.clone(),
            scopes: self.scopes.clone(),
        }
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AgentConfig {
    /// Whether it is a WebSocket server.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        let url = self.url.as_deref().and_then(|url| url.parse::<url::Url>().ok());
        url.is_some_and(|url| matches!(url.scheme(), "ws" | "wss"))
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Neither or both of `command` and `url`, or an empty command.
    pub fn check(&self) -> Result<(), NodeError> {
        if self.secure.is_some() && self.url.is_none() {
            return Err(NodeError::Config("`secure` needs a url, ws:// or wss://".into()));
        }
        match (&self.command, &self.url) {
            (Some(command), None) if command.first().is_some_and(|program| !program.is_empty()) => Ok(()),
            (Some(_), None) => Err(NodeError::Config("an agent's command is empty".into())),
            (None, Some(url)) => match url.parse::<url::Url>() {
                Ok(url) if matches!(url.scheme(), "ws" | "wss") => Ok(()),
                Ok(url) if matches!(url.scheme(), "http" | "https") && self.secure.is_none() => Ok(()),
                Ok(url) if matches!(url.scheme(), "http" | "https") => Err(NodeError::Config(
                    "an agent with `secure` is a node's /ws: its url begins with ws:// or wss://".into(),
                )),
                Ok(url) => Err(NodeError::Config(format!(
                    "an agent's url begins with http://, https://, ws:// or wss://, not {}://",
                    url.scheme()
                ))),
                Err(error) => Err(NodeError::Config(format!("{url:?} is no address of a server: {error}"))),
            },
            (Some(_), Some(_)) => Err(NodeError::Config(
                "an agent has either a command or a url, not both".into(),
            )),
            (None, None) => Err(NodeError::Config("an agent needs a command or a url".into())),
        }
    }
}

/// What the command line of `dawn up` overrides.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--api`
    pub api: Option<String>,
    /// `--listen`, any number
    pub listen: Vec<String>,
    /// `--no-mdns`
    pub no_mdns: bool,
}

const SECTIONS: [&str; 16] = [
    "api",
    "network",
    "mesh",
    "certificate",
    "keys",
    "envelopes",
    "forwarding",
    "memory",
    "limits",
    "log",
    "audit",
    "registry",
    "gossip",
    "control",
    "agents",
    "gateway",
];

impl Config {
    /// Reads file, environment and flags, in this order.
    ///
    /// # Errors
    /// A key is unknown or a value wrong; the words name it.
    pub fn load(file: &Path, overrides: &Overrides) -> Result<Self, NodeError> {
        let environment = Env::prefixed("DAWN_").split("__").filter(|key| {
            let section = key.as_str().split("__").next().unwrap_or_default().to_ascii_lowercase();
            let section = section.split('.').next().unwrap_or_default();
            SECTIONS.contains(&section)
        });
        let figment = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(file))
            .merge(environment);
        let mut config: Self = figment.extract().map_err(mistake)?;
        if let Some(api) = &overrides.api {
            config.api.listen.clone_from(api);
        }
        if !overrides.listen.is_empty() {
            config.mesh.listen.clone_from(&overrides.listen);
        }
        if overrides.no_mdns {
            config.mesh.mdns = false;
        }
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, NodeError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file, &Overrides::default())
    }

    #[test]
    fn without_a_file_the_defaults_hold_and_flags_win() {
        let overrides = Overrides {
            api: Some("127.0.0.1:0".into()),
            listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
            no_mdns: true,
        };
        let config = Config::load(Path::new("/nowhere/config.toml"), &overrides).unwrap();
        assert_eq!(config.api.listen, "127.0.0.1:0");
        assert_eq!(config.mesh.listen, ["/ip4/127.0.0.1/tcp/0"]);
        assert!(!config.mesh.mdns);
        assert_eq!(config.limits, LimitsConfig::default());
    }

    #[test]
    fn a_file_is_read_and_its_mistakes_are_named() {
        let config = load(
            "[certificate]\nlifetime = \"2h\"\n[agents.files]\ncommand = [\"npx\", \"x\"]\nisolation = \"shared\"\n",
        )
        .unwrap();
        assert_eq!(config.certificate.lifetime.0, Duration::from_secs(7200));
        assert_eq!(config.agents[&"files".parse().unwrap()].isolation, Isolation::Shared);
        for (text, named) in [
            ("[limit]\n", "limit"),
            ("[limits]\nmessage_bites = 3\n", "message_bites"),
            ("[certificate]\nlifetime = \"soon\"\n", "soon"),
            ("[agents.x]\n", "agents.x"),
            ("[agents.Bad]\ncommand=[\"a\"]\n", "name"),
            ("[agents.x]\nurl=\"ftp://a\"\n", "ftp"),
            ("[forwarding]\nhops = 0\n", "hops"),
            ("[network]\nmode = \"centralized\"\n", "network.host"),
            ("[network]\nmode = \"star\"\n", "mode"),
            ("[network]\ndrain_quiet = \"0s\"\n", "drain_quiet"),
            ("[registry]\nlog_entries = 0\n", "log_entries"),
            ("[registry]\nvalidity = \"8d\"\n", "validity"),
            ("[registry]\nlog_keep = \"0s\"\n", "log_keep"),
            ("[limits]\nsockets = 0\n", "sockets"),
            ("[limits]\nsocket_idle = \"1ms\"\n", "socket_idle"),
            ("[limits]\nconnection_idle = \"1ms\"\n", "connection_idle"),
            ("[api.websocket]\nsigning = \"never\"\n", "signing"),
            ("[control]\nurl = \"http://control.example\"\n", "control.url"),
            ("[control]\nca = \"x\"\n", "url"),
            ("[gateway]\nlisten = \"0.0.0.0:7443\"\n", "url"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
