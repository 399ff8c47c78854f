//! The messages of STUN (RFC 8489): binding requests and their answers, and nothing else.
//!
//! They share the UDP socket with QUIC and are told apart by their first two bits and the magic cookie (RFC 9443). A probe
//! of a hole that is punched is such a request too, with a name and a code of authentication under a key that only both
//! ends know, as ICE's connectivity checks are (RFC 8445, section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;

/// What every message has at its fifth byte.
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Length of the header, bytes.
const HEADER: usize = 20;
/// Longer ones are not read, bytes (RFC 8489, section 6.1).
pub(crate) const LONGEST: usize = 548;
/// Length of a code of authentication, bytes.
const TAG: usize = 32;
/// A request is made at least this long, bytes: no answer is longer than what it answers.
const REQUEST: usize = 48;

const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const SOFTWARE: u16 = 0x8022;

/// What an answer is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TransactionId(pub(crate) [u8; 12]);

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Where does this come from?
    Request,
    /// From there.
    Success,
    /// Not answered.
    Failure,
}

impl Class {
    fn code(self) -> u16 {
        match self {
            Self::Request => 0x0001,
            Self::Success => 0x0101,
            Self::Failure => 0x0111,
        }
    }

    fn of(code: u16) -> Option<Self> {
        [Self::Request, Self::Success, Self::Failure]
            .into_iter()
            .find(|class| class.code() == code)
    }
}

/// Why a datagram is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StunError {
    /// Not of STUN at all.
    #[error("it is no STUN message")]
    NotStun,
    /// Cut off, too long, or with attributes that do not fit.
    #[error("it is malformed")]
    Malformed,
    /// Of another method than binding.
    #[error("it is no binding request, nor an answer to one")]
    Method,
    /// With an attribute that must be understood and is not.
    #[error("its attribute {0:#06x} is not understood")]
    Attribute(u16),
}

/// Whether a datagram is of STUN, not of QUIC (RFC 9443).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] & 0xc0 == 0 && datagram[4..8] == COOKIE
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// What it is.
    pub(crate) class: Class,
    /// What its answer is known by.
    pub(crate) transaction: TransactionId,
    /// Where the request came from, in an answer.
    pub(crate) mapped: Option<SocketAddr>,
    /// Whom it is for, in a probe.
    pub(crate) name: Option<&'a [u8]>,
    /// What is authenticated, and its code.
    tag: Option<(&'a [u8], &'a [u8])>,
}

