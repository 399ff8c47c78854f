//! What vouches for a message in a secure channel.

use dawn_channel::Signing;
use serde::{Deserialize, Serialize};

/// What vouches for a message in a secure channel: both ends have to want the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigningConfig {
    /// Its sender's signature, which its receiver can show to others.
    #[default]
    EachMessage,
    /// The channel alone.
    ChannelOnly,
}

impl From<SigningConfig> for Signing {
    fn from(config: SigningConfig) -> Self {
        match config {
            SigningConfig::EachMessage => Self::EachMessage,
            SigningConfig::ChannelOnly => Self::ChannelOnly,
        }
    }
}
