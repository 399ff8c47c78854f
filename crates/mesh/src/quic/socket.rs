//! The UDP socket under an endpoint.
//!
//! As `quinn`'s own, but for its appetite: `quinn` reads up to 32 batches of datagrams at once, each of as many as the
//! system joins, and what it has read into once stays resident. Here it reads a few at once.
//!
//! Messages of STUN come to it too (RFC 9443): they are taken out before QUIC sees what was read.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;

use super::route;
use crate::nat::sockets::Hook;
use crate::nat::stun;

/// What the system may join into one read, bytes: no IP packet is longer.
const JOINED: usize = u16::MAX as usize;
/// The longest thing that is given to the system in one call, bytes: what is left of an IP packet by the longer headers.
const SENT: usize = JOINED - 48;
/// Reads at once: each holds up to 64 KiB, which stay resident.
const READS: usize = 4;
/// What the system is asked to hold for this node before it is read, bytes; it gives as much as it may.
const HELD: usize = 1 << 20;
/// Failures of a read in a row that are put up with: an error of an earlier datagram is told once.
const FAILURES: usize = 16;

/// A bound UDP socket.
#[derive(Debug)]
pub(crate) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// What takes the messages of STUN.
    stun: Hook,
}

impl Socket {
    /// Binds an address; one of IPv6 takes IPv6 only.
    pub(crate) fn bind(address: SocketAddr, stun: Hook) -> io::Result<Arc<Self>> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        if let Err(error) = socket.set_recv_buffer_size(HELD) {
            tracing::debug!(%error, "the system's own buffer size stays");
        }
        let socket: std::net::UdpSocket = socket.into();
        Ok(Arc::new(Self {
            state: UdpSocketState::new((&socket).into())?,
            io: tokio::net::UdpSocket::from_std(socket)?,
            stun,
        }))
    }

    /// Sends one datagram past the endpoint.
    pub(crate) async fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.io.send_to(bytes, to).await?;
        Ok(())
    }

    /// Reads messages of STUN as long as no endpoint reads this socket.
    pub(crate) async fn attend(&self) -> io::Result<()> {
        let mut buffer = [0; stun::LONGEST];
        loop {
            let (length, from) = self.io.recv_from(&mut buffer).await?;
            self.take_stun(&buffer[..length], from);
        }
    }

    /// Takes a datagram if it is of STUN.
    fn take_stun(&self, datagram: &[u8], from: SocketAddr) -> bool {
        let is_stun = stun::is_stun(datagram);
        if is_stun && let Some(answer) = self.stun.take(from, datagram) {
            // An answer that the system does not take now is as one that was lost.
            let _ = self.io.try_send_to(&answer, from);
        }
        is_stun
    }

    /// Takes the messages of STUN out of what was read.
    fn sift(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let (mut at, mut kept) = (0, 0);
        while at < meta.len {
            let end = (at + meta.stride.max(1)).min(meta.len);
            if !self.take_stun(&buffer[at..end], meta.addr) {
                if kept < at {
                    buffer.copy_within(at..end, kept);
                }
                kept += end - at;
            }
            at = end;
        }
        meta.len = kept;
    }

    fn give(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io
            .try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size.filter(|_| transmit.contents.len() > SENT) else {
            return self.give(transmit);
        };
        // Large datagrams, more of them than the system takes in one call. Where it takes only the first ones, all are given
        // to it again: the peer drops what it has.
        for contents in transmit.contents.chunks((SENT / segment).max(1) * segment) {
            self.give(&Transmit {
                contents,
                segment_size: (contents.len() > segment).then_some(segment),
                ..*transmit
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let reads = READS.min(buffers.len()).min(metas.len());
        let (buffers, metas) = (&mut buffers[..reads], &mut metas[..reads]);
        let mut failures = 0;
        loop {
            ready!(self.io.poll_recv_ready(context))?;
            let read = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), buffers, metas)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if failures < FAILURES => {
                    failures += 1;
                    tracing::debug!(%error, "a read of the UDP socket");
                }
                Ok(read) => {
                    for (buffer, meta) in buffers.iter_mut().zip(metas.iter_mut()).take(read) {
                        self.sift(buffer, meta);
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// In units of the largest datagram: whatever the system joins fits in a buffer.
    fn max_receive_segments(&self) -> usize {
        JOINED.div_ceil(usize::from(route::LARGEST))
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits until the socket can be written to, for one connection.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // It nearly always can, which is known without a system call.
        if this.waiting.is_none() && this.socket.io.try_io(Interest::WRITABLE, || Ok(())).is_ok() {
            return Poll::Ready(Ok(()));
        }
        let socket = &this.socket;
        let waiting = this.waiting.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { socket.io.writable().await })
        });
        let writable = ready!(waiting.as_mut().poll(context));
        this.waiting = None;
        Poll::Ready(writable)
    }
}
