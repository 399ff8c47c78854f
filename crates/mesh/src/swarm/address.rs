//! Addresses: what they say of the way to a peer, and in which order they are tried.

use std::net::{IpAddr, SocketAddr};

use dawn_identity::NodeId;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId};

use crate::nat::mapping::Protocol as Mapped;
use crate::nat::sockets::Sockets;
use crate::peer::{Route, Transport};
use crate::quic;

/// Addresses of one node that are tried: a record cannot make others knock at every door.
pub(super) const ADDRESSES: usize = 16;

pub(crate) fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

pub(crate) fn node_id(peer: PeerId) -> Option<NodeId> {
    peer.to_string().parse().ok()
}

/// Whether a text is a multiaddr.
///
/// # Errors
/// Why it is not.
pub fn check_address(text: &str) -> Result<(), String> {
    text.parse::<Multiaddr>().map(|_| ()).map_err(|error| error.to_string())
}

pub(super) fn transport_of(address: &Multiaddr) -> Transport {
    let mut transport = Transport::Tcp;
    for part in address {
        match part {
            Part::QuicV1 | Part::Quic => return Transport::Quic,
            Part::Ws(_) | Part::Wss(_) => transport = Transport::WebSocket,
            _ => {}
        }
    }
    transport
}

/// The relay of an address that leads through one.
pub(super) fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let mut last = None;
    for part in address {
        match part {
            Part::P2p(peer) => last = Some(peer),
            Part::P2pCircuit => return last,
            _ => {}
        }
    }
    None
}

/// Whether an address leads through a relay.
pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Part::P2pCircuit)
}

/// Where the other end of a connection is, and how it is reached.
pub(super) fn way(endpoint: &ConnectedPoint, sockets: &Sockets) -> (Multiaddr, Route) {
    let address = match endpoint {
        // The address of the peer itself says nothing then.
        ConnectedPoint::Listener { local_addr, .. } if is_circuit(local_addr) => local_addr,
        _ => endpoint.get_remote_address(),
    };
    let leads_through_hole = || match (quic::socket_address(address), tcp_address(address)) {
        (Some(at), _) => sockets.is_open(Mapped::Udp, at),
        (_, Some(at)) => sockets.is_open(Mapped::Tcp, at),
        _ => false,
    };
    let route = match relay_of(address).and_then(node_id) {
        Some(relay) => Route::Relayed { relay },
        None if leads_through_hole() => Route::Punched,
        None => Route::Direct,
    };
    (address.clone(), route)
}

/// The address and the port of a multiaddress, and of which protocol the port is.
pub(crate) fn ip_and_port(address: &Multiaddr) -> Option<(IpAddr, u16, Mapped)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Part::Ip4(ip) => ip.into(),
        Part::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Part::Udp(port) => Some((ip, port, Mapped::Udp)),
        Part::Tcp(port) => Some((ip, port, Mapped::Tcp)),
        _ => None,
    }
}

/// Where an address of TCP leads to, and of nothing over it.
pub(super) fn tcp_address(address: &Multiaddr) -> Option<SocketAddr> {
    let (ip, port, protocol) = ip_and_port(address)?;
    let is_plain = !is_circuit(address) && transport_of(address) == Transport::Tcp;
    (protocol == Mapped::Tcp && is_plain).then(|| SocketAddr::new(ip, port))
}

/// The same address at another place.
pub(crate) fn moved(address: &Multiaddr, to: SocketAddr) -> Multiaddr {
    let parts = address.iter().map(|part| match part {
        Part::Ip4(_) | Part::Ip6(_) => Part::from(to.ip()),
        Part::Udp(_) => Part::Udp(to.port()),
        Part::Tcp(_) => Part::Tcp(to.port()),
        part => part,
    });
    parts.collect()
}

/// QUIC first, then TCP, then WebSocket.
pub(super) fn preference(address: &Multiaddr) -> u8 {
    match transport_of(address) {
        Transport::Quic => 0,
        Transport::Tcp | Transport::Memory => 1,
        Transport::WebSocket => 2,
    }
}

pub(super) fn parse(addresses: &[String]) -> Vec<Multiaddr> {
    let addresses = addresses.iter().take(ADDRESSES);
    let mut parsed: Vec<Multiaddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    parsed.sort_by_key(preference);
    parsed
}

/// An error with everything that caused it; some say nothing themselves.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut words: Vec<String> = chain
        .map(ToString::to_string)
        .filter(|words| !words.is_empty())
        .collect();
    words.dedup();
    if words.is_empty() {
        return format!("{error:?}");
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_address_names_its_relay_and_no_other_does() {
        let [relay, target] =
            [1, 2].map(|seed| peer_id(dawn_identity::Keypair::from_seed([seed; 32]).node_id()).unwrap());
        let direct: Multiaddr = format!("/ip4/192.0.2.1/tcp/1/p2p/{target}").parse().unwrap();
        let circuit: Multiaddr = format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit/p2p/{target}")
            .parse()
            .unwrap();
        assert_eq!((relay_of(&direct), relay_of(&circuit)), (None, Some(relay)));
        assert!(is_circuit(&circuit) && !is_circuit(&direct));
        let listener = |local_addr: Multiaddr| ConnectedPoint::Listener {
            local_addr,
            send_back_addr: format!("/p2p/{target}").parse().unwrap(),
        };
        let sockets = Sockets::default();
        let circuit = listener(format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit").parse().unwrap());
        let (_, route) = way(&circuit, &sockets);
        assert_eq!(
            route,
            Route::Relayed {
                relay: node_id(relay).unwrap()
            }
        );
        assert_eq!(
            way(&listener("/ip4/192.0.2.2/tcp/1".parse().unwrap()), &sockets).1,
            Route::Direct
        );
        let dialled = ConnectedPoint::Dialer {
            address: "/ip4/192.0.2.2/udp/5/quic-v1".parse().unwrap(),
            role_override: libp2p::core::Endpoint::Dialer,
            port_use: libp2p::core::transport::PortUse::Reuse,
        };
        assert_eq!(way(&dialled, &sockets).1, Route::Direct);
        sockets.opened(Mapped::Udp, "192.0.2.2:5".parse().unwrap());
        assert_eq!(way(&dialled, &sockets).1, Route::Punched);
        let over_tcp = listener("/ip4/192.0.2.2/tcp/1".parse().unwrap());
        let from = |mut listener: ConnectedPoint| {
            if let ConnectedPoint::Listener { send_back_addr, .. } = &mut listener {
                *send_back_addr = "/ip4/192.0.2.2/tcp/5".parse().unwrap();
            }
            listener
        };
        let over_tcp = from(over_tcp);
        assert_eq!(way(&over_tcp, &sockets).1, Route::Direct);
        sockets.opened(Mapped::Tcp, "192.0.2.2:5".parse().unwrap());
        assert_eq!(way(&over_tcp, &sockets).1, Route::Punched);
    }

    #[test]
    fn a_mapped_address_is_the_own_one_at_another_place() {
        let own: Multiaddr = "/ip4/192.168.1.2/tcp/7/ws".parse().unwrap();
        assert_eq!(
            ip_and_port(&own),
            Some(("192.168.1.2".parse().unwrap(), 7, Mapped::Tcp))
        );
        let moved = moved(&own, "198.51.100.7:9".parse().unwrap());
        assert_eq!(moved.to_string(), "/ip4/198.51.100.7/tcp/9/ws");
    }
}
