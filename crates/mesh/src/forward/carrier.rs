//! Carriers, `/dawn/forward/1`: a member takes a stream of a neighbour and carries it on to the next.
//!
//! The stream begins with what is left of the route (`count ‖ node ids`, the target last, nothing for the target itself).
//! Whoever is in between opens the next stream, writes the rest of the route, and copies bytes both ways. The first byte of
//! the way back says whether the carrier came to be: 0 from the target, else a [`Refused`] of whoever could not go on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::config::{ForwardConfig, MAX_HOPS};
use super::places::Places;
use crate::handle::{Mesh, Protocol, lock};
use crate::peer::Counters;
use crate::per_node::PerNode;
use crate::stream::MeshStream;

/// Carriers go over it.
pub(crate) const FORWARD: Protocol = Protocol("/dawn/forward/1");
/// How long a neighbour may take for the header, and the next one for its stream.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is copied at once, bytes.
const PIECE: usize = 32 << 10;
/// What the target says first.
pub(crate) const ACCEPTED: u8 = 0;

/// Why a carrier is refused; the number is what the way back begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The header is none.
    #[error("the route is malformed")]
    Malformed = 1,
    /// Too many members in between.
    #[error("the route is longer than a member in between carries")]
    TooLong = 2,
    /// A node twice, or back where it came from.
    #[error("the route has a loop")]
    Loop = 3,
    /// The next one is not connected, or no member.
    #[error("a member in between has no connection to the next")]
    NotConnected = 4,
    /// A limit is reached.
    #[error("a member in between carries as much as it may")]
    Busy = 5,
    /// It carries nothing.
    #[error("a member in between does not carry streams of others")]
    Off = 6,
    /// The target takes only what is signed piece by piece.
    #[error(
        "the other end takes only signed messages; set forwarding.signing to \"each-message\" here, or to \"channel-only\" there"
    )]
    Unsigned = 7,
    /// The network's policy does not let a member in between carry this node's streams.
    #[error("the network's policy does not let a member in between carry the streams of this node")]
    NotAllowed = 8,
}

impl Refused {
    /// The reason of a number; what is not known is as good as malformed.
    pub(crate) fn of(number: u8) -> Self {
        match number {
            2 => Self::TooLong,
            3 => Self::Loop,
            4 => Self::NotConnected,
            5 => Self::Busy,
            6 => Self::Off,
            7 => Self::Unsigned,
            8 => Self::NotAllowed,
            _ => Self::Malformed,
        }
    }
}

/// Splits a route off the front of some bytes.
///
/// # Errors
/// They do not begin with one, or it is longer than [`MAX_HOPS`] and a target.
pub fn split_route(bytes: &[u8]) -> Result<(Vec<NodeId>, &[u8]), Refused> {
    let (count, rest) = bytes.split_first().ok_or(Refused::Malformed)?;
    let count = usize::from(*count);
    if count > MAX_HOPS + 1 {
        return Err(Refused::TooLong);
    }
    let (ids, rest) = rest.split_at_checked(count * 32).ok_or(Refused::Malformed)?;
    let (ids, _) = ids.as_chunks::<32>();
    Ok((ids.iter().copied().map(NodeId::from_bytes).collect(), rest))
}

/// The header of a carrier.
pub(crate) fn encode_route(route: &[NodeId]) -> Vec<u8> {
    let count = u8::try_from(route.len()).unwrap_or(u8::MAX);
    std::iter::once(count)
        .chain(route.iter().flat_map(|node| *node.as_bytes()))
        .collect()
}

/// Whether `local` may carry on what came from `neighbour`, and to whom.
///
/// # Errors
/// Why not.
pub fn check_route(route: &[NodeId], local: NodeId, neighbour: NodeId, hops: usize) -> Result<NodeId, Refused> {
    let next = *route.first().ok_or(Refused::Malformed)?;
    // This node is one of those in between, and all that follow but the last.
    if route.len() > hops.min(MAX_HOPS) {
        return Err(Refused::TooLong);
    }
    let mut seen = vec![local, neighbour];
    for node in route {
        if seen.contains(node) {
            return Err(Refused::Loop);
        }
        seen.push(*node);
    }
    Ok(next)
}

