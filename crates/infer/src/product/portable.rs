//! Any processor, in plain Rust: what the other products are held against.

use super::packed::Line;
use super::{Left, PANEL, Product};

/// Compiled for the architecture's baseline this is `pmaddwd` (SSE2) or `smlal` (NEON), by the compiler's own doing.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

/// The lower and the upper integer of a pair.
const fn split(pair: i32) -> (i32, i32) {
    (pair as i16 as i32, pair >> 16)
}

impl Product for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn block(&self, left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]) {
        let vectors = panel.len() / left.half;
        for (row, out) in left.pairs.chunks(left.stride).zip(out) {
            let mut sums = [[0_i32; 16]; PANEL / 16];
            for (pair, lines) in row[..left.half].iter().zip(panel.chunks_exact(vectors)) {
                let (a, b) = split(*pair);
                for (sums, line) in sums.iter_mut().zip(lines) {
                    for (sum, pair) in sums.iter_mut().zip(line) {
                        let (c, d) = split(*pair);
                        // It cannot wrap, see `packed::column`; said so that no check is compiled in.
                        *sum = sum.wrapping_add(a.wrapping_mul(c)).wrapping_add(b.wrapping_mul(d));
                    }
                }
            }
            *out = bytemuck::cast(sums);
        }
    }
}
