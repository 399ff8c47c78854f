//! The replica with all that goes along with it: whatever changes it is kept, written into the log, told, and shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dawn_identity::{NodeId, NodeName, UnixTime};
use dawn_registry::AgentSummary;
use dawn_registry::replica::{Event, Replica};
use dawn_registry::sync::{Snapshot, SyncError};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::Directory;
use super::journal::{Journal, Note};
use super::said::Said;
use crate::members::now;
use crate::store::{RegistryChange, Store};
use crate::sync::lock;

/// Why a node is gone whose membership ended by itself.
pub(super) const EXPIRED: &str = "expired";
/// Why a node is gone that was put out.
pub(super) const REVOKED: &str = "revoked";
/// Why a node is gone that the network lock admits no more.
pub(super) const LOCKED_OUT: &str = "locked_out";
/// Why a node is gone that is not who was pinned.
pub(super) const PINNED: &str = "pinned";

/// What changes together, under one lock.
pub(super) struct Book {
    pub(super) replica: Replica,
    pub(super) journal: Journal,
    /// Nodes of which something could not be kept yet, and addresses.
    unkept: BTreeSet<NodeId>,
    contacts: BTreeMap<NodeId, Vec<String>>,
    /// What this node says and has told nobody yet, as it is not kept.
    pub(super) unpublished: Vec<Vec<u8>>,
    /// What is compared, made when it is first needed after a change.
    snapshot: Option<Arc<Snapshot>>,
}

/// A node of the registry, read.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) said: Arc<Said>,
    /// Whether all that it said has expired: it is not shown until it says something again.
    pub(super) is_hidden: bool,
}

/// What is to be told and kept of a change.
struct Telling {
    notes: Vec<Note>,
    events: Vec<(&'static str, Value)>,
    states: Vec<(NodeId, Vec<Vec<u8>>)>,
    contacts: BTreeMap<NodeId, Vec<String>>,
}

impl Book {
    pub(super) fn new(replica: Replica, journal: Journal) -> Self {
        Self {
            replica,
            journal,
            unkept: BTreeSet::new(),
            contacts: BTreeMap::new(),
            unpublished: Vec::new(),
            snapshot: None,
        }
    }

    /// What is compared in sessions.
    pub(super) fn snapshot(&mut self) -> Result<Arc<Snapshot>, SyncError> {
        match &self.snapshot {
            Some(snapshot) => Ok(Arc::clone(snapshot)),
            None => {
                let snapshot = Arc::new(Snapshot::of(&self.replica, now())?);
                self.snapshot = Some(Arc::clone(&snapshot));
                Ok(snapshot)
            }
        }
    }
}

/// What is known of every node of a replica.
pub(super) fn read(replica: &Replica, now: UnixTime) -> BTreeMap<NodeId, Known> {
    let shown: BTreeSet<NodeId> = replica.nodes(now).map(|view| view.node).collect();
    // At the beginning of time nothing has expired.
    let known = replica.nodes(UnixTime(0)).filter_map(|view| {
        let said = Arc::new(Said::read(&view)?);
        let is_hidden = !shown.contains(&view.node);
        Some((view.node, Known { said, is_hidden }))
    });
    known.collect()
}

fn agent_event(said: &Said, agent: &AgentSummary) -> Value {
    json!({
        "id": said.node,
        "name": said.name,
        "node": { "id": said.node, "name": said.name },
        "agent": agent.name,
        "address": format!("{}:{}", said.name, agent.name),
        "state": agent.state,
        "tools": agent.tools_total,
    })
}

impl Telling {
    fn event(&mut self, name: &'static str, data: Value) {
        self.events.push((name, data));
    }

    fn note(&mut self, who: NodeId, kind: &'static str, content: Value) {
        self.notes.push(Note::new(who, kind, content));
    }

    /// A node says something, and did not before.
    fn came(&mut self, said: &Said, kind: (&'static str, &'static str), online: bool) {
        let (id, name) = (said.node, &said.name);
        self.event(kind.0, json!({ "id": id, "name": name, "online": online }));
        self.note(id, kind.1, json!({ "name": name }));
    }

    fn changed(&mut self, said: &Said, before: &Said) {
        let news = said.news(before);
        if !news.is_empty() {
            let (id, name) = (said.node, &said.name);
            self.event("node.changed", json!({ "id": id, "name": name, "changed": news }));
            self.note(id, "node.changed", json!({ "name": name, "changed": news }));
        }
    }

