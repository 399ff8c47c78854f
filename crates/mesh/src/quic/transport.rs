//! QUIC as libp2p sees it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::SelectAll;
use libp2p::core::Endpoint as Role;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::address;
use super::connection::Connection;
use super::dial::{self, Handshake};
use super::error::{Error, SetupError};
use super::listener::{self, Event, Listener};
use super::settings::{Configs, Settings};
use super::socket::Socket;
use super::tls::{Identity, Tls};
use crate::nat::sockets::Sockets;

/// QUIC with a node's identity.
pub(crate) struct Transport {
    configs: Configs,
    listeners: SelectAll<Listener>,
    /// What is dialled from while nothing is listened on, for IPv4 and for IPv6.
    dialers: [Option<quinn::Endpoint>; 2],
    /// Who waits for a connection from an address that a hole is punched to.
    punches: HashMap<SocketAddr, oneshot::Sender<Handshake>>,
    /// All sockets that are listened on, and some to dial from.
    sockets: Sockets,
    waker: Option<Waker>,
}

impl Transport {
    /// A transport of the node with this key.
    pub(crate) fn new(keypair: &Keypair, settings: Settings, sockets: Sockets) -> Result<Self, SetupError> {
        Self::with(keypair, Tls::new(keypair)?, settings, sockets)
    }

    /// The same with TLS made by somebody else.
    pub(super) fn with(keypair: &Keypair, tls: Tls, settings: Settings, sockets: Sockets) -> Result<Self, SetupError> {
        Ok(Self {
            configs: Configs::new(keypair, tls, settings)?,
            listeners: SelectAll::new(),
            dialers: [None, None],
            punches: HashMap::new(),
            sockets,
            waker: None,
        })
    }

    /// The listener to dial a peer from: the one that was there first, so that the peer sees one address.
    fn listener_to(&self, to: SocketAddr) -> Option<&Listener> {
        self.listeners
            .iter()
            .filter(|listener| listener.reaches(to))
            .min_by_key(|listener| listener.local.port())
    }

    /// The endpoint to dial a peer from.
    fn endpoint_to(&mut self, to: SocketAddr, port: PortUse) -> Result<quinn::Endpoint, Error> {
        let sockets = self.sockets.clone();
        let own = |configs: &Configs| -> Result<quinn::Endpoint, Error> {
            let any: SocketAddr = match to {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            Ok(listener::endpoint(
                &Socket::bind(any, sockets.hook(0))?,
                configs,
                false,
            )?)
        };
        // One that a hole was punched from is used for just that.
        if let Some(socket) = self.sockets.kept_for(to) {
            return Ok(listener::endpoint(&socket, &self.configs, false)?);
        }
        if port == PortUse::New {
            return own(&self.configs);
        }
        if let Some(listener) = self.listener_to(to) {
            return Ok(listener.endpoint.clone());
        }
        let kept = &mut self.dialers[usize::from(to.is_ipv6())];
        match kept {
            Some(endpoint) => Ok(endpoint.clone()),
            None => Ok(kept.insert(own(&self.configs)?).clone()),
        }
    }

    fn dial_peer(&mut self, to: SocketAddr, peer: Option<PeerId>, port: PortUse) -> Result<Handshake, Error> {
        let endpoint = self.endpoint_to(to, port)?;
        let identity = Arc::new(Identity::of(peer));
        let config = self.configs.dialled(to, Arc::clone(&identity))?;
        let limit = self.configs.handshake();
        Ok(async move {
            let connecting = endpoint.connect_with(config, to, dial::NAME)?;
            dial::handshake(connecting, limit, identity).await
        }
        .boxed())
    }

    /// Punches a hole to a peer that dials this node at the same time.
    fn punch(&mut self, to: SocketAddr, peer: PeerId) -> Result<Handshake, Error> {
        let listener = self.listener_to(to).ok_or(Error::NoListener)?;
        let socket = Arc::clone(&listener.socket);
        let (sender, arrived) = oneshot::channel();
        // Those that nobody waits for any more go.
        self.punches.retain(|_, waiting| !waiting.is_closed());
        match self.punches.entry(to) {
            Entry::Occupied(_) => return Err(Error::PunchUnderWay(to)),
            Entry::Vacant(entry) => entry.insert(sender),
        };
        Ok(dial::punch(socket, to, peer, arrived, self.configs.handshake()).boxed())
    }

    /// The handshake of a peer that dials; `None` where somebody waited for just that.
    fn accept(&mut self, incoming: quinn::Incoming) -> Result<Option<(SocketAddr, Handshake)>, Error> {
        let from = incoming.remote_address();
        let connecting = incoming.accept_with(self.configs.accepted(from))?;
        let limit = self.configs.handshake();
        let handshake = dial::handshake(connecting, limit, Arc::new(Identity::any())).boxed();
        let Some(waiting) = self.punches.remove(&from) else {
            return Ok(Some((from, handshake)));
        };
        // Who waited may just have given up: then it is a connection like any other.
        Ok(waiting.send(handshake).err().map(|handshake| (from, handshake)))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("listeners", &self.listeners.len())
            .finish_non_exhaustive()
    }
}

impl libp2p::core::Transport for Transport {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Handshake;
    type Dial = Handshake;

