//! An observed-remove set (OR-Set): a map of keys to values in which concurrent writes never conflict.
//!
//! Every write has a [`Dot`] of its own; the dots seen are the causal context, a [`Clock`]. There are no tombstones: what
//! the clock covers and the set does not hold was removed (Bieniusa et al., "An optimized conflict-free replicated set",
//! 2012). A removal is a write too, so that equal clocks mean equal sets. Of a concurrent add and remove the add stays;
//! values written concurrently under one key are all kept, and the one with the greatest dot is read.
//!
//! States are merged ([`OrSet::merge`]); changes travel as a [`Delta`], which is refused where something before it is
//! missing ([`Gap`]). Nothing here is signed: [`replica`](crate::replica) does that.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

pub use crate::clock::{Clock, Dot};
pub use crate::dots::Dots;

/// One value in a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<K, V> {
    /// Under which key.
    pub key: K,
    /// By which write.
    pub dot: Dot,
    /// The value.
    pub value: V,
}

/// What becomes of the entries that the receiver of a delta has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// All stay but these.
    Without(Dots),
    /// Of those that the delta's clock covers these stay; with none it is the whole set that is told.
    Only(Dots),
}

/// A change, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta<K, V> {
    /// What a set must have seen before.
    pub base: Clock,
    /// What is told.
    pub clock: Clock,
    /// What is new.
    pub added: Vec<Entry<K, V>>,
    /// What goes.
    pub rest: Rest,
}

/// A delta tells of what came after something that this set has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("something that came before the change is missing")]
pub struct Gap;

/// An incarnation has no number left for a write, or it is one of those that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the incarnation {0} can write nothing more")]
pub struct Spent(pub u64);

/// The set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrSet<K, V> {
    clock: Clock,
    /// Sorted by key and dot.
    entries: Vec<Entry<K, V>>,
}

impl<K, V> Default for OrSet<K, V> {
    fn default() -> Self {
        Self {
            clock: Clock::default(),
            entries: Vec::new(),
        }
    }
}

