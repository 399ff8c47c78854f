//! `[gossip]`: with how many members a node keeps links.

use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// Members up to which everybody may be linked with everybody: each link costs both ends a ping in five seconds.
const FULL: usize = 256;
/// Links that a node may want, at least and at most: with fewer than two a network falls apart with the next that goes.
const LINKS: (usize, usize) = (2, 64);

/// `[gossip]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GossipConfig {
    /// Members, this node included, up to which it keeps links with all that it can reach.
    pub full: usize,
    /// In a larger network: links of its own choosing.
    pub links: usize,
    /// In a larger network: links at most, those that others chose included.
    pub most: usize,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            full: 32,
            links: 4,
            most: 12,
        }
    }
}

impl GossipConfig {
    /// As the gossip takes it.
    #[must_use]
    pub fn gossip(&self) -> dawn_gossip::Config {
        dawn_gossip::Config {
            full: self.full,
            wanted: self.links,
            most: self.most,
            ..dawn_gossip::Config::default()
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A network that would fall apart, or more links than a node is to have.
    pub(super) fn check(&self) -> Result<(), NodeError> {
        let wrong = |words: String| Err(NodeError::Config(words));
        if !(1..=FULL).contains(&self.full) {
            return wrong(format!("gossip.full: it has to be 1 at least and {FULL} at most"));
        }
        let (least, most) = LINKS;
        if !(least..=most).contains(&self.links) {
            return wrong(format!(
                "gossip.links: it has to be {least} at least and {most} at most"
            ));
        }
        if !(self.links * 2..=FULL).contains(&self.most) {
            return wrong(format!(
                "gossip.most: it has to be twice gossip.links at least and {FULL} at most: others choose links, too"
            ));
        }
        Ok(())
    }
}
