//! Finds the node of an agent's address and opens a link to the agent there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dawn_identity::{AgentAddress, AgentName, NodeId, NodeName, NodeRef};
use dawn_mesh::{Answering, Incoming, Mesh, OpenError, Protocol};
use dawn_registry::{AgentState, AgentSummary};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::fault::{Fault, FaultCode};
use crate::frame::{FrameReader, FrameWriter};
use crate::host::Host;
use crate::host::access::Access;
use crate::limits::McpLimits;
use crate::link::{BoxRead, BoxWrite, Link};
use crate::pump::{Pumping, pump};
use crate::wire::{Caller, Header, Mode, PROTOCOL, Reply, User};

mod kept;

use kept::Keepers;
pub(crate) use kept::about;

/// An agent that can be called now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEntry {
    /// Its node.
    pub node: NodeId,
    /// Its node's name.
    pub node_name: NodeName,
    /// What its node says about it.
    pub summary: AgentSummary,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// It was heard of lately.
    pub online: bool,
    /// Since when it was not heard of; `None` where it never was since this node started.
    pub silent_for: Option<Duration>,
}

/// What an agent's node says of the agent's tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolList {
    /// Changes whenever the list does.
    pub digest: u64,
    /// Whether a tool wants arguments repeated as HTTP headers; nothing where the node does not say.
    pub has_param_headers: Option<bool>,
}

/// Who is in the network, as the router needs it. The node implements it over the registry.
pub trait Directory: Send + Sync + 'static {
    /// The node that a name or id means.
    ///
    /// # Errors
    /// [`FaultCode::UnknownNode`].
    fn resolve(&self, node: &NodeRef) -> Result<NodeId, Fault>;
    /// Whether a node is there, as far as is known.
    fn presence(&self, node: NodeId) -> Presence;
    /// The agents of all nodes that are online, this one's included.
    fn agents(&self) -> Vec<AgentEntry>;
    /// What is known of the tools of a node's agent.
    fn tools(&self, node: NodeId, agent: &AgentName) -> Option<ToolList>;
    /// What a node is called, for people.
    fn name_of(&self, _node: NodeId) -> Option<String> {
        None
    }
    /// Changes whenever [`agents`](Self::agents) does.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Looks for what an address means, where that is not known, or not where it is; whether it is worth trying again.
    fn seek<'a>(&'a self, _address: &'a AgentAddress) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// Opens links to agents anywhere in the network, and serves those of this node to others.
#[derive(Clone)]
pub struct Router {
    mesh: Mesh,
    host: Host,
    directory: Arc<dyn Directory>,
    local: Arc<RwLock<Caller>>,
    node: NodeId,
    limits: Arc<McpLimits>,
    load: Arc<Load>,
    keepers: Arc<Keepers>,
    user: Option<User>,
}

/// How long opening a link to one instance may take while there are others.
const IMPATIENT: Duration = Duration::from_secs(2);

/// How near the node itself counts as, and a node whose round trip is not known yet.
const OWN: Duration = Duration::from_micros(50);
const UNKNOWN: Duration = Duration::from_millis(50);

/// Links to agents that were chosen among instances.
#[derive(Debug, Default)]
struct Load(Mutex<HashMap<(NodeId, AgentName), usize>>);

impl Load {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<(NodeId, AgentName), usize>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts one link for as long as it lives.
struct Counted {
    load: Arc<Load>,
    key: (NodeId, AgentName),
}

impl Counted {
    fn new(load: &Arc<Load>, key: (NodeId, AgentName)) -> Self {
        load.with(|load| *load.entry(key.clone()).or_default() += 1);
        Self {
            load: Arc::clone(load),
            key,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.with(|load| {
            if let Some(links) = load.get_mut(&self.key) {
                *links -= 1;
                if *links == 0 {
                    load.remove(&self.key);
                }
            }
        });
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("local", &self.node)
            .finish_non_exhaustive()
    }
}

impl Router {
    /// A router for the node that `local` describes.
    #[must_use]
    pub fn new(mesh: Mesh, host: Host, directory: Arc<dyn Directory>, local: Caller, limits: Arc<McpLimits>) -> Self {
        Self {
            mesh,
            host,
            directory,
            node: local.node,
            local: Arc::new(RwLock::new(local)),
            limits,
            load: Arc::default(),
            keepers: Arc::default(),
            user: None,
        }
    }

    /// The same router, opening its links for a person.
    #[must_use]
    pub fn on_behalf(&self, user: Option<User>) -> Self {
        Self { user, ..self.clone() }
    }

