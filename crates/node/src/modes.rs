//! With whom this node talks: the mode that it is in, and how that changes while it runs.
//!
//! The place of a node is what `[network]` says, or what was said later while it ran: that is kept, with what the
//! configuration said then, so that whoever writes something else there afterwards has the last word.

use std::sync::Arc;

use dawn_identity::NodeId;
use dawn_mesh::{Mesh, Neighbours};
use dawn_registry::Place;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Events;
use crate::config::{Config, ForwardingConfig, ModeConfig};
use crate::directory::Directory;
use crate::error::NodeError;
use crate::store::Store;

/// The key under which a place is kept that was given while the node ran.
const PLACE: &str = "place";

/// A place as it is kept, and as the API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceText {
    /// The mode.
    pub mode: ModeConfig,
    /// The host, if it has one.
    pub host: Option<NodeId>,
}

impl From<Place> for PlaceText {
    fn from(place: Place) -> Self {
        Self {
            mode: place.mode().into(),
            host: place.host(),
        }
    }
}

impl TryFrom<PlaceText> for Place {
    type Error = NodeError;

    fn try_from(text: PlaceText) -> Result<Self, NodeError> {
        let missing = || NodeError::Config("a hybrid or centralized node needs a host".into());
        Self::new(text.mode.into(), text.host).ok_or_else(missing)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    place: PlaceText,
    /// What the configuration said when this was kept.
    configured: PlaceText,
}

/// The mode of one node. Clones share it.
#[derive(Clone)]
pub struct Modes(Arc<Inner>);

struct Inner {
    local: NodeId,
    store: Store,
    mesh: Mesh,
    directory: Directory,
    events: Events,
    forwarding: ForwardingConfig,
    /// What the configuration says.
    configured: std::sync::Mutex<Place>,
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Modes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Modes").field("place", &self.place()).finish()
    }
}

/// The place that a node starts in.
///
/// # Errors
/// The store failed.
pub(crate) async fn first(store: &Store, config: &Config) -> Result<Place, NodeError> {
    let configured = config.network.place();
    let Some(bytes) = store.get(PLACE).await? else {
        return Ok(configured);
    };
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| NodeError::Corrupt(error.to_string()))?;
    if kept.configured != configured.into() {
        tracing::info!(mode = %configured.mode(), "the configuration says a newer mode than what was kept");
        store.unset(PLACE).await?;
        return Ok(configured);
    }
    kept.place.try_into()
}

/// With whom a node in this place has connections.
pub(crate) fn neighbours(local: NodeId, place: Place) -> Neighbours {
    place.behind(local).map_or(Neighbours::All, Neighbours::Only)
}

impl Modes {
    pub(crate) fn new(mesh: Mesh, store: Store, directory: Directory, events: Events, config: &Config) -> Self {
        let modes = Self(Arc::new(Inner {
            local: mesh.node_id(),
            store,
            mesh,
            directory,
            events,
            forwarding: config.forwarding.clone(),
            configured: std::sync::Mutex::new(config.network.place()),
            changing: tokio::sync::Mutex::default(),
        }));
        modes.apply(Place::Decentralized, modes.place());
        modes
    }

    /// With whom this node talks.
    #[must_use]
    pub fn place(&self) -> Place {
        self.0.directory.place()
    }

