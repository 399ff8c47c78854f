//! Peers that are no members, or not yet: how many there may be, and for how long.

use std::sync::Arc;
use std::time::Instant;

use dawn_identity::NodeId;

use super::Actor;
use super::control::Command;
use crate::peer::Counters;

impl Actor {
    /// Closes strangers whose time is up.
    pub(super) fn strangers_due(&mut self, now: Instant) {
        let late: Vec<NodeId> = self
            .strangers
            .iter()
            .filter(|(_, end)| **end <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.strangers.remove(&node);
            if self.mesh.shared.peer(node).is_some() {
                continue;
            }
            if self.control.relays.contains(node) {
                self.strangers.insert(node, now + self.mesh.shared.limits.stranger);
            } else {
                self.command(Command::Disconnect(node));
            }
        }
    }

    /// So that strangers cannot take every connection: when there are too many, the one that came first goes.
    pub(super) fn make_room(&mut self) {
        let shared = Arc::clone(&self.mesh.shared);
        self.strangers.retain(|node, _| shared.peer(*node).is_none());
        while self.strangers.len() > shared.limits.strangers {
            let Some(first) = self
                .strangers
                .iter()
                .filter(|(node, _)| !self.control.relays.contains(**node))
                .min_by_key(|(_, end)| **end)
                .map(|(node, _)| *node)
            else {
                return;
            };
            self.strangers.remove(&first);
            Counters::count(&shared.counters.refused_strangers);
            self.command(Command::Disconnect(first));
        }
    }
}
