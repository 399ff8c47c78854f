//! `[api.websocket]` and `[agents.NAME.secure]`: MCP over WebSocket, plain and in a secure channel.

use dawn_identity::NodeId;
use serde::{Deserialize, Serialize};

use super::SigningConfig;

/// `[api.websocket]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketConfig {
    /// Whether plain JSON-RPC is spoken, for clients that know nothing of Dawn.
    pub plain: bool,
    /// Whether members may come without the token, by their membership certificate in the secure channel.
    pub members: bool,
    /// Whether messages in the secure channel are signed each.
    pub signing: SigningConfig,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            plain: true,
            members: true,
            signing: SigningConfig::default(),
        }
    }
}

/// `[agents.NAME.secure]`: the agent is reached in a secure channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureConfig {
    /// The node that has to be at the far end.
    pub node: NodeId,
    /// What vouches for a message; that node has to want the same.
    #[serde(default)]
    pub signing: SigningConfig,
}
