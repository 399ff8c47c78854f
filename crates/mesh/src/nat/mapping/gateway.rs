//! Where the gateway of this network is.

use std::net::Ipv4Addr;

/// The gateways that packets to far away go through, as the system's table says (Linux); else the first address of the
/// network that this machine is on, which it is nearly everywhere.
pub(super) fn gateways(local: Ipv4Addr) -> Option<Ipv4Addr> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    default_of(&table).or_else(|| first_of(local))
}

/// The gateway of the route to everywhere with the smallest metric.
fn default_of(table: &str) -> Option<Ipv4Addr> {
    const GATEWAY: u32 = 2;
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let hex = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
            let is_default = hex(1)? == 0 && hex(7)? == 0 && hex(3)? & GATEWAY != 0;
            let metric: u32 = fields.get(6)?.parse().ok()?;
            // The table has the bytes as they lie in memory.
            is_default.then_some((metric, Ipv4Addr::from(hex(2)?.to_ne_bytes())))
        })
        .min()
        .map(|(_, gateway)| gateway)
}

fn first_of(local: Ipv4Addr) -> Option<Ipv4Addr> {
    let [a, b, c, _] = local.octets();
    let first = Ipv4Addr::new(a, b, c, 1);
    (local.is_private() && first != local).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_route_to_everywhere_with_the_smallest_metric_counts() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t1\t00FFFFFF\t0\t0\t0\n\
            broken\n";
        assert_eq!(default_of(table), Some(Ipv4Addr::new(192, 168, 1, 254)));
        assert_eq!(default_of(""), None);
    }

    #[test]
    fn without_a_table_it_is_the_first_address_of_a_private_network() {
        assert_eq!(first_of(Ipv4Addr::new(10, 1, 2, 3)), Some(Ipv4Addr::new(10, 1, 2, 1)));
        assert_eq!(first_of(Ipv4Addr::new(10, 1, 2, 1)), None);
        assert_eq!(first_of(Ipv4Addr::new(9, 9, 9, 9)), None);
    }
}
