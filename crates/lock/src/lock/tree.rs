//! Which statements count: the generation, and of each fork the branch.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dawn_identity::NodeId;

use super::{Lock, SETTLED, Sizes};
use crate::{Change, MAX_GENERATIONS, State, StatementId, Vote};

/// A change with its votes.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) parent: StatementId,
    pub(super) change: Change,
    /// The opening of its generation.
    pub(super) root: StatementId,
    pub(super) votes: BTreeMap<NodeId, Vote>,
    /// What the log comes to with it, once it has its votes; it never loses them.
    pub(super) state: Option<State>,
}

impl Made {
    pub(super) fn new(vote: &Vote, root: StatementId) -> Self {
        Self {
            parent: vote.parent,
            change: vote.change,
            root,
            votes: BTreeMap::new(),
            state: None,
        }
    }
}

impl Lock {
    /// The opening of the generation that a statement belongs to, and what the log comes to there; none of what is not
    /// known or lacks votes.
    pub(super) fn at(&self, id: &StatementId) -> Option<(StatementId, State)> {
        if let Some(begun) = self.openings.get(id) {
            return Some((*id, begun.terms.state()));
        }
        let made = self.changes.get(id)?;
        Some((made.root, made.state.clone()?))
    }

    /// The openings from the genesis to the one that counts.
    pub(super) fn generations(&self) -> Vec<StatementId> {
        let mut path: Vec<StatementId> = self.genesis.into_iter().collect();
        while let Some(last) = path.last().copied() {
            let next = self
                .openings
                .iter()
                .filter(|(_, begun)| begun.terms.parent == Some(last));
            // More recovery keys win, then the smaller id.
            let Some((id, _)) = next.max_by_key(|(id, begun)| (begun.signed.len(), Reverse(**id))) else {
                break;
            };
            path.push(*id);
        }
        path
    }

    /// Finds the line and the state anew.
    pub(super) fn decide(&mut self) {
        self.line.clear();
        self.state = None;
        let Some(opening) = self.generations().last().copied() else {
            return;
        };
        let mut children: BTreeMap<StatementId, Vec<StatementId>> = BTreeMap::new();
        for (id, made) in &self.changes {
            if made.root == opening && made.state.is_some() {
                children.entry(made.parent).or_default().push(*id);
            }
        }
        let mut last = opening;
        self.line.push(last);
        while let Some(branches) = children.get(&last) {
            last = self.choose(&last, branches);
            self.line.push(last);
        }
        self.state = self.at(&last).map(|(_, state)| state);
    }

    /// Of changes behind one statement the one that counts.
    fn choose(&self, fork: &StatementId, branches: &[StatementId]) -> StatementId {
        if let [only] = branches {
            return *only;
        }
        let support = self.support(fork, branches);
        let weight = |id: &StatementId| {
            let removes = self.changes.get(id).is_some_and(|made| made.change.removes());
            (support.get(id).copied().unwrap_or(0), removes, Reverse(*id))
        };
        branches.iter().copied().max_by_key(weight).unwrap_or(*fork)
    }

    /// For how many keys that are trusted at a fork the latest vote is in each of its branches.
    pub(super) fn support(&self, fork: &StatementId, branches: &[StatementId]) -> BTreeMap<StatementId, usize> {
        let keys = self.at(fork).map(|(_, state)| state.keys).unwrap_or_default();
        // For each key its greatest number, and in which branch; none where it has used the number in two.
        let mut latest: BTreeMap<NodeId, (u32, Option<StatementId>)> = BTreeMap::new();
        for (id, made) in &self.changes {
            let Some(branch) = self.branch_of(id, fork).filter(|branch| branches.contains(branch)) else {
                continue;
            };
            for (key, vote) in made.votes.iter().filter(|(key, _)| keys.contains(key)) {
                let known = latest.entry(*key).or_insert((vote.number, Some(branch)));
                if vote.number > known.0 {
                    *known = (vote.number, Some(branch));
                } else if vote.number == known.0 && known.1 != Some(branch) {
                    known.1 = None;
                }
            }
        }
        let mut support = BTreeMap::new();
        for (_, branch) in latest.into_values() {
            if let Some(branch) = branch {
                *support.entry(branch).or_insert(0) += 1;
            }
        }
        support
    }

