//! The listener of what the gateway exposes beyond this machine: TLS, and certificates that are read again when their
//! files change.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use dawn_mcp::gateway::Gateway;
use dawn_mcp::gateway::resource::ResourceServer;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::GatewayConfig;
use crate::connections::{self, PATIENCE, Upgrades};
use crate::error::NodeError;

/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What the gateway exposes, and where.
#[derive(Debug)]
pub(crate) struct Exposed {
    pub(crate) server: ResourceServer,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    tls: Option<Tls>,
    connections: usize,
}

/// A certificate and where it came from.
#[derive(Debug)]
struct Tls {
    config: RwLock<Arc<ServerConfig>>,
    certificate: PathBuf,
    key: PathBuf,
}

impl Exposed {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or the certificate cannot be read.
    pub(crate) async fn bind(gateway: Gateway, config: &GatewayConfig) -> Result<Self, NodeError> {
        let failed = |source| NodeError::Api {
            address: config.listen.clone(),
            source,
        };
        let server = ResourceServer::new(gateway, config.resource())
            .map_err(|error| NodeError::Config(format!("gateway: {error}")))?;
        let tls = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => Some(Tls::new(certificate, key)?),
            _ => None,
        };
        let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            server,
            address,
            listener,
            tls,
            connections: config.connections,
        })
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let Self {
            server,
            listener,
            tls,
            connections,
            ..
        } = self;
        let routes = server.routes();
        let tls = tls.map(Arc::new);
        let accepting = connections::accept(listener, connections, &stop, |stream, address| {
            let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
            serve_connection(stream, address, acceptor, routes.clone(), stop.clone())
        });
        let watching = async {
            match &tls {
                Some(tls) => tls.watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = accepting => {}
            never = watching => match never {},
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    address: IpAddr,
    acceptor: Option<TlsAcceptor>,
    routes: Router,
    stop: CancellationToken,
) -> Result<(), connections::Error> {
    // A framed session would outlive the token that began it.
    let upgrades = Upgrades::Refused;
    match acceptor {
        Some(acceptor) => {
            let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
            connections::serve(stream, address, routes, upgrades, stop).await
        }
        None => connections::serve(stream, address, routes, upgrades, stop).await,
    }
}

impl Tls {
    fn new(certificate: &Path, key: &Path) -> Result<Self, NodeError> {
        Ok(Self {
            config: RwLock::new(read(certificate, key)?),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the files were written last.
    fn stamp(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok())
    }

    /// Reads the files again whenever they have changed: certificates are renewed by others.
    async fn watch(&self) -> std::convert::Infallible {
        let mut known = self.stamp();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.stamp();
            if now == known {
                continue;
            }
            match read(&self.certificate, &self.key) {
                Ok(config) => {
                    known = now;
                    *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                    tracing::info!("the gateway's certificate was read again");
                }
                Err(error) => tracing::error!(%error, "the gateway's new certificate is not used"),
            }
        }
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, NodeError> {
    let wrong = |error: &dyn std::fmt::Display| {
        NodeError::Config(format!(
            "gateway.certificate {} with gateway.key {}: {error}",
            certificate.display(),
            key.display()
        ))
    };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| wrong(&error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(&error))?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
