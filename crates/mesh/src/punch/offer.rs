//! What two nodes tell each other before they punch a hole: where each is seen, and what it is behind.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::tcp::Tcp;
use crate::nat::{Mapping, Nat, Ports};

/// Longest offer on the wire, bytes.
pub(super) const LONGEST: usize = 2 << 10;
/// Addresses of a kind that an offer has.
pub(super) const ADDRESSES: usize = 8;

/// What a node says of itself; each says something fresh for each try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// Half of what the keys of the probes are made of.
    pub(super) nonce: [u8; 16],
    /// What the NAT does with addresses.
    pub(super) mapping: Mapping,
    /// What it does with ports.
    pub(super) ports: Ports,
    /// Where others see the QUIC socket, the most frequent first.
    pub(super) mapped: Vec<SocketAddr>,
    /// Where it was seen with the greatest port: what moves by steps goes on from there.
    pub(super) latest: Option<SocketAddr>,
    /// Its own addresses, for who is on the same network.
    pub(super) local: Vec<SocketAddr>,
    /// Whether datagrams come through, as far as it is known.
    #[serde(default)]
    pub(super) udp: Option<bool>,
    /// The same over TCP, where it listens for that.
    #[serde(default)]
    pub(super) tcp: Option<Tcp>,
    /// Said by who begins: some tries have failed, and where there are two means it is the turn of the other.
    #[serde(default)]
    pub(super) is_other: bool,
}

/// Why an offer is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum OfferError {
    /// It is no CBOR of this form.
    #[error("it is no offer")]
    Malformed,
    /// More addresses than are looked at.
    #[error("it names more than {ADDRESSES} addresses of a kind")]
    TooMany,
}

impl Offer {
    pub(super) fn new(nonce: [u8; 16], nat: &Nat, latest: Option<SocketAddr>, local: &[SocketAddr]) -> Self {
        let first = |addresses: &[SocketAddr]| addresses.iter().copied().take(ADDRESSES).collect();
        Self {
            nonce,
            mapping: nat.mapping,
            ports: nat.ports,
            mapped: first(&nat.seen),
            latest,
            local: first(local),
            udp: nat.udp,
            tcp: None,
            is_other: false,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to memory does not fail.
        let _ = ciborium::into_writer(self, &mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, OfferError> {
        let offer: Self = ciborium::from_reader(bytes).map_err(|_| OfferError::Malformed)?;
        let tcp = offer.tcp.iter().flat_map(|tcp| [&tcp.mapped, &tcp.local]);
        if [&offer.mapped, &offer.local]
            .into_iter()
            .chain(tcp)
            .any(|addresses| addresses.len() > ADDRESSES)
        {
            return Err(OfferError::TooMany);
        }
        Ok(offer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn offer(addresses: usize) -> Offer {
        let address = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap();
        Offer {
            nonce: [255; 16],
            mapping: Mapping::AddressAndPortDependent,
            ports: Ports::Steps(-5),
            mapped: vec![address; addresses],
            latest: Some(address),
            local: vec![address; addresses],
            udp: Some(false),
            tcp: Some(Tcp {
                mapping: Mapping::AddressAndPortDependent,
                mapped: vec![address; addresses],
                is_seen: true,
                local: vec![address; addresses],
            }),
            is_other: true,
        }
    }

    #[test]
    fn an_offer_comes_back_as_it_was_and_the_longest_fits() {
        let longest = offer(ADDRESSES);
        let bytes = longest.encode();
        assert!(bytes.len() <= LONGEST, "{}", bytes.len());
        assert_eq!(Offer::decode(&bytes).unwrap(), longest);
    }

    #[test]
    fn an_offer_of_an_older_node_says_nothing_of_tcp() {
        #[derive(Serialize)]
        struct Older {
            nonce: [u8; 16],
            mapping: Mapping,
            ports: Ports,
            mapped: Vec<SocketAddr>,
            latest: Option<SocketAddr>,
            local: Vec<SocketAddr>,
        }
        let older = Older {
            nonce: [1; 16],
            mapping: Mapping::Unknown,
            ports: Ports::Unknown,
            mapped: Vec::new(),
            latest: None,
            local: Vec::new(),
        };
        let mut bytes = Vec::new();
        ciborium::into_writer(&older, &mut bytes).unwrap();
        let offer = Offer::decode(&bytes).unwrap();
        assert_eq!((offer.udp, offer.tcp, offer.is_other), (None, None, false));
    }

    #[test]
    fn an_offer_with_too_much_or_of_another_form_is_refused() {
        assert!(matches!(
            Offer::decode(&offer(ADDRESSES + 1).encode()),
            Err(OfferError::TooMany)
        ));
        let mut offer = offer(ADDRESSES);
        offer.tcp.as_mut().unwrap().local.push("192.0.2.1:1".parse().unwrap());
        assert!(matches!(Offer::decode(&offer.encode()), Err(OfferError::TooMany)));
        assert!(matches!(Offer::decode(b"\xff"), Err(OfferError::Malformed)));
        assert!(matches!(Offer::decode(b""), Err(OfferError::Malformed)));
    }
}
