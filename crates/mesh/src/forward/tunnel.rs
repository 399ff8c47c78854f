//! A tunnel: one session with a node that is reached through others, with streams multiplexed over it.
//!
//! The driver is one task for each tunnel. It moves what came over the paths into the session, the session's bytes through
//! the multiplexer to the streams, and the other way round; and it sees to it that there is a path.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_channel::transport::CloseCode;
use dawn_channel::{SessionId, StaticPublic};
use dawn_identity::{Membership, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::connect::{self, Way};
use super::path::{Path, PathError};
use super::places::Place;
use super::record::Message;
use super::session::{Health, PathId, Session};
use crate::error::OpenError;
use crate::handle::{Mesh, Protocol, lock};
use crate::peer::{Counters, Gate, Peer, Refusal};
use crate::stream::MeshStream;
use crate::swarm::Connection;

/// Longest name of a protocol, bytes.
const NAME: usize = 64;
/// For each stream that this node may open so many are taken of the peer, for whom one may have ended that is not over
/// here,
const TAKEN: usize = 2;
/// and so many are known to the multiplexer, which would end the session if there were more.
const MULTIPLEXED: usize = TAKEN + 2;
/// How long a peer may take to name a stream's protocol.
const PATIENCE: Duration = Duration::from_secs(5);
/// Paths of one session that are open at once; the oldest goes.
const PATHS: usize = 4;
/// Between two tries to find a path.
const PAUSE: Duration = Duration::from_millis(250);
/// A tunnel to a node that is connected directly ends when it was unused for so long.
const UNNEEDED: Duration = Duration::from_secs(1);
/// The last word on a path whose session goes on over another.
const MOVED: CloseCode = CloseCode::Other(100);
/// After so many rounds of work others have their turn.
const ROUNDS: usize = 64;

/// The session of a tunnel, shared with the multiplexer's end of it.
pub(crate) type Shared = Arc<Mutex<Session>>;

/// What the driver is told.
pub(crate) enum Command {
    /// A stream is wanted.
    Open(oneshot::Sender<yamux::Stream>),
    /// The peer resumes over this path; it has everything up to here.
    Resume(Box<Path>, u64),
    /// What became of looking for a path.
    Connected(Result<(Box<Path>, u64), OpenError>),
    /// There is a connection to the peer now, or a better one.
    Direct,
    /// This node's chain was renewed.
    Chain(Bytes),
    /// The tunnel ends.
    End(CloseCode, &'static str),
}

/// What is known of a tunnel from outside.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) peer: Peer,
    pub(crate) membership: Membership,
    /// The static key that it proved last.
    pub(crate) key: StaticPublic,
    /// The members in between, nearest first; `None` while there is no path.
    pub(crate) via: Option<Vec<NodeId>>,
    pub(crate) rtt: Option<Duration>,
}

/// One end of a tunnel. Clones share it.
#[derive(Clone)]
pub(crate) struct Tunnel(Arc<Inner>);

struct Inner {
    node: NodeId,
    id: SessionId,
    /// Whether this node began the session.
    is_initiator: bool,
    since: Instant,
    session: Shared,
    status: Mutex<Status>,
    commands: mpsc::UnboundedSender<Command>,
    /// For the streams that this node opens.
    opened: Arc<Semaphore>,
    /// For those of the peer.
    taken: Arc<Semaphore>,
    /// For those of the peer over whatever leads to it.
    of_peer: Arc<Semaphore>,
    /// How long a stream may take to open.
    patience: Duration,
    /// Ends the streams.
    cut: CancellationToken,
}

/// What a session begins with.
pub(crate) struct Beginning {
    pub(crate) path: Path,
    pub(crate) membership: Membership,
    pub(crate) chain: Bytes,
    /// What the peer takes without having acknowledged it.
    pub(crate) peer_window: u32,
    pub(crate) is_initiator: bool,
    pub(crate) place: Place,
}

impl Tunnel {
    /// Starts a tunnel over its first path.
    pub(crate) fn start(mesh: &Mesh, session: Session, beginning: Beginning) -> Self {
        let Beginning {
            path,
            membership,
            chain,
            is_initiator,
            place,
            ..
        } = beginning;
        let node = path.peer();
        let config = mesh.forward_config();
        let (commands, receiver) = mpsc::unbounded_channel();
        let status = Status {
            peer: Peer {
                node,
                membership: Some(membership.clone()),
                chain,
            },
            membership,
            key: path.key(),
            via: None,
            rtt: None,
        };
        let tunnel = Self(Arc::new(Inner {
            node,
            id: path.session(),
            is_initiator,
            since: Instant::now(),
            session: Arc::new(Mutex::new(session)),
            status: Mutex::new(status),
            commands,
            opened: Arc::new(Semaphore::new(config.streams)),
            taken: Arc::new(Semaphore::new(TAKEN * config.streams)),
            of_peer: mesh.shared.streams_of(node),
            patience: mesh.shared.limits.open,
            cut: mesh.shared.stop.child_token(),
        }));
        let mut multiplexing = yamux::Config::default();
        multiplexing.set_max_connection_receive_window(None);
        let streams = MULTIPLEXED * config.streams;
        multiplexing.set_max_num_streams(streams);
        multiplexing.set_max_connection_receive_window(Some(streams * yamux::DEFAULT_CREDIT as usize));
        let mode = if is_initiator {
            yamux::Mode::Client
        } else {
            yamux::Mode::Server
        };
        let wire = Wire {
            session: Arc::clone(&tunnel.0.session),
        };
        let mut driver = Driver {
            mesh: mesh.clone(),
            _place: place,
            tunnel: tunnel.clone(),
            multiplexer: yamux::Connection::new(wire, multiplexing, mode),
            commands: receiver,
            opening: VecDeque::new(),
            paths: Vec::new(),
            next_path: 0,
            connecting: None,
            try_again: None,
            go_direct: false,
            lost_at: None,
            idle_since: Some(Instant::now()),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        };
        // A new session has sent nothing, and its first path cannot contradict it.
        if let Err(End(_, words)) = driver.attach(path, 0, Instant::now()) {
            tracing::debug!(%node, %words, "the first path of a session");
        }
        tokio::spawn(driver.run());
        tunnel
    }

    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    pub(crate) fn id(&self) -> SessionId {
        self.0.id
    }

    pub(crate) fn is_initiator(&self) -> bool {
        self.0.is_initiator
    }

    pub(crate) fn since(&self) -> Instant {
        self.0.since
    }

    pub(crate) fn session(&self) -> &Shared {
        &self.0.session
    }

    pub(crate) fn status<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&lock(&self.0.status))
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        lock(&self.0.status).rtt = Some(rtt);
    }

    pub(crate) fn has_path(&self) -> bool {
        self.status(|status| status.via.is_some())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.cut.is_cancelled()
    }

    pub(crate) fn tell(&self, command: Command) {
        // A driver that is gone has ended the tunnel.
        let _ = self.0.commands.send(command);
    }

    /// Asks the gate about the chain and the key that the peer showed last.
    pub(crate) fn recheck(&self, gate: &dyn Gate) -> Result<(), Refusal> {
        let (chain, key) = self.status(|status| (status.peer.chain.clone(), status.key));
        let _ = gate.verify(self.0.node, &chain)?;
        gate.verify_key(self.0.node, &key)
    }

    /// Takes note of a chain that the peer showed over a path, and of the key that it proved there.
    pub(crate) fn shown(&self, gate: &dyn Gate, chain: Bytes, key: StaticPublic) -> Result<(), Refusal> {
        let membership = gate.verify(self.0.node, &chain)?;
        gate.verify_key(self.0.node, &key)?;
        let mut status = lock(&self.0.status);
        status.peer.membership = Some(membership.clone());
        status.membership = membership;
        status.key = key;
        status.peer.chain = chain;
        Ok(())
    }

    /// Opens a stream.
    pub(crate) async fn open(&self, protocol: Protocol) -> Result<MeshStream, OpenError> {
        let lost = || OpenError::NotConnected {
            node: self.0.node,
            reason: "the forwarded route was lost".into(),
        };
        let busy = || OpenError::NotConnected {
            node: self.0.node,
            reason: "too many streams are open to it over a forwarded route; try again when some have ended".into(),
        };
        let permit = tokio::select! {
            permit = tokio::time::timeout(self.0.patience, Arc::clone(&self.0.opened).acquire_owned()) => {
                permit.ok().and_then(Result::ok).ok_or_else(busy)?
            }
            () = self.0.cut.cancelled() => return Err(lost()),
        };
        let (reply, opened) = oneshot::channel();
        self.tell(Command::Open(reply));
        let stream = opened.await.map_err(|_| lost())?;
        let mut stream = self.stream(stream, vec![permit]);
        let name = protocol.0.as_bytes();
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let header = [&[length][..], name].concat();
        stream.write_all(&header).await.map_err(|_| lost())?;
        Ok(stream)
    }

    fn stream(&self, stream: yamux::Stream, permits: Vec<OwnedSemaphorePermit>) -> MeshStream {
        MeshStream::tunnel(stream, self.0.node, self.0.cut.clone(), permits)
    }

    /// Hands a stream that the peer opened to whoever serves its protocol.
    async fn deliver(self, mesh: Mesh, stream: yamux::Stream, permit: OwnedSemaphorePermit) {
        let mut permits = vec![permit];
        let mut stream = stream;
        let named = async {
            let mut stream = tokio_util::compat::FuturesAsyncReadCompatExt::compat(&mut stream);
            let length = usize::from(stream.read_u8().await?);
            let mut name = vec![0; length];
            let _ = stream.read_exact(&mut name).await?;
            Ok::<_, io::Error>(name)
        };
        let Ok(Ok(name)) = tokio::time::timeout(PATIENCE, named).await else {
            return;
        };
        let Some(name) = String::from_utf8(name).ok().filter(|name| name.len() <= NAME) else {
            return;
        };
        match Arc::clone(&self.0.of_peer).try_acquire_owned() {
            Ok(permit) => permits.push(permit),
            Err(_) => return Counters::count(&mesh.shared.counters.refused_streams),
        }
        let peer = self.status(|status| status.peer.clone());
        mesh.shared
            .deliver_forwarded(&name, peer, &mut permits, |permits| self.stream(stream, permits))
            .await;
    }
}

