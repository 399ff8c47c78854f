//! `[gateway]`: what the gateway exposes beyond this machine, and which authorization server vouches for its users.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dawn_mcp::gateway::resource::{Endpoint, Introspection, ResourceConfig, ResourceServer, Secret};
use dawn_policy::Pattern;
use serde::{Deserialize, Serialize};

use super::{AccessRule, CallerLimitsConfig, Span};
use crate::error::NodeError;

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where it listens, `0.0.0.0:7443`; port 0 picks a free one.
    pub listen: String,
    /// Its address as clients write it, without a path: `https://mcp.example.org`.
    pub url: String,
    /// The authorization server, exactly as its metadata names itself.
    pub issuer: String,
    /// PEM file with the certificate chain. Without one it listens on loopback only, for a proxy that ends TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// How the issuer is asked about tokens; without it they have to be JSON Web Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introspection: Option<IntrospectionConfig>,
    /// The claim that names a person.
    #[serde(default = "sub")]
    pub user_claim: String,
    /// Whether tokens have to be bound to a key.
    #[serde(default)]
    pub dpop: DpopConfig,
    /// By how much clocks may differ.
    #[serde(default = "leeway")]
    pub leeway: Span,
    /// Connections at once.
    #[serde(default = "connections")]
    pub connections: usize,
    /// Origins of web pages that may use it, `https://app.example.org`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// The endpoints that are exposed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<ExposeConfig>,
}

fn sub() -> String {
    "sub".to_owned()
}

fn leeway() -> Span {
    Span(Duration::from_secs(10))
}

fn connections() -> usize {
    1024
}

fn remember() -> Span {
    Span(Duration::from_secs(10))
}

/// `[gateway.introspection]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionConfig {
    /// The id of the client as which the issuer is asked.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// How long an answer is used: so long a revoked token may still be taken.
    #[serde(default = "remember")]
    pub remember: Span,
}

/// Whether tokens have to be bound to a key (RFC 9449).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DpopConfig {
    /// Both kinds are taken; one that is bound needs its proof.
    #[default]
    Optional,
    /// Only bound tokens are taken.
    Required,
}

/// `[[gateway.expose]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposeConfig {
    /// `/mcp`, `/mcp/groups/NAME` or `/mcp/NODE/AGENT`.
    pub path: String,
    /// The scopes that a token needs, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Who may use it; in names, `*` stands for anything. None means everybody whom the issuer gives a token for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// How much each person may ask of it.
    #[serde(default, skip_serializing_if = "CallerLimitsConfig::is_empty")]
    pub limits: CallerLimitsConfig,
    /// Who may call what of it, by the names that it shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessRule>,
}

impl GatewayConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Which value is impossible, and why.
    pub(super) fn check(&self) -> Result<(), NodeError> {
        let wrong = |words: String| Err(NodeError::Config(words));
        let Ok(listen) = self.listen.parse::<SocketAddr>() else {
            return wrong(format!(
                "gateway.listen: {:?} is no address and port, such as 0.0.0.0:7443",
                self.listen
            ));
        };
        match (&self.certificate, &self.key) {
            (Some(_), Some(_)) => {}
            (None, None) if listen.ip().is_loopback() => {}
            (None, None) => {
                return wrong(
                    "gateway.listen is not loopback: tokens would travel in the open; set gateway.certificate and gateway.key, or listen on 127.0.0.1 behind a proxy that ends TLS".to_owned(),
                );
            }
            _ => return wrong("gateway.certificate and gateway.key belong together".to_owned()),
        }
        const MOST: Duration = Duration::from_secs(300);
        let remember = self.introspection.as_ref().map(|introspection| introspection.remember);
        for (name, span) in [("leeway", Some(self.leeway)), ("introspection.remember", remember)] {
            if span.is_some_and(|span| span.0 > MOST) {
                return wrong(format!(
                    "gateway.{name}: at most 5m, or tokens that ended would go on for longer"
                ));
            }
        }
        if self.connections == 0 {
            return wrong("gateway.connections: nothing would work with 0".to_owned());
        }
        ResourceServer::check(&self.resource()).map_err(|error| NodeError::Config(format!("gateway: {error}")))
    }

    /// As the gateway takes it.
    #[must_use]
    pub fn resource(&self) -> ResourceConfig {
        let endpoint = |expose: &ExposeConfig| Endpoint {
            path: expose.path.clone(),
            scopes: expose.scopes.clone(),
            users: expose.users.iter().map(Pattern::new).collect(),
            rules: expose.access.iter().map(AccessRule::rule).collect(),
            limits: expose.limits.limits(),
        };
        ResourceConfig {
            url: self.url.clone(),
            issuer: self.issuer.clone(),
            introspection: self.introspection.as_ref().map(|introspection| Introspection {
                client_id: introspection.client_id.clone(),
                client_secret: Secret::new(introspection.client_secret.expose()),
                remember: introspection.remember.0,
            }),
            user_claim: self.user_claim.clone(),
            bound_only: self.dpop == DpopConfig::Required,
            leeway: self.leeway.0,
            origins: self.allowed_origins.clone(),
            endpoints: self.expose.iter().map(endpoint).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut GatewayConfig);

    fn checked(change: impl FnOnce(&mut GatewayConfig)) -> String {
        let mut config: GatewayConfig = toml::from_str(
            "listen = \"127.0.0.1:0\"\nurl = \"https://mcp.example.org\"\nissuer = \"https://auth.example.org\"\n[[expose]]\npath = \"/mcp\"\nscopes = [\"mcp:tools\"]\n",
        )
        .unwrap();
        change(&mut config);
        config
            .check()
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_would_be_unsafe_or_useless_is_refused() {
        assert_eq!(checked(|_| {}), "");
        assert_eq!(checked(|config| config.expose.clear()), "", "it exposes nothing");
        let changes: [(&str, Change); 12] = [
            ("in the open", |config| config.listen = "0.0.0.0:7443".into()),
            ("no address", |config| config.listen = "7443".into()),
            ("belong together", |config| config.key = Some("key.pem".into())),
            ("https", |config| config.url = "http://mcp.example.org".into()),
            ("name and port", |config| {
                config.url = "https://mcp.example.org/mcp".into();
            }),
            ("authorization server", |config| {
                config.issuer = "http://auth.example.org".into();
            }),
            ("no path", |config| config.expose[0].path = "/api/status".into()),
            ("no path", |config| config.expose[0].path = "/mcp/../api".into()),
            ("no scope", |config| config.expose[0].scopes = vec!["a b".into()]),
            ("no origin", |config| {
                config.allowed_origins = vec!["https://a.example/".into()];
            }),
            ("name and port", |config| {
                config.url = "https://me:secret@mcp.example.org".into();
            }),
            ("5m", |config| config.leeway = Span(Duration::from_secs(301))),
        ];
        for (named, change) in changes {
            let words = checked(change);
            assert!(words.contains(named), "{named}: {words}");
        }
        assert!(checked(|config| config.expose.push(config.expose[0].clone())).contains("twice"));
    }
}
