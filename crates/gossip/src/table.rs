//! Of each member the last words: what it says of itself, and whether somebody accuses it.
//!
//! Ranks are ordered, and only a greater one replaces another: `Alive(1) < Suspect(1) < Leaving(1) < Alive(2)`. So all that
//! have heard the same words end with the same table, in whatever order they came. An accusation counts after a while,
//! by the clock of who heard it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::NodeId;
use sha2::{Digest as _, Sha256};

use crate::Instant;
use crate::budget::Bucket;
use crate::message::BUCKETS;
use crate::word::{Rank, Said, Says, Word};

/// What is known of whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// It said so, and nobody says otherwise.
    Online,
    /// Somebody did not hear it, and it may still refute that.
    Suspected,
    /// It went, or has not refuted in time that it was not heard.
    Offline,
}

/// What became of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is news; the presence of its node is another now, if one is named.
    New(Option<Presence>),
    /// It, or something greater, was known.
    Known,
    /// It accuses an incarnation that nothing is known of.
    Ahead,
}

/// A member.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// What it said last.
    said: Option<Said>,
    /// An accusation of that incarnation.
    accused: Option<Said>,
    /// When the accusation counts.
    until: Option<Instant>,
    presence: Option<Presence>,
    /// Accusations that it makes, accusations of it, and what it says of itself.
    pub(crate) accusing: Bucket,
    pub(crate) being_accused: Bucket,
    pub(crate) saying: Bucket,
}

impl Entry {
    /// The word that counts, and with whose rank others are compared.
    fn last(&self) -> Option<&Said> {
        self.accused.as_ref().or(self.said.as_ref())
    }

    pub(crate) fn rank(&self) -> Option<Rank> {
        self.last().map(|said| said.word.rank())
    }

    /// What it said last itself.
    pub(crate) fn said(&self) -> Option<&Said> {
        self.said.as_ref()
    }

    /// All that another node needs to know as much, in the order in which it has to come.
    pub(crate) fn words(&self) -> impl Iterator<Item = &Said> {
        self.said.iter().chain(&self.accused)
    }
}

