//! The book: how much is checked of whom, who is believed, and what others can add to it.

use proptest::prelude::*;

use super::*;
use crate::trust::{PROVEN, QUARANTINE, Shown};
use crate::vrf::Beta;

const EMBED: Workload = Workload::Embed;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn book() -> Book {
    Book::new(Rate::of(0.05))
}

/// A book in which a node agreed so many times, at once.
fn agreed(node_seed: u8, times: u32) -> Book {
    let mut book = book();
    agrees(&mut book, node_seed, times);
    book
}

fn agrees(book: &mut Book, node_seed: u8, times: u32) {
    for _ in 0..times {
        book.observe(node(node_seed), EMBED, Observed::Agreed, NOW);
    }
}

fn rate(book: &Book, seed: u8) -> Rate {
    book.rate(&node(seed), EMBED, NOW)
}

#[test]
fn all_of_a_newcomer_is_checked_and_then_ever_less_down_to_the_floor() {
    for times in 0..PROVEN {
        let book = agreed(1, times);
        assert_eq!(rate(&book, 1), Rate::ALWAYS);
        assert!(!book.is_proven(&node(1), EMBED, NOW));
    }
    for (times, share) in [(10, 0.1), (15, 1.0 / 15.0), (20, 0.05), (1_000, 0.05)] {
        let book = agreed(1, times);
        assert_eq!(rate(&book, 1), Rate::of(share));
        assert!(book.is_proven(&node(1), EMBED, NOW));
    }
    // In another kind of work it is a newcomer still.
    assert_eq!(agreed(1, 50).rate(&node(1), Workload::Rerank, NOW), Rate::ALWAYS);
    // A network may check all of everybody.
    let mut strict = Book::new(Rate::ALWAYS);
    agrees(&mut strict, 1, 50);
    assert_eq!(rate(&strict, 1), Rate::ALWAYS);
}

#[test]
fn one_wrong_output_makes_a_newcomer_again() {
    let mut book = agreed(1, 50);
    let before = book.score(&node(1), EMBED, NOW);
    book.observe(node(1), EMBED, Observed::Wrong, NOW);
    assert_eq!(rate(&book, 1), Rate::ALWAYS);
    assert!(book.score(&node(1), EMBED, NOW) < before);
    assert!(!book.is_quarantined(&node(1), NOW));
    agrees(&mut book, 1, PROVEN);
    // It is checked less again, but is not believed: too much speaks against it.
    assert!(rate(&book, 1) < Rate::ALWAYS);
    assert!(!book.is_proven(&node(1), EMBED, NOW));
}

#[test]
fn after_what_stays_open_the_next_five_are_checked_and_then_it_is_as_before() {
    let mut book = agreed(1, 30);
    book.observe(node(1), EMBED, Observed::Inconclusive, NOW);
    for _ in 0..5 {
        assert_eq!(rate(&book, 1), Rate::ALWAYS);
        assert!(!book.is_proven(&node(1), EMBED, NOW));
        agrees(&mut book, 1, 1);
    }
    assert_eq!(rate(&book, 1), Rate::of(0.05));
    assert!(book.is_proven(&node(1), EMBED, NOW));
}

#[test]
fn who_is_late_or_fails_is_thought_less_of_and_checked_as_before() {
    for what in [Observed::Late, Observed::Failed] {
        let mut book = agreed(1, 20);
        let (before, seldom) = (book.score(&node(1), EMBED, NOW), rate(&book, 1));
        book.observe(node(1), EMBED, what, NOW);
        assert!(book.score(&node(1), EMBED, NOW) < before);
        assert_eq!(rate(&book, 1), seldom);
    }
    let mut book = agreed(1, 10);
    for _ in 0..6 {
        book.observe(node(1), EMBED, Observed::Late, NOW);
    }
    assert!(!book.is_proven(&node(1), EMBED, NOW));
}

