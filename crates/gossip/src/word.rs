//! Words: what is said of whether a node is there, signed by who says it.
//!
//! A word is not a statement as certificates are (a CWT): all get it from each other, whenever a node comes or goes, and
//! 110 bytes do instead of 250.

use dawn_identity::{Keypair, NetworkId, NodeId, SIGNATURE_BYTES};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sha2::{Digest as _, Sha256};

/// Separates what is signed here from everything else that the same key signs.
const DOMAIN: &[u8] = b"dawn gossip: a word, version 1\0";

/// What signs for this node, and checks what others signed. A node's [`Keypair`] is one; a simulator may have another.
pub trait Voice {
    /// This node's signature.
    fn sign(&self, statement: &[u8]) -> [u8; SIGNATURE_BYTES];

    /// Whether `node` signed this.
    fn verify(&self, node: &NodeId, statement: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool;
}

impl Voice for Keypair {
    fn sign(&self, statement: &[u8]) -> [u8; SIGNATURE_BYTES] {
        Keypair::sign(self, statement)
    }

    fn verify(&self, node: &NodeId, statement: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        node.verify(statement, signature).is_ok()
    }
}

impl<V: Voice + ?Sized> Voice for std::sync::Arc<V> {
    fn sign(&self, statement: &[u8]) -> [u8; SIGNATURE_BYTES] {
        (**self).sign(statement)
    }

    fn verify(&self, node: &NodeId, statement: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        (**self).verify(node, statement, signature)
    }
}

/// What is said of a node. The order is that in which they replace each other within one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Says {
    /// It is there.
    Alive,
    /// It was not heard, says this other node.
    Suspect(NodeId),
    /// It goes.
    Leaving,
}

/// Incarnation and what was said of it: the greater one counts. Who says it does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rank(pub(crate) u64, pub(crate) u8);

/// A word about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) says: Says,
}

impl Word {
    pub(crate) fn rank(&self) -> Rank {
        let place = match self.says {
            Says::Alive => 0,
            Says::Suspect(_) => 1,
            Says::Leaving => 2,
        };
        Rank(self.incarnation, place)
    }

    /// Whose signature it needs.
    pub(crate) fn author(&self) -> NodeId {
        match self.says {
            Says::Alive | Says::Leaving => self.node,
            Says::Suspect(by) => by,
        }
    }

    fn statement(&self, network: &NetworkId) -> Vec<u8> {
        let Rank(incarnation, place) = self.rank();
        let mut statement = Vec::with_capacity(DOMAIN.len() + 105);
        statement.extend_from_slice(DOMAIN);
        statement.extend_from_slice(network.as_bytes());
        statement.push(place);
        statement.extend_from_slice(&incarnation.to_be_bytes());
        statement.extend_from_slice(self.node.as_bytes());
        statement.extend_from_slice(self.author().as_bytes());
        statement
    }

    pub(crate) fn sign(self, network: &NetworkId, voice: &impl Voice) -> Said {
        let signature = voice.sign(&self.statement(network));
        Said { word: self, signature }
    }

    /// 64 bits that stand for it, and for who is meant.
    pub(crate) fn print(&self) -> u64 {
        let Rank(incarnation, place) = self.rank();
        let mut hash = Sha256::new();
        hash.update(self.node.as_bytes());
        hash.update(incarnation.to_be_bytes());
        hash.update([place]);
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// A word with the signature of its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub(crate) struct Said {
    pub(crate) word: Word,
    signature: [u8; SIGNATURE_BYTES],
}

/// As it travels: node, incarnation, what is said, signature.
type Wire = (NodeId, u64, Says, ByteArray<SIGNATURE_BYTES>);

impl From<Wire> for Said {
    fn from((node, incarnation, says, signature): Wire) -> Self {
        let word = Word {
            node,
            incarnation,
            says,
        };
        let signature = signature.into_array();
        Self { word, signature }
    }
}

impl From<Said> for Wire {
    fn from(Said { word, signature }: Said) -> Self {
        (word.node, word.incarnation, word.says, ByteArray::new(signature))
    }
}

impl Said {
    /// Whether its author signed it.
    pub(crate) fn is_signed(&self, network: &NetworkId, voice: &impl Voice) -> bool {
        voice.verify(&self.word.author(), &self.word.statement(network), &self.signature)
    }
}
