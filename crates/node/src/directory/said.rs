//! What nodes say, read: from the values in the registry to names, addresses and agents.

use std::sync::Arc;
use std::time::Duration;

use dawn_channel::{Binding, BindingError};
use dawn_identity::{AgentName, Membership, NodeId, NodeName};
use dawn_registry::delta::Value;
use dawn_registry::{AgentSummary, NodeElement, Place, replica};

use crate::members::{Members, SKEW, now};

/// What a node says of itself and of its agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The version of its software.
    pub software: String,
    /// Multiaddresses at which it can be dialled.
    pub addresses: Vec<String>,
    /// With whom it talks.
    pub place: Place,
    /// Its agents, by name.
    pub agents: Vec<AgentSummary>,
    /// What its certificate says of it.
    pub membership: Membership,
    /// Its certificate chain, encoded.
    pub(crate) chain: Vec<u8>,
    /// Its binding, encoded; empty where it says nothing of that.
    pub(crate) binding: Vec<u8>,
    /// Whether it relays for the network.
    pub(crate) relays: bool,
}

/// A node as it is known now.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// What it says.
    pub said: Arc<Said>,
    /// Whether it beats.
    pub online: bool,
    /// When it was last heard of, as time since the start; `None` when only what it says is known.
    pub last_seen: Option<Duration>,
}

impl Said {
    /// Reads a view of the registry; `None` where the node says nothing that can be understood.
    pub(super) fn read(view: &replica::NodeView<'_>) -> Option<Self> {
        let own = NodeElement::decode(view.own()?.bytes()).ok()?;
        let agent = |(name, value): (&AgentName, &Value)| match AgentSummary::decode(value.bytes()) {
            Ok(summary) => Some(AgentSummary {
                name: name.clone(),
                ..summary
            }),
            Err(error) => {
                tracing::debug!(node = %view.node, %name, %error, "an agent is left out");
                None
            }
        };
        Some(Self {
            node: view.node,
            addresses: own.dialable(),
            place: own.place(),
            name: own.name,
            software: own.software,
            agents: view.agents().filter_map(agent).collect(),
            membership: view.membership.clone(),
            chain: own.chain,
            binding: own.binding,
            relays: own.relays,
        })
    }

    /// Which parts of what it says of itself are new.
    pub(super) fn news(&self, before: &Self) -> Vec<&'static str> {
        let parts = [
            ("name", self.name != before.name),
            ("software", self.software != before.software),
            ("addresses", self.addresses != before.addresses),
            ("mode", self.place != before.place),
            ("relays", self.relays != before.relays),
            ("certificate", self.chain != before.chain),
            ("binding", self.binding != before.binding),
        ];
        parts
            .into_iter()
            .filter_map(|(part, is_new)| is_new.then_some(part))
            .collect()
    }

    pub(super) fn agent(&self, name: &AgentName) -> Option<&AgentSummary> {
        self.agents.iter().find(|agent| agent.name == *name)
    }
}

/// What a node's element in the registry makes of it: a member, or why not. Its binding, if it has one, must be its own;
/// one whose time is over is of no use, and no reason to refuse it.
pub(super) fn membership(members: &Members, node: &NodeId, value: &Value) -> Result<Membership, String> {
    let own = NodeElement::decode(value.bytes()).map_err(|error| error.to_string())?;
    if !own.binding.is_empty() {
        let bad = |error: BindingError| format!("its key binding is not valid: {error}");
        let binding = Binding::decode(&own.binding).map_err(bad)?;
        match binding.verify(now(), SKEW) {
            Ok(_) | Err(BindingError::Expired(_) | BindingError::NotYetValid(_)) => {}
            Err(error) => return Err(bad(error)),
        }
        if binding.node() != *node {
            return Err("its key binding is that of another node".to_owned());
        }
    }
    let membership = members.accepts(&own.chain)?;
    if membership.node != *node || membership.name != own.name {
        return Err("its certificate is that of another node".to_owned());
    }
    Ok(membership)
}

const _: () = assert!(dawn_channel::MAX_BINDING_BYTES <= dawn_registry::MAX_BINDING_BYTES);
