//! What relays are shown, so that they let this node reserve, and dial through them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dawn_identity::NodeId;
use dawn_relay::token;
use libp2p::StreamProtocol;
use libp2p::swarm::ConnectionId;

use super::control::Control;
use crate::handle::{Shared, lock};

/// What this node shows to which relay: the operator's token to those of the configuration, and to those alone, since any
/// member may say that it relays; to one that is told with a token of its own that. Others are shown the membership chain.
#[derive(Clone)]
pub(crate) struct Credentials {
    token: Option<Bytes>,
    /// The relays of the configuration.
    written: Arc<HashSet<NodeId>>,
    /// Tokens of relays that are told while the mesh runs.
    told: Arc<Mutex<HashMap<NodeId, Bytes>>>,
    shared: Arc<Shared>,
}

impl Credentials {
    pub(super) fn new(token: Option<&str>, written: HashSet<NodeId>, shared: Arc<Shared>) -> Self {
        Self {
            token: token.map(|token| Bytes::copy_from_slice(token.as_bytes())),
            written: Arc::new(written),
            told: Arc::default(),
            shared,
        }
    }

    /// The token, where a relay is shown one.
    pub(super) fn token(&self, relay: NodeId) -> Option<Bytes> {
        if self.written.contains(&relay) && self.token.is_some() {
            return self.token.clone();
        }
        lock(&self.told).get(&relay).cloned()
    }

    /// The tokens of relays that are told, in the place of those told before.
    pub(super) fn set_told(&self, tokens: HashMap<NodeId, Bytes>) {
        *lock(&self.told) = tokens;
    }

    fn of(&self, relay: NodeId) -> Bytes {
        let token = self.token(relay);
        token.unwrap_or_else(|| self.shared.gate.own_chain().into())
    }
}

impl Control {
    /// Shows a relay what lets this node use it, where it has not accepted just that over this connection, and says
    /// whether it takes anything of the kind: other relays do not.
    pub(crate) async fn show_credential(&self, relay: NodeId, connection: ConnectionId) -> Result<bool, String> {
        let ended = || "the connection ended".to_owned();
        let shown = self.opener.shown(connection).ok_or_else(ended)?;
        // One at a time, so that those who dial at once do not all show it.
        let mut shown = shown.lock().await;
        let credential = self.credentials.of(relay);
        match &*shown {
            Some((known, is_heard)) if *known == credential => return Ok(*is_heard),
            _ => {}
        }
        let is_heard = match self.show_one(connection, &credential).await {
            Ok(accepted) => accepted.map(|()| true)?,
            Err(error) => {
                tracing::debug!(%relay, %error, "a relay takes no tokens");
                false
            }
        };
        *shown = Some((credential, is_heard));
        Ok(is_heard)
    }

    /// Shows a relay something, and says whether it was accepted.
    pub(super) async fn show_one(&self, connection: ConnectionId, shown: &[u8]) -> std::io::Result<Result<(), String>> {
        let opening = self.opener.open(connection, StreamProtocol::new(token::TOKEN));
        let mut stream = opening.await.map_err(std::io::Error::other)?;
        token::show(&mut stream, shown).await
    }
}
