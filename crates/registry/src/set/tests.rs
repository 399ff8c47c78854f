//! The set beside a model that is right at a glance: every add has a tag, every removal a tombstone for what was seen.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Set = OrSet<u8, u16>;
type Change = Delta<u8, u16>;

/// One write as the model keeps it: who made it, what it added, what it removed, and its own number.
#[derive(Debug, Clone, PartialEq)]
struct Write {
    added: Option<(u8, u16)>,
    removed: BTreeSet<Dot>,
}

/// All writes that were seen; nothing is ever forgotten.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model(BTreeMap<Dot, Write>);

impl Model {
    fn live(&self) -> BTreeSet<(u8, Dot, u16)> {
        let tombstones: BTreeSet<Dot> = self.0.values().flat_map(|write| write.removed.clone()).collect();
        let added = self.0.iter().filter_map(|(dot, write)| Some((*dot, write.added?)));
        added
            .filter(|(dot, _)| !tombstones.contains(dot))
            .map(|(dot, (key, value))| (key, dot, value))
            .collect()
    }

    fn under(&self, key: u8) -> BTreeSet<Dot> {
        let live = self.live();
        live.iter()
            .filter(|(other, ..)| *other == key)
            .map(|(_, dot, _)| *dot)
            .collect()
    }

    fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.clone());
    }

    /// Whether everything that this write needs to have been seen was seen.
    fn is_ready_for(&self, dot: Dot, write: &Write) -> bool {
        let before = (1..dot.sequence).map(|sequence| Dot { sequence, ..dot });
        before.chain(write.removed.clone()).all(|dot| self.0.contains_key(&dot))
    }
}

#[derive(Debug, Clone)]
struct Twin {
    epoch: u64,
    set: Set,
    model: Model,
    /// What was kept at some time: a backup.
    backup: (Set, Model),
}

impl Twin {
    fn agrees(&self) {
        let entries = self.set.entries();
        let shown: BTreeSet<(u8, Dot, u16)> = entries
            .iter()
            .map(|entry| (entry.key, entry.dot, entry.value))
            .collect();
        assert_eq!(shown, self.model.live());
        assert_eq!(shown.len(), entries.len());
        assert!(entries.is_sorted_by(|a, b| (a.key, a.dot) < (b.key, b.dot)));
        // The clock covers what was seen and nothing else.
        for epoch in 0..64 {
            let seen = self.model.0.keys().filter(|dot| dot.epoch == epoch);
            assert_eq!(
                self.set.clock().sequence(epoch),
                seen.map(|dot| dot.sequence).max().unwrap_or(0)
            );
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add {
        at: usize,
        key: u8,
        value: u16,
    },
    Remove {
        at: usize,
        key: u8,
    },
    /// A change arrives: any that was ever made, any number of times, or never.
    Deliver {
        at: usize,
        change: prop::sample::Index,
    },
    Merge {
        at: usize,
        from: usize,
    },
    /// What one lacks of the other, by its clock, now or later.
    Since {
        at: usize,
        from: usize,
    },
    Restart {
        at: usize,
        from_backup: bool,
    },
    Backup {
        at: usize,
    },
}

const TWINS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..TWINS;
    let key = || 0..4u8;
    prop_oneof![
        5 => (at(), key(), any::<u16>()).prop_map(|(at, key, value)| Step::Add { at, key, value }),
        3 => (at(), key()).prop_map(|(at, key)| Step::Remove { at, key }),
        8 => (at(), any::<prop::sample::Index>()).prop_map(|(at, change)| Step::Deliver { at, change }),
        1 => (at(), at()).prop_map(|(at, from)| Step::Merge { at, from }),
        1 => (at(), at()).prop_map(|(at, from)| Step::Since { at, from }),
        1 => (at(), any::<bool>()).prop_map(|(at, from_backup)| Step::Restart { at, from_backup }),
        1 => at().prop_map(|at| Step::Backup { at }),
    ]
}

struct World {
    twins: Vec<Twin>,
    changes: Vec<(Dot, Write, Change)>,
    epochs: u64,
    gaps: usize,
}

impl World {
    fn new() -> Self {
        let twin = |epoch| Twin {
            epoch,
            set: Set::default(),
            model: Model::default(),
            backup: Default::default(),
        };
        Self {
            twins: (0..TWINS as u64).map(twin).collect(),
            changes: Vec::new(),
            epochs: TWINS as u64,
            gaps: 0,
        }
    }

