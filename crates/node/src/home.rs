//! A node's home: its folders and files, and the lock that keeps two nodes apart.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dawn_identity::Keypair;
use dawn_identity::keyfile::{self, Passphrase};

use crate::error::NodeError;

/// Where a node keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
}

/// Held while a node runs on a home.
#[derive(Debug)]
pub struct HomeLock(#[expect(dead_code, reason = "the lock ends with the file")] File);

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> NodeError + '_ {
    |source| NodeError::File {
        path: path.to_owned(),
        source,
    }
}

impl Home {
    /// One folder for everything when it is given; otherwise `$XDG_CONFIG_HOME/dawn` and `$XDG_DATA_HOME/dawn`.
    #[must_use]
    pub fn resolve(folder: Option<PathBuf>) -> Self {
        if let Some(folder) = folder {
            return Self {
                config: folder.clone(),
                data: folder,
            };
        }
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
        let base = |variable: &str, fallback: &str| {
            let set = std::env::var_os(variable)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute());
            set.unwrap_or_else(|| home.join(fallback)).join("dawn")
        };
        Self {
            config: base("XDG_CONFIG_HOME", ".config"),
            data: base("XDG_DATA_HOME", ".local/share"),
        }
    }

    /// The folder of the data.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The node's key.
    #[must_use]
    pub fn identity_key(&self) -> PathBuf {
        self.data.join("identity.key")
    }

    /// The network's key, where this node holds it.
    #[must_use]
    pub fn network_key(&self) -> PathBuf {
        self.data.join("network.key")
    }

    /// The folder of the audit log.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.data.join("audit")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data.join("dawn.db")
    }

    /// The notes of the agent `memory`.
    #[must_use]
    pub fn memory_database(&self) -> PathBuf {
        self.data.join("memory.db")
    }

    /// The token of the local API.
    #[must_use]
    pub fn api_token(&self) -> PathBuf {
        self.data.join("api-token")
    }

    /// Where the running node's local API listens.
    #[must_use]
    pub fn api_address(&self) -> PathBuf {
        self.data.join("api-address")
    }

    /// Makes the folders, readable by their user only.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn create(&self) -> Result<(), NodeError> {
        for folder in [&self.config, &self.data] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(file_error(folder))?;
        }
        Ok(())
    }

    /// Whether this home belongs to a network.
    #[must_use]
    pub fn has_network(&self) -> bool {
        self.database().exists()
    }

    /// What a running node holds locked, with the number of its process in it.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.data.join("node.lock")
    }

    /// Locks the home for a running node.
    ///
    /// # Errors
    /// Another node runs on it, or the lock file cannot be made.
    pub fn lock(&self) -> Result<HomeLock, NodeError> {
        let path = self.lock_file();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(file_error(&path))?;
        match file.try_lock() {
            Ok(()) => {
                // For who wants to know which process it is; the lock holds without it.
                let written = file.set_len(0).and_then(|()| write!(&file, "{}", std::process::id()));
                if let Err(error) = written {
                    tracing::warn!(path = %path.display(), %error, "the node's process is not noted");
                }
                Ok(HomeLock(file))
            }
            Err(std::fs::TryLockError::WouldBlock) => Err(NodeError::Running(self.data.clone())),
            Err(std::fs::TryLockError::Error(source)) => Err(NodeError::File { path, source }),
        }
    }

    /// Writes a file that only its user may read, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<(), NodeError> {
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, path)
        };
        write().map_err(file_error(path))
    }

    /// The key of a file; made where there is none.
    ///
    /// # Errors
    /// What [`read_key`](Self::read_key) says, or the file cannot be written.
    pub fn own_key(&self, path: &Path, passphrase: Option<&Passphrase>) -> Result<Keypair, NodeError> {
        if path.exists() {
            return self.read_key(path, passphrase);
        }
        let key = Keypair::generate(&mut rand::rng());
        let text = keyfile::seal(&key, passphrase, &mut rand::rng()).map_err(|source| NodeError::Key {
            path: path.to_owned(),
            source,
        })?;
        self.write_private(path, text.as_bytes())?;
        Ok(key)
    }

    /// Reads a key file that nobody else can read.
    ///
    /// # Errors
    /// It is missing, open to others, sealed, or damaged.
    pub fn read_key(&self, path: &Path, passphrase: Option<&Passphrase>) -> Result<Keypair, NodeError> {
        let metadata = std::fs::metadata(path).map_err(file_error(path))?;
        let foreign = metadata.uid() != nix::unistd::Uid::effective().as_raw();
        if metadata.mode() & 0o077 != 0 || foreign {
            return Err(NodeError::OpenKey {
                path: path.to_owned(),
                mode: metadata.mode() & 0o777,
            });
        }
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(file_error(path))?);
        keyfile::open(&text, passphrase).map_err(|source| NodeError::Key {
            path: path.to_owned(),
            source,
        })
    }

    /// The API's token, made at first use, and anew when others could have read it.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn token(&self) -> Result<String, NodeError> {
        let path = self.api_token();
        let is_private = std::fs::metadata(&path).is_ok_and(|metadata| metadata.mode() & 0o077 == 0);
        match std::fs::read_to_string(&path) {
            Ok(token) if is_private && token.trim().len() >= 32 => Ok(token.trim().to_owned()),
            Ok(_) | Err(_) => {
                let token = data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>());
                self.write_private(&path, token.as_bytes())?;
                Ok(token)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(folder.path().join("home")));
        home.create().unwrap();
        (folder, home)
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let (_folder, home) = home();
        let path = home.identity_key();
        let key = home.own_key(&path, None).unwrap();
        assert_eq!(home.own_key(&path, None).unwrap().node_id(), key.node_id());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(home.read_key(&path, None).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = home.read_key(&path, None).unwrap_err();
        assert!(matches!(error, NodeError::OpenKey { mode: 0o640, .. }));
        assert!(error.next().unwrap().starts_with("chmod 600"));
    }

    #[test]
    fn two_nodes_cannot_run_on_one_home() {
        let (_folder, home) = home();
        let lock = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(NodeError::Running(_))));
        drop(lock);
        assert!(home.lock().is_ok());
    }

    #[test]
    fn the_token_stays_and_is_private() {
        let (_folder, home) = home();
        let token = home.token().unwrap();
        assert_eq!(home.token().unwrap(), token);
        assert_eq!(std::fs::metadata(home.api_token()).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(home.api_token(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(home.token().unwrap(), token);
        assert_eq!(std::fs::metadata(home.api_token()).unwrap().mode() & 0o777, 0o600);
    }
}
