//! The charter: documents that the network's authorities have signed and that hold for all members, kept in step among
//! them over `/dawn/charter/1`.
//!
//! Each [`Document`] knows what it has (its head), what somebody with another head lacks, and whether what it is given is
//! to be believed. Two members that meet compare heads and give each other what is missing; so do all neighbours when
//! something changes, and every few minutes. What was new to a node it tells on, so that it also reaches members that know
//! each other only through others, and those that were away when they come back. Nobody has to be believed for that:
//! documents carry their signatures.

mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dawn_identity::NodeId;
use dawn_mesh::{Inbound, Incoming, Mesh, MeshStream, PeerEvent, Protocol};
use rand::RngExt as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::stream::{
    Heads, MAX_KIND_BYTES, MAX_KINDS, StreamFailure, read_document, read_heads, send_document, send_end, send_heads,
};
pub use self::stream::{MAX_DOCUMENT_BYTES, MAX_HEAD_BYTES};
use crate::api::Events;
use crate::shares::{Pace, Seldom, Shares};
use crate::sync::{Counts, lock};

/// Members compare their documents over it.
pub(crate) const CHARTER: Protocol = Protocol("/dawn/charter/1");
/// Exchanges that are answered at once, and with one member.
const ANSWERED: (usize, usize) = (64, 4);
/// Exchanges that are begun at once.
const BEGUN: usize = 16;
/// Between two comparisons with everybody who is there, half of it by chance.
const LOOK: Duration = Duration::from_secs(240);
/// Between two tries with a member that is there, at first, and how many there are.
const RETRY: (Duration, u32) = (Duration::from_millis(500), 6);
/// What of one member may be refused within [`SPAN`] before nothing more is taken of it until that is over.
const REFUSED: u32 = 30;
/// Exchanges that one member may begin within [`SPAN`].
const PACE: u32 = 240;
/// KiB of documents of one member within [`SPAN`] in which nothing was new before nothing more is taken of it.
const USELESS_KIB: u32 = 4 << 10;
/// KiB of documents that one member is given within [`SPAN`], whatever heads it shows.
const GIVEN_KIB: u32 = 8 << 10;
const SPAN: Duration = Duration::from_secs(60);
/// Members that are not connected and are compared with because somebody asks.
const ASKED: usize = 64;
/// Members of which is remembered what they have.
const REMEMBERED: usize = 4096;

/// Why a document is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A stable code, by which refusals are counted.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

/// One kind of document that members keep in step.
#[async_trait::async_trait]
pub trait Document: Send + Sync + 'static {
    /// Its name on the wire: small letters and `-`, 32 at most.
    fn kind(&self) -> &'static str;

    /// What this node has of it, in at most [`MAX_HEAD_BYTES`]: the same bytes exactly where the same is had; none where
    /// there is nothing.
    fn head(&self) -> Vec<u8>;

    /// What a node with that head lacks, in at most [`MAX_DOCUMENT_BYTES`]; `None` where it lacks nothing.
    fn since(&self, head: &[u8]) -> Option<Bytes>;

    /// Takes what another member gave, verifies it and keeps it; whether something was new.
    ///
    /// # Errors
    /// Why it is not taken. It is counted, by code and by who gave it.
    async fn take(&self, from: NodeId, bytes: Bytes) -> Result<bool, Refusal>;
}

