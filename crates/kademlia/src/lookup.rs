//! One lookup: who is asked next, until the closest have all answered.

use std::collections::BTreeMap;

use dawn_identity::NodeId;

use crate::key::{Distance, Key};
use crate::message::Contact;
use crate::provider::Provider;

/// Contacts of one answer that are asked although nothing is known of them: the closest.
const UNKNOWN_CONTACTS: usize = 8;
/// Providers of one lookup that are taken note of although nothing is known of them.
const UNKNOWN_PROVIDERS: usize = 128;

/// What is known of a node that a member tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is a member.
    Member,
    /// Nothing: it may be a member, or made up by who tells of it.
    Unknown,
    /// It was put out.
    Out,
}

/// A provider that was found.
#[derive(Debug)]
struct Found {
    word: Provider,
    is_member: bool,
    /// How many members told of it.
    told: u32,
}

/// What a lookup is for.
#[derive(Debug)]
pub(crate) enum Aim {
    /// The members closest to the key.
    Nodes,
    /// The same, for the table alone.
    Refresh,
    /// So many providers that are members.
    Providers(usize),
    /// The members that are to keep this node's word.
    Provide(Provider),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Asked,
    /// It takes its time: others are asked meanwhile.
    Slow,
    Answered,
    Failed,
}

#[derive(Debug)]
struct Candidate {
    contact: Contact,
    state: State,
    /// How many members were asked on the way to it.
    hops: u32,
}

#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) key: Key,
    pub(crate) aim: Aim,
    /// By distance, the closest first.
    candidates: BTreeMap<Distance, Candidate>,
    providers: BTreeMap<NodeId, Found>,
    /// How many were asked.
    pub(crate) asked: u32,
    /// The longest way from one to the next that brought something.
    pub(crate) hops: u32,
    /// As many as are to answer.
    width: usize,
}

impl Lookup {
    pub(crate) fn new(key: Key, aim: Aim, width: usize, start: Vec<Contact>) -> Self {
        let mut lookup = Self {
            key,
            aim,
            candidates: BTreeMap::new(),
            providers: BTreeMap::new(),
            asked: 0,
            hops: 0,
            width,
        };
        start.into_iter().for_each(|contact| lookup.add(contact, 1));
        lookup
    }

    fn add(&mut self, contact: Contact, hops: u32) {
        /// Candidates beyond those that are to answer, as a multiple of them.
        const SPARE: usize = 4;
        let distance = self.key.distance(&Key::node(&contact.node));
        let state = State::New;
        self.candidates
            .entry(distance)
            .or_insert(Candidate { contact, state, hops });
        while self.candidates.len() > self.width * SPARE {
            self.candidates.pop_last();
        }
    }

    /// Who matters: the closest that have not failed.
    fn closest(&mut self) -> impl Iterator<Item = (&Distance, &mut Candidate)> {
        let all = self.candidates.iter_mut();
        all.filter(|(_, candidate)| candidate.state != State::Failed)
            .take(self.width)
    }

    /// The next to be asked, if fewer than `parallel` are being asked.
    pub(crate) fn next(&mut self, parallel: usize) -> Option<(Distance, Contact)> {
        let open = self.candidates.values();
        if open.filter(|candidate| candidate.state == State::Asked).count() >= parallel || self.is_enough() {
            return None;
        }
        let (distance, candidate) = self.closest().find(|(_, candidate)| candidate.state == State::New)?;
        candidate.state = State::Asked;
        let next = (*distance, candidate.contact.clone());
        self.asked += 1;
        Some(next)
    }

    /// Whether nobody who matters is left to be asked or to answer.
    pub(crate) fn is_over(&mut self) -> bool {
        self.is_enough() || self.closest().all(|(_, candidate)| candidate.state == State::Answered)
    }

    fn is_enough(&self) -> bool {
        // Anybody can make up providers of whom nothing is known: they end nothing.
        let members = self.providers.values().filter(|found| found.is_member);
        matches!(self.aim, Aim::Providers(wanted) if members.count() >= wanted)
    }