/// The multiplexer's end of the session. Whoever drives both polls it whenever something changed: no waker is kept.
struct Wire {
    session: Shared,
}

impl futures::AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match lock(&self.session).read(buffer, Instant::now()) {
            0 => Poll::Pending,
            read => Poll::Ready(Ok(read)),
        }
    }
}

impl futures::AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match lock(&self.session).write(bytes) {
            0 if !bytes.is_empty() => Poll::Pending,
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Driver {
    mesh: Mesh,
    tunnel: Tunnel,
    /// Given back when all of this is gone.
    _place: Place,
    multiplexer: yamux::Connection<Wire>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Who waits for a stream.
    opening: VecDeque<oneshot::Sender<yamux::Stream>>,
    /// The latest last.
    paths: Vec<(PathId, Path)>,
    next_path: u32,
    /// Ends the search for a path that is under way.
    connecting: Option<CancellationToken>,
    /// No path is looked for before this.
    try_again: Option<Instant>,
    /// Whether a better connection has come to be that was not tried yet.
    go_direct: bool,
    /// Since when there is no path.
    lost_at: Option<Instant>,
    /// Since when there is no stream.
    idle_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// Why a tunnel ends.
struct End(CloseCode, String);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(connecting) = &self.connecting {
            connecting.cancel();
        }
        self.tunnel.0.cut.cancel();
        self.mesh.tunnel_over(&self.tunnel);
    }
}

