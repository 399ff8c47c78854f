//! `/api/relay/tokens`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use data_encoding::HEXLOWER;
use dawn_identity::{NodeId, RelayQuota};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::node::NodeState;
use crate::time::rfc3339;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    peer: String,
    #[serde(default = "month")]
    expires_s: u64,
    circuits: Option<u64>,
    bytes: Option<u64>,
    bytes_per_second: Option<u64>,
}

fn month() -> u64 {
    30 * 86_400
}

/// Makes a token by which a peer reserves at the network's relays. One that an admin signs ends with its certificate:
/// `is_shorter` says so.
pub(super) async fn token(State(state): State<NodeState>, Json(wanted): Json<Wanted>) -> Result<Json<Value>, ApiError> {
    // Who is no member is known by its id alone.
    let peer = match wanted.peer.parse::<NodeId>() {
        Ok(peer) => peer,
        Err(_) => super::registry::find(&state, &wanted.peer)?,
    };
    if wanted.expires_s == 0 {
        return Err(ApiError::bad_request("a relay token lasts at least one second"));
    }
    let quota = RelayQuota {
        circuits: wanted.circuits,
        bytes: wanted.bytes,
        bytes_per_second: wanted.bytes_per_second,
    };
    let wanted = Duration::from_secs(wanted.expires_s);
    let token = state.members.relay_token(peer, quota, wanted)?;
    let claims = token.claims();
    Ok(Json(json!({
        "token": dawn_mesh::relay_token_text(&token),
        "peer": claims.subject,
        "network": claims.network,
        "serial": HEXLOWER.encode(claims.serial.as_bytes()),
        "expires": rfc3339(claims.expires),
        "is_shorter": claims.expires.since(claims.issued_at) < wanted,
    })))
}
