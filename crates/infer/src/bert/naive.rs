//! Networks in f64, by definition: slow, and without any thought of integers.

use super::shape::Shape;
use crate::tiny::{self, Tensors};

/// The same network in f64, by definition.
#[derive(Debug)]
pub(super) struct Naive {
    pub(super) shape: Shape,
    pub(super) tensors: Tensors,
}

impl Naive {
    fn get(&self, name: &str) -> Vec<f64> {
        self.tensors[name].1.iter().map(|x| f64::from(*x)).collect()
    }

    fn linear(&self, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (weights, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| {
            let columns = weights.chunks(row.len()).zip(&bias);
            columns
                .map(|(column, bias)| column.iter().zip(row).map(|(a, b)| a * b).sum::<f64>() + bias)
                .collect()
        };
        x.iter().map(one).collect()
    }

    fn norm(&self, name: &str, x: &mut [Vec<f64>]) {
        let (gain, shift) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        for row in x {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            for ((x, g), b) in row.iter_mut().zip(&gain).zip(&shift) {
                *x = (*x - mean) / (variance + f64::from(self.shape.epsilon)).sqrt() * g + b;
            }
        }
    }

    /// Mean pooling, not normalised.
    pub(super) fn embed(&self, ids: &[u32]) -> Vec<f64> {
        let Shape {
            hidden, heads, layers, ..
        } = self.shape;
        let tables = ["word", "position", "token_type"].map(|t| self.get(&format!("embeddings.{t}_embeddings.weight")));
        let row = |table: &[f64], at: usize| table[at * hidden..][..hidden].to_vec();
        let mut x: Vec<Vec<f64>> = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            let (word, position, kind) = (row(&tables[0], *id as usize), row(&tables[1], at), row(&tables[2], 0));
            x.push((0..hidden).map(|i| word[i] + position[i] + kind[i]).collect());
        }
        self.norm("embeddings.LayerNorm", &mut x);
        for layer in 0..layers {
            let at = |rest: &str| format!("encoder.layer.{layer}.{rest}");
            let [q, k, v] = ["query", "key", "value"].map(|p| self.linear(&at(&format!("attention.self.{p}")), &x));
            let width = hidden / heads;
            let mut attended = vec![vec![0.0; hidden]; ids.len()];
            for head in 0..heads {
                let part = head * width..(head + 1) * width;
                for (i, out) in attended.iter_mut().enumerate() {
                    let score = |k: &Vec<f64>| {
                        let dot: f64 = part.clone().map(|c| q[i][c] * k[c]).sum();
                        (dot / (width as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = k.iter().map(score).collect();
                    let total: f64 = scores.iter().sum();
                    for c in part.clone() {
                        out[c] = scores.iter().zip(&v).map(|(s, v)| s / total * v[c]).sum();
                    }
                }
            }
            let add = |x: &mut Vec<Vec<f64>>, more: &[Vec<f64>]| {
                x.iter_mut()
                    .zip(more)
                    .for_each(|(x, more)| x.iter_mut().zip(more).for_each(|(x, m)| *x += m));
            };
            add(&mut x, &self.linear(&at("attention.output.dense"), &attended));
            self.norm(&at("attention.output.LayerNorm"), &mut x);
            let mut inner = self.linear(&at("intermediate.dense"), &x);
            inner.iter_mut().flatten().for_each(|x| *x = gelu(*x));
            add(&mut x, &self.linear(&at("output.dense"), &inner));
            self.norm(&at("output.LayerNorm"), &mut x);
        }
        (0..hidden)
            .map(|c| x.iter().map(|row| row[c]).sum::<f64>() / ids.len() as f64)
            .collect()
    }
}

fn gelu(x: f64) -> f64 {
    x / 2.0 * (1.0 + tiny::erf(x / 2.0_f64.sqrt()))
}