#[test]
fn what_was_seen_fades_and_who_is_not_checked_for_a_month_counts_half() {
    let book = agreed(1, 40);
    let after = |days: u32| {
        let now = NOW + DAY * days;
        (book.rate(&node(1), EMBED, now), book.score(&node(1), EMBED, now))
    };
    assert_eq!(after(29).0, Rate::of(0.05));
    assert_eq!(after(60).0, Rate::of(0.1));
    assert_eq!(after(90).0, Rate::ALWAYS);
    assert!(after(30).1 < after(0).1);
    assert!((after(36_500).1 - 0.5).abs() < 1e-6);
    // Fading twice is fading once for as long, whenever it is looked at.
    let mut looked = book.clone();
    for day in [31, 45, 61, 89] {
        looked.observe(node(1), EMBED, Observed::Late, NOW + DAY * day);
    }
    assert_eq!(looked.rate(&node(1), EMBED, NOW + DAY * 90), after(90).0);
    assert_eq!(looked.rate(&node(1), EMBED, NOW + DAY * 61), Rate::of(0.1));
    // A clock that goes back makes nothing more.
    assert_eq!(book.rate(&node(1), EMBED, UnixTime(0)), Rate::of(0.05));
}

#[test]
fn a_proven_node_stays_proven_while_nothing_speaks_against_it() {
    let book = agreed(1, 20);
    assert!(book.is_proven(&node(1), EMBED, NOW + DAY * 29));
}

#[test]
fn a_record_in_force_is_quarantine_for_thirty_days_in_all_work() {
    let mut book = agreed(1, 50);
    for _ in 0..50 {
        book.observe(node(1), Workload::Rerank, Observed::Agreed, NOW);
    }
    book.observe(node(1), EMBED, Observed::Convicted, NOW);
    let until = NOW + QUARANTINE;
    for workload in [EMBED, Workload::Rerank] {
        assert_eq!(book.score(&node(1), workload, NOW), 0.0);
        assert_eq!(book.rate(&node(1), workload, until), Rate::ALWAYS);
        assert!(!book.is_proven(&node(1), workload, until));
    }
    assert!(book.is_quarantined(&node(1), UnixTime(until.0 - 1)));
    assert!(!book.is_quarantined(&node(1), until));
    assert!(book.score(&node(1), EMBED, until) > 0.0);
    assert!(!book.is_quarantined(&node(2), NOW));
    book.forgive(&node(1));
    assert!(!book.is_quarantined(&node(1), NOW));
    assert_eq!(book.score(&node(1), EMBED, NOW), 0.5);
}

/// Receipts of these payers, each with these verifiers; the draw of each is made so that its verifier stands first.
fn receipts(pairs: &[(u8, u8)]) -> Vec<Shown> {
    let shown = pairs.iter().zip(0_u8..).map(|((payer, verifier), number)| Shown {
        payer: node(*payer),
        verifier: node(*verifier),
        result: ResultId::from_bytes([number; 32]),
        beta: Beta::from_bytes([number; 64]),
    });
    shown.collect()
}

/// How many own checks are still to be made, after these receipts were shown, until not all is checked.
fn still_to_check(book: &Book, shown: &[Shown], candidates: &[NodeId], believed: &dyn Fn(&NodeId) -> bool) -> u32 {
    let mut book = book.clone();
    book.show(node(1), EMBED, shown, candidates, believed, NOW);
    let mut own = 0;
    while rate(&book, 1) == Rate::ALWAYS {
        agrees(&mut book, 1, 1);
        own += 1;
    }
    own
}

#[test]
fn receipts_of_others_count_half_and_at_most_for_five_checks() {
    let anybody = |_: &NodeId| true;
    let verifiers: Vec<NodeId> = (51..56).map(node).collect();
    let many: Vec<(u8, u8)> = (0..15).map(|at| (31 + at % 5, 51 + at / 3)).collect();
    let owed = |pairs: &[(u8, u8)]| still_to_check(&book(), &receipts(pairs), &verifiers, &anybody);
    assert_eq!(owed(&[]), 10);
    assert_eq!(owed(&many[..2]), 9);
    assert_eq!(owed(&many[..8]), 6);
    assert_eq!(owed(&many), 5);
    // Three of one payer, three of one verifier.
    assert_eq!(owed(&[(31, 51), (31, 52), (31, 53), (31, 54), (31, 55)]), 9);
    assert_eq!(owed(&[(31, 51), (32, 51), (33, 51), (34, 51), (35, 51)]), 9);
    // No more than sixteen are looked at.
    let mut late = vec![(1, 51); 16];
    late.extend(&many);
    assert_eq!(owed(&late), 10);
    // What was shown before does not count beside it.
    let mut book = book();
    book.show(node(1), EMBED, &receipts(&many), &verifiers, &anybody, NOW);
    book.show(node(1), EMBED, &receipts(&many[..2]), &verifiers, &anybody, NOW);
    assert_eq!(still_to_check(&book, &receipts(&many[..2]), &verifiers, &anybody), 9);
}

