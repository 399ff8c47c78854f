//! [`Quest`]: collects the acknowledgements of one entry. No I/O: the caller carries questions and answers.
//!
//! Each witness is asked until it has acknowledged, in intervals that double. Whoever wants a hold back looks first what is
//! locked: where enough witnesses hold a close, it finishes that, which returns its rest all the same, and does not divide
//! them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dawn_identity::NodeId;

use crate::{Ack, Certificate, Certified, Entry, EntryHash, Missing, Refused, Terms, What};

/// After how long a witness that did not answer is asked again; each time twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest interval.
const LAST: Duration = Duration::from_secs(60);

/// What a witness answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It acknowledges the entry.
    Acknowledged(Ack),
    /// The place is another's, and it acknowledges that one. Also what is found where one looks.
    Locked(Entry, Ack),
    /// Nothing is locked: what is found where one looks.
    Nothing,
    /// The place has a certificate.
    Settled(Certified),
    /// It has to be shown these first.
    Missing(Missing),
    /// It refuses, for now.
    Refused,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask this witness what is locked of the hold.
    Look(NodeId),
    /// Ask this witness to acknowledge, and show it these acknowledgements of others and what it said is missing.
    Ask(NodeId, Vec<Ack>, Option<Missing>),
    /// It is done: the entry has its certificate, or another entry of its place has one.
    Done(Certified),
    /// This entry is to be finished in its stead, by a quest that begins with these acknowledgements.
    Instead(Entry, Vec<Ack>),
    /// Too many witnesses promised other entries of its place. It can come to an end only if a quorum of them decided
    /// otherwise; [`Answer::Settled`] would say so.
    Stuck,
}

#[derive(Clone, Debug)]
struct Asked {
    next: Instant,
    interval: Duration,
    has_looked: bool,
    missing: Option<Missing>,
    was_shown: bool,
    /// It promised another entry.
    is_lost: bool,
}

/// The way of one entry to its certificate.
#[derive(Clone, Debug)]
pub struct Quest {
    entry: Entry,
    terms: Terms,
    witnesses: BTreeMap<NodeId, Asked>,
    acks: Vec<Ack>,
    others: BTreeMap<EntryHash, (Entry, Vec<Ack>)>,
    settled: Option<Certified>,
}

impl Quest {
    /// Begins with the acknowledgements that there are already.
    pub fn new(entry: Entry, acks: &[Ack], terms: &Terms, now: Instant) -> Self {
        let asked = Asked {
            next: now,
            interval: FIRST,
            has_looked: !matches!(entry.what(), What::Lapse { .. }),
            missing: None,
            was_shown: false,
            is_lost: false,
        };
        let mut quest = Self {
            witnesses: terms.witnesses().iter().map(|node| (*node, asked.clone())).collect(),
            terms: terms.clone(),
            acks: Vec::new(),
            others: BTreeMap::new(),
            settled: None,
            entry,
        };
        for ack in acks {
            quest.take_ack(*ack);
        }
        quest
    }

    /// What it is for.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    fn take_ack(&mut self, ack: Ack) -> bool {
        let is_new = self.acks.iter().all(|other| other.node() != ack.node());
        let is_good = is_new && ack.verify(&self.entry.hash(), &self.terms).is_ok();
        if is_good {
            self.acks.push(ack);
        }
        is_good
    }

    /// Takes what a witness answered.
    ///
    /// # Errors
    /// [`Refused`]: the answer is not what a witness says. It is asked again as if it had not answered.
    pub fn answered(&mut self, by: NodeId, answer: Answer, now: Instant) -> Result<(), Refused> {
        let Some(asked) = self.witnesses.get_mut(&by) else {
            return Err(Refused::NotAWitness(by));
        };
        asked.missing = None;
        match answer {
            Answer::Acknowledged(ack) => {
                if ack.node() != by {
                    return Err(Refused::Forged(by));
                }
                ack.verify(&self.entry.hash(), &self.terms)?;
                self.take_ack(ack);
            }
            Answer::Locked(entry, ack) => {
                let places = entry.places();
                let is_of_place = self.entry.places().iter().any(|place| places.contains(place));
                if !is_of_place || entry.agrees(&self.entry) || ack.node() != by {
                    return Err(Refused::Malformed("another entry than one of this place"));
                }
                ack.verify(&entry.hash(), &self.terms)?;
                asked.has_looked = true;
                asked.is_lost = true;
                let (_, acks) = self.others.entry(entry.hash()).or_insert_with(|| (entry, Vec::new()));
                if acks.iter().all(|other| other.node() != by) {
                    acks.push(ack);
                }
            }
            Answer::Nothing => {
                (asked.has_looked, asked.next, asked.interval) = (true, now, FIRST);
            }
            Answer::Settled(certified) => {
                let places = certified.entry().places();
                if !self.entry.places().iter().any(|place| places.contains(place)) {
                    return Err(Refused::Malformed("a certificate of another place"));
                }
                self.settled = Some(certified);
            }
            Answer::Missing(missing) => {
                asked.missing = Some(missing);
                // It is shown that at once, but not again and again: it may ask for what there is not.
                if !asked.was_shown {
                    (asked.next, asked.was_shown) = (now, true);
                }
            }
            Answer::Refused => {}
        }
        Ok(())
    }

    /// How many witnesses were looked at.
    fn looked(&self) -> usize {
        self.witnesses.values().filter(|asked| asked.has_looked).count()
    }

    /// The other entry that is to be finished: one of the same author, who cannot have both; or a close that at least one
    /// honest witness promised, for who wants a lapse.
    fn instead(&self) -> Option<&(Entry, Vec<Ack>)> {
        let is_lapse = matches!(self.entry.what(), What::Lapse { .. });
        self.others.values().find(|(other, acks)| {
            other.author() == self.entry.author() || (is_lapse && acks.len() > self.terms.faults())
        })
    }

    /// What to do now, if anything. [`Quest::poll_timeout`] says when to ask again.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if let Some(settled) = &self.settled {
            return Some(Action::Done(settled.clone()));
        }
        let quorum = self.terms.quorum();
        if self.acks.len() >= quorum {
            let certificate = Certificate::new(self.entry.clone(), self.acks.clone());
            return certificate.verify(&self.terms).ok().map(Action::Done);
        }
        let has_looked = self.looked() >= quorum || !matches!(self.entry.what(), What::Lapse { .. });
        if has_looked && let Some((other, acks)) = self.instead() {
            return Some(Action::Instead(other.clone(), acks.clone()));
        }
        let lost = self.witnesses.values().filter(|asked| asked.is_lost).count();
        if has_looked && self.witnesses.len() - lost < quorum {
            return Some(Action::Stuck);
        }
        let acks = self.acks.clone();
        let has_acked = |node: &NodeId| acks.iter().any(|ack| ack.node() == *node);
        let due = self.witnesses.iter_mut().find(|(node, asked)| {
            let is_open = if has_looked { !asked.is_lost } else { !asked.has_looked };
            asked.next <= now && is_open && !has_acked(node)
        });
        let (node, asked) = due?;
        asked.next = now + asked.interval;
        asked.interval = (asked.interval * 2).min(LAST);
        Some(if has_looked {
            Action::Ask(*node, acks, asked.missing)
        } else {
            Action::Look(*node)
        })
    }

    /// When there is something to do again, if no answer comes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let open = self
            .witnesses
            .iter()
            .filter(|(node, asked)| !asked.is_lost && self.acks.iter().all(|ack| ack.node() != **node));
        open.map(|(_, asked)| asked.next).min()
    }
}
