//! Forks: what one stolen key can do, and what not.

use super::*;

fn both(lock: &mut Lock, parent: StatementId, voters: &[(u8, u32)], change: Change) {
    for (voter, number) in voters {
        give(lock, vote_at(*voter, parent, change, *number).bytes()).unwrap();
    }
}

#[test]
fn a_thief_cannot_bring_back_what_was_decided_by_an_old_vote_of_somebody_honest() {
    let mut lock = lock(&[1, 2, 3], 2);
    let root = lock.last().unwrap();
    // 1 had once voted for another change; then 1 and 2 put the stolen key 3 out.
    both(&mut lock, root, &[(1, 0)], add(9));
    both(&mut lock, root, &[(1, 1), (2, 0)], remove(3));
    assert_eq!(trusted(&lock), [1, 2]);
    // The thief completes the old proposal, whatever number it uses.
    give(&mut lock, vote_at(3, root, add(9), 65_000).bytes()).unwrap();
    assert_eq!(trusted(&lock), [1, 2]);
    let [fork] = &lock.forks()[..] else { panic!("one fork") };
    assert_eq!((fork.parent, fork.lost.len()), (root, 1));
    assert_eq!(fork.twice, [key(1).node_id()].into());
}

#[test]
fn a_key_that_votes_for_both_branches_at_once_counts_in_neither() {
    let mut lock = lock(&[1, 2, 3], 2);
    let root = lock.last().unwrap();
    both(&mut lock, root, &[(1, 0), (3, 0)], add(4));
    both(&mut lock, root, &[(2, 0), (3, 0)], add(5));
    let support = |lock: &Lock| lock.state().unwrap().keys.len();
    assert_eq!(support(&lock), 4);
    let first = lock.last().unwrap();
    // Whoever is honest goes on from what counts; then nothing that 3 signs turns it round.
    let voter = if trusted(&lock).contains(&4) { 2 } else { 1 };
    vote(&mut lock, 1, remove(3)).unwrap();
    vote(&mut lock, 2, remove(3)).unwrap();
    let _ = voter;
    for number in [1, 500, 65_535] {
        for change in [add(4), add(5)] {
            let _ = give(&mut lock, vote_at(3, root, change, number).bytes());
        }
    }
    assert_eq!(lock.log()[1].id, first);
    assert!(!trusted(&lock).contains(&3));
}

#[test]
fn two_honest_decisions_at_once_end_alike_everywhere() {
    let start = lock(&[1, 2, 3, 4], 2);
    let root = start.last().unwrap();
    let votes = [
        vote_at(1, root, add(5), 0),
        vote_at(2, root, add(5), 0),
        vote_at(3, root, remove(1), 0),
        vote_at(4, root, remove(1), 0),
    ];
    let (mut one, mut other) = (start.clone(), start);
    votes.iter().for_each(|vote| drop(give(&mut one, vote.bytes())));
    votes.iter().rev().for_each(|vote| drop(give(&mut other, vote.bytes())));
    assert_eq!(one.head(), other.head());
    assert_eq!(one.state(), other.state());
    assert_eq!(trusted(&one), [2, 3, 4], "a removal goes first");
}

#[test]
fn more_keys_win_before_anything_else() {
    let mut lock = lock(&[1, 2, 3, 4, 5], 2);
    let root = lock.last().unwrap();
    both(&mut lock, root, &[(1, 0), (2, 0)], remove(5));
    both(&mut lock, root, &[(3, 0), (4, 0), (5, 0)], add(6));
    assert_eq!(trusted(&lock), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn behind_enough_statements_nothing_is_taken_any_more() {
    let mut lock = lock(&[1, 2, 3], 2);
    let root = lock.last().unwrap();
    both(&mut lock, root, &[(1, 0)], add(9));
    for number in 0..=SETTLED as u8 {
        let change = if number % 2 == 0 { add(20) } else { remove(20) };
        vote(&mut lock, 1, change).unwrap();
        vote(&mut lock, 2, change).unwrap();
    }
    let late = vote_at(3, root, add(9), 900);
    assert_eq!(give(&mut lock, late.bytes()), Err(Refused::Settled));
    assert_eq!(lock.log().len(), 2 + SETTLED);
    let kept = lock.statements();
    let (read, refused) = Lock::load(network(), kept.iter().map(|bytes| &bytes[..]));
    assert_eq!((read.head(), refused), (lock.head(), vec![]));
}
