//! `/dawn/dial-back/1`: what two members say to each other when one wants to know whether an address leads to it.
//!
//! Who asks sends the address, a multiaddress in text behind a length of two bytes. Who is asked answers with a byte
//! ([`Answer`]); before that it may want bytes to be shown, 4 and their number (four bytes), where the address is another
//! than the one that it sees the asker at. All integers are big-endian.

use libp2p::Multiaddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest address, bytes.
const LONGEST: usize = 256;
/// Most bytes that are shown.
pub(super) const MOST_SHOWN: u32 = 100_000;
/// Bytes that are written at once.
const CHUNK: usize = 4096;
const SHOW: u8 = 4;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The node that asked was met there.
    Reached,
    /// It was not.
    NotReached,
    /// There is no time for it now.
    Busy,
    /// This address is not dialled, or not from here.
    Refused,
}

impl Answer {
    fn byte(self) -> u8 {
        match self {
            Self::Reached => 0,
            Self::NotReached => 1,
            Self::Busy => 2,
            Self::Refused => 3,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Reached, Self::NotReached, Self::Busy, Self::Refused]
            .into_iter()
            .find(|answer| answer.byte() == byte)
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The stream broke.
    #[error("the stream broke off: {0}")]
    Io(#[from] std::io::Error),
    /// More than is read, or asked to be shown.
    #[error("{0} bytes are too many")]
    TooLong(u32),
    /// What was asked about is no address.
    #[error("it is no address")]
    Malformed,
    /// Another byte than is agreed on.
    #[error("a byte {0} that means nothing")]
    Unknown(u8),
}

/// The address that a request is about.
pub(super) fn decode(bytes: &[u8]) -> Result<Multiaddr, ExchangeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ExchangeError::Malformed)?;
    text.parse().map_err(|_| ExchangeError::Malformed)
}

/// Asks about an address, and shows what is to be shown.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: &Multiaddr,
) -> Result<Answer, ExchangeError> {
    let text = address.to_string();
    let length = u16::try_from(text.len()).map_err(|_| ExchangeError::Malformed)?;
    stream.write_u16(length).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    let mut byte = stream.read_u8().await?;
    if byte == SHOW {
        let wanted = stream.read_u32().await?;
        if wanted > MOST_SHOWN {
            return Err(ExchangeError::TooLong(wanted));
        }
        let mut left = wanted as usize;
        while left > 0 {
            let chunk = left.min(CHUNK);
            stream.write_all(&[0; CHUNK][..chunk]).await?;
            left -= chunk;
        }
        stream.flush().await?;
        byte = stream.read_u8().await?;
    }
    Answer::of(byte).ok_or(ExchangeError::Unknown(byte))
}

/// Reads about which address is asked.
pub(super) async fn asked(stream: &mut (impl AsyncRead + Unpin)) -> Result<Multiaddr, ExchangeError> {
    let length = stream.read_u16().await?;
    if usize::from(length) > LONGEST {
        return Err(ExchangeError::TooLong(length.into()));
    }
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    decode(&bytes)
}

/// Has so many bytes shown.
pub(super) async fn have_shown(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: u32,
) -> Result<(), ExchangeError> {
    stream.write_u8(SHOW).await?;
    stream.write_u32(bytes).await?;
    stream.flush().await?;
    let mut left = bytes as usize;
    let mut chunk = [0; CHUNK];
    while left > 0 {
        let most = left.min(CHUNK);
        stream.read_exact(&mut chunk[..most]).await?;
        left -= most;
    }
    Ok(())
}

/// Says what became of it.
pub(super) async fn answer(stream: &mut (impl AsyncWrite + Unpin), answer: Answer) -> Result<(), ExchangeError> {
    stream.write_u8(answer.byte()).await?;
    stream.flush().await?;
    Ok(stream.shutdown().await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn address() -> Multiaddr {
        "/ip4/198.51.100.7/udp/7401/quic-v1".parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_is_asked_about_and_bytes_are_shown_where_they_are_wanted() {
        for (shown, told) in [(None, Answer::Reached), (Some(70_000), Answer::NotReached)] {
            let (mut one, mut other) = tokio::io::duplex(512);
            let address = address();
            let asker = async { ask(&mut one, &address).await.unwrap() };
            let judge = async {
                let about = asked(&mut other).await.unwrap();
                if let Some(bytes) = shown {
                    have_shown(&mut other, bytes).await.unwrap();
                }
                answer(&mut other, told).await.unwrap();
                about
            };
            let (heard, about) = tokio::join!(asker, judge);
            assert_eq!((heard, &about), (told, &address));
        }
    }

    #[tokio::test]
    async fn what_is_out_of_form_or_too_much_is_refused() {
        let (mut one, mut other) = tokio::io::duplex(1024);
        other.write_u16(257).await.unwrap();
        assert!(matches!(asked(&mut one).await, Err(ExchangeError::TooLong(257))));
        let (mut one, mut other) = tokio::io::duplex(1024);
        other.write_all(b"\0\x02\xff\xff").await.unwrap();
        assert!(matches!(asked(&mut one).await, Err(ExchangeError::Malformed)));
        for (bytes, too_many) in [(&[9][..], false), (&[SHOW, 0, 1, 0x86, 0xa1], true)] {
            let (mut one, mut other) = tokio::io::duplex(1024);
            other.write_all(bytes).await.unwrap();
            let heard = ask(&mut one, &address()).await;
            assert_eq!(matches!(heard, Err(ExchangeError::TooLong(100_001))), too_many);
            assert!(too_many || matches!(heard, Err(ExchangeError::Unknown(9))));
        }
    }
}
