//! Notes and their parts. What comes from a caller is parsed here, once; everything behind holds valid parts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::limits;

/// One note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Note {
    /// Number of the note; never given to another one.
    pub id: i64,
    /// Name under which the note is replaced, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key: Option<String>,
    /// What was remembered.
    pub text: String,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// The node that wrote the note last, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub author: Option<String>,
    /// When the note was made (RFC 3339, UTC).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created: Timestamp,
    /// When the note was last written (RFC 3339, UTC).
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub updated: Timestamp,
}

impl Note {
    /// Text the note adds to an answer, bytes.
    pub(super) fn weight(&self) -> usize {
        self.text.len() + self.tags.iter().map(String::len).sum::<usize>() + self.key.as_ref().map_or(0, String::len)
    }
}

/// What a caller can mend. The messages say how: they are shown to people and models as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A note without text.
    #[error("`text` is empty: write what should be remembered")]
    EmptyText,
    /// A note that is too long.
    #[error(
        "`text` has {bytes} bytes, more than the {limit} a note may have: split it into several notes with a common tag",
        limit = limits::TEXT_BYTES
    )]
    LongText {
        /// Its length, bytes.
        bytes: usize,
    },
    /// A tag that is not usable.
    #[error(
        "the tag {tag:?} is not usable: a tag has 1 to {limit} bytes, without commas and control characters",
        limit = limits::TAG_BYTES
    )]
    BadTag {
        /// The tag, cut.
        tag: String,
    },
    /// Too many tags.
    #[error("{count} tags are more than the {limit} a note may have: leave some out", limit = limits::TAGS)]
    ManyTags {
        /// How many.
        count: usize,
    },
    /// A key that is not usable.
    #[error(
        "the key {key:?} is not usable: a key has 1 to {limit} bytes, without control characters",
        limit = limits::KEY_BYTES
    )]
    BadKey {
        /// The key, cut.
        key: String,
    },
    /// A search for nothing.
    #[error("`query` is empty: give some words to look for, or use `list` to see the latest notes")]
    EmptyQuery,
    /// A search for too much.
    #[error("`query` has {bytes} bytes, more than {limit}: give the few words that matter", limit = limits::QUERY_BYTES)]
    LongQuery {
        /// Its length, bytes.
        bytes: usize,
    },
    /// A number of notes out of range.
    #[error("`limit` must be a number from 1 to {limit}", limit = limits::PAGE_NOTES)]
    BadLimit,
    /// A place in the list that cannot be read.
    #[error(
        "`before` must be the `next` of an earlier answer, or a time such as 2026-01-31T12:00:00Z, but it is {value:?}"
    )]
    BadBefore {
        /// What was given, cut.
        value: String,
    },
    /// Neither or both of the ways to name a note.
    #[error("name the note to forget by either `id` or `key`; `recall` and `list` show them")]
    NoTarget,
    /// No such note.
    #[error("there is no note with {0}: it may be forgotten already; `recall` and `list` show what is there")]
    NotFound(NoteRef),
    /// The store holds as many notes, or as much text, as it may.
    #[error("the memory is full ({notes} notes, {bytes} bytes): forget some notes, or replace old ones by using keys")]
    Full {
        /// Notes in the store.
        notes: u64,
        /// Text in the store, bytes.
        bytes: u64,
    },
}

/// A tag: trimmed, in lower case, without commas and control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// Reads a tag.
    ///
    /// # Errors
    /// [`NoteError::BadTag`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let tag = text.trim().to_lowercase();
        if tag.is_empty() || tag.len() > limits::TAG_BYTES || tag.contains(|c: char| c == ',' || c.is_control()) {
            return Err(NoteError::BadTag {
                tag: cut(text, limits::TAG_BYTES).to_owned(),
            });
        }
        Ok(Self(tag))
    }

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name a caller gives to a note, so that the next note under it replaces this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// [`NoteError::BadKey`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let key = text.trim();
        if key.is_empty() || key.len() > limits::KEY_BYTES || key.contains(char::is_control) {
            return Err(NoteError::BadKey {
                key: cut(text, limits::KEY_BYTES).to_owned(),
            });
        }
        Ok(Self(key.to_owned()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a caller names a note that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteRef {
    /// By its number.
    Id(i64),
    /// By its key.
    Key(Key),
}

impl std::fmt::Display for NoteRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "the id {id}"),
            Self::Key(key) => write!(f, "the key {:?}", key.as_str()),
        }
    }
}

/// A note that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    text: String,
    tags: Option<Vec<Tag>>,
    key: Option<Key>,
}

impl Draft {
    /// A note with this text. Without `tags` a note that is replaced keeps the tags it has.
    ///
    /// # Errors
    /// A part that is empty, too long or not usable.
    pub fn new(text: String, tags: Option<&[String]>, key: Option<&str>) -> Result<Self, NoteError> {
        if text.trim().is_empty() {
            return Err(NoteError::EmptyText);
        }
        if text.len() > limits::TEXT_BYTES {
            return Err(NoteError::LongText { bytes: text.len() });
        }
        Ok(Self {
            text,
            tags: tags.map(parse_tags).transpose()?,
            key: key.map(Key::parse).transpose()?,
        })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tags, sorted and each once, where any were given.
    #[must_use]
    pub fn tags(&self) -> Option<&[Tag]> {
        self.tags.as_deref()
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }
}

fn parse_tags(tags: &[String]) -> Result<Vec<Tag>, NoteError> {
    if tags.len() > limits::TAGS {
        return Err(NoteError::ManyTags { count: tags.len() });
    }
    let mut tags = tags.iter().map(|tag| Tag::parse(tag)).collect::<Result<Vec<_>, _>>()?;
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

/// The longest beginning of `text` that has at most `bytes` bytes and ends between two characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_trimmed_lowered_sorted_and_kept_once() {
        let draft = Draft::new("x".into(), Some(&["Ops ".into(), "b".into(), "ops".into()]), None).unwrap();
        assert_eq!(
            draft.tags().unwrap().iter().map(Tag::as_str).collect::<Vec<_>>(),
            ["b", "ops"]
        );
    }

    #[test]
    fn unusable_parts_are_refused_with_advice() {
        let refused = |text: &str, tags: &[&str], key: Option<&str>| {
            let tags = tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>();
            Draft::new(text.to_owned(), Some(&tags), key).unwrap_err().to_string()
        };
        assert!(refused(" \n", &[], None).contains("write what"));
        assert!(refused(&"x".repeat(limits::TEXT_BYTES + 1), &[], None).contains("split it"));
        assert!(refused("x", &["a,b"], None).contains("without commas"));
        assert!(refused("x", &["a\nb"], None).contains("control characters"));
        assert!(refused("x", &["t"; 17], None).contains("17 tags"));
        assert!(refused("x", &[], Some("  ")).contains("key"));
        assert!(Draft::new("x".repeat(limits::TEXT_BYTES), None, None).is_ok());
    }

    #[test]
    fn a_cut_ends_between_two_characters() {
        assert_eq!(cut("aéb", 2), "a");
        assert_eq!(cut("aéb", 3), "aé");
        assert_eq!(cut("ab", 9), "ab");
    }
}
