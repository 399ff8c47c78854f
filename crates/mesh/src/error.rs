//! What can go wrong in the mesh.

use dawn_identity::NodeId;

/// Why a mesh does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The seed makes no key.
    #[error("the node's key cannot be used: {0}")]
    Key(String),
    /// A transport cannot be made.
    #[error("a transport cannot be made: {0}")]
    Transport(String),
    /// An address to listen on is no multiaddress, or cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address as given.
        address: String,
        /// Why.
        reason: String,
    },
}

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection and none could be made.
    #[error("no connection to {node}: {reason}")]
    NotConnected {
        /// The node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// The peer has not shown a valid membership.
    #[error("{0} is not a member")]
    NotAMember(NodeId),
    /// The peer has shown who it is, and this node's gate does not accept that.
    #[error("{node} is not accepted here: {reason}")]
    NotAccepted {
        /// The node.
        node: NodeId,
        /// The gate's code.
        code: String,
        /// The gate's words.
        reason: String,
    },
    /// The peer does not accept this node's membership.
    #[error("{node} refuses this node: {reason}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Its words.
        reason: String,
    },
    /// The peer does not serve the protocol.
    #[error("{node} does not serve {protocol}")]
    Unsupported {
        /// The node.
        node: NodeId,
        /// The protocol.
        protocol: &'static str,
    },
    /// There are no connections between the two: one of them is apart.
    #[error("{node} is reached through {host} alone")]
    Apart {
        /// The node.
        node: NodeId,
        /// Through whom.
        host: NodeId,
    },
    /// The host through which alone the node is reached is away.
    #[error("{node} is reached through {host} alone, which is away")]
    HostAway {
        /// The node.
        node: NodeId,
        /// Through whom.
        host: NodeId,
    },
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Timeout(NodeId),
    /// The mesh was shut down.
    #[error("the mesh is shut down")]
    Closed,
}

/// Why a protocol is not served.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Somebody serves it already.
    #[error("{0} is served already")]
    Taken(&'static str),
}
