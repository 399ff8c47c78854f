//! Every state that four witnesses, one of which lies, can be brought into by a payer and a payee who lie: no place ever has
//! two certificates, and holds never exceed what was free.

use std::collections::{BTreeSet, HashSet};

use super::*;

const WITNESSES: u8 = 4;
const HONEST: usize = 3;

/// Which entries a witness has acknowledged, and which certificates it has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
struct Heard {
    acknowledged: u16,
    known: u16,
}

/// What each honest witness has heard, and whether the holds have expired.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct State {
    witnesses: [Heard; HONEST],
    is_late: bool,
}

struct Model {
    entries: Vec<Entry>,
    certified: Vec<Certified>,
    /// Of each entry, by witness; the last one's is the liar's.
    acks: Vec<Vec<Ack>>,
    late: UnixTime,
}

impl Model {
    /// How many acknowledgements there are: the liar gives all.
    fn count(state: &State, entry: usize) -> usize {
        1 + state
            .witnesses
            .iter()
            .filter(|heard| heard.acknowledged & (1 << entry) != 0)
            .count()
    }

    fn is_certified(state: &State, entry: usize) -> bool {
        Self::count(state, entry) >= terms(WITNESSES).quorum()
    }

    fn now(&self, state: &State) -> UnixTime {
        if state.is_late { self.late } else { NOW }
    }

    /// All states that one delivery leads to. Witnesses are kept beside, so that each is what its deliveries made it.
    fn next(&self, state: &State, witnesses: &[Witness; HONEST]) -> Vec<(State, [Witness; HONEST])> {
        let mut next = Vec::new();
        for at in 0..HONEST {
            for entry in 0..self.entries.len() {
                let bit = 1 << entry;
                if state.witnesses[at].acknowledged & bit == 0 {
                    let shown: Vec<Ack> = self.acks[entry]
                        .iter()
                        .enumerate()
                        .filter(|(by, _)| *by == HONEST || state.witnesses[*by].acknowledged & bit != 0)
                        .map(|(_, ack)| *ack)
                        .collect();
                    let mut changed = witnesses.clone();
                    let considered = changed[at].consider(&self.entries[entry], &shown, &member(), self.now(state));
                    if matches!(considered, Considered::Acknowledge(_)) {
                        let mut state = state.clone();
                        state.witnesses[at].acknowledged |= bit;
                        next.push((state, changed));
                    }
                }
                if Self::is_certified(state, entry) && state.witnesses[at].known & bit == 0 {
                    let (mut state, mut changed) = (state.clone(), witnesses.clone());
                    changed[at].certified(&self.certified[entry], self.now(&state)).unwrap();
                    state.witnesses[at].known |= bit;
                    next.push((state, changed));
                }
            }
        }
        if !state.is_late {
            let mut state = state.clone();
            state.is_late = true;
            next.push((state, witnesses.clone()));
        }
        next
    }

    /// Visits everything that can be reached; how many states, and which entries were certified in some of them.
    /// What has `begun` is certified, the last `newer` of it a second later.
    fn explore(&self, begun: &[&Entry], newer: usize, check: impl Fn(&[usize])) -> (usize, BTreeSet<usize>) {
        let mut witness = Witness::new(terms(WITNESSES));
        for (at, entry) in begun.iter().enumerate() {
            let at = UnixTime(NOW.0 + u64::from(at + newer >= begun.len()));
            witness.certified(&certify(entry, WITNESSES), at).unwrap();
        }
        let first = [witness.clone(), witness.clone(), witness];
        let mut seen = HashSet::from([State::default()]);
        let mut due = vec![(State::default(), first)];
        let mut reached = BTreeSet::new();
        while let Some((state, witnesses)) = due.pop() {
            let certified: Vec<usize> = (0..self.entries.len())
                .filter(|entry| Self::is_certified(&state, *entry))
                .collect();
            for (at, one) in certified.iter().enumerate() {
                for other in &certified[at + 1..] {
                    let (one, other) = (&self.entries[*one], &self.entries[*other]);
                    let shared = one.places().iter().any(|place| other.places().contains(place));
                    assert!(!shared || one.agrees(other), "two certificates of one place");
                }
            }
            check(&certified);
            reached.extend(certified);
            for (state, witnesses) in self.next(&state, &witnesses) {
                // Honest witnesses are alike: which one is in which state does not matter.
                let mut key = state.clone();
                key.witnesses.sort();
                if seen.insert(key) {
                    due.push((state, witnesses));
                }
            }
        }
        (seen.len(), reached)
    }
}

