//! The handshake: two parties learn who they are, and get a [`Channel`] that nobody else can read or write.
//!
//! ```text
//!            IK: the responder's key is known              XX: first contact
//!
//!   initiator                         responder     initiator                       responder
//!      │ 1: e, es, s, ss, binding ─────────▶ │         │ 3: e ──────────────────────────▶ │
//!      │ ◀───────── 2: e, ee, se, binding    │         │ ◀── 4: e, ee, s, es, binding     │
//!    channel                          (channel)        │ 5: s, se, binding ─────────────▶ │
//!      │ confirm ──────────────────────────▶ │      (channel)                          channel
//!      │ ◀────────────────────────── done  channel     │ ◀─────────────────────── confirm │
//!                                                   channel  done ──────────────────────▶ │
//! ```
//!
//! Each message is a byte for its kind, a byte for the version of the protocol, and a message of Noise. Who sends the
//! last one gets a channel in parentheses: it may open, but not seal messages before the other's first frame has come,
//! as the other may still refuse, or may never have been there: whoever recorded message 1 can repeat it, so a responder
//! does nothing in the name of its peer before the channel is confirmed. What the two must agree on is in the
//! [`Context`]; it is bound into the exchange and not sent.
//!
//! A handshake that failed, or a channel that was not confirmed in time, is for the caller to drop.

use std::sync::Arc;
use std::time::Instant;

use dawn_identity::{NodeId, UnixTime};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::binding::{Binding, BindingError, Bound, MAX_BINDING_BYTES};
use crate::context::{Context, PROTOCOL_VERSION};
use crate::kdf::Secret;
use crate::noise::{Noise, NoiseFailed, Pattern, Role, Setup};
use crate::party::{KnownPeer, Party};
use crate::transport::{Channel, Limits, Start};

/// Longest message of a handshake, bytes.
pub const MAX_HANDSHAKE_BYTES: usize = 1024;
/// Kind and version, in front of the message of Noise.
const FRONT_BYTES: usize = 2;

// The longest message holds a binding, two keys and two tags.
const _: () = assert!(FRONT_BYTES + 2 * 32 + 2 * 16 + MAX_BINDING_BYTES <= MAX_HANDSHAKE_BYTES);

/// Why a handshake failed. Nothing of it is told to the peer, which may be anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Longer than [`MAX_HANDSHAKE_BYTES`].
    #[error("a message of the handshake is longer than {MAX_HANDSHAKE_BYTES} bytes")]
    TooLarge,
    /// Not a message of a handshake, or not the one whose turn it is.
    #[error("this is not the message of the handshake that was to come")]
    Unexpected,
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {0} of the secure channel, this node version {PROTOCOL_VERSION}")]
    UnsupportedVersion(u8),
    /// The peer began a handshake of a kind that is not accepted here.
    #[error("the peer began a handshake of a kind that is not accepted here")]
    NotAccepted,
    /// The message was altered, or the peer has another key, network, carrier or other terms in mind.
    #[error("the peer has another key, network, carrier or other terms in mind, or the message was altered")]
    NotAuthentic,
    /// The peer shows no valid binding of its static key.
    #[error("the peer's static key is not vouched for: {0}")]
    Binding(#[from] BindingError),
    /// The binding is valid, but of another static key than the one used.
    #[error("the peer shows the key binding of another key")]
    WrongKey,
    /// The peer is somebody else.
    #[error("the peer is {found}, not {expected}")]
    WrongPeer {
        /// Who was expected.
        expected: NodeId,
        /// Who it is.
        found: NodeId,
    },
    /// The peer is this node itself.
    #[error("the peer is this node itself")]
    Oneself,
    /// The exchange cannot be begun: the peer's key is not one to agree with, or there is no memory.
    #[error("the handshake cannot be begun with this key")]
    Setup,
}

impl From<NoiseFailed> for HandshakeError {
    fn from(_: NoiseFailed) -> Self {
        Self::NotAuthentic
    }
}

/// The kinds of messages, their first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    IkFirst = 1,
    IkSecond = 2,
    XxFirst = 3,
    XxSecond = 4,
    XxThird = 5,
}

impl Kind {
    const fn front(self) -> [u8; FRONT_BYTES] {
        [self as u8, PROTOCOL_VERSION]
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::IkFirst),
            2 => Some(Self::IkSecond),
            3 => Some(Self::XxFirst),
            4 => Some(Self::XxSecond),
            5 => Some(Self::XxThird),
            _ => None,
        }
    }
}

