//! One session: the messages of a stream in turns, each in its time, and what came of it.
//!
//! What is little is passed on as news; of more the neighbours hear when the gossip compares with them.

use std::time::Duration;

use dawn_identity::NodeId;
use dawn_mesh::{MeshStream, OpenError};
use dawn_registry::replica::Applied;
use dawn_registry::sync::{MAX_MESSAGE_BYTES, Session, SyncError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::Directory;
use super::sessions::Synced;
use crate::members::now;

/// Each message comes within this.
const STEP: Duration = Duration::from_secs(15);
/// A whole session takes no longer.
const WHOLE: Duration = Duration::from_secs(300);
/// A session in which little is said takes no longer than the first; each second more takes so many bytes.
const IDLE: Duration = Duration::from_secs(60);
const BYTES_A_SECOND: u64 = 64 << 10;
/// Deltas of a message that are taken at once, and their bytes: what else there is to do comes in between.
const PORTION: (usize, usize) = (128, 1 << 20);
/// Deltas that no honest member has, before a session with who sends them ends.
pub(super) const BLAMED: u32 = 8;
/// Bytes of a session, of both directions.
const BYTES: u64 = 512 << 20;
/// Deltas of a session that are passed on as news.
const PASSED_ON: u64 = 16;

/// Why a session broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionFailure {
    #[error(transparent)]
    Unreachable(#[from] OpenError),
    #[error("the other node says nothing")]
    Late,
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("a message of {0} bytes")]
    TooLong(usize),
    #[error("more than a session may take")]
    TooMuch,
    #[error("too much of what it sent is refused")]
    Refused,
    #[error("more of what it sent is refused than a member may have refused in a minute")]
    Limited,
    #[error(transparent)]
    Invalid(#[from] SyncError),
}

impl SessionFailure {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Late => "late",
            Self::Broken(_) => "broken",
            Self::TooLong(_) | Self::TooMuch => "too_much",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Invalid(_) => "invalid",
        }
    }

    /// Whether the other side did what no honest one does.
    pub(super) fn is_blamed(&self) -> bool {
        matches!(
            self,
            Self::TooLong(_) | Self::TooMuch | Self::Refused | Self::Invalid(_)
        )
    }
}

/// What was new in a session.
#[derive(Debug, Default)]
pub(super) struct News {
    got: u64,
    /// The first of them.
    deltas: Vec<Vec<u8>>,
}