#[test]
fn receipts_count_of_believed_payers_about_others_and_once() {
    let verifiers = [node(51)];
    let nobody = |_: &NodeId| false;
    let pairs = [(31, 51), (32, 51)];
    assert_eq!(still_to_check(&book(), &receipts(&pairs), &verifiers, &nobody), 10);
    // Proven here is believed.
    let mut known = agreed(31, PROVEN);
    agrees(&mut known, 32, PROVEN);
    assert_eq!(still_to_check(&known, &receipts(&pairs), &verifiers, &nobody), 9);
    let anybody = |_: &NodeId| true;
    // One's own word, a verifier that pays, and the same result twice.
    let odd = [(1, 51), (51, 51), (31, 1)];
    assert_eq!(still_to_check(&book(), &receipts(&odd), &verifiers, &anybody), 10);
    let mut twice = receipts(&pairs);
    twice[1].result = twice[0].result;
    twice.push(twice[0]);
    assert_eq!(still_to_check(&book(), &twice, &verifiers, &anybody), 10);
}

#[test]
fn a_verifier_that_the_draw_does_not_name_counts_half_as_much() {
    let anybody = |_: &NodeId| true;
    let pairs = [(31, 51), (32, 51), (33, 52), (34, 52)];
    // As this node sees it there are many candidates, and none of these verifiers.
    let others: Vec<NodeId> = (100..120).map(node).collect();
    assert_eq!(still_to_check(&book(), &receipts(&pairs), &others, &anybody), 9);
    let verifiers = [node(51), node(52)];
    assert_eq!(still_to_check(&book(), &receipts(&pairs), &verifiers, &anybody), 8);
}

#[test]
fn a_book_comes_back_from_what_was_kept() {
    let mut book = agreed(1, 12);
    book.observe(node(2), EMBED, Observed::Convicted, NOW);
    let mut back = super::trust::book();
    for (node, workload, standing) in book.standings() {
        back.restore(*node, workload, *standing);
    }
    for (node, until) in book.quarantined() {
        back.restore_quarantine(*node, until);
    }
    for seed in [1, 2, 3] {
        let both = [&book, &back].map(|book| {
            let of = (node(seed), NOW + DAY);
            (
                book.rate(&of.0, EMBED, of.1),
                book.score(&of.0, EMBED, of.1),
                book.is_quarantined(&of.0, of.1),
            )
        });
        assert_eq!(both[0], both[1]);
    }
}

#[test]
fn the_last_results_of_a_worker_stay_in_doubt_for_a_day() {
    let result = |number: u8| ResultId::from_bytes([number; 32]);
    let mut doubts = Provisional::default();
    for number in 0..100 {
        doubts.took(node(1), result(number), NOW);
    }
    doubts.took(node(2), result(200), NOW);
    let again = doubts.wrong(&node(1), NOW);
    assert_eq!(again, (36..100).map(result).collect::<Vec<_>>());
    assert_eq!(again.len(), DOUBTED);
    assert!(doubts.wrong(&node(1), NOW).is_empty());
    assert_eq!(doubts.clone().wrong(&node(2), UnixTime(NOW.0 + 86_399)), [result(200)]);
    assert!(doubts.wrong(&node(2), NOW + DAY).is_empty());
}

proptest! {
    #[test]
    fn no_history_makes_less_checks_than_ten_in_a_row(
        history in prop::collection::vec((0_u8..6, 0_u64..86_400 * 40), 0..80),
    ) {
        let mut book = book();
        let (mut now, mut row) = (NOW, 0_u32);
        for (what, later) in history {
            now = now + Duration::from_secs(later);
            let what = match what {
                0..=3 => Observed::Agreed,
                4 => Observed::Late,
                _ => Observed::Wrong,
            };
            row = match what {
                Observed::Agreed => row + 1,
                Observed::Wrong => 0,
                _ => row,
            };
            book.observe(node(1), EMBED, what, now);
            let rate = book.rate(&node(1), EMBED, now);
            prop_assert!(rate == Rate::ALWAYS || row >= PROVEN);
            prop_assert!(rate.share() >= 0.0499);
            prop_assert!((0.0..=1.0).contains(&book.score(&node(1), EMBED, now)));
            prop_assert!(!book.is_proven(&node(1), EMBED, now) || row >= PROVEN);
        }
    }
}