    /// This node as a caller, for itself or for the person that this router opens links for.
    #[must_use]
    pub fn caller(&self) -> Caller {
        let local = self.local.read().unwrap_or_else(PoisonError::into_inner);
        Caller {
            user: self.user.clone(),
            ..local.clone()
        }
    }

    /// The node's own description changed: its certificate was renewed.
    pub fn set_local(&self, local: Caller) {
        *self.local.write().unwrap_or_else(PoisonError::into_inner) = local;
    }

    /// The nodes that an address means, in the order in which they are tried: one, or all that have an instance of the
    /// agent when the address says [`NodeRef::Any`], the nearest and least used first.
    ///
    /// # Errors
    /// The node is unknown, or no node has such an agent.
    pub fn instances(&self, address: &AgentAddress) -> Result<Vec<NodeId>, Fault> {
        if address.node != NodeRef::Any {
            return Ok(vec![self.directory.resolve(&address.node)?]);
        }
        let agents = self.directory.agents();
        let ready = agents
            .iter()
            .filter(|entry| entry.summary.name == address.agent && entry.summary.state == AgentState::Ready);
        let peers = self.mesh.peers();
        let score = |node: NodeId| {
            let near = if node == self.node {
                OWN
            } else {
                let rtt = peers.iter().find(|peer| peer.node == node).and_then(|peer| peer.rtt);
                rtt.unwrap_or(UNKNOWN).max(OWN)
            };
            let links = self.load.with(|load| load.get(&(node, address.agent.clone())).copied());
            near * u32::try_from(links.unwrap_or(0) + 1).unwrap_or(u32::MAX)
        };
        let mut nodes: Vec<(Duration, NodeId)> = ready.map(|entry| (score(entry.node), entry.node)).collect();
        nodes.sort();
        if nodes.is_empty() {
            let words = format!(
                "no node has an agent {} that can be used; see `dawn agent list`",
                address.agent
            );
            return Err(Fault::new(FaultCode::UnknownAgent, words));
        }
        Ok(nodes.into_iter().map(|(_, node)| node).collect())
    }

    /// Who is in the network.
    #[must_use]
    pub fn directory(&self) -> &dyn Directory {
        &*self.directory
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &McpLimits {
        &self.limits
    }

    /// The limits in force, shared.
    pub(crate) fn shared_limits(&self) -> &Arc<McpLimits> {
        &self.limits
    }

    /// Opens a link to one of this node's agents for a member that is here by another way than the mesh.
    ///
    /// # Errors
    /// The address is another node's, or what [`Host::open`] says.
    pub(crate) async fn open_for(&self, caller: &Caller, address: &AgentAddress, mode: Mode) -> Result<Link, Fault> {
        let is_here = match &address.node {
            NodeRef::Any => true,
            node => self.directory.resolve(node).is_ok_and(|node| node == self.node),
        };
        if !is_here {
            let words = format!(
                "a member uses the agents of this node here, not those of {}",
                address.node
            );
            return Err(Fault::new(FaultCode::Denied, words));
        }
        self.host.open(&address.agent, mode, caller, false).await
    }

    /// Opens a link to an agent.
    ///
    /// # Errors
    /// The node is unknown or cannot be reached; of a local agent also what [`Host::open`] says. What a remote host
    /// refuses comes with the first [`recv`](crate::link::LinkReceiver::recv).
    pub async fn open(&self, address: &AgentAddress, mode: Mode) -> Result<Link, Fault> {
        self.open_about(address, mode, None).await
    }

    /// The same for a request about something that one instance alone may know.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) async fn open_about(
        &self,
        address: &AgentAddress,
        mode: Mode,
        about: Option<&str>,
    ) -> Result<Link, Fault> {
        let fault = match self.open_known(address, mode, about).await {
            Err(fault) if is_to_be_sought(fault.code) => fault,
            opened => return opened,
        };
        if self.directory.seek(address).await {
            return self.open_known(address, mode, about).await;
        }
        Err(fault)
    }

