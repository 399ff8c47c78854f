//! What the store answers with. The serialisable ones are also the structured results of the tools.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::limits;
use super::note::{Note, NoteError, cut};

/// What became of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A new note was made.
    Created,
    /// The note with this key was replaced.
    Replaced,
}

/// A note that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Remembered {
    /// The note as it is kept now.
    pub note: Note,
    /// Whether it is new.
    pub outcome: Outcome,
}

/// A note that was found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Hit {
    /// The note.
    pub note: Note,
    /// The part of the text that matches best, with the words found between `**`.
    pub snippet: String,
    /// How well the note matches: greater is better; comparable within one answer only.
    pub score: f64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Hits {
    /// The best notes, the best first.
    pub hits: Vec<Hit>,
    /// Whether more notes match than are given here.
    pub more: bool,
}

/// A part of the list of notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Notes, the last written first.
    pub notes: Vec<Note>,
    /// Where the next page begins; none on the last page.
    pub next: Option<Before>,
}

/// A place in the list of notes: only older ones are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    pub(super) updated: Timestamp,
    pub(super) id: i64,
}

impl Before {
    /// Notes last written before this moment.
    #[must_use]
    pub fn time(updated: Timestamp) -> Self {
        Self { updated, id: i64::MIN }
    }
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id == i64::MIN {
            self.updated.fmt(f)
        } else {
            write!(f, "{}/{}", self.updated, self.id)
        }
    }
}

impl FromStr for Before {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let bad = || NoteError::BadBefore {
            value: cut(text, limits::KEY_BYTES).to_owned(),
        };
        let (updated, id) = match text.split_once('/') {
            Some((updated, id)) => (updated, id.parse().map_err(|_| bad())?),
            None => (text, i64::MIN),
        };
        Ok(Self {
            updated: updated.trim().parse().map_err(|_| bad())?,
            id,
        })
    }
}

/// How often something occurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tally {
    /// What occurs.
    pub name: String,
    /// In how many notes.
    pub notes: u64,
}

/// Statistics of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Stats {
    /// Notes in the store.
    pub notes: u64,
    /// Text in the store, bytes.
    pub bytes: u64,
    /// Notes the store may hold.
    pub notes_limit: u64,
    /// Text the store may hold, bytes.
    pub bytes_limit: u64,
    /// The most frequent tags.
    pub tags: Vec<Tally>,
    /// The nodes that wrote most.
    pub authors: Vec<Tally>,
    /// When the oldest note was made (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub oldest: Option<Timestamp>,
    /// When a note was last written (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub newest: Option<Timestamp>,
}
