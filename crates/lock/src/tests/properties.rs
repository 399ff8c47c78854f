//! What holds whatever is signed, and in whatever order it comes.

use proptest::prelude::*;

use super::*;

/// One of a few keys votes for one of a few changes behind one of the statements that there are.
#[derive(Clone, Debug)]
struct Step {
    voter: u8,
    what: u8,
    about: u8,
    behind: usize,
    number: u32,
}

fn steps(voters: std::ops::RangeInclusive<u8>, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (voters, 0_u8..5, 1_u8..8, 0_usize..4, 0_u32..6).prop_map(|(voter, what, about, behind, number)| Step {
        voter,
        what,
        about,
        behind,
        number,
    });
    prop::collection::vec(step, 0..most)
}

fn change(step: &Step) -> Change {
    let node = key(step.about).node_id();
    match step.what {
        0 => Change::Add(node),
        1 => Change::Remove(node),
        2 => Change::Rotate {
            from: node,
            to: key(step.about % 7 + 1).node_id(),
        },
        3 => Change::Quorum(step.about),
        _ => Change::Signatures(step.about),
    }
}

/// The votes of the steps: each behind one of the last statements of the log as it was then.
fn votes(lock: &mut Lock, steps: &[Step]) -> Vec<Vote> {
    let mut votes = Vec::new();
    for step in steps {
        let log = lock.log();
        let parent = log[log.len().saturating_sub(1 + step.behind)].id;
        let vote = vote_at(step.voter, parent, change(step), step.number);
        let _ = give(lock, vote.bytes());
        votes.push(vote);
    }
    votes
}

fn shuffled<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut items: Vec<(u64, T)> = items
        .iter()
        .enumerate()
        .map(|(at, item)| {
            (
                (at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17) ^ seed,
                item.clone(),
            )
        })
        .collect();
    items.sort_by_key(|(order, _)| *order);
    items.into_iter().map(|(_, item)| item).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever was signed: in any order, in one piece or many, every replica comes to the same.
    #[test]
    fn any_order_of_arrival_gives_the_same_lock(steps in steps(1..=5, 40), seed: u64, piece in 1_usize..12) {
        let mut first = lock(&[1, 2, 3], 2);
        let votes = votes(&mut first, &steps);
        // What was refused in the meantime because it came too early is offered once more.
        first.take(votes.iter().map(Vote::bytes), NOW, SKEW);
        let mut all: Vec<Vec<u8>> = votes.iter().map(|vote| vote.bytes().to_vec()).collect();
        all.push(genesis(&[1, 2, 3], 2).bytes().to_vec());
        let all = shuffled(&all, seed);
        let mut second = Lock::new(network());
        for _ in 0..all.len() {
            let before = second.head();
            for piece in all.chunks(piece) {
                second.take(piece.iter().map(Vec::as_slice), NOW, SKEW);
            }
            if second.head() == before {
                break;
            }
        }
        prop_assert_eq!(first.state(), second.state());
        prop_assert_eq!(first.log().iter().map(|entry| entry.id).collect::<Vec<_>>(), second.log().iter().map(|entry| entry.id).collect::<Vec<_>>());
        prop_assert_eq!(first.head(), second.head());
        // And once more, from what is kept.
        let kept = first.statements();
        let (third, refused) = Lock::load(network(), kept.iter().map(|bytes| &bytes[..]));
        prop_assert!(refused.is_empty(), "{:?}", refused);
        prop_assert_eq!(third.head(), first.head());
        prop_assert_eq!(third.state(), first.state());
    }

    /// Fewer keys than the quorum change nothing, whatever they sign.
    #[test]
    fn fewer_keys_than_the_quorum_change_nothing(steps in steps(1..=2, 40)) {
        let mut lock = lock(&[1, 2, 3, 4, 5], 3);
        let before = lock.state().cloned();
        votes(&mut lock, &steps);
        prop_assert_eq!(lock.state().cloned(), before);
    }

    /// One thief among three keys, the others agreeing on everything: whatever the thief signs, before and after, the log
    /// is what the others decided.
    #[test]
    fn one_stolen_key_neither_stops_nor_turns_what_the_others_decide(
        before in steps(3..=3, 20), after in steps(3..=3, 20), honest in 1_usize..5,
    ) {
        let mut lock = lock(&[1, 2, 3], 2);
        votes(&mut lock, &before);
        let mut decided = Vec::new();
        for number in 0..honest {
            let change = add(20 + u8::try_from(number).unwrap());
            vote(&mut lock, 1, change).unwrap();
            vote(&mut lock, 2, change).unwrap();
            decided.push(lock.last().unwrap());
            votes(&mut lock, &before);
        }
        votes(&mut lock, &after);
        let log: Vec<StatementId> = lock.log().into_iter().skip(1).map(|entry| entry.id).collect();
        prop_assert_eq!(log, decided);
    }

    /// Bytes of chance and statements with altered bytes are refused, and change nothing.
    #[test]
    fn what_is_not_signed_as_it_is_changes_nothing(bytes in prop::collection::vec(any::<u8>(), 0..600), at: usize, bit in 0_u8..8) {
        let mut lock = lock(&[1, 2], 1);
        let head = lock.head();
        prop_assert!(give(&mut lock, &bytes).is_err());
        let mut altered = vote_at(1, lock.last().unwrap(), add(3), 0).bytes().to_vec();
        let at = at % altered.len();
        altered[at] ^= 1 << bit;
        prop_assert!(give(&mut lock, &altered).is_err());
        prop_assert_eq!(lock.head(), head);
    }
}
