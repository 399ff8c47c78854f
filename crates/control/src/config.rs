//! What a control plane is told: where it listens, which database, and its limits. All limits have their home here, with
//! their defaults.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::error::ControlError;
use crate::origin::Range;

/// The configuration of a control plane: a TOML file, or flags.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens for requests.
    pub listen: SocketAddr,
    /// The address under which devices reach it, and for which they sign: `https://control.example`. Without, what it
    /// listens on.
    pub url: Option<String>,
    /// `sqlite:PATH` or `postgres://…`. Without, SQLite in the data folder.
    pub database: Option<String>,
    /// The data folder: its key, its socket for the operator, and SQLite's file.
    pub data: PathBuf,
    /// The chain of certificates for TLS, a PEM file. Without one it has to listen on loopback, behind a proxy.
    pub tls_certificate: Option<PathBuf>,
    /// The key of the first of them, a PEM file.
    pub tls_key: Option<PathBuf>,
    /// Whether it may listen without TLS on an address that is not loopback.
    pub plain: bool,
    /// Proxies whose `X-Forwarded-For` is believed: addresses, and ranges such as `10.0.0.0/8`.
    pub trusted_proxies: Vec<Range>,
    /// What is bounded.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7440)),
            url: None,
            database: None,
            data: PathBuf::from("dawn-control"),
            tls_certificate: None,
            tls_key: None,
            plain: false,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// So many at once, and so many a second after that.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// A second.
    pub per_second: f64,
}

/// What is bounded. Times are written as `30s`, `7d`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How long a certificate lasts.
    #[serde(deserialize_with = "duration")]
    pub certificate: Duration,
    /// Connections at once. One address has no more than are left for others; one of this machine all but an eighth.
    pub connections: usize,
    /// Connections of one address, at most, but for this machine and for proxies that are trusted.
    pub connections_per_address: usize,
    /// How long a connection lasts on which nobody has shown that they are known: a device that is approved, or a token.
    #[serde(deserialize_with = "duration")]
    pub stranger: Duration,
    /// Longest body of a request of a stranger, bytes.
    pub stranger_body: usize,
    /// Requests of strangers whose bodies are read at once.
    pub strangers: usize,
    /// How long a connection may take for the head of its next request. A device that beats keeps its connection when
    /// this is longer than the time between two beats.
    #[serde(deserialize_with = "duration")]
    pub head: Duration,
    /// How long a request may take for its body.
    #[serde(deserialize_with = "duration")]
    pub body: Duration,
    /// How long requests that are being answered are waited for at the end.
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
    /// Writes that wait, at most.
    pub waiting_writes: usize,
    /// Connections to the database that read.
    pub readers: u32,
    /// Challenges that wait to be answered, at most; the oldest make room.
    pub challenges: usize,
    /// Nonces of approved devices that are remembered, at most; about 150 bytes each.
    pub nonces: usize,
    /// Nonces of all others, at most.
    pub nonces_of_strangers: usize,
    /// Nonces of one device that are remembered, at most.
    pub nonces_per_device: u32,
    /// Requests that wait for a change, at most.
    pub waiting_readers: usize,
    /// How many of those that wait are told in a second of devices that came, went or changed; of everything else all are
    /// told at once.
    pub told_per_second: u32,
    /// Devices of a network that wait for approval without an invite, at most.
    pub waiting_devices: u32,
    /// For how long a device waits for approval before it is forgotten.
    #[serde(deserialize_with = "duration")]
    pub waiting_time: Duration,
    /// How often it is looked for devices that came or went, and written down when they were heard.
    #[serde(deserialize_with = "duration")]
    pub sweep: Duration,
    /// Requests of an address that are not signed by an approved device and carry no token that is known. IPv6 addresses
    /// of one /64 are one.
    pub per_address: Rate,
    /// Requests of a device.
    pub per_device: Rate,
    /// How often a device says anew where it is, or what it runs: each is a change for all others.
    pub per_device_news: Rate,
    /// Requests with a token.
    pub per_token: Rate,
    /// Addresses, devices and tokens whose requests are counted, at most of each.
    pub counted: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            certificate: Duration::from_secs(7 * DAY),
            connections: 32_768,
            connections_per_address: 1_024,
            stranger: Duration::from_secs(10),
            stranger_body: 32 * 1024,
            strangers: 1_024,
            head: Duration::from_secs(45),
            body: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            waiting_writes: 4_096,
            readers: 8,
            challenges: 65_536,
            nonces: 1_000_000,
            nonces_of_strangers: 100_000,
            nonces_per_device: 2_048,
            waiting_readers: 32_768,
            told_per_second: 2_000,
            waiting_devices: 100,
            waiting_time: Duration::from_secs(3 * DAY),
            sweep: Duration::from_secs(5),
            per_address: Rate {
                burst: 100,
                per_second: 20.0,
            },
            per_device: Rate {
                burst: 60,
                per_second: 5.0,
            },
            per_device_news: Rate {
                burst: 10,
                per_second: 0.1,
            },
            per_token: Rate {
                burst: 400,
                per_second: 100.0,
            },
            counted: 100_000,
        }
    }
}

