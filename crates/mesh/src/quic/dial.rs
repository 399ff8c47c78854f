//! Handshakes, and the holes that are punched for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::PeerId;
use rand::RngExt as _;
use tokio::sync::oneshot;

use super::connection::Connection;
use super::error::Error;
use super::socket::Socket;
use super::tls::{self, Identity};

/// A connection that becomes one when its handshake is done.
pub(super) type Handshake = BoxFuture<'static, Result<(PeerId, Connection), Error>>;

/// The name that `quinn` wants of a server; it is not sent.
pub(super) const NAME: &str = "l";
/// Length of what is sent to punch a hole, bytes: enough that nothing on the way takes it for empty.
const PUNCH: usize = 64;
/// Between two of them, milliseconds.
const PUNCHES: std::ops::RangeInclusive<u64> = 10..=200;

/// Waits for a handshake and says who is there; nobody but who is asked for.
pub(super) async fn handshake(
    connecting: quinn::Connecting,
    limit: Duration,
    peer: Arc<Identity>,
) -> Result<(PeerId, Connection), Error> {
    let connection = tokio::time::timeout(limit, connecting)
        .await
        .map_err(|_| Error::TimedOut)?
        .map_err(|error| peer.other().unwrap_or_else(|| error.into()))?;
    let found = tls::peer_of(&connection)?;
    Ok((found, Connection::new(connection)))
}

/// Opens the way for a peer that dials at the same time: sends it datagrams of chance from the listening socket, so that
/// what stands before this node lets its answers in, until its connection comes.
pub(super) async fn punch(
    socket: Arc<Socket>,
    to: SocketAddr,
    expected: PeerId,
    arrived: oneshot::Receiver<Handshake>,
    limit: Duration,
) -> Result<(PeerId, Connection), Error> {
    let sending = async {
        loop {
            let (bytes, pause) = {
                let mut rng = rand::rng();
                let mut bytes = [0; PUNCH];
                rng.fill(&mut bytes[..]);
                (bytes, Duration::from_millis(rng.random_range(PUNCHES)))
            };
            if let Err(error) = socket.send(&bytes, to).await {
                return Error::from(error);
            }
            tokio::time::sleep(pause).await;
        }
    };
    let handshake = tokio::select! {
        // The transport keeps the other end until it is used or replaced; it is gone with the transport only.
        arrived = tokio::time::timeout(limit, arrived) => arrived.ok().and_then(Result::ok).ok_or(Error::TimedOut)?,
        error = sending => return Err(error),
    };
    let (found, connection) = handshake.await?;
    if found != expected {
        return Err(Error::WrongPeer { expected, found });
    }
    Ok((found, connection))
}
