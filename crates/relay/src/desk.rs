//! The desk: who may reserve, who has reserved, which circuits there are, and what they may carry. No I/O, no clock: time
//! is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dawn_identity::{NetworkId, NodeId, RelayQuota, Serial, UnixTime};
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use crate::account::Account;
use crate::message::{Limit, Status};
use crate::quota::Quotas;

/// Whose quota is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The members of a network, each by itself.
    Member(NetworkId, NodeId),
    /// A signed token.
    Signed(NetworkId, Serial),
    /// A token of the operator's, by its name.
    Static(String),
}

/// What a peer has shown that lets it reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose quota it uses.
    pub holder: Holder,
    /// What the token says of it.
    pub quota: RelayQuota,
    /// When the membership began or the token was issued: a revocation of then or later ends it.
    pub issued_at: UnixTime,
    /// When it ends; `None` is never.
    pub expires: Option<UnixTime>,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The peer has shown nothing that lets it reserve.
    #[error("no token was shown that is accepted here")]
    NoToken,
    /// What it has shown has ended.
    #[error("the token has expired")]
    Expired,
    /// The relay is about to end.
    #[error("the relay is shutting down")]
    Draining,
    /// All reservations are taken.
    #[error("the relay has as many reservations as it may")]
    Full,
    /// The token's are.
    #[error("the token has as many reservations as it may")]
    TokenFull,
    /// All circuits, those of the token, or of the peer are taken.
    #[error("there are as many circuits as there may be")]
    Circuits,
    /// The bytes of the token or of the peer are used up.
    #[error("the bytes of this period are used up")]
    Bytes,
    /// The target has no reservation.
    #[error("the target has no reservation here")]
    NoReservation,
    /// The peer that asks for a circuit may have none.
    #[error("the peer may not have its streams carried here")]
    NotCarried,
    /// A peer asks for a circuit to itself, or over a circuit.
    #[error("no circuit leads to where it begins")]
    Loop,
}

impl Refusal {
    /// Its status in the protocol.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::NoToken | Self::Expired | Self::NotCarried | Self::Loop => Status::PermissionDenied,
            Self::Draining | Self::Full => Status::ReservationRefused,
            Self::TokenFull | Self::Circuits | Self::Bytes => Status::ResourceLimitExceeded,
            Self::NoReservation => Status::NoReservation,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Expired => "expired",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::TokenFull => "token_full",
            Self::Circuits => "circuits",
            Self::Bytes => "bytes",
            Self::NoReservation => "no_reservation",
            Self::NotCarried => "not_carried",
            Self::Loop => "loop",
        }
    }
}

/// Names a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitId(u64);

/// A circuit that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// Its name.
    pub id: CircuitId,
    /// Where the target reserved.
    pub connection: ConnectionId,
    /// What the ends are told of its limits.
    pub limit: Option<Limit>,
    /// When it ends at the latest.
    pub ends: Option<Instant>,
}

#[derive(Debug)]
struct Reserved {
    connection: ConnectionId,
    holder: Holder,
    expires: Instant,
}

#[derive(Debug)]
struct Open {
    source: PeerId,
    target: PeerId,
    holder: Holder,
    account: Account,
    ways: [u64; 2],
}

/// Now, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// For what is signed.
    pub time: UnixTime,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    quotas: Quotas,
    grants: HashMap<PeerId, Grant>,
    reserved: HashMap<PeerId, Reserved>,
    circuits: HashMap<CircuitId, Open>,
    next: u64,
    holders: HashMap<Holder, Account>,
    peers: HashMap<PeerId, Account>,
    total: Account,
    carried: u64,
    is_draining: bool,
}

impl Desk {
    /// A desk without any reservations.
    #[must_use]
    pub fn new(quotas: Quotas, now: Instant) -> Self {
        Self {
            quotas,
            grants: HashMap::new(),
            reserved: HashMap::new(),
            circuits: HashMap::new(),
            next: 0,
            holders: HashMap::new(),
            peers: HashMap::new(),
            total: Account::new(now),
            carried: 0,
            is_draining: false,
        }
    }

    /// Other quotas from now on; what there is already stays.
    pub fn set_quotas(&mut self, quotas: Quotas) {
        self.quotas = quotas;
    }

    /// Takes note of what a connected peer has shown.
    pub fn show(&mut self, peer: PeerId, grant: Grant) {
        self.grants.insert(peer, grant);
    }

    /// What a peer has shown.
    #[must_use]
    pub fn grant(&self, peer: &PeerId) -> Option<&Grant> {
        self.grants.get(peer)
    }

