//! What is read from a lock: its state, its log, proposals, forks, its statements.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use sha2::{Digest as _, Sha256};

use super::{Lock, MAX_NUMBER};
use crate::opening::Terms;
use crate::vote::id_of;
use crate::{Change, Endorsement, Refused, State, StatementId, Vote};

/// What recovery keys can begin anew behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recoverable {
    /// The opening.
    pub parent: StatementId,
    /// Its generation.
    pub generation: u32,
    /// Those of the keys that belong to it.
    pub keys: BTreeSet<NodeId>,
    /// How many keys it takes: one, or more than have begun the generation that follows.
    pub needed: usize,
}

/// With what a generation begins, beside when and behind what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The trusted keys; none where the lock is switched off.
    pub keys: BTreeSet<NodeId>,
    /// How many of them have to agree on a change.
    pub quorum: u8,
    /// How many of them have to stand behind a member.
    pub signatures: u8,
    /// The recovery keys.
    pub recovery: BTreeSet<NodeId>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: StatementId,
    /// The generation.
    pub generation: u32,
    /// How many changes of this generation there are with it; 0 for an opening.
    pub height: u32,
    /// The change; none for an opening.
    pub change: Option<Change>,
    /// The keys that signed it, with the time that each says; of a genesis nobody but the network key.
    pub votes: Vec<(NodeId, UnixTime)>,
    /// When it was signed first.
    pub at: UnixTime,
    /// What the lock comes to with it.
    pub state: State,
}

/// A change that lacks votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its id.
    pub id: StatementId,
    /// The change.
    pub change: Change,
    /// Who voted for it, with the time that each says, the earliest first.
    pub votes: Vec<(NodeId, UnixTime)>,
    /// How many votes it takes.
    pub needed: u8,
}

/// Two or more changes behind one statement that all have their votes. Honest keys do not vote for the second once they
/// know the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The statement before them.
    pub parent: StatementId,
    /// The change that counts.
    pub kept: StatementId,
    /// Those that do not.
    pub lost: Vec<StatementId>,
    /// Who voted for more than one of them.
    pub twice: BTreeSet<NodeId>,
}

fn votes(votes: &BTreeMap<NodeId, Vote>) -> Vec<(NodeId, UnixTime)> {
    let mut votes: Vec<_> = votes.values().map(|vote| (vote.key, vote.at)).collect();
    votes.sort_by_key(|(key, at)| (*at, *key));
    votes
}

impl Lock {
    /// Of which network it is.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// What the lock comes to; none before there is one.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The last statement that counts.
    pub fn last(&self) -> Option<StatementId> {
        self.line.last().copied()
    }

    /// The statement with which it all began: two nodes with different ones have different locks.
    pub fn genesis(&self) -> Option<StatementId> {
        self.genesis
    }

    /// The openings of all generations that count, then the changes of the last.
    pub fn log(&self) -> Vec<Entry> {
        let openings = self.generations().into_iter().filter_map(|id| {
            let begun = self.openings.get(&id)?;
            let is_genesis = begun.terms.parent.is_none();
            let signers = begun.signed.keys().filter(|_| !is_genesis);
            Some(Entry {
                id,
                generation: begun.terms.generation,
                height: 0,
                change: None,
                votes: signers.map(|key| (*key, begun.terms.at)).collect(),
                at: begun.terms.at,
                state: begun.terms.state(),
            })
        });
        let changes = self.line.iter().filter_map(|id| {
            let made = self.changes.get(id)?;
            let state = made.state.clone()?;
            let votes = votes(&made.votes);
            Some(Entry {
                id: *id,
                generation: state.generation,
                height: state.height,
                change: Some(made.change),
                at: votes.first().map_or(UnixTime(0), |(_, at)| *at),
                votes,
                state,
            })
        });
        openings.chain(changes).collect()
    }

