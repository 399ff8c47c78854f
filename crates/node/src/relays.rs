//! Relays as the node sees them: which it uses, and where it may be one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dawn_mesh::Relaying;

use crate::config::MeshSection;
use crate::members::Members;

/// How the mesh uses relays.
pub(crate) fn relaying(config: &MeshSection, members: &Members) -> Relaying {
    let members = members.clone();
    Relaying {
        relays: config.relays.clone(),
        token: config.relay_token.clone(),
        revocations: std::sync::Arc::new(move || members.revocations_encoded()),
        ..Relaying::default()
    }
}

/// Whether a multiaddress leads through a relay.
pub(crate) fn is_circuit(address: &str) -> bool {
    address.contains("/p2p-circuit")
}

/// The addresses through relays that are told, of all that there are: of each relay one over UDP and one over TCP before a
/// second one of either, so that whichever relay is left is found by whoever can dial it.
pub(crate) fn told(circuits: Vec<String>, most: usize) -> Vec<String> {
    let mut times: HashMap<(String, u8), usize> = HashMap::new();
    let mut ranked: Vec<(usize, u8, String)> = circuits
        .into_iter()
        .map(|address| {
            let relay = address.split("/p2p-circuit").next().unwrap_or_default();
            let transport = match relay {
                relay if relay.contains("/udp/") => 0,
                relay if relay.contains("/ws") => 2,
                _ => 1,
            };
            let peer = relay.rsplit('/').next().unwrap_or_default().to_owned();
            let time = times.entry((peer, transport)).or_default();
            *time += 1;
            (*time, transport, address)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().map(|(.., address)| address).take(most).collect()
}

/// Whether a multiaddress is one that the whole Internet can dial: a name, or a global address.
pub(crate) fn is_public(address: &str) -> bool {
    let mut parts = address.split('/').skip(1);
    let (Some(kind), Some(host)) = (parts.next(), parts.next()) else {
        return false;
    };
    match (kind, host.parse()) {
        ("ip4", Ok(IpAddr::V4(host))) => is_global_v4(host),
        ("ip6", Ok(IpAddr::V6(host))) => is_global_v6(host),
        ("dns" | "dns4" | "dns6" | "dnsaddr", _) => !host.ends_with(".local") && host.contains('.'),
        _ => false,
    }
}

fn is_global_v4(host: Ipv4Addr) -> bool {
    let [a, b, c, _] = host.octets();
    // RFC 6890: this network, carrier-grade NAT, protocols, documentation, benchmarks, reserved.
    let is_special = a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240;
    !(is_special
        || host.is_private()
        || host.is_loopback()
        || host.is_link_local()
        || host.is_documentation()
        || host.is_multicast())
}

fn is_global_v6(host: Ipv6Addr) -> bool {
    // Global unicast, RFC 4291, without documentation.
    let [first, second, ..] = host.segments();
    first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0xdb8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_every_relay_something_is_told() {
        let at = |relay: &str| {
            let hosts = ["/ip4/8.8.8.8", "/ip6/2606:4700::1"];
            let ports = ["udp/1/quic-v1", "tcp/1", "tcp/1/ws"];
            let all = hosts.iter().flat_map(|host| ports.map(|port| format!("{host}/{port}")));
            all.map(|address| format!("{address}/p2p/{relay}/p2p-circuit/p2p/ME"))
                .collect::<Vec<_>>()
        };
        let told = told([at("A"), at("B")].concat(), 4);
        for (relay, port) in [("A", "/udp/"), ("B", "/udp/"), ("A", "/tcp/1/p2p"), ("B", "/tcp/1/p2p")] {
            let is_it = |address: &&String| address.contains(port) && address.contains(&format!("/p2p/{relay}/"));
            assert_eq!(told.iter().filter(is_it).count(), 1, "{told:?}");
        }
    }

    #[test]
    fn only_what_the_whole_internet_can_dial_is_public() {
        for public in [
            "/ip4/8.8.8.8/tcp/1",
            "/ip6/2606:4700::1/udp/1/quic-v1",
            "/dns4/home.example.org/tcp/1",
        ] {
            assert!(is_public(public), "{public}");
        }
        for private in [
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip4/203.0.113.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/::1/tcp/1",
            "/dns4/home.local/tcp/1",
            "/memory/1",
            "",
        ] {
            assert!(!is_public(private), "{private}");
        }
    }
}
