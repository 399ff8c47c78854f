//! Copies a circuit's bytes both ways.
//!
//! What is read goes through a buffer that all circuits of a thread share and is written at once; only what the other side
//! does not take waits in a buffer of its own. So a circuit on which nothing moves holds no memory for bytes.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

/// What is read at once, bytes.
const READ: usize = 256 << 10;
/// What is read at once where there is a rate to keep to, bytes.
const PIECE: usize = 16 << 10;
/// A circuit that has carried nothing after this ends.
const FIRST: Duration = Duration::from_secs(15);
/// One on which nothing moves for this long ends where it cannot go on as it was: one way is over, or what was read is not
/// taken at the other end.
const STUCK: Duration = Duration::from_secs(60);
/// Pieces that are moved one way before the other has its turn.
const ROUNDS: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is told of bytes before they go on: how long to wait before the next, or why the circuit ends.
pub(crate) trait Meter {
    /// Bytes of way 0 (from the source) or 1 (to it).
    fn carry(&self, way: usize, bytes: u64) -> Result<Duration, io::Error>;
    /// Whether there are rates to keep to.
    fn is_limited(&self) -> bool;
}

/// One way.
struct Way<A, B> {
    number: usize,
    waiting: Vec<u8>,
    written: usize,
    /// Nothing is read before this.
    sleep: Option<Pin<Box<Sleep>>>,
    is_flushed: bool,
    is_read: bool,
    is_over: bool,
    /// Bytes that were read, and bytes that were written after they had waited.
    moved: u64,
    ends: std::marker::PhantomData<fn(A, B)>,
}

impl<A: AsyncRead + Unpin, B: AsyncWrite + Unpin> Way<A, B> {
    fn new(number: usize) -> Self {
        Self {
            number,
            waiting: Vec::new(),
            written: 0,
            sleep: None,
            is_flushed: true,
            is_read: false,
            is_over: false,
            moved: 0,
            ends: std::marker::PhantomData,
        }
    }

