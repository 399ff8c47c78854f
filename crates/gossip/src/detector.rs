//! Whether a link lives: the φ accrual failure detector (Hayashibara, Défago, Yared, Katayama, 2004).
//!
//! φ is the negative decimal logarithm of the probability that a message still comes after so long a silence, if the times
//! between messages were distributed normally. The end of an idle link sends a ping each `ping`, so only the times before
//! pings are taken as samples; anything else shows that it lives, but nothing about how long its silences are.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Config, Instant};

/// Samples that are kept.
const SAMPLES: usize = 32;
/// Samples that the expectation counts for.
const PRIOR: f64 = 4.0;

/// Watches one link.
#[derive(Debug)]
pub(crate) struct Detector {
    heard: Instant,
    samples: VecDeque<f64>,
    /// Expected time between messages, seconds.
    expected: f64,
    /// How many standard deviations φ reaches its threshold at.
    deviations: f64,
    /// The longest silence that is taken for life.
    longest: Duration,
    /// The present one.
    patience: Duration,
}

impl Detector {
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        let mut detector = Self {
            heard: now,
            samples: VecDeque::with_capacity(SAMPLES),
            expected: config.ping.as_secs_f64(),
            deviations: deviations(config.threshold),
            longest: config.silence,
            patience: config.silence,
        };
        detector.learn();
        detector
    }

    /// Something came; `after_silence`: a ping, which its end sends when it had nothing else to send.
    pub(crate) fn heard(&mut self, after_silence: bool, now: Instant) {
        if after_silence {
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(now.saturating_sub(self.heard).as_secs_f64());
            self.learn();
        }
        self.heard = now;
    }

    /// This node was asleep: the silence was its own.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Mean and standard deviation of the silences of this link, seconds.
    fn silences(&self) -> (f64, f64) {
        /// Part of the expectation that deviations are, before any is known, and at least.
        const AT_FIRST: f64 = 0.2;
        const LEAST: f64 = 0.1;
        #[expect(clippy::cast_precision_loss, reason = "there are few samples")]
        let count = self.samples.len() as f64 + PRIOR;
        let mean = (self.samples.iter().sum::<f64>() + PRIOR * self.expected) / count;
        let square = |silence: &f64| (silence - mean).powi(2);
        let at_first = (AT_FIRST * self.expected).powi(2) + square(&self.expected);
        let variance = (self.samples.iter().map(square).sum::<f64>() + PRIOR * at_first) / count;
        (mean, variance.sqrt().max(LEAST * self.expected))
    }

    fn learn(&mut self) {
        let (mean, deviation) = self.silences();
        let patience = Duration::try_from_secs_f64(mean + self.deviations * deviation);
        self.patience = patience.unwrap_or(self.longest).min(self.longest);
    }

    /// When the link counts as silent, unless something comes.
    pub(crate) fn silent_at(&self) -> Instant {
        self.heard + self.patience
    }

    #[cfg(test)]
    fn is_silent(&self, now: Instant) -> bool {
        now >= self.silent_at()
    }

    /// How doubtful it is that the link lives.
    #[cfg(test)]
    fn phi(&self, now: Instant) -> f64 {
        let (mean, deviation) = self.silences();
        let silence = now.saturating_sub(self.heard).as_secs_f64();
        phi((silence - mean) / deviation)
    }
}

/// −ln(p / (1 − p)) of the probability p that a normally distributed value is more than so many standard deviations above
/// its mean, by the logistic approximation that is common in detectors of this kind.
fn odds(deviations: f64) -> f64 {
    deviations * (1.5976 + 0.070_566 * deviations * deviations)
}

#[cfg(test)]
fn phi(deviations: f64) -> f64 {
    (1.0 + odds(deviations).exp()).log10()
}

/// How many standard deviations φ reaches `threshold` at.
fn deviations(threshold: f64) -> f64 {
    // Where p is 10^−φ, p / (1 − p) is 1 / (10^φ − 1).
    let odds_at_threshold = (10f64.powf(threshold.clamp(0.5, 100.0)) - 1.0).ln();
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if odds(middle) < odds_at_threshold {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A link whose pings take `delays` milliseconds more or less, in turn.
    fn watched(delays: &[i64]) -> (Detector, Instant) {
        let mut detector = Detector::new(&Config::default(), SECOND);
        let mut now = SECOND;
        for delay in delays.iter().cycle().take(100) {
            now += Duration::from_millis(u64::try_from(5000 + delay).unwrap());
            assert!(!detector.is_silent(now), "{delay} {now:?}");
            detector.heard(true, now);
        }
        (detector, now)
    }

    #[test]
    fn silence_counts_as_such_when_phi_reaches_the_threshold() {
        for (detector, now) in [watched(&[0]), watched(&[-600, 600, 0, 100])] {
            let at = detector.silent_at();
            assert!((detector.phi(at) - 8.0).abs() < 0.01, "{}", detector.phi(at));
            assert!(detector.phi(now + 5 * SECOND) < 1.0);
            assert!(!detector.is_silent(at - Duration::from_millis(1)) && detector.is_silent(at));
        }
    }

    #[test]
    fn an_irregular_link_is_given_more_time_and_none_is_given_more_than_the_longest() {
        let patience = |(detector, now): (Detector, Instant)| detector.silent_at() - now;
        let regular = patience(watched(&[5, -5]));
        let irregular = patience(watched(&[1500, -1500]));
        assert!(regular < 8 * SECOND, "{regular:?}");
        assert!(irregular > 11 * SECOND && irregular < 16 * SECOND, "{irregular:?}");
        // Who answers slower and slower to be taken for living is not, in the end.
        let mut detector = Detector::new(&Config::default(), SECOND);
        let mut now = SECOND;
        for _ in 0..1000 {
            now = detector.silent_at() - Duration::from_millis(1);
            detector.heard(true, now);
        }
        assert_eq!(detector.silent_at() - now, Config::default().silence);
    }

    #[test]
    fn other_messages_show_life_and_are_no_samples() {
        let (mut detector, mut now) = watched(&[0]);
        let before = detector.silent_at() - now;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            detector.heard(false, now);
        }
        assert_eq!(detector.silent_at() - now, before);
    }
}
