//! Weights as integers, arranged for products.

use bytemuck::Pod;
use rayon::prelude::*;

use super::PANEL;
use crate::numeric::rows::{LEFT, RIGHT};

/// 64 bytes: a pair of integers of sixteen bits for each of sixteen columns.
pub type Line = [i32; 16];

/// A buffer that begins at a cache line, without `unsafe`: a little more is allocated, and the front is skipped. That it is
/// aligned makes it fast; nothing relies on it.
#[derive(Debug, Default)]
pub(crate) struct Aligned<T> {
    buffer: Vec<T>,
    start: usize,
}

impl<T: Pod> Aligned<T> {
    /// The first `length` elements; there are more of them from now on where there were fewer. What was in them stays only
    /// while it need not grow.
    pub(crate) fn room(&mut self, length: usize) -> &mut [T] {
        if self.buffer.len() < self.start + length {
            let spare = 64 / size_of::<T>() - 1;
            self.buffer = vec![T::zeroed(); length + spare];
            self.start = self.buffer.as_ptr().align_offset(64).min(spare);
        }
        &mut self.buffer[self.start..][..length]
    }

    /// All that there is room for.
    pub(crate) fn get(&self, length: usize) -> &[T] {
        &self.buffer[self.start..][..length]
    }
}

/// A matrix `[depth][width]` right of a product, with what makes numbers of its sums.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Inputs; even.
    pub(crate) depth: usize,
    /// Outputs; a multiple of 64.
    pub(crate) width: usize,
    /// Unit of each column.
    pub(crate) units: Vec<f32>,
    /// Added to each column.
    pub(crate) bias: Vec<f32>,
    /// Panels of 64 columns; in each, for each pair of inputs, four lines: `[width / 64][depth / 2][64][2]`.
    lines: Aligned<i32>,
}

/// Something is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotFinite;

impl Packed {
    /// Packs the columns that `column` writes, each by its number, as `depth` floats. With the threads of the pool that it
    /// is called in.
    pub(crate) fn new(
        depth: usize,
        bias: Vec<f32>,
        column: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, NotFinite> {
        let width = bias.len();
        debug_assert!(depth.is_multiple_of(2) && width.is_multiple_of(PANEL));
        if bias.iter().any(|b| !b.is_finite()) {
            return Err(NotFinite);
        }
        let mut lines = Aligned::default();
        let mut units = vec![0.0; width];
        let panel = depth / 2 * PANEL;
        lines
            .room(width / PANEL * panel)
            .par_chunks_mut(panel)
            .zip(units.par_chunks_mut(PANEL))
            .enumerate()
            .try_for_each(|(number, (panel, units))| {
                let panel = panel.as_chunks_mut::<PANEL>().0;
                let mut weights = vec![0.0; depth];
                let mut integers = vec![0; depth];
                for (at, unit) in units.iter_mut().enumerate() {
                    column_of(&column, number * PANEL + at, &mut weights, &mut integers, unit)?;
                    for (pair, line) in integers.as_chunks::<2>().0.iter().zip(panel.iter_mut()) {
                        line[at] = bytemuck::cast(*pair);
                    }
                }
                Ok::<(), NotFinite>(())
            })?;
        Ok(Self {
            depth,
            width,
            units,
            bias,
            lines,
        })
    }

    /// The panels, each with the number of its first column.
    pub(crate) fn panels(&self) -> impl Iterator<Item = (usize, &[Line])> {
        let panel = self.depth / 2 * PANEL;
        let all = self.lines.get(self.width / PANEL * panel);
        all.chunks_exact(panel)
            .enumerate()
            .map(|(number, panel)| (number * PANEL, panel.as_chunks().0))
    }

    /// Bytes in memory.
    pub(crate) const fn bytes(depth: usize, width: usize) -> u64 {
        (depth as u64 * 2 + 8) * width as u64
    }
}

fn column_of(
    column: &impl Fn(usize, &mut [f32]),
    number: usize,
    weights: &mut [f32],
    integers: &mut [i16],
    unit: &mut f32,
) -> Result<(), NotFinite> {
    column(number, weights);
    *unit = self::column(weights, integers).ok_or(NotFinite)?;
    Ok(())
}

/// One output column as integers; returns their unit. `None`: something is not finite.
///
/// The unit is as small as two bounds allow: no integer above [`RIGHT`], and [`LEFT`] times the sum of their magnitudes
/// below 2³¹. By the second every partial sum of a product fits an `i32`, in any order and any grouping: so additions are
/// exact, and have no order.
pub(crate) fn column(weights: &[f32], out: &mut [i16]) -> Option<f32> {
    /// As in `lanes`, for f64: the nearest integer, half to even.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let (mut sum, mut top) = (0.0_f64, 0.0_f64);
    for w in weights {
        if !w.is_finite() {
            return None;
        }
        let w = f64::from(w.abs());
        sum += w; // in order of the inputs
        top = if w > top { w } else { top };
    }
    if top < 1e-30 {
        out.fill(0);
        return Some(0.0);
    }
    // Rounding adds at most one half for each weight.
    let room = (f64::from(i32::MAX) / f64::from(LEFT) - weights.len() as f64 / 2.0) / sum;
    let most = f64::from(RIGHT) / top;
    let scale = if room < most { room } else { most };
    let mut total = 0_u64;
    for (w, q) in weights.iter().zip(out) {
        *q = ((f64::from(*w) * scale + MAGIC) - MAGIC) as i16;
        total += u64::from(q.unsigned_abs());
    }
    // Not believed but counted: this is the proof that products are exact.
    if total * LEFT.unsigned_abs() as u64 > i32::MAX as u64 {
        return None;
    }
    Some((1.0 / scale) as f32)
}
