//! Which relays are in use: peers that need to be no members, and are kept all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dawn_identity::NodeId;

use crate::handle::lock;

/// Relays that lead to others at once. Addresses of others name them, so there is an end to it.
const RELAYS: usize = 256;

/// The relays in use, and by how many. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relays(Arc<Mutex<HashMap<NodeId, usize>>>);

/// One use of a relay, until it is dropped.
#[derive(Debug)]
pub(crate) struct Used {
    relays: Relays,
    relay: NodeId,
}

impl Relays {
    /// Whether a peer is in use as a relay.
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        lock(&self.0).contains_key(&node)
    }

    /// Uses a relay that this node has chosen.
    pub(crate) fn hold(&self, relay: NodeId) -> Used {
        *lock(&self.0).entry(relay).or_default() += 1;
        Used {
            relays: self.clone(),
            relay,
        }
    }

    /// Uses a relay that another has named; `None` where there are too many.
    pub(crate) fn try_hold(&self, relay: NodeId) -> Option<Used> {
        let has_room = {
            let relays = lock(&self.0);
            relays.len() < RELAYS || relays.contains_key(&relay)
        };
        has_room.then(|| self.hold(relay))
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut relays = lock(&self.relays.0);
        if let Some(uses) = relays.get_mut(&self.relay) {
            *uses -= 1;
            if *uses == 0 {
                relays.remove(&self.relay);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    fn node(seed: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Keypair::from_seed(bytes).node_id()
    }

    #[test]
    fn a_relay_is_in_use_until_nobody_uses_it() {
        let (relays, relay) = (Relays::default(), node(1));
        let uses = [relays.hold(relay), relays.hold(relay)];
        let [one, other] = uses;
        drop(one);
        assert!(relays.contains(relay));
        drop(other);
        assert!(!relays.contains(relay));
    }

    #[test]
    fn addresses_of_others_fill_no_more_than_there_is_room_for_and_what_is_unused_makes_room() {
        let relays = Relays::default();
        let mut uses: Vec<Used> = (0..RELAYS).filter_map(|seed| relays.try_hold(node(seed))).collect();
        assert_eq!(uses.len(), RELAYS);
        assert!(relays.try_hold(node(RELAYS)).is_none());
        assert!(relays.try_hold(node(0)).is_some());
        let _chosen = relays.hold(node(RELAYS + 1));
        uses.truncate(RELAYS - 2);
        assert!(relays.try_hold(node(RELAYS)).is_some());
    }
}
