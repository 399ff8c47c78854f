//! Certificates: an entry with a quorum of witnesses' acknowledgements, which show that it is the only one of its place.

use ciborium::Value;
use dawn_identity::{Keypair, NodeId, SIGNATURE_BYTES};

use crate::{Entry, EntryHash, MAX_ENTRY_BYTES, MAX_WITNESSES, Refused, Terms};

/// Length of an encoded acknowledgement, bytes: a node and its signature.
pub const ACK_BYTES: usize = 32 + SIGNATURE_BYTES;
/// Longest encoded certificate that is read, bytes.
pub const MAX_CERTIFICATE_BYTES: usize = MAX_ENTRY_BYTES + MAX_WITNESSES * (ACK_BYTES + 2) + 8;

/// A witness's word that it acknowledges this entry and no other of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    node: NodeId,
    signature: [u8; SIGNATURE_BYTES],
}

/// What an acknowledgement is signed over.
fn text(entry: &EntryHash, terms: &Terms) -> Vec<u8> {
    let (network, set) = (terms.network(), terms.set());
    let parts: [&[u8]; 4] = [
        b"dawn ledger ack 1\0",
        network.as_bytes(),
        set.as_bytes(),
        entry.as_bytes(),
    ];
    parts.concat()
}

impl Ack {
    /// Acknowledges an entry. The lock that [`Witness::consider`](crate::Witness::consider) gave for it has to be on the
    /// disk before.
    pub fn sign(key: &Keypair, entry: &EntryHash, terms: &Terms) -> Self {
        Self {
            node: key.node_id(),
            signature: key.sign(&text(entry, terms)),
        }
    }

    /// Reads an acknowledgement. It is not checked yet.
    pub fn from_bytes(bytes: &[u8; ACK_BYTES]) -> Self {
        let mut node = [0; 32];
        let mut signature = [0; SIGNATURE_BYTES];
        let (front, back) = bytes.split_at(32);
        node.copy_from_slice(front);
        signature.copy_from_slice(back);
        Self {
            node: NodeId::from_bytes(node),
            signature,
        }
    }

    /// The node, and its signature.
    pub fn to_bytes(&self) -> [u8; ACK_BYTES] {
        let mut bytes = [0; ACK_BYTES];
        let (front, back) = bytes.split_at_mut(32);
        front.copy_from_slice(self.node.as_bytes());
        back.copy_from_slice(&self.signature);
        bytes
    }

    /// Who acknowledges.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether a witness of these terms acknowledges this entry.
    ///
    /// # Errors
    /// [`Refused::NotAWitness`] or [`Refused::Forged`].
    pub fn verify(&self, entry: &EntryHash, terms: &Terms) -> Result<(), Refused> {
        if !terms.witnesses().contains(&self.node) {
            return Err(Refused::NotAWitness(self.node));
        }
        let verified = self.node.verify(&text(entry, terms), &self.signature);
        verified.map_err(|_| Refused::Forged(self.node))
    }
}

/// An entry with acknowledgements. Having one proves nothing: [`Certificate::verify`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    entry: Entry,
    acks: Vec<Ack>,
}

impl Certificate {
    /// An entry with these acknowledgements, of each witness the first.
    pub fn new(entry: Entry, mut acks: Vec<Ack>) -> Self {
        acks.sort_by_key(Ack::node);
        acks.dedup_by_key(|ack| ack.node);
        Self { entry, acks }
    }

    /// The entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The acknowledgements, by ascending node.
    pub fn acks(&self) -> &[Ack] {
        &self.acks
    }

    /// CBOR of the entry and the list of its acknowledgements, each a byte string.
    pub fn encode(&self) -> Vec<u8> {
        let acks = self
            .acks
            .iter()
            .map(|ack| Value::Bytes(ack.to_bytes().to_vec()))
            .collect();
        let value = Value::Array(vec![Value::Bytes(self.entry.bytes().to_vec()), Value::Array(acks)]);
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let written = ciborium::into_writer(&value, &mut bytes);
        debug_assert!(written.is_ok(), "plain data");
        bytes
    }

    /// Reads a certificate; the entry's signature is checked, acknowledgements are not yet.
    ///
    /// # Errors
    /// [`Refused`]: too long, none, or the entry is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_CERTIFICATE_BYTES {
            return Err(Refused::TooLarge);
        }
        let value: Value = ciborium::de::from_reader_with_recursion_limit(bytes, 4)
            .map_err(|_| Refused::Malformed("not a certificate"))?;
        let parts = value.as_array().map(Vec::as_slice);
        let Some([Value::Bytes(entry), Value::Array(acks)]) = parts else {
            return Err(Refused::Malformed("not an entry and acknowledgements"));
        };
        if acks.is_empty() || acks.len() > MAX_WITNESSES {
            return Err(Refused::Malformed("too many acknowledgements, or none"));
        }
        let acks: Option<Vec<Ack>> = acks
            .iter()
            .map(|ack| Some(Ack::from_bytes(ack.as_bytes()?.as_slice().try_into().ok()?)))
            .collect();
        let acks = acks.ok_or(Refused::Malformed("an acknowledgement of a wrong length"))?;
        if !acks.is_sorted_by(|a, b| a.node < b.node) {
            return Err(Refused::Malformed("acknowledgements out of order"));
        }
        let read = Self {
            entry: Entry::decode(entry)?,
            acks,
        };
        if read.encode() == bytes {
            Ok(read)
        } else {
            Err(Refused::Malformed("not in its shortest encoding"))
        }
    }

    /// Whether a quorum of the witnesses of these terms acknowledges the entry, and nobody else seems to.
    ///
    /// # Errors
    /// [`Refused`] says what is wrong with it.
    pub fn verify(self, terms: &Terms) -> Result<Certified, Refused> {
        if self.entry.network() != terms.network() {
            return Err(Refused::WrongNetwork(self.entry.network()));
        }
        let (found, needed) = (self.acks.len(), terms.quorum());
        if found < needed {
            return Err(Refused::NoQuorum { found, needed });
        }
        for ack in &self.acks {
            ack.verify(&self.entry.hash(), terms)?;
        }
        Ok(Certified(self))
    }

    /// A certificate that was verified before, from one's own disk.
    pub fn from_own_disk(self) -> Certified {
        Certified(self)
    }
}

/// A certificate that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified(Certificate);

impl Certified {
    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// Its entry.
    pub fn entry(&self) -> &Entry {
        &self.0.entry
    }
}
