//! The messages of Circuit Relay v2 (the libp2p specification `relay/circuit-v2.md`): protobufs behind their length, a
//! varint.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The protocol between a client and its relay.
pub const HOP: &str = "/libp2p/circuit/relay/0.2.0/hop";
/// The protocol between a relay and the target of a circuit.
pub const STOP: &str = "/libp2p/circuit/relay/0.2.0/stop";
/// Longest message, bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Most addresses that a message may name.
const MAX_ADDRESSES: usize = 64;

/// What became of a request; the numbers of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// Nothing was said.
    Unused = 0,
    /// It was done.
    Ok = 100,
    /// The relay takes no further reservations now.
    ReservationRefused = 200,
    /// A quota is used up.
    ResourceLimitExceeded = 201,
    /// The peer may not: it has shown no token that is accepted.
    PermissionDenied = 202,
    /// The target did not take the circuit.
    ConnectionFailed = 203,
    /// The target has no reservation here.
    NoReservation = 204,
    /// The message is none.
    MalformedMessage = 400,
    /// A message out of turn.
    UnexpectedMessage = 401,
}

/// What a client asks of its relay, or the answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HopMessage {
    /// Which of the three.
    #[prost(enumeration = "HopType", optional, tag = "1")]
    pub kind: Option<i32>,
    /// The target of a circuit.
    #[prost(message, optional, tag = "2")]
    pub peer: Option<Peer>,
    /// The reservation that was made.
    #[prost(message, optional, tag = "3")]
    pub reservation: Option<Reservation>,
    /// What a circuit may carry.
    #[prost(message, optional, tag = "4")]
    pub limit: Option<Limit>,
    /// What became of the request.
    #[prost(enumeration = "Status", optional, tag = "5")]
    pub status: Option<i32>,
}

/// The kinds of [`HopMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum HopType {
    /// A reservation is asked for.
    Reserve = 0,
    /// A circuit is asked for.
    Connect = 1,
    /// The answer.
    Status = 2,
}

/// What a relay asks of a target, or the answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StopMessage {
    /// Which of the two.
    #[prost(enumeration = "StopType", optional, tag = "1")]
    pub kind: Option<i32>,
    /// Who asks for the circuit.
    #[prost(message, optional, tag = "2")]
    pub peer: Option<Peer>,
    /// What the circuit may carry.
    #[prost(message, optional, tag = "3")]
    pub limit: Option<Limit>,
    /// What became of the request.
    #[prost(enumeration = "Status", optional, tag = "4")]
    pub status: Option<i32>,
}

/// The kinds of [`StopMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum StopType {
    /// A circuit is to be taken.
    Connect = 0,
    /// The answer.
    Status = 1,
}

/// A peer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Peer {
    /// Its peer id.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub id: Option<Vec<u8>>,
    /// Where it is; not used.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub addresses: Vec<Vec<u8>>,
}

/// A reservation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reservation {
    /// When it ends, seconds since 1970.
    #[prost(uint64, optional, tag = "1")]
    pub expire: Option<u64>,
    /// Where the relay is, multiaddresses.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub addresses: Vec<Vec<u8>>,
    /// A signed voucher; not made.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub voucher: Option<Vec<u8>>,
}

/// What a circuit may carry. A circuit without limits has none of these: clients take one with them for a makeshift.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Limit {
    /// For how long, seconds.
    #[prost(uint32, optional, tag = "1")]
    pub duration: Option<u32>,
    /// How many bytes, each way.
    #[prost(uint64, optional, tag = "2")]
    pub data: Option<u64>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// No protobuf of this kind.
    #[error("no message of this protocol")]
    Message,
}

/// A message of either protocol.
pub trait Message: prost::Message + Default {
    /// Whether its lists are of bounded length.
    fn is_bounded(&self) -> bool;
}

fn is_short(peer: Option<&Peer>) -> bool {
    peer.is_none_or(|peer| peer.addresses.len() <= MAX_ADDRESSES)
}

