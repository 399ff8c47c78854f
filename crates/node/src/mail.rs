//! Mail: notices to members that are not there, stored and forwarded by other members.
//!
//! `/dawn/mail/1`, members only. A message is an envelope behind a length of four bytes; the answer is a byte. A notice is
//! kept by its sender until its receiver has it, and carried by up to three other members meanwhile, which see from whom
//! to whom it goes, when, how long it is, and nothing else. Whoever meets the receiver first hands it over; it counts once.
//! What a member carries for others is bounded in size, number and age.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_channel::envelope::ReplayError;
use dawn_identity::NodeId;
use dawn_mcp::router::Directory as _;
use dawn_mesh::{Inbound, Incoming, Mesh, MeshStream, PeerEvent, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::LimitsConfig;
use crate::directory::Directory;
use crate::envelopes::{EnvelopeFailure, Envelopes, LIFETIME, Received};
use crate::error::NodeError;
use crate::members::now;
use crate::shares::{Seldom, Shares};
use crate::store::{MailRow, Store};
use crate::sync::{Counts, lock};

/// Notices travel over it.
pub(crate) const MAIL: Protocol = Protocol("/dawn/mail/1");
/// Longest envelope that is carried, bytes.
pub const MAX_MAIL_BYTES: usize = 16 << 10;
/// Members that carry a notice beside its sender.
const COPIES: u32 = 3;
/// Each message and each answer comes within this.
const STEP: Duration = Duration::from_secs(15);
/// Streams that are read at once, and of one member.
const STREAMS: (usize, usize) = (256, 4);
/// Between two tries with a member that is there, at first.
const RETRY: Duration = Duration::from_millis(500);
/// Between two looks at what waits, and two tries at most.
const LOOK: Duration = Duration::from_secs(60);
/// Notices of one kind that wait to be read here.
const UNREAD: usize = 64;
/// How long there may be no room for one more of them before its carrier is asked to come again.
const READER: Duration = Duration::from_secs(5);

/// What becomes of an envelope that is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Answer {
    /// It is taken, or has been before.
    Taken = 0,
    /// There is no room for it now.
    Full = 1,
    /// It is not wanted.
    Refused = 2,
}

/// How much a member carries for others.
#[derive(Debug, Clone, Copy)]
struct Room {
    messages: u64,
    bytes: u64,
    per_sender: u64,
}

/// The mail of one node. Clones share it.
#[derive(Clone)]
pub struct Mail(Arc<Inner>);

struct Inner {
    store: Store,
    mesh: Mesh,
    directory: Directory,
    envelopes: Envelopes,
    room: Room,
    readers: Mutex<BTreeMap<String, mpsc::Sender<Received>>>,
    /// To whom something is handed over now, and whether there is more since.
    busy: Mutex<BTreeMap<NodeId, bool>>,
    counts: Counts,
    streams: Shares,
    told: Seldom,
    /// One is let in at a time, so that none takes the room that another was promised.
    taking: tokio::sync::Mutex<()>,
    wake: Notify,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Mail").field(&self.0.room).finish()
    }
}

