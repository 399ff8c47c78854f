//! The configuration read again while the node runs.

use std::sync::MutexGuard;
use std::time::Duration;

use dawn_identity::AgentName;
use dawn_mcp::router::Directory as _;

use super::{MEMORY, NodeState, spec};
use crate::config::{AccessRule, CallerLimitsConfig, Config, Overrides};
use crate::error::NodeError;
use crate::sync::lock;

impl NodeState {
    /// Reads the configuration again: agents that are new, gone or different, who may use them and how much, and what the
    /// gateway's endpoints show, and the mode. Everything else needs a restart. Returns the agents that changed, and the sections that
    /// need one.
    ///
    /// # Errors
    /// The configuration cannot be read or is not valid; nothing is changed then.
    pub async fn reload(&self) -> Result<(Vec<AgentName>, Vec<&'static str>), NodeError> {
        let _one = self.inner.reloading.lock().await;
        let config = Config::load(&self.home().config_file(), &Overrides::default())?;
        let views = config.views()?;
        if let Some((server, _)) = &self.inner.exposed {
            match &config.gateway {
                Some(gateway) => server
                    .set(gateway.resource())
                    .map_err(|error| NodeError::Config(format!("gateway: {error}")))?,
                None => server.withdraw(),
            }
        }
        self.modes.configured(config.network.place()).await?;
        self.gateway.views().set(views);
        self.control.set(config.control.as_ref())?;
        let before = {
            let mut agents = lock(&self.inner.agents);
            std::mem::replace(&mut *agents, config.agents.clone())
        };
        let mut changed = Vec::new();
        for name in before.keys().filter(|name| !config.agents.contains_key(*name)) {
            self.host.remove(name).await;
            changed.push(name.clone());
        }
        for (name, is) in &config.agents {
            let was = before.get(name);
            if was == Some(is) {
                continue;
            }
            changed.push(name.clone());
            let is_same = was.is_some_and(|was| is.is_same_agent(was));
            if is_same && self.set_access(name, &is.access, is.limits) {
                // Its sessions go on, under the new rules and limits.
                continue;
            }
            if was.is_some() {
                self.host.remove(name).await;
            }
            self.host
                .add(name.clone(), spec(is)?)
                .map_err(|error| NodeError::Agent(error.to_string()))?;
        }
        let later = self.inner.read_at_start.needs_restart(&config);
        let was = std::mem::replace(&mut *self.config(), config.clone());
        let is_changed = was.memory.access != config.memory.access || was.memory.limits != config.memory.limits;
        if let Ok(name) = MEMORY.parse()
            && is_changed
            && !config.agents.contains_key(&name)
            && self.set_access(&name, &config.memory.access, config.memory.limits)
        {
            changed.push(name);
        }
        changed.sort();
        changed.dedup();
        Ok((changed, later))
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        lock(&self.inner.config)
    }

    /// Puts rules and limits of an agent in force; `false` when there is none of that name.
    fn set_access(&self, name: &AgentName, access: &[AccessRule], limits: CallerLimitsConfig) -> bool {
        let access = access.iter().map(AccessRule::rule).collect();
        self.host.set_access(name, access, limits.limits())
    }

    /// What the configuration says that fits nothing that is known.
    pub fn doubts(&self) -> Vec<String> {
        let nodes = self.directory.nodes();
        let nodes: Vec<String> = nodes
            .iter()
            .flat_map(|view| [view.said.name.to_string(), view.said.node.to_string()])
            .collect();
        let agents = self.directory.agents();
        let agents: Vec<String> = agents
            .iter()
            .map(|entry| format!("{}:{}", entry.node_name, entry.summary.name))
            .collect();
        self.config().doubts(&nodes, &agents)
    }

    /// Reads the configuration again whenever its file has changed and been left alone for a moment.
    pub(super) async fn watch_configuration(&self) {
        const LOOK: Duration = Duration::from_secs(1);
        let file = self.home().config_file();
        let stamp = || {
            let metadata = std::fs::metadata(&file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let (mut known, mut before) = (stamp(), stamp());
        loop {
            tokio::time::sleep(LOOK).await;
            let now = stamp();
            if now != known && now == before {
                known = now;
                match self.reload().await {
                    Ok((changed, later)) if changed.is_empty() && later.is_empty() => {}
                    Ok((changed, later)) => {
                        tracing::info!(?changed, needs_restart = ?later, "the configuration has changed");
                    }
                    Err(error) => tracing::error!(%error, "the changed configuration is not used"),
                }
                for doubt in self.doubts() {
                    tracing::warn!("{doubt}");
                }
            }
            before = now;
        }
    }
}
