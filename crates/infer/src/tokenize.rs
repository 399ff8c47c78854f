//! Texts become tokens. The crate `tokenizers` knows the four kinds of them, and Unicode; nothing else names it.

use tokenizers::Tokenizer;

use crate::error::{InferError, LoadError};

/// What becomes of a text with more tokens than a model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cut {
    /// Its end is left out.
    #[default]
    End,
    /// It is refused.
    Never,
}

/// A text as a model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Numbers of tokens, the special ones at both ends among them.
    pub ids: Vec<u32>,
    /// Whether the end of the text was left out.
    pub cut: bool,
}

/// A tokenizer, and what it puts around every text.
#[derive(Debug)]
pub(crate) struct Words {
    tokenizer: Tokenizer,
    before: Vec<u32>,
    behind: Vec<u32>,
    /// Tokens of the network.
    vocabulary: usize,
    /// Tokens of a text that the model reads.
    most: usize,
}

impl Words {
    /// From `tokenizer.json`. Padding and cutting in the file are switched off: texts are not padded here, and are cut where
    /// the model says.
    pub(crate) fn parse(file: &[u8], vocabulary: usize, most: usize) -> Result<Self, LoadError> {
        let broken = |problem: String| LoadError::Tokenizer { problem };
        let mut tokenizer = Tokenizer::from_bytes(file).map_err(|error| broken(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| broken(error.to_string()))?;
        let greatest = tokenizer.get_vocab(true).into_values().max();
        if greatest.is_none_or(|greatest| greatest as usize >= vocabulary) {
            return Err(broken(format!(
                "it has tokens that the network's {vocabulary} do not include"
            )));
        }
        let encode = |special| {
            let encoding = tokenizer
                .encode_fast("a", special)
                .map_err(|error| broken(error.to_string()))?;
            Ok::<_, LoadError>(encoding.get_ids().to_vec())
        };
        let (plain, whole) = (encode(false)?, encode(true)?);
        let at = whole.windows(plain.len().max(1)).position(|window| window == plain);
        let Some(at) = at.filter(|_| !plain.is_empty()) else {
            return Err(broken(
                "what it puts around a text is not only before and behind it".to_owned(),
            ));
        };
        let (before, behind) = (whole[..at].to_vec(), whole[at + plain.len()..].to_vec());
        if before.len() + behind.len() >= most {
            return Err(broken(format!("its special tokens leave no room in a text of {most}")));
        }
        Ok(Self {
            tokenizer,
            before,
            behind,
            vocabulary,
            most,
        })
    }

    /// The tokens of a text.
    pub(crate) fn tokenize(&self, text: &str, cut: Cut) -> Result<Tokens, InferError> {
        let problem = |error: tokenizers::Error| InferError::Tokenizer {
            problem: error.to_string(),
        };
        let encoding = self.tokenizer.encode_fast(text, false).map_err(problem)?;
        self.enclose(encoding.get_ids(), cut)
    }

    /// Tokens that somebody else made of a text. Special ones are put around them unless they begin with those.
    pub(crate) fn tokens(&self, ids: &[u32], cut: Cut) -> Result<Tokens, InferError> {
        if ids.is_empty() {
            return Err(InferError::Empty);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) {
            return Err(InferError::Token {
                id: *id,
                vocabulary: self.vocabulary,
            });
        }
        let content = ids
            .strip_prefix(self.before.as_slice())
            .filter(|_| !self.before.is_empty());
        let content = content.map_or(ids, |rest| rest.strip_suffix(self.behind.as_slice()).unwrap_or(rest));
        self.enclose(content, cut)
    }

    /// Cuts what lies between the special tokens, so that those at the end stay.
    fn enclose(&self, content: &[u32], cut: Cut) -> Result<Tokens, InferError> {
        let room = self.most - self.before.len() - self.behind.len();
        let long = content.len() > room;
        if long && cut == Cut::Never {
            let length = content.len() + self.before.len() + self.behind.len();
            return Err(InferError::TooLong {
                length,
                allowed: self.most,
                unit: "tokens",
            });
        }
        let content = &content[..content.len().min(room)];
        let ids = [self.before.as_slice(), content, self.behind.as_slice()].concat();
        if ids.is_empty() {
            Err(InferError::Empty)
        } else {
            Ok(Tokens { ids, cut: long })
        }
    }
}
