//! `[keys]`: this node's keys beside its identity.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Span;
use crate::error::NodeError;

const DAY: u64 = 24 * 60 * 60;

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
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            binding: Span(Duration::from_secs(7 * DAY)),
            rotate_every: Span(Duration::from_secs(30 * DAY)),
            grace: Span(Duration::from_secs(8 * DAY)),
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
        Ok(())
    }
}
