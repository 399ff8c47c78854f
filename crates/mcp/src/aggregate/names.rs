//! The names under which the aggregate shows what agents call by names of their own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dawn_identity::{AgentAddress, AgentName, NodeRef};

/// Longest name that MCP allows, characters.
const NAME_CHARS: usize = 128;
const SEPARATOR: &str = "__";
const SCHEME: &str = "dawn://";
/// Aliases that differ from the plain form are remembered up to this many.
const REMEMBERED: usize = 65_536;

/// A name of an agent's own, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) address: AgentAddress,
    pub(crate) own: String,
}

/// Names that had to be altered, so that they can be turned back.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, Owned>>);

impl Names {
    /// The name under which the aggregate shows an agent's own name: letters, digits, `_`, `-` and `.`, at most 128.
    ///
    /// What had to be altered or shortened ends in `-` and eight hexadecimal digits of a hash of the original, so that
    /// two different names never become the same.
    pub(super) fn alias(&self, address: &AgentAddress, own: &str) -> String {
        let plain = format!("{}{SEPARATOR}{}{SEPARATOR}{own}", address.node, address.agent);
        let fits = plain.len() <= NAME_CHARS && plain.bytes().all(is_name_byte);
        if fits {
            return plain;
        }
        let mut alias: String = plain
            .chars()
            .map(|c| if c.is_ascii() && is_name_byte(c as u8) { c } else { '_' })
            .collect();
        alias.truncate(NAME_CHARS - 9);
        alias.push('-');
        alias.push_str(&digest(own));
        let mut altered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if altered.len() >= REMEMBERED {
            altered.clear();
        }
        altered.insert(
            alias.clone(),
            Owned {
                address: address.clone(),
                own: own.to_owned(),
            },
        );
        alias
    }

    /// Whose name an alias is.
    pub(super) fn resolve(&self, alias: &str) -> Option<Owned> {
        if let Some(owned) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(alias) {
            return Some(owned.clone());
        }
        let (node, rest) = alias.split_once(SEPARATOR)?;
        let (agent, own) = rest.split_once(SEPARATOR)?;
        Some(Owned {
            address: AgentAddress {
                node: node.parse().ok()?,
                agent: agent.parse().ok()?,
            },
            own: own.to_owned(),
        })
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Eight hexadecimal digits that tell names apart (FNV-1a, 32 bits folded from 64).
fn digest(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

/// The address under which the aggregate shows an agent's resource or resource template.
pub(super) fn wrap_uri(address: &AgentAddress, uri: &str) -> String {
    format!("{SCHEME}{}/{}/{uri}", address.node, address.agent)
}

/// Whose resource an address is.
pub(super) fn unwrap_uri(uri: &str) -> Option<Owned> {
    let (node, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    let (agent, own) = rest.split_once('/')?;
    let node: NodeRef = node.parse().ok()?;
    let agent: AgentName = agent.parse().ok()?;
    Some(Owned {
        address: AgentAddress { node, agent },
        own: own.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lab_files() -> AgentAddress {
        "lab:files".parse().unwrap()
    }

    #[test]
    fn ordinary_names_are_joined_and_split_again_without_memory() {
        let alias = Names::default().alias(&lab_files(), "read__file.v2");
        assert_eq!(alias, "lab__files__read__file.v2");
        assert_eq!(
            Names::default().resolve(&alias).unwrap(),
            Owned {
                address: lab_files(),
                own: "read__file.v2".into()
            }
        );
    }

    #[test]
    fn names_that_would_collide_after_cleaning_stay_apart() {
        let names = Names::default();
        let (a, b) = (names.alias(&lab_files(), "a/b"), names.alias(&lab_files(), "a:b"));
        assert_ne!(a, b);
        assert_eq!(names.resolve(&a).unwrap().own, "a/b");
        assert_eq!(names.resolve(&b).unwrap().own, "a:b");
    }

    proptest! {
        #[test]
        fn every_name_becomes_legal_and_can_be_turned_back(own in ".{0,200}") {
            let names = Names::default();
            let alias = names.alias(&lab_files(), &own);
            prop_assert!(alias.len() <= NAME_CHARS && alias.bytes().all(is_name_byte));
            prop_assert_eq!(names.resolve(&alias).unwrap(), Owned { address: lab_files(), own });
        }

        #[test]
        fn every_uri_can_be_turned_back(own in ".{0,200}") {
            prop_assert_eq!(unwrap_uri(&wrap_uri(&lab_files(), &own)).unwrap(), Owned { address: lab_files(), own });
        }
    }
}