    /// The change right behind `fork` through which a change is reached; none if it is not.
    fn branch_of(&self, id: &StatementId, fork: &StatementId) -> Option<StatementId> {
        let mut at = *id;
        loop {
            let parent = self.changes.get(&at)?.parent;
            if parent == *fork {
                return Some(at);
            }
            at = parent;
        }
    }

    /// The last statement of the line that nothing changes any more.
    pub(super) fn settled(&self) -> Option<StatementId> {
        self.line.get(self.line.len().saturating_sub(1 + SETTLED)).copied()
    }

    /// Whether what is behind a statement of the present generation can still be voted on.
    pub(super) fn is_open(&self, parent: &StatementId) -> bool {
        let Some(settled) = self.settled() else {
            return true;
        };
        let mut at = *parent;
        loop {
            if at == settled {
                return true;
            }
            match self.changes.get(&at) {
                Some(made) => at = made.parent,
                None => return false,
            }
        }
    }

    /// How many changes that are not settled a key voted for.
    pub(super) fn open_votes_of(&self, key: &NodeId) -> usize {
        let settled = self.settled_line();
        let open = self
            .changes
            .iter()
            .filter(|(id, made)| !settled.contains(id) && made.votes.contains_key(key));
        open.count()
    }

    /// The changes of the line that are settled.
    pub(super) fn settled_line(&self) -> BTreeSet<StatementId> {
        let length = self.line.len().saturating_sub(SETTLED);
        self.line.iter().take(length).copied().collect()
    }

    /// Whether a key is, or in a branch that may still win would be, a lock key.
    pub(super) fn may_count(&self, key: &NodeId) -> bool {
        let settled = self.settled().and_then(|id| self.at(&id));
        if settled.is_some_and(|(_, state)| state.keys.contains(key)) {
            return true;
        }
        let dead = self.settled_line();
        let in_change = |(id, made): (&StatementId, &Made)| {
            !dead.contains(id) && made.state.as_ref().is_some_and(|state| state.keys.contains(key))
        };
        self.changes.iter().any(in_change)
    }

    /// Forgets what cannot matter any more: the logs of generations that are over or were put aside, and what was built on
    /// them, branches and proposals before what is settled, endorsements by keys that count nowhere.
    pub(super) fn prune(&mut self) {
        let path = self.generations();
        // Rivals of those that count are kept: whose signatures they have decides.
        self.openings
            .retain(|id, begun| path.contains(id) || begun.terms.parent.is_some_and(|parent| path.contains(&parent)));
        let current = self.line.first().copied();
        let line: BTreeSet<StatementId> = self.line.iter().copied().collect();
        let gone: Vec<StatementId> = self
            .changes
            .iter()
            .filter(|(id, made)| Some(made.root) != current || (!line.contains(*id) && !self.is_open(&made.parent)))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.changes.remove(&id);
        }
        // Of what is settled as many votes are enough as it took.
        for id in self.settled_line() {
            let Some(needed) = self.needed(&id) else { continue };
            if let Some(made) = self.changes.get_mut(&id) {
                while made.votes.len() > needed {
                    made.votes.pop_last();
                }
            }
        }
        let by: BTreeSet<NodeId> = self.endorsements.keys().map(|(_, _, key)| *key).collect();
        let without: Vec<NodeId> = by.into_iter().filter(|key| !self.may_count(key)).collect();
        self.endorsements.retain(|(_, _, key), _| !without.contains(key));
        let votes = self.changes.values().flat_map(|made| made.votes.values());
        self.sizes = Sizes {
            openings: self.opening_bytes(MAX_GENERATIONS),
            votes: votes.map(|vote| vote.bytes().len()).sum(),
            endorsements: self
                .endorsements
                .values()
                .map(|endorsement| endorsement.bytes().len())
                .sum(),
        };
    }

    /// Bytes of the openings of the generations up to this one.
    pub(super) fn opening_bytes(&self, generation: u32) -> usize {
        let openings = self
            .openings
            .values()
            .filter(|begun| begun.terms.generation <= generation);
        let signed = openings.flat_map(|begun| begun.signed.values());
        signed.map(|opening| opening.bytes().len()).sum()
    }

    /// How many votes a change that is in the log took.
    fn needed(&self, id: &StatementId) -> Option<usize> {
        let made = self.changes.get(id)?;
        let (_, before) = self.at(&made.parent)?;
        Some(usize::from(before.votes_for(&made.change)))
    }
}
