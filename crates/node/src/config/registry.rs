//! `[registry]`: what is kept of what happened in the network.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Span;
use crate::error::NodeError;

/// The longest that others take, and the shortest that leaves time to say it anew.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const SHORTEST: Duration = Duration::from_secs(5);

/// `[registry]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// How long counts what this node says of itself and its agents: then it is hidden, until the node is back. It is said
    /// anew when half of that is gone. Others take what counts for 7 days at most.
    pub validity: Span,
    /// For how long entries of the log are kept.
    pub log_keep: Span,
    /// How many are kept at most.
    pub log_entries: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            validity: Span(LONGEST),
            log_keep: Span(Duration::from_secs(90 * DAY)),
            log_entries: 10_000,
        }
    }
}

impl RegistryConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A log of nothing.
    pub(super) fn check(&self) -> Result<(), NodeError> {
        /// Longest log that is checked in memory when somebody asks for it.
        const MOST: u64 = 1_000_000;
        if !(SHORTEST..=LONGEST).contains(&self.validity.0) {
            return Err(NodeError::Config(
                "registry.validity: it has to be 5s at least and 7d at most".into(),
            ));
        }
        if self.log_keep.0 < Duration::from_secs(1) {
            return Err(NodeError::Config("registry.log_keep: it has to be 1s at least".into()));
        }
        if !(1..=MOST).contains(&self.log_entries) {
            return Err(NodeError::Config(format!(
                "registry.log_entries: it has to be 1 at least and {MOST} at most"
            )));
        }
        Ok(())
    }
}