impl Mail {
    pub(crate) fn new(
        store: Store,
        mesh: Mesh,
        directory: Directory,
        envelopes: Envelopes,
        limits: &LimitsConfig,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            mesh,
            directory,
            envelopes,
            room: Room {
                messages: limits.mailbox_messages,
                bytes: limits.mailbox_bytes,
                per_sender: limits.mailbox_per_sender,
            },
            readers: Mutex::default(),
            busy: Mutex::default(),
            counts: Counts::default(),
            streams: Shares::new(STREAMS.0, STREAMS.1),
            told: Seldom::default(),
            taking: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
        }))
    }

    fn count(&self, what: &'static str) {
        self.0.counts.count(what);
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        self.0.counts.all()
    }

    /// The notices of a kind that come from now on. A second reader takes the place of the first.
    #[must_use]
    pub fn subscribe(&self, kind: &str) -> mpsc::Receiver<Received> {
        let (sender, receiver) = mpsc::channel(UNREAD);
        lock(&self.0.readers).insert(kind.to_owned(), sender);
        receiver
    }

    /// Sends a notice, now or when its receiver can be reached by this node or another that carries it. It counts for seven
    /// days; whoever must not lose it says it again.
    ///
    /// # Errors
    /// It cannot be sealed, is too long, or cannot be kept.
    pub async fn send(&self, to: NodeId, kind: &str, content: &[u8]) -> Result<(), EnvelopeFailure> {
        let envelope = self.0.envelopes.seal(to, kind, content)?;
        if envelope.bytes().len() > MAX_MAIL_BYTES {
            return Err(dawn_channel::envelope::EnvelopeError::TooLarge.into());
        }
        let cover = envelope.cover();
        let row = MailRow {
            id: cover.id,
            sender: cover.sender,
            receiver: to,
            bytes: envelope.bytes().to_vec(),
            expires: cover.expires,
            copies: 0,
        };
        self.0.store.add_mail(&row).await?;
        self.count("sent");
        self.0.wake.notify_one();
        Ok(())
    }

    /// Hands over what waits, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut peers = self.0.mesh.events();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    match self.0.store.tidy_mail(now()).await {
                        Ok(0) => {}
                        Ok(count) => tracing::info!(count, "notices expired before their receivers came up"),
                        Err(error) => tracing::error!(%error, "the mail could not be tidied"),
                    }
                    // What could not be handed over to who is there.
                    self.meet_all(&stop);
                    self.seek(&stop).await;
                }
                () = self.0.wake.notified() => {
                    self.meet_all(&stop);
                    self.seek(&stop).await;
                }
                event = peers.recv() => match event {
                    Ok(PeerEvent::MemberUp(peer)) => self.meet(peer.node, &stop),
                    // What was for it may need carriers now.
                    Ok(PeerEvent::MemberDown { .. }) if self.needs_carriers().await => self.meet_all(&stop),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => self.meet_all(&stop),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn meet_all(&self, stop: &CancellationToken) {
        for peer in self.0.mesh.peers() {
            self.meet(peer.node, stop);
        }
    }

    /// Whoever is there and not connected, and has something waiting here, is connected to.
    async fn seek(&self, stop: &CancellationToken) {
        let receivers = match self.0.store.mail_receivers().await {
            Ok(receivers) => receivers,
            Err(error) => return tracing::error!(%error, "the mail could not be read"),
        };
        let connected: BTreeSet<NodeId> = self.0.mesh.peers().iter().map(|peer| peer.node).collect();
        for node in receivers {
            if !connected.contains(&node) && self.0.directory.presence(node).online {
                self.meet(node, stop);
            }
        }
    }

    /// Whether this node waits with something that others may carry.
    async fn needs_carriers(&self) -> bool {
        let own = self.0.store.mail_of(self.0.mesh.node_id(), COPIES).await;
        own.is_ok_and(|rows| !rows.is_empty())
    }

    /// A member is there: it gets what is for it, and may carry what is for others.
    fn meet(&self, peer: NodeId, stop: &CancellationToken) {
        if let Some(again) = lock(&self.0.busy).get_mut(&peer) {
            *again = true;
            return;
        }
        lock(&self.0.busy).insert(peer, false);
        let (mail, stop) = (self.clone(), stop.clone());
        self.0.tasks.spawn(async move {
            let mut pause = RETRY;
            loop {
                match stop.run_until_cancelled(mail.hand_over(peer)).await {
                    Some(Ok(())) => {
                        pause = RETRY;
                        let mut busy = lock(&mail.0.busy);
                        match busy.get_mut(&peer) {
                            Some(again) if *again => *again = false,
                            _ => {
                                busy.remove(&peer);
                                return;
                            }
                        }
                    }
                    // One that has just started does not serve everything yet.
                    Some(Err(error)) => {
                        tracing::info!(%error, %peer, "notices are handed over later");
                        let waited = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                        pause = (pause * 2).min(LOOK);
                        let is_there = mail.0.mesh.peers().iter().any(|connected| connected.node == peer);
                        if waited.is_none() || !is_there {
                            break;
                        }
                    }
                    None => break,
                }
            }
            lock(&mail.0.busy).remove(&peer);
        });
    }

    async fn hand_over(&self, peer: NodeId) -> Result<(), MailFailure> {
        let store = &self.0.store;
        let own = self.0.mesh.node_id();
        let for_it = store.mail_for(peer).await?;
        let mut to_carry = store.mail_of(own, COPIES).await?;
        // What can be handed over by this node itself needs no carrier.
        let connected: BTreeSet<NodeId> = self.0.mesh.peers().iter().map(|peer| peer.node).collect();
        to_carry.retain(|row| row.receiver != peer && !connected.contains(&row.receiver));
        if for_it.is_empty() && to_carry.is_empty() {
            return Ok(());
        }
        let stream = self.0.mesh.open(peer, MAIL).await;
        let mut stream = stream.map_err(|error| MailFailure::Unreachable(error.to_string()))?;
        for row in for_it.into_iter().filter(|row| row.expires > now()) {
            match offer(&mut stream, &row.bytes).await? {
                Answer::Taken => self.count("delivered"),
                Answer::Refused => self.count("undeliverable"),
                Answer::Full => continue,
            }
            store.remove_mail(row.id, row.sender).await?;
        }
        for row in to_carry.into_iter().filter(|row| row.expires > now()) {
            if offer(&mut stream, &row.bytes).await? == Answer::Taken {
                store.mail_copied(row.id, row.sender).await?;
            }
        }
        Ok(())
    }

    /// Takes what members hand over, until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let Some(share) = self.0.streams.take(peer.node) else {
                self.count("busy");
                continue;
            };
            let mail = self.clone();
            self.0.tasks.spawn(async move {
                if let Err(error) = mail.take_all(&mut stream, peer.node).await {
                    mail.count("broken");
                    tracing::debug!(%error, from = %peer.node, "mail broke off");
                }
                drop(share);
            });
        }
    }

    async fn take_all(&self, stream: &mut MeshStream, from: NodeId) -> Result<(), MailFailure> {
        loop {
            let length = match timeout(STEP, stream.read_u32()).await {
                Ok(Ok(length)) => length as usize,
                // The end of the stream, or nothing more for now.
                Ok(Err(_)) | Err(_) => return Ok(()),
            };
            if length > MAX_MAIL_BYTES {
                return Err(MailFailure::TooLong(length));
            }
            let mut bytes = vec![0; length];
            let read = timeout(STEP, stream.read_exact(&mut bytes)).await;
            read.map_err(|_| MailFailure::Late)??;
            let answer = match self.take(&bytes, from).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.count(error.code());
                    if self.0.told.may_speak_of(from) {
                        tracing::warn!(%error, %from, "an envelope is refused");
                    }
                    Answer::Refused
                }
            };
            stream.write_u8(answer as u8).await?;
            stream.flush().await?;
        }
    }

    async fn take(&self, bytes: &[u8], from: NodeId) -> Result<Answer, EnvelopeFailure> {
        let cover = *self.0.envelopes.verify(bytes)?.as_envelope().cover();
        let receiver = cover.receiver.ok_or(EnvelopeFailure::NoReceiver)?;
        if receiver == self.0.mesh.node_id() {
            return self.receive(bytes).await;
        }
        // Only who sent it may ask for it to be carried; what is carried goes to its receiver, and no further round.
        if cover.sender != from {
            return Err(EnvelopeFailure::NotItsOwn(from));
        }
        if cover.expires.since(cover.sent) > LIFETIME {
            return Err(ReplayError::LivesTooLong.into());
        }
        if !self.0.directory.is_member(receiver) {
            return Err(EnvelopeFailure::NoMember(receiver));
        }
        let row = MailRow {
            id: cover.id,
            sender: cover.sender,
            receiver,
            bytes: bytes.to_vec(),
            expires: cover.expires,
            // Who carries asks nobody else to.
            copies: COPIES,
        };
        let _one = self.0.taking.lock().await;
        let (room, length) = (self.0.room, bytes.len() as u64);
        let (all, its) = (
            self.0.store.mail_waiting(None).await?,
            self.0.store.mail_waiting(Some(from)).await?,
        );
        if all.count >= room.messages || all.bytes + length > room.bytes || its.count >= room.per_sender {
            self.count("full");
            return Ok(Answer::Full);
        }
        if self.0.store.add_mail(&row).await? {
            self.count("carried");
        }
        self.0.wake.notify_one();
        Ok(Answer::Taken)
    }

    async fn receive(&self, bytes: &[u8]) -> Result<Answer, EnvelopeFailure> {
        // Of which kind it is shows when it is opened, and what was opened is not taken twice: so there is room for it
        // with every reader first.
        let readers = lock(&self.0.readers).clone();
        let mut places = BTreeMap::new();
        for (kind, reader) in &readers {
            match timeout(READER, reader.reserve()).await {
                Ok(Ok(place)) => drop(places.insert(kind.as_str(), place)),
                // This one reads no more.
                Ok(Err(_)) => {}
                Err(_) => {
                    self.count("unread");
                    return Ok(Answer::Full);
                }
            }
        }
        let received = match self.0.envelopes.open(bytes).await {
            Ok(received) => received,
            Err(EnvelopeFailure::Replay(ReplayError::Repeated)) => return Ok(Answer::Taken),
            Err(EnvelopeFailure::Replay(ReplayError::Full) | EnvelopeFailure::Store(_)) => return Ok(Answer::Full),
            Err(error) => return Err(error),
        };
        let Some(place) = places.remove(received.kind.as_str()) else {
            self.count("unknown_kind");
            return Ok(Answer::Refused);
        };
        place.send(received);
        self.count("received");
        Ok(Answer::Taken)
    }
}

/// Why something could not be handed over.
#[derive(Debug, thiserror::Error)]
enum MailFailure {
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Broken(#[from] std::io::Error),
    #[error("an envelope of {0} bytes is longer than {MAX_MAIL_BYTES}")]
    TooLong(usize),
    #[error("no answer in time")]
    Late,
    #[error("an answer that is none")]
    NoAnswer,
    #[error(transparent)]
    Store(#[from] NodeError),
}

async fn offer(stream: &mut MeshStream, bytes: &[u8]) -> Result<Answer, MailFailure> {
    let length = u32::try_from(bytes.len()).map_err(|_| MailFailure::TooLong(bytes.len()))?;
    stream.write_u32(length).await?;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let answer = timeout(STEP, stream.read_u8()).await.map_err(|_| MailFailure::Late)??;
    [Answer::Taken, Answer::Full, Answer::Refused]
        .into_iter()
        .find(|known| *known as u8 == answer)
        .ok_or(MailFailure::NoAnswer)
}
