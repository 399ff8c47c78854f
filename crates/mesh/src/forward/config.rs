//! What forwarded routes need of the node, and their limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dawn_channel::{Party, Signing};
use dawn_identity::NetworkId;

/// Gives what this node brings to secure channels, as it is now: bindings are renewed.
pub type PartySource = Arc<dyn Fn() -> Arc<Party> + Send + Sync>;

/// What a mesh needs for forwarded routes.
#[derive(Clone)]
pub struct Forwarding {
    /// The network.
    pub network: NetworkId,
    /// This node's party.
    pub party: PartySource,
    /// Limits, and what is turned off.
    pub config: ForwardConfig,
}

impl Forwarding {
    /// With the default limits.
    #[must_use]
    pub fn new(network: NetworkId, party: PartySource) -> Self {
        Self {
            network,
            party,
            config: ForwardConfig::default(),
        }
    }
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding")
            .field("network", &self.network)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The most members that a route may have in between, whatever is configured.
pub const MAX_HOPS: usize = 16;

/// The least that a node may take over a tunnel before it has acknowledged any, bytes.
pub const MIN_WINDOW: usize = 64 << 10;

/// Limits of forwarded routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardConfig {
    /// Whether this node carries the streams of other members.
    pub carry: bool,
    /// Members in between, at most [`MAX_HOPS`].
    pub hops: usize,
    /// Carriers that this node carries at once.
    pub carriers: usize,
    /// Of these, from one neighbour.
    pub carriers_per_neighbour: usize,
    /// Bytes a second that it carries, all together; `None` is as many as there are.
    pub bytes_per_second: Option<u64>,
    /// A carrier on which nothing moves for so long is closed.
    pub carrier_idle: Duration,
    /// Whether what goes over a tunnel is signed piece by piece.
    pub signing: Signing,
    /// Tunnels of this node at once, each way.
    pub tunnels: usize,
    /// Streams that this node has open over one tunnel at once; further ones wait. Of the peer twice as many are taken,
    /// and a tunnel buffers 256 KiB for each at most.
    pub streams: usize,
    /// Bytes that a tunnel keeps in each direction until they are acknowledged: what is sent fits the smaller window of
    /// both ends. At least [`MIN_WINDOW`].
    pub window: usize,
    /// A tunnel without streams ends after this.
    pub idle: Duration,
    /// How long a direct connection is waited for before a route is looked for.
    pub head_start: Duration,
    /// How long a route is looked for.
    pub find: Duration,
    /// A tunnel without any path ends after this.
    pub resume: Duration,
    /// Route queries of one neighbour that are answered or passed on, within ten seconds.
    pub queries: u32,
    /// How far apart the clocks of members may be.
    pub clock_skew: Duration,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            carry: true,
            hops: 4,
            carriers: 256,
            carriers_per_neighbour: 64,
            bytes_per_second: None,
            carrier_idle: Duration::from_secs(300),
            signing: Signing::EachMessage,
            tunnels: 128,
            streams: 64,
            window: 2 << 20,
            idle: Duration::from_secs(120),
            head_start: Duration::from_millis(200),
            find: Duration::from_secs(4),
            resume: Duration::from_secs(15),
            queries: 100,
            clock_skew: Duration::from_secs(300),
        }
    }
}
