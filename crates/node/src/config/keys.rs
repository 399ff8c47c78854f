//! `[keys]`: this node's keys beside its identity. `[envelopes]`: how messages that stand by themselves are encrypted.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_channel::Encryption;
use serde::{Deserialize, Serialize};

use super::Span;
use crate::error::NodeError;

const DAY: u64 = 24 * 60 * 60;
/// The shortest that a shared key is asked for: it is renewed at half of its time, and times are whole seconds.
pub const SHORTEST_LIFETIME: Duration = Duration::from_secs(4);

/// With whom a key is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum AcceptKeys {
    /// With every member that asks.
    #[default]
    Members,
    /// With whom this node's owner says (`dawn keys approve`). A key that is there is renewed without a question.
    Ask,
}

/// `[keys]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// How long a binding of the static key is valid. It is renewed when half of it is gone.
    pub binding: Span,
    /// After how long a new static key takes the place of the old one.
    pub rotate_every: Span,
    /// For how long former keys still open what was sealed before, and handshakes that were begun with them.
    pub grace: Span,
    /// With whom a key is agreed on.
    pub accept: AcceptKeys,
    /// How long a key that this node asks for is valid. It is renewed by itself when half of that is gone.
    pub lifetime: Span,
    /// The longest that a shared key is valid, whatever the other node wants.
    pub longest: Span,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            binding: Span(Duration::from_secs(7 * DAY)),
            rotate_every: Span(Duration::from_secs(30 * DAY)),
            grace: Span(Duration::from_secs(8 * DAY)),
            accept: AcceptKeys::Members,
            lifetime: Span(Duration::from_secs(30 * DAY)),
            longest: Span(Duration::from_secs(90 * DAY)),
        }
    }
}

impl KeysConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A length of time that leaves no key usable.
    pub(super) fn check(&self) -> Result<(), NodeError> {
        for (name, span) in [
            ("binding", self.binding),
            ("rotate_every", self.rotate_every),
            ("grace", self.grace),
        ] {
            if span.0 < Duration::from_secs(1) {
                return Err(NodeError::Config(format!("keys.{name}: it has to be 1s at least")));
            }
        }
        for (name, span) in [("lifetime", self.lifetime), ("longest", self.longest)] {
            if span.0 < SHORTEST_LIFETIME {
                let shortest = humantime::format_duration(SHORTEST_LIFETIME);
                return Err(NodeError::Config(format!(
                    "keys.{name}: it has to be {shortest} at least"
                )));
            }
        }
        Ok(())
    }

    /// What is possible and contradicts itself.
    pub(super) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let Self { lifetime, longest, .. } = self;
        if lifetime.0 > longest.0 {
            doubts.push(format!(
                "keys.lifetime ({}) is longer than keys.longest ({}): this node asks for keys that it would not grant",
                humantime::format_duration(lifetime.0),
                humantime::format_duration(longest.0)
            ));
        }
        if self.grace.0 < self.binding.0 {
            doubts.push(format!(
                "keys.grace ({}) is shorter than keys.binding ({}): others may still seal to a static key that no longer opens",
                humantime::format_duration(self.grace.0),
                humantime::format_duration(self.binding.0)
            ));
        }
        doubts
    }
}

/// `[envelopes]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct EnvelopesConfig {
    /// How envelopes are encrypted.
    pub encryption: Encryption,
    /// How those to and from single nodes are, by name or id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<String, Encryption>,
}

impl EnvelopesConfig {
    /// How envelopes to and from a node are encrypted.
    #[must_use]
    pub fn of(&self, id: &str, name: Option<&str>) -> Encryption {
        let own = self.peers.get(id).or_else(|| self.peers.get(name?));
        own.copied().unwrap_or(self.encryption)
    }

    /// Where it says that envelopes are not encrypted.
    #[must_use]
    pub fn readable(&self) -> Vec<String> {
        let all = (self.encryption == Encryption::None).then(|| "envelopes.encryption".to_owned());
        let peers = self
            .peers
            .iter()
            .filter(|(_, encryption)| **encryption == Encryption::None);
        all.into_iter()
            .chain(peers.map(|(peer, _)| format!("envelopes.peers.{peer}")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_end_before_they_are_agreed_on_are_refused_and_contradictions_told() {
        let config = |text| toml::from_str::<KeysConfig>(text).unwrap();
        for text in [
            "lifetime = \"3s\"",
            "longest = \"3s\"",
            "grace = \"0s\"",
            "binding = \"0s\"",
        ] {
            assert!(config(text).check().is_err(), "{text}");
        }
        let good = config("lifetime = \"4s\"\nlongest = \"4s\"");
        good.check().unwrap();
        assert!(good.doubts().is_empty());
        assert!(config("longest = \"1d\"").doubts()[0].starts_with("keys.lifetime (30days)"));
        assert!(config("grace = \"1d\"").doubts()[0].starts_with("keys.grace (1day)"));
        assert!(KeysConfig::default().doubts().is_empty());
    }

    #[test]
    fn a_node_of_its_own_goes_before_the_rule_and_its_id_before_its_name() {
        let config: EnvelopesConfig =
            toml::from_str("encryption = \"symmetric\"\n[peers]\nlab = \"none\"\n12D3 = \"asymmetric\"\n").unwrap();
        assert_eq!(config.of("x", Some("desk")), Encryption::Symmetric);
        assert_eq!(config.of("x", None), Encryption::Symmetric);
        assert_eq!(config.of("x", Some("lab")), Encryption::None);
        assert_eq!(config.of("12D3", Some("lab")), Encryption::Asymmetric);
        assert_eq!(config.readable(), ["envelopes.peers.lab"]);
        assert!(EnvelopesConfig::default().readable().is_empty());
        assert_eq!(EnvelopesConfig::default().encryption, Encryption::Asymmetric);
    }
}
