//! What a store knows of a model. Written when all the rest is there.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::ModelName;
use crate::bert::shape::Shape;
use crate::class::Fingerprint;

/// Version of the form.
const VERSION: u32 = 1;

/// A model of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// Its name in the store.
    pub name: ModelName,
    /// The hash of what decides its answers.
    pub fingerprint: Fingerprint,
    /// Where it came from.
    pub source: Source,
    /// When it came, seconds since 1970.
    pub added: u64,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// What its configuration says.
    pub shape: Shape,
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A folder on this machine.
    Folder,
    /// A Python wheel.
    Wheel {
        /// The distribution.
        distribution: String,
        /// Its version.
        version: String,
    },
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// In the model, with slashes.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Sha,
}

/// A SHA-256, in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha(pub [u8; 32]);

impl From<Sha> for String {
    fn from(sha: Sha) -> Self {
        HEXLOWER.encode(&sha.0)
    }
}

impl TryFrom<String> for Sha {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| "not hexadecimal digits")?;
        bytes.try_into().map(Self).map_err(|_| "not 32 bytes")
    }
}

impl Manifest {
    pub(super) const fn new(
        name: ModelName,
        fingerprint: Fingerprint,
        source: Source,
        added: u64,
        files: Vec<FileEntry>,
        shape: Shape,
    ) -> Self {
        Self {
            version: VERSION,
            name,
            fingerprint,
            source,
            added,
            files,
            shape,
        }
    }

    /// Parses and checks what a program may have written into it by hand.
    pub(super) fn parse(bytes: &[u8], name: &ModelName) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.version != VERSION {
            return Err(format!(
                "it has version {}, and this program knows {VERSION}",
                manifest.version
            ));
        }
        if manifest.name != *name {
            return Err(format!("it is that of `{}`", manifest.name));
        }
        if let Some(file) = manifest.files.iter().find(|file| !super::allowed(&file.path)) {
            return Err(format!("`{}` is no file of a model", file.path));
        }
        manifest.shape.check().map_err(|error| error.to_string())?;
        Ok(manifest)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }
}
