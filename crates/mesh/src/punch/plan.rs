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

/// Over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Datagrams, and QUIC over the pair of addresses that works.
    Quic,
    /// Both dial at the same moment from the ports that they listen on (simultaneous open, RFC 9293 section 3.5).
    Tcp,
}

/// What both do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Over what.
    pub(super) means: Means,
    /// Who dials when a pair of addresses has been found; over TCP, who has the part of the dialler.
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
    /// At one end datagrams do not come through, or nobody has seen it, and over TCP one is behind such a NAT.
    #[error("UDP does not come through, and over TCP one is behind a symmetric NAT")]
    TcpSymmetric,
    /// Nobody has told one of them where it is, and they share no network.
    #[error("neither an address that others see nor a common network is known")]
    NoAddress,
}

impl Plan {
    /// What two nodes with these offers do: QUIC, unless it is hopeless, or there is a better reason for TCP.
    pub(super) fn of(initiator: &Offer, responder: &Offer) -> Result<Self, Hopeless> {
        // Who is seen over TCP and by nobody over UDP has tried that, too.
        let lacks_udp = |of: &Offer| {
            of.mapped.is_empty() && of.tcp.as_ref().is_some_and(|tcp| tcp.is_seen && !tcp.mapped.is_empty())
        };
        let prefers_tcp = lacks_udp(initiator) || lacks_udp(responder);
        let quic = Self::over_quic(initiator, responder);
        let tcp = Self::over_tcp(initiator, responder);
        match (quic, tcp) {
            (Ok(_), Ok(tcp)) if prefers_tcp != initiator.is_other => Ok(tcp),
            (Ok(quic), _) => Ok(quic),
            (Err(_), Ok(tcp)) => Ok(tcp),
            (Err(Hopeless::BothSymmetric), Err(_)) => Err(Hopeless::BothSymmetric),
            (Err(_), Err(Hopeless::TcpSymmetric)) => Err(Hopeless::TcpSymmetric),
            (Err(why), Err(_)) => Err(why),
        }
    }

    fn over_tcp(initiator: &Offer, responder: &Offer) -> Result<Self, Hopeless> {
        let (Some(one), Some(other)) = (&initiator.tcp, &responder.tcp) else {
            return Err(Hopeless::NoAddress);
        };
        let is_near = near((&one.local, &one.mapped), (&other.local, &other.mapped));
        let is_hard = one.mapping.is_hard() || other.mapping.is_hard();
        match () {
            () if is_near && !one.local.is_empty() && !other.local.is_empty() => {}
            () if is_hard => return Err(Hopeless::TcpSymmetric),
            () if one.mapped.is_empty() || other.mapped.is_empty() => return Err(Hopeless::NoAddress),
            () => {}
        }
        Ok(Self {
            means: Means::Tcp,
            dialler: Side::Initiator,
            hard: None,
        })
    }

