//! The names people choose, checked once where they come in: nodes, agents, networks, and the address of an agent.

use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;
use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Longest node or agent name, characters.
const MAX_NAME: usize = 32;
/// What is no node's name: it stands for all.
const ANY: &str = "any";
/// Longest network name, bytes.
const MAX_NETWORK_NAME: usize = 64;

/// Why a text is not the name or address wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a node name.
    #[error(
        "a node name has 1 to 32 characters a-z, 0-9 and -, begins and ends with a letter or a digit, and is not `any`"
    )]
    Node,
    /// Not an agent name.
    #[error(
        "an agent name has 1 to 32 characters a-z, 0-9, - and single _, and begins and ends with a letter or a digit"
    )]
    Agent,
    /// Not a network name.
    #[error("a network name has 1 to 64 bytes, no control characters, and no space at its ends")]
    Network,
    /// Not the address of an agent.
    #[error("the address of an agent is node:agent, with the name or the id of the node")]
    Address,
}

/// Whether `text` can be shown to a person as it is: not longer than `max` bytes, and nothing that steers a terminal.
pub(crate) fn is_plain(text: &str, max: usize) -> bool {
    text.len() <= max && !text.chars().any(char::is_control)
}

/// `[a-z0-9]([a-z0-9X]{0,30}[a-z0-9])?` where `X` are the `inner` characters.
fn is_name(text: &str, inner: &[u8]) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || inner.contains(byte))
}

/// Why a newtype for each: a node name cannot land where an agent name is wanted. Of those of agents a registry holds a
/// hundred thousand: they stand where they are, not somewhere else in memory.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident($text:ty), $error:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type($text);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                let name = text.parse().ok().filter(|_| valid(text));
                name.map(Self).ok_or($error)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.as_str().to_owned()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a node, unique in its network: `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`, and not `any`, which in an agent's
    /// address stands for whichever node has it.
    NodeName(String),
    NameError::Node,
    |text| is_name(text, b"-") && text != ANY
);
name!(
    /// The name of an agent, unique on its node: like a node name, with `_` too inside, never two in a row (`__`
    /// separates the parts of `node__agent__tool`).
    AgentName(ArrayString<MAX_NAME>),
    NameError::Agent,
    |text| is_name(text, b"-_") && !text.contains("__")
);
name!(
    /// What people call a network: 1 to 64 bytes, without control characters and without spaces at its ends.
    NetworkName(String),
    NameError::Network,
    |text| !text.is_empty() && text.trim() == text && is_plain(text, MAX_NETWORK_NAME)
);

impl NodeName {
    /// A valid name made of any text, such as a host name: its first label, in lowercase, everything else turned into
    /// single hyphens; `node` if nothing is left.
    pub fn suggest(hostname: &str) -> Self {
        let label = hostname.split('.').find(|label| !label.is_empty()).unwrap_or_default();
        let mut name = String::new();
        for character in label.chars().flat_map(char::to_lowercase) {
            if name.len() == MAX_NAME {
                break;
            }
            if character.is_ascii_lowercase() || character.is_ascii_digit() {
                name.push(character);
            } else if !name.is_empty() && !name.ends_with('-') {
                name.push('-');
            }
        }
        name.truncate(name.trim_end_matches('-').len());
        if name.is_empty() || name == ANY {
            name.clear();
            name.push_str("node");
        }
        Self(name)
    }
}

/// A node, by its id or by its name. No text is both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NodeRef {
    /// By its id.
    Id(NodeId),
    /// By its name.
    Name(NodeName),
    /// Whichever of them has what is asked for: `any`.
    Any,
}

/// Where an agent is: `node:agent`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentAddress {
    /// The node that hosts the agent.
    pub node: NodeRef,
    /// The agent's name on that node.
    pub agent: AgentName,
}

impl From<NodeId> for NodeRef {
    fn from(id: NodeId) -> Self {
        Self::Id(id)
    }
}

impl From<NodeName> for NodeRef {
    fn from(name: NodeName) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Any => f.pad(ANY),
        }
    }
}

impl FromStr for NodeRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == ANY {
            return Ok(Self::Any);
        }
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.agent)
    }
}

impl FromStr for AgentAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (node, agent) = text.split_once(':').ok_or(NameError::Address)?;
        Ok(Self {
            node: node.parse()?,
            agent: agent.parse()?,
        })
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
as_text!(NodeRef);
as_text!(AgentAddress);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keypair;

    #[test]
    fn node_names_follow_their_rule() {
        for good in ["a", "7", "laptop", "my-laptop-2", "a--b", &"x".repeat(32)] {
            assert_eq!(good.parse::<NodeName>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a b", "ä", "a.b", "a:b", &"x".repeat(33)] {
            assert_eq!(bad.parse::<NodeName>(), Err(NameError::Node), "{bad}");
        }
    }

    #[test]
    fn agent_names_may_hold_single_underscores() {
        for good in ["files", "my_files", "a_b_c", "a-_b"] {
            assert!(good.parse::<AgentName>().is_ok(), "{good}");
        }
        for bad in ["_a", "a_", "a__b", "Files", ""] {
            assert_eq!(bad.parse::<AgentName>(), Err(NameError::Agent), "{bad}");
        }
    }

    #[test]
    fn network_names_may_be_words_of_people_but_not_steer_a_terminal() {
        assert!("Ada's place – 家".parse::<NetworkName>().is_ok());
        for bad in ["", " a", "a\n", "a\u{1b}[2J", &"x".repeat(65)] {
            assert_eq!(bad.parse::<NetworkName>(), Err(NameError::Network), "{bad:?}");
        }
    }

    #[test]
    fn a_suggested_name_keeps_what_it_can_of_the_host_name() {
        for (host, name) in [
            ("Adas-MacBook-Pro.local", "adas-macbook-pro"),
            ("DESKTOP_42", "desktop-42"),
            (".hidden.example", "hidden"),
            ("--Ünïcode--", "n-code"),
            ("", "node"),
            ("...", "node"),
            ("日本", "node"),
        ] {
            assert_eq!(NodeName::suggest(host).as_str(), name, "{host}");
        }
    }

    #[test]
    fn an_agent_address_names_its_node_by_name_or_id() {
        let id = Keypair::from_seed([1; 32]).node_id();
        for (text, node) in [
            ("desk:files".to_owned(), NodeRef::Name("desk".parse().unwrap())),
            (format!("{id}:files"), NodeRef::Id(id)),
        ] {
            let address: AgentAddress = text.parse().unwrap();
            assert_eq!(address.node, node);
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<AgentAddress>(&json).unwrap(), address);
        }
        assert_eq!("files".parse::<AgentAddress>(), Err(NameError::Address));
        assert_eq!("a:b:c".parse::<AgentAddress>(), Err(NameError::Agent));
        assert_eq!("A:b".parse::<AgentAddress>(), Err(NameError::Node));
    }
}
