//! The members known, in buckets.

use std::collections::VecDeque;

use dawn_identity::NodeId;

use crate::key::{Distance, Key};
use crate::message::Contact;

const BUCKETS: usize = 256;
/// How often in a row a member may fail to answer before another takes its place.
const FAILURES: u8 = 2;

#[derive(Debug, Clone)]
struct Known {
    key: Key,
    contact: Contact,
    failures: u8,
}

/// Members at one distance.
#[derive(Debug, Default)]
struct Bucket {
    /// Who was heard of longest ago is first.
    live: VecDeque<Known>,
    /// Who was heard of and found no room; the last one most lately.
    waiting: VecDeque<Known>,
}

/// Which members a node knows: of each distance at most so many, those that have been there longest, who are the likeliest
/// to stay (Kademlia, section 2.4). Nobody gets in who was only told of.
#[derive(Debug)]
pub struct Table {
    local: Key,
    size: usize,
    buckets: Vec<Bucket>,
}

impl Table {
    /// An empty one of the node at `local`, with room for `size` members in each bucket.
    #[must_use]
    pub fn new(local: Key, size: usize) -> Self {
        let buckets = std::iter::repeat_with(Bucket::default).take(BUCKETS).collect();
        Self { local, size, buckets }
    }

    fn bucket(&mut self, key: &Key) -> Option<&mut Bucket> {
        self.buckets.get_mut(self.local.distance(key).bucket()?)
    }

    /// A member has answered or asked: it is there. `true` if it is in the table; if not, it waits for a place. Where it
    /// comes without addresses, those that are known stay.
    pub fn heard(&mut self, contact: Contact) -> bool {
        let size = self.size;
        let key = Key::node(&contact.node);
        let Some(bucket) = self.bucket(&key) else { return false };
        let failures = 0;
        let mut known = Known { key, contact, failures };
        let is_it = |other: &Known| other.key == key;
        let waiting = bucket.waiting.iter().position(is_it);
        let live = bucket.live.iter().position(is_it);
        let before = waiting.and_then(|at| bucket.waiting.remove(at));
        let before = live.and_then(|at| bucket.live.remove(at)).or(before);
        if let Some(before) = before
            && known.contact.addresses.is_empty()
        {
            known.contact.addresses = before.contact.addresses;
        }
        if live.is_none() && bucket.live.len() >= size {
            bucket.waiting.push_back(known);
            let surplus = bucket.waiting.len().saturating_sub(size);
            bucket.waiting.drain(..surplus);
            return false;
        }
        bucket.live.push_back(known);
        true
    }

    /// A member did not answer. Where that happened too often, who was heard of last among those that wait gets its place;
    /// where nobody waits, it stays and may come back.
    pub fn failed(&mut self, node: &NodeId) {
        let key = Key::node(node);
        let Some(bucket) = self.bucket(&key) else { return };
        let Some(at) = bucket.live.iter().position(|known| known.key == key) else {
            bucket.waiting.retain(|known| known.key != key);
            return;
        };
        if let Some(known) = bucket.live.get_mut(at) {
            known.failures = known.failures.saturating_add(1);
            if known.failures >= FAILURES
                && let Some(next) = bucket.waiting.pop_back()
            {
                bucket.live.remove(at);
                bucket.live.push_back(next);
            }
        }
    }

    /// Forgets a node, as one that is no member any more.
    pub fn remove(&mut self, node: &NodeId) {
        let key = Key::node(node);
        let Some(bucket) = self.bucket(&key) else { return };
        bucket.waiting.retain(|known| known.key != key);
        let before = bucket.live.len();
        bucket.live.retain(|known| known.key != key);
        if bucket.live.len() < before
            && let Some(next) = bucket.waiting.pop_back()
        {
            bucket.live.push_back(next);
        }
    }

    /// The members closest to a key, the closest first; who has failed lately comes only where others are lacking.
    #[must_use]
    pub fn closest(&self, key: &Key, most: usize) -> Vec<Contact> {
        let live = self.buckets.iter().flat_map(|bucket| &bucket.live);
        let mut all: Vec<(bool, Distance, &Contact)> = live
            .map(|known| (known.failures > 0, key.distance(&known.key), &known.contact))
            .collect();
        if all.len() > most {
            all.select_nth_unstable_by_key(most, |(failed, distance, _)| (*failed, *distance));
            all.truncate(most);
        }
        all.sort_unstable_by_key(|(_, distance, _)| *distance);
        all.into_iter().map(|(_, _, contact)| contact.clone()).collect()
    }

    /// How many members are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.live.len()).sum()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The farthest bucket is 255; this is the nearest one that holds somebody.
    pub(crate) fn nearest(&self) -> Option<usize> {
        self.buckets.iter().position(|bucket| !bucket.live.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn contact(seed: u16) -> Contact {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&seed.to_be_bytes());
        Contact {
            node: Keypair::from_seed(bytes).node_id(),
            addresses: Vec::new(),
        }
    }

    fn table(of: u16, size: usize) -> Table {
        Table::new(Key::node(&contact(of).node), size)
    }

    #[test]
    fn who_has_been_there_longest_stays_and_who_waits_gets_the_place_of_who_fails() {
        let mut table = table(0, 2);
        let far = |seed: &u16| {
            Key::node(&contact(0).node)
                .distance(&Key::node(&contact(*seed).node))
                .bucket()
                == Some(255)
        };
        let far: Vec<u16> = (1..200).filter(far).take(3).collect();
        let [a, b, c] = far[..] else { unreachable!() };
        assert!(table.heard(contact(a)) && table.heard(contact(b)));
        assert!(!table.heard(contact(c)), "there is no room");
        table.failed(&contact(a).node);
        assert_eq!(table.len(), 2, "once is no reason");
        table.failed(&contact(a).node);
        let there = table.closest(&Key::node(&contact(c).node), 9);
        assert_eq!(there.len(), 2);
        assert!(there.contains(&contact(c)) && !there.contains(&contact(a)));
        table.failed(&contact(c).node);
        table.failed(&contact(c).node);
        assert_eq!(table.len(), 2, "nobody waits: it may come back");
        table.remove(&contact(c).node);
        assert_eq!(table.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_closest_are_those_that_sorting_finds(seeds in proptest::collection::btree_set(1u16..500, 0..60), key: [u8; 32], most in 0usize..30) {
            let mut table = table(0, 100);
            for seed in &seeds {
                prop_assert!(table.heard(contact(*seed)));
            }
            let key = Key::from_bytes(key);
            let mut all: Vec<Contact> = seeds.iter().map(|seed| contact(*seed)).collect();
            all.sort_by_key(|contact| key.distance(&Key::node(&contact.node)));
            all.truncate(most);
            prop_assert_eq!(table.closest(&key, most), all);
        }
    }
}
