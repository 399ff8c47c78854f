//! How many questions of strangers are answered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Answers a second, and at once after a pause, in all.
const ALL: (f64, f64) = (200.0, 400.0);
/// The same to one address.
const EACH: (f64, f64) = (10.0, 20.0);
/// Addresses that are told apart.
const ADDRESSES: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new((_, most): (f64, f64), now: Instant) -> Self {
        Self { left: most, at: now }
    }

    fn fill(&mut self, (rate, most): (f64, f64), now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * rate).min(most);
        self.at = now;
    }
}

/// Token buckets for all and for each address.
#[derive(Debug)]
pub(super) struct Limiter {
    all: Bucket,
    each: HashMap<IpAddr, Bucket>,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::new(ALL, now),
            each: HashMap::new(),
        }
    }

    /// Whether a question from there is answered now.
    pub(super) fn take(&mut self, from: IpAddr, now: Instant) -> bool {
        self.all.fill(ALL, now);
        if self.all.left < 1.0 {
            return false;
        }
        if !self.each.contains_key(&from) && self.each.len() >= ADDRESSES {
            // Who has not asked for a while is as one that never has.
            self.each.retain(|_, bucket| {
                bucket.fill(EACH, now);
                bucket.left < EACH.1
            });
            if self.each.len() >= ADDRESSES {
                return false;
            }
        }
        let bucket = self.each.entry(from).or_insert_with(|| Bucket::new(EACH, now));
        bucket.fill(EACH, now);
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        self.all.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(at: u32) -> IpAddr {
        IpAddr::from(at.to_be_bytes())
    }

    #[test]
    fn one_address_has_its_share_and_more_after_a_while() {
        let now = Instant::now();
        let mut limiter = Limiter::new(now);
        let taken = (0..100).filter(|_| limiter.take(ip(1), now)).count();
        assert_eq!(taken, 20);
        assert!(limiter.take(ip(2), now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| limiter.take(ip(1), later)).count(), 10);
    }

    #[test]
    fn many_addresses_have_a_share_together_and_are_forgotten() {
        let now = Instant::now();
        let mut limiter = Limiter::new(now);
        assert_eq!((0..5000).filter(|at| limiter.take(ip(*at), now)).count(), 400);
        for second in 1..60 {
            let later = now + Duration::from_secs(second);
            assert!((0..5000).filter(|at| limiter.take(ip(*at), later)).count() > 0);
            assert!(limiter.each.len() <= ADDRESSES);
        }
    }
}
