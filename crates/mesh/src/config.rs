//! What a mesh is told when it starts.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::forward::Forwarding;
use crate::relaying::Relaying;

/// Limits of a mesh.
#[derive(Debug, Clone)]
pub struct MeshLimits {
    /// Connections at once.
    pub connections: u32,
    /// Connections to one peer at once.
    pub connections_per_peer: u32,
    /// Connections being established at once, each way.
    pub pending: u32,
    /// Streams of one peer that are open here at once, over connections and forwarded routes.
    pub streams_per_peer: usize,
    /// Streams of all peers that are open here at once.
    pub streams: usize,
    /// Published messages that wait for one peer before further ones are dropped.
    pub queue: usize,
    /// Longest published message, bytes.
    pub published_bytes: usize,
    /// Bytes of published messages that wait to be read here; while there are as many, peers wait.
    pub published_waiting: usize,
    /// Published messages of one peer that wait to be read here.
    pub published_unread: usize,
    /// Peers at once that are no members, or not yet: beyond, the one that came first goes.
    pub strangers: usize,
    /// Streams of all of them at once.
    pub stranger_streams: usize,
    /// Longest certificate chain, bytes.
    pub chain_bytes: usize,
    /// Longest that is said and heard of why a refusal is not right, bytes.
    pub objection_bytes: usize,
    /// How long the membership handshake may take.
    pub handshake: Duration,
    /// How long opening a stream or dialling may take.
    pub open: Duration,
    /// A stranger's connection is closed after this.
    pub stranger: Duration,
    /// A connection that carries no stream for this long is closed.
    pub idle: Duration,
    /// When a node becomes apart: how long ago the last answer came on the streams of a connection that it gives up.
    pub drain_quiet: Duration,
    /// The same, whatever moves on them.
    pub drain_most: Duration,
    /// Reservations at relays are renewed at most once in this time.
    pub renewal: Duration,
    /// Tries to punch a hole, begun here or by peers, within a minute.
    pub punches_per_minute: usize,
    /// Addresses of other members that are dialled at their wish, to see whether they lead to them, within a minute.
    pub dial_backs_per_minute: usize,
}

impl Default for MeshLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 4,
            pending: 64,
            streams_per_peer: 4096,
            streams: 32_768,
            queue: 1024,
            published_bytes: 1 << 20,
            published_waiting: 64 << 20,
            published_unread: 1024,
            strangers: 128,
            stranger_streams: 512,
            chain_bytes: 4 << 10,
            objection_bytes: 64 << 10,
            handshake: Duration::from_secs(10),
            open: Duration::from_secs(10),
            stranger: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            drain_quiet: Duration::from_secs(30),
            drain_most: Duration::from_secs(3600),
            renewal: Duration::from_secs(60),
            punches_per_minute: 30,
            dial_backs_per_minute: 30,
        }
    }
}

/// How a mesh is made.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// The node's secret seed.
    pub seed: Zeroizing<[u8; 32]>,
    /// Multiaddresses to listen on; none for a node that only dials.
    pub listen: Vec<String>,
    /// Whether to find and be found on the local network.
    pub mdns: bool,
    /// STUN servers beside the members, as `host:port`.
    pub stun: Vec<String>,
    /// Whether the gateway of this network is asked to map the ports that are listened on.
    pub port_mapping: bool,
    /// Whether holes are punched to members that are reached through others only.
    pub punching: bool,
    /// Limits in force.
    pub limits: MeshLimits,
    /// Between tries to reach a node that is to be kept.
    pub backoff: Backoff,
    /// Between pings of an idle connection; a missed one closes it.
    pub ping: Duration,
    /// What forwarded routes need; without it there are none, and the streams of others are not carried.
    pub forwarding: Option<Forwarding>,
    /// Which relays are used, and how this node is one.
    pub relaying: Relaying,
}

impl MeshConfig {
    /// Defaults for a node with this seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed: Zeroizing::new(seed),
            listen: Vec::new(),
            mdns: false,
            stun: Vec::new(),
            port_mapping: false,
            punching: true,
            limits: MeshLimits::default(),
            backoff: Backoff::default(),
            ping: Duration::from_secs(3),
            forwarding: None,
            relaying: Relaying::default(),
        }
    }
}
