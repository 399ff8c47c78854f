//! `/api/policy`: the version in force, what came before it, who has it, and how another one is put in force.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use dawn_identity::{Issuer, NodeId};
use dawn_mcp::router::Directory as _;
use dawn_policy::{Policy, SignedPolicy};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::node::NodeState;
use crate::time::rfc3339;

/// Who has a version is looked at this often.
const LOOK: Duration = Duration::from_millis(50);
/// The longest wait for others to have it.
const LONGEST: u64 = 60;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    version: Option<u64>,
    nodes: bool,
}

fn hex(hash: [u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(&hash)
}

fn shown(signed: &SignedPolicy) -> Value {
    let author = match signed.author() {
        Issuer::Network(_) => json!({ "id": null, "name": null, "network_key": true }),
        Issuer::Node(node) => json!({ "id": node, "name": signed.author_name(), "network_key": false }),
    };
    json!({
        "version": signed.version(),
        "author": author,
        "at": rfc3339(signed.at()),
        "hash": hex(signed.hash()),
        "previous": (signed.version() > 1).then(|| hex(signed.previous())),
    })
}

/// A version with its text and what is to be said of it.
fn whole(signed: &SignedPolicy) -> Value {
    let mut told = shown(signed);
    told["text"] = signed.text().into();
    told["findings"] = findings(signed.text());
    told
}

/// What a policy that was accepted says of itself.
fn findings(text: &str) -> Value {
    let Ok(policy) = Policy::parse(text) else {
        return Value::Null;
    };
    let (rules, tests) = policy.size();
    let shadowed = policy.check().shadowed;
    let shadowed = shadowed
        .iter()
        .map(|rule| json!({ "rule": rule.rule, "line": rule.line, "by": rule.by, "by_line": rule.by_line }));
    json!({ "rules": rules, "tests": tests, "shadowed": shadowed.collect::<Vec<_>>() })
}

/// Every member that is known, and what it has.
async fn nodes(state: &NodeState) -> Result<Vec<Value>, ApiError> {
    let known = state.policies.known();
    let mut members = state.members.known().await?;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let own = state
        .policies
        .with_log(|log| log.current().map_or(0, SignedPolicy::version));
    let shown = members.iter().map(|member| {
        let is_this = member.node == state.node_id();
        let said = if is_this {
            Some((own, true))
        } else {
            known.get(&member.node).copied()
        };
        json!({
            "id": member.node,
            "name": member.name,
            "this": is_this,
            "online": is_this || state.directory.presence(member.node).online,
            "version": said.map(|(version, _)| version),
            "current": said.is_some_and(|(_, is_current)| is_current),
        })
    });
    Ok(shown.collect())
}

/// Members that are there and have not said that they have what is in force.
fn behind(state: &NodeState, members: &[NodeId]) -> Vec<NodeId> {
    let known = state.policies.known();
    let lacks = |node: &&NodeId| {
        **node != state.node_id()
            && state.directory.presence(**node).online
            && !known.get(node).is_some_and(|(_, is_current)| *is_current)
    };
    members.iter().filter(lacks).copied().collect()
}

/// Waits until all members that are there have what is in force.
async fn wait_for_all(state: &NodeState, patience: Duration) -> Result<(), ApiError> {
    let members: Vec<NodeId> = state.members.known().await?.iter().map(|member| member.node).collect();
    state.policies.ask(behind(state, &members));
    let all = async {
        while !behind(state, &members).is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Who has it by then is told, and who has not.
    let _ = tokio::time::timeout(patience, all).await;
    Ok(())
}

pub(super) async fn show(State(state): State<NodeState>, Query(which): Query<Which>) -> Result<Json<Value>, ApiError> {
    let current = state.policies.with_log(|log| match which.version {
        Some(version) => log.versions().find(|signed| signed.version() == version).map(whole),
        None => log.current().map(whole),
    });
    if let (Some(version), None) = (which.version, &current) {
        let words = format!("version {version} of the policy is not known here");
        return Err(ApiError::not_found("not_found", words).next("dawn policy log"));
    }
    let mut told = json!({ "policy": current });
    if which.nodes {
        wait_for_all(&state, Duration::from_secs(2)).await?;
        told["nodes"] = nodes(&state).await?.into();
    }
    Ok(Json(told))
}

pub(super) async fn log(State(state): State<NodeState>) -> Json<Value> {
    state.policies.with_log(|log| {
        let versions: Vec<Value> = log.versions().rev().map(shown).collect();
        let document = data_encoding::BASE64URL_NOPAD.encode(&log.from_owners());
        Json(json!({ "versions": versions, "document": log.current().map(|_| document) }))
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    text: String,
    /// Seconds to wait for others to have it.
    #[serde(default = "patience")]
    wait_s: u64,
}

const fn patience() -> u64 {
    5
}

pub(super) async fn apply(State(state): State<NodeState>, Json(wanted): Json<Wanted>) -> Result<Json<Value>, ApiError> {
    let has = state.policies.has_signed(&wanted.text);
    let is_changed = has.is_none();
    let signed = match has {
        Some(signed) => signed,
        None => state.policies.apply(&wanted.text).await?,
    };
    wait_for_all(&state, Duration::from_secs(wanted.wait_s.min(LONGEST))).await?;
    Ok(Json(
        json!({ "policy": whole(&signed), "nodes": nodes(&state).await?, "changed": is_changed }),
    ))
}
