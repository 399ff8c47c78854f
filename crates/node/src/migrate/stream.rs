//! Messages on a stream of `/dawn/migrate/1`: an order, then its answer, each behind a length of two bytes.

use dawn_registry::order::MAX_ORDER_BYTES;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::journal::Why;
use crate::modes::PlaceText;

/// Longest answer, bytes.
const MAX_ANSWER_BYTES: usize = 4096;
/// Characters of its words that are kept.
const MAX_WORDS: usize = 1024;

/// What a node answers to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It has taken its place, and reaches who ordered from there.
    Done {
        /// Where it was.
        before: PlaceText,
    },
    /// It is where it was.
    Failed(Why),
}

impl Answer {
    pub(super) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(Why {
            code: code.to_owned(),
            message: message.into().chars().take(MAX_WORDS).collect(),
        })
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn read(stream: &mut (impl AsyncRead + Unpin), most: usize) -> std::io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > most {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidData));
    }
    let mut bytes = vec![0; length];
    let _ = stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

pub(super) async fn write_order(stream: &mut (impl AsyncWrite + Unpin), order: &[u8]) -> std::io::Result<()> {
    write(stream, order).await
}

pub(super) async fn read_order(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    read(stream, MAX_ORDER_BYTES).await
}

pub(super) async fn write_answer(stream: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> std::io::Result<()> {
    write(stream, &serde_json::to_vec(answer)?).await
}

pub(super) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Answer> {
    Ok(serde_json::from_slice(&read(stream, MAX_ANSWER_BYTES).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_and_answers_come_back_and_what_is_too_long_is_not_read() {
        let (mut here, mut there) = tokio::io::duplex(64 << 10);
        write_order(&mut here, b"order").await.unwrap();
        assert_eq!(read_order(&mut there).await.unwrap(), b"order");
        let answer = Answer::failed("host_unreachable", "x".repeat(2 * MAX_WORDS));
        write_answer(&mut here, &answer).await.unwrap();
        assert_eq!(read_answer(&mut there).await.unwrap(), answer);
        write_order(&mut here, &[0; MAX_ORDER_BYTES + 1]).await.unwrap();
        assert!(read_order(&mut there).await.is_err());
        let (mut here, mut there) = tokio::io::duplex(64 << 10);
        write(&mut here, b"{}").await.unwrap();
        assert!(read_answer(&mut there).await.is_err());
    }
}
