//! `/api/registry`: what is known of every node, what happened, and what a member says differently.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Query, State};
use dawn_identity::{NodeId, NodeRef, UnixTime};
use dawn_mcp::fault::Fault;
use dawn_registry::delta::{Element, Key};
use dawn_registry::log::{Entry, What};
use dawn_registry::{AgentSummary, NodeElement, log};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::directory::{DIFF, EntryLine, HeadLine, Held, Lines, NodeView};
use crate::members::now;
use crate::node::NodeState;
use crate::time::rfc3339;

/// Most entries of the log in an answer.
const MOST: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Only {
    node: Option<String>,
}

fn reference(node: &str) -> Result<NodeRef, ApiError> {
    node.parse()
        .map_err(|error| ApiError::bad_request(format!("{node:?} is neither a node's name nor its id ({error})")))
}

/// The node that is meant, also one of which all has expired.
pub(super) fn find(state: &NodeState, node: &str) -> Result<NodeId, ApiError> {
    Ok(state.directory.find_any(&reference(node)?)?)
}

fn named(state: &NodeState, node: NodeId) -> Value {
    json!({ "id": node, "name": state.directory.name_of(node) })
}

fn dot(dot: (u64, u64)) -> Value {
    json!({ "epoch": dot.0, "sequence": dot.1 })
}

fn head(head: &HeadLine) -> Value {
    json!({
        "id": head.id,
        "clock": {
            "floor": head.floor,
            "incarnations": head.incarnations.iter().copied().map(dot).collect::<Vec<_>>(),
        },
        "signed": rfc3339(UnixTime(head.signed)),
        "expires": rfc3339(UnixTime(head.expires)),
    })
}

/// What an element says, where this version can read it.
fn value(element: &Element) -> Value {
    let bytes = element.value.bytes();
    match &element.key {
        Key::Node => NodeElement::decode(bytes).map_or(Value::Null, |node| {
            json!({
                "name": node.name,
                "software": node.software,
                "addresses": node.addresses,
                "certificate_bytes": node.chain.len(),
                "binding": !node.binding.is_empty(),
            })
        }),
        Key::Agent(_) => AgentSummary::decode(bytes).map_or(Value::Null, |agent| {
            let eras = [("legacy", agent.legacy), ("modern", agent.modern)];
            let eras = eras.into_iter().filter_map(|(era, speaks)| speaks.then_some(era));
            json!({
                "name": agent.name,
                "title": agent.title,
                "version": agent.version,
                "state": agent.state,
                "eras": eras.collect::<Vec<_>>(),
                "tools": agent.tools_total,
                "resources": agent.resources,
                "prompts": agent.prompts,
                "tool_names": agent.tools.iter().map(|tool| &tool.name).collect::<Vec<_>>(),
            })
        }),
    }
}

fn shown(state: &NodeState, held: &Held, nodes: &[NodeView], at: UnixTime) -> Value {
    let view = nodes.iter().find(|view| view.said.node == held.node);
    let entry = |element: &Element| {
        let line = EntryLine::from(element);
        json!({
            "key": line.key,
            "dot": dot(line.dot),
            "hash": line.hash,
            "bytes": element.value.bytes().len(),
            "value": value(element),
        })
    };
    json!({
        "id": held.node,
        "name": state.directory.name_of(held.node),
        "this": held.node == state.node_id(),
        "online": view.is_some_and(|view| view.online),
        "expired": held.heads.iter().all(|head| head.expires() <= at),
        "heads": held.heads.iter().map(|known| head(&HeadLine::from(known))).collect::<Vec<_>>(),
        "entries": held.elements.iter().map(entry).collect::<Vec<_>>(),
    })
}

