//! `/api/lock`: the network lock. Recovery secrets leave through it once, when they are made.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use dawn_identity::{Membership, NodeId, NodeRef};
use dawn_lock::{Change, Entry, Proposal, RecoverySecret};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::error::ApiError;
use crate::lock::{Beginning, Begun, LockError, Proposed};
use crate::node::NodeState;
use crate::time::rfc3339;

fn named(state: &NodeState, node: NodeId) -> Value {
    let name = state.members.name_of_any(node);
    json!({ "id": node, "name": name, "this": node == state.node_id() })
}

fn shown_change(state: &NodeState, change: &Change) -> Value {
    let mut shown = match *change {
        Change::Add(key) | Change::Remove(key) => json!({ "key": named(state, key) }),
        Change::Rotate { from, to } => json!({ "key": named(state, from), "to": named(state, to) }),
        Change::Quorum(quorum) => json!({ "quorum": quorum }),
        Change::Signatures(signatures) => json!({ "signatures": signatures }),
    };
    shown["verb"] = change.verb().into();
    shown
}

fn shown_votes(state: &NodeState, votes: &[(NodeId, dawn_identity::UnixTime)]) -> Vec<Value> {
    let shown = |(key, at): &(NodeId, _)| json!({ "key": named(state, *key), "at": rfc3339(*at) });
    votes.iter().map(shown).collect()
}

fn shown_proposal(state: &NodeState, proposal: &Proposal) -> Value {
    json!({
        "id": proposal.id.to_string(),
        "change": shown_change(state, &proposal.change),
        "votes": shown_votes(state, &proposal.votes),
        "needed": proposal.needed,
    })
}

fn shown_entry(state: &NodeState, entry: &Entry) -> Value {
    json!({
        "id": entry.id.to_string(),
        "generation": entry.generation,
        "height": entry.height,
        "change": entry.change.map(|change| shown_change(state, &change)),
        "votes": shown_votes(state, &entry.votes),
        "at": rfc3339(entry.at),
        "quorum": entry.state.quorum,
        "signatures": entry.state.signatures,
        "keys": entry.state.keys.iter().map(|key| named(state, *key)).collect::<Vec<_>>(),
    })
}

fn shown_member(state: &NodeState, membership: &Membership) -> Value {
    let issuer = membership.issuer;
    let plane = issuer.filter(|issuer| state.control.pinned() == Some(*issuer));
    json!({
        "id": membership.node,
        "name": membership.name,
        "roles": membership.roles.iter().map(|role| role.to_string()).collect::<Vec<_>>(),
        "admitted": rfc3339(membership.admitted_at),
        "issuer": issuer,
        "issuer_name": issuer.and_then(|issuer| state.members.name_of_any(issuer)),
        "control_plane": plane.and_then(|_| state.control.url()),
    })
}

pub(super) async fn status(State(state): State<NodeState>) -> Json<Value> {
    let network_lock = state.members.network_lock();
    let (lock, last, proposals, forks) =
        network_lock.read(|lock| (lock.state().cloned(), lock.last(), lock.proposals(), lock.forks()));
    let waiting = network_lock.kept_out().into_iter().map(|kept| {
        let mut shown = shown_member(&state, &kept.membership);
        shown["code"] = kept.why.code().into();
        shown["reason"] = state.members.lock_words(&kept.why).into();
        shown["since"] = rfc3339(kept.since).into();
        shown["seen"] = rfc3339(kept.seen).into();
        shown
    });
    let forks = forks.into_iter().map(|fork| {
        json!({
            "parent": fork.parent.to_string(),
            "kept": fork.kept.to_string(),
            "lost": fork.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "twice": fork.twice.iter().map(|key| named(&state, *key)).collect::<Vec<_>>(),
        })
    });
    let refused = network_lock
        .refused()
        .into_iter()
        .map(|(code, count)| (code.to_owned(), count.into()));
    Json(json!({
        "begun": lock.is_some(),
        "on": network_lock.is_on(),
        "generation": lock.as_ref().map(|lock| lock.generation),
        "height": lock.as_ref().map(|lock| lock.height),
        "quorum": lock.as_ref().map(|lock| lock.quorum),
        "signatures": lock.as_ref().map(|lock| lock.signatures),
        "last": last.map(|id| id.to_string()),
        "keys": network_lock.keys().into_iter().map(|key| named(&state, key)).collect::<Vec<_>>(),
        "holds_key": network_lock.holds_key(),
        "waiting": waiting.collect::<Vec<_>>(),
        "proposals": proposals.iter().map(|proposal| shown_proposal(&state, proposal)).collect::<Vec<_>>(),
        "forks": forks.collect::<Vec<_>>(),
        "refused": refused.collect::<serde_json::Map<String, Value>>(),
        "not_member_because": state.members.standing().err(),
    }))
}