    pub(crate) fn slow(&mut self, distance: &Distance) {
        if let Some(candidate) = self.candidates.get_mut(distance)
            && candidate.state == State::Asked
        {
            candidate.state = State::Slow;
        }
    }

    pub(crate) fn failed(&mut self, distance: &Distance) {
        if let Some(candidate) = self.candidates.get_mut(distance) {
            candidate.state = State::Failed;
        }
    }

    /// A candidate has answered. Of the nodes that it tells of none was put out.
    pub(crate) fn answered(
        &mut self,
        distance: &Distance,
        closer: Vec<(Contact, Standing)>,
        providers: Vec<(Provider, Standing)>,
    ) {
        let Some(candidate) = self.candidates.get_mut(distance) else {
            return;
        };
        candidate.state = State::Answered;
        let hops = candidate.hops;
        let mut news: BTreeMap<Distance, (Contact, Standing)> = closer
            .into_iter()
            .map(|told| (self.key.distance(&Key::node(&told.0.node)), told))
            .filter(|(distance, _)| !self.candidates.contains_key(distance))
            .collect();
        let mut room = UNKNOWN_CONTACTS;
        news.retain(|_, (_, standing)| {
            let is_unknown = *standing == Standing::Unknown;
            let stays = !is_unknown || room > 0;
            room = room.saturating_sub(usize::from(is_unknown));
            stays
        });
        let is_closer = news.first_key_value().is_some_and(|(new, _)| new < distance);
        if !providers.is_empty() || is_closer {
            self.hops = self.hops.max(hops);
        }
        news.into_values().for_each(|(contact, _)| self.add(contact, hops + 1));
        let mut words: BTreeMap<NodeId, (Provider, Standing)> = BTreeMap::new();
        for told in providers {
            // Each member tells of each provider once, however often it does.
            let known = words.get(&told.0.node);
            if known.is_none_or(|(known, _)| known.time < told.0.time) {
                words.insert(told.0.node, told);
            }
        }
        words
            .into_values()
            .for_each(|(word, standing)| self.found_provider(word, standing == Standing::Member));
    }

    /// Takes note of a provider that one member more tells of, or that gave its word to this node itself.
    pub(crate) fn found_provider(&mut self, word: Provider, is_member: bool) {
        if let Some(found) = self.providers.get_mut(&word.node) {
            found.told += 1;
            found.is_member |= is_member;
            if found.word.time < word.time {
                found.word = word;
            }
            return;
        }
        let unknown = self.providers.values().filter(|found| !found.is_member);
        if is_member || unknown.count() < UNKNOWN_PROVIDERS {
            let told = 1;
            self.providers.insert(word.node, Found { word, is_member, told });
        }
    }

    /// The providers: members whose word is newest first, then those of whom nothing is known and most members told. A
    /// real one is told of by many, one that was made up only by who made it up.
    pub(crate) fn into_providers(self) -> Vec<Provider> {
        let mut all: Vec<Found> = self.providers.into_values().collect();
        all.sort_by_key(|found| {
            let told = if found.is_member { 0 } else { found.told };
            let (told, time) = (std::cmp::Reverse(told), std::cmp::Reverse(found.word.time));
            (!found.is_member, told, time, found.word.node)
        });
        all.into_iter().map(|found| found.word).collect()
    }

    /// Who was asked and has failed, or is slow and has not answered yet.
    pub(crate) fn silent(&self) -> Vec<NodeId> {
        let silent = self.candidates.values();
        let silent = silent.filter(|candidate| matches!(candidate.state, State::Failed | State::Slow));
        silent.map(|candidate| candidate.contact.node).collect()
    }

    /// The closest that answered.
    pub(crate) fn found(&mut self) -> Vec<Contact> {
        let answered = self
            .closest()
            .filter(|(_, candidate)| candidate.state == State::Answered);
        answered.map(|(_, candidate)| candidate.contact.clone()).collect()
    }
}
