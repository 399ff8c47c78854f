//! Streams that peers open, handed on without loss.
//!
//! `libp2p-stream` drops an inbound stream whenever its acceptor has not yet taken the one before; two requests at once were
//! enough. Here every inbound stream waits in a queue; who may have how many is decided where they are delivered.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use libp2p::core::upgrade::{DeniedUpgrade, InboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::mpsc;

use crate::handle::lock;

/// A stream that a peer opened.
pub(crate) struct Opened {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) stream: Stream,
}

/// The protocols that are served, shared by the behaviour, its handlers and those who serve.
#[derive(Clone, Default)]
pub(crate) struct Served(Arc<Mutex<Vec<Service>>>);

/// A protocol and where its streams go.
type Service = (StreamProtocol, mpsc::UnboundedSender<Opened>);

impl Served {
    /// Serves a protocol; `None` when it is served already.
    pub(crate) fn accept(&self, protocol: &'static str) -> Option<mpsc::UnboundedReceiver<Opened>> {
        let mut served = lock(&self.0);
        served.retain(|(_, sender)| !sender.is_closed());
        let protocol = StreamProtocol::new(protocol);
        if served.iter().any(|(known, _)| *known == protocol) {
            return None;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        served.push((protocol, sender));
        Some(receiver)
    }

    fn protocols(&self) -> Vec<StreamProtocol> {
        lock(&self.0).iter().map(|(protocol, _)| protocol.clone()).collect()
    }

    fn hand_on(&self, opened: Opened, protocol: &StreamProtocol) {
        let served = lock(&self.0);
        if let Some((_, sender)) = served.iter().find(|(known, _)| known == protocol) {
            // Who served it may have stopped just now; then the stream closes.
            let _ = sender.send(opened);
        }
    }
}

/// Accepts streams of the served protocols on every connection.
pub(crate) struct Behaviour(pub(crate) Served);

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler {
            peer,
            connection,
            served: self.0.clone(),
        })
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler {
            peer,
            connection,
            served: self.0.clone(),
        })
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Accepts streams on one connection.
pub(crate) struct Handler {
    peer: PeerId,
    connection: ConnectionId,
    served: Served,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Accept;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        SubstreamProtocol::new(Accept(self.served.protocols()), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, DeniedUpgrade>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: (stream, protocol),
            ..
        }) = event
        {
            let opened = Opened {
                peer: self.peer,
                connection: self.connection,
                stream,
            };
            self.served.hand_on(opened, &protocol);
        }
    }
}

/// Takes any of the served protocols.
pub(crate) struct Accept(Vec<StreamProtocol>);

impl UpgradeInfo for Accept {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Accept {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