/// Kind and message of Noise.
fn parse(message: &[u8]) -> Result<(Kind, &[u8]), HandshakeError> {
    if message.len() > MAX_HANDSHAKE_BYTES {
        return Err(HandshakeError::TooLarge);
    }
    let ([kind, version], rest) = message
        .split_first_chunk::<FRONT_BYTES>()
        .ok_or(HandshakeError::Unexpected)?;
    let kind = Kind::of(*kind).ok_or(HandshakeError::Unexpected)?;
    if *version != PROTOCOL_VERSION {
        return Err(HandshakeError::UnsupportedVersion(*version));
    }
    Ok((kind, rest))
}

/// The same of a message of this kind.
fn parse_as(wanted: Kind, message: &[u8]) -> Result<&[u8], HandshakeError> {
    match parse(message)? {
        (kind, rest) if kind == wanted => Ok(rest),
        _ => Err(HandshakeError::Unexpected),
    }
}

fn random<R: CryptoRng + ?Sized>(rng: &mut R) -> Secret {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(bytes.as_mut());
    bytes
}

/// Whom the peer must be, and what is needed to make a channel with it.
#[derive(Debug)]
struct Common {
    party: Arc<Party>,
    expected: Option<NodeId>,
    context: Context,
    limits: Limits,
}

impl Common {
    fn noise<R: CryptoRng + ?Sized>(
        &self,
        pattern: Pattern,
        role: Role,
        peer: Option<&KnownPeer>,
        rng: &mut R,
    ) -> Result<Noise, HandshakeError> {
        let responder = match (pattern, role) {
            (Pattern::Ik, Role::Initiator) => peer.map(|peer| peer.node),
            (Pattern::Ik, Role::Responder) => Some(self.party.node()),
            _ => None,
        };
        let setup = Setup {
            pattern,
            role,
            prologue: &self.context.prologue(pattern, responder.as_ref()),
            local: self.party.key(),
            remote: peer.map(|peer| &peer.key),
            psk: None,
            ephemeral: random(rng),
        };
        Noise::new(setup).map_err(|_| HandshakeError::Setup)
    }

    /// Who the peer is, by the binding it sent.
    fn identify(&self, noise: &Noise, binding: &[u8], now: UnixTime) -> Result<Bound, HandshakeError> {
        let bound = Binding::decode(binding)?.verify(now, self.limits.clock_skew)?;
        if noise.remote() != Some(bound.key) {
            return Err(HandshakeError::WrongKey);
        }
        if bound.node == self.party.node() {
            return Err(HandshakeError::Oneself);
        }
        match self.expected {
            Some(expected) if expected != bound.node => Err(HandshakeError::WrongPeer {
                expected,
                found: bound.node,
            }),
            _ => Ok(bound),
        }
    }

    fn channel(
        self,
        noise: Noise,
        peer: Bound,
        role: Role,
        last_message: Option<Vec<u8>>,
        now: Instant,
    ) -> Result<Channel, HandshakeError> {
        let start = Start {
            outcome: noise.finish()?,
            party: self.party,
            peer,
            role,
            context: self.context,
            limits: self.limits,
            last_message,
        };
        Channel::start(start, now).map_err(|_| HandshakeError::Setup)
    }
}

/// The side that begins.
#[derive(Debug)]
pub struct Initiator {
    common: Common,
    noise: Noise,
    awaited: Kind,
    message: Vec<u8>,
}

impl Initiator {
    /// Begins a handshake with a peer whose static key is known. [`Self::message`] is for the carrier.
    ///
    /// # Errors
    /// [`HandshakeError::Setup`] if the key is not one to agree with, [`HandshakeError::Oneself`].
    pub fn ik<R: CryptoRng + ?Sized>(
        party: Arc<Party>,
        peer: KnownPeer,
        context: Context,
        limits: Limits,
        rng: &mut R,
    ) -> Result<Self, HandshakeError> {
        if peer.node == party.node() {
            return Err(HandshakeError::Oneself);
        }
        let common = Common {
            party,
            expected: Some(peer.node),
            context,
            limits,
        };
        let mut noise = common.noise(Pattern::Ik, Role::Initiator, Some(&peer), rng)?;
        let binding = common.party.binding().encode();
        let message = noise
            .write(&Kind::IkFirst.front(), &binding)
            .map_err(|_| HandshakeError::Setup)?;
        Ok(Self {
            common,
            noise,
            awaited: Kind::IkSecond,
            message,
        })
    }

