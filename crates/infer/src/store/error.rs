//! What can go wrong with a store.

use std::path::{Path, PathBuf};

use super::{ModelName, ParseNameError};
use crate::error::LoadError;

/// Something with a store of models failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The model itself.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A text that is no name.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// A file or folder of the store, or one that is imported.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has other bytes than it should.
    #[error("`{file}` is damaged: its SHA-256 is {found} and should be {expected}; import the model again")]
    Checksum {
        /// In the model.
        file: String,
        /// The hash that was promised.
        expected: String,
        /// The hash that it has.
        found: String,
    },
    /// No model of this name.
    #[error("there is no model `{name}`; `dawn model list` shows those that there are")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A short name that several models have.
    #[error("`{name}` is the name of several models: say which of {}", list(names))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// All that it could mean.
        names: Vec<ModelName>,
    },
    /// There is a model of this name.
    #[error("there is a model `{name}` already: remove it first, or import under another name")]
    AlreadyThere {
        /// Its name.
        name: ModelName,
    },
    /// Another process, or this one, has the model in use, or is importing it.
    #[error("the model `{name}` is in use: unload it, or stop the node, and try again")]
    InUse {
        /// Its name.
        name: ModelName,
    },
    /// What is imported holds no model.
    #[error("{path} holds no model: {problem}")]
    NotAModel {
        /// What was to be imported.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// The manifest of a model is broken.
    #[error("the manifest of `{name}` is broken: {problem}; remove the model and import it again")]
    Manifest {
        /// The model.
        name: ModelName,
        /// What is wrong.
        problem: String,
    },
    /// A wheel that cannot be read, or does not agree with its own list.
    #[error("{path} is no sound wheel: {problem}")]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Files greater than a model's may be.
    #[error("{path} is too large for a model: {bytes} bytes, and {allowed} are allowed")]
    TooLarge {
        /// What was to be imported.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The bound.
        allowed: u64,
    },
    /// Whoever asked for it does not want it any more.
    #[error("cancelled")]
    Cancelled,
}

fn list(names: &[ModelName]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl StoreError {
    /// The error in one word, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Load(error) => error.code(),
            Self::Name(_) => "bad_name",
            Self::File { .. } => "file",
            Self::Checksum { .. } => "checksum",
            Self::Unknown { .. } => "unknown_model",
            Self::Ambiguous { .. } => "ambiguous_model",
            Self::AlreadyThere { .. } => "already_there",
            Self::InUse { .. } => "in_use",
            Self::NotAModel { .. } => "not_a_model",
            Self::Manifest { .. } => "broken_model",
            Self::Wheel { .. } => "broken_wheel",
            Self::TooLarge { .. } => "too_large",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
