//! The listener of what the gateway exposes beyond this machine: TLS, bounds, and certificates that are read again when
//! their files change.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::{Accept, NoDelayAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use dawn_mcp::gateway::Gateway;
use dawn_mcp::gateway::resource::ResourceServer;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use crate::config::GatewayConfig;
use crate::error::NodeError;

/// How long a client may take to say what it wants.
const HEADER: Duration = Duration::from_secs(10);
/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long connections have to end when the node does.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the gateway exposes, and where.
#[derive(Debug)]
pub(crate) struct Exposed {
    pub(crate) server: ResourceServer,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    listener: std::net::TcpListener,
    tls: Option<Tls>,
    connections: usize,
}

/// A certificate and where it came from.
#[derive(Debug, Clone)]
struct Tls {
    config: RustlsConfig,
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
            (Some(certificate), Some(key)) => Some(Tls::read(certificate, key).await?),
            _ => None,
        };
        let listener = tokio::net::TcpListener::bind(&config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            server,
            address,
            listener: listener.into_std().map_err(failed)?,
            tls,
            connections: config.connections,
        })
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// The listener failed.
    pub(crate) async fn serve(self, stop: CancellationToken) -> std::io::Result<()> {
        let routes = self.server.routes().into_make_service();
        let room = Arc::new(Semaphore::new(self.connections));
        let handle = Handle::new();
        let ending = {
            let (handle, stop) = (handle.clone(), stop.clone());
            async move {
                stop.cancelled().await;
                handle.graceful_shutdown(Some(GOODBYE));
                std::future::pending::<std::io::Result<()>>().await
            }
        };
        let server = axum_server::from_tcp(self.listener)?.handle(handle);
        let serving = async {
            match self.tls {
                Some(tls) => {
                    let inner = RustlsAcceptor::new(tls.config.clone()).acceptor(NoDelayAcceptor);
                    let watching = tls.watch();
                    tokio::select! {
                        served = patient(server.acceptor(Bounded { inner, room })).serve(routes) => served,
                        never = watching => match never {},
                    }
                }
                None => {
                    let inner = NoDelayAcceptor;
                    patient(server.acceptor(Bounded { inner, room })).serve(routes).await
                }
            }
        };
        tokio::select! {
            served = serving => served,
            never = ending => never,
        }
    }
}

/// A server that does not wait for slow clients for ever.
fn patient<A>(mut server: Server<SocketAddr, A>) -> Server<SocketAddr, A> {
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADER)
        .keep_alive_timeout(HEADER);
    server
}

impl Tls {
    async fn read(certificate: &Path, key: &Path) -> Result<Self, NodeError> {
        let config = RustlsConfig::from_pem_file(certificate, key).await.map_err(|error| {
            NodeError::Config(format!(
                "gateway.certificate {} with gateway.key {}: {error}",
                certificate.display(),
                key.display()
            ))
        })?;
        Ok(Self {
            config,
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// When the files were written last.
    fn stamp(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok())
    }

    /// Reads the files again whenever they have changed: certificates are renewed by others.
    async fn watch(self) -> std::convert::Infallible {
        let mut known = self.stamp();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.stamp();
            if now == known {
                continue;
            }
            match self.config.reload_from_pem_file(&self.certificate, &self.key).await {
                Ok(()) => tracing::info!("the gateway's certificate was read again"),
                Err(error) => tracing::error!(%error, "the gateway's new certificate is not used"),
            }
            known = now;
        }
    }
}

/// Takes so many connections at once, and closes what is beyond.
#[derive(Debug, Clone)]
struct Bounded<A> {
    inner: A,
    room: Arc<Semaphore>,
}

impl<S, A> Accept<TcpStream, S> for Bounded<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
    A::Stream: 'static,
    A::Service: 'static,
{
    type Stream = A::Stream;
    /// The connection's place is free again when its service is dropped.
    type Service = AddExtension<A::Service, Arc<OwnedSemaphorePermit>>;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let place = Arc::clone(&self.room).try_acquire_owned();
        let accepting = self.inner.accept(stream, service);
        Box::pin(async move {
            let place = place.map_err(|_| std::io::Error::other("gateway.connections is reached"))?;
            let (stream, service) = accepting.await?;
            Ok((stream, Extension(Arc::new(place)).layer(service)))
        })
    }
}
