//! Which outputs may be compared.

use super::*;

#[test]
fn a_precision_comes_back_from_its_text_and_nothing_else_is_one() {
    for text in ["f32", "bf16", "int8:q8_0@dawn-1.2", "up:llama.cpp/Q4_K_M@b6123"] {
        assert_eq!(text.parse::<Precision>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "F32",
        "f16",
        "int8",
        "int8:",
        "int8:q8@",
        "int8:@a",
        "int8:a@b@c",
        "int8:a b@c",
        "up:a@b",
        "up:a/b",
        "up:a/b/c@d",
        "up:a/b@c\n",
        "int4:a@b",
    ] {
        assert!(text.parse::<Precision>().is_err(), "{text}");
    }
    let long = format!("int8:a@{}", "b".repeat(MAX_PRECISION_BYTES));
    assert_eq!(long.parse::<Precision>(), Err(Refused::TooLarge));
    for workload in Workload::ALL {
        assert_eq!(workload.name().parse(), Ok(workload));
    }
    assert!("embedding".parse::<Workload>().is_err());
}

#[test]
fn numbers_are_compared_within_what_computes_them_alike() {
    let classes = ["f32", "bf16", "int8:a@1", "int8:a@2", "int8:b@1", "up:e/q@1"].map(class);
    let comparable = |workload| {
        let row = |one: &Class| {
            classes
                .iter()
                .filter(|other| one.is_comparable(other, workload))
                .count()
        };
        classes.iter().map(row).collect::<Vec<_>>()
    };
    assert_eq!(comparable(Workload::Embed), [2, 2, 1, 1, 1, 0]);
    assert_eq!(comparable(Workload::Rerank), [2, 2, 1, 1, 1, 0]);
    assert_eq!(comparable(Workload::Generate), [1; 6]);
    for one in &classes {
        for other in &classes {
            assert_eq!(one.tolerance(other), other.tolerance(one));
        }
    }
    let [f32, bf16, ..] = &classes;
    assert!(f32.tolerance(f32).unwrap().angle < bf16.tolerance(f32).unwrap().angle);
    let other = Class {
        model: ModelDigest::from_bytes([1; 32]),
        ..f32.clone()
    };
    assert!(
        Workload::ALL
            .iter()
            .all(|workload| !f32.is_comparable(&other, *workload))
    );
}
