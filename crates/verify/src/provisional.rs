//! What was taken unchecked and may have to be done again: the latest results of each worker, for a day.
//!
//! When a worker is found wrong, all of them are in doubt, also those from before a check that agreed: that check says of its
//! own result alone, and who cheats now and then agrees most of the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dawn_identity::{NodeId, UnixTime};

use crate::ResultId;

/// So many results of one worker stay in doubt.
pub const DOUBTED: usize = 64;
/// So long.
const FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The results in doubt, by worker.
#[derive(Clone, Debug, Default)]
pub struct Provisional(BTreeMap<NodeId, VecDeque<(ResultId, UnixTime)>>);

impl Provisional {
    /// A result was taken unchecked.
    pub fn took(&mut self, worker: NodeId, result: ResultId, now: UnixTime) {
        let kept = self.0.entry(worker).or_default();
        kept.push_back((result, now));
        if kept.len() > DOUBTED {
            kept.pop_front();
        }
    }

    /// Lets go what is older than a day.
    pub fn keep(&mut self, now: UnixTime) {
        self.0.retain(|_, kept| {
            kept.retain(|(_, at)| now < *at + FOR);
            !kept.is_empty()
        });
    }

    /// The worker is wrong: what is to be done again elsewhere, the oldest first. It is not in doubt any more.
    pub fn wrong(&mut self, worker: &NodeId, now: UnixTime) -> Vec<ResultId> {
        self.keep(now);
        let kept = self.0.remove(worker).unwrap_or_default();
        kept.into_iter().map(|(result, _)| result).collect()
    }
}
