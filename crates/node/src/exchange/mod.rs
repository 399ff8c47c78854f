//! The key exchange between nodes: `/dawn/keys/1`, members only.
//!
//! What is wanted (a *wish*: a key with a node, or a new one in the place of another) is kept until it is there or was
//! refused for good, and tried whenever the peer comes up. Keys that two nodes agreed on are renewed by themselves when half of
//! their time is gone: by the node with the smaller id, and by the other if that has not happened at three quarters.
//! A revocation is told to the peer when it is there, and sent after it in an envelope when it is not.

mod answer;
mod ask;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_channel::exchange::{ExchangeError, KeyRevocation, KeyRevocationError, RefusalCode};
use dawn_channel::{KeyId, SharedKey};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use dawn_mcp::router::Directory as _;
use dawn_mesh::{Mesh, PeerEvent, Protocol};
use serde_json::json;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Events;
use crate::config::{AcceptKeys, KeysConfig};
use crate::directory::Directory;
use crate::envelopes::Received;
use crate::error::NodeError;
use crate::keyring::{Held, KeyState, Keyring, Origin};
use crate::mail::Mail;
use crate::members::{Members, SKEW, now};
use crate::shares::{Seldom, Shares};
use crate::store::{KeyRevocationRow, Store, WishRow};
use crate::sync::{Counts, lock};
use crate::time::rfc3339;

/// Keys are agreed on over it.
pub(crate) const KEYS: Protocol = Protocol("/dawn/keys/1");
/// The kind of notice that says that a key is revoked.
pub(crate) const REVOKED: &str = "keys.revoked";
/// How long an exchange may take: the peer's owner may be asked.
const DEADLINE: Duration = Duration::from_secs(600);
/// Each message comes within this, unless somebody is asked.
const STEP: Duration = Duration::from_secs(15);
/// Between tries, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// Streams that are answered at once, and of one member.
const STREAMS: (usize, usize) = (256, 4);
/// Requests that wait for the owner.
const ASKED: usize = 64;
/// How long somebody who asked for an exchange waits for its outcome: with a peer that is there, and with one that is not.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeFailure {
    /// The peer refuses.
    #[error("the other node refuses: {}", said(*.0))]
    Refused(RefusalCode),
    /// The peer has revoked the key that was to be renewed.
    #[error("the other node has revoked key {0}")]
    Revoked(KeyId),
    /// A message is not what it has to be: the peer lies, or is damaged.
    #[error(transparent)]
    Invalid(#[from] ExchangeError),
    /// A revocation is not what it has to be.
    #[error(transparent)]
    InvalidRevocation(#[from] KeyRevocationError),
    /// The bytes are no message, or not the one that was to come.
    #[error("the other node does not keep to the protocol of the key exchange")]
    NotUnderstood,
    /// The peer cannot be reached, or the stream broke.
    #[error("the other node is not reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the other node did not answer in time")]
    Late,
    /// It asks more often than it may.
    #[error("too many requests for keys")]
    TooOften,
    /// This node could not keep the key.
    #[error("the key could not be kept: {0}")]
    Store(String),
}

fn said(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Denied => "its owner says no",
        RefusalCode::Busy => "it has too many requests for now",
        RefusalCode::UnknownKey => "it does not have the key that is to be renewed",
        RefusalCode::Invalid => "it does not accept the request as valid",
        RefusalCode::Late => "the exchange took too long",
    }
}

impl From<NodeError> for ExchangeFailure {
    fn from(error: NodeError) -> Self {
        Self::Store(error.to_string())
    }
}

