//! Whom the revocations were told lately: connections come and go, and the set is the same for a long time.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_identity::NodeId;

/// After how long a member is told again: what was sent may have been lost with its connection.
const AGAIN: Duration = Duration::from_secs(600);
/// What a connection carried that ended sooner may not have come.
const SOON: Duration = Duration::from_secs(10);
/// Members that are remembered; of more, those told longest ago are told again.
const MOST: usize = 4096;

/// Who was told which set, and when.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<NodeId, (u64, Instant)>);

impl Told {
    /// Whether a member is to be told these now; it counts as told then.
    pub(super) fn is_news(&mut self, node: NodeId, revocations: &[Bytes], now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        revocations.hash(&mut hasher);
        let set = hasher.finish();
        self.0.retain(|_, (_, at)| now.saturating_duration_since(*at) < AGAIN);
        if self.0.get(&node).is_some_and(|(told, _)| *told == set) {
            return false;
        }
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (_, at))| *at).map(|(node, _)| *node)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(node, (set, now));
        true
    }

    /// The connection with a member has ended.
    pub(super) fn has_gone(&mut self, node: &NodeId, now: Instant) {
        let told = self.0.get(node);
        if told.is_some_and(|(_, at)| now.saturating_duration_since(*at) < SOON) {
            self.0.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    #[test]
    fn a_member_is_told_once_until_the_set_changes_or_some_time_has_passed() {
        let node = |seed| Keypair::from_seed([seed; 32]).node_id();
        let (one, two) = (
            vec![Bytes::from_static(b"1")],
            vec![Bytes::from_static(b"2"), Bytes::from_static(b"1")],
        );
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(told.is_news(node(1), &one, now));
        assert!(!told.is_news(node(1), &one, now + AGAIN / 2));
        assert!(told.is_news(node(2), &one, now + AGAIN / 2));
        assert!(told.is_news(node(1), &two, now + AGAIN / 2));
        assert!(!told.is_news(node(1), &two, now + AGAIN));
        assert!(told.is_news(node(1), &two, now + AGAIN * 2));
        told.has_gone(&node(1), now + AGAIN * 2 + SOON);
        assert!(!told.is_news(node(1), &two, now + AGAIN * 2 + SOON));
        told.has_gone(&node(1), now + AGAIN * 2);
        assert!(
            told.is_news(node(1), &two, now + AGAIN * 2 + SOON),
            "it may not have come"
        );
    }
}
