//! Relays as the node sees them: which it uses, and where it may be one.

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
