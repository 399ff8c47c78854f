//! Anti-entropy over the mesh: `/dawn/registry/1`, members only.
//!
//! A stream is one [`Session`]: messages behind a length of four bytes, in turns. A node compares with whoever comes up, and
//! with one connected member now and then; what came before a delta is fetched from who told it. At most so many sessions
//! at once, one with each member; each message has its time, and so has the whole. What came of a session is passed on to
//! the other neighbours: itself, where it is little; else by comparing with some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dawn_identity::{NodeId, UnixTime};
use dawn_mesh::{Inbound, Incoming, MeshStream, OpenError, Protocol};
use dawn_registry::replica::Applied;
use dawn_registry::sync::{MAX_MESSAGE_BYTES, Session, SyncError, Traffic};
use rand::seq::IndexedRandom as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{DELTA, Directory, PORTION};
use crate::members::now;
use crate::shares::{Pace, Share, Shares};
use crate::sync::{Counts, lock};

/// Registries are compared over it.
pub(crate) const REGISTRY: Protocol = Protocol("/dawn/registry/1");
/// Sessions that are answered at once, and of one member.
const ANSWERED: (usize, usize) = (16, 2);
/// Sessions begun at once.
const BEGUN: usize = 8;
/// Each message comes within this.
const STEP: Duration = Duration::from_secs(15);
/// A whole session takes no longer.
const WHOLE: Duration = Duration::from_secs(300);
/// A session in which little is said takes no longer than the first; each second more takes so many bytes.
const IDLE: Duration = Duration::from_secs(60);
const BYTES_A_SECOND: u64 = 64 << 10;
/// Deltas that no honest member has, before a session with who sends them ends.
pub(super) const BLAMED: u32 = 8;
/// Bytes of a session, of both directions.
const BYTES: u64 = 512 << 20;
/// The node with the greater id leaves the beginning to the other for so long.
const PRECEDENCE: Duration = Duration::from_millis(300);
/// Between tries with a member, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Between two comparisons with somebody, at least and at most.
const EVERY: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(40));
/// Sessions that one member may begin or be the reason of, within [`ASKED_IN`].
const ASKED: u32 = 20;
const ASKED_IN: Duration = Duration::from_secs(10);
/// Nodes that are fetched of one member by name; of more the whole is compared.
const FETCHED: usize = 64;
/// Deltas of a session that are passed on themselves.
const PASSED_ON: u64 = 16;
/// Neighbours that are compared with after a session that brought more.
const NEIGHBOURS: usize = 8;
/// They are not all asked at once.
const SPREAD: Duration = Duration::from_millis(1200);

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
    #[error(transparent)]
    Invalid(#[from] SyncError),
}

impl SessionFailure {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Late => "late",
            Self::Broken(_) => "broken",
            Self::TooLong(_) | Self::TooMuch => "too_much",
            Self::Refused => "refused",
            Self::Invalid(_) => "invalid",
        }
    }

    /// Whether the other side did what no honest one does.
    fn is_blamed(&self) -> bool {
        matches!(
            self,
            Self::TooLong(_) | Self::TooMuch | Self::Refused | Self::Invalid(_)
        )
    }
}

/// What is wanted of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    /// Whatever the two differ in.
    All,
    /// What it knows of these.
    Of(BTreeSet<NodeId>),
}

#[derive(Debug)]
struct Due {
    at: Instant,
    tries: u32,
    want: Want,
}

/// With whom this node is to compare, and with whom it does.
#[derive(Debug, Default)]
struct Agenda {
    due: BTreeMap<NodeId, Due>,
    running: BTreeMap<NodeId, CancellationToken>,
}

impl Agenda {
    /// Something is wanted of a member, at this time or what was planned before, whichever is earlier.
    fn plan(&mut self, peer: NodeId, at: Instant, want: Want) {
        let due = self.due.entry(peer).or_insert_with(|| Due {
            at,
            tries: 0,
            want: want.clone(),
        });
        due.at = due.at.min(at);
        due.want = match (std::mem::replace(&mut due.want, Want::All), want) {
            (Want::Of(mut some), Want::Of(more)) => {
                some.extend(more);
                if some.len() > FETCHED {
                    Want::All
                } else {
                    Want::Of(some)
                }
            }
            _ => Want::All,
        };
    }

