//! How two copies of the certified entries become one: what is missing is found by few bytes and sent.
//!
//! Entries of accounts are compared by how far each is known without a gap, all others by digests of 64 buckets, and in a
//! bucket that differs by short names. What is certified is a set that only grows, so it does not matter who gives first.

use std::collections::{BTreeMap, BTreeSet};

use dawn_identity::NodeId;

use crate::id::hash;
use crate::{Accounts, EntryHash, Place};

/// How many buckets there are.
pub const BUCKETS: usize = 64;

/// A short name of an entry in its bucket, or a digest of all of them.
pub type Short = [u8; 8];

/// What one copy has, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of each account, how many entries are known from the first on.
    pub known: BTreeMap<NodeId, u64>,
    /// A digest of each bucket of all other entries.
    pub buckets: [Short; BUCKETS],
}

fn short(bytes: &[u8; 32]) -> Short {
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    [a, b, c, d, e, f, g, h]
}

impl Accounts {
    /// What this copy has, in short.
    pub fn summary(&self) -> Summary {
        let mut buckets = [Short::default(); BUCKETS];
        for (number, digest) in (0..).zip(&mut buckets) {
            let entries: Vec<&[u8]> = self.bucket(number).map(|entry| &entry.as_bytes()[..]).collect();
            *digest = short(&hash("dawn ledger bucket 1", &entries));
        }
        Summary {
            known: self.known(),
            buckets,
        }
    }

    /// The entries of a bucket, ascending: those whose first six bits are its number.
    fn bucket(&self, number: u8) -> impl Iterator<Item = &EntryHash> {
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        first[0] = number << 2;
        last[0] = number << 2 | 3;
        self.unnumbered(EntryHash::from_bytes(first)..=EntryHash::from_bytes(last))
    }

    /// The buckets that differ: which to be asked for the names in them.
    pub fn differing(&self, theirs: &Summary) -> Vec<u8> {
        let ours = self.summary();
        let pairs = (0..).zip(ours.buckets.iter().zip(&theirs.buckets));
        pairs
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(number, _)| number)
            .collect()
    }

    /// The short names of the entries in a bucket.
    pub fn names(&self, bucket: u8) -> BTreeSet<Short> {
        self.bucket(bucket).map(|entry| short(entry.as_bytes())).collect()
    }

    /// Which entries of a bucket another copy lacks that has these.
    pub fn lacking(&self, bucket: u8, theirs: &BTreeSet<Short>) -> Vec<EntryHash> {
        let ours = self.bucket(bucket);
        ours.filter(|entry| !theirs.contains(&short(entry.as_bytes())))
            .copied()
            .collect()
    }

    /// Which entries of accounts another copy lacks, by its summary.
    pub fn behind(&self, theirs: &Summary) -> Vec<EntryHash> {
        let mut lacking = Vec::new();
        for (node, known) in self.known() {
            let from = theirs.known.get(&node).copied().unwrap_or(0);
            let places = (from..known).map(|number| Place::Account(node, number));
            lacking.extend(places.filter_map(|place| self.certified(&place)));
        }
        lacking
    }
}
