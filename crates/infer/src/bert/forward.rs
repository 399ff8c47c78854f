//! A group of texts through all layers.

use rayon::prelude::*;

use super::attention::{Text, attend};
use super::layer::{Before, Layer, Norm};
use super::pooling;
use super::shape::Shape;
use crate::engine::{Control, Engine};
use crate::error::InferError;
use crate::numeric::rows;
use crate::product::ROWS;
use crate::product::packed::{Aligned, NotFinite};
use crate::weights::Table;

/// Tokens of a group: so many stay in a core's cache through all layers.
const GROUP: usize = 128;
/// Fewest rows of a block that a thread takes for itself.
const LEAST_ROWS: usize = 6;

/// A network with its weights.
#[derive(Debug)]
pub(crate) struct Network {
    pub(super) shape: Shape,
    /// Vectors of the tokens, in the mapped file.
    pub(super) words: Table,
    /// Vectors of the positions, then those of the types.
    pub(super) positions: Vec<f32>,
    pub(super) types: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
}

/// Buffers of a group, token by token.
#[derive(Debug, Default)]
struct Group {
    x: Aligned<f32>,
    queries: Aligned<i32>,
    query_units: Aligned<f32>,
    keys: Aligned<i32>,
    key_units: Aligned<f32>,
    values: Aligned<f32>,
    /// For each text `[heads][length][width of a head]`, so that what a head writes is one slice.
    attended: Aligned<f32>,
}

/// Whether the threads share a group, or each has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Group,
    Groups,
}

impl Share {
    fn each<T: Send, E: Send>(
        self,
        work: Vec<T>,
        least: usize,
        f: impl Fn(T) -> Result<(), E> + Sync + Send,
    ) -> Result<(), E> {
        match self {
            Self::Group => work.into_par_iter().with_min_len(least).try_for_each(f),
            Self::Groups => work.into_iter().try_for_each(f),
        }
    }
}

