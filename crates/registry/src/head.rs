//! Heads: what a node signs of its whole set. One signature vouches for every entry, and for what is gone.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use ciborium::Value as Cbor;
use coset::cwt::{ClaimName, ClaimsSet, ClaimsSetBuilder};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::clock::{Clock, Dot};
use crate::delta::{Element, Key};
use crate::wire::{self, MAX_INCARNATIONS};

/// Longest encoded head, bytes.
pub const MAX_HEAD_BYTES: usize = 1024;

const KIND: Kind = Kind::new("application/dawn-head+cwt");
/// The clock, integers: floor, then epoch and sequence of each incarnation. Labels down to -65547 are of other crates.
const CLOCK: i64 = -65_548;
/// The digest of the set, 32 bytes.
const DIGEST: i64 = -65_549;

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Names a head: the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadId(pub [u8; 32]);

/// The first eight bytes, hexadecimal.
impl fmt::Debug for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadId(")?;
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

/// What a node signed of its set. One that was read proves nothing before [`Parsed::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    pub(crate) node: NodeId,
    pub(crate) clock: Clock,
    pub(crate) time: UnixTime,
    pub(crate) expires: UnixTime,
    pub(crate) digest: [u8; 32],
    pub(crate) id: HeadId,
    bytes: Box<[u8]>,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("node", &self.node)
            .field("clock", &self.clock)
            .field("time", &self.time)
            .field("expires", &self.expires)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a head is to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) network: &'a NetworkId,
    pub(crate) clock: &'a Clock,
    pub(crate) time: UnixTime,
    pub(crate) expires: UnixTime,
    pub(crate) digest: [u8; 32],
}

impl Head {
    /// # Errors
    /// [`Malformed`] if it cannot be encoded.
    pub(crate) fn sign(draft: Draft<'_>, key: &Keypair) -> Result<Self, Malformed> {
        let clock = draft.clock;
        let dots = clock.last().iter().flat_map(|dot| [dot.epoch, dot.sequence]);
        let numbers = std::iter::once(clock.floor()).chain(dots).map(Cbor::from).collect();
        let claims = ClaimsSetBuilder::new()
            .issuer(key.node_id().to_string())
            .audience(draft.network.to_string())
            .expiration_time(statement::date(draft.expires)?)
            .issued_at(statement::date(draft.time)?)
            .private_claim(CLOCK, Cbor::Array(numbers))
            .private_claim(DIGEST, Cbor::Bytes(draft.digest.to_vec()))
            .build();
        let signed = Signed::sign(KIND, claims, key)?;
        Ok(Self {
            node: key.node_id(),
            clock: clock.clone(),
            time: draft.time,
            expires: draft.expires,
            digest: draft.digest,
            id: HeadId(sha256(signed.bytes())),
            bytes: signed.bytes().into(),
        })
    }

    /// Reads a head. The signature is not checked yet; `network` is the one that it says.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, or not in its one encoding.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(Malformed("a head longer than any"));
        }
        let (signed, mut claims) = Signed::parse(KIND, bytes)?;
        let head = Self {
            node: statement::parsed(claims.issuer.take(), "no valid iss")?,
            clock: clock(&claims).ok_or(Malformed("no valid clock"))?,
            time: statement::time(claims.issued_at.as_ref(), "no valid iat")?,
            expires: statement::time(claims.expiration_time.as_ref(), "no valid exp")?,
            digest: private(&claims, DIGEST)
                .and_then(Cbor::as_bytes)
                .and_then(|bytes| bytes.as_slice().try_into().ok())
                .ok_or(Malformed("no valid digest"))?,
            id: HeadId(sha256(bytes)),
            bytes: bytes.into(),
        };
        let network = statement::parsed(claims.audience.take(), "no valid aud")?;
        if head.expires <= head.time {
            return Err(Malformed("expires before it is signed"));
        }
        Ok(Parsed { head, network, signed })
    }

    /// Whose set it is of.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Which writes the set has seen.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// When it was signed.
    #[must_use]
    pub fn time(&self) -> UnixTime {
        self.time
    }

    /// From when on it does not count any more.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> HeadId {
        self.id
    }

    /// The head as it was signed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether this one takes the place of `other`: it has seen more, or, where its owner signed two different heads of
    /// one clock, it has the smaller id. An order, so that all keep the same.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.clock.includes(&other.clock) && (self.clock != other.clock || self.id < other.id)
    }
}

