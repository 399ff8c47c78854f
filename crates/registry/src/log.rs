//! The log of what happened: entries in a chain of hashes, so that none can be altered, left out or put in between
//! without all that follow showing it.
//!
//! Old entries are given up by a compaction, an entry itself: it names the last entry that is gone by number and hash,
//! which the first of those that stay names as well. What [`verify`] cannot see is whether the newest entries are
//! missing: who wants to know that keeps [`Chain::last`] somewhere else.

use std::fmt;

use dawn_identity::{NodeId, UnixTime};

use crate::head::sha256;
use crate::wire::{self, Malformed, Reader};

/// Longest name of what happened, bytes.
pub const MAX_KIND_BYTES: usize = 64;
/// Longest content of an entry, bytes.
pub const MAX_CONTENT_BYTES: usize = 4 << 10;

/// The first byte of every entry.
const VERSION: u8 = 1;
const LABEL: &[u8] = b"dawn log 1\0";
const EVENT: u8 = 0;
const COMPACTED: u8 = 1;

/// The SHA-256 of an entry; zeroes before the first one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

/// Hexadecimal.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Something of a kind, such as `agent.added`.
    Event {
        /// Its name, at most [`MAX_KIND_BYTES`].
        kind: String,
        /// Its particulars, at most [`MAX_CONTENT_BYTES`].
        content: Vec<u8>,
    },
    /// Entries were given up.
    Compacted {
        /// The number of the last of them.
        until: u64,
        /// Its hash.
        hash: Hash,
    },
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The hash of the entry before.
    pub previous: Hash,
    /// Its place, from 0 on.
    pub number: u64,
    /// When it was written.
    pub at: UnixTime,
    /// Who did it.
    pub who: NodeId,
    /// What happened.
    pub what: What,
}

impl Entry {
    /// The bytes to keep.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.previous.0);
        wire::put_number(&mut out, self.number);
        wire::put_number(&mut out, self.at.0);
        out.extend_from_slice(self.who.as_bytes());
        match &self.what {
            What::Event { kind, content } => {
                out.push(EVENT);
                wire::put_bytes(&mut out, kind.as_bytes());
                wire::put_bytes(&mut out, content);
            }
            What::Compacted { until, hash } => {
                out.push(COMPACTED);
                wire::put_number(&mut out, *until);
                out.extend_from_slice(&hash.0);
            }
        }
        out
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, too long, or not in its one encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(Malformed("an entry of another version"));
        }
        let previous = Hash(reader.array()?);
        let (number, at, who) = (reader.number()?, UnixTime(reader.number()?), reader.node()?);
        let what = match reader.byte()? {
            EVENT => {
                let (kind, content) = (reader.bytes()?, reader.bytes()?);
                if kind.len() > MAX_KIND_BYTES || content.len() > MAX_CONTENT_BYTES {
                    return Err(Malformed("an entry longer than any"));
                }
                let kind = std::str::from_utf8(kind).map_err(|_| Malformed("a kind that is no text"))?;
                What::Event {
                    kind: kind.to_owned(),
                    content: content.to_vec(),
                }
            }
            COMPACTED => What::Compacted {
                until: reader.number()?,
                hash: Hash(reader.array()?),
            },
            _ => return Err(Malformed("an entry of another kind")),
        };
        reader.end()?;
        Ok(Self {
            previous,
            number,
            at,
            who,
            what,
        })
    }

    /// Its hash, which the next one names.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash(sha256(&[LABEL, &self.encode()].concat()))
    }
}

/// Why something is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The kind or the content is longer than allowed.
    #[error("the entry is longer than any may be")]
    TooLong,
    /// A compaction of what was not yet written.
    #[error("entry {0} was not yet written")]
    NotWritten(u64),
    /// There are no numbers left.
    #[error("the log is full")]
    Full,
}