    /// What is due now and can be begun.
    fn take(&mut self, now: Instant) -> Vec<(NodeId, Due, CancellationToken)> {
        let room = BEGUN.saturating_sub(self.running.len());
        let running = &self.running;
        let ready = self.due.iter();
        let ready = ready.filter(|(peer, due)| due.at <= now && !running.contains_key(*peer));
        let ready: Vec<NodeId> = ready.map(|(peer, _)| *peer).take(room).collect();
        let begun = ready.into_iter().filter_map(|peer| {
            let due = self.due.remove(&peer)?;
            let stop = CancellationToken::new();
            self.running.insert(peer, stop.clone());
            Some((peer, due, stop))
        });
        begun.collect()
    }

    /// When to look again; `None` when a session has to end before.
    fn next(&self) -> Option<Instant> {
        if self.running.len() >= BEGUN {
            return None;
        }
        let waiting = self.due.iter().filter(|(peer, _)| !self.running.contains_key(*peer));
        waiting.map(|(_, due)| due.at).min()
    }
}

/// A comparison that went through.
#[derive(Debug, Clone, Copy)]
pub struct Synced {
    /// With whom.
    pub with: NodeId,
    /// When it ended.
    pub at: UnixTime,
    /// Heads that were new here.
    pub got: u64,
    /// What was said.
    pub traffic: Traffic,
}

/// The sessions of one node.
#[derive(Debug)]
pub(super) struct Sessions {
    agenda: Mutex<Agenda>,
    answered: Shares,
    asked: Pace,
    counts: Counts,
    /// The last comparison with each member.
    synced: Mutex<BTreeMap<NodeId, Synced>>,
    overhead: AtomicU64,
    deltas: AtomicU64,
    wake: Notify,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            agenda: Mutex::default(),
            answered: Shares::new(ANSWERED.0, ANSWERED.1),
            asked: Pace::new(ASKED, ASKED_IN),
            counts: Counts::default(),
            synced: Mutex::default(),
            overhead: AtomicU64::new(0),
            deltas: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }
}

impl Sessions {
    /// How many sessions ended how.
    pub(super) fn counted(&self) -> Vec<(&'static str, u64)> {
        self.counts.all()
    }

