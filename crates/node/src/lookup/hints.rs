//! Where a member says that others are: hints, which may lead to anybody.

use std::net::{IpAddr, Ipv4Addr};

/// The IP address in a multiaddress that begins with one.
fn ip(address: &str) -> Option<IpAddr> {
    let mut parts = address.split('/').skip(1);
    let (kind, ip) = (parts.next()?, parts.next()?);
    let ip: IpAddr = matches!(kind, "ip4" | "ip6").then(|| ip.parse().ok())??;
    Some(ip.to_canonical())
}

/// Whether a connection to this address stays on this machine.
pub(super) fn is_here(address: &str) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

/// Whether a node may be dialled where a member says that it is: at one host, and not on this machine, unless that member
/// is on it, too.
pub(crate) fn may_be_dialled(address: &str, is_teller_here: bool) -> bool {
    if let Some(ip) = ip(address) {
        let is_one_host = !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST;
        return is_one_host && (is_teller_here || !ip.is_loopback());
    }
    let mut parts = address.split('/').skip(1);
    let (Some("dns" | "dns4" | "dns6"), Some(name)) = (parts.next(), parts.next()) else {
        return false;
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    is_teller_here || (name != "localhost" && !name.ends_with(".localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_elsewhere_leads_nobody_to_this_machine_and_none_to_more_than_one_host() {
        for address in [
            "/ip4/192.0.2.1/udp/7401/quic-v1",
            "/ip6/2001:db8::1/tcp/7401",
            "/dns4/home.example.org/tcp/443/ws",
        ] {
            assert!(may_be_dialled(address, false) && !is_here(address), "{address}");
        }
        for address in [
            "/ip4/127.0.0.1/tcp/22",
            "/ip4/127.9.9.9/udp/7401/quic-v1",
            "/ip6/::1/tcp/22",
            "/ip6/::ffff:127.0.0.1/tcp/22",
            "/dns4/localhost/tcp/22",
            "/dns/a.LOCALHOST./tcp/22",
        ] {
            assert!(
                !may_be_dialled(address, false) && may_be_dialled(address, true),
                "{address}"
            );
        }
        for address in [
            "/ip4/0.0.0.0/tcp/22",
            "/ip6/::/tcp/22",
            "/ip4/224.0.0.1/udp/7401/quic-v1",
            "/ip4/255.255.255.255/udp/7401/quic-v1",
            "/ip6/ff02::1/udp/7401/quic-v1",
            "/ip4/nonsense/tcp/22",
            "/dnsaddr/example.org",
            "/unix/run/socket",
            "",
        ] {
            assert!(!may_be_dialled(address, true), "{address}");
        }
        assert!(is_here("/ip4/127.0.0.1/tcp/7401") && is_here("/ip6/::1/tcp/7401"));
    }
}
