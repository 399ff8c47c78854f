//! Tests of the crate as a whole: handshakes, channels, rekeys, and the bytes on the wire.

mod binding;
mod envelope;
mod exchange;
mod handshake;
mod primitives;
mod rekey;
mod statements;
mod transport;
mod vectors;
mod wire;

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use rand::{TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};

use crate::handshake::{Accept, Answer, HandshakeError, Initiator, Responder};
use crate::transport::{Close, CloseCode, OpenError, Opened, SealError};
use crate::*;

/// The time at which everything here happens.
pub(super) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(super) const SKEW: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The same moment by the clock of the timers.
pub(super) static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Randomness that stays the same whatever becomes of other generators: the bytes on the wire depend on it.
pub(super) struct Fixed {
    seed: u64,
    drawn: u64,
}

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| number as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            let hash = Sha256::digest([self.seed.to_be_bytes(), self.drawn.to_be_bytes()].concat());
            self.drawn += 1;
            chunk.copy_from_slice(&hash[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

pub(super) fn rng(seed: u64) -> Fixed {
    Fixed { seed, drawn: 0 }
}

pub(super) fn identity(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

pub(super) fn node(seed: u8) -> NodeId {
    identity(seed).node_id()
}

pub(super) fn static_key(seed: u8) -> StaticKey {
    StaticKey::from_bytes([seed ^ 0x55; 32])
}

pub(super) fn party(seed: u8) -> Arc<Party> {
    Arc::new(Party::new(identity(seed), static_key(seed), NOW, DAY).unwrap())
}

pub(super) fn network() -> NetworkId {
    identity(200).network_id()
}

pub(super) fn context(terms: Terms) -> Context {
    Context::new(network(), *b"test").with_terms(terms)
}

/// All four terms.
pub(super) fn all_terms() -> Vec<Terms> {
    let mut all = Vec::new();
    for delivery in [Delivery::Ordered, Delivery::Window] {
        for signing in [Signing::EachMessage, Signing::ChannelOnly] {
            all.push(Terms { delivery, signing });
        }
    }
    all
}

/// Which handshake a test makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Ik,
    Xx,
}

/// One side of a handshake: what it expects.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) party: Arc<Party>,
    pub(super) expected: Option<NodeId>,
    pub(super) context: Context,
    pub(super) limits: Limits,
}

impl Side {
    pub(super) fn new(seed: u8, terms: Terms) -> Self {
        Self {
            party: party(seed),
            expected: None,
            context: context(terms),
            limits: Limits::default(),
        }
    }

    pub(super) fn initiator(&self, how: How, peer: KnownPeer, seed: u64) -> Result<Initiator, HandshakeError> {
        let Self {
            party,
            expected,
            context,
            limits,
        } = self.clone();
        match how {
            How::Ik => Initiator::ik(party, peer, context, limits, &mut rng(seed)),
            How::Xx => Initiator::xx(party, expected, context, limits, &mut rng(seed)),
        }
    }

    pub(super) fn responder(&self, accept: Accept) -> Responder {
        let Self {
            party,
            expected,
            context,
            limits,
        } = self.clone();
        Responder::new(party, accept, expected, context, limits)
    }
}

/// Hands frames of the channels' own from one to the other until there are none.
pub(super) fn settle(a: &mut Channel, b: &mut Channel, now: Instant) {
    for _ in 0..20 {
        let from_a: Vec<_> = std::iter::from_fn(|| a.poll_transmit(now)).collect();
        let from_b: Vec<_> = std::iter::from_fn(|| b.poll_transmit(now)).collect();
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for mut frame in from_a {
            b.open(&mut frame, now).unwrap();
        }
        for mut frame in from_b {
            a.open(&mut frame, now).unwrap();
        }
    }
    panic!("two channels that never come to rest");
}

/// A handshake whose messages pass through `alter`, with the number of each. Both channels, as far as they come.
pub(super) fn shake(
    how: How,
    initiator: &Side,
    responder: &Side,
    peer: KnownPeer,
    mut alter: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Result<(Channel, Channel), HandshakeError> {
    let begun = initiator.initiator(how, peer, 1)?;
    let first = alter(0, begun.message().to_vec());
    let answer = responder
        .responder(Accept::Either)
        .read(&first, NOW, *START, &mut rng(2))?;
    match answer {
        Answer::Channel(mut b) => {
            let second = alter(1, b.poll_transmit(*START).unwrap());
            Ok((begun.read(&second, NOW, *START)?, *b))
        }
        Answer::Reply(second, waiting) => {
            let mut a = begun.read(&alter(1, second), NOW, *START)?;
            let third = alter(2, a.poll_transmit(*START).unwrap());
            match waiting.read(&third, NOW, *START, &mut rng(2))? {
                Answer::Channel(b) => Ok((a, *b)),
                Answer::Reply(..) => panic!("a handshake of more than three messages"),
            }
        }
    }
}

/// Two channels after a handshake of nodes 1 and 2, confirmed and at rest; node 1 began.
pub(super) fn pair_of(how: How, terms: Terms, limits: Limits) -> (Channel, Channel) {
    let sides = [1, 2].map(|seed| Side {
        limits,
        ..Side::new(seed, terms)
    });
    let (mut a, mut b) = shake(how, &sides[0], &sides[1], sides[1].party.known(), |_, message| message).unwrap();
    settle(&mut a, &mut b, *START);
    assert!(a.is_confirmed() && b.is_confirmed());
    (a, b)
}

pub(super) fn pair(terms: Terms) -> (Channel, Channel) {
    pair_of(How::Ik, terms, Limits::default())
}

/// What `frame` holds for `to`.
pub(super) fn read(to: &mut Channel, frame: &[u8]) -> Result<Vec<u8>, OpenError> {
    match to.open(&mut frame.to_vec(), *START)? {
        Opened::Message(message) => Ok(message.to_vec()),
        other => panic!("{other:?} instead of a message"),
    }
}

pub(super) fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}