fn word(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

impl<'a> Message<'a> {
    /// Reads a datagram.
    pub(crate) fn decode(datagram: &'a [u8]) -> Result<Self, StunError> {
        if !is_stun(datagram) {
            return Err(StunError::NotStun);
        }
        let length = usize::from(word(&datagram[2..]).ok_or(StunError::Malformed)?);
        if datagram.len() > LONGEST || HEADER + length != datagram.len() || !length.is_multiple_of(4) {
            return Err(StunError::Malformed);
        }
        let class = word(datagram).and_then(Class::of).ok_or(StunError::Method)?;
        let transaction = datagram[8..HEADER].try_into().map_err(|_| StunError::Malformed)?;
        let mut message = Self {
            class,
            transaction: TransactionId(transaction),
            mapped: None,
            name: None,
            tag: None,
        };
        let mut at = HEADER;
        while at < datagram.len() {
            let rest = &datagram[at..];
            let (kind, length) = word(rest)
                .zip(rest.get(2..).and_then(word))
                .ok_or(StunError::Malformed)?;
            let length = usize::from(length);
            let value = rest.get(4..4 + length).ok_or(StunError::Malformed)?;
            match kind {
                // What follows the code is not authenticated, and so not looked at (RFC 8489, section 14.6).
                _ if message.tag.is_some() => {}
                XOR_MAPPED_ADDRESS => message.mapped = Some(read_mapped(value, &message.transaction)?),
                USERNAME => message.name = Some(value),
                MESSAGE_INTEGRITY_SHA256 if length == TAG => message.tag = Some((&datagram[..at], value)),
                MESSAGE_INTEGRITY_SHA256 => return Err(StunError::Malformed),
                // An answer may say more than is asked for, and so may an attribute that is optional.
                _ if kind >= 0x8000 || class != Class::Request => {}
                _ => return Err(StunError::Attribute(kind)),
            }
            at += 4 + length.next_multiple_of(4);
        }
        if at != datagram.len() {
            return Err(StunError::Malformed);
        }
        Ok(message)
    }

    /// Whether the message was made by who has this key.
    pub(crate) fn is_authentic(&self, key: &hmac::Key) -> bool {
        self.tag
            .and_then(|(covered, tag)| Some((covering(covered)?, tag)))
            .is_some_and(|(covered, tag)| hmac::verify(key, &covered, tag).is_ok())
    }

    /// Whether it has a code of authentication at all.
    pub(crate) fn is_tagged(&self) -> bool {
        self.tag.is_some()
    }
}

/// What a code of authentication covers: everything in front of it, with the length that ends with it.
fn covering(before: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(before.len().checked_sub(HEADER)? + 4 + TAG).ok()?;
    let mut covered = before.to_vec();
    covered[2..4].copy_from_slice(&length.to_be_bytes());
    Some(covered)
}

/// What an address is mixed with (RFC 8489, section 14.2).
fn mask(transaction: &TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE);
    mask[4..].copy_from_slice(&transaction.0);
    mask
}

fn read_mapped(value: &[u8], transaction: &TransactionId) -> Result<SocketAddr, StunError> {
    let port = value.get(2..).and_then(word).ok_or(StunError::Malformed)? ^ 0x2112;
    let mask = mask(transaction);
    let mut bytes = value[4..].to_vec();
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    let ip = match value[1] {
        1 => <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        2 => <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => return Err(StunError::Malformed),
    };
    Ok(SocketAddr::new(ip.map_err(|_| StunError::Malformed)?, port))
}

/// Makes a message.
#[derive(Debug)]
struct Writer(Vec<u8>);

impl Writer {
    fn new(class: Class, transaction: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(class.code().to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(COOKIE);
        bytes.extend(transaction.0);
        Self(bytes)
    }

    /// Values here are short: what does not fit in a length is cut.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let value = &value[..value.len().min(LONGEST)];
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let length = (self.0.len() - HEADER) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
    }

    fn mapped(&mut self, address: SocketAddr, transaction: &TransactionId) {
        let (family, mut bytes) = match address.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let mask = mask(transaction);
        bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        let mut value = vec![0, family];
        value.extend((address.port() ^ 0x2112).to_be_bytes());
        value.extend(bytes);
        self.attribute(XOR_MAPPED_ADDRESS, &value);
    }

    fn sealed(mut self, key: &hmac::Key) -> Vec<u8> {
        if let Some(covered) = covering(&self.0) {
            let tag = hmac::sign(key, &covered);
            self.attribute(MESSAGE_INTEGRITY_SHA256, tag.as_ref());
        }
        self.0
    }
}

/// A question where this node is seen from. It is as long as its answer, so that nobody's server makes more of it.
pub(crate) fn request(transaction: TransactionId) -> Vec<u8> {
    let mut writer = Writer::new(Class::Request, transaction);
    let padded = format!("{:<width$}", "dawn", width = REQUEST - HEADER - 4);
    writer.attribute(SOFTWARE, padded.as_bytes());
    writer.0
}

/// The answer to a question that came from there.
pub(crate) fn answer(transaction: TransactionId, from: SocketAddr) -> Vec<u8> {
    let mut writer = Writer::new(Class::Success, transaction);
    writer.mapped(from, &transaction);
    writer.0
}

/// A question that only a certain peer answers.
pub(crate) fn probe(transaction: TransactionId, name: &[u8], key: &hmac::Key) -> Vec<u8> {
    let mut writer = Writer::new(Class::Request, transaction);
    writer.attribute(USERNAME, name);
    writer.sealed(key)
}

