//! Who is there, as the gossip tells, and when somebody was last known to be.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_gossip::{Event, Instant};
use dawn_identity::NodeId;

/// After so long without a link nobody counts as online: whoever goes, this node would not hear of it.
const ALONE: Duration = Duration::from_secs(10);

/// A neighbour's silence is noticed within this; of whom nothing came for longer there was no link.
const NOTICED: Duration = Duration::from_secs(30);

/// Somebody came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Came(NodeId),
    Went(NodeId),
}

/// What is known of one node.
#[derive(Debug, Clone, Copy)]
struct Entry {
    is_online: bool,
    /// Since when somebody does not hear it, or when it went.
    silent_since: Option<Instant>,
}

/// Who is there.
#[derive(Debug)]
pub(super) struct Attendance {
    local: NodeId,
    entries: BTreeMap<NodeId, Entry>,
    /// When something came from a neighbour last.
    heard: BTreeMap<NodeId, Instant>,
    /// Since when this node has no link.
    alone_since: Option<Instant>,
    /// That has lasted, and nobody is shown as online.
    is_alone: bool,
    changes: Vec<Change>,
}

impl Attendance {
    /// Knows nobody but this node, which is always there.
    pub(super) fn new(local: NodeId) -> Self {
        Self {
            local,
            entries: BTreeMap::new(),
            heard: BTreeMap::new(),
            alone_since: Some(Duration::ZERO),
            is_alone: false,
            changes: Vec::new(),
        }
    }

    /// Something came from a neighbour.
    pub(super) fn heard(&mut self, node: NodeId, now: Instant) {
        self.heard.insert(node, now);
    }

    /// The gossip has told something.
    pub(super) fn hear(&mut self, event: &Event, now: Instant) {
        // A silence is noticed some seconds after it began.
        let since = |node: &NodeId| {
            let heard = self.heard.get(node).filter(|heard| **heard + NOTICED >= now);
            Some(heard.copied().unwrap_or(now))
        };
        let (node, is_online, silent_since) = match event {
            Event::Online(node) => (*node, true, None),
            Event::Suspected(node) => (*node, true, since(node)),
            Event::Offline(node) => (*node, false, since(node)),
            Event::News { .. } | Event::Differs(_) | Event::Muted(_) => return,
        };
        let new = Entry {
            is_online,
            silent_since,
        };
        let before = self.entries.insert(node, new);
        // What was suspected was not heard since then.
        if let (false, Some(before), Some(entry)) = (is_online, before, self.entries.get_mut(&node)) {
            entry.silent_since = before.silent_since.or(silent_since);
        }
        let was_online = before.is_some_and(|before| before.is_online);
        if was_online != is_online && !self.is_alone {
            self.changes.push(match is_online {
                true => Change::Came(node),
                false => Change::Went(node),
            });
        }
    }