impl News {
    fn add(&mut self, delta: Vec<u8>) {
        self.got += 1;
        if self.got <= PASSED_ON {
            self.deltas.push(delta);
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_u32(length).await?;
    stream.write_all(message).await
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, SessionFailure> {
    let length = stream.read_u32().await? as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(SessionFailure::TooLong(length));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, SessionFailure>>,
) -> Result<T, SessionFailure> {
    timeout(limit, step).await.unwrap_or(Err(SessionFailure::Late))
}

/// How long the next step may take, in a session that is so old and in which so many bytes were said.
fn left(age: Duration, said: u64) -> Duration {
    let whole = IDLE + Duration::from_secs(said / BYTES_A_SECOND);
    STEP.min(whole.saturating_sub(age))
}

/// The next deltas that are taken at once: one at least, if there is one.
fn portion(deltas: &mut std::iter::Peekable<impl Iterator<Item = Vec<u8>>>) -> Vec<Vec<u8>> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    while some.len() < PORTION.0
        && let Some(delta) = deltas.next_if(|delta| some.is_empty() || bytes + delta.len() <= PORTION.1)
    {
        bytes += delta.len();
        some.push(delta);
    }
    some
}

impl Directory {
    /// Takes part in a session until its end, and passes on what came of it.
    pub(super) async fn converse(
        &self,
        stream: &mut MeshStream,
        mut session: Session,
        peer: NodeId,
    ) -> Result<(), SessionFailure> {
        let mut news = News::default();
        let talk = self.talk(stream, &mut session, peer, &mut news);
        let ended = within(WHOLE, talk).await;
        let traffic = session.traffic();
        self.0.sessions.add(traffic);
        if ended.is_ok() {
            let synced = Synced {
                with: peer,
                at: now(),
                got: news.got,
                traffic,
            };
            self.0.sessions.has_compared(synced);
        }
        self.pass_on(&news);
        ended
    }

    async fn talk(
        &self,
        stream: &mut MeshStream,
        session: &mut Session,
        peer: NodeId,
        news: &mut News,
    ) -> Result<(), SessionFailure> {
        let (begun, mut blamed, mut said) = (Instant::now(), 0, 0);
        loop {
            loop {
                let message = session.transmit(&self.book().await.replica);
                let Some(message) = message else { break };
                within(left(begun.elapsed(), said), async {
                    Ok(write(stream, &message).await?)
                })
                .await?;
                said += message.len() as u64;
            }
            within(left(begun.elapsed(), said), async { Ok(stream.flush().await?) }).await?;
            if session.is_done() {
                // Who was told everything may have left.
                let _ = timeout(STEP, stream.shutdown()).await;
                return Ok(());
            }
            let message = within(left(begun.elapsed(), said), read(stream)).await?;
            said += message.len() as u64;
            let deltas = session.receive(&self.book().await.replica, &message)?;
            let traffic = session.traffic();
            if traffic.overhead + traffic.deltas.max(session.unpacked()) > BYTES {
                return Err(SessionFailure::TooMuch);
            }
            if !deltas.is_empty() {
                blamed += self.take_all(peer, deltas, BLAMED.saturating_sub(blamed), news).await?;
            }
        }
    }

    /// Takes deltas of a session, and keeps what is new of them, a portion at once. How many were refused to whose sender's
    /// blame; the session ends with the first that makes as many as `patience`, or when the sender is not read any more.
    pub(super) async fn take_all(
        &self,
        from: NodeId,
        deltas: Vec<Vec<u8>>,
        patience: u32,
        news: &mut News,
    ) -> Result<u32, SessionFailure> {
        let (mut deltas, mut blamed) = (deltas.into_iter().peekable(), 0);
        while deltas.peek().is_some() {
            let some = portion(&mut deltas);
            let mut book = self.book().await;
            let applied = self.apply_all(&mut book.replica, &some);
            let speaks_for_all = book.replica.speaks_for_all();
            self.settle(book, "", Vec::new()).await;
            if !speaks_for_all {
                self.renew_own().await;
            }
            let mut refused = Vec::new();
            for (delta, applied) in some.into_iter().zip(applied) {
                match applied {
                    Ok(Applied::New) => news.add(delta),
                    Ok(Applied::Known) => {}
                    Err(refusal) => refused.push((delta, refusal)),
                }
            }
            for (delta, refusal) in refused {
                let is_blamed = self.refuse_delta(from, &delta, &refusal).await;
                blamed += u32::from(is_blamed);
                if blamed >= patience {
                    return Err(SessionFailure::Refused);
                }
                // It may be what nobody is to blame for.
                if self.0.refusing.is_spent(from) {
                    return Err(SessionFailure::Limited);
                }
            }
            // Of many small messages others have their turn, too.
            tokio::task::yield_now().await;
        }
        Ok(blamed)
    }

    /// What came of a session is news to the other neighbours too, maybe.
    fn pass_on(&self, news: &News) {
        if news.got <= PASSED_ON {
            news.deltas.iter().for_each(|delta| self.publish(delta));
        } else {
            self.gossip(|gossip, now| gossip.changed(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_are_taken_in_portions_of_bounded_number_and_size_but_one_at_least() {
        let sizes = |sizes: &[usize]| {
            let deltas: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
            let mut deltas = deltas.into_iter().peekable();
            let mut portions = Vec::new();
            while deltas.peek().is_some() {
                portions.push(portion(&mut deltas).len());
            }
            portions
        };
        assert_eq!(sizes(&[0; 300]), [128, 128, 44]);
        assert_eq!(
            sizes(&[PORTION.1 / 2, PORTION.1 / 2, 1, PORTION.1 + 1, 1]),
            [2, 1, 1, 1]
        );
    }

    #[test]
    fn a_session_in_which_little_is_said_ends_soon_and_one_that_gets_on_does_not() {
        let second = Duration::from_secs(1);
        assert_eq!(left(Duration::ZERO, 0), STEP);
        assert_eq!(left(IDLE - second, BYTES_A_SECOND - 1), second);
        assert_eq!(left(IDLE + second, 0), Duration::ZERO);
        assert_eq!(left(IDLE + second, BYTES_A_SECOND * 60), STEP);
    }

    #[tokio::test]
    async fn messages_come_as_they_went_and_a_long_one_is_not_read() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let message = vec![7; 300];
        let (wrote, read_back) = tokio::join!(write(&mut here, &message), read(&mut there));
        wrote.unwrap();
        assert_eq!(read_back.unwrap(), message);
        here.write_u32(u32::try_from(MAX_MESSAGE_BYTES).unwrap() + 1)
            .await
            .unwrap();
        assert!(matches!(read(&mut there).await, Err(SessionFailure::TooLong(_))));
        drop(here);
        assert!(matches!(read(&mut there).await, Err(SessionFailure::Broken(_))));
    }
}
