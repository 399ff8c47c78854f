//! The transports of a node, and of a relay's process, which only listens.

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::{PeerId, Transport as _, dns, noise, tcp, websocket, yamux};
use zeroize::Zeroizing;

use crate::circuit;
use crate::error::StartError;
use crate::nat::sockets::Sockets;
use crate::quic;

/// Streams that one peer may have open at a relay.
const STREAMS: u32 = 4096;
/// How long a handshake over TCP or WebSocket may take; QUIC has a limit of its own.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes of one stream, and of all streams of a connection, that a relay holds until they are read: it has thousands of
/// connections, and most of them of peers that it does not know.
const WINDOWS: [u32; 2] = [1 << 20, 2 << 20];

/// QUIC, TCP and WebSocket for the key of a seed.
///
/// # Errors
/// The key makes no transport.
pub fn relay_transport(seed: &[u8; 32]) -> Result<dawn_relay::daemon::Transport, StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Transport(error.to_string());
    let mut seed = Zeroizing::new(*seed);
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes(&mut *seed)
        .map_err(|error| StartError::Key(error.to_string()))?;
    let noise = noise::Config::new(&keypair).map_err(|error| failed(&error))?;
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let plain = tcp()
        .upgrade(Version::V1Lazy)
        .authenticate(noise.clone())
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE);
    let web = websocket::Config::new(tcp())
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE);
    let [stream_window, window] = WINDOWS;
    let settings = quic::Settings {
        stream_window,
        window,
        ..quic::Settings::new(STREAMS)
    };
    let quic = quic::Transport::new(&keypair, settings, Sockets::default()).map_err(|error| failed(&error))?;
    let quic = quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let streams = web.or_transport(plain).map(|either, _| match either {
        futures::future::Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        futures::future::Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
    });
    Ok(quic.or_transport(streams).map(|either, _| either.into_inner()).boxed())
}

/// How long it may take until a connection of a node is ready, of whichever transport.
const PATIENCE: Duration = Duration::from_secs(10);

/// Circuits, QUIC, TCP and WebSocket for a node; names are looked up for all but circuits, whose relay's name is looked up
/// when that is dialled.
pub(crate) fn node_transport(
    keypair: &libp2p::identity::Keypair,
    settings: quic::Settings,
    sockets: Sockets,
    circuits: circuit::Transport,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Transport(error.to_string());
    let noise = noise::Config::new(keypair).map_err(|error| failed(&error))?;
    let quic = quic::Transport::new(keypair, settings, sockets).map_err(|error| failed(&error))?;
    let quic = quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let plain = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise.clone())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let named = dns::tokio::Transport::system(plain.or_transport(quic).map(|either, _| either.into_inner()));
    let web = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let web = dns::tokio::Transport::system(web).map_err(|error| failed(&error))?;
    let web = websocket::Config::new(web)
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let direct = web.or_transport(named.map_err(|error| failed(&error))?);
    let all = circuits.or_transport(direct.map(|either, _| either.into_inner()));
    let all = all.map(|either, _| either.into_inner());
    Ok(TransportTimeout::new(all, PATIENCE).boxed())
}
