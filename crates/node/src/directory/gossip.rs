//! This node's part in the gossip of its network: who is there, with whom it keeps links, and how news travel.
//!
//! What is to be done is decided by [`dawn_gossip`]; here it is given the time, its messages are carried over streams of
//! `/dawn/gossip/1` ([`links`]), news go to the registry ([`news`]), and what it tells of members is kept and told on
//! ([`attendance`]). Everything goes through one lock, so that messages leave in the order in which they were meant.

mod attendance;
mod links;
mod news;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use dawn_gossip::{Action, Event, Gossip, Instant, Size};
use dawn_identity::{Keypair, NetworkId, NodeId};
use dawn_registry::Place;
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Directory;
use crate::shares::Pace;
use crate::sync::{Counts, lock};
use attendance::{Attendance, Change};
use links::Links;
use news::Came;

pub(crate) use links::GOSSIP;

/// What was said last to neighbours leaves within this.
const GOODBYE: Duration = Duration::from_millis(500);
/// Links that one member may begin within a minute: more than are lost and come back.
const BEGUN: (u32, Duration) = (30, Duration::from_secs(60));

/// The gossip of one node, and what belongs to it.
pub(super) struct Talk {
    state: Mutex<State>,
    /// Something is due earlier than it was.
    wake: Notify,
    /// News that wait to be read; no more than the gossip lets wait for a verdict.
    came: Mutex<Option<mpsc::UnboundedReceiver<Came>>>,
    begun: Pace,
    /// What became of links, and of news.
    links: Counts,
    news: Counts,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What changes together, under one lock.
struct State {
    gossip: Gossip<Keypair>,
    links: Links,
    attendance: Attendance,
    news: mpsc::UnboundedSender<Came>,
    /// When it is looked next whether something is due.
    due: Option<Instant>,
}

/// What there is to say about a node's links.
#[derive(Debug, Clone)]
pub struct Linked {
    /// With whom it has links.
    pub neighbours: Vec<NodeId>,
    /// Of these, whom it sends news at once; to the others they are announced.
    pub eager: usize,
    /// How much is held.
    pub size: Size,
}

impl Talk {
    pub(super) fn new(key: &Keypair, network: NetworkId, epoch: u64, config: dawn_gossip::Config) -> Self {
        let local = key.node_id();
        let (news, came) = mpsc::unbounded_channel();
        let state = State {
            gossip: Gossip::new(local, network, epoch, config, key.clone()),
            links: Links::default(),
            attendance: Attendance::new(local),
            news,
            due: None,
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            came: Mutex::new(Some(came)),
            begun: Pace::new(BEGUN.0, BEGUN.1),
            links: Counts::default(),
            news: Counts::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }
}

impl Directory {
    /// Lets `act` do something with the gossip, and carries out what follows from it.
    pub(super) fn gossip<T>(&self, act: impl FnOnce(&mut Gossip<Keypair>, Instant) -> T) -> T {
        self.with_talk(|state, now| act(&mut state.gossip, now))
    }

    fn with_talk<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = lock(&self.0.talk.state);
        let now = self.now();
        let done = act(&mut state, now);
        loop {
            if let Some(event) = state.gossip.poll_event() {
                self.gossip_tells(&mut state, event, now);
            } else if let Some(action) = state.gossip.poll_action() {
                self.gossip_wants(&mut state, action, now);
            } else {
                break;
            }
        }
        let has_links = state.gossip.links().next().is_some();
        state.attendance.has_links(has_links, now);
        self.tell_changes(state.attendance.changes());
        let due = state
            .gossip
            .poll_timeout()
            .into_iter()
            .chain(state.attendance.next())
            .min();
        if due.is_some_and(|due| state.due.is_none_or(|before| due < before)) {
            state.due = due;
            self.0.talk.wake.notify_one();
        }
        done
    }

    fn gossip_tells(&self, state: &mut State, event: Event, now: Instant) {
        match event {
            Event::News { id, from, bytes } => {
                // Nobody reads them when the node ends.
                let _ = state.news.send(Came { id, from, bytes });
            }
            Event::Differs(node) => self.compare_with(node),
            Event::Muted(node) => {
                let mut refused = state.gossip.refusals().by_sender();
                let refused = refused
                    .find(|(sender, _)| **sender == node)
                    .map_or(0, |(_, count)| count);
                let directory = self.clone();
                self.0
                    .tasks
                    .spawn(async move { directory.tell_limited(node, refused).await });
            }
            event @ (Event::Online(_) | Event::Suspected(_) | Event::Offline(_)) => state.attendance.hear(&event, now),
        }
    }

    fn gossip_wants(&self, state: &mut State, action: Action, now: Instant) {
        match action {
            Action::Connect(node) => self.try_link(&mut state.links, node),
            Action::Disconnect(node) => state.links.leave(&node),
            Action::Send { to, bytes } => {
                if !state.links.send(&to, bytes) {
                    self.0.talk.links.count("slow");
                    state.links.cut(&to);
                    state.gossip.link_down(to, now);
                }
            }
        }
    }

