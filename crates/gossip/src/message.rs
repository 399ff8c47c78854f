//! What neighbours send each other: CBOR in its one encoding.

use std::fmt;

use dawn_identity::NodeId;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use sha2::{Digest as _, Sha256};

use crate::word::{Rank, Said, Word};

/// Longest news, bytes. What is longer is left to whoever compares what two nodes have.
pub const MAX_NEWS_BYTES: usize = 64 << 10;
/// Longest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = MAX_NEWS_BYTES + 64;
/// Most ids in a message.
pub(crate) const MAX_IDS: usize = 1024;
/// Most nodes that a message lists, or asks for.
pub(crate) const MAX_LISTED: usize = 1024;
/// Most words in a message.
pub(crate) const MAX_WORDS: usize = 384;
/// Parts that everything known of presence is compared in.
pub(crate) const BUCKETS: usize = 64;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

/// News of so many bytes do not travel: [`MAX_NEWS_BYTES`] is the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("news of {0} bytes are longer than any that travel")]
pub struct TooLong(pub usize);

/// Names news: the first half of the SHA-256 of what they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewsId([u8; Self::BYTES]);

impl NewsId {
    const BYTES: usize = 16;

    fn of(domain: u8, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update([domain]);
        parts.iter().for_each(|part| hash.update(part));
        let mut id = [0; Self::BYTES];
        id.copy_from_slice(&hash.finalize()[..Self::BYTES]);
        Self(id)
    }

    pub(crate) fn of_news(bytes: &[u8]) -> Self {
        Self::of(0, &[bytes])
    }

    /// Words that say the same have the same name, whoever says it.
    pub(crate) fn of_word(word: &Word) -> Self {
        let Rank(incarnation, place) = word.rank();
        Self::of(1, &[word.node.as_bytes(), &incarnation.to_be_bytes(), &[place]])
    }
}

/// In hexadecimal.
impl fmt::Display for NewsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NewsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewsId({self})")
    }
}

/// Ids of news, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ids(ByteBuf);

impl Ids {
    pub(crate) fn iter(&self) -> impl Iterator<Item = NewsId> {
        let (ids, _) = self.0.as_chunks();
        ids.iter().map(|id| NewsId(*id))
    }

    fn is_bounded(&self) -> bool {
        self.0.len().is_multiple_of(NewsId::BYTES) && self.0.len() <= MAX_IDS * NewsId::BYTES
    }
}

impl<'a> FromIterator<&'a NewsId> for Ids {
    fn from_iter<I: IntoIterator<Item = &'a NewsId>>(ids: I) -> Self {
        let bytes: Vec<u8> = ids.into_iter().flat_map(|NewsId(id)| id).copied().collect();
        Self(ByteBuf::from(bytes))
    }
}

/// What two nodes that know the same have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprints {
    /// Of what the driver knows.
    #[serde(rename = "k")]
    pub(crate) known: ByteArray<32>,
    /// Of who is there.
    #[serde(rename = "p")]
    pub(crate) presence: ByteArray<16>,
}

