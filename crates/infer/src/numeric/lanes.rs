//! The float arithmetic of the class `i16.1`: additions, multiplications, divisions and square roots of `f32` alone, each
//! rounded by itself (IEEE 754, nearest even), in the order that is written here. Nothing is fused, no function of a
//! mathematics library is called, and sums go over sixteen lanes whatever registers there are: so all processors agree on
//! every bit. The compiler may use wide registers for all of it; it never reorders or fuses float operations by itself.
//!
//! What is written here is the class. Whoever changes a result makes another class.
#![allow(
    clippy::excessive_precision,
    reason = "coefficients as they were fitted; the nearest f32 is meant"
)]
#![allow(
    clippy::inline_always,
    reason = "`rows` compiles these for each level of the processor"
)]

/// Lanes of a sum.
pub(crate) const LANES: usize = 16;
/// 1.5 · 2²³: added to a small number it leaves its nearest integer (half to even) in the lowest bits.
const MAGIC: f32 = 12_582_912.0;
/// Rows that are nowhere greater are zero.
const NOTHING: f32 = 1e-20;

/// The nearest integer of `|x| ≤ 2²²`, half to even.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    ((x + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits())).cast_signed()
}

/// eˣ for `x ≤ 0`; at most 8.2e-8 off, relative. What is below −87 is e⁻⁸⁷, so that there are no denormals anywhere.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let n = (x * std::f32::consts::LOG2_E + MAGIC) - MAGIC;
    // ln 2 in two parts; the first has nine bits, so that its multiples are exact.
    let r = x - n * 0.693_359_375;
    let r = r - n * -2.121_944_40e-4;
    let mut p = 1.987_569_150_0e-4_f32;
    p = p * r + 1.398_199_950_7e-3;
    p = p * r + 8.333_451_907_3e-3;
    p = p * r + 4.166_579_589_4e-2;
    p = p * r + 1.666_666_545_9e-1;
    p = p * r + 5.000_000_120_1e-1;
    let y = (p * (r * r) + r) + 1.0;
    // y is in [0.7, 1.5) and n in [−126, 0]: the exponent stays that of a normal number.
    f32::from_bits(y.to_bits().wrapping_add((nearest(n) << 23).cast_unsigned()))
}

/// The error function; at most 4.2e-7 off.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_258_013_06e-10_f32;
    for c in [
        2.770_681_424_959_02e-8,
        -2.101_024_020_825_08e-6,
        -5.692_506_394_623_46e-5,
        -7.349_906_303_268_55e-4,
        -2.954_599_808_540_25e-3,
        -1.609_603_332_624_15e-2_f32,
    ] {
        p = p * s + c;
    }
    let mut q = -1.456_607_184_649_96e-5_f32;
    for c in [
        -2.133_740_552_789_05e-4,
        -1.682_826_974_382_03e-3,
        -7.373_329_167_204_68e-3,
        -1.426_473_905_141_89e-2_f32,
    ] {
        q = q * s + c;
    }
    x * p / q
}

/// GELU by the error function; at most 1.3e-6 off on [−12, 12].
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let half = x * 0.5;
    half + half * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// GELU by the hyperbolic tangent: x · sigmoid(2 √(2/π) (x + 0.044715 x³)); at most 5.2e-7 off on [−12, 12].
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    let u = x * (1.595_769_121_6 * (1.0 + 0.044_715 * (x * x)));
    let z = exp(-u.abs());
    let one = 1.0 / (1.0 + z);
    x * if u >= 0.0 { one } else { z * one }
}

/// The sum of the lanes: halves, quarters, eighths, the last two.
#[inline(always)]
fn fold(mut lane: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for l in 0..width {
            lane[l] += lane[l + width];
        }
    }
    lane[0]
}

/// The sum of f(x), element i in lane i mod 16, lanes folded at the end. The length is a multiple of sixteen.
#[inline(always)]
pub(crate) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lane = [0.0; LANES];
    for chunk in values.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lane[l] += f(chunk[l]);
        }
    }
    fold(lane)
}

/// Layer normalisation in place.
#[inline(always)]
pub(crate) fn normalise(row: &mut [f32], gain: &[f32], shift: &[f32], epsilon: f32) {
    let n = row.len() as f32;
    let mean = sum(row, |x| x) / n;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
    let r = 1.0 / (variance + epsilon).sqrt();
    for ((x, g), b) in row.iter_mut().zip(gain).zip(shift) {
        *x = ((*x - mean) * r) * g + b;
    }
}

