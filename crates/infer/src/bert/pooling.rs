//! From the vectors of a text's tokens to the vector of the text.

use super::shape::Pooling;
use crate::numeric::lanes;

/// Least length by which a vector is divided.
const LEAST: f32 = 1e-12;

/// Pools the rows of `x`, as wide as `out`; there is at least one.
pub(super) fn pool(pooling: Pooling, x: &[f32], out: &mut [f32]) {
    let mut rows = x.chunks_exact(out.len());
    out.copy_from_slice(rows.next().unwrap_or_default());
    match pooling {
        Pooling::First => {}
        Pooling::Mean => {
            let count = (rows.len() + 1) as f32;
            for row in rows {
                for (sum, x) in out.iter_mut().zip(row) {
                    *sum += x;
                }
            }
            for x in out {
                *x /= count;
            }
        }
        Pooling::Max => {
            for row in rows {
                for (most, x) in out.iter_mut().zip(row) {
                    *most = if *x > *most { *x } else { *most };
                }
            }
        }
    }
}

/// Makes a vector one of length 1.
pub(super) fn normalise(vector: &mut [f32]) {
    let length = lanes::sum(vector, |x| x * x).sqrt();
    let length = if length > LEAST { length } else { LEAST };
    for x in vector {
        *x /= length;
    }
}
