//! What two ends say to each other inside the secure channel of a path.
//!
//! ```text
//!  begin        1 ‖ window (4) ‖ route ‖ chain       a new session
//!  welcome      2 ‖ window (4) ‖ chain               it is accepted
//!  resume       3 ‖ session (32) ‖ received (8) ‖ route ‖ chain
//!  resumed      4 ‖ received (8) ‖ chain
//!  refused      5 ‖ length (2) ‖ reason ‖ evidence   the membership is not accepted, or the session is not known
//!  chain        6 ‖ chain                            a renewed certificate
//!  data        16 ‖ offset (8) ‖ acknowledged (8) ‖ bytes
//!  acknowledge 17 ‖ acknowledged (8)
//!  probe       18 ‖ acknowledged (8)
//!
//!  window       bytes that the sender takes before it has acknowledged any, at least [`MIN_WINDOW`]
//!  route        count (1) ‖ node ids (32 each): the members in between, in the order of the way there
//! ```

use bytes::Bytes;
use dawn_channel::SessionId;
use dawn_identity::NodeId;

use super::carrier;
use super::config::MIN_WINDOW;

/// A record of a session that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A piece of the stream.
    Data {
        /// Where it begins.
        offset: u64,
        /// The end of what was read of the other direction.
        acknowledged: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// How far the other direction was read.
    Acknowledge {
        /// Its end.
        acknowledged: u64,
    },
    /// The same, and an acknowledgement is asked for.
    Probe {
        /// Its end.
        acknowledged: u64,
    },
}

/// Anything said inside a path's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A new session.
    Begin {
        /// What it takes without acknowledging it, bytes.
        window: u32,
        /// The members in between.
        via: Vec<NodeId>,
        /// Who begins it shows this.
        chain: Bytes,
    },
    /// The session is accepted.
    Welcome {
        /// What it takes without acknowledging it, bytes.
        window: u32,
        /// Who accepts it shows this.
        chain: Bytes,
    },
    /// An earlier session goes on over this path.
    Resume {
        /// Its name.
        session: SessionId,
        /// The end of what came.
        received: u64,
        /// The members in between.
        via: Vec<NodeId>,
        /// As it is now.
        chain: Bytes,
    },
    /// It does.
    Resumed {
        /// The end of what came.
        received: u64,
        /// As it is now.
        chain: Bytes,
    },
    /// It does not.
    Refused {
        /// In words.
        reason: String,
        /// What proves it; empty where nothing does.
        evidence: Bytes,
    },
    /// A renewed chain.
    Chain(Bytes),
    /// A record of the session.
    Record(Record),
}

/// A message of no kind that is known, or a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message between two ends of a forwarded route is malformed")]
pub(crate) struct Malformed;

/// Longest reason of a refusal, bytes; what is longer is cut.
const MAX_REASON_BYTES: usize = 256;

/// What a message of data is longer than its bytes.
pub(crate) const DATA_OVERHEAD: usize = 17;

fn route(via: &[NodeId], to: &mut Vec<u8>) {
    // A route has a handful of members: the carrier that this goes over bounds it.
    to.push(u8::try_from(via.len()).unwrap_or(u8::MAX));
    via.iter()
        .take(usize::from(u8::MAX))
        .for_each(|node| to.extend(node.as_bytes()));
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    Ok((u64::from_be_bytes(*number), rest))
}