impl Message for HopMessage {
    fn is_bounded(&self) -> bool {
        let reservation = self.reservation.as_ref();
        is_short(self.peer.as_ref()) && reservation.is_none_or(|made| made.addresses.len() <= MAX_ADDRESSES)
    }
}

impl Message for StopMessage {
    fn is_bounded(&self) -> bool {
        is_short(self.peer.as_ref())
    }
}

impl HopMessage {
    /// An answer that is nothing but a status.
    #[must_use]
    pub fn answer(status: Status) -> Self {
        Self {
            kind: Some(HopType::Status as i32),
            status: Some(status as i32),
            ..Self::default()
        }
    }
}

/// Reads a message without the length in front of it.
///
/// # Errors
/// [`Malformed`].
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, Malformed> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Malformed::TooLong);
    }
    let message = M::decode(bytes).map_err(|_| Malformed::Message)?;
    if message.is_bounded() {
        Ok(message)
    } else {
        Err(Malformed::Message)
    }
}

/// Reads the next message of a stream, and nothing of what follows it.
///
/// # Errors
/// The stream broke, or what came is malformed ([`io::ErrorKind::InvalidData`]).
pub async fn read<M: Message>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let invalid = |malformed| io::Error::new(io::ErrorKind::InvalidData, malformed);
    let mut length = 0;
    for shift in [0, 7, 14] {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
        if shift == 14 {
            return Err(invalid(Malformed::TooLong));
        }
    }
    if length > MAX_MESSAGE_BYTES {
        return Err(invalid(Malformed::TooLong));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    decode(&bytes).map_err(invalid)
}

/// Writes a message.
///
/// # Errors
/// The stream broke.
pub async fn write<M: Message>(stream: &mut (impl AsyncWrite + Unpin), message: &M) -> io::Result<()> {
    stream.write_all(&message.encode_length_delimited_to_vec()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    #[test]
    fn messages_keep_their_bytes() {
        let reserved = HopMessage {
            reservation: Some(Reservation {
                expire: Some(1_800_000_000),
                addresses: vec![vec![4, 127, 0, 0, 1]],
                voucher: None,
            }),
            limit: Some(Limit {
                duration: Some(120),
                data: Some(1 << 20),
            }),
            ..HopMessage::answer(Status::Ok)
        };
        let connect = StopMessage {
            kind: Some(StopType::Connect as i32),
            peer: Some(Peer {
                id: Some(vec![1, 2, 3]),
                addresses: Vec::new(),
            }),
            ..StopMessage::default()
        };
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        assert_eq!(
            hex(&reserved.encode_length_delimited_to_vec()),
            "1b08021a0d0880a4a7da061205047f00000122060878108080402864"
        );
        assert_eq!(hex(&connect.encode_length_delimited_to_vec()), "09080012050a03010203");
    }

    #[tokio::test]
    async fn nothing_behind_a_message_is_read_with_it() {
        let mut bytes = HopMessage::answer(Status::NoReservation).encode_length_delimited_to_vec();
        bytes.extend(b"rest");
        let mut stream = futures::io::Cursor::new(bytes);
        let read: HopMessage = read(&mut stream).await.unwrap();
        assert_eq!(read.status(), Status::NoReservation);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"rest");
    }

    #[tokio::test]
    async fn a_message_that_says_to_be_long_is_refused_before_it_is_read() {
        for bytes in [&[0xff, 0xff, 0xff][..], &[0x81, 0x20]] {
            let mut stream = futures::io::Cursor::new(bytes);
            let error = read::<HopMessage>(&mut stream).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_refused(bytes: Vec<u8>) {
            let _hop = decode::<HopMessage>(&bytes);
            let _stop = decode::<StopMessage>(&bytes);
        }

        #[test]
        fn a_message_comes_back_from_its_bytes(id: Option<Vec<u8>>, duration: Option<u32>, data: Option<u64>) {
            let message = StopMessage {
                kind: Some(StopType::Connect as i32),
                peer: Some(Peer { id, addresses: Vec::new() }),
                limit: Some(Limit { duration, data }),
                status: None,
            };
            prop_assert_eq!(decode::<StopMessage>(&message.encode_to_vec()), Ok(message));
        }
    }
}
