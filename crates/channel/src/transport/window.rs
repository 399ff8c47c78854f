//! Which sequence numbers have been seen: exactly the next one, or each once within a window (RFC 6479's bitmap).

use super::OpenError;
use crate::context::Delivery;

/// How many frames back one may come late in [`Delivery::Window`].
pub const WINDOW_FRAMES: u64 = 1024;

/// One word more than the window needs, so that it is never shorter than promised.
const WORDS: usize = WINDOW_FRAMES as usize / 64 + 1;

/// The sequence numbers received in one direction.
#[derive(Clone, Debug)]
pub(super) enum Received {
    /// All below this one.
    Ordered(u64),
    Window(Window),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// One more than the highest seen.
    end: u64,
    /// Bit `n % 64` of word `n / 64 % WORDS` says whether `n` was seen.
    words: [u64; WORDS],
}

impl Received {
    pub(super) fn new(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Ordered => Self::Ordered(0),
            Delivery::Window => Self::Window(Window::default()),
        }
    }

    /// Whether a frame with this number may come now.
    pub(super) fn check(&self, sequence: u64) -> Result<(), OpenError> {
        match self {
            Self::Ordered(next) if sequence < *next => Err(OpenError::Repeated(sequence)),
            Self::Ordered(next) if sequence > *next => Err(OpenError::Missing {
                expected: *next,
                found: sequence,
            }),
            Self::Ordered(_) => Ok(()),
            Self::Window(window) => window.check(sequence),
        }
    }

    /// Marks the number of a frame that is authentic, and was checked.
    pub(super) fn mark(&mut self, sequence: u64) {
        match self {
            Self::Ordered(next) => *next = sequence.saturating_add(1),
            Self::Window(window) => window.mark(sequence),
        }
    }

    /// Whether no frame with a number below this can come any more.
    pub(super) fn is_past(&self, sequence: u64) -> bool {
        match self {
            Self::Ordered(next) => *next >= sequence,
            Self::Window(window) => window.end.saturating_sub(WINDOW_FRAMES) >= sequence,
        }
    }
}

impl Window {
    fn place(sequence: u64) -> (usize, u64) {
        ((sequence / 64) as usize % WORDS, 1 << (sequence % 64))
    }

    fn check(&self, sequence: u64) -> Result<(), OpenError> {
        // The last number of all is never used, so that `end` fits.
        if sequence == u64::MAX || sequence < self.end.saturating_sub(WINDOW_FRAMES) {
            return Err(OpenError::TooOld(sequence));
        }
        let (word, bit) = Self::place(sequence);
        let seen = sequence < self.end && self.words.get(word).is_some_and(|word| word & bit != 0);
        if seen {
            Err(OpenError::Repeated(sequence))
        } else {
            Ok(())
        }
    }

    fn mark(&mut self, sequence: u64) {
        if sequence >= self.end {
            // Words that begin anew: those behind the one of the highest so far, up to the one of this.
            let last = self.end.saturating_sub(1) / 64;
            let fresh = (sequence / 64).saturating_sub(last).min(WORDS as u64);
            for step in 1..=fresh {
                if let Some(word) = self.words.get_mut((last + step) as usize % WORDS) {
                    *word = 0;
                }
            }
            self.end = sequence + 1;
        }
        let (word, bit) = Self::place(sequence);
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same by remembering everything.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn takes(&mut self, sequence: u64) -> bool {
            let end = self.seen.last().map_or(0, |last| last + 1);
            sequence >= end.saturating_sub(WINDOW_FRAMES) && self.seen.insert(sequence)
        }
    }

    fn takes(received: &mut Received, sequence: u64) -> bool {
        let fits = received.check(sequence).is_ok();
        if fits {
            received.mark(sequence);
        }
        fits
    }

    #[test]
    fn a_stream_takes_exactly_the_next_number() {
        let mut received = Received::new(Delivery::Ordered);
        assert_eq!(received.check(1), Err(OpenError::Missing { expected: 0, found: 1 }));
        received.mark(0);
        assert_eq!(received.check(0), Err(OpenError::Repeated(0)));
        assert_eq!(received.check(1), Ok(()));
    }

    #[test]
    fn a_window_reaches_back_1024_numbers() {
        let mut received = Received::new(Delivery::Window);
        received.mark(2000);
        assert_eq!(received.check(976), Err(OpenError::TooOld(976)));
        assert_eq!(received.check(977), Ok(()));
        assert!(received.is_past(977) && !received.is_past(978));
        assert_eq!(received.check(2000), Err(OpenError::Repeated(2000)));
        assert_eq!(received.check(u64::MAX), Err(OpenError::TooOld(u64::MAX)));
        received.mark(u64::MAX - 1);
        assert_eq!(received.check(2001), Err(OpenError::TooOld(2001)));
    }

    proptest! {
        #[test]
        fn a_window_takes_each_number_once(
            steps in prop::collection::vec(prop_oneof![6 => -1100i64..80, 1 => 0i64..5000], 1..400)
        ) {
            let (mut received, mut model) = (Received::new(Delivery::Window), Model::default());
            for step in steps {
                let last = model.seen.last().copied().unwrap_or(0);
                let sequence = last.saturating_add_signed(step);
                prop_assert_eq!(takes(&mut received, sequence), model.takes(sequence), "{}", sequence);
            }
        }
    }
}
