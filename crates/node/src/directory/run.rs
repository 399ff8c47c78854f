//! The directory at work: what happens in the mesh and on this node, and what time brings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dawn_identity::{CertificateError, NodeId};
use dawn_mesh::{PeerEvent, Published};
use dawn_registry::Refusal;
use dawn_registry::replica::{Applied, Replica};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::book::{EXPIRED, LOCKED_OUT, PINNED, REVOKED};
use super::journal::Note;
use super::own::Budget;
use super::{Directory, said};
use crate::error::NodeError;
use crate::members::{REVOCATION, SKEW, now};
use crate::sync::lock;

/// Between two looks at what time brings.
const LOOK: Duration = Duration::from_secs(3);
/// Nodes of the local network that are counted.
const DISCOVERED: usize = 1024;
/// Changes within this time are said at once.
const SETTLE: Duration = Duration::from_millis(30);

impl Directory {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut peers = self.0.mesh.events();
        let mut revocations = self.0.mesh.subscribe(REVOCATION);
        let mut revoked = self.0.members.revoked();
        let mut locked = self.0.members.network_lock().changes();
        let mut agents = self.0.host.changes();
        let mut renewed = self.0.members.renewed();
        let mut party = self.0.keys.changes();
        let mut place = self.0.place.subscribe();
        self.0.tasks.spawn(self.clone().keep_in_step(stop.clone()));
        self.0.tasks.spawn(self.clone().take_news(stop.clone()));
        self.keep_known().await;
        self.0.tasks.spawn(self.clone().keep_time(stop.clone()));
        self.meet_all();
        // What this node says is signed anew in time, however short it counts.
        let mut look = tokio::time::interval(LOOK.min(self.0.limits.validity / 8));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut budget = Budget::new(tokio::time::Instant::now());
        // An agent may have become ready before anybody listened.
        let mut say_at = Some(tokio::time::Instant::now());
        loop {
            let soon = || Some(tokio::time::Instant::now() + SETTLE);
            let announced = say_at.map(|at| at.max(budget.ready()));
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => self.look_after().await,
                () = at(announced) => {
                    say_at = None;
                    budget.spend(tokio::time::Instant::now());
                    self.announce().await;
                }
                Ok(()) = revoked.changed() => self.drop_revoked().await,
                Ok(()) = locked.changed() => {
                    self.drop_revoked().await;
                    // Who was kept out may be let in now, or has heard nothing of it and is told.
                    self.keep_known().await;
                }
                Ok(()) = agents.changed() => say_at = say_at.or_else(soon),
                Ok(()) = renewed.changed() => say_at = say_at.or_else(soon),
                Ok(()) = party.changed() => say_at = say_at.or_else(soon),
                Ok(()) = place.changed() => say_at = say_at.or_else(soon),
                event = peers.recv() => match event {
                    Ok(PeerEvent::Listening { .. } | PeerEvent::Unreserved { .. } | PeerEvent::ReachChanged) => say_at = say_at.or_else(soon),
                    Ok(event) => self.peer_event(event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.meet_all(),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(message) = next(&mut revocations) => self.revocation(&message).await,
            }
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Everybody whose addresses are known can be a neighbour.
    async fn keep_known(&self) {
        let fingerprint = self.book().await.replica.fingerprint();
        self.gossip(|gossip, _| gossip.known(fingerprint));
        let bootstrap = self.0.bootstrap.keys().map(|node| (*node, Vec::new()));
        bootstrap.for_each(|(node, addresses)| self.meet_member(node, addresses));
        let out: BTreeSet<NodeId> = self.0.members.revoked_nodes().into_iter().collect();
        match self.0.store.contacts().await {
            Ok(contacts) => {
                for (node, addresses) in contacts.into_iter().filter(|(node, _)| !out.contains(node)) {
                    lock(&self.0.places).entry(node).or_default().said = addresses;
                    self.meet_member(node, Vec::new());
                }
            }
            Err(error) => tracing::error!(%error, "the known addresses could not be read"),
        }
        for view in self.nodes() {
            self.meet_member(view.said.node, view.said.addresses.clone());
            self.0
                .mesh
                .reach_through(view.said.node, view.said.place.behind(view.said.node));
        }
    }

    fn peer_event(&self, event: PeerEvent) {
        match event {
            PeerEvent::MemberUp(peer) => self.met(peer.node),
            PeerEvent::Discovered { node, addresses } => {
                let mut discovered = lock(&self.0.discovered);
                if discovered.len() < DISCOVERED {
                    discovered.insert(node);
                }
                drop(discovered);
                if let Some(said) = self.said(node) {
                    let said = said.addresses.iter().cloned();
                    self.find_at(node, addresses.into_iter().chain(said).collect());
                }
            }
            // The gossip hears of its own links.
            PeerEvent::MemberDown { node, .. } => lock(&self.0.told).has_gone(&node, Instant::now()),
            PeerEvent::Apart { node, host } => self.set_apart(node, host),
            PeerEvent::Listening { .. }
            | PeerEvent::Unreserved { .. }
            | PeerEvent::RouteChanged { .. }
            | PeerEvent::ReachChanged => {}
        }
    }

    /// Something was missed, or who was refused may be taken now: everybody connected is met again, and compared with.
    pub(crate) fn meet_all(&self) {
        self.0.mesh.connected().iter().for_each(|peer| self.met(peer.node));
        self.gossip(|gossip, now| gossip.changed(now));
    }

    /// A member is connected: it gets the revocations that it has not just got, and may be a neighbour.
    fn met(&self, node: NodeId) {
        // The newest first: it may be of one who would rather not have it known.
        let revocations = self.0.members.revocations_encoded();
        if lock(&self.0.told).is_news(node, &revocations, Instant::now()) {
            self.0.mesh.send_all(node, REVOCATION, revocations);
        }
        self.gossip(|gossip, now| {
            gossip.add_member(node, now);
            gossip.reachable(&node, now);
        });
    }

    /// Takes deltas that came from anybody, and says of each what became of it.
    pub(super) fn apply_all(
        &self,
        replica: &mut Replica,
        deltas: &[impl AsRef<[u8]>],
    ) -> Vec<Result<Applied, Refusal>> {
        let own = self.0.key.node_id();
        let applied = replica.apply_all(deltas, now(), |node, value| match *node == own {
            true => Ok(self.0.members.own()),
            false => said::membership(&self.0.members, node, value),
        });
        for applied in &applied {
            match applied {
                Ok(Applied::New) => self.0.counts.count("new"),
                Ok(Applied::Known) => self.0.counts.count("known"),
                Err(_) => {}
            }
        }
        applied
    }

    async fn revocation(&self, message: &Published) {
        match self.0.members.add_revocation(&message.bytes).await {
            // Whoever is out is forgotten, whoever told of it.
            Ok(_) => {}
            Err(error) => {
                let is_blamed = matches!(error, NodeError::Corrupt(_));
                self.refuse(message.from, "revocation", &error.to_string(), is_blamed)
                    .await;
            }
        }
    }

    /// Forgets nodes that were put out, are kept out by the network lock, or are not who was pinned; each for its own reason.
    pub(crate) async fn drop_revoked(&self) {
        let own = self.0.key.node_id();
        self.note_own_end().await;
        let mut out: Option<BTreeMap<NodeId, &'static str>> = None;
        for reason in [REVOKED, PINNED, LOCKED_OUT, EXPIRED] {
            self.change(reason, |replica| {
                // Under the lock of the registry: what was taken in before the revocation counted is among it.
                let out = out.get_or_insert_with(|| {
                    let known = lock(&self.0.known).clone();
                    let out = known
                        .into_iter()
                        .map(|(node, known)| (node, self.is_out(&known.said.chain)));
                    out.filter_map(|(node, reason)| Some((node, reason?))).collect()
                });
                replica.retain(|node, _| out.get(node) != Some(&reason))
            })
            .await;
        }
        // Who was met, and has said nothing.
        let known: BTreeSet<NodeId> = lock(&self.0.known).keys().copied().collect();
        for node in self.0.members.revoked_nodes() {
            if node != own && !known.contains(&node) {
                self.forget_member(&node);
            }
        }
    }

    /// Why a node with this chain is accepted no more, if it is not.
    fn is_out(&self, chain: &[u8]) -> Option<&'static str> {
        let members = &self.0.members;
        if members.accepts(chain).is_ok() {
            return None;
        }
        Some(match members.membership(chain) {
            Err(error) if is_revoked(&error) => REVOKED,
            Err(_) => EXPIRED,
            Ok(membership) if members.pins().check(&membership).is_err() => PINNED,
            Ok(_) => LOCKED_OUT,
        })
    }

    /// Writes into the log, once, that this node itself was put out.
    async fn note_own_end(&self) {
        let members = &self.0.members;
        let is_revoked = members.revoked_at(self.0.key.node_id()).is_some();
        if members.is_out() && is_revoked && !self.0.has_left.swap(true, Ordering::Relaxed) {
            let own = members.own();
            let content = self.left(own.node, &own.name, REVOKED);
            self.note(Note::new(own.node, "node.left", content)).await;
        }
    }

    /// Does what time brings: forgets nodes whose membership ended and was not renewed, hides what has expired, signs anew
    /// what this node says, and keeps what could not be kept.
    async fn look_after(&self) {
        let now = now();
        self.change(EXPIRED, |replica| {
            replica.tick(now);
            replica.retain(|_, membership| now < membership.expires + SKEW)
        })
        .await;
        self.renew_own().await;
        self.compact_log().await;
        self.0.mesh.doubt_apart(|host| self.is_online(host));
    }
}

/// Whether a chain is refused because somebody in it was put out.
fn is_revoked(error: &CertificateError) -> bool {
    match error {
        CertificateError::Revoked(_) => true,
        CertificateError::Issuer(issuer) => is_revoked(issuer),
        _ => false,
    }
}

/// Waits until then; for ever where there is no such time.
async fn at(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The next published message; what a slow reader missed is caught up with by the next comparison.
async fn next(receiver: &mut broadcast::Receiver<Published>) -> Option<Published> {
    loop {
        match receiver.recv().await {
            Ok(message) => return Some(message),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::info!(missed, "published messages were missed");
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
