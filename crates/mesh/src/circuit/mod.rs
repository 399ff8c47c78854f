//! Connections through relays, as a transport of the swarm.
//!
//! ```text
//!  dial(RELAY/p2p-circuit/p2p/TARGET) ──▶ connection to the relay ──▶ stream of hop, CONNECT ──┐
//!                                                                                              ├──▶ Noise, yamux
//!  stream of stop, CONNECT ──▶ a place at the relay's door ──▶ listener of that relay ─────────┘
//! ```
//!
//! Reserving is not done here (`swarm::reservations`): who listens on RELAY/p2p-circuit has reserved, and from then on
//! circuits are taken from this relay, until the listener is removed. Ours, because libp2p's client waits as long as a
//! relay likes, can be made to panic by one, and listens on whatever addresses it names.

mod door;
mod transport;
mod upgrade;
mod used;

use std::pin::Pin;
use std::task::{Context, Poll};

use dawn_relay::client::Failure;
use futures::{AsyncRead, AsyncWrite};
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::Stream;
use libp2p::{Multiaddr, PeerId};

pub(crate) use door::doors;
pub(crate) use transport::{Dialler, Transport};
pub(crate) use upgrade::Upgrade;
pub(crate) use used::{Relays, Used};

/// Why a circuit did not become a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Relays are used for too many circuits at once.
    #[error("too many relays are in use")]
    TooManyRelays,
    /// There is no connection with the relay.
    #[error("no connection with the relay: {0}")]
    NotConnected(String),
    /// The relay serves no circuits, or the stream broke.
    #[error(transparent)]
    Open(#[from] crate::outbound::OpenFailure),
    /// The relay has refused, or said what makes no sense.
    #[error(transparent)]
    Relay(#[from] Failure),
    /// It took too long.
    #[error("no answer in time")]
    Late,
    /// Both have no protocol in common.
    #[error(transparent)]
    Negotiation(#[from] libp2p::core::upgrade::NegotiationError),
    /// The handshake failed.
    #[error(transparent)]
    Noise(#[from] libp2p::noise::Error),
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The relay has named another peer than the one that came.
    #[error("who came is not who the relay has named")]
    NotTheSource,
}

/// A stream that a relay carries to another peer; while there is one, the relay is in use.
pub(crate) struct Circuit {
    stream: Stream,
    _relay: Used,
}

impl Circuit {
    pub(crate) fn new(stream: Stream, relay: Used) -> Self {
        Self { stream, _relay: relay }
    }
}

impl AsyncRead for Circuit {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Circuit {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// An address that leads through a relay.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// Where the relay is, without its id.
    at: Multiaddr,
    relay: PeerId,
    /// Who is at the other end; nobody where it is listened.
    target: Option<PeerId>,
}

impl Way {
    /// Reads `AT/p2p/RELAY/p2p-circuit[/p2p/TARGET]`, and nothing else.
    fn of(address: &Multiaddr) -> Option<Self> {
        let mut address = address.clone();
        let target = match address.pop()? {
            Part::P2pCircuit => None,
            Part::P2p(target) if address.pop()? == Part::P2pCircuit => Some(target),
            _ => return None,
        };
        let Part::P2p(relay) = address.pop()? else { return None };
        let is_direct = |part: Part<'_>| !matches!(part, Part::P2p(_) | Part::P2pCircuit);
        let is_way = !address.is_empty() && address.iter().all(is_direct);
        is_way.then_some(Self {
            at: address,
            relay,
            target,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_leads_through_one_relay_whose_place_is_known() {
        let [relay, target] = [PeerId::random(), PeerId::random()];
        let way = |address: String| Way::of(&address.parse().unwrap());
        let at: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let through = format!("{at}/p2p/{relay}/p2p-circuit");
        let expected = |target| {
            Some(Way {
                at: at.clone(),
                relay,
                target,
            })
        };
        assert_eq!(way(through.clone()), expected(None));
        assert_eq!(way(format!("{through}/p2p/{target}")), expected(Some(target)));
        for other in [
            format!("{at}/p2p/{relay}"),
            format!("{at}/p2p-circuit/p2p/{target}"),
            format!("/p2p/{relay}/p2p-circuit/p2p/{target}"),
            format!("{through}/p2p/{target}/p2p-circuit/p2p/{target}"),
            format!("{through}/p2p/{target}/tcp/1"),
            format!("/p2p/{relay}{through}"),
        ] {
            assert_eq!(way(other.clone()), None, "{other}");
        }
    }
}
