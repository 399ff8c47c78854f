//! Holes through NATs: two members that reach each other through relays or other members only get a connection of their
//! own, where what stands between them lets it come to be.
//!
//! The one with the smaller id begins. Both tell each other where they are seen and what they are behind ([`exchange`],
//! [`offer`]), decide alike what to do ([`plan`]), send probes at the same moment ([`attempt`]), and one dials QUIC over the
//! pair of addresses that worked. Where datagrams do not come through, or did not, both dial over TCP at the same moment
//! ([`tcp`]). Running streams move to the new connection by themselves (see `forward`). What fails is tried again ([`retry`])
//! after growing pauses, and at once when the network has changed or a relay leads to the peer anew.

mod attempt;
mod exchange;
mod offer;
mod plan;
mod retry;
mod tcp;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::attempt::{Attempt, Secrets, Send};
use self::exchange::ExchangeError;
use self::offer::Offer;
use self::plan::{Hopeless, Means, Plan, Side};
use self::retry::Retries;
use self::tcp::Tcp;
use crate::backoff::Backoff;
use crate::error::{AcceptError, OpenError};
use crate::handle::{Inbound, Incoming, Mesh, Protocol, lock};
use crate::nat::mapping::Protocol as Over;
use crate::nat::sockets::Sockets;
use crate::nat::stun::Message;
use crate::nat::watch::Watch;
use crate::peer::{Audience, Counters};
use crate::quic::Socket;
use crate::stream::MeshStream;
use crate::swarm::Control;

/// Two members agree on a hole over it.
const PUNCH: Protocol = Protocol("/dawn/punch/1");
/// How long an agreement may take.
const AGREEMENT: Duration = Duration::from_secs(5);
/// How long the connection may take over the pair that was found.
const DIAL: Duration = Duration::from_secs(6);
/// How long a try over TCP may take: a packet that was lost, since it came before the other side had sent one, is repeated
/// by the system after a second.
const TCP: Duration = Duration::from_secs(3);
/// Of so many tries the last is by the other of two means: what fails just once mostly came too early.
const OTHER: u32 = 3;
/// So much later begins who has the part of the listener, so that the other's socket waits for its packet.
const LATER: Duration = Duration::from_millis(50);
/// Dials within a try over TCP, where what is in between turns one down, and how long after the one before.
const DIALS: usize = 4;
const AFTER: Duration = Duration::from_millis(200);
/// How long a try waits for the burst of another to end: the peer has begun, and goes on for a while.
const TURN: Duration = Duration::from_secs(3);
/// Tries under way at once.
const AT_ONCE: usize = 8;
/// Between two looks at who is reached through others only.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses after failures.
const PAUSES: Backoff = Backoff {
    first: Duration::from_secs(1),
    max: Duration::from_secs(600),
};
/// Peers of which it is remembered what became of the last try.
const REMEMBERED: usize = 1024;

/// What became of the last try to punch a hole to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PunchOutcome {
    /// There is a connection.
    Punched,
    /// No pair of addresses worked, or the two did not come to an agreement.
    Failed,
    /// Both are behind a symmetric NAT: it was not tried.
    BothSymmetric,
    /// UDP does not come through at one of the two, and over TCP one is behind a symmetric NAT: it was not tried.
    TcpSymmetric,
    /// Nobody has told one of the two where it is: it was not tried.
    NoAddress,
}

impl PunchOutcome {
    /// A stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Punched => "punched",
            Self::Failed => "failed",
            Self::BothSymmetric => "both_symmetric",
            Self::TcpSymmetric => "tcp_symmetric",
            Self::NoAddress => "no_address",
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum PunchError {
    /// There was no stream to agree over.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No agreement.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The dials met nobody.
    #[error("nobody was met over TCP")]
    NotMet,
    /// Not in time.
    #[error("the peer took too long to agree")]
    Late,
    /// It was not even tried.
    #[error(transparent)]
    Hopeless(#[from] Hopeless),
    /// No probe was answered.
    #[error("no probe was answered")]
    NoPair,
    /// The handshake over the pair failed.
    #[error("the pair of addresses worked for probes, and not for a connection")]
    NoConnection,
    /// Another try is under way, or there were too many.
    #[error("too many tries are under way")]
    Busy,
}

/// Whether bytes are an offer.
pub(crate) fn is_offer(bytes: &[u8]) -> bool {
    Offer::decode(bytes).is_ok()
}

/// What punches holes for a mesh. Clones share it.
#[derive(Clone)]
pub(crate) struct Puncher {
    state: Arc<State>,
    watch: Watch,
}

struct State {
    retries: Mutex<Retries>,
    under_way: Mutex<HashSet<NodeId>>,
    outcomes: Mutex<HashMap<NodeId, PunchOutcome>>,
    /// The sockets of one burst are open at a time: the system gives a process so many.
    bursts: Semaphore,
}

/// A try that is under way with a peer, until it is dropped.
struct UnderWay {
    state: Arc<State>,
    peer: NodeId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.state.under_way).remove(&self.peer);
    }
}

