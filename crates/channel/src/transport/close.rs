//! How a channel ends: with a reason that is sealed like every message, or cut off.

use std::fmt;

/// Longest explanation, bytes.
pub const MAX_CLOSE_MESSAGE_BYTES: usize = 256;

/// Why a party closes a channel, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// All is said.
    Done,
    /// The node shuts down, or moves to another path.
    GoingAway,
    /// The peer may not have what it asked for.
    Refused,
    /// The membership or the key binding of a party has ended.
    Expired,
    /// There is too much to do.
    Busy,
    /// The peer sent something that it must not send.
    Misbehaved,
    /// A reason that this version does not know.
    Other(u16),
}

impl CloseCode {
    const fn number(self) -> u16 {
        match self {
            Self::Done => 0,
            Self::GoingAway => 1,
            Self::Refused => 2,
            Self::Expired => 3,
            Self::Busy => 4,
            Self::Misbehaved => 5,
            Self::Other(number) => number,
        }
    }

    const fn of(number: u16) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::GoingAway,
            2 => Self::Refused,
            3 => Self::Expired,
            4 => Self::Busy,
            5 => Self::Misbehaved,
            number => Self::Other(number),
        }
    }
}

/// A party's last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    code: CloseCode,
    message: String,
}

impl Close {
    /// A last word. The explanation is one line of up to 256 bytes: what is longer is cut, control characters become
    /// spaces.
    pub fn new(code: CloseCode, message: &str) -> Self {
        let mut line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        while line.len() > MAX_CLOSE_MESSAGE_BYTES {
            line.pop();
        }
        Self {
            // One code has one number and one name.
            code: CloseCode::of(code.number()),
            message: line,
        }
    }

    /// Why, for programs.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// Why, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.code.number().to_be_bytes()[..], self.message.as_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, message) = bytes.split_first_chunk()?;
        let message = std::str::from_utf8(message).ok()?;
        let close = Self::new(CloseCode::of(u16::from_be_bytes(*number)), message);
        (close.message == message).then_some(close)
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The carrier ended, and the peer had not said that it was done: something may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was cut off: the peer had not closed the channel")]
pub struct Truncated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_word_comes_back_from_its_bytes() {
        for number in 0..8 {
            let close = Close::new(CloseCode::of(number), "good night");
            assert_eq!(Close::decode(&close.encode()), Some(close));
        }
    }

    #[test]
    fn an_explanation_is_one_line_of_bounded_length() {
        let close = Close::new(CloseCode::Other(0), &format!("a\nb{}", "ä".repeat(200)));
        assert_eq!(close.code(), CloseCode::Done);
        assert!(close.message().starts_with("a bä"));
        assert_eq!(close.message().len(), 255);
        assert_eq!(Close::decode(&[0, 0, b'a', b'\n']), None);
        assert_eq!(Close::decode(&[0, 0, 0xff]), None);
        assert_eq!(Close::decode(&[0]), None);
        assert_eq!(Close::decode(&[&[0, 0][..], &[b'a'; 257]].concat()), None);
    }
}
