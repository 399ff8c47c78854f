//! Looking for what the registry does not tell.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{AgentAddress, AgentName, NodeId, NodeRef, UnixTime};
use dawn_kademlia::{Key, LookupId, Outcome, Provider};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Core, Lookup};
use crate::members::now;

/// A lookup takes no longer.
const LOOKUP: Duration = Duration::from_secs(10);
/// How long it may take until a member that was met has said what it is and has.
const LEARN: Duration = Duration::from_secs(5);
/// A call waits no longer for what it wants to be found.
const SEEK: Duration = Duration::from_secs(3);
/// Providers of one thing that are looked for, and those unknown ones of a question that are met because of it.
const PROVIDERS: usize = 8;
/// Words of one question that are looked for: the longest.
const WORDS: usize = 4;

/// A node that says that it provides what was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provides {
    /// Which.
    pub node: NodeId,
    /// Words of the question under which it was found.
    pub words: Vec<String>,
    /// When it said so last.
    pub said: UnixTime,
    /// Until when that counts.
    pub expires: UnixTime,
    /// Whether the registry knows it, at least by now.
    pub is_known: bool,
}

/// What came of looking through the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sought {
    /// Who provides it, by its own signed word: those that the registry knows first. Of a few others it is not known whether
    /// they are members.
    pub providers: Vec<Provides>,
    /// The members closest to what was looked for, which answered.
    pub answered: Vec<NodeId>,
    /// Those that were asked meanwhile and did not answer: what only they know is not among it.
    pub silent: Vec<NodeId>,
    /// How many members were asked, in all lookups.
    pub asked: u32,
    /// How many, one after the other, led to what was found: the most of any lookup.
    pub hops: u32,
    /// How long it took.
    pub took: Duration,
}

