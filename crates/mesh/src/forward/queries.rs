//! The queries of others that a member remembers: bounded in all, for each asker and for each neighbour.
//!
//! A query is remembered for as long as it could be repeated. Whose share is full loses its own oldest, so that nobody
//! pushes out what others have asked; where the whole is full the neighbour that brought most does.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use dawn_channel::envelope::EnvelopeId;
use dawn_identity::NodeId;

/// An asker and what it named its query.
pub(super) type Key = (NodeId, EnvelopeId);

/// What this node is to a query of somebody else.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It passed the query on.
    Between {
        /// Whom it asks for.
        target: NodeId,
        /// How many answers were passed on.
        answers: u8,
    },
    /// It was asked for, and has answered those who brought a copy.
    Target {
        /// Which neighbours.
        answered: Vec<NodeId>,
    },
}

#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) role: Role,
    /// Who brought it first.
    pub(super) from: NodeId,
    until: Instant,
    number: u64,
}

/// How many are remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) all: usize,
    pub(super) per_asker: usize,
    pub(super) per_neighbour: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            all: 8192,
            per_asker: 256,
            per_neighbour: 2048,
        }
    }
}

/// The oldest first. What is not remembered any more under its number is skipped.
type Line = VecDeque<(Key, u64)>;

/// The queries of others.
#[derive(Debug, Default)]
pub(super) struct Queries {
    bounds: Bounds,
    known: HashMap<Key, Remembered>,
    askers: HashMap<NodeId, Line>,
    neighbours: HashMap<NodeId, Line>,
    next: u64,
}

/// Forgets the oldest of a line; `false` when it has none.
fn forget_oldest(line: &mut Line, known: &mut HashMap<Key, Remembered>) -> bool {
    while let Some((key, number)) = line.pop_front() {
        if known.get(&key).is_some_and(|entry| entry.number == number) {
            known.remove(&key);
            return true;
        }
    }
    false
}

impl Queries {
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<&mut Remembered> {
        self.known.get_mut(key).filter(|entry| entry.until > now)
    }

    pub(super) fn remember(&mut self, key: Key, from: NodeId, role: Role, until: Instant, now: Instant) {
        if self.known.len() >= self.bounds.all || self.askers.len() >= self.bounds.all {
            self.sweep(now);
        }
        if self.known.len() >= self.bounds.all
            && let Some(fullest) = self.neighbours.values_mut().max_by_key(|line| line.len())
        {
            // Some at once: it takes a while to find who has most.
            for _ in 0..(self.bounds.all / 16).max(1) {
                if !forget_oldest(fullest, &mut self.known) {
                    break;
                }
            }
        }
        self.next += 1;
        let lines = [
            (self.askers.entry(key.0).or_default(), self.bounds.per_asker),
            (self.neighbours.entry(from).or_default(), self.bounds.per_neighbour),
        ];
        for (line, most) in lines {
            while line.len() >= most && forget_oldest(line, &mut self.known) {}
            line.push_back((key, self.next));
        }
        let entry = Remembered {
            role,
            from,
            until,
            number: self.next,
        };
        self.known.insert(key, entry);
    }

    /// Forgets what cannot be repeated any more.
    fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, entry| entry.until > now);
        for lines in [&mut self.askers, &mut self.neighbours] {
            lines.retain(|_, line| {
                line.retain(|(key, number)| self.known.get(key).is_some_and(|entry| entry.number == *number));
                !line.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        all: 24,
        per_asker: 8,
        per_neighbour: 12,
    };

    fn node(seed: u8) -> NodeId {
        Keypair::from_seed([seed + 1; 32]).node_id()
    }

    fn queries() -> Queries {
        Queries {
            bounds: BOUNDS,
            ..Queries::default()
        }
    }

    fn role() -> Role {
        Role::Target { answered: Vec::new() }
    }

    #[test]
    fn who_asks_without_end_or_brings_without_end_pushes_out_its_own() {
        let (now, mut queries) = (Instant::now(), queries());
        let until = now + Duration::from_secs(60);
        let [a, b, other, near] = [0, 1, 2, 3].map(node);
        let id = |at: u8| EnvelopeId::from_bytes([at; 16]);
        queries.remember((other, id(0)), near, role(), until, now);
        for at in 0..100 {
            queries.remember((a, id(at)), b, role(), until, now);
        }
        assert!(queries.get(&(other, id(0)), now).is_some());
        assert!(queries.get(&(a, id(92)), now).is_some() && queries.get(&(a, id(91)), now).is_none());
        // One neighbour brings the questions of many.
        for at in 10..100 {
            queries.remember((node(at), id(at)), b, role(), until, now);
        }
        assert!(queries.get(&(other, id(0)), now).is_some());
        // As do two, which fill the whole.
        for at in 100..200 {
            queries.remember((node(at), id(at)), a, role(), until, now);
        }
        assert!(queries.get(&(other, id(0)), now).is_some());
        assert!(queries.get(&(other, id(0)), until).is_none());
    }

    proptest! {
        #[test]
        fn no_share_is_more_than_it_may_be(
            asked in proptest::collection::vec((0_u8..20, 0_u8..4, 0_u8..30, 0_u64..20), 0..300),
        ) {
            let (mut now, mut queries) = (Instant::now(), queries());
            for (asker, from, id, seconds) in asked {
                let key = (node(asker), EnvelopeId::from_bytes([id; 16]));
                queries.remember(key, node(from), role(), now + Duration::from_secs(60), now);
                prop_assert!(queries.get(&key, now).is_some());
                prop_assert!(queries.known.len() <= BOUNDS.all);
                for node in queries.known.keys().map(|key| key.0) {
                    prop_assert!(queries.known.keys().filter(|key| key.0 == node).count() <= BOUNDS.per_asker);
                }
                for node in queries.known.values().map(|entry| entry.from) {
                    prop_assert!(queries.known.values().filter(|entry| entry.from == node).count() <= BOUNDS.per_neighbour);
                }
                prop_assert!(queries.askers.values().all(|line| line.len() <= BOUNDS.per_asker));
                prop_assert!(queries.neighbours.values().all(|line| line.len() <= BOUNDS.per_neighbour));
                now += Duration::from_secs(seconds);
            }
        }
    }
}
