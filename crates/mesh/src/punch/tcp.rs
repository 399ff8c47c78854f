//! Where a node is reached over TCP, as far as it knows. Pure.
//!
//! A NAT may treat TCP otherwise than UDP. What those say counts whom this node has dialled over TCP, from the port that it
//! listens on. Where nobody was, it is taken that the NAT maps TCP as it maps UDP, and that it keeps the port, as most do:
//! a try costs little.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::offer::ADDRESSES;
use crate::nat::{Mapping, Nat};

/// What a node says of itself over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tcp {
    /// What the NAT does with addresses.
    pub(super) mapping: Mapping,
    /// Where others see the port that is listened on, or may see it.
    pub(super) mapped: Vec<SocketAddr>,
    /// Whether somebody has seen it there.
    pub(super) is_seen: bool,
    /// Its own addresses.
    pub(super) local: Vec<SocketAddr>,
}

impl Tcp {
    /// Of a node that listens on `local`, with what is known of TCP and of UDP; `None` where it does not listen over TCP:
    /// then there is no port to come from.
    pub(super) fn of(local: &[SocketAddr], over_tcp: &Nat, over_udp: &Nat) -> Option<Self> {
        let port = local.first()?.port();
        let first = |addresses: &[SocketAddr]| addresses.iter().copied().take(ADDRESSES).collect();
        let is_seen = !over_tcp.seen.is_empty();
        let (mapping, mapped) = if is_seen {
            (over_tcp.mapping, first(&over_tcp.seen))
        } else {
            let mut ips: BTreeSet<IpAddr> = BTreeSet::new();
            let fresh = over_udp.seen.iter().filter(|at| ips.insert(at.ip()));
            let kept: Vec<SocketAddr> = fresh.map(|at| SocketAddr::new(at.ip(), port)).collect();
            let mapping = match over_udp.mapping.is_hard() {
                true => over_udp.mapping,
                false => Mapping::Unknown,
            };
            (mapping, first(&kept))
        };
        Some(Self {
            mapping,
            mapped,
            is_seen,
            local: first(local),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parse(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn nat(mapping: Mapping, seen: &[&str]) -> Nat {
        Nat {
            mapping,
            seen: parse(seen),
            ..Nat::default()
        }
    }

    #[test]
    fn what_is_seen_over_tcp_counts_before_what_is_guessed_from_udp() {
        let local = parse(&["192.168.1.2:7401"]);
        let cone = nat(Mapping::EndpointIndependent, &["198.51.100.1:7", "198.51.100.1:8"]);
        let symmetric = nat(Mapping::AddressAndPortDependent, &["198.51.100.1:7", "198.51.100.1:8"]);
        let nothing = Nat::default();
        let of = |tcp: &Nat, udp: &Nat| Tcp::of(&local, tcp, udp).unwrap();
        let guessed = of(&nothing, &cone);
        assert_eq!((guessed.mapping, guessed.is_seen), (Mapping::Unknown, false));
        assert_eq!(guessed.mapped, parse(&["198.51.100.1:7401"]));
        assert!(of(&nothing, &symmetric).mapping.is_hard());
        let seen = of(&cone, &symmetric);
        assert_eq!((seen.mapping, seen.is_seen), (Mapping::EndpointIndependent, true));
        assert_eq!(seen.mapped, cone.seen);
        assert_eq!(of(&nothing, &nothing).mapped, []);
        assert_eq!(Tcp::of(&[], &cone, &cone), None);
    }
}
