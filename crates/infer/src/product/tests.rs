use proptest::prelude::*;

use super::*;
use crate::numeric::rows::{LEFT, RIGHT};

/// What a product is, over i64, without any thought of speed.
fn naive(rows: &[Vec<i16>], columns: &[Vec<i16>]) -> Vec<Vec<i64>> {
    let dot = |row: &[i16], column: &[i16]| row.iter().zip(column).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
    rows.iter()
        .map(|row| columns.iter().map(|column| dot(row, column)).collect())
        .collect()
}

fn lay_rows(rows: &[Vec<i16>], stride: usize) -> Vec<i32> {
    let mut pairs = vec![0x7fff_7fff; rows.len() * stride];
    for (row, out) in rows.iter().zip(pairs.chunks_mut(stride)) {
        out[..row.len() / 2].copy_from_slice(
            bytemuck::cast_slice::<i16, [u8; 4]>(row)
                .iter()
                .map(|b| i32::from_ne_bytes(*b))
                .collect::<Vec<_>>()
                .as_slice(),
        );
    }
    pairs
}

fn lay_panel(columns: &[Vec<i16>]) -> Vec<Line> {
    let mut panel = Vec::new();
    for pair in 0..columns[0].len() / 2 {
        for sixteen in columns.chunks(16) {
            panel.push(std::array::from_fn(|c| {
                bytemuck::cast([sixteen[c][2 * pair], sixteen[c][2 * pair + 1]])
            }));
        }
    }
    panel
}

/// Rows up to `LEFT` and columns for which all sums fit, with extremes among them.
fn block() -> impl Strategy<Value = (Vec<Vec<i16>>, Vec<Vec<i16>>, usize)> {
    (
        1..=ROWS,
        prop_oneof![1_usize..=40, 760_usize..=768],
        1..=4_usize,
        0..3_usize,
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(|(rows, half, vectors, gap, seed, extreme)| {
            let mut state = seed | 1;
            let mut next = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let depth = half * 2;
            let bound = (i32::MAX as usize / LEFT as usize / depth).min(RIGHT as usize) as i64;
            let mut number = |most: i64| {
                let random = next();
                (if extreme {
                    if random & 1 == 0 { most } else { -most }
                } else {
                    (random % (2 * most as u64 + 1)) as i64 - most
                }) as i16
            };
            let rows = (0..rows)
                .map(|_| (0..depth).map(|_| number(i64::from(LEFT))).collect())
                .collect();
            let columns = (0..vectors * 16)
                .map(|_| (0..depth).map(|_| number(bound)).collect())
                .collect();
            (rows, columns, half + gap)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_product_of_this_processor_is_the_exact_sum((rows, columns, stride) in block()) {
        let right = naive(&rows, &columns);
        let pairs = lay_rows(&rows, stride);
        let panel = lay_panel(&columns);
        for product in available() {
            let mut out = vec![[-1; PANEL]; rows.len()];
            product.block(Left { pairs: &pairs, stride, half: rows[0].len() / 2 }, &panel, &mut out);
            for (out, right) in out.iter().zip(&right) {
                let found: Vec<i64> = out[..columns.len()].iter().map(|s| i64::from(*s)).collect();
                prop_assert_eq!(&found, right, "{}", product.name());
            }
        }
    }

    #[test]
    fn no_partial_sum_of_a_packed_column_leaves_an_i32(
        weights in prop_oneof![
            prop::collection::vec(-1.0_f32..1.0, 2..3_000),
            prop::collection::vec(prop_oneof![Just(1.0_f32), Just(-1.0), Just(0.0), Just(1e-6)], 2..3_000),
            prop::collection::vec(any::<f32>().prop_filter("finite", |w| w.is_finite()), 2..300),
        ],
    ) {
        let mut integers = vec![0; weights.len()];
        let unit = packed::column(&weights, &mut integers).expect("finite weights have a column");
        // The worst row: every integer as great as it can be, all of one sign.
        let worst: i64 = integers.iter().map(|q| i64::from(q.unsigned_abs()) * i64::from(LEFT)).sum();
        prop_assert!(worst <= i64::from(i32::MAX));
        prop_assert!(integers.iter().all(|q| q.unsigned_abs() <= RIGHT.unsigned_abs()));
        if unit > 0.0 && unit.is_normal() {
            for (w, q) in weights.iter().zip(&integers) {
                prop_assert!((f64::from(*w) - f64::from(*q) * f64::from(unit)).abs() <= f64::from(unit) * 0.51);
            }
        }
    }
}

#[test]
fn a_column_that_is_not_finite_is_refused_and_one_of_zeros_is_zero() {
    let mut out = [7; 4];
    assert_eq!(packed::column(&[1.0, f32::NAN, 0.0, 0.0], &mut out), None);
    assert_eq!(packed::column(&[1.0, f32::INFINITY, 0.0, 0.0], &mut out), None);
    assert_eq!(packed::column(&[0.0; 4], &mut out), Some(0.0));
    assert_eq!(out, [0; 4]);
}

#[test]
fn every_product_of_this_processor_passes_the_test_at_the_start_and_a_wrong_one_does_not() {
    #[derive(Debug)]
    struct Wrong;
    impl Product for Wrong {
        fn name(&self) -> &'static str {
            "wrong"
        }
        fn block(&self, left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]) {
            Portable.block(left, panel, out);
            // As a product that saturates would be: right nearly always.
            if let Some(last) = out.get_mut(4) {
                last[15] += 1;
            }
        }
    }
    for product in available() {
        assert!(agrees(product.as_ref()), "{}", product.name());
    }
    assert!(!agrees(&Wrong));
}