    async fn open_known(&self, address: &AgentAddress, mode: Mode, about: Option<&str>) -> Result<Link, Fault> {
        let mut nodes = self.instances(address)?;
        let keeper = about.and_then(|about| self.keepers.keeper(&address.agent, about));
        if let Some(keeper) = keeper.filter(|keeper| nodes.len() > 1 && nodes.contains(keeper)) {
            nodes = vec![keeper];
        }
        let (last, others) = match nodes.as_slice() {
            [one] if address.node != NodeRef::Any => return self.open_at(*one, address, mode).await,
            [others @ .., last] => (*last, others),
            [] => return Err(self.lost(address)),
        };
        let counted = |node: NodeId, link: Link| {
            let counted = Counted::new(&self.load, (node, address.agent.clone()));
            let keepers = Arc::clone(&self.keepers);
            link.also_observed(Arc::new(move |message| {
                // It lives as long as the link.
                keepers.learn(message, &counted.key.1, node);
            }))
        };
        for node in others {
            match tokio::time::timeout(IMPATIENT, self.open_at(*node, address, mode)).await {
                Ok(Ok(link)) => return Ok(counted(*node, link)),
                Ok(Err(fault)) => tracing::debug!(%node, %fault, "an instance is passed over"),
                Err(_) => tracing::debug!(%node, "an instance is passed over: it did not answer in time"),
            }
        }
        Ok(counted(last, self.open_at(last, address, mode).await?))
    }

    /// A link to an exposed endpoint as the person may use it for whom this router opens links, with its calls recorded.
    ///
    /// # Errors
    /// The person has as many links as it may have.
    pub(crate) fn exposed(&self, link: Link, access: &Arc<Access>, path: &str) -> Result<Link, Fault> {
        self.host.exposed(link, access, &self.caller(), path)
    }

    async fn open_at(&self, node: NodeId, address: &AgentAddress, mode: Mode) -> Result<Link, Fault> {
        if node == self.node {
            return self.host.open(&address.agent, mode, &self.caller(), true).await;
        }
        let stream = self
            .reach(node, &address.node, self.mesh.open(node, Protocol(PROTOCOL)))
            .await?;
        let (read, write) = tokio::io::split(stream);
        let mut writer = FrameWriter::new(Box::new(write) as BoxWrite);
        let header = Header {
            agent: address.agent.clone(),
            mode,
            user: self.user.clone(),
        };
        writer
            .feed_line(&header.line())
            .await
            .map_err(|error| lost_node(&address.node, &error.to_string()))?;
        let reader = FrameReader::new(Box::new(read) as BoxRead, self.limits.message_bytes);
        Ok(Link::from_framed(reader, writer).leading_to_host())
    }

    /// Waits for `opening` something at a node: not for long where the node is known to be away, for it is dialled on in
    /// the background.
    ///
    /// # Errors
    /// What became of it, in words; what the mesh says goes to the log.
    pub async fn reach<T>(
        &self,
        node: NodeId,
        name: &NodeRef,
        opening: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, Fault> {
        const AWAY: Duration = Duration::from_secs(1);
        let presence = self.directory.presence(node);
        let patience = if presence.online {
            self.limits.open
        } else {
            self.limits.open.min(AWAY)
        };
        let error = match tokio::time::timeout(patience, opening).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => error,
            Err(_) => OpenError::Timeout(node),
        };
        tracing::info!(%name, %error, "a node was not reached");
        let called = |node: NodeId| self.directory.name_of(node).unwrap_or_else(|| node.to_string());
        Err(unreachable_node(name, &error, presence, called))
    }

    /// What a client is told when the way to this address is lost.
    #[must_use]
    pub fn lost(&self, address: &AgentAddress) -> Fault {
        match self.directory.resolve(&address.node) {
            Ok(node) if node == self.node => self.host.lost(&address.agent),
            _ => lost_node(&address.node, "the connection broke"),
        }
    }

