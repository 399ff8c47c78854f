//! What one holder of a quota has used: bytes in a period, bytes a second.

use std::time::{Duration, Instant};

/// Bytes a second: what is not used is saved for a second, what is used ahead of time is paid back by waiting.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    bytes: f64,
    at: Instant,
}

/// The bytes of a token, a peer, a circuit, or all.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    bucket: Option<Bucket>,
    used: u64,
    since: Instant,
}

impl Account {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            bucket: None,
            used: 0,
            since: now,
        }
    }

    /// Begins anew where the period is over.
    pub(crate) fn turn(&mut self, period: Duration, now: Instant) {
        if now.saturating_duration_since(self.since) >= period {
            self.used = 0;
            self.since = now;
        }
    }

    /// How many bytes are left of a quota.
    pub(crate) fn left(&self, quota: Option<u64>) -> u64 {
        quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.used))
    }

    /// How many bytes were used in the period.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Whether what was used says nothing any more.
    pub(crate) fn is_idle(&self, period: Duration, now: Instant) -> bool {
        self.used == 0 || now.saturating_duration_since(self.since) >= period
    }

    /// Takes bytes, and says how long to wait before the next ones.
    pub(crate) fn take(&mut self, bytes: u64, rate: Option<u64>, now: Instant) -> Duration {
        self.used = self.used.saturating_add(bytes);
        let Some(rate) = rate else {
            self.bucket = None;
            return Duration::ZERO;
        };
        let rate = rate.max(1) as f64;
        let bucket = self.bucket.get_or_insert(Bucket { bytes: rate, at: now });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.at = bucket.at.max(now);
        bucket.bytes = (bucket.bytes + since * rate).min(rate) - bytes as f64;
        Duration::from_secs_f64((-bucket.bytes / rate).clamp(0.0, 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_more_is_carried_than_the_rate_allows(pieces in prop::collection::vec(1u64..100_000, 1..50), rate in 1_000u64..1_000_000) {
            let begun = Instant::now();
            let (mut account, mut now, mut carried) = (Account::new(begun), begun, 0);
            for piece in pieces {
                let wait = account.take(piece, Some(rate), now);
                carried += piece;
                now += wait;
                // A second's worth was saved.
                let allowed = rate as f64 * (1.0 + now.duration_since(begun).as_secs_f64()) + 1.0;
                prop_assert!(carried as f64 <= allowed, "{carried} of {allowed}");
            }
        }

        #[test]
        fn what_was_used_counts_until_the_period_is_over(pieces in prop::collection::vec(0u64..1000, 0..20), quota in 0u64..10_000) {
            let now = Instant::now();
            let mut account = Account::new(now);
            for piece in &pieces {
                account.take(*piece, None, now);
            }
            let used: u64 = pieces.iter().sum();
            prop_assert_eq!(account.left(Some(quota)), quota.saturating_sub(used));
            let period = Duration::from_secs(60);
            account.turn(period, now + period - Duration::from_millis(1));
            prop_assert_eq!(account.left(Some(quota)), quota.saturating_sub(used));
            account.turn(period, now + period);
            prop_assert_eq!(account.left(Some(quota)), quota);
        }
    }
}