pub(super) async fn dump(State(state): State<NodeState>, Query(only): Query<Only>) -> Result<Json<Value>, ApiError> {
    let only = only.node.map(|node| find(&state, &node)).transpose()?;
    let mut held = state.directory.held(only).await;
    let elements = held.iter().flat_map(|held| &held.elements);
    let bytes: usize = elements.map(|element| element.value.bytes().len()).sum();
    held.sort_by_cached_key(|held| (state.directory.name_of(held.node), held.node));
    let (nodes, at) = (state.directory.nodes(), now());
    let shown: Vec<Value> = held.iter().map(|held| shown(&state, held, &nodes, at)).collect();
    Ok(Json(json!({
        "node": named(&state, state.node_id()),
        "epoch": state.directory.epoch(),
        "bytes": bytes,
        "memory_bytes": state.directory.bytes(),
        "nodes": shown,
    })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    limit: Option<usize>,
    before: Option<u64>,
    node: Option<String>,
    kind: Option<String>,
}

fn kind(entry: &Entry) -> &str {
    match &entry.what {
        What::Event { kind, .. } => kind,
        What::Compacted { .. } => "log.compacted",
    }
}

/// The names of nodes as the log tells them, of each the last: also of those that are gone.
fn names(entries: &[Entry]) -> BTreeMap<NodeId, String> {
    let named = entries.iter().filter_map(|entry| match &entry.what {
        What::Event { kind, content } if kind.starts_with("node.") => {
            let content: Value = serde_json::from_slice(content).ok()?;
            Some((entry.who, content["name"].as_str()?.to_owned()))
        }
        What::Event { .. } | What::Compacted { .. } => None,
    });
    named.collect()
}

/// The nodes of the log that are meant, whether or not they are members still.
fn meant(node: &NodeRef, entries: &[Entry], names: &BTreeMap<NodeId, String>) -> BTreeSet<NodeId> {
    match node {
        NodeRef::Id(id) => entries.iter().map(|entry| entry.who).filter(|who| who == id).collect(),
        NodeRef::Name(name) => {
            let called = names.iter().filter(|(_, known)| *known == name.as_str());
            called.map(|(node, _)| *node).collect()
        }
        NodeRef::Any => BTreeSet::new(),
    }
}

fn logged(state: &NodeState, entry: &Entry, names: &BTreeMap<NodeId, String>) -> Value {
    let name = state.directory.name_of(entry.who);
    let name = name.or_else(|| names.get(&entry.who).cloned());
    let content = match &entry.what {
        What::Event { content, .. } => serde_json::from_slice(content).unwrap_or(Value::Null),
        What::Compacted { until, hash } => json!({ "until": until, "hash": hash.to_string() }),
    };
    json!({
        "number": entry.number,
        "at": rfc3339(entry.at),
        "who": { "id": entry.who, "name": name },
        "kind": kind(entry),
        "content": content,
        "hash": entry.hash().to_string(),
        "previous": entry.previous.to_string(),
    })
}

pub(super) async fn log(State(state): State<NodeState>, Query(wanted): Query<Wanted>) -> Result<Json<Value>, ApiError> {
    let limit = wanted.limit.unwrap_or(100);
    if !(1..=MOST).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit is from 1 to {MOST}")));
    }
    let entries = state.directory.log().await?;
    let names = names(&entries);
    let who = match &wanted.node {
        None => None,
        Some(node) => {
            let mut who = meant(&reference(node)?, &entries, &names);
            match find(&state, node) {
                Ok(found) => drop(who.insert(found)),
                Err(unknown) if who.is_empty() => return Err(unknown),
                Err(_) => {}
            }
            Some(who)
        }
    };
    // Of what nobody touched the end is known without a look; of the rest it is the last that is there.
    let whole = log::verify(&entries);
    let broken = whole.err().map(|error| error.to_string());
    let is_wanted = |entry: &&Entry| {
        wanted.before.is_none_or(|before| entry.number < before)
            && who.as_ref().is_none_or(|who| who.contains(&entry.who))
            && wanted
                .kind
                .as_ref()
                .is_none_or(|prefix| kind(entry).starts_with(prefix))
    };
    let mut newest: Vec<Value> = entries
        .iter()
        .rev()
        .filter(is_wanted)
        .take(limit)
        .map(|entry| logged(&state, entry, &names))
        .collect();
    newest.reverse();
    let end = entries.last().map(log::Chain::after).unwrap_or_default();
    Ok(Json(json!({
        "entries": newest,
        "first": entries.first().map(|entry| entry.number),
        "length": end.length(),
        "last": end.last().to_string(),
        "whole": broken.is_none(),
        "broken": broken,
    })))
}

/// The entries that are not the same on both sides.
fn differing(here: &Lines, there: &Lines) -> Vec<Value> {
    let mut keys: Vec<&str> = here
        .entries
        .iter()
        .chain(&there.entries)
        .map(|line| line.key.as_str())
        .collect();
    // `node` comes after `agent:NAME` in the order of letters.
    keys.sort_by_key(|key| (*key != "node", *key));
    keys.dedup();
    let line = |lines: &Lines, key: &str| lines.entries.iter().rfind(|line| line.key == key).cloned();
    let shown = |line: EntryLine| json!({ "dot": dot(line.dot), "hash": line.hash });
    let differing = keys.into_iter().filter_map(|key| {
        let (here, there) = (line(here, key), line(there, key));
        (here != there).then(|| json!({ "key": key, "here": here.map(shown), "there": there.map(shown) }))
    });
    differing.collect()
}

pub(super) async fn diff(State(state): State<NodeState>, Query(only): Query<Only>) -> Result<Json<Value>, ApiError> {
    let node = only
        .node
        .ok_or_else(|| ApiError::bad_request("with which node? `?node=NAME`"))?;
    let with = find(&state, &node)?;
    if with == state.node_id() {
        return Err(ApiError::bad_request("a node does not differ from itself"));
    }
    let begun = std::time::Instant::now();
    let name = state.directory.name_of(with).and_then(|name| name.parse().ok());
    let name = name.map_or(NodeRef::Id(with), NodeRef::Name);
    let opening = state.mesh.open(with, DIFF);
    let stream = state.router.reach(with, &name, opening).await?;
    let compared = state.directory.compare(stream).await;
    let compared = compared.map_err(|fault| Fault::new(fault.code, format!("node {name}: {}", fault.message)))?;
    let differences: Vec<Value> = compared
        .differences
        .iter()
        .map(|difference| {
            json!({
                "id": difference.node,
                "name": state.directory.name_of(difference.node),
                "what": difference.how,
                "here": difference.here.heads.iter().map(head).collect::<Vec<_>>(),
                "there": difference.there.heads.iter().map(head).collect::<Vec<_>>(),
                "entries": differing(&difference.here, &difference.there),
            })
        })
        .collect();
    Ok(Json(json!({
        "node": named(&state, state.node_id()),
        "with": named(&state, with),
        "same": differences.is_empty(),
        "heads": { "here": compared.heads.0, "there": compared.heads.1 },
        "duration_ms": (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        "differences": differences,
        "more": compared.more,
    })))
}

#[cfg(test)]
mod tests {
    use dawn_registry::log::Chain;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    #[test]
    fn the_log_knows_who_is_gone_by_name_and_by_id() {
        let mut chain = Chain::default();
        let mut entry = |who: u8, kind: &str, content: Value| {
            let what = What::Event {
                kind: kind.to_owned(),
                content: content.to_string().into_bytes(),
            };
            chain.append(UnixTime(1_800_000_000), node(who), what).unwrap()
        };
        let entries = [
            entry(1, "node.joined", json!({ "name": "lab" })),
            entry(1, "agent.added", json!({ "agent": "tools" })),
            entry(1, "node.left", json!({ "name": "lab", "reason": "revoked" })),
            entry(2, "node.joined", json!({ "name": "lab" })),
            entry(3, "node.joined", json!({ "name": "desk" })),
        ];
        let names = names(&entries);
        let meant = |text: &str| meant(&text.parse().unwrap(), &entries, &names);
        assert_eq!(meant("lab"), BTreeSet::from([node(1), node(2)]));
        assert_eq!(meant(&node(1).to_string()), BTreeSet::from([node(1)]));
        assert!(meant("shed").is_empty() && meant(&node(9).to_string()).is_empty());
    }
}
