//! `/api/invites`, `/api/requests` and `/api/joins`.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dawn_identity::{InviteId, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::members::InviteOptions;
use crate::node::NodeState;
use crate::store::{RequestRow, Verdict};
use crate::time::rfc3339;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    expires_s: u64,
    uses: u32,
    role: String,
    approval: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            expires_s: 86_400,
            uses: 1,
            role: "member".into(),
            approval: false,
        }
    }
}

pub(super) async fn create(
    State(state): State<NodeState>,
    body: Option<Json<Wanted>>,
) -> Result<Json<Value>, ApiError> {
    let Json(wanted) = body.unwrap_or_default();
    let role: Role = wanted
        .role
        .parse()
        .map_err(|_| ApiError::bad_request(format!("{:?} is no role", wanted.role)).next("guest, member or admin"))?;
    if wanted.uses == 0 || wanted.expires_s == 0 {
        return Err(ApiError::bad_request("an invite needs at least one use and one second"));
    }
    let options = InviteOptions {
        expires: Duration::from_secs(wanted.expires_s),
        uses: wanted.uses,
        role,
        approval: wanted.approval,
    };
    let (invite, ticket) = state.members.invite(&options).await?;
    Ok(Json(json!({
        "id": invite.id.to_string(),
        "ticket": ticket.to_string(),
        "expires": rfc3339(invite.expires),
        "uses": invite.max_uses,
        "role": role,
        "approval": invite.approval,
    })))
}

pub(super) async fn list(State(state): State<NodeState>) -> Result<Json<Value>, ApiError> {
    let invites = state.members.invites().await?;
    let shown = invites.iter().map(|(invite, role)| {
        json!({
            "id": invite.id.to_string(),
            "created": rfc3339(invite.created),
            "expires": rfc3339(invite.expires),
            "uses": invite.uses,
            "max_uses": invite.max_uses,
            "role": role,
            "approval": invite.approval,
            "revoked": invite.revoked,
            "redeemed_by": invite.redeemed_by,
        })
    });
    Ok(Json(json!({ "invites": shown.collect::<Vec<_>>() })))
}

pub(super) async fn revoke(State(state): State<NodeState>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let id: InviteId = id
        .parse()
        .map_err(|_| ApiError::not_found("not_found", format!("{id:?} is no invite's id")).next("dawn invite list"))?;
    state.members.revoke_invite(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(request: &RequestRow) -> Value {
    json!({
        "id": request.id,
        "node": request.node,
        "name": request.name,
        "words": request.words,
        "asked": rfc3339(request.asked),
        "invite": request.invite.to_string(),
    })
}

pub(super) async fn requests(State(state): State<NodeState>) -> Result<Json<Value>, ApiError> {
    let requests = state.members.requests().await?;
    Ok(Json(
        json!({ "requests": requests.iter().map(shown).collect::<Vec<_>>() }),
    ))
}

pub(super) async fn approve(State(state): State<NodeState>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let request = state.members.decide(&id, Verdict::Approved).await?;
    Ok(Json(
        json!({ "node": { "id": request.node, "name": request.name }, "words": request.words }),
    ))
}

pub(super) async fn deny(State(state): State<NodeState>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let _request = state.members.decide(&id, Verdict::Denied).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn joins(State(state): State<NodeState>) -> Result<Json<Value>, ApiError> {
    let joins = state.members.joins().await?;
    let shown = joins
        .iter()
        .map(|join| json!({ "node": join.node, "name": join.name, "words": join.words, "at": rfc3339(join.at) }));
    Ok(Json(json!({ "joins": shown.collect::<Vec<_>>() })))
}
