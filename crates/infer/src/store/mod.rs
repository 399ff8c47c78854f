//! The models of a node, each in a folder of its own, with the hashes of its files.
//!
//! ```text
//! FOLDER/OWNER/NAME/manifest.json     without it there is no model
//!                   lock              shared while the model is in use, exclusive to remove it
//!                   files/…           config.json, model.safetensors, tokenizer.json, 1_Pooling/config.json, …
//! FOLDER/.partial/OWNER--NAME/        a model that is coming in; renamed when it is whole
//! ```

mod error;
mod folder;
mod import;
mod manifest;
mod name;
#[cfg(test)]
mod tests;
mod wheel;

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use error::StoreError;
pub use import::Import;
pub use manifest::{FileEntry, Manifest, Sha, Source};
pub use name::{ModelName, ParseNameError};

use crate::class::{Arithmetic, Fingerprint};
use crate::engine::Engine;
use crate::limits::{Limits, MAX_CONFIG_BYTES};
use crate::model::{Model, read};

const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";
const FILES: &str = "files";
const PARTIAL: &str = ".partial";
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Whoever watches files come in, or be read.
pub trait Progress: Sync {
    /// A file of so many bytes begins.
    fn began(&self, file: &str, bytes: u64) {
        let _ = (file, bytes); // told to whom it interests
    }
    /// So many bytes more of it are done.
    fn moved(&self, bytes: u64) {
        let _ = bytes; // told to whom it interests
    }
    /// Whether it should end.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
impl Progress for () {}

/// A folder of models.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A model as a list shows it.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: ModelName,
    /// What is known of it, or why nothing is.
    pub manifest: Result<Manifest, StoreError>,
}

/// A model that is there, and stays for as long as this is held.
#[derive(Debug)]
pub struct Installed {
    manifest: Manifest,
    folder: PathBuf,
    /// Locked, shared; the lock goes with it.
    _lock: File,
}

/// How thoroughly files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Whether all are there, with their sizes.
    Sizes,
    /// All bytes, and what they decide.
    Bytes,
}

impl Installed {
    /// What is known of it.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The hash of what decides its answers, as it was when it came in.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.manifest.fingerprint
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join(FILES)
    }
}

/// Whether a path is one of the files that make a model. Nothing else is ever copied or read.
fn allowed(path: &str) -> bool {
    const PLAIN: [&str; 11] = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "LICENSE",
        "README.md",
    ];
    let module = |folder: &str| {
        let digits = folder.find(|c: char| !c.is_ascii_digit()).unwrap_or_default();
        let name = folder[digits..].strip_prefix('_');
        (1..=3).contains(&digits)
            && name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()))
    };
    PLAIN.contains(&path) || path.strip_suffix("/config.json").is_some_and(module)
}

impl Store {
    /// Opens the store in a folder, which is made where there is none.
    ///
    /// # Errors
    /// The folder can neither be read nor be made.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let partial = folder.join(PARTIAL);
        fs::create_dir_all(&partial).map_err(StoreError::at(&partial))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    fn place(&self, name: &ModelName) -> PathBuf {
        self.folder.join(name.owner()).join(name.name())
    }

