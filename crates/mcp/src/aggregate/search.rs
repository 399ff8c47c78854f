//! Finding tools by what they are said to do: BM25 over names and descriptions.

use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};

use super::list::Item;

/// Most tools that one search finds.
pub(super) const MOST: usize = 50;

/// Words of names and descriptions: at everything that is no letter or digit, and where a capital follows a small
/// letter.
#[derive(Debug, Default, Clone, Copy)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut was_lower = false;
        for c in text.chars() {
            if !c.is_alphanumeric() || (was_lower && c.is_uppercase()) {
                push(&mut words, &mut word);
            }
            was_lower = c.is_lowercase() || c.is_numeric();
            if c.is_alphanumeric() {
                word.extend(c.to_lowercase());
            }
        }
        push(&mut words, &mut word);
        words
    }
}

/// Adds a word without the plural's end, so that "files" finds "file".
fn push(words: &mut Vec<String>, word: &mut String) {
    if word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

/// The tools of a view, ready to be searched.
pub(super) struct Index {
    embedder: Embedder<u32, Words>,
    scorer: Scorer<u32>,
    tools: Vec<Item>,
}

impl Index {
    pub(super) fn new(tools: Vec<Item>) -> Self {
        let contents = tools.iter().map(|tool| {
            let value: serde_json::Value = serde_json::from_str(&tool.json).unwrap_or_default();
            let words = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            // What a tool is called says more than how it is described.
            format!(
                "{name} {name} {} {}",
                words("title"),
                words("description"),
                name = tool.name
            )
        });
        let contents: Vec<String> = contents.collect();
        let corpus: Vec<&str> = contents.iter().map(String::as_str).collect();
        let embedder = EmbedderBuilder::<u32, Words>::with_tokenizer_and_fit_to_corpus(Words, &corpus).build();
        let mut scorer = Scorer::new();
        for (id, contents) in (0_u32..).zip(&contents) {
            scorer.upsert(&id, embedder.embed(contents));
        }
        Self {
            embedder,
            scorer,
            tools,
        }
    }

    /// The tools that fit best, the best first; those that fit equally in the order of the list.
    pub(super) fn find(&self, query: &str, limit: usize) -> Vec<&Item> {
        let mut found = self.scorer.matches(&self.embedder.embed(query));
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        found.truncate(limit.clamp(1, MOST));
        let tool = |id: u32| usize::try_from(id).ok().and_then(|at| self.tools.get(at));
        found.into_iter().filter_map(|found| tool(found.id)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.tools.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, description: &str) -> Item {
        Item {
            name: name.to_owned(),
            json: serde_json::json!({ "name": name, "description": description }).to_string(),
        }
    }

    #[test]
    fn what_fits_best_comes_first() {
        let index = Index::new(vec![
            tool("lab__files__read_file", "Reads a file of the disk"),
            tool("lab__mail__sendMail", "Sends an e-mail to somebody"),
            tool("den__weather__forecast", "Tells tomorrow's weather"),
        ]);
        let first = |query: &str| index.find(query, 2).first().map(|tool| tool.name.clone());
        assert_eq!(first("read files").as_deref(), Some("lab__files__read_file"));
        assert_eq!(first("send a mail").as_deref(), Some("lab__mail__sendMail"));
        assert_eq!(first("weather").as_deref(), Some("den__weather__forecast"));
        assert_eq!(first("zzz"), None);
    }
}
