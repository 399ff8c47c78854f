//! What tests ask of nodes about their registries: what they hold, what they tell as it happens, what they counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Events, Node, PATIENCE, eventually, http};

/// Of each node, by id, the ids of the heads that are held: where these are equal, everything is.
pub type Heads = BTreeMap<String, BTreeSet<String>>;

/// The heads in a dump.
#[must_use]
pub fn heads(dump: &Value) -> Heads {
    let nodes = dump["nodes"].as_array().expect("nodes").iter();
    let ids = |node: &Value| {
        let heads = node["heads"].as_array().expect("heads").iter();
        heads.map(|head| text(&head["id"])).collect()
    };
    nodes.map(|node| (text(&node["id"]), ids(node))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Node {
    /// Its id.
    pub async fn id(&self) -> String {
        text(&self.get("/api/status").await["node"]["id"])
    }

    /// Everything that its registry holds.
    pub async fn dump(&self) -> Value {
        self.get("/api/registry").await
    }

    /// What its registry holds of the node with this id; null if nothing.
    pub async fn holds_of(&self, id: &str) -> Value {
        let dump = self.dump().await;
        let nodes = dump["nodes"].as_array().expect("nodes");
        nodes.iter().find(|node| node["id"] == id).cloned().unwrap_or_default()
    }

    /// The names of the agents that its registry holds of the node with this id.
    pub async fn agents_of(&self, id: &str) -> BTreeSet<String> {
        agents(&self.holds_of(id).await)
    }

    /// Everything that it counted and measured, as `name{label}` and value.
    pub async fn metrics(&self) -> BTreeMap<String, u64> {
        let request = http().get(format!("{}/metrics", self.api())).bearer_auth(self.token());
        let text = request.send().await.expect("answered").text().await.expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        values.collect()
    }

    /// One of them, 0 where there is none yet.
    pub async fn metric(&self, name: &str) -> u64 {
        self.metrics().await.get(name).copied().unwrap_or_default()
    }

    /// What happens from now on, as `GET /api/events` tells it.
    pub async fn happenings(&self) -> Events {
        let request = http()
            .get(format!("{}/api/events", self.api()))
            .bearer_auth(self.token());
        Events::new(request.send().await.expect("answered"))
    }

    /// Waits until it shows nothing else than `other` does: both hold the same heads.
    pub async fn agrees_with(&self, other: &Self) {
        agree(&[self, other]).await;
    }
}

/// The names of the agents in what is held of a node.
#[must_use]
pub fn agents(held: &Value) -> BTreeSet<String> {
    let entries = held["entries"].as_array().into_iter().flatten();
    let names = entries.filter_map(|entry| entry["key"].as_str()?.strip_prefix("agent:"));
    names.map(str::to_owned).collect()
}

/// Waits until all nodes hold the same of everybody, and of each of them something; says how long that took.
pub async fn agree(nodes: &[&Node]) -> Duration {
    let begun = Instant::now();
    let mut ids = BTreeSet::new();
    for node in nodes {
        ids.insert(node.id().await);
    }
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        last = match difference(nodes, &ids).await {
            None => return begun.elapsed(),
            Some(difference) => difference,
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("after {PATIENCE:?} the nodes do not agree: {last}");
}

/// The first difference between what the nodes hold.
async fn difference(nodes: &[&Node], ids: &BTreeSet<String>) -> Option<String> {
    let (first, others) = nodes.split_first()?;
    let held = heads(&first.dump().await);
    if let Some(missing) = ids.iter().find(|id| !held.contains_key(*id)) {
        return Some(format!("{} knows nothing of {missing}", first.name));
    }
    for other in others {
        let theirs = heads(&other.dump().await);
        if theirs != held {
            let about = held
                .keys()
                .chain(theirs.keys())
                .find(|id| held.get(*id) != theirs.get(*id));
            return Some(format!(
                "{} and {} hold different things of {about:?}",
                first.name, other.name
            ));
        }
    }
    None
}

/// Waits until a node holds exactly these agents of the node with this id.
pub async fn holds(node: &Node, id: &str, wanted: &BTreeSet<String>) {
    let what = format!("{} holds {} agents of {id}", node.name, wanted.len());
    eventually(&what, async || node.agents_of(id).await == *wanted).await;
}