    /// Bytes of all sessions: what was said to find out who lacks what, and the deltas.
    pub(super) fn bytes(&self) -> [(&'static str, u64); 2] {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        [("overhead", load(&self.overhead)), ("deltas", load(&self.deltas))]
    }

    /// The last comparison that went through: with this member, or with anybody.
    pub(super) fn last(&self, with: Option<NodeId>) -> Option<Synced> {
        let synced = lock(&self.synced);
        match with {
            Some(node) => synced.get(&node).copied(),
            None => synced.values().max_by_key(|synced| synced.at).copied(),
        }
    }

    pub(super) fn forget(&self, node: &NodeId) {
        lock(&self.synced).remove(node);
    }

    fn add(&self, traffic: Traffic) {
        self.overhead.fetch_add(traffic.overhead, Ordering::Relaxed);
        self.deltas.fetch_add(traffic.deltas, Ordering::Relaxed);
    }

    fn plan(&self, peer: NodeId, after: Duration, want: Want) {
        lock(&self.agenda).plan(peer, Instant::now() + after, want);
        self.wake.notify_one();
    }

    /// Whether a session may be begun because of what a member did, or it does so too often; it is counted.
    pub(super) fn may_ask_for(&self, peer: NodeId) -> bool {
        self.asked.may(peer)
    }

    /// What goes on with a member goes nowhere: it was started again.
    fn break_off(&self, peer: NodeId) {
        if let Some(stop) = lock(&self.agenda).running.get(&peer) {
            stop.cancel();
        }
    }
}

/// What was new in a session.
#[derive(Debug, Default)]
pub(super) struct News {
    got: u64,
    /// The first of them.
    deltas: Vec<Bytes>,
}

impl News {
    fn add(&mut self, delta: Vec<u8>) {
        self.got += 1;
        if self.got <= PASSED_ON {
            self.deltas.push(delta.into());
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
    /// A member came up, or was started again: the two compare.
    pub(super) fn compare_with(&self, peer: NodeId) {
        let is_first = self.0.key.node_id() < peer;
        let after = if is_first { Duration::ZERO } else { PRECEDENCE };
        self.0.sessions.break_off(peer);
        self.0.sessions.plan(peer, after, Want::All);
    }

    /// What a member knows of a node is wanted: it told of something that came after what is missing here.
    pub(super) fn fetch(&self, peer: NodeId, node: NodeId) {
        let after = match self.0.sessions.asked.may(peer) {
            true => Duration::ZERO,
            false => ASKED_IN,
        };
        self.0.sessions.plan(peer, after, Want::Of(BTreeSet::from([node])));
    }

    /// Some connected members, by chance.
    fn neighbours(&self, most: usize, but: Option<NodeId>) -> Vec<NodeId> {
        let mut connected: Vec<NodeId> = self.0.mesh.connected().iter().map(|peer| peer.node).collect();
        connected.retain(|node| Some(*node) != but);
        connected.sample(&mut rand::rng(), most).copied().collect()
    }

    /// Begins sessions when they are due, until `stop`.
    pub(super) async fn keep_in_step(self, stop: CancellationToken) {
        let every = || Instant::now() + rand::random_range(EVERY.0..EVERY.1);
        let mut look = every();
        loop {
            let begun = lock(&self.0.sessions.agenda).take(Instant::now());
            for (peer, due, cut) in begun {
                let directory = self.clone();
                let stop = stop.clone();
                self.0.tasks.spawn(async move {
                    let session = Box::pin(directory.begin(peer, &due, &cut));
                    // What is broken off by the end of the node is compared at its next start.
                    let _ended = stop.run_until_cancelled(session).await;
                    lock(&directory.0.sessions.agenda).running.remove(&peer);
                    directory.0.sessions.wake.notify_one();
                });
            }
            let next = lock(&self.0.sessions.agenda).next().map_or(look, |next| next.min(look));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.sessions.wake.notified() => {}
                () = tokio::time::sleep_until(next) => {
                    if look <= Instant::now() {
                        look = every();
                        for peer in self.neighbours(1, None) {
                            self.0.sessions.plan(peer, Duration::ZERO, Want::All);
                        }
                    }
                }
            }
        }
    }

    /// One session that this node begins; where it fails it is planned anew.
    async fn begin(&self, peer: NodeId, due: &Due, cut: &CancellationToken) {
        let sessions = &self.0.sessions;
        let is_there = || self.0.mesh.connected().iter().any(|connected| connected.node == peer);
        if !is_there() || self.0.refusing.is_limited(peer) {
            return;
        }
        let session = async {
            let snapshot = self.book().await.snapshot()?;
            let session = match &due.want {
                Want::All => Session::initiate(snapshot),
                Want::Of(nodes) => Session::fetch(snapshot, nodes.iter().copied()),
            };
            let mut stream = self.0.mesh.open(peer, REGISTRY).await?;
            self.converse(&mut stream, session, peer).await
        };
        let Some(ended) = cut.run_until_cancelled(session).await else {
            return sessions.counts.count("broken_off");
        };
        let Err(error) = ended else {
            return sessions.counts.count("begun");
        };
        self.failed(peer, &error).await;
        if !error.is_blamed() && is_there() {
            let pause = RETRY.0.saturating_mul(1 << due.tries.min(16)).min(RETRY.1);
            let mut agenda = lock(&sessions.agenda);
            agenda.plan(peer, Instant::now() + pause, due.want.clone());
            if let Some(again) = agenda.due.get_mut(&peer) {
                again.tries = due.tries.saturating_add(1);
            }
        }
    }

    /// Answers members, until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let peer = peer.node;
            let Some(share) = self.may_be_asked(peer) else {
                continue;
            };
            {
                // What was planned with it takes place now; where it breaks off, who began it begins anew.
                let mut agenda = lock(&self.0.sessions.agenda);
                if agenda.due.get(&peer).is_some_and(|due| due.want == Want::All) {
                    agenda.due.remove(&peer);
                }
            }
            let directory = self.clone();
            self.0.tasks.spawn(async move {
                let answered = async {
                    let snapshot = directory.book().await.snapshot()?;
                    directory.converse(&mut stream, Session::respond(snapshot), peer).await
                };
                match answered.await {
                    Ok(()) => directory.0.sessions.counts.count("answered"),
                    Err(error) => directory.failed(peer, &error).await,
                }
                drop(share);
            });
        }
    }