    /// Begins a handshake with a peer whose static key is not known; who it must be may well be.
    ///
    /// # Errors
    /// [`HandshakeError::Setup`] if there is no memory.
    pub fn xx<R: CryptoRng + ?Sized>(
        party: Arc<Party>,
        expected: Option<NodeId>,
        context: Context,
        limits: Limits,
        rng: &mut R,
    ) -> Result<Self, HandshakeError> {
        let common = Common {
            party,
            expected,
            context,
            limits,
        };
        let mut noise = common.noise(Pattern::Xx, Role::Initiator, None, rng)?;
        let message = noise
            .write(&Kind::XxFirst.front(), &[])
            .map_err(|_| HandshakeError::Setup)?;
        Ok(Self {
            common,
            noise,
            awaited: Kind::XxSecond,
            message,
        })
    }

    /// What was said first.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Reads the responder's answer. What is to be sent next, [`Channel::poll_transmit`] gives.
    ///
    /// # Errors
    /// [`HandshakeError`] says what is wrong with the answer.
    pub fn read(mut self, message: &[u8], time: UnixTime, now: Instant) -> Result<Channel, HandshakeError> {
        let payload = self.noise.read(parse_as(self.awaited, message)?)?;
        let peer = self.common.identify(&self.noise, &payload, time)?;
        let last = if self.awaited == Kind::XxSecond {
            let binding = self.common.party.binding().encode();
            Some(self.noise.write(&Kind::XxThird.front(), &binding)?)
        } else {
            None
        };
        self.common.channel(self.noise, peer, Role::Initiator, last, now)
    }
}

/// Which handshakes a responder takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// With initiators that know its static key.
    Ik,
    /// First contacts.
    Xx,
    /// Both.
    Either,
}

/// The side that is spoken to.
#[derive(Debug)]
pub struct Responder {
    common: Common,
    accept: Accept,
    /// The handshake under way, of the pattern `XX`.
    started: Option<Noise>,
}

/// What becomes of a handshake when its responder has read a message.
#[derive(Debug)]
pub enum Answer {
    /// Send this; the next message is for this responder.
    Reply(Vec<u8>, Box<Responder>),
    /// The handshake is over. What is to be sent, [`Channel::poll_transmit`] gives.
    Channel(Box<Channel>),
}

impl Responder {
    /// Waits for the first message of a peer, of `expected` alone where that is given.
    pub fn new(party: Arc<Party>, accept: Accept, expected: Option<NodeId>, context: Context, limits: Limits) -> Self {
        Self {
            common: Common {
                party,
                expected,
                context,
                limits,
            },
            accept,
            started: None,
        }
    }

    /// Reads a message of the initiator.
    ///
    /// # Errors
    /// [`HandshakeError`] says what is wrong with the message. The handshake is then over.
    pub fn read<R: CryptoRng + ?Sized>(
        mut self,
        message: &[u8],
        time: UnixTime,
        now: Instant,
        rng: &mut R,
    ) -> Result<Answer, HandshakeError> {
        if let Some(mut noise) = self.started.take() {
            let payload = noise.read(parse_as(Kind::XxThird, message)?)?;
            let peer = self.common.identify(&noise, &payload, time)?;
            let channel = self.common.channel(noise, peer, Role::Responder, None, now)?;
            return Ok(Answer::Channel(Box::new(channel)));
        }
        let binding = self.common.party.binding().encode();
        match (parse(message)?, self.accept) {
            ((Kind::IkFirst, first), Accept::Ik | Accept::Either) => {
                let mut noise = self.common.noise(Pattern::Ik, Role::Responder, None, rng)?;
                let payload = noise.read(first)?;
                let peer = self.common.identify(&noise, &payload, time)?;
                let second = noise.write(&Kind::IkSecond.front(), &binding)?;
                let channel = self.common.channel(noise, peer, Role::Responder, Some(second), now)?;
                Ok(Answer::Channel(Box::new(channel)))
            }
            ((Kind::XxFirst, first), Accept::Xx | Accept::Either) => {
                let mut noise = self.common.noise(Pattern::Xx, Role::Responder, None, rng)?;
                if !noise.read(first)?.is_empty() {
                    return Err(HandshakeError::Unexpected);
                }
                let reply = noise.write(&Kind::XxSecond.front(), &binding)?;
                self.started = Some(noise);
                Ok(Answer::Reply(reply, Box::new(self)))
            }
            ((Kind::IkFirst | Kind::XxFirst, _), _) => Err(HandshakeError::NotAccepted),
            _ => Err(HandshakeError::Unexpected),
        }
    }
}
