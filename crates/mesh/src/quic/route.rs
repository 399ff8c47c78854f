//! How large a datagram may be on the way to a peer.
//!
//! Most ways take 1,500 B with headers; loopback takes 64 KiB and a network with jumbo frames 9,000 B, and the fewer
//! datagrams the less work. The system knows what the first link takes; whether the rest of the way does, is found by
//! probes (RFC 8899), which begin at 1,200 B and go no further than that.

use std::net::SocketAddr;

/// Largest payload of a datagram that is received, and that is sent where the way takes it, bytes.
pub(super) const LARGEST: u16 = 16_336;
/// Smallest that QUIC may count on, bytes (RFC 9000, section 14).
const SMALLEST: u16 = 1200;
/// What a link takes where the system does not say, bytes with headers: Ethernet.
const USUAL: usize = 1500;
/// Headers of IP and UDP, bytes.
const HEADERS_4: usize = 20 + 8;
const HEADERS_6: usize = 40 + 8;

/// The largest payload of a datagram to try on the way to a peer, bytes.
pub(super) fn largest_datagram(to: SocketAddr) -> u16 {
    payload(first_link(to).unwrap_or(USUAL), to)
}

/// What of a link's size is left for the payload, within what QUIC needs and what is received.
fn payload(link: usize, to: SocketAddr) -> u16 {
    let headers = if to.is_ipv4() { HEADERS_4 } else { HEADERS_6 };
    let room = link.saturating_sub(headers);
    u16::try_from(room).unwrap_or(u16::MAX).clamp(SMALLEST, LARGEST)
}

/// What the first link on the way takes, bytes with headers. Nothing is sent for it.
#[cfg(target_os = "linux")]
fn first_link(to: SocketAddr) -> Option<usize> {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let size = match to {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket),
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket),
    };
    usize::try_from(size.ok()?).ok()
}

#[cfg(not(target_os = "linux"))]
fn first_link(_to: SocketAddr) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn loopback_takes_the_largest_datagrams() {
        assert_eq!(largest_datagram("127.0.0.1:7401".parse().unwrap()), LARGEST);
        assert_eq!(largest_datagram("[::1]:7401".parse().unwrap()), LARGEST);
    }

    #[test]
    fn headers_are_taken_off_and_no_link_is_too_small_or_too_large() {
        let (four, six) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        assert_eq!((payload(1500, four), payload(1500, six)), (1472, 1452));
        assert_eq!(payload(9000, four), 8972);
        assert_eq!(payload(500, four), SMALLEST);
        assert_eq!(payload(65_536, six), LARGEST);
    }
}
