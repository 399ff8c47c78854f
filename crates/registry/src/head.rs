//! Heads: what a node signs of its whole set. One signature vouches for every entry, and for what is gone.
//!
//! A head is not a CWT as other statements are: it is the one that is made, sent and read most often, by far. As a CWT
//! nearly half of it would be labels, and texts of what every reader knows. Its bytes are
//!
//! ```text
//!   node (32) ‖ clock ‖ time ‖ seconds until it expires ‖ digest of the set (32) ‖ signature (64)
//! ```
//!
//! with numbers as LEB128; the signature is over a domain, the network, and what stands before the signature. So the
//! network does not travel: where it is another one, the signature does not fit.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use dawn_identity::{Keypair, NetworkId, NodeId, SIGNATURE_BYTES, UnixTime};
use ed25519_zebra::batch::Item;
use ed25519_zebra::{Signature, VerificationKey};

use crate::clock::Clock;
use crate::delta::{Element, Key};
use crate::signature;
use crate::wire::{self, Malformed, Reader};

/// What is signed begins with this, and nothing else that a node signs does.
const DOMAIN: &[u8] = b"dawn registry head 1\0";

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// What a SHA-256 comes to.
pub(crate) fn hash_of(context: Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Where a node stands among all: the first eight bytes of its id. Who has keys made until two nodes stand in one place
/// makes himself be told of less well, and nobody else: it takes 2^64 keys to stand where another does.
pub(crate) fn place(node: &NodeId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *node.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Names a head: the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadId(pub [u8; 32]);

impl HeadId {
    /// Its first eight bytes, by which it is told.
    pub(crate) fn front(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

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
    /// [`Malformed`] if it would expire before it is signed.
    pub(crate) fn sign(draft: Draft<'_>, key: &Keypair) -> Result<Self, Malformed> {
        let seconds = draft.expires.since(draft.time).as_secs();
        if seconds == 0 {
            return Err(Malformed("expires before it is signed"));
        }
        let node = key.node_id();
        let mut bytes = node.as_bytes().to_vec();
        wire::put_clock(&mut bytes, draft.clock);
        wire::put_number(&mut bytes, draft.time.0);
        wire::put_number(&mut bytes, seconds);
        bytes.extend_from_slice(&draft.digest);
        let signature = key.sign(&to_be_signed(draft.network, &bytes));
        bytes.extend_from_slice(&signature);
        Ok(Self {
            node,
            clock: draft.clock.clone(),
            time: draft.time,
            expires: draft.expires,
            digest: draft.digest,
            id: HeadId(sha256(&bytes)),
            bytes: bytes.into(),
        })
    }

    /// Reads a head. The signature is not checked yet.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, or not in its one encoding.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
        let mut reader = Reader::new(bytes);
        let parsed = Self::read(&mut reader)?;
        reader.end()?;
        Ok(parsed)
    }

    /// Reads the head with which some bytes begin.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Parsed, Malformed> {
        let all = reader.rest();
        let node = reader.node()?;
        let clock = reader.clock()?;
        let time = reader.number()?;
        let seconds = reader.number()?;
        let expires = time.checked_add(seconds).filter(|_| seconds > 0);
        let expires = expires.ok_or(Malformed("no valid time to expire"))?;
        let digest = reader.array()?;
        reader.take(SIGNATURE_BYTES)?;
        let length = all.len() - reader.rest().len();
        let bytes = all.get(..length).unwrap_or_default();
        Ok(Parsed(Self {
            node,
            clock,
            time: UnixTime(time),
            expires: UnixTime(expires),
            digest,
            id: HeadId(sha256(bytes)),
            bytes: bytes.into(),
        }))
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
pub struct Parsed(pub(crate) Head);

impl Parsed {
    /// What it says, whether true or not.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.0
    }

    /// Whether the node that it names signed it, for this network.
    #[must_use]
    pub fn is_signed(&self, network: &NetworkId) -> bool {
        self.item(network).is_some_and(|item| item.verify_single().is_ok())
    }

    /// The same with the key of its node, made ready before.
    pub(crate) fn is_signed_with(&self, key: &VerificationKey, network: &NetworkId) -> bool {
        let parts = self.0.bytes.split_last_chunk();
        parts.is_some_and(|(said, signature)| {
            let message = to_be_signed(network, said);
            key.verify(&Signature::from(signature), &message).is_ok()
        })
    }

    /// What is to be verified of it.
    pub(crate) fn item(&self, network: &NetworkId) -> Option<Item> {
        let (said, signature) = self.0.bytes.split_last_chunk()?;
        let message = to_be_signed(network, said);
        Some(signature::item(self.0.node.as_bytes(), &message, signature))
    }

    /// The head, if the node it names signed it for this network.
    #[must_use]
    pub fn verify(self, network: &NetworkId) -> Option<Head> {
        self.is_signed(network).then_some(self.0)
    }
}

fn to_be_signed(network: &NetworkId, said: &[u8]) -> Vec<u8> {
    [DOMAIN, network.as_bytes(), said].concat()
}

/// SHA-256 over the key, the dot and the SHA-256 of the value of so many elements, in their order.
pub(crate) fn digest_of<'a>(entries: usize, elements: impl Iterator<Item = &'a Element>) -> [u8; 32] {
    /// What is hashed at once: little enough to be had without a search for room.
    const PIECE: usize = 1000;
    /// An element is told in no more bytes: the length of a key and the key, two numbers, a hash.
    const MOST: usize = 1 + 32 + 2 * 10 + 32;
    let mut context = Context::new(&SHA256);
    let mut piece = Vec::with_capacity(PIECE);
    piece.extend_from_slice(b"dawn registry set 1\0");
    wire::put_number(&mut piece, entries as u64);
    for element in elements {
        if piece.len() + MOST > PIECE {
            context.update(&piece);
            piece.clear();
        }
        wire::put_bytes(&mut piece, element.key.as_str().as_bytes());
        wire::put_dot(&mut piece, element.dot);
        piece.extend_from_slice(element.value.hash());
    }
    context.update(&piece);
    hash_of(context)
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
            parsed
                .verify(network)
                .ok_or(Malformed("not signed by the node it names"))
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