impl ExchangeFailure {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(code) => code.as_str(),
            Self::Revoked(_) => "revoked",
            Self::Invalid(ExchangeError::BadSignature) | Self::InvalidRevocation(KeyRevocationError::BadSignature) => {
                "bad_signature"
            }
            Self::Invalid(_) | Self::InvalidRevocation(_) => "invalid",
            Self::NotUnderstood => "protocol",
            Self::Unreachable(_) => "unreachable",
            Self::Late => "late",
            Self::TooOften => "too_often",
            Self::Store(_) => "store",
        }
    }

    /// Whether trying again is of no use.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Refused(RefusalCode::Denied | RefusalCode::UnknownKey) | Self::Revoked(_)
        )
    }

    /// What the peer is told.
    fn refusal(&self) -> RefusalCode {
        match self {
            Self::Refused(code) => *code,
            Self::Late | Self::Invalid(ExchangeError::TooLate(_)) => RefusalCode::Late,
            Self::TooOften | Self::Store(_) => RefusalCode::Busy,
            _ => RefusalCode::Invalid,
        }
    }
}

/// How far an exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is tried again; why it did not come about yet, if it was tried.
    Waiting(Option<ExchangeFailure>),
    /// The peer's owner is asked.
    Asked,
    /// Both have the key.
    Agreed(KeyId),
    /// It is given up.
    Failed(ExchangeFailure),
}

/// A key that is to be agreed on.
#[derive(Debug)]
struct Wish {
    row: WishRow,
    tries: u32,
    next: Instant,
    progress: watch::Sender<Progress>,
}

/// Somebody who waits for this node's owner.
#[derive(Debug)]
struct Asked {
    since: UnixTime,
    expires: UnixTime,
    answer: oneshot::Sender<bool>,
}

/// A request for a key that waits for this node's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedFor {
    /// Who asks.
    pub peer: NodeId,
    /// Since when.
    pub since: UnixTime,
    /// When the key is to end.
    pub expires: UnixTime,
}

/// What this service needs of the node.
pub(crate) struct Parts {
    pub(crate) identity: Keypair,
    pub(crate) network: NetworkId,
    pub(crate) store: Store,
    pub(crate) members: Members,
    pub(crate) keyring: Keyring,
    pub(crate) mesh: Mesh,
    pub(crate) directory: Directory,
    pub(crate) mail: Mail,
    pub(crate) events: Events,
    pub(crate) config: KeysConfig,
    pub(crate) requests_per_minute: u32,
}

/// The key exchange of one node. Clones share it.
#[derive(Clone)]
pub struct KeyExchange(Arc<Inner>);

struct Inner {
    parts: Parts,
    wishes: Mutex<BTreeMap<NodeId, Wish>>,
    asked: Mutex<BTreeMap<NodeId, Asked>>,
    /// With whom an exchange is under way that this node began.
    busy: Mutex<BTreeSet<NodeId>>,
    /// Who is told of revocations now.
    telling: Mutex<BTreeSet<NodeId>>,
    /// Revocations that were sent after their peers.
    sent: Mutex<BTreeSet<KeyId>>,
    /// Keys whose peer will not renew them.
    given_up: Mutex<BTreeSet<KeyId>>,
    /// How often each member asked lately.
    pace: Mutex<BTreeMap<NodeId, (Instant, u32)>>,
    counts: Counts,
    streams: Shares,
    told: Seldom,
    wake: Notify,
    tasks: TaskTracker,
}

impl std::fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeyExchange").field(&lock(&self.0.wishes).len()).finish()
    }
}

