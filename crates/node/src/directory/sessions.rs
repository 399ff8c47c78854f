//! Anti-entropy over the mesh: `/dawn/registry/1`, members only.
//!
//! A stream is one [`Session`]: messages behind a length of four bytes, in turns. A node compares with a neighbour when the
//! gossip tells that the two know different things; what came before a delta is fetched from who told it. Who knows nobody
//! yet gets everything from one, and not from all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dawn_identity::{NodeId, UnixTime};
use dawn_mesh::{Inbound, Incoming, Protocol};
use dawn_registry::sync::{Session, Traffic};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Directory;
use super::agenda::{Agenda, Due, Want};
use super::conversation::SessionFailure;
use crate::shares::{Pace, Share, Shares};
use crate::sync::{Counts, lock};

/// Registries are compared over it.
pub(crate) const REGISTRY: Protocol = Protocol("/dawn/registry/1");
/// Sessions that are answered at once, and of one member.
const ANSWERED: (usize, usize) = (16, 2);
/// Between tries with a member, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Sessions that one member may begin or be the reason of, within [`ASKED_IN`].
const ASKED: u32 = 20;
const ASKED_IN: Duration = Duration::from_secs(10);
/// Who knows no more nodes than itself and who invited it knows nobody yet.
const NOBODY: usize = 2;

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

    /// A comparison went through.
    pub(super) fn has_compared(&self, synced: Synced) {
        lock(&self.synced).insert(synced.with, synced);
    }

    pub(super) fn add(&self, traffic: Traffic) {
        self.overhead.fetch_add(traffic.overhead, Ordering::Relaxed);
        self.deltas.fetch_add(traffic.deltas, Ordering::Relaxed);
    }

    fn plan(&self, peer: NodeId, after: Duration, want: Want) {
        lock(&self.agenda).plan(peer, Instant::now() + after, want);
        self.wake.notify_one();
    }

    /// What goes on with a member goes nowhere: it was started again.
    pub(super) fn break_off(&self, peer: &NodeId) {
        lock(&self.agenda).break_off(peer);
    }
}

impl Directory {
    /// A neighbour knows something else than this node: the two compare.
    pub(super) fn compare_with(&self, peer: NodeId) {
        lock(&self.0.sessions.agenda).plan_whole(peer, Instant::now());
        self.0.sessions.wake.notify_one();
    }

    /// Whether this node knows nobody yet, and is to hold one conversation at a time.
    fn knows_nobody(&self) -> bool {
        lock(&self.0.known).len() <= NOBODY
    }

    /// What a member knows of a node is wanted: it told of something that came after what is missing here.
    pub(super) fn fetch(&self, peer: NodeId, node: NodeId) {
        let after = match self.0.sessions.asked.may(peer) {
            true => Duration::ZERO,
            false => ASKED_IN,
        };
        self.0.sessions.plan(peer, after, Want::Of(BTreeSet::from([node])));
    }

    /// Begins sessions when they are due, until `stop`.
    pub(super) async fn keep_in_step(self, stop: CancellationToken) {
        /// Whoever makes something due wakes this.
        const LATEST: Duration = Duration::from_secs(3600);
        loop {
            let at_once = self.knows_nobody().then_some(1);
            let begun = lock(&self.0.sessions.agenda).take(Instant::now(), at_once);
            for (peer, due, cut) in begun {
                let directory = self.clone();
                let stop = stop.clone();
                self.0.tasks.spawn(async move {
                    let session = Box::pin(directory.begin(peer, &due, &cut));
                    // What is broken off by the end of the node is compared at its next start.
                    let _ended = stop.run_until_cancelled(session).await;
                    lock(&directory.0.sessions.agenda).ended(&peer);
                    directory.0.sessions.wake.notify_one();
                });
            }
            let next = lock(&self.0.sessions.agenda).next(at_once);
            let next = next.unwrap_or_else(|| Instant::now() + LATEST);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.sessions.wake.notified() => {}
                () = tokio::time::sleep_until(next) => {}
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
            lock(&sessions.agenda).plan_again(peer, Instant::now() + pause, due);
        }
    }

    /// Answers members, until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let peer = peer.node;
            let Some(share) = self.may_be_asked(peer) else {
                continue;
            };
            // Where it breaks off, who began it begins anew.
            lock(&self.0.sessions.agenda).is_answered(&peer);
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
        let sessions = &self.0.sessions;
        let is_busy = || lock(&sessions.agenda).is_busy_beside(&peer) || sessions.answered.are_taken_beside(&peer);
        if self.knows_nobody() && is_busy() {
            sessions.counts.count("busy");
            return None;
        }
        let share = sessions.answered.take(peer);
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
}
