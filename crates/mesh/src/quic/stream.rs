//! One stream of a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};

/// Both directions of a stream: closing ends the one that is written, and dropping both.
#[derive(Debug)]
pub(crate) struct Stream {
    sender: quinn::SendStream,
    receiver: quinn::RecvStream,
    is_closed: bool,
}

impl Stream {
    pub(super) fn new(sender: quinn::SendStream, receiver: quinn::RecvStream) -> Self {
        Self {
            sender,
            receiver,
            is_closed: false,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.get_mut()
            .receiver
            .poll_read(context, buffer)
            .map_err(io::Error::from)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().sender)
            .poll_write(context, bytes)
            .map_err(io::Error::from)
    }

    /// What was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// May be repeated.
    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_closed {
            this.sender.finish()?;
            this.is_closed = true;
        }
        Poll::Ready(Ok(()))
    }
}