    fn wrote(&mut self, at: usize, added: Option<(u8, u16)>, removed: BTreeSet<Dot>, change: Change) {
        let [dot] = change.clock.last()[..] else {
            panic!("one write")
        };
        let write = Write { added, removed };
        assert!(
            self.twins[at].model.0.insert(dot, write.clone()).is_none(),
            "a dot is used once"
        );
        self.changes.push((dot, write, change));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Add { at, key, value } => {
                let removed = self.twins[at].model.under(key);
                let epoch = self.twins[at].epoch;
                let change = self.twins[at].set.add(epoch, key, value).unwrap();
                self.wrote(at, Some((key, value)), removed, change);
            }
            Step::Remove { at, key } => {
                let removed = self.twins[at].model.under(key);
                let epoch = self.twins[at].epoch;
                match self.twins[at].set.remove(epoch, &key).unwrap() {
                    Some(change) => self.wrote(at, None, removed, change),
                    None => assert!(removed.is_empty()),
                }
            }
            Step::Deliver { at, change } => {
                if self.changes.is_empty() {
                    return;
                }
                let (dot, write, change) = change.get(&self.changes).clone();
                let twin = &mut self.twins[at];
                let (known, ready) = (twin.model.0.contains_key(&dot), twin.model.is_ready_for(dot, &write));
                let before = twin.set.clone();
                let applied = twin.set.apply(change);
                match (known, ready) {
                    (true, _) => assert_eq!((applied, &twin.set), (Ok(false), &before)),
                    (false, true) => {
                        assert_eq!(applied, Ok(true));
                        twin.model.0.insert(dot, write);
                    }
                    (false, false) => {
                        assert_eq!((applied, &twin.set), (Err(Gap), &before));
                        self.gaps += 1;
                    }
                }
            }
            Step::Merge { at, from } => {
                let other = self.twins[from].clone();
                let twin = &mut self.twins[at];
                twin.set = twin.set.merge(&other.set);
                twin.model.merge(&other.model);
            }
            Step::Since { at, from } => {
                let other = self.twins[from].clone();
                let twin = &mut self.twins[at];
                let change = other.set.since(twin.set.clock());
                assert!(change.added.iter().all(|entry| !twin.set.clock().covers(entry.dot)));
                let merged = twin.set.merge(&other.set);
                twin.set.apply(change).unwrap();
                assert_eq!(twin.set, merged);
                twin.model.merge(&other.model);
            }
            Step::Restart { at, from_backup } => {
                self.epochs += 1;
                let twin = &mut self.twins[at];
                twin.epoch = self.epochs;
                if from_backup {
                    (twin.set, twin.model) = twin.backup.clone();
                }
            }
            Step::Backup { at } => {
                let twin = &mut self.twins[at];
                twin.backup = (twin.set.clone(), twin.model.clone());
            }
        }
        self.twins.iter().for_each(Twin::agrees);
    }
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..80)
}

