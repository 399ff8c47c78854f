//! Classes: which outputs may be compared, and how near they have to be.
//!
//! Numbers of `f32` differ a little from engine to engine, those of `bf16` more; those of `int8` from scheme to scheme and
//! from one version of an engine to the next so much that they can only be compared within one. The tolerances stand far
//! from both: outputs of one class are nearer by a factor of ten and more, those of the next worse one farther.

use std::fmt;
use std::str::FromStr;

use crate::{ModelDigest, Refused};

/// Longest text of a precision, bytes.
pub const MAX_PRECISION_BYTES: usize = 64;

/// What a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// Texts become vectors.
    Embed,
    /// Pairs of a query and a document become scores.
    Rerank,
    /// A prompt is continued.
    Generate,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Embed, Self::Rerank, Self::Generate];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Generate => "generate",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let found = Self::ALL.into_iter().find(|workload| workload.name() == text);
        found.ok_or(Refused::Malformed("not a workload"))
    }
}

/// What numbers an engine computes with, and which engine where outputs depend on it.
///
/// As text: `f32`, `bf16`, `int8:SCHEME@ENGINE-VERSION`, `up:ENGINE/QUANT@VERSION`; the names are of ASCII letters, digits,
/// `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point with the exponent of 32.
    Bf16,
    /// 8-bit integers.
    Int8 {
        /// How numbers are made small.
        scheme: String,
        /// The engine and its version.
        family: String,
    },
    /// A server that is not ours.
    Upstream {
        /// Which.
        engine: String,
        /// What it calls its weights' type.
        quant: String,
        /// Its version.
        version: String,
    },
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::Bf16 => f.write_str("bf16"),
            Self::Int8 { scheme, family } => write!(f, "int8:{scheme}@{family}"),
            Self::Upstream { engine, quant, version } => write!(f, "up:{engine}/{quant}@{version}"),
        }
    }
}

fn name(text: &str) -> Option<String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!text.is_empty() && text.bytes().all(is_fine)).then(|| text.to_owned())
}

fn precision(text: &str) -> Option<Precision> {
    match text {
        "f32" => return Some(Precision::F32),
        "bf16" => return Some(Precision::Bf16),
        _ => {}
    }
    let (kind, rest) = text.split_once(':')?;
    let (what, family) = rest.split_once('@')?;
    match kind {
        "int8" => Some(Precision::Int8 {
            scheme: name(what)?,
            family: name(family)?,
        }),
        "up" => {
            let (engine, quant) = what.split_once('/')?;
            Some(Precision::Upstream {
                engine: name(engine)?,
                quant: name(quant)?,
                version: name(family)?,
            })
        }
        _ => None,
    }
}

impl FromStr for Precision {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.len() > MAX_PRECISION_BYTES {
            return Err(Refused::TooLarge);
        }
        precision(text).ok_or(Refused::Malformed("not a class of outputs"))
    }
}

/// What outputs belong to: weights and what is computed with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Which weights.
    pub model: ModelDigest,
    /// What is computed with.
    pub precision: Precision,
}

/// How far two outputs that agree may be from each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// 1 minus the cosine of two vectors, at most.
    pub angle: f64,
    /// The difference of the lengths of two vectors, as a share of the longer one, at most.
    pub length: f64,
    /// The difference of two scores, at most.
    pub score: f64,
}

impl Tolerance {
    const F32: Self = Self {
        angle: 1e-5,
        length: 1e-3,
        score: 1e-3,
    };
    const BF16: Self = Self {
        angle: 1e-3,
        length: 1e-2,
        score: 1e-2,
    };
}

impl Class {
    /// How far numbers of the two may be from each other; `None` where they cannot be compared.
    pub fn tolerance(&self, other: &Self) -> Option<Tolerance> {
        if self.model != other.model {
            return None;
        }
        match (&self.precision, &other.precision) {
            (Precision::F32, Precision::F32) => Some(Tolerance::F32),
            (Precision::F32 | Precision::Bf16, Precision::F32 | Precision::Bf16) => Some(Tolerance::BF16),
            (one @ Precision::Int8 { .. }, other) if one == other => Some(Tolerance::F32),
            _ => None,
        }
    }

    /// Whether outputs of the two can be compared: numbers within a tolerance, texts of one engine with one another.
    pub fn is_comparable(&self, other: &Self, workload: Workload) -> bool {
        match workload {
            Workload::Embed | Workload::Rerank => self.tolerance(other).is_some(),
            Workload::Generate => self == other,
        }
    }
}
