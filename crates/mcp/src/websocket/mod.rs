//! MCP over WebSocket: each connection is a framed session, as that of `dawn mcp`.
//!
//! Subprotocol `mcp`, or none: each JSON-RPC message is a text message. `dawn-secure.v1`: each binary message is a
//! message of the handshake or a frame of a secure channel ([`dawn_channel`]), and what the channel carries is JSON-RPC.
//! The node says who it is, by its membership chain; a client that shows no token says it first.
//! Source: RFC 6455; MCP knows no WebSocket, and what clients do is what the SDKs of the first generation do.

mod carrier;
mod drive;
mod ended;
mod member;
mod secure;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use dawn_channel::{Party, Signing, StaticPublic};
use dawn_identity::{Membership, NetworkId, NodeId};
use tokio::sync::watch;

pub(crate) use drive::{Coding, drive, unusable};
pub(crate) use ended::Ended;
pub use ended::Reason;
pub(crate) use member::Member;
pub(crate) use secure::{Expected, dial, respond};
pub(crate) use socket::{Side, Socket};

/// The subprotocol of plain JSON-RPC.
pub const PLAIN: &str = "mcp";
/// The subprotocol of the secure channel.
pub const SECURE: &str = "dawn-secure.v1";
/// What begins the entry among a browser's subprotocols that holds the token: a browser can set no header.
pub const BEARER: &str = "bearer.";

/// What a node is in secure channels, and whom it knows.
pub trait Identity: Send + Sync + 'static {
    /// The network.
    fn network(&self) -> NetworkId;
    /// The node as a party, with a binding that is valid now.
    fn party(&self) -> Arc<Party>;
    /// The same, and then with each former static key that still opens: others may not know yet that it was replaced.
    fn parties(&self) -> Vec<Arc<Party>>;
    /// Its own membership chain, encoded.
    fn chain(&self) -> Bytes;
    /// Whether a node is a member by the chain it shows, and may have the static key that it proved to have.
    ///
    /// # Errors
    /// Why it is not, in words that it may read.
    fn verify(&self, node: NodeId, key: &StaticPublic, chain: &[u8]) -> Result<Membership, String>;
    /// Changes whenever `verify` may say something else of somebody than before.
    fn standing(&self) -> watch::Receiver<()>;
}

/// How a gateway serves WebSocket.
#[derive(Clone)]
pub struct Settings {
    /// Whether plain JSON-RPC is served, beside the secure channel.
    pub plain: bool,
    /// Whether members are served that show no token.
    pub members: bool,
    /// Whether messages in the secure channel are signed each: both ends must want the same.
    pub signing: Signing,
    /// What the node is in secure channels; without it there are none.
    pub identity: Option<Arc<dyn Identity>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plain: true,
            members: true,
            signing: Signing::default(),
            identity: None,
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("plain", &self.plain)
            .field("members", &self.members)
            .field("signing", &self.signing)
            .finish_non_exhaustive()
    }
}

/// What a fuzzer needs: the bytes of a client after the upgrade, as far as they count before it is trusted.
#[cfg(fuzzing)]
#[doc(hidden)]
pub async fn hear(bytes: Vec<u8>, identity: &dyn Identity) -> bool {
    // Who sends more than it may before it is trusted is waited for, and nothing more comes here.
    let limits = Arc::new(crate::limits::McpLimits {
        handshake: std::time::Duration::from_millis(20),
        ..crate::limits::McpLimits::default()
    });
    let stream = tokio::io::join(std::io::Cursor::new(bytes), tokio::io::sink());
    let socket = Socket::new(stream, Side::Server, false, &limits).await;
    respond(socket, identity, "/ws/node/agent", Signing::default(), false)
        .await
        .is_ok()
}
