//! What is dialled for others: which addresses, at which price, and how often. Pure: time comes as an argument.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol as Part;

use crate::nat::{Scope, scope};

/// Dials under way at once.
const AT_ONCE: usize = 4;
/// Dials for one member a minute: it has a handful of addresses, and asks for each once in a while.
const EACH: usize = 8;
const MINUTE: Duration = Duration::from_secs(60);

/// How an address is dialled for who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Price {
    /// It is where the asker is seen.
    Nothing,
    /// It is elsewhere: the asker shows bytes first, more than anything that the dial sends, so that nobody is sent
    /// anything that did not cost the asker more (the specification of AutoNAT v2, "amplification attack prevention").
    Bytes,
}

/// Whether an address is dialled for a member that is seen at `seen`; `own` are this machine's addresses.
///
/// Only public addresses of a form that nodes listen on, without names and relays in them, and none of this machine:
/// whoever asks could otherwise look into the network that this node is in.
pub(super) fn price(address: &Multiaddr, seen: IpAddr, own: &BTreeSet<IpAddr>) -> Option<Price> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Part::Ip4(ip) => ip.into(),
        Part::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let rest: Vec<Part<'_>> = parts.collect();
    let has_port = match rest.as_slice() {
        [Part::Udp(port), Part::QuicV1] | [Part::Tcp(port)] | [Part::Tcp(port), Part::Ws(_)] => *port != 0,
        _ => false,
    };
    let ip = ip.to_canonical();
    if !has_port || scope(ip) != Scope::Public || is_embedded(ip) || own.contains(&ip) {
        return None;
    }
    Some(match ip == seen.to_canonical() {
        true => Price::Nothing,
        false => Price::Bytes,
    })
}

/// Whether an address of IPv6 stands for one of IPv4, which may be any (RFC 6052, RFC 3056, RFC 4380).
fn is_embedded(ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    matches!(
        ip.segments(),
        [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] | [0, 0, 0, 0, 0, 0, ..]
    )
}

/// Who is served, and how often.
#[derive(Debug)]
pub(super) struct Desk {
    most: usize,
    recent: VecDeque<(Instant, NodeId)>,
    under_way: HashSet<NodeId>,
}

impl Desk {
    /// With so many dials a minute for all.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            recent: VecDeque::new(),
            under_way: HashSet::new(),
        }
    }

    /// Whether a member is served now; then [`done`](Self::done) ends it.
    pub(super) fn take(&mut self, member: NodeId, now: Instant) -> bool {
        let is_old = |(at, _): &(Instant, NodeId)| now.saturating_duration_since(*at) >= MINUTE;
        while self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
        let its = self.recent.iter().filter(|(_, of)| *of == member).count();
        let has_room = self.recent.len() < self.most && its < EACH && self.under_way.len() < AT_ONCE;
        let is_served = has_room && self.under_way.insert(member);
        if is_served {
            self.recent.push_back((now, member));
        }
        is_served
    }

    /// What was done for a member is over.
    pub(super) fn done(&mut self, member: NodeId) {
        self.under_way.remove(&member);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn priced(address: &str) -> Option<Price> {
        let own = BTreeSet::from(["203.0.113.9".parse().unwrap()]);
        price(&address.parse().unwrap(), "198.51.100.7".parse().unwrap(), &own)
    }

    #[test]
    fn only_public_addresses_that_nodes_listen_on_are_dialled() {
        for address in [
            "/ip4/127.0.0.1/tcp/22",
            "/ip4/10.0.0.1/tcp/7401",
            "/ip4/192.168.1.1/udp/7401/quic-v1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/100.64.0.1/tcp/7401",
            "/ip4/0.0.0.0/tcp/7401",
            "/ip4/224.0.0.1/udp/7401/quic-v1",
            "/ip4/255.255.255.255/udp/7401/quic-v1",
            "/ip4/203.0.113.9/tcp/7401",
            "/ip4/198.51.100.7/tcp/0",
            "/ip4/198.51.100.7/udp/7401",
            "/ip6/::1/tcp/7401",
            "/ip6/fe80::1/tcp/7401",
            "/ip6/fd00::1/tcp/7401",
            "/ip6/::ffff:10.0.0.1/tcp/7401",
            "/ip6/::ffff:203.0.113.9/tcp/7401",
            "/ip6/64:ff9b::a00:1/tcp/7401",
            "/ip6/2002:a00:1::1/tcp/7401",
            "/ip6/::10.0.0.1/tcp/7401",
            "/dns4/example.org/tcp/7401",
            "/ip4/198.51.100.7/tcp/1/p2p/12D3KooW9xk7Zp1gejwfwNpfm6L9zH5NL4Bx5rm94LRYJJHJuARZ/p2p-circuit",
            "/ip4/198.51.100.7/tcp/1/tls/ws",
        ] {
            assert_eq!(priced(address), None, "{address}");
        }
        for address in [
            "/ip4/198.51.100.7/udp/7401/quic-v1",
            "/ip4/198.51.100.7/tcp/7401",
            "/ip4/198.51.100.7/tcp/7402/ws",
            "/ip6/::ffff:198.51.100.7/tcp/7401",
        ] {
            assert_eq!(priced(address), Some(Price::Nothing), "{address}");
        }
        for address in ["/ip4/198.51.100.8/tcp/7401", "/ip6/2a00::1/udp/7401/quic-v1"] {
            assert_eq!(priced(address), Some(Price::Bytes), "{address}");
        }
    }

    #[test]
    fn a_member_and_all_of_them_are_served_so_often_a_minute_and_one_at_a_time() {
        let [one, other] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]).node_id());
        let (mut desk, now) = (Desk::new(10), Instant::now());
        assert!(desk.take(one, now) && !desk.take(one, now) && desk.take(other, now));
        desk.done(other);
        let served = |desk: &mut Desk, member, now| {
            desk.done(member);
            desk.take(member, now)
        };
        assert_eq!((0..20).filter(|_| served(&mut desk, one, now)).count(), EACH - 1);
        assert_eq!((0..20).filter(|_| served(&mut desk, other, now)).count(), 1);
        assert!(served(&mut desk, one, now + MINUTE));
    }

    proptest! {
        #[test]
        fn however_it_is_asked_there_is_never_more_than_agreed(asked in proptest::collection::vec((0..9_u8, 0..9_u64), 0..200)) {
            let (mut desk, begun) = (Desk::new(20), Instant::now());
            let (mut now, mut served) = (begun, Vec::new());
            for (member, seconds) in asked {
                now += Duration::from_secs(seconds);
                let member = Keypair::from_seed([member; 32]).node_id();
                if desk.take(member, now) {
                    served.push(now);
                }
                desk.done(member);
                let within = served.iter().filter(|at| now.saturating_duration_since(**at) < MINUTE);
                prop_assert!(within.count() <= 20);
            }
        }
    }
}
