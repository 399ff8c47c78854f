//! The place of a node in its network: with whom it talks, and through whom it is reached.

use std::fmt;
use std::str::FromStr;

use dawn_identity::NodeId;

/// How the nodes of a network, or one of them, talk with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// With everybody, without any server.
    #[default]
    Decentralized,
    /// With everybody, and with centralized ones through the host.
    Hybrid,
    /// With the host alone, and with everybody else through it.
    Centralized,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Decentralized, Self::Hybrid, Self::Centralized];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decentralized => "decentralized",
            Self::Hybrid => "hybrid",
            Self::Centralized => "centralized",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mode: decentralized, hybrid or centralized")]
pub struct UnknownMode(pub String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let named = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        named.ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

/// The place of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// It talks with everybody.
    #[default]
    Decentralized,
    /// It talks with everybody, and with centralized nodes through its host.
    Hybrid {
        /// Through whom.
        host: NodeId,
    },
    /// It talks with its host alone, or is the host.
    Centralized {
        /// Which.
        host: NodeId,
    },
}

/// What a place's text begins with. It stands among a node's addresses, where who does not know it passes it over as one
/// that cannot be dialled.
const PREFIX: &str = "/dawn/";

impl Place {
    /// The place in a mode; `None` where the mode needs a host and none is named.
    #[must_use]
    pub const fn new(mode: Mode, host: Option<NodeId>) -> Option<Self> {
        match (mode, host) {
            (Mode::Decentralized, _) => Some(Self::Decentralized),
            (Mode::Hybrid, Some(host)) => Some(Self::Hybrid { host }),
            (Mode::Centralized, Some(host)) => Some(Self::Centralized { host }),
            (Mode::Hybrid | Mode::Centralized, None) => None,
        }
    }

    /// Its mode.
    #[must_use]
    pub const fn mode(self) -> Mode {
        match self {
            Self::Decentralized => Mode::Decentralized,
            Self::Hybrid { .. } => Mode::Hybrid,
            Self::Centralized { .. } => Mode::Centralized,
        }
    }

    /// Its host, if it has one.
    #[must_use]
    pub const fn host(self) -> Option<NodeId> {
        match self {
            Self::Decentralized => None,
            Self::Hybrid { host } | Self::Centralized { host } => Some(host),
        }
    }

    /// Through whom alone `node`, whose place this is, is reached.
    #[must_use]
    pub fn behind(self, node: NodeId) -> Option<NodeId> {
        match self {
            Self::Centralized { host } if host != node => Some(host),
            _ => None,
        }
    }

    /// As it stands among a node's addresses: `/dawn/centralized/12D3KooW…`; nothing for a decentralized one.
    #[must_use]
    pub fn to_address(self) -> Option<String> {
        let host = self.host()?;
        Some(format!("{PREFIX}{}/{host}", self.mode()))
    }

    /// What an address says of a place, if it is one of those.
    #[must_use]
    pub fn of_address(address: &str) -> Option<Self> {
        let (mode, host) = address.strip_prefix(PREFIX)?.split_once('/')?;
        let place = Self::new(mode.parse().ok()?, Some(host.parse().ok()?))?;
        // Nothing stands there that has another text.
        (place.to_address()? == address).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mode_with_a_host_needs_one() {
        let host = Keypair::from_seed([1; 32]).node_id();
        for mode in Mode::ALL {
            let place = Place::new(mode, Some(host)).unwrap();
            assert_eq!(place.mode(), mode);
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(Place::new(mode, None).is_some(), mode == Mode::Decentralized);
        }
        assert!("star".parse::<Mode>().is_err());
    }

    #[test]
    fn only_a_centralized_node_that_is_not_its_own_host_is_behind_somebody() {
        let [node, host] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]).node_id());
        assert_eq!(Place::Centralized { host }.behind(node), Some(host));
        assert_eq!(Place::Centralized { host }.behind(host), None);
        assert_eq!(Place::Hybrid { host }.behind(node), None);
        assert_eq!(Place::Decentralized.behind(node), None);
    }

    proptest! {
        #[test]
        fn a_place_comes_back_from_its_address(seed: u8, is_hybrid: bool) {
            let host = Keypair::from_seed([seed; 32]).node_id();
            let place = if is_hybrid { Place::Hybrid { host } } else { Place::Centralized { host } };
            let address = place.to_address().unwrap();
            prop_assert_eq!(Place::of_address(&address), Some(place));
            prop_assert_eq!(Place::of_address(&format!("{address}/")), None);
        }

        #[test]
        fn no_other_text_is_a_place(text in "(/dawn/)?[a-z/]{0,40}") {
            prop_assert_eq!(Place::of_address(&text), None);
        }
    }
}
