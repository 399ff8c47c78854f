//! One try to punch a hole, as a state machine: time, datagrams and chance come in, datagrams to send come out, and in the
//! end the pair of a socket and an address that works both ways.
//!
//! Both ends send probes to where the other may be and answer those that come. A probe that is answered has found the pair:
//! whatever stands before either end has let one datagram out and one in. Probes and answers carry a code under keys made
//! of what both said in their offers, one for each direction, so that only the two can make and answer them.
//!
//! Where one end is behind a NAT whose next port nobody knows, its end sends from many sockets to the one address of the
//! other, and the other to many ports of the one address of the first: with 256 sockets and 2,048 ports some pair meets
//! in nearly every case (1 - (1 - 256/64512)^2048 = 0.9997).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use rand::{Rng, RngExt as _};

use super::offer::Offer;
use super::plan::{self, Plan, Side};
use crate::nat::stun::{self, Class, Message, TransactionId};
use crate::nat::{Scope, scope};

/// Sockets that the end behind a symmetric NAT sends from, besides the one that is listened on.
pub(super) const SOCKETS: usize = 256;
/// Ports that the other sends to.
const PORTS: usize = 2048;
/// Of both so many at once, and how long after the ones before.
const AT_ONCE: usize = 16;
const PACE: Duration = Duration::from_millis(20);
/// How long the plain ways are tried before.
const HEAD_START: Duration = Duration::from_millis(400);
/// A try ends after this, or after the longer where one end is behind a symmetric NAT.
const PLAIN: Duration = Duration::from_secs(4);
const LONG: Duration = Duration::from_secs(8);
/// Between probes to one address: at first, and at most.
const PROBES: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(250)];
/// Addresses that probes came from and that are probed in turn.
const FOUND: usize = 8;
/// Probes that are answered.
const ANSWERS: usize = 256;
/// Ports below are never given by a NAT that gives them by chance.
const FIRST_PORT: u16 = 1024;

/// Which socket: 0 is the one that is listened on, others are those of a burst.
pub(super) type Socket = usize;

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Send {
    /// From which socket.
    pub(super) socket: Socket,
    /// Where to.
    pub(super) to: SocketAddr,
    /// What.
    pub(super) bytes: Vec<u8>,
}

/// By what both ends know each other's probes.
#[derive(Debug)]
pub(super) struct Secrets {
    /// What the probes are addressed to.
    pub(super) name: [u8; 8],
    own: hmac::Key,
    peer: hmac::Key,
}

impl Secrets {
    /// Made of both offers.
    pub(super) fn new(initiator: &Offer, responder: &Offer, side: Side) -> Self {
        let mut both = [0; 32];
        both[..16].copy_from_slice(&initiator.nonce);
        both[16..].copy_from_slice(&responder.nonce);
        let root = hmac::Key::new(hmac::HMAC_SHA256, &both);
        let of = |label: &[u8]| hmac::sign(&root, label);
        let key = |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, of(label).as_ref());
        let mut name = [0; 8];
        name.copy_from_slice(&of(b"dawn punch name").as_ref()[..8]);
        let (own, peer): (&[u8], &[u8]) = match side {
            Side::Initiator => (b"dawn punch initiator", b"dawn punch responder"),
            Side::Responder => (b"dawn punch responder", b"dawn punch initiator"),
        };
        Self {
            name,
            own: key(own),
            peer: key(peer),
        }
    }
}

#[derive(Debug)]
struct Target {
    socket: Socket,
    to: SocketAddr,
    next: Instant,
    pause: Duration,
}

/// What is sent at a pace besides the probes to the targets.
#[derive(Debug)]
enum Burst {
    None,
    /// From many sockets to one address.
    Sockets {
        to: SocketAddr,
        sent: usize,
    },
    /// From one socket to many ports of one address.
    Ports {
        to: IpAddr,
        ports: Vec<u16>,
    },
}

/// A try.
#[derive(Debug)]
pub(super) struct Attempt {
    secrets: Secrets,
    targets: Vec<Target>,
    /// Where the peer may be, of which ports nothing is known. Where a datagram says that it comes from is only said.
    ips: HashSet<IpAddr>,
    found_at: usize,
    answered: usize,
    burst: Burst,
    next_burst: Instant,
    asked: HashMap<TransactionId, (Socket, SocketAddr)>,
    end: Instant,
    found: Option<(Socket, SocketAddr)>,
    met: bool,
}

