//! Peers: who they are, how they are reached, who decides whether they are members, and what was counted of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_channel::StaticPublic;
use dawn_identity::{Membership, NodeId};

/// Who may open a protocol's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Peers with a verified membership, also through other members.
    Members,
    /// Peers with a verified membership and a connection of their own: what belongs between neighbours.
    Neighbours,
    /// Strangers too.
    Anyone,
}

/// Why the gate refuses a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A stable code.
    pub code: String,
    /// In words.
    pub message: String,
    /// What proves it to the one refused, at most
    /// [`MeshLimits::chain_bytes`](crate::MeshLimits::chain_bytes); empty where nothing does.
    pub evidence: Bytes,
}

/// Decides who is a member. The node implements it over its certificates.
#[async_trait::async_trait]
pub trait Gate: Send + Sync + 'static {
    /// The chain this node shows; empty before it is a member.
    fn own_chain(&self) -> Vec<u8>;
    /// Whether the chain that a peer showed makes it a member.
    ///
    /// # Errors
    /// Why it does not.
    fn verify(&self, peer: NodeId, chain: &[u8]) -> Result<Membership, Refusal>;
    /// Whether a peer may speak with the static key that it proved in a secure channel.
    ///
    /// # Errors
    /// Why it may not: another one is pinned, say.
    fn verify_key(&self, peer: NodeId, key: &StaticPublic) -> Result<(), Refusal>;
    /// Whether a member may have its streams carried on to others by this node, and reserve where it relays.
    ///
    /// # Errors
    /// Why it may not.
    fn may_relay(&self, _member: &Membership) -> Result<(), Refusal> {
        Ok(())
    }
    /// Takes note that a peer refused this node, with its evidence, if any.
    async fn refused(&self, by: NodeId, evidence: &[u8]);
    /// What a node has to say to a refusal with this evidence, or to what the other one has to say; nothing where it was
    /// refused for good. At most [`MeshLimits::objection_bytes`](crate::MeshLimits::objection_bytes).
    fn objection(&self, _evidence: &[u8]) -> Bytes {
        Bytes::new()
    }
    /// Takes note of what a peer that was refused, or that refused this node, has to say to it.
    async fn objected(&self, _by: NodeId, _objection: &[u8]) {}
}

/// A peer as a stream's acceptor sees it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its id, authenticated by the transport.
    pub node: NodeId,
    /// What its certificates say; `None` for a stranger.
    pub membership: Option<Membership>,
    /// The chain it showed; empty for a stranger.
    pub chain: Bytes,
}

/// How a peer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A connection from node to node.
    Direct,
    /// The same, through NATs that both ends have opened at once.
    Punched,
    /// A connection that a relay carries, which cannot read it.
    Relayed {
        /// The relay.
        relay: NodeId,
    },
    /// Other members carry the streams.
    Forwarded {
        /// Which, the nearest first.
        via: Vec<NodeId>,
    },
}

impl Route {
    /// Which route is taken first, from 0: direct before punched before relayed before forwarded.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::Direct => 0,
            Self::Punched => 1,
            Self::Relayed { .. } => 2,
            Self::Forwarded { .. } => 3,
        }
    }
}

/// Over which transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
    /// WebSocket over TCP with Noise and Yamux.
    WebSocket,
    /// In memory.
    Memory,
}

/// A member that is connected, or reached through others.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Its id.
    pub node: NodeId,
    /// What its certificates say.
    pub membership: Membership,
    /// The multiaddress of the connection, if there is one.
    pub address: Option<String>,
    /// The connection's transport.
    pub transport: Option<Transport>,
    /// Whether this node dialled the connection, or the peer did; `None` where there is none, or nobody dials.
    pub dialled: Option<bool>,
    /// How it is reached.
    pub route: Route,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
    /// When it became a connected member, or the tunnel to it began.
    pub since: Instant,
}

/// What happens in the mesh.
#[derive(Debug, Clone)]
pub enum PeerEvent {
    /// A peer showed a valid membership.
    MemberUp(Peer),
    /// A member's last connection ended, or its membership did.
    MemberDown {
        /// Which.
        node: NodeId,
    },
    /// Streams to a connected peer take another route from now on.
    RouteChanged {
        /// Which peer.
        node: NodeId,
        /// The route.
        route: Route,
    },
    /// A member said through whom alone it is reached, or is reached by itself again.
    Apart {
        /// Which.
        node: NodeId,
        /// Through whom; `None` where that is over.
        host: Option<NodeId>,
    },
    /// A node was found on the local network.
    Discovered {
        /// Which.
        node: NodeId,
        /// Where.
        addresses: Vec<String>,
    },
    /// A reservation at a relay is lost, or was not made: its addresses lead here no more.
    Unreserved {
        /// The relay.
        relay: NodeId,
    },
    /// What is known of the addresses at which this node is reached has changed.
    ReachChanged,
    /// This node listens on an address.
    Listening {
        /// The multiaddress.
        address: String,
    },
}

/// What the mesh counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections established.
    pub connections: AtomicU64,
    /// Of these, through relays.
    pub relayed: AtomicU64,
    /// Members that were told through whom this node is reached.
    pub turned_away: AtomicU64,
    /// Reservations that relays gave this node.
    pub reservations: AtomicU64,
    /// Peers whose membership was refused.
    pub refused_members: AtomicU64,
    /// Streams of strangers to protocols of members.
    pub refused_strangers: AtomicU64,
    /// Streams over a limit.
    pub refused_streams: AtomicU64,
    /// Published messages dropped because a peer was slow.
    pub dropped_messages: AtomicU64,
    /// Tunnels begun, by this node or by peers.
    pub tunnels: AtomicU64,
    /// Times that a tunnel went on over another path.
    pub resumed: AtomicU64,
    /// Addresses of members that were dialled at their wish.
    pub dial_backs: AtomicU64,
    /// Such wishes that were refused: for the address, or since there were too many.
    pub refused_dial_backs: AtomicU64,
    /// Holes through NATs that became connections.
    pub punched: AtomicU64,
    /// Tries to punch a hole that found no way.
    pub failed_punches: AtomicU64,
    /// Holes that were not tried, since nothing could come of it.
    pub hopeless_punches: AtomicU64,
    /// Holes that peers wanted while too many were under way.
    pub refused_punches: AtomicU64,
    /// Carriers for other members.
    pub carriers: AtomicU64,
    /// Carriers refused: for their route, a limit, or what is not signed.
    pub refused_carriers: AtomicU64,
    /// Bytes carried for other members.
    pub carried_bytes: AtomicU64,
    /// Routes asked for by this node.
    pub route_queries: AtomicU64,
    /// Messages of route discovery that were refused.
    pub refused_queries: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
