//! QUIC as a transport of the swarm, over `quinn`.
//!
//! On the wire it is what every libp2p peer speaks: QUIC version 1 (RFC 9000) with TLS 1.3, ALPN `libp2p`, and the
//! certificates of the libp2p TLS handshake (<https://github.com/libp2p/specs/blob/master/tls/tls.md>), under addresses
//! like `/ip4/192.0.2.1/udp/7401/quic-v1`. What it does besides what libp2p's own transport does: it chooses the cipher
//! by what the processor is fast with ([`tls`]), sends datagrams as large as the way takes ([`route`]), keeps its buffers
//! small ([`socket`]), and refuses a peer with another identity than the one asked for before it shows its own.
//!
//! - [`settings`]: limits and times, and what `quinn` is told.
//! - [`tls`]: identities and ciphers.
//! - [`address`]: multiaddresses and socket addresses.
//! - [`route`]: how large a datagram may be on the way to a peer.
//! - [`socket`]: the UDP socket under an endpoint.
//! - [`listener`]: one address that is listened on.
//! - [`dial`]: handshakes, and the holes that are punched for them.
//! - [`transport`]: all of these as [`libp2p::core::Transport`].
//! - [`connection`], [`stream`]: what comes of it.

mod address;
mod connection;
mod dial;
mod error;
mod listener;
mod route;
mod settings;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub(crate) use settings::Settings;
pub(crate) use socket::Socket;
pub(crate) use transport::Transport;

/// The socket address of a multiaddress of QUIC.
pub(crate) fn socket_address(address: &libp2p::Multiaddr) -> Option<std::net::SocketAddr> {
    address::parse(address).map(|(socket, _)| socket)
}

/// The multiaddress of QUIC at a socket address.
pub(crate) fn multiaddr(socket: std::net::SocketAddr) -> libp2p::Multiaddr {
    address::multiaddr(socket)
}
