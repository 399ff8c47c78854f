//! Who comes in at a relay's process: handshakes and connections of one address, and a share of the connections for those
//! who may reserve.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll, Waker};

use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::server::{Server, Standing};

/// Handshakes under way at once of one address.
const PENDING: usize = 16;

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// Handshakes.
    #[error("there are as many handshakes of the address as there may be")]
    Pending,
    /// Connections.
    #[error("there are as many connections of the address as there may be")]
    Address,
}

/// What one address has.
#[derive(Debug, Default)]
struct Here {
    pending: usize,
    connections: usize,
}

/// Lets connections in.
#[derive(Debug)]
pub(crate) struct Door {
    server: Server,
    /// Connections of peers that have shown nothing.
    strangers: usize,
    /// Connections of one address.
    per_address: usize,
    addresses: HashMap<IpAddr, Here>,
    /// Connections by where they come from, and whether their handshake is over.
    comers: HashMap<ConnectionId, (IpAddr, bool)>,
    /// Connections of peers that had shown nothing when they were looked at last, the oldest first.
    strange: BTreeMap<ConnectionId, PeerId>,
    closing: VecDeque<(PeerId, ConnectionId)>,
    waker: Option<Waker>,
}

/// What is counted as one: an address, of IPv6 the /64. Loopback is where a proxy may be, and is not counted.
fn source(address: &Multiaddr) -> Option<IpAddr> {
    let ip = match address.iter().next()? {
        Part::Ip4(ip) => IpAddr::V4(ip),
        Part::Ip6(ip) => IpAddr::V6(ip).to_canonical(),
        _ => return None,
    };
    let ip = match ip {
        IpAddr::V6(ip) if !ip.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    };
    (!ip.is_loopback()).then_some(ip)
}

impl Door {
    pub(crate) fn new(server: Server, connections: u32, per_address: u32) -> Self {
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            server,
            strangers: size(connections / 2),
            per_address: size(per_address),
            addresses: HashMap::new(),
            comers: HashMap::new(),
            strange: BTreeMap::new(),
            closing: VecDeque::new(),
            waker: None,
        }
    }

    fn begin(&mut self, id: ConnectionId, from: &Multiaddr) -> Result<(), Full> {
        let Some(ip) = source(from) else {
            return Ok(());
        };
        let here = self.addresses.entry(ip).or_default();
        if here.pending >= PENDING {
            return Err(Full::Pending);
        }
        if here.connections >= self.per_address {
            return Err(Full::Address);
        }
        here.pending += 1;
        self.comers.insert(id, (ip, false));
        Ok(())
    }

    fn come(&mut self, id: ConnectionId, peer: PeerId) -> Result<(), Full> {
        if let Some((ip, is_in)) = self.comers.get_mut(&id) {
            let here = self.addresses.entry(*ip).or_default();
            if here.connections >= self.per_address {
                return Err(Full::Address);
            }
            here.pending = here.pending.saturating_sub(1);
            here.connections += 1;
            *is_in = true;
        }
        self.strange.insert(id, peer);
        if self.strange.len() > self.strangers {
            self.make_room();
        }
        Ok(())
    }

    /// Closes the connection of the peer that has been here for longest, has shown nothing, and is no end of a circuit:
    /// circuits of those who have shown nothing have a bound of their own. Who has shown something since it came counts no
    /// more, so that it is looked at once.
    fn make_room(&mut self) {
        let (mut known, mut oldest) = (Vec::new(), None);
        for (id, peer) in &self.strange {
            if self.strange.len() - known.len() <= self.strangers {
                break;
            }
            match self.server.standing(peer) {
                Standing::Granted => known.push(*id),
                Standing::Strange { has_circuits: true } => {}
                Standing::Strange { has_circuits: false } => {
                    oldest = Some((*peer, *id));
                    break;
                }
            }
        }
        for id in known.iter().chain(oldest.iter().map(|(_, id)| id)) {
            self.strange.remove(id);
        }
        if let Some(oldest) = oldest {
            self.closing.push_back(oldest);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    fn go(&mut self, id: ConnectionId) {
        self.strange.remove(&id);
        let Some((ip, is_in)) = self.comers.remove(&id) else {
            return;
        };
        if let Some(here) = self.addresses.get_mut(&ip) {
            let count = if is_in {
                &mut here.connections
            } else {
                &mut here.pending
            };
            *count = count.saturating_sub(1);
            if here.pending + here.connections == 0 {
                self.addresses.remove(&ip);
            }
        }
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.begin(id, from).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.come(id, peer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.go(closed.connection_id),
            FromSwarm::ListenFailure(failed) => self.go(failed.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.closing.pop_front() {
            Some((peer_id, connection)) => Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            }),
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests;
