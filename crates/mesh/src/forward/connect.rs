//! Finding and making paths: through routes that are known, and by asking for others.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_channel::KnownPeer;
use dawn_channel::transport::CloseCode;
use dawn_identity::{Membership, NodeId};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use libp2p::swarm::ConnectionId;

use super::Forward;
use super::carrier::{FORWARD, Refused, encode_route, is_way};
use super::config::MIN_WINDOW;
use super::discovery::Found;
use super::path::{Path, PathError};
use super::places::Place;
use super::record::Message;
use super::tunnel::{Beginning, Tunnel};
use crate::error::OpenError;
use crate::handle::{Backend, Mesh, lock};
use crate::peer::{Counters, Gate, Refusal};

/// How long one route may take to become a path.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The next route is tried beside one that has not become a path within this.
const STAGGER: Duration = Duration::from_millis(150);
/// The only way to a node is tried again after this.
const AGAIN: Duration = Duration::from_millis(400);
/// When it is asked for routes, after the beginning. From the second time on everybody asks everybody.
const ASK: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(400),
    Duration::from_millis(1200),
    Duration::from_millis(2500),
];

/// Why a route became no path.
enum Failure {
    /// Another may.
    Path(PathError),
    /// No other will.
    Final(OpenError),
}

impl<E: Into<PathError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Path(error.into())
    }
}

/// What a path is for.
enum Aim {
    /// A new session.
    Begin,
    /// A session that goes on.
    Resume(Tunnel),
    /// The same, with nobody in between.
    Direct(Tunnel),
}

/// The way of a path: the members in between, or, where there is nobody, the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    via: Vec<NodeId>,
    connection: Option<ConnectionId>,
}

impl Way {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            connection: path.connection().filter(|_| path.via.is_empty()),
            via: path.via.clone(),
        }
    }
}

/// What both ends have agreed on for a new session.
struct Welcome {
    path: Path,
    membership: Membership,
    chain: Bytes,
    /// What the peer takes without having acknowledged it.
    window: u32,
}

impl Welcome {
    fn begin(self, place: Place, is_initiator: bool) -> Beginning {
        Beginning {
            path: self.path,
            membership: self.membership,
            chain: self.chain,
            peer_window: self.window,
            is_initiator,
            place,
        }
    }
}

/// What became of it.
enum Reached {
    Begun(Welcome),
    /// The peer has everything up to here.
    Resumed(Path, u64),
}

/// Begins a session with a node.
pub(super) async fn begin(mesh: &Mesh, node: NodeId, place: Place) -> Result<Beginning, OpenError> {
    match establish(mesh, node, None, Aim::Begin).await? {
        Reached::Begun(welcome) => Ok(welcome.begin(place, true)),
        Reached::Resumed(..) => Err(OpenError::Closed),
    }
}

/// Finds another path for a session: not the way of `avoid`.
pub(super) async fn resume(mesh: &Mesh, tunnel: &Tunnel, avoid: Option<Way>) -> Result<(Path, u64), OpenError> {
    // The connection may be as dead as the path: a relay that is gone says nothing.
    mesh.connect_again(tunnel.node());
    resumed(establish(mesh, tunnel.node(), avoid, Aim::Resume(tunnel.clone())).await?)
}

/// Makes a path over the direct connection that there is now.
pub(super) async fn go_direct(mesh: &Mesh, tunnel: &Tunnel) -> Result<(Path, u64), OpenError> {
    resumed(establish(mesh, tunnel.node(), None, Aim::Direct(tunnel.clone())).await?)
}

fn resumed(reached: Reached) -> Result<(Path, u64), OpenError> {
    match reached {
        Reached::Resumed(path, received) => Ok((path, received)),
        Reached::Begun(_) => Err(OpenError::Closed),
    }
}

/// What this node says of its window.
fn window(mesh: &Mesh) -> u32 {
    let window = mesh.forward().map_or(MIN_WINDOW, Forward::window);
    u32::try_from(window).unwrap_or(u32::MAX)
}

