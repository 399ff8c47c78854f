//! What the values in a set say: CBOR in its one encoding.

use dawn_identity::NodeName;
use serde::{Deserialize, Serialize};

use crate::cbor::{self, bytes};
use crate::place::Place;
use crate::summary::AgentSummary;
use crate::wire::Malformed;

/// Longest encoded key binding of a node, bytes.
pub const MAX_BINDING_BYTES: usize = 512;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeElement {
    /// Its name.
    pub name: NodeName,
    /// Its certificate chain, encoded: by it everybody can tell that it is a member.
    #[serde(with = "bytes")]
    pub chain: Vec<u8>,
    /// The version of its software.
    pub software: String,
    /// Multiaddresses at which it can be dialled, and its [`Place`], where that is not the usual one: nobody can dial
    /// that, and who does not know it passes it over.
    pub addresses: Vec<String>,
    /// Its binding: which static key is its own. Empty where it says nothing of that.
    #[serde(default, with = "bytes", skip_serializing_if = "Vec::is_empty")]
    pub binding: Vec<u8>,
    /// Whether it relays for the members of its network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relays: bool,
}

impl NodeElement {
    /// With whom it talks, as it says.
    #[must_use]
    pub fn place(&self) -> Place {
        let said = self.addresses.iter().find_map(|address| Place::of_address(address));
        said.unwrap_or_default()
    }

    /// The addresses at which it can be dialled.
    #[must_use]
    pub fn dialable(&self) -> Vec<String> {
        let all = self.addresses.iter();
        all.filter(|address| Place::of_address(address).is_none())
            .cloned()
            .collect()
    }

    /// The bytes of the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, or not in its one encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let element: Self = cbor::decode(bytes, "not what a node says of itself")?;
        if element.binding.len() > MAX_BINDING_BYTES || element.encode() != bytes {
            return Err(Malformed("not what a node says of itself"));
        }
        Ok(element)
    }
}

impl AgentSummary {
    /// The bytes of the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a value. Members that are not known here are passed over: a newer node may say more.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        cbor::decode(bytes, "not what a node says of an agent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_back() {
        let node = NodeElement {
            name: "laptop".parse().unwrap(),
            chain: vec![1; 300],
            software: "0.1.0".into(),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".into()],
            binding: Vec::new(),
            relays: true,
        };
        assert_eq!(NodeElement::decode(&node.encode()), Ok(node.clone()));
        assert!(NodeElement::decode(&[&node.encode()[..], &[0]].concat()).is_err());
        let long = NodeElement {
            binding: vec![0; MAX_BINDING_BYTES + 1],
            ..node
        };
        assert!(NodeElement::decode(&long.encode()).is_err());
        let host = dawn_identity::Keypair::from_seed([1; 32]).node_id();
        let place = Place::Centralized { host };
        let mut behind = NodeElement {
            binding: Vec::new(),
            ..long
        };
        assert_eq!(behind.place(), Place::Decentralized);
        behind.addresses.extend(place.to_address());
        let read = NodeElement::decode(&behind.encode()).unwrap();
        assert_eq!(read.place(), place);
        assert_eq!(read.dialable(), ["/ip4/127.0.0.1/tcp/1"]);
        let agent = AgentSummary::starting("memory".parse().unwrap());
        assert_eq!(AgentSummary::decode(&agent.encode()), Ok(agent.clone()));
        assert!(NodeElement::decode(&agent.encode()).is_err());
    }
}