    fn poll(
        &mut self,
        from: &mut A,
        to: &mut B,
        meter: &impl Meter,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            while self.written < self.waiting.len() {
                let rest = self.waiting.get(self.written..).unwrap_or_default();
                let written = match ready!(Pin::new(&mut *to).poll_write(context, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => written,
                };
                self.written += written;
                self.moved += written as u64;
            }
            if !self.waiting.is_empty() {
                (self.waiting, self.written) = (Vec::new(), 0);
            }
            if self.is_read {
                ready!(Pin::new(&mut *to).poll_close(context))?;
                self.is_over = true;
                continue;
            }
            if let Some(sleep) = &mut self.sleep {
                if sleep.as_mut().poll(context).is_pending() {
                    return self.flush(to, context);
                }
                self.sleep = None;
            }
            match self.step(from, to, meter, context) {
                Poll::Ready(moved) => moved?,
                Poll::Pending => return self.flush(to, context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether it is over, or waits until the other side takes something.
    fn is_stuck(&self) -> bool {
        self.is_read || !self.is_flushed || self.written < self.waiting.len()
    }

    /// What was written is on its way before anything is waited for.
    fn flush(&mut self, to: &mut B, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            ready!(Pin::new(to).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Pending
    }

    /// Reads once, and writes what the other side takes of it.
    fn step(
        &mut self,
        from: &mut A,
        to: &mut B,
        meter: &impl Meter,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let most = if meter.is_limited() { PIECE } else { READ };
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.is_empty() {
                scratch.resize(READ, 0);
            }
            let buffer = scratch.get_mut(..most).unwrap_or_default();
            let length = ready!(Pin::new(from).poll_read(context, buffer))?;
            if length == 0 {
                self.is_read = true;
                return Poll::Ready(Ok(()));
            }
            let wait = meter.carry(self.number, length as u64)?;
            self.moved += length as u64;
            if !wait.is_zero() {
                self.sleep = Some(Box::pin(tokio::time::sleep_until(Instant::now() + wait)));
            }
            self.is_flushed = false;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                match Pin::new(&mut *to).poll_write(context, rest)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(written) => rest = rest.get(written..).unwrap_or_default(),
                    Poll::Pending => {
                        self.waiting = rest.to_vec();
                        break;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

/// Ends a circuit on which nothing moves any more.
#[derive(Default)]
struct Watch {
    /// What had moved when it began to wait.
    waiting: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Watch {
    fn poll(&mut self, moved: u64, is_stuck: bool, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let patience = if moved == 0 { FIRST } else { STUCK };
            let is_watched = moved == 0 || is_stuck;
            let Some((sleep, before)) = &mut self.waiting else {
                if !is_watched {
                    return Poll::Pending;
                }
                self.waiting = Some((Box::pin(tokio::time::sleep(patience)), moved));
                continue;
            };
            // It stays where something moves: to set it anew for each piece would cost more than the piece.
            ready!(sleep.as_mut().poll(context));
            if is_watched && *before == moved {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.waiting = None;
        }
    }
}

/// Copies both ways until both have ended.
///
/// # Errors
/// Either end broke, the meter has ended the circuit, or nothing moves on it any more.
pub(crate) async fn both<A, B>(mut source: A, mut target: B, meter: &impl Meter) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Way::new(0), Way::new(1));
    let mut watch = Watch::default();
    std::future::poll_fn(|context| {
        let is_there = there.poll(&mut source, &mut target, meter, context)?;
        let is_back = back.poll(&mut target, &mut source, meter, context)?;
        if is_there.is_ready() && is_back.is_ready() {
            return Poll::Ready(Ok(()));
        }
        // What a rate holds back is not stuck.
        let is_held = there.sleep.is_some() || back.sleep.is_some();
        let is_stuck = !is_held && (there.is_stuck() || back.is_stuck());
        watch.poll(there.moved + back.moved, is_stuck, context).map(Err)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    /// Counts each way; ends the circuit beyond so many bytes.
    struct Counted {
        ways: Mutex<[u64; 2]>,
        most: u64,
        wait: Duration,
    }

    impl Counted {
        fn new(most: u64, wait: Duration) -> Self {
            let ways = Mutex::default();
            Self { ways, most, wait }
        }
    }

    impl Meter for Counted {
        fn carry(&self, way: usize, bytes: u64) -> Result<Duration, io::Error> {
            let mut ways = self.ways.lock().unwrap();
            ways[way] += bytes;
            if ways[way] > self.most {
                Err(io::ErrorKind::QuotaExceeded.into())
            } else {
                Ok(self.wait)
            }
        }

        fn is_limited(&self) -> bool {
            !self.wait.is_zero()
        }
    }

    #[tokio::test]
    async fn all_that_is_written_comes_out_at_the_other_end_both_ways() {
        let (mut a, a_relay) = tokio::io::duplex(1000);
        let (b_relay, mut b) = tokio::io::duplex(777);
        let meter = Counted::new(u64::MAX, Duration::ZERO);
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let back: Vec<u8> = bytes.iter().rev().copied().take(300_000).collect();
        let copying = async {
            both(a_relay.compat(), b_relay.compat(), &meter).await.unwrap();
        };
        let (from_a, from_b) = (bytes.clone(), back.clone());
        let (mut a_read, mut a_write) = tokio::io::split(&mut a);
        let (mut b_read, mut b_write) = tokio::io::split(&mut b);
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        let writing = async {
            let there = async {
                a_write.write_all(&from_a).await.unwrap();
                a_write.shutdown().await.unwrap();
            };
            let back = async {
                b_write.write_all(&from_b).await.unwrap();
                b_write.shutdown().await.unwrap();
            };
            tokio::join!(there, back)
        };
        let (_, _, read_a, read_b) = tokio::join!(
            copying,
            writing,
            a_read.read_to_end(&mut at_a),
            b_read.read_to_end(&mut at_b)
        );
        read_a.unwrap();
        read_b.unwrap();
        assert!(at_b == bytes && at_a == back);
        assert_eq!(*meter.ways.lock().unwrap(), [1_000_000, 300_000]);
    }

    #[tokio::test]
    async fn a_circuit_beyond_its_quota_ends() {
        let (mut a, a_relay) = tokio::io::duplex(64 << 10);
        let (b_relay, _b) = tokio::io::duplex(64 << 10);
        a.write_all(&[0; 1001]).await.unwrap();
        let meter = Counted::new(1000, Duration::ZERO);
        let ended = both(a_relay.compat(), b_relay.compat(), &meter).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::QuotaExceeded);
    }

    /// How long a circuit lasts on which the source has written so much and no more, and reads nothing.
    async fn lasts(written: usize, ends: bool, is_read: bool) -> Duration {
        let (mut a, a_relay) = tokio::io::duplex(1000);
        let (b_relay, mut b) = tokio::io::duplex(1000);
        let meter = Counted::new(u64::MAX, Duration::ZERO);
        let begun = Instant::now();
        let source = async {
            a.write_all(&vec![0; written]).await.unwrap();
            std::future::pending::<()>().await;
        };
        let target = async {
            if ends {
                b.shutdown().await.unwrap();
            }
            let mut read = Vec::new();
            while is_read && b.read_buf(&mut read).await.unwrap() > 0 {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = both(a_relay.compat(), b_relay.compat(), &meter) => {
                assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            () = source => {}
            () = target => {}
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_that_cannot_go_on_ends_and_one_that_is_quiet_does_not() {
        let hour = Duration::from_secs(3600);
        // Nobody says anything.
        assert_eq!(lasts(0, false, true).await, FIRST);
        assert_eq!(lasts(0, true, true).await, FIRST);
        // The target has ended, and the source does not.
        assert!((STUCK..=2 * STUCK).contains(&lasts(10, true, true).await));
        // The target takes nothing.
        assert!((STUCK..=2 * STUCK).contains(&lasts(3000, false, false).await));
        // Both are there and have nothing to say.
        assert_eq!(lasts(10, false, true).await, hour);
    }

    #[tokio::test(start_paused = true)]
    async fn a_meter_that_waits_holds_the_next_bytes_back() {
        let (mut a, a_relay) = tokio::io::duplex(1 << 20);
        let (b_relay, mut b) = tokio::io::duplex(1 << 20);
        let meter = Counted::new(u64::MAX, Duration::from_secs(10));
        a.write_all(&vec![0; 3 * PIECE]).await.unwrap();
        drop(a.shutdown().await);
        let begun = Instant::now();
        let copying = both(a_relay.compat(), b_relay.compat(), &meter);
        let reading = async {
            let mut read = Vec::new();
            b.read_to_end(&mut read).await.unwrap();
            b.shutdown().await.unwrap();
            read.len()
        };
        let (copied, read) = tokio::join!(copying, reading);
        copied.unwrap();
        assert_eq!(read, 3 * PIECE);
        assert!(begun.elapsed() >= Duration::from_secs(30));
    }
}
