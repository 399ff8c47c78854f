//! Presence: who is there. Beats in, who came and who went out.
//!
//! A node is online while it beats. That is kept apart from what nodes say in the registry, which it never makes grow.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{NetworkId, NodeId};

use crate::beat::{Beat, BeatError, Version};
use crate::replica::Applied;

/// Time since an arbitrary start, as the caller's monotonic clock tells it.
pub type Instant = Duration;

/// How presence treats time and size.
#[derive(Debug, Clone, Copy)]
pub struct PresenceLimits {
    /// A node that does not beat for this long is offline.
    pub ttl: Duration,
    /// A node whose connection was lost is offline after this, unless it beats.
    pub suspicion: Duration,
    /// From one beat of a node to the next that is taken; what comes earlier is passed over.
    pub pace: Duration,
    /// Nodes watched at once.
    pub nodes: usize,
}

impl Default for PresenceLimits {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(10),
            // Longer than from one beat to the next: whoever is reached by another way stays online.
            suspicion: Duration::from_secs(4),
            // A third of the time from one beat to the next.
            pace: Duration::from_secs(1),
            nodes: 16_384,
        }
    }
}

/// Who came and who went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceEvent {
    /// A node came online.
    Online(NodeId),
    /// A node went offline.
    Offline(NodeId),
    /// A node was started again: what it said before is over.
    Restarted(NodeId),
}

#[derive(Debug)]
struct Watched {
    beat: Version,
    /// While it is online.
    until: Option<Instant>,
    seen: Instant,
    /// When its incarnation was first heard.
    began: Instant,
}

impl Watched {
    /// Whether a later beat is taken now. Its goodbye is where it is online, and its next incarnation is though the last
    /// beat was just now; but none of that without end.
    fn may_beat(&self, beat: &Beat, now: Instant, pace: Duration) -> bool {
        let is_goodbye = beat.leaving && self.until.is_some();
        let is_anew = beat.version.epoch > self.beat.epoch && now >= self.began + pace;
        now >= self.seen + pace || is_goodbye || is_anew
    }
}

/// Who is there, of the nodes of one network.
#[derive(Debug)]
pub struct Presence {
    network: NetworkId,
    local: NodeId,
    limits: PresenceLimits,
    watched: BTreeMap<NodeId, Watched>,
    events: Vec<PresenceEvent>,
}

