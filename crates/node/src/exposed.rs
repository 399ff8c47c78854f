//! The listener of what the gateway exposes beyond this machine: TLS, bounds, and certificates that are read again when
//! their files change.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::Extension;
use dawn_mcp::gateway::Gateway;
use dawn_mcp::gateway::resource::{Peer, ResourceServer};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::GatewayConfig;
use crate::error::NodeError;

/// How long a client may take for the handshake, and to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long connections have to end when the node does.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long nothing is accepted after accepting failed: the process may be out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

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
        let (room, graceful, tasks) = (Room::new(connections), GracefulShutdown::new(), TaskTracker::new());
        if let Some(tls) = &tls {
            let (tls, stop) = (Arc::clone(tls), stop.clone());
            tasks.spawn(async move {
                // It ends with the listener.
                let _ = stop.run_until_cancelled(tls.watch()).await;
            });
        }
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, address) = match accepted {
                Ok((stream, address)) => (stream, address.ip()),
                Err(error) => {
                    tracing::warn!(%error, "the exposed gateway accepts no connection just now");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // What is beyond `connections`, or one address's share of them, is closed at once.
            let Some(place) = room.take(address) else { continue };
            let routes = routes.clone().layer(Extension(Peer(address)));
            let watcher = graceful.watcher();
            let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
            tasks.spawn(async move {
                let served = serve_connection(stream, acceptor, routes, watcher).await;
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection from beyond this machine ended early");
                }
                drop(place);
            });
        }
        if tokio::time::timeout(GOODBYE, graceful.shutdown()).await.is_err() {
            tracing::debug!("connections from beyond this machine were cut");
        }
    }
}

/// Room for connections: each address has a quarter of it, but this machine's, where a proxy stands for many.
#[derive(Debug, Clone)]
struct Room(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    most: usize,
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
struct Place {
    room: Room,
    address: IpAddr,
}

impl Room {
    fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken {
            most,
            all: 0,
            by_address: HashMap::new(),
        })))
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        let has_share = address.is_loopback() || own < taken.most.div_ceil(4);
        if taken.all >= taken.most || !has_share {
            return None;
        }
        taken.by_address.insert(address, own + 1);
        taken.all += 1;
        Some(Place {
            room: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn serve_connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    routes: axum::Router,
    watcher: Watcher,
) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    match acceptor {
        Some(acceptor) => {
            let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
            serve_http(stream, routes, watcher).await
        }
        None => serve_http(stream, routes, watcher).await,
    }
}

async fn serve_http<S>(stream: S, routes: axum::Router, watcher: Watcher) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    Ok(watcher.watch(connection).await?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_no_more_than_a_quarter_but_a_proxy_all() {
        let room = Room::new(8);
        let far: IpAddr = "192.0.2.1".parse().unwrap();
        let near: IpAddr = "127.0.0.1".parse().unwrap();
        let first = room.take(far).unwrap();
        let _second = room.take(far).unwrap();
        assert!(room.take(far).is_none());
        drop(first);
        let _third = room.take(far).unwrap();
        let proxied: Vec<_> = (0..6).map(|_| room.take(near).unwrap()).collect();
        assert!(room.take(near).is_none(), "all are taken");
        drop(proxied);
        assert_eq!(room.0.lock().unwrap().by_address.len(), 1);
    }
}
