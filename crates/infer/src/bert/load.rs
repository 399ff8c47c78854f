//! A network from its tensors.

use super::forward::Network;
use super::layer::{Layer, Norm};
use super::shape::Shape;
use crate::error::LoadError;
use crate::product::packed::Packed;
use crate::weights::{Table, Weights};

/// What names may begin with: nothing, or the part of a greater network that the encoder is.
const PREFIXES: [&str; 2] = ["", "bert."];
const WORDS: &str = "embeddings.word_embeddings.weight";

/// The tensors that decide the answer, for the fingerprint.
pub(crate) type Used = Vec<Table>;

impl Network {
    /// Bytes of memory that a network of this shape takes, without what is mapped.
    pub(crate) const fn bytes(shape: &Shape) -> u64 {
        let (hidden, inner) = (shape.hidden, shape.inner);
        let layer = Packed::bytes(hidden, 4 * hidden) + Packed::bytes(hidden, inner) + Packed::bytes(inner, hidden);
        let tables = (shape.positions + shape.types) * hidden * 4;
        shape.layers as u64 * (layer + 16 * hidden as u64) + tables as u64
    }

    /// Reads and packs, with the threads of the pool that it is called in.
    pub(crate) fn load(shape: Shape, weights: Weights) -> Result<(Self, Used), LoadError> {
        let mut reader = Reader {
            weights: weights.with_prefix(&PREFIXES, WORDS),
            used: Vec::new(),
        };
        let hidden = shape.hidden;
        let words = reader.table(WORDS, &[shape.vocabulary, hidden])?;
        let positions = reader
            .table("embeddings.position_embeddings.weight", &[shape.positions, hidden])?
            .numbers()?;
        let types = reader
            .table("embeddings.token_type_embeddings.weight", &[shape.types, hidden])?
            .numbers()?;
        let norm = reader.norm("embeddings.LayerNorm", hidden)?;
        let mut layers = Vec::with_capacity(shape.layers);
        for number in 0..shape.layers {
            layers.push(reader.layer(&format!("encoder.layer.{number}."), &shape)?);
        }
        Ok((
            Self {
                shape,
                words,
                positions,
                types,
                norm,
                layers,
            },
            reader.used,
        ))
    }

    /// The table of words is not read at loading, so it is looked through where a model comes in.
    pub(crate) fn check_words(&self) -> Result<(), LoadError> {
        self.words.check_finite()
    }
}

struct Reader {
    weights: Weights,
    used: Used,
}

impl Reader {
    fn table(&mut self, name: &str, shape: &[usize]) -> Result<Table, LoadError> {
        let table = self.weights.table(name, shape)?;
        self.used.push(table.clone());
        Ok(table)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, LoadError> {
        let gain = self.table(&format!("{name}.weight"), &[width])?.numbers()?;
        let shift = self.table(&format!("{name}.bias"), &[width])?.numbers()?;
        Ok(Norm { gain, shift })
    }

    /// Linear layers of as many inputs, side by side.
    fn linear(&mut self, names: &[String], inputs: usize, outputs: usize) -> Result<Packed, LoadError> {
        let mut weights = Vec::new();
        let mut bias = Vec::new();
        for name in names {
            weights.push(self.table(&format!("{name}.weight"), &[outputs, inputs])?);
            bias.extend(self.table(&format!("{name}.bias"), &[outputs])?.numbers()?);
        }
        Packed::new(inputs, bias, |column, out| {
            weights[column / outputs].row(column % outputs, out);
        })
        .map_err(|_| {
            let damaged = weights.iter().find(|table| table.check_finite().is_err());
            damaged.map_or(LoadError::NotFinite { tensor: names.concat() }, Table::not_finite)
        })
    }

    fn layer(&mut self, prefix: &str, shape: &Shape) -> Result<Layer, LoadError> {
        let (hidden, inner) = (shape.hidden, shape.inner);
        let name = |rest: &str| format!("{prefix}{rest}");
        let projections = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Layer {
            project: self.linear(&projections, hidden, hidden)?,
            out: self.linear(&[name("attention.output.dense")], hidden, hidden)?,
            first: self.norm(&name("attention.output.LayerNorm"), hidden)?,
            up: self.linear(&[name("intermediate.dense")], hidden, inner)?,
            down: self.linear(&[name("output.dense")], inner, hidden)?,
            second: self.norm(&name("output.LayerNorm"), hidden)?,
        })
    }
}
