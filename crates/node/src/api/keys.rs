//! `/api/keys`: shared keys, this node's static key, and pins. No secret leaves through it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use data_encoding::{BASE64, HEXLOWER};
use dawn_channel::{KeyId, StaticPublic};
use dawn_identity::{NodeId, NodeRef};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::error::ApiError;
use crate::config::SHORTEST_LIFETIME;
use crate::directory::NodeView;
use crate::exchange::Progress;
use crate::keyring::{Held, KeyState, Origin};
use crate::members::now;
use crate::node::NodeState;
use crate::store::PinRow;
use crate::time::rfc3339;

fn hex(key: &StaticPublic) -> String {
    HEXLOWER.encode(key.as_bytes())
}

fn named(state: &NodeState, node: NodeId) -> Value {
    json!({ "id": node, "name": state.directory.name_of(node) })
}

fn find(state: &NodeState, node: &str) -> Result<NodeView, ApiError> {
    let reference: NodeRef = node
        .parse()
        .map_err(|error| ApiError::bad_request(format!("{node:?} is neither a node's name nor its id ({error})")))?;
    Ok(state.directory.find(&reference)?)
}

/// A node that is not this one.
fn other(state: &NodeState, node: &str) -> Result<NodeView, ApiError> {
    let view = find(state, node)?;
    if view.said.node == state.node_id() {
        return Err(ApiError::bad_request("a node shares no key with itself, and needs no pin").next("dawn peers"));
    }
    Ok(view)
}

/// What a key is about: a key by its id, or all of a node.
enum Target {
    Key(Held),
    Node(NodeId),
}

fn target(state: &NodeState, text: &str) -> Result<Target, ApiError> {
    if let Ok(id) = text.parse::<KeyId>() {
        let held = state
            .keyring
            .get(id)
            .ok_or_else(|| no_key(format!("there is no key {id}")))?;
        return Ok(Target::Key(held));
    }
    // Of a node that is no member any more there may be keys still.
    if let Ok(node) = text.parse::<NodeId>()
        && (state.exchange.is_wanted(node) || !state.keyring.of(node).is_empty())
    {
        return Ok(Target::Node(node));
    }
    Ok(Target::Node(find(state, text)?.said.node))
}

fn no_key(words: String) -> ApiError {
    ApiError::not_found("unknown_key", words).next("dawn keys list")
}

fn shown(state: &NodeState, held: &Held) -> Value {
    let at = held.state(now());
    let renews =
        (at == KeyState::Current && held.origin == Origin::Exchange).then(|| rfc3339(state.exchange.renews(&held.key)));
    json!({
        "id": held.key.id().to_string(),
        "node": named(state, held.key.peer()),
        "origin": held.origin.as_str(),
        "state": at.as_str(),
        "generation": held.key.generation(),
        "created": rfc3339(held.key.created()),
        "expires": rfc3339(held.key.expires()),
        "renews": renews,
    })
}

fn shown_pin(state: &NodeState, pin: &PinRow) -> Value {
    let violation = state.members.pins().violation(&pin.name);
    json!({
        "name": pin.name,
        "node": pin.node,
        "issuer": pin.issuer,
        "admitted": rfc3339(pin.admitted),
        "static_key": pin.static_key.as_ref().map(hex),
        "pinned": rfc3339(pin.pinned),
        "violation": violation.map(|violation| json!({
            "code": violation.code(), "node": violation.node(), "message": violation.to_string(),
        })),
    })
}

