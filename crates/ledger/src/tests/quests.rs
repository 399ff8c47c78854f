//! Collecting acknowledgements, among witnesses that are away, divided or lie.

use std::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ack(of: u8, entry: &Entry, witnesses: u8) -> Ack {
    Ack::sign(&key(100 + of), &entry.hash(), &terms(witnesses))
}

/// All that a quest wants at a time.
fn wanted(quest: &mut Quest, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| quest.poll(now)).take(10).collect()
}

fn asked(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| matches!(action, Action::Ask(..)))
        .count()
}

#[test]
fn an_entry_is_certified_by_a_quorum_and_nobody_is_asked_twice_at_once() {
    let (entry, now) = (open(1, Credits::whole(10)), Instant::now());
    let mut quest = Quest::new(entry.clone(), &[], &terms(4), now);
    assert_eq!(asked(&wanted(&mut quest, now)), 4);
    assert_eq!(quest.poll(now), None);
    assert_eq!(quest.poll_timeout(), Some(now + SECOND));
    for witness in 0..2 {
        quest
            .answered(node(100 + witness), Answer::Acknowledged(ack(witness, &entry, 4)), now)
            .unwrap();
        assert_eq!(quest.poll(now), None);
    }
    // Those that did not answer are asked again, and shown what there is.
    let again = wanted(&mut quest, now + SECOND);
    assert_eq!(asked(&again), 2);
    assert!(
        again
            .iter()
            .all(|action| matches!(action, Action::Ask(_, shown, None) if shown.len() == 2))
    );
    assert_eq!(quest.poll_timeout(), Some(now + SECOND * 3));
    quest
        .answered(node(103), Answer::Acknowledged(ack(3, &entry, 4)), now)
        .unwrap();
    let Some(Action::Done(certified)) = quest.poll(now) else {
        panic!("a quorum");
    };
    assert_eq!((certified.entry(), certified.certificate().acks().len()), (&entry, 3));
}

#[test]
fn what_no_witness_says_is_refused_and_does_not_count() {
    let (entry, now) = (open(1, Credits::whole(10)), Instant::now());
    let other = open(2, Credits::whole(10));
    let mut quest = Quest::new(entry.clone(), &[ack(0, &other, 4)], &terms(4), now);
    assert!(matches!(quest.poll(now), Some(Action::Ask(_, shown, _)) if shown.is_empty()));
    let mut answer = |by: u8, answer| quest.answered(node(by), answer, now);
    assert!(answer(50, Answer::Acknowledged(ack(0, &entry, 4))).is_err());
    assert!(answer(100, Answer::Acknowledged(ack(1, &entry, 4))).is_err());
    assert!(answer(100, Answer::Acknowledged(ack(0, &other, 4))).is_err());
    assert!(answer(100, Answer::Locked(other.clone(), ack(0, &other, 4))).is_err());
    assert!(answer(100, Answer::Settled(certify(&other, 4))).is_err());
    let twice = open(1, Credits::whole(9));
    assert!(answer(100, Answer::Locked(twice.clone(), ack(1, &twice, 4))).is_err());
    assert!(answer(100, Answer::Locked(entry.clone(), ack(0, &entry, 4))).is_err());
}

#[test]
fn a_witness_is_shown_what_it_misses_at_once_but_not_again_and_again() {
    let (entry, now) = (open(1, Credits::whole(10)), Instant::now());
    let mut quest = Quest::new(entry, &[], &terms(1), now);
    let missing = Missing::Account(node(1), 3);
    assert_eq!(asked(&wanted(&mut quest, now)), 1);
    quest.answered(node(100), Answer::Missing(missing), now).unwrap();
    assert_eq!(wanted(&mut quest, now), [Action::Ask(node(100), vec![], Some(missing))]);
    quest.answered(node(100), Answer::Missing(missing), now).unwrap();
    assert_eq!(wanted(&mut quest, now), []);
    assert_eq!(asked(&wanted(&mut quest, now + SECOND * 2)), 1);
    quest.answered(node(100), Answer::Refused, now).unwrap();
    assert_eq!(wanted(&mut quest, now + SECOND * 2), []);
}

