//! What can go wrong. Each error has a code, which is the same in the API, in `--json` and in metrics.

use std::path::PathBuf;

use crate::class::Fingerprint;
use crate::product::packed::NotFinite;

/// A model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that a model needs cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is greater than any of its kind.
    #[error("{path} has {bytes} bytes, and {allowed} are allowed: this is no file of a model that Dawn runs")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The bound.
        allowed: u64,
    },
    /// A file is not of the form that it should have.
    #[error("{file}: {problem}")]
    Malformed {
        /// The file, inside the model.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A network of a kind that is not computed here.
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported {
        /// What the model has.
        what: String,
        /// What it could have instead.
        supported: &'static str,
    },
    /// A tensor is missing, or of another shape or type than the configuration says.
    #[error("tensor `{name}`: {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Weights that are infinite or no numbers.
    #[error("tensor `{tensor}` holds a number that is not finite: the file is damaged, or its training failed")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// A model of a store is not what it was when it came in.
    #[error(
        "the files were changed: the fingerprint is {found} and was {expected}; remove the model and import it again"
    )]
    Changed {
        /// When it came in.
        expected: Fingerprint,
        /// Now.
        found: Fingerprint,
    },
    /// More memory than the owner allows.
    #[error("the model needs {needs} bytes of memory, and {allowed} are allowed: raise `models.memory`")]
    TooLarge {
        /// What it needs.
        needs: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// The tokenizer does not load, or does not fit the network.
    #[error("tokenizer.json: {problem}")]
    Tokenizer {
        /// What is wrong with it.
        problem: String,
    },
}

impl LoadError {
    /// The error in one word, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::Malformed { .. } | Self::Tokenizer { .. } => "broken_model",
            Self::Tensor { .. } | Self::NotFinite { .. } => "broken_model",
            Self::Changed { .. } => "checksum",
            Self::Unsupported { .. } => "unsupported_model",
            Self::TooLarge { .. } | Self::FileTooLarge { .. } => "too_large",
        }
    }
}

/// A text cannot be embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// A text has too many bytes, or more tokens than the model takes where nothing may be cut.
    #[error("the text has {length} {unit}, and the model takes {allowed}: cut it, or let it be cut (`truncate`)")]
    TooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        allowed: usize,
        /// `bytes` or `tokens`.
        unit: &'static str,
    },
    /// More texts than one call may have.
    #[error("{texts} texts in one call, and {allowed} are allowed: send several")]
    TooManyTexts {
        /// How many there are.
        texts: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// A token number that the model does not have.
    #[error("token {id} is none of the model's {vocabulary}: token numbers of another model fit none here; send text")]
    Token {
        /// The number.
        id: u32,
        /// How many tokens the model has.
        vocabulary: usize,
    },
    /// A text, or an array of tokens, of nothing.
    #[error("the input is empty")]
    Empty,
    /// The tokenizer failed.
    #[error("the text does not become tokens: {problem}")]
    Tokenizer {
        /// In the tokenizer's words.
        problem: String,
    },
    /// The numbers left what a float holds: weights that belong to no trained model.
    #[error("the model's numbers became infinite: its weights belong to no trained model")]
    NotFinite,
    /// Whoever asked is not there any more.
    #[error("cancelled")]
    Cancelled,
    /// The deadline passed.
    #[error("not done by the deadline")]
    Late,
}

impl InferError {
    /// The error in one word, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::TooManyTexts { .. } => "too_many_texts",
            Self::Token { .. } => "unknown_token",
            Self::Empty => "empty_input",
            Self::Tokenizer { .. } => "tokenizer",
            Self::NotFinite => "not_finite",
            Self::Cancelled => "cancelled",
            Self::Late => "late",
        }
    }
}

impl From<NotFinite> for InferError {
    fn from(_: NotFinite) -> Self {
        Self::NotFinite
    }
}
