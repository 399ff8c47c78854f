//! The log of the registry: what happened, in a chain of hashes.
//!
//! Every entry is written in the transaction of what it tells of. A node that keeps on changing fills so much of the log
//! within an hour, and no more.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{NodeId, UnixTime};
use dawn_registry::log::{Chain, Entry, LogError, MAX_CONTENT_BYTES, What};
use serde_json::{Value, json};

use crate::error::NodeError;
use crate::store::{LogRange, Store};

/// Entries about what one node does within [`SPAN`].
const ENTRIES: u32 = 240;
const SPAN: Duration = Duration::from_secs(3600);
/// Between two looks at whether entries are too old.
const LOOK: Duration = Duration::from_secs(600);
/// How many more entries than wanted there may be in between.
const STEP: u64 = 1000;

/// Something to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note {
    /// Who did it.
    pub(super) who: NodeId,
    /// What, by name.
    pub(super) kind: &'static str,
    /// The particulars.
    pub(super) content: Value,
}

impl Note {
    pub(super) fn new(who: NodeId, kind: &'static str, content: Value) -> Self {
        Self { who, kind, content }
    }
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Journal {
    local: NodeId,
    chain: Chain,
    /// How many entries there are.
    held: u64,
    /// When it was looked at last whether some are too old.
    looked: Option<UnixTime>,
    /// Since when how many entries about a node were written.
    written: BTreeMap<NodeId, (UnixTime, u32)>,
}

impl Journal {
    /// Finds the end of the log that is kept.
    pub(super) async fn open(store: &Store, local: NodeId) -> Result<Self, NodeError> {
        let range = LogRange { before: None, most: 1 };
        let newest = store.log(range).await?.pop();
        let oldest = store.log_first().await?;
        let length = newest.as_ref().map_or(0, |newest| newest.number + 1);
        Ok(Self {
            held: length - oldest.unwrap_or(length).min(length),
            looked: None,
            local,
            chain: newest.as_ref().map(Chain::after).unwrap_or_default(),
            written: BTreeMap::new(),
        })
    }

    /// So many were kept.
    pub(super) fn kept(&mut self, count: usize) {
        self.held += count as u64;
    }

    /// The entries up to this one are gone, and one says so.
    pub(super) fn compacted(&mut self, until: u64) {
        self.held = self.chain.length().saturating_sub(until.saturating_add(1));
    }

    /// Whether to look for entries to be given up: there are [`STEP`] more than `most`, or nobody looked for a while.
    pub(super) fn is_due(&mut self, most: u64, at: UnixTime) -> bool {
        let is_time = self.looked.is_none_or(|looked| at.since(looked) >= LOOK || at < looked);
        let is_due = is_time || self.held > most.saturating_add(STEP);
        if is_due {
            self.looked = Some(at);
        }
        is_due
    }

    /// The end, to go back to when what was written could not be kept.
    pub(super) fn end(&self) -> Chain {
        self.chain
    }

    pub(super) fn go_back(&mut self, end: Chain) {
        self.chain = end;
    }

    /// The entries for these notes, but for those of a node that has filled its part.
    pub(super) fn write(&mut self, notes: Vec<Note>, at: UnixTime) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(notes.len());
        for note in notes {
            let content = note.content.to_string();
            match self.share_of(note.who, at) {
                Some(true) => entries.extend(self.entry(at, note.who, note.kind, content)),
                Some(false) => entries.extend(self.entry(at, note.who, "log.limited", json!({}).to_string())),
                None => {}
            }
        }
        entries
    }

    /// Whether there is room for one more entry about a node; `Some(false)` for the one that says that there is none.
    fn share_of(&mut self, who: NodeId, at: UnixTime) -> Option<bool> {
        if who == self.local {
            return Some(true);
        }
        self.written
            .retain(|_, (since, _)| at.since(*since) < SPAN && at >= *since);
        let (_, count) = self.written.entry(who).or_insert((at, 0));
        *count = count.saturating_add(1);
        match *count {
            ..=ENTRIES => Some(true),
            count if count == ENTRIES + 1 => Some(false),
            _ => None,
        }
    }

    fn entry(&mut self, at: UnixTime, who: NodeId, kind: &str, mut content: String) -> Option<Entry> {
        if content.len() > MAX_CONTENT_BYTES {
            content = json!({ "too_long": content.len() }).to_string();
        }
        let what = What::Event {
            kind: kind.to_owned(),
            content: content.into_bytes(),
        };
        told(self.chain.append(at, who, what))
    }

    /// The entry that gives up all up to and with `last`.
    pub(super) fn compact(&mut self, last: &Entry, at: UnixTime) -> Option<Entry> {
        told(self.chain.compact(at, self.local, last))
    }
}

fn told(entry: Result<Entry, LogError>) -> Option<Entry> {
    match entry {
        Ok(entry) => Some(entry),
        Err(error) => {
            tracing::error!(%error, "something is missing in the log");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_registry::log::verify;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    async fn journal() -> Journal {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        Journal::open(&store, node(1)).await.unwrap()
    }

    fn notes(who: u8, count: u32) -> Vec<Note> {
        let note = |number| Note::new(node(who), "agent.changed", json!({ "number": number }));
        (0..count).map(note).collect()
    }

    #[tokio::test]
    async fn a_node_that_keeps_on_changing_fills_only_its_part_of_the_log_but_this_one_is_not_bounded() {
        let mut journal = journal().await;
        let mut entries = journal.write(notes(2, 1000), NOW);
        assert_eq!(entries.len(), ENTRIES as usize + 1);
        let kind = |entry: &Entry| match &entry.what {
            What::Event { kind, .. } => kind.clone(),
            What::Compacted { .. } => String::new(),
        };
        assert_eq!(entries.last().map(kind).unwrap(), "log.limited");
        assert!(journal.write(notes(2, 1), NOW + SPAN / 2).is_empty());
        entries.extend(journal.write(notes(3, 1), NOW + SPAN / 2));
        entries.extend(journal.write(notes(2, 1), NOW + SPAN));
        entries.extend(journal.write(notes(1, 1000), NOW + SPAN));
        assert_eq!(entries.len(), ENTRIES as usize + 1 + 1 + 1 + 1000);
        assert_eq!(verify(&entries), Ok(journal.end()));
    }

    #[tokio::test]
    async fn what_could_not_be_kept_leaves_no_gap_and_what_is_too_long_is_said_to_be() {
        let mut journal = journal().await;
        let mut entries = journal.write(notes(2, 3), NOW);
        let end = journal.end();
        let lost = journal.write(notes(2, 2), NOW);
        assert_eq!(lost.len(), 2);
        journal.go_back(end);
        let long = Note::new(node(2), "x", json!({ "text": "x".repeat(MAX_CONTENT_BYTES) }));
        entries.extend(journal.write(vec![long], NOW));
        assert_eq!(entries.len(), 4);
        journal.kept(entries.len());
        assert!(journal.is_due(4, NOW) && !journal.is_due(4, NOW) && journal.is_due(4, NOW + LOOK));
        journal.kept(1000);
        assert!(!journal.is_due(4, NOW + LOOK) && journal.is_due(3, NOW + LOOK));
        entries.extend(journal.compact(&entries[1].clone(), NOW));
        journal.compacted(1);
        assert_eq!(journal.held, 3);
        assert_eq!(verify(&entries[2..]), Ok(journal.end()));
    }
}