impl Presence {
    /// Knows nobody but the node `local`, which is always there.
    #[must_use]
    pub fn new(network: NetworkId, local: NodeId, limits: PresenceLimits) -> Self {
        Self {
            network,
            local,
            limits,
            watched: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Takes a signed beat from anywhere, of nodes that `is_known`. One that is not later than what was taken, or that comes
    /// sooner after it than [`PresenceLimits::pace`], is passed over as if it was known.
    ///
    /// # Errors
    /// It is malformed, forged, of another network or of a node that nobody knows.
    pub fn apply(
        &mut self,
        bytes: &[u8],
        now: Instant,
        is_known: impl FnOnce(&NodeId) -> bool,
    ) -> Result<Applied, BeatError> {
        let beat = Beat::open(bytes)?;
        let Beat {
            network,
            node,
            version,
            leaving,
        } = beat;
        if network != self.network {
            return Err(BeatError::OtherNetwork);
        }
        if node == self.local {
            return Ok(Applied::Known);
        }
        let until = (!leaving).then_some(now + self.limits.ttl);
        let is_full = self.watched.len() >= self.limits.nodes;
        let (was_online, is_restarted) = match self.watched.get_mut(&node) {
            Some(watched) if watched.beat >= version => return Ok(Applied::Known),
            Some(watched) if !watched.may_beat(&beat, now, self.limits.pace) => return Ok(Applied::Known),
            Some(watched) => {
                let before = (watched.until.is_some(), watched.beat.epoch < version.epoch);
                if before.1 {
                    watched.began = now;
                }
                (watched.beat, watched.until, watched.seen) = (version, until, now);
                before
            }
            None if !is_known(&node) => return Err(BeatError::Unknown),
            None if is_full => return Err(BeatError::Full(self.limits.nodes)),
            None => {
                let watched = Watched {
                    beat: version,
                    until,
                    seen: now,
                    began: now,
                };
                self.watched.insert(node, watched);
                (false, false)
            }
        };
        if is_restarted && !leaving {
            self.events.push(PresenceEvent::Restarted(node));
        }
        match (was_online, leaving) {
            (true, true) => self.events.push(PresenceEvent::Offline(node)),
            (false, false) => self.events.push(PresenceEvent::Online(node)),
            _ => {}
        }
        Ok(Applied::New)
    }

    /// The connection to a node was lost: it has little time to beat by another way.
    pub fn suspect(&mut self, node: NodeId, now: Instant) {
        let deadline = now + self.limits.suspicion;
        let watched = self.watched.get_mut(&node);
        if let Some(until) = watched.and_then(|watched| watched.until.as_mut()) {
            *until = (*until).min(deadline);
        }
    }

    /// A node is no member any more.
    pub fn forget(&mut self, node: &NodeId) {
        if self.watched.remove(node).is_some_and(|watched| watched.until.is_some()) {
            self.events.push(PresenceEvent::Offline(*node));
        }
    }

    /// Marks nodes that were silent for too long.
    pub fn tick(&mut self, now: Instant) {
        for (node, watched) in &mut self.watched {
            if watched.until.is_some_and(|until| until <= now) {
                watched.until = None;
                self.events.push(PresenceEvent::Offline(*node));
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.watched.values().filter_map(|watched| watched.until).min()
    }

    /// Who came and went since this was last asked.
    pub fn events(&mut self) -> Vec<PresenceEvent> {
        std::mem::take(&mut self.events)
    }

    /// Whether a node is online, and when it was last heard of.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> (bool, Option<Instant>) {
        match self.watched.get(node) {
            Some(watched) => (watched.until.is_some(), Some(watched.seen)),
            None => (*node == self.local, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(node: u8) -> Keypair {
        Keypair::from_seed([node; 32])
    }

    fn network() -> NetworkId {
        key(9).network_id()
    }

    fn presence() -> Presence {
        let limits = PresenceLimits {
            nodes: 2,
            ..PresenceLimits::default()
        };
        Presence::new(network(), key(1).node_id(), limits)
    }

    fn beat(node: u8, epoch: u64, sequence: u64, leaving: bool) -> Vec<u8> {
        Beat {
            network: network(),
            node: key(node).node_id(),
            version: Version { epoch, sequence },
            leaving,
        }
        .sign(&key(node))
    }

    #[test]
    fn a_node_is_online_while_it_beats_and_offline_when_it_stops_leaves_or_is_suspected() {
        let (mut presence, node) = (presence(), key(2).node_id());
        assert_eq!(presence.of(&node), (false, None));
        presence.apply(&beat(2, 1, 1, false), SECOND, |_| true).unwrap();
        assert_eq!(presence.of(&node), (true, Some(SECOND)));
        presence.tick(SECOND * 10);
        assert!(presence.of(&node).0);
        presence.tick(SECOND * 11);
        assert_eq!(presence.of(&node), (false, Some(SECOND)));
        presence.apply(&beat(2, 1, 2, false), SECOND * 20, |_| true).unwrap();
        presence.suspect(node, SECOND * 20);
        assert_eq!(presence.next_tick(), Some(SECOND * 24));
        presence.tick(SECOND * 24);
        presence.apply(&beat(2, 1, 3, false), SECOND * 30, |_| true).unwrap();
        presence.apply(&beat(2, 1, 4, true), SECOND * 31, |_| true).unwrap();
        assert!(!presence.of(&node).0);
        let old = presence.apply(&beat(2, 1, 3, false), SECOND * 32, |_| true);
        assert_eq!(old, Ok(Applied::Known), "an old beat wakes nobody");
        let (on, off) = (PresenceEvent::Online(node), PresenceEvent::Offline(node));
        assert_eq!(presence.events(), [on, off, on, off, on, off]);
    }

    #[test]
    fn who_was_started_again_is_noticed_though_it_never_seemed_away() {
        let (mut presence, node) = (presence(), key(2).node_id());
        presence.apply(&beat(2, 1, 90, false), SECOND, |_| true).unwrap();
        presence.apply(&beat(2, 2, 1, false), SECOND * 2, |_| true).unwrap();
        let events = [PresenceEvent::Online(node), PresenceEvent::Restarted(node)];
        assert_eq!(presence.events(), events);
        let before = presence.apply(&beat(2, 1, 91, true), SECOND * 3, |_| true);
        assert_eq!(
            before,
            Ok(Applied::Known),
            "the goodbye of its former self comes too late"
        );
        assert!(presence.of(&node).0);
    }

    #[test]
    fn who_beats_leaves_or_starts_again_without_end_is_heard_a_few_times_a_second() {
        // Of a hundred beats in five seconds that come in turns, as `what` makes them.
        let taken = |what: fn(u64) -> Vec<u8>| {
            let mut presence = presence();
            let apply = |number: u64| {
                presence
                    .apply(&what(number), SECOND * number as u32 / 20, |_| true)
                    .unwrap()
            };
            let new = (1..=100).map(apply).filter(|applied| *applied == Applied::New).count();
            (new, presence.events().len())
        };
        assert_eq!(taken(|number| beat(2, 1, number, false)), (5, 1));
        let (heard, told) = taken(|number| beat(2, 1, number, number % 2 == 0));
        assert!(heard <= 10 && told <= 10, "{heard} {told}");
        assert_eq!(taken(|number| beat(2, number, 1, false)), (5, 5));
        let (heard, told) = taken(|number| beat(2, number, 1, number % 2 == 0));
        assert!(heard <= 20 && told <= 20, "{heard} {told}");
        // Who starts again right after it has beaten is heard at once.
        let (mut presence, node) = (presence(), key(2).node_id());
        presence.apply(&beat(2, 1, 1, false), SECOND, |_| true).unwrap();
        presence.apply(&beat(2, 1, 2, false), SECOND * 4, |_| true).unwrap();
        presence.apply(&beat(2, 1, 3, true), SECOND * 4, |_| true).unwrap();
        let anew = presence.apply(&beat(2, 2, 1, false), SECOND * 4, |_| true);
        assert_eq!((anew, presence.of(&node).0), (Ok(Applied::New), true));
    }

    #[test]
    fn forged_foreign_and_unknown_ones_are_refused_and_their_number_is_bounded() {
        let mut presence = presence();
        let mut apply = |bytes: &[u8], is_known: bool| presence.apply(bytes, SECOND, |_| is_known);
        let beat_of = |network, node: u8| Beat {
            network,
            node: key(node).node_id(),
            version: Version { epoch: 1, sequence: 1 },
            leaving: false,
        };
        let forged = beat_of(network(), 2).sign(&key(3));
        assert_eq!(apply(&forged, true), Err(BeatError::BadSignature));
        let foreign = beat_of(key(8).network_id(), 2).sign(&key(2));
        assert_eq!(apply(&foreign, true), Err(BeatError::OtherNetwork));
        assert_eq!(apply(&beat(2, 1, 1, false), false), Err(BeatError::Unknown));
        assert_eq!(apply(&beat(1, 1, 1, true), true), Ok(Applied::Known), "of this node");
        for node in [2, 3] {
            assert_eq!(apply(&beat(node, 1, 1, false), true), Ok(Applied::New));
        }
        assert_eq!(apply(&beat(4, 1, 1, false), true), Err(BeatError::Full(2)));
        let mut apply = |bytes: &[u8], is_known: bool| presence.apply(bytes, SECOND * 2, |_| is_known);
        assert_eq!(
            apply(&beat(3, 1, 2, false), false),
            Ok(Applied::New),
            "who is watched is known"
        );
        presence.forget(&key(3).node_id());
        assert_eq!(presence.of(&key(3).node_id()), (false, None));
        assert!(presence.of(&key(1).node_id()).0);
    }

    #[test]
    fn the_wire_format_is_what_it_was() {
        let hex: String = beat(2, 1, 3, false).iter().map(|byte| format!("{byte:02x}")).collect();
        insta::assert_snapshot!("beat", hex);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = beat(2, 1, 1, false);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(presence().apply(&bytes, SECOND, |_| true).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(presence().apply(&bytes, SECOND, |_| true).is_err());
        }
    }
}
