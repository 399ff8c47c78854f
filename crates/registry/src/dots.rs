//! Sets of writes, in which most follow each other.

use crate::clock::Dot;

/// Some dots in runs of such as follow each other, of each the first and the last sequence: a delta that keeps a hundred
/// entries names two or three runs, and each of the hundred is looked for among those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dots(Vec<(Dot, u64)>);

impl Dots {
    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= dot);
        let run = behind.checked_sub(1).and_then(|place| self.0.get(place));
        run.is_some_and(|(first, last)| first.epoch == dot.epoch && dot.sequence <= *last)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a run; `false` if it is none, or does not begin behind the end of the last one, with one between them.
    pub(crate) fn push(&mut self, first: Dot, last: u64) -> bool {
        let is_behind =
            |(before, end): &(Dot, u64)| (before.epoch, end.saturating_add(1)) < (first.epoch, first.sequence);
        let fits = first.sequence <= last && self.0.last().is_none_or(is_behind);
        if fits {
            self.0.push((first, last));
        }
        fits
    }

    /// The runs: the first dot and the last sequence of each.
    pub(crate) fn runs(&self) -> &[(Dot, u64)] {
        &self.0
    }
}

impl FromIterator<Dot> for Dots {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut dots: Vec<Dot> = dots.into_iter().collect();
        dots.sort_unstable();
        dots.dedup();
        let follows = |a: &Dot, b: &Dot| a.epoch == b.epoch && a.sequence.checked_add(1) == Some(b.sequence);
        let runs = dots.chunk_by(follows);
        Self(
            runs.filter_map(|run| Some((*run.first()?, run.last()?.sequence)))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_in_runs_is_what_was_put_in(few in prop::collection::btree_set((0..3u64, 1..20u64), 0..30)) {
            let dot = |(epoch, sequence)| Dot { epoch, sequence };
            let dots: Dots = few.iter().copied().map(dot).collect();
            for one in (0..4).flat_map(|epoch| (0..22).map(move |sequence| (epoch, sequence))) {
                prop_assert_eq!(dots.contains(dot(one)), few.contains(&one));
            }
            prop_assert_eq!(dots.is_empty(), few.is_empty());
            let mut again = Dots::default();
            for (first, last) in dots.runs() {
                prop_assert!(again.push(*first, *last));
                let next = Dot { sequence: last + 1, ..*first };
                prop_assert!(!again.push(*first, *last) && !again.push(next, last + 1));
            }
            prop_assert_eq!(again, dots);
        }
    }
}
