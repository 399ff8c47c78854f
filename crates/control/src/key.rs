//! The control plane's own key, with which it issues: a file in its data folder.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dawn_identity::{Keypair, keyfile};

use crate::error::ControlError;

/// The name of the file.
const FILE: &str = "issuer.key";

/// Where the key is.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Reads the key, or makes it where there is none.
///
/// # Errors
/// The file cannot be read or written, or is no key.
pub fn open(data: &Path) -> Result<Keypair, ControlError> {
    let path = path(data);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(keyfile::open(&text, None)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Keypair::generate(&mut rand::rng());
            write(data, &key, false)?;
            Ok(key)
        }
        Err(error) => Err(ControlError::file(&path)(error)),
    }
}

/// Writes the key: for its user alone, and either whole or not at all.
///
/// # Errors
/// There is one already and `replace` is not set, or the file cannot be written.
pub fn write(data: &Path, key: &Keypair, replace: bool) -> Result<(), ControlError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(ControlError::file(data))?;
    let path = path(data);
    if !replace && path.exists() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(ControlError::file(&path)(exists));
    }
    let text = keyfile::seal(key, None, &mut rand::rng())?;
    let new = data.join(format!("{FILE}.new"));
    let written = || -> std::io::Result<()> {
        let mut file = private(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        std::fs::File::open(data)?.sync_all()
    };
    written().map_err(ControlError::file(&path))
}

/// A new file that its user alone can read. What stands in its place, left behind or put there, goes: nobody else's file,
/// and none that a link leads to, is written into.
pub(crate) fn private(path: &Path) -> std::io::Result<std::fs::File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_from_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("deep/data");
        let key = open(&data).unwrap();
        assert_eq!(open(&data).unwrap().node_id(), key.node_id());
        let mode = std::fs::metadata(path(&data)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(write(&data, &key, false).is_err());
    }
}
