//! A stream of `/dawn/charter/1`: two members compare what they have, and each gives what the other lacks.
//!
//! ```text
//! opener    heads                      heads, documents, end
//! answerer         heads, documents, end                     heads
//! ```
//!
//! Everything is frames: a length of four bytes and so many bytes. Heads are `count (1)`, and of each kind
//! `length (1) ‖ kind ‖ length (1) ‖ head`. A document is `length (1) ‖ kind ‖ bytes`, the end a frame of no bytes. Each
//! side says its heads once more when it has taken what it was given, so that both know what the other has now.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Longest document, or part of one, that travels at once, bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Longest head, bytes.
pub const MAX_HEAD_BYTES: usize = 64;
/// Most kinds of documents.
pub(super) const MAX_KINDS: usize = 16;
/// Longest name of a kind, bytes.
pub(super) const MAX_KIND_BYTES: usize = 32;
/// Longest list of heads, bytes.
const MAX_HEADS_BYTES: usize = 1 + MAX_KINDS * (2 + MAX_KIND_BYTES + MAX_HEAD_BYTES);
/// A frame has come, or is gone, within this.
const STEP: Duration = Duration::from_secs(15);

/// What somebody has, by kind.
pub(super) type Heads = BTreeMap<String, Vec<u8>>;

/// Why an exchange broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFailure {
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("{0} bytes, which is more than there may be")]
    TooLong(usize),
    #[error("nothing came in time")]
    Late,
    #[error("what came is not understood")]
    NotUnderstood,
    #[error("too much of what came was of no use")]
    Unheard,
}

impl StreamFailure {
    /// A stable code.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::TooLong(_) => "too_long",
            Self::Late => "late",
            Self::NotUnderstood => "malformed",
            Self::Unheard => "unheard",
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), parts: &[&[u8]]) -> Result<(), StreamFailure> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let frame = async {
        stream
            .write_u32(u32::try_from(length).map_err(|_| StreamFailure::TooLong(length))?)
            .await?;
        for part in parts {
            stream.write_all(part).await?;
        }
        Ok(stream.flush().await?)
    };
    timeout(STEP, frame).await.map_err(|_| StreamFailure::Late)?
}

async fn read(stream: &mut (impl AsyncRead + Unpin), most: usize) -> Result<Vec<u8>, StreamFailure> {
    let frame = async {
        let length = stream.read_u32().await? as usize;
        if length > most {
            return Err(StreamFailure::TooLong(length));
        }
        let mut bytes = vec![0; length];
        let _ = stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    };
    timeout(STEP, frame).await.map_err(|_| StreamFailure::Late)?
}

/// A part behind a length of one byte, and the rest.
fn part(bytes: &[u8], most: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    (length <= most).then_some(())?;
    rest.split_at_checked(length)
}

fn kind(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (kind, rest) = part(bytes, MAX_KIND_BYTES)?;
    let is_named = !kind.is_empty() && kind.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-');
    let kind = std::str::from_utf8(kind).ok().filter(|_| is_named)?;
    Some((kind, rest))
}

/// A length of one byte in front; what is longer never gets here (bounds are far below).
fn measured(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    std::iter::once(length).chain(bytes.iter().copied().take(usize::from(length)))
}

fn encode_heads(heads: &Heads) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(heads.len()).unwrap_or(u8::MAX)];
    for (kind, head) in heads {
        bytes.extend(measured(kind.as_bytes()));
        bytes.extend(measured(head));
    }
    bytes
}

fn decode_heads(bytes: &[u8]) -> Option<Heads> {
    let (count, mut rest) = bytes.split_first()?;
    let mut heads = Heads::new();
    for _ in 0..usize::from(*count).min(MAX_KINDS + 1) {
        let (kind, after) = kind(rest)?;
        let (head, after) = part(after, MAX_HEAD_BYTES)?;
        heads.insert(kind.to_owned(), head.to_vec());
        rest = after;
    }
    (rest.is_empty() && heads.len() == usize::from(*count) && heads.len() <= MAX_KINDS).then_some(heads)
}

/// Sends what this side has.
pub(super) async fn send_heads(stream: &mut (impl AsyncWrite + Unpin), heads: &Heads) -> Result<(), StreamFailure> {
    write(stream, &[&encode_heads(heads)]).await
}

/// What the other side has.
pub(super) async fn read_heads(stream: &mut (impl AsyncRead + Unpin)) -> Result<Heads, StreamFailure> {
    decode_heads(&read(stream, MAX_HEADS_BYTES).await?).ok_or(StreamFailure::NotUnderstood)
}

/// Sends a document.
pub(super) async fn send_document(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: &str,
    document: &[u8],
) -> Result<(), StreamFailure> {
    let named: Vec<u8> = measured(kind.as_bytes()).collect();
    write(stream, &[&named, document]).await
}

/// Says that no more documents come.
pub(super) async fn send_end(stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), StreamFailure> {
    write(stream, &[]).await
}

/// The next document; `None` at the end.
pub(super) async fn read_document(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(String, Bytes)>, StreamFailure> {
    let frame = read(stream, 1 + MAX_KIND_BYTES + MAX_DOCUMENT_BYTES).await?;
    if frame.is_empty() {
        return Ok(None);
    }
    let (name, document) = kind(&frame).ok_or(StreamFailure::NotUnderstood)?;
    if document.len() > MAX_DOCUMENT_BYTES {
        return Err(StreamFailure::TooLong(document.len()));
    }
    Ok(Some((name.to_owned(), Bytes::copy_from_slice(document))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn heads_and_documents_come_as_they_were_sent() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let heads = Heads::from([
            ("lock".to_owned(), vec![7; MAX_HEAD_BYTES]),
            ("policy".to_owned(), Vec::new()),
        ]);
        let document = vec![9; MAX_DOCUMENT_BYTES];
        let send = async {
            send_heads(&mut near, &heads).await.unwrap();
            send_document(&mut near, "policy", &document).await.unwrap();
            send_end(&mut near).await.unwrap();
        };
        let read = async {
            assert_eq!(read_heads(&mut far).await.unwrap(), heads);
            let (kind, bytes) = read_document(&mut far).await.unwrap().unwrap();
            assert_eq!((kind.as_str(), bytes.len()), ("policy", MAX_DOCUMENT_BYTES));
            assert!(read_document(&mut far).await.unwrap().is_none());
        };
        tokio::join!(send, read);
    }

    #[tokio::test]
    async fn nothing_longer_than_it_may_be_is_read() {
        let mut far = [0xff, 0xff, 0xff, 0xff, 1].as_slice();
        assert!(matches!(read_heads(&mut far).await, Err(StreamFailure::TooLong(_))));
        let mut far = [0, 0x20, 0, 0, 1].as_slice();
        assert!(matches!(read_document(&mut far).await, Err(StreamFailure::TooLong(_))));
    }

    proptest! {
        #[test]
        fn whatever_comes_for_heads_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            if let Some(heads) = decode_heads(&bytes) {
                prop_assert!(heads.len() <= MAX_KINDS);
                prop_assert_eq!(decode_heads(&encode_heads(&heads)), Some(heads));
            }
        }
    }
}
