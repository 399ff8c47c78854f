//! This node in secure WebSocket channels: its keys, its membership, and whom it knows.

use std::sync::Arc;

use bytes::Bytes;
use dawn_channel::{Party, StaticPublic};
use dawn_identity::{Membership, NetworkId, NodeId};
use dawn_mcp::websocket::{Identity, Settings};
use tokio::sync::watch;

use crate::config::WebSocketConfig;
use crate::members::Members;
use crate::party::Keys;

/// What a node is in secure channels.
pub(crate) struct NodeIdentity {
    pub(crate) keys: Keys,
    pub(crate) members: Members,
}

impl Identity for NodeIdentity {
    fn network(&self) -> NetworkId {
        self.members.network()
    }

    fn party(&self) -> Arc<Party> {
        self.keys.party()
    }

    fn parties(&self) -> Vec<Arc<Party>> {
        self.keys.parties()
    }

    fn chain(&self) -> Bytes {
        self.members.chain()
    }

    fn verify(&self, node: NodeId, key: &StaticPublic, chain: &[u8]) -> Result<Membership, String> {
        let membership = self.members.gate().verify(node, chain);
        let membership = membership.map_err(|refusal| refusal.message)?;
        let checked = self.members.pins().check_key(node, key);
        checked.map_err(|violation| violation.to_string())?;
        Ok(membership)
    }

    fn standing(&self) -> watch::Receiver<()> {
        self.members.revoked()
    }
}

/// As the gateway takes the configuration.
pub(crate) fn settings(config: &WebSocketConfig, identity: Arc<dyn Identity>) -> Settings {
    Settings {
        plain: config.plain,
        members: config.members,
        signing: config.signing.into(),
        identity: Some(identity),
    }
}
