//! The desk: who may reserve, who has reserved, which circuits there are, and what they may carry. No I/O, no clock: time
//! is an argument. Nothing that a peer asks for goes over all reservations, circuits or grants.

mod circuit;
mod grant;
mod refusal;
mod tabs;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use dawn_identity::RelayQuota;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

pub use circuit::{Circuit, CircuitId, Now};
pub use grant::{Grant, Holder, Link};
pub use refusal::Refusal;

use crate::account::Account;
use crate::message::Limit;
use crate::quota::{self, Quotas};
use tabs::Tabs;

/// Tabs of holders or peers that are kept beyond those in use.
const TABS: usize = 32_768;
/// Between two looks for tabs that say nothing any more.
const SWEEP: Duration = Duration::from_secs(60);
/// Between two looks for reservations that have ended, where there is no room.
const LOOK: Duration = Duration::from_secs(1);
/// Circuits at once that a source has which has shown nothing.
const STRANGER_CIRCUITS: usize = 8;

/// What those who have shown nothing have together, of all circuits and of those that lead to one target.
fn share(circuits: usize) -> usize {
    (circuits / 8).max(1)
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
    /// Whether its source has shown nothing.
    is_strange: bool,
    account: Account,
    ways: [u64; 2],
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    quotas: Quotas,
    grants: HashMap<PeerId, Grant>,
    reserved: HashMap<PeerId, Reserved>,
    circuits: HashMap<CircuitId, Open>,
    next: u64,
    holders: Tabs<Holder>,
    peers: Tabs<PeerId>,
    /// Circuits of those who have shown nothing.
    strangers: usize,
    total: Account,
    carried: u64,
    is_draining: bool,
    looked: Instant,
    swept: Instant,
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
            holders: Tabs::new(),
            peers: Tabs::new(),
            strangers: 0,
            total: Account::new(now),
            carried: 0,
            is_draining: false,
            looked: now,
            swept: now,
        }
    }

    /// Other quotas from now on; what there is already stays.
    pub fn set_quotas(&mut self, quotas: Quotas) {
        self.quotas = quotas;
    }

    /// Takes note of what a connected peer has shown. It counts from its next reservation on.
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
        self.peers.get(peer).is_some_and(|tab| tab.circuits + tab.asked > 0)
    }

    /// What a token allows, the relay's own quotas and its own word together.
    fn of_token(&self, quota: &RelayQuota) -> quota::Token {
        self.quotas.token.within(quota)
    }

    /// Whether there is room for the reservation of a peer.
    fn room(&self, peer: &PeerId, grant: &Grant) -> Result<(), Refusal> {
        let own = self.reserved.get(peer);
        if own.is_none() && self.reserved.len() >= self.quotas.total.reservations {
            return Err(Refusal::Full);
        }
        let is_own = own.is_some_and(|own| own.holder == grant.holder);
        let others = self.holders.get(&grant.holder).map_or(0, |tab| tab.reservations);
        let others = others.saturating_sub(usize::from(is_own));
        if others >= self.of_token(&grant.quota).reservations {
            return Err(Refusal::TokenFull);
        }
        Ok(())
    }

    /// Makes a reservation, or renews it. One that the peer has made on another connection moves to this one: a peer that
    /// was started again does not wait until its dead connection is noticed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn reserve(&mut self, peer: PeerId, connection: ConnectionId, now: Now) -> Result<Duration, Refusal> {
        let grant = self.grants.get(&peer).ok_or(Refusal::NoToken)?.clone();
        let left = match grant.expires {
            Some(expires) if expires <= now.time => return Err(Refusal::Expired),
            Some(expires) => expires.since(now.time),
            None => Duration::MAX,
        };
        if self.is_draining {
            return Err(Refusal::Draining);
        }
        if let Err(refusal) = self.room(&peer, &grant) {
            if now.instant.saturating_duration_since(self.looked) < LOOK {
                return Err(refusal);
            }
            self.forget_reservations(now.instant);
            self.room(&peer, &grant)?;
        }
        self.release(&peer);
        let lasts = self.quotas.reservation().min(left);
        let (most, period) = (self.most_tabs(), self.quotas.period());
        let tab = self.holders.at(&grant.holder, most, period, now.instant);
        tab.reservations += 1;
        tab.quota = grant.quota;
        let reserved = Reserved {
            connection,
            holder: grant.holder,
            expires: now.instant + lasts,
        };
        self.reserved.insert(peer, reserved);
        Ok(lasts)
    }

    /// Ends the reservation of a peer.
    pub fn release(&mut self, peer: &PeerId) {
        if let Some(reserved) = self.reserved.remove(peer) {
            self.holders.change(&reserved.holder, |tab| tab.reservations -= 1);
        }
    }

    /// A connection has ended; `is_last` if the peer has no other.
    pub fn gone(&mut self, peer: &PeerId, connection: ConnectionId, is_last: bool) {
        if self.has_reserved(peer, connection) {
            self.release(peer);
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
        if source == target {
            return Err(Refusal::Loop);
        }
        let reserved = self.reserved.get(&target);
        let reserved = reserved.filter(|reserved| reserved.expires > now.instant);
        let reserved = reserved.ok_or(Refusal::NoReservation)?;
        let (holder, connection) = (reserved.holder.clone(), reserved.connection);
        let grant = self.grants.get(&source);
        let is_strange = grant.is_none_or(|grant| grant.expires.is_some_and(|expires| expires <= now.time));
        let quota = self.holders.get(&holder).map(|tab| tab.quota).unwrap_or_default();
        let token = self.of_token(&quota);
        self.room_for_circuit(&source, &target, &holder, &token, is_strange)?;
        let (most, period) = (self.most_tabs(), self.quotas.period());
        let of_token = self.holders.at(&holder, most, period, now.instant);
        of_token.account.turn(period, now.instant);
        let is_used_up = of_token.account.left(token.bytes) == 0;
        let of_peer = self.peers.at(&target, most, period, now.instant);
        of_peer.account.turn(period, now.instant);
        if is_used_up || of_peer.account.left(self.quotas.peer.bytes) == 0 {
            return Err(Refusal::Bytes);
        }
        of_peer.circuits += 1;
        of_peer.strangers += usize::from(is_strange);
        self.holders.change(&holder, |tab| {
            tab.circuits += 1;
            tab.strangers += usize::from(is_strange);
        });
        self.peers.at(&source, most, period, now.instant).asked += 1;
        self.strangers += usize::from(is_strange);
        let id = CircuitId(self.next);
        self.next += 1;
        let open = Open {
            source,
            target,
            holder,
            is_strange,
            account: Account::new(now.instant),
            ways: [0; 2],
        };
        self.circuits.insert(id, open);
        let quotas = &self.quotas;
        let quota = &quotas.circuit;
        let limit = (quota.seconds.is_some() || quota.bytes.is_some()).then(|| Limit {
            duration: quota.seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            data: quota.bytes,
        });
        let rates = [
            quotas.total.bytes_per_second,
            token.bytes_per_second,
            quotas.peer.bytes_per_second,
            quota.bytes_per_second,
        ];
        let lasts = quota.seconds.map(Duration::from_secs);
        Ok(Circuit {
            id,
            connection,
            limit,
            ends: lasts.and_then(|lasts| now.instant.checked_add(lasts)),
            has_rates: rates.iter().any(Option::is_some),
        })
    }

    /// Whether there is room for a circuit. Who has shown nothing has a small share, so that it takes nothing away from those
    /// who have.
    fn room_for_circuit(
        &self,
        source: &PeerId,
        target: &PeerId,
        holder: &Holder,
        token: &quota::Token,
        is_strange: bool,
    ) -> Result<(), Refusal> {
        let (total, peer) = (self.quotas.total.circuits, &self.quotas.peer);
        let (of_token, of_target) = (self.holders.get(holder), self.peers.get(target));
        let asked = self.peers.get(source).map_or(0, |tab| tab.asked);
        if self.circuits.len() >= total
            || of_token.is_some_and(|tab| tab.circuits >= token.circuits)
            || of_target.is_some_and(|tab| tab.circuits >= peer.circuits)
            || asked >= peer.asked
        {
            return Err(Refusal::Circuits);
        }
        if is_strange
            && (self.strangers >= share(total)
                || of_token.is_some_and(|tab| tab.strangers >= token.circuits.div_ceil(2))
                || of_target.is_some_and(|tab| tab.strangers >= share(peer.circuits))
                || asked >= STRANGER_CIRCUITS)
        {
            return Err(Refusal::Strangers);
        }
        Ok(())
    }

    /// Bytes were carried from the source to the target (`way` 0) or back (1); says how long to wait before the next.
    ///
    /// # Errors
    /// A quota is used up: the circuit ends.
    pub fn carry(&mut self, id: CircuitId, way: usize, bytes: u64, now: Instant) -> Result<Duration, Refusal> {
        let open = self.circuits.get_mut(&id).ok_or(Refusal::NoReservation)?;
        let of_token = self.holders.get_mut(&open.holder).ok_or(Refusal::NoReservation)?;
        let of_peer = self.peers.get_mut(&open.target).ok_or(Refusal::NoReservation)?;
        let token = self.quotas.token.within(&of_token.quota);
        let (of_token, of_peer, period) = (&mut of_token.account, &mut of_peer.account, self.quotas.period());
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
        let Some(open) = self.circuits.remove(&id) else {
            return;
        };
        let strange = usize::from(open.is_strange);
        self.strangers -= strange;
        self.peers.change(&open.source, |tab| tab.asked -= 1);
        self.peers.change(&open.target, |tab| {
            tab.circuits -= 1;
            tab.strangers -= strange;
        });
        self.holders.change(&open.holder, |tab| {
            tab.circuits -= 1;
            tab.strangers -= strange;
        });
    }

    /// Takes back the grants that are not held any more, with their reservations; returns their peers, and the circuits that
    /// lead to them or from them. What the others may use is what is said now.
    pub fn take_back(&mut self, holds: impl Fn(&Grant) -> Option<RelayQuota>) -> (Vec<PeerId>, Vec<CircuitId>) {
        let mut lost = HashSet::new();
        for (peer, grant) in &mut self.grants {
            match holds(grant) {
                None => {
                    lost.insert(*peer);
                }
                Some(quota) if quota == grant.quota => {}
                Some(quota) => {
                    grant.quota = quota;
                    self.holders.change(&grant.holder, |tab| tab.quota = quota);
                }
            }
        }
        if lost.is_empty() {
            return Default::default();
        }
        for peer in &lost {
            self.grants.remove(peer);
            self.release(peer);
        }
        let leads = |open: &Open| lost.contains(&open.source) || lost.contains(&open.target);
        let circuits = self.circuits.iter().filter(|(_, open)| leads(open));
        let circuits = circuits.map(|(id, _)| *id).collect();
        (lost.into_iter().collect(), circuits)
    }

    /// The circuits of the sources that this is said of.
    pub fn asked_by(&self, is: impl Fn(&PeerId) -> bool) -> Vec<CircuitId> {
        let circuits = self.circuits.iter().filter(|(_, open)| is(&open.source));
        circuits.map(|(id, _)| *id).collect()
    }

    /// Forgets reservations whose time is over, and once a minute tabs that say nothing any more.
    pub fn forget_ended(&mut self, now: Instant) {
        self.forget_reservations(now);
        if now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            let period = self.quotas.period();
            self.holders.sweep(period, now);
            self.peers.sweep(period, now);
        }
    }

    fn forget_reservations(&mut self, now: Instant) {
        self.looked = now;
        let ended = self.reserved.iter().filter(|(_, reserved)| reserved.expires <= now);
        let ended: Vec<PeerId> = ended.map(|(peer, _)| *peer).collect();
        for peer in &ended {
            self.release(peer);
        }
    }

    /// Tabs of holders, or of peers, that are kept at most: those in use are never more than what is beyond [`TABS`].
    fn most_tabs(&self) -> usize {
        let total = &self.quotas.total;
        let in_use = total.reservations.saturating_add(total.circuits.saturating_mul(2));
        in_use.saturating_add(TABS)
    }
}

#[cfg(test)]
mod tests;