/// The greatest magnitude of a row, or `None` where something is infinite or no number. Compared as integers, so that the
/// order means nothing and a NaN cannot hide. The length is a multiple of sixteen.
#[inline(always)]
pub(crate) fn top(row: &[f32]) -> Option<f32> {
    let mut lane = [0_u32; LANES];
    for chunk in row.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lane[l] = lane[l].max(chunk[l].to_bits() & 0x7fff_ffff);
        }
    }
    let top = lane.into_iter().max().unwrap_or_default();
    (top < f32::INFINITY.to_bits()).then_some(f32::from_bits(top))
}

/// By what a row of the greatest magnitude `top` is multiplied to become integers of at most `most`, and their unit.
#[inline(always)]
pub(crate) fn unit(top: f32, most: f32) -> (f32, f32) {
    if top < NOTHING {
        (0.0, 0.0)
    } else {
        (most / top, top / most)
    }
}

/// A row as integers of at most `most`, and their unit. `None`: not finite.
#[inline(always)]
pub(crate) fn quantise(row: &[f32], most: f32, out: &mut [i16]) -> Option<f32> {
    let (inverse, unit) = unit(top(row)?, most);
    for (x, q) in row.iter().zip(out) {
        *q = nearest(x * inverse) as i16;
    }
    Some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    fn points(from: f64, to: f64) -> impl Iterator<Item = f32> {
        (0..=100_000).map(move |i| (from + (to - from) * f64::from(i) / 100_000.0) as f32)
    }

    #[test]
    fn exp_is_right_to_a_ten_millionth_and_never_denormal() {
        for x in points(-87.0, 0.0) {
            let right = f64::from(x).exp();
            assert!((f64::from(exp(x)) - right).abs() <= 1.0e-7 * right, "{x}");
        }
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exp(-1e30).to_bits(), exp(-87.0).to_bits());
        assert!(exp(f32::NEG_INFINITY).is_normal());
    }

    #[test]
    fn the_error_function_and_both_gelus_are_right_to_a_few_ten_millionths() {
        for x in points(-6.0, 6.0) {
            assert!((f64::from(erf(x)) - tiny::erf(f64::from(x))).abs() < 6e-7, "{x}");
        }
        for x in points(-12.0, 12.0) {
            let wide = f64::from(x);
            let right = wide / 2.0 * (1.0 + tiny::erf(wide / 2.0_f64.sqrt()));
            assert!((f64::from(gelu(x)) - right).abs() < 1.5e-6, "{x}");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let right = wide / 2.0 * (1.0 + inner.tanh());
            assert!((f64::from(gelu_tanh(x)) - right).abs() < 7e-7, "{x}");
        }
    }

    #[test]
    fn the_nearest_integer_is_even_where_two_are_as_near() {
        for (x, q) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (32_638.6, 32_639)] {
            assert_eq!(nearest(x), q, "{x}");
        }
    }

    #[test]
    fn a_row_that_is_not_finite_is_no_row_of_integers() {
        let mut out = [0; 16];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0xffff_ffff)] {
            let mut row = [1.0; 16];
            row[7] = bad;
            assert_eq!(quantise(&row, 4_095.0, &mut out), None);
        }
    }

    #[test]
    fn a_row_becomes_integers_up_to_the_bound_and_a_row_of_almost_nothing_zeros() {
        let mut out = [9; 16];
        let row: [f32; 16] = std::array::from_fn(|i| i as f32 - 8.0);
        let unit = quantise(&row, 4_095.0, &mut out).unwrap();
        assert_eq!((out[0], out[8], out[12]), (-4_095, 0, 2_048));
        assert_eq!(unit.to_bits(), (8.0_f32 / 4_095.0).to_bits());
        assert_eq!(quantise(&[1e-21; 16], 4_095.0, &mut out), Some(0.0));
        assert_eq!(out, [0; 16]);
    }

    #[test]
    fn a_sum_is_one_of_sixteen_lanes_that_are_folded() {
        let values: Vec<f32> = (0..48).map(|i| 1.0 / (i as f32 + 1.0)).collect();
        let lane = |l: usize| (values[l] + values[l + 16]) + values[l + 32];
        let mut lanes: Vec<f32> = (0..16).map(lane).collect();
        while lanes.len() > 1 {
            let half = lanes.len() / 2;
            lanes = (0..half).map(|l| lanes[l] + lanes[l + half]).collect();
        }
        assert_eq!(sum(&values, |x| x).to_bits(), lanes[0].to_bits());
    }
}
