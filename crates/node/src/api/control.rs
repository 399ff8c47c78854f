//! `/api/control`: the control plane of this node.

use std::path::PathBuf;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use dawn_control_api::InviteCode;
use dawn_identity::NodeId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::config::ControlConfig;
use crate::control::ControlError;
use crate::control::looking::is_ending;
use crate::node::NodeState;
use crate::time::rfc3339;

/// How long an issuer's certificate is valid where it is not said.
const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// The longest that may be said.
const LONGEST: Duration = Duration::from_secs(5 * 365 * 86_400);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plane {
    url: String,
    ca: Option<PathBuf>,
    issuer: Option<NodeId>,
    #[serde(default)]
    insecure: bool,
}

impl From<Plane> for ControlConfig {
    fn from(plane: Plane) -> Self {
        Self {
            url: plane.url,
            ca: plane.ca,
            issuer: plane.issuer,
            insecure: plane.insecure,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    plane: Plane,
    invite: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authorise {
    issuer: NodeId,
    plane: Option<Plane>,
    valid_s: Option<u64>,
}

fn error(error: &ControlError) -> Value {
    json!({ "code": error.code(), "message": error.to_string(), "next": error.next() })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Show {
    /// Whether it is asked first if it answers.
    ask: bool,
}

pub(super) async fn show(State(state): State<NodeState>, Query(wanted): Query<Show>) -> Result<Json<Value>, ApiError> {
    let control = &state.control;
    if wanted.ask {
        control.ask().await;
    }
    let (Some(standing), Some(config)) = (control.standing(), control.config()) else {
        return Ok(Json(json!({ "url": null })));
    };
    let devices: Vec<Value> = control
        .devices()
        .await?
        .iter()
        .map(|row| {
            json!({
                "node": row.node,
                "name": row.name,
                "state": row.state,
                "role": row.role,
                "presence": row.presence,
                "since": rfc3339(row.since),
                "this": row.node == state.node_id(),
            })
        })
        .collect();
    let relays: Vec<Value> = standing
        .relays
        .relays
        .iter()
        .map(|relay| json!({ "node": relay.node, "addresses": relay.addresses }))
        .collect();
    Ok(Json(json!({
        "url": control.url(),
        "issuer": control.pinned(),
        "ca": config.ca,
        "insecure": config.insecure,
        "state": standing.state,
        "reachable": standing.reachable,
        "last_beat": standing.last_beat.map(rfc3339),
        "changes": standing.next,
        "up_to_date": standing.up_to_date,
        "authorised_until": standing.authorised_until.map(rfc3339),
        "authorisation_ends": standing.authorised_until.is_some_and(is_ending),
        "error": standing.error.as_ref().map(error),
        "devices": devices,
        "relays": relays,
        "bootstrap": standing.bootstrap.nodes,
    })))
}

pub(super) async fn join(State(state): State<NodeState>, Json(join): Json<Join>) -> Result<Json<Value>, ApiError> {
    let invite = join.invite.map(|code| code.parse::<InviteCode>()).transpose();
    let invite = invite.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let became = state.control.join(join.plane.into(), invite).await?;
    Ok(Json(json!({
        "url": state.control.url(),
        "issuer": state.control.pinned(),
        "state": became,
    })))
}

pub(super) async fn leave(State(state): State<NodeState>) -> Result<StatusCode, ApiError> {
    state.control.leave().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which key asks to issue at a control plane: looked at before it is authorised.
pub(super) async fn issuer(State(state): State<NodeState>, Json(plane): Json<Plane>) -> Result<Json<Value>, ApiError> {
    let view = state.control.issuer_of(&plane.into()).await?;
    Ok(Json(json!({
        "issuer": view.issuer,
        "url": view.url,
        "network": { "id": view.network, "name": view.name },
        "authorised": view.certificate.is_some(),
        "expires": view.expires.map(rfc3339),
    })))
}

pub(super) async fn authorise(
    State(state): State<NodeState>,
    Json(asked): Json<Authorise>,
) -> Result<Json<Value>, ApiError> {
    let lifetime = asked.valid_s.map_or(LIFETIME, Duration::from_secs);
    if lifetime.is_zero() || lifetime > LONGEST {
        return Err(ApiError::bad_request(
            "an issuer's certificate is valid for a second to five years",
        ));
    }
    let certificate = match asked.plane {
        Some(plane) => {
            let plane = plane.into();
            state.control.authorise_at(&plane, asked.issuer, lifetime).await?
        }
        None => state.control.authorise(asked.issuer, lifetime)?,
    };
    Ok(Json(json!({
        "issuer": asked.issuer,
        "network": state.members.network(),
        "certificate": certificate,
        "expires": rfc3339(certificate.leaf.claims().expires),
    })))
}
