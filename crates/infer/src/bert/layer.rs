//! One layer, over a block of tokens: what lies before attention, and what lies behind it.

use super::scratch::{Scratch, lend};
use super::shape::Activation;
use crate::engine::Engine;
use crate::numeric::rows;
use crate::product::packed::{NotFinite, Packed};
use crate::product::{Left, PANEL};

/// Layer normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) gain: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

/// Weights of a layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// Queries, keys and values, one behind the other.
    pub(super) project: Packed,
    /// Behind attention.
    pub(super) out: Packed,
    pub(super) first: Norm,
    /// To the inner width.
    pub(super) up: Packed,
    /// And back.
    pub(super) down: Packed,
    pub(super) second: Norm,
}

/// What is done with a product's numbers.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    Activate(Activation),
}

/// A block of tokens before attention: the stream, and where queries, keys and values go.
#[derive(Debug)]
pub(super) struct Before<'a> {
    pub(super) x: &'a [f32],
    pub(super) queries: &'a mut [i32],
    pub(super) query_units: &'a mut [f32],
    pub(super) keys: &'a mut [i32],
    pub(super) key_units: &'a mut [f32],
    pub(super) values: &'a mut [f32],
}

impl Layer {
    /// Queries and keys as integers by head, values as numbers.
    pub(super) fn before(&self, engine: &Engine, heads: usize, block: &mut Before<'_>) -> Result<(), NotFinite> {
        let hidden = self.project.depth;
        lend(|scratch| {
            self.project.times(engine, scratch, block.x, Then::Nothing, Out::Wide)?;
            let wide = scratch.wide.room(block.x.len() * 3);
            let level = engine.level();
            let part = hidden / heads;
            let sound = rows::quantise(level, wide, 3 * hidden, hidden, part, block.queries, block.query_units)
                && rows::quantise(
                    level,
                    &wide[hidden..],
                    3 * hidden,
                    hidden,
                    part,
                    block.keys,
                    block.key_units,
                );
            for (row, values) in wide.chunks_exact(3 * hidden).zip(block.values.chunks_exact_mut(hidden)) {
                values.copy_from_slice(&row[2 * hidden..]);
            }
            sound.then_some(()).ok_or(NotFinite)
        })
    }

    /// What attention found goes into the stream, then through the inner layer. `attended` writes row after row of it.
    pub(super) fn behind(
        &self,
        engine: &Engine,
        activation: Activation,
        epsilon: f32,
        x: &mut [f32],
        attended: impl FnOnce(&mut [f32]),
    ) -> Result<(), NotFinite> {
        let hidden = self.out.depth;
        let level = engine.level();
        let length = x.len();
        lend(|scratch| {
            // Taken out for as long as it is read, for the scratch is written meanwhile.
            let mut gathered = std::mem::take(&mut scratch.wide);
            let rows_in = gathered.room(length);
            attended(rows_in);
            let done = self.out.times(engine, scratch, rows_in, Then::Nothing, Out::Narrow);
            scratch.wide = gathered;
            done?;
            rows::add_normalise(
                level,
                x,
                scratch.narrow.room(length),
                hidden,
                &self.first.gain,
                &self.first.shift,
                epsilon,
            );
            self.up
                .times(engine, scratch, x, Then::Activate(activation), Out::Wide)?;
            let inner = std::mem::take(&mut scratch.wide);
            let done = self.down.times(
                engine,
                scratch,
                inner.get(length / hidden * self.up.width),
                Then::Nothing,
                Out::Narrow,
            );
            scratch.wide = inner;
            done?;
            rows::add_normalise(
                level,
                x,
                scratch.narrow.room(length),
                hidden,
                &self.second.gain,
                &self.second.shift,
                epsilon,
            );
            Ok(())
        })
    }
}

/// Where a product's numbers go.
#[derive(Debug, Clone, Copy)]
enum Out {
    Wide,
    Narrow,
}

impl Packed {
    /// A linear layer over a block of rows, into a buffer of the scratch.
    fn times(&self, engine: &Engine, scratch: &mut Scratch, x: &[f32], then: Then, to: Out) -> Result<(), NotFinite> {
        let level = engine.level();
        let count = x.len() / self.depth;
        let half = self.depth / 2;
        let pairs = scratch.pairs.room(count * half);
        let units = scratch.units.room(count);
        if !rows::quantise(level, x, self.depth, self.depth, self.depth, pairs, units) {
            return Err(NotFinite);
        }
        let sums = &mut scratch.sums.0[..count];
        let out = match to {
            Out::Wide => scratch.wide.room(count * self.width),
            Out::Narrow => scratch.narrow.room(count * self.width),
        };
        let columns = self
            .units
            .as_chunks::<PANEL>()
            .0
            .iter()
            .zip(self.bias.as_chunks::<PANEL>().0);
        for ((first, panel), (column_units, bias)) in self.panels().zip(columns) {
            engine.multiplier().block(
                Left {
                    pairs,
                    stride: half,
                    half,
                },
                panel,
                sums,
            );
            let out = &mut out[first..];
            match then {
                Then::Nothing => rows::dequantise(level, sums, units, column_units, bias, out, self.width),
                Then::Activate(Activation::Gelu) => {
                    rows::dequantise_gelu(level, sums, units, column_units, bias, out, self.width);
                }
                Then::Activate(Activation::GeluTanh) => {
                    rows::dequantise_gelu_tanh(level, sums, units, column_units, bias, out, self.width);
                }
            }
        }
        Ok(())
    }
}
