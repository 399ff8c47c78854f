//! How long to wait before the next try.

use std::time::Duration;

/// Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub first: Duration,
    /// Upper bound of every delay.
    pub max: Duration,
}

impl Backoff {
    /// The delay before try number `attempt` (from 0), given a random number in [0, 1).
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let bound = self
            .first
            .saturating_mul(1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX))
            .min(self.max);
        // Never under a tenth, so that a run of small numbers does not make a stampede.
        bound.mul_f64(0.1 + 0.9 * random.clamp(0.0, 1.0))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            max: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_grow_up_to_their_bound_and_never_beyond(attempt in 0u32..1000, random in 0.0f64..1.0) {
            let backoff = Backoff::default();
            let delay = backoff.delay(attempt, random);
            prop_assert!(delay <= backoff.max);
            prop_assert!(delay >= backoff.first / 10);
            prop_assert!(backoff.delay(attempt + 1, random) >= delay);
        }
    }
}
