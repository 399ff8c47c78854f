//! `[network]`: with whom this node talks.

use std::time::Duration;

use dawn_identity::NodeId;
use dawn_mesh::MeshLimits;
use dawn_registry::{Mode, Place};
use serde::{Deserialize, Serialize};

use super::Span;
use crate::error::NodeError;

/// `network.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeConfig {
    /// With everybody, without any server.
    #[default]
    Decentralized,
    /// With everybody, and with centralized nodes through the host.
    Hybrid,
    /// With the host alone, and with everybody else through it.
    Centralized,
}

impl From<ModeConfig> for Mode {
    fn from(mode: ModeConfig) -> Self {
        match mode {
            ModeConfig::Decentralized => Self::Decentralized,
            ModeConfig::Hybrid => Self::Hybrid,
            ModeConfig::Centralized => Self::Centralized,
        }
    }
}

impl From<Mode> for ModeConfig {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Decentralized => Self::Decentralized,
            Mode::Hybrid => Self::Hybrid,
            Mode::Centralized => Self::Centralized,
        }
    }
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// The mode. A migration changes it, too; what was said last holds.
    pub mode: ModeConfig,
    /// The node through which centralized nodes talk, by its id; this node's own where it is the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<NodeId>,
    /// When this node becomes centralized: how long ago the last answer came on the streams of a connection that ends.
    pub drain_quiet: Span,
    /// The same, whatever moves on them.
    pub drain_most: Span,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let mesh = MeshLimits::default();
        Self {
            mode: ModeConfig::default(),
            host: None,
            drain_quiet: Span(mesh.drain_quiet),
            drain_most: Span(mesh.drain_most),
        }
    }
}

impl NetworkConfig {
    /// The place that it gives this node; that of a decentralized one where it does not fit.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::new(self.mode.into(), self.host).unwrap_or_default()
    }

    /// With what is said here of connections that end.
    #[must_use]
    pub fn mesh(&self, mut limits: MeshLimits) -> MeshLimits {
        limits.drain_quiet = self.drain_quiet.0;
        limits.drain_most = self.drain_most.0;
        limits
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A mode without the host that it needs, or with one that it has no use for, or a time in which nothing could end.
    pub(super) fn check(&self) -> Result<(), NodeError> {
        const LEAST: Duration = Duration::from_secs(1);
        let wrong = |words: String| Err(NodeError::Config(words));
        match (Mode::from(self.mode), self.host) {
            (Mode::Decentralized, Some(_)) => {
                return wrong("network.host: a decentralized node has none; set network.mode, too".into());
            }
            (mode @ (Mode::Hybrid | Mode::Centralized), None) => {
                return wrong(format!(
                    "network.host: a {mode} node needs the id of its host (`dawn peers -v`)"
                ));
            }
            _ => {}
        }
        for (name, span) in [("drain_quiet", self.drain_quiet), ("drain_most", self.drain_most)] {
            if span.0 < LEAST {
                return wrong(format!(
                    "network.{name}: it has to be {} at least",
                    humantime::format_duration(LEAST)
                ));
            }
        }
        Ok(())
    }
}