impl<K: Ord + Clone, V: Ord + Clone> OrSet<K, V> {
    /// A set of what was taken from one; `entries` are sorted by key and dot, and covered by `clock`.
    pub(crate) fn from_parts(clock: Clock, entries: Vec<Entry<K, V>>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| (&a.key, a.dot) < (&b.key, b.dot)));
        debug_assert!(entries.iter().all(|entry| clock.covers(entry.dot)));
        Self { clock, entries }
    }

    /// What it has seen.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Everything in it, by key and dot.
    #[must_use]
    pub fn entries(&self) -> &[Entry<K, V>] {
        &self.entries
    }

    pub(crate) fn into_entries(self) -> Vec<Entry<K, V>> {
        self.entries
    }

    /// The value that is read under a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        Some(&under(&self.entries, key).last()?.value)
    }

    /// Writes a value in the name of an incarnation. It takes the place of those that are there.
    ///
    /// # Errors
    /// [`Spent`] if that incarnation can write nothing more.
    pub fn add(&mut self, epoch: u64, key: K, value: V) -> Result<Delta<K, V>, Spent> {
        let dot = self.clock.next(epoch).ok_or(Spent(epoch))?;
        let gone = self.take(&key);
        let entry = Entry { key, dot, value };
        let place = self.entries.partition_point(|other| other.key < entry.key);
        self.entries.insert(place, entry.clone());
        Ok(self.wrote(dot, vec![entry], gone))
    }

    /// Removes what is under a key, in the name of an incarnation; `None` if there is nothing.
    ///
    /// # Errors
    /// [`Spent`] if that incarnation can write nothing more.
    pub fn remove(&mut self, epoch: u64, key: &K) -> Result<Option<Delta<K, V>>, Spent> {
        if under(&self.entries, key).is_empty() {
            return Ok(None);
        }
        let dot = self.clock.next(epoch).ok_or(Spent(epoch))?;
        let gone = self.take(key);
        Ok(Some(self.wrote(dot, Vec::new(), gone)))
    }

    /// Counts a write that changes nothing.
    ///
    /// # Errors
    /// [`Spent`] if that incarnation can write nothing more.
    pub(crate) fn touch(&mut self, epoch: u64) -> Result<Dot, Spent> {
        let dot = self.clock.next(epoch).ok_or(Spent(epoch))?;
        self.clock = self.clock.join(&Clock::up_to(dot));
        Ok(dot)
    }

    /// Bounds how many incarnations the clock tells apart.
    pub(crate) fn forget_incarnations_but(&mut self, most: usize) {
        self.clock.forget_all_but(most);
    }

    fn take(&mut self, key: &K) -> Dots {
        let gone = under(&self.entries, key).iter().map(|entry| entry.dot).collect();
        self.entries.retain(|entry| entry.key != *key);
        gone
    }

    fn wrote(&mut self, dot: Dot, added: Vec<Entry<K, V>>, gone: Dots) -> Delta<K, V> {
        self.clock = self.clock.join(&Clock::up_to(dot));
        Delta {
            base: Clock::up_to(Dot {
                sequence: dot.sequence - 1,
                ..dot
            }),
            clock: Clock::up_to(dot),
            added,
            rest: Rest::Without(gone),
        }
    }

    /// What a set with the clock `base` lacks.
    #[must_use]
    pub fn since(&self, base: &Clock) -> Delta<K, V> {
        let (kept, added): (Vec<_>, Vec<_>) = self.entries.iter().partition(|entry| base.covers(entry.dot));
        Delta {
            base: base.clone(),
            clock: self.clock.clone(),
            added: added.into_iter().cloned().collect(),
            rest: Rest::Only(kept.into_iter().map(|entry| entry.dot).collect()),
        }
    }

    /// Takes a delta; `false` if it told nothing new.
    ///
    /// # Errors
    /// [`Gap`] if something before it is missing; the set is as it was.
    pub fn apply(&mut self, delta: Delta<K, V>) -> Result<bool, Gap> {
        if self.clock.includes(&delta.clock) {
            return Ok(false);
        }
        let (Rest::Without(dots) | Rest::Only(dots)) = &delta.rest;
        let is_seen = |(first, last): &(Dot, u64)| *last <= self.clock.sequence(first.epoch);
        if !self.clock.includes(&delta.base) || !dots.runs().iter().all(is_seen) {
            return Err(Gap);
        }
        match &delta.rest {
            Rest::Without(gone) => self.entries.retain(|entry| !gone.contains(entry.dot)),
            Rest::Only(kept) => self.entries.retain(|entry| {
                let is_added = || delta.added.iter().any(|added| added.dot == entry.dot);
                !delta.clock.covers(entry.dot) || kept.contains(entry.dot) || is_added()
            }),
        }
        let news = delta.added.into_iter().filter(|entry| !self.clock.covers(entry.dot));
        self.entries.extend(news);
        self.entries.sort_by(|a, b| (&a.key, a.dot).cmp(&(&b.key, b.dot)));
        self.clock = self.clock.join(&delta.clock);
        Ok(true)
    }

    /// What is in both, and what one of them has that the other has not seen.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.entries.iter().peekable(), other.entries.iter().peekable());
        let mut entries = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => (&a.key, a.dot).cmp(&(&b.key, b.dot)),
            };
            let kept = match order {
                Ordering::Less => ours.next().filter(|entry| !other.clock.covers(entry.dot)),
                Ordering::Greater => theirs.next().filter(|entry| !self.clock.covers(entry.dot)),
                // One write has one value; where somebody lied, all agree on the greatest.
                Ordering::Equal => ours.next().max(theirs.next()),
            };
            entries.extend(kept.cloned());
        }
        Self {
            clock: self.clock.join(&other.clock),
            entries,
        }
    }
}

/// The entries under a key, of some that are sorted.
pub(crate) fn under<'a, K: Ord, V>(entries: &'a [Entry<K, V>], key: &K) -> &'a [Entry<K, V>] {
    let from = entries.partition_point(|entry| entry.key < *key);
    let behind = entries.get(from..).unwrap_or_default();
    let length = behind.partition_point(|entry| entry.key == *key);
    behind.get(..length).unwrap_or_default()
}
