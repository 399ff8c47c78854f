//! Comparison of what two neighbours know, for what spreading has missed.
//!
//! Every now and then, and on each new link, two neighbours compare 32 bytes that stand for what their drivers know and 16
//! that stand for who is there. News under way make a difference too, so a first difference is looked at once more a
//! little later. Where the drivers know different things, one of them is told. What differs of presence is found in 64
//! parts, of which only those that differ are listed, and mended at once.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::NodeId;
use rand::seq::IteratorRandom as _;
use rand::{Rng, RngExt as _};
use serde_bytes::{ByteArray, ByteBuf};

use crate::budget::Rate;
use crate::gossip::Gossip;
use crate::message::{BUCKETS, Fingerprints, MAX_LISTED, MAX_WORDS, Message};
use crate::outbox::Event;
use crate::refusal::Refused;
use crate::word::{Rank, Said, Voice};
use crate::{Config, Instant};

/// After how long a difference is looked at once more, and after how long it is looked again when something was mended.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Within what time all neighbours are compared with when something came in another way than as news.
const SOON: Duration = Duration::from_secs(1);
/// Words that are sent to a neighbour at once, in messages.
const AT_ONCE: usize = 4;

/// When what is compared with whom.
#[derive(Debug)]
pub(crate) struct Comparison {
    known: [u8; 32],
    every: Duration,
    /// Messages of this part that a neighbour is answered.
    pub(crate) rate: Rate,
    next: Option<Instant>,
    /// Neighbours that are to be compared with, and whether it is the second look.
    looks: BTreeMap<NodeId, (Instant, bool)>,
    /// All are to be compared with soon.
    all: Option<Instant>,
}

impl Comparison {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            known: [0; 32],
            every: config.compare,
            rate: Rate::new(30, Duration::from_secs(30), 1),
            next: None,
            looks: BTreeMap::new(),
            all: None,
        }
    }

    /// What the driver knows.
    pub(crate) fn know(&mut self, fingerprint: [u8; 32]) {
        self.known = fingerprint;
    }

    /// Something came in another way than as news.
    pub(crate) fn all_soon(&mut self, now: Instant) {
        self.all.get_or_insert(now);
    }

    /// Compares with a neighbour, the sooner and the more certain the better.
    pub(crate) fn look(&mut self, node: NodeId, at: Instant, is_second: bool) {
        let look = self.looks.entry(node).or_insert((at, is_second));
        *look = (look.0.min(at), look.1 || is_second);
    }

    pub(crate) fn close(&mut self, node: &NodeId) {
        self.looks.remove(node);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let looks = self.looks.values().map(|(at, _)| *at);
        looks.chain(self.next).chain(self.all).min()
    }
}

impl<V: Voice> Gossip<V> {
    fn fingerprints(&self) -> Fingerprints {
        Fingerprints {
            known: ByteArray::new(self.comparison.known),
            presence: ByteArray::new(self.table.fingerprint()),
        }
    }