/// Where some entries are no chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It does not follow the one before: one of the two was altered, or something between them is missing.
    #[error("entry {0} does not follow the one before it")]
    Link(u64),
    /// What was before the first one is gone, and no compaction says so.
    #[error("what was before entry {0} is missing")]
    Front(u64),
    /// It says that entries were given up which come after it.
    #[error("entry {0} is a compaction of what comes after it")]
    Compaction(u64),
}

/// The end of a log, where the next entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain {
    last: Hash,
    length: u64,
}

impl Chain {
    /// The end of a log whose newest entry this is.
    #[must_use]
    pub fn after(newest: &Entry) -> Self {
        Self {
            last: newest.hash(),
            length: newest.number.saturating_add(1),
        }
    }

    /// The hash of the newest entry.
    #[must_use]
    pub fn last(&self) -> Hash {
        self.last
    }

    /// How many entries were ever written.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next entry.
    ///
    /// # Errors
    /// [`LogError`] says why there is none.
    pub fn append(&mut self, at: UnixTime, who: NodeId, what: What) -> Result<Entry, LogError> {
        match &what {
            What::Event { kind, content } if kind.len() > MAX_KIND_BYTES || content.len() > MAX_CONTENT_BYTES => {
                return Err(LogError::TooLong);
            }
            What::Compacted { until, .. } if *until >= self.length => return Err(LogError::NotWritten(*until)),
            What::Event { .. } | What::Compacted { .. } => {}
        }
        let entry = Entry {
            previous: self.last,
            number: self.length,
            at,
            who,
            what,
        };
        self.length = self.length.checked_add(1).ok_or(LogError::Full)?;
        self.last = entry.hash();
        Ok(entry)
    }

    /// The entry that gives up all up to and with `last`. When it is kept, they may be deleted.
    ///
    /// # Errors
    /// [`LogError`] says why there is none.
    pub fn compact(&mut self, at: UnixTime, who: NodeId, last: &Entry) -> Result<Entry, LogError> {
        let (until, hash) = (last.number, last.hash());
        self.append(at, who, What::Compacted { until, hash })
    }
}

