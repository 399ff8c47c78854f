//! What a translator reads and writes of an IPv4 packet: its two ends, and the checksums over them (RFC 791, 768, 9293).

use std::net::{Ipv4Addr, SocketAddrV4};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// A whole IPv4 packet of TCP or UDP.
#[derive(Debug)]
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    /// Where the header of IPv4 ends.
    header: usize,
    /// What it carries.
    pub protocol: Protocol,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl<'a> Packet<'a> {
    /// A packet, unless it is something else, or a piece of one.
    #[must_use]
    pub fn of(bytes: &'a mut [u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0x0f) * 4;
        if bytes[0] >> 4 != 4 || header < 20 || bytes.len() < header + 8 || word(bytes, 6) & 0x3fff != 0 {
            return None;
        }
        let protocol = match bytes[9] {
            TCP if bytes.len() >= header + 20 => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        Some(Self {
            bytes,
            header,
            protocol,
        })
    }

    fn places(&self, side: Side) -> (usize, usize) {
        match side {
            Side::Source => (12, self.header),
            Side::Destination => (16, self.header + 2),
        }
    }

    /// One of its ends.
    #[must_use]
    pub fn end(&self, side: Side) -> SocketAddrV4 {
        let (address, port) = self.places(side);
        let octets = [0, 1, 2, 3].map(|byte| self.bytes[address + byte]);
        SocketAddrV4::new(Ipv4Addr::from(octets), word(self.bytes, port))
    }

    /// Puts another end in its place.
    pub fn set(&mut self, side: Side, end: SocketAddrV4) {
        let (address, port) = self.places(side);
        let checksum = self.header
            + match self.protocol {
                Protocol::Tcp => 16,
                Protocol::Udp => 6,
            };
        let octets = end.ip().octets();
        for at in [0, 2] {
            let (old, new) = (word(self.bytes, address + at), word(&octets, at));
            self.amend(10, old, new);
            self.amend(checksum, old, new);
        }
        self.amend(checksum, word(self.bytes, port), end.port());
        self.bytes[address..address + 4].copy_from_slice(&octets);
        self.bytes[port..port + 2].copy_from_slice(&end.port().to_be_bytes());
    }

    /// Amends a checksum for one word that changes (RFC 1624).
    fn amend(&mut self, at: usize, old: u16, new: u16) {
        let before = word(self.bytes, at);
        if at != 10 && self.protocol == Protocol::Udp && before == 0 {
            // It has none.
            return;
        }
        let mut sum = u32::from(!before) + u32::from(!old) + u32::from(new);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let after = !u16::try_from(sum).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&after.to_be_bytes());
    }
}