/// Says on a new path what it is for, and hears whether the peer agrees.
async fn agree(mesh: &Mesh, mut path: Path, aim: &Aim) -> Result<Reached, Failure> {
    let (node, key, via) = (path.peer(), path.key(), path.via.clone());
    let own = Bytes::from(mesh.shared.gate.own_chain());
    let said = match aim {
        Aim::Begin => Message::Begin {
            window: window(mesh),
            via,
            chain: own,
        },
        Aim::Resume(tunnel) | Aim::Direct(tunnel) => Message::Resume {
            session: tunnel.id(),
            received: lock(tunnel.session()).received(),
            via,
            chain: own,
        },
    };
    path.send(&said, Instant::now())?;
    path.flush().await?;
    match (path.message().await?, aim) {
        (Message::Welcome { window, chain }, Aim::Begin) => {
            let verdict = admitted(&*mesh.shared.gate, &path, &chain);
            let membership = refuse(&mut path, node, verdict).await?;
            Ok(Reached::Begun(Welcome {
                path,
                membership,
                chain,
                window,
            }))
        }
        (Message::Resumed { received, chain }, Aim::Resume(tunnel) | Aim::Direct(tunnel)) => {
            let verdict = tunnel.shown(&*mesh.shared.gate, chain, key);
            refuse(&mut path, node, verdict).await?;
            Ok(Reached::Resumed(path, received))
        }
        (Message::Refused { reason, evidence }, _) => {
            mesh.shared.gate.refused(node, &evidence).await;
            Err(Failure::Final(OpenError::Refused { node, reason }))
        }
        _ => Err(super::record::Malformed.into()),
    }
}

/// What the gate makes of the chain and the static key that a peer has shown.
fn admitted(gate: &dyn Gate, path: &Path, chain: &[u8]) -> Result<Membership, Refusal> {
    let membership = gate.verify(path.peer(), chain)?;
    gate.verify_key(path.peer(), &path.key())?;
    Ok(membership)
}

/// Says to the peer that its chain is not accepted, if it is not.
async fn refuse<T>(path: &mut Path, node: NodeId, verdict: Result<T, Refusal>) -> Result<T, Failure> {
    let refusal = match verdict {
        Ok(accepted) => return Ok(accepted),
        Err(refusal) => refusal,
    };
    let Refusal {
        code,
        message: reason,
        evidence,
    } = refusal;
    let message = Message::Refused {
        reason: reason.clone(),
        evidence,
    };
    path.send(&message, Instant::now())?;
    path.flush().await?;
    Err(Failure::Final(OpenError::NotAccepted { node, code, reason }))
}

/// The next route to try: a connection with nobody in between, the best first, or the only way to who is apart; then what
/// is known, the newest first.
fn candidate(mesh: &Mesh, node: NodeId, aim: &Aim, tried: &[Way]) -> Option<(Found, Way)> {
    let only = mesh.shared.apart.way(node);
    let mut connections: Vec<Option<ConnectionId>> = match &mesh.backend {
        _ if only.is_some() => Vec::new(),
        Backend::Swarm(_) => mesh.connections(node).iter().map(|known| Some(known.id)).collect(),
        Backend::Memory(_) => vec![None],
    };
    if let Aim::Direct(_) = aim {
        connections.truncate(1);
    }
    let direct = connections.into_iter().map(|connection| {
        let found = Found {
            target: node,
            via: Vec::new(),
            known: None,
        };
        let way = Way {
            via: Vec::new(),
            connection,
        };
        (found, way)
    });
    let is_open = |(_, way): &(Found, Way)| {
        let first = way.via.first().unwrap_or(&node);
        let is_neighbour = mesh.shared.peer(*first).is_some() && mesh.shared.apart.admits(*first).is_ok();
        !tried.contains(way) && is_neighbour
    };
    let others = match aim {
        Aim::Direct(_) => Vec::new(),
        Aim::Begin | Aim::Resume(_) => {
            let only = only.map(|via| Found {
                target: node,
                via,
                known: None,
            });
            only.into_iter().chain(mesh.forward()?.routes(node)).collect()
        }
    };
    let others = others.into_iter().map(|found| {
        let way = Way {
            via: found.via.clone(),
            connection: None,
        };
        (found, way)
    });
    direct.chain(others).find(is_open)
}

