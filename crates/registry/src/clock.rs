//! Vector clocks: what somebody has seen of the writes of one owner, incarnation by incarnation.

use std::cmp::Ordering;

use smallvec::{SmallVec, smallvec};

/// One write: which incarnation made it, and which of its writes it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The incarnation: one start of the owner. Later ones have greater epochs.
    pub epoch: u64,
    /// Which write of that incarnation, from 1 on.
    pub sequence: u64,
}

/// A set of writes without gaps: of each incarnation the first ones up to some sequence, and everything of all
/// incarnations below the floor. The set of all clocks is a lattice under [`join`](Clock::join).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Clock {
    /// Whatever has a smaller epoch is covered.
    floor: u64,
    /// The last write of each incarnation from the floor on; ascending epochs, sequences from 1 on.
    last: Last,
}

/// Mostly it is one, which stands where the clock does, not somewhere else in memory.
pub(crate) type Last = SmallVec<[Dot; 1]>;

impl Clock {
    /// A clock of its parts, or `None` if they are none: epochs must ascend from the floor on, sequences begin at 1.
    #[must_use]
    pub fn from_parts(floor: u64, last: impl IntoIterator<Item = Dot>) -> Option<Self> {
        let last: Last = last.into_iter().collect();
        let ascends = last.windows(2).all(|pair| matches!(pair, [a, b] if a.epoch < b.epoch));
        let valid = ascends && last.iter().all(|dot| dot.epoch >= floor && dot.sequence > 0);
        valid.then_some(Self { floor, last })
    }

    /// The clock that covers one incarnation up to `dot`.
    #[must_use]
    pub fn up_to(dot: Dot) -> Self {
        let last = if dot.sequence == 0 { smallvec![] } else { smallvec![dot] };
        Self { floor: 0, last }
    }

    /// Below this epoch everything is covered.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The last write of each incarnation from the floor on, by ascending epoch.
    #[must_use]
    pub fn last(&self) -> &[Dot] {
        &self.last
    }

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.floor == 0 && self.last.is_empty()
    }

    /// How many writes of an incarnation are covered; all of them below the floor.
    #[must_use]
    pub fn sequence(&self, epoch: u64) -> u64 {
        if epoch < self.floor {
            return u64::MAX;
        }
        let place = self.last.binary_search_by_key(&epoch, |dot| dot.epoch);
        place
            .ok()
            .and_then(|place| self.last.get(place))
            .map_or(0, |dot| dot.sequence)
    }

    /// Whether this write was seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        dot.sequence <= self.sequence(dot.epoch)
    }

    /// Whether everything that `other` covers is covered.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        self.floor >= other.floor && other.last.iter().all(|dot| self.covers(*dot))
    }

    /// The next write of an incarnation; `None` if it can make none, being below the floor or at the last number.
    #[must_use]
    pub fn next(&self, epoch: u64) -> Option<Dot> {
        let sequence = self.sequence(epoch).checked_add(1)?;
        Some(Dot { epoch, sequence })
    }

    /// What either covers.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let floor = self.floor.max(other.floor);
        let mut last: Last = self.last.iter().chain(&other.last).copied().collect();
        last.retain(|dot| dot.epoch >= floor);
        // The greatest sequence of each epoch comes first.
        last.sort_unstable_by_key(|dot| (dot.epoch, u64::MAX - dot.sequence));
        last.dedup_by_key(|dot| dot.epoch);
        Self { floor, last }
    }

    /// Keeps the newest `most` incarnations, at least one, and puts those before them below the floor.
    pub fn forget_all_but(&mut self, most: usize) {
        let surplus = self.last.len().saturating_sub(most.max(1));
        if let Some(dot) = surplus.checked_sub(1).and_then(|place| self.last.get(place)) {
            self.floor = dot.epoch.saturating_add(1);
            self.last.drain(..surplus);
        }
    }

    /// A total order that agrees with [`includes`](Self::includes): a clock that covers more is greater, and of two that
    /// are concurrent the one with the newer incarnation.
    #[must_use]
    pub fn recency(&self, other: &Self) -> Ordering {
        let newest_first = |clock: &Self| {
            let below = clock.floor.checked_sub(1).map(|epoch| Dot {
                epoch,
                sequence: u64::MAX,
            });
            clock.last.iter().rev().copied().chain(below).collect::<Vec<_>>()
        };
        newest_first(self).cmp(&newest_first(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dot() -> impl Strategy<Value = Dot> {
        (0..6u64, 1..5u64).prop_map(|(epoch, sequence)| Dot { epoch, sequence })
    }

    fn clock() -> impl Strategy<Value = Clock> {
        let last = prop::collection::btree_map(0..6u64, 1..5u64, 0..5);
        (0..4u64, last).prop_map(|(floor, last)| {
            let dots = last.into_iter().filter(|(epoch, _)| *epoch >= floor);
            let dots = dots.map(|(epoch, sequence)| Dot { epoch, sequence });
            Clock::from_parts(floor, dots).unwrap()
        })
    }

    proptest! {
        #[test]
        fn clocks_are_a_lattice(a in clock(), b in clock(), c in clock(), dot in dot()) {
            prop_assert_eq!(a.join(&b), b.join(&a));
            prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
            prop_assert_eq!(&a.join(&a), &a);
            prop_assert_eq!(a.join(&b).covers(dot), a.covers(dot) || b.covers(dot));
            prop_assert_eq!(a.includes(&b), a.join(&b) == a);
        }

        #[test]
        fn recency_orders_all_clocks_and_agrees_with_what_they_cover(a in clock(), b in clock(), c in clock()) {
            prop_assert_eq!(a.recency(&b), b.recency(&a).reverse());
            prop_assert_eq!(a.recency(&b) == Ordering::Equal, a == b);
            if a.includes(&b) && a != b {
                prop_assert_eq!(a.recency(&b), Ordering::Greater);
            }
            if a.recency(&b).is_lt() && b.recency(&c).is_lt() {
                prop_assert!(a.recency(&c).is_lt());
            }
        }

        #[test]
        fn forgetting_covers_no_less_and_bounds_what_is_told_apart(a in clock(), most in 0..4usize) {
            let mut forgetful = a.clone();
            forgetful.forget_all_but(most);
            prop_assert!(forgetful.includes(&a));
            prop_assert!(forgetful.last().len() <= most.max(1));
            prop_assert_eq!(forgetful.last().last(), a.last().last());
        }
    }

    #[test]
    fn a_clock_of_wrong_parts_is_none() {
        let dot = |epoch, sequence| Dot { epoch, sequence };
        assert!(Clock::from_parts(0, vec![dot(1, 1), dot(1, 2)]).is_none());
        assert!(Clock::from_parts(0, vec![dot(2, 1), dot(1, 1)]).is_none());
        assert!(Clock::from_parts(0, vec![dot(1, 0)]).is_none());
        assert!(Clock::from_parts(3, vec![dot(2, 1)]).is_none());
        assert!(Clock::from_parts(3, vec![dot(3, u64::MAX)]).is_some());
    }

    #[test]
    fn an_incarnation_at_its_last_number_or_below_the_floor_writes_nothing_more() {
        let full = Dot {
            epoch: 4,
            sequence: u64::MAX,
        };
        let clock = Clock::from_parts(3, vec![full]).unwrap();
        assert_eq!(clock.next(4), None);
        assert_eq!(clock.next(2), None);
        assert_eq!(clock.next(5), Some(Dot { epoch: 5, sequence: 1 }));
    }
}