/// A try: with whom, by what, and over which mesh.
struct Try<'a> {
    mesh: &'a Mesh,
    control: &'a Control,
    watch: &'a Watch,
    bursts: &'a Semaphore,
    peer: NodeId,
    side: Side,
}

impl Puncher {
    /// With so many tries a minute.
    pub(crate) fn new(watch: Watch, tries: usize) -> Self {
        let state = State {
            retries: Mutex::new(Retries::new(PAUSES, tries)),
            under_way: Mutex::default(),
            outcomes: Mutex::default(),
            bursts: Semaphore::new(1),
        };
        Self {
            state: Arc::new(state),
            watch,
        }
    }

    /// What became of the last try with a peer.
    pub(crate) fn outcome(&self, peer: NodeId) -> Option<PunchOutcome> {
        lock(&self.state.outcomes).get(&peer).copied()
    }

    /// Answers those who want a hole, and punches those that this node wants, until the mesh ends.
    pub(crate) fn begin(&self, mesh: &Mesh, control: &Control) -> Result<(), AcceptError> {
        let incoming = mesh.accept(PUNCH, Audience::Members)?;
        tokio::spawn(self.clone().serve(mesh.clone(), control.clone(), incoming));
        let (puncher, mesh, control) = (self.clone(), mesh.clone(), control.clone());
        tokio::spawn(async move {
            let stop = mesh.shared.stop.clone();
            stop.run_until_cancelled(puncher.look(&mesh, &control)).await;
        });
        Ok(())
    }

    fn take(&self, peer: NodeId) -> Result<UnderWay, PunchError> {
        let mut under_way = lock(&self.state.under_way);
        if under_way.len() >= AT_ONCE
            || under_way.contains(&peer)
            || !lock(&self.state.retries).begin(peer, Instant::now())
        {
            return Err(PunchError::Busy);
        }
        under_way.insert(peer);
        Ok(UnderWay {
            state: Arc::clone(&self.state),
            peer,
        })
    }

