//! What is shown of a node.

use std::borrow::Cow;

use dawn_identity::{AgentName, Membership, NodeId, UnixTime};

use crate::delta::{Element, Key, Value};
use crate::owner::{self, Owner, Stored};

/// What a node says now.
#[derive(Debug, Clone)]
pub struct NodeView<'a> {
    /// Who.
    pub node: NodeId,
    /// What its certificate says of it.
    pub membership: &'a Membership,
    elements: Cow<'a, [Element]>,
}

impl NodeView<'_> {
    /// What it says of itself.
    #[must_use]
    pub fn own(&self) -> Option<&Value> {
        owner::read(&self.elements, &Key::Node)
    }

    /// What it says of an agent.
    #[must_use]
    pub fn agent(&self, name: &AgentName) -> Option<&Value> {
        owner::read(&self.elements, &Key::Agent(name.clone()))
    }

    /// Its agents, by name.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentName, &Value)> {
        let same_key = |a: &Element, b: &Element| a.key == b.key;
        self.elements.chunk_by(same_key).filter_map(|same| match same {
            [
                ..,
                Element {
                    key: Key::Agent(name),
                    value,
                    ..
                },
            ] => Some((name, value)),
            _ => None,
        })
    }

    /// Every entry, also those behind another of the same key.
    #[must_use]
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }
}

/// What it says now; `None` if it has expired.
pub(super) fn view(node: NodeId, owner: &Owner, now: UnixTime) -> Option<NodeView<'_>> {
    let elements = owner.shown(now);
    let own = owner::read(&elements, &Key::Node)?;
    // The membership by the certificate that is read.
    let same = |stored: &&Stored| owner::read(&stored.elements, &Key::Node) == Some(own);
    let stored = owner.heads.iter().rev().find(same).or(owner.heads.last())?;
    Some(NodeView {
        node,
        membership: &stored.membership,
        elements,
    })
}
