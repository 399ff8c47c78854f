//! Messages on byte streams: one a line, optionally with the request it belongs to.
//!
//! `{"jsonrpc":…}\n`, or `@<raw id> {"jsonrpc":…}\n` where the sender knows that the message belongs to the exchange
//! of that request. A message begins with `{` or `[`, so the two cannot be mistaken for each other.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::jsonrpc::Message;

/// A message and, where known, the raw id of the request whose exchange it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message.
    pub message: Message,
    /// The id, as written, of the request this message belongs to.
    pub related: Option<Bytes>,
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        Self { message, related: None }
    }
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The line is longer than allowed.
    #[error("a message of more than {limit} bytes")]
    TooLarge {
        /// Longest line, bytes.
        limit: usize,
    },
    /// The stream ended within a line.
    #[error("the stream ended in the middle of a message")]
    Truncated,
    /// The mark of the related request has no end.
    #[error("a malformed mark before a message")]
    BadMark,
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Room for a read of a stream on which little comes, bytes. A node has many sessions, and most say little.
const LITTLE: usize = 4 << 10;
/// Room for a read of a stream that fills it, bytes.
const MUCH: usize = 64 << 10;
/// How long a buffer that much made large is kept for more.
const KEEP_LARGE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });

/// Reads lines from a byte stream. Cancel safe: a read that is dropped loses nothing.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    scanned: usize,
    limit: usize,
    /// Room for a read, bytes: [`MUCH`] where reads fill less or lines are longer, [`LITTLE`] again where nothing comes for a
    /// while.
    room: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Lines of at most `limit` bytes.
    pub fn new(stream: R, limit: usize) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            scanned: 0,
            limit,
            room: LITTLE,
        }
    }

    /// Changes the longest line, bytes.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next line without its newline; `None` at the end of the stream.
    ///
    /// # Errors
    /// The line is too long, the stream ended within one, or it failed.
    pub async fn line(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(line) = self.buffered_line()? {
                return Ok(Some(line));
            }
            if self.read().await? == 0 {
                return if self.buffer.trim_ascii().is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
    }

    /// Reads once; a large buffer that nothing fills for a while is given back.
    async fn read(&mut self) -> Result<usize, std::io::Error> {
        if self.room > LITTLE && self.buffer.is_empty() {
            let reading = tokio::time::timeout(KEEP_LARGE, self.fill()).await;
            if let Ok(read) = reading {
                return read;
            }
            self.buffer = BytesMut::new();
            self.room = LITTLE;
        }
        self.fill().await
    }

    async fn fill(&mut self) -> Result<usize, std::io::Error> {
        // A large message grows the buffer by doubling, so that it is not copied for every read.
        let room = self.room.max(self.buffer.len().min(self.limit));
        if self.buffer.capacity() - self.buffer.len() < room / 2 {
            self.buffer.reserve(room);
        }
        let read = self.stream.read_buf(&mut self.buffer).await?;
        if self.buffer.len() == self.buffer.capacity() {
            self.room = MUCH;
        }
        Ok(read)
    }

    fn buffered_line(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) else {
            self.scanned = self.buffer.len();
            return if self.buffer.len() > self.limit {
                Err(FrameError::TooLarge { limit: self.limit })
            } else {
                Ok(None)
            };
        };
        let end = self.scanned + at;
        self.scanned = 0;
        if end >= LITTLE {
            self.room = MUCH;
        }
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        if line.len() > self.limit {
            return Err(FrameError::TooLarge { limit: self.limit });
        }
        Ok(Some(line.freeze()))
    }

    /// The next frame; empty lines are passed over.
    ///
    /// # Errors
    /// As [`line`](Self::line), or a malformed mark.
    pub async fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        while let Some(line) = self.line().await? {
            if let Some(frame) = parse(line)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// A frame that is already in memory.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    pub fn buffered_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        while let Some(line) = self.buffered_line()? {
            if let Some(frame) = parse(line)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

fn parse(line: Bytes) -> Result<Option<Frame>, FrameError> {
    let trimmed = line.trim_ascii();
    if trimmed.is_empty() {
        return Ok(None);
    }
    if trimmed[0] != b'@' {
        return Ok(Some(Message::new(line).into()));
    }
    let end = mark_end(trimmed).ok_or(FrameError::BadMark)?;
    let related = line.slice_ref(&trimmed[1..end]);
    let message = Message::new(line.slice_ref(&trimmed[end + 1..]));
    Ok(Some(Frame {
        message,
        related: Some(related),
    }))
}

/// Where the space after `@<raw id>` stands; a string id may hold spaces and escaped quotes.
fn mark_end(line: &[u8]) -> Option<usize> {
    if line.get(1) != Some(&b'"') {
        return memchr::memchr(b' ', line).filter(|&end| end > 1);
    }
    let mut at = 2;
    loop {
        at += memchr::memchr2(b'"', b'\\', line.get(at..)?)?;
        if line[at] == b'"' {
            return (line.get(at + 1) == Some(&b' ')).then_some(at + 1);
        }
        at += 2;
    }
}

/// Writes lines to a byte stream, gathering small ones.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    buffer: BytesMut,
}