pub(super) async fn log(State(state): State<NodeState>) -> Json<Value> {
    let log = state.members.network_lock().read(dawn_lock::Lock::log);
    Json(json!({ "log": log.iter().map(|entry| shown_entry(&state, entry)).collect::<Vec<_>>() }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Without {
    without: Option<String>,
}

/// Members, and whether the lock would still admit each of them without a certain key.
pub(super) async fn members(
    State(state): State<NodeState>,
    Query(wanted): Query<Without>,
) -> Result<Json<Value>, ApiError> {
    let without = wanted.without.map(|key| key_of(&state, &key)).transpose()?;
    let certified = certified(&state).await?;
    let shown = state.members.network_lock().read(|lock| {
        let after = lock.state().map(|present| {
            let mut after = present.clone();
            without.map(|key| after.keys.remove(&key));
            after
        });
        let admitted = |membership: &Membership| after.as_ref().is_none_or(|after| lock.admits_at(after, membership));
        let shown = certified.iter().map(|membership| {
            let mut shown = shown_member(&state, membership);
            shown["admitted_now"] = lock.admits(membership).is_ok().into();
            shown["admitted_then"] = admitted(membership).into();
            shown
        });
        shown.collect::<Vec<_>>()
    });
    Ok(Json(json!({ "members": shown })))
}

async fn certified(state: &NodeState) -> Result<Vec<Membership>, ApiError> {
    let mut all = state.members.certified().await?;
    let kept_out = state.members.network_lock().kept_out();
    all.extend(kept_out.into_iter().map(|kept| kept.membership));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|membership| seen.insert(membership.node));
    Ok(all)
}

/// The member that a name or an id stands for, whether the lock admits it or not.
fn member_of(certified: &[Membership], text: &str) -> Result<Membership, ApiError> {
    let reference = reference(text)?;
    let mut found = certified.iter().filter(|membership| match &reference {
        NodeRef::Id(id) => membership.node == *id,
        NodeRef::Name(name) => membership.name == *name,
        NodeRef::Any => false,
    });
    match (found.next(), found.next()) {
        (Some(membership), None) => Ok(membership.clone()),
        (None, _) => {
            let words = format!("no member {text} is known here, nor does one wait");
            Err(ApiError::not_found("unknown_node", words).next("dawn lock status"))
        }
        (Some(_), Some(_)) => {
            let words = format!("several nodes are called {text}; name the one by its id");
            Err(ApiError::new(StatusCode::CONFLICT, "ambiguous", words).next("dawn lock status"))
        }
    }
}

fn members_of(certified: &[Membership], texts: &[String]) -> Result<Vec<Membership>, ApiError> {
    texts.iter().map(|text| member_of(certified, text)).collect()
}

fn reference(text: &str) -> Result<NodeRef, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad_request(format!("{text:?} is neither a node's name nor its id ({error})")))
}

