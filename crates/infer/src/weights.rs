//! Tensors of `model.safetensors`. The crate `safetensors` checks the header's offsets and overlaps; types, shapes and
//! names are checked here.

mod map;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use crate::error::LoadError;
use crate::limits::{MAX_FILE_BYTES, MAX_HEADER_BYTES};
use map::Map;

/// How a tensor's numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    F32,
    F16,
    Bf16,
}

impl Form {
    const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    form: Option<Form>,
    shape: Vec<usize>,
    start: usize,
    length: usize,
}

/// A mapped file and where its tensors are.
#[derive(Debug)]
pub(crate) struct Weights {
    map: Arc<Map>,
    tensors: HashMap<String, Entry>,
    /// Before the names that a network of this kind has, such as `bert.`.
    prefix: String,
}

/// A tensor of rows, each as wide as the last dimension; a vector is one row.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    map: Arc<Map>,
    name: String,
    form: Form,
    shape: Vec<usize>,
    start: usize,
    length: usize,
}

impl Weights {
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let map = Arc::new(Map::open(path, MAX_FILE_BYTES)?);
        let malformed = |problem: String| LoadError::Malformed {
            file: "model.safetensors".to_owned(),
            problem,
        };
        let bytes = map.bytes();
        let header = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if header > MAX_HEADER_BYTES as u64 {
            return Err(malformed(format!(
                "its header has {header} bytes, and {MAX_HEADER_BYTES} are allowed"
            )));
        }
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| malformed(error.to_string()))?;
        let entry = |info: &safetensors::tensor::TensorInfo| Entry {
            form: match info.dtype {
                Dtype::F32 => Some(Form::F32),
                Dtype::F16 => Some(Form::F16),
                Dtype::BF16 => Some(Form::Bf16),
                _ => None,
            },
            shape: info.shape.clone(),
            start: 8 + header + info.data_offsets.0,
            length: info.data_offsets.1 - info.data_offsets.0,
        };
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, entry(info)))
            .collect();
        Ok(Self {
            map,
            tensors,
            prefix: String::new(),
        })
    }

    /// Finds what all names of the network begin with, by one of them.
    pub(crate) fn with_prefix(mut self, prefixes: &[&str], name: &str) -> Self {
        let found = prefixes
            .iter()
            .find(|prefix| self.tensors.contains_key(&format!("{prefix}{name}")));
        self.prefix = found.copied().unwrap_or_default().to_owned();
        self
    }

    /// The tensor of this name, which must have this shape.
    pub(crate) fn table(&self, name: &str, shape: &[usize]) -> Result<Table, LoadError> {
        let problem = |problem: String| LoadError::Tensor {
            name: name.to_owned(),
            problem,
        };
        let entry = self
            .tensors
            .get(&format!("{}{name}", self.prefix))
            .ok_or_else(|| problem("it is missing, and `config.json` says that there is one".to_owned()))?;
        if entry.shape != shape {
            return Err(problem(format!(
                "it has the shape {:?}, and `config.json` says {shape:?}",
                entry.shape
            )));
        }
        let form = entry
            .form
            .ok_or_else(|| problem("its numbers are not F32, F16 or BF16".to_owned()))?;
        Ok(Table {
            map: Arc::clone(&self.map),
            name: name.to_owned(),
            form,
            shape: entry.shape.clone(),
            start: entry.start,
            length: entry.length,
        })
    }
}

impl Table {
    /// Without the prefix.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.map.bytes()[self.start..][..self.length]
    }

    /// One row, as numbers.
    pub(crate) fn row(&self, number: usize, out: &mut [f32]) {
        let bytes = out.len() * self.form.bytes();
        self.read(number * bytes, out);
    }

    fn read(&self, from: usize, out: &mut [f32]) {
        let data = &self.data()[from..];
        match self.form {
            Form::F32 => {
                for (x, bytes) in out.iter_mut().zip(data.as_chunks().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
            Form::F16 => {
                for (x, bytes) in out.iter_mut().zip(data.as_chunks().0) {
                    *x = half::f16::from_le_bytes(*bytes).to_f32();
                }
            }
            Form::Bf16 => {
                for (x, bytes) in out.iter_mut().zip(data.as_chunks().0) {
                    *x = half::bf16::from_le_bytes(*bytes).to_f32();
                }
            }
        }
    }

    /// All numbers, which must be finite.
    pub(crate) fn numbers(&self) -> Result<Vec<f32>, LoadError> {
        let mut out = vec![0.0; self.shape.iter().product()];
        self.read(0, &mut out);
        if out.iter().all(|x| x.is_finite()) {
            Ok(out)
        } else {
            Err(self.not_finite())
        }
    }

    /// Whether all numbers are finite.
    pub(crate) fn check_finite(&self) -> Result<(), LoadError> {
        let width = self.shape.last().copied().unwrap_or_default();
        let rows = self
            .shape
            .iter()
            .product::<usize>()
            .checked_div(width)
            .unwrap_or_default();
        let mut row = vec![0.0; width];
        for number in 0..rows {
            self.row(number, &mut row);
            if !row.iter().all(|x| x.is_finite()) {
                return Err(self.not_finite());
            }
        }
        Ok(())
    }

    pub(crate) fn not_finite(&self) -> LoadError {
        LoadError::NotFinite {
            tensor: self.name.clone(),
        }
    }
}
