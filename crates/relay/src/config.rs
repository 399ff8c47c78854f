//! The file of `dawn relay`, and those beside it.

mod tokens;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use dawn_identity::NetworkId;
use libp2p::Multiaddr;
use serde::Deserialize;

pub use tokens::{StaticToken, hash};

use crate::quota::Quotas;
use tokens::{TokenEntry, token};

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
    /// Connections at once; half of them at most of peers that have shown nothing.
    pub connections: u32,
    /// Connections at once of one address (of IPv6: of one /64); loopback, where a proxy may be, is not counted.
    pub connections_per_address: u32,
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
    connections_per_address: u32,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: [
                "/ip4/0.0.0.0/udp/7442/quic-v1",
                "/ip4/0.0.0.0/tcp/7442",
                "/ip6/::/udp/7442/quic-v1",
                "/ip6/::/tcp/7442",
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
            connections_per_address: 256,
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path, MAX_FILE_BYTES)?;
        let invalid = |reason: String| ConfigError::invalid(path, reason);
        let file: File = toml::from_str(&text).map_err(|error| invalid(mistake(&text, &error)))?;
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
        if file.connections < 2 || file.connections_per_address == 0 {
            return Err(invalid("connections: at least two, and one of an address".into()));
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
            connections_per_address: file.connections_per_address,
        };
        config.quotas.check().map_err(invalid)?;
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
        let mut hashes: Vec<[u8; 32]> = config.tokens.iter().map(|token| token.hash).collect();
        hashes.sort_unstable();
        if hashes.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(ConfigError::invalid(path, "token: two have the same secret"));
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
        let text = zeroize::Zeroizing::new(read(path, MAX_FILE_BYTES)?);
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).unwrap_or_default();
        let bytes = zeroize::Zeroizing::new(bytes);
        let seed = <[u8; 32]>::try_from(bytes.as_slice());
        seed.map(zeroize::Zeroizing::new)
            .map_err(|_| ConfigError::invalid(path, "this is no relay's key: 64 hexadecimal digits"))
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> ConfigError + '_ {
    move |source| ConfigError::File {
        path: path.to_owned(),
        source,
    }
}

/// A mistake in the file by its line, without the line itself: a secret may be on it.
fn mistake(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
    format!("{}{}", line.unwrap_or_default(), error.message())
}

/// The text of a file that is no longer than `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<String, ConfigError> {
    let length = fs::metadata(path).map_err(file_error(path))?.len();
    if length > most {
        return Err(ConfigError::invalid(path, format!("longer than {most} bytes")));
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
    fn a_mistake_is_named_without_the_secret_on_its_line() {
        for line in [
            "secrets = \"hunter2 hunter2 hunter2\"",
            "secret = \"hunter2 hunter2 hunter2",
            "secret = hunter2hunter2hunter2",
            "secret = [\"hunter2 hunter2 hunter2\"]",
            "secret = { a = \"hunter2 hunter2 hunter2\" }",
            "secret = 4242424242424242",
            "secret = 0.4242424242424242",
            "secret = 42424242424242424242424242",
            "\"hunter2 hunter2 hunter2\"",
            "secret = \"hunter2 hunter2 hunter2\" x",
            "secret = \"hunter2 hunter2 hunter2\"\nsecret = \"hunter2 hunter2 hunter2\"",
            "sha256 = \"hunter2\"",
        ] {
            let text = format!("[[token]]\nname = \"a\"\n{line}\n");
            let error = config(0o600, &text).unwrap_err().to_string();
            assert!(!error.contains("hunter") && !error.contains("4242"), "{line}: {error}");
            assert!(
                error.contains("line ") || error.contains("token \"a\""),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn times_that_cannot_be_counted_to_are_refused() {
        let with = |text: &str| {
            config(
                0o600,
                &format!("{text}[[token]]\nname = \"a\"\nsecret = \"sixteen characters\"\n"),
            )
        };
        assert!(with("[quotas.circuit]\nseconds = 9223372036854775807\n").is_err());
        assert!(with("[quotas]\nreservation_seconds = 9223372036854775807\n").is_err());
        assert!(with("[quotas.circuit]\nseconds = 86400\n").is_ok());
    }

    #[test]
    fn two_tokens_with_one_secret_are_refused() {
        let entry = |name: &str| format!("[[token]]\nname = \"{name}\"\nsecret = \"sixteen characters\"\n");
        assert!(config(0o600, &(entry("a") + &entry("b"))).is_err());
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
