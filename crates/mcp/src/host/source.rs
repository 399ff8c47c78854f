//! What an agent is, and where it comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dawn_channel::Signing;
use dawn_identity::NodeId;
use futures::future::BoxFuture;
use url::Url;

use super::access::{CallerLimits, Rule};
use super::oauth::OauthClient;

/// Whether clients share one process of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A process for each session.
    Session,
    /// One process for all.
    Shared,
}

/// How an agent is told who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerHint {
    /// By environment for a process of its own, by headers over HTTP, by `_meta` where clients share a connection.
    Auto,
    /// By `_meta` always.
    Meta,
    /// Not at all.
    None,
}

/// An agent that is code of this process.
pub trait InProcess: Send + Sync + 'static {
    /// Serves one connection of newline-delimited JSON-RPC until its end.
    fn serve(&self, stream: tokio::io::DuplexStream) -> BoxFuture<'static, ()>;
}

/// Where an agent comes from.
#[derive(Clone)]
pub enum Source {
    /// A child process.
    Stdio {
        /// Program and arguments.
        command: Vec<String>,
        /// Environment variables beside the node's own.
        env: BTreeMap<String, String>,
        /// Working directory.
        directory: Option<PathBuf>,
        /// Whether clients share one process.
        isolation: Isolation,
    },
    /// A Streamable HTTP server.
    Http {
        /// Its address.
        url: Url,
        /// Headers sent with every request.
        headers: BTreeMap<String, String>,
        /// As which client to log in, where it asks for a login.
        oauth: OauthClient,
    },
    /// A WebSocket server.
    WebSocket {
        /// Its address, `ws://` or `wss://`.
        url: Url,
        /// Headers sent with every upgrade.
        headers: BTreeMap<String, String>,
        /// As which client to log in, where it asks for a login.
        oauth: OauthClient,
        /// Whom a secure channel is begun with; `None`: plain JSON-RPC is spoken.
        secure: Option<FarEnd>,
    },
    /// Code of this process.
    InProcess(Arc<dyn InProcess>),
}

/// Who is to be at the far end of a secure channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarEnd {
    /// The node.
    pub node: NodeId,
    /// Whether messages are signed each: that node has to want the same.
    pub signing: Signing,
}

/// An address as it may be told to others: without its query and its user, which may be secrets.
#[must_use]
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // An address that can have no user has none.
    let _: Result<(), ()> = url.set_username("");
    let _: Result<(), ()> = url.set_password(None);
    url.into()
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdio { command, isolation, .. } => f
                .debug_struct("Stdio")
                .field("command", command)
                .field("isolation", isolation)
                .finish_non_exhaustive(),
            Self::Http { url, .. } => f.debug_struct("Http").field("url", &shown(url)).finish_non_exhaustive(),
            Self::WebSocket { url, secure, .. } => f
                .debug_struct("WebSocket")
                .field("url", &shown(url))
                .field("secure", secure)
                .finish_non_exhaustive(),
            Self::InProcess(_) => f.write_str("InProcess"),
        }
    }
}

/// An agent to host.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// Where it comes from.
    pub source: Source,
    /// How it is told who calls.
    pub caller: CallerHint,
    /// Who may call what of it; the first rule that fits decides.
    pub access: Vec<Rule>,
    /// How much each other node may ask of it.
    pub limits: CallerLimits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret_in_it() {
        let url: Url = "wss://me:secret@far.example:7443/ws/desk/files?token=secret#secret"
            .parse()
            .unwrap();
        assert_eq!(shown(&url), "wss://far.example:7443/ws/desk/files");
        let (headers, oauth) = (BTreeMap::new(), OauthClient::default());
        let sources = [
            Source::Http {
                url: url.clone(),
                headers: headers.clone(),
                oauth: oauth.clone(),
            },
            Source::WebSocket {
                url,
                headers,
                oauth,
                secure: None,
            },
        ];
        for source in sources {
            let text = format!("{source:?}");
            assert!(text.contains("far.example") && !text.contains("secret"), "{text}");
        }
    }
}
