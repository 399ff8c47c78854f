//! What a witness acknowledges, and what it does not.

use super::*;

const FOUR: u8 = 4;

/// One of four witnesses.
fn witness() -> Witness {
    Witness::new(terms(FOUR))
}

fn take(witness: &mut Witness, entries: &[&Entry], at: UnixTime) {
    for entry in entries {
        witness.certified(&certify(entry, FOUR), at).unwrap();
    }
}

fn ask(witness: &mut Witness, entry: &Entry, now: UnixTime) -> Considered {
    witness.consider(entry, &[], &member(), now)
}

fn acknowledged(entry: &Entry, at: UnixTime) -> Considered {
    Considered::Acknowledge(Lock {
        entry: entry.clone(),
        at,
    })
}

fn refuses(witness: &mut Witness, entry: &Entry, now: UnixTime) -> &'static str {
    match ask(witness, entry, now) {
        Considered::Refuse(refused) => refused.code(),
        other => panic!("{other:?}"),
    }
}

fn history() -> [Entry; 3] {
    let begun = open(1, Credits::whole(10));
    let held = hold(1, 1, &begun, 2, Credits::whole(4));
    let closed = close(1, 2, &held, 30, Credits::whole(3));
    [begun, held, closed]
}

#[test]
fn an_entry_is_acknowledged_again_and_another_of_its_place_is_not() {
    let mut witness = witness();
    let begun = open(1, Credits::whole(10));
    let other = open(1, Credits::whole(9));
    assert_eq!(ask(&mut witness, &begun, NOW), acknowledged(&begun, NOW));
    assert_eq!(ask(&mut witness, &begun, NOW + HOUR), acknowledged(&begun, NOW));
    let locked = Lock {
        entry: begun.clone(),
        at: NOW,
    };
    assert_eq!(ask(&mut witness, &other, NOW), Considered::Locked(locked));
    assert!(begun.contradicts(&other) && !begun.contradicts(&begun));
    // A quorum decided otherwise.
    take(&mut witness, &[&other], NOW);
    assert_eq!(ask(&mut witness, &begun, NOW), Considered::Settled(other.hash()));
    assert_eq!(ask(&mut witness, &other, NOW), Considered::Settled(other.hash()));
}

#[test]
fn a_lock_outlives_a_crash_and_a_certificate_comes_before_it() {
    let begun = open(1, Credits::whole(10));
    let other = open(1, Credits::whole(9));
    let lock = Lock {
        entry: begun.clone(),
        at: NOW,
    };
    let mut witness = witness();
    witness.restore(&lock);
    assert_eq!(witness.lock(&begun.places()[0]), Some(&lock));
    assert_eq!(ask(&mut witness, &other, NOW), Considered::Locked(lock.clone()));
    let mut witness = self::witness();
    take(&mut witness, &[&other], NOW);
    witness.restore(&lock);
    assert_eq!(witness.lock(&begun.places()[0]), None);
}

#[test]
fn an_account_begins_with_what_its_role_is_granted() {
    let mut witness = witness();
    let more = open(1, Credits::whole(11));
    assert_eq!(refuses(&mut witness, &more, NOW), "wrong_grant");
    // Where one honest witness took it, under an earlier policy, it can be finished.
    let acks: Vec<Ack> = witness_keys(2)
        .iter()
        .map(|key| Ack::sign(key, &more.hash(), &terms(FOUR)))
        .collect();
    let mut considered = |acks: &[Ack]| witness.consider(&more, acks, &member(), NOW);
    assert!(matches!(considered(&acks[..1]), Considered::Refuse(_)));
    assert!(matches!(considered(&[acks[0], acks[0]]), Considered::Refuse(_)));
    assert_eq!(considered(&acks), acknowledged(&more, NOW));
    let own = open(2, Credits::whole(100));
    let roles = Some(Roles::from(Role::Owner));
    let considered = witness.consider(&own, &[], &Standing { roles, ..member() }, NOW);
    assert_eq!(considered, acknowledged(&own, NOW));
}

