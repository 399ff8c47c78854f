//! The file of `dawn relay`, and those beside it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use dawn_identity::{NetworkId, NodeId, RelayQuota, UnixTime};
use libp2p::Multiaddr;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::quota::Quotas;

/// Longest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most static tokens.
const MAX_TOKENS: usize = 65_536;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file says what it may not say.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl ConfigError {
    fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// The configuration of a relay.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Where it listens.
    pub listen: Vec<Multiaddr>,
    /// Where it can be dialled; with none, where it listens.
    pub external: Vec<Multiaddr>,
    /// Its key, made at the first start.
    pub identity: PathBuf,
    /// Networks whose members, and holders of whose tokens, may reserve.
    pub networks: Vec<NetworkId>,
    /// Tokens of the operator's.
    pub tokens: Vec<StaticToken>,
    /// Where revocations are kept.
    pub revocations: PathBuf,
    /// Serials of signed tokens that are not accepted, in hexadecimal.
    pub refused_serials: Vec<String>,
    /// Where metrics and health are served; never but on a loopback address unless told so.
    pub observe: Option<std::net::SocketAddr>,
    /// How long circuits may go on when the relay is to end.
    pub drain: Duration,
    /// Quotas in force.
    pub quotas: Quotas,
    /// Connections at once.
    pub connections: u32,
}

/// A token of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticToken {
    /// Its name: whose quota it is.
    pub name: String,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// Who may use it; nobody in particular if empty.
    pub peers: Vec<NodeId>,
    /// When it ends.
    pub expires: Option<UnixTime>,
    /// What it grants, where that is less than the relay's own quotas.
    pub quota: RelayQuota,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    listen: Vec<Multiaddr>,
    external: Vec<Multiaddr>,
    identity: PathBuf,
    networks: Vec<String>,
    token: Vec<TokenEntry>,
    revocations: PathBuf,
    refused_serials: Vec<String>,
    observe: Option<std::net::SocketAddr>,
    drain: String,
    quotas: Quotas,
    connections: u32,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: [
                "/ip4/0.0.0.0/udp/7440/quic-v1",
                "/ip4/0.0.0.0/tcp/7440",
                "/ip6/::/udp/7440/quic-v1",
                "/ip6/::/tcp/7440",
            ]
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
            external: Vec::new(),
            identity: "relay.key".into(),
            networks: Vec::new(),
            token: Vec::new(),
            revocations: "revocations".into(),
            refused_serials: Vec::new(),
            observe: None,
            drain: "30s".into(),
            quotas: Quotas::default(),
            connections: 16_384,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    /// In hexadecimal.
    sha256: Option<String>,
    /// The token itself.
    secret: Option<String>,
    #[serde(default)]
    peers: Vec<String>,
    expires: Option<String>,
    circuits: Option<u64>,
    bytes: Option<u64>,
    bytes_per_second: Option<u64>,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let invalid = |reason: String| ConfigError::invalid(path, reason);
        let file: File = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if file.listen.is_empty() {
            return Err(invalid("listen: at least one address is needed".into()));
        }
        if file.token.len() > MAX_TOKENS {
            return Err(invalid(format!("token: more than {MAX_TOKENS}")));
        }
        if file.token.iter().any(|token| token.secret.is_some()) {
            let mode = fs::metadata(path).map_err(file_error(path))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(invalid(format!(
                    "it holds secrets in the clear and others may read it; run `chmod 600 {}`, or give `sha256` in the place of `secret`",
                    path.display()
                )));
            }
        }
        let networks: Result<Vec<NetworkId>, _> = file.networks.iter().map(|text| text.parse()).collect();
        let tokens: Result<Vec<StaticToken>, String> = file.token.into_iter().map(token).collect();
        let folder = path.parent().unwrap_or(Path::new("."));
        let config = Self {
            path: path.to_owned(),
            listen: file.listen,
            external: file.external,
            identity: folder.join(file.identity),
            networks: networks.map_err(|error| invalid(format!("networks: {error}")))?,
            tokens: tokens.map_err(invalid)?,
            revocations: folder.join(file.revocations),
            refused_serials: file
                .refused_serials
                .iter()
                .map(|serial| serial.to_lowercase())
                .collect(),
            observe: file.observe,
            drain: humantime::parse_duration(&file.drain).map_err(|error| invalid(format!("drain: {error}")))?,
            quotas: file.quotas,
            connections: file.connections,
        };
        if config.networks.is_empty() && config.tokens.is_empty() {
            return Err(ConfigError::invalid(
                path,
                "nobody could reserve: name a network in `networks`, or add a `[[token]]`",
            ));
        }
        let mut names: Vec<&str> = config.tokens.iter().map(|token| token.name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(a),
            _ => None,
        });
        if let Some(twice) = twice {
            return Err(ConfigError::invalid(path, format!("token: {twice:?} is there twice")));
        }
        Ok(config)
    }

    /// The seed of the relay's key; made, and readable by nobody else, where there is none.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn seed(&self) -> Result<zeroize::Zeroizing<[u8; 32]>, ConfigError> {
        let path = &self.identity;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let seed = zeroize::Zeroizing::new(rand::random::<[u8; 32]>());
                let mut options = fs::OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(file_error(path))?;
                let text = zeroize::Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*seed));
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
                    .map_err(file_error(path))?;
                return Ok(seed);
            }
            Err(error) => return Err(file_error(path)(error)),
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
                let reason = format!("others may read the relay's key; run `chmod 600 {}`", path.display());
                return Err(ConfigError::invalid(path, reason));
            }
            Ok(_) => {}
        }
        let text = zeroize::Zeroizing::new(read(path)?);
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).unwrap_or_default();
        let bytes = zeroize::Zeroizing::new(bytes);
        let seed = <[u8; 32]>::try_from(bytes.as_slice());
        seed.map(zeroize::Zeroizing::new)
            .map_err(|_| ConfigError::invalid(path, "this is no relay's key: 64 hexadecimal digits"))
    }
}