    /// Begins the comparisons that are due.
    pub(crate) fn compare<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R) {
        let every = self.comparison.every.mul_f64(rng.random_range(0.5..1.5));
        if *self.comparison.next.get_or_insert(now + every) <= now {
            self.comparison.next = Some(now + every);
            if let Some(node) = self.neighbours.greeted().choose(rng) {
                self.comparison.look(node, now, false);
            }
        }
        if self.comparison.all.take().is_some() {
            let neighbours: Vec<NodeId> = self.neighbours.greeted().collect();
            for node in neighbours {
                let at = now + SOON.mul_f64(rng.random_range(0.0..1.0));
                self.comparison.look(node, at, true);
            }
        }
        let due = self.comparison.looks.iter().filter(|(_, (at, _))| *at <= now);
        let due: Vec<(NodeId, bool)> = due.map(|(node, (_, is_second))| (*node, *is_second)).collect();
        for (node, is_second) in due {
            self.comparison.looks.remove(&node);
            let message = Message::Compare(self.fingerprints(), is_second);
            self.outbox.send(node, &message, now);
        }
    }

    /// A neighbour says what it knows.
    pub(crate) fn compared(&mut self, from: NodeId, theirs: &Fingerprints, is_second: bool, now: Instant) {
        let ours = self.fingerprints();
        if ours == *theirs {
            return;
        }
        if !is_second {
            return self.comparison.look(from, now + SECOND_LOOK, true);
        }
        if ours.known != theirs.known {
            self.outbox.tell(Event::Differs(from));
        }
        if ours.presence != theirs.presence {
            let buckets = self.table.buckets().iter().flat_map(|bucket| bucket.to_be_bytes());
            let message = Message::Buckets(ByteBuf::from(buckets.collect::<Vec<u8>>()));
            self.outbox.send(from, &message, now);
        }
    }

    /// A neighbour says what each part of what it knows comes to: it is told whom this node knows in those that differ.
    pub(crate) fn list(&mut self, from: NodeId, theirs: &[u8], now: Instant) {
        let (theirs, _) = theirs.as_chunks();
        let mut differing = 0;
        let mut listed: Vec<(NodeId, Rank)> = Vec::new();
        let pairs = self.table.buckets().iter().zip(theirs);
        let pairs = (0..BUCKETS).zip(pairs);
        for (at, _) in pairs.filter(|(_, (ours, theirs))| ours.to_be_bytes() != **theirs) {
            let bucket: Vec<(NodeId, Rank)> = self.table.listed(1 << at).collect();
            if listed.len() + bucket.len() > MAX_LISTED {
                break;
            }
            differing |= 1 << at;
            listed.extend(bucket);
        }
        if differing != 0 {
            self.outbox.send(from, &Message::Listed(differing, listed), now);
        }
    }

    /// A neighbour says whom it knows in these parts: it gets the words that it lacks, and is asked for those that lack here.
    pub(crate) fn give_and_want(&mut self, from: NodeId, parts: u64, listed: &[(NodeId, Rank)], now: Instant) {
        let theirs: BTreeMap<NodeId, Rank> = listed.iter().copied().collect();
        let lacks = |(node, rank): &(NodeId, Rank)| theirs.get(node).is_none_or(|theirs| theirs < rank);
        let given: Vec<NodeId> = self.table.listed(parts).filter(lacks).map(|(node, _)| node).collect();
        self.give(from, &given, now);
        let lacks =
            |(node, rank): &(&NodeId, &Rank)| self.table.get(node).is_some_and(|ours| ours.rank() < Some(**rank));
        let wanted: Vec<NodeId> = theirs.iter().filter(lacks).map(|(node, _)| *node).collect();
        if !wanted.is_empty() {
            self.outbox.send(from, &Message::Want(wanted), now);
        }
    }

    /// Sends a neighbour the last words of these nodes.
    pub(crate) fn give(&mut self, to: NodeId, nodes: &[NodeId], now: Instant) {
        let entries = nodes.iter().filter_map(|node| self.table.get(node));
        let words: Vec<Said> = entries.flat_map(|entry| entry.words().cloned()).collect();
        for words in words.chunks(MAX_WORDS).take(AT_ONCE) {
            self.outbox.send(to, &Message::Words(words.to_vec()), now);
        }
    }

    /// A neighbour gives words that this node lacks.
    pub(crate) fn mend(&mut self, from: NodeId, words: &[Said], now: Instant) -> Result<(), Refused> {
        let mut is_mended = false;
        for said in words {
            match self.hear(said, now) {
                Ok(heard) => is_mended |= heard.is_new(),
                Err(Refused::TooOften) => {}
                Err(refused) => return Err(refused),
            }
        }
        if is_mended {
            // There may be more than fits at once, and others lack it too.
            self.comparison.look(from, now + SOON, true);
            self.comparison.all_soon(now);
        }
        Ok(())
    }
}