#[test]
fn strangers_other_networks_and_the_future_are_refused() {
    let mut witness = witness();
    let begun = open(1, Credits::whole(10));
    let stranger = Standing {
        roles: None,
        ..member()
    };
    let considered = witness.consider(&begun, &[], &stranger, NOW);
    assert_eq!(considered, Considered::Refuse(Refused::NotAMember(node(1))));
    let before = UnixTime(NOW.0 - 121);
    assert_eq!(refuses(&mut witness, &begun, before), "from_the_future");
    assert_eq!(
        ask(&mut witness, &begun, before + MINUTE),
        acknowledged(&begun, before + MINUTE)
    );
    let lapse = What::Lapse { hold: begun.hash() };
    let elsewhere = Entry::sign(&key(1), key(251).network_id(), lapse, NOW).unwrap();
    assert_eq!(refuses(&mut witness, &elsewhere, NOW), "wrong_network");
}

#[test]
fn a_hold_follows_the_certified_head_and_what_is_free() {
    let mut witness = witness();
    let [begun, held, _] = history();
    assert_eq!(
        ask(&mut witness, &held, NOW),
        Considered::Missing(Missing::Account(node(1), 0))
    );
    take(&mut witness, &[&begun], NOW);
    let too_much = hold(1, 1, &begun, 2, Credits::from_millionths(10_000_001));
    assert_eq!(refuses(&mut witness, &too_much, NOW), "insufficient_credit");
    let elsewhere = hold(1, 1, &held, 2, Credits::whole(1));
    assert_eq!(refuses(&mut witness, &elsewhere, NOW), "gap");
    assert_eq!(ask(&mut witness, &held, NOW), acknowledged(&held, NOW));
    let second = hold(1, 2, &held, 3, Credits::whole(6));
    assert_eq!(
        ask(&mut witness, &second, NOW),
        Considered::Missing(Missing::Account(node(1), 1))
    );
    take(&mut witness, &[&held], NOW);
    assert_eq!(ask(&mut witness, &second, NOW), acknowledged(&second, NOW));
    let spent_twice = Standing {
        spent_twice: true,
        ..member()
    };
    let third = hold(1, 2, &held, 4, Credits::whole(1));
    take(&mut witness, &[&second], NOW);
    assert_eq!(ask(&mut witness, &third, NOW), Considered::Settled(second.hash()));
    let third = hold(1, 3, &second, 4, Credits::whole(1));
    let considered = witness.consider(&third, &[], &spent_twice, NOW);
    assert_eq!(considered, Considered::Refuse(Refused::DoubleSpend(node(1))));
}

#[test]
fn a_hold_that_comes_late_is_acknowledged_all_the_same() {
    // Some may have acknowledged it in time, and nothing could follow it.
    let mut witness = witness();
    let [begun, held, _] = history();
    take(&mut witness, &[&begun], NOW);
    let late = NOW + HOUR * 5;
    assert_eq!(ask(&mut witness, &held, late), acknowledged(&held, late));
    take(&mut witness, &[&held], late);
    let lapse = lapse(1, &held, late);
    assert_eq!(ask(&mut witness, &lapse, late), acknowledged(&lapse, late));
}

