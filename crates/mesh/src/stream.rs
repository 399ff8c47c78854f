//! A byte stream to a node.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use dawn_identity::NodeId;
use libp2p::swarm::ConnectionId;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::apart::{Answering, Use};

/// A byte stream to a node; what limits it is released when it is dropped.
pub struct MeshStream {
    kind: Kind,
    peer: NodeId,
    /// Which connection carries it, where one of the swarm does.
    connection: Option<ConnectionId>,
    /// Ends the stream when the peer's membership does.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
    /// What keeps its connection, where something does.
    used: Option<Arc<Use>>,
    _permits: Vec<OwnedSemaphorePermit>,
}

enum Kind {
    Libp2p {
        stream: libp2p::Stream,
        reads: usize,
        /// Reading failed. A stream whose protocol the other end refused is not to be used after that: libp2p panics.
        failed: bool,
    },
    Tunnel {
        stream: yamux::Stream,
        reads: usize,
    },
    Memory(DuplexStream),
}

/// How much room is given to a read of a libp2p stream, bytes: at least, and at most while reads fill it.
///
/// The stream reads into memory that was set, so that room is zeroed for each try, also for one that finds nothing: all of
/// a large buffer's took 43 % of a node's time with messages of 1 MiB.
const READS: [usize; 2] = [4 << 10, 64 << 10];

impl MeshStream {
    pub(crate) fn libp2p(
        stream: libp2p::Stream,
        peer: NodeId,
        connection: ConnectionId,
        cut: CancellationToken,
        permits: Vec<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            kind: Kind::Libp2p {
                stream,
                reads: READS[0],
                failed: false,
            },
            peer,
            connection: Some(connection),
            cut: Box::pin(cut.cancelled_owned()),
            is_cut: false,
            used: None,
            _permits: permits,
        }
    }

    pub(crate) fn tunnel(
        stream: yamux::Stream,
        peer: NodeId,
        cut: CancellationToken,
        permits: Vec<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            kind: Kind::Tunnel {
                stream,
                reads: READS[0],
            },
            peer,
            connection: None,
            cut: Box::pin(cut.cancelled_owned()),
            is_cut: false,
            used: None,
            _permits: permits,
        }
    }

    pub(crate) fn memory(stream: DuplexStream, peer: NodeId, cut: CancellationToken) -> Self {
        Self {
            kind: Kind::Memory(stream),
            peer,
            connection: None,
            cut: Box::pin(cut.cancelled_owned()),
            is_cut: false,
            used: None,
            _permits: Vec::new(),
        }
    }

    /// The same stream, as something that its connection does not end before.
    pub(crate) fn used(mut self, used: Arc<Use>) -> Self {
        self.used = Some(used);
        self
    }

    /// How whoever answers on it says whether an answer is to come; nothing, where no connection waits for that.
    #[must_use]
    pub fn answering(&self) -> Option<Answering> {
        self.used.clone().map(Answering)
    }

    /// The node at the other end.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Which connection carries it, where one of the swarm does.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        use std::future::Future;
        if !self.is_cut && self.cut.as_mut().poll(context).is_ready() {
            self.is_cut = true;
        }
        if self.is_cut {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer is no member any more, or the way to it is lost",
            ));
        }
        self.check_failed()
    }

    fn check_failed(&self) -> io::Result<()> {
        match self.kind {
            Kind::Libp2p { failed: true, .. } => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the stream failed while it was read",
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for MeshStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshStream")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn poll_read(
    stream: &mut (impl futures::AsyncRead + Unpin),
    reads: &mut usize,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let room = (*reads).min(buffer.remaining());
    let read = ready!(Pin::new(stream).poll_read(context, buffer.initialize_unfilled_to(room)))?;
    buffer.advance(read);
    *reads = if read < room { *reads / 2 } else { *reads * 2 };
    *reads = (*reads).clamp(READS[0], READS[1]);
    Poll::Ready(Ok(()))
}

impl AsyncRead for MeshStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        let before = buffer.filled().len();
        let read = match &mut this.kind {
            Kind::Libp2p { stream, reads, failed } => {
                let read = poll_read(stream, reads, context, buffer);
                *failed = matches!(read, Poll::Ready(Err(_)));
                read
            }
            Kind::Tunnel { stream, reads } => poll_read(stream, reads, context, buffer),
            Kind::Memory(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if let Some(used) = this.used.as_ref().filter(|_| buffer.filled().len() > before) {
            used.moved(false);
        }
        read
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(context)?;
        let written = match &mut this.kind {
            Kind::Libp2p { stream, .. } => futures::AsyncWrite::poll_write(Pin::new(stream), context, bytes),
            Kind::Tunnel { stream, .. } => futures::AsyncWrite::poll_write(Pin::new(stream), context, bytes),
            Kind::Memory(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        if let (Some(used), Poll::Ready(Ok(1..))) = (&this.used, &written) {
            used.moved(true);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        match &mut this.kind {
            Kind::Libp2p { stream, .. } => futures::AsyncWrite::poll_flush(Pin::new(stream), context),
            Kind::Tunnel { stream, .. } => futures::AsyncWrite::poll_flush(Pin::new(stream), context),
            Kind::Memory(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_failed()?;
        match &mut this.kind {
            Kind::Libp2p { stream, .. } => futures::AsyncWrite::poll_close(Pin::new(stream), context),
            Kind::Tunnel { stream, .. } => futures::AsyncWrite::poll_close(Pin::new(stream), context),
            Kind::Memory(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
