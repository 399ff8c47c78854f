//! What this node says itself: of what it is, and of its agents.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dawn_identity::{NodeId, UnixTime};
use dawn_registry::delta::{Key, MAX_VALUE_BYTES};
use dawn_registry::replica::{Limits, LocalError, Replica};
use dawn_registry::{AgentSummary, NodeElement};
use tokio::time::Instant;

use super::Directory;
use crate::error::NodeError;
use crate::members::now;
use crate::store::Store;

/// Heads that this node signs at once, and between two more: others take only so many of it a minute.
const BURST: u32 = 40;
const BETWEEN: Duration = Duration::from_secs(1);
/// Deltas that wait until they are kept; of more the whole set is told.
const UNPUBLISHED: usize = 16;

/// How often this node may say something new.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// From when on something may be said.
    pub(super) fn ready(&self) -> Instant {
        match self.left {
            0 => self.since + BETWEEN,
            _ => self.since,
        }
    }

    pub(super) fn spend(&mut self, now: Instant) {
        let more = u32::try_from(now.duration_since(self.since).as_secs()).unwrap_or(BURST);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.since += BETWEEN * more;
        }
        self.left = self.left.saturating_sub(1);
    }
}

fn encode(agent: &AgentSummary) -> (Key, Vec<u8>) {
    (Key::Agent(agent.name.clone()), agent.encode())
}

/// What is said of agents, short enough to be taken by others: of many agents with many tools fewer tools of those that
/// have the most. How many an agent has, and whether its lists changed, is told always.
fn fitted(node: Vec<u8>, mut agents: Vec<AgentSummary>, limits: &Limits) -> Vec<(Key, Vec<u8>)> {
    /// What an entry takes beside its value.
    const AROUND: usize = 256;
    let most = limits.entries.saturating_sub(1);
    if agents.len() > most {
        tracing::warn!(agents = agents.len(), most, "the network is not told of all agents");
        agents.truncate(most);
    }
    let room = limits.owner_bytes.saturating_sub(node.len() + AROUND);
    let mut values = vec![(Key::Node, node)];
    let size = |values: &[(Key, Vec<u8>)]| values.iter().map(|(_, value)| value.len() + AROUND).sum::<usize>();
    let mut told: Vec<(Key, Vec<u8>)> = agents.iter().map(encode).collect();
    // The most that each may take, from large to small: so that who has few tools tells all of them.
    for share in (7..=MAX_VALUE_BYTES.ilog2()).rev().map(|bits| 1_usize << bits) {
        for (agent, told) in agents.iter_mut().zip(&mut told) {
            while told.1.len() > share && !agent.tools.is_empty() {
                agent.tools.truncate(agent.tools.len() / 2);
                *told = encode(agent);
            }
        }
        if size(&told) <= room {
            break;
        }
    }
    // Names and titles that are longer than everything else together.
    let mut left = room;
    told.retain(|(key, value)| {
        let size = value.len() + AROUND;
        let fits = value.len() <= MAX_VALUE_BYTES && size <= left;
        if fits {
            left -= size;
        } else {
            tracing::warn!(agent = ?key, bytes = value.len(), "the network is not told of an agent: it says too much of itself");
        }
        fits
    });
    values.extend(told);
    values
}

/// The greatest epoch in which a node has said something.
pub(super) fn last_epoch(replica: &Replica, node: &NodeId) -> u64 {
    let epoch = |clock: &dawn_registry::set::Clock| {
        let last = clock.last().last().map_or(0, |dot| dot.epoch);
        last.max(clock.floor().saturating_sub(1))
    };
    replica.heads(node).map(|head| epoch(head.clock())).max().unwrap_or(0)
}

/// Keeps a new incarnation of this node, greater than `after`.
pub(super) async fn begin(store: &Store, after: u64) -> Result<u64, NodeError> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    store.begin_epoch(milliseconds, after).await
}