pub(super) async fn list(State(state): State<NodeState>) -> Json<Value> {
    let (made, rotates) = state.keys.age();
    let mut keys = state.keyring.all();
    keys.sort_by_key(|held| (held.key.peer(), std::cmp::Reverse(held.key.created())));
    let waiting = state.exchange.wishes().into_iter().map(|(row, progress)| {
        let error = match &progress {
            Progress::Waiting(error) => error.as_ref(),
            _ => None,
        };
        json!({
            "node": named(&state, row.peer),
            "since": rfc3339(row.since),
            "renews": row.former.map(|id| id.to_string()),
            "state": if progress == Progress::Asked { "asked" } else { "waiting" },
            "code": error.map(crate::exchange::ExchangeFailure::code),
            "reason": error.map(ToString::to_string),
        })
    });
    let requests = state.exchange.asked().into_iter().map(|asked| {
        json!({ "node": named(&state, asked.peer), "since": rfc3339(asked.since), "expires": rfc3339(asked.expires) })
    });
    let pins = state.members.pins().all();
    Json(json!({
        "static_key": {
            "public": hex(&state.keys.party().key().public()),
            "made": rfc3339(made),
            "rotates": rfc3339(rotates),
            "former": state.keys.parties().len() - 1,
        },
        "keys": keys.iter().map(|held| shown(&state, held)).collect::<Vec<_>>(),
        "waiting": waiting.collect::<Vec<_>>(),
        "requests": requests.collect::<Vec<_>>(),
        "pins": pins.iter().map(|pin| shown_pin(&state, pin)).collect::<Vec<_>>(),
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    lifetime_s: Option<u64>,
}

fn lifetime(state: &NodeState, seconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    let longest = state.exchange.longest();
    match seconds.map(Duration::from_secs) {
        Some(wanted) if wanted < SHORTEST_LIFETIME => Err(ApiError::bad_request(format!(
            "a key lives for {} at least",
            humantime::format_duration(SHORTEST_LIFETIME)
        ))),
        Some(wanted) if wanted > longest => Err(ApiError::bad_request(format!(
            "a key lives for {} at most here (longest in [keys])",
            humantime::format_duration(longest)
        ))),
        wanted => Ok(wanted),
    }
}

fn outcome(state: &NodeState, node: NodeId, progress: Progress) -> Result<Json<Value>, ApiError> {
    let node = named(state, node);
    Ok(Json(match progress {
        Progress::Agreed(id) => {
            let key = state.keyring.get(id).map(|held| shown(state, &held));
            json!({ "node": node, "state": "agreed", "key": key })
        }
        Progress::Asked => json!({ "node": node, "state": "asked" }),
        Progress::Waiting(error) => json!({
            "node": node,
            "state": "waiting",
            "code": error.as_ref().map(crate::exchange::ExchangeFailure::code),
            "reason": error.map(|error| error.to_string()),
        }),
        Progress::Failed(error) => {
            let next = "`dawn keys exchange NODE` begins afresh, where the other node's owner wants it too";
            return Err(ApiError::new(StatusCode::CONFLICT, error.code(), error.to_string()).next(next));
        }
    }))
}

pub(super) async fn exchange(
    State(state): State<NodeState>,
    Path(node): Path<String>,
    body: Option<Json<Wanted>>,
) -> Result<Json<Value>, ApiError> {
    let node = other(&state, &node)?.said.node;
    let lifetime = lifetime(&state, body.and_then(|Json(wanted)| wanted.lifetime_s))?;
    let progress = state.exchange.exchange(node, lifetime, None).await?;
    outcome(&state, node, progress)
}

pub(super) async fn rotate(State(state): State<NodeState>, Path(text): Path<String>) -> Result<Json<Value>, ApiError> {
    let held = match target(&state, &text)? {
        Target::Key(held) if held.state(now()) != KeyState::Current => {
            let words = format!(
                "key {} is {} and is not renewed",
                held.key.id(),
                held.state(now()).as_str()
            );
            return Err(ApiError::new(StatusCode::CONFLICT, "not_current", words).next("dawn keys list"));
        }
        Target::Key(held) => held,
        Target::Node(node) if node == state.node_id() => {
            state.keys.rotate().await?;
            let (_, rotates) = state.keys.age();
            let public = hex(&state.keys.party().key().public());
            return Ok(Json(
                json!({ "state": "rotated", "static_key": { "public": public, "rotates": rfc3339(rotates) } }),
            ));
        }
        Target::Node(node) => state.keyring.current(node, now()).ok_or_else(|| {
            no_key(format!("no key is shared with {text}")).next(format!("dawn keys exchange {text}"))
        })?,
    };
    let peer = held.key.peer();
    // A key that a person gave is renewed by one that lives as long as any.
    let lifetime = (held.origin == Origin::Exchange).then(|| held.lifetime());
    let progress = state.exchange.exchange(peer, lifetime, Some(held.key.id())).await?;
    outcome(&state, peer, progress)
}

pub(super) async fn revoke(State(state): State<NodeState>, Path(text): Path<String>) -> Result<Json<Value>, ApiError> {
    let (keys, peer, given_up) = match target(&state, &text)? {
        Target::Key(held) => {
            let peer = held.key.peer();
            (vec![held], peer, false)
        }
        // What is still to be agreed on with it is not, either.
        Target::Node(node) => (state.keyring.of(node), node, state.exchange.give_up(node).await?),
    };
    if keys.is_empty() && !given_up {
        return Err(no_key(format!("no key is shared with {text}")));
    }
    for held in &keys {
        state.exchange.revoke(held.key.id()).await?;
    }
    let connected = state.mesh.peers().iter().any(|connected| connected.node == peer);
    let revoked: Vec<String> = keys.iter().map(|held| held.key.id().to_string()).collect();
    Ok(Json(
        json!({ "node": named(&state, peer), "revoked": revoked, "given_up": given_up, "online": connected }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreShared {
    secret: String,
    #[serde(default)]
    lifetime_s: Option<u64>,
}

pub(super) async fn add(
    State(state): State<NodeState>,
    Path(node): Path<String>,
    Json(body): Json<PreShared>,
) -> Result<Json<Value>, ApiError> {
    let node = other(&state, &node)?.said.node;
    let text = Zeroizing::new(body.secret);
    let secret = BASE64
        .decode(text.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| ApiError::bad_request("the secret is not written in base64"))?;
    let key = state
        .exchange
        .add_pre_shared(node, &secret, lifetime(&state, body.lifetime_s)?)
        .await?;
    let held = state.keyring.get(key.id());
    Ok(Json(json!({ "key": held.map(|held| shown(&state, &held)) })))
}

fn answered(state: &NodeState, node: &str, may: bool) -> Result<StatusCode, ApiError> {
    let view = other(state, node)?;
    if state.exchange.answer(view.said.node, may) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("not_found", format!("{node} does not wait for a key")).next("dawn keys list"))
}

pub(super) async fn approve(State(state): State<NodeState>, Path(node): Path<String>) -> Result<StatusCode, ApiError> {
    answered(&state, &node, true)
}

pub(super) async fn deny(State(state): State<NodeState>, Path(node): Path<String>) -> Result<StatusCode, ApiError> {
    answered(&state, &node, false)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Pinning {
    static_key: bool,
}

pub(super) async fn pin(
    State(state): State<NodeState>,
    Path(node): Path<String>,
    body: Option<Json<Pinning>>,
) -> Result<Json<Value>, ApiError> {
    let view = other(&state, &node)?;
    let pinned = state.members.pins().all();
    let pinned = pinned.into_iter().find(|pin| pin.node == view.said.node);
    let static_key = if body.is_some_and(|Json(pinning)| pinning.static_key) {
        let bound = state.directory.shown_binding(view.said.node).ok_or_else(|| {
            let words = format!("the static key of {node} is not known, or its binding has expired");
            ApiError::new(StatusCode::CONFLICT, "no_binding", words).next("try again when it is online")
        })?;
        Some(bound.key)
    } else {
        // What is protected more is not protected less by being pinned again; `unpin` takes it away.
        pinned.and_then(|pin| pin.static_key)
    };
    let pin = state
        .members
        .pins()
        .pin(&view.said.membership, static_key, now())
        .await?;
    // Whoever has the name too, or another key, goes.
    state.members.recheck();
    state.directory.drop_revoked().await;
    Ok(Json(json!({ "pin": shown_pin(&state, &pin) })))
}

pub(super) async fn unpin(State(state): State<NodeState>, Path(node): Path<String>) -> Result<Json<Value>, ApiError> {
    let pins = state.members.pins();
    let mut all = pins.all();
    all.retain(|pin| pin.name.as_str() == node || pin.node.to_string() == node);
    let Some(pin) = all.pop() else {
        return Err(ApiError::not_found("unknown_pin", format!("{node} is not pinned")).next("dawn keys list"));
    };
    pins.unpin(&pin).await?;
    // What was refused until now may be heard.
    state.directory.meet_all();
    Ok(Json(json!({ "name": pin.name, "node": pin.node, "unpinned": true })))
}
