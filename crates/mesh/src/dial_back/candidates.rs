//! Which addresses may lead to this node from far away: its own public ones, those that its gateway maps, and those at which
//! others see it, where somebody may have forwarded a port. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;

use super::record::{AddressSource, Candidate};
use crate::nat::mapping::Protocol;
use crate::nat::{Scope, scope};
use crate::swarm::{ip_and_port, moved};

/// Addresses that are asked about.
const MOST: usize = 8;
/// Addresses of a kind at which others see this node that are looked at.
const SEEN: usize = 2;

/// Where others see this node's ports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Its QUIC socket, the most frequent first.
    pub(crate) udp: Vec<SocketAddr>,
    /// Its TCP port.
    pub(crate) tcp: Vec<SocketAddr>,
}

/// The addresses to ask about, the likeliest first, of those that this machine listens on, and of those that its gateway
/// maps.
pub(crate) fn candidates(own: &[Multiaddr], mapped: &[Multiaddr], seen: &Seen) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |address: Multiaddr, source| {
        if found.len() < MOST && found.iter().all(|known: &Candidate| known.address != address) {
            found.push(Candidate { address, source });
        }
    };
    let is_public = |address: &&Multiaddr| ip_and_port(address).is_some_and(|(ip, ..)| scope(ip) == Scope::Public);
    for address in own.iter().filter(is_public) {
        add(address.clone(), AddressSource::Own);
    }
    for address in mapped.iter().filter(is_public) {
        add(address.clone(), AddressSource::Mapped);
    }
    let own_ips: BTreeSet<IpAddr> = own.iter().filter_map(ip_and_port).map(|(ip, ..)| ip).collect();
    let far = |seen: &[SocketAddr]| -> Vec<SocketAddr> {
        let far = seen.iter().copied();
        far.filter(|at| scope(at.ip()) == Scope::Public && !own_ips.contains(&at.ip()))
            .take(SEEN)
            .collect()
    };
    let (udp, tcp) = (far(&seen.udp), far(&seen.tcp));
    for address in own {
        let Some((ip, port, protocol)) = ip_and_port(address) else {
            continue;
        };
        if scope(ip) != Scope::Private {
            continue;
        }
        // Others see the port of plain TCP, which is dialled from.
        let ports: &[SocketAddr] = match (protocol, address.iter().count()) {
            (Protocol::Udp, _) => &udp,
            (Protocol::Tcp, 2) => &tcp,
            _ => &[],
        };
        // A port that was forwarded by hand mostly has the same number outside.
        let same = udp.iter().chain(&tcp).map(|at| SocketAddr::new(at.ip(), port));
        for at in ports
            .iter()
            .copied()
            .chain(same)
            .filter(|at| at.is_ipv4() == ip.is_ipv4())
        {
            add(moved(address, at), AddressSource::Observed);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn found(own: &[&str], mapped: &[&str], udp: &[&str]) -> Vec<(AddressSource, String)> {
        let parse = |texts: &[&str]| -> Vec<Multiaddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let seen = Seen {
            udp: udp.iter().map(|text| text.parse().unwrap()).collect(),
            tcp: Vec::new(),
        };
        let found = candidates(&parse(own), &parse(mapped), &seen).into_iter();
        found
            .map(|candidate| (candidate.source, candidate.address.to_string()))
            .collect()
    }

    #[test]
    fn who_has_a_public_address_asks_about_that_and_no_other() {
        let own = [
            "/ip4/127.0.0.1/udp/7401/quic-v1",
            "/ip4/9.9.9.9/udp/7401/quic-v1",
            "/ip4/9.9.9.9/tcp/7401",
        ];
        let expected = own[1..].iter().map(|own| (AddressSource::Own, (*own).to_owned()));
        assert_eq!(found(&own, &[], &["9.9.9.9:7401"]), expected.collect::<Vec<_>>());
    }

    #[test]
    fn behind_a_nat_it_is_asked_about_what_is_mapped_and_where_others_see_the_ports() {
        use AddressSource::{Mapped, Observed};
        let own = [
            "/ip4/127.0.0.1/udp/7401/quic-v1",
            "/ip4/192.168.1.2/udp/7401/quic-v1",
            "/ip4/192.168.1.2/tcp/7402/ws",
        ];
        let mapped = ["/ip4/9.9.9.9/udp/7401/quic-v1", "/ip4/10.0.0.7/udp/7401/quic-v1"];
        let found = found(&own, &mapped, &["9.9.9.9:50000", "10.0.0.7:1"]);
        let found: Vec<(AddressSource, &str)> = found.iter().map(|(source, at)| (*source, at.as_str())).collect();
        let expected = [
            (Mapped, "/ip4/9.9.9.9/udp/7401/quic-v1"),
            (Observed, "/ip4/9.9.9.9/udp/50000/quic-v1"),
            (Observed, "/ip4/9.9.9.9/tcp/7402/ws"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn there_are_only_so_many() {
        let own: Vec<String> = (1..50).map(|port| format!("/ip4/9.9.9.9/tcp/{port}")).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        assert_eq!(found(&own, &[], &[]).len(), MOST);
    }
}
