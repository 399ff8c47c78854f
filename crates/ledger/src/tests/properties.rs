//! What holds whatever honest and lying parties do, and in whatever order it comes.

use proptest::prelude::*;

use super::*;

/// Witnesses, of which the last lies: it acknowledges everything.
const WITNESSES: u8 = 4;
const HONEST: usize = 3;
const PARTIES: u8 = 4;

#[derive(Clone, Debug)]
struct Step {
    what: u8,
    who: u8,
    other: u8,
    amount: i64,
    pick: prop::sample::Index,
    /// Which honest witnesses hear it.
    heard: u8,
    /// Which of them are shown all certificates first.
    shown: u8,
    minutes: u64,
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let minutes = prop_oneof![4 => 0_u64..3, 1 => 0_u64..90];
    let mask = || prop_oneof![3 => Just(7_u8), 1 => 0_u8..8];
    let step = (
        0_u8..16,
        1..=PARTIES,
        1..=PARTIES,
        prop_oneof![4 => 1_i64..4, 1 => 0_i64..12],
        any::<prop::sample::Index>(),
        mask(),
        mask(),
        minutes,
    );
    let step = step.prop_map(|(what, who, other, amount, pick, heard, shown, minutes)| Step {
        what,
        who,
        other,
        amount,
        pick,
        heard,
        shown,
        minutes,
    });
    prop::collection::vec(step, 20..most)
}

struct World {
    now: UnixTime,
    terms: Terms,
    keys: Vec<Keypair>,
    witnesses: Vec<Witness>,
    entries: Vec<Entry>,
    acks: BTreeMap<EntryHash, Vec<Ack>>,
    certified: Vec<Certified>,
    /// All of them, at once.
    all: Accounts,
}

impl World {
    fn new() -> Self {
        let terms = terms(WITNESSES);
        let mut world = Self {
            now: NOW,
            keys: witness_keys(WITNESSES),
            witnesses: vec![Witness::new(terms.clone()); HONEST],
            terms,
            entries: Vec::new(),
            acks: BTreeMap::new(),
            certified: Vec::new(),
            all: Accounts::new(),
        };
        for owner in 1..=PARTIES {
            world.offer(&open(owner, Credits::whole(10)), 7);
        }
        // Some have paid each other already, so that there are rewards that are old enough.
        for (payer, payee) in [(1, 2), (3, 4), (1, 2), (3, 4)] {
            world.show(7);
            let (number, previous) = world.all.head(&node(payer)).unwrap();
            let held = hold_at(payer, number + 1, previous, payee, Credits::whole(1), world.now);
            world.offer(&held, 7);
            world.show(7);
            world.offer(&close(payer, payee, &held, 30, Credits::whole(1)), 7);
            world.now = world.now + MINUTE;
        }
        world.show(7);
        world.now = world.now + HOUR;
        world
    }

    /// Offers an entry to some of the honest witnesses, and to the one that lies.
    fn offer(&mut self, entry: &Entry, heard: u8) {
        let acks = self.acks.entry(entry.hash()).or_default();
        let liar = &self.keys[HONEST];
        if acks.is_empty() {
            acks.push(Ack::sign(liar, &entry.hash(), &self.terms));
            self.entries.push(entry.clone());
        }
        for (at, witness) in self.witnesses.iter_mut().enumerate() {
            let key = &self.keys[at];
            if heard & (1 << at) == 0 || acks.iter().any(|ack| ack.node() == key.node_id()) {
                continue;
            }
            let shown = acks.clone();
            if let Considered::Acknowledge(lock) = witness.consider(entry, &shown, &member(), self.now) {
                acks.push(Ack::sign(key, &lock.entry.hash(), &self.terms));
            }
        }
        if acks.len() >= self.terms.quorum() && !self.all.has(&entry.hash()) {
            let certified = Certificate::new(entry.clone(), acks.clone()).from_own_disk();
            self.all.apply(&certified).unwrap();
            self.certified.push(certified);
        }
    }

    fn show(&mut self, shown: u8) {
        for (at, witness) in self.witnesses.iter_mut().enumerate() {
            if shown & (1 << at) != 0 {
                for certified in &self.certified {
                    witness.certified(certified, self.now).unwrap();
                }
                check_balances(witness.accounts());
            }
        }
    }

    /// One of the entries so far that is a hold; of those that are certified and did not end, if so wanted.
    fn some_hold(&self, pick: &prop::sample::Index, is_open: bool) -> Option<(u8, u8, Entry, Hold)> {
        let is_in_force = |entry: &Entry| self.all.hold(&entry.hash()).is_some_and(|held| held.end.is_none());
        let holds: Vec<(&Entry, &Hold)> = self
            .entries
            .iter()
            .filter(|entry| !is_open || is_in_force(entry))
            .filter_map(|entry| match entry.what() {
                What::Hold(hold) => Some((entry, hold)),
                _ => None,
            })
            .collect();
        let (entry, hold) = *holds.get(pick.index(holds.len().max(1)))?;
        let seed = |id: NodeId| (1..=PARTIES).find(|seed| node(*seed) == id).unwrap();
        Some((seed(entry.author()), seed(hold.payee), entry.clone(), *hold))
    }