impl Driver {
    async fn run(mut self) {
        let stop = self.mesh.shared.stop.clone();
        let End(code, words) = tokio::select! {
            end = std::future::poll_fn(|context| self.poll(context)) => end,
            () = stop.cancelled() => End(CloseCode::GoingAway, "the node shuts down".into()),
        };
        tracing::debug!(node = %self.tunnel.node(), ?code, %words, "a tunnel ended");
        self.tunnel.0.cut.cancel();
        let paths = std::mem::take(&mut self.paths).into_iter();
        let _: Vec<()> = futures::future::join_all(paths.map(|(_, path)| path.end(code, &words))).await;
    }

    fn open_streams(&self) -> usize {
        let streams = self.mesh.forward_config().streams;
        let free = self.tunnel.0.opened.available_permits() + self.tunnel.0.taken.available_permits();
        ((1 + TAKEN) * streams).saturating_sub(free)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS {
            match self.round(context) {
                Ok(true) => {}
                Ok(false) => {
                    let due = self.deadline(Instant::now());
                    self.timer.as_mut().reset(due.into());
                    if self.timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
                Err(end) => return Poll::Ready(end),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what there is to do; `true` when something moved.
    fn round(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(context) {
            self.command(command)?;
            moved = true;
        }
        moved |= self.read_paths(context)?;
        moved |= self.multiplex(context)?;
        moved |= self.transmit(context)?;
        self.look_after(Instant::now())?;
        Ok(moved)
    }

    fn command(&mut self, command: Command) -> Result<(), End> {
        let now = Instant::now();
        match command {
            Command::Open(reply) => self.opening.push_back(reply),
            Command::Resume(mut path, peer_received) => {
                let resumed = Message::Resumed {
                    received: lock(self.tunnel.session()).received(),
                    chain: self.mesh.shared.gate.own_chain().into(),
                };
                if let Err(error) = path.send(&resumed, now) {
                    tracing::debug!(%error, "a path was not resumed");
                } else {
                    Counters::count(&self.mesh.shared.counters.resumed);
                    self.attach(*path, peer_received, now)?;
                }
            }
            Command::Connected(Ok((path, peer_received))) => {
                self.connecting = None;
                self.try_again = None;
                Counters::count(&self.mesh.shared.counters.resumed);
                // What is under way on the others comes again over this one.
                let older = std::mem::take(&mut self.paths);
                self.attach(*path, peer_received, now)?;
                for (_, path) in older {
                    tokio::spawn(path.end(MOVED, "another path has taken over"));
                }
            }
            Command::Connected(Err(error @ (OpenError::Refused { .. } | OpenError::NotAccepted { .. }))) => {
                return Err(End(CloseCode::Done, error.to_string()));
            }
            Command::Connected(Err(error)) => {
                tracing::debug!(node = %self.tunnel.node(), %error, "no other path");
                self.connecting = None;
                self.try_again = Some(now + PAUSE);
            }
            Command::Direct => self.go_direct = true,
            Command::Chain(chain) => {
                if let Some((_, path)) = self.paths.last_mut() {
                    // A path that fails is noticed when it is read; a resumed one shows the chain as well.
                    let _ = path.send(&Message::Chain(chain), now);
                }
            }
            Command::End(code, words) => return Err(End(code, words.into())),
        }
        Ok(())
    }

    fn attach(&mut self, path: Path, peer_received: u64, now: Instant) -> Result<(), End> {
        let id = PathId(self.next_path);
        self.next_path += 1;
        lock(self.tunnel.session())
            .attach(id, peer_received, now)
            .map_err(|violation| End(CloseCode::Misbehaved, violation.to_string()))?;
        tracing::debug!(node = %self.tunnel.node(), via = path.via.len(), "a path is in use");
        lock(&self.tunnel.0.status).via = Some(path.via.clone());
        self.lost_at = None;
        self.paths.push((id, path));
        if self.paths.len() > PATHS {
            let (id, _) = self.paths.remove(0);
            lock(self.tunnel.session()).detach(id);
        }
        Ok(())
    }

    fn lose(&mut self, id: PathId, error: &PathError) -> Result<(), End> {
        let now = Instant::now();
        tracing::debug!(node = %self.tunnel.node(), %error, "a path ended");
        self.paths.retain(|(known, _)| *known != id);
        if let PathError::Closed { code, message } = error
            && *code != MOVED
        {
            return Err(End(CloseCode::Done, message.clone()));
        }
        let mut session = lock(self.tunnel.session());
        session.detach(id);
        if session.path().is_some() {
            return Ok(());
        }
        // What the peer has of the rest is not known: everything that is not acknowledged is repeated.
        if let Some((id, path)) = self.paths.last() {
            let acknowledged = session.acknowledged_by_peer();
            let attached = session.attach(*id, acknowledged, now);
            lock(&self.tunnel.0.status).via = Some(path.via.clone());
            return attached.map_err(|violation| End(CloseCode::Misbehaved, violation.to_string()));
        }
        drop(session);
        self.lost_at = Some(now);
        lock(&self.tunnel.0.status).via = None;
        Ok(())
    }

    fn read_paths(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let now = Instant::now();
        let mut moved = false;
        let mut lost = Vec::new();
        for (id, path) in &mut self.paths {
            // Not endlessly, so that what comes is also taken.
            for _ in 0..ROUNDS {
                let message = match path.poll_message(context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(message)) => message,
                    Poll::Ready(Err(error)) => {
                        lost.push((*id, error));
                        break;
                    }
                };
                moved = true;
                match message {
                    Message::Record(record) => lock(self.tunnel.session())
                        .receive(*id, record, now)
                        .map_err(|violation| End(CloseCode::Misbehaved, violation.to_string()))?,
                    Message::Chain(chain) => self
                        .tunnel
                        .shown(&*self.mesh.shared.gate, chain, path.key())
                        .map_err(|refusal| End(CloseCode::Refused, refusal.message))?,
                    Message::Refused { reason, evidence } => {
                        let (gate, node) = (Arc::clone(&self.mesh.shared.gate), self.tunnel.node());
                        tokio::spawn(async move { gate.refused(node, &evidence).await });
                        return Err(End(CloseCode::Done, reason));
                    }
                    _ => return Err(End(CloseCode::Misbehaved, "a message out of turn".into())),
                }
            }
        }
        for (id, error) in &lost {
            self.lose(*id, error)?;
        }
        Ok(moved || !lost.is_empty())
    }

    fn multiplex(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let broken = |error: yamux::ConnectionError| End(CloseCode::Misbehaved, error.to_string());
        let mut moved = false;
        loop {
            match self.multiplexer.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(stream))) => {
                    moved = true;
                    match Arc::clone(&self.tunnel.0.taken).try_acquire_owned() {
                        Ok(permit) => {
                            tokio::spawn(self.tunnel.clone().deliver(self.mesh.clone(), stream, permit));
                        }
                        Err(_) => Counters::count(&self.mesh.shared.counters.refused_streams),
                    }
                }
                Poll::Ready(Some(Err(error))) => return Err(broken(error)),
                Poll::Ready(None) => return Err(End(CloseCode::Done, "the peer has ended the streams".into())),
                Poll::Pending => break,
            }
        }
        self.opening.retain(|reply| !reply.is_closed());
        while !self.opening.is_empty() {
            match self.multiplexer.poll_new_outbound(context) {
                Poll::Ready(Ok(stream)) => {
                    moved = true;
                    if let Some(reply) = self.opening.pop_front() {
                        // Whoever asked may have given up.
                        let _ = reply.send(stream);
                    }
                }
                Poll::Ready(Err(error)) => return Err(broken(error)),
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let now = Instant::now();
        let busy = self.open_streams() > 0;
        let mut moved = false;
        let mut failed = Vec::new();
        let mut session = lock(self.tunnel.session());
        session.set_busy(busy);
        let current = session.path();
        for (id, path) in &mut self.paths {
            if path.poll_timeout().is_some_and(|at| at <= now)
                && let Err(error) = path.handle_timeout(now)
            {
                failed.push((*id, error));
                continue;
            }
            while current == Some(*id) && path.has_room() {
                let Some(record) = session.poll_transmit(now) else {
                    break;
                };
                moved = true;
                if let Err(error) = path.send(&record.into(), now) {
                    failed.push((*id, error));
                    break;
                }
            }
            if let Poll::Ready(Err(error)) = path.poll_flush(context) {
                failed.push((*id, error));
            }
        }
        drop(session);
        for (id, error) in &failed {
            self.lose(*id, error)?;
        }
        Ok(moved || !failed.is_empty())
    }

    /// Sees to it that there is a path, and that nothing is kept that is not needed.
    fn look_after(&mut self, now: Instant) -> Result<(), End> {
        let (health, current, settled, rtt) = {
            let session = lock(self.tunnel.session());
            (
                session.health(now),
                session.path(),
                session.is_settled(),
                session.round_trip(),
            )
        };
        if let Some(rtt) = rtt {
            let mut status = lock(&self.tunnel.0.status);
            if status.rtt.is_none() {
                status.rtt = Some(rtt);
            }
        }
        if let (Some(Health::Dead), Some(id)) = (health, current) {
            return self.lose(id, &io::Error::from(io::ErrorKind::TimedOut).into());
        }
        let config = self.mesh.forward_config();
        if self.lost_at.is_some_and(|lost| now >= lost + config.resume) {
            return Err(End(CloseCode::GoingAway, "no path was found in time".into()));
        }
        self.go_direct = self.go_direct && !self.is_on_best();
        let wanted = self.go_direct || matches!(health, None | Some(Health::Suspect));
        let may = self.try_again.is_none_or(|at| at <= now);
        if self.tunnel.is_initiator() && wanted && may && self.connecting.is_none() {
            self.connect();
        }
        if self.open_streams() > 0 || !self.opening.is_empty() {
            self.idle_since = None;
        } else {
            let since = *self.idle_since.get_or_insert(now);
            if settled && now >= since + self.idle_for() {
                return Err(End(CloseCode::Done, "it is not used".into()));
            }
        }
        Ok(())
    }

    /// Whether the path in use goes over the best connection with the peer, or there is none.
    fn is_on_best(&self) -> bool {
        let connections = self.mesh.connections(self.tunnel.node());
        let path = self.paths.last().filter(|(_, path)| path.via.is_empty());
        path.is_some_and(|(_, path)| {
            let used = connections.iter().find(|known| Some(known.id) == path.connection());
            let rank = |connection: &Connection| connection.route.rank();
            used.map(rank) == connections.first().map(rank)
        })
    }

    /// For how long the tunnel may be unused. Who began it ends it; the other one does if it is forgotten.
    fn idle_for(&self) -> Duration {
        let config = self.mesh.forward_config();
        let node = self.tunnel.node();
        let is_unneeded = self.mesh.shared.peer(node).is_some() && !self.mesh.needs_tunnel(node);
        match (self.tunnel.is_initiator(), is_unneeded) {
            (true, true) => UNNEEDED,
            (true, false) => config.idle,
            (false, _) => config.idle * 2,
        }
    }

    /// Looks for another path.
    fn connect(&mut self) {
        let stop = CancellationToken::new();
        self.connecting = Some(stop.clone());
        let go_direct = std::mem::take(&mut self.go_direct);
        let (mesh, tunnel) = (self.mesh.clone(), self.tunnel.clone());
        let avoid = self.paths.last().map(|(_, path)| Way::of(path));
        tokio::spawn(async move {
            let finding = async {
                // Without any path the others are tried as well.
                if go_direct && avoid.is_some() {
                    connect::go_direct(&mesh, &tunnel).await
                } else {
                    connect::resume(&mesh, &tunnel, avoid).await
                }
            };
            let found = stop.run_until_cancelled(finding).await;
            if let Some(found) = found {
                tunnel.tell(Command::Connected(
                    found.map(|(path, received)| (Box::new(path), received)),
                ));
            }
        });
    }

    fn deadline(&self, now: Instant) -> Instant {
        let session = lock(self.tunnel.session()).poll_timeout(now);
        let paths = self.paths.iter().filter_map(|(_, path)| path.poll_timeout()).min();
        let lost = self.lost_at.map(|lost| lost + self.mesh.forward_config().resume);
        let again = self.try_again.filter(|at| *at > now);
        let settled = lock(self.tunnel.session()).is_settled();
        let idle = self.idle_since.filter(|_| settled).map(|since| since + self.idle_for());
        let far = now + Duration::from_secs(3600);
        let due = [session, paths, lost, again, idle, Some(far)]
            .into_iter()
            .flatten()
            .min();
        // What is overdue without being possible is looked at again soon.
        due.unwrap_or(far).max(now + Duration::from_millis(2))
    }
}