impl Directory {
    fn own_values(&self) -> Vec<(Key, Vec<u8>)> {
        let own = self.0.members.own();
        let place = self.place();
        // Who is reached through its host alone is dialled by nobody.
        let mut addresses = match place.behind(own.node) {
            Some(_) => Vec::new(),
            None => self.0.members.addresses(),
        };
        addresses.extend(place.to_address());
        let node = NodeElement {
            name: own.name,
            chain: self.0.members.chain().to_vec(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            addresses,
            binding: self.0.keys.party().binding().encode(),
            relays: self.0.members.is_relay(),
        };
        fitted(node.encode(), self.0.host.summaries(), &self.0.limits)
    }

    /// Says what this node is and has, where that is news.
    pub(super) async fn announce(&self) {
        self.0.members.relay();
        let (own, key) = (self.0.key.node_id(), &self.0.key);
        let chain = self.0.members.chain();
        if self.said(own).is_none_or(|said| said.chain != *chain) {
            // With what it is its membership is taken note of.
            self.say(|replica, now| {
                let values = self.own_values();
                let node = values.first().map_or(&[] as &[u8], |(_, value)| value.as_slice());
                replica.set_node(node, self.0.members.own(), key, now)
            })
            .await;
        }
        // Looked up under the lock: of two that announce, the one that comes second says what is so then.
        self.say(|replica, now| replica.declare(self.own_values(), key, now))
            .await;
    }

    /// Signs anew what this node said, where it is time, or another incarnation of it has said something.
    pub(super) async fn renew_own(&self) {
        let (local, key) = (self.0.key.node_id(), &self.0.key);
        let (after, speaks_for_all) = {
            let book = self.book().await;
            (last_epoch(&book.replica, &local), book.replica.speaks_for_all())
        };
        if after > self.0.epoch.load(Ordering::Relaxed) && !self.begin_anew(after).await {
            return;
        }
        if !speaks_for_all {
            // What the other one added and this one has not goes.
            self.announce().await;
        }
        self.say(|replica, now| replica.refresh(key, now)).await;
    }

    /// Goes on as a new incarnation: what a backup was made of, or another machine with this key, has said more.
    async fn begin_anew(&self, after: u64) -> bool {
        match begin(&self.0.store, after).await {
            Ok(epoch) => {
                // Another may have begun a later one meanwhile: under the lock, nobody goes back.
                let mut book = self.book().await;
                let epoch = self.0.epoch.fetch_max(epoch, Ordering::Relaxed).max(epoch);
                book.replica.begin(epoch);
                tracing::warn!(
                    epoch,
                    "this node was known by a later incarnation; it goes on as a new one"
                );
                true
            }
            Err(error) => {
                tracing::error!(%error, "no new incarnation could be begun");
                false
            }
        }
    }

    async fn say(&self, act: impl Fn(&mut Replica, UnixTime) -> Result<Option<Vec<u8>>, LocalError>) {
        for _ in 0..2 {
            let mut book = self.book().await;
            let said = act(&mut book.replica, now());
            match said {
                Ok(None) => {}
                Ok(Some(delta)) if book.unpublished.len() < UNPUBLISHED => book.unpublished.push(delta),
                Ok(Some(_)) => book.unpublished = book.replica.states(&self.0.key.node_id()),
                Err(LocalError::Spent(spent)) => {
                    drop(book);
                    if self.begin_anew(spent.0).await {
                        continue;
                    }
                    return;
                }
                Err(error) => tracing::error!(%error, "this node cannot say what it is and has"),
            }
            return self.settle(book, "", Vec::new()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_registry::ToolSummary;

    use super::*;

    fn agent(at: usize, tools: usize) -> AgentSummary {
        let tool = |at: usize| ToolSummary {
            name: format!("tool-{at}"),
            description: "x".repeat(100),
        };
        AgentSummary {
            tools: (0..tools).map(tool).collect(),
            tools_total: u32::try_from(tools).unwrap(),
            ..AgentSummary::starting(format!("agent-{at}").parse().unwrap())
        }
    }

    #[test]
    fn what_is_said_of_many_agents_with_many_tools_is_made_to_fit() {
        let limits = Limits::default();
        let few: Vec<AgentSummary> = (0..3).map(|at| agent(at, 10)).collect();
        let said = fitted(vec![1; 700], few.clone(), &limits);
        let whole: Vec<Vec<u8>> = few.iter().map(AgentSummary::encode).collect();
        assert!(said[1..].iter().map(|(_, value)| value).eq(&whole));
        let many: Vec<AgentSummary> = (0..600).map(|at| agent(at, 20)).collect();
        let said = fitted(vec![1; 700], many, &limits);
        assert_eq!(said.len(), limits.entries);
        assert!(said.iter().map(|(_, value)| value.len()).sum::<usize>() < limits.owner_bytes);
        let read = AgentSummary::decode(&said[1].1).unwrap();
        assert!(read.tools_total == 20 && read.tools.len() < 20);
        let mut mixed: Vec<AgentSummary> = (0..80).map(|at| agent(at, 32)).collect();
        mixed.push(agent(80, 3));
        let said = fitted(vec![1; 700], mixed.clone(), &limits);
        assert_eq!(said.len(), 82);
        assert_eq!(said[81].1, mixed[80].encode(), "who has few tools tells all of them");
        let mut long = agent(1, 1);
        long.title = "x".repeat(MAX_VALUE_BYTES);
        let said = fitted(vec![1; 700], vec![long, agent(2, 1)], &limits);
        assert_eq!(said[1].0, Key::Agent("agent-2".parse().unwrap()));
    }

    #[test]
    fn a_node_whose_agents_change_all_the_time_says_so_less_often_than_others_take_it() {
        let most = Limits::default().heads_a_minute;
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let (mut now, mut said) = (begun, Vec::new());
        while now < begun + Duration::from_secs(300) {
            now = now.max(budget.ready()) + Duration::from_millis(30);
            budget.spend(now);
            said.push(now - begun);
        }
        let minute = Duration::from_secs(60);
        for (at, first) in said.iter().enumerate() {
            let within = said[at..].iter().take_while(|later| **later < *first + minute).count();
            // Each time the node may sign twice: what it is, and what it has.
            assert!(within < most as usize, "{within} in the minute from {first:?}");
        }
        assert!(said.len() > 200);
    }
}
