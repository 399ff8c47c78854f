//! `/api/calls`: calls that wait for the owner.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::node::NodeState;

pub(super) async fn list(State(state): State<NodeState>) -> Json<Value> {
    let calls = state.approvals.waiting().into_iter().map(|(id, asked, question)| {
        json!({
            "id": id,
            "asked": asked,
            "caller": { "id": question.caller, "name": question.caller_name, "user": question.user },
            "agent": question.agent,
            "method": question.method,
            "what": question.what,
            "arguments": question.arguments,
        })
    });
    Json(json!({ "calls": calls.collect::<Vec<_>>() }))
}

pub(super) async fn allow(State(state): State<NodeState>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    answered(&state, &id, true)
}

pub(super) async fn deny(State(state): State<NodeState>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    answered(&state, &id, false)
}

fn answered(state: &NodeState, id: &str, may: bool) -> Result<StatusCode, ApiError> {
    if state.approvals.answer(id, may) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found("not_found", format!("no call {id:?} waits any more")).next("dawn calls"))
}
