//! What this node knows of the way to others at the moment, and when that changes.
//!
//! Asked are the servers of the configuration and the members that this node has dialled over QUIC: whoever dialled this
//! node sees it at the address that it dialled, which says nothing of what is in between. What a peer that does not answer
//! STUN says by `identify` counts while the connection lasts. Where these are too few to tell kinds of NAT apart, other
//! members are asked at the public addresses that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use dawn_identity::NodeId;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};

use super::kind::{Nat, Observation, Scope, classify, scope};
use super::sockets::Sockets;
use crate::handle::lock;

/// Peers that are asked at once.
const PEERS: usize = 8;
/// Addresses that are asked, if there are as many: two tell kinds of NAT apart, a third sees how ports move.
const ENOUGH: usize = 3;
/// Members of which an address is kept.
const NAMED: usize = 256;
/// Addresses of one name of a server that are asked.
const ADDRESSES: usize = 2;
/// Between two rounds while nothing happens.
const ROUND: Duration = Duration::from_secs(120);
/// What happens within this is one thing.
const TOGETHER: Duration = Duration::from_millis(100);
/// At least, while much happens.
const REST: Duration = Duration::from_millis(400);
/// How often it is looked whether the machine was asleep, and how far the clocks are apart then.
const TICK: Duration = Duration::from_secs(2);
const ASLEEP: Duration = Duration::from_secs(5);

/// What is known, shared by whoever adds to it or wants it.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sockets: Sockets,
    servers: Vec<String>,
    nat: Mutex<Nat>,
    /// Where each of those asked has seen this node last.
    seen: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
    /// Peers that this node has dialled over QUIC, and how many connections there are to each.
    peers: Mutex<BTreeMap<SocketAddr, usize>>,
    /// Where peers that this node has dialled over TCP see it, from the port that it listens on.
    tcp: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
    /// Public addresses of QUIC that members name.
    named: Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// Whether this node has to do with one host alone.
    apart: watch::Sender<bool>,
    /// Something is to be asked anew.
    wake: Notify,
    /// Counts changes of the network.
    network: watch::Sender<u64>,
    /// Counts those, and changes of what is known of the NAT.
    changes: watch::Sender<u64>,
}

impl Watch {
    /// Over these sockets, with servers as `host:port`.
    pub(crate) fn new(sockets: Sockets, servers: Vec<String>) -> Self {
        Self(Arc::new(Inner {
            sockets,
            servers,
            nat: Mutex::default(),
            seen: Mutex::default(),
            peers: Mutex::default(),
            tcp: Mutex::default(),
            named: Mutex::default(),
            apart: watch::Sender::new(false),
            wake: Notify::new(),
            network: watch::Sender::new(0),
            changes: watch::Sender::new(0),
        }))
    }

    pub(crate) fn sockets(&self) -> &Sockets {
        &self.0.sockets
    }

    /// What is known now.
    pub(crate) fn nat(&self) -> Nat {
        lock(&self.0.nat).clone()
    }

    /// The greatest port that this node was seen at, and where: what moves by steps goes on from there.
    pub(crate) fn latest(&self) -> Option<SocketAddr> {
        let seen = lock(&self.0.seen);
        seen.values()
            .copied()
            .filter(SocketAddr::is_ipv4)
            .max_by_key(SocketAddr::port)
    }

    /// Changes of the network: addresses that came or went, and awakenings.
    pub(crate) fn network(&self) -> watch::Receiver<u64> {
        self.0.network.subscribe()
    }

    /// Those, and changes of what is known of the NAT: what failed before them may succeed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// This node has dialled a peer over QUIC.
    pub(crate) fn dialled(&self, peer: SocketAddr) {
        *lock(&self.0.peers).entry(peer).or_default() += 1;
        self.0.wake.notify_one();
    }

    /// A member names these addresses of QUIC.
    pub(crate) fn names(&self, member: NodeId, addresses: &[SocketAddr]) {
        let is_public = |address: &&SocketAddr| scope(address.ip()) == Scope::Public;
        let mut named = lock(&self.0.named);
        match addresses.iter().find(is_public) {
            Some(address) if named.len() < NAMED || named.contains_key(&member) => {
                let is_new = named.insert(member, *address).is_none();
                // More are of use only while there are few.
                if is_new && named.len() <= ENOUGH {
                    self.0.wake.notify_one();
                }
            }
            Some(_) => {}
            None => drop(named.remove(&member)),
        }
    }

