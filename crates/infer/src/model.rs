//! A model, loaded: texts become tokens, tokens vectors.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::bert::Network;
use crate::bert::shape::Shape;
use crate::class::{Arithmetic, Fingerprint, NumericClass};
use crate::engine::{Control, Engine};
use crate::error::{InferError, LoadError};
use crate::limits::{Limits, MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES};
use crate::store::Installed;
use crate::tokenize::{Cut, Tokens, Words};
use crate::weights::{Table, Weights};

/// A model that is ready to embed. Many threads may use it at once.
#[derive(Debug)]
pub struct Model {
    network: Network,
    words: Words,
    class: NumericClass,
    limits: Limits,
    /// Keeps the files as they are for as long as they are mapped.
    _kept: Option<Installed>,
}

/// Vectors of several texts, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Numbers of a vector.
    pub dimensions: usize,
    /// One vector behind the other.
    pub values: Vec<f32>,
}

impl Vectors {
    /// The vectors, text by text.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions)
    }

    /// Little-endian: what is hashed, sent and compared.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }
}

impl Model {
    /// Loads the model whose files are in a folder: `config.json`, `tokenizer.json`, `model.safetensors` and what
    /// sentence-transformers keeps beside them. The files must stay as they are for as long as the model is in use.
    ///
    /// # Errors
    /// A file is missing, is broken or does not fit the others; the network is of a kind that is not computed here; it needs
    /// more memory than `limits` allow.
    pub fn load(engine: &Engine, folder: &Path, arithmetic: Arithmetic, limits: Limits) -> Result<Self, LoadError> {
        let read = |name: &str| read(folder, name, MAX_CONFIG_BYTES);
        let shape = Shape::read(&read)?;
        let needs = Network::bytes(&shape);
        if needs > limits.memory {
            return Err(LoadError::TooLarge {
                needs,
                allowed: limits.memory,
            });
        }
        let none = || LoadError::Tokenizer {
            problem: "there is none, and texts become tokens by nothing else".to_owned(),
        };
        let tokenizer = self::read(folder, "tokenizer.json", MAX_TOKENIZER_BYTES)?.ok_or_else(none)?;
        let words = Words::parse(&tokenizer, shape.vocabulary, shape.tokens)?;
        let weights = Weights::open(&folder.join("model.safetensors"))?;
        engine.run(|| {
            let (network, used) = Network::load(shape, weights)?;
            let model = fingerprint(network.shape(), &tokenizer, &used);
            Ok(Self {
                network,
                words,
                class: NumericClass { model, arithmetic },
                limits,
                _kept: None,
            })
        })
    }

    /// Loads a model of a store, which stays there for as long as the model is in use.
    ///
    /// # Errors
    /// As [`Model::load`]; or the files are not what they were when they came in.
    pub fn open(
        engine: &Engine,
        installed: Installed,
        arithmetic: Arithmetic,
        limits: Limits,
    ) -> Result<Self, LoadError> {
        let model = Self::load(engine, &installed.files(), arithmetic, limits)?;
        let (expected, found) = (installed.fingerprint(), model.class.model);
        if found != expected {
            return Err(LoadError::Changed { expected, found });
        }
        Ok(Self {
            _kept: Some(installed),
            ..model
        })
    }

    /// What the answers depend on.
    #[must_use]
    pub const fn class(&self) -> NumericClass {
        self.class
    }