#[test]
fn a_close_is_the_payees_with_the_payers_receipt_in_time() {
    let mut witness = witness();
    let [begun, held, closed] = history();
    assert_eq!(
        ask(&mut witness, &closed, NOW),
        Considered::Missing(Missing::Hold(held.hash()))
    );
    // The certificate of the hold alone will do.
    take(&mut witness, &[&held], NOW);
    let over = close(1, 2, &held, 1, Credits::whole(5));
    assert_eq!(refuses(&mut witness, &over, NOW), "over_hold");
    assert_eq!(
        refuses(&mut witness, &close(1, 3, &held, 1, Credits::whole(1)), NOW),
        "not_payee"
    );
    assert_eq!(
        refuses(&mut witness, &close(3, 2, &held, 1, Credits::whole(1)), NOW),
        "not_payee"
    );
    let quarantined = Standing {
        is_quarantined: true,
        ..member()
    };
    let considered = witness.consider(&closed, &[], &quarantined, NOW);
    assert_eq!(considered, Considered::Refuse(Refused::Quarantined(node(2))));
    let expired = NOW + HOUR;
    assert_eq!(refuses(&mut witness, &closed, expired), "hold_expiring");
    let acks: Vec<Ack> = witness_keys(2)
        .iter()
        .map(|key| Ack::sign(key, &closed.hash(), &terms(FOUR)))
        .collect();
    let considered = witness.consider(&closed, &acks[..1], &member(), expired);
    assert_eq!(considered, Considered::Refuse(Refused::Expired(expired)));
    let considered = witness.consider(&closed, &acks, &member(), expired);
    assert_eq!(considered, acknowledged(&closed, expired));
    take(&mut witness, &[&begun, &closed], expired);
    assert_eq!(witness.accounts().free(&node(1)), Credits::whole(7));
}

#[test]
fn a_lapse_is_the_payers_after_the_grace_and_gives_way_to_a_close() {
    let mut witness = witness();
    let [begun, held, closed] = history();
    let lapse = lapse(1, &held, NOW);
    assert_eq!(
        ask(&mut witness, &lapse, NOW),
        Considered::Missing(Missing::Hold(held.hash()))
    );
    take(&mut witness, &[&begun, &held], NOW);
    let early = NOW + HOUR + MINUTE * 9;
    assert_eq!(refuses(&mut witness, &lapse, early), "too_early");
    let others = self::lapse(2, &held, NOW);
    assert_eq!(refuses(&mut witness, &others, early + MINUTE), "not_payee");
    let mut other = witness.clone();
    assert_eq!(
        ask(&mut witness, &lapse, early + MINUTE),
        acknowledged(&lapse, early + MINUTE)
    );
    assert!(matches!(ask(&mut witness, &closed, NOW), Considered::Locked(_)));
    assert_eq!(ask(&mut other, &closed, NOW), acknowledged(&closed, NOW));
    let locked = Lock {
        entry: closed.clone(),
        at: NOW,
    };
    assert_eq!(ask(&mut other, &lapse, early + MINUTE), Considered::Locked(locked));
}

/// Two holds of node 1 for node 2, closed: the first when it is `NOW`, the second at `second`.
fn two_rewards(witness: &mut Witness, count: u64, second: UnixTime) -> [Entry; 2] {
    let begun = open(1, Credits::whole(10));
    let first_held = hold(1, 1, &begun, 2, Credits::whole(4));
    let second_held = hold(1, 2, &first_held, 2, Credits::whole(4));
    let closes = [
        close(1, 2, &first_held, 1, Credits::whole(1)),
        close(1, 2, &second_held, count, Credits::whole(1)),
    ];
    take(witness, &[&begun, &first_held, &second_held, &closes[0]], NOW);
    take(witness, &[&closes[1]], second);
    [first_held, second_held]
}

#[test]
fn a_reward_matures_when_it_is_old_and_newer_ones_exist() {
    let mut witness = witness();
    let soon = NOW + MINUTE;
    let [first, second] = two_rewards(&mut witness, 25, soon);
    let matured = mature(2, &[&first]);
    assert_eq!(refuses(&mut witness, &matured, NOW + MINUTE * 59), "too_early");
    assert_eq!(refuses(&mut witness, &mature(2, &[&second]), soon + HOUR), "immature");
    assert_eq!(refuses(&mut witness, &mature(3, &[&first]), NOW + HOUR), "not_payee");
    let unknown = Considered::Missing(Missing::Hold(matured.hash()));
    assert_eq!(ask(&mut witness, &mature(2, &[&matured]), NOW), unknown);
    assert_eq!(
        ask(&mut witness, &matured, NOW + HOUR),
        acknowledged(&matured, NOW + HOUR)
    );
    // Another entry may say the same, and what is taken back is not given.
    let again = entry(2, matured.what().clone(), NOW + HOUR);
    assert_eq!(ask(&mut witness, &again, NOW + HOUR), acknowledged(&again, NOW + HOUR));
    let forfeited = forfeit(3, 2, &[&first]);
    assert!(matches!(
        ask(&mut witness, &forfeited, NOW + HOUR),
        Considered::Locked(_)
    ));
    take(&mut witness, &[&matured], NOW + HOUR);
    assert_eq!(refuses(&mut witness, &forfeited, NOW + HOUR), "not_payee");
    assert_eq!(witness.accounts().free(&node(2)), Credits::whole(1));
}