    /// Changes that follow the last one and lack votes, the oldest first.
    pub fn proposals(&self) -> Vec<Proposal> {
        let (Some(last), Some(state)) = (self.last(), &self.state) else {
            return Vec::new();
        };
        let open = self
            .changes
            .iter()
            .filter(|(_, made)| made.parent == last && made.state.is_none());
        let mut proposals: Vec<Proposal> = open
            .map(|(id, made)| Proposal {
                id: *id,
                change: made.change,
                votes: votes(&made.votes),
                needed: state.votes_for(&made.change),
            })
            .collect();
        proposals.sort_by_key(|proposal| (proposal.votes.first().map(|(_, at)| *at), proposal.id));
        proposals
    }

    /// Forks of the present generation that are not settled.
    pub fn forks(&self) -> Vec<Fork> {
        let mut children: BTreeMap<StatementId, Vec<StatementId>> = BTreeMap::new();
        for (id, made) in self.changes.iter().filter(|(_, made)| made.state.is_some()) {
            children.entry(made.parent).or_default().push(*id);
        }
        let forks = children.into_iter().filter_map(|(parent, branches)| {
            let kept = *branches.iter().find(|id| self.line.contains(id))?;
            if branches.len() < 2 {
                return None;
            }
            let mut voters: BTreeMap<NodeId, usize> = BTreeMap::new();
            for key in branches
                .iter()
                .filter_map(|id| self.changes.get(id))
                .flat_map(|made| made.votes.keys())
            {
                *voters.entry(*key).or_insert(0) += 1;
            }
            Some(Fork {
                parent,
                kept,
                lost: branches.into_iter().filter(|id| *id != kept).collect(),
                twice: voters
                    .into_iter()
                    .filter(|(_, times)| *times > 1)
                    .map(|(key, _)| key)
                    .collect(),
            })
        });
        forks.collect()
    }

    /// Every endorsement that is kept.
    pub fn endorsements(&self) -> impl Iterator<Item = &Endorsement> {
        self.endorsements.values()
    }

    /// A vote with `key` for a change behind the last statement; it is not taken yet.
    ///
    /// # Errors
    /// There is no lock, the key is none of its keys, the change cannot be made, or the key has no numbers left.
    pub fn vote(&self, key: &Keypair, change: Change, at: UnixTime) -> Result<Vote, Refused> {
        let node = key.node_id();
        let (Some(parent), Some(state)) = (self.last(), &self.state) else {
            return Err(Refused::NotAKey(node));
        };
        let _next = state.with(&change)?;
        if !state.keys.contains(&node) {
            return Err(Refused::NotAKey(node));
        }
        let numbers = self
            .changes
            .values()
            .filter_map(|made| made.votes.get(&node))
            .map(|vote| vote.number);
        let number = numbers.max().map_or(0, |number| number.saturating_add(1));
        if number >= MAX_NUMBER {
            return Err(Refused::Full);
        }
        Vote::sign(key, self.network, parent, change, number, at)
    }

    /// The id that a change behind the last statement has.
    pub fn id_of(&self, change: &Change) -> Option<StatementId> {
        Some(id_of(&self.network, &self.last()?, change))
    }

    /// Which generation these recovery keys can begin anew behind: the present one, or, where they are of an earlier one, that
    /// one. None if they are of none.
    pub fn recoverable(&self, with: &BTreeSet<NodeId>) -> Option<Recoverable> {
        let path = self.generations();
        path.iter().enumerate().rev().find_map(|(at, id)| {
            let terms = &self.openings.get(id)?.terms;
            let keys: BTreeSet<NodeId> = terms.recovery.intersection(with).copied().collect();
            let successor = path.get(at + 1).and_then(|next| self.openings.get(next));
            (!keys.is_empty()).then(|| Recoverable {
                parent: *id,
                generation: terms.generation,
                keys,
                needed: successor.map_or(1, |successor| successor.signed.len() + 1),
            })
        })
    }

