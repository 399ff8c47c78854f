//! How much of something in a while.

use std::time::Duration;

use crate::Instant;

/// So many, each `every`, and `burst` of them at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    every: Duration,
    burst: u32,
}

impl Rate {
    /// On average `count` in `span`, and as many at once as come in `spans` of them.
    pub(crate) fn new(count: u32, span: Duration, spans: u32) -> Self {
        Self {
            every: span / count.max(1),
            burst: count.saturating_mul(spans).max(1),
        }
    }
}

/// What is left of a budget: until when what was taken keeps it busy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket(Instant);

impl Bucket {
    /// Takes `count`, where there is room for them; otherwise nothing.
    pub(crate) fn take(&mut self, count: u32, rate: Rate, now: Instant) -> bool {
        let busy = self.0.max(now).saturating_add(rate.every.saturating_mul(count));
        let is_free = busy.saturating_sub(now) <= rate.every.saturating_mul(rate.burst);
        if is_free {
            self.0 = busy;
        }
        is_free
    }

    /// Whether nothing is left of what was taken.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.0 <= now
    }

    /// When one more can be taken.
    pub(crate) fn free_at(&self, rate: Rate) -> Instant {
        self.0.saturating_sub(rate.every.saturating_mul(rate.burst - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_what_comes_at_its_rate() {
        let rate = Rate::new(10, Duration::from_secs(1), 2);
        let mut bucket = Bucket::default();
        let mut now = Duration::from_secs(100);
        let take = |bucket: &mut Bucket, now| (0..1000).filter(|_| bucket.take(1, rate, now)).count();
        assert_eq!(take(&mut bucket, now), 20);
        assert_eq!(bucket.free_at(rate), now + Duration::from_millis(100));
        let idle = now + Duration::from_secs(2);
        assert!(!bucket.is_idle(idle - Duration::from_millis(1)) && bucket.is_idle(idle));
        now += Duration::from_millis(350);
        assert_eq!(take(&mut bucket, now), 3);
        now += Duration::from_secs(60);
        assert!(!bucket.take(21, rate, now), "never more than a burst at once");
        assert_eq!(take(&mut bucket, now), 20);
    }
}