/// Messages above this size are written without being copied into the gathering buffer.
const GATHER: usize = 32 << 10;

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer with nothing gathered.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Gathers a frame, writing when enough is there.
    ///
    /// # Errors
    /// The stream failed.
    pub async fn feed(&mut self, frame: &Frame) -> Result<(), FrameError> {
        if let Some(related) = &frame.related {
            self.buffer.extend_from_slice(b"@");
            self.buffer.extend_from_slice(related);
            self.buffer.extend_from_slice(b" ");
        }
        self.feed_line(frame.message.as_bytes()).await
    }

    /// Gathers a line given without its newline.
    ///
    /// # Errors
    /// The stream failed.
    pub async fn feed_line(&mut self, line: &[u8]) -> Result<(), FrameError> {
        if line.len() > GATHER {
            self.drain().await?;
            self.stream.write_all(line).await?;
            self.buffer.extend_from_slice(b"\n");
        } else {
            self.buffer.extend_from_slice(line);
            self.buffer.extend_from_slice(b"\n");
            if self.buffer.len() > GATHER {
                self.drain().await?;
            }
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), FrameError> {
        self.stream.write_all(&self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes everything gathered.
    ///
    /// # Errors
    /// The stream failed.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        if !self.buffer.is_empty() {
            self.drain().await?;
        }
        Ok(self.stream.flush().await?)
    }

    /// Writes everything gathered and closes the stream.
    ///
    /// # Errors
    /// The stream failed.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_the_stream_cuts_it(
            texts in proptest::collection::vec("[ -~]{0,80}", 0..20),
            related in proptest::option::of(".{0,12}"),
            capacity in 1usize..200,
        ) {
            runtime().block_on(async move {
                let frames: Vec<Frame> = texts.iter().map(|text| Frame {
                    message: Message::request("1", text, "{}"),
                    related: related.as_ref().map(|id| Bytes::from(serde_json::Value::from(id.as_str()).to_string())),
                }).collect();
                let (near, far) = tokio::io::duplex(capacity);
                let sent = frames.clone();
                let writer = async move {
                    let mut writer = FrameWriter::new(near);
                    for frame in &sent {
                        writer.feed(frame).await.unwrap();
                    }
                    writer.close().await.unwrap();
                };
                let reader = async move {
                    let mut reader = FrameReader::new(far, 1 << 20);
                    let mut seen = Vec::new();
                    while let Some(frame) = reader.frame().await.unwrap() {
                        seen.push(frame);
                    }
                    seen
                };
                let ((), seen) = tokio::join!(writer, reader);
                assert_eq!(seen, frames);
            });
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            runtime().block_on(async move {
                let mut reader = FrameReader::new(&bytes[..], 64);
                while let Ok(Some(_)) = reader.frame().await {}
            });
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused_before_it_is_all_read() {
        runtime().block_on(async {
            let endless = tokio::io::repeat(b'x');
            let error = FrameReader::new(endless, 1000).frame().await.unwrap_err();
            assert!(matches!(error, FrameError::TooLarge { limit: 1000 }));
        });
    }

    #[test]
    fn a_stream_that_ends_within_a_message_is_an_error() {
        runtime().block_on(async {
            let error = FrameReader::new(&b"{\"jsonrpc\""[..], 1000).frame().await.unwrap_err();
            assert!(matches!(error, FrameError::Truncated));
        });
    }

    #[test]
    fn a_buffer_that_was_large_is_given_back_and_nothing_is_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut near, far) = tokio::io::duplex(1 << 10);
            let large = [&b"{"[..], &vec![b'x'; 1 << 20], b"\n"].concat();
            let writing = tokio::spawn(async move {
                near.write_all(&large).await.unwrap();
                tokio::time::sleep(KEEP_LARGE * 100).await;
                near.write_all(b"{\"after").await.unwrap();
                tokio::time::sleep(KEEP_LARGE * 2).await;
                near.write_all(b"\"}\n").await.unwrap();
            });
            let mut reader = FrameReader::new(far, 2 << 20);
            assert_eq!(reader.line().await.unwrap().unwrap().len(), 1 + (1 << 20));
            assert!(reader.room > LITTLE);
            assert_eq!(reader.line().await.unwrap().unwrap(), "{\"after\"}");
            assert!(reader.room == LITTLE && reader.buffer.capacity() <= LITTLE);
            writing.await.unwrap();
            assert!(reader.line().await.unwrap().is_none());
        });
    }
}
