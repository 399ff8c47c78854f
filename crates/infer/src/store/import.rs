//! A model comes in: copied, hashed, loaded, tried, and only then there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::folder::Folder;
use super::manifest::{FileEntry, Manifest, Sha, Source};
use super::wheel::Wheel;
use super::{FILES, LOCK, MANIFEST, ModelName, PARTIAL, Progress, Store, StoreError, hash};
use crate::class::Arithmetic;
use crate::engine::Engine;
use crate::limits::{Limits, MAX_FILE_BYTES};
use crate::model::Model;

/// Bytes of all files of a model.
pub(super) const MAX_MODEL_BYTES: u64 = 32 << 30;

/// Where files come from.
pub(super) trait Origin {
    /// For the manifest.
    fn source(&self) -> Source;
    /// The name that it suggests, behind `local/`.
    fn suggests(&self) -> String;
    /// Paths and sizes of all files of the model.
    fn files(&self) -> Vec<(String, u64)>;
    /// The hash that a file was published with.
    fn expects(&self, file: &str) -> Option<Sha>;
    /// Hands a file to `take`.
    fn open(&mut self, file: &str, take: &mut Take<'_>) -> Result<(), StoreError>;
}

/// Takes all bytes of a file.
pub(super) type Take<'a> = dyn FnMut(&mut dyn Read) -> Result<(), StoreError> + 'a;

/// What is asked of an import.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Under which name; else `local/` and what the source is called.
    pub name: Option<ModelName>,
    /// Which folder of a wheel, where several hold a model.
    pub inside: Option<String>,
    /// Seconds since 1970.
    pub now: u64,
}

impl Store {
    /// Imports a model from a folder, or from a wheel (a file whose name ends in `.whl`), whose own list of hashes is held
    /// against every file. It is there when it was loaded and has embedded a sentence.
    ///
    /// # Errors
    /// There is one of this name; the source holds no model, a damaged one, or one of a kind that is not computed here.
    pub fn import(
        &self,
        engine: &Engine,
        from: &Path,
        import: Import,
        progress: &dyn Progress,
    ) -> Result<Manifest, StoreError> {
        let mut origin: Box<dyn Origin> = if from.extension().is_some_and(|extension| extension == "whl") {
            Box::new(Wheel::open(from, import.inside.as_deref())?)
        } else {
            Box::new(Folder::open(from)?)
        };
        let name = import
            .name
            .map_or_else(|| format!("local/{}", origin.suggests()).parse(), Ok)?;
        let place = self.place(&name);
        let flat = format!("{}--{}", name.owner(), name.name());
        let partial = self.folder.join(PARTIAL).join(&flat);
        let lock = self.folder.join(PARTIAL).join(format!("{flat}.lock"));
        let only = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(StoreError::at(&lock))?;
        match only.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { name }),
            Err(TryLockError::Error(error)) => return Err(StoreError::at(&lock)(error)),
        }
        if place.join(MANIFEST).exists() {
            return Err(StoreError::AlreadyThere { name });
        }
        let files = origin.files();
        bounded(from, &files)?;
        // What an import that was broken off, or a removal, left.
        for rest in [&partial, &place] {
            match fs::remove_dir_all(rest) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::at(rest)(error)),
                _ => {}
            }
        }
        let done = bring(engine, origin.as_mut(), &files, &name, import.now, &partial, progress).and_then(|manifest| {
            let owner = self.folder.join(name.owner());
            fs::create_dir_all(&owner).map_err(StoreError::at(&owner))?;
            fs::rename(&partial, &place).map_err(StoreError::at(&place))?;
            sync(&owner)?;
            Ok(manifest)
        });
        if done.is_err() {
            // What stays of it is removed by the next import; the reason of this one matters more.
            let _ = fs::remove_dir_all(&partial);
        }
        done
    }
}

fn bounded(from: &Path, files: &[(String, u64)]) -> Result<(), StoreError> {
    let mut all = 0_u64;
    for (_, bytes) in files {
        all = all.saturating_add(*bytes);
        for (bytes, allowed) in [(*bytes, MAX_FILE_BYTES), (all, MAX_MODEL_BYTES)] {
            if bytes > allowed {
                return Err(StoreError::TooLarge {
                    path: from.to_owned(),
                    bytes,
                    allowed,
                });
            }
        }
    }
    Ok(())
}

/// Makes the whole model in the folder for those that are not whole.
fn bring(
    engine: &Engine,
    origin: &mut dyn Origin,
    files: &[(String, u64)],
    name: &ModelName,
    now: u64,
    partial: &Path,
    progress: &dyn Progress,
) -> Result<Manifest, StoreError> {
    let folder = partial.join(FILES);
    let mut entries = Vec::new();
    for (file, bytes) in files {
        progress.began(file, *bytes);
        let expected = origin.expects(file);
        let entry = copy(origin, file, *bytes, &folder.join(file), progress)?;
        if let Some(expected) = expected.filter(|expected| *expected != entry.sha256) {
            let (expected, found) = (expected.into(), entry.sha256.into());
            return Err(StoreError::Checksum {
                file: file.clone(),
                expected,
                found,
            });
        }
        entries.push(entry);
    }
    let model = Model::load(
        engine,
        &folder,
        Arithmetic::I16,
        Limits {
            memory: u64::MAX,
            ..Limits::default()
        },
    )?;
    model.examine(engine)?;
    let manifest = Manifest::new(
        name.clone(),
        model.class().model,
        origin.source(),
        now,
        entries,
        model.shape().clone(),
    );
    let written = serde_json::to_vec_pretty(&manifest).map_err(|error| StoreError::Manifest {
        name: name.clone(),
        problem: error.to_string(),
    })?;
    write(&partial.join(LOCK), &[])?;
    write(&partial.join(MANIFEST), &written)?;
    sync(&folder)?;
    sync(partial)?;
    Ok(manifest)
}

fn copy(
    origin: &mut dyn Origin,
    file: &str,
    bytes: u64,
    to: &Path,
    progress: &dyn Progress,
) -> Result<FileEntry, StoreError> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(StoreError::at(folder))?;
    }
    let mut out = File::create_new(to).map_err(StoreError::at(to))?;
    let mut entry = FileEntry {
        path: file.to_owned(),
        size: 0,
        sha256: Sha([0; 32]),
    };
    origin.open(file, &mut |from| {
        // One byte more shows a file that is longer than it said.
        let found = hash(from.take(bytes + 1), progress, |read| {
            entry.size += read.len() as u64;
            out.write_all(read)
        });
        entry.sha256 = found.map_err(|error| error.at(to))?;
        Ok(())
    })?;
    if entry.size > bytes {
        return Err(StoreError::TooLarge {
            path: to.to_owned(),
            bytes: entry.size,
            allowed: bytes,
        });
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        out.set_permissions(fs::Permissions::from_mode(0o400))
            .map_err(StoreError::at(to))?;
    }
    out.sync_all().map_err(StoreError::at(to))?;
    Ok(entry)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = File::create(path).map_err(StoreError::at(path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(StoreError::at(path))
}

/// What was written into a folder is there after a crash, too.
fn sync(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::at(folder))
}