fn token(entry: TokenEntry) -> Result<StaticToken, String> {
    let name = entry.name;
    let refuse = |reason: &str| format!("token {name:?}: {reason}");
    let hash = match (&entry.sha256, &entry.secret) {
        (Some(hash), None) => HEXLOWER_PERMISSIVE
            .decode(hash.as_bytes())
            .ok()
            .and_then(|hash| <[u8; 32]>::try_from(hash).ok())
            .ok_or_else(|| refuse("sha256 has 64 hexadecimal digits"))?,
        // Short ones could be guessed.
        (None, Some(secret)) if secret.trim().len() < 16 => return Err(refuse("a secret has at least 16 characters")),
        (None, Some(secret)) => hash(secret),
        _ => return Err(refuse("either sha256 or secret is needed")),
    };
    let peers: Result<Vec<NodeId>, _> = entry.peers.iter().map(|peer| peer.parse()).collect();
    let expires = entry.expires.map(|text| text.parse::<jiff::Timestamp>()).transpose();
    let expires = expires.map_err(|error| refuse(&format!("expires: {error}")))?;
    Ok(StaticToken {
        hash,
        peers: peers.map_err(|error| refuse(&format!("peers: {error}")))?,
        expires: expires.map(|at| UnixTime(u64::try_from(at.as_second()).unwrap_or_default())),
        quota: RelayQuota {
            circuits: entry.circuits,
            bytes: entry.bytes,
            bytes_per_second: entry.bytes_per_second,
        },
        name,
    })
}

/// The hash under which a static token is kept.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.trim().as_bytes()).into()
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> ConfigError + '_ {
    move |source| ConfigError::File {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let length = fs::metadata(path).map_err(file_error(path))?.len();
    if length > MAX_FILE_BYTES {
        return Err(ConfigError::invalid(
            path,
            format!("longer than {MAX_FILE_BYTES} bytes"),
        ));
    }
    fs::read_to_string(path).map_err(file_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: u32, text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Config::read(&path)
    }

    #[test]
    fn a_relay_that_nobody_could_use_does_not_start() {
        let error = config(0o600, "").unwrap_err().to_string();
        assert!(error.contains("nobody could reserve"), "{error}");
    }

    #[test]
    fn a_secret_in_the_clear_wants_a_file_that_nobody_else_reads() {
        let text = "[[token]]\nname = \"a\"\nsecret = \"sixteen characters\"\n";
        assert_eq!(config(0o600, text).unwrap().tokens[0].hash, hash("sixteen characters"));
        let error = config(0o644, text).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert!(config(0o600, "[[token]]\nname = \"a\"\nsecret = \"short\"\n").is_err());
        let hashed = format!(
            "[[token]]\nname = \"a\"\nsha256 = \"{}\"\n",
            HEXLOWER_PERMISSIVE.encode(&hash("x"))
        );
        assert!(config(0o644, &hashed).is_ok());
    }

    #[test]
    fn what_is_not_known_or_there_twice_is_refused() {
        for text in [
            "lisen = []",
            "networks = [\"x\"]",
            "listen = [\"here\"]",
            "drain = \"soon\"",
            "[quotas]\nbytes = 1",
        ] {
            assert!(config(0o600, text).is_err(), "{text}");
        }
        let entry = "[[token]]\nname = \"a\"\nsecret = \"sixteen characters\"\n";
        assert!(config(0o600, &entry.repeat(2)).is_err());
    }

    #[test]
    fn the_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        fs::write(&path, "[[token]]\nname = \"a\"\nsha256 = \"").unwrap();
        let text = format!(
            "[[token]]\nname = \"a\"\nsha256 = \"{}\"\n",
            HEXLOWER_PERMISSIVE.encode(&hash("x"))
        );
        fs::write(&path, text).unwrap();
        let config = Config::read(&path).unwrap();
        let seed = config.seed().unwrap();
        assert_eq!(config.seed().unwrap(), seed);
        assert_eq!(
            fs::metadata(&config.identity).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&config.identity, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(config.seed().is_err());
    }
}
