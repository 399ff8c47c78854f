//! The server: it listens, with TLS or on loopback, and on a socket for the operator of this machine; it cuts off who is
//! slow; it ends when it is told to, after what was asked was answered.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::config::{Config, is_open};
use crate::control::{Control, now};
use crate::error::ControlError;
use crate::live::Live;
use crate::origin::{self, Origin, Peer, Share};
use crate::places::Places;
use crate::store::{Ending, Place, Store};
use crate::wire::Wire;
use crate::{housekeeping, http, key};

/// The name of SQLite's file in the data folder.
const DATABASE: &str = "control.db";
/// The name of the operator's socket in the data folder.
const SOCKET: &str = "control.sock";
/// How long the handshake of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the last words on a connection may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// Longest head of a request, bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// How long certificates are listed after they have ended.
const ENDED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where the operator's socket is.
#[must_use]
pub fn socket(data: &Path) -> PathBuf {
    data.join(SOCKET)
}

/// Which database a configuration names.
///
/// # Errors
/// It is none.
pub fn database(config: &Config) -> Result<Place, ControlError> {
    crate::store::install_drivers();
    match &config.database {
        Some(text) => Place::parse(text),
        None => Place::sqlite(&config.data.join(DATABASE)),
    }
}

/// A control plane that listens.
pub struct Server {
    control: Control,
    ending: Ending,
    listener: TcpListener,
    socket: UnixListener,
    tls: Option<TlsAcceptor>,
    bound: SocketAddr,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Opens key and database, and listens.
    ///
    /// # Errors
    /// Something of that fails, or the configuration would have it listen without TLS where others can read along.
    pub async fn open(config: Config) -> Result<Self, ControlError> {
        let tls = tls(&config)?;
        if tls.is_none() && !config.listen.ip().is_loopback() && !config.plain {
            let words = "it would listen without TLS on an address that is not loopback: name a certificate and its key, \
                         or say `plain = true` where a proxy has them";
            return Err(ControlError::Config(words.to_owned()));
        }
        let key = key::open(&config.data)?;
        let live = Arc::new(Live::default());
        let limits = &config.limits;
        let place = database(&config)?;
        let (store, ending) = Store::open(place, limits.waiting_writes, limits.readers, live.clone()).await?;
        live.load(&mut *store.read().await?).await?;
        let told = |error| ControlError::Listen(config.listen.to_string(), error);
        let listener = TcpListener::bind(config.listen).await.map_err(told)?;
        let bound = listener.local_addr().map_err(told)?;
        let socket = operator(&config.data)?;
        let (url, authority) = config.url(bound)?;
        let control = Control::new(store, live, key, config, url, authority);
        Ok(Self {
            control,
            ending,
            listener,
            socket,
            tls,
            bound,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// What it serves.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Serves until `end` comes to its end, then answers what was asked and writes down what is in memory.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub async fn serve(self, end: impl Future<Output = ()>) -> Result<(), ControlError> {
        let Self {
            control,
            ending,
            listener,
            socket,
            tls,
            ..
        } = self;
        let router = http::router(control.clone());
        let tracker = TaskTracker::new();
        let limits = &control.config.limits;
        let places = Places::new(limits.connections, limits.connections_per_address);
        let sweeping = tokio::spawn(sweep(control.clone()));
        let housekeeping = tokio::spawn(housekeeping::keep(control.clone()));
        tokio::pin!(end);
        let outcome = loop {
            tokio::select! {
                () = &mut end => break Ok(()),
                () = control.store.ended() => break Err(ControlError::Stopping),
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        let address = address.ip().to_canonical();
                        let is_proxy = origin::is_trusted(&control.config.trusted_proxies, address);
                        let share = (!is_proxy).then(|| Share::from(address));
                        let Some(place) = places.take(share) else {
                            control.metrics.connections_refused.inc();
                            continue;
                        };
                        // Small answers go at once.
                        let _ = stream.set_nodelay(true);
                        let peer = Peer::new(Origin::Address(address));
                        if is_proxy {
                            // It comes for many, who are known or not.
                            peer.recognise();
                        }
                        let serving = Serving::new(&control, &router, peer);
                        let tls = tls.clone();
                        tracker.spawn(async move {
                            match tls {
                                Some(tls) => {
                                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                                        serving.run(stream).await;
                                    }
                                }
                                None => serving.run(stream).await,
                            }
                            drop(place);
                        });
                    }
                    Err(error) => wait_after(&error).await,
                },
                accepted = socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let peer = Peer::new(Origin::Socket);
                        peer.recognise();
                        tracker.spawn(Serving::new(&control, &router, peer).run(stream));
                    }
                    Err(error) => wait_after(&error).await,
                },
            }
        };
        drop((listener, socket));
        control.ending.send_replace(true);
        tracker.close();
        if tokio::time::timeout(control.config.limits.drain, tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(open = tracker.len(), "connections were cut off at the end");
        }
        sweeping.abort();
        housekeeping.abort();
        write_down(&control, Duration::ZERO).await;
        control.store.close().await;
        drop((control, router));
        // Tasks that were cut off may hold the last of it for a moment.
        if tokio::time::timeout(Duration::from_secs(5), ending.wait())
            .await
            .is_err()
        {
            tracing::warn!("the database was still in use at the end");
        }
        outcome
    }
}