impl Limits {
    /// How many certificates a device gets: a few more than it needs.
    pub(crate) fn issues(&self) -> Rate {
        Rate {
            burst: 20,
            per_second: 8.0 / self.certificate.as_secs_f64().max(1.0),
        }
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match humantime::parse_duration(&text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(serde::de::Error::custom("expected a time such as 30s or 7d")),
    }
}

impl Config {
    /// Reads a configuration from its file.
    ///
    /// # Errors
    /// The file cannot be read, or says what is not understood.
    pub fn read(path: &Path) -> Result<Self, ControlError> {
        let text = std::fs::read_to_string(path).map_err(ControlError::file(path))?;
        let config: Self =
            toml::from_str(&text).map_err(|error| ControlError::Config(format!("{}: {error}", path.display())))?;
        let database = config.database.as_deref().and_then(|url| url.parse::<Url>().ok());
        if database.is_some_and(|url| url.password().is_some()) && is_open(path) {
            tracing::warn!(path = %path.display(), "the password of the database can be read by everybody on this machine");
        }
        Ok(config)
    }

    /// The address under which devices reach it, without a slash at its end, and the authority in it. `bound` is where
    /// it listens.
    ///
    /// # Errors
    /// It is no URL of a server, or has more than scheme, host and port.
    pub fn url(&self, bound: SocketAddr) -> Result<(String, String), ControlError> {
        let scheme = if self.tls_certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let text = self.url.clone().unwrap_or_else(|| format!("{scheme}://{bound}"));
        let wrong = || ControlError::Config(format!("{text} is no address such as https://control.example"));
        let url: Url = text.parse().map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?;
        let bare = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !bare {
            return Err(wrong());
        }
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok((format!("{}://{authority}", url.scheme()), authority))
    }
}

/// Whether everybody on this machine can read a file.
pub(crate) fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7440))
    }

    #[test]
    fn the_address_is_an_origin_and_nothing_more() {
        let with = |url: &str| Config {
            url: Some(url.to_owned()),
            ..Config::default()
        };
        let (url, authority) = with("https://Control.Example/").url(bound()).unwrap();
        assert_eq!(
            (url.as_str(), authority.as_str()),
            ("https://control.example", "control.example")
        );
        let (url, authority) = Config::default().url(bound()).unwrap();
        assert_eq!(
            (url.as_str(), authority.as_str()),
            ("http://127.0.0.1:7440", "127.0.0.1:7440")
        );
        for wrong in [
            "control.example",
            "ftp://x",
            "https://x/path",
            "https://u:p@x",
            "https://x/?q",
        ] {
            assert!(with(wrong).url(bound()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(toml::from_str::<Config>("listen = \"127.0.0.1:1\"\n[limits]\nbody = \"5s\"").is_ok());
        assert!(toml::from_str::<Config>("trusted_proxies = [\"127.0.0.0/8\", \"::1\"]").is_ok());
        for wrong in [
            "trusted_proxies = [\"localhost\"]",
            "lisen = 1",
            "[limits]\nbody = \"0s\"",
            "[limits]\nbodi = \"5s\"",
        ] {
            assert!(toml::from_str::<Config>(wrong).is_err(), "{wrong}");
        }
    }
}