    /// Whether others are centralized at this node.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.place().host() == Some(self.0.local)
    }

    /// Changes it, and keeps that.
    ///
    /// # Errors
    /// It cannot be kept; then nothing is changed.
    pub async fn set(&self, place: Place) -> Result<(), NodeError> {
        let _one = self.0.changing.lock().await;
        let kept = Kept {
            place: place.into(),
            configured: (*crate::sync::lock(&self.0.configured)).into(),
        };
        let bytes = serde_json::to_vec(&kept).map_err(|error| NodeError::Corrupt(error.to_string()))?;
        self.0.store.set(PLACE, &bytes).await?;
        self.change(place);
        Ok(())
    }

    /// Takes note of what the configuration says now: where it says something else than before, that holds.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn configured(&self, place: Place) -> Result<(), NodeError> {
        let _one = self.0.changing.lock().await;
        let before = std::mem::replace(&mut *crate::sync::lock(&self.0.configured), place);
        if before != place {
            self.0.store.unset(PLACE).await?;
            self.change(place);
        }
        Ok(())
    }

    fn change(&self, place: Place) {
        let before = self.place();
        if before != place {
            tracing::info!(from = %before.mode(), to = %place.mode(), "the mode of this node changes");
            self.apply(before, place);
            let data = json!({ "from": PlaceText::from(before), "to": PlaceText::from(place) });
            self.0.events.say("mode.changed", &data);
        }
    }

    fn apply(&self, before: Place, place: Place) {
        let (local, mesh, directory) = (self.0.local, &self.0.mesh, &self.0.directory);
        let hosts = |place: Place| place.host().filter(|host| *host != local);
        if let Some(host) = hosts(before).filter(|host| hosts(place) != Some(*host)) {
            mesh.forget(host);
        }
        mesh.set_neighbours(neighbours(local, place));
        // Whoever is kept or forgotten is where it was.
        for host in hosts(before).into_iter().chain(hosts(place)) {
            directory.find_again(host);
        }
        if let Some(host) = hosts(place) {
            // It is dialled, whatever it said last of whom it talks with.
            mesh.reach_through(host, None);
            mesh.keep(host, Vec::new());
        }
        let forwarding = &self.0.forwarding;
        let (all, each) = match place.host() == Some(local) {
            true => (forwarding.host_carriers, forwarding.host_carriers_per_neighbour),
            false => (forwarding.carriers, forwarding.carriers_per_neighbour),
        };
        mesh.set_carriers(
            all.max(forwarding.carriers),
            each.max(forwarding.carriers_per_neighbour),
        );
        directory.set_place(place);
    }

    /// As the API shows it. `lost`: the host should be connected and is not.
    pub(crate) fn shown(&self) -> Value {
        let place = self.place();
        let is_lost = |host: NodeId| host != self.0.local && !self.is_linked(host);
        let host = place.host().map(|host| {
            json!({ "id": host, "name": self.0.directory.name_of(host), "connected": host == self.0.local || self.is_linked(host) })
        });
        json!({ "mode": place.mode().as_str(), "host": host, "is_host": self.is_host(), "lost": place.host().is_some_and(is_lost) })
    }

    fn is_linked(&self, node: NodeId) -> bool {
        self.0.mesh.connected().iter().any(|peer| peer.node == node)
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;
    use crate::config::NetworkConfig;

    fn configured(place: Place) -> Config {
        Config {
            network: NetworkConfig {
                mode: place.mode().into(),
                host: place.host(),
                ..NetworkConfig::default()
            },
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn a_node_starts_in_the_place_that_was_said_last() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        let host = Keypair::from_seed([1; 32]).node_id();
        let [plain, hybrid, star] = [
            Place::Decentralized,
            Place::Hybrid { host },
            Place::Centralized { host },
        ];
        assert_eq!(first(&store, &configured(plain)).await.unwrap(), plain);
        assert_eq!(first(&store, &configured(hybrid)).await.unwrap(), hybrid);
        // A migration, while the file said nothing of modes.
        let kept = Kept {
            place: star.into(),
            configured: plain.into(),
        };
        store.set(PLACE, &serde_json::to_vec(&kept).unwrap()).await.unwrap();
        assert_eq!(first(&store, &configured(plain)).await.unwrap(), star);
        // The file says something new; that holds, also when it is taken back.
        assert_eq!(first(&store, &configured(hybrid)).await.unwrap(), hybrid);
        assert_eq!(first(&store, &configured(plain)).await.unwrap(), plain);
    }

    #[test]
    fn only_a_centralized_node_has_one_neighbour_and_the_host_has_all() {
        let [local, host] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]).node_id());
        assert_eq!(neighbours(local, Place::Centralized { host }), Neighbours::Only(host));
        assert_eq!(neighbours(host, Place::Centralized { host }), Neighbours::All);
        assert_eq!(neighbours(local, Place::Hybrid { host }), Neighbours::All);
        let text = PlaceText {
            mode: ModeConfig::Hybrid,
            host: None,
        };
        assert!(Place::try_from(text).is_err());
    }
}