#[test]
fn too_few_newer_rewards_or_older_ones_do_not_count() {
    let mut witness = witness();
    let [first, _] = two_rewards(&mut witness, 24, NOW + MINUTE);
    assert_eq!(refuses(&mut witness, &mature(2, &[&first]), NOW + HOUR), "immature");
    // In one second: neither is newer.
    let mut witness = self::witness();
    let [first, _] = two_rewards(&mut witness, 25, NOW);
    assert_eq!(refuses(&mut witness, &mature(2, &[&first]), NOW + HOUR), "immature");
}

#[test]
fn a_forfeit_needs_a_record_and_rewards_that_did_not_mature() {
    let mut witness = witness();
    let [first, second] = two_rewards(&mut witness, 25, NOW + MINUTE);
    let forfeited = forfeit(3, 2, &[&first, &second]);
    let no_record = Standing {
        in_force: &|_, _| false,
        ..member()
    };
    let considered = witness.consider(&forfeited, &[], &no_record, NOW);
    assert_eq!(
        considered,
        Considered::Refuse(Refused::NoRecord(RecordId::from_bytes([6; 32])))
    );
    assert_eq!(refuses(&mut witness, &forfeit(3, 4, &[&first]), NOW), "not_payee");
    assert_eq!(ask(&mut witness, &forfeited, NOW), acknowledged(&forfeited, NOW));
    let matured = mature(2, &[&first]);
    assert!(matches!(ask(&mut witness, &matured, NOW + HOUR), Considered::Locked(_)));
    take(&mut witness, &[&forfeited], NOW);
    assert_eq!(refuses(&mut witness, &matured, NOW + HOUR), "not_payee");
    assert_eq!(witness.accounts().free(&node(1)), Credits::whole(10));
    let quarantined = Standing {
        is_quarantined: true,
        ..member()
    };
    let considered = witness.consider(&mature(2, &[&second]), &[], &quarantined, NOW);
    assert_eq!(considered, Considered::Refuse(Refused::Quarantined(node(2))));
}

#[test]
fn a_broken_ledger_acknowledges_nothing() {
    let mut witness = witness();
    let [begun, held, closed] = history();
    take(&mut witness, &[&begun, &held, &closed], NOW);
    let lapse = lapse(1, &held, NOW);
    assert!(witness.certified(&certify(&lapse, FOUR), NOW).is_err());
    assert_eq!(refuses(&mut witness, &open(3, Credits::whole(10)), NOW), "broken");
}

#[test]
fn terms_change_for_the_same_witnesses_alone() {
    let mut witness = witness();
    let none = || (BTreeMap::new(), BTreeMap::new());
    let same = Terms::new(network(), terms(FOUR).witnesses().clone(), none().0, none().1).unwrap();
    assert!(!witness.set_terms(terms(5)));
    assert_eq!(
        ask(&mut witness, &open(1, Credits::whole(10)), NOW),
        acknowledged(&open(1, Credits::whole(10)), NOW)
    );
    assert!(witness.set_terms(same));
    assert_eq!(refuses(&mut witness, &open(2, Credits::whole(10)), NOW), "wrong_grant");
}
