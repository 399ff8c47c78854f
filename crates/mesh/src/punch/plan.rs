//! How a hole is punched between two nodes, decided alike at both ends; and to which addresses anything is sent.

use std::net::{IpAddr, SocketAddr};

use super::offer::Offer;
use crate::nat::{Ports, Scope, is_shared, scope};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Who asked for it.
    Initiator,
    /// Who was asked.
    Responder,
}

/// What both do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Who dials when a pair of addresses has been found.
    pub(super) dialler: Side,
    /// Who is behind a NAT whose next port is not known, if one is.
    pub(super) hard: Option<Side>,
}

/// Why a hole is not even tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Hopeless {
    /// Of two such NATs neither's next port is known.
    #[error("both are behind a symmetric NAT")]
    BothSymmetric,
    /// Nobody has told one of them where it is, and they share no network.
    #[error("neither an address that others see nor a common network is known")]
    NoAddress,
}

impl Plan {
    /// What two nodes with these offers do.
    pub(super) fn of(initiator: &Offer, responder: &Offer) -> Result<Self, Hopeless> {
        let easy = Self {
            dialler: Side::Initiator,
            hard: None,
        };
        let hard = |side| Self {
            dialler: side,
            hard: Some(side),
        };
        let is_near = may_be_near(initiator, responder);
        let plan = match (initiator.mapping.is_hard(), responder.mapping.is_hard()) {
            (true, true) if is_near => easy,
            (true, true) => return Err(Hopeless::BothSymmetric),
            (true, false) => hard(Side::Initiator),
            (false, true) => hard(Side::Responder),
            (false, false) => easy,
        };
        let lacks = |offer: &Offer| offer.mapped.is_empty();
        if !is_near && (lacks(initiator) || lacks(responder)) {
            return Err(Hopeless::NoAddress);
        }
        Ok(plan)
    }
}

/// Whether two nodes may be on one network: seen at the same address, or, where nobody far away sees one of them, with
/// addresses of the same private network. Half of all homes have the same one, so that alone says nothing.
fn may_be_near(one: &Offer, other: &Offer) -> bool {
    let ips = |of: &[SocketAddr]| -> Vec<IpAddr> { of.iter().map(SocketAddr::ip).collect() };
    let own = ips(&one.local);
    let is_beside = || other.local.iter().any(|local| is_beside(&own, local.ip()));
    match one.mapped.is_empty() || other.mapped.is_empty() {
        true => is_beside(),
        false => ips(&one.mapped).iter().any(|ip| ips(&other.mapped).contains(ip)),
    }
}

/// The private network of an address, as far as its first bits tell.
fn private_net(ip: IpAddr) -> Option<(u8, u32)> {
    match ip.to_canonical() {
        ip if is_shared(ip) => Some((1, 0)),
        IpAddr::V4(ip) if ip.is_link_local() => Some((2, 0)),
        // Home networks are small, others may be large.
        IpAddr::V4(ip) if ip.octets()[0] == 192 => Some((3, u32::from(ip) >> 8)),
        IpAddr::V4(ip) if ip.is_private() => Some((4, u32::from(ip) >> 16)),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some((5, 0)),
        IpAddr::V6(ip) if ip.is_unique_local() => {
            Some((6, u32::from(ip.segments()[0]) << 16 | u32::from(ip.segments()[1])))
        }
        _ => None,
    }
}

/// Whether one of these addresses is of the same private network.
fn is_beside(own: &[IpAddr], ip: IpAddr) -> bool {
    scope(ip) == Scope::Private && own.iter().any(|own| private_net(*own) == private_net(ip))
}

/// To which of a peer's addresses something is sent: public ones, and private ones of a network that this node is on or is
/// seen in. Never to a loopback address, unless this node has no other itself.
pub(super) fn targets(own: &[IpAddr], peer: &Offer) -> Vec<SocketAddr> {
    let only_here = !own.is_empty() && own.iter().all(|own| scope(*own) == Scope::Loopback);
    let mut targets: Vec<SocketAddr> = Vec::new();
    for target in peer.mapped.iter().chain(&peer.local) {
        let ip = target.ip();
        let is_fit = target.port() != 0
            && match scope(ip) {
                Scope::Public => !own.contains(&ip) || peer.mapped.contains(target),
                Scope::Private => is_beside(own, ip),
                Scope::Loopback => only_here,
                Scope::Nowhere => false,
            };
        if is_fit && !targets.contains(target) {
            targets.push(*target);
        }
    }
    targets
}

