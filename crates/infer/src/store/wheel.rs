//! A model from a Python wheel (PEP 427): a zip archive whose `RECORD` has the SHA-256 of every member. Those hashes are
//! what was published, so each file is held against them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use zip::ZipArchive;

use super::import::{Origin, Take};
use super::manifest::{Sha, Source};
use super::{StoreError, allowed};
use crate::limits::MAX_CONFIG_BYTES;

/// Members of a wheel.
const MAX_MEMBERS: usize = 4_096;
/// By how much a member may be greater than what of it is in the archive.
const MAX_RATIO: u64 = 200;

/// A wheel that is imported.
#[derive(Debug)]
pub(super) struct Wheel {
    path: PathBuf,
    archive: ZipArchive<File>,
    /// In the archive, with a slash at its end, or nothing.
    folder: String,
    files: Vec<(String, u64)>,
    record: BTreeMap<String, Sha>,
    distribution: String,
    version: String,
}

impl Wheel {
    pub(super) fn open(path: &Path, inside: Option<&str>) -> Result<Self, StoreError> {
        let broken = |problem: &str| StoreError::Wheel {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let file = File::open(path).map_err(StoreError::at(path))?;
        let mut archive = ZipArchive::new(file).map_err(|error| broken(&error.to_string()))?;
        if archive.len() > MAX_MEMBERS {
            return Err(broken(&format!(
                "it has {} members, and {MAX_MEMBERS} are allowed",
                archive.len()
            )));
        }
        let mut members = BTreeMap::new();
        for number in 0..archive.len() {
            let member = archive.by_index(number).map_err(|error| broken(&error.to_string()))?;
            let name = member.name().map_err(|error| broken(&error.to_string()))?.into_owned();
            if member.is_file() && plain(&name) {
                let (size, packed) = (member.size(), member.compressed_size());
                if members.insert(name.clone(), (size, packed)).is_some() {
                    return Err(broken(&format!("it has `{name}` twice")));
                }
            }
        }
        let info = members.keys().find_map(|name| name.strip_suffix(".dist-info/RECORD"));
        let info = info
            .filter(|info| !info.contains('/'))
            .ok_or_else(|| broken("it has no RECORD"))?;
        let (distribution, version) = info
            .split_once('-')
            .ok_or_else(|| broken(&format!("`{info}` has no version")))?;
        let (distribution, version) = (distribution.replace('_', "-"), version.to_owned());
        let record = format!("{info}.dist-info/RECORD");
        let member = archive.by_name(&record).map_err(|error| broken(&error.to_string()))?;
        let mut text = String::new();
        let read = member.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text);
        read.map_err(|error| broken(&format!("`{record}`: {error}")))?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(broken(&format!("`{record}` is longer than {MAX_CONFIG_BYTES} bytes")));
        }
        let record = text.lines().filter_map(hash_of).collect();

        let folder = folder(path, members.keys(), inside)?;
        let mut files = Vec::new();
        for (name, (size, packed)) in &members {
            let Some(file) = name.strip_prefix(&folder).filter(|file| allowed(file)) else {
                continue;
            };
            if *size > packed.saturating_mul(MAX_RATIO) {
                return Err(broken(&format!(
                    "`{name}` is more than {MAX_RATIO} times what is in the archive"
                )));
            }
            files.push((file.to_owned(), *size));
        }
        Ok(Self {
            path: path.to_owned(),
            archive,
            folder,
            files,
            record,
            distribution,
            version,
        })
    }

    fn broken(&self, problem: &str) -> StoreError {
        StoreError::Wheel {
            path: self.path.clone(),
            problem: problem.to_owned(),
        }
    }
}

/// A path of plain components, none of which leads anywhere else.
fn plain(path: &str) -> bool {
    path.split('/')
        .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']))
}

/// A line of RECORD: path, `sha256=` in base64url without padding, size. Paths with commas are quoted, and none of ours.
fn hash_of(line: &str) -> Option<(String, Sha)> {
    let (rest, _) = line.rsplit_once(',')?;
    let (path, hash) = rest.rsplit_once(',')?;
    let bytes = BASE64URL_NOPAD.decode(hash.strip_prefix("sha256=")?.as_bytes()).ok()?;
    Some((path.to_owned(), Sha(bytes.try_into().ok()?)))
}

/// The one folder that holds a model, or the one that was asked for.
fn folder<'a>(
    path: &Path,
    members: impl Iterator<Item = &'a String>,
    inside: Option<&str>,
) -> Result<String, StoreError> {
    let not = |problem: String| StoreError::NotAModel {
        path: path.to_owned(),
        problem,
    };
    let members: Vec<&String> = members.collect();
    let found: Vec<&str> = members
        .iter()
        .filter_map(|name| name.strip_suffix("model.safetensors"))
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .filter(|folder| {
            members
                .iter()
                .any(|name| name.strip_suffix("config.json") == Some(folder))
        })
        .collect();
    let trim = |folder: &str| folder.trim_end_matches('/').to_owned();
    let shown = || {
        found
            .iter()
            .map(|folder| format!("`{}`", trim(folder)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (inside, found.as_slice()) {
        (Some(inside), _) => found
            .iter()
            .find(|folder| trim(folder) == trim(inside))
            .map(|folder| (*folder).to_owned())
            .ok_or_else(|| not(format!("`{inside}` is none of its models: {}", shown()))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(not(
            "it has no folder with `config.json` and `model.safetensors`".to_owned()
        )),
        (None, _) => Err(not(format!("it has several: say which of {} (`--path`)", shown()))),
    }
}

impl Origin for Wheel {
    fn source(&self) -> Source {
        Source::Wheel {
            distribution: self.distribution.clone(),
            version: self.version.clone(),
        }
    }

    fn suggests(&self) -> String {
        self.distribution.clone()
    }

    fn files(&self) -> Vec<(String, u64)> {
        self.files.clone()
    }

    fn expects(&self, file: &str) -> Option<Sha> {
        self.record.get(&format!("{}{file}", self.folder)).copied()
    }

    fn open(&mut self, file: &str, take: &mut Take<'_>) -> Result<(), StoreError> {
        if self.expects(file).is_none() {
            return Err(self.broken(&format!("RECORD has no SHA-256 of `{file}`")));
        }
        let name = format!("{}{file}", self.folder);
        match self.archive.by_name(&name) {
            Ok(mut member) => take(&mut member),
            Err(error) => Err(StoreError::Wheel {
                path: self.path.clone(),
                problem: format!("`{name}`: {error}"),
            }),
        }
    }
}
