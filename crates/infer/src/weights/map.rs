//! A file in memory, of which only what is touched takes room.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::LoadError;

/// A mapped file, read only.
#[derive(Debug)]
pub(crate) struct Map(Mmap);

impl Map {
    pub(crate) fn open(path: &Path, most: u64) -> Result<Self, LoadError> {
        let at = |source| LoadError::File {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(at)?;
        let bytes = file.metadata().map_err(at)?.len();
        if bytes > most {
            return Err(LoadError::FileTooLarge {
                path: path.to_owned(),
                bytes,
                allowed: most,
            });
        }
        #[allow(unsafe_code, reason = "nothing safe maps a file, for another process could write it")]
        // SAFETY: the bytes must not change while they are mapped. The files of a store are read-only, are only ever renamed
        // into place, and the store holds a lock on the model's folder as long as it is in use; they are the user's own,
        // and who cuts one off while it is read ends this process by SIGBUS, as with any program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(at)?;
        Ok(Self(map))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
