//! Whole forwards: against f64, and of every product, level and number of threads against each other.

use std::time::{Duration, Instant};

use super::naive::Naive;
use crate::class::Arithmetic;
use crate::engine::Control;
use crate::error::InferError;
use crate::limits::Limits;
use crate::model::Model;
use crate::tiny::{self, Tiny};
use crate::tokenize::{Cut, Tokens};

fn tokens(ids: &[u32]) -> Tokens {
    Tokens {
        ids: ids.to_vec(),
        cut: false,
    }
}

fn all() -> Vec<Tokens> {
    tiny::texts().iter().map(|ids| tokens(ids)).collect()
}

/// 1 − cosine.
fn apart(right: &[f64], found: &[f32]) -> f64 {
    let dot: f64 = right.iter().zip(found).map(|(a, b)| a * f64::from(*b)).sum();
    let right: f64 = right.iter().map(|x| x * x).sum();
    let found: f64 = found.iter().map(|x| f64::from(*x).powi(2)).sum();
    1.0 - dot / (right * found).sqrt()
}

#[test]
fn a_forward_is_that_of_the_same_network_in_f64_but_for_a_hundred_thousandth() {
    let engine = tiny::plain();
    let model = Tiny::new().load(&engine);
    let naive = Naive {
        shape: model.shape().clone(),
        tensors: tiny::tensors(),
    };
    let texts = all();
    let found = model.embed(&engine, &texts, &Control::default()).unwrap();
    for (text, found) in texts.iter().zip(found.rows()) {
        let apart = apart(&naive.embed(&text.ids), found);
        assert!(apart < 1e-5, "{} tokens: {apart:e}", text.ids.len());
        let length: f64 = found.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6);
    }
}

/// A trained network, which is too large to be kept beside the tests: all-MiniLM-L6-v2, or another that pools by mean.
#[test]
#[ignore = "needs the folder of a model in DAWN_TEST_MODEL"]
fn a_trained_network_is_that_of_f64_but_for_a_ten_thousandth_and_the_same_with_every_product() {
    let folder = std::path::PathBuf::from(std::env::var_os("DAWN_TEST_MODEL").expect("DAWN_TEST_MODEL is set"));
    let engine = tiny::plain();
    let model = Model::load(&engine, &folder, Arithmetic::I16, Limits::default()).unwrap();
    model.examine(&engine).unwrap();
    let naive = Naive {
        shape: model.shape().clone(),
        tensors: tiny::read_tensors(&folder),
    };
    let texts = [
        "This is an example sentence",
        "Each sentence is converted",
        "?",
        "The quick brown fox jumps over the lazy dog. Where does the sun rise, and why does nobody ask?",
        "fn main() { println!(\"{}\", 1 + 1); }",
        "Привет, как дела? 人工智能改变世界。",
        &"no ".repeat(60),
    ];
    let tokens: Vec<Tokens> = texts
        .iter()
        .map(|text| model.tokenize(text, Cut::End).unwrap())
        .collect();
    let right = model.embed(&engine, &tokens, &Control::default()).unwrap();
    for ((text, tokens), found) in texts.iter().zip(&tokens).zip(right.rows()) {
        let apart = apart(&naive.embed(&tokens.ids), found);
        assert!(apart < 1e-4, "{text}: {apart:e}");
    }
    for engine in tiny::engines() {
        let found = model.embed(&engine, &tokens, &Control::default()).unwrap();
        assert!(
            found.to_bytes() == right.to_bytes(),
            "{} {}",
            engine.product(),
            engine.level().name()
        );
    }
}

#[test]
fn every_product_level_and_number_of_threads_gives_the_same_bits_alone_and_in_a_batch() {
    let tiny = Tiny::new();
    let texts = all();
    let plain = tiny::plain();
    let right = tiny
        .load(&plain)
        .embed(&plain, &texts, &Control::default())
        .unwrap()
        .to_bytes();
    for engine in tiny::engines() {
        let model = tiny.load(&engine);
        let name = format!("{} {} {}", engine.product(), engine.level().name(), engine.threads());
        let batch = model.embed(&engine, &texts, &Control::default()).unwrap().to_bytes();
        assert!(batch == right, "{name}: a batch");
        let mut alone = Vec::new();
        for text in &texts {
            alone.extend(
                model
                    .embed(&engine, std::slice::from_ref(text), &Control::default())
                    .unwrap()
                    .to_bytes(),
            );
        }
        assert!(alone == right, "{name}: alone");
        let reversed: Vec<Tokens> = texts.iter().rev().cloned().collect();
        let mut reversed = model.embed(&engine, &reversed, &Control::default()).unwrap();
        let rows: Vec<f32> = reversed
            .values
            .chunks(reversed.dimensions)
            .rev()
            .flatten()
            .copied()
            .collect();
        reversed.values = rows;
        assert!(reversed.to_bytes() == right, "{name}: in another order");
    }
}

/// A fingerprint is the same on every machine, whatever wrote the files.
#[test]
fn the_fingerprint_of_the_tiny_model_is_what_it_was() {
    const CLASS: &str = "c3d10b33242077e605b06d2524b3db5ff895450ad0e2870cda0a770fb6b24525/i16.1";
    let engine = tiny::plain();
    assert_eq!(Tiny::new().load(&engine).class().to_string(), CLASS);
}

#[test]
fn work_that_is_cancelled_or_late_ends_with_an_error() {
    let engine = tiny::plain();
    let model = Tiny::new().load(&engine);
    let control = Control::default();
    control.cancel.cancel();
    assert_eq!(model.embed(&engine, &all(), &control), Err(InferError::Cancelled));
    let past = Instant::now().checked_sub(Duration::from_millis(1));
    let control = Control {
        deadline: past,
        ..Control::default()
    };
    assert_eq!(model.embed(&engine, &all(), &control), Err(InferError::Late));
}

#[test]
fn no_texts_have_no_vectors() {
    let engine = tiny::plain();
    let model = Tiny::new().load(&engine);
    assert_eq!(model.embed(&engine, &[], &Control::default()).unwrap().rows().len(), 0);
}