    /// Takes no further reservations and circuits; those there are go on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether it does.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Reservations that there are.
    #[must_use]
    pub fn reservations(&self) -> usize {
        self.reserved.len()
    }

    /// Circuits that there are.
    #[must_use]
    pub fn circuits(&self) -> usize {
        self.circuits.len()
    }

    /// Bytes that were carried, both ways.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether anything that a circuit carries is held back by a rate.
    #[must_use]
    pub fn has_rates(&self) -> bool {
        let quotas = &self.quotas;
        let tokens = self.grants.values().any(|grant| grant.quota.bytes_per_second.is_some());
        tokens
            || quotas.total.bytes_per_second.is_some()
            || quotas.token.bytes_per_second.is_some()
            || quotas.peer.bytes_per_second.is_some()
            || quotas.circuit.bytes_per_second.is_some()
    }

    /// Whether a connection has a reservation.
    #[must_use]
    pub fn has_reserved(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        self.reserved
            .get(peer)
            .is_some_and(|reserved| reserved.connection == connection)
    }

    /// Who has reserved, and on which connection.
    pub fn reserved(&self) -> impl Iterator<Item = (PeerId, ConnectionId)> + '_ {
        self.reserved
            .iter()
            .map(|(peer, reserved)| (*peer, reserved.connection))
    }

    /// Whether a peer is an end of a circuit.
    #[must_use]
    pub fn has_circuits(&self, peer: &PeerId) -> bool {
        self.circuits
            .values()
            .any(|open| open.source == *peer || open.target == *peer)
    }

    /// Makes a reservation, or renews it. One that the peer has made on another connection moves to this one: a peer that
    /// was started again does not wait until its dead connection is noticed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn reserve(&mut self, peer: PeerId, connection: ConnectionId, now: Now) -> Result<Duration, Refusal> {
        self.forget_ended(now.instant);
        if self.is_draining {
            return Err(Refusal::Draining);
        }
        let grant = self.grants.get(&peer).ok_or(Refusal::NoToken)?;
        let left = match grant.expires {
            Some(expires) if expires <= now.time => return Err(Refusal::Expired),
            Some(expires) => expires.since(now.time),
            None => Duration::MAX,
        };
        if !self.reserved.contains_key(&peer) && self.reserved.len() >= self.quotas.total.reservations {
            return Err(Refusal::Full);
        }
        let others = self
            .reserved
            .iter()
            .filter(|(other, reserved)| **other != peer && reserved.holder == grant.holder);
        if others.count() >= self.quotas.token.within(&grant.quota).reservations {
            return Err(Refusal::TokenFull);
        }
        let lasts = self.quotas.reservation().min(left);
        let reserved = Reserved {
            connection,
            holder: grant.holder.clone(),
            expires: now.instant + lasts,
        };
        self.reserved.insert(peer, reserved);
        Ok(lasts)
    }

    /// Ends the reservation of a peer.
    pub fn release(&mut self, peer: &PeerId) {
        self.reserved.remove(peer);
    }

    /// A connection has ended; `is_last` if the peer has no other.
    pub fn gone(&mut self, peer: &PeerId, connection: ConnectionId, is_last: bool) {
        if self.has_reserved(peer, connection) {
            self.reserved.remove(peer);
        }
        if is_last {
            self.grants.remove(peer);
        }
    }

    /// Whether a circuit may be made. It counts from now on, until [`end`](Self::end).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn connect(&mut self, source: PeerId, target: PeerId, now: Now) -> Result<Circuit, Refusal> {
        self.forget_ended(now.instant);
        if source == target {
            return Err(Refusal::Loop);
        }
        let reserved = self.reserved.get(&target).ok_or(Refusal::NoReservation)?;
        let (holder, connection) = (reserved.holder.clone(), reserved.connection);
        let grant = self.grants.get(&target);
        let token = self
            .quotas
            .token
            .within(&grant.map(|grant| grant.quota).unwrap_or_default());
        let count = |is: &dyn Fn(&Open) -> bool| self.circuits.values().filter(|open| is(open)).count();
        if self.circuits.len() >= self.quotas.total.circuits
            || count(&|open| open.holder == holder) >= token.circuits
            || count(&|open| open.source == source) >= self.quotas.peer.circuits
            || count(&|open| open.target == target) >= self.quotas.peer.circuits
        {
            return Err(Refusal::Circuits);
        }
        let period = self.quotas.period();
        let of_token = self
            .holders
            .entry(holder.clone())
            .or_insert_with(|| Account::new(now.instant));
        of_token.turn(period, now.instant);
        let of_peer = self.peers.entry(target).or_insert_with(|| Account::new(now.instant));
        of_peer.turn(period, now.instant);
        if of_token.left(token.bytes) == 0 || of_peer.left(self.quotas.peer.bytes) == 0 {
            return Err(Refusal::Bytes);
        }
        let id = CircuitId(self.next);
        self.next += 1;
        let open = Open {
            source,
            target,
            holder,
            account: Account::new(now.instant),
            ways: [0; 2],
        };
        self.circuits.insert(id, open);
        let quota = &self.quotas.circuit;
        let limit = (quota.seconds.is_some() || quota.bytes.is_some()).then(|| Limit {
            duration: quota.seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            data: quota.bytes,
        });
        Ok(Circuit {
            id,
            connection,
            limit,
            ends: quota.seconds.map(|seconds| now.instant + Duration::from_secs(seconds)),
        })
    }

    /// Bytes were carried from the source to the target (`way` 0) or back (1); says how long to wait before the next.
    ///
    /// # Errors
    /// A quota is used up: the circuit ends.
    pub fn carry(&mut self, id: CircuitId, way: usize, bytes: u64, now: Instant) -> Result<Duration, Refusal> {
        let open = self.circuits.get_mut(&id).ok_or(Refusal::NoReservation)?;
        let quota = self
            .grants
            .get(&open.target)
            .map(|grant| grant.quota)
            .unwrap_or_default();
        let token = self.quotas.token.within(&quota);
        let period = self.quotas.period();
        let of_token = self
            .holders
            .entry(open.holder.clone())
            .or_insert_with(|| Account::new(now));
        let of_peer = self.peers.entry(open.target).or_insert_with(|| Account::new(now));
        of_token.turn(period, now);
        of_peer.turn(period, now);
        let used = open.ways.get_mut(way).ok_or(Refusal::Loop)?;
        *used = used.saturating_add(bytes);
        let is_over = self.quotas.circuit.bytes.is_some_and(|most| *used > most)
            || of_token.left(token.bytes) < bytes
            || of_peer.left(self.quotas.peer.bytes) < bytes;
        if is_over {
            return Err(Refusal::Bytes);
        }
        self.carried = self.carried.saturating_add(bytes);
        let waits = [
            open.account.take(bytes, self.quotas.circuit.bytes_per_second, now),
            of_token.take(bytes, token.bytes_per_second, now),
            of_peer.take(bytes, self.quotas.peer.bytes_per_second, now),
            self.total.take(bytes, self.quotas.total.bytes_per_second, now),
        ];
        Ok(waits.into_iter().max().unwrap_or_default())
    }

    /// A circuit has ended.
    pub fn end(&mut self, id: CircuitId) {
        self.circuits.remove(&id);
    }

    /// Takes back the grants that are not held any more, with their reservations; returns their peers, and the circuits that
    /// lead to them or from them.
    pub fn take_back(&mut self, is_held: impl Fn(&PeerId, &Grant) -> bool) -> (Vec<PeerId>, Vec<CircuitId>) {
        let lost: Vec<PeerId> = self
            .grants
            .iter()
            .filter(|(peer, grant)| !is_held(peer, grant))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &lost {
            self.grants.remove(peer);
            self.reserved.remove(peer);
        }
        let leads = |open: &Open| lost.contains(&open.source) || lost.contains(&open.target);
        let circuits = self
            .circuits
            .iter()
            .filter(|(_, open)| leads(open))
            .map(|(id, _)| *id)
            .collect();
        (lost, circuits)
    }

    /// The circuits of the sources that this is said of.
    pub fn asked_by(&self, is: impl Fn(&PeerId) -> bool) -> Vec<CircuitId> {
        let circuits = self.circuits.iter().filter(|(_, open)| is(&open.source));
        circuits.map(|(id, _)| *id).collect()
    }

    /// Forgets reservations whose time is over, and accounts that say nothing any more.
    pub fn forget_ended(&mut self, now: Instant) {
        const ACCOUNTS: usize = 65_536;
        self.reserved.retain(|_, reserved| reserved.expires > now);
        let period = self.quotas.period();
        if self.holders.len() + self.peers.len() > ACCOUNTS {
            self.holders.retain(|_, account| !account.is_idle(period, now));
            self.peers.retain(|_, account| !account.is_idle(period, now));
        }
    }
}

#[cfg(test)]
mod tests;