/// A head as it was read, its signature not checked.
#[derive(Debug)]
pub struct Parsed {
    head: Head,
    network: NetworkId,
    signed: Signed,
}

impl Parsed {
    /// What it says, whether true or not.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The network that it is for.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Whether the node that it names signed it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.signed.is_signed_by(self.head.node.as_bytes())
    }

    /// The head, if the node it names signed it.
    #[must_use]
    pub fn verify(self) -> Option<Head> {
        self.is_signed().then_some(self.head)
    }
}

fn private(claims: &ClaimsSet, label: i64) -> Option<&Cbor> {
    let wanted = ClaimName::PrivateUse(label);
    let mut rest = claims.rest.iter();
    rest.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

fn clock(claims: &ClaimsSet) -> Option<Clock> {
    let numbers = private(claims, CLOCK)?.as_array()?.iter();
    let numbers: Vec<u64> = numbers
        .map(|number| number.as_integer()?.try_into().ok())
        .collect::<Option<_>>()?;
    let (floor, dots) = numbers.split_first()?;
    let (dots, odd) = dots.as_chunks();
    if !odd.is_empty() || dots.len() > MAX_INCARNATIONS {
        return None;
    }
    let dots = dots.iter().map(|&[epoch, sequence]| Dot { epoch, sequence });
    Clock::from_parts(*floor, dots.collect())
}

/// SHA-256 over the key, the dot and the SHA-256 of the value of every element, in their order.
pub(crate) fn digest_of<'a>(elements: impl ExactSizeIterator<Item = &'a Element>) -> [u8; 32] {
    let mut front = b"dawn registry set 1\0".to_vec();
    wire::put_number(&mut front, elements.len() as u64);
    let mut context = Context::new(&SHA256);
    context.update(&front);
    for element in elements {
        front.clear();
        wire::put_bytes(&mut front, element.key.as_str().as_bytes());
        wire::put_dot(&mut front, element.dot);
        front.extend_from_slice(element.value.hash());
        context.update(&front);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Two different heads that a node signed for one clock: whoever sees them knows that it lies, or that somebody else has
/// its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    heads: [Head; 2],
}

impl Equivocation {
    /// What two verified heads prove, if they do.
    pub(crate) fn of(one: &Head, other: &Head) -> Option<Self> {
        let said = |head: &Head| (head.digest, head.time, head.expires);
        let proves = one.node == other.node && one.clock == other.clock && said(one) != said(other);
        proves.then(|| Self {
            heads: [one.clone(), other.clone()],
        })
    }

    /// Reads a proof from the bytes of two heads of one network.
    ///
    /// # Errors
    /// [`Malformed`] if they prove nothing.
    pub fn verify(one: &[u8], other: &[u8], network: &NetworkId) -> Result<Self, Malformed> {
        let read = |bytes| {
            let parsed = Head::parse(bytes)?;
            if parsed.network() != *network {
                return Err(Malformed("of another network"));
            }
            parsed.verify().ok_or(Malformed("not signed by the node it names"))
        };
        Self::of(&read(one)?, &read(other)?).ok_or(Malformed("the heads agree"))
    }

    /// Who signed both.
    #[must_use]
    pub fn node(&self) -> NodeId {
        let [one, _] = &self.heads;
        one.node
    }

    /// Both heads, as they were signed.
    #[must_use]
    pub fn heads(&self) -> [&[u8]; 2] {
        self.heads.each_ref().map(Head::bytes)
    }
}

/// What an element is found by: its key, in one text.
impl Key {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Node => "",
            Self::Agent(name) => name.as_str(),
        }
    }
}
