//! How often somebody may ask: token buckets, of a bounded number of people.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use crate::config::Rate;

/// A bucket for each of those who ask. A full one is the same as none, so those are forgotten first.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    most: usize,
    buckets: HashMap<K, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// Buckets of `rate`, for at most `most` who ask.
    #[must_use]
    pub fn new(rate: Rate, most: usize) -> Self {
        Self {
            rate,
            most,
            buckets: HashMap::new(),
        }
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.rate.per_second).min(f64::from(self.rate.burst))
    }

    /// Whether somebody may ask now; if not, after how many seconds. Nothing is taken.
    ///
    /// # Errors
    /// The seconds.
    pub fn look(&self, key: &K, now: Instant) -> Result<(), u64> {
        let Some(bucket) = self.buckets.get(key) else {
            return Ok(());
        };
        let left = self.filled(*bucket, now);
        if left >= 1.0 {
            return Ok(());
        }
        let seconds = (1.0 - left) / self.rate.per_second.max(0.001);
        // At most 1000 s by the line above.
        Err(seconds.ceil().clamp(1.0, 1_000.0) as u64)
    }

    /// Takes one; if there is none, says after how many seconds.
    ///
    /// # Errors
    /// The seconds.
    pub fn take(&mut self, key: &K, now: Instant) -> Result<(), u64> {
        self.look(key, now)?;
        if self.buckets.len() >= self.most && !self.buckets.contains_key(key) {
            self.forget(now);
        }
        let full = Bucket {
            left: f64::from(self.rate.burst),
            at: now,
        };
        let bucket = self.buckets.get(key).copied().unwrap_or(full);
        let left = self.filled(bucket, now) - 1.0;
        self.buckets.insert(key.clone(), Bucket { left, at: now });
        Ok(())
    }

    /// Forgets those who have asked for nothing lately; where that is nobody, the half that has asked for the least: those
    /// who have asked too often go on waiting.
    fn forget(&mut self, now: Instant) {
        let burst = f64::from(self.rate.burst);
        let mut left: Vec<(K, f64)> = self
            .buckets
            .iter()
            .map(|(key, bucket)| (key.clone(), self.filled(*bucket, now)))
            .collect();
        left.sort_unstable_by(|(_, one), (_, other)| other.total_cmp(one));
        let full = left.partition_point(|(_, left)| *left >= burst);
        let gone = if full > 0 { full } else { left.len().div_ceil(2) };
        for (key, _) in left.into_iter().take(gone) {
            self.buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn buckets(most: usize) -> Buckets<u8> {
        let rate = Rate {
            burst: 2,
            per_second: 0.5,
        };
        Buckets::new(rate, most)
    }

    #[test]
    fn who_asks_too_often_is_told_when_to_come_back() {
        let (mut buckets, start) = (buckets(10), Instant::now());
        assert_eq!(buckets.take(&1, start), Ok(()));
        assert_eq!(buckets.take(&1, start), Ok(()));
        assert_eq!(buckets.take(&1, start), Err(2));
        assert_eq!(buckets.take(&2, start), Ok(()));
        assert_eq!(buckets.take(&1, start + Duration::from_secs(1)), Err(1));
        assert_eq!(buckets.take(&1, start + Duration::from_secs(2)), Ok(()));
        assert_eq!(buckets.look(&1, start + Duration::from_secs(2)), Err(2));
    }

    #[test]
    fn who_asked_too_often_waits_also_when_there_is_no_room_for_others() {
        let (mut buckets, start) = (buckets(10), Instant::now());
        assert_eq!(buckets.take(&0, start), Ok(()));
        assert_eq!(buckets.take(&0, start), Ok(()));
        for who in 1..=200 {
            assert_eq!(buckets.take(&who, start), Ok(()));
            assert!(buckets.take(&0, start).is_err());
        }
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (mut buckets, start) = (buckets(100), Instant::now());
        for who in 0..=255 {
            assert_eq!(buckets.take(&who, start), Ok(()));
            assert!(buckets.buckets.len() <= 100);
        }
    }
}