    /// While this node is apart nobody is asked: what its host says by `identify` is all that counts then.
    pub(crate) fn set_apart(&self, is_apart: bool) {
        if self.0.apart.send_replace(is_apart) != is_apart {
            self.0.changes.send_modify(|changes| *changes += 1);
            self.0.wake.notify_one();
        }
    }

    /// Whether this node is apart, and when that changes.
    pub(crate) fn apart(&self) -> watch::Receiver<bool> {
        self.0.apart.subscribe()
    }

    /// Whether this node has to do with one host alone.
    pub(crate) fn is_apart(&self) -> bool {
        *self.0.apart.borrow()
    }

    /// Whom to ask besides peers and servers: members at other addresses, where those are too few.
    fn others(&self, asked: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        let ips: BTreeSet<IpAddr> = asked.iter().map(SocketAddr::ip).collect();
        let missing = ENOUGH.saturating_sub(ips.len());
        let named = lock(&self.0.named);
        let mut others: BTreeMap<IpAddr, SocketAddr> = named.values().map(|at| (at.ip(), *at)).collect();
        others.retain(|ip, _| !ips.contains(ip));
        others.into_values().take(missing).collect()
    }

    /// The connection has ended.
    pub(crate) fn ended(&self, peer: SocketAddr) {
        let mut peers = lock(&self.0.peers);
        let left = peers.get_mut(&peer).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            peers.remove(&peer);
            lock(&self.0.seen).remove(&peer);
        }
    }

    /// A peer that this node has dialled says where it sees it.
    pub(crate) fn observed(&self, by: SocketAddr, seen: SocketAddr) {
        if lock(&self.0.peers).contains_key(&by) {
            lock(&self.0.seen).insert(by, seen);
            self.0.wake.notify_one();
        }
    }

    /// A peer that this node has dialled over TCP says where it sees it.
    pub(crate) fn observed_tcp(&self, by: SocketAddr, seen: SocketAddr) {
        let mut tcp = lock(&self.0.tcp);
        let is_new = tcp.values().all(|known| *known != seen);
        if tcp.len() < NAMED || tcp.contains_key(&by) {
            tcp.insert(by, seen);
            if is_new {
                self.0.changes.send_modify(|changes| *changes += 1);
            }
        }
    }

    /// That connection has ended.
    pub(crate) fn ended_tcp(&self, by: SocketAddr) {
        lock(&self.0.tcp).remove(&by);
    }

    /// What is known over TCP; `own` are the addresses of this machine.
    pub(crate) fn over_tcp(&self, own: &BTreeSet<IpAddr>) -> Nat {
        let tcp = lock(&self.0.tcp);
        let observations: Vec<Observation> = tcp
            .iter()
            .filter(|(by, seen)| by.is_ipv4() && seen.is_ipv4())
            .map(|(by, seen)| Observation { by: *by, seen: *seen })
            .collect();
        classify(own, 0, &observations)
    }

    /// An address of this machine came or went, or it was asleep.
    pub(crate) fn network_changed(&self) {
        lock(&self.0.seen).clear();
        lock(&self.0.tcp).clear();
        self.0.network.send_modify(|changes| *changes += 1);
        self.0.changes.send_modify(|changes| *changes += 1);
        self.0.wake.notify_one();
    }

    /// Keeps what is known up to date; `own` says at which addresses this machine is.
    pub(crate) async fn run(self, own: impl Fn() -> BTreeSet<IpAddr> + Send) {
        let mut sleep = Sleep::new();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = self.0.wake.notified() => {
                    tokio::time::sleep(TOGETHER).await;
                    next = Instant::now();
                }
                () = tokio::time::sleep(TICK) => {}
            }
            if sleep.was_asleep() {
                tracing::info!("the clock has jumped: the machine was asleep, or its time was set");
                self.network_changed();
                next = Instant::now();
            }
            if next <= Instant::now() {
                self.round(&own()).await;
                next = Instant::now() + ROUND;
                tokio::time::sleep(REST).await;
            }
        }
    }

    async fn round(&self, own: &BTreeSet<IpAddr>) {
        if self.is_apart() {
            let peers = lock(&self.0.peers);
            lock(&self.0.seen).retain(|by, _| peers.contains_key(by));
            drop(peers);
            return self.update(own, false);
        }
        let mut servers = Vec::new();
        for name in &self.0.servers {
            match tokio::net::lookup_host(name).await {
                Ok(found) => servers.extend(found.take(ADDRESSES)),
                Err(error) => tracing::debug!(name, %error, "a STUN server's name is not found"),
            }
        }
        let peers: Vec<SocketAddr> = lock(&self.0.peers).keys().copied().take(PEERS).collect();
        let mut asked = servers.iter().chain(&peers).copied().collect::<BTreeSet<_>>();
        let others = self.others(&asked);
        asked.extend(&others);
        let is_lost = |silent: usize| !servers.is_empty() && silent == servers.len() && peers.is_empty();
        self.update(own, false);
        let mut answers: FuturesUnordered<_> = asked
            .iter()
            .map(|server| async move { (*server, self.0.sockets.ask(*server).await) })
            .collect();
        let mut silent = 0;
        while let Some((server, answer)) = answers.next().await {
            match answer {
                Ok(seen) => {
                    lock(&self.0.seen).insert(server, seen);
                }
                // A peer has its connection: what it said by `identify` counts.
                Err(error) if peers.contains(&server) => tracing::trace!(%error, "no STUN there"),
                Err(error) => {
                    tracing::debug!(%error, "a STUN server");
                    silent += usize::from(servers.contains(&server));
                    lock(&self.0.seen).remove(&server);
                }
            }
            self.update(own, is_lost(silent));
        }
    }

    /// Says anew what follows from what was seen.
    fn update(&self, own: &BTreeSet<IpAddr>, is_lost: bool) {
        let nat = self.classified(own, is_lost);
        let mut known = lock(&self.0.nat);
        if *known == nat {
            return;
        }
        tracing::info!(mapping = %nat.mapping, seen = ?nat.seen, "what is between this node and others");
        let is_other = known.mapping != nat.mapping || known.seen != nat.seen;
        *known = nat;
        drop(known);
        if is_other {
            self.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn classified(&self, own: &BTreeSet<IpAddr>, is_lost: bool) -> Nat {
        let (six, four): (Vec<Observation>, Vec<Observation>) = lock(&self.0.seen)
            .iter()
            .map(|(by, seen)| Observation { by: *by, seen: *seen })
            .partition(|observed| observed.by.is_ipv6());
        let port = |of: &[Observation]| {
            let by = of.first().map(|observed| observed.by);
            let local = by.and_then(|by| self.0.sockets.towards(by));
            local.map_or(0, |(local, _)| local.port())
        };
        // There is hardly ever a NAT where there is IPv6: what is in the way is that of IPv4.
        let mut nat = if four.is_empty() {
            classify(own, port(&six), &six)
        } else {
            let mut nat = classify(own, port(&four), &four);
            nat.seen.extend(classify(own, port(&six), &six).seen);
            nat
        };
        if is_lost {
            nat.udp = Some(false);
        }
        nat
    }
}

/// Notices that the machine was asleep: then the time of day has gone on, and the clock of a process has not.
#[derive(Debug)]
struct Sleep {
    day: SystemTime,
    process: Instant,
}

impl Sleep {
    fn new() -> Self {
        Self {
            day: SystemTime::now(),
            process: Instant::now(),
        }
    }

    fn was_asleep(&mut self) -> bool {
        let now = Self::new();
        let day = now.day.duration_since(self.day).unwrap_or_default();
        let asleep = day.saturating_sub(now.process - self.process);
        *self = now;
        asleep >= ASLEEP
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::nat::Mapping;

    #[test]
    fn members_are_asked_at_the_public_addresses_they_name_while_others_are_too_few() {
        let watch = Watch::new(Sockets::default(), Vec::new());
        let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
        for (seed, named) in [
            (1, "192.168.1.2:1"),
            (2, "9.9.9.9:1"),
            (3, "9.9.9.9:2"),
            (4, "8.8.8.8:1"),
            (5, "7.7.7.7:1"),
        ] {
            watch.names(
                dawn_identity::Keypair::from_seed([seed; 32]).node_id(),
                &[address(named)],
            );
        }
        let others = |asked: &[&str]| watch.others(&asked.iter().map(|text| address(text)).collect()).len();
        assert_eq!(others(&[]), 3);
        assert_eq!(others(&["9.9.9.9:7"]), 2);
        assert_eq!(others(&["6.6.6.6:1", "5.5.5.5:1"]), 1);
        assert_eq!(others(&["6.6.6.6:1", "5.5.5.5:1", "4.4.4.4:1"]), 0);
        watch.names(dawn_identity::Keypair::from_seed([5; 32]).node_id(), &[]);
        assert_eq!(others(&[]), 2);
    }

    #[tokio::test]
    async fn who_is_apart_asks_nobody_and_goes_by_what_its_host_sees() {
        let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = stranger.local_addr().unwrap();
        let watch = Watch::new(Sockets::default(), vec![server.to_string()]);
        let [host, seen] = ["9.9.9.9:1", "198.51.100.1:7"].map(|text| text.parse().unwrap());
        watch.names(dawn_identity::Keypair::from_seed([1; 32]).node_id(), &[server]);
        watch.dialled(host);
        watch.observed(host, seen);
        lock(&watch.0.seen).insert(server, seen);
        watch.set_apart(true);
        watch.round(&BTreeSet::new()).await;
        assert_eq!(watch.nat().seen, [seen]);
        assert_eq!(lock(&watch.0.seen).keys().collect::<Vec<_>>(), [&host]);
        let mut buffer = [0; 64];
        assert!(stranger.try_recv(&mut buffer).is_err());
    }

    #[test]
    fn what_peers_see_over_tcp_is_told_apart_from_what_they_see_over_udp() {
        let watch = Watch::new(Sockets::default(), Vec::new());
        let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let changes = watch.changes();
        let kind = || watch.over_tcp(&BTreeSet::new()).mapping;
        assert_eq!(kind(), Mapping::Unknown);
        watch.observed_tcp(address("9.9.9.9:1"), address("198.51.100.1:7"));
        watch.observed_tcp(address("8.8.8.8:1"), address("198.51.100.1:7"));
        assert_eq!(kind(), Mapping::EndpointIndependent);
        watch.observed_tcp(address("8.8.8.8:1"), address("198.51.100.1:8"));
        assert_eq!(kind(), Mapping::AddressAndPortDependent);
        assert!(changes.has_changed().unwrap());
        watch.ended_tcp(address("8.8.8.8:1"));
        assert_eq!(watch.over_tcp(&BTreeSet::new()).seen, [address("198.51.100.1:7")]);
        assert_eq!(watch.nat().seen, []);
        watch.network_changed();
        assert_eq!(watch.over_tcp(&BTreeSet::new()).seen, []);
    }

    #[test]
    fn a_clock_that_goes_on_by_itself_is_sleep_and_one_that_is_set_back_is_not() {
        let mut sleep = Sleep::new();
        assert!(!sleep.was_asleep());
        sleep.day -= Duration::from_secs(60);
        assert!(sleep.was_asleep() && !sleep.was_asleep());
        sleep.day += Duration::from_secs(60);
        assert!(!sleep.was_asleep());
    }

    #[test]
    fn what_a_peer_sees_counts_while_this_node_has_a_connection_that_it_dialled() {
        let watch = Watch::new(Sockets::default(), Vec::new());
        let [one, two] = ["9.9.9.9:1", "8.8.8.8:1"].map(|text| text.parse().unwrap());
        let seen: SocketAddr = "198.51.100.1:7".parse().unwrap();
        let kind = || watch.classified(&BTreeSet::new(), false).mapping;
        watch.observed(one, seen);
        assert_eq!(watch.latest(), None);
        for peer in [one, two, two] {
            watch.dialled(peer);
            watch.observed(peer, seen);
        }
        assert_eq!((watch.latest(), kind()), (Some(seen), Mapping::EndpointIndependent));
        watch.ended(two);
        assert_eq!(kind(), Mapping::EndpointIndependent);
        watch.ended(two);
        assert_eq!(kind(), Mapping::Unknown);
        let changes = watch.changes();
        watch.network_changed();
        assert!(changes.has_changed().unwrap());
        assert_eq!(watch.latest(), None);
    }
}
