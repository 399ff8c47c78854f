//! `[control]`: the control plane that this node is registered at.

use std::path::PathBuf;

use dawn_identity::NodeId;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::error::NodeError;

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// Its address, `https://control.example`.
    pub url: String,
    /// The certificates by which it is known, PEM, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The key with which it issues: another one is not spoken with. Written when the node registers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<NodeId>,
    /// Whether `http://` is allowed beyond this machine. Requests are signed all the same; invites and answers could be
    /// read and changed on the way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

impl ControlConfig {
    /// Its address, checked: no path, no query, and over TLS, or on this machine.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn address(&self) -> Result<Url, NodeError> {
        let wrong = |words: &str| NodeError::Config(format!("control.url: {:?} {words}", self.url));
        let url: Url = self
            .url
            .parse()
            .map_err(|error| wrong(&format!("is no address such as https://control.example ({error})")))?;
        let is_near = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if is_near || self.insecure => {}
            "http" => return Err(wrong("is not encrypted: write https://, or insecure = true beside it")),
            _ => return Err(wrong("has to begin with https://")),
        }
        let is_plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !is_plain || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("has to be a scheme, a host and a port, with nothing behind"));
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, insecure: bool) -> Result<Url, NodeError> {
        let config = ControlConfig {
            url: url.to_owned(),
            ca: None,
            issuer: None,
            insecure,
        };
        config.address()
    }

    #[test]
    fn a_control_plane_is_spoken_with_over_tls_or_on_this_machine() {
        for url in [
            "https://control.example",
            "https://control.example:8443/",
            "http://127.0.0.1:7440",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(address(url, false).is_ok(), "{url}");
        }
        assert!(address("http://control.example", false).is_err());
        assert!(address("http://control.example", true).is_ok());
        for url in [
            "control.example",
            "ftp://control.example",
            "https://control.example/v1",
            "https://control.example?a",
            "https://me@control.example",
            "https://",
        ] {
            assert!(address(url, true).is_err(), "{url}");
        }
    }
}
