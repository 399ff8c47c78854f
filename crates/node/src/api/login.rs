//! `/api/agents/{name}/login` and `/oauth/callback`: logging in at the servers of this node's agents.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use dawn_identity::AgentName;
use dawn_mcp::host::LoginState;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::node::NodeState;

const CALLBACK: &str = "/oauth/callback";

pub(super) async fn begin(
    State(state): State<NodeState>,
    Path(name): Path<AgentName>,
) -> Result<Json<Value>, ApiError> {
    let redirect = format!("{}{CALLBACK}", state.api_url());
    let login = state.host.begin_login(&name, &redirect).await?;
    Ok(Json(
        json!({ "agent": name, "url": login.url, "redirect_uri": redirect }),
    ))
}

pub(super) async fn state(
    State(state): State<NodeState>,
    Path(name): Path<AgentName>,
) -> Result<Json<Value>, ApiError> {
    let known = state.host.login_state(&name).await?;
    Ok(Json(match known {
        LoginState::None => json!({ "agent": name, "state": "none" }),
        LoginState::Pending => json!({ "agent": name, "state": "pending" }),
        LoginState::Failed(error) => json!({ "agent": name, "state": "failed", "error": error }),
        LoginState::Done(scopes) => json!({ "agent": name, "state": "done", "scopes": scopes }),
    }))
}

pub(super) async fn forget(
    State(state): State<NodeState>,
    Path(name): Path<AgentName>,
) -> Result<StatusCode, ApiError> {
    state.host.logout(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where an authorization server sends the browser back to. Its `state`, which nobody can guess, names the login.
pub(super) async fn callback(State(state): State<NodeState>, RawQuery(query): RawQuery) -> Response {
    let url = format!("{}{CALLBACK}?{}", state.api_url(), query.unwrap_or_default());
    let finished = match url.parse() {
        Ok(url) => state.host.finish_login(&url).await.map_err(|fault| fault.message),
        Err(error) => Err(format!("the answer cannot be read: {error}")),
    };
    let (status, title, words) = match finished {
        Ok(name) => (
            StatusCode::OK,
            "Logged in",
            format!("Dawn may now use the server of {name}."),
        ),
        Err(why) => (StatusCode::BAD_REQUEST, "Not logged in", why),
    };
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui;max-width:32em;margin:20vh auto;padding:0 1em}}</style>\
         <h1>{title}</h1><p>{words}</p><p>You can close this page.</p></html>"
    );
    let policy = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, policy, Html(page)).into_response()
}
