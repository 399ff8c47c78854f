//! What agrees with what: outputs of one item, and those of a whole part.

use crate::class::{Class, Tolerance, Workload};
use crate::commit::Output;

/// So many tokens in common are enough where the first that differs says nothing.
const ENOUGH: usize = 32;
/// How much less likely a token may be than the best one to be taken for a near tie, nats.
const NEAR: f32 = 0.7;

/// What comes of comparing two outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Agreement {
    /// They say the same.
    Agree,
    /// They do not.
    Differ {
        /// The item in which they are farthest from each other.
        item: u32,
        /// How far, in tolerances: more than 1.
        by: f64,
    },
    /// They cannot be compared, or what differs may differ between two honest nodes.
    Inconclusive,
}

fn numbers(output: &Output) -> Option<Vec<f64>> {
    let (words, rest) = output.bytes.as_chunks::<4>();
    let numbers: Vec<f64> = words.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect();
    let is_fine = rest.is_empty() && !numbers.is_empty() && numbers.iter().all(|number| number.is_finite());
    is_fine.then_some(numbers)
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// How far two vectors are from each other, in tolerances.
fn vectors(one: &[f64], other: &[f64], tolerance: &Tolerance) -> f64 {
    let (a, b) = (dot(one, one).sqrt(), dot(other, other).sqrt());
    if a == 0.0 && b == 0.0 {
        return 0.0;
    }
    if a == 0.0 || b == 0.0 {
        return f64::INFINITY;
    }
    let angle = (1.0 - dot(one, other) / (a * b)).max(0.0);
    let length = (a - b).abs() / a.max(b);
    (angle / tolerance.angle).max(length / tolerance.length)
}

/// How far two outputs of one item are from each other, in tolerances: up to 1 they agree. Infinite where one is no output
/// at all, has another shape, or is counted otherwise. `None` where they cannot be compared, as texts never can here.
pub fn distance(workload: Workload, one: (&Class, &Output), other: (&Class, &Output)) -> Option<f64> {
    let tolerance = match workload {
        Workload::Embed | Workload::Rerank => one.0.tolerance(other.0)?,
        Workload::Generate => return None,
    };
    let (Some(a), Some(b)) = (numbers(one.1), numbers(other.1)) else {
        return Some(f64::INFINITY);
    };
    if one.1.units != other.1.units || a.len() != b.len() {
        return Some(f64::INFINITY);
    }
    match (workload, &a[..], &b[..]) {
        (Workload::Embed, a, b) => Some(vectors(a, b, &tolerance)),
        (_, [a], [b]) => Some((a - b).abs() / tolerance.score),
        _ => Some(f64::INFINITY),
    }
}

/// Compares the outputs of all items of a part. Every item has to agree.
pub fn outputs(workload: Workload, one: (&Class, &[Output]), other: (&Class, &[Output])) -> Agreement {
    if one.1.len() != other.1.len() {
        // Neither can be a result of the same part, which has a number of items.
        return Agreement::Inconclusive;
    }
    let mut worst = (0, 0.0);
    for (item, (a, b)) in (0..).zip(one.1.iter().zip(other.1)) {
        match distance(workload, (one.0, a), (other.0, b)) {
            None => return Agreement::Inconclusive,
            Some(by) if by > worst.1 => worst = (item, by),
            Some(_) => {}
        }
    }
    match worst {
        (item, by) if by > 1.0 => Agreement::Differ { item, by },
        _ => Agreement::Agree,
    }
}

/// One token that a verifier generated, and what it says of those that it might have been.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated<T> {
    /// The token.
    pub token: T,
    /// The likeliest ones, with the logarithms of their probabilities, nats; none where the engine does not tell.
    pub likely: Vec<(T, f32)>,
}

/// Compares two continuations of one prompt, each with the likeliest token at every step. Batches and caches change the
/// numbers a little, so that a near tie may go either way, and all that follows differs: what comes before it counts.
/// It convicts nobody: an engine does not give the same text twice.
pub fn generation<T: PartialEq>(worker: &[T], verifier: &[Generated<T>]) -> Agreement {
    let same = worker
        .iter()
        .zip(verifier)
        .take_while(|(one, other)| **one == other.token)
        .count();
    let (Some(token), Some(step)) = (worker.get(same), verifier.get(same)) else {
        // One ended where the other went on: engines do not tell how likely an end was.
        let is_equal = worker.len() == verifier.len();
        return if is_equal {
            Agreement::Agree
        } else {
            Agreement::Inconclusive
        };
    };
    if !step.likely.is_empty() {
        let best = step
            .likely
            .iter()
            .map(|(_, likely)| *likely)
            .fold(f32::NEG_INFINITY, f32::max);
        let theirs = step.likely.iter().find(|(likely, _)| likely == token);
        let is_near = theirs.is_some_and(|(_, likely)| best - likely <= NEAR);
        if !is_near {
            return Agreement::Differ {
                item: 0,
                by: f64::INFINITY,
            };
        }
        if same * 2 >= worker.len() {
            return Agreement::Agree;
        }
    }
    if same >= ENOUGH {
        Agreement::Agree
    } else {
        Agreement::Inconclusive
    }
}