/// Makes a path to a node; the first that comes up is it.
async fn establish(mesh: &Mesh, node: NodeId, avoid: Option<Way>, aim: Aim) -> Result<Reached, OpenError> {
    let not_connected = |reason: String| OpenError::NotConnected { node, reason };
    let forward = mesh.forward().ok_or(OpenError::Closed)?;
    let begun = Instant::now();
    let deadline = begun + forward.config.find;
    let mut attempts = FuturesUnordered::new();
    let mut tried: Vec<Way> = avoid.into_iter().collect();
    let mut questions = match aim {
        Aim::Direct(_) => [].iter(),
        Aim::Begin | Aim::Resume(_) => ASK.iter(),
    };
    // Of who is apart the way is known: others are asked for only where that leads nowhere for a while.
    if !matches!(aim, Aim::Direct(_)) && mesh.shared.apart.way(node).is_some() {
        questions = ASK.get(2..).unwrap_or_default().iter();
    }
    let mut ask_at = questions.next().map(|after| begun + *after);
    let mut again_at = None;
    let mut launch_at = begun;
    let mut why = String::from("no member knows a way to it");
    loop {
        let found = forward.found.notified();
        let changed = mesh.shared.changed.notified();
        let now = Instant::now();
        let mut waits = false;
        if let Some((route, way)) = candidate(mesh, node, &aim, &tried) {
            if attempts.is_empty() || now >= launch_at {
                launch_at = now + STAGGER;
                attempts.push(attempt(mesh, route, way.connection, &aim));
                tried.push(way);
                continue;
            }
            waits = true;
        } else if attempts.is_empty() && matches!(aim, Aim::Direct(_)) {
            return Err(not_connected(why));
        }
        let next = [Some(deadline), ask_at, again_at, waits.then_some(launch_at)]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            Some((via, done)) = attempts.next() => match done {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Path(error)) => {
                    tracing::debug!(%node, hops = via.len(), %error, "a route became no path");
                    why = error.to_string();
                    forward.forget_route(node, &via);
                    // The host may have lost the other one just now, or not have it yet.
                    again_at = again_at.or_else(|| Some(Instant::now() + AGAIN));
                }
            },
            () = found => {}
            () = changed => {}
            () = tokio::time::sleep_until(next.unwrap_or(deadline).into()) => {
                let now = Instant::now();
                if now >= deadline {
                    return Err(not_connected(format!("no forwarded route was found ({why})")));
                }
                if again_at.is_some_and(|at| at <= now) {
                    again_at = None;
                    let way = mesh.shared.apart.way(node);
                    tried.retain(|tried| Some(&tried.via) != way.as_ref());
                }
                if ask_at.is_some_and(|at| at <= now) {
                    mesh.ask_for_routes(node, ask_at != Some(begun));
                    ask_at = questions.next().map(|after| begun + *after);
                }
            }
        }
    }
}

/// Makes a path of a route.
async fn attempt(
    mesh: &Mesh,
    route: Found,
    connection: Option<ConnectionId>,
    aim: &Aim,
) -> (Vec<NodeId>, Result<Reached, Failure>) {
    let via = route.via.clone();
    let trying = async {
        let known = route.known.or_else(|| mesh.forward()?.known(route.target));
        let path = match path(mesh, &route, connection, known).await {
            // It may have another key by now.
            Err(PathError::Handshake(_) | PathError::Ended | PathError::Io(_)) if known.is_some() => {
                if let Some(forward) = mesh.forward() {
                    forward.forget_key(route.target);
                }
                path(mesh, &route, connection, None).await?
            }
            path => path?,
        };
        agree(mesh, path, aim).await
    };
    let done = tokio::time::timeout(ATTEMPT, trying).await;
    let late = || Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    (via, done.unwrap_or_else(|_| late()))
}

