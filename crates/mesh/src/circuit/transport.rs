//! The transport of addresses that lead through relays.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use dawn_relay::client;
use dawn_relay::message::HOP;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::door::{Inside, Offer};
use super::upgrade::{Connected, Upgrade};
use super::{Circuit, Error, Way};
use crate::swarm::{Control, node_id};

/// A circuit on its way to be a connection.
type Connecting = BoxFuture<'static, Result<Connected, Error>>;

/// Opens circuits to others.
#[derive(Clone)]
pub(crate) struct Dialler(pub(crate) Control);

impl Dialler {
    /// A circuit to the end of a way.
    async fn open(self, way: Way, target: PeerId) -> Result<Circuit, Error> {
        let unknown = || Error::NotConnected("its id is no key".into());
        let node = node_id(way.relay).ok_or_else(unknown)?;
        let used = self.0.relays.try_hold(node).ok_or(Error::TooManyRelays)?;
        let connection = self.0.direct(node, vec![way.at]).await.map_err(Error::NotConnected)?;
        // Who is none of its own may use less of it.
        if let Err(error) = self.0.show_credential(node, connection.id).await {
            tracing::debug!(relay = %way.relay, %error, "a relay accepts nothing of this node");
        }
        let mut stream = self.0.opener.open(connection.id, StreamProtocol::new(HOP)).await?;
        client::connect(&mut stream, target).await?;
        Ok(Circuit::new(stream, used))
    }
}

/// A relay at which circuits are taken.
struct Listener {
    id: ListenerId,
    relay: PeerId,
    /// Where it is: `AT/p2p/RELAY/p2p-circuit`.
    at: Multiaddr,
}

/// Dials through relays, and takes circuits from them.
pub(crate) struct Transport {
    local: PeerId,
    upgrade: Upgrade,
    dialler: Dialler,
    inside: Inside,
    listeners: Vec<Listener>,
    events: VecDeque<TransportEvent<Connecting, Error>>,
    waker: Option<Waker>,
}

impl Transport {
    pub(crate) fn new(local: PeerId, upgrade: Upgrade, dialler: Dialler, inside: Inside) -> Self {
        Self {
            local,
            upgrade,
            dialler,
            inside,
            listeners: Vec::new(),
            events: VecDeque::new(),
            waker: None,
        }
    }

    fn say(&mut self, event: TransportEvent<Connecting, Error>) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What becomes of a circuit that a relay has brought: nothing, where it is not listened there any more.
    fn incoming(&self, offer: Offer) -> Option<TransportEvent<Connecting, Error>> {
        let listener = self.listeners.iter().find(|listener| listener.relay == offer.relay)?;
        let upgrade = self.upgrade.clone();
        let (source, circuit, place) = (offer.source, offer.circuit, offer.place);
        let upgrade = async move {
            let connected = upgrade.taken(circuit).await?;
            drop(place);
            if connected.0 == source {
                Ok(connected)
            } else {
                Err(Error::NotTheSource)
            }
        };
        Some(TransportEvent::Incoming {
            listener_id: listener.id,
            upgrade: upgrade.boxed(),
            local_addr: listener.at.clone(),
            send_back_addr: Part::P2p(source).into(),
        })
    }
}

impl libp2p::core::Transport for Transport {
    type Output = Connected;
    type Error = Error;
    type ListenerUpgrade = Connecting;
    type Dial = Connecting;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Error>> {
        let Some(Way {
            relay, target: None, ..
        }) = Way::of(&address)
        else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        self.inside.doors.open(relay);
        self.say(TransportEvent::NewAddress {
            listener_id: id,
            listen_addr: address.clone().with(Part::P2p(self.local)),
        });
        self.listeners.push(Listener { id, relay, at: address });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(at) = self.listeners.iter().position(|listener| listener.id == id) else {
            return false;
        };
        let Listener { relay, .. } = self.listeners.swap_remove(at);
        if !self.listeners.iter().any(|listener| listener.relay == relay) {
            self.inside.doors.shut(relay);
        }
        self.say(TransportEvent::ListenerClosed {
            listener_id: id,
            reason: Ok(()),
        });
        true
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Connecting, TransportError<Error>> {
        let way = Way::of(&address).filter(|_| options.role.is_dialer());
        let Some((way, target)) = way.and_then(|way| way.target.map(|target| (way, target))) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let (dialler, upgrade) = (self.dialler.clone(), self.upgrade.clone());
        let dialling = async move {
            let opened = tokio::time::timeout(upgrade.patience, dialler.open(way, target)).await;
            upgrade.dialled(opened.unwrap_or(Err(Error::Late))?).await
        };
        Ok(dialling.boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Connecting, Error>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        while let Poll::Ready(Some(offer)) = self.inside.offers.poll_recv(context) {
            if let Some(event) = self.incoming(offer) {
                return Poll::Ready(event);
            }
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
