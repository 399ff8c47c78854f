//! What the two sides of an exchange say to each other on a stream, around the signed statements.
//!
//! A message is a byte for its kind, and a body: a signed statement, a refusal's code, or nothing. The carrier keeps
//! messages apart; a length of two bytes in front of each does (`/dawn/keys/1`).

use super::MAX_EXCHANGE_MESSAGE_BYTES;

/// Longest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 + MAX_EXCHANGE_MESSAGE_BYTES;

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusalCode {
    /// Its owner, or a rule of its owner, says no.
    Denied = 1,
    /// Too many requests for now.
    Busy = 2,
    /// The key that was to be renewed is not there.
    UnknownKey = 3,
    /// The message is not valid.
    Invalid = 4,
    /// The exchange took too long.
    Late = 5,
}

impl RefusalCode {
    /// Every code.
    pub const ALL: [Self; 5] = [Self::Denied, Self::Busy, Self::UnknownKey, Self::Invalid, Self::Late];

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::UnknownKey => "unknown_key",
            Self::Invalid => "invalid",
            Self::Late => "late",
        }
    }
}

/// A message on the stream of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A [`KeyRequest`](super::KeyRequest).
    Request(Vec<u8>),
    /// What an [`Acceptor`](super::Acceptor) answers.
    Acceptance(Vec<u8>),
    /// What a [`Requester`](super::Requester) answers to that.
    Confirmation(Vec<u8>),
    /// The acceptor has the key too.
    Done,
    /// The acceptor's owner is asked.
    Pending,
    /// The request is not accepted.
    Refused(RefusalCode),
    /// A [`KeyRevocation`](super::KeyRevocation).
    Revocation(Vec<u8>),
    /// The revocation is known.
    Noted,
}

/// The bytes are no message of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these {0} bytes are no message of a key exchange")]
pub struct NoMessage(pub usize);

impl Message {
    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body): (u8, &[u8]) = match self {
            Self::Request(body) => (1, body),
            Self::Acceptance(body) => (2, body),
            Self::Confirmation(body) => (3, body),
            Self::Done => (4, &[]),
            Self::Pending => (5, &[]),
            Self::Refused(code) => (6, &[*code as u8]),
            Self::Revocation(body) => (7, body),
            Self::Noted => (8, &[]),
        };
        [&[kind], body].concat()
    }

    /// Reads a message. What is signed in it is not verified yet.
    ///
    /// # Errors
    /// [`NoMessage`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NoMessage> {
        let nothing = NoMessage(bytes.len());
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(nothing);
        }
        let (kind, body) = bytes.split_first().ok_or(nothing)?;
        match (kind, body) {
            (1, body) => Ok(Self::Request(body.to_vec())),
            (2, body) => Ok(Self::Acceptance(body.to_vec())),
            (3, body) => Ok(Self::Confirmation(body.to_vec())),
            (4, []) => Ok(Self::Done),
            (5, []) => Ok(Self::Pending),
            (6, [code]) => {
                let code = RefusalCode::ALL.into_iter().find(|known| *known as u8 == *code);
                code.map(Self::Refused).ok_or(nothing)
            }
            (7, body) => Ok(Self::Revocation(body.to_vec())),
            (8, []) => Ok(Self::Noted),
            _ => Err(nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bytes() {
        let all = [
            (Message::Request(vec![9, 9]), vec![1, 9, 9]),
            (Message::Acceptance(vec![]), vec![2]),
            (Message::Confirmation(vec![7]), vec![3, 7]),
            (Message::Done, vec![4]),
            (Message::Pending, vec![5]),
            (Message::Refused(RefusalCode::UnknownKey), vec![6, 3]),
            (Message::Revocation(vec![1]), vec![7, 1]),
            (Message::Noted, vec![8]),
        ];
        for (message, bytes) in all {
            assert_eq!(message.encode(), bytes);
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let long = vec![1; MAX_MESSAGE_BYTES + 1];
        for bytes in [&[][..], &[0], &[4, 0], &[6], &[6, 0], &[6, 6], &[9], &long] {
            assert_eq!(Message::decode(bytes), Err(NoMessage(bytes.len())));
        }
    }
}