impl Network {
    pub(crate) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The vectors of texts, each an array of tokens of the vocabulary, neither empty nor longer than the positions.
    pub(crate) fn embed(&self, engine: &Engine, texts: &[&[u32]], control: &Control) -> Result<Vec<f32>, InferError> {
        let hidden = self.shape.hidden;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|text| std::cmp::Reverse(texts[*text].len()));
        let groups = groups(&order, |text| texts[text].len());
        // Threads have groups of their own as long as there are some for all of them, and share each that is left.
        let own = groups.len() / engine.threads() * engine.threads();
        let run = |share| {
            move |group: &&[usize]| {
                let texts: Vec<&[u32]> = group.iter().map(|text| texts[*text]).collect();
                self.group(engine, share, &texts, control)
            }
        };
        let found: Vec<Vec<f32>> = engine.run(|| {
            let mut found = groups[..own]
                .par_iter()
                .map(run(Share::Groups))
                .collect::<Result<Vec<_>, _>>()?;
            for group in &groups[own..] {
                found.push(run(Share::Group)(group)?);
            }
            Ok::<_, InferError>(found)
        })?;
        let mut out = vec![0.0; texts.len() * hidden];
        for (group, found) in groups.iter().zip(found) {
            for (text, vector) in group.iter().zip(found.chunks_exact(hidden)) {
                out[text * hidden..][..hidden].copy_from_slice(vector);
            }
        }
        Ok(out)
    }

    fn group(
        &self,
        engine: &Engine,
        share: Share,
        texts: &[&[u32]],
        control: &Control,
    ) -> Result<Vec<f32>, InferError> {
        let shape = &self.shape;
        let (hidden, heads) = (shape.hidden, shape.heads);
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let mut group = Group::default();
        let x = group.x.room(tokens * hidden);
        let queries = group.queries.room(tokens * hidden / 2);
        let query_units = group.query_units.room(tokens * heads);
        let keys = group.keys.room(tokens * hidden / 2);
        let key_units = group.key_units.room(tokens * heads);
        let values = group.values.room(tokens * hidden);
        let attended = group.attended.room(tokens * hidden);
        let block = block(tokens, if share == Share::Group { engine.threads() } else { 1 });

        self.lay(engine, texts, x);
        for layer in &self.layers {
            control.check()?;
            let work = x
                .chunks(block * hidden)
                .zip(queries.chunks_mut(block * hidden / 2))
                .zip(query_units.chunks_mut(block * heads))
                .zip(keys.chunks_mut(block * hidden / 2))
                .zip(key_units.chunks_mut(block * heads))
                .zip(values.chunks_mut(block * hidden))
                .map(|(((((x, queries), query_units), keys), key_units), values)| Before {
                    x,
                    queries,
                    query_units,
                    keys,
                    key_units,
                    values,
                });
            share.each(work.collect(), 1, |mut work| layer.before(engine, heads, &mut work))?;

            control.check()?;
            let mut work = Vec::with_capacity(texts.len() * heads);
            let (mut first, mut rest) = (0, &mut *attended);
            for length in texts.iter().map(|text| text.len()) {
                let (mine, others) = rest.split_at_mut(length * hidden);
                let text = Text {
                    length,
                    hidden,
                    heads,
                    queries: &queries[first * hidden / 2..][..length * hidden / 2],
                    query_units: &query_units[first * heads..][..length * heads],
                    keys: &keys[first * hidden / 2..][..length * hidden / 2],
                    key_units: &key_units[first * heads..][..length * heads],
                    values: &values[first * hidden..][..length * hidden],
                };
                let heads = mine.chunks_exact_mut(length * hidden / heads).enumerate();
                work.extend(heads.map(|(head, out)| (text, head, out)));
                (first, rest) = (first + length, others);
            }
            let least = 1 + GROUP / 4 / texts.first().map_or(1, |text| text.len());
            share.each(work, least, |(text, head, out)| attend(engine, text, head, out))?;

            control.check()?;
            let attended = &*attended;
            let work: Vec<(usize, &mut [f32])> = x.chunks_mut(block * hidden).enumerate().collect();
            share.each(work, 1, |(number, x)| {
                layer.behind(engine, shape.activation, shape.epsilon, x, |out| {
                    gather(texts, attended, hidden / heads, heads, number * block, out);
                })
            })?;
        }
        if !rows::finite(engine.level(), x) {
            return Err(NotFinite.into());
        }
        let mut out = vec![0.0; texts.len() * hidden];
        let mut rest = &*x;
        for (text, out) in texts.iter().zip(out.chunks_exact_mut(hidden)) {
            let (mine, others) = rest.split_at(text.len() * hidden);
            pooling::pool(shape.pooling, mine, out);
            if shape.normalise {
                pooling::normalise(out);
            }
            rest = others;
        }
        Ok(out)
    }

    /// The stream before the first layer: (word + position) + type, normalised.
    fn lay(&self, engine: &Engine, texts: &[&[u32]], x: &mut [f32]) {
        let hidden = self.shape.hidden;
        let tokens = texts
            .iter()
            .flat_map(|text| text.iter().zip(self.positions.chunks_exact(hidden)));
        for ((token, position), row) in tokens.zip(x.chunks_exact_mut(hidden)) {
            self.words.row(*token as usize, row);
            for ((x, position), kind) in row.iter_mut().zip(position).zip(&self.types) {
                *x = (*x + position) + kind;
            }
        }
        rows::normalise(
            engine.level(),
            x,
            hidden,
            &self.norm.gain,
            &self.norm.shift,
            self.shape.epsilon,
        );
    }
}

/// Rows of what attention found, token by token, from row `first` of the group on.
fn gather(texts: &[&[u32]], attended: &[f32], width: usize, heads: usize, first: usize, out: &mut [f32]) {
    let mut at = 0;
    let mut rows = out.chunks_exact_mut(width * heads);
    let mut row = first;
    for text in texts {
        let length = text.len();
        while row >= at && row < at + length {
            let Some(out) = rows.next() else { return };
            for (head, out) in out.chunks_exact_mut(width).enumerate() {
                out.copy_from_slice(&attended[at * heads * width + (head * length + row - at) * width..][..width]);
            }
            row += 1;
        }
        at += length;
    }
}

/// Rows of a block, so that each of the threads has as many blocks as the others.
fn block(tokens: usize, threads: usize) -> usize {
    let blocks = tokens.div_ceil(ROWS).next_multiple_of(threads);
    tokens.div_ceil(blocks).clamp(LEAST_ROWS, ROWS)
}

/// Cuts texts, the longest first, into groups.
fn groups(order: &[usize], length: impl Fn(usize) -> usize) -> Vec<&[usize]> {
    let mut groups = Vec::new();
    let mut rest = order;
    while !rest.is_empty() {
        let mut tokens = 0;
        let fit = rest.iter().take_while(|text| {
            tokens += length(**text);
            tokens <= GROUP
        });
        let (group, others) = rest.split_at(fit.count().max(1));
        groups.push(group);
        rest = others;
    }
    groups
}