/// The answer to such a one that came from there.
pub(crate) fn probe_answer(transaction: TransactionId, name: &[u8], from: SocketAddr, key: &hmac::Key) -> Vec<u8> {
    let mut writer = Writer::new(Class::Success, transaction);
    writer.attribute(USERNAME, name);
    writer.mapped(from, &transaction);
    writer.sealed(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const ID: TransactionId = TransactionId([7; 12]);

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    #[test]
    fn the_answer_of_the_standards_test_vector_is_read() {
        // RFC 5769, section 2.2, without what is authenticated the old way.
        let mut datagram = vec![0x01, 0x01, 0x00, 0x0c, 0x21, 0x12, 0xa4, 0x42];
        datagram.extend([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
        datagram.extend([0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let message = Message::decode(&datagram).unwrap();
        assert_eq!(message.class, Class::Success);
        assert_eq!(message.mapped, Some("192.0.2.1:32853".parse().unwrap()));
    }

    #[test]
    fn no_answer_is_longer_than_its_question() {
        for from in ["192.0.2.1:1", "[2001:db8::1]:65535"] {
            let from = from.parse().unwrap();
            assert!(answer(ID, from).len() <= request(ID).len());
            let (asked, answered) = (probe(ID, &[1; 8], &key(1)), probe_answer(ID, &[1; 8], from, &key(1)));
            // Only who has the key is answered so.
            assert!(answered.len() <= asked.len() + 24);
        }
    }

    #[test]
    fn a_probe_is_authentic_only_under_its_key_and_unchanged() {
        let mut bytes = probe(ID, b"whom", &key(1));
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.name, Some(&b"whom"[..]));
        assert!(message.is_authentic(&key(1)) && !message.is_authentic(&key(2)));
        bytes[9] ^= 1;
        assert!(!Message::decode(&bytes).unwrap().is_authentic(&key(1)));
        assert!(!Message::decode(&request(ID)).unwrap().is_authentic(&key(1)));
    }

    #[test]
    fn what_is_of_another_method_or_must_be_understood_is_refused() {
        let mut other = request(ID);
        other[1] = 3;
        assert_eq!(Message::decode(&other), Err(StunError::Method));
        let mut writer = Writer::new(Class::Request, ID);
        writer.attribute(0x7777, b"x");
        assert_eq!(Message::decode(&writer.0), Err(StunError::Attribute(0x7777)));
        assert_eq!(Message::decode(b"GET / HTTP/1.1\r\nHost: x"), Err(StunError::NotStun));
    }

    #[test]
    fn packets_of_quic_are_never_taken_for_stun() {
        for first in 0x40..=0xff_u8 {
            let mut packet = request(ID);
            packet[0] = first;
            assert!(!is_stun(&packet));
        }
    }

    proptest! {
        #[test]
        fn an_address_comes_back_as_it_was(ip: IpAddr, port: u16, id: [u8; 12], name: [u8; 8]) {
            let (from, id) = (SocketAddr::new(ip, port), TransactionId(id));
            let plain = answer(id, from);
            let message = Message::decode(&plain).unwrap();
            prop_assert_eq!((message.transaction, message.mapped), (id, Some(from)));
            let sealed = probe_answer(id, &name, from, &key(3));
            let message = Message::decode(&sealed).unwrap();
            prop_assert!(message.is_authentic(&key(3)));
            prop_assert_eq!((message.name, message.mapped), (Some(&name[..]), Some(from)));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), fits: bool) {
            if fits && bytes.len() >= HEADER {
                bytes[0] = 0;
                bytes[1] = 1;
                let length = (bytes.len() - HEADER) as u16;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[4..8].copy_from_slice(&COOKIE);
            }
            let _ = Message::decode(&bytes).map(|message| message.is_authentic(&key(1)));
        }
    }
}
