//! `/api/mode`: with whom this node talks. `/api/migration`: how the network gets from one mode to another.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use dawn_identity::NodeRef;
use dawn_registry::{Mode, Place};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::config::{ModeConfig, Span};
use crate::error::NodeError;
use crate::migrate::journal::{Migration, Step};
use crate::modes::PlaceText;
use crate::node::NodeState;
use crate::time::rfc3339;

/// The longest time.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The mode.
    to: ModeConfig,
    /// The host, by name or id.
    host: Option<String>,
    /// The nodes, by name or id; none means all.
    #[serde(default)]
    nodes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Here {
    /// The mode.
    to: ModeConfig,
    /// The host, by name or id.
    host: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    /// The id of the migration, or how it begins.
    id: Option<String>,
    /// For how long who is away can still be told.
    expires: Option<Span>,
}

impl Which {
    fn lasts(&self) -> Option<Duration> {
        self.expires.map(|span| span.0.min(LONGEST))
    }
}

fn place(state: &NodeState, place: PlaceText) -> Value {
    let host = place
        .host
        .map(|host| json!({ "id": host, "name": state.directory.name_of(host) }));
    json!({ "mode": place.mode, "host": host })
}

fn step(state: &NodeState, step: &Step) -> Value {
    json!({
        "node": { "id": step.node, "name": step.name },
        "from": place(state, step.from),
        "to": place(state, step.to),
        "state": step.state,
        "online": step.node == state.node_id() || state.directory.is_online(step.node),
        "this": step.node == state.node_id(),
        "number": step.number,
        "why": step.why,
        "at": step.at.map(|at| rfc3339(dawn_identity::UnixTime(at))),
    })
}

/// Nodes that make invites to which strangers can come, when all of it is done.
fn inviters(state: &NodeState, migration: &Migration) -> Vec<String> {
    let goes = |step: &Step| if migration.back { step.from } else { step.to };
    let views = state.directory.nodes().into_iter();
    let inviting = views.filter(|view| {
        let node = view.said.node;
        let step = migration.steps.iter().find(|step| step.node == node);
        let place = step.and_then(|step| Place::try_from(goes(step)).ok());
        let place = place.unwrap_or_else(|| state.directory.place_of(node));
        view.said.membership.roles.may_admit() && place.behind(node).is_none()
    });
    inviting.map(|view| view.said.name.to_string()).collect()
}

fn shown(state: &NodeState, migration: &Migration) -> Value {
    let time = |at: u64| rfc3339(dawn_identity::UnixTime(at));
    json!({
        "id": migration.id,
        "to": place(state, migration.to),
        "state": migration.state,
        "back": migration.back,
        "created": time(migration.created),
        "expires": migration.expires.map(time),
        "counts": migration.counts(),
        "invites": inviters(state, migration),
        "control": state.control.url().is_some(),
        "replaced": migration.replaced,
        "steps": migration.steps.iter().map(|one| step(state, one)).collect::<Vec<_>>(),
    })
}

fn reference(node: &str) -> Result<NodeRef, ApiError> {
    node.parse()
        .map_err(|error| ApiError::bad_request(format!("{node:?} is neither a node's name nor its id ({error})")))
}

pub(super) async fn mode(State(state): State<NodeState>) -> Json<Value> {
    Json(state.modes.shown())
}

/// Changes the mode of this node alone, whatever others are in and whether or not it reaches anybody then.
pub(super) async fn set_mode(State(state): State<NodeState>, Json(here): Json<Here>) -> Result<Json<Value>, ApiError> {
    let mode = Mode::from(here.to);
    let host = match here.host.as_deref().filter(|_| mode != Mode::Decentralized) {
        Some(host) => Some(state.directory.find(&reference(host)?)?.said.node),
        None => None,
    };
    let missing = || NodeError::MigrationNeedsHost(mode.to_string());
    state.modes.set(Place::new(mode, host).ok_or_else(missing)?).await?;
    Ok(Json(state.modes.shown()))
}

pub(super) async fn status(State(state): State<NodeState>) -> Json<Value> {
    let migration = state.migrations.status();
    Json(json!({
        "mode": state.modes.shown(),
        "migration": migration.map(|migration| shown(&state, &migration)),
    }))
}

pub(super) async fn plan(State(state): State<NodeState>, Json(wanted): Json<Wanted>) -> Result<Json<Value>, ApiError> {
    let host = wanted.host.as_deref().map(reference).transpose()?;
    let nodes: Vec<NodeRef> = wanted
        .nodes
        .iter()
        .map(|node| reference(node))
        .collect::<Result<_, _>>()?;
    let planned = state
        .migrations
        .plan(Mode::from(wanted.to), host.as_ref(), &nodes)
        .await?;
    Ok(Json(shown(&state, &planned)))
}

pub(super) async fn apply(State(state): State<NodeState>, which: Option<Json<Which>>) -> Result<Json<Value>, ApiError> {
    let which = which.map(|Json(which)| which).unwrap_or_default();
    let migration = state.migrations.apply(which.id.as_deref(), which.lasts()).await?;
    Ok(Json(shown(&state, &migration)))
}

pub(super) async fn rollback(
    State(state): State<NodeState>,
    which: Option<Json<Which>>,
) -> Result<Json<Value>, ApiError> {
    let which = which.map(|Json(which)| which).unwrap_or_default();
    let migration = state.migrations.rollback(which.id.as_deref(), which.lasts()).await?;
    Ok(Json(shown(&state, &migration)))
}