/// A message over a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The first on a link: how many others the sender has, and that it is there.
    Hello(u8, Said),
    /// The link lives.
    Ping,
    /// The link is given up; its end is not gone.
    Bye,
    /// News.
    News(ByteBuf),
    /// Whether somebody is there; spread as news are.
    Word(Said),
    /// News that the sender has.
    Have(Ids),
    /// News that the sender wants, and from now on all others at once.
    Graft(Ids),
    /// Further news are to be announced only.
    Prune,
    /// What the sender knows. If it is the second look, a difference is one.
    Compare(Fingerprints, bool),
    /// 64 bits for each part of what the sender knows of presence.
    Buckets(ByteBuf),
    /// Whom the sender knows in these parts (a set of bits).
    Listed(u64, Vec<(NodeId, Rank)>),
    /// Nodes of whom the sender wants the last word.
    Want(Vec<NodeId>),
    /// Words that the receiver lacks.
    Words(Vec<Said>),
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Nothing that is written here can fail: it goes to memory, and has no maps with odd keys.
        let written = ciborium::into_writer(self, &mut bytes);
        debug_assert!(written.is_ok());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        /// Deeper than any message.
        const DEPTH: usize = 8;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed("a message longer than any"));
        }
        let message = ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH);
        let message: Self = message.map_err(|_| Malformed("no message"))?;
        if !message.is_bounded() {
            return Err(Malformed("more than a message has"));
        }
        if message.encode() != bytes {
            return Err(Malformed("not in its one encoding"));
        }
        Ok(message)
    }

    fn is_bounded(&self) -> bool {
        match self {
            Self::News(bytes) => bytes.len() <= MAX_NEWS_BYTES,
            Self::Have(ids) | Self::Graft(ids) => ids.is_bounded(),
            Self::Buckets(bytes) => bytes.len() == BUCKETS * 8,
            Self::Listed(_, listed) => listed.len() <= MAX_LISTED,
            Self::Want(nodes) => nodes.len() <= MAX_LISTED,
            Self::Words(words) => words.len() <= MAX_WORDS,
            Self::Hello(..) | Self::Ping | Self::Bye | Self::Word(_) | Self::Prune | Self::Compare(..) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;
    use crate::word::Says;

    fn said(says: Says) -> Said {
        let keypair = Keypair::from_seed([1; 32]);
        let node = keypair.node_id();
        let word = Word {
            node,
            incarnation: u64::MAX,
            says,
        };
        word.sign(&Keypair::from_seed([9; 32]).network_id(), &keypair)
    }

    #[test]
    fn the_longest_messages_fit_and_come_back() {
        let node = Keypair::from_seed([1; 32]).node_id();
        let id = NewsId::of_news(b"news");
        for message in [
            Message::Hello(12, said(Says::Alive)),
            Message::Ping,
            Message::Bye,
            Message::News(ByteBuf::from(vec![7; MAX_NEWS_BYTES])),
            Message::Word(said(Says::Suspect(node))),
            Message::Have([id; MAX_IDS].iter().collect()),
            Message::Graft([id; MAX_IDS].iter().collect()),
            Message::Prune,
            Message::Compare(
                Fingerprints {
                    known: ByteArray::new([1; 32]),
                    presence: ByteArray::new([2; 16]),
                },
                true,
            ),
            Message::Buckets(ByteBuf::from([3; BUCKETS * 8])),
            Message::Listed(u64::MAX, vec![(node, Rank(u64::MAX, 2)); MAX_LISTED]),
            Message::Want(vec![node; MAX_LISTED]),
            Message::Words(vec![said(Says::Suspect(node)); MAX_WORDS]),
        ] {
            let bytes = message.encode();
            assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{}", bytes.len());
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn what_is_more_than_a_message_has_is_refused() {
        let node = Keypair::from_seed([1; 32]).node_id();
        let id = NewsId::of_news(b"news");
        for message in [
            Message::News(ByteBuf::from(vec![7; MAX_NEWS_BYTES + 1])),
            Message::Have([id; MAX_IDS + 1].iter().collect()),
            Message::Graft(Ids(ByteBuf::from([1; 17]))),
            Message::Buckets(ByteBuf::from([3; 8])),
            Message::Want(vec![node; MAX_LISTED + 1]),
            Message::Words(vec![said(Says::Leaving); MAX_WORDS + 1]),
        ] {
            assert!(Message::decode(&message.encode()).is_err());
        }
    }

    #[test]
    fn messages_are_written_as_ever() {
        let [node, by] = [1, 2].map(|byte| NodeId::from_bytes([byte; 32]));
        let id = NewsId([3; 16]);
        // The signature is of no matter here.
        let said = |says| Said::from((node, 5, says, ByteArray::new([0; 64])));
        let fingerprints = Fingerprints {
            known: ByteArray::new([8; 32]),
            presence: ByteArray::new([9; 16]),
        };
        let messages = [
            Message::Hello(12, said(Says::Alive)),
            Message::Ping,
            Message::Bye,
            Message::News(ByteBuf::from(*b"news")),
            Message::Word(said(Says::Suspect(by))),
            Message::Have([id].iter().collect()),
            Message::Graft([id].iter().collect()),
            Message::Prune,
            Message::Compare(fingerprints, true),
            Message::Buckets(ByteBuf::from([7; BUCKETS * 8])),
            Message::Listed(1 << 63, vec![(node, Rank(5, 1))]),
            Message::Want(vec![node]),
            Message::Words(vec![said(Says::Leaving)]),
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        // Of the same messages as another encoder of CBOR writes them.
        let hash: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(bytes.len(), 1148);
        assert_eq!(hash, "3f0f88ed479d31eb8821db3a026257c1786e5f2912473afd189a3e945dba0abd");
    }

    #[test]
    fn a_ping_has_few_bytes_and_a_word_has_little_more_than_its_signature() {
        assert_eq!(Message::Ping.encode().len(), 5);
        let word = Message::Word(said(Says::Alive)).encode().len();
        assert!(word <= 128, "{word}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes: Vec<u8>) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
