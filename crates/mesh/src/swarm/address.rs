//! Addresses: what they say of the way to a peer, and in which order they are tried.

use dawn_identity::NodeId;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId};

use crate::peer::{Route, Transport};

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
pub(super) fn way(endpoint: &ConnectedPoint) -> (Multiaddr, Route) {
    let address = match endpoint {
        // The address of the peer itself says nothing then.
        ConnectedPoint::Listener { local_addr, .. } if is_circuit(local_addr) => local_addr,
        _ => endpoint.get_remote_address(),
    };
    let route = match relay_of(address).and_then(node_id) {
        Some(relay) => Route::Relayed { relay },
        None => Route::Direct,
    };
    (address.clone(), route)
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
        let (_, route) = way(&listener(
            format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit").parse().unwrap(),
        ));
        assert_eq!(
            route,
            Route::Relayed {
                relay: node_id(relay).unwrap()
            }
        );
        assert_eq!(way(&listener("/ip4/192.0.2.2/tcp/1".parse().unwrap())).1, Route::Direct);
    }
}
