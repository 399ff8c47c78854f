//! Three words that two people compare to know that nobody sits between their devices.

use std::fmt;

use bip39::Language;
use serde::{Serialize, Serializer};

/// Three words of the BIP-39 English list, 33 bits of a hash of everything two parties agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SafetyWords([&'static str; 3]);

impl SafetyWords {
    /// The words of the first 33 bits of `hash`.
    pub fn from_hash(hash: &[u8; 32]) -> Self {
        let words = Language::English.word_list();
        let bits = hash
            .iter()
            .take(5)
            .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        // 40 bits are in hand; the list has 2,048 words, 11 bits each, so the index is always in it.
        Self([29u32, 18, 7].map(|shift| words.get((bits >> shift & 0x7ff) as usize).copied().unwrap_or_default()))
    }

    /// The words, in the order they are read out.
    pub fn words(&self) -> [&'static str; 3] {
        self.0
    }
}

/// `word-word-word`.
impl fmt::Display for SafetyWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.join("-"))
    }
}

impl fmt::Debug for SafetyWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafetyWords({self})")
    }
}

impl Serialize for SafetyWords {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_first_33_bits() {
        let mut hash = [0; 32];
        assert_eq!(SafetyWords::from_hash(&hash).to_string(), "abandon-abandon-abandon");
        hash[4] = 0x7f;
        hash[5] = 0xff;
        assert_eq!(SafetyWords::from_hash(&hash).to_string(), "abandon-abandon-abandon");
        hash[4] = 0x80;
        assert_eq!(SafetyWords::from_hash(&hash).to_string(), "abandon-abandon-ability");
        assert_eq!(SafetyWords::from_hash(&[0xff; 32]).to_string(), "zoo-zoo-zoo");
    }
}