fn model(entries: Vec<Entry>) -> Model {
    let terms = terms(WITNESSES);
    let keys = witness_keys(WITNESSES);
    let acks = |entry: &Entry| keys.iter().map(|key| Ack::sign(key, &entry.hash(), &terms)).collect();
    let acks: Vec<Vec<Ack>> = entries.iter().map(acks).collect();
    let certified = entries
        .iter()
        .zip(&acks)
        .map(|(entry, acks)| Certificate::new(entry.clone(), acks.clone()).verify(&terms).unwrap());
    Model {
        certified: certified.collect(),
        acks,
        entries,
        late: NOW + HOUR * 2,
    }
}

#[test]
fn a_payer_who_signs_twice_under_each_number_never_sets_aside_more_than_there_is() {
    let begun = open(1, Credits::whole(10));
    let (first, other) = (
        hold(1, 1, &begun, 2, Credits::whole(6)),
        hold(1, 1, &begun, 3, Credits::whole(7)),
    );
    let behind_first = hold(1, 2, &first, 3, Credits::whole(4));
    let behind_other = hold(1, 2, &other, 2, Credits::whole(3));
    let model = model(vec![first, other, behind_first, behind_other]);
    let (states, reached) = model.explore(&[&begun], 0, |certified| {
        let held = certified.iter().map(|entry| match model.entries[*entry].what() {
            What::Hold(hold) => hold.amount.millionths(),
            _ => 0,
        });
        assert!(held.sum::<i64>() <= 10_000_000);
    });
    assert_eq!(reached.len(), 4, "each can be certified in some run");
    assert!(states > 100, "{states}");
}

#[test]
fn a_hold_ends_once_whatever_its_payer_and_its_payee_sign_and_when() {
    let begun = open(1, Credits::whole(10));
    let held = hold(1, 1, &begun, 2, Credits::whole(6));
    let entries = vec![
        close(1, 2, &held, 1, Credits::whole(5)),
        close(1, 2, &held, 2, Credits::whole(6)),
        lapse(1, &held, NOW + HOUR * 2),
    ];
    let model = model(entries);
    let (states, reached) = model.explore(&[&begun, &held], 0, |certified| assert!(certified.len() <= 1));
    assert_eq!(reached.len(), 3, "each can be certified in some run");
    assert!(states > 100, "{states}");
}

#[test]
fn a_reward_goes_to_one_of_two_and_what_it_pays_for_was_there() {
    let begun = open(1, Credits::whole(10));
    let held = hold(1, 1, &begun, 2, Credits::whole(6));
    let later = hold(1, 2, &held, 2, Credits::whole(1));
    let own = open(2, Credits::ZERO);
    let closes = [
        close(1, 2, &held, 1, Credits::whole(6)),
        close(1, 2, &later, 25, Credits::whole(1)),
    ];
    let entries = vec![
        mature(2, &[&held]),
        forfeit(3, 2, &[&held]),
        hold(2, 1, &own, 3, Credits::whole(6)),
        hold(1, 3, &later, 3, Credits::whole(9)),
    ];
    let model = model(entries);
    let begun = [&begun, &held, &later, &own, &closes[0], &closes[1]];
    let (_, reached) = model.explore(&begun, 1, |certified| {
        // The reward is spent by its payee, or once more by its payer: never by both.
        assert!(!(certified.contains(&2) && certified.contains(&3)));
    });
    assert_eq!(reached.len(), 4, "each can be certified in some run");
}
