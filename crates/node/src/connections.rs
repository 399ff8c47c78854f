//! HTTP connections from beyond this machine, bounded: so many at once, a share of them for each address, and little time
//! to say what each wants.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use dawn_mcp::gateway::resource::Peer;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::MapRequest;

use crate::sync::lock;

/// How long a client may take for a handshake, and to say what it wants.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long connections have to end when the node does.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long nothing is accepted after accepting failed: the process may be out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Whether a connection may become another protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrades {
    Allowed,
    Refused,
}

/// Accepts connections until `stop`, at most `most` at once, and has each served, as from its address.
pub(crate) async fn accept<S>(
    listener: TcpListener,
    most: usize,
    stop: &CancellationToken,
    serve: impl Fn(TcpStream, IpAddr) -> S,
) where
    S: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (room, tasks) = (Room::new(most), TaskTracker::new());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "no connection from beyond this machine is accepted just now");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // What is beyond `most`, or one address's share of it, is closed at once.
        let Some(place) = room.take(address) else { continue };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let serving = serve(stream, address);
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a connection from beyond this machine ended early");
            }
            drop(place);
        });
    }
    tasks.close();
    if tokio::time::timeout(GOODBYE, tasks.wait()).await.is_err() {
        tracing::debug!("connections from beyond this machine were cut");
    }
}

/// Serves HTTP/1.1 on a connection until it or the node ends; requests carry the [`Peer`] that they come from.
pub(crate) async fn serve<S>(
    stream: S,
    address: IpAddr,
    routes: Router,
    upgrades: Upgrades,
    stop: CancellationToken,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Around all routes: a layer would copy them for each connection.
    let routes = MapRequest::new(routes, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(address));
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match upgrades {
        Upgrades::Allowed => {
            let mut connection = std::pin::pin!(connection.with_upgrades());
            tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            Ok(connection.await?)
        }
        Upgrades::Refused => {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            Ok(connection.await?)
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
        let mut taken = lock(&self.0);
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
        let mut taken = lock(&self.room.0);
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use axum::http::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";

    /// Tells from where a request comes, and speaks another protocol with it where that is allowed.
    async fn answer(mut request: Request) -> (StatusCode, [(&'static str, &'static str); 2], String) {
        let Some(Peer(address)) = request.extensions().get().copied() else {
            panic!("nobody says from where it comes");
        };
        let upgrading = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrading.await {
                let mut upgraded = TokioIo::new(upgraded);
                upgraded.write_all(b"another protocol").await.unwrap();
            }
        });
        let headers = [("connection", "upgrade"), ("upgrade", "x")];
        (StatusCode::SWITCHING_PROTOCOLS, headers, address.to_string())
    }

    #[tokio::test]
    async fn connections_are_bounded_tell_where_they_come_from_and_change_the_protocol_only_where_they_may() {
        for upgrades in [Upgrades::Allowed, Upgrades::Refused] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let stop = CancellationToken::new();
            let routes = Router::new().fallback(answer);
            let accepting = accept(listener, 1, &stop, |stream, address| {
                serve(stream, address, routes.clone(), upgrades, stop.clone())
            });
            let asking = async {
                let mut first = TcpStream::connect(address).await.unwrap();
                first.write_all(&ASKED[..20]).await.unwrap();
                let mut second = TcpStream::connect(address).await.unwrap();
                // It is closed, in order or not.
                let mut none = Vec::new();
                let _ = second.read_to_end(&mut none).await;
                assert!(none.is_empty());
                first.write_all(&ASKED[20..]).await.unwrap();
                let mut said = Vec::new();
                first.read_to_end(&mut said).await.unwrap();
                let said = String::from_utf8(said).unwrap();
                assert!(said.starts_with("HTTP/1.1 101"), "{said}");
                assert_eq!(
                    said.ends_with("another protocol"),
                    upgrades == Upgrades::Allowed,
                    "{said}"
                );
                stop.cancel();
            };
            tokio::join!(accepting, asking);
        }
    }

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
