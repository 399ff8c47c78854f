//! What agrees with what.

use proptest::prelude::*;

use super::*;
use crate::compare::{Generated, distance, generation, outputs};

fn vector(numbers: &[f32]) -> Output {
    Output {
        bytes: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        units: Units::default(),
    }
}

/// Two vectors of 1 and of a certain angle and length beside it.
fn beside(angle: f64, length: f64) -> [Output; 2] {
    let cosine = 1.0 - angle;
    let sine = (1.0 - cosine * cosine).sqrt();
    [
        vector(&[1.0, 0.0]),
        vector(&[(length * cosine) as f32, (length * sine) as f32]),
    ]
}

fn embed(classes: [&str; 2], outputs: &[Output; 2]) -> Option<f64> {
    let [one, other] = classes.map(class);
    distance(Workload::Embed, (&one, &outputs[0]), (&other, &outputs[1]))
}

#[test]
fn vectors_agree_within_the_tolerance_of_their_classes() {
    let agrees = |classes, angle, length| embed(classes, &beside(angle, length)).unwrap() <= 1.0;
    for (classes, angle, length) in [
        (["f32", "f32"], 1e-5, 1e-3),
        (["f32", "bf16"], 1e-3, 1e-2),
        (["bf16", "bf16"], 1e-3, 1e-2),
        (["int8:a@1", "int8:a@1"], 1e-5, 1e-3),
    ] {
        assert!(agrees(classes, 0.0, 1.0));
        assert!(agrees(classes, angle * 0.9, 1.0));
        assert!(!agrees(classes, angle * 1.1, 1.0));
        assert!(agrees(classes, 0.0, 1.0 + length * 0.9));
        assert!(!agrees(classes, 0.0, 1.0 + length * 1.1));
    }
    // What 8-bit integers make of a vector is far from what they are to stand for.
    assert!(!agrees(["f32", "bf16"], 1.0 - 0.945, 1.0));
    assert_eq!(embed(["f32", "int8:a@1"], &beside(0.0, 1.0)), None);
    assert_eq!(embed(["int8:a@1", "int8:a@2"], &beside(0.0, 1.0)), None);
}

#[test]
fn what_is_no_vector_of_that_shape_agrees_with_nothing() {
    let fine = vector(&[1.0, 0.0]);
    let mut counted = fine.clone();
    counted.units.input = 1;
    let odd = Output {
        bytes: vec![0; 7],
        units: Units::default(),
    };
    for other in [
        vector(&[1.0]),
        vector(&[1.0, 0.0, 0.0]),
        vector(&[]),
        vector(&[f32::NAN, 0.0]),
        vector(&[f32::INFINITY, 0.0]),
        vector(&[0.0, 0.0]),
        vector(&[-1.0, 0.0]),
        counted,
        odd,
    ] {
        let by = embed(["f32", "f32"], &[fine.clone(), other.clone()]).unwrap();
        assert!(by > 1.0, "{other:?}");
    }
    let zero = vector(&[0.0, 0.0]);
    assert_eq!(embed(["f32", "f32"], &[zero.clone(), zero]), Some(0.0));
    let large = vector(&[f32::MAX, f32::MAX]);
    assert!(embed(["f32", "f32"], &[large.clone(), large]).unwrap() < 1e-3);
}

#[test]
fn scores_agree_within_their_tolerance() {
    let by = |one: f32, other: f32| {
        let class = class("f32");
        distance(Workload::Rerank, (&class, &vector(&[one])), (&class, &vector(&[other]))).unwrap()
    };
    assert!(by(0.5, 0.5009) <= 1.0);
    assert!(by(0.5, 0.5011) > 1.0);
    let class = class("f32");
    let two = vector(&[0.5, 0.5]);
    assert_eq!(
        distance(Workload::Rerank, (&class, &two), (&class, &two)),
        Some(f64::INFINITY)
    );
}

