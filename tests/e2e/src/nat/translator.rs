//! A NAT of our own, for what the kernel's rules cannot do: they filter by address and port alone, map by address and port
//! or not at all, and give ports away by chance or not at all.
//!
//! Packets and times come in, packets come out. TCP and UDP only; who is inside does not reach others inside over the
//! public address.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::kind::{Filtering, Mapping};
use super::packet::{Packet, Protocol, Side};

/// How long an unused mapping lasts.
const LASTS: Duration = Duration::from_secs(120);

/// Which public port a new mapping gets.
#[derive(Debug, Clone, Copy)]
pub enum Ports {
    /// That of the inside endpoint, or the next that is free.
    Kept,
    /// So many after the one that was given before.
    Step(u16),
}

/// What a NAT is like.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// How it maps.
    pub mapping: Mapping,
    /// How it filters.
    pub filtering: Filtering,
    /// Which ports it gives.
    pub ports: Ports,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Flow {
    protocol: Protocol,
    inside: SocketAddrV4,
    /// What of the other end counts.
    outside: Option<SocketAddrV4>,
}

#[derive(Debug)]
struct Mapped {
    inside: SocketAddrV4,
    sent_to: HashSet<SocketAddrV4>,
    used: Instant,
}

/// A NAT with one public address.
#[derive(Debug)]
pub struct Translator {
    public: Ipv4Addr,
    behaviour: Behaviour,
    flows: HashMap<Flow, u16>,
    mapped: HashMap<(Protocol, u16), Mapped>,
    last: u16,
}

impl Translator {
    /// A NAT without mappings.
    #[must_use]
    pub fn new(public: Ipv4Addr, behaviour: Behaviour) -> Self {
        Self {
            public,
            behaviour,
            flows: HashMap::new(),
            mapped: HashMap::new(),
            last: 20_000,
        }
    }

    /// Translates a packet; false drops it.
    pub fn pass(&mut self, bytes: &mut [u8], now: Instant) -> bool {
        let Some(mut packet) = Packet::of(bytes) else {
            return false;
        };
        let (source, destination) = (packet.end(Side::Source), packet.end(Side::Destination));
        let protocol = packet.protocol;
        if *destination.ip() == self.public {
            let inside = self.inside_of(protocol, destination.port(), source, now);
            inside
                .inspect(|&inside| packet.set(Side::Destination, inside))
                .is_some()
        } else {
            let port = self.outside_of(protocol, source, destination, now);
            let public = self.public;
            port.inspect(|&port| packet.set(Side::Source, SocketAddrV4::new(public, port)))
                .is_some()
        }
    }

    /// The public port of what goes out.
    fn outside_of(&mut self, protocol: Protocol, inside: SocketAddrV4, to: SocketAddrV4, now: Instant) -> Option<u16> {
        let flow = Flow {
            protocol,
            inside,
            outside: match self.behaviour.mapping {
                Mapping::EndpointIndependent => None,
                Mapping::AddressDependent => Some(SocketAddrV4::new(*to.ip(), 0)),
                Mapping::AddressAndPortDependent => Some(to),
            },
        };
        let port = match self.flows.get(&flow) {
            Some(&port) => port,
            None => {
                self.forget_old(now);
                let port = self.free(protocol, inside.port())?;
                self.flows.insert(flow, port);
                port
            }
        };
        let mapped = self.mapped.entry((protocol, port)).or_insert_with(|| Mapped {
            inside,
            sent_to: HashSet::new(),
            used: now,
        });
        mapped.used = now;
        mapped.sent_to.insert(to);
        Some(port)
    }

    /// Whom what comes in is for, if it is let in.
    fn inside_of(&mut self, protocol: Protocol, port: u16, from: SocketAddrV4, now: Instant) -> Option<SocketAddrV4> {
        let mapped = self.mapped.get(&(protocol, port))?;
        let is_let_in = match self.behaviour.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => mapped.sent_to.iter().any(|to| to.ip() == from.ip()),
            Filtering::AddressAndPortDependent => mapped.sent_to.contains(&from),
        };
        let is_used = now.saturating_duration_since(mapped.used) < LASTS;
        (is_let_in && is_used).then_some(mapped.inside)
    }

    fn free(&mut self, protocol: Protocol, wanted: u16) -> Option<u16> {
        let (first, step) = match self.behaviour.ports {
            Ports::Kept => (wanted, 1),
            Ports::Step(step) => (self.last.wrapping_add(step), step),
        };
        let mut tries = (0..=u16::MAX).map(|number| first.wrapping_add(number.wrapping_mul(step)));
        let port = tries.find(|&port| port >= 1024 && !self.mapped.contains_key(&(protocol, port)))?;
        self.last = port;
        Some(port)
    }

    fn forget_old(&mut self, now: Instant) {
        self.mapped
            .retain(|_, mapped| now.saturating_duration_since(mapped.used) < LASTS);
        let mapped = &self.mapped;
        self.flows
            .retain(|flow, port| mapped.contains_key(&(flow.protocol, *port)));
    }
}
