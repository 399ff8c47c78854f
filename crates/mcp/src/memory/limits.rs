//! Every limit of the memory agent, with its unit.

use std::time::Duration;

/// Longest text of a note, bytes.
pub const TEXT_BYTES: usize = 64 << 10;
/// Longest key, bytes.
pub const KEY_BYTES: usize = 256;
/// Longest tag, bytes.
pub const TAG_BYTES: usize = 64;
/// Most tags on one note.
pub const TAGS: usize = 16;
/// Longest author's name that is kept, bytes; longer ones are cut.
pub const AUTHOR_BYTES: usize = 128;

/// Longest query, bytes.
pub const QUERY_BYTES: usize = 8 << 10;
/// Different words of a query that are looked for; further ones are ignored.
pub const QUERY_WORDS: usize = 32;
/// Longest query that is also looked for as it stands when none of its words is found, bytes.
pub const SUBSTRING_BYTES: usize = 256;
/// Words in the excerpt of a hit.
pub const SNIPPET_WORDS: usize = 32;
/// Longest excerpt, bytes, without its marks.
pub const SNIPPET_BYTES: usize = 480;

/// Most notes in one answer.
pub const PAGE_NOTES: u32 = 100;
/// Notes in one answer when the caller asks for no number.
pub const PAGE_NOTES_DEFAULT: u32 = 20;
/// Text in one answer, bytes; an answer always holds at least one note.
pub const PAGE_BYTES: usize = 256 << 10;
/// Notes in a briefing.
pub const BRIEF_NOTES: u32 = 20;
/// Tags and authors named in the statistics, the most frequent first.
pub const TALLIES: i64 = 20;

/// Most notes in a store.
pub const NOTES: u64 = 100_000;
/// Most text in a store, bytes.
pub const STORE_BYTES: u64 = 512 << 20;

/// Longest line of a connection, bytes. A longer one is dropped unanswered, so this is not less than what a node
/// lets through by default; texts have their own, smaller limit and a proper answer.
pub const LINE_BYTES: usize = 64 << 20;

/// How long a statement waits for the lock on the database.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Connections that read at once.
pub const READERS: u32 = 4;
