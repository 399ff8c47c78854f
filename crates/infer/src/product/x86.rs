//! x86: tiles of six rows by 64 columns (AVX-512: 24 sums, 4 lines of weights and a pair in 32 registers), or by 16 columns
//! (AVX2: 12 sums, 2 halves of a line and a pair in 16).
//!
//! Tiles are written out by macros and not left to the compiler's unrolling: a build with a profile makes small what its
//! training never ran, and a processor may have what the build machine had not. Everything inside a function with
//! `target_feature` is safe Rust: intrinsics are safe there, and `bytemuck` makes registers of lines. Only the call into it
//! is `unsafe`.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_dpwssd_avx_epi32, _mm256_madd_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm512_add_epi32, _mm512_dpwssd_epi32, _mm512_madd_epi16, _mm512_set1_epi32,
    _mm512_setzero_si512,
};
use std::sync::Arc;

use super::packed::Line;
use super::{Left, PANEL, Product};

/// Rows of a tile.
const TILE: usize = 6;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_avx512_vnni(sum: __m512i, a: __m512i, w: __m512i) -> __m512i {
    _mm512_dpwssd_epi32(sum, a, w)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dot_avx512(sum: __m512i, a: __m512i, w: __m512i) -> __m512i {
    _mm512_add_epi32(sum, _mm512_madd_epi16(a, w))
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dot_avx_vnni(sum: __m256i, a: __m256i, w: __m256i) -> __m256i {
    _mm256_dpwssd_avx_epi32(sum, a, w)
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_avx2(sum: __m256i, a: __m256i, w: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_madd_epi16(a, w))
}

/// One pair of one row times the registers of a step.
macro_rules! step {
    ($dot:ident, $sums:expr, $a:expr, $w:expr, [$($v:tt)+]) => {
        $($sums[$v] = $dot($sums[$v], $a, $w[$v]);)+
    };
}

/// A tile over panels of as many lines a step as there are registers.
macro_rules! wide_tile {
    ($name:ident, $features:tt, $dot:ident, $lines:tt, $registers:tt, $rows:tt, [$($row:ident = $at:tt)+]) => {
        #[target_feature(enable = $features)]
        fn $name(left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]) {
            let panel = panel.as_chunks::<$lines>().0;
            let half = panel.len();
            $(let $row = &left.pairs[$at * left.stride..][..half];)+
            let mut sums = [[_mm512_setzero_si512(); $lines]; $rows];
            for (k, lines) in panel.iter().enumerate() {
                let w: [__m512i; $lines] = bytemuck::cast(*lines);
                $(
                    let a = _mm512_set1_epi32($row[k]);
                    step!($dot, sums[$at], a, w, $registers);
                )+
            }
            for (sums, out) in sums.into_iter().zip(out) {
                let sums: [Line; $lines] = bytemuck::cast(sums);
                out.as_chunks_mut::<16>().0[..$lines].copy_from_slice(&sums);
            }
        }
    };
}

/// A tile over one line of each step.
macro_rules! narrow_tile {
    ($name:ident, $features:tt, $dot:ident, $rows:tt, [$($row:ident = $at:tt)+]) => {
        #[target_feature(enable = $features)]
        fn $name(left: Left<'_>, panel: &[Line], lines: usize, line: usize, out: &mut [[i32; PANEL]]) {
            let half = panel.len() / lines;
            $(let $row = &left.pairs[$at * left.stride..][..half];)+
            let mut sums = [[_mm256_setzero_si256(); 2]; $rows];
            for k in 0..half {
                let w: [__m256i; 2] = bytemuck::cast(panel[k * lines + line]);
                $(
                    let a = _mm256_set1_epi32($row[k]);
                    step!($dot, sums[$at], a, w, [0 1]);
                )+
            }
            for (sums, out) in sums.into_iter().zip(out) {
                out.as_chunks_mut::<16>().0[line] = bytemuck::cast(sums);
            }
        }
    };
}

/// Tiles of every height for panels of `$lines` lines a step, and a block of them.
macro_rules! wide_block {
    ($module:ident, $features:tt, $dot:ident, $lines:tt, $registers:tt) => {
        mod $module {
            use super::*;

            wide_tile!(one, $features, $dot, $lines, $registers, 1, [a = 0]);
            wide_tile!(two, $features, $dot, $lines, $registers, 2, [a = 0 b = 1]);
            wide_tile!(three, $features, $dot, $lines, $registers, 3, [a = 0 b = 1 c = 2]);
            wide_tile!(four, $features, $dot, $lines, $registers, 4, [a = 0 b = 1 c = 2 d = 3]);
            wide_tile!(five, $features, $dot, $lines, $registers, 5, [a = 0 b = 1 c = 2 d = 3 e = 4]);
            wide_tile!(six, $features, $dot, $lines, $registers, 6, [a = 0 b = 1 c = 2 d = 3 e = 4 f = 5]);

            #[target_feature(enable = $features)]
            pub(super) fn block(left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]) {
                for (at, out) in out.chunks_mut(TILE).enumerate() {
                    let left = Left { pairs: &left.pairs[at * TILE * left.stride..], ..left };
                    match out.len() {
                        1 => one(left, panel, out),
                        2 => two(left, panel, out),
                        3 => three(left, panel, out),
                        4 => four(left, panel, out),
                        5 => five(left, panel, out),
                        _ => six(left, panel, out),
                    }
                }
            }
        }
    };
}

