//! What a node keeps for others: the words of providers.

use std::collections::{BTreeMap, HashMap};

use dawn_identity::{NodeId, UnixTime};

use crate::key::Key;
use crate::node::{Config, Refused};
use crate::provider::Provider;

/// Providers' words by key, bounded in number for each key, for each provider and in all.
#[derive(Debug, Default)]
pub(crate) struct Store {
    keys: BTreeMap<Key, BTreeMap<NodeId, Provider>>,
    /// How many keys each provider has here.
    of: HashMap<NodeId, usize>,
}

impl Store {
    /// Keeps a verified word. A later one takes the place of an earlier one of the same provider.
    pub(crate) fn keep(&mut self, provider: Provider, config: &Config, now: UnixTime) -> Result<(), Refused> {
        if provider.time > now + config.skew {
            return Err(Refused::FromTheFuture);
        }
        if provider.expires <= now || provider.expires.since(provider.time) > config.validity + config.skew {
            return Err(Refused::Expired);
        }
        let (key, node) = (provider.key, provider.node);
        let words = self.keys.get(&key);
        if let Some(known) = words.and_then(|words| words.get(&node)) {
            if known.time < provider.time {
                self.keys.entry(key).or_default().insert(node, provider);
            }
            return Ok(());
        }
        if self
            .of
            .get(&node)
            .is_some_and(|count| *count >= config.keys_of_provider)
        {
            return Err(Refused::TooMany);
        }
        if words.is_none() && self.keys.len() >= config.keys {
            return Err(Refused::Full);
        }
        if words.is_some_and(|words| words.len() >= config.providers_of_key) {
            // The one that expires first makes room for one that expires later.
            let first = words.and_then(|words| words.values().min_by_key(|word| (word.expires, word.node)));
            let Some(first) = first.filter(|first| first.expires < provider.expires) else {
                return Err(Refused::Full);
            };
            let first = first.node;
            self.remove(&key, &first);
        }
        self.keys.entry(key).or_default().insert(node, provider);
        *self.of.entry(node).or_default() += 1;
        Ok(())
    }

    fn remove(&mut self, key: &Key, node: &NodeId) {
        let Some(words) = self.keys.get_mut(key) else { return };
        if words.remove(node).is_none() {
            return;
        }
        if words.is_empty() {
            self.keys.remove(key);
        }
        if let Some(count) = self.of.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(node);
            }
        }
    }

    /// Who provides what a key stands for; those whose word is newest first.
    pub(crate) fn of(&self, key: &Key, now: UnixTime) -> Vec<&Provider> {
        let words = self.keys.get(key).into_iter().flat_map(BTreeMap::values);
        let mut words: Vec<&Provider> = words.filter(|word| word.expires > now).collect();
        words.sort_by_key(|word| (std::cmp::Reverse(word.time), word.node));
        words
    }

    /// Drops what is over, and what is of nodes that are not members.
    pub(crate) fn retain(&mut self, now: UnixTime, mut is_member: impl FnMut(&NodeId) -> bool) {
        let over = self
            .keys
            .iter()
            .flat_map(|(key, words)| words.values().map(move |word| (*key, word)));
        let over: Vec<(Key, NodeId)> = over
            .filter(|(_, word)| word.expires <= now || !is_member(&word.node))
            .map(|(key, word)| (key, word.node))
            .collect();
        over.iter().for_each(|(key, node)| self.remove(key, node));
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn word(node: u8, key: u8, from: u64, until: u64) -> Provider {
        let keypair = Keypair::from_seed([node; 32]);
        let network = Keypair::from_seed([9; 32]).network_id();
        let [from, until] = [from, until].map(|seconds| UnixTime(NOW.0 + seconds));
        Provider::sign(&network, Key::from_bytes([key; 32]), from, until, &keypair).unwrap()
    }

    #[test]
    fn each_bound_holds_and_nothing_is_counted_twice() {
        let config = Config {
            keys: 3,
            keys_of_provider: 2,
            providers_of_key: 2,
            ..Config::default()
        };
        let mut store = Store::default();
        let mut keep = |word| store.keep(word, &config, NOW);
        assert_eq!(keep(word(1, 1, 0, 100)), Ok(()));
        assert_eq!(keep(word(1, 1, 5, 200)), Ok(()), "said anew");
        assert_eq!(keep(word(1, 2, 0, 100)), Ok(()));
        assert_eq!(keep(word(1, 3, 0, 100)), Err(Refused::TooMany));
        assert_eq!(keep(word(2, 1, 0, 300)), Ok(()));
        assert_eq!(keep(word(3, 1, 0, 150)), Err(Refused::Full));
        assert_eq!(
            keep(word(3, 1, 0, 400)),
            Ok(()),
            "it counts longer than the first of two"
        );
        assert_eq!(keep(word(1, 3, 0, 100)), Ok(()), "its word under key 1 is gone");
        assert_eq!(keep(word(4, 4, 0, 100)), Err(Refused::Full));
        assert_eq!(keep(word(4, 3, 500, 600)), Err(Refused::FromTheFuture));
        assert_eq!(keep(word(4, 3, 0, 0)), Err(Refused::Expired));
        assert_eq!(
            keep(word(4, 3, 0, 10_000_000)),
            Err(Refused::Expired),
            "nobody counts that long"
        );
        let key = Key::from_bytes([1; 32]);
        assert_eq!(store.of(&key, NOW).len(), 2);
        assert_eq!(store.of(&key, UnixTime(NOW.0 + 350)).len(), 1);
        store.retain(UnixTime(NOW.0 + 350), |_| true);
        assert_eq!(store.len(), 1);
        store.retain(NOW, |_| false);
        assert_eq!((store.len(), store.of.len(), store.keys.len()), (0, 0, 0));
    }
}
