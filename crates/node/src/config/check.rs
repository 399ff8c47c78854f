//! What a configuration may not say, and what it says that may not be meant.

use std::time::Duration;

use dawn_identity::Role;
use dawn_policy::Who;

use super::{AccessRule, AgentConfig, CallerLimitsConfig, Config};
use crate::error::NodeError;

/// Shortest limit on messages, bytes: below it not even `initialize` passes.
const LEAST_MESSAGE: usize = 4096;

/// Shortest time after which a silent WebSocket is closed: an answer to a ping takes its time.
const LEAST_IDLE: Duration = Duration::from_secs(1);

fn wrong(words: String) -> NodeError {
    NodeError::Config(words)
}

impl Config {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Which value is impossible, and why.
    pub fn check(&self) -> Result<(), NodeError> {
        let port = self.api.listen.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            let words = format!(
                "api.listen: {:?} is no address and port, such as 127.0.0.1:7400",
                self.api.listen
            );
            return Err(wrong(words));
        }
        for (name, addresses) in [
            ("listen", &self.mesh.listen),
            ("announce", &self.mesh.announce),
            ("bootstrap", &self.mesh.bootstrap),
            ("relays", &self.mesh.relays),
        ] {
            for address in addresses {
                if let Err(error) = dawn_mesh::check_address(address) {
                    let words = format!(
                        "mesh.{name}: {address:?} is no multiaddr, such as /ip4/0.0.0.0/udp/7401/quic-v1 ({error})"
                    );
                    return Err(wrong(words));
                }
            }
        }
        for server in &self.mesh.stun {
            let parts = server.rsplit_once(':');
            if !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)) {
                return Err(wrong(format!(
                    "mesh.stun: {server:?} is no host and port, such as stun.example.org:3478"
                )));
            }
        }
        if let Some(relay) = self.mesh.relays.iter().find(|relay| !relay.contains("/p2p/")) {
            return Err(wrong(format!(
                "mesh.relays: {relay:?} does not end in /p2p/PEER, the relay's peer id"
            )));
        }
        if self.limits.message_bytes < LEAST_MESSAGE {
            return Err(wrong(format!(
                "limits.message_bytes: it has to be {LEAST_MESSAGE} at least"
            )));
        }
        for (name, value) in [
            ("sessions", self.limits.sessions),
            ("sockets", self.limits.sockets),
            ("api_connections", self.limits.api_connections),
            ("in_flight", self.limits.in_flight),
            ("processes_per_agent", self.limits.processes_per_agent),
        ] {
            if value == 0 {
                return Err(wrong(format!("limits.{name}: nothing would work with 0")));
            }
        }
        self.network.check()?;
        self.keys.check()?;
        self.forwarding.check()?;
        self.registry.check()?;
        self.gossip.check()?;
        if let Some(control) = &self.control {
            control.address()?;
        }
        for (name, idle) in [
            ("socket_idle", self.limits.socket_idle),
            ("connection_idle", self.limits.connection_idle),
        ] {
            if idle.0 < LEAST_IDLE {
                return Err(wrong(format!(
                    "limits.{name}: it has to be {} at least",
                    humantime::format_duration(LEAST_IDLE)
                )));
            }
        }
        for (name, agent) in &self.agents {
            agent.check().map_err(|error| match error {
                NodeError::Config(words) => wrong(format!("agents.{name}: {words}")),
                other => other,
            })?;
            check_limits(&format!("agents.{name}.limits"), &agent.limits)?;
            check_rules(&format!("agents.{name}.access"), &agent.access)?;
        }
        check_limits("memory.limits", &self.memory.limits)?;
        check_rules("memory.access", &self.memory.access)?;
        for (name, group) in &self.groups {
            if let Some(agent) = group.agents.iter().find(|agent| !agent.contains([':', '*'])) {
                return Err(wrong(format!(
                    "groups.{name}.agents: {agent:?} is no address of an agent, node:agent"
                )));
            }
        }
        if let Some(gateway) = &self.gateway {
            gateway.check()?;
            for endpoint in &gateway.expose {
                let place = format!("gateway.expose {}", endpoint.path);
                check_limits(&format!("{place}: limits"), &endpoint.limits)?;
                check_rules(&format!("{place}: access"), &endpoint.access)?;
                let group = endpoint.path.strip_prefix("/mcp/groups/");
                if let Some(group) = group.filter(|group| !self.groups.contains_key(*group)) {
                    return Err(wrong(format!("{place}: there is no [groups.{group}]")));
                }
            }
        }
        self.views().map(|_| ())
    }

    /// What is possible and yet contradicts itself, or fits nothing that is known: nodes in rules and envelopes, agents
    /// in groups.
    #[must_use]
    pub fn doubts(&self, nodes: &[String], agents: &[String]) -> Vec<String> {
        let mut doubts = self.keys.doubts();
        let peers = self.envelopes.peers.keys().filter(|peer| !nodes.contains(peer));
        doubts.extend(
            peers.map(|peer| format!("envelopes.peers names {peer:?}, and no node of that name or id is known")),
        );
        let rules = self
            .agents
            .iter()
            .map(|(name, agent)| (format!("agents.{name}"), &agent.access));
        let endpoints = self.gateway.iter().flat_map(|gateway| &gateway.expose);
        let endpoints = endpoints.map(|endpoint| (format!("gateway.expose {}", endpoint.path), &endpoint.access));
        let rules = rules
            .chain([("memory".to_owned(), &self.memory.access)])
            .chain(endpoints);
        for (place, rules) in rules {
            let named = rules.iter().flat_map(|rule| &rule.who);
            let is_unknown = |who: &&Who| match who {
                Who::Node(node) | Who::PersonOf(node, _) => {
                    node.is_literal() && !nodes.iter().any(|known| known == node.as_str())
                }
                Who::Everybody | Who::Role(_) | Who::Person(_) => false,
            };
            doubts.extend(
                named
                    .filter(is_unknown)
                    .map(|who| format!("{place}.access names \"{who}\", and no node of that name or id is known")),
            );
        }
        for (name, group) in &self.groups {
            let is_unknown = |agent: &&String| !agent.contains('*') && !agents.contains(agent);
            doubts.extend(
                group
                    .agents
                    .iter()
                    .filter(is_unknown)
                    .map(|agent| format!("groups.{name} names {agent:?}, and no agent of that address is there now")),
            );
        }
        doubts
    }

    /// The sections that another configuration has otherwise, of those that are read at the start only.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("api", self.api != other.api),
            ("mesh", self.mesh != other.mesh),
            ("network", {
                let drain = |config: &Self| (config.network.drain_quiet, config.network.drain_most);
                drain(self) != drain(other)
            }),
            ("certificate", self.certificate != other.certificate),
            ("keys", self.keys != other.keys),
            ("envelopes", self.envelopes != other.envelopes),
            ("forwarding", self.forwarding != other.forwarding),
            ("memory", self.memory.enabled != other.memory.enabled),
            ("limits", self.limits != other.limits),
            ("log", self.log != other.log),
            ("audit", self.audit != other.audit),
            ("gateway", {
                let listener = |config: &Self| {
                    let gateway = config.gateway.as_ref()?;
                    let files = (gateway.certificate.clone(), gateway.key.clone());
                    Some((gateway.listen.clone(), files, gateway.connections))
                };
                // One that is gone serves nothing from then on.
                other.gateway.is_some() && listener(self) != listener(other)
            }),
        ];
        differs
            .into_iter()
            .filter_map(|(name, differs)| differs.then_some(name))
            .collect()
    }
}

impl AgentConfig {
    /// Whether another configuration is of the same agent, who may use it and how much aside.
    #[must_use]
    pub fn is_same_agent(&self, other: &Self) -> bool {
        let with_its = Self {
            access: other.access.clone(),
            limits: other.limits,
            ..self.clone()
        };
        with_its == *other
    }
}

fn check_limits(place: &str, limits: &CallerLimitsConfig) -> Result<(), NodeError> {
    let is_zero = limits.requests_per_second == Some(0)
        || limits.in_flight == Some(0)
        || limits.sessions == Some(0)
        || limits.bytes_per_second == Some(0);
    if is_zero {
        return Err(wrong(format!(
            "{place}: a limit of 0 lets nobody do anything; a rule with then = \"deny\" says that"
        )));
    }
    Ok(())
}

fn check_rules(place: &str, rules: &[AccessRule]) -> Result<(), NodeError> {
    for who in rules.iter().flat_map(|rule| &rule.who) {
        if let Who::Role(role) = who
            && !Role::ALL.iter().any(|known| role.fits(known.as_str()))
        {
            return Err(wrong(format!(
                "{place}: there is no role {:?}; there are owner, admin, member and guest",
                role.as_str()
            )));
        }
    }
    Ok(())
}
