//! The relay's server: answers what clients ask on their streams, and keeps the desk.
//!
//! [`Behaviour`](crate::Behaviour) hands the streams in and opens those to targets, in whichever swarm it is.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use dawn_identity::{NodeId, UnixTime};
use libp2p::swarm::{ConnectionId, Stream};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::copy::{self, Meter};
use crate::desk::{Circuit, CircuitId, Desk, Now, Refusal};
use crate::gate::{Gate, Verdict};
use crate::message::{self, HopMessage, HopType, Peer, Reservation, Status, StopMessage, StopType};
use crate::quota::Quotas;
use crate::token;

/// How long a peer may take for a message, and a target for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take to show something.
const SHOWING: Duration = Duration::from_secs(10);

/// A stream to a target that is wanted.
pub(crate) type Wish = oneshot::Sender<io::Result<Stream>>;

/// A connection as the server knows it.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) peer: PeerId,
    /// Whether a relay carries it.
    pub(crate) is_relayed: bool,
    /// Whether a reservation keeps it.
    pub(crate) is_kept: Arc<AtomicBool>,
    pub(crate) wishes: mpsc::UnboundedSender<Wish>,
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reservations made or renewed.
    pub reserved: AtomicU64,
    /// Circuits that were made.
    pub circuits: AtomicU64,
    /// Circuits that the target did not take.
    pub failed: AtomicU64,
    /// Things shown that were accepted.
    pub accepted: AtomicU64,
    /// What was refused, by its code.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    fn refuse(&self, code: &'static str) {
        *lock(&self.refused).entry(code).or_default() += 1;
    }

    /// What was refused, by its code.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        lock(&self.refused)
            .iter()
            .map(|(code, count)| (*code, *count))
            .collect()
    }
}

/// A relay's server. Clones share it.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    local: PeerId,
    gate: Arc<dyn Gate>,
    desk: Mutex<Desk>,
    is_on: AtomicBool,
    addresses: Mutex<Vec<Multiaddr>>,
    connections: Mutex<HashMap<ConnectionId, Connected>>,
    /// Ends circuits.
    cuts: Mutex<HashMap<CircuitId, CancellationToken>>,
    closing: mpsc::UnboundedSender<(PeerId, ConnectionId)>,
    counters: Counters,
    /// A circuit has ended.
    ended: Notify,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn node_id(peer: PeerId) -> Option<NodeId> {
    peer.to_string().parse().ok()
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        time: UnixTime::from(SystemTime::now()),
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local", &self.0.local)
            .finish_non_exhaustive()
    }
}

/// A circuit's share of the desk.
struct OfCircuit<'a> {
    server: &'a Server,
    id: CircuitId,
    is_limited: bool,
}

impl Meter for OfCircuit<'_> {
    fn carry(&self, way: usize, bytes: u64) -> io::Result<Duration> {
        self.server
            .desk()
            .carry(self.id, way, bytes, Instant::now())
            .map_err(|refusal| {
                self.server.0.counters.refuse(refusal.code());
                io::Error::new(io::ErrorKind::QuotaExceeded, refusal)
            })
    }

    fn is_limited(&self) -> bool {
        self.is_limited
    }
}

impl Drop for OfCircuit<'_> {
    fn drop(&mut self) {
        self.server.desk().end(self.id);
        lock(&self.server.0.cuts).remove(&self.id);
        self.server.0.ended.notify_waiters();
    }
}

impl Server {
    /// A server that is off; with what the behaviour reads of connections to close.
    pub(crate) fn new(
        local: PeerId,
        gate: Arc<dyn Gate>,
        quotas: Quotas,
    ) -> (Self, mpsc::UnboundedReceiver<(PeerId, ConnectionId)>) {
        let (closing, closings) = mpsc::unbounded_channel();
        let server = Self(Arc::new(Inner {
            local,
            gate,
            desk: Mutex::new(Desk::new(quotas, Instant::now())),
            is_on: AtomicBool::new(false),
            addresses: Mutex::default(),
            connections: Mutex::default(),
            cuts: Mutex::default(),
            closing,
            counters: Counters::default(),
            ended: Notify::new(),
        }));
        (server, closings)
    }