impl Lookup {
    /// One lookup, to its end or as far as it comes in time; nothing where too many are under way.
    async fn look(&self, begin: impl FnOnce(&mut Core, Duration) -> Option<LookupId>) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        let begun = self.change(|core, at| {
            let id = begin(core, at)?;
            core.waiting.insert(id, sender);
            Some(id)
        });
        let Some(id) = begun else {
            tracing::warn!("too many lookups are under way");
            return Outcome::default();
        };
        match timeout(LOOKUP, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => self.change(|core, _| {
                core.waiting.remove(&id);
                core.kademlia.give_up(id)
            }),
        }
    }

    async fn providers(&self, key: Key) -> Outcome {
        self.look(|core, at| core.kademlia.find_providers(key, PROVIDERS, at, now()))
            .await
    }

    /// Looks for nodes that have an agent, a tool, an address or a name of these words, and meets those that the registry
    /// does not know: of these only so many that most members told of, as anybody can make some up.
    pub async fn find(&self, words: &[String]) -> Sought {
        let begun = Instant::now();
        let mut words: Vec<&String> = words.iter().collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.truncate(WORDS);
        let lookups = words.iter().flat_map(|word| {
            let agent = word.parse::<AgentName>().ok().map(|name| Key::agent(&name));
            let keys = agent.into_iter().chain([Key::capability(word)]);
            keys.map(move |key| async move { (word.as_str(), self.providers(key).await) })
        });
        let outcomes = futures::future::join_all(lookups).await;
        let mut sought = Sought::default();
        let mut found: BTreeMap<NodeId, (usize, Provides)> = BTreeMap::new();
        for (word, outcome) in outcomes {
            sought.asked += outcome.asked;
            sought.hops = sought.hops.max(outcome.hops);
            sought.answered.extend(outcome.nodes.iter().map(|contact| contact.node));
            sought.silent.extend(&outcome.silent);
            for (rank, provider) in outcome.providers.iter().enumerate() {
                add(&mut found, word, rank, provider);
            }
        }
        sought.answered.sort_unstable();
        sought.answered.dedup();
        sought.silent.sort_unstable();
        sought.silent.dedup();
        sought
            .silent
            .retain(|node| sought.answered.binary_search(node).is_err() && self.0.directory.is_member(*node));
        let mut found: Vec<(usize, Provides)> = found.into_values().collect();
        found.sort_by_key(|(rank, _)| *rank);
        sought.providers = found.into_iter().map(|(_, provides)| provides).collect();
        self.meet_all(&mut sought.providers).await;
        // Who has most of what was asked for, then who said so last.
        sought
            .providers
            .sort_by_key(|provides| std::cmp::Reverse((provides.is_known, provides.words.len(), provides.said)));
        sought.took = begun.elapsed();
        sought
    }

    /// Meets the first of the providers of whom the registry does not know; the others of them are dropped.
    async fn meet_all(&self, providers: &mut Vec<Provides>) {
        let is_known = |node: NodeId| self.0.directory.addresses_of(node).is_some();
        let mut room = PROVIDERS;
        providers.retain_mut(|provides| {
            provides.is_known = is_known(provides.node);
            let stays = provides.is_known || room > 0;
            room = room.saturating_sub(usize::from(!provides.is_known));
            stays
        });
        let unknown = providers.iter().filter(|provides| !provides.is_known);
        let met = unknown.map(|provides| self.meet(provides.node));
        let _met: Vec<bool> = futures::future::join_all(met).await;
        for provides in providers {
            provides.is_known = is_known(provides.node);
        }
    }

    /// Looks for a node, connects to it and learns what it says of itself; whether that came to be. Who it is, and that it
    /// is a member, the handshake shows.
    pub async fn meet(&self, node: NodeId) -> bool {
        if node == self.0.key.node_id() {
            return true;
        }
        let meeting = async { self.reach(node).await && self.0.directory.learn(node).await };
        timeout(LEARN, meeting).await.unwrap_or(false)
    }

    /// Whether there is a way to a node, after it was looked for where there was none.
    async fn reach(&self, node: NodeId) -> bool {
        let is_there = || self.0.mesh.peers().iter().any(|peer| peer.node == node);
        if !is_there() {
            // It is the closest to itself: where others tell of it, it is asked, and with that connected.
            let key = Key::node(&node);
            let outcome = self.look(|core, at| core.kademlia.find_nodes(key, at)).await;
            tracing::debug!(%node, asked = outcome.asked, hops = outcome.hops, "a node was looked for");
        }
        is_there()
    }

    /// Looks for what an address means, because a call wants it and the registry does not know it, or not where it is;
    /// whether it is worth trying again. Of each address once in a while.
    pub(crate) async fn seek(&self, address: &AgentAddress) -> bool {
        if !self.0.sought.may_speak_of(address.to_string()) {
            return false;
        }
        let key = match &address.node {
            NodeRef::Any => Key::agent(&address.agent),
            NodeRef::Name(_) => Key::capability(&address.to_string()),
            NodeRef::Id(_) => return self.seek_node(&address.node).await,
        };
        if self.0.directory.find(&address.node).is_ok() {
            return self.seek_node(&address.node).await;
        }
        self.seek_providers(key).await
    }

    /// Looks for who provides something and meets them, those first that are likeliest to be real; whether any was met.
    async fn seek_providers(&self, key: Key) -> bool {
        let until = Instant::now() + SEEK;
        let Ok(outcome) = timeout_at(until, self.providers(key)).await else {
            return false;
        };
        let first = outcome.providers.iter().take(PROVIDERS);
        // Who cannot be met has no say in whether another was.
        let met = first.map(|provider| timeout_at(until, self.meet(provider.node)));
        futures::future::join_all(met).await.contains(&Ok(true))
    }

    /// Looks for a node, as [`seek`](Self::seek) does.
    pub(crate) async fn seek_node(&self, node: &NodeRef) -> bool {
        let known = self.0.directory.find(node).ok().map(|view| view.said);
        let seeking = async {
            match (known, node) {
                // Where it says that it is, the mesh has tried.
                (Some(said), _) if said.node == self.0.key.node_id() => false,
                (Some(said), _) => said.addresses.is_empty() && self.reach(said.node).await,
                (None, NodeRef::Id(id)) => self.meet(*id).await,
                (None, NodeRef::Name(name)) => self.seek_providers(Key::capability(name.as_str())).await,
                (None, NodeRef::Any) => false,
            }
        };
        timeout(SEEK, seeking).await.unwrap_or(false)
    }
}

/// Takes note of a provider of a word, and of its best rank in the lookups.
fn add(found: &mut BTreeMap<NodeId, (usize, Provides)>, word: &str, rank: usize, provider: &Provider) {
    let (best, provides) = found.entry(provider.node).or_insert_with(|| {
        let provides = Provides {
            node: provider.node,
            words: Vec::new(),
            said: provider.time,
            expires: provider.expires,
            is_known: false,
        };
        (rank, provides)
    });
    *best = rank.min(*best);
    provides.said = provides.said.max(provider.time);
    provides.expires = provides.expires.max(provider.expires);
    if !provides.words.iter().any(|known| known == word) {
        provides.words.push(word.to_owned());
    }
}
