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
use crate::store::Store;

/// Entries about what one node does within [`SPAN`].
const ENTRIES: u32 = 240;
const SPAN: Duration = Duration::from_secs(3600);
/// Between two looks at whether entries are too old.
const LOOK: Duration = Duration::from_secs(600);
/// Entries that wait until they can be kept.
const UNKEPT: usize = 4096;
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
    /// Whether the end is to be looked up again, as something was written of which nobody knows whether it was kept.
    is_lost: bool,
    /// What was written and could not be kept.
    unkept: Vec<Entry>,
    /// Since when how many entries about a node were written.
    written: BTreeMap<NodeId, (UnixTime, u32)>,
}

impl Journal {
    /// Finds the end of the log that is kept.
    pub(super) async fn open(store: &Store, local: NodeId) -> Result<Self, NodeError> {
        let mut journal = Self {
            held: 0,
            looked: None,
            local,
            chain: Chain::default(),
            is_lost: true,
            unkept: Vec::new(),
            written: BTreeMap::new(),
        };
        journal.find_end(store).await?;
        Ok(journal)
    }

    async fn find_end(&mut self, store: &Store) -> Result<(), NodeError> {
        let newest = store.log(1).await?.pop();
        let oldest = store.log_first().await?;
        let length = newest.as_ref().map_or(0, |newest| newest.number + 1);
        self.held = length - oldest.unwrap_or(length).min(length);
        self.chain = newest.as_ref().map(Chain::after).unwrap_or_default();
        if let Some(last) = self.unkept.iter().position(|entry| Some(entry) == newest.as_ref()) {
            // They were kept, and only the word of it was lost.
            self.unkept.drain(..=last);
        }
        self.is_lost = false;
        Ok(())
    }

    /// Whether something waits to be kept.
    pub(super) fn is_behind(&self) -> bool {
        !self.unkept.is_empty()
    }

    /// So many were kept.
    pub(super) fn kept(&mut self, count: usize) {
        self.held += count as u64;
    }

    /// These could not be kept, or nobody knows whether they were: they are written again with the next ones.
    pub(super) fn not_kept(&mut self, entries: Vec<Entry>) {
        self.is_lost = true;
        let room = UNKEPT.saturating_sub(self.unkept.len());
        if entries.len() > room {
            tracing::error!(entries = entries.len() - room, "what happened is missing in the log");
        }
        self.unkept.extend(entries.into_iter().take(room));
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

    /// The entries for these notes, but for those of a node that has filled its part; before them what could not be kept
    /// until now. None while the end of the log cannot be found.
    pub(super) async fn write(&mut self, store: &Store, notes: Vec<Note>, at: UnixTime) -> Vec<Entry> {
        let is_found = self.is_found(store).await;
        // Numbered anew: what was to be the end may not have become it.
        let waiting = if is_found {
            std::mem::take(&mut self.unkept)
        } else {
            Vec::new()
        };
        let again = waiting
            .into_iter()
            .filter_map(|entry| told(self.chain.append(entry.at, entry.who, entry.what)));
        let mut entries: Vec<Entry> = again.collect();
        for note in notes {
            let content = note.content.to_string();
            match self.share_of(note.who, at) {
                Some(true) => entries.extend(self.entry(at, note.who, note.kind, content)),
                Some(false) => entries.extend(self.entry(at, note.who, "log.limited", json!({}).to_string())),
                None => {}
            }
        }
        if is_found {
            return entries;
        }
        self.not_kept(entries);
        Vec::new()
    }

    /// Whether the end of the log is known, where it has to be looked up first.
    async fn is_found(&mut self, store: &Store) -> bool {
        if self.is_lost
            && let Err(error) = self.find_end(store).await
        {
            tracing::error!(%error, "the end of the log of the registry could not be found");
        }
        !self.is_lost
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
    pub(super) async fn compact(&mut self, store: &Store, last: &Entry, at: UnixTime) -> Option<Entry> {
        match self.is_found(store).await {
            true => told(self.chain.compact(at, self.local, last)),
            false => None,
        }
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
    use crate::store::RegistryChange;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    async fn journal() -> (Journal, Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        (Journal::open(&store, node(1)).await.unwrap(), store, folder)
    }

    async fn keep(store: &Store, entries: &[Entry]) {
        let log = entries.to_vec();
        let change = RegistryChange {
            log,
            ..RegistryChange::default()
        };
        store.keep_registry(&change).await.unwrap();
    }

    fn notes(who: u8, count: u32) -> Vec<Note> {
        let note = |number| Note::new(node(who), "agent.changed", json!({ "number": number }));
        (0..count).map(note).collect()
    }

    #[tokio::test]
    async fn a_node_that_keeps_on_changing_fills_only_its_part_of_the_log_but_this_one_is_not_bounded() {
        let (mut journal, store, _folder) = journal().await;
        let mut entries = journal.write(&store, notes(2, 1000), NOW).await;
        assert_eq!(entries.len(), ENTRIES as usize + 1);
        let kind = |entry: &Entry| match &entry.what {
            What::Event { kind, .. } => kind.clone(),
            What::Compacted { .. } => String::new(),
        };
        assert_eq!(entries.last().map(kind).unwrap(), "log.limited");
        assert!(journal.write(&store, notes(2, 1), NOW + SPAN / 2).await.is_empty());
        entries.extend(journal.write(&store, notes(3, 1), NOW + SPAN / 2).await);
        entries.extend(journal.write(&store, notes(2, 1), NOW + SPAN).await);
        entries.extend(journal.write(&store, notes(1, 1000), NOW + SPAN).await);
        assert_eq!(entries.len(), ENTRIES as usize + 1 + 1 + 1 + 1000);
        assert_eq!(verify(&entries), Ok(journal.chain));
    }

    #[tokio::test]
    async fn what_could_not_be_kept_leaves_no_gap_and_what_is_too_long_is_said_to_be() {
        let (mut journal, store, _folder) = journal().await;
        let mut entries = journal.write(&store, notes(2, 3), NOW).await;
        keep(&store, &entries).await;
        let unkept = journal.write(&store, notes(2, 2), NOW).await;
        assert_eq!(unkept.len(), 2);
        journal.not_kept(unkept.clone());
        assert!(journal.is_behind());
        let long = Note::new(node(2), "x", json!({ "text": "x".repeat(MAX_CONTENT_BYTES) }));
        entries.extend(journal.write(&store, vec![long], NOW).await);
        assert_eq!((entries.len(), &entries[3..5]), (6, &unkept[..]));
        keep(&store, &entries[3..]).await;
        assert!(!journal.is_behind());
        journal.kept(3);
        assert!(journal.is_due(6, NOW) && !journal.is_due(6, NOW) && journal.is_due(6, NOW + LOOK));
        journal.kept(1000);
        assert!(!journal.is_due(6, NOW + LOOK) && journal.is_due(5, NOW + LOOK));
        entries.extend(journal.compact(&store, &entries[1].clone(), NOW).await);
        journal.compacted(1);
        assert_eq!(journal.held, 5);
        assert_eq!(verify(&entries[2..]), Ok(journal.chain));
    }

    #[tokio::test]
    async fn what_was_kept_though_an_error_came_is_not_written_twice() {
        let (mut journal, store, _folder) = journal().await;
        let mut entries = journal.write(&store, notes(2, 2), NOW).await;
        keep(&store, &entries).await;
        journal.not_kept(entries.clone());
        let more = journal.write(&store, notes(3, 1), NOW).await;
        assert_eq!(more.len(), 1);
        entries.extend(more);
        assert_eq!((verify(&entries), journal.held), (Ok(journal.chain), 2));
    }
}
