//! The byte stream under a WebSocket: it knows when the peer was heard last, and how much of one that has proven
//! nothing is read.

use std::io::Cursor;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

/// A byte stream of either role.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What is known of the peer, shared by the stream and who drives it.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    /// When the last sign of life came, milliseconds after `began`.
    heard: AtomicU64,
    /// How many bytes are read still, unless the peer is trusted.
    budget: AtomicUsize,
    trusted: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Pulse {
    fn new(budget: Option<usize>) -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            budget: AtomicUsize::new(budget.unwrap_or_default()),
            trusted: AtomicBool::new(budget.is_none()),
            reader: Mutex::default(),
        }
    }

    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.fetch_max(now, Ordering::Relaxed);
    }

    /// When the last sign of life came.
    pub(crate) fn heard(&self) -> Instant {
        self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// The peer may say as much as it likes from now on.
    pub(crate) fn trust(&self) {
        self.trusted.store(true, Ordering::Release);
        if let Some(reader) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            reader.wake();
        }
    }

    /// How many bytes may be read now; `None` for as many as there are.
    fn room(&self, context: &Context<'_>) -> Poll<Option<usize>> {
        if self.trusted.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        let left = self.budget.load(Ordering::Relaxed);
        if left > 0 {
            return Poll::Ready(Some(left));
        }
        self.trusted(context).map(|()| None)
    }

    /// Waits until the peer is trusted.
    fn trusted(&self, context: &Context<'_>) -> Poll<()> {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        // Trust may have come in between.
        if self.trusted.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Reads along the frames of a peer that is not trusted: room is made for a frame as soon as its length is known, so
/// one that is longer than may be read at all is not begun before.
#[derive(Debug)]
struct Frames {
    /// What is known of a header that is not complete.
    header: Vec<u8>,
    /// Bytes of a frame that are still to come.
    left: u64,
    longest: u64,
}

impl Frames {
    fn new(longest: usize) -> Self {
        Self {
            header: Vec::new(),
            left: 0,
            longest: u64::try_from(longest).unwrap_or(u64::MAX),
        }
    }

    /// How many of these bytes may be read on: those before the header of a longer frame is complete.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let passed = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= passed as u64;
                at += passed;
                continue;
            }
            self.header.push(bytes[at]);
            match FrameHeader::parse(&mut Cursor::new(&self.header)) {
                Ok(Some((_, length))) if length > self.longest => return at,
                Ok(Some((_, length))) => {
                    self.left = length;
                    self.header.clear();
                }
                // What is wrong with it is said by who reads it next.
                Ok(None) | Err(_) => {}
            }
            at += 1;
        }
        at
    }
}

/// A byte stream with its [`Pulse`].
pub(crate) struct Carrier {
    stream: Box<dyn Stream>,
    pulse: Arc<Pulse>,
    frames: Frames,
    /// What was read of a frame that is not to begin yet.
    held: BytesMut,
    /// A write had to wait: the peer, or the way to it, takes part in the next one that does not.
    waited: bool,
}

impl Carrier {
    /// Takes over a stream. `budget` is how many bytes are read before the peer is trusted; `None`: it is already.
    pub(crate) fn new(stream: impl Stream + 'static, budget: Option<usize>) -> Self {
        Self {
            stream: Box::new(stream),
            pulse: Arc::new(Pulse::new(budget)),
            frames: Frames::new(budget.unwrap_or_default()),
            held: BytesMut::new(),
            waited: false,
        }
    }

    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    fn wrote(&mut self, written: &Poll<std::io::Result<usize>>) {
        match written {
            Poll::Pending => self.waited = true,
            Poll::Ready(Ok(bytes)) if *bytes > 0 && std::mem::take(&mut self.waited) => self.pulse.touch(),
            Poll::Ready(_) => {}
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            if !self.held.is_empty() {
                ready!(self.pulse.trusted(context));
                let passed = self.held.len().min(buffer.remaining());
                buffer.put_slice(&self.held.split_to(passed));
                return Poll::Ready(Ok(()));
            }
            let room = ready!(self.pulse.room(context));
            let most = room.unwrap_or(usize::MAX).min(buffer.remaining());
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
            let bytes = part.filled();
            if !bytes.is_empty() {
                self.pulse.touch();
            }
            let mut passed = bytes.len();
            if room.is_some() {
                self.pulse.budget.fetch_sub(bytes.len(), Ordering::Relaxed);
                passed = self.frames.follow(bytes);
                self.held.extend_from_slice(&bytes[passed..]);
            }
            buffer.advance(passed);
            // To have read nothing would be the end.
            if passed > 0 || self.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn of_a_peer_that_is_not_trusted_no_more_than_the_budget_is_read() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut carrier = Carrier::new(near, Some(10));
        let pulse = carrier.pulse();
        // A frame of one byte, and of the next so much that it is not known how long it is.
        let begun = [0x82, 1, 7, 0x82, 127, 0, 0, 0, 0, 0];
        far.write_all(&[begun.as_slice(), &[7; 90]].concat()).await.unwrap();
        let mut bytes = vec![0; 100];
        assert_eq!(carrier.read(&mut bytes).await.unwrap(), 10);
        let (read, ()) = tokio::join!(carrier.read(&mut bytes), async {
            // Not before it is trusted.
            tokio::task::yield_now().await;
            pulse.trust();
        });
        assert_eq!(read.unwrap(), 90);
    }
    #[tokio::test]
    async fn a_frame_that_is_longer_than_the_budget_does_not_begin_before_its_sender_is_trusted() {
        let short = [[0x82, 126, 0, 100].as_slice(), &[7; 100]].concat();
        let long = [[0x82, 126, 1, 1].as_slice(), &[8; 257]].concat();
        let all = [short.as_slice(), &long].concat();
        for step in [1, 3, 200] {
            let (near, mut far) = tokio::io::duplex(1024);
            let mut carrier = Carrier::new(near, Some(256));
            far.write_all(&all).await.unwrap();
            let mut read = Vec::new();
            let mut bytes = vec![0; step];
            while let Poll::Ready(length) = futures::poll!(std::pin::pin!(carrier.read(&mut bytes))) {
                read.extend_from_slice(&bytes[..length.unwrap()]);
                // A task that reads much at once is made to wait for others.
                tokio::task::yield_now().await;
            }
            assert_eq!(read, all[..short.len() + 3], "nobody sees how long it is");
            carrier.pulse().trust();
            while read.len() < all.len() {
                let length = carrier.read(&mut bytes).await.unwrap();
                assert!(length > 0);
                read.extend_from_slice(&bytes[..length]);
            }
            assert_eq!(read, all);
        }
    }
}