    /// Serves this node's agents to members until `incoming` ends.
    pub async fn serve(self, mut incoming: Incoming) {
        let tasks = TaskTracker::new();
        while let Some(inbound) = incoming.next().await {
            let Some(membership) = inbound.peer.membership else {
                continue;
            };
            let caller = Caller {
                node: inbound.peer.node,
                name: membership.name.clone(),
                roles: membership.roles.iter().map(|role| role.to_string()).collect(),
                chain: inbound.peer.chain.clone(),
                user: None,
            };
            let router = self.clone();
            tasks.spawn(async move {
                let answering = inbound.stream.answering();
                let (read, write) = tokio::io::split(inbound.stream);
                let halves = (Box::new(read) as BoxRead, Box::new(write) as BoxWrite);
                if let Err(error) = router.serve_stream(halves, answering, &caller).await {
                    tracing::debug!(%error, caller = %caller.name, "an agent stream ended early");
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn serve_stream(
        &self,
        (read, write): (BoxRead, BoxWrite),
        answering: Option<Answering>,
        caller: &Caller,
    ) -> Result<(), Fault> {
        let mut reader = FrameReader::new(read, self.limits.header_bytes);
        let mut writer = FrameWriter::new(write);
        let broken =
            |error: &dyn std::fmt::Display| Fault::new(FaultCode::Protocol, format!("no header came: {error}"));
        let line = tokio::time::timeout(self.limits.open, reader.line())
            .await
            .map_err(|error| broken(&error))?
            .map_err(|error| broken(&error))?
            .ok_or_else(|| broken(&"the stream is empty"))?;
        let opened = match Header::parse(&line) {
            Ok(header) => {
                let caller = Caller {
                    user: header.user.clone(),
                    ..caller.clone()
                };
                let opened = self.host.open(&header.agent, header.mode, &caller, false).await;
                opened.map(|link| (header, link))
            }
            Err(fault) => Err(fault),
        };
        let (header, agent) = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                let reply = Reply::from(fault.clone());
                writer.feed_line(&reply.line()).await.map_err(|error| broken(&error))?;
                writer.close().await.map_err(|error| broken(&error))?;
                return Err(fault);
            }
        };
        writer
            .feed_line(&Reply::Ok {}.line())
            .await
            .map_err(|error| broken(&error))?;
        reader.set_limit(self.limits.message_bytes);
        let pumping = Pumping {
            mode: header.mode,
            lost: self.host.lost(&header.agent),
            in_flight: self.limits.in_flight,
            linger: self.limits.kill_after,
            answering,
        };
        pump(Link::from_framed(reader, writer), agent, &pumping).await;
        Ok(())
    }
}

/// Whether the network may know better: who it is, or where.
fn is_to_be_sought(code: FaultCode) -> bool {
    matches!(
        code,
        FaultCode::UnknownNode | FaultCode::UnknownAgent | FaultCode::NodeOffline
    )
}

fn unreachable_node(node: &NodeRef, error: &OpenError, presence: Presence, called: impl Fn(NodeId) -> String) -> Fault {
    let silent = presence
        .silent_for
        .map(|silent| humantime::format_duration(Duration::from_secs(silent.as_secs().max(1))));
    let seen = match silent {
        Some(silent) => format!("last seen {silent} ago"),
        None => "not seen since this node started".to_owned(),
    };
    let (code, words) = match error {
        OpenError::Refused { reason, .. } => (
            FaultCode::Denied,
            format!("node {node} does not accept this node: {reason}; see `dawn status`"),
        ),
        OpenError::Timeout(_) if presence.online => (
            FaultCode::Timeout,
            format!("node {node} did not answer in time ({seen}); see `dawn netcheck`"),
        ),
        OpenError::NotAccepted { code, reason, .. } if code == "pinned" => (
            FaultCode::PinMismatch,
            format!("node {node} is not who is pinned: {reason}; see `dawn keys list`"),
        ),
        OpenError::NotAccepted { reason, .. } => (
            FaultCode::NodeOffline,
            format!("node {node} is not accepted here: {reason}; see `dawn peers`"),
        ),
        OpenError::NotAMember(_) => (
            FaultCode::NodeOffline,
            format!("node {node} has not shown that it is a member; see `dawn peers`"),
        ),
        OpenError::Unsupported { .. } => (
            FaultCode::NodeOffline,
            format!("node {node} runs another version of Dawn; see `dawn peers --json`"),
        ),
        OpenError::HostAway { host, .. } => (
            FaultCode::HostAway,
            format!(
                "node {node} is reached through its host {} alone, which is away; start it there with `dawn up`",
                called(*host)
            ),
        ),
        OpenError::NotConnected { .. } | OpenError::Timeout(_) | OpenError::Apart { .. } | OpenError::Closed
            if presence.online =>
        {
            (
                FaultCode::NodeOffline,
                format!("node {node} cannot be reached just now ({seen}); see `dawn netcheck`"),
            )
        }
        OpenError::NotConnected { .. } | OpenError::Timeout(_) | OpenError::Apart { .. } | OpenError::Closed => (
            FaultCode::NodeOffline,
            format!("node {node} is offline ({seen}); start it there with `dawn up`, and see `dawn peers`"),
        ),
    };
    Fault::new(code, words)
}

fn lost_node(node: &NodeRef, why: &str) -> Fault {
    Fault::new(
        FaultCode::NodeOffline,
        format!("node {node} was lost while it worked ({why}); try again"),
    )
}