    fn over_quic(initiator: &Offer, responder: &Offer) -> Result<Self, Hopeless> {
        if initiator.udp == Some(false) || responder.udp == Some(false) {
            return Err(Hopeless::NoAddress);
        }
        let easy = Self {
            means: Means::Quic,
            dialler: Side::Initiator,
            hard: None,
        };
        let hard = |side| Self {
            means: Means::Quic,
            dialler: side,
            hard: Some(side),
        };
        let is_near = near(
            (&initiator.local, &initiator.mapped),
            (&responder.local, &responder.mapped),
        );
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
/// Of each its own addresses come first, then those at which it is seen.
fn near(one: (&[SocketAddr], &[SocketAddr]), other: (&[SocketAddr], &[SocketAddr])) -> bool {
    let ips = |of: &[SocketAddr]| -> Vec<IpAddr> { of.iter().map(SocketAddr::ip).collect() };
    let own = ips(one.0);
    let is_beside = || other.0.iter().any(|local| is_beside(&own, local.ip()));
    match one.1.is_empty() || other.1.is_empty() {
        true => is_beside(),
        false => ips(one.1).iter().any(|ip| ips(other.1).contains(ip)),
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
    fitting(own, &peer.mapped, &peer.local)
}

/// Addresses of TCP that are dialled at once.
const DIALLED: usize = 4;

/// The same over TCP, for which a few have to do.
pub(super) fn tcp_targets(own: &Offer, peer: &Offer) -> Vec<SocketAddr> {
    let (Some(own), Some(peer)) = (&own.tcp, &peer.tcp) else {
        return Vec::new();
    };
    let ips: Vec<IpAddr> = own.local.iter().chain(&own.mapped).map(SocketAddr::ip).collect();
    let mut targets = fitting(&ips, &peer.mapped, &peer.local);
    targets.truncate(DIALLED);
    targets
}

fn fitting(own: &[IpAddr], mapped: &[SocketAddr], local: &[SocketAddr]) -> Vec<SocketAddr> {
    let only_here = !own.is_empty() && own.iter().all(|own| scope(*own) == Scope::Loopback);
    let mut targets: Vec<SocketAddr> = Vec::new();
    for target in mapped.iter().chain(local) {
        let ip = target.ip();
        let is_fit = target.port() != 0
            && match scope(ip) {
                Scope::Public => !own.contains(&ip) || mapped.contains(target),
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

    use proptest::prelude::*;

    use super::super::tcp::Tcp;
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
            udp: None,
            tcp: None,
            is_other: false,
        }
    }

    /// The same with TCP, seen by somebody or not.
    fn with_tcp(mut offer: Offer, mapping: Mapping, mapped: &[&str], is_seen: bool) -> Offer {
        offer.tcp = Some(Tcp {
            mapping,
            mapped: mapped.iter().map(|text| text.parse().unwrap()).collect(),
            is_seen,
            local: offer.local.clone(),
        });
        offer
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
    fn without_udp_both_dial_over_tcp_unless_one_is_behind_a_symmetric_nat_there() {
        use Mapping::{AddressAndPortDependent, EndpointIndependent, Unknown};
        let home = &["192.168.1.2:1"];
        let blocked = |mapping, seen| with_tcp(offer(Unknown, &[], home), mapping, seen, true);
        let one = blocked(EndpointIndependent, &["198.51.100.1:7"]);
        let other = with_tcp(
            offer(EndpointIndependent, &["9.9.9.9:2"], home),
            Unknown,
            &["9.9.9.9:7401"],
            false,
        );
        for (initiator, responder) in [(&one, &other), (&other, &one), (&one, &one)] {
            let plan = Plan::of(initiator, responder).unwrap();
            assert_eq!((plan.means, plan.dialler), (Means::Tcp, Side::Initiator));
        }
        let symmetric = blocked(AddressAndPortDependent, &["203.0.113.1:7", "203.0.113.1:8"]);
        // Their networks have the same name: over UDP that much is tried.
        assert_eq!(Plan::of(&one, &symmetric).unwrap().means, Means::Quic);
        let elsewhere = with_tcp(
            offer(Unknown, &[], &["10.7.0.2:1"]),
            AddressAndPortDependent,
            &["203.0.113.1:7"],
            true,
        );
        assert_eq!(Plan::of(&one, &elsewhere), Err(Hopeless::TcpSymmetric));
        let mut blocked = symmetric;
        blocked.udp = Some(false);
        assert_eq!(Plan::of(&blocked, &other), Err(Hopeless::TcpSymmetric));
        // An older node, or one that does not listen over TCP.
        let mut without = other;
        without.tcp = None;
        assert_eq!(Plan::of(&without, &elsewhere), Err(Hopeless::NoAddress));
    }

    #[test]
    fn where_both_means_may_do_they_take_turns_after_a_failure_and_quic_is_the_first() {
        let at = |ip: &str| {
            let udp = offer(Mapping::EndpointIndependent, &[&format!("{ip}:1")], &["192.168.1.2:1"]);
            with_tcp(udp, Mapping::Unknown, &[&format!("{ip}:7401")], false)
        };
        let (mut one, other) = (at("198.51.100.1"), at("203.0.113.1"));
        assert_eq!(Plan::of(&one, &other).unwrap().means, Means::Quic);
        one.is_other = true;
        assert_eq!(Plan::of(&one, &other).unwrap().means, Means::Tcp);
        // What the other says of it is nothing: who begins decides.
        assert_eq!(Plan::of(&other, &one).unwrap().means, Means::Quic);
        // Where it is seen first, and in a network that has the name of this one.
        let targets: Vec<String> = tcp_targets(&one, &other).iter().map(ToString::to_string).collect();
        assert_eq!(targets, ["203.0.113.1:7401", "192.168.1.2:1"]);
    }

    proptest! {
        #[test]
        fn of_any_two_offers_a_plan_is_made_or_refused_and_tcp_goes_to_a_few_fit_addresses_only(
            kinds in proptest::array::uniform4(0..5_usize),
            seen in proptest::array::uniform4(proptest::collection::vec((0..6_usize, 0..3_u16), 0..9)),
            flags in proptest::array::uniform4(any::<bool>()),
        ) {
            const IPS: [[u8; 4]; 6] = [[127, 0, 0, 1], [192, 168, 1, 2], [10, 0, 0, 1], [198, 51, 100, 1], [9, 9, 9, 9], [224, 0, 0, 1]];
            const KINDS: [Mapping; 5] = [
                Mapping::Unknown, Mapping::None, Mapping::EndpointIndependent, Mapping::AddressDependent,
                Mapping::AddressAndPortDependent,
            ];
            let addresses = |seen: &[(usize, u16)]| -> Vec<SocketAddr> {
                seen.iter().map(|(ip, port)| SocketAddr::new(IPS[*ip].into(), *port)).collect()
            };
            let make = |at: usize| {
                let mut made = offer(KINDS[kinds[at]], &[], &[]);
                made.mapped = addresses(&seen[at]);
                made.local = addresses(&seen[at + 1]);
                made.udp = flags[at].then_some(false);
                made.is_other = flags[at + 1];
                with_tcp(made, KINDS[kinds[at + 1]], &[], flags[at])
            };
            let (mut one, mut other) = (make(0), make(2));
            one.tcp.as_mut().unwrap().mapped = addresses(&seen[2]);
            other.tcp.as_mut().unwrap().mapped = addresses(&seen[1]);
            if let Ok(plan) = Plan::of(&one, &other) && plan.means == Means::Tcp {
                prop_assert!(plan.hard.is_none());
            }
            let targets = tcp_targets(&one, &other);
            prop_assert!(targets.len() <= DIALLED);
            for target in targets {
                prop_assert!(target.port() != 0 && scope(target.ip()) != Scope::Nowhere);
            }
        }
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