    fn agents(&mut self, said: &Said, before: &[AgentSummary]) {
        for agent in &said.agents {
            let kind = match before.iter().find(|known| known.name == agent.name) {
                Some(known) if known == agent => continue,
                Some(_) => "agent.changed",
                None => "agent.added",
            };
            self.event(kind, agent_event(said, agent));
            let content = json!({ "agent": agent.name, "state": agent.state, "tools": agent.tools_total });
            self.note(said.node, kind, content);
        }
        for gone in before.iter().filter(|known| said.agent(&known.name).is_none()) {
            let address = format!("{}:{}", said.name, gone.name);
            let node = json!({ "id": said.node, "name": said.name });
            self.event(
                "agent.removed",
                json!({ "id": said.node, "name": said.name, "node": node, "agent": gone.name, "address": address }),
            );
            self.note(said.node, "agent.removed", json!({ "agent": gone.name }));
        }
    }
}

impl Directory {
    /// The registry, for as long as nobody else changes it.
    pub(super) async fn book(&self) -> OwnedMutexGuard<Book> {
        Arc::clone(&self.0.book).lock_owned().await
    }

    /// Lets `act` change the registry, and does all that follows from it; `why` is why a node is gone from it, if one is.
    pub(super) async fn change<T>(&self, why: &'static str, act: impl FnOnce(&mut Replica) -> T) -> T {
        let mut book = self.book().await;
        let done = act(&mut book.replica);
        self.settle(book, why, Vec::new()).await;
        done
    }

    /// Writes something into the log.
    pub(super) async fn note(&self, note: Note) {
        let book = self.book().await;
        self.settle(book, "", vec![note]).await;
    }

    /// Keeps what has changed, with what is written of it, and tells it; then what this node says itself is published.
    /// Who asks may leave: it is done nevertheless, and before anything else changes.
    pub(super) async fn settle(&self, mut book: OwnedMutexGuard<Book>, why: &'static str, notes: Vec<Note>) {
        let events = book.replica.events();
        let is_behind = !book.unkept.is_empty() || !book.unpublished.is_empty() || book.journal.is_behind();
        if events.is_empty() && notes.is_empty() && !is_behind {
            return;
        }
        let directory = self.clone();
        let settled = self.0.tasks.spawn(async move {
            directory.settle_all(book, why, events, notes).await;
        });
        if settled.await.is_err() {
            tracing::error!("a change of the registry was not kept");
        }
    }