proptest! {
    #[test]
    fn whatever_is_lost_late_doubled_or_restarted_the_set_is_what_the_model_says(steps in history()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        // The partition ends: everybody hears of everybody.
        for _ in 0..2 {
            for at in 0..TWINS {
                for from in 0..TWINS {
                    world.step(&Step::Since { at, from });
                }
            }
        }
        for twin in &world.twins {
            prop_assert_eq!(&twin.set, &world.twins[0].set);
        }
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(steps in history()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        let [a, b, c, _] = &world.twins[..] else { panic!("four") };
        let (a, b, c) = (&a.set, &b.set, &c.set);
        prop_assert_eq!(a.merge(b), b.merge(a));
        prop_assert_eq!(a.merge(b).merge(c), a.merge(&b.merge(c)));
        prop_assert_eq!(&a.merge(a), a);
        prop_assert_eq!(&a.merge(b).merge(b), &a.merge(b));
    }

    #[test]
    fn the_whole_state_is_a_delta_for_anybody(steps in history()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        let [a, b, ..] = &world.twins[..] else { panic!("four") };
        let whole = a.set.since(&Clock::default());
        let mut fresh = Set::default();
        fresh.apply(whole.clone()).unwrap();
        prop_assert_eq!(&fresh, &a.set);
        let mut other = b.set.clone();
        other.apply(whole).unwrap();
        prop_assert_eq!(other, b.set.merge(&a.set));
    }
}

#[test]
fn of_a_concurrent_add_and_remove_the_add_stays() {
    let mut a = Set::default();
    a.add(1, 7, 10).unwrap();
    let mut b = a.clone();
    let removal = a.remove(1, &7).unwrap().unwrap();
    let change = b.add(2, 7, 20).unwrap();
    a.apply(change).unwrap();
    b.apply(removal).unwrap();
    assert_eq!(a, b);
    assert_eq!(a.get(&7), Some(&20));
}

#[test]
fn values_written_at_once_are_all_kept_until_somebody_who_saw_them_writes() {
    let mut a = Set::default();
    a.add(1, 7, 10).unwrap();
    let mut b = Set::default();
    b.add(2, 7, 5).unwrap();
    let mut both = a.merge(&b);
    assert_eq!(both.entries().len(), 2);
    assert_eq!(both.get(&7), Some(&5));
    both.add(1, 7, 6).unwrap();
    assert_eq!((both.entries().len(), both.get(&7)), (1, Some(&6)));
    assert_eq!(both.merge(&b), both);
}

#[test]
fn a_change_before_its_time_changes_nothing_and_is_told() {
    let mut a = Set::default();
    let first = a.add(1, 7, 10).unwrap();
    let second = a.add(1, 8, 11).unwrap();
    let third = a.remove(1, &7).unwrap().unwrap();
    let mut b = Set::default();
    assert_eq!(b.apply(second.clone()), Err(Gap));
    assert_eq!(b, Set::default());
    assert_eq!(b.apply(first.clone()), Ok(true));
    assert_eq!(b.apply(third.clone()), Err(Gap));
    assert_eq!(b.apply(second), Ok(true));
    assert_eq!(b.apply(first), Ok(false));
    assert_eq!(b.apply(third), Ok(true));
    assert_eq!(a, b);
}

#[test]
fn a_removal_of_what_was_never_seen_waits_for_it() {
    // Another incarnation removes; its removal is the first that is heard of it.
    let mut a = Set::default();
    let added = a.add(1, 7, 10).unwrap();
    let mut b = a.clone();
    let removed = b.remove(2, &7).unwrap().unwrap();
    let mut c = Set::default();
    assert_eq!(c.apply(removed.clone()), Err(Gap));
    c.apply(added).unwrap();
    assert_eq!(c.apply(removed), Ok(true));
    assert!(c.entries().is_empty());
}

#[test]
fn an_incarnation_without_numbers_writes_nothing() {
    let last = Dot {
        epoch: 3,
        sequence: u64::MAX,
    };
    let mut set = Set::from_parts(Clock::up_to(last), Vec::new());
    assert_eq!(set.add(3, 1, 1), Err(Spent(3)));
    assert!(set.add(4, 1, 1).is_ok());
    assert_eq!(set.remove(3, &1), Err(Spent(3)));
}