/// Whether members in between, the last of them next to `local`, can be how a path came from `peer` over `neighbour`.
pub(crate) fn is_way(via: &[NodeId], local: NodeId, neighbour: NodeId, peer: NodeId) -> bool {
    if neighbour == peer {
        return via.is_empty();
    }
    let is_new = |(at, node): (usize, &NodeId)| ![local, peer].contains(node) && !via[..at].contains(node);
    via.len() <= MAX_HOPS && via.last() == Some(&neighbour) && via.iter().enumerate().all(is_new)
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Result<Vec<NodeId>, Refused>> {
    let count = stream.read_u8().await?;
    if usize::from(count) > MAX_HOPS + 1 {
        return Ok(Err(Refused::TooLong));
    }
    let mut bytes = vec![count];
    bytes.resize(1 + usize::from(count) * 32, 0);
    let _ = stream.read_exact(&mut bytes[1..]).await?;
    Ok(split_route(&bytes).map(|(route, _)| route))
}

/// A neighbour's line: its carriers wait in it for their turn.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// What this node carries.
#[derive(Debug)]
pub(crate) struct Carriers {
    config: ForwardConfig,
    /// By the neighbour that they came from.
    places: Arc<Places>,
    /// Who waits with bytes; one of each neighbour has a turn at a time.
    turns: PerNode<tokio::sync::Mutex<()>>,
    bucket: tokio::sync::Mutex<Bucket>,
}

/// Bytes that may be carried now.
#[derive(Debug)]
struct Bucket {
    bytes: f64,
    at: Instant,
}

impl Carriers {
    pub(crate) fn new(config: ForwardConfig) -> Arc<Self> {
        Arc::new(Self {
            bucket: tokio::sync::Mutex::new(Bucket {
                bytes: config.bytes_per_second.unwrap_or_default() as f64,
                at: Instant::now(),
            }),
            places: Places::new(config.carriers, config.carriers_per_neighbour),
            turns: PerNode::default(),
            config,
        })
    }

    /// As many as these are carried from now on: in all, and of one neighbour.
    pub(crate) fn set_most(&self, all: usize, each: usize) {
        self.places.set_most(all, each);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.places.count()
    }

    fn turn_of(&self, neighbour: NodeId) -> Turn {
        self.turns.of(neighbour, tokio::sync::Mutex::default)
    }

    /// Waits until these bytes of a neighbour may go on. Neighbours have their turns one after the other, however many
    /// carriers each has: of one only the first in its own line waits for the bucket, which is a line as well.
    async fn wait(&self, turn: &Turn, bytes: usize) {
        let Some(rate) = self.config.bytes_per_second else {
            return;
        };
        let rate = rate.max(1) as f64;
        let _first = turn.lock().await;
        let mut bucket = self.bucket.lock().await;
        let now = Instant::now();
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.at = now;
        // What is not used is saved for a second. What is used ahead of time is paid back by waiting.
        bucket.bytes = (bucket.bytes + since * rate).min(rate) - bytes as f64;
        let delay = Duration::from_secs_f64((-bucket.bytes / rate).max(0.0));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

/// Serves one inbound carrier: carries it on, or gives it back when it ends here.
pub(crate) async fn serve(mesh: &Mesh, carriers: &Arc<Carriers>, mut stream: MeshStream) -> Option<MeshStream> {
    let neighbour = stream.peer();
    let header = tokio::time::timeout(PATIENCE, read_header(&mut stream)).await;
    let Ok(Ok(route)) = header else { return None };
    match route {
        Ok(route) if route.is_empty() => return Some(stream),
        Ok(route) => {
            let carried = carry(mesh, carriers, &mut stream, &route).await;
            if let Err(refused) = carried {
                tracing::debug!(%neighbour, %refused, "a carrier is refused");
                refuse(mesh, stream, refused).await;
            }
        }
        Err(refused) => refuse(mesh, stream, refused).await,
    }
    None
}

async fn refuse(mesh: &Mesh, mut stream: MeshStream, refused: Refused) {
    Counters::count(&mesh.shared.counters.refused_carriers);
    // It is told if it is still there.
    let _ = tokio::time::timeout(PATIENCE, async {
        stream.write_all(&[refused as u8]).await?;
        stream.shutdown().await
    })
    .await;
}

async fn carry(
    mesh: &Mesh,
    carriers: &Arc<Carriers>,
    stream: &mut MeshStream,
    route: &[NodeId],
) -> Result<(), Refused> {
    // Who is apart has nobody to carry to.
    if !carriers.config.carry || mesh.shared.apart.host().is_some() {
        return Err(Refused::Off);
    }
    let next = check_route(route, mesh.shared.local, stream.peer(), carriers.config.hops)?;
    let neighbour = mesh.shared.peer(stream.peer()).and_then(|(peer, _)| peer.membership);
    // Who has no connection any more needs no carrier.
    let neighbour = neighbour.ok_or(Refused::NotConnected)?;
    if let Err(refusal) = mesh.shared.gate.may_relay(&neighbour) {
        tracing::debug!(neighbour = %neighbour.node, %refusal, "a carrier is not allowed");
        return Err(Refused::NotAllowed);
    }
    let place = carriers.places.take(stream.peer()).map_err(|_| Refused::Busy)?;
    let Some((_, cut)) = mesh.shared.peer(next) else {
        return Err(Refused::NotConnected);
    };
    let opening = async {
        let mut onward = mesh.backend_open(next, FORWARD, cut).await.ok()?;
        onward
            .write_all(&encode_route(route.get(1..).unwrap_or_default()))
            .await
            .ok()?;
        onward.flush().await.ok()?;
        Some(onward)
    };
    let opened = tokio::time::timeout(PATIENCE, opening).await;
    let mut onward = opened.ok().flatten().ok_or(Refused::NotConnected)?;
    Counters::count(&mesh.shared.counters.carriers);
    let ended = tokio::select! {
        ended = copy_both(mesh, carriers, stream, &mut onward) => ended,
        () = denied(mesh, neighbour.node) => Err(std::io::ErrorKind::PermissionDenied.into()),
    };
    tracing::debug!(neighbour = %stream.peer(), %next, ?ended, "a carrier ended");
    drop(place);
    Ok(())
}

/// Waits until a neighbour may not have its streams carried any more.
async fn denied(mesh: &Mesh, neighbour: NodeId) {
    loop {
        let rechecked = mesh.shared.rechecked.notified();
        let member = mesh.shared.peer(neighbour).and_then(|(peer, _)| peer.membership);
        // The streams of who has gone have ended.
        if member.is_some_and(|member| mesh.shared.gate.may_relay(&member).is_err()) {
            return;
        }
        rechecked.await;
    }
}

/// Copies both ways until either direction ends: what goes over a carrier has an end of its own.
async fn copy_both(
    mesh: &Mesh,
    carriers: &Carriers,
    here: &mut MeshStream,
    there: &mut MeshStream,
) -> std::io::Result<()> {
    let turn = carriers.turn_of(here.peer());
    let (mut from, mut back) = tokio::io::split(here);
    let (mut onward, mut to) = tokio::io::split(there);
    let moved = Mutex::new(Instant::now());
    let idle = async {
        loop {
            let quiet = lock(&moved).elapsed();
            let Some(left) = carriers.config.carrier_idle.checked_sub(quiet) else {
                return;
            };
            tokio::time::sleep(left.max(Duration::from_millis(1))).await;
        }
    };
    tokio::select! {
        ended = copy(mesh, carriers, &turn, (&mut from, &mut to), &moved) => ended,
        ended = copy(mesh, carriers, &turn, (&mut onward, &mut back), &moved) => ended,
        () = idle => Err(std::io::ErrorKind::TimedOut.into()),
        () = mesh.shared.stop.cancelled() => Ok(()),
    }
}

async fn copy(
    mesh: &Mesh,
    carriers: &Carriers,
    turn: &Turn,
    (from, to): (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
    moved: &Mutex<Instant>,
) -> std::io::Result<()> {
    use std::sync::atomic::Ordering;
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            // What is under way still goes out.
            return to.shutdown().await;
        }
        carriers.wait(turn, length).await;
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        *lock(moved) = Instant::now();
        mesh.shared
            .counters
            .carried_bytes
            .fetch_add(length as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn node(seed: u8) -> NodeId {
        Keypair::from_seed([seed; 32]).node_id()
    }

    #[test]
    fn a_route_leads_on_unless_it_loops_or_is_too_long() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(node);
        assert_eq!(check_route(&[c], b, a, 4), Ok(c));
        assert_eq!(check_route(&[c, d, e], b, a, 3), Ok(c));
        assert_eq!(check_route(&[c, d, e], b, a, 2), Err(Refused::TooLong));
        assert_eq!(check_route(&[], b, a, 4), Err(Refused::Malformed));
        for looped in [&[a][..], &[b], &[c, a], &[c, b], &[c, d, c]] {
            assert_eq!(check_route(looped, b, a, 4), Err(Refused::Loop), "{looped:?}");
        }
    }

    #[test]
    fn a_way_ends_with_the_neighbour_it_came_from_and_is_empty_if_that_is_the_peer() {
        let [a, b, c, d] = [1, 2, 3, 4].map(node);
        assert!(is_way(&[], a, d, d) && is_way(&[c, b], a, b, d));
        for (via, neighbour) in [
            (&[b][..], d),
            (&[], b),
            (&[b, c], b),
            (&[c, c, b], b),
            (&[d, b], b),
            (&[a, b], b),
        ] {
            assert!(!is_way(via, a, neighbour, d), "{via:?} over {neighbour}");
        }
        let long: Vec<NodeId> = (10..).take(MAX_HOPS).map(node).chain([b]).collect();
        assert!(!is_way(&long, a, b, d) && is_way(&long[1..], a, b, d));
    }

    #[tokio::test]
    async fn a_neighbour_with_many_carriers_takes_no_turns_of_another() {
        let carriers = Carriers::new(ForwardConfig {
            bytes_per_second: Some(20_000),
            ..ForwardConfig::default()
        });
        let [many, one] = [1, 2].map(node);
        // What was saved is used up.
        carriers.wait(&carriers.turn_of(one), 20_000).await;
        let (told, mut turns) = tokio::sync::mpsc::unbounded_channel();
        let mut waiting = tokio::task::JoinSet::new();
        for neighbour in [many; 20].into_iter().chain([one]) {
            let (carriers, told) = (Arc::clone(&carriers), told.clone());
            waiting.spawn(async move {
                let turn = carriers.turn_of(neighbour);
                loop {
                    carriers.wait(&turn, 100).await;
                    told.send(neighbour).unwrap();
                }
            });
        }
        let mut of_one = 0;
        for _ in 0..60 {
            of_one += u32::from(turns.recv().await == Some(one));
        }
        assert!(of_one >= 20, "{of_one} of 60");
    }

    #[test]
    fn every_refusal_comes_back_from_its_number() {
        for number in 1..=8 {
            assert_eq!(Refused::of(number) as u8, number);
        }
        assert_eq!(Refused::of(200), Refused::Malformed);
    }

    proptest! {
        #[test]
        fn a_route_comes_back_from_its_bytes(seeds in proptest::collection::vec(any::<u8>(), 0..=MAX_HOPS + 1), rest: Vec<u8>) {
            let route: Vec<NodeId> = seeds.into_iter().map(|seed| NodeId::from_bytes([seed; 32])).collect();
            let bytes = [encode_route(&route), rest.clone()].concat();
            prop_assert_eq!(split_route(&bytes), Ok((route, &rest[..])));
        }

        #[test]
        fn whatever_a_neighbour_sends_is_a_route_or_refused(bytes: Vec<u8>) {
            if let Ok((route, rest)) = split_route(&bytes) {
                prop_assert_eq!([&encode_route(&route), rest].concat(), bytes);
            }
        }
    }
}
