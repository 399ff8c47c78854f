//! A model from a folder: plain files, or a snapshot of the hub's own cache, whose links stay inside the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::import::{Origin, Take};
use super::manifest::{Sha, Source};
use super::{StoreError, allowed, names};

/// A folder that is imported.
#[derive(Debug)]
pub(super) struct Folder {
    folder: PathBuf,
    files: Vec<(String, u64)>,
}

impl Folder {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let folder = folder.canonicalize().map_err(StoreError::at(folder))?;
        // REPOSITORY/snapshots/COMMIT/FILE is a link to REPOSITORY/blobs/HASH.
        let snapshots = folder
            .parent()
            .filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"));
        let inside = snapshots.and_then(Path::parent).unwrap_or(&folder).to_owned();
        let mut files = Vec::new();
        for name in names(&folder)? {
            let below = names(&folder.join(&name))?
                .into_iter()
                .map(|file| format!("{name}/{file}"))
                .collect::<Vec<_>>();
            for file in std::iter::once(name).chain(below).filter(|file| allowed(file)) {
                let path = folder
                    .join(&file)
                    .canonicalize()
                    .map_err(StoreError::at(&folder.join(&file)))?;
                if !path.starts_with(&inside) {
                    let problem = format!("`{file}` is a link to somewhere else");
                    return Err(StoreError::NotAModel { path: folder, problem });
                }
                let about = fs::metadata(&path).map_err(StoreError::at(&path))?;
                if about.is_file() {
                    files.push((file, about.len()));
                }
            }
        }
        files.sort();
        for needed in ["config.json", "model.safetensors"] {
            if !files.iter().any(|(file, _)| file == needed) {
                let problem = match needed {
                    "model.safetensors" => {
                        "it has no `model.safetensors` (other forms of weights must be converted to it)"
                    }
                    _ => "it has no `config.json`",
                };
                return Err(StoreError::NotAModel {
                    path: folder,
                    problem: problem.to_owned(),
                });
            }
        }
        Ok(Self { folder, files })
    }
}

impl Origin for Folder {
    fn source(&self) -> Source {
        Source::Folder
    }

    fn suggests(&self) -> String {
        self.folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn files(&self) -> Vec<(String, u64)> {
        self.files.clone()
    }

    fn expects(&self, _: &str) -> Option<Sha> {
        None
    }

    fn open(&mut self, file: &str, take: &mut Take<'_>) -> Result<(), StoreError> {
        let path = self.folder.join(file);
        let mut file = File::open(&path).map_err(StoreError::at(&path))?;
        take(&mut file)
    }
}
