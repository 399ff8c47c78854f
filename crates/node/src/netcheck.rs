//! How this node stands in the network, as far as it and its neighbours can tell: `/dawn/netcheck/1`, members only.
//!
//! The asker sends a byte, the other answers with what it sees: the time on its clock, and from where the connection comes
//! (JSON behind a length of two bytes). The second answer is measured: the first carries the stream's negotiation with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dawn_identity::NodeId;
use dawn_mesh::nat::{self, Mapping, Nat, Observation, Scope, classify};
use dawn_mesh::{Inbound, Incoming, Mesh, MeshStream, PeerInfo, Protocol};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::shares::Shares;

/// Members tell each other over it what they see.
pub(crate) const NETCHECK: Protocol = Protocol("/dawn/netcheck/1");
/// Members that are asked.
const ASKED: usize = 32;
/// Each answers within this.
const PATIENCE: Duration = Duration::from_secs(4);
/// Streams that are answered at once, and of one member.
const STREAMS: (usize, usize) = (32, 2);
/// Questions that are answered on one stream.
const ROUNDS: usize = 8;
/// Longest answer, bytes.
const ANSWER: usize = 1024;

/// What a member sees of who asks it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Milliseconds since 1970 on its clock.
    pub time_ms: u64,
    /// From where the connection comes; `None` where there is none, but other members in between.
    pub address: Option<String>,
    /// Whether it dialled the connection.
    pub dialled: Option<bool>,
}

/// What a member answered, measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// What it sees.
    pub seen: Seen,
    /// Its clock minus this node's, milliseconds; wrong by half a round trip at most.
    pub clock_ms: f64,
    /// The round trip.
    pub round_trip: Duration,
}

/// What is between this node and others, in a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// `none`, `nat`, `cone`, `address_dependent`, `symmetric`, `udp_blocked` or `unknown`.
    pub guess: &'static str,
    /// Why.
    pub because: &'static str,
}

fn milliseconds() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The address and the port in a multiaddress.
#[must_use]
pub(crate) fn socket(address: &str) -> Option<(IpAddr, u16)> {
    let mut parts = address.split('/').skip(1);
    let (kind, ip) = (parts.next()?, parts.next()?);
    let ip = matches!(kind, "ip4" | "ip6").then(|| ip.parse().ok())??;
    Some((ip, parts.nth(1)?.parse().ok()?))
}

/// How far an address reaches, in a word.
#[must_use]
pub(crate) fn scope(ip: IpAddr) -> &'static str {
    match nat::scope(ip) {
        Scope::Loopback => "loopback",
        Scope::Private => "private",
        Scope::Public | Scope::Nowhere => "public",
    }
}

/// What is between this node and others: what the mesh knows, from its QUIC socket, else what members see of it. Each of
/// `seen` is who sees it, where, and whether over UDP: a port says something only there, since over TCP each connection may
/// have one of its own.
#[must_use]
pub(crate) fn kind(known: &Nat, own: &BTreeSet<IpAddr>, seen: &[(SocketAddr, SocketAddr, bool)]) -> Kind {
    if known.udp == Some(false) {
        let because = "no STUN server answers over UDP: something in between does not let it through";
        return Kind {
            guess: "udp_blocked",
            because,
        };
    }
    let observations: Vec<Observation> = seen
        .iter()
        .filter(|(.., is_udp)| *is_udp)
        .map(|(by, seen, _)| Observation { by: *by, seen: *seen })
        .collect();
    let mapping = match known.mapping {
        Mapping::Unknown => classify(own, 0, &observations).mapping,
        mapping => mapping,
    };
    let (guess, because) = match mapping {
        Mapping::None => ("none", "members see this node at an address of its own"),
        Mapping::EndpointIndependent => (
            "cone",
            "everybody sees this node at the same address and port: whoever it has written to can be let in",
        ),
        Mapping::AddressDependent => (
            "address_dependent",
            "each address sees this node at another port, and all ports of that address at the same",
        ),
        Mapping::AddressAndPortDependent => ("symmetric", "members see this node at different addresses or ports"),
        Mapping::Unknown => {
            let far = |ip: IpAddr| nat::scope(ip) == Scope::Public;
            let is_seen = |ip: IpAddr| far(ip) && !own.contains(&ip);
            let mut ips = seen
                .iter()
                .map(|(_, seen, _)| seen.ip())
                .chain(known.seen.iter().map(SocketAddr::ip));
            if ips.any(is_seen) {
                (
                    "nat",
                    "members see this node at an address that is not its own; of what kind the NAT is, one alone cannot tell",
                )
            } else {
                (
                    "unknown",
                    "no member sees this node at a public address: all are on this machine or this network",
                )
            }
        }
    };
    Kind { guess, because }
}

