//! What is between this node and the others, from where they see its QUIC socket (RFC 4787, RFC 5780).
//!
//! Pure: observations come in, a kind comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where a server, or a member that acts as one, sees a socket of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observation {
    /// Who sees it.
    pub by: SocketAddr,
    /// At which address and port.
    pub seen: SocketAddr,
}

/// Which address and port the NAT gives to one socket of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// Not known: nobody far away has told, or one only.
    Unknown,
    /// No NAT: the socket's own.
    None,
    /// The same towards everybody: a cone.
    EndpointIndependent,
    /// Another towards each address.
    AddressDependent,
    /// Another towards each address and port: symmetric.
    AddressAndPortDependent,
}

impl Mapping {
    /// Whether what others see says nothing of where one more peer would see this node.
    #[must_use]
    pub fn is_hard(self) -> bool {
        matches!(self, Self::AddressDependent | Self::AddressAndPortDependent)
    }

    /// A stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::EndpointIndependent => "endpoint_independent",
            Self::AddressDependent => "address_dependent",
            Self::AddressAndPortDependent => "symmetric",
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which ports a NAT gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ports {
    /// Not known.
    Unknown,
    /// Those of the socket itself, where they are free.
    Preserved,
    /// Each so much greater than the one before.
    Steps(i32),
    /// No rule is seen.
    Random,
}

/// What is known of the way from this node to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// Which address and port it gives.
    pub mapping: Mapping,
    /// Which ports.
    pub ports: Ports,
    /// Where others see this node's sockets, the most frequent first.
    pub seen: Vec<SocketAddr>,
    /// Whether there is more than one NAT in a row, as far as addresses tell: this node is seen at an address that is
    /// private itself, or its gateway has one.
    pub is_double: bool,
    /// Whether the provider shares an address among its customers (RFC 6598).
    pub is_shared: bool,
    /// Whether datagrams come back at all: `Some(false)` where several were asked and none answered.
    pub udp: Option<bool>,
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            mapping: Mapping::Unknown,
            ports: Ports::Unknown,
            seen: Vec::new(),
            is_double: false,
            is_shared: false,
            udp: None,
        }
    }
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// A private network, or one between a provider and its customers.
    Private,
    /// Everywhere.
    Public,
    /// No host: unspecified, multicast, broadcast.
    Nowhere,
}

/// How far an address reaches.
#[must_use]
pub fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        ip if ip.is_loopback() => Scope::Loopback,
        ip if ip.is_unspecified() || ip.is_multicast() => Scope::Nowhere,
        IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0 => Scope::Nowhere,
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => Scope::Private,
        ip if is_shared(ip) => Scope::Private,
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Scope::Private,
        _ => Scope::Public,
    }
}

