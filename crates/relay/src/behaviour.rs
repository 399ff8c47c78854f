//! The relay's server in a libp2p swarm.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, Stream, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::{Semaphore, mpsc};

use crate::gate::Gate;
use crate::message::{HOP, STOP};
use crate::quota::Quotas;
use crate::server::{Connected, Server, Wish};
use crate::token::TOKEN;

/// Streams of one connection on which something is asked at once; circuits that are made do not count.
const ASKING: usize = 64;

/// Serves circuits in a swarm.
#[derive(Debug)]
pub struct Behaviour {
    server: Server,
    closings: mpsc::UnboundedReceiver<(PeerId, ConnectionId)>,
}

impl Behaviour {
    /// A behaviour whose server is off, until it is told where it serves.
    #[must_use]
    pub fn new(local: PeerId, gate: Arc<dyn Gate>, quotas: Quotas) -> Self {
        let (server, closings) = Server::new(local, gate, quotas);
        Self { server, closings }
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    fn handler(&self, id: ConnectionId, peer: PeerId, addresses: [&Multiaddr; 2]) -> Handler {
        let (sender, wishes) = mpsc::unbounded_channel();
        let is_kept = Arc::new(AtomicBool::new(false));
        let is_circuit = |address: &&Multiaddr| address.iter().any(|part| part == Part::P2pCircuit);
        let is_relayed = addresses.iter().any(is_circuit);
        let connection = Connected {
            peer,
            is_relayed,
            is_kept: Arc::clone(&is_kept),
            wishes: sender,
        };
        self.server.connected(id, connection);
        Handler {
            id,
            peer,
            is_relayed,
            server: self.server.clone(),
            is_kept,
            wishes,
            asking: Arc::new(Semaphore::new(ASKING)),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, [local, remote]))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, [address, address]))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => {
                let is_last = closed.remaining_established == 0;
                self.server.disconnected(closed.peer_id, closed.connection_id, is_last);
            }
            // Another behaviour may have denied a connection that has a handler here already.
            FromSwarm::DialFailure(failed) => {
                if let Some(peer) = failed.peer_id {
                    self.server.disconnected(peer, failed.connection_id, false);
                }
            }
            FromSwarm::ListenFailure(failed) => {
                if let Some(peer) = failed.peer_id {
                    self.server.disconnected(peer, failed.connection_id, false);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.closings.poll_recv(context) {
            Poll::Ready(Some((peer_id, connection))) => Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            }),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Serves one connection.
#[derive(Debug)]
pub struct Handler {
    id: ConnectionId,
    peer: PeerId,
    is_relayed: bool,
    server: Server,
    is_kept: Arc<AtomicBool>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    asking: Arc<Semaphore>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Accept;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Wish;

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        let is_served = self.server.is_on() && !self.is_relayed;
        SubstreamProtocol::new(Accept { is_served }, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Wish, Infallible>> {
        while let Poll::Ready(Some(wish)) = self.wishes.poll_recv(context) {
            if !wish.is_closed() {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(StreamProtocol::new(STOP)), wish);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, Self::OutboundProtocol, (), Wish>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, asked),
                ..
            }) => {
                // Who asks for more at once than is served has its stream closed.
                let Ok(is_asked) = Arc::clone(&self.asking).try_acquire_owned() else {
                    return;
                };
                let (server, peer, id) = (self.server.clone(), self.peer, self.id);
                tokio::spawn(async move {
                    match asked {
                        Asked::Hop => server.hop(peer, id, stream, is_asked).await,
                        Asked::Token => {
                            server.take_shown(peer, id, stream).await;
                            drop(is_asked);
                        }
                    }
                });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                // Whoever wanted it may have given up.
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                    StreamUpgradeError::NegotiationFailed => io::ErrorKind::Unsupported.into(),
                    StreamUpgradeError::Io(error) => error,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                // As above.
                let _ = info.send(Err(error));
            }
            _ => {}
        }
    }
}

/// What a stream is for.
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    /// A reservation or a circuit.
    Hop,
    /// Something is shown.
    Token,
}

/// Takes what a relay serves, while it serves.
#[derive(Debug, Clone, Copy)]
pub struct Accept {
    is_served: bool,
}

impl UpgradeInfo for Accept {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        let served = [HOP, TOKEN].map(StreamProtocol::new);
        served
            .into_iter()
            .filter(|_| self.is_served)
            .collect::<Vec<_>>()
            .into_iter()
    }
}

impl InboundUpgrade<Stream> for Accept {
    type Output = (Stream, Asked);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        let asked = if protocol == StreamProtocol::new(HOP) {
            Asked::Hop
        } else {
            Asked::Token
        };
        ready(Ok((stream, asked)))
    }
}
