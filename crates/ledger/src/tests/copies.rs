//! Copies that become one, and a ledger recomputed.

use proptest::prelude::*;

use super::*;

/// A long history: accounts, holds, closes, lapses, rewards.
fn history() -> Vec<Certified> {
    let mut entries = Vec::new();
    for payer in 1..=4 {
        let payee = payer + 10;
        let begun = open(payer, Credits::whole(10));
        let mut previous = begun.clone();
        entries.push(begun);
        for number in 1..=6 {
            let held = hold(payer, number, &previous, payee, Credits::whole(1));
            match number % 4 {
                0 => entries.push(lapse(payer, &held, NOW + HOUR * 2)),
                1 => entries.extend([
                    close(payer, payee, &held, 3, Credits::whole(1)),
                    mature(payee, &[&held]),
                ]),
                2 => entries.extend([
                    close(payer, payee, &held, 3, Credits::whole(1)),
                    forfeit(9, payee, &[&held]),
                ]),
                _ => {}
            }
            entries.push(held.clone());
            previous = held;
        }
    }
    entries.iter().map(|entry| certify(entry, 1)).collect()
}

fn with(all: &[Certified], has: impl Fn(usize) -> bool) -> Accounts {
    let mut accounts = Accounts::new();
    for (at, certified) in all.iter().enumerate() {
        if has(at) {
            accounts.apply(certified).unwrap();
        }
    }
    accounts
}

fn give(all: &[Certified], to: &mut Accounts, entries: &[EntryHash]) {
    for certified in all
        .iter()
        .filter(|certified| entries.contains(&certified.entry().hash()))
    {
        to.apply(certified).unwrap();
    }
}

/// What `from` gives to `to`, as two nodes would talk.
fn exchange(all: &[Certified], from: &Accounts, to: &mut Accounts) -> usize {
    let summary = to.summary();
    let mut given = from.behind(&summary);
    for bucket in from.differing(&summary) {
        given.extend(from.lacking(bucket, &to.names(bucket)));
    }
    give(all, to, &given);
    given.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn two_copies_become_one_and_then_have_nothing_to_give(mine: u64, yours: u64) {
        let all = history();
        let mut one = with(&all, |at| mine >> (at % 64) & 1 == 1);
        let mut other = with(&all, |at| yours >> (at % 64) & 1 == 1);
        // What is behind a gap in an account is given when the gap is filled.
        for _ in 0..8 {
            exchange(&all, &one, &mut other);
            exchange(&all, &other, &mut one);
        }
        prop_assert_eq!(exchange(&all, &one, &mut other) + exchange(&all, &other, &mut one), 0);
        let union = with(&all, |at| (mine | yours) >> (at % 64) & 1 == 1);
        let known = union.known();
        for entry in all.iter().map(Certified::entry).filter(|entry| union.has(&entry.hash())) {
            // What neither can count, because an entry before it is known to none, may stay where it is.
            let is_due = match entry.places()[..] {
                [Place::Account(owner, number)] => number < known.get(&owner).copied().unwrap_or(0),
                _ => true,
            };
            prop_assert!(!is_due || (one.has(&entry.hash()) && other.has(&entry.hash())));
        }
        prop_assert_eq!(one.balances(), union.balances());
        prop_assert_eq!(other.balances(), union.balances());
    }
}

#[test]
fn one_entry_that_is_missing_is_found_alone() {
    let all = history();
    let full = with(&all, |_| true);
    for at in 0..all.len() {
        let mut other = with(&all, |other| other != at);
        let given = exchange(&all, &full, &mut other);
        assert_eq!(other, full);
        assert!(given <= 7, "the rest of an account at most");
    }
}

fn certificates(all: &[Certified]) -> Vec<Certificate> {
    all.iter().map(|certified| certified.certificate().clone()).collect()
}

#[test]
fn a_sound_ledger_is_recomputed() {
    let all = history();
    assert_eq!(audit(&certificates(&all), [], &terms(1)), Ok(with(&all, |_| true)));
}

#[test]
fn the_first_thing_that_is_wrong_is_named() {
    let all = history();
    let certificates = certificates(&all);
    let missing: Vec<Certificate> = certificates[1..].to_vec();
    assert!(matches!(audit(&missing, [], &terms(1)), Err(Fault::Unfounded(_))));
    let other = audit(&certificates, [], &terms(2));
    let refused = Refused::NoQuorum { found: 1, needed: 2 };
    assert_eq!(other, Err(Fault::Entry(certificates[0].entry().hash(), refused)));
    let held = all
        .iter()
        .map(Certified::entry)
        .find(|entry| matches!(entry.what(), What::Hold(_)))
        .unwrap();
    let lapse = certify(&lapse(1, held, NOW), 1).certificate().clone();
    let twice = [&certificates[..], &[lapse]].concat();
    assert!(matches!(
        audit(&twice, [], &terms(1)),
        Err(Fault::Entry(_, Refused::Broken(..)))
    ));
}

#[test]
fn receipts_are_held_against_their_holds_and_each_other() {
    let all = history();
    let certificates = certificates(&all);
    let held = all
        .iter()
        .map(Certified::entry)
        .find(|entry| matches!(entry.what(), What::Hold(_)))
        .unwrap();
    let hold = Some(held.hash());
    let check = |receipts: &[Receipt]| audit(&certificates, receipts, &terms(1)).map(|_| ());
    let first = receipt(1, 11, hold, 1, Credits::from_millionths(400_000));
    assert_eq!(check(&[first.clone(), receipt(1, 11, None, 1, Credits::ZERO)]), Ok(()));
    for (wrong, why) in [
        (
            receipt(1, 11, hold, 1, Credits::whole(2)),
            Refused::OverHold(Credits::whole(1)),
        ),
        (receipt(1, 12, hold, 1, Credits::ZERO), Refused::NotYours(held.hash())),
        (
            receipt(1, 11, Some(EntryHash::from_bytes([1; 32])), 1, Credits::ZERO),
            Refused::UnknownHold(EntryHash::from_bytes([1; 32])),
        ),
        (
            receipt(1, 11, hold, 2, Credits::from_millionths(500_000)),
            Refused::OutOfChain("another one comes before it"),
        ),
    ] {
        let id = wrong.id();
        assert_eq!(check(&[wrong, first.clone()]), Err(Fault::Receipt(id, why)));
    }
}
