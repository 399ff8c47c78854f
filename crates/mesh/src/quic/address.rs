//! Multiaddresses of QUIC and the socket addresses behind them.

use std::net::SocketAddr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Where a multiaddress such as `/ip4/192.0.2.1/udp/7401/quic-v1/p2p/…` leads, and to whom where it says so; `None` for
/// one that is not of QUIC version 1 over an IP address.
pub(super) fn parse(address: &Multiaddr) -> Option<(SocketAddr, Option<PeerId>)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else {
        return None;
    };
    let Protocol::QuicV1 = parts.next()? else {
        return None;
    };
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) => return None,
    };
    parts.next().is_none().then_some((SocketAddr::new(ip, port), peer))
}

/// The multiaddress of a socket address.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(address.ip().into())
        .with(Protocol::Udp(address.port()))
        .with(Protocol::QuicV1)
}

/// Whether one reaches the other with the same kind of socket.
pub(super) fn is_same_family(one: SocketAddr, other: SocketAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const PEER: &str = "12D3KooW9xk7Zp1gejwfwNpfm6L9zH5NL4Bx5rm94LRYJJHJuARZ";

    fn parsed(text: &str) -> Option<(SocketAddr, Option<PeerId>)> {
        parse(&text.parse().unwrap())
    }

    #[test]
    fn an_address_leads_to_a_socket_and_to_the_peer_that_it_names() {
        let socket = "192.0.2.1:7401".parse().unwrap();
        assert_eq!(parsed("/ip4/192.0.2.1/udp/7401/quic-v1"), Some((socket, None)));
        assert_eq!(
            parsed(&format!("/ip4/192.0.2.1/udp/7401/quic-v1/p2p/{PEER}")),
            Some((socket, Some(PEER.parse().unwrap())))
        );
        let six = "[2001:db8::1]:9".parse().unwrap();
        assert_eq!(parsed("/ip6/2001:db8::1/udp/9/quic-v1"), Some((six, None)));
        for socket in [socket, six] {
            assert_eq!(parse(&multiaddr(socket)), Some((socket, None)));
        }
    }

    #[test]
    fn what_is_not_quic_version_1_over_ip_is_no_address_of_it() {
        for other in [
            "/ip4/192.0.2.1/udp/7401",
            "/ip4/192.0.2.1/tcp/7401",
            "/ip4/192.0.2.1/udp/7401/quic",
            "/ip4/192.0.2.1/udp/7401/quic-v1/webtransport",
            "/dns4/example.org/udp/7401/quic-v1",
            "/ip4/192.0.2.1",
        ] {
            assert_eq!(parsed(other), None, "{other}");
        }
        let twice = format!("/ip4/192.0.2.1/udp/7401/quic-v1/p2p/{PEER}/p2p/{PEER}");
        assert_eq!(parsed(&twice), None);
    }
}