fn window(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let (window, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    let window = u32::from_be_bytes(*window);
    if (window as usize) < MIN_WINDOW {
        return Err(Malformed);
    }
    Ok((window, rest))
}

impl From<Record> for Message {
    fn from(record: Record) -> Self {
        Self::Record(record)
    }
}

impl Message {
    /// Appends the message to `to`.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Begin { window, via, chain } => {
                to.push(1);
                to.extend(window.to_be_bytes());
                route(via, to);
                to.extend_from_slice(chain);
            }
            Self::Welcome { window, chain } => {
                to.push(2);
                to.extend(window.to_be_bytes());
                to.extend_from_slice(chain);
            }
            Self::Resume {
                session,
                received,
                via,
                chain,
            } => {
                to.push(3);
                to.extend_from_slice(session.as_bytes());
                to.extend(received.to_be_bytes());
                route(via, to);
                to.extend_from_slice(chain);
            }
            Self::Resumed { received, chain } => {
                to.push(4);
                to.extend(received.to_be_bytes());
                to.extend_from_slice(chain);
            }
            Self::Refused { reason, evidence } => {
                let mut end = reason.len().min(MAX_REASON_BYTES);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                to.push(5);
                to.extend(u16::try_from(end).unwrap_or_default().to_be_bytes());
                to.extend_from_slice(&reason.as_bytes()[..end]);
                to.extend_from_slice(evidence);
            }
            Self::Chain(chain) => {
                to.push(6);
                to.extend_from_slice(chain);
            }
            Self::Record(Record::Data {
                offset,
                acknowledged,
                bytes,
            }) => {
                to.push(16);
                to.extend(offset.to_be_bytes());
                to.extend(acknowledged.to_be_bytes());
                to.extend_from_slice(bytes);
            }
            Self::Record(Record::Acknowledge { acknowledged }) => {
                to.push(17);
                to.extend(acknowledged.to_be_bytes());
            }
            Self::Record(Record::Probe { acknowledged }) => {
                to.push(18);
                to.extend(acknowledged.to_be_bytes());
            }
        }
    }

    /// Reads a message; the channel that it came over bounds its length.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (kind, rest) = bytes.split_first().ok_or(Malformed)?;
        let shown = |chain: &[u8]| Bytes::copy_from_slice(chain);
        match kind {
            1 => {
                let (window, rest) = window(rest)?;
                let (via, chain) = carrier::split_route(rest).map_err(|_| Malformed)?;
                Ok(Self::Begin {
                    window,
                    via,
                    chain: shown(chain),
                })
            }
            2 => {
                let (window, chain) = window(rest)?;
                Ok(Self::Welcome {
                    window,
                    chain: shown(chain),
                })
            }
            3 => {
                let (session, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let (received, rest) = number(rest)?;
                let (via, chain) = carrier::split_route(rest).map_err(|_| Malformed)?;
                Ok(Self::Resume {
                    session: SessionId::from_bytes(*session),
                    received,
                    via,
                    chain: shown(chain),
                })
            }
            4 => {
                let (received, chain) = number(rest)?;
                Ok(Self::Resumed {
                    received,
                    chain: shown(chain),
                })
            }
            5 => {
                let (length, rest) = rest.split_first_chunk().ok_or(Malformed)?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (reason, evidence) = rest.split_at_checked(length).ok_or(Malformed)?;
                if length > MAX_REASON_BYTES {
                    return Err(Malformed);
                }
                Ok(Self::Refused {
                    reason: std::str::from_utf8(reason).map_err(|_| Malformed)?.to_owned(),
                    evidence: shown(evidence),
                })
            }
            6 => Ok(Self::Chain(shown(rest))),
            16 => {
                let (offset, rest) = number(rest)?;
                let (acknowledged, bytes) = number(rest)?;
                Ok(Self::Record(Record::Data {
                    offset,
                    acknowledged,
                    bytes: shown(bytes),
                }))
            }
            17 | 18 => {
                let (acknowledged, rest) = number(rest)?;
                if !rest.is_empty() {
                    return Err(Malformed);
                }
                Ok(Self::Record(if *kind == 17 {
                    Record::Acknowledge { acknowledged }
                } else {
                    Record::Probe { acknowledged }
                }))
            }
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_message_comes_back_from_its_bytes() {
        let node = |seed| Keypair::from_seed([seed; 32]).node_id();
        let chain = Bytes::from_static(b"chain");
        let messages = [
            Message::Begin {
                window: 1 << 20,
                via: vec![node(1), node(2)],
                chain: chain.clone(),
            },
            Message::Welcome {
                window: MIN_WINDOW as u32,
                chain: chain.clone(),
            },
            Message::Resume {
                session: SessionId::from_bytes([7; 32]),
                received: 9,
                via: vec![node(3)],
                chain: chain.clone(),
            },
            Message::Resumed {
                received: 10,
                chain: chain.clone(),
            },
            Message::Refused {
                reason: "put out".into(),
                evidence: Bytes::from_static(b"evidence"),
            },
            Message::Chain(chain),
            Record::Data {
                offset: 1,
                acknowledged: 2,
                bytes: Bytes::from_static(b"bytes"),
            }
            .into(),
            Record::Acknowledge { acknowledged: 3 }.into(),
            Record::Probe { acknowledged: 4 }.into(),
        ];
        for message in messages {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn a_window_in_which_nothing_fits_is_none() {
        for (window, fits) in [
            (0, false),
            (MIN_WINDOW as u32 - 1, false),
            (MIN_WINDOW as u32, true),
            (u32::MAX, true),
        ] {
            let chain = Bytes::from_static(b"chain");
            let mut bytes = Vec::new();
            Message::Welcome { window, chain }.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes).is_ok(), fits, "{window}");
        }
    }

    #[test]
    fn a_reason_is_text_of_bounded_length() {
        let refused = |reason: &[u8]| {
            let length = u16::try_from(reason.len()).unwrap().to_be_bytes();
            Message::decode(&[&[5], &length[..], reason].concat())
        };
        assert!(refused(&[b'x'; MAX_REASON_BYTES]).is_ok());
        assert_eq!(refused(&[b'x'; MAX_REASON_BYTES + 1]), Err(Malformed));
        assert_eq!(refused(&[0x80]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..20) {
            let bytes = [&[kind][..], &bytes].concat();
            if let Ok(message) = Message::decode(&bytes) {
                let mut again = Vec::new();
                message.encode(&mut again);
                prop_assert_eq!(Message::decode(&again), Ok(message));
            }
        }
    }
}
