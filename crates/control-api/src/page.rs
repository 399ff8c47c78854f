//! Long lists, page by page.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_CURSOR_BYTES, MAX_PAGE_ITEMS, PAGE_ITEMS};

/// Where the next page begins: an opaque text that the control plane made, of `A-Za-z0-9_-`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor(String);

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: expected what an earlier page gave as `next`")]
pub struct ParseCursorError;

impl Cursor {
    /// The cursor of these bytes, at most 192 of them.
    ///
    /// # Errors
    /// `ParseCursorError` if there are more.
    pub fn of(bytes: &[u8]) -> Result<Self, ParseCursorError> {
        data_encoding::BASE64URL_NOPAD.encode(bytes).parse()
    }

    /// The bytes it was made of, if it was made of any.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        data_encoding::BASE64URL_NOPAD.decode(self.0.as_bytes()).ok()
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > MAX_CURSOR_BYTES || !text.bytes().all(is_plain) {
            return Err(ParseCursorError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Cursor {
    type Error = ParseCursorError;

    fn try_from(text: String) -> Result<Self, ParseCursorError> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.0
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins; missing on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

/// Which page is asked for, in the query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where it begins; the first page without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Most items on it; `limits::PAGE_ITEMS` without, and never more than `limits::MAX_PAGE_ITEMS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How many items a page has where `limit` were asked for.
pub(crate) fn items(limit: Option<u32>) -> u32 {
    limit.unwrap_or(PAGE_ITEMS).clamp(1, MAX_PAGE_ITEMS)
}

impl PageQuery {
    /// How many items the page has at most.
    pub fn items(&self) -> u32 {
        items(self.limit)
    }
}
