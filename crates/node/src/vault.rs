//! Where credentials for agents' servers are kept: sealed, in the node's database.

use dawn_identity::{AgentName, Vault};
use futures::future::BoxFuture;

use crate::store::Store;

/// Credentials of this node's agents.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) store: Store,
    pub(crate) vault: Vault,
}

fn key(agent: &AgentName) -> String {
    format!("oauth/{agent}")
}

impl dawn_mcp::host::Vault for Credentials {
    fn load(&self, agent: AgentName) -> BoxFuture<'static, Result<Option<Vec<u8>>, String>> {
        let Self { store, vault } = self.clone();
        Box::pin(async move {
            let key = key(&agent);
            let Some(sealed) = store.get(&key).await.map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            let opened = vault.open(&key, &sealed).map_err(|error| error.to_string())?;
            Ok(Some(opened.to_vec()))
        })
    }

    fn save(&self, agent: AgentName, secret: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        let Self { store, vault } = self.clone();
        Box::pin(async move {
            let key = key(&agent);
            let sealed = vault.seal(&key, &secret, &mut rand::rng());
            let sealed = sealed.map_err(|error| error.to_string())?;
            store.set(&key, &sealed).await.map_err(|error| error.to_string())
        })
    }

    fn clear(&self, agent: AgentName) -> BoxFuture<'static, Result<(), String>> {
        let store = self.store.clone();
        Box::pin(async move { store.unset(&key(&agent)).await.map_err(|error| error.to_string()) })
    }
}