    /// Room for one question of a member about what is known, if it has not asked too often.
    pub(super) fn may_be_asked(&self, peer: NodeId) -> Option<Share> {
        if self.0.refusing.is_limited(peer) {
            return None;
        }
        let share = self.0.sessions.answered.take(peer);
        let share = share.filter(|_| self.0.sessions.asked.may(peer));
        if share.is_none() {
            self.0.sessions.counts.count("busy");
        }
        share
    }

    async fn failed(&self, peer: NodeId, error: &SessionFailure) {
        self.0.sessions.counts.count(error.code());
        if error.is_blamed() {
            self.refuse(peer, "session", &error.to_string(), true).await;
        } else {
            tracing::debug!(%peer, %error, "a comparison broke off");
        }
    }

    /// Takes part in a session until its end, and passes on what came of it.
    async fn converse(
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
            lock(&self.0.sessions.synced).insert(peer, synced);
        }
        self.pass_on(peer, news);
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
                let message = session.transmit(&self.book().await.replica)?;
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
                if blamed >= patience || self.0.refusing.is_spent(from) {
                    return Err(SessionFailure::Refused);
                }
            }
            // Of many small messages others have their turn, too.
            tokio::task::yield_now().await;
        }
        Ok(blamed)
    }

    /// What came of a session is news to the other neighbours too, maybe.
    fn pass_on(&self, from: NodeId, news: News) {
        if news.got <= PASSED_ON {
            for delta in news.deltas {
                self.0.mesh.publish(DELTA, &delta);
            }
            return;
        }
        for peer in self.neighbours(NEIGHBOURS, Some(from)) {
            let after = rand::random_range(Duration::ZERO..SPREAD);
            self.0.sessions.plan(peer, after, Want::All);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn of(nodes: impl IntoIterator<Item = u8>) -> Want {
        Want::Of(nodes.into_iter().map(node).collect())
    }

    #[test]
    fn what_is_wanted_of_a_member_is_put_together_and_taken_when_it_is_due() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut agenda = Agenda::default();
        agenda.plan(node(1), now + second, of([7]));
        agenda.plan(node(1), now + second * 2, of([8]));
        assert_eq!(agenda.next(), Some(now + second));
        assert!(agenda.take(now).is_empty());
        let taken = agenda.take(now + second);
        assert_eq!(taken[0].1.want, of([7, 8]));
        // While it runs, what comes in between waits.
        agenda.plan(node(1), now, of([9]));
        agenda.plan(node(1), now, Want::All);
        assert_eq!((agenda.next(), agenda.take(now).len()), (None, 0));
        agenda.running.clear();
        assert_eq!(agenda.take(now)[0].1.want, Want::All);
        agenda.running.clear();
        agenda.plan(node(2), now, of(0..60));
        agenda.plan(node(2), now, of(60..120));
        assert_eq!(agenda.take(now)[0].1.want, Want::All, "of many the whole is compared");
    }

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

    #[test]
    fn only_so_many_sessions_are_begun_at_once() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        for peer in 0..20 {
            agenda.plan(node(peer), now, Want::All);
        }
        assert_eq!(agenda.take(now).len(), BEGUN);
        assert_eq!((agenda.take(now).len(), agenda.next()), (0, None));
        agenda.running.remove(&node(0));
        assert_eq!(agenda.next(), Some(now));
        assert_eq!(agenda.take(now).len(), 1);
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