    /// All models, by name.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let mut all = Vec::new();
        for owner in names(&self.folder)? {
            for name in names(&self.folder.join(&owner))? {
                let Ok(name) = format!("{owner}/{name}").parse::<ModelName>() else {
                    continue;
                };
                if self.place(&name).join(MANIFEST).exists() {
                    let manifest = self.manifest(&name);
                    all.push(Entry { name, manifest });
                }
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn manifest(&self, name: &ModelName) -> Result<Manifest, StoreError> {
        let unknown = || StoreError::Unknown { name: name.to_string() };
        let bytes = read(&self.place(name), MANIFEST, MAX_CONFIG_BYTES)?.ok_or_else(unknown)?;
        Manifest::parse(&bytes, name).map_err(|problem| StoreError::Manifest {
            name: name.clone(),
            problem,
        })
    }

    /// The model of a name, or of the last part of one where no other model has it.
    ///
    /// # Errors
    /// There is none, or several have it; its manifest is broken; it is being removed.
    pub fn find(&self, name: &str) -> Result<Installed, StoreError> {
        let name = if name.contains('/') {
            name.parse::<ModelName>()?
        } else {
            let mut names: Vec<_> = self
                .list()?
                .into_iter()
                .map(|entry| entry.name)
                .filter(|n| n.name() == name)
                .collect();
            match (names.pop(), names.is_empty()) {
                (Some(only), true) => only,
                (Some(last), false) => {
                    names.push(last);
                    return Err(StoreError::Ambiguous {
                        name: name.to_owned(),
                        names,
                    });
                }
                (None, _) => return Err(StoreError::Unknown { name: name.to_owned() }),
            }
        };
        let folder = self.place(&name);
        let lock = match File::open(folder.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::Unknown { name: name.to_string() });
            }
            Err(error) => return Err(StoreError::at(&folder)(error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { name }),
            Err(TryLockError::Error(error)) => return Err(StoreError::at(&folder)(error)),
        }
        // Behind the lock: whoever removes it takes the manifest away first.
        let manifest = self.manifest(&name)?;
        Ok(Installed {
            manifest,
            folder,
            _lock: lock,
        })
    }

    /// Whether a model's files are what they were when they came in.
    ///
    /// # Errors
    /// The first that is not.
    pub fn verify(&self, engine: &Engine, name: &str, check: Check, progress: &dyn Progress) -> Result<(), StoreError> {
        let installed = self.find(name)?;
        let files = installed.files();
        for entry in &installed.manifest.files {
            let path = files.join(&entry.path);
            let file = File::open(&path).map_err(StoreError::at(&path))?;
            let size = file.metadata().map_err(StoreError::at(&path))?.len();
            progress.began(&entry.path, size);
            let found = match check {
                Check::Sizes if size == entry.size => continue,
                _ => hash(file, progress, |_| Ok(())).map_err(|error| error.at(&path))?,
            };
            if found != entry.sha256 {
                let (expected, found) = (entry.sha256.into(), found.into());
                return Err(StoreError::Checksum {
                    file: entry.path.clone(),
                    expected,
                    found,
                });
            }
        }
        if check == Check::Bytes {
            Model::open(
                engine,
                installed,
                Arithmetic::I16,
                Limits {
                    memory: u64::MAX,
                    ..Limits::default()
                },
            )?;
        }
        Ok(())
    }

    /// Removes a model that nobody has in use.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove(&self, name: &ModelName) -> Result<(), StoreError> {
        let folder = self.place(name);
        let unknown = |_| StoreError::Unknown { name: name.to_string() };
        let lock = File::open(folder.join(LOCK)).map_err(unknown)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { name: name.clone() }),
            Err(TryLockError::Error(error)) => return Err(StoreError::at(&folder)(error)),
        }
        let manifest = folder.join(MANIFEST);
        fs::remove_file(&manifest).map_err(StoreError::at(&manifest))?;
        fs::remove_dir_all(&folder).map_err(StoreError::at(&folder))
    }
}

/// Plain names in a folder; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::at(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::at(folder))?.file_name();
        names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
    }
    Ok(names)
}

/// Why bytes were not hashed to their end.
enum Broken {
    Cancelled,
    File(std::io::Error),
}

impl Broken {
    fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Cancelled => StoreError::Cancelled,
            Self::File(error) => StoreError::at(path)(error),
        }
    }
}

/// Reads to the end and hashes, passing on what was read.
fn hash(
    mut from: impl Read,
    progress: &dyn Progress,
    mut pass: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Sha, Broken> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        if progress.is_cancelled() {
            return Err(Broken::Cancelled);
        }
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok(Sha(hash.finalize().into())),
            Ok(read) => &chunk[..read],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Broken::File(error)),
        };
        hash.update(read);
        pass(read).map_err(Broken::File)?;
        progress.moved(read.len() as u64);
    }
}