    /// Serves from now on, at these addresses; with none it serves no more.
    pub fn serve_at(&self, addresses: Vec<Multiaddr>) {
        self.0.is_on.store(!addresses.is_empty(), Ordering::Relaxed);
        *lock(&self.0.addresses) = addresses;
    }

    /// Whether it serves.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Reservations and circuits that there are, and bytes that were carried.
    #[must_use]
    pub fn usage(&self) -> (usize, usize, u64) {
        let desk = self.desk();
        (desk.reservations(), desk.circuits(), desk.carried())
    }

    /// Connections that there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.0.connections).len()
    }

    /// Whether it takes reservations.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_on() && !self.desk().is_draining()
    }

    /// Other quotas from now on.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.desk().set_quotas(quotas);
    }

    /// Asks the gate again about everybody, and cuts reservations and circuits of those who may not any more.
    pub fn recheck(&self) {
        let time = now().time;
        let holds = |peer: &PeerId, grant: &_| node_id(*peer).is_some_and(|node| self.0.gate.holds(node, grant, time));
        let reserved: HashMap<PeerId, ConnectionId> = self.desk().reserved().collect();
        let (peers, circuits) = self.desk().take_back(holds);
        let uncarried = self.desk().asked_by(|source| !self.carries(*source));
        for id in circuits.into_iter().chain(uncarried) {
            if let Some(cut) = lock(&self.0.cuts).get(&id) {
                cut.cancel();
            }
        }
        for peer in peers {
            tracing::info!(%peer, "a peer may not reserve any more");
            if let Some(connection) = reserved.get(&peer) {
                self.close(peer, *connection);
            }
        }
    }

    /// Forgets what has ended by itself; to be called now and then.
    pub fn tidy(&self) {
        let mut desk = self.desk();
        desk.forget_ended(Instant::now());
        let connections = lock(&self.0.connections);
        for (id, connection) in connections.iter() {
            let is_kept = desk.has_reserved(&connection.peer, *id);
            connection.is_kept.store(is_kept, Ordering::Relaxed);
        }
    }

    /// Takes nothing new. Who has reserved is told by the end of its connection, once nothing is carried over it; returns
    /// when no circuit is left.
    pub async fn drain(&self) {
        self.desk().drain();
        let mut left: Vec<(PeerId, ConnectionId)> = self.desk().reserved().collect();
        for (peer, _) in &left {
            self.desk().release(peer);
        }
        loop {
            let ended = self.0.ended.notified();
            let circuits = {
                let desk = self.desk();
                left.retain(|(peer, connection)| {
                    let is_busy = desk.has_circuits(peer);
                    if !is_busy {
                        self.close(*peer, *connection);
                    }
                    is_busy
                });
                desk.circuits()
            };
            if circuits == 0 {
                return;
            }
            ended.await;
        }
    }

    fn carries(&self, source: PeerId) -> bool {
        node_id(source).is_none_or(|source| self.0.gate.carries(source))
    }

    fn close(&self, peer: PeerId, connection: ConnectionId) {
        if let Some(known) = lock(&self.0.connections).get(&connection) {
            known.is_kept.store(false, Ordering::Relaxed);
        }
        // A swarm that is gone has closed everything.
        let _ = self.0.closing.send((peer, connection));
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.0.desk)
    }

    pub(crate) fn connected(&self, id: ConnectionId, connection: Connected) {
        lock(&self.0.connections).insert(id, connection);
    }

    pub(crate) fn disconnected(&self, peer: PeerId, id: ConnectionId, is_last: bool) {
        lock(&self.0.connections).remove(&id);
        self.desk().gone(&peer, id, is_last);
    }

    /// Serves a stream on which something is shown.
    pub(crate) async fn take_shown(self, peer: PeerId, mut stream: Stream) {
        let serving = async {
            let verdict = match (token::read(&mut stream).await?, node_id(peer)) {
                (Ok(shown), Some(node)) => {
                    let verdict = self.0.gate.shown(node, shown, now().time);
                    verdict.map_err(|denied| (denied.code, denied.reason))
                }
                (Err(error), _) => Err(("malformed", error.to_string())),
                (_, None) => Err(("key", "only peers with an Ed25519 key may show something".to_owned())),
            };
            let refused = match verdict {
                Ok(verdict) => {
                    self.0.counters.accepted.fetch_add(1, Ordering::Relaxed);
                    match verdict {
                        Verdict::Granted(grant) => self.desk().show(peer, grant),
                        Verdict::Noted => self.recheck(),
                        Verdict::Known => {}
                    }
                    None
                }
                Err((code, reason)) => {
                    tracing::debug!(%peer, code, %reason, "what a peer has shown is refused");
                    self.0.counters.refuse(code);
                    Some(reason)
                }
            };
            token::answer(&mut stream, refused.as_deref()).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(SHOWING, serving).await {
            tracing::debug!(%peer, %error, "a peer has shown nothing");
        }
    }

    /// Serves a stream of the hop protocol. `is_asked` is dropped once it is known what is asked.
    pub(crate) async fn hop<P>(self, peer: PeerId, connection: ConnectionId, mut stream: Stream, is_asked: P) {
        let asked = tokio::time::timeout(PATIENCE, message::read::<HopMessage>(&mut stream)).await;
        let served = match asked {
            Ok(Ok(asked)) => match asked.kind.and_then(|kind| HopType::try_from(kind).ok()) {
                Some(HopType::Reserve) => self.reserve(peer, connection, &mut stream).await,
                Some(HopType::Connect) => {
                    let target = asked.peer.and_then(|peer| PeerId::from_bytes(&peer.id?).ok());
                    match target {
                        Some(target) => self.connect(peer, connection, target, stream, is_asked).await,
                        None => say(&mut stream, Status::MalformedMessage).await,
                    }
                }
                Some(HopType::Status) | None => say(&mut stream, Status::UnexpectedMessage).await,
            },
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.0.counters.refuse("malformed");
                say(&mut stream, Status::MalformedMessage).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(()),
        };
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "a stream of the hop protocol ended");
        }
    }

    fn is_relayed(&self, connection: ConnectionId) -> bool {
        lock(&self.0.connections)
            .get(&connection)
            .is_none_or(|known| known.is_relayed)
    }

    async fn reserve(&self, peer: PeerId, connection: ConnectionId, stream: &mut Stream) -> io::Result<()> {
        let now = now();
        let reserved = if self.is_relayed(connection) {
            Err(Refusal::Loop)
        } else {
            let known = node_id(peer).and_then(|node| self.0.gate.known(node, now.time));
            let mut desk = self.desk();
            if let Some(grant) = known.filter(|_| desk.grant(&peer).is_none()) {
                desk.show(peer, grant);
            }
            desk.reserve(peer, connection, now)
        };
        let lasts = match reserved {
            Ok(lasts) => lasts,
            Err(refusal) => return self.refuse(peer, stream, refusal).await,
        };
        if let Some(known) = lock(&self.0.connections).get(&connection) {
            known.is_kept.store(true, Ordering::Relaxed);
        }
        self.0.counters.reserved.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%peer, seconds = lasts.as_secs(), "a reservation");
        let addresses = lock(&self.0.addresses).clone().into_iter();
        let addresses = addresses.map(|address| address.with_p2p(self.0.local).unwrap_or_else(|named| named).to_vec());
        let answer = HopMessage {
            reservation: Some(Reservation {
                expire: Some((now.time + lasts).as_secs()),
                addresses: addresses.collect(),
                voucher: None,
            }),
            ..HopMessage::answer(Status::Ok)
        };
        finish(stream, &answer).await
    }

    async fn refuse(&self, peer: PeerId, stream: &mut Stream, refusal: Refusal) -> io::Result<()> {
        tracing::debug!(%peer, %refusal, "refused");
        self.0.counters.refuse(refusal.code());
        say(stream, refusal.status()).await
    }

    async fn connect<P>(
        &self,
        source: PeerId,
        connection: ConnectionId,
        target: PeerId,
        mut stream: Stream,
        is_asked: P,
    ) -> io::Result<()> {
        let made = if self.is_relayed(connection) {
            Err(Refusal::Loop)
        } else if !self.carries(source) {
            Err(Refusal::NotCarried)
        } else {
            self.desk().connect(source, target, now())
        };
        let circuit = match made {
            Ok(circuit) => circuit,
            Err(refusal) => return self.refuse(source, &mut stream, refusal).await,
        };
        let cut = CancellationToken::new();
        let meter = OfCircuit {
            server: self,
            id: circuit.id,
            is_limited: self.desk().has_rates(),
        };
        lock(&self.0.cuts).insert(circuit.id, cut.clone());
        let stopping = tokio::time::timeout(PATIENCE, self.stop(source, target, &circuit)).await;
        let onward = match stopping.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(onward) => onward,
            Err(error) => {
                tracing::debug!(%source, %target, %error, "a target has not taken a circuit");
                self.0.counters.failed.fetch_add(1, Ordering::Relaxed);
                return say(&mut stream, Status::ConnectionFailed).await;
            }
        };
        let answer = HopMessage {
            limit: circuit.limit,
            ..HopMessage::answer(Status::Ok)
        };
        message::write(&mut stream, &answer).await?;
        self.0.counters.circuits.fetch_add(1, Ordering::Relaxed);
        drop(is_asked);
        let over = async {
            match circuit.ends {
                Some(ends) => tokio::time::sleep_until(ends.into()).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            copied = copy::both(stream, onward, &meter) => copied,
            () = cut.cancelled() => Err(io::Error::other("the target or the source may not any more")),
            () = over => Err(io::ErrorKind::TimedOut.into()),
        };
        tracing::debug!(%source, %target, ?ended, "a circuit has ended");
        Ok(())
    }

    /// Asks a target to take a circuit.
    async fn stop(&self, source: PeerId, target: PeerId, circuit: &Circuit) -> io::Result<Stream> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let mut onward = {
            let (reply, opened) = oneshot::channel();
            let wishes = {
                let connections = lock(&self.0.connections);
                let known = connections
                    .get(&circuit.connection)
                    .filter(|known| known.peer == target);
                known.ok_or_else(gone)?.wishes.clone()
            };
            wishes.send(reply).map_err(|_closed| gone())?;
            opened.await.map_err(|_| gone())??
        };
        let asked = StopMessage {
            kind: Some(StopType::Connect as i32),
            peer: Some(Peer {
                id: Some(source.to_bytes()),
                addresses: Vec::new(),
            }),
            limit: circuit.limit,
            status: None,
        };
        message::write(&mut onward, &asked).await?;
        let answer: StopMessage = message::read(&mut onward).await?;
        if answer.kind == Some(StopType::Status as i32) && answer.status() == Status::Ok {
            return Ok(onward);
        }
        Err(io::Error::other(format!("it answers {:?}", answer.status())))
    }
}

async fn say(stream: &mut Stream, status: Status) -> io::Result<()> {
    finish(stream, &HopMessage::answer(status)).await
}

/// Writes the last message of a stream.
async fn finish(stream: &mut Stream, message: &HopMessage) -> io::Result<()> {
    use futures::AsyncWriteExt as _;
    let writing = async {
        message::write(stream, message).await?;
        stream.close().await
    };
    tokio::time::timeout(PATIENCE, writing).await?
}
