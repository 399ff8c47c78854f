//! The relay's server: answers what clients ask on their streams, and keeps the desk.
//!
//! [`Behaviour`](crate::Behaviour) hands the streams in and opens those to targets, in whichever swarm it is.
//!
//! Locks are taken in the order desk, connections, cuts; none is held while something is waited for.

mod circuits;
mod hop;
mod showing;

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

use crate::desk::{CircuitId, Desk, Grant, Now, Refusal};
use crate::gate::Gate;
use crate::quota::Quotas;
use showing::{Refused, Seldom};

/// How long a peer may take for a message, and a target for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Revocations that are shown by peers without a grant.
    seldom: Mutex<Seldom>,
    /// Peers of whom it is in the log that they are refused.
    refused: Mutex<Refused>,
    /// A circuit has ended.
    ended: Notify,
}

/// What a peer is to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has shown something that is accepted.
    Granted,
    /// It has not.
    Strange {
        /// Whether it is an end of a circuit.
        has_circuits: bool,
    },
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn node_id(peer: PeerId) -> Option<NodeId> {
    let key = libp2p::identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    let key = key.try_into_ed25519().ok()?;
    Some(NodeId::from_bytes(key.to_bytes()))
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
            seldom: Mutex::new(Seldom::new(Instant::now())),
            refused: Mutex::new(Refused::new(Instant::now())),
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
        let (peers, cut) = {
            let mut desk = self.desk();
            let reserved: HashMap<PeerId, ConnectionId> = desk.reserved().collect();
            let (peers, mut cut) = desk.take_back(|grant| self.0.gate.holds(grant, time));
            cut.extend(desk.asked_by(|source| !self.carries(*source)));
            let peers = peers.into_iter().map(|peer| (peer, reserved.get(&peer).copied()));
            (peers.collect::<Vec<_>>(), cut)
        };
        for id in cut {
            if let Some(cut) = lock(&self.0.cuts).get(&id) {
                cut.cancel();
            }
        }
        for (peer, connection) in peers {
            tracing::info!(%peer, "a peer may not reserve any more");
            if let Some(connection) = connection {
                self.close(peer, connection);
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

    fn close(&self, peer: PeerId, connection: ConnectionId) {
        if let Some(known) = lock(&self.0.connections).get(&connection) {
            known.is_kept.store(false, Ordering::Relaxed);
        }
        // A swarm that is gone has closed everything.
        let _ = self.0.closing.send((peer, connection));
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.0.desk)
    }

    /// The desk, if a connection is there on which it may be asked: what is done for it is undone when it ends.
    fn desk_for(&self, connection: ConnectionId) -> Result<MutexGuard<'_, Desk>, Refusal> {
        let desk = self.desk();
        match lock(&self.0.connections).get(&connection) {
            None => Err(Refusal::Gone),
            Some(known) if known.is_relayed => Err(Refusal::Loop),
            Some(_) => Ok(desk),
        }
    }

    /// What the gate knows of a peer by itself. It is asked before the desk is.
    fn known(&self, peer: PeerId, now: Now) -> Option<Grant> {
        self.0.gate.known(node_id(peer)?, now.time)
    }

    /// Whether circuits are carried that a peer asks for.
    fn carries(&self, source: PeerId) -> bool {
        node_id(source).is_none_or(|source| self.0.gate.carries(source))
    }

    /// What a peer is to the relay.
    pub(crate) fn standing(&self, peer: &PeerId) -> Standing {
        let desk = self.desk();
        match desk.grant(peer) {
            Some(_) => Standing::Granted,
            None => Standing::Strange {
                has_circuits: desk.has_circuits(peer),
            },
        }
    }

    pub(crate) fn connected(&self, id: ConnectionId, connection: Connected) {
        lock(&self.0.connections).insert(id, connection);
    }

    pub(crate) fn disconnected(&self, peer: PeerId, id: ConnectionId, is_last: bool) {
        lock(&self.0.connections).remove(&id);
        self.desk().gone(&peer, id, is_last);
    }
}