/// The charter of one node. Clones share it.
#[derive(Clone)]
pub struct Charter(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    events: Events,
    documents: Mutex<BTreeMap<&'static str, Arc<dyn Document>>>,
    /// What members had when they were last compared with.
    known: Mutex<BTreeMap<NodeId, Heads>>,
    /// With whom is compared now, and whether there is more since.
    busy: Mutex<BTreeMap<NodeId, bool>>,
    /// Whom something new did not come from: all others are told.
    news: Mutex<BTreeSet<Option<NodeId>>>,
    /// Who is to be compared with beside those that are connected.
    asked: Mutex<BTreeSet<NodeId>>,
    changed: Notify,
    counts: Counts,
    refused: Counts,
    blamed: Pace,
    useless: Pace,
    given: Pace,
    pace: Pace,
    told: Seldom<(NodeId, &'static str)>,
    answering: Shares,
    begun: Semaphore,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Charter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let documents = lock(&self.0.documents);
        f.debug_tuple("Charter")
            .field(&documents.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Charter {
    pub(crate) fn new(mesh: Mesh, events: Events) -> Self {
        Self(Arc::new(Inner {
            mesh,
            events,
            documents: Mutex::default(),
            known: Mutex::default(),
            busy: Mutex::default(),
            news: Mutex::default(),
            asked: Mutex::default(),
            changed: Notify::new(),
            counts: Counts::default(),
            refused: Counts::default(),
            blamed: Pace::new(REFUSED, SPAN),
            useless: Pace::new(USELESS_KIB, SPAN),
            given: Pace::new(GIVEN_KIB, SPAN),
            pace: Pace::new(PACE, SPAN),
            told: Seldom::default(),
            answering: Shares::new(ANSWERED.0, ANSWERED.1),
            begun: Semaphore::new(BEGUN),
            tasks: TaskTracker::new(),
        }))
    }

    /// Keeps a document in step from now on. To be called before `run`; one kind once.
    pub fn add(&self, document: Arc<dyn Document>) {
        let kind = document.kind();
        let mut documents = lock(&self.0.documents);
        if documents.len() >= MAX_KINDS || kind.len() > MAX_KIND_BYTES || documents.contains_key(kind) {
            tracing::error!(kind, "this document cannot be kept in step");
            return;
        }
        documents.insert(kind, document);
    }

    /// This node has something new of its own: its neighbours are told at once.
    pub fn changed(&self) {
        self.tell_on(None);
    }

    /// Compares with these members now, also where there is no connection to them yet; with [`ASKED`] at most.
    pub(crate) fn ask(&self, nodes: impl IntoIterator<Item = NodeId>) {
        lock(&self.0.asked).extend(nodes.into_iter().take(ASKED));
        self.0.changed.notify_one();
    }

    /// Takes a document that came another way than from a member, over a control plane say: it is verified as if it had,
    /// and told on where it is new.
    ///
    /// # Errors
    /// Why it is not taken; it is counted like that of a member. A kind that this node does not know is passed over.
    pub async fn offer(&self, kind: &str, from: NodeId, bytes: Bytes) -> Result<bool, Refusal> {
        let Some(document) = self.document(kind) else {
            return Ok(false);
        };
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(Refusal {
                code: "too_large",
                message: "the document is longer than one may be".to_owned(),
            });
        }
        match document.take(from, bytes).await {
            Ok(is_new) => {
                self.0.counts.count(if is_new { "taken" } else { "known" });
                if is_new {
                    self.tell_on(None);
                }
                Ok(is_new)
            }
            Err(refusal) => {
                self.refuse(from, document.kind(), &refusal);
                Err(refusal)
            }
        }
    }

    fn tell_on(&self, from: Option<NodeId>) {
        lock(&self.0.news).insert(from);
        self.0.changed.notify_one();
    }

    /// What members had of a kind when they were last compared with, since the start.
    #[must_use]
    pub fn known(&self, kind: &str) -> BTreeMap<NodeId, Vec<u8>> {
        let known = lock(&self.0.known);
        let of = |(node, heads): (&NodeId, &Heads)| Some((*node, heads.get(kind)?.clone()));
        known.iter().filter_map(of).collect()
    }

    /// What became of exchanges since the start.
    #[must_use]
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        self.0.counts.all()
    }

    /// What was refused since the start, by code.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.0.refused.all()
    }

    fn document(&self, kind: &str) -> Option<Arc<dyn Document>> {
        lock(&self.0.documents).get(kind).cloned()
    }

    fn heads(&self) -> Heads {
        let documents = lock(&self.0.documents);
        let head = |document: &Arc<dyn Document>| {
            let mut head = document.head();
            head.truncate(MAX_HEAD_BYTES);
            head
        };
        documents
            .iter()
            .map(|(kind, document)| ((*kind).to_owned(), head(document)))
            .collect()
    }

    /// Keeps documents in step, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut peers = self.0.mesh.events();
        // Who connected before this task ran.
        self.meet_all(None, &stop);
        let pause = || LOOK / 2 + LOOK.mul_f64(rand::rng().random_range(0.0..0.5));
        let mut look = std::pin::pin!(tokio::time::sleep(pause()));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut look => {
                    self.meet_all(None, &stop);
                    look.as_mut().reset(tokio::time::Instant::now() + pause());
                }
                () = self.0.changed.notified() => {
                    let news = std::mem::take(&mut *lock(&self.0.news));
                    let asked = std::mem::take(&mut *lock(&self.0.asked));
                    // What came from one alone is not new to it.
                    let from = if news.len() == 1 { news.first().copied().flatten() } else { None };
                    if !news.is_empty() {
                        self.meet_all(from, &stop);
                    }
                    asked.into_iter().for_each(|node| self.meet(node, &stop));
                }
                event = peers.recv() => match event {
                    Ok(PeerEvent::MemberUp(peer)) => self.meet(peer.node, &stop),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => self.meet_all(None, &stop),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn meet_all(&self, except: Option<NodeId>, stop: &CancellationToken) {
        for peer in self.0.mesh.peers() {
            if Some(peer.node) != except {
                self.meet(peer.node, stop);
            }
        }
    }

    /// Compares with a member that is there; once more, where it is being compared with now.
    fn meet(&self, peer: NodeId, stop: &CancellationToken) {
        if lock(&self.0.documents).is_empty() || self.is_unheard(peer) {
            return;
        }
        if let Some(again) = lock(&self.0.busy).get_mut(&peer) {
            *again = true;
            return;
        }
        lock(&self.0.busy).insert(peer, false);
        let (charter, stop) = (self.clone(), stop.clone());
        self.0.tasks.spawn(async move {
            // What was left undone is done with the next change, or when the member is met again.
            let _ = stop.run_until_cancelled(charter.meet_until_done(peer)).await;
        });
    }

    async fn meet_until_done(&self, peer: NodeId) {
        let (mut pause, mut tries) = (RETRY.0, RETRY.1);
        loop {
            let compared = {
                // It is never closed.
                let _turn = self.0.begun.acquire().await;
                self.compare(peer).await
            };
            match compared {
                Ok(()) => {
                    self.0.counts.count("compared");
                    (pause, tries) = RETRY;
                    let mut busy = lock(&self.0.busy);
                    match busy.get_mut(&peer) {
                        Some(again) if *again => *again = false,
                        _ => {
                            busy.remove(&peer);
                            return;
                        }
                    }
                }
                // One that has just started does not serve everything yet.
                Err(error) => {
                    self.0.counts.count(error.code());
                    tracing::debug!(%error, %peer, "documents are compared later");
                    tries -= 1;
                    let is_there = self.0.mesh.peers().iter().any(|connected| connected.node == peer);
                    if tries == 0 || !is_there {
                        lock(&self.0.busy).remove(&peer);
                        return;
                    }
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }

    async fn compare(&self, peer: NodeId) -> Result<(), Failure> {
        let stream = self.0.mesh.open(peer, CHARTER).await;
        let mut stream = stream.map_err(|error| Failure::Unreachable(error.to_string()))?;
        send_heads(&mut stream, &self.heads()).await?;
        let theirs = read_heads(&mut stream).await?;
        self.take_all(&mut stream, peer).await?;
        send_heads(&mut stream, &self.heads()).await?;
        self.give(&mut stream, peer, &theirs).await?;
        let theirs = read_heads(&mut stream).await?;
        self.note(peer, theirs);
        // Everything was said.
        let _ = stream.shutdown().await;
        Ok(())
    }

    /// Answers members until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let share = self.0.answering.take(peer.node);
            let Some(share) = share.filter(|_| !self.is_unheard(peer.node) && self.0.pace.may(peer.node)) else {
                self.0.counts.count("busy");
                continue;
            };
            let charter = self.clone();
            self.0.tasks.spawn(async move {
                match charter.answer(&mut stream, peer.node).await {
                    Ok(()) => charter.0.counts.count("answered"),
                    Err(error) => {
                        charter.0.counts.count(error.code());
                        tracing::debug!(%error, from = %peer.node, "a comparison of documents broke off");
                    }
                }
                drop(share);
            });
        }
    }

    async fn answer(&self, stream: &mut MeshStream, peer: NodeId) -> Result<(), StreamFailure> {
        let theirs = read_heads(stream).await?;
        send_heads(stream, &self.heads()).await?;
        self.give(stream, peer, &theirs).await?;
        let theirs = read_heads(stream).await?;
        self.note(peer, theirs);
        self.take_all(stream, peer).await?;
        send_heads(stream, &self.heads()).await?;
        // Everything was said.
        let _ = stream.shutdown().await;
        Ok(())
    }

    /// Sends what a member with those heads lacks, of the kinds that it knows.
    async fn give(&self, stream: &mut MeshStream, peer: NodeId, theirs: &Heads) -> Result<(), StreamFailure> {
        for (kind, head) in theirs {
            let Some(document) = self.document(kind) else { continue };
            if document.head() == *head {
                continue;
            }
            // Who shows the same old head again and again waits for the next span.
            if self.0.given.is_spent(peer) {
                self.0.counts.count("given_enough");
                break;
            }
            let Some(bytes) = document.since(head) else { continue };
            if bytes.len() > MAX_DOCUMENT_BYTES {
                tracing::error!(%kind, length = bytes.len(), "a document has become too long to be passed on");
                continue;
            }
            self.0.given.add(peer, kib(&bytes));
            send_document(stream, kind, &bytes).await?;
            self.0.counts.count("given");
        }
        send_end(stream).await
    }

    /// Takes what a member gives, until its end.
    async fn take_all(&self, stream: &mut MeshStream, from: NodeId) -> Result<(), StreamFailure> {
        let mut is_new = false;
        let taken = self.take_each(stream, from, &mut is_new).await;
        if is_new {
            self.tell_on(Some(from));
        }
        taken
    }

    async fn take_each(&self, stream: &mut MeshStream, from: NodeId, is_new: &mut bool) -> Result<(), StreamFailure> {
        let mut kinds = BTreeSet::new();
        while let Some((kind, bytes)) = read_document(stream).await? {
            // Each kind once, known here or not.
            if kinds.len() >= MAX_KINDS || !kinds.insert(kind.clone()) {
                return Err(StreamFailure::NotUnderstood);
            }
            let Some(document) = self.document(&kind) else { continue };
            let length = kib(&bytes);
            match document.take(from, bytes).await {
                Ok(true) => {
                    self.0.counts.count("taken");
                    *is_new = true;
                    continue;
                }
                Ok(false) => self.0.counts.count("known"),
                Err(refusal) => self.refuse(from, document.kind(), &refusal),
            }
            self.0.useless.add(from, length);
            if self.is_unheard(from) {
                return Err(StreamFailure::Unheard);
            }
        }
        Ok(())
    }

    /// Whether nothing more is taken of a member for a while.
    fn is_unheard(&self, member: NodeId) -> bool {
        self.0.blamed.is_spent(member) || self.0.useless.is_spent(member)
    }

    fn refuse(&self, from: NodeId, kind: &'static str, refusal: &Refusal) {
        self.0.refused.count(refusal.code);
        let _ = self.0.blamed.count(from);
        if self.0.told.may_speak_of((from, refusal.code)) {
            tracing::warn!(%from, kind, code = refusal.code, message = %refusal.message, "a document is refused");
            self.0.events.say(
                "charter.refused",
                &json!({ "from": from, "kind": kind, "code": refusal.code, "message": refusal.message }),
            );
        }
    }

    fn note(&self, peer: NodeId, heads: Heads) {
        let mut known = lock(&self.0.known);
        if known.len() >= REMEMBERED && !known.contains_key(&peer) {
            let there: BTreeSet<NodeId> = self.0.mesh.peers().iter().map(|peer| peer.node).collect();
            known.retain(|node, _| there.contains(node));
        }
        if known.len() < REMEMBERED || known.contains_key(&peer) {
            known.insert(peer, heads);
        }
    }
}

/// The length of a document, begun KiB.
fn kib(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() / 1024).unwrap_or(u32::MAX).saturating_add(1)
}

/// Why a comparison that this node began did not end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Stream(#[from] StreamFailure),
}

impl Failure {
    const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Stream(error) => error.code(),
        }
    }
}
