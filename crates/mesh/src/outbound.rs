//! Streams that this node opens, each on the connection that was chosen for it.
//!
//! Every connection has a line of wishes of its own, so that a stream costs no turn of the swarm.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
    StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

use crate::handle::lock;

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailure {
    /// The connection is not there any more.
    #[error("the connection ended")]
    Gone,
    /// The peer does not serve the protocol.
    #[error("the protocol is not served")]
    Unsupported,
    /// The peer did not answer, or the stream broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

type Reply = oneshot::Sender<Result<Stream, OpenFailure>>;

/// A stream that is wanted.
struct Wish {
    protocol: StreamProtocol,
    reply: Reply,
}

/// A connection to open streams on.
#[derive(Clone)]
struct Line {
    wishes: mpsc::UnboundedSender<Wish>,
    /// How many want the connection to stay, though it carries no stream.
    holds: Arc<AtomicUsize>,
    shown: Shown,
}

/// What was shown over a connection to a relay, and whether it takes anything of the kind.
pub(crate) type Shown = Arc<tokio::sync::Mutex<Option<(Bytes, bool)>>>;

/// Keeps a connection that carries no stream, until it is dropped.
pub(crate) struct Hold(Line);

impl Hold {
    /// Waits until the connection has ended all the same.
    pub(crate) async fn gone(&self) {
        self.0.wishes.closed().await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens streams; shared by the behaviour and by whoever wants streams.
#[derive(Clone, Default)]
pub(crate) struct Opener(Arc<Mutex<HashMap<ConnectionId, Line>>>);

impl Opener {
    /// Opens a stream on a connection.
    ///
    /// # Errors
    /// The connection is gone, the protocol is not served there, or the stream broke.
    pub(crate) async fn open(&self, connection: ConnectionId, protocol: StreamProtocol) -> Result<Stream, OpenFailure> {
        let (reply, opened) = oneshot::channel();
        let line = lock(&self.0).get(&connection).cloned().ok_or(OpenFailure::Gone)?;
        line.wishes
            .send(Wish { protocol, reply })
            .map_err(|_closed| OpenFailure::Gone)?;
        opened.await.unwrap_or(Err(OpenFailure::Gone))
    }

    /// What was shown over a connection, if that is there.
    pub(crate) fn shown(&self, connection: ConnectionId) -> Option<Shown> {
        lock(&self.0).get(&connection).map(|line| Arc::clone(&line.shown))
    }

    /// Keeps a connection, if it is there.
    pub(crate) fn hold(&self, connection: ConnectionId) -> Option<Hold> {
        let line = lock(&self.0).get(&connection).cloned()?;
        line.holds.fetch_add(1, Ordering::Relaxed);
        Some(Hold(line))
    }

    fn handler(&self, connection: ConnectionId) -> Handler {
        let (sender, wishes) = mpsc::unbounded_channel();
        let holds = Arc::<AtomicUsize>::default();
        let line = Line {
            wishes: sender,
            holds: Arc::clone(&holds),
            shown: Shown::default(),
        };
        lock(&self.0).insert(connection, line);
        Handler { wishes, holds }
    }
}

/// Opens streams on every connection.
pub(crate) struct Behaviour(pub(crate) Opener);

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.0.handler(connection))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.0.handler(connection))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let gone = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            // Another behaviour may have denied a connection that has a handler here already.
            FromSwarm::DialFailure(failed) => failed.connection_id,
            FromSwarm::ListenFailure(failed) => failed.connection_id,
            _ => return,
        };
        lock(&self.0.0).remove(&gone);
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Opens streams on one connection.
pub(crate) struct Handler {
    wishes: mpsc::UnboundedReceiver<Wish>,
    holds: Arc<AtomicUsize>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.holds.load(Ordering::Relaxed) > 0
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, Infallible>> {
        while let Poll::Ready(Some(Wish { protocol, reply })) = self.wishes.poll_recv(context) {
            if !reply.is_closed() {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol), reply);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, DeniedUpgrade, Self::OutboundProtocol, (), Reply>) {
        let (reply, result) = match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                (info, Ok(protocol))
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let failure = match error {
                    StreamUpgradeError::Timeout => OpenFailure::Io(std::io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::NegotiationFailed => OpenFailure::Unsupported,
                    StreamUpgradeError::Io(error) => OpenFailure::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                (info, Err(failure))
            }
            _ => return,
        };
        // Whoever wanted it may have given up.
        let _ = reply.send(result);
    }
}
