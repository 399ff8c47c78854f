//! A node's side: it takes an order of who may give one, looks first whether it can be obeyed, takes its new place, and goes
//! back by itself where it is not reached there.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_mesh::{Inbound, Incoming, OpenError, Peer, PeerInfo, Route};
use dawn_registry::Place;
use dawn_registry::order::{Order, Ordered};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::Migrations;
use super::stream::{Answer, read_order, write_answer};
use crate::members::{SKEW, now};
use crate::shares::Shares;
use crate::sync::lock;

/// Orders that are obeyed at once, and of one author.
const STREAMS: (usize, usize) = (8, 2);
/// An order is read, and an answer written, within this.
const STEP: Duration = Duration::from_secs(10);
/// The host answers within this, before anything is let go.
const LOOK: Duration = Duration::from_secs(8);
/// A node that has taken its place reaches who ordered within this, or goes back.
const PROOF: Duration = Duration::from_secs(15);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// The key under which it is kept what was answered last.
const ANSWERED: &str = "orders-answered";
/// Authors that are remembered; the numbers of later ones count all the same.
const AUTHORS: usize = 256;

/// What was answered to an author last.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Answered {
    number: u64,
    answer: Answer,
}

impl Migrations {
    /// Obeys orders until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        let shares = Shares::new(STREAMS.0, STREAMS.1);
        let tasks = TaskTracker::new();
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let Some(share) = shares.take(peer.node) else {
                self.0.refused.count("busy");
                continue;
            };
            let migrations = self.clone();
            tasks.spawn(async move {
                let _share = share;
                let Ok(Ok(order)) = timeout(STEP, read_order(&mut stream)).await else {
                    return migrations.0.refused.count("broken");
                };
                let answer = migrations.obey(&peer, &order).await;
                if let Answer::Failed(why) = &answer {
                    tracing::warn!(author = %peer.node, code = why.code, message = why.message, "an order is not obeyed");
                }
                // Who is not there any more asks again.
                let _ = timeout(STEP, write_answer(&mut stream, &answer)).await;
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    /// What can be said of an order without doing anything.
    fn check(&self, peer: &Peer, bytes: &[u8]) -> Result<Ordered, (&'static str, String)> {
        let (local, network) = (self.0.local, self.0.members.network());
        let order = Order::decode(bytes).map_err(|error| (error.code(), error.to_string()))?;
        let ordered = order
            .verify(local, network, now(), SKEW)
            .map_err(|error| (error.code(), error.to_string()))?;
        if ordered.author != peer.node {
            return Err((
                "not_its_author",
                "the order is brought by another than its author".into(),
            ));
        }
        // As the gate says now, and not when the stream was opened.
        let membership = self.0.members.accepts(&peer.chain);
        let membership = membership.map_err(|error| ("not_a_member", error))?;
        if !membership.roles.may_admit() {
            return Err(("not_allowed", "only owners and admins order where nodes go".into()));
        }
        if let Some(policies) = self.0.members.policies() {
            let may = policies.may_order(&membership);
            may.map_err(|denied| ("policy_denied", denied.to_string()))?;
        }
        Ok(ordered)
    }

    async fn obey(&self, peer: &Peer, bytes: &[u8]) -> Answer {
        let ordered = match self.check(peer, bytes) {
            Ok(ordered) => ordered,
            Err((code, message)) => {
                self.0.refused.count(code);
                return Answer::failed(code, message);
            }
        };
        // One after the other: what is answered is what was done.
        let _one = self.0.obeying.lock().await;
        let mut answered = match self.answered().await {
            Ok(answered) => answered,
            Err(error) => return Answer::failed("store", error.to_string()),
        };
        match answered.get(&ordered.author) {
            Some(before) if before.number == ordered.number => return before.answer.clone(),
            Some(before) if before.number > ordered.number => {
                self.0.refused.count("overtaken");
                return Answer::failed("overtaken", "a later order of the same author was obeyed already");
            }
            _ => {}
        }
        let answer = self.take_place(ordered.place, Some(ordered.author)).await;
        if answered.len() < AUTHORS || answered.contains_key(&ordered.author) {
            let (number, answer) = (ordered.number, answer.clone());
            answered.insert(ordered.author, Answered { number, answer });
        }
        let kept = serde_json::to_vec(&answered).map_err(|error| error.to_string());
        let kept = match kept {
            Ok(bytes) => self
                .0
                .store
                .set(ANSWERED, &bytes)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            // The same order would be looked at anew, and find this node where it is to be.
            tracing::error!(error, "what was answered to an order could not be kept");
        }
        answer
    }

    async fn answered(&self) -> Result<BTreeMap<NodeId, Answered>, crate::error::NodeError> {
        let bytes = self.0.store.get(ANSWERED).await?;
        let read = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        Ok(read
            .map_err(|error| crate::error::NodeError::Corrupt(error.to_string()))?
            .unwrap_or_default())
    }

    /// Takes a place, where `witness` is reached from there; any other member where none is named.
    pub(super) async fn take_place(&self, place: Place, witness: Option<NodeId>) -> Answer {
        let before = self.0.modes.place();
        let done = Answer::Done { before: before.into() };
        if before == place {
            return done;
        }
        let witness = witness.or_else(|| self.somebody(place.host()));
        if let Err((code, message)) = self.look(place, witness).await {
            return Answer::failed(code, message);
        }
        if let Err(error) = self.0.modes.set(place).await {
            return Answer::failed("store", error.to_string());
        }
        let Some(witness) = witness else { return done };
        let Err(error) = self.prove(witness).await else {
            return done;
        };
        tracing::warn!(%witness, %error, "this node is not reached in its new place, and goes back");
        let back = match self.0.modes.set(before).await {
            Ok(()) => "it went back".to_owned(),
            Err(error) => format!("it could not go back: {error}"),
        };
        let message = format!("in the new mode {witness} was not reached ({error}); {back}");
        Answer::failed("not_reached", message)
    }

    /// A member that is there, other than the host.
    fn somebody(&self, host: Option<NodeId>) -> Option<NodeId> {
        let nodes = self.0.directory.nodes().into_iter();
        let others = nodes.filter(|view| view.online && view.said.node != self.0.local);
        let mut others: Vec<NodeId> = others.map(|view| view.said.node).collect();
        others.sort_by_key(|node| Some(*node) == host);
        others.first().copied()
    }

    /// Whether a place can be taken, before anything is let go. What is not there now may come in a moment: who ordered may
    /// have been started just now, and be connected with the host a little later.
    async fn look(&self, place: Place, witness: Option<NodeId>) -> Result<(), (&'static str, String)> {
        let Some(host) = place.host().filter(|host| *host != self.0.local) else {
            return Ok(());
        };
        let words = format!("the host {host} is not reached from here: it did not answer in time");
        let last = std::sync::Mutex::new(("host_unreachable", words));
        let looking = async {
            while let Err(why) = self.look_once(place, host, witness).await {
                *lock(&last) = why;
                tokio::time::sleep(PAUSE).await;
            }
        };
        let looked = timeout(LOOK, looking).await;
        let last = last.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        looked.map_err(|_| last)
    }

    async fn look_once(
        &self,
        place: Place,
        host: NodeId,
        witness: Option<NodeId>,
    ) -> Result<(), (&'static str, String)> {
        let (mesh, local) = (&self.0.mesh, self.0.local);
        let words = |error: OpenError| format!("the host {host} is not reached from here: {error}");
        let asked = mesh.ping(host).await;
        asked.map_err(|error| ("host_unreachable", words(error)))?;
        if place.behind(local).is_none() {
            return Ok(());
        }
        // A connection of its own: what relays and other members carry is no way to a host, since nobody else is talked with.
        let is_direct = |peer: &PeerInfo| peer.node == host && peer.route == Route::Direct;
        if !mesh.connected().iter().any(is_direct) {
            let words =
                format!("there is no direct connection from here to the host {host}: relays or other members carry it");
            return Err(("host_unreachable", words));
        }
        let Some(witness) = witness.filter(|witness| *witness != host) else {
            return Ok(());
        };
        let theirs = self.0.directory.place_of(witness).behind(witness);
        let theirs = theirs.filter(|theirs| *theirs != host && *theirs != local);
        let via: Vec<NodeId> = std::iter::once(host).chain(theirs).collect();
        let words =
            |error: OpenError| format!("the host {host} does not carry streams from here to {witness}: {error}");
        let tried = mesh.try_way(witness, &via).await;
        tried.map(|_| ()).map_err(|error| ("host_does_not_carry", words(error)))
    }

    /// Waits until a member is reached.
    pub(super) async fn prove(&self, witness: NodeId) -> Result<(), OpenError> {
        let last = std::sync::Mutex::new(OpenError::Timeout(witness));
        let proving = async {
            while let Err(error) = self.0.mesh.ping(witness).await {
                *lock(&last) = error;
                tokio::time::sleep(PAUSE).await;
            }
        };
        let proved = timeout(PROOF, proving).await;
        let last = last.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        proved.map_err(|_| last)
    }
}