    /// What its configuration says.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        self.network.shape()
    }

    /// Bytes of memory that it takes, without the files that are mapped.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        Network::bytes(self.network.shape())
    }

    /// The tokens of a text, behind the model's prompt where it has one.
    ///
    /// # Errors
    /// The text is empty, too long, or has more tokens than the model reads and may not be cut.
    pub fn tokenize(&self, text: &str, cut: Cut) -> Result<Tokens, InferError> {
        if text.is_empty() {
            return Err(InferError::Empty);
        }
        if text.len() > self.limits.text_bytes {
            return Err(InferError::TooLong {
                length: text.len(),
                allowed: self.limits.text_bytes,
                unit: "bytes",
            });
        }
        match self.shape().prompt.as_str() {
            "" => self.words.tokenize(text, cut),
            prompt => self.words.tokenize(&format!("{prompt}{text}"), cut),
        }
    }

    /// Tokens of this model that somebody else made of a text.
    ///
    /// # Errors
    /// There are none, more than the model reads where they may not be cut, or one that the model does not have.
    pub fn tokens(&self, ids: &[u32], cut: Cut) -> Result<Tokens, InferError> {
        self.words.tokens(ids, cut)
    }

    /// The vectors of texts. Each depends on its own tokens alone, and has the same bits on every processor.
    ///
    /// # Errors
    /// Too many texts, tokens of another model, cancelled or late.
    pub fn embed(&self, engine: &Engine, texts: &[Tokens], control: &Control) -> Result<Vectors, InferError> {
        if texts.len() > self.limits.texts {
            return Err(InferError::TooManyTexts {
                texts: texts.len(),
                allowed: self.limits.texts,
            });
        }
        let shape = self.shape();
        for text in texts {
            if text.ids.is_empty() {
                return Err(InferError::Empty);
            }
            if text.ids.len() > shape.tokens {
                return Err(InferError::TooLong {
                    length: text.ids.len(),
                    allowed: shape.tokens,
                    unit: "tokens",
                });
            }
            if let Some(id) = text.ids.iter().find(|id| **id as usize >= shape.vocabulary) {
                return Err(InferError::Token {
                    id: *id,
                    vocabulary: shape.vocabulary,
                });
            }
        }
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        let values = self.network.embed(engine, &ids, control)?;
        Ok(Vectors {
            dimensions: shape.hidden,
            values,
        })
    }

    /// Looks through what loading does not read, and embeds a sentence: whether the model can be used at all.
    ///
    /// # Errors
    /// A weight, or the answer, is not finite.
    pub fn examine(&self, engine: &Engine) -> Result<(), LoadError> {
        self.network.check_words()?;
        let answer = self
            .tokenize("The quick brown fox jumps over the lazy dog.", Cut::End)
            .and_then(|tokens| self.embed(engine, &[tokens], &Control::default()));
        match answer {
            Ok(_) => Ok(()),
            Err(InferError::NotFinite) => Err(LoadError::NotFinite {
                tensor: "the vector of a sentence".to_owned(),
            }),
            Err(error) => Err(LoadError::Tokenizer {
                problem: error.to_string(),
            }),
        }
    }
}

/// A file of a model, of a bounded size; `None` where there is none.
pub(crate) fn read(folder: &Path, name: &str, allowed: u64) -> Result<Option<Vec<u8>>, LoadError> {
    let path: PathBuf = folder.join(name);
    let at = |source| LoadError::File {
        path: path.clone(),
        source,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    let mut bytes = Vec::new();
    file.take(allowed + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() as u64 > allowed {
        let bytes = std::fs::metadata(&path).map_err(at)?.len();
        return Err(LoadError::FileTooLarge { path, bytes, allowed });
    }
    Ok(Some(bytes))
}

/// Over what decides the answers alone: not over read-me files, headers, or tensors that are not used. So a model has one
/// fingerprint, wherever it came from.
fn fingerprint(shape: &Shape, tokenizer: &[u8], used: &[Table]) -> Fingerprint {
    let digest = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
    let mut tensors: Vec<_> = used
        .par_iter()
        .map(|table| (table.name(), table.form().name(), table.shape(), digest(table.data())))
        .collect();
    tensors.sort_unstable();
    let Shape {
        layers,
        hidden,
        heads,
        inner,
        vocabulary,
        positions,
        types,
        tokens,
        ..
    } = *shape;
    let numbers = [layers, hidden, heads, inner, vocabulary, positions, types, tokens];
    let Shape {
        epsilon,
        activation,
        pooling,
        normalise,
        ref prompt,
        ..
    } = *shape;
    let functions = (epsilon.to_bits(), activation, pooling, normalise, prompt);
    let all = ("dawn model 1", numbers, functions, digest(tokenizer), tensors);
    let mut hash = Vec::new();
    // It is written to memory: nothing in it can fail.
    let written = ciborium::into_writer(&all, &mut hash);
    debug_assert!(written.is_ok());
    Fingerprint(digest(&hash))
}

#[cfg(test)]
mod tests;