#[test]
fn every_item_has_to_agree_and_the_worst_is_named() {
    let texts = ["a", "b", "c", "d"];
    let class = class("f32");
    let right = honest(&texts);
    let compare = |other: &[Output]| outputs(Workload::Embed, (&class, &right), (&class, other));
    assert_eq!(compare(&right), Agreement::Agree);
    let mut wrong = right.clone();
    wrong[1] = embedded("x");
    assert!(matches!(compare(&wrong), Agreement::Differ { item: 1, by } if by > 1.0));
    wrong[2].bytes.pop();
    assert_eq!(
        compare(&wrong),
        Agreement::Differ {
            item: 2,
            by: f64::INFINITY
        }
    );
    assert_eq!(compare(&right[1..]), Agreement::Inconclusive);
    let other = super::class("int8:a@1");
    let compared = outputs(Workload::Embed, (&class, &right), (&other, &right));
    assert_eq!(compared, Agreement::Inconclusive);
}

/// A text of `same` tokens that both have, with what stands behind them.
fn texts(same: usize, worker: &[u32], verifier: &[Generated<u32>]) -> Agreement {
    let common = 0..same as u32;
    let theirs: Vec<u32> = common.clone().chain(worker.iter().copied()).collect();
    let ours = common.map(|token| Generated {
        token,
        likely: Vec::new(),
    });
    let ours: Vec<_> = ours.chain(verifier.iter().cloned()).collect();
    generation(&theirs, &ours)
}

fn at(token: u32, likely: &[(u32, f32)]) -> [Generated<u32>; 1] {
    [Generated {
        token,
        likely: likely.to_vec(),
    }]
}

#[test]
fn greedy_texts_agree_up_to_a_near_tie() {
    let near = at(900, &[(900, -0.1), (901, -0.7)]);
    let far = at(900, &[(900, -0.1), (901, -0.9)]);
    let unknown = at(900, &[(900, -0.1), (902, -0.2)]);
    let silent = at(900, &[]);
    assert_eq!(texts(5, &[], &[]), Agreement::Agree);
    assert_eq!(texts(32, &[901], &near), Agreement::Agree);
    // Half of the worker's text is enough, where it is short.
    assert_eq!(texts(3, &[901, 1, 2], &near), Agreement::Agree);
    assert_eq!(texts(3, &[901, 1, 2, 3], &near), Agreement::Inconclusive);
    for step in [&far, &unknown] {
        assert!(matches!(texts(100, &[901], step), Agreement::Differ { .. }));
    }
    assert_eq!(texts(31, &[901], &silent), Agreement::Inconclusive);
    assert_eq!(texts(32, &[901], &silent), Agreement::Agree);
}

#[test]
fn who_stops_early_agrees_with_nobody() {
    let more = at(900, &[(900, -0.1)]);
    assert_eq!(texts(100, &[], &more), Agreement::Inconclusive);
    assert_eq!(texts(100, &[900], &[]), Agreement::Inconclusive);
}

proptest! {
    #[test]
    fn distance_is_the_same_both_ways_and_nothing_from_itself(
        one in prop::collection::vec(-1e3_f32..1e3, 1..8),
        other in prop::collection::vec(-1e3_f32..1e3, 1..8),
        precisions in prop::sample::select(vec![["f32", "f32"], ["f32", "bf16"], ["bf16", "bf16"]]),
    ) {
        let (one, other) = (vector(&one), vector(&other));
        let by = embed(precisions, &[one.clone(), other.clone()]);
        prop_assert_eq!(by, embed([precisions[1], precisions[0]], &[other.clone(), one.clone()]));
        prop_assert!(embed(precisions, &[one.clone(), one]).unwrap() < 1e-6);
        prop_assert!(embed(precisions, &[other.clone(), other]).unwrap() < 1e-6);
    }

    #[test]
    fn whatever_comes_is_compared_without_harm(one: Vec<u8>, other: Vec<u8>) {
        let class = class("f32");
        let output = |bytes| Output { bytes, units: Units::default() };
        for workload in [Workload::Embed, Workload::Rerank] {
            let by = distance(workload, (&class, &output(one.clone())), (&class, &output(other.clone()))).unwrap();
            prop_assert!(by >= 0.0);
        }
    }
}