/// Ports that are tried ahead of the last one seen.
const AHEAD: i32 = 24;

/// Where a peer whose ports move by fixed steps may be seen next.
pub(super) fn predicted(peer: &Offer) -> Vec<SocketAddr> {
    let (Ports::Steps(step), Some(latest)) = (peer.ports, peer.latest) else {
        return Vec::new();
    };
    (1..=AHEAD)
        .filter_map(|ahead| i32::from(latest.port()).checked_add(step.checked_mul(ahead)?))
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .map(|port| SocketAddr::new(latest.ip(), port))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::nat::Mapping;

    fn offer(mapping: Mapping, mapped: &[&str], local: &[&str]) -> Offer {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Offer {
            nonce: [0; 16],
            mapping,
            ports: Ports::Unknown,
            mapped: parse(mapped),
            latest: None,
            local: parse(local),
        }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn two_symmetric_nats_are_not_tried_and_the_one_symmetric_side_dials() {
        use Mapping::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};
        let at = |mapping, ip: &str| offer(mapping, &[&format!("{ip}:1")], &["192.168.1.2:1"]);
        let (cone, symmetric) = (
            at(EndpointIndependent, "198.51.100.1"),
            at(AddressAndPortDependent, "203.0.113.1"),
        );
        // Both call their network the same, as many do.
        let other = at(AddressDependent, "9.9.9.9");
        assert_eq!(Plan::of(&symmetric, &other), Err(Hopeless::BothSymmetric));
        let plan = Plan::of(&cone, &symmetric).unwrap();
        assert_eq!((plan.dialler, plan.hard), (Side::Responder, Some(Side::Responder)));
        let plan = Plan::of(&symmetric, &cone).unwrap();
        assert_eq!((plan.dialler, plan.hard), (Side::Initiator, Some(Side::Initiator)));
        assert_eq!(Plan::of(&cone, &at(Unknown, "9.9.9.9")).unwrap().hard, None);
        // On one network even those reach each other.
        assert_eq!(Plan::of(&symmetric, &symmetric).unwrap().hard, None);
    }

    #[test]
    fn without_an_address_there_is_nothing_to_try() {
        let known = offer(Mapping::EndpointIndependent, &["9.9.9.9:1"], &["10.1.0.2:1"]);
        let nothing = offer(Mapping::Unknown, &[], &["192.168.1.2:1"]);
        assert_eq!(Plan::of(&known, &nothing), Err(Hopeless::NoAddress));
    }

    #[test]
    fn nothing_is_sent_to_a_peers_loopback_or_to_a_foreign_private_network() {
        let peer = offer(
            Mapping::EndpointIndependent,
            &["198.51.100.1:5", "10.0.0.3:5"],
            &[
                "127.0.0.1:5",
                "192.168.1.9:5",
                "192.168.2.9:5",
                "0.0.0.0:5",
                "224.0.0.1:5",
                "8.8.8.8:0",
            ],
        );
        let sent =
            |own: &[&str]| -> Vec<String> { targets(&ips(own), &peer).iter().map(ToString::to_string).collect() };
        assert_eq!(sent(&["192.168.1.2"]), ["198.51.100.1:5", "192.168.1.9:5"]);
        // This node is seen in the other network.
        assert_eq!(sent(&["192.168.3.2", "10.0.0.2"]), ["198.51.100.1:5", "10.0.0.3:5"]);
        assert_eq!(sent(&["127.0.0.1"]), ["198.51.100.1:5", "127.0.0.1:5"]);
    }

    #[test]
    fn ports_that_move_by_steps_are_foreseen() {
        let mut peer = offer(Mapping::AddressAndPortDependent, &[], &[]);
        assert!(predicted(&peer).is_empty());
        peer.ports = Ports::Steps(2);
        peer.latest = Some("9.9.9.9:65530".parse().unwrap());
        let ports: Vec<u16> = predicted(&peer).iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [65532, 65534]);
        peer.ports = Ports::Steps(i32::MAX);
        assert!(predicted(&peer).is_empty());
    }
}
