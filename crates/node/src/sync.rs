//! What tasks share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after somebody panicked with the lock held.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often what has happened, by name.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    /// It happened once more.
    pub(crate) fn count(&self, what: &'static str) {
        *lock(&self.0).entry(what).or_default() += 1;
    }

    /// All that has happened, by name.
    pub(crate) fn all(&self) -> Vec<(&'static str, u64)> {
        lock(&self.0).iter().map(|(what, count)| (*what, *count)).collect()
    }
}