async fn ask(stream: &mut MeshStream) -> std::io::Result<Told> {
    let mut told = None;
    for _ in 0..2 {
        let (before, begun) = (milliseconds(), Instant::now());
        stream.write_u8(0).await?;
        stream.flush().await?;
        let length = usize::from(stream.read_u16().await?);
        if length > ANSWER {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidData));
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        let round_trip = begun.elapsed();
        let seen: Seen = serde_json::from_slice(&bytes)?;
        let here = before as f64 + round_trip.as_secs_f64() * 500.0;
        told = Some(Told {
            clock_ms: ((seen.time_ms as f64 - here) * 10.0).round() / 10.0,
            seen,
            round_trip,
        });
    }
    told.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))
}

/// Asks members what they see; what each answered, or why it did not.
pub(crate) async fn ask_all(mesh: &Mesh, peers: &[PeerInfo]) -> BTreeMap<NodeId, Result<Told, String>> {
    let asked = peers.iter().take(ASKED).map(|peer| async move {
        let told = async {
            let mut stream = mesh
                .open(peer.node, NETCHECK)
                .await
                .map_err(|error| error.to_string())?;
            ask(&mut stream).await.map_err(|error| error.to_string())
        };
        let late = |_| Err("it does not answer in time".to_owned());
        (peer.node, timeout(PATIENCE, told).await.unwrap_or_else(late))
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

/// Tells members what this node sees of them, until the mesh ends.
pub(crate) async fn serve(mesh: Mesh, mut incoming: Incoming) {
    let shares = Shares::new(STREAMS.0, STREAMS.1);
    // Who is told something is told to the end before the service ends.
    let tasks = TaskTracker::new();
    while let Some(Inbound { peer, mut stream }) = incoming.next().await {
        let Some(share) = shares.take(peer.node) else { continue };
        let mesh = mesh.clone();
        tasks.spawn(async move {
            let told = async {
                for _ in 0..ROUNDS {
                    stream.read_u8().await?;
                    let connected = mesh.connected().into_iter().find(|known| known.node == peer.node);
                    let seen = Seen {
                        time_ms: milliseconds(),
                        address: connected.as_ref().and_then(|peer| peer.address.clone()),
                        dialled: connected.and_then(|peer| peer.dialled),
                    };
                    let bytes = serde_json::to_vec(&seen)?;
                    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
                    stream.write_u16(length).await?;
                    stream.write_all(&bytes).await?;
                    stream.flush().await?;
                }
                Ok::<(), std::io::Error>(())
            };
            // Who has what it wants leaves.
            let _ = timeout(PATIENCE, told).await;
            drop(share);
        });
    }
    tasks.close();
    tasks.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_and_how_far_they_reach() {
        assert_eq!(socket("/ip4/10.0.0.1/udp/7401/quic-v1"), Some((ip("10.0.0.1"), 7401)));
        assert_eq!(socket("/ip6/::1/tcp/1/ws"), Some((ip("::1"), 1)));
        assert_eq!(socket("/dns/example.org/tcp/1"), None);
        assert_eq!(socket(""), None);
        let scopes = [
            ("127.0.0.1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "private"),
            ("fe80::1", "private"),
            ("9.9.9.9", "public"),
        ];
        for (text, wanted) in scopes {
            assert_eq!(scope(ip(text)), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_in_between_is_what_the_mesh_knows_or_what_members_see() {
        let own = BTreeSet::from([ip("10.0.0.1"), ip("9.9.9.9")]);
        let guess = |known: &Nat, seen: &[(&str, bool)]| {
            let seen: Vec<(SocketAddr, SocketAddr, bool)> = seen
                .iter()
                .enumerate()
                .map(|(at, (seen, udp))| {
                    (
                        SocketAddr::new([7, 7, 7, at as u8].into(), 1),
                        seen.parse().unwrap(),
                        *udp,
                    )
                })
                .collect();
            kind(known, &own, &seen).guess
        };
        let unknown = Nat::default();
        assert_eq!(guess(&unknown, &[]), "unknown");
        assert_eq!(guess(&unknown, &[("10.0.0.1:1", true)]), "none");
        assert_eq!(guess(&unknown, &[("9.9.9.9:1", true)]), "none");
        assert_eq!(guess(&unknown, &[("8.8.8.8:1", true)]), "nat");
        assert_eq!(guess(&unknown, &[("8.8.8.8:1", true), ("8.8.8.8:1", true)]), "cone");
        assert_eq!(guess(&unknown, &[("8.8.8.8:1", false), ("8.8.8.8:2", false)]), "nat");
        assert_eq!(
            guess(&unknown, &[("8.8.8.8:1", true), ("8.8.8.8:2", true)]),
            "symmetric"
        );
        assert_eq!(
            guess(&unknown, &[("8.8.8.8:1", true), ("8.8.4.4:1", true)]),
            "symmetric"
        );
        let known = |mapping, udp| Nat {
            mapping,
            udp,
            ..Nat::default()
        };
        let cone = known(Mapping::EndpointIndependent, Some(true));
        assert_eq!(guess(&cone, &[]), "cone");
        assert_eq!(
            guess(&known(Mapping::AddressDependent, Some(true)), &[]),
            "address_dependent"
        );
        assert_eq!(guess(&known(Mapping::Unknown, Some(false)), &[]), "udp_blocked");
    }
}