    fn listen_on(&mut self, id: ListenerId, multiaddr: Multiaddr) -> Result<(), TransportError<Error>> {
        let Some((address, _)) = address::parse(&multiaddr) else {
            return Err(TransportError::MultiaddrNotSupported(multiaddr));
        };
        self.listeners
            .push(Listener::new(id, address, &self.configs, &self.sockets)?);
        // From now on peers are dialled from here; the other endpoint ends with its last connection.
        self.dialers[usize::from(address.is_ipv6())] = None;
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let listener = self.listeners.iter_mut().find(|listener| listener.id == id);
        listener.map(Listener::close).is_some()
    }

    fn dial(&mut self, multiaddr: Multiaddr, options: DialOpts) -> Result<Handshake, TransportError<Error>> {
        let (to, peer) = match address::parse(&multiaddr) {
            Some((to, peer)) if to.port() != 0 && !to.ip().is_unspecified() => (to, peer),
            _ => return Err(TransportError::MultiaddrNotSupported(multiaddr)),
        };
        match (options.role, options.port_use, peer) {
            (Role::Dialer, port, _) | (Role::Listener, port @ PortUse::Reuse, _) => Ok(self.dial_peer(to, peer, port)?),
            (Role::Listener, PortUse::New, Some(peer)) => Ok(self.punch(to, peer)?),
            (Role::Listener, PortUse::New, None) => Err(TransportError::MultiaddrNotSupported(multiaddr)),
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Handshake, Error>> {
        while let Poll::Ready(Some((listener_id, event))) = self.listeners.poll_next_unpin(context) {
            let event = match event {
                Event::Up(address) => TransportEvent::NewAddress {
                    listener_id,
                    listen_addr: address::multiaddr(address),
                },
                Event::Down(address) => TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr: address::multiaddr(address),
                },
                Event::Failed(error) => TransportEvent::ListenerError { listener_id, error },
                Event::Closed => TransportEvent::ListenerClosed {
                    listener_id,
                    reason: Ok(()),
                },
                Event::Incoming(incoming) => match self.accept(*incoming) {
                    Ok(None) => continue,
                    Ok(Some((from, upgrade))) => {
                        let local = self.listeners.iter().find(|listener| listener.id == listener_id);
                        TransportEvent::Incoming {
                            listener_id,
                            upgrade,
                            // The listener that the event is of is there.
                            local_addr: address::multiaddr(local.map_or(from, |listener| listener.local)),
                            send_back_addr: address::multiaddr(from),
                        }
                    }
                    Err(error) => TransportEvent::ListenerError { listener_id, error },
                },
            };
            return Poll::Ready(event);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