    /// A node is no member any more.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.heard.remove(node);
        let gone = self.entries.remove(node);
        if gone.is_some_and(|gone| gone.is_online) && !self.is_alone {
            self.changes.push(Change::Went(*node));
        }
    }

    /// Whether this node has a link now.
    pub(super) fn has_links(&mut self, has: bool, now: Instant) {
        self.alone_since = (!has).then(|| self.alone_since.unwrap_or(now));
        let is_alone = self.alone_since.is_some_and(|since| now >= since + ALONE);
        if self.is_alone != is_alone {
            self.is_alone = is_alone;
            let online = self.entries.iter().filter(|(_, entry)| entry.is_online);
            let changes = online.map(|(node, _)| match is_alone {
                true => Change::Went(*node),
                false => Change::Came(*node),
            });
            self.changes.extend(changes);
        }
    }

    /// When [`Self::has_links`] is to be asked again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.alone_since.filter(|_| !self.is_alone).map(|since| since + ALONE)
    }

    /// Who came and who went since this was last asked.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether a node is online, and when it was last known to be.
    pub(super) fn of(&self, node: &NodeId, now: Instant) -> (bool, Option<Instant>) {
        if *node == self.local {
            return (true, Some(now));
        }
        let Some(entry) = self.entries.get(node) else {
            return (false, None);
        };
        let alone_since = self.alone_since.filter(|_| self.is_alone);
        let seen = entry.silent_since.or(alone_since).unwrap_or(now);
        (entry.is_online && !self.is_alone, Some(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    #[test]
    fn who_is_suspected_is_there_until_it_is_known_not_to_be_and_was_seen_before() {
        let mut attendance = Attendance::new(node(9));
        attendance.has_links(true, SECOND);
        assert_eq!(attendance.of(&node(1), SECOND), (false, None));
        attendance.hear(&Event::Online(node(1)), SECOND);
        attendance.hear(&Event::Suspected(node(1)), 5 * SECOND);
        assert_eq!(attendance.of(&node(1), 6 * SECOND), (true, Some(5 * SECOND)));
        attendance.hear(&Event::Offline(node(1)), 9 * SECOND);
        assert_eq!(attendance.of(&node(1), 20 * SECOND), (false, Some(5 * SECOND)));
        assert_eq!(attendance.changes(), [Change::Came(node(1)), Change::Went(node(1))]);
        attendance.hear(&Event::Online(node(1)), 30 * SECOND);
        assert_eq!(attendance.of(&node(1), 40 * SECOND), (true, Some(40 * SECOND)));
        // Its goodbye.
        attendance.hear(&Event::Offline(node(1)), 41 * SECOND);
        assert_eq!(attendance.of(&node(1), 42 * SECOND), (false, Some(41 * SECOND)));
        attendance.hear(&Event::Online(node(2)), 43 * SECOND);
        attendance.forget(&node(2));
        let changes = attendance.changes();
        assert_eq!(changes[2..], [Change::Came(node(2)), Change::Went(node(2))]);
    }

    #[test]
    fn a_neighbour_that_falls_silent_was_seen_when_something_came_from_it_last() {
        let mut attendance = Attendance::new(node(9));
        attendance.has_links(true, SECOND);
        attendance.hear(&Event::Online(node(1)), SECOND);
        attendance.heard(node(1), 5 * SECOND);
        assert_eq!(attendance.of(&node(1), 8 * SECOND), (true, Some(8 * SECOND)));
        attendance.hear(&Event::Suspected(node(1)), 12 * SECOND);
        attendance.hear(&Event::Offline(node(1)), 16 * SECOND);
        assert_eq!(attendance.of(&node(1), 20 * SECOND), (false, Some(5 * SECOND)));
        // There was a link with it once; others hear it.
        attendance.hear(&Event::Online(node(1)), 60 * SECOND);
        attendance.hear(&Event::Suspected(node(1)), 90 * SECOND);
        assert_eq!(attendance.of(&node(1), 91 * SECOND), (true, Some(90 * SECOND)));
    }

    #[test]
    fn a_node_that_has_no_link_for_long_shows_nobody_but_itself() {
        let mut attendance = Attendance::new(node(9));
        attendance.has_links(true, SECOND);
        attendance.hear(&Event::Online(node(1)), SECOND);
        attendance.has_links(false, 2 * SECOND);
        attendance.has_links(false, 5 * SECOND);
        assert_eq!(attendance.next(), Some(12 * SECOND));
        assert!(attendance.of(&node(1), 6 * SECOND).0);
        attendance.has_links(false, 12 * SECOND);
        assert_eq!(attendance.of(&node(1), 20 * SECOND), (false, Some(2 * SECOND)));
        assert!(attendance.of(&node(9), 20 * SECOND).0 && attendance.next().is_none());
        attendance.hear(&Event::Offline(node(1)), 20 * SECOND);
        attendance.hear(&Event::Online(node(2)), 20 * SECOND);
        attendance.has_links(true, 21 * SECOND);
        assert_eq!(attendance.of(&node(2), 22 * SECOND), (true, Some(22 * SECOND)));
        let changes = [Change::Came(node(1)), Change::Went(node(1)), Change::Came(node(2))];
        assert_eq!(attendance.changes(), changes);
    }
}