    /// The terms of a generation that follows a certain opening, to be signed with recovery keys of that one.
    pub fn next_terms(&self, parent: StatementId, beginning: Beginning, at: UnixTime) -> Option<Terms> {
        let before = &self.openings.get(&parent)?.terms;
        let Beginning {
            keys,
            quorum,
            signatures,
            recovery,
        } = beginning;
        Some(Terms {
            network: self.network,
            generation: before.generation.saturating_add(1),
            parent: Some(parent),
            keys,
            quorum,
            signatures,
            recovery,
            at,
        })
    }

    /// The terms of the present generation.
    pub fn terms(&self) -> Option<&Terms> {
        Some(&self.openings.get(self.line.first()?)?.terms)
    }

    /// Everything, in an order in which it can be taken.
    pub fn statements(&self) -> Vec<Bytes> {
        let mut all = self.deciding();
        let endorsements = self.endorsements.values();
        all.extend(endorsements.map(|endorsement| Bytes::copy_from_slice(endorsement.bytes())));
        all
    }

    /// Everything but endorsements.
    fn deciding(&self) -> Vec<Bytes> {
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let mut openings: Vec<_> = self.openings.values().collect();
        openings.sort_by_key(|begun| begun.terms.generation);
        let signed = openings.into_iter().flat_map(|begun| begun.signed.values());
        let mut all: Vec<Bytes> = signed.map(|opening| copy(opening.bytes())).collect();
        // A change that has its votes comes before what follows it.
        let height = |id: &StatementId| self.at(id).map_or(u32::MAX, |(_, state)| state.height);
        let mut made: Vec<_> = self.changes.values().collect();
        made.sort_by_cached_key(|made| height(&made.parent));
        let votes = made.into_iter().flat_map(|made| made.votes.values());
        all.extend(votes.map(|vote| copy(vote.bytes())));
        all
    }

    /// What decides which keys count, openings and votes, in an order in which it can be taken; of them as much as fits into
    /// so many bytes when each is written behind a length of two.
    pub fn decisive(&self, most: usize) -> Vec<Bytes> {
        let mut length = 0;
        let fits = |statement: &Bytes| {
            length += statement.len() + 2;
            length <= most
        };
        self.deciding().into_iter().take_while(fits).collect()
    }

    /// A hash of what is held and can still matter: two locks with the same head say the same.
    pub fn head(&self) -> [u8; 32] {
        let mut items: BTreeSet<[u8; 32]> = BTreeSet::new();
        let mut add = |bytes: &[u8]| {
            items.insert(Sha256::digest(bytes).into());
        };
        self.openings
            .values()
            .flat_map(|begun| begun.signed.values())
            .for_each(|opening| add(opening.bytes()));
        // Of what is settled it does not matter who voted for it in the end.
        let settled = self.settled_line();
        let open = self.changes.iter().filter(|(id, _)| !settled.contains(*id));
        open.flat_map(|(_, made)| made.votes.values())
            .for_each(|vote| add(vote.bytes()));
        self.endorsements
            .values()
            .for_each(|endorsement| add(endorsement.bytes()));
        let mut hash = Sha256::new_with_prefix(b"dawn lock head\0");
        if let Some(settled) = self.settled() {
            hash.update(settled.as_bytes());
        }
        items.iter().for_each(|item| hash.update(item));
        hash.finalize().into()
    }

    /// What somebody with this head lacks: what was news since, where that is known, else everything; nothing if it has it
    /// all.
    pub fn since(&self, head: &[u8]) -> Option<Vec<Bytes>> {
        if head == self.head() {
            return None;
        }
        let from = self.batches.iter().position(|(before, _)| before.as_slice() == head);
        Some(match from {
            Some(from) => {
                let batches = self.batches.iter().skip(from);
                batches.flat_map(|(_, batch)| batch.iter().cloned()).collect()
            }
            None => self.statements(),
        })
    }
}