macro_rules! wide_product {
    ($module:ident, $product:ident, $name:tt, $features:tt, $dot:ident, [$($detected:tt)+]) => {
        mod $module {
            use super::*;

            wide_block!(one, $features, $dot, 1, [0]);
            wide_block!(two, $features, $dot, 2, [0 1]);
            wide_block!(three, $features, $dot, 3, [0 1 2]);
            wide_block!(four, $features, $dot, 4, [0 1 2 3]);

            #[target_feature(enable = $features)]
            pub(super) fn block(left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]) {
                match panel.len() / left.half {
                    1 => one::block(left, panel, out),
                    2 => two::block(left, panel, out),
                    3 => three::block(left, panel, out),
                    _ => four::block(left, panel, out),
                }
            }
        }

        x86_product!($module, $product, $name, [$($detected)+]);
    };
}

macro_rules! narrow_product {
    ($module:ident, $product:ident, $name:tt, $features:tt, $dot:ident, [$($detected:tt)+]) => {
        mod $module {
            use super::*;

            narrow_tile!(one, $features, $dot, 1, [a = 0]);
            narrow_tile!(two, $features, $dot, 2, [a = 0 b = 1]);
            narrow_tile!(three, $features, $dot, 3, [a = 0 b = 1 c = 2]);
            narrow_tile!(four, $features, $dot, 4, [a = 0 b = 1 c = 2 d = 3]);
            narrow_tile!(five, $features, $dot, 5, [a = 0 b = 1 c = 2 d = 3 e = 4]);
            narrow_tile!(six, $features, $dot, 6, [a = 0 b = 1 c = 2 d = 3 e = 4 f = 5]);

            #[target_feature(enable = $features)]
            pub(super) fn block(left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]) {
                let lines = panel.len() / left.half;
                for line in 0..lines {
                    for (at, out) in out.chunks_mut(TILE).enumerate() {
                        let left = Left { pairs: &left.pairs[at * TILE * left.stride..], ..left };
                        match out.len() {
                            1 => one(left, panel, lines, line, out),
                            2 => two(left, panel, lines, line, out),
                            3 => three(left, panel, lines, line, out),
                            4 => four(left, panel, lines, line, out),
                            5 => five(left, panel, lines, line, out),
                            _ => six(left, panel, lines, line, out),
                        }
                    }
                }
            }
        }

        x86_product!($module, $product, $name, [$($detected)+]);
    };
}

macro_rules! x86_product {
    ($module:ident, $product:ident, $name:tt, [$($detected:tt)+]) => {
        /// Can be made only where the processor has what its tiles use.
        #[derive(Debug)]
        pub(super) struct $product(());

        impl $product {
            pub(super) fn detect() -> Option<Arc<dyn Product>> {
                let found = $(is_x86_feature_detected!($detected))&&+;
                found.then(|| Arc::new(Self(())) as Arc<dyn Product>)
            }
        }

        impl Product for $product {
            fn name(&self) -> &'static str {
                $name
            }

            fn block(&self, left: Left<'_>, panel: &[Line], out: &mut [[i32; PANEL]]) {
                #[allow(unsafe_code, reason = "nothing safe calls what needs a processor's features")]
                // SAFETY: a value of this type is made by `new` alone, which found every feature that the function has.
                unsafe {
                    $module::block(left, panel, out);
                }
            }
        }
    };
}

wide_product!(
    avx512_vnni,
    Avx512Vnni,
    "avx512-vnni",
    "avx512f,avx512bw,avx512vnni",
    dot_avx512_vnni,
    ["avx512f" "avx512bw" "avx512vnni"]
);
wide_product!(avx512, Avx512, "avx512", "avx512f,avx512bw", dot_avx512, ["avx512f" "avx512bw"]);
narrow_product!(avx_vnni, AvxVnni, "avx-vnni", "avx2,avxvnni", dot_avx_vnni, ["avx2" "avxvnni"]);
narrow_product!(avx2, Avx2, "avx2", "avx2", dot_avx2, ["avx2"]);