    /// Tells listeners who came and who went.
    fn tell_changes(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            let (kind, node) = match change {
                Change::Came(node) => ("peer.up", node),
                Change::Went(node) => ("peer.down", node),
            };
            // Of who was put out the registry knows nothing any more.
            let former = || self.0.members.name_of(node).map(|name| name.to_string());
            let data = json!({ "id": node, "name": self.name_of(node).or_else(former) });
            self.0.events.say(kind, &data);
        }
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Calls the gossip when it wants to be called, until `stop`; then its links end.
    pub(super) async fn keep_time(self, stop: CancellationToken) {
        /// There is always something due earlier.
        const LATEST: Duration = Duration::from_secs(3600);
        let talk = &self.0.talk;
        loop {
            let due = lock(&talk.state).due.unwrap_or_else(|| self.now() + LATEST);
            let at = tokio::time::Instant::from_std(self.0.started + due);
            tokio::select! {
                () = stop.cancelled() => break,
                () = talk.wake.notified() => {}
                () = tokio::time::sleep_until(at) => self.with_talk(|state, now| {
                    state.due = None;
                    if state.gossip.poll_timeout().is_some_and(|at| at <= now) {
                        state.gossip.handle_timeout(now, &mut rand::rng());
                    }
                }),
            }
        }
        talk.stop.cancel();
        talk.tasks.close();
        talk.tasks.wait().await;
    }

    /// Somebody is a member, and may be at these addresses.
    pub(crate) fn meet_member(&self, node: NodeId, addresses: Vec<String>) {
        if node == self.0.key.node_id() {
            return;
        }
        self.find_at(node, addresses);
        self.gossip(|gossip, now| gossip.add_member(node, now));
    }

    /// A member may be at these addresses.
    pub(super) fn find_at(&self, node: NodeId, addresses: Vec<String>) {
        // What the owner wrote comes first: a node says so many addresses that others may not count any more.
        let mut all: Vec<String> = self.0.bootstrap.get(&node).into_iter().flatten().cloned().collect();
        all.extend(addresses);
        if let Some(places) = lock(&self.0.places).get(&node) {
            all.extend(places.hinted.iter().chain(&places.said).cloned());
        }
        let mut seen = BTreeSet::new();
        all.retain(|address| seen.insert(address.clone()));
        self.0.mesh.know(node, all);
        self.gossip(|gossip, now| gossip.reachable(&node, now));
    }

    /// With whom this node talks from now on: links are had with its host alone, or with everybody.
    pub(super) fn talk_from(&self, place: Place) {
        let local = self.0.key.node_id();
        self.gossip(|gossip, now| {
            gossip.set_hub(place.host() == Some(local));
            gossip.set_only(place.behind(local), now);
        });
    }

    /// A member is reached through this host alone, or by itself.
    pub(super) fn set_apart(&self, node: NodeId, host: Option<NodeId>) {
        let is_apart = host.is_some_and(|host| host != self.0.key.node_id());
        self.gossip(|gossip, now| gossip.set_apart(node, is_apart, now));
    }

    /// Somebody is a member no more.
    pub(super) fn forget_member(&self, node: &NodeId) {
        self.0.mesh.forget(*node);
        lock(&self.0.places).remove(node);
        self.with_talk(|state, now| {
            state.gossip.remove_member(node, now);
            state.attendance.forget(node);
        });
    }

    /// Tells the others something new; what is too long for news they find by comparing.
    pub(super) fn publish(&self, delta: &[u8]) {
        self.gossip(|gossip, now| {
            if gossip.publish(delta, now).is_err() {
                gossip.changed(now);
            }
        });
    }

    /// Says goodbye to the neighbours, and gives all links up.
    pub(crate) async fn leave(&self) {
        self.with_talk(|state, now| {
            state.gossip.leave(now);
            state.links.drop_tries();
        });
        let talk = &self.0.talk;
        talk.tasks.close();
        // Who does not read finds out by itself.
        let _ = tokio::time::timeout(GOODBYE, talk.tasks.wait()).await;
    }

    /// Whether a node is online, and when it was last known to be.
    pub(super) fn presence_of(&self, node: NodeId) -> (bool, Option<Duration>) {
        lock(&self.0.talk.state).attendance.of(&node, self.now())
    }

    /// The same of several.
    pub(super) fn presences(&self, nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, (bool, Option<Duration>)> {
        let (state, now) = (lock(&self.0.talk.state), self.now());
        nodes.map(|node| (node, state.attendance.of(&node, now))).collect()
    }

    /// With whom this node has links, and how much its gossip holds.
    #[must_use]
    pub fn linked(&self) -> Linked {
        let state = lock(&self.0.talk.state);
        Linked {
            neighbours: state.gossip.links().collect(),
            eager: state.gossip.eager_links().count(),
            size: state.gossip.size(),
        }
    }

    /// How much of what neighbours sent was refused by the gossip, by code; what the registry refused of it is `news`.
    #[must_use]
    pub fn gossip_refused(&self) -> Vec<(&'static str, u64)> {
        lock(&self.0.talk.state).gossip.refusals().by_code().collect()
    }

    /// What became of links.
    #[must_use]
    pub fn gossip_links(&self) -> Vec<(&'static str, u64)> {
        self.0.talk.links.all()
    }

    /// What became of news that came.
    #[must_use]
    pub fn gossip_news(&self) -> Vec<(&'static str, u64)> {
        self.0.talk.news.all()
    }
}