#[test]
fn what_is_settled_ends_it() {
    let (entry, now) = (open(1, Credits::whole(10)), Instant::now());
    let other = certify(&open(1, Credits::whole(9)), 4);
    let mut quest = Quest::new(entry, &[], &terms(4), now);
    quest.answered(node(100), Answer::Settled(other.clone()), now).unwrap();
    assert_eq!(quest.poll(now), Some(Action::Done(other)));
}

#[test]
fn an_author_that_forgot_an_entry_finishes_that_one() {
    let now = Instant::now();
    let (forgotten, entry) = (open(1, Credits::whole(10)), open(1, Credits::whole(9)));
    let mut quest = Quest::new(entry, &[], &terms(4), now);
    quest
        .answered(node(100), Answer::Locked(forgotten.clone(), ack(0, &forgotten, 4)), now)
        .unwrap();
    let Some(Action::Instead(other, acks)) = quest.poll(now) else {
        panic!("its own entry");
    };
    assert_eq!((&other, &acks), (&forgotten, &vec![ack(0, &forgotten, 4)]));
    let mut quest = Quest::new(other, &acks, &terms(4), now);
    assert_eq!(asked(&wanted(&mut quest, now)), 3);
}

/// A hold, a close of it and a lapse.
fn ends() -> (Entry, Entry) {
    let held = hold(1, 1, &open(1, Credits::whole(10)), 2, Credits::whole(4));
    (
        close(1, 2, &held, 1, Credits::whole(1)),
        lapse(1, &held, NOW + HOUR * 2),
    )
}

#[test]
fn a_payer_looks_before_it_takes_back_and_finishes_a_close_that_an_honest_witness_promised() {
    let now = Instant::now();
    let (closed, lapsed) = ends();
    let mut quest = Quest::new(lapsed, &[], &terms(4), now);
    let looks = wanted(&mut quest, now);
    assert!(looks.len() == 4 && looks.iter().all(|action| matches!(action, Action::Look(_))));
    for witness in 0..2 {
        let answer = Answer::Locked(closed.clone(), ack(witness, &closed, 4));
        quest.answered(node(100 + witness), answer, now).unwrap();
        assert_eq!(quest.poll(now), None);
    }
    quest.answered(node(102), Answer::Nothing, now).unwrap();
    let instead = quest.poll(now);
    assert!(matches!(instead, Some(Action::Instead(other, acks)) if other == closed && acks.len() == 2));
}

#[test]
fn a_payer_takes_back_where_one_liar_alone_holds_a_close() {
    let now = Instant::now();
    let (closed, lapsed) = ends();
    let mut quest = Quest::new(lapsed.clone(), &[], &terms(4), now);
    wanted(&mut quest, now);
    quest
        .answered(node(100), Answer::Locked(closed.clone(), ack(0, &closed, 4)), now)
        .unwrap();
    for witness in 1..4 {
        quest.answered(node(100 + witness), Answer::Nothing, now).unwrap();
    }
    assert_eq!(asked(&wanted(&mut quest, now)), 3);
    for witness in 1..4 {
        quest
            .answered(node(100 + witness), Answer::Acknowledged(ack(witness, &lapsed, 4)), now)
            .unwrap();
    }
    assert!(matches!(quest.poll(now), Some(Action::Done(certified)) if *certified.entry() == lapsed));
}

#[test]
fn a_payee_that_came_too_late_learns_that_the_witnesses_are_divided() {
    let now = Instant::now();
    let (closed, lapsed) = ends();
    let mut quest = Quest::new(closed, &[], &terms(4), now);
    for witness in 0..2 {
        let answer = Answer::Locked(lapsed.clone(), ack(witness, &lapsed, 4));
        quest.answered(node(100 + witness), answer, now).unwrap();
    }
    assert_eq!(quest.poll(now), Some(Action::Stuck));
}
