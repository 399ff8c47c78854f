//! The transport alone, over loopback: with itself and with libp2p's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod dialling;
mod identity;
mod interoperability;
mod listening;
mod paths;
mod streams;
mod stun;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::Endpoint as Role;
use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};

use super::{Settings, Transport};
use crate::nat::sockets::Sockets;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Streams that a peer may have open.
const STREAMS: u32 = 256;
const DIAL: DialOpts = DialOpts {
    role: Role::Dialer,
    port_use: PortUse::Reuse,
};

type Muxed = Boxed<(PeerId, StreamMuxerBox)>;

/// A transport of either kind, and whose it is.
struct End {
    peer: PeerId,
    transport: Muxed,
}

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn boxed<T, M>(transport: T, keypair: &Keypair) -> End
where
    T: libp2p::core::Transport<Output = (PeerId, M)> + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    T::Error: Send + Sync,
    M: StreamMuxer + Send + 'static,
    M::Substream: Send + 'static,
    M::Error: Send + Sync + 'static,
{
    End {
        peer: keypair.public().to_peer_id(),
        transport: transport
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    }
}

fn with(seed: u8, settings: Settings) -> End {
    with_sockets(seed, settings, Sockets::default())
}

fn with_sockets(seed: u8, settings: Settings, sockets: Sockets) -> End {
    boxed(Transport::new(&key(seed), settings, sockets).unwrap(), &key(seed))
}

fn ours(seed: u8) -> End {
    with(seed, Settings::new(STREAMS))
}

fn theirs(seed: u8) -> End {
    let config = libp2p_quic::Config::new(&key(seed));
    boxed(libp2p_quic::tokio::Transport::new(config), &key(seed))
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

impl End {
    async fn event(&mut self) -> TransportEvent<<Muxed as libp2p::core::Transport>::ListenerUpgrade, std::io::Error> {
        in_time(poll_fn(|context| Pin::new(&mut self.transport).poll(context))).await
    }

    /// Listens, and waits for the first address.
    async fn listen(&mut self, address: &str) -> Multiaddr {
        self.transport
            .listen_on(ListenerId::next(), address.parse().unwrap())
            .unwrap();
        match self.event().await {
            TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
            event => panic!("{event:?}"),
        }
    }

    /// The next connection of a peer: from where, and what its handshake gave.
    async fn accept(&mut self) -> (Multiaddr, std::io::Result<(PeerId, StreamMuxerBox)>) {
        loop {
            if let TransportEvent::Incoming {
                upgrade,
                send_back_addr,
                ..
            } = self.event().await
            {
                return (send_back_addr, in_time(upgrade).await);
            }
        }
    }

    /// Begins to dial.
    fn begin(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> std::io::Result<<Muxed as libp2p::core::Transport>::Dial> {
        self.transport.dial(address, options).map_err(|error| match error {
            TransportError::Other(error) => error,
            error @ TransportError::MultiaddrNotSupported(_) => std::io::Error::other(error.to_string()),
        })
    }

    async fn dial(&mut self, address: Multiaddr, options: DialOpts) -> std::io::Result<(PeerId, StreamMuxerBox)> {
        in_time(self.begin(address, options)?).await
    }
}

/// Both ends of a connection, the dialler's first, each with who it is to.
async fn connected(dialler: &mut End, listener: &mut End) -> (StreamMuxerBox, StreamMuxerBox) {
    let address = listener.listen(LOOPBACK).await;
    connected_at(dialler, listener, address).await
}

async fn connected_at(dialler: &mut End, listener: &mut End, address: Multiaddr) -> (StreamMuxerBox, StreamMuxerBox) {
    let expected = listener.peer;
    let address = address.with_p2p(expected).unwrap();
    let ((_, accepted), dialled) = futures::join!(listener.accept(), dialler.dial(address, DIAL));
    let ((from, accepted), (to, dialled)) = (accepted.unwrap(), dialled.unwrap());
    assert_eq!((from, to), (dialler.peer, expected));
    (dialled, accepted)
}

async fn open(muxer: &mut StreamMuxerBox) -> SubstreamBox {
    in_time(poll_fn(|context| muxer.poll_outbound_unpin(context)))
        .await
        .unwrap()
}

async fn opened(muxer: &mut StreamMuxerBox) -> SubstreamBox {
    in_time(poll_fn(|context| muxer.poll_inbound_unpin(context)))
        .await
        .unwrap()
}

/// A stream of which both ends are known, since something was said on it.
async fn stream(from: &mut StreamMuxerBox, to: &mut StreamMuxerBox) -> (SubstreamBox, SubstreamBox) {
    let mut one = open(from).await;
    one.write_all(b"!").await.unwrap();
    one.flush().await.unwrap();
    let mut other = opened(to).await;
    other.read_exact(&mut [0]).await.unwrap();
    (one, other)
}

/// Sends so much from one end and has it come back after the end was said.
async fn echoes(from: &mut StreamMuxerBox, to: &mut StreamMuxerBox, length: usize) {
    let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let (mut asking, mut answering) = stream(from, to).await;
    let ask = async {
        let (mut reader, mut writer) = (&mut asking).split();
        let send = async {
            writer.write_all(&bytes).await.unwrap();
            writer.close().await.unwrap();
        };
        let mut came = Vec::new();
        let receive = reader.read_to_end(&mut came);
        let ((), read) = futures::join!(send, receive);
        read.unwrap();
        came
    };
    let answer = async {
        let mut came = Vec::new();
        answering.read_to_end(&mut came).await.unwrap();
        answering.write_all(&came).await.unwrap();
        answering.close().await.unwrap();
    };
    let (came, ()) = in_time(async { futures::join!(ask, answer) }).await;
    assert!(came == bytes, "{} bytes came of {length}", came.len());
}
