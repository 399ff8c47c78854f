//! One head of one text: softmax(q kᵀ / √d) v, all products over integers.

use super::scratch::lend;
use crate::engine::Engine;
use crate::numeric::{lanes::LANES, rows};
use crate::product::packed::NotFinite;
use crate::product::{Left, PANEL, ROWS};

/// What attention reads: the tokens of one text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// Tokens.
    pub(super) length: usize,
    /// Width of a token's vector, of all heads.
    pub(super) hidden: usize,
    /// Number of heads.
    pub(super) heads: usize,
    /// Queries as pairs, `[length][hidden / 2]`.
    pub(super) queries: &'a [i32],
    /// Their units, `[length][heads]`.
    pub(super) query_units: &'a [f32],
    /// Keys as pairs.
    pub(super) keys: &'a [i32],
    /// Their units.
    pub(super) key_units: &'a [f32],
    /// Values, `[length][hidden]`.
    pub(super) values: &'a [f32],
}

/// Attends with one head; `out` is `[length][width of a head]`.
pub(super) fn attend(engine: &Engine, text: Text<'_>, head: usize, out: &mut [f32]) -> Result<(), NotFinite> {
    let (level, product) = (engine.level(), engine.multiplier());
    let (length, width) = (text.length, text.hidden / text.heads);
    let half = width / 2;
    let padded = length.next_multiple_of(LANES);
    let scale = 1.0 / (width as f32).sqrt();
    lend(|scratch| {
        let keys = scratch.keys.room(padded * half);
        pack_keys(text, head, keys, padded);
        let units = scratch.head_units.room(2 * padded);
        let (key_units, query_units) = units.split_at_mut(padded);
        for (out, from) in [(&mut *key_units, text.key_units), (&mut *query_units, text.query_units)] {
            out[length..].fill(0.0);
            for (out, units) in out.iter_mut().zip(from.chunks_exact(text.heads)) {
                *out = units[head];
            }
        }
        let values = scratch.values.room(padded * width / 2);
        let (inverses, value_units) = scratch.value_units.room(2 * width).split_at_mut(width);
        let from = &text.values[head * width..];
        if !rows::values(level, from, text.hidden, width, values, inverses, value_units) {
            return Err(NotFinite);
        }
        for first in (0..length).step_by(ROWS) {
            let queries = ROWS.min(length - first);
            let left = Left {
                pairs: &text.queries[first * text.hidden / 2 + head * half..],
                stride: text.hidden / 2,
                half,
            };
            let sums = &mut scratch.sums.0[..queries];
            let scores = scratch.scores.room(queries * padded);
            let units = &query_units[first..][..queries];
            for (number, panel) in keys.chunks(half * PANEL).enumerate() {
                let at = number * PANEL;
                let columns = PANEL.min(padded - at);
                product.block(left, panel.as_chunks().0, sums);
                rows::scores(
                    level,
                    sums,
                    units,
                    scale,
                    &key_units[at..][..columns],
                    &mut scores[at..],
                    padded,
                );
            }
            let parts = scratch.parts.room(queries * padded / 2);
            let totals = scratch.totals.room(queries);
            if !rows::softmax(level, scores, padded, length, parts, totals) {
                return Err(NotFinite);
            }
            let left = Left {
                pairs: parts,
                stride: padded / 2,
                half: padded / 2,
            };
            let columns = width.min(PANEL);
            for (number, panel) in values.chunks(padded / 2 * columns).enumerate() {
                let at = number * columns;
                product.block(left, panel.as_chunks().0, sums);
                rows::weighted(
                    level,
                    sums,
                    totals,
                    &value_units[at..][..columns],
                    &mut out[first * width + at..],
                    width,
                );
            }
        }
        Ok(())
    })
}

/// The keys of a head as columns, in panels of at most 64: `[width / 2][columns]` pairs each. Columns behind the text are
/// what was there before: nobody reads their scores.
fn pack_keys(text: Text<'_>, head: usize, panels: &mut [i32], padded: usize) {
    let half = text.hidden / text.heads / 2;
    let mut rows = text.keys.chunks(text.hidden / 2);
    for (number, panel) in panels.chunks_mut(half * PANEL).enumerate() {
        let columns = PANEL.min(padded - number * PANEL);
        for (column, row) in rows.by_ref().take(columns).enumerate() {
            for (pair, line) in row[head * half..][..half].iter().zip(panel.chunks_exact_mut(columns)) {
                line[column] = *pair;
            }
        }
    }
}
