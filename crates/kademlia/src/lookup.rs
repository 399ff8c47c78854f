//! One lookup: who is asked next, until the closest have all answered.

use std::collections::BTreeMap;

use dawn_identity::NodeId;

use crate::key::{Distance, Key};
use crate::message::Contact;
use crate::provider::Provider;

/// What a lookup is for.
#[derive(Debug)]
pub(crate) enum Aim {
    /// The members closest to the key.
    Nodes,
    /// The same, for the table alone.
    Refresh,
    /// So many providers.
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
    pub(crate) providers: BTreeMap<NodeId, Provider>,
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
        matches!(self.aim, Aim::Providers(wanted) if self.providers.len() >= wanted)
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

    pub(crate) fn answered(&mut self, distance: &Distance, closer: Vec<Contact>, providers: Vec<Provider>) {
        let Some(candidate) = self.candidates.get_mut(distance) else {
            return;
        };
        candidate.state = State::Answered;
        let hops = candidate.hops;
        let is_new = |contact: &Contact| {
            !self
                .candidates
                .contains_key(&self.key.distance(&Key::node(&contact.node)))
        };
        let news: Vec<Contact> = closer.into_iter().filter(is_new).collect();
        if !providers.is_empty()
            || news
                .iter()
                .any(|contact| self.key.distance(&Key::node(&contact.node)) < *distance)
        {
            self.hops = self.hops.max(hops);
        }
        news.into_iter().for_each(|contact| self.add(contact, hops + 1));
        for provider in providers {
            let known = self.providers.get(&provider.node);
            if known.is_none_or(|known| known.time < provider.time) {
                self.providers.insert(provider.node, provider);
            }
        }
    }

    /// The closest that answered.
    pub(crate) fn found(&mut self) -> Vec<Contact> {
        let answered = self
            .closest()
            .filter(|(_, candidate)| candidate.state == State::Answered);
        answered.map(|(_, candidate)| candidate.contact.clone()).collect()
    }
}