async fn path(
    mesh: &Mesh,
    route: &Found,
    connection: Option<ConnectionId>,
    known: Option<KnownPeer>,
) -> Result<Path, PathError> {
    use tokio::io::AsyncWriteExt as _;
    let not_there = || std::io::Error::from(std::io::ErrorKind::NotConnected);
    let forward = mesh.forward().ok_or_else(not_there)?;
    let (first, rest) = match route.via.split_first() {
        Some((first, rest)) => (*first, [rest, &[route.target]].concat()),
        None => (route.target, Vec::new()),
    };
    let (_, cut) = mesh.shared.peer(first).ok_or_else(not_there)?;
    let stream = match connection {
        Some(connection) => mesh.open_on(first, connection, FORWARD, cut).await,
        None => mesh.backend_open(first, FORWARD, cut).await,
    };
    let mut stream = stream.map_err(std::io::Error::other)?;
    stream.write_all(&encode_route(&rest)).await?;
    Path::initiate(stream, &forward.ends(mesh), route.target, known, route.via.clone()).await
}

impl Mesh {
    /// Makes a secure channel with a node over a way, and gives it up again.
    pub(crate) async fn try_path(&self, node: NodeId, via: &[NodeId]) -> Result<(), OpenError> {
        let route = Found {
            target: node,
            via: via.to_vec(),
            known: None,
        };
        let made = path(self, &route, None, None)
            .await
            .map_err(|error| OpenError::NotConnected {
                node,
                reason: error.to_string(),
            })?;
        made.end(CloseCode::Done, "it was only tried").await;
        Ok(())
    }
}

/// What the other side of [`begin`] and [`resume`] made of a path.
pub(super) enum Answered {
    /// A new session.
    Begun(Box<Beginning>),
    /// A session goes on; the peer has everything up to here.
    Resumed(Tunnel, Box<Path>, u64),
}

/// Answers on a path that a peer made.
pub(super) async fn answer(mesh: &Mesh, mut path: Path) -> Result<Answered, PathError> {
    let forward = mesh.forward().ok_or(PathError::Ended)?;
    let (peer, neighbour) = (path.peer(), path.neighbour());
    let gate = &*mesh.shared.gate;
    // What it says of the way has to fit where it came from.
    let back = |mut via: Vec<NodeId>| {
        if !is_way(&via, mesh.shared.local, neighbour, peer) {
            Counters::count(&mesh.shared.counters.refused_carriers);
            return Err(Refused::Malformed);
        }
        via.reverse();
        Ok(via)
    };
    let accepted: Result<Answered, Refusal> = match path.message().await? {
        Message::Begin {
            window: peer_window,
            via,
            chain,
        } => {
            path.via = back(via)?;
            match admitted(gate, &path, &chain) {
                Ok(membership) => match forward.place_for(peer).await {
                    Some(place) => {
                        let said = Message::Welcome {
                            window: window(mesh),
                            chain: gate.own_chain().into(),
                        };
                        path.send(&said, Instant::now())?;
                        path.flush().await?;
                        let welcome = Welcome {
                            path,
                            membership,
                            chain,
                            window: peer_window,
                        };
                        return Ok(Answered::Begun(Box::new(welcome.begin(place, false))));
                    }
                    None => Err(refusal("busy", "there are too many tunnels")),
                },
                Err(refusal) => Err(refusal),
            }
        }
        Message::Resume {
            session,
            received,
            via,
            chain,
        } => {
            path.via = back(via)?;
            // Only the node that began a session goes on with it.
            let known = forward.tunnel_of(session);
            match known.filter(|tunnel| tunnel.node() == peer && !tunnel.is_initiator()) {
                Some(tunnel) => match tunnel.shown(gate, chain, path.key()) {
                    Ok(()) => return Ok(Answered::Resumed(tunnel, Box::new(path), received)),
                    Err(refusal) => Err(refusal),
                },
                None => Err(refusal("unknown_session", "the session is over")),
            }
        }
        Message::Refused { .. } => return Err(PathError::Ended),
        _ => return Err(super::record::Malformed.into()),
    };
    if let Err(refusal) = accepted {
        tracing::debug!(%peer, %refusal, "a forwarded route is refused");
        Counters::count(&mesh.shared.counters.refused_members);
        let message = Message::Refused {
            reason: refusal.message,
            evidence: refusal.evidence,
        };
        path.send(&message, Instant::now())?;
        path.end(CloseCode::Refused, "it is refused").await;
    }
    Err(PathError::Ended)
}

fn refusal(code: &str, message: &str) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        evidence: Bytes::new(),
    }
}