/// Whether an address is of those between a provider's NAT and its customers (RFC 6598).
#[must_use]
pub fn is_shared(ip: IpAddr) -> bool {
    matches!(ip.to_canonical(), IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
}

/// What is told apart: the addresses of this machine, its socket's port, and what was observed of that socket.
///
/// Only who sees it from beyond its own network says something: whoever is on the same network as this node sees it at an
/// address of its own.
#[must_use]
pub fn classify(own: &BTreeSet<IpAddr>, port: u16, observations: &[Observation]) -> Nat {
    let far: BTreeSet<Observation> = observations
        .iter()
        .copied()
        .filter(|observed| !matches!(scope(observed.seen.ip()), Scope::Loopback | Scope::Nowhere))
        .collect();
    let beyond: Vec<&Observation> = far
        .iter()
        .filter(|observed| !own.contains(&observed.seen.ip()))
        .collect();
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for observed in &far {
        *counts.entry(observed.seen).or_default() += 1;
    }
    let mut seen: Vec<SocketAddr> = counts.keys().copied().collect();
    let is_beyond = |seen: &SocketAddr| !own.contains(&seen.ip());
    seen.sort_by_key(|seen| (!is_beyond(seen), std::cmp::Reverse(counts.get(seen).copied())));
    let has_answers = !far.is_empty();
    let (mapping, ports) = if beyond.is_empty() {
        let has_public = far.iter().any(|observed| scope(observed.by.ip()) == Scope::Public);
        let mapping = if has_public { Mapping::None } else { Mapping::Unknown };
        (mapping, Ports::Unknown)
    } else {
        (mapping(&beyond), ports(port, &beyond))
    };
    let behind = |test: fn(IpAddr) -> bool| beyond.iter().any(|observed| test(observed.seen.ip()));
    Nat {
        mapping,
        ports,
        seen,
        is_double: behind(|ip| scope(ip) == Scope::Private),
        is_shared: behind(is_shared) || (has_answers && own.iter().copied().any(is_shared)),
        udp: has_answers.then_some(true),
    }
}

fn mapping(beyond: &[&Observation]) -> Mapping {
    let seen: BTreeSet<SocketAddr> = beyond.iter().map(|observed| observed.seen).collect();
    let asked: BTreeSet<SocketAddr> = beyond.iter().map(|observed| observed.by).collect();
    if asked.len() < 2 {
        return Mapping::Unknown;
    }
    if seen.len() == 1 {
        return Mapping::EndpointIndependent;
    }
    let mut by_host: BTreeMap<IpAddr, BTreeSet<SocketAddr>> = BTreeMap::new();
    let mut asked_of_host: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for observed in beyond {
        by_host.entry(observed.by.ip()).or_default().insert(observed.seen);
        *asked_of_host.entry(observed.by.ip()).or_default() += 1;
    }
    let several = asked_of_host.iter().filter(|(_, asked)| **asked > 1);
    let hosts: Vec<&BTreeSet<SocketAddr>> = several.filter_map(|(host, _)| by_host.get(host)).collect();
    if !hosts.is_empty() && hosts.iter().all(|seen| seen.len() == 1) {
        Mapping::AddressDependent
    } else {
        Mapping::AddressAndPortDependent
    }
}

/// Steps greater than this are taken for chance.
const STEP: i32 = 16;

fn ports(own: u16, beyond: &[&Observation]) -> Ports {
    let mut ports: Vec<u16> = beyond.iter().map(|observed| observed.seen.port()).collect();
    if ports.iter().all(|port| *port == own) {
        return Ports::Preserved;
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.len() < 2 {
        return Ports::Unknown;
    }
    let steps: Vec<i32> = ports
        .windows(2)
        .map(|pair| i32::from(pair[1]) - i32::from(pair[0]))
        .collect();
    match steps.iter().min() {
        // Others behind the same NAT take some in between: every gap is a few of the smallest.
        Some(step) if *step <= STEP && steps.iter().all(|gap| gap % step == 0 && *gap <= STEP * step) => {
            Ports::Steps(*step)
        }
        _ => Ports::Random,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn observed(pairs: &[(&str, &str)]) -> Vec<Observation> {
        let parse = |(by, seen): &(&str, &str)| Observation {
            by: by.parse().unwrap(),
            seen: seen.parse().unwrap(),
        };
        pairs.iter().map(parse).collect()
    }

    fn kind(pairs: &[(&str, &str)]) -> Nat {
        let own = BTreeSet::from(["192.168.1.2".parse().unwrap(), "203.0.113.77".parse().unwrap()]);
        classify(&own, 7401, &observed(pairs))
    }

    #[test]
    fn kinds_are_told_apart_by_what_several_see() {
        use Mapping::*;
        type Case = (&'static [(&'static str, &'static str)], Mapping, Ports);
        let cases: [Case; 9] = [
            (&[], Unknown, Ports::Unknown),
            (&[("192.168.1.3:1", "192.168.1.2:7401")], Unknown, Ports::Unknown),
            (&[("9.9.9.9:1", "203.0.113.77:7401")], None, Ports::Unknown),
            (&[("9.9.9.9:1", "198.51.100.1:7401")], Unknown, Ports::Preserved),
            (
                &[("9.9.9.9:1", "198.51.100.1:7401"), ("8.8.8.8:1", "198.51.100.1:7401")],
                EndpointIndependent,
                Ports::Preserved,
            ),
            (
                &[("9.9.9.9:1", "198.51.100.1:50000"), ("8.8.8.8:1", "198.51.100.1:50000")],
                EndpointIndependent,
                Ports::Unknown,
            ),
            (
                &[
                    ("9.9.9.9:1", "198.51.100.1:5000"),
                    ("9.9.9.9:2", "198.51.100.1:5000"),
                    ("8.8.8.8:1", "198.51.100.1:5002"),
                ],
                AddressDependent,
                Ports::Steps(2),
            ),
            (
                &[
                    ("9.9.9.9:1", "198.51.100.1:5000"),
                    ("9.9.9.9:2", "198.51.100.1:5001"),
                    ("8.8.8.8:1", "198.51.100.1:5004"),
                ],
                AddressAndPortDependent,
                Ports::Steps(1),
            ),
            (
                &[("9.9.9.9:1", "198.51.100.1:5000"), ("8.8.8.8:1", "198.51.100.1:41234")],
                AddressAndPortDependent,
                Ports::Random,
            ),
        ];
        for (pairs, mapping, ports) in cases {
            let nat = kind(pairs);
            assert_eq!((nat.mapping, nat.ports), (mapping, ports), "{pairs:?}");
        }
    }

    #[test]
    fn several_nats_in_a_row_and_a_providers_show() {
        let two = [("10.0.0.1:1", "10.0.0.7:7401"), ("9.9.9.9:1", "198.51.100.1:7401")];
        assert!(kind(&two).is_double && !kind(&two).is_shared);
        let provider = [("100.64.0.1:1", "100.64.3.3:7401"), ("9.9.9.9:1", "198.51.100.1:7401")];
        assert!(kind(&provider).is_double && kind(&provider).is_shared);
        assert!(!kind(&two[1..]).is_double);
    }

    #[test]
    fn what_most_see_comes_first_and_own_addresses_last() {
        let nat = kind(&[
            ("192.168.1.3:1", "192.168.1.2:7401"),
            ("192.168.1.4:1", "192.168.1.2:7401"),
            ("192.168.1.5:1", "192.168.1.2:7401"),
            ("9.9.9.9:1", "198.51.100.1:5"),
            ("9.9.9.8:1", "198.51.100.1:6"),
            ("9.9.9.7:1", "198.51.100.1:6"),
        ]);
        let seen: Vec<String> = nat.seen.iter().map(ToString::to_string).collect();
        assert_eq!(seen, ["198.51.100.1:6", "198.51.100.1:5", "192.168.1.2:7401"]);
    }

    proptest! {
        #[test]
        fn the_order_of_what_is_seen_does_not_matter(
            mut seen in proptest::collection::vec((0..4_u8, 1..3_u16, 0..3_u8, 5000..5010_u16), 0..12)
        ) {
            let read = |seen: &[(u8, u16, u8, u16)]| {
                let observations: Vec<Observation> = seen
                    .iter()
                    .map(|(by, by_port, at, port)| Observation {
                        by: SocketAddr::new([9, 9, 9, *by].into(), *by_port),
                        seen: SocketAddr::new([198, 51, 100, *at].into(), *port),
                    })
                    .collect();
                classify(&BTreeSet::new(), 5000, &observations)
            };
            let before = read(&seen);
            seen.reverse();
            prop_assert_eq!(&before, &read(&seen));
            let places: BTreeSet<_> = seen.iter().map(|(.., at, port)| (at, port)).collect();
            let askers: BTreeSet<_> = seen.iter().map(|(by, by_port, ..)| (by, by_port)).collect();
            if places.len() > 1 && askers.len() > 1 {
                prop_assert!(before.mapping.is_hard());
            }
        }
    }
}