/// All members.
#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<NodeId, Entry>,
    /// When which accusation counts.
    deadlines: BTreeSet<(Instant, NodeId)>,
    /// The prints of all that count, by the first bits of their nodes.
    buckets: [u64; BUCKETS],
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            buckets: [0; BUCKETS],
        }
    }

    /// Which part of the comparison a node belongs to.
    fn bucket(node: &NodeId) -> usize {
        let [first, ..] = node.as_bytes();
        usize::from(*first) % BUCKETS
    }

    /// Puts in, or takes out, the print of a word.
    fn turn(buckets: &mut [u64; BUCKETS], word: &Word) {
        if let Some(bucket) = buckets.get_mut(Self::bucket(&word.node)) {
            *bucket ^= word.print();
        }
    }

    /// Whether it was not there.
    pub(crate) fn insert(&mut self, node: NodeId) -> bool {
        let is_new = !self.entries.contains_key(&node);
        self.entries.entry(node).or_default();
        is_new
    }

    pub(crate) fn remove(&mut self, node: &NodeId) -> bool {
        let Some(entry) = self.entries.remove(node) else {
            return false;
        };
        if let Some(said) = entry.last() {
            Self::turn(&mut self.buckets, &said.word);
        }
        if let Some(until) = entry.until {
            self.deadlines.remove(&(until, *node));
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.entries.keys()
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<&Entry> {
        self.entries.get(node)
    }

    pub(crate) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Entry> {
        self.entries.get_mut(node)
    }

    pub(crate) fn presence(&self, node: &NodeId) -> Option<Presence> {
        self.entries.get(node)?.presence
    }

    pub(crate) fn is_offline(&self, node: &NodeId) -> bool {
        self.presence(node) == Some(Presence::Offline)
    }

    /// What would become of a word, whoever says it.
    pub(crate) fn would_take(&self, word: &Word) -> Taken {
        let entry = self.entries.get(&word.node);
        let rank = entry.and_then(Entry::rank);
        let incarnation = entry.and_then(Entry::said).map(|said| said.word.incarnation);
        match word.says {
            _ if rank >= Some(word.rank()) => Taken::Known,
            Says::Suspect(_) if incarnation != Some(word.incarnation) => Taken::Ahead,
            _ => Taken::New(None),
        }
    }

    /// Takes a word of a member, whose signature was checked.
    pub(crate) fn take(&mut self, said: &Said, now: Instant, suspicion: Duration) -> Taken {
        let taken = self.would_take(&said.word);
        let Some(entry) = self.entries.get_mut(&said.word.node) else {
            return Taken::Ahead;
        };
        if !matches!(taken, Taken::New(_)) {
            return taken;
        }
        let node = said.word.node;
        if let Some(before) = entry.last() {
            Self::turn(&mut self.buckets, &before.word);
        }
        Self::turn(&mut self.buckets, &said.word);
        if let Some(until) = entry.until.take() {
            self.deadlines.remove(&(until, node));
        }
        let presence = match said.word.says {
            Says::Alive => Presence::Online,
            Says::Leaving => Presence::Offline,
            Says::Suspect(_) => Presence::Suspected,
        };
        if let Says::Suspect(_) = said.word.says {
            entry.accused = Some(said.clone());
            entry.until = Some(now + suspicion);
            self.deadlines.insert((now + suspicion, node));
        } else {
            entry.said = Some(said.clone());
            entry.accused = None;
        }
        let before = entry.presence.replace(presence);
        Taken::New((before != Some(presence)).then_some(presence))
    }

    /// When the next accusation counts.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Somebody who has not refuted an accusation in time, and is offline from now on.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<NodeId> {
        let (at, node) = self.deadlines.first().copied()?;
        if at > now {
            return None;
        }
        self.deadlines.remove(&(at, node));
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.until = None;
            entry.presence = Some(Presence::Offline);
        }
        Some(node)
    }

    /// This node was asleep: whoever is accused gets the whole time again.
    pub(crate) fn excuse(&mut self, now: Instant, suspicion: Duration) {
        let until = now + suspicion;
        self.deadlines = self.deadlines.iter().map(|(_, node)| (until, *node)).collect();
        for (_, node) in &self.deadlines {
            if let Some(entry) = self.entries.get_mut(node) {
                entry.until = Some(until);
            }
        }
    }

    pub(crate) fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// Stands for all that counts here.
    pub(crate) fn fingerprint(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        self.buckets.iter().for_each(|bucket| hash.update(bucket.to_be_bytes()));
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finalize()[..16]);
        fingerprint
    }

    /// Those of whom something is known, in the buckets that are wanted (a set of bits).
    pub(crate) fn listed(&self, wanted: u64) -> impl Iterator<Item = (NodeId, Rank)> {
        let entries = self.entries.iter();
        let entries = entries.filter(move |(node, _)| wanted >> Self::bucket(node) & 1 == 1);
        entries.filter_map(|(node, entry)| Some((*node, entry.rank()?)))
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(4);

    fn node(number: u8) -> NodeId {
        Keypair::from_seed([number; 32]).node_id()
    }

    fn said(of: u8, incarnation: u64, says: Says) -> Said {
        let keypair = Keypair::from_seed([of; 32]);
        let node = keypair.node_id();
        let word = Word {
            node,
            incarnation,
            says,
        };
        word.sign(&keypair.network_id(), &keypair)
    }

    fn table() -> Table {
        let mut table = Table::new();
        (1..4).for_each(|number| assert!(table.insert(node(number))));
        table
    }

    #[test]
    fn an_accusation_counts_after_a_while_unless_it_is_refuted() {
        let mut table = table();
        let suspect = |incarnation| said(1, incarnation, Says::Suspect(node(2)));
        assert_eq!(table.take(&suspect(1), WAIT, WAIT), Taken::Ahead);
        assert_eq!(
            table.take(&said(1, 1, Says::Alive), WAIT, WAIT),
            Taken::New(Some(Presence::Online))
        );
        assert_eq!(
            table.take(&suspect(1), WAIT, WAIT),
            Taken::New(Some(Presence::Suspected))
        );
        assert_eq!(table.take(&said(1, 1, Says::Alive), WAIT, WAIT), Taken::Known);
        assert_eq!(table.next(), Some(2 * WAIT));
        assert_eq!(
            table.take(&said(1, 2, Says::Alive), WAIT, WAIT),
            Taken::New(Some(Presence::Online))
        );
        assert_eq!((table.next(), table.expire(3 * WAIT)), (None, None));
        assert_eq!(table.take(&suspect(1), WAIT, WAIT), Taken::Known, "it was refuted");
        assert_eq!(table.take(&suspect(3), WAIT, WAIT), Taken::Ahead);
        assert_eq!(
            table.take(&suspect(2), WAIT, WAIT),
            Taken::New(Some(Presence::Suspected))
        );
        table.excuse(3 * WAIT, WAIT);
        assert_eq!((table.next(), table.expire(3 * WAIT)), (Some(4 * WAIT), None));
        assert_eq!(table.expire(4 * WAIT), Some(node(1)));
        assert_eq!(table.presence(&node(1)), Some(Presence::Offline));
        assert_eq!(
            table.take(&said(1, 3, Says::Leaving), WAIT, WAIT),
            Taken::New(None),
            "it is offline already"
        );
        assert!(table.remove(&node(1)) && !table.remove(&node(1)));
        assert_eq!(table.buckets, [0; BUCKETS]);
        assert_eq!(
            table.take(&said(1, 4, Says::Alive), WAIT, WAIT),
            Taken::Ahead,
            "no member"
        );
    }

    proptest! {
        #[test]
        fn tables_that_heard_the_same_are_the_same(
            words in prop::collection::vec((1u8..4, 0u64..4, 0u8..3), 0..24),
            seed: u64,
        ) {
            let said = |(of, incarnation, says): &(u8, u64, u8)| said(*of, *incarnation, match says {
                0 => Says::Alive,
                1 => Says::Suspect(node(4)),
                _ => Says::Leaving,
            });
            let mut other = words.clone();
            // What comes too early comes again, as what two nodes lack of each other does when they are compared.
            let len = other.len().max(1);
            other.rotate_left(usize::try_from(seed % len as u64).unwrap());
            let mut tables = [table(), table()];
            for (table, words) in tables.iter_mut().zip([&words, &other]) {
                for _ in 0..2 {
                    for word in words {
                        table.take(&said(word), WAIT, WAIT);
                    }
                }
            }
            let [one, two] = &tables;
            let listed: Vec<_> = one.listed(u64::MAX).collect();
            prop_assert_eq!(&listed, &two.listed(u64::MAX).collect::<Vec<_>>());
            prop_assert_eq!(one.fingerprint(), two.fingerprint());
            for (node, rank) in listed {
                prop_assert_eq!(one.get(&node).unwrap().rank(), Some(rank));
            }
        }
    }
}
