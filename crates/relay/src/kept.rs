//! The file of revocations: a line each, in base64. Lines are only ever added, and each is on the disk before the relay
//! says that it has taken it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use dawn_identity::Revocation;

use crate::config::{self, ConfigError};

/// Longest file, bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Longest line, bytes.
const MAX_LINE: u64 = 8 << 10;

/// What such a file holds.
#[derive(Debug, Default)]
pub struct Kept {
    /// The revocations; nothing is verified yet.
    pub revocations: Vec<Revocation>,
    /// Whether the last line is the beginning of one only: the relay was ended while it wrote it. It is overwritten.
    pub is_cut_off: bool,
}

/// Reads such a file; there are none where there is no file.
///
/// # Errors
/// It cannot be read, or a line is no revocation.
pub fn read(path: &Path) -> Result<Kept, ConfigError> {
    if !path.exists() {
        return Ok(Kept::default());
    }
    let text = config::read(path, MAX_BYTES)?;
    let mut kept = Kept::default();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match (parse(line), line.ends_with('\n')) {
            _ if line.trim().is_empty() => {}
            (Some(revocation), _) => kept.revocations.push(revocation),
            (None, false) => kept.is_cut_off = true,
            (None, true) => {
                return Err(ConfigError::Invalid {
                    path: path.to_owned(),
                    reason: format!("line {} is no revocation; take it out", number + 1),
                });
            }
        }
    }
    Ok(kept)
}

fn parse(line: &str) -> Option<Revocation> {
    let bytes = BASE64URL_NOPAD.decode(line.trim().as_bytes()).ok()?;
    Revocation::decode(&bytes).ok()
}

/// Adds to such a file.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    /// What could not be written, and is tried again with the next.
    unwritten: Vec<String>,
}

impl Keeper {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            unwritten: Vec::new(),
        }
    }

    /// Keeps them in another file from now on.
    pub(crate) fn keep_at(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    /// Keeps one, and those that could not be kept before.
    pub(crate) fn keep(&mut self, revocation: &Revocation) {
        let line = format!("{}\n", BASE64URL_NOPAD.encode(&revocation.encode()));
        self.unwritten.push(line);
        self.write();
    }

    /// Tries again to keep what could not be kept.
    pub(crate) fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        match append(&self.path, &self.unwritten.concat()) {
            Ok(()) => self.unwritten.clear(),
            Err(error) => {
                let (path, count) = (self.path.display(), self.unwritten.len());
                tracing::error!(%path, count, %error, "revocations hold, but could not be kept; it is tried again");
            }
        }
    }
}

fn append(path: &Path, lines: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path)?;
    let mut end = whole(&mut file)?;
    if end + lines.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("the file would be longer than {MAX_BYTES} bytes"),
        ));
    }
    file.set_len(end)?;
    if end > 0 && !ends_with_line_end(&mut file, end)? {
        file.write_all(b"\n")?;
        end += 1;
    }
    file.seek(SeekFrom::Start(end))?;
    let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        // What cannot be taken back is overwritten by the next.
        let _ = file.set_len(end);
    }
    written
}

fn ends_with_line_end(file: &mut File, end: u64) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::Start(end - 1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Where the last whole line ends. Without its line end a line is whole where it is a revocation.
fn whole(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let begin = length.saturating_sub(MAX_LINE);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut tail)?;
    let line = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if line == 0 && begin > 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its last line is no revocation",
        ));
    }
    let rest = std::str::from_utf8(tail.get(line..).unwrap_or_default()).unwrap_or_default();
    let is_whole = rest.trim().is_empty() || parse(rest).is_some();
    Ok(if is_whole { length } else { begin + line as u64 })
}

#[cfg(test)]
mod tests {
    use dawn_identity::{Authority, Keypair, UnixTime};

    use super::*;

    fn revocation(of: u8) -> Revocation {
        let key = Keypair::from_seed([9; 32]);
        let node = Keypair::from_seed([of; 32]).node_id();
        Authority::Root { key }.revoke(node, UnixTime(1_800_000_000)).unwrap()
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out_and_overwritten_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations");
        let mut keeper = Keeper::new(path.clone());
        keeper.keep(&revocation(1));
        let whole = std::fs::read_to_string(&path).unwrap();
        for cut in 1..whole.len() - 1 {
            std::fs::write(&path, format!("{whole}{}", &whole[..cut])).unwrap();
            let kept = read(&path).unwrap();
            assert_eq!((kept.revocations.len(), kept.is_cut_off), (1, true), "{cut}");
        }
        keeper.keep(&revocation(2));
        let kept = read(&path).unwrap();
        assert!(!kept.is_cut_off);
        assert_eq!(kept.revocations, [revocation(1), revocation(2)]);
    }

    #[test]
    fn a_last_line_without_its_end_is_a_revocation_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations");
        let mut keeper = Keeper::new(path.clone());
        keeper.keep(&revocation(1));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.trim_end()).unwrap();
        assert_eq!(read(&path).unwrap().revocations, [revocation(1)]);
        keeper.keep(&revocation(2));
        assert_eq!(read(&path).unwrap().revocations, [revocation(1), revocation(2)]);
    }

    #[test]
    fn what_could_not_be_kept_is_kept_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later").join("revocations");
        let mut keeper = Keeper::new(path.clone());
        keeper.keep(&revocation(1));
        std::fs::create_dir(folder.path().join("later")).unwrap();
        keeper.keep(&revocation(2));
        assert_eq!(read(&path).unwrap().revocations, [revocation(1), revocation(2)]);
    }

    #[test]
    fn a_line_in_the_middle_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations");
        std::fs::write(&path, "AAAA\nBBBB\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1 is no revocation"));
    }
}
