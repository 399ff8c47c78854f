//! Where requests come from: an address, also behind a proxy that is trusted, and to whose share it counts.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An address.
    Address(IpAddr),
    /// The socket of the operator.
    Socket,
}

/// Addresses that count as one: an IPv4 address, or the /64 that a host with IPv6 has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Share(IpAddr);

impl From<IpAddr> for Share {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl Share {
    /// Whether it is this machine's.
    #[must_use]
    pub fn is_here(&self) -> bool {
        // `::1` within its /64.
        self.0.is_loopback() || self.0 == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    }
}

/// One end of a connection, and whether somebody showed on it that they are known.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where the connection comes from.
    pub origin: Origin,
    known: Arc<AtomicBool>,
}

impl Peer {
    /// Nobody has shown anything yet.
    #[must_use]
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            known: Arc::default(),
        }
    }

    /// Somebody who is known asked something on this connection.
    pub fn recognise(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Whether somebody did.
    #[must_use]
    pub fn was_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }
}

/// A text that is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address, or a range such as 192.0.2.0/24")]
pub struct ParseRangeError;

/// A range of addresses: `192.0.2.0/24`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Range {
    first: IpAddr,
    bits: u32,
}

/// An address as a number, and how many bits it has.
fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl Range {
    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((first, width), (address, its_width)) = (number(self.first), number(address.to_canonical()));
        // All bits of a range of no bits are free.
        let differs = (first ^ address).checked_shr(width.saturating_sub(self.bits));
        width == its_width && differs.unwrap_or_default() == 0
    }
}

impl FromStr for Range {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        let (first, bits) = match text.split_once('/') {
            Some((first, bits)) => (first, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = first.parse().map_err(|_| ParseRangeError)?;
        let first = first.to_canonical();
        let (_, width) = number(first);
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| ParseRangeError)?,
            None => width,
        };
        if bits > width {
            return Err(ParseRangeError);
        }
        Ok(Self { first, bits })
    }
}

impl TryFrom<String> for Range {
    type Error = ParseRangeError;

    fn try_from(text: String) -> Result<Self, ParseRangeError> {
        text.parse()
    }
}

/// Whether an address is that of a proxy that is trusted.
#[must_use]
pub fn is_trusted(proxies: &[Range], address: IpAddr) -> bool {
    proxies.iter().any(|range| range.contains(address))
}

/// Who asks where `peer` connected: itself, or, where it is a trusted proxy, the last address in `X-Forwarded-For` that is
/// none. What stands before that is the word of strangers. `forwarded` are the values of that header, in their order.
#[must_use]
pub fn client<'a>(proxies: &[Range], peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
    let mut client = peer;
    let mut hops = forwarded.rev().flat_map(|value| value.rsplit(','));
    while is_trusted(proxies, client) {
        match hops.next().and_then(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An address in `X-Forwarded-For`; some proxies add the port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: Option<IpAddr> = bare.unwrap_or(text).parse().ok();
    let with_port = || text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip());
    address.or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn asks(proxies: &[&str], peer: &str, forwarded: &[&str]) -> IpAddr {
        let proxies: Vec<Range> = proxies.iter().map(|range| range.parse().unwrap()).collect();
        client(&proxies, ip(peer), forwarded.iter().copied())
    }

    #[test]
    fn a_host_with_ipv6_has_one_share_however_many_addresses_it_has() {
        assert_eq!(Share::from(ip("2001:db8::1")), Share::from(ip("2001:db8::ffff:1:2")));
        assert_ne!(Share::from(ip("2001:db8::1")), Share::from(ip("2001:db8:0:1::1")));
        assert_ne!(Share::from(ip("192.0.2.1")), Share::from(ip("192.0.2.2")));
        assert_eq!(Share::from(ip("::ffff:192.0.2.1")), Share::from(ip("192.0.2.1")));
        assert!(Share::from(ip("::1")).is_here() && Share::from(ip("127.0.0.2")).is_here());
        assert!(!Share::from(ip("2001:db8::1")).is_here());
    }

    #[test]
    fn a_range_is_its_first_bits() {
        let range = |text: &str| text.parse::<Range>().unwrap();
        assert!(range("192.0.2.0/24").contains(ip("192.0.2.255")));
        assert!(range("192.0.2.0/24").contains(ip("::ffff:192.0.2.1")));
        assert!(!range("192.0.2.0/24").contains(ip("192.0.3.0")));
        assert!(range("::1").contains(ip("::1")) && !range("::1").contains(ip("::2")));
        assert!(range("0.0.0.0/0").contains(ip("203.0.113.1")));
        assert!(!range("0.0.0.0/0").contains(ip("2001:db8::1")) && range("::/0").contains(ip("2001:db8::1")));
        for wrong in ["", "192.0.2.0/33", "192.0.2/24", "x", "::/129", "1.2.3.4/-1"] {
            assert_eq!(wrong.parse::<Range>(), Err(ParseRangeError), "{wrong}");
        }
    }

    #[test]
    fn a_proxy_is_believed_only_where_it_is_trusted_and_only_what_it_saw_itself() {
        // Whoever is no proxy speaks for itself.
        assert_eq!(asks(&[], "192.0.2.9", &["203.0.113.1"]), ip("192.0.2.9"));
        assert_eq!(asks(&["127.0.0.1"], "192.0.2.9", &["203.0.113.1"]), ip("192.0.2.9"));
        // The proxy adds at the end; what stands before is what its client said.
        assert_eq!(
            asks(&["127.0.0.1"], "127.0.0.1", &["198.51.100.7, 203.0.113.1"]),
            ip("203.0.113.1")
        );
        assert_eq!(
            asks(&["127.0.0.1"], "127.0.0.1", &["198.51.100.7", "203.0.113.1"]),
            ip("203.0.113.1")
        );
        // Two proxies, one behind the other.
        assert_eq!(
            asks(
                &["127.0.0.1", "10.0.0.0/8"],
                "127.0.0.1",
                &["198.51.100.7, 203.0.113.1, 10.1.2.3"]
            ),
            ip("203.0.113.1")
        );
        // What cannot be read is the word of the last proxy.
        for said in [&[][..], &["unknown"], &["203.0.113.1, nonsense"], &[""]] {
            assert_eq!(asks(&["127.0.0.1"], "127.0.0.1", said), ip("127.0.0.1"));
        }
        assert_eq!(
            asks(&["127.0.0.1"], "127.0.0.1", &["203.0.113.1:4711"]),
            ip("203.0.113.1")
        );
        assert_eq!(
            asks(&["127.0.0.1"], "127.0.0.1", &["[2001:db8::1]:4711"]),
            ip("2001:db8::1")
        );
        assert_eq!(asks(&["127.0.0.1"], "127.0.0.1", &["[2001:db8::1]"]), ip("2001:db8::1"));
    }
}
