//! What can go wrong with QUIC.

use std::io;
use std::net::SocketAddr;

use libp2p::PeerId;
use libp2p::core::transport::TransportError;

/// Why the transport cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The node's key makes no certificate.
    #[error("no certificate can be made of the node's key")]
    Certificate(#[from] libp2p_tls::certificate::GenError),
    /// TLS does not take the certificate, or the versions and ciphers wanted.
    #[error("TLS cannot be set up")]
    Tls(#[from] quinn::rustls::Error),
    /// There is no cipher for the first packets of a connection.
    #[error("no cipher for the first packets")]
    Initial(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A setting that QUIC does not allow.
    #[error("QUIC does not allow a setting")]
    Setting(#[from] quinn::ConfigError),
}

/// Why an address cannot be listened on, a peer not be reached, or a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The transport cannot be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The socket.
    #[error("the UDP socket: {0}")]
    Socket(#[from] io::Error),
    /// A dial that does not even begin.
    #[error(transparent)]
    Dial(#[from] quinn::ConnectError),
    /// The handshake failed, or the connection ended.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The handshake was not done in time.
    #[error("the handshake took too long")]
    TimedOut,
    /// Another peer than the one that was asked for.
    #[error("{found} answers where {expected} was sought")]
    WrongPeer {
        /// Who was asked for.
        expected: PeerId,
        /// Who is there.
        found: PeerId,
    },
    /// The peer showed no certificate that names it.
    #[error("the peer does not show who it is")]
    NoIdentity,
    /// A hole can only be punched from an address that is listened on.
    #[error("a hole can only be punched from a listening socket, and there is none of this kind")]
    NoListener,
    /// One is being punched to the same address.
    #[error("a hole is being punched to {0} already")]
    PunchUnderWay(SocketAddr),
}

impl From<Error> for TransportError<Error> {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}
