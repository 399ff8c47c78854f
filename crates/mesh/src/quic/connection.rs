//! One connection, as what the swarm opens streams on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

use super::error::Error;
use super::stream::Stream;

type Opening = BoxFuture<'static, Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>>;

/// A connection whose handshake is done.
pub(crate) struct Connection {
    pub(super) inner: quinn::Connection,
    /// The peer's next stream.
    inbound: Option<Opening>,
    /// This node's next stream.
    outbound: Option<Opening>,
    /// The end of it, once it is closed here.
    closing: Option<BoxFuture<'static, quinn::ConnectionError>>,
}

impl Connection {
    pub(super) fn new(inner: quinn::Connection) -> Self {
        Self {
            inner,
            inbound: None,
            outbound: None,
            closing: None,
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let this = self.get_mut();
        let connection = &this.inner;
        let inbound = this.inbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.accept_bi().await }.boxed()
        });
        let opened = ready!(inbound.poll_unpin(context));
        this.inbound = None;
        let (sender, receiver) = opened?;
        Poll::Ready(Ok(Stream::new(sender, receiver)))
    }

    fn poll_outbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let this = self.get_mut();
        let connection = &this.inner;
        let outbound = this.outbound.get_or_insert_with(|| {
            let connection = connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let opened = ready!(outbound.poll_unpin(context));
        this.outbound = None;
        let (sender, receiver) = opened?;
        Poll::Ready(Ok(Stream::new(sender, receiver)))
    }

    /// Nothing happens on its own: the peer's address does not change, since migration is off.
    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        let connection = &this.inner;
        let closing = this.closing.get_or_insert_with(|| {
            connection.close(quinn::VarInt::from_u32(0), &[]);
            let connection = connection.clone();
            async move { connection.closed().await }.boxed()
        });
        match ready!(closing.poll_unpin(context)) {
            quinn::ConnectionError::LocallyClosed => Poll::Ready(Ok(())),
            error => Poll::Ready(Err(error.into())),
        }
    }
}