    /// Looks for members that are reached through others only.
    async fn look(&self, mesh: &Mesh, control: &Control) {
        let mut changes = self.watch.changes();
        loop {
            let changed = mesh.shared.changed.notified();
            lock(&self.state.retries).reached(control.connections.through_relays());
            let wanted = mesh.indirect().into_iter().filter(|peer| mesh.shared.local < *peer);
            for peer in wanted {
                if !lock(&self.state.retries).is_due(peer, Instant::now()) {
                    continue;
                }
                let Ok(under_way) = self.take(peer) else { continue };
                let (puncher, mesh, control) = (self.clone(), mesh.clone(), control.clone());
                tokio::spawn(async move {
                    let stop = mesh.shared.stop.clone();
                    let trying = Box::pin(puncher.initiate(&mesh, &control, peer));
                    let tried = stop.run_until_cancelled(trying).await;
                    if let Some(tried) = tried {
                        puncher.note(&mesh, peer, &tried);
                    }
                    drop(under_way);
                });
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(LOOK) => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    lock(&self.state.retries).forget();
                }
            }
        }
    }

    fn note(&self, mesh: &Mesh, peer: NodeId, tried: &Result<(), PunchError>) {
        let counters = &mesh.shared.counters;
        let outcome = match tried {
            Ok(()) => PunchOutcome::Punched,
            Err(PunchError::Hopeless(Hopeless::BothSymmetric)) => PunchOutcome::BothSymmetric,
            Err(PunchError::Hopeless(Hopeless::TcpSymmetric)) => PunchOutcome::TcpSymmetric,
            Err(PunchError::Hopeless(Hopeless::NoAddress)) => PunchOutcome::NoAddress,
            Err(_) => PunchOutcome::Failed,
        };
        let mut retries = lock(&self.state.retries);
        match tried {
            Ok(()) => {
                Counters::count(&counters.punched);
                retries.succeeded(peer);
            }
            Err(error) => {
                Counters::count(match error {
                    PunchError::Hopeless(_) => &counters.hopeless_punches,
                    _ => &counters.failed_punches,
                });
                tracing::debug!(%peer, %error, "no hole was punched");
                retries.failed(peer, Instant::now(), rand::random());
            }
        }
        let mut outcomes = lock(&self.state.outcomes);
        if outcomes.len() < REMEMBERED || outcomes.contains_key(&peer) {
            outcomes.insert(peer, outcome);
        }
    }

    async fn serve(self, mesh: Mesh, control: Control, mut incoming: Incoming) {
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let (puncher, mesh, control) = (self.clone(), mesh.clone(), control.clone());
            tokio::spawn(async move {
                let stop = mesh.shared.stop.clone();
                let answering = async {
                    let is_wanted = mesh.shared.apart.way(peer.node).is_none();
                    let taken = is_wanted.then(|| puncher.take(peer.node).ok()).flatten();
                    let Some(under_way) = taken else {
                        // Whoever asks too often, or where one is apart, learns that, if it still listens.
                        let _ = timeout(AGREEMENT, exchange::answer(&mut stream, None)).await;
                        return Counters::count(&mesh.shared.counters.refused_punches);
                    };
                    let answered = Box::pin(puncher.answer(&mesh, &control, peer.node, stream)).await;
                    puncher.note(&mesh, peer.node, &answered);
                    drop(under_way);
                };
                stop.run_until_cancelled(answering).await;
            });
        }
    }

    fn offer(&self, control: &Control) -> Offer {
        let (local, nat) = (control.quic_addresses(), self.watch.nat());
        let over_tcp = self.watch.over_tcp(&control.own_ips());
        let mut offer = Offer::new(rand::random(), &nat, self.watch.latest(), &local);
        offer.tcp = Tcp::of(&control.tcp_addresses(), &over_tcp, &nat);
        offer
    }

    async fn initiate(&self, mesh: &Mesh, control: &Control, peer: NodeId) -> Result<(), PunchError> {
        let agreement = async {
            let mut stream = mesh.open(peer, PUNCH).await?;
            let mut own = self.offer(control);
            own.is_other = lock(&self.state.retries).failures(peer) % OTHER == OTHER - 1;
            let theirs = exchange::ask(&mut stream, &own).await?;
            let plan = Plan::of(&own, &theirs)?;
            exchange::begin(&mut stream).await?;
            Ok::<_, PunchError>((plan, own, theirs, stream))
        };
        let (plan, own, theirs, _stream) = timeout(AGREEMENT, agreement).await.map_err(|_| PunchError::Late)??;
        let secrets = Secrets::new(&own, &theirs, Side::Initiator);
        self.at(mesh, control, peer, Side::Initiator)
            .run(plan, &own, &theirs, secrets)
            .await
    }

    async fn answer(
        &self,
        mesh: &Mesh,
        control: &Control,
        peer: NodeId,
        mut stream: MeshStream,
    ) -> Result<(), PunchError> {
        let agreement = async {
            let theirs = exchange::asked(&mut stream).await?;
            let own = self.offer(control);
            exchange::answer(&mut stream, Some(&own)).await?;
            let plan = Plan::of(&theirs, &own)?;
            exchange::wait(&mut stream).await?;
            Ok::<_, PunchError>((plan, own, theirs))
        };
        let (plan, own, theirs) = timeout(AGREEMENT, agreement).await.map_err(|_| PunchError::Late)??;
        let secrets = Secrets::new(&theirs, &own, Side::Responder);
        self.at(mesh, control, peer, Side::Responder)
            .run(plan, &own, &theirs, secrets)
            .await
    }

    fn at<'a>(&'a self, mesh: &'a Mesh, control: &'a Control, peer: NodeId, side: Side) -> Try<'a> {
        Try {
            mesh,
            control,
            watch: &self.watch,
            bursts: &self.state.bursts,
            peer,
            side,
        }
    }
}

