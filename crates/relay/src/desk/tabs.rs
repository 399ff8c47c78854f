//! What is counted for each holder and each peer, kept up so that nothing is ever counted anew.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use dawn_identity::RelayQuota;

use crate::account::Account;

/// What one holder, or one peer, has and has used.
#[derive(Debug)]
pub(super) struct Tab {
    pub(super) account: Account,
    /// What its token says.
    pub(super) quota: RelayQuota,
    pub(super) reservations: usize,
    /// Circuits that lead to it.
    pub(super) circuits: usize,
    /// Of these, those whose sources have shown nothing.
    pub(super) strangers: usize,
    /// Circuits that it asked for.
    pub(super) asked: usize,
}

impl Tab {
    fn new(now: Instant) -> Self {
        Self {
            account: Account::new(now),
            quota: RelayQuota::default(),
            reservations: 0,
            circuits: 0,
            strangers: 0,
            asked: 0,
        }
    }

    /// Whether it has anything now.
    fn is_in_use(&self) -> bool {
        self.reservations + self.circuits + self.asked > 0
    }
}

/// The tabs of all holders, or of all peers.
#[derive(Debug)]
pub(super) struct Tabs<K>(HashMap<K, Tab>);

impl<K: Clone + Eq + Hash> Tabs<K> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(super) fn get(&self, key: &K) -> Option<&Tab> {
        self.0.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut Tab> {
        self.0.get_mut(key)
    }

    /// That of a key, new where there is none. There are never more than `most` that are not in use: the least used go,
    /// a tenth at once, so that who brings new keys does not make everyone be looked at each time.
    pub(super) fn at(&mut self, key: &K, most: usize, period: Duration, now: Instant) -> &mut Tab {
        if self.0.len() >= most && !self.0.contains_key(key) {
            self.sweep(period, now);
            self.drop_least_used(most / 10);
        }
        self.0.entry(key.clone()).or_insert_with(|| Tab::new(now))
    }

    fn drop_least_used(&mut self, count: usize) {
        let free = self.0.iter().filter(|(_, tab)| !tab.is_in_use());
        let mut free: Vec<(u64, K)> = free.map(|(key, tab)| (tab.account.used(), key.clone())).collect();
        if count < free.len() {
            free.select_nth_unstable_by_key(count, |(used, _)| *used);
            free.truncate(count);
        }
        for (_, key) in free {
            self.0.remove(&key);
        }
    }

    /// Changes what a key has now; one that has nothing any more and used nothing is forgotten.
    pub(super) fn change(&mut self, key: &K, change: impl FnOnce(&mut Tab)) {
        if let Some(tab) = self.0.get_mut(key) {
            change(tab);
            if !tab.is_in_use() && tab.account.used() == 0 {
                self.0.remove(key);
            }
        }
    }

    /// Forgets those that say nothing any more.
    pub(super) fn sweep(&mut self, period: Duration, now: Instant) {
        self.0
            .retain(|_, tab| tab.is_in_use() || !tab.account.is_idle(period, now));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
