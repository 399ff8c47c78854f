//! What a caller looks for, as an FTS5 expression that is valid whatever the text was.
//!
//! Only runs of letters and digits are taken from the text, and each is quoted: no operator, column filter or
//! unfinished string of FTS5's query language can come through. The words are joined by OR, so that a question in a
//! whole sentence finds the notes that share the most telling words with it; bm25 puts those first.

use super::{limits, note::NoteError};

/// Words shorter than this, in characters, are looked for as they are; longer ones also as the beginning of a word.
const PREFIX_CHARS: usize = 3;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    text: String,
    words: Vec<String>,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`NoteError::EmptyQuery`], [`NoteError::LongQuery`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NoteError::EmptyQuery);
        }
        if text.len() > limits::QUERY_BYTES {
            return Err(NoteError::LongQuery { bytes: text.len() });
        }
        Ok(Self {
            text: text.to_owned(),
            words: words_of(text),
        })
    }

    /// The text, trimmed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its words in lower case, each once; none where the text holds no letter and no digit.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// The FTS5 expression, where there are words.
    pub(super) fn expression(&self) -> Option<String> {
        let quoted = self.words.iter().map(|word| {
            let prefix = if word.chars().nth(PREFIX_CHARS - 1).is_some() {
                "*"
            } else {
                ""
            };
            format!("\"{word}\"{prefix}")
        });
        (!self.words.is_empty()).then(|| quoted.collect::<Vec<_>>().join(" OR "))
    }
}

fn words_of(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let word = word.to_lowercase();
        if !words.contains(&word) {
            words.push(word);
            if words.len() == limits::QUERY_WORDS {
                break;
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression_of(text: &str) -> Option<String> {
        Query::parse(text).unwrap().expression()
    }

    #[test]
    fn operators_and_punctuation_of_the_query_language_are_only_words() {
        assert_eq!(
            expression_of("text: \"deploy\" NOT (x*").unwrap(),
            "\"text\"* OR \"deploy\"* OR \"not\"* OR \"x\""
        );
        assert_eq!(expression_of("a\0b").unwrap(), "\"a\" OR \"b\"");
    }

    #[test]
    fn a_query_without_words_has_no_expression() {
        assert_eq!(expression_of("?! 🎉"), None);
    }

    #[test]
    fn repeated_words_count_once_and_the_number_of_words_is_bounded() {
        assert_eq!(expression_of("go Go GO").unwrap(), "\"go\"");
        let many = (0..500).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(
            expression_of(&many).unwrap().matches(" OR ").count(),
            limits::QUERY_WORDS - 1
        );
    }

    #[test]
    fn empty_and_overlong_queries_are_refused() {
        assert_eq!(Query::parse(" \t"), Err(NoteError::EmptyQuery));
        assert!(matches!(
            Query::parse(&"x".repeat(9000)),
            Err(NoteError::LongQuery { bytes: 9000 })
        ));
    }
}