impl KeyExchange {
    /// Goes on with what was wanted before.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn load(parts: Parts) -> Result<Self, NodeError> {
        let rows = parts.store.key_wishes().await?;
        let wishes = rows.into_iter().map(|row| (row.peer, Wish::new(row)));
        Ok(Self(Arc::new(Inner {
            wishes: Mutex::new(wishes.collect()),
            parts,
            asked: Mutex::default(),
            busy: Mutex::default(),
            telling: Mutex::default(),
            sent: Mutex::default(),
            given_up: Mutex::default(),
            pace: Mutex::default(),
            counts: Counts::default(),
            streams: Shares::new(STREAMS.0, STREAMS.1),
            told: Seldom::default(),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
        })))
    }

    fn keyring(&self) -> &Keyring {
        &self.0.parts.keyring
    }

    fn local(&self) -> NodeId {
        self.0.parts.identity.node_id()
    }

    fn name(&self, node: NodeId) -> Option<String> {
        self.0.parts.directory.name_of(node)
    }

    /// What is renewed may have been revoked meanwhile.
    fn is_kept(&self, former: Option<&SharedKey>) -> Result<(), ExchangeFailure> {
        match former.filter(|key| self.keyring().get(key.id()).is_none()) {
            Some(key) => Err(ExchangeFailure::Revoked(key.id())),
            None => Ok(()),
        }
    }

    fn count(&self, what: &'static str) {
        self.0.counts.count(what);
    }

    /// The longest that a key may live here.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.0.parts.config.longest.0
    }

    /// What was counted since the start: `agreed`, `revoked`, and the codes of failures.
    #[must_use]
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        self.0.counts.all()
    }

    /// The keys that are to be agreed on, and how far that is.
    #[must_use]
    pub fn wishes(&self) -> Vec<(WishRow, Progress)> {
        let wishes = lock(&self.0.wishes);
        let shown = wishes.values().map(|wish| (wish.row, wish.progress.borrow().clone()));
        shown.collect()
    }

    /// The requests that wait for this node's owner.
    #[must_use]
    pub fn asked(&self) -> Vec<AskedFor> {
        let asked = lock(&self.0.asked);
        let shown = asked.iter().map(|(peer, asked)| AskedFor {
            peer: *peer,
            since: asked.since,
            expires: asked.expires,
        });
        shown.collect()
    }

    /// Answers a request; `false` when there is none of that node.
    #[must_use]
    pub fn answer(&self, peer: NodeId, may: bool) -> bool {
        let asked = lock(&self.0.asked).remove(&peer);
        asked.is_some_and(|asked| asked.answer.send(may).is_ok())
    }

    /// Agrees on a key with a node, now or when it can be reached: a first one, or one in the place of `former`. Waits a
    /// moment for the outcome.
    ///
    /// # Errors
    /// The store failed.
    pub async fn exchange(
        &self,
        peer: NodeId,
        lifetime: Option<Duration>,
        former: Option<KeyId>,
    ) -> Result<Progress, NodeError> {
        let mut progress = self.want(peer, lifetime, former).await?;
        let is_told = |progress: &Progress| !matches!(progress, Progress::Waiting(None));
        let is_online = self.0.parts.directory.presence(peer).online;
        let patience = if is_online { PATIENCE.0 } else { PATIENCE.1 };
        let told = tokio::time::timeout(patience, progress.wait_for(is_told)).await;
        match told {
            Ok(Ok(progress)) => Ok(progress.clone()),
            _ if !is_online => {
                let away = ExchangeFailure::Unreachable("it is not online now".to_owned());
                Ok(Progress::Waiting(Some(away)))
            }
            Ok(Err(_)) | Err(_) => Ok(Progress::Waiting(Some(ExchangeFailure::Late))),
        }
    }

    async fn want(
        &self,
        peer: NodeId,
        lifetime: Option<Duration>,
        former: Option<KeyId>,
    ) -> Result<watch::Receiver<Progress>, NodeError> {
        let row = WishRow {
            peer,
            lifetime: lifetime.unwrap_or(self.0.parts.config.lifetime.0),
            former,
            since: now(),
        };
        self.0.parts.store.set_key_wish(&row).await?;
        let wish = Wish::new(row);
        let progress = wish.progress.subscribe();
        lock(&self.0.wishes).insert(peer, wish);
        self.0.wake.notify_one();
        Ok(progress)
    }

    async fn drop_wish(&self, peer: NodeId, progress: Progress) -> Result<(), NodeError> {
        let wish = lock(&self.0.wishes).remove(&peer);
        self.0.parts.store.remove_key_wish(peer).await?;
        if let Some(wish) = wish {
            wish.progress.send_replace(progress);
        }
        Ok(())
    }

    /// Keeps a key that a person gave to both nodes.
    ///
    /// # Errors
    /// It is too short, or the store failed.
    pub async fn add_pre_shared(
        &self,
        peer: NodeId,
        secret: &[u8],
        lifetime: Option<Duration>,
    ) -> Result<SharedKey, NodeError> {
        let now = now();
        let expires = now + lifetime.unwrap_or(self.0.parts.config.longest.0);
        let key = SharedKey::pre_shared(secret, &self.0.parts.network, &self.local(), &peer, now, expires)
            .map_err(|error| NodeError::SharedKey(error.to_string()))?;
        self.keyring().add(key.clone(), Origin::PreShared, true, now).await?;
        self.said("key.added", &key);
        Ok(key)
    }

    fn said(&self, event: &'static str, key: &SharedKey) {
        self.0.parts.events.say(
            event,
            &json!({
                "key": key.id().to_string(),
                "node": key.peer(),
                "name": self.name(key.peer()),
                "generation": key.generation(),
                "expires": rfc3339(key.expires()),
            }),
        );
    }

    /// Ends a key before its time, here at once; the peer is told now, or when it is back.
    ///
    /// # Errors
    /// There is no such key, or the store failed.
    pub async fn revoke(&self, id: KeyId) -> Result<(), NodeError> {
        let unknown = || NodeError::NotFound {
            what: "key",
            name: id.to_string(),
        };
        let held = self.keyring().get(id).ok_or_else(unknown)?;
        let (parts, peer) = (&self.0.parts, held.key.peer());
        let revocation = KeyRevocation::sign(&parts.identity, &parts.network, id, now())
            .map_err(|error| NodeError::SharedKey(error.to_string()))?;
        let row = KeyRevocationRow {
            key: id,
            peer,
            bytes: revocation.bytes().to_vec(),
            until: held.key.expires() + parts.config.grace.0,
            told: false,
        };
        parts.store.add_key_revocation(&row).await?;
        self.keyring().remove(id).await?;
        self.drop_wish_for(id).await?;
        self.count("revoked");
        self.said("key.revoked", &held.key);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Wants no key of a node any more; `false` when none was wanted.
    ///
    /// # Errors
    /// The store failed.
    pub async fn give_up(&self, peer: NodeId) -> Result<bool, NodeError> {
        let is_wanted = self.is_wanted(peer);
        self.drop_wish(peer, Progress::Failed(ExchangeFailure::Late)).await?;
        Ok(is_wanted)
    }

    /// Whether a key is to be agreed on with a node.
    #[must_use]
    pub fn is_wanted(&self, peer: NodeId) -> bool {
        lock(&self.0.wishes).contains_key(&peer)
    }

    /// Ends the keys of nodes that were put out since they were agreed on.
    async fn drop_keys_of_revoked(&self) -> Result<(), NodeError> {
        let members = &self.0.parts.members;
        let was_revoked = |held: &Held| {
            let revoked = members.revoked_at(held.key.peer());
            revoked.is_some_and(|at| held.key.created() <= at)
        };
        for held in self.keyring().all().into_iter().filter(was_revoked) {
            self.keyring().remove(held.key.id()).await?;
            self.drop_wish(
                held.key.peer(),
                Progress::Failed(ExchangeFailure::Revoked(held.key.id())),
            )
            .await?;
            self.count("revoked");
            self.said("key.revoked", &held.key);
        }
        Ok(())
    }

    /// A key that is gone is not renewed.
    async fn drop_wish_for(&self, id: KeyId) -> Result<(), NodeError> {
        let peer = {
            let wishes = lock(&self.0.wishes);
            let mut of_key = wishes.values().filter(|wish| wish.row.former == Some(id));
            of_key.next().map(|wish| wish.row.peer)
        };
        match peer {
            Some(peer) => {
                self.drop_wish(peer, Progress::Failed(ExchangeFailure::Revoked(id)))
                    .await
            }
            None => Ok(()),
        }
    }

    /// Takes note of a peer's revocation of a key.
    async fn revoked(&self, bytes: &[u8], from: NodeId) -> Result<(), ExchangeFailure> {
        let parts = &self.0.parts;
        let revocation = KeyRevocation::read(bytes, &parts.network, now(), SKEW)?;
        if revocation.issuer() != from {
            return Err(ExchangeError::WrongPeer(revocation.issuer()).into());
        }
        let held = self.keyring().get(revocation.key());
        let Some(held) = held.filter(|held| revocation.revokes(&held.key, &self.local())) else {
            return Ok(());
        };
        self.keyring().remove(held.key.id()).await?;
        self.drop_wish_for(held.key.id()).await?;
        self.count("revoked");
        self.said("key.revoked", &held.key);
        Ok(())
    }

    /// Tells a peer which keys this node has revoked.
    async fn tell_revocations(&self, peer: NodeId) -> Result<(), ExchangeFailure> {
        let mut rows = self.0.parts.store.key_revocations().await?;
        rows.retain(|row| row.peer == peer && !row.told);
        for row in rows {
            self.tell_revocation(peer, &row.bytes).await?;
            self.0.parts.store.key_revocation_told(row.key).await?;
        }
        Ok(())
    }

    /// Runs until `stop`, and reads the notices of revoked keys.
    pub(crate) async fn run(self, mut notices: mpsc::Receiver<Received>, stop: CancellationToken) {
        let mut peers = self.0.parts.mesh.events();
        let mut revoked = self.0.parts.members.revoked();
        for peer in self.0.parts.mesh.peers() {
            self.came_up(peer.node, &stop);
        }
        loop {
            let wait = match self.look(&stop).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(%error, "the shared keys could not be looked after");
                    RETRY.1
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => self.tell_all(&stop).await,
                () = self.0.wake.notified() => self.tell_all(&stop).await,
                // The look at the keys comes with the next turn.
                Ok(()) = revoked.changed() => {}
                event = peers.recv() => match event {
                    Ok(PeerEvent::MemberUp(peer)) => self.came_up(peer.node, &stop),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        for peer in self.0.parts.mesh.peers() {
                            self.came_up(peer.node, &stop);
                        }
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(notice) = notices.recv() => {
                    if let Err(error) = self.revoked(&notice.content, notice.sender).await {
                        self.count(error.code());
                        tracing::warn!(%error, from = %notice.sender, "a revocation of a key is refused");
                    }
                }
            }
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn came_up(&self, peer: NodeId, stop: &CancellationToken) {
        if let Some(wish) = lock(&self.0.wishes).get_mut(&peer) {
            wish.next = Instant::now();
        }
        self.tell(peer, stop);
    }

    /// Tells every peer that was not told yet: those that are there directly, the others by notices.
    async fn tell_all(&self, stop: &CancellationToken) {
        let rows = match self.0.parts.store.key_revocations().await {
            Ok(rows) => rows,
            Err(error) => return tracing::error!(%error, "the revocations of keys could not be read"),
        };
        let connected: BTreeSet<NodeId> = self.0.parts.mesh.peers().iter().map(|peer| peer.node).collect();
        let untold: BTreeSet<NodeId> = rows.iter().filter(|row| !row.told).map(|row| row.peer).collect();
        for peer in untold {
            if connected.contains(&peer) {
                self.tell(peer, stop);
            } else {
                self.send_revocations(peer).await;
            }
        }
    }

    fn tell(&self, peer: NodeId, stop: &CancellationToken) {
        /// Tries with a peer that is there: one that has just started does not serve everything yet.
        const TRIES: u32 = 5;
        if !lock(&self.0.telling).insert(peer) {
            return;
        }
        let (exchange, stop) = (self.clone(), stop.clone());
        self.0.tasks.spawn(async move {
            let mut pause = RETRY.0 / 10;
            for _ in 0..TRIES {
                let waited = match stop.run_until_cancelled(exchange.tell_revocations(peer)).await {
                    Some(Err(error)) => {
                        tracing::info!(%error, %peer, "the revocations of keys are told later");
                        exchange.send_revocations(peer).await;
                        stop.run_until_cancelled(tokio::time::sleep(pause)).await
                    }
                    Some(Ok(())) | None => None,
                };
                if waited.is_none() {
                    break;
                }
                pause *= 2;
            }
            lock(&exchange.0.telling).remove(&peer);
        });
    }

    /// Sends after a peer which keys this node has revoked: once, until it is told.
    async fn send_revocations(&self, peer: NodeId) {
        let rows = self.0.parts.store.key_revocations().await.unwrap_or_default();
        for row in rows.into_iter().filter(|row| row.peer == peer && !row.told) {
            if !lock(&self.0.sent).insert(row.key) {
                continue;
            }
            if let Err(error) = self.0.parts.mail.send(peer, REVOKED, &row.bytes).await {
                lock(&self.0.sent).remove(&row.key);
                tracing::warn!(%error, %peer, "the revocation of a key is told when its node is back");
            }
        }
    }

    /// Does what is due, and says after how long to look again.
    async fn look(&self, stop: &CancellationToken) -> Result<Duration, NodeError> {
        /// Between two looks, at least and at most.
        const LOOK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
        let now = now();
        for held in self.keyring().tidy(now).await? {
            self.said("key.forgotten", &held.key);
        }
        self.drop_keys_of_revoked().await?;
        self.0.parts.store.tidy_key_revocations(now).await?;
        let mut due = now + LOOK.1;
        for held in self.keyring().all() {
            let (id, peer) = (held.key.id(), held.key.peer());
            let is_renewed = held.origin == Origin::Exchange && held.state(now) == KeyState::Current;
            if !is_renewed || lock(&self.0.wishes).contains_key(&peer) || lock(&self.0.given_up).contains(&id) {
                continue;
            }
            let renews = self.renews(&held.key);
            if renews <= now {
                let _progress = self.want(peer, Some(held.lifetime()), Some(id)).await?;
            } else {
                due = due.min(renews);
            }
        }
        let mut wait = Duration::from_secs(due.0.saturating_sub(now.0));
        let at = Instant::now();
        let ready: Vec<NodeId> = {
            let wishes = lock(&self.0.wishes);
            let busy = lock(&self.0.busy);
            let idle = wishes.values().filter(|wish| !busy.contains(&wish.row.peer));
            idle.filter_map(|wish| {
                let left = wish.next.saturating_duration_since(at);
                if left.is_zero() {
                    return Some(wish.row.peer);
                }
                wait = wait.min(left);
                None
            })
            .collect()
        };
        for peer in ready {
            lock(&self.0.busy).insert(peer);
            let (exchange, stop) = (self.clone(), stop.clone());
            self.0.tasks.spawn(async move {
                // An exchange that is broken off by the end of the node is tried again at its next start.
                let _ended = stop.run_until_cancelled(exchange.attempt(peer)).await;
                lock(&exchange.0.busy).remove(&peer);
                exchange.0.wake.notify_one();
            });
        }
        Ok(wait.clamp(LOOK.0, LOOK.1))
    }

    /// When this node renews a key: the one with the smaller id at half of its time, the other at three quarters.
    #[must_use]
    pub fn renews(&self, key: &SharedKey) -> UnixTime {
        let lifetime = key.expires().since(key.created());
        let part = if self.local() < key.peer() { 2 } else { 3 };
        key.created() + lifetime * part / 4
    }
}

impl Wish {
    fn new(row: WishRow) -> Self {
        Self {
            row,
            tries: 0,
            next: Instant::now(),
            progress: watch::channel(Progress::Waiting(None)).0,
        }
    }
}
