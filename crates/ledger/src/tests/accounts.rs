//! What certificates come to.

use super::*;

fn credits(accounts: &Accounts, of: u8) -> [i64; 3] {
    let Balance { free, held, immature } = accounts.balance(&node(of));
    [free, held, immature].map(|credits| credits.millionths() / 1_000_000)
}

/// An account that is granted 10, holds 4 for node 2, who closes with 3.
fn history() -> [Entry; 3] {
    let begun = open(1, Credits::whole(10));
    let held = hold(1, 1, &begun, 2, Credits::whole(4));
    let closed = close(1, 2, &held, 30, Credits::whole(3));
    [begun, held, closed]
}

fn applied(entries: &[&Entry]) -> Accounts {
    let mut accounts = Accounts::new();
    for entry in entries {
        accounts.apply(&certify(entry, 1)).unwrap();
        check_balances(&accounts);
    }
    accounts
}

#[test]
fn a_hold_is_set_aside_closed_and_its_reward_matures() {
    let [begun, held, closed] = history();
    assert_eq!(credits(&applied(&[&begun]), 1), [10, 0, 0]);
    assert_eq!(credits(&applied(&[&begun, &held]), 1), [6, 4, 0]);
    let accounts = applied(&[&begun, &held, &closed]);
    assert_eq!(credits(&accounts, 1), [7, 0, 0]);
    assert_eq!(credits(&accounts, 2), [0, 0, 3]);
    let accounts = applied(&[&begun, &held, &closed, &mature(2, &[&held])]);
    assert_eq!(credits(&accounts, 2), [3, 0, 0]);
    assert_eq!(
        accounts.balances()[&Account::Mint],
        Credits::from_millionths(-10_000_000)
    );
    assert_eq!(accounts.head(&node(1)), Some((1, held.hash())));
    assert_eq!(accounts.rewards_of(&node(2)).count(), 0);
}

#[test]
fn a_forfeit_returns_a_reward_to_who_paid_it() {
    let [begun, held, closed] = history();
    let accounts = applied(&[&begun, &held, &closed, &forfeit(3, 2, &[&held])]);
    assert_eq!(credits(&accounts, 1), [10, 0, 0]);
    assert_eq!(credits(&accounts, 2), [0, 0, 0]);
    // Against somebody who did not earn it, it does nothing.
    let accounts = applied(&[&begun, &held, &closed, &forfeit(3, 4, &[&held])]);
    assert_eq!(credits(&accounts, 2), [0, 0, 3]);
}

#[test]
fn a_lapse_returns_what_was_held() {
    let [begun, held, _] = history();
    let accounts = applied(&[&begun, &held, &lapse(1, &held, NOW + HOUR * 2)]);
    assert_eq!(credits(&accounts, 1), [10, 0, 0]);
    assert_eq!(accounts.hold(&held.hash()).unwrap().end, Some(End::Lapsed));
}

#[test]
fn what_comes_early_counts_when_what_it_stands_on_has_come() {
    let [begun, held, closed] = history();
    let matured = mature(2, &[&held]);
    let spent = {
        let own = open(2, Credits::ZERO);
        let hold = hold(2, 1, &own, 3, Credits::whole(3));
        [own, hold]
    };
    let entries = [&begun, &held, &closed, &matured, &spent[0], &spent[1]];
    let forwards = applied(&entries);
    let mut backwards = Accounts::new();
    let mut postings = Vec::new();
    for entry in entries.iter().rev() {
        postings = backwards.apply(&certify(entry, 1)).unwrap();
        check_balances(&backwards);
        assert!(backwards.has(&entry.hash()));
        assert_eq!(backwards.apply(&certify(entry, 1)), Ok(Vec::new()));
    }
    assert_eq!(forwards, backwards);
    assert_eq!(credits(&forwards, 2), [0, 3, 0]);
    // The last one that came set off all of them.
    let of: Vec<EntryHash> = postings.iter().map(|posting| posting.entry).collect();
    for entry in [&begun, &held, &closed, &matured, &spent[1]] {
        assert!(of.contains(&entry.hash()));
        let lines = postings.iter().filter(|posting| posting.entry == entry.hash());
        assert_eq!(lines.map(|posting| posting.amount.millionths()).sum::<i64>(), 0);
    }
}

#[test]
fn a_hold_of_more_than_there_is_waits() {
    let begun = open(1, Credits::whole(10));
    let held = hold(1, 1, &begun, 2, Credits::whole(11));
    let accounts = applied(&[&begun, &held]);
    assert_eq!(credits(&accounts, 1), [10, 0, 0]);
    let known = accounts.hold(&held.hash()).unwrap();
    assert!(!known.counts && known.end.is_none());
}

#[test]
fn two_certificates_of_one_place_break_the_ledger_and_the_first_stays() {
    let [begun, held, closed] = history();
    let other = lapse(1, &held, NOW + HOUR * 2);
    let mut accounts = applied(&[&begun, &held, &closed]);
    let before = accounts.balances().clone();
    let broken = (closed.hash(), other.hash());
    let refused = accounts.apply(&certify(&other, 1));
    assert_eq!(refused, Err(Refused::Broken(broken.0, broken.1)));
    assert_eq!((accounts.broken(), accounts.balances()), (Some(broken), &before));
    let mut rewards = applied(&[&begun, &held, &closed, &mature(2, &[&held])]);
    assert!(rewards.apply(&certify(&forfeit(3, 2, &[&held]), 1)).is_err());
}

#[test]
fn ends_that_are_not_their_authors_or_over_what_is_held_do_nothing() {
    let [begun, held, _] = history();
    let too_much = close(1, 2, &held, 1, Credits::whole(5));
    let others = close(1, 3, &held, 1, Credits::whole(1));
    let others_receipt = close(3, 2, &held, 1, Credits::whole(1));
    let others_lapse = lapse(2, &held, NOW + HOUR * 2);
    for end in [too_much, others, others_receipt, others_lapse] {
        assert_eq!(credits(&applied(&[&begun, &held, &end]), 1), [6, 4, 0]);
    }
}
