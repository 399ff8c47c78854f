//! What is done with rows of floats between products, a block of rows at a time.

use super::lanes;
use super::level::by_level;
use crate::product::PANEL;

/// Greatest magnitude left of weights, and of queries and keys: twelve bits and a sign.
pub(crate) const LEFT: i16 = 4_095;
/// Greatest magnitude of a weight and of a value: what still splits into two signed bytes (127 · 256 + 127).
pub(crate) const RIGHT: i16 = 32_639;
/// What all probabilities of a row are a part of.
const WHOLE: f32 = 32_767.0;

by_level! {
    /// Each `part` of the first `width` of each row of `stride` becomes integers up to [`LEFT`] with a unit of its own.
    /// False: something is not finite.
    fn quantise(values: &[f32], stride: usize, width: usize, part: usize, pairs: &mut [i32], units: &mut [f32]) -> bool {
        let integers: &mut [i16] = bytemuck::cast_slice_mut(pairs);
        let parts = values.chunks(stride).flat_map(|row| row[..width].chunks_exact(part));
        let mut finite = true;
        for ((part_of, out), unit) in parts.zip(integers.chunks_exact_mut(part)).zip(units) {
            match lanes::quantise(part_of, f32::from(LEFT), out) {
                Some(found) => *unit = found,
                None => finite = false,
            }
        }
        finite
    }

    /// A panel of sums in numbers: (sum · unit of the row) · unit of the column + bias.
    fn dequantise(sums: &[[i32; PANEL]], rows: &[f32], units: &[f32; PANEL], bias: &[f32; PANEL], out: &mut [f32], stride: usize) {
        for ((sums, row), out) in sums.iter().zip(rows).zip(out.chunks_mut(stride)) {
            for (((sum, unit), bias), out) in sums.iter().zip(units).zip(bias).zip(out) {
                *out = (*sum as f32 * row) * unit + bias;
            }
        }
    }

    /// As `dequantise`, then GELU.
    fn dequantise_gelu(sums: &[[i32; PANEL]], rows: &[f32], units: &[f32; PANEL], bias: &[f32; PANEL], out: &mut [f32], stride: usize) {
        for ((sums, row), out) in sums.iter().zip(rows).zip(out.chunks_mut(stride)) {
            for (((sum, unit), bias), out) in sums.iter().zip(units).zip(bias).zip(out) {
                *out = lanes::gelu((*sum as f32 * row) * unit + bias);
            }
        }
    }

    /// As `dequantise`, then GELU by the hyperbolic tangent.
    fn dequantise_gelu_tanh(sums: &[[i32; PANEL]], rows: &[f32], units: &[f32; PANEL], bias: &[f32; PANEL], out: &mut [f32], stride: usize) {
        for ((sums, row), out) in sums.iter().zip(rows).zip(out.chunks_mut(stride)) {
            for (((sum, unit), bias), out) in sums.iter().zip(units).zip(bias).zip(out) {
                *out = lanes::gelu_tanh((*sum as f32 * row) * unit + bias);
            }
        }
    }

    /// Each row of `x` becomes the layer normalisation of it.
    fn normalise(x: &mut [f32], width: usize, gain: &[f32], shift: &[f32], epsilon: f32) {
        for row in x.chunks_exact_mut(width) {
            lanes::normalise(row, gain, shift, epsilon);
        }
    }

    /// Each row of `x` becomes the layer normalisation of its sum with the row of `more`.
    fn add_normalise(x: &mut [f32], more: &[f32], width: usize, gain: &[f32], shift: &[f32], epsilon: f32) {
        for (row, more) in x.chunks_exact_mut(width).zip(more.chunks_exact(width)) {
            for (x, more) in row.iter_mut().zip(more) {
                *x += more;
            }
            lanes::normalise(row, gain, shift, epsilon);
        }
    }

    /// Scores of up to 64 keys: (sum · (unit of the query · scale)) · unit of the key, in rows of `stride`.
    fn scores(sums: &[[i32; PANEL]], queries: &[f32], scale: f32, keys: &[f32], out: &mut [f32], stride: usize) {
        for ((sums, query), out) in sums.iter().zip(queries).zip(out.chunks_mut(stride)) {
            let unit = query * scale;
            for ((sum, key), out) in sums.iter().zip(keys).zip(out) {
                *out = (*sum as f32 * unit) * key;
            }
        }
    }

    /// Softmax of the first `length` of each row of `stride`, as parts of 32,767 and their total. What is behind `length`
    /// becomes zero. False: a score is not finite.
    fn softmax(scores: &mut [f32], stride: usize, length: usize, parts: &mut [i32], totals: &mut [i32]) -> bool {
        let mut finite = true;
        let integers: &mut [i16] = bytemuck::cast_slice_mut(parts);
        let rows = scores.chunks_exact_mut(stride).zip(integers.chunks_exact_mut(stride));
        for ((row, parts), total) in rows.zip(totals) {
            row[length..].fill(f32::NEG_INFINITY);
            let mut lane = [f32::NEG_INFINITY; lanes::LANES];
            for chunk in row.as_chunks::<{ lanes::LANES }>().0 {
                for l in 0..lanes::LANES {
                    lane[l] = if chunk[l] > lane[l] { chunk[l] } else { lane[l] };
                }
            }
            let greatest = lane.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
            for x in row.iter_mut() {
                *x = lanes::exp(*x - greatest);
            }
            row[length..].fill(0.0);
            let all = lanes::sum(row, |x| x);
            finite &= all.is_finite();
            let r = 1.0 / all;
            let mut sum = 0;
            for (x, part) in row.iter().zip(parts) {
                let q = lanes::nearest((x * r) * WHOLE);
                *part = q as i16;
                sum += q;
            }
            *total = sum;
        }
        finite
    }

    /// The values of a head, rows of `stride` of which the first `width` count, as integers up to [`RIGHT`] by column: two
    /// rows interleaved, in panels of at most 64 columns. `panel` holds an even number of rows; what is behind the values
    /// is zero. False: something is not finite.
    fn values(values: &[f32], stride: usize, width: usize, panel: &mut [i32], inverses: &mut [f32], units: &mut [f32]) -> bool {
        let mut tops = [0_u32; 128];
        for row in values.chunks(stride) {
            for (top, x) in tops[..width].iter_mut().zip(&row[..width]) {
                *top = (*top).max(x.to_bits() & 0x7fff_ffff);
            }
        }
        let mut finite = true;
        for ((top, inverse), unit) in tops[..width].iter().zip(inverses.iter_mut()).zip(units) {
            finite &= *top < f32::INFINITY.to_bits();
            (*inverse, *unit) = lanes::unit(f32::from_bits(*top), f32::from(RIGHT));
        }
        let columns = width.min(PANEL);
        let lines = panel.len() / width;
        panel.fill(0);
        for (at, part) in panel.chunks_exact_mut(lines * columns).enumerate() {
            let inverses = &inverses[at * columns..][..columns];
            for (rows, out) in values.chunks(2 * stride).zip(part.chunks_exact_mut(columns)) {
                let first = &rows[at * columns..][..columns];
                for ((x, inverse), out) in first.iter().zip(inverses).zip(out.iter_mut()) {
                    *out = lanes::nearest(x * inverse) & 0xffff;
                }
                if rows.len() > stride {
                    let second = &rows[stride + at * columns..][..columns];
                    for ((x, inverse), out) in second.iter().zip(inverses).zip(out) {
                        *out |= lanes::nearest(x * inverse) << 16;
                    }
                }
            }
        }
        finite
    }

    /// What probabilities made of values: (sum · unit of the column) ÷ total of the row.
    fn weighted(sums: &[[i32; PANEL]], totals: &[i32], units: &[f32], out: &mut [f32], stride: usize) {
        for ((sums, total), out) in sums.iter().zip(totals).zip(out.chunks_mut(stride)) {
            let total = *total as f32;
            for ((sum, unit), out) in sums.iter().zip(units).zip(out) {
                *out = (*sum as f32 * unit) / total;
            }
        }
    }

    /// Whether every number is finite. The length is a multiple of sixteen.
    fn finite(values: &[f32]) -> bool {
        lanes::top(values).is_some()
    }
}