    async fn settle_all(
        &self,
        mut book: OwnedMutexGuard<Book>,
        why: &'static str,
        events: Vec<Event>,
        notes: Vec<Note>,
    ) {
        let now = now();
        let mut telling = Telling {
            notes,
            events: Vec::new(),
            states: Vec::new(),
            contacts: std::mem::take(&mut book.contacts),
        };
        let mut nodes = std::mem::take(&mut book.unkept);
        for event in events {
            match event {
                Event::Changed(node) => drop(nodes.insert(node)),
                Event::Lied(proof) => {
                    let node = proof.node();
                    telling.event("registry.lied", json!({ "id": node, "name": self.name_of(node) }));
                    telling.note(node, "node.lied", json!({}));
                    self.0.refusing.count("lied");
                }
            }
        }
        for node in &nodes {
            book.snapshot = None;
            self.look_at(*node, &book.replica, why, now, &mut telling);
        }
        self.0.bytes.store(book.replica.bytes(), Ordering::Relaxed);
        if !nodes.is_empty() {
            self.gossip(|gossip, _| gossip.known(book.replica.fingerprint()));
        }
        let Telling {
            notes,
            events,
            states,
            contacts,
        } = telling;
        let has_changed = !nodes.is_empty();
        let log = book.journal.write(&self.0.store, notes, now).await;
        let change = RegistryChange {
            states,
            contacts: contacts.into_iter().collect(),
            log,
            ..RegistryChange::default()
        };
        match self.0.store.keep_registry(&change).await {
            Ok(()) => {
                book.journal.kept(change.log.len());
                for delta in std::mem::take(&mut book.unpublished) {
                    self.0.counts.count("published");
                    self.publish(&delta);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a change of the registry could not be kept; it is tried again");
                book.journal.not_kept(change.log);
                book.contacts = change.contacts.into_iter().collect();
                book.unkept = nodes;
            }
        }
        for (name, data) in &events {
            self.0.events.say(name, data);
        }
        if has_changed {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    /// What has become of one node.
    fn look_at(&self, node: NodeId, replica: &Replica, why: &'static str, now: UnixTime, telling: &mut Telling) {
        let before = lock(&self.0.known).get(&node).cloned();
        let said = replica.node(&node, now).and_then(|view| Said::read(&view));
        telling.states.push((node, replica.states(&node)));
        let is_gone = replica.heads(&node).next().is_none();
        if is_gone {
            telling.contacts.remove(&node);
        }
        let Some(said) = said.map(Arc::new) else {
            let Some(before) = before else { return };
            let (id, name) = (node, &before.said.name);
            if is_gone {
                if why == LOCKED_OUT {
                    // Where it is stays known: the two may have heard different things of the lock, and tell each other.
                    let places = lock(&self.0.places);
                    let said = places.get(&node).map(|places| places.said.clone());
                    telling
                        .contacts
                        .insert(node, said.unwrap_or_else(|| before.said.addresses.clone()));
                }
                lock(&self.0.known).remove(&node);
                self.0.sessions.forget(&node);
                self.forget_member(&node);
                // Its name is known from there until everybody was told that it went.
                self.0.members.heard(node, None);
                telling.event("node.removed", json!({ "id": id, "name": name }));
                telling.note(node, "node.left", self.left(node, name, why));
            } else if !before.is_hidden {
                let (said, is_hidden) = (Arc::clone(&before.said), true);
                lock(&self.0.known).insert(node, Known { said, is_hidden });
                telling.event("node.expired", json!({ "id": id, "name": name }));
                telling.note(node, "node.expired", json!({ "name": name }));
            }
            return;
        };
        let known = Known {
            said: Arc::clone(&said),
            is_hidden: false,
        };
        lock(&self.0.known).insert(node, known);
        self.0.members.heard(node, Some(&said.chain));
        let online = self.presence_of(node).0;
        match &before {
            None => telling.came(&said, ("node.added", "node.joined"), online),
            Some(before) if before.is_hidden => telling.came(&said, ("node.returned", "node.returned"), online),
            Some(before) => telling.changed(&said, &before.said),
        }
        telling.agents(&said, before.as_ref().map_or(&[], |before| &before.said.agents));
        let is_other = node != self.0.key.node_id();
        let knew = before
            .as_ref()
            .is_some_and(|before| before.said.addresses == said.addresses);
        if is_other && !knew {
            // One that is reached through its host says none: where it was stays known, for when that is lost.
            if said.place.behind(node).is_none() || !said.addresses.is_empty() {
                telling.contacts.insert(node, said.addresses.clone());
                lock(&self.0.places).entry(node).or_default().said = said.addresses.clone();
            }
            self.meet_member(node, said.addresses.clone());
        }
        if said.relays || before.as_ref().is_some_and(|before| before.said.relays) {
            self.tell_relays();
        }
        // What it said itself, to who asked it, is not taken back by what is no news.
        let was = before.map(|before| before.said.place.behind(node));
        if is_other && was.unwrap_or_default() != said.place.behind(node) {
            self.0.mesh.reach_through(node, said.place.behind(node));
        }
        // A static key that is not the pinned one is told of at once, not when it is first needed.
        let _bound = self.binding(node);
    }

    /// Why a node is gone, and by whom it was put out, for the log.
    pub(super) fn left(&self, node: NodeId, name: &NodeName, why: &str) -> Value {
        let by = (why == REVOKED).then(|| self.0.members.put_out_by(node)).flatten();
        match by {
            Some(by) => json!({ "name": name, "reason": why, "by": by }),
            None => json!({ "name": name, "reason": why }),
        }
    }

    /// Gives up what is too old of the log, or too much.
    pub(super) async fn compact_log(&self) {
        let keep = &self.0.config;
        let oldest = UnixTime(now().0.saturating_sub(keep.log_keep.0.as_secs()));
        let mut book = self.book().await;
        if !book.journal.is_due(keep.log_entries, now()) {
            return;
        }
        let surplus = match self.0.store.log_surplus(oldest, keep.log_entries).await {
            Ok(surplus) => surplus,
            Err(error) => return tracing::error!(%error, "the log of the registry could not be read"),
        };
        let Some(last) = surplus else { return };
        let change = RegistryChange {
            log: book
                .journal
                .compact(&self.0.store, &last, now())
                .await
                .into_iter()
                .collect(),
            log_until: Some(last.number),
            ..RegistryChange::default()
        };
        if change.log.is_empty() {
            return;
        }
        let store: Store = self.0.store.clone();
        let keeping = self.0.tasks.spawn(async move {
            match store.keep_registry(&change).await {
                Ok(()) => book.journal.compacted(last.number),
                Err(error) => {
                    tracing::error!(%error, "the log of the registry could not be compacted");
                    book.journal.not_kept(Vec::new());
                }
            }
        });
        if keeping.await.is_err() {
            tracing::error!("the log of the registry was not compacted");
        }
    }
}
