//! Juries: who is found wrong, how often, and after how many were asked.

use super::*;
use crate::jury::{MAX_JURORS, Step, Voice};

fn voice(node_seed: u8, what: &str) -> Voice {
    Voice {
        node: node(node_seed),
        class: class("f32"),
        output: embedded(what),
    }
}

fn jury(first: &str, second: &str) -> Jury {
    Jury::new(Workload::Embed, voice(1, first), voice(2, second))
}

#[test]
fn a_side_wins_when_it_leads_by_three() {
    let mut jury = jury("right", "wrong");
    assert_eq!(jury.step(), Step::Ask);
    assert_eq!(jury.hear(voice(3, "right")), Step::Ask);
    assert_eq!(jury.hear(voice(4, "right")), Step::Ask);
    assert_eq!(jury.hear(voice(5, "right")), Step::Wrong(vec![node(2)]));
}

#[test]
fn who_is_alone_with_an_output_is_wrong_as_well() {
    let mut jury = jury("right", "wrong");
    jury.hear(voice(3, "something else"));
    jury.hear(voice(4, "right"));
    jury.hear(voice(5, "right"));
    let Step::Wrong(mut wrong) = jury.hear(voice(6, "right")) else {
        panic!("{:?}", jury.step());
    };
    wrong.sort();
    let mut expected = vec![node(2), node(3)];
    expected.sort();
    assert_eq!(wrong, expected);
}

#[test]
fn nobody_is_heard_twice() {
    let mut jury = jury("right", "wrong");
    for _ in 0..20 {
        assert_eq!(jury.hear(voice(2, "wrong")), Step::Ask);
        assert_eq!(jury.hear(voice(3, "wrong")), Step::Ask);
        assert_eq!(jury.hear(voice(3, "right")), Step::Ask);
    }
}

#[test]
fn after_seven_jurors_without_a_lead_nobody_is_judged() {
    let mut jury = jury("right", "wrong");
    for juror in 0..MAX_JURORS as u8 {
        let what = if juror % 2 == 0 { "right" } else { "wrong" };
        let step = jury.hear(voice(10 + juror, what));
        let is_last = juror + 1 == MAX_JURORS as u8;
        assert_eq!(step, if is_last { Step::Undecided } else { Step::Ask });
    }
}

#[test]
fn who_stands_between_two_sides_decides_nothing() {
    let at = |seed: u8, angle: f64| Voice {
        output: Output {
            bytes: [angle.cos() as f32, angle.sin() as f32].map(f32::to_le_bytes).concat(),
            units: Units::default(),
        },
        ..voice(seed, "")
    };
    // 1 minus the cosine is half the square of the angle: 1e-5 at 4.47e-3. A liar stands just beyond the tolerance of the
    // right one, so that noise of honest nodes brings some of them within the tolerance of both.
    let mut jury = Jury::new(Workload::Embed, at(1, 0.0), at(2, 5e-3));
    for seed in 3..9 {
        assert_eq!(jury.hear(at(seed, 2.5e-3)), Step::Ask);
    }
    assert_eq!(jury.hear(at(9, 2.5e-3)), Step::Undecided);
    // What cannot be compared says nothing either.
    let mut jury = super::jury::jury("right", "wrong");
    let other = Voice {
        class: class("int8:a@1"),
        ..voice(3, "right")
    };
    jury.hear(other);
    jury.hear(voice(4, "right"));
    assert_eq!(jury.hear(voice(5, "right")), Step::Ask);
    assert_eq!(jury.hear(voice(6, "right")), Step::Wrong(vec![node(2)]));
}

#[test]
fn who_has_the_model_needs_no_jury() {
    let mut jury = jury("right", "wrong");
    jury.hear(voice(3, "wrong"));
    assert_eq!(jury.against(&class("f32"), &embedded("right")), [node(2), node(3)]);
    assert_eq!(jury.against(&class("bf16"), &embedded("wrong")), [node(1)]);
    assert!(jury.against(&class("int8:a@1"), &embedded("right")).is_empty());
}

/// An honest worker is accused by one of five colluders among fifty. Every way in which seven jurors may be drawn of the
/// other 44 and 4, with its probability: how many are asked, how often the honest one loses, how often it stays open.
#[test]
fn an_honest_worker_that_colluders_accuse_loses_hardly_ever() {
    let (mut asked, mut lost, mut open) = (0.0, 0.0, 0.0);
    let mut paths = vec![(jury("right", "wrong"), 1.0, 44_u32, 4_u32, 3_u8)];
    while let Some((jury, chance, honest, liars, seed)) = paths.pop() {
        match jury.step() {
            Step::Ask => {
                for (what, of, left) in [
                    ("right", honest, (honest - 1, liars)),
                    ("wrong", liars, (honest, liars.saturating_sub(1))),
                ] {
                    if of > 0 {
                        let mut next = jury.clone();
                        next.hear(voice(seed, what));
                        let chance = chance * f64::from(of) / f64::from(honest + liars);
                        asked += chance;
                        paths.push((next, chance, left.0, left.1, seed + 1));
                    }
                }
            }
            Step::Wrong(wrong) if wrong == [node(1)] => lost += chance,
            Step::Wrong(_) => {}
            Step::Undecided => open += chance,
        }
    }
    assert!((3.3..3.8).contains(&asked), "{asked} jurors");
    assert!((2e-4..3.5e-4).contains(&lost), "lost with {lost}");
    assert!((5e-3..8e-3).contains(&open), "undecided with {open}");
}