    /// What the step would have said, be it honest or a lie.
    fn entry_of(&self, step: &Step) -> Option<Entry> {
        let amount = Credits::whole(step.amount as u32);
        let head = self.all.head(&node(step.who));
        match step.what {
            0 => Some(open(step.who, amount)),
            // The next hold, or what is signed a second time under the number of the last one.
            1..=5 => {
                let (number, previous) = head?;
                if step.who == step.other || amount == Credits::ZERO {
                    return None;
                }
                let (number, previous) = match step.what {
                    5 if number > 0 => {
                        let last = self.entries.iter().find(|entry| entry.hash() == previous)?;
                        match last.what() {
                            What::Hold(hold) => (number, hold.previous),
                            _ => return None,
                        }
                    }
                    _ => (number + 1, previous),
                };
                Some(hold_at(step.who, number, previous, step.other, amount, self.now))
            }
            // Closes with what is held at most, with more, of somebody else, with another's receipt.
            6..=8 => {
                let (payer, payee, entry, hold) = self.some_hold(&step.pick, true)?;
                let count = 10 + u64::from(step.other) * 10;
                Some(close(payer, payee, &entry, count, hold.amount.min(amount)))
            }
            9 => {
                let (payer, payee, entry, _) = self.some_hold(&step.pick, false)?;
                let (payer, payee) = if step.other == 1 {
                    (payer, payee)
                } else {
                    (step.other, step.who)
                };
                (payer != payee).then(|| close(payer, payee, &entry, 1, amount))
            }
            10 => {
                let (payer, _, entry, _) = self.some_hold(&step.pick, true)?;
                Some(lapse(if step.other == 1 { step.who } else { payer }, &entry, self.now))
            }
            11 | 12 => {
                let owner = if step.other == 1 {
                    self.some_hold(&step.pick, false)?.1
                } else {
                    step.who
                };
                let all: Vec<EntryHash> = self.all.rewards_of(&node(step.who)).collect();
                let from = step.pick.index(all.len().max(1));
                let rewards: Vec<EntryHash> = all.into_iter().skip(from).take(1 + step.amount as usize % 2).collect();
                (!rewards.is_empty()).then(|| entry(owner, What::Mature { rewards }, self.now))
            }
            13 => {
                let (_, payee, entry, _) = self.some_hold(&step.pick, false)?;
                Some(forfeit(step.who, payee, &[&entry]))
            }
            _ => Some(self.entries[step.pick.index(self.entries.len())].clone()),
        }
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.now.0 += 1 + step.minutes * 60;
            self.show(step.shown);
            if let Some(entry) = self.entry_of(step) {
                self.offer(&entry, step.heard);
            }
            check_balances(&self.all);
        }
    }
}

/// In an order that the keys say, some twice, some not at all.
fn delivered(certified: &[Certified], order: &[u64], lost: bool) -> Vec<Certified> {
    let mut all: Vec<(u64, &Certified)> = Vec::new();
    for (at, one) in certified.iter().enumerate() {
        let key = order[at % order.len()].wrapping_mul(at as u64 * 2 + 1);
        all.push((key, one));
        if key.is_multiple_of(3) {
            all.push((key.rotate_left(32), one));
        }
        if lost && key.is_multiple_of(5) {
            all.retain(|(_, other)| *other != one);
        }
    }
    all.sort_by_key(|(key, _)| *key);
    all.into_iter().map(|(_, one)| one.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With at most f lying witnesses, and parties that do whatever they like: no place has two certificates, nothing is
    /// set aside that was not there, whatever is certified counts, and so for everybody, in any order.
    #[test]
    fn whatever_parties_do_nothing_is_made_and_nothing_spent_twice(
        steps in steps(60), order in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let mut world = World::new();
        world.run(&steps);
        let mut places: BTreeMap<Place, &Entry> = BTreeMap::new();
        for entry in world.certified.iter().map(Certified::entry) {
            for place in entry.places() {
                let first = places.entry(place).or_insert(entry);
                prop_assert!(first.agrees(entry));
            }
            // Whatever a quorum certified counts once all is known: a hold had its credits.
            if let What::Hold(_) = entry.what() {
                prop_assert!(world.all.hold(&entry.hash()).unwrap().counts);
            }
            if let What::Close { hold, .. } | What::Lapse { hold } = entry.what() {
                prop_assert!(world.all.hold(hold).unwrap().end.is_some());
            }
        }
        for lost in [false, true] {
            let mut other = Accounts::new();
            for certified in delivered(&world.certified, &order, lost) {
                other.apply(&certified).unwrap();
                check_balances(&other);
            }
            prop_assert!(lost || other == world.all);
            // What was lost comes at last.
            for certified in &world.certified {
                other.apply(certified).unwrap();
            }
            prop_assert_eq!(&other, &world.all);
        }
    }
}

#[test]
fn histories_reach_every_kind_of_entry() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut kinds, mut refused) = ([0; 6], 0);
    for _ in 0..64 {
        let steps = steps(60).new_tree(&mut runner).unwrap().current();
        let mut world = World::new();
        world.run(&steps);
        refused += world.entries.len() - world.certified.len();
        for certified in &world.certified {
            let kind = match certified.entry().what() {
                What::Open { .. } => 0,
                What::Hold(_) => 1,
                What::Close { .. } => 2,
                What::Lapse { .. } => 3,
                What::Mature { .. } => 4,
                What::Forfeit { .. } => 5,
            };
            kinds[kind] += 1;
        }
    }
    assert!(
        kinds.iter().all(|count| *count >= 5) && refused >= 100,
        "{kinds:?}, {refused}"
    );
}
