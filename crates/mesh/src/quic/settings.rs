//! Limits and times, and what `quinn` is told of them.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use libp2p::identity::Keypair;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};

use super::error::SetupError;
use super::route;
use super::tls::{Identity, Tls};

/// How the transport is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// A connection on which nothing comes for this long is dead.
    pub(crate) idle: Duration,
    /// How long nothing is said before something is, so that a quiet connection lives.
    pub(crate) keep_alive: Duration,
    /// How long a handshake may take.
    pub(crate) handshake: Duration,
    /// Streams that a peer may have open on a connection: each session and each request is one, and what a peer may have is
    /// decided where they are delivered.
    pub(crate) streams: u32,
    /// Bytes that a peer may send on one stream before they are read: what 320 Mbit/s take for 50 ms.
    pub(crate) stream_window: u32,
    /// Bytes that a peer may send on all streams of a connection before they are read.
    pub(crate) window: u32,
}

impl Settings {
    /// As nodes have it, with so many streams for a peer.
    pub(crate) fn new(streams: u32) -> Self {
        Self {
            idle: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            streams,
            stream_window: 2 << 20,
            window: 4 << 20,
        }
    }
}

/// What endpoints and connections of this node are made with.
pub(super) struct Configs {
    settings: Settings,
    tls: Tls,
    server: ServerConfig,
    endpoint: EndpointConfig,
}

impl Configs {
    pub(super) fn new(keypair: &Keypair, tls: Tls, settings: Settings) -> Result<Self, SetupError> {
        let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls.server()?)?));
        // The swarm takes the address of a connection for settled.
        server.migration(false);
        let mut endpoint = match keypair.derive_secret(b"dawn quic stateless reset") {
            // A node that was started anew can tell its peers so: the key is the same.
            Some(secret) => EndpointConfig::new(Arc::new(ResetKey(hmac::Key::new(hmac::HMAC_SHA256, &secret)))),
            None => EndpointConfig::default(),
        };
        endpoint.supported_versions(vec![1]);
        endpoint.max_udp_payload_size(route::LARGEST)?;
        Ok(Self {
            settings,
            tls,
            server,
            endpoint,
        })
    }

    pub(super) fn handshake(&self) -> Duration {
        self.settings.handshake
    }

    pub(super) fn endpoint(&self) -> EndpointConfig {
        self.endpoint.clone()
    }

    /// For an endpoint that is dialled; each connection has its own from [`Configs::accepted`].
    pub(super) fn server(&self) -> ServerConfig {
        self.server.clone()
    }

    /// For a connection that a peer makes.
    pub(super) fn accepted(&self, from: std::net::SocketAddr) -> Arc<ServerConfig> {
        let mut config = self.server.clone();
        config.transport_config(Arc::new(self.transport(route::largest_datagram(from))));
        Arc::new(config)
    }

    /// For a connection to a peer.
    pub(super) fn dialled(&self, to: std::net::SocketAddr, peer: Arc<Identity>) -> Result<ClientConfig, SetupError> {
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(self.tls.client(peer)?)?));
        config.transport_config(Arc::new(self.transport(route::largest_datagram(to))));
        Ok(config)
    }

    fn transport(&self, largest_datagram: u16) -> TransportConfig {
        let settings = &self.settings;
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(largest_datagram);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_concurrent_bidi_streams(VarInt::from_u32(settings.streams))
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(settings.keep_alive))
            .max_idle_timeout(Some(idle_timeout(settings.idle)))
            .allow_spin(false)
            .stream_receive_window(VarInt::from_u32(settings.stream_window))
            .receive_window(VarInt::from_u32(settings.window))
            .mtu_discovery_config(Some(discovery));
        transport
    }
}

fn idle_timeout(idle: Duration) -> IdleTimeout {
    VarInt::from_u32(u32::try_from(idle.as_millis()).unwrap_or(u32::MAX)).into()
}

/// What stateless resets are made with (RFC 9000, section 10.3).
struct ResetKey(hmac::Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}
