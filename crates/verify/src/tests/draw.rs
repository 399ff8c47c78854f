//! Who draws, how often, and in which order verifiers are asked.

use std::collections::BTreeSet;

use super::*;
use crate::draw::place;
use crate::vrf::{Beta, Proof};

fn results(count: u16) -> impl Iterator<Item = ResultId> {
    (0..count).map(|number| ResultId::from_bytes(id::hash("test result", &[&number.to_be_bytes()])))
}

#[test]
fn a_draw_is_the_requesters_over_the_result_and_the_same_for_everybody() {
    let inputs = ["a", "b"];
    let job = job(1, &inputs);
    let result = result(1, &job, &inputs, &honest(&inputs));
    let draw = Draw::make(&key(REQUESTER), &network(), &result.id(), job.asked().rate).unwrap();
    assert_eq!(Draw::verify(draw.proof(), &job, &result), Ok(draw));
    // The worker's own, or the requester's over something else, is none.
    let workers = Draw::make(&key(1), &network(), &result.id(), job.asked().rate).unwrap();
    assert_eq!(Draw::verify(workers.proof(), &job, &result), Err(Refused::BadDraw));
    let others = Draw::make(&key(REQUESTER), &network(), &ResultId::from_bytes([0; 32]), Rate::NEVER).unwrap();
    assert_eq!(Draw::verify(others.proof(), &job, &result), Err(Refused::BadDraw));
    let elsewhere = Draw::make(&key(REQUESTER), &key(9).network_id(), &result.id(), Rate::NEVER).unwrap();
    assert_eq!(Draw::verify(elsewhere.proof(), &job, &result), Err(Refused::BadDraw));
    let another = super::job(2, &inputs);
    assert!(Draw::verify(draw.proof(), &another, &result).is_err());
    assert_eq!(
        Draw::beta_of(&Proof::from_bytes([0; 80]), &node(REQUESTER), &network(), &result.id()),
        Err(Refused::BadDraw)
    );
}

#[test]
fn as_many_are_drawn_as_the_rate_says() {
    let drawn = |rate: Rate| {
        let draws = results(400).map(|result| Draw::make(&key(1), &network(), &result, rate).unwrap());
        draws.filter(Draw::is_drawn).count()
    };
    assert_eq!(drawn(Rate::NEVER), 0);
    assert_eq!(drawn(Rate::ALWAYS), 400);
    // 100 ± 4 standard deviations.
    let quarter = drawn(Rate::of(0.25));
    assert!((65..=135).contains(&quarter), "{quarter} of 400");
}

#[test]
fn a_draw_at_the_border_of_the_rate_is_drawn_below_it_alone() {
    let beta = |first: u64| {
        let mut bytes = [0xff; 64];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        Beta::from_bytes(bytes)
    };
    // The draw itself cannot be chosen; the comparison is of its first eight bytes.
    let rate = Rate(3_277);
    let border = u64::from(rate.0) << 48;
    assert!(rate.draws(&beta(border - 1)));
    assert!(!rate.draws(&beta(border)));
    assert!(!Rate::NEVER.draws(&beta(0)));
    assert!(Rate::ALWAYS.draws(&beta(u64::MAX)));
}

#[test]
fn a_rate_is_a_share() {
    assert_eq!(Rate::of(0.05), Rate(3_277));
    assert_eq!(Rate::of(0.0), Rate::NEVER);
    assert_eq!(Rate::of(-1.0), Rate::NEVER);
    for beyond in [1.0, 7.0, f64::NAN, f64::INFINITY] {
        assert_eq!(Rate::of(beyond), Rate::ALWAYS);
    }
    assert_eq!(Rate::ALWAYS.share(), 1.0);
    assert!((Rate::of(0.05).share() - 0.05).abs() < 1e-5);
}

#[test]
fn the_order_is_of_the_draw_and_not_of_the_candidates() {
    let candidates: Vec<NodeId> = (1..=50).map(node).collect();
    let mut firsts = BTreeSet::new();
    for result in results(40) {
        let draw = Draw::make(&key(REQUESTER), &network(), &result, Rate::ALWAYS).unwrap();
        let ordered = draw.order(&candidates);
        assert_eq!(ordered, draw.order(candidates.iter().rev().chain(&candidates)));
        assert_eq!(ordered.iter().collect::<BTreeSet<_>>(), candidates.iter().collect());
        assert!(ordered.is_sorted_by_key(|node| place(draw.beta(), node)));
        // Who is left out moves nobody else.
        let without = draw.beta().order(ordered.iter().skip(1));
        assert_eq!(without, ordered[1..]);
        firsts.insert(ordered[0]);
    }
    // 40 draws among 50 come to 28 different ones on average.
    assert!(firsts.len() > 18, "{} of 50 stood first in 40 draws", firsts.len());
}