impl Attempt {
    /// A try that begins now, with what both offered. `own` are the addresses that this node has or is seen at.
    pub(super) fn new(
        plan: Plan,
        side: Side,
        own: &[IpAddr],
        peer: &Offer,
        secrets: Secrets,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Self {
        let fit = plan::targets(own, peer);
        let is_hard = |of: Side| plan.hard == Some(of);
        let other = match side {
            Side::Initiator => Side::Responder,
            Side::Responder => Side::Initiator,
        };
        let mut addresses = fit.clone();
        // What lies far away is where the peer is seen, not where it is; and nobody is to send a burst into this network.
        let is_far = |mapped: &SocketAddr| fit.contains(mapped) && scope(mapped.ip()) == Scope::Public;
        let seen = peer.mapped.iter().copied().find(is_far);
        let burst = match seen {
            Some(to) if is_hard(side) => Burst::Sockets { to, sent: 0 },
            Some(to) if is_hard(other) => {
                let foreseen = plan::predicted(peer);
                addresses.extend(foreseen.into_iter().filter(|foreseen| foreseen.ip() == to.ip()));
                Burst::Ports {
                    to: to.ip(),
                    ports: some_ports(rng),
                }
            }
            _ => Burst::None,
        };
        let ips = addresses.iter().map(SocketAddr::ip).collect();
        let targets = addresses
            .into_iter()
            .map(|to| Target {
                socket: 0,
                to,
                next: now,
                pause: PROBES[0],
            })
            .collect();
        Self {
            secrets,
            targets,
            ips,
            found_at: 0,
            answered: 0,
            end: now + if plan.hard.is_some() { LONG } else { PLAIN },
            next_burst: now + HEAD_START,
            burst,
            asked: HashMap::new(),
            found: None,
            met: false,
        }
    }

    /// Sockets that it needs besides the one that is listened on.
    pub(super) fn sockets(&self) -> usize {
        match self.burst {
            Burst::Sockets { .. } => SOCKETS,
            _ => 0,
        }
    }

    /// What works, once something does.
    pub(super) fn found(&self) -> Option<(Socket, SocketAddr)> {
        self.found
    }

    /// Whether anything authentic came from the peer.
    pub(super) fn has_met(&self) -> bool {
        self.met
    }

    /// Whether it is at its end without having found anything.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.end || (self.targets.is_empty() && matches!(self.burst, Burst::None))
    }

    /// When something is to be sent next, or the end.
    pub(super) fn next(&self) -> Instant {
        let burst = match &self.burst {
            Burst::None => None,
            _ => Some(self.next_burst),
        };
        let targets = self.targets.iter().map(|target| target.next);
        targets.chain(burst).min().map_or(self.end, |next| next.min(self.end))
    }

    fn probe(&mut self, socket: Socket, to: SocketAddr, rng: &mut impl Rng) -> Send {
        let transaction = TransactionId(rng.random());
        self.asked.insert(transaction, (socket, to));
        Send {
            socket,
            to,
            bytes: stun::probe(transaction, &self.secrets.name, &self.secrets.own),
        }
    }

    /// What is to be sent now.
    pub(super) fn poll(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<Send> {
        let mut sends = Vec::new();
        if now >= self.end {
            return sends;
        }
        let mut due = Vec::new();
        for target in self.targets.iter_mut().filter(|target| target.next <= now) {
            due.push((target.socket, target.to));
            target.next = now + target.pause;
            target.pause = (target.pause * 2).min(PROBES[1]);
        }
        if self.next_burst <= now {
            self.next_burst = now + PACE;
            match &mut self.burst {
                Burst::None => {}
                Burst::Sockets { to, sent } => {
                    let until = (*sent + AT_ONCE).min(SOCKETS);
                    due.extend((*sent + 1..=until).map(|socket| (socket, *to)));
                    *sent = until;
                }
                Burst::Ports { to, ports } => {
                    let from = ports.len().saturating_sub(AT_ONCE);
                    due.extend(ports.drain(from..).map(|port| (0, SocketAddr::new(*to, port))));
                }
            }
            let is_spent = match &self.burst {
                Burst::None => true,
                Burst::Sockets { sent, .. } => *sent >= SOCKETS,
                Burst::Ports { ports, .. } => ports.is_empty(),
            };
            if is_spent {
                self.next_burst = self.end;
            }
        }
        for (socket, to) in due {
            sends.push(self.probe(socket, to, rng));
        }
        sends
    }

    /// Whether the peer may be there, as far as it has said.
    pub(super) fn may_be_at(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip)
    }

    /// A message for this try came to one of its sockets; returns what is sent in turn.
    pub(super) fn received(
        &mut self,
        now: Instant,
        socket: Socket,
        from: SocketAddr,
        message: &Message<'_>,
        rng: &mut impl Rng,
    ) -> Vec<Send> {
        if message.name != Some(&self.secrets.name) || !message.is_authentic(&self.secrets.peer) {
            return Vec::new();
        }
        match message.class {
            Class::Request => {
                if self.answered >= ANSWERS || !self.may_be_at(from.ip()) {
                    return Vec::new();
                }
                self.answered += 1;
                self.met = true;
                let mut sends = vec![Send {
                    socket,
                    to: from,
                    bytes: stun::probe_answer(message.transaction, &self.secrets.name, from, &self.secrets.own),
                }];
                let is_known = self
                    .targets
                    .iter()
                    .any(|target| (target.socket, target.to) == (socket, from));
                if !is_known && self.found_at < FOUND && now < self.end {
                    self.found_at += 1;
                    self.targets.push(Target {
                        socket,
                        to: from,
                        next: now + PROBES[0],
                        pause: PROBES[0] * 2,
                    });
                    sends.push(self.probe(socket, from, rng));
                }
                sends
            }
            Class::Success => {
                // Only from where it was asked, and each once.
                if self.asked.get(&message.transaction) == Some(&(socket, from)) {
                    self.asked.remove(&message.transaction);
                    self.met = true;
                    let _ = self.found.get_or_insert((socket, from));
                }
                Vec::new()
            }
            Class::Failure => Vec::new(),
        }
    }
}

/// Ports by chance, none twice.
fn some_ports(rng: &mut impl Rng) -> Vec<u16> {
    let mut ports: Vec<u16> = (FIRST_PORT..=u16::MAX).collect();
    // The end of a shuffle (Fisher and Yates) that stops when there are enough.
    let last = ports.len();
    for at in (last - PORTS..last).rev() {
        let other = rng.random_range(0..=at);
        ports.swap(at, other);
    }
    ports.split_off(last - PORTS)
}

#[cfg(test)]
mod tests;