impl Try<'_> {
    fn sockets(&self) -> &Sockets {
        self.watch.sockets()
    }

    fn is_done(&self) -> bool {
        self.control.connections.is_direct(self.peer)
    }

    async fn run(&self, plan: Plan, own: &Offer, theirs: &Offer, secrets: Secrets) -> Result<(), PunchError> {
        if plan.means == Means::Tcp {
            return self.over_tcp(plan, own, theirs).await;
        }
        let name = secrets.name;
        let ips: Vec<IpAddr> = own.local.iter().chain(&own.mapped).map(SocketAddr::ip).collect();
        let mut rng: StdRng = rand::make_rng();
        let mut attempt = Attempt::new(plan, self.side, &ips, theirs, secrets, Instant::now(), &mut rng);
        let _turn = match attempt.sockets() {
            0 => None,
            _ => Some(
                timeout(TURN, self.bursts.acquire())
                    .await
                    .map_err(|_| PunchError::Busy)?,
            ),
        };
        let burst = Burst::open(self.sockets(), attempt.sockets(), theirs);
        let mut arrived = self.sockets().attend(name);
        let dials = plan.dialler == self.side;
        while !self.is_done() {
            let changed = self.mesh.shared.changed.notified();
            let now = Instant::now();
            for send in attempt.poll(now, &mut rng) {
                self.send(&burst, &send).await;
            }
            let is_over = attempt.is_over(now);
            if is_over || (dials && attempt.found().is_some()) {
                break;
            }
            tokio::select! {
                Some(one) = arrived.recv() => {
                    let Ok(message) = Message::decode(&one.bytes) else { continue };
                    let sends = attempt.received(Instant::now(), one.socket, one.from, &message, &mut rng);
                    let is_far = attempt.may_be_at(one.from.ip()) && !theirs.local.contains(&one.from);
                    if !sends.is_empty() && is_far {
                        self.sockets().opened(Over::Udp, one.from);
                    }
                    for send in sends {
                        self.send(&burst, &send).await;
                    }
                }
                () = tokio::time::sleep_until(attempt.next().into()) => {}
                () = changed => {}
            }
        }
        self.sockets().leave(&name);
        match attempt.found() {
            Some((socket, to)) if dials => self.dial(burst, socket, to, theirs).await,
            // The other dials when a pair has been found.
            _ if attempt.has_met() && !dials => self.wait().await,
            _ if self.is_done() => Ok(()),
            _ => Err(PunchError::NoPair),
        }
    }

    async fn send(&self, burst: &Burst, send: &Send) {
        let socket = match send.socket.checked_sub(1) {
            None => self.sockets().towards(send.to).map(|(_, socket)| socket),
            Some(at) => burst.sockets.get(at).cloned(),
        };
        if let Some(socket) = socket
            && let Err(error) = socket.send(&send.bytes, send.to).await
        {
            tracing::trace!(%error, to = %send.to, "a probe was not sent");
        }
    }

    async fn dial(&self, burst: Burst, socket: usize, to: SocketAddr, theirs: &Offer) -> Result<(), PunchError> {
        if let Some(socket) = burst.take(socket).await {
            self.sockets().keep(to, socket);
        }
        if !theirs.local.contains(&to) {
            self.sockets().opened(Over::Udp, to);
        }
        tracing::debug!(peer = %self.peer, %to, "a way through was found");
        self.control.dial_found(self.peer, to);
        self.wait().await
    }

    /// Dials over TCP while the other does, from the ports that are listened on. One of the two has the part of the
    /// listener in what is spoken then.
    async fn over_tcp(&self, plan: Plan, own: &Offer, theirs: &Offer) -> Result<(), PunchError> {
        let targets = plan::tcp_targets(own, theirs);
        let near = theirs.tcp.iter().flat_map(|tcp| &tcp.local);
        let near: HashSet<SocketAddr> = near.copied().collect();
        for at in targets.iter().filter(|at| !near.contains(at)) {
            self.sockets().opened(Over::Tcp, *at);
        }
        let is_listener = plan.dialler != self.side;
        let dialling = async {
            if is_listener {
                tokio::time::sleep(LATER).await;
            }
            for _ in 0..DIALS {
                if targets.is_empty() || self.is_done() {
                    break;
                }
                if self.control.dial_both(self.peer, &targets, is_listener).await.is_ok() {
                    return;
                }
                tokio::time::sleep(AFTER.mul_f64(0.5 + rand::random::<f64>())).await;
            }
            // The other's may still come.
            std::future::pending::<()>().await;
        };
        let met = async {
            tokio::select! {
                () = dialling => self.wait().await,
                met = self.wait() => met,
            }
        };
        timeout(TCP, met).await.map_err(|_| PunchError::NotMet)?
    }

    /// Waits until there is a connection that leads through nobody.
    async fn wait(&self) -> Result<(), PunchError> {
        let done = async {
            loop {
                let changed = self.mesh.shared.changed.notified();
                if self.is_done() {
                    return;
                }
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
        };
        timeout(DIAL, done).await.map_err(|_| PunchError::NoConnection)
    }
}

/// The sockets of a burst, and who reads them.
struct Burst {
    sockets: Vec<Arc<Socket>>,
    readers: JoinSet<()>,
}

impl Burst {
    /// As many as are wanted and the system gives.
    fn open(sockets: &Sockets, wanted: usize, theirs: &Offer) -> Self {
        let is_six = theirs.mapped.first().is_some_and(SocketAddr::is_ipv6);
        let any: IpAddr = match is_six {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        let mut burst = Self {
            sockets: Vec::new(),
            readers: JoinSet::new(),
        };
        for id in 1..=wanted {
            match Socket::bind(SocketAddr::new(any, 0), sockets.hook(id)) {
                Ok(socket) => {
                    let reader = Arc::clone(&socket);
                    burst.readers.spawn(async move {
                        // A socket that cannot be read finds nothing.
                        let _ = reader.attend().await;
                    });
                    burst.sockets.push(socket);
                }
                Err(error) => {
                    tracing::debug!(%error, opened = id - 1, "the system gives no more sockets");
                    break;
                }
            }
        }
        burst
    }

    /// One of them, read by nobody any more; the others are closed.
    async fn take(mut self, id: usize) -> Option<Arc<Socket>> {
        self.readers.shutdown().await;
        self.sockets.into_iter().nth(id.checked_sub(1)?)
    }
}
