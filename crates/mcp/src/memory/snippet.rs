//! The excerpt of a note that shows why it was found.
//!
//! FTS5 has a function for this, but its cost grows with the square of the hits in a text: a note of 64 KiB that
//! repeats a word takes a second. This one is linear.

use std::ops::Range;

use super::limits;

/// Least letters that two forms of a word have in common, where they have as many.
const STEM_CHARS: usize = 4;
/// Most letters by which a word of the query may be longer than what it has in common with another form of itself.
const ENDING_CHARS: usize = 3;

/// A word of a text.
struct Word {
    /// Where it is, bytes.
    at: Range<usize>,
    /// The query's word it is a form of.
    hit: Option<usize>,
}

/// The part of the text that holds most of the query's words, with each form of them between `**`. The query's words
/// are in lower case.
pub(super) fn of_words(text: &str, query: &[String]) -> String {
    let words = words_of(text, query);
    let begin = best_window(&words, query.len());
    let window = &words[begin..words.len().min(begin + limits::SNIPPET_WORDS)];
    let (Some(first), Some(last)) = (window.first(), window.last()) else {
        return cut_around(text, 0..0);
    };
    let start = if begin == 0 { 0 } else { first.at.start };
    let end = if begin + window.len() == words.len() {
        text.len()
    } else {
        last.at.end
    };
    if end - start > limits::SNIPPET_BYTES {
        let hit = window.iter().find(|word| word.hit.is_some()).unwrap_or(first);
        return cut_around(text, hit.at.start..hit.at.start);
    }
    let mut snippet = String::from(if start > 0 { "…" } else { "" });
    let mut copied = start;
    for word in window.iter().filter(|word| word.hit.is_some()) {
        snippet.push_str(&text[copied..word.at.start]);
        snippet.push_str("**");
        snippet.push_str(&text[word.at.clone()]);
        snippet.push_str("**");
        copied = word.at.end;
    }
    snippet.push_str(&text[copied..end]);
    snippet.push_str(if end < text.len() { "…" } else { "" });
    snippet
}

/// The part of the text around the first place where it holds `needle`, which stands between `**`. Case counts only
/// outside of ASCII, as in SQLite.
pub(super) fn of_substring(text: &str, needle: &str) -> String {
    let found = text.to_ascii_lowercase().find(&needle.to_ascii_lowercase());
    cut_around(text, found.map_or(0..0, |at| at..at + needle.len()))
}

/// Some text on both sides of `hit`, which is marked where it is not empty.
fn cut_around(text: &str, hit: Range<usize>) -> String {
    let room = limits::SNIPPET_BYTES / 2;
    let mut start = hit.start.saturating_sub(room);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let mut end = text.len().min(hit.end + room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mark = if hit.is_empty() { "" } else { "**" };
    let (before, after) = (
        if start > 0 { "…" } else { "" },
        if end < text.len() { "…" } else { "" },
    );
    let (left, middle, right) = (&text[start..hit.start], &text[hit.clone()], &text[hit.end..end]);
    format!("{before}{left}{mark}{middle}{mark}{right}{after}")
}

fn words_of(text: &str, query: &[String]) -> Vec<Word> {
    let mut words = Vec::new();
    for part in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|part| !part.is_empty())
    {
        let start = part.as_ptr().addr() - text.as_ptr().addr();
        let lower = part.to_lowercase();
        let hit = query.iter().position(|wanted| is_form_of(&lower, wanted));
        words.push(Word {
            at: start..start + part.len(),
            hit,
        });
    }
    words
}

/// Where the window begins that holds most different words of the query; the first of equals.
fn best_window(words: &[Word], wanted: usize) -> usize {
    let mut counts = vec![0_usize; wanted];
    let (mut different, mut best, mut begin) = (0, 0, 0);
    for (index, word) in words.iter().enumerate() {
        if let Some(hit) = word.hit {
            different += usize::from(counts[hit] == 0);
            counts[hit] += 1;
        }
        let left = index
            .checked_sub(limits::SNIPPET_WORDS)
            .and_then(|left| words[left].hit);
        if let Some(hit) = left {
            counts[hit] -= 1;
            different -= usize::from(counts[hit] == 0);
        }
        if different > best {
            best = different;
            begin = (index + 1).saturating_sub(limits::SNIPPET_WORDS);
        }
    }
    begin
}

/// Whether a word of a text is probably a form of a word of the query: the index knows stems, this compares
/// beginnings.
fn is_form_of(word: &str, wanted: &str) -> bool {
    if word == wanted {
        return true;
    }
    let length = wanted.chars().count();
    let common = word.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    common >= length.saturating_sub(ENDING_CHARS).max(STEM_CHARS.min(length)) && common >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, query: &[&str]) -> String {
        of_words(text, &query.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn forms_of_the_words_are_marked() {
        assert_eq!(
            of("Meetings are Scheduled, weekly.", &["scheduling", "week"]),
            "Meetings are **Scheduled**, **weekly**."
        );
        assert_eq!(of("go on, gone", &["go"]), "**go** on, gone");
        assert_eq!(of("nothing there", &["note"]), "nothing there");
    }

    #[test]
    fn the_part_with_most_different_words_is_shown() {
        let filler = "filler ".repeat(100);
        let text = format!("alpha alpha {filler} alpha then beta {filler}");
        let snippet = of(&text, &["alpha", "beta"]);
        assert!(snippet.starts_with('…') && snippet.ends_with('…'), "{snippet}");
        assert!(snippet.contains("**alpha** then **beta**"), "{snippet}");
    }

    #[test]
    fn a_text_without_spaces_is_cut() {
        let text = "語".repeat(5000);
        for snippet in [of(&text, &["語"]), of_substring(&text, "語語")] {
            assert!(snippet.len() < limits::SNIPPET_BYTES + 20 && snippet.ends_with('…'));
        }
    }

    #[test]
    fn a_substring_is_marked_where_it_stands() {
        assert_eq!(of_substring("明日は東京で", "東京"), "明日は**東京**で");
        assert_eq!(of_substring("C++ and c#", "C#"), "C++ and **c#**");
        assert_eq!(of_substring("nothing", "x"), "nothing");
        assert_eq!(of_words("?!", &[]), "?!");
    }
}