/// The key that a name or an id stands for; an id need not be a member's.
fn key_of(state: &NodeState, text: &str) -> Result<NodeId, ApiError> {
    match reference(text)? {
        NodeRef::Id(id) => Ok(id),
        _ if text == state.node_name().as_str() => Ok(state.node_id()),
        _ => {
            let keys = state.members.network_lock().keys();
            let mut named = keys
                .into_iter()
                .filter(|key| state.members.name_of(*key).is_some_and(|name| name.as_str() == text));
            match (named.next(), named.next()) {
                (Some(key), None) => Ok(key),
                _ => Ok(state.directory.find(&reference(text)?)?.said.node),
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    quorum: Option<u8>,
    #[serde(default)]
    signatures: Option<u8>,
    #[serde(default)]
    secrets: Option<usize>,
    /// The members that this node signs for.
    #[serde(default)]
    sign: Vec<String>,
    /// Recovery secrets, to begin anew with.
    #[serde(default)]
    with: Vec<String>,
    /// Whether the lock is switched off.
    #[serde(default)]
    off: bool,
}

async fn beginning(state: &NodeState, wanted: &Wanted) -> Result<Beginning, ApiError> {
    const SECRETS: usize = 3;
    let keys: Result<_, ApiError> = wanted.keys.iter().map(|key| key_of(state, key)).collect();
    Ok(Beginning {
        keys: keys?,
        quorum: wanted.quorum,
        signatures: wanted.signatures,
        secrets: wanted.secrets.unwrap_or(SECRETS),
        members: members_of(&certified(state).await?, &wanted.sign)?,
    })
}

fn shown_beginning(begun: &Begun) -> Value {
    let secrets = begun.secrets.iter().map(|secret| secret.to_text().to_string());
    json!({ "secrets": secrets.collect::<Vec<_>>(), "signed": begun.signed })
}

pub(super) async fn begin(State(state): State<NodeState>, Json(wanted): Json<Wanted>) -> Result<Json<Value>, ApiError> {
    let mut beginning = beginning(&state, &wanted).await?;
    beginning.keys.insert(state.node_id());
    let begun = state.members.network_lock().begin(beginning).await?;
    Ok(Json(shown_beginning(&begun)))
}

pub(super) async fn recover(
    State(state): State<NodeState>,
    Json(mut wanted): Json<Wanted>,
) -> Result<Json<Value>, ApiError> {
    let with: Vec<Zeroizing<String>> = wanted.with.drain(..).map(Zeroizing::new).collect();
    let secrets: Result<Vec<RecoverySecret>, _> = with.iter().map(|text| text.parse()).collect();
    let secrets = secrets.map_err(|error: dawn_lock::ParseSecretError| {
        ApiError::new(StatusCode::BAD_REQUEST, "lock_secret_malformed", error.to_string())
            .next("copy it once more from the paper on which it was written down")
    })?;
    let beginning = beginning(&state, &wanted).await?;
    if wanted.off != beginning.keys.is_empty() {
        let words = "name the keys of the new lock, or switch it off, and not both";
        return Err(ApiError::bad_request(words).next("dawn lock recover --key NODE, or --off"));
    }
    let begun = state.members.network_lock().recover(&secrets, beginning).await?;
    Ok(Json(shown_beginning(&begun)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signing {
    node: String,
    /// For whomever it admits, and not for itself.
    #[serde(default)]
    issuer: bool,
    /// What was signed for an issuer is taken back.
    #[serde(default)]
    withdraw: bool,
}

pub(super) async fn sign(State(state): State<NodeState>, Json(wanted): Json<Signing>) -> Result<Json<Value>, ApiError> {
    let member = member_of(&certified(&state).await?, &wanted.node)?;
    let network_lock = state.members.network_lock();
    if wanted.withdraw && !wanted.issuer {
        let words = "a signature for a member is not taken back: put the member out, or remove the key";
        return Err(ApiError::bad_request(words).next("dawn peers revoke NODE"));
    }
    if wanted.issuer {
        if !member.roles.may_admit() {
            let words = format!("{} may not admit anybody", member.name);
            return Err(
                ApiError::new(StatusCode::CONFLICT, "not_an_admin", words).next("dawn lock sign, without --issuer")
            );
        }
        network_lock.sign_issuer(member.node, wanted.withdraw).await?;
    } else {
        network_lock.sign(std::slice::from_ref(&member)).await?;
    }
    let admitted = network_lock.read(|lock| lock.admits(&member)).is_ok();
    let shown = json!({
        "node": shown_member(&state, &member),
        "issuer": wanted.issuer,
        "withdrawn": wanted.withdraw,
        "admitted": admitted,
    });
    Ok(Json(shown))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changing {
    verb: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    quorum: Option<u8>,
    #[serde(default)]
    signatures: Option<u8>,
    /// The members that this node signs for, too.
    #[serde(default)]
    sign: Vec<String>,
}

fn change_of(state: &NodeState, wanted: &Changing) -> Result<Change, ApiError> {
    let key = |text: &Option<String>| text.as_deref().map(|text| key_of(state, text)).transpose();
    let numbers = (wanted.quorum, wanted.signatures);
    match (wanted.verb.as_str(), key(&wanted.key)?, key(&wanted.to)?, numbers) {
        ("add", Some(key), None, (None, None)) => Ok(Change::Add(key)),
        ("remove", Some(key), None, (None, None)) => Ok(Change::Remove(key)),
        ("rotate", Some(from), Some(to), (None, None)) => Ok(Change::Rotate { from, to }),
        ("quorum", None, None, (Some(quorum), None)) => Ok(Change::Quorum(quorum)),
        ("signatures", None, None, (None, Some(signatures))) => Ok(Change::Signatures(signatures)),
        _ => Err(ApiError::bad_request(
            "a change is add or remove with a key, rotate with a key and another one, quorum or signatures with a number",
        )),
    }
}

fn shown_outcome(state: &NodeState, proposed: &Proposed, signed: &[Membership]) -> Value {
    json!({
        "proposal": shown_proposal(state, &proposed.proposal),
        "made": proposed.is_made,
        "signed": signed.iter().map(|membership| membership.node).collect::<Vec<_>>(),
    })
}

pub(super) async fn change(
    State(state): State<NodeState>,
    Json(wanted): Json<Changing>,
) -> Result<Json<Value>, ApiError> {
    let change = change_of(&state, &wanted)?;
    let members = members_of(&certified(&state).await?, &wanted.sign)?;
    let proposed = state.members.network_lock().propose(change, &members).await?;
    Ok(Json(shown_outcome(&state, &proposed, &members)))
}

pub(super) async fn approve(State(state): State<NodeState>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let network_lock = state.members.network_lock();
    let proposal = network_lock
        .proposal(&id)
        .map_err(|error: LockError| crate::error::NodeError::from(error))?;
    let proposed = network_lock.propose(proposal.change, &[]).await?;
    Ok(Json(shown_outcome(&state, &proposed, &[])))
}
