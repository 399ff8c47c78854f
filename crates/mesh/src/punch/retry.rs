//! When a hole is tried again: after growing pauses, and at once when the network has changed, or there is a new way to
//! agree on it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::swarm::ConnectionId;

use crate::backoff::Backoff;

/// Tries with one peer within a minute, whoever begins them: one that asks for more leaves some for others.
const EACH: usize = 8;
/// Peers of which failures are remembered.
const PEERS: usize = 1024;

/// What became of the tries with each peer.
#[derive(Debug)]
pub(super) struct Retries {
    pauses: Backoff,
    peers: HashMap<NodeId, Peer>,
    /// The connections of those that relays alone lead to, as they were seen last.
    relayed: HashMap<NodeId, Vec<ConnectionId>>,
    /// Tries begun within the last minute, in all.
    recent: Vec<(Instant, NodeId)>,
    most: usize,
}

#[derive(Debug)]
struct Peer {
    failures: u32,
    next: Instant,
}

impl Retries {
    /// With these pauses after failures, and so many tries a minute in all.
    pub(super) fn new(pauses: Backoff, most: usize) -> Self {
        Self {
            pauses,
            peers: HashMap::new(),
            relayed: HashMap::new(),
            recent: Vec::new(),
            most,
        }
    }

    /// Whether a try with a peer may begin now.
    pub(super) fn is_due(&self, peer: NodeId, now: Instant) -> bool {
        self.peers.get(&peer).is_none_or(|known| known.next <= now)
    }

    /// How many tries with a peer have failed since one succeeded, or the network changed.
    pub(super) fn failures(&self, peer: NodeId) -> u32 {
        self.peers.get(&peer).map_or(0, |known| known.failures)
    }

    /// Takes one of the tries of this minute; `false` when there is none left, or none with this peer.
    pub(super) fn begin(&mut self, peer: NodeId, now: Instant) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        self.recent
            .retain(|(begun, _)| now.saturating_duration_since(*begun) < MINUTE);
        let its = self.recent.iter().filter(|(_, with)| *with == peer).count();
        let has_room = self.recent.len() < self.most && its < EACH;
        if has_room {
            self.recent.push((now, peer));
        }
        has_room
    }

    /// A try did not succeed; the next is after a pause, which is longer each time. `random` is in [0, 1).
    pub(super) fn failed(&mut self, peer: NodeId, now: Instant, random: f64) {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, known| known.next > now);
        }
        let known = self.peers.entry(peer).or_insert(Peer { failures: 0, next: now });
        known.next = now + self.pauses.delay(known.failures, random);
        known.failures = known.failures.saturating_add(1);
    }

    /// One succeeded.
    pub(super) fn succeeded(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// Takes note of the connections of those that relays alone lead to. A new one is another way to agree on a hole: a relay
    /// has come, or was started again.
    pub(super) fn reached(&mut self, relayed: HashMap<NodeId, Vec<ConnectionId>>) {
        for (peer, connections) in &relayed {
            let before = self.relayed.get(peer).map(Vec::as_slice).unwrap_or_default();
            if connections.iter().any(|connection| !before.contains(connection)) {
                self.peers.remove(peer);
            }
        }
        self.relayed = relayed;
    }

    /// The network has changed, the machine was asleep, or what is known of its NAT is new: what failed may succeed.
    pub(super) fn forget(&mut self) {
        self.peers.clear();
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    fn retries(most: usize) -> Retries {
        let pauses = Backoff {
            first: Duration::from_secs(8),
            max: Duration::from_secs(600),
        };
        Retries::new(pauses, most)
    }

    #[test]
    fn pauses_grow_with_failures_and_end_when_the_network_changes() {
        let peer = Keypair::from_seed([1; 32]).node_id();
        let (mut retries, now) = (retries(9), Instant::now());
        assert!(retries.is_due(peer, now));
        let mut last = Duration::ZERO;
        for failed in 0..12 {
            assert_eq!(retries.failures(peer), failed);
            retries.failed(peer, now, 1.0);
            let pause = retries.peers[&peer].next - now;
            assert!(pause >= last && pause <= Duration::from_secs(600));
            assert!(!retries.is_due(peer, now) && retries.is_due(peer, now + pause));
            last = pause;
        }
        assert_eq!(last, Duration::from_secs(600));
        retries.forget();
        assert!(retries.is_due(peer, now) && retries.failures(peer) == 0);
        retries.failed(peer, now, 1.0);
        retries.succeeded(peer);
        assert!(retries.is_due(peer, now));
    }

    #[test]
    fn a_pause_ends_when_a_relay_leads_to_the_peer_anew() {
        let [peer, other] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]).node_id());
        let (mut retries, now) = (retries(9), Instant::now());
        let over = |ids: &[usize]| {
            let ids = ids.iter().map(|id| ConnectionId::new_unchecked(*id));
            HashMap::from([(peer, ids.collect())])
        };
        retries.reached(over(&[1]));
        for failed in [peer, other] {
            retries.failed(failed, now, 1.0);
        }
        for same in [&[1][..], &[]] {
            retries.reached(over(same));
            assert!(!retries.is_due(peer, now));
        }
        retries.reached(over(&[2]));
        assert!(retries.is_due(peer, now) && !retries.is_due(other, now));
        retries.failed(peer, now, 1.0);
        retries.reached(HashMap::new());
        assert!(!retries.is_due(peer, now));
        retries.reached(over(&[3]));
        assert!(retries.is_due(peer, now));
    }

    #[test]
    fn there_are_only_so_many_tries_a_minute() {
        let [one, other] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]).node_id());
        let (mut few, now) = (retries(2), Instant::now());
        assert!(few.begin(one, now) && few.begin(one, now) && !few.begin(one, now));
        assert!(!few.begin(other, now + Duration::from_secs(59)));
        assert!(few.begin(other, now + Duration::from_secs(61)));
        // Who asks as often as it can leaves some for others.
        let mut many = retries(30);
        assert_eq!((0..30).filter(|_| many.begin(one, now)).count(), EACH);
        assert!(many.begin(other, now) && many.begin(one, now + Duration::from_secs(61)));
    }
}