/// Checks that entries follow each other without gaps, from the very first, or from where a compaction among them says.
///
/// # Errors
/// [`Broken`] says at which entry they do not.
pub fn verify<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Chain, Broken> {
    let mut chain: Option<Chain> = None;
    // What the first entry names as before it, as long as no compaction was found that says so.
    let mut open: Option<(u64, Hash)> = None;
    for entry in entries {
        match chain {
            Some(chain) if entry.number != chain.length || entry.previous != chain.last => {
                return Err(Broken::Link(entry.number));
            }
            None if entry.number > 0 => open = Some((entry.number, entry.previous)),
            None if entry.previous != Hash::default() => return Err(Broken::Link(0)),
            Some(_) | None => {}
        }
        if let What::Compacted { until, hash } = entry.what {
            if until >= entry.number {
                return Err(Broken::Compaction(entry.number));
            }
            open = open.filter(|(first, before)| first - 1 != until || hash != *before);
        }
        chain = Some(Chain::after(entry));
    }
    match open {
        Some((first, _)) => Err(Broken::Front(first)),
        None => Ok(chain.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn who() -> NodeId {
        Keypair::from_seed([1; 32]).node_id()
    }

    fn log(length: u8) -> (Chain, Vec<Entry>) {
        let mut chain = Chain::default();
        let entries = (0..length).map(|number| {
            let (kind, content) = ("agent.added".to_owned(), vec![number]);
            chain
                .append(UnixTime(100), who(), What::Event { kind, content })
                .unwrap()
        });
        let entries = entries.collect();
        (chain, entries)
    }

    #[test]
    fn a_log_that_nobody_touched_is_whole() {
        let (chain, entries) = log(5);
        assert_eq!(verify(&entries), Ok(chain));
        assert_eq!(chain.length(), 5);
        assert_eq!(verify(&[]), Ok(Chain::default()));
    }

    #[test]
    fn what_was_altered_left_out_or_moved_is_noticed() {
        let (_, entries) = log(5);
        let mut altered = entries.clone();
        altered[2].at = UnixTime(101);
        assert_eq!(verify(&altered), Err(Broken::Link(3)));
        let mut shorter = entries.clone();
        shorter.remove(2);
        assert_eq!(verify(&shorter), Err(Broken::Link(3)));
        let mut moved = entries.clone();
        moved.swap(1, 2);
        assert_eq!(verify(&moved), Err(Broken::Link(2)));
        assert_eq!(verify(&entries[1..]), Err(Broken::Front(1)));
        let mut first = entries.clone();
        first[0].previous = Hash([1; 32]);
        assert_eq!(verify(&first), Err(Broken::Link(0)));
        // The newest missing: the chain ends elsewhere.
        assert_ne!(verify(&entries[..4]).unwrap().last(), verify(&entries).unwrap().last());
    }

    #[test]
    fn only_a_compaction_lets_the_front_go() {
        let (mut chain, mut entries) = log(5);
        let compaction = chain.compact(UnixTime(200), who(), &entries[2]).unwrap();
        entries.push(compaction);
        // Also while the entries are still there.
        assert_eq!(verify(&entries), Ok(chain));
        assert_eq!(verify(&entries[3..]), Ok(chain));
        assert_eq!(verify(&entries[2..]), Err(Broken::Front(2)));
        assert_eq!(verify(&entries[4..]), Err(Broken::Front(4)));
        // The next one gives up the first one, too.
        let again = chain.compact(UnixTime(300), who(), &entries[5]).unwrap();
        let after = chain
            .append(
                UnixTime(300),
                who(),
                What::Event {
                    kind: "x".into(),
                    content: vec![],
                },
            )
            .unwrap();
        assert_eq!(verify(&[again, after]), Ok(chain));
        // One that names another hash.
        let what = What::Compacted {
            until: 4,
            hash: Hash([7; 32]),
        };
        let (mut chain, mut entries) = log(6);
        entries.push(chain.append(UnixTime(1), who(), what).unwrap());
        assert_eq!(verify(&entries[5..]), Err(Broken::Front(5)));
        let what = What::Compacted {
            until: 7,
            hash: Hash([7; 32]),
        };
        assert_eq!(
            chain.append(UnixTime(1), who(), what.clone()),
            Err(LogError::NotWritten(7))
        );
        entries.push(Entry {
            previous: chain.last(),
            number: 7,
            at: UnixTime(1),
            who: who(),
            what,
        });
        assert_eq!(verify(&entries), Err(Broken::Compaction(7)));
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let what = |kind: usize, content: usize| What::Event {
            kind: "x".repeat(kind),
            content: vec![0; content],
        };
        let mut chain = Chain::default();
        for (kind, content) in [(MAX_KIND_BYTES + 1, 0), (0, MAX_CONTENT_BYTES + 1)] {
            assert_eq!(
                chain.append(UnixTime(1), who(), what(kind, content)),
                Err(LogError::TooLong)
            );
        }
        assert_eq!(chain, Chain::default());
        assert!(
            chain
                .append(UnixTime(1), who(), what(MAX_KIND_BYTES, MAX_CONTENT_BYTES))
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn entries_come_back_and_have_one_encoding(place in any::<prop::sample::Index>(), bit in 0..8u8, bytes: Vec<u8>) {
            let (mut chain, mut entries) = log(3);
            entries.push(chain.compact(UnixTime(200), who(), &entries[1]).unwrap());
            for entry in &entries {
                let mut encoded = entry.encode();
                prop_assert_eq!(Entry::decode(&encoded), Ok(entry.clone()));
                let place = place.index(encoded.len());
                encoded[place] ^= 1 << bit;
                if let Ok(other) = Entry::decode(&encoded) {
                    prop_assert_ne!(&other, entry);
                    prop_assert_eq!(other.encode(), encoded);
                }
            }
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }
}