/// No more files can be opened, say: trying again at once would only heat the room.
async fn wait_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Reads certificate and key for TLS.
fn tls(config: &Config) -> Result<Option<TlsAcceptor>, ControlError> {
    let (certificate, key) = match (&config.tls_certificate, &config.tls_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(ControlError::Tls("certificate and key belong together".to_owned())),
    };
    if is_open(key) {
        tracing::warn!(path = %key.display(), "the key for TLS can be read by everybody on this machine");
    }
    let told = |path: &Path, error: &dyn std::fmt::Display| ControlError::Tls(format!("{}: {error}", path.display()));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| told(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| told(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| told(certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| told(certificate, &error))?;
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(settings))))
}

/// Listens on the operator's socket, which nobody else on this machine may open.
fn operator(data: &Path) -> Result<UnixListener, ControlError> {
    let path = socket(data);
    let bind = || -> io::Result<UnixListener> {
        // Who has the database is the only one who serves; what is left of another is nobody's.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))?;
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|error| ControlError::Listen(path.display().to_string(), error))
}

/// One connection.
struct Serving {
    router: Router,
    peer: Peer,
    head: Duration,
    stranger: Duration,
    ending: watch::Receiver<bool>,
    control: Control,
}

/// Counts a connection as long as it is open.
struct Open(Control);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

impl Serving {
    fn new(control: &Control, router: &Router, peer: Peer) -> Self {
        Self {
            router: router.clone(),
            peer,
            head: control.config.limits.head,
            stranger: control.config.limits.stranger,
            ending: control.ending.subscribe(),
            control: control.clone(),
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(mut self, stream: S) {
        self.control.metrics.connections.inc();
        let _open = Open(self.control.clone());
        let (router, peer) = (self.router, self.peer.clone());
        let busy = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&busy);
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            let (router, begun) = (router.clone(), Arc::clone(&begun));
            let answer: futures::future::BoxFuture<'static, _> = Box::pin(async move {
                begun.store(true, Ordering::Relaxed);
                let answer = router.oneshot(request).await;
                begun.store(false, Ordering::Relaxed);
                answer
            });
            answer
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Wire::new(stream)), service);
        let (mut told, mut is_stranger) = (false, true);
        let patience = tokio::time::sleep(self.stranger);
        tokio::pin!(patience);
        let outcome = loop {
            let over = std::future::poll_fn(|context| connection.poll_without_shutdown(context));
            tokio::select! {
                outcome = over => break outcome,
                _ = self.ending.wait_for(|ending| *ending), if !told => {
                    told = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
                () = &mut patience, if is_stranger => {
                    is_stranger = false;
                    if self.peer.was_known() {
                        continue;
                    }
                    if !busy.load(Ordering::Relaxed) {
                        break Ok(());
                    }
                    // What was asked is answered first.
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let mut wire = connection.into_parts().io.into_inner();
        if let Err(error) = outcome
            && let Some(code) = wire.unanswered(error.is_timeout())
        {
            self.control.metrics.refused(code);
            let _ = tokio::time::timeout(FAREWELL, wire.tell(code)).await;
        }
        let _ = tokio::time::timeout(FAREWELL, wire.end()).await;
    }
}

/// Looks again and again for devices that came or went, and writes down when they were heard.
async fn sweep(control: Control) {
    let every = control.config.limits.sweep;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cleaned: Option<tokio::time::Instant> = None;
    loop {
        ticks.tick().await;
        write_down(&control, Duration::from_secs(25)).await;
        if cleaned.is_none_or(|at| at.elapsed() > Duration::from_secs(3_600)) {
            cleaned = Some(tokio::time::Instant::now());
            let before = now() - ENDED;
            let work = control
                .store
                .write(move |tx| Box::pin(async move { tx.forget_certificates(before).await }));
            if let Err(error) = work.await {
                tracing::warn!(%error, "certificates that have ended were not forgotten");
            }
        }
    }
}

/// Writes down who came or went, and who was heard at least `every` after what is written.
async fn write_down(control: &Control, every: Duration) {
    /// Devices in one write: others have their turn in between.
    const TOGETHER: usize = 1_000;
    for (id, network) in control.live.networks() {
        for came in network.came(now()).chunks(TOGETHER) {
            match control.store.came(id, came.to_vec()).await {
                Ok(()) => network.told(came),
                Err(error) => tracing::warn!(%error, "who came or went was not written down"),
            }
        }
        for heard in network.heard(every).chunks(TOGETHER) {
            match control.store.seen(id, heard.to_vec()).await {
                Ok(()) => network.kept(heard),
                Err(error) => tracing::warn!(%error, "when devices were heard was not written down"),
            }
        }
    }
}
