//! Products of integers: blocks of up to 48 rows by panels of up to 64 columns. Every way to multiply gives the same sums,
//! which are exact; the ways differ in speed alone.

pub(crate) mod packed;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::Arc;

pub use packed::Line;
pub use portable::Portable;

/// Greatest number of rows of a block: eight tiles of six.
pub const ROWS: usize = 48;
/// Columns of a whole panel.
pub const PANEL: usize = 64;

/// Rows left of a product. Two integers of sixteen bits that are neighbours in a row are a pair, in one `i32`.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a> {
    /// Row r begins at `r * stride`.
    pub pairs: &'a [i32],
    /// From one row to the next, in pairs.
    pub stride: usize,
    /// Pairs of a row.
    pub half: usize,
}

/// A way to multiply.
pub trait Product: std::fmt::Debug + Send + Sync {
    /// Such as `avx512-vnni`.
    fn name(&self) -> &'static str;

    /// `out[r][c]` becomes the sum of row r times column c, for as many rows as `out` has and all columns of the panel: for
    /// each pair of a row, `panel` has the same number of lines, one to four, of sixteen columns each. What is behind the
    /// panel's columns means nothing afterwards. The sums fit an `i32`, for columns are packed so.
    fn block(&self, left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]);
}

/// The ways that this processor has, the fastest first. [`Portable`] is always the last.
#[must_use]
pub fn available() -> Vec<Arc<dyn Product>> {
    let mut found: Vec<Arc<dyn Product>> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        found.extend(x86::Avx512Vnni::detect());
        found.extend(x86::Avx512::detect());
        found.extend(x86::AvxVnni::detect());
        found.extend(x86::Avx2::detect());
    }
    found.push(Arc::new(Portable));
    found
}

/// Whether a product gives what [`Portable`] gives, for blocks and panels of every kind. Takes some microseconds.
#[must_use]
pub fn agrees(product: &dyn Product) -> bool {
    const HALF: usize = 32;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pair = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Two integers of at most 4,095 in magnitude: 64 products of them fit.
        let number = |shift: u32| ((state >> shift) % 8_191) as i32 - 4_095;
        (number(24) & 0xffff) | (number(44) << 16)
    };
    let pairs: Vec<i32> = (0..ROWS * HALF).map(|_| pair()).collect();
    (1..=4).all(|vectors| {
        let panel: Vec<Line> = (0..HALF * vectors).map(|_| std::array::from_fn(|_| pair())).collect();
        [ROWS, 5, 4, 3, 2, 1].into_iter().all(|rows| {
            let left = Left {
                pairs: &pairs,
                stride: HALF,
                half: HALF,
            };
            let (mut right, mut found) = ([[0; PANEL]; ROWS], [[0; PANEL]; ROWS]);
            Portable.block(left, &panel, &mut right[..rows]);
            product.block(left, &panel, &mut found[..rows]);
            right[..rows]
                .iter()
                .zip(&found)
                .all(|(right, found)| right[..vectors * 16] == found[..vectors * 16])
        })
    })
}
