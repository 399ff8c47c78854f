//! `/api/status` and `/api/shutdown`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dawn_mcp::router::Directory as _;
use dawn_mesh::RelayInfo;
use serde_json::{Value, json};

use crate::node::NodeState;
use crate::time::rfc3339;

pub(super) async fn status(State(state): State<NodeState>) -> Result<Json<Value>, super::ApiError> {
    let own = state.members.own();
    let nodes = state.directory.nodes();
    let agents = state.directory.agents();
    let this = state.node_id();
    let standing = state.members.standing();
    let roles: Vec<String> = own.roles.iter().map(|role| role.to_string()).collect();
    let waiting = json!({
        "joins": state.members.requests().await?.len(),
        "calls": state.approvals.waiting().len(),
        "keys": state.exchange.asked().len(),
    });
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": { "id": own.node, "name": own.name },
        "network": { "id": state.members.network(), "name": state.members.network_name() },
        "mode": state.modes.shown(),
        "roles": roles,
        "member": standing.is_ok(),
        "not_member_because": standing.err(),
        "certificate": { "expires": rfc3339(own.expires), "renews": rfc3339(state.members.renews()) },
        "api": state.api_url(),
        "gateway": state.exposed().map(|(listen, resources)| json!({ "listen": listen, "resources": resources })),
        "websocket": websocket(&state),
        "relays": relays(&state),
        "listen": state.mesh.listen_addresses(),
        "uptime_ms": u64::try_from(state.uptime().as_millis()).unwrap_or(u64::MAX),
        "peers": { "online": nodes.iter().filter(|view| view.online && view.said.node != this).count(), "known": nodes.len().saturating_sub(1) },
        "agents": { "local": agents.iter().filter(|entry| entry.node == this).count(), "network": agents.len() },
        "registry": registry(&state).await,
        "lookup": lookup(&state),
        "doubts": state.doubts(),
        "control": control(&state),
        "envelopes": state.envelopes.shown(),
        "home": state.home().data(),
        "memory_bytes": resident_bytes(),
        "waiting": waiting,
    })))
}

/// How much is known of the network, and when that was compared with somebody last.
async fn registry(state: &NodeState) -> Value {
    let directory = &state.directory;
    let size = directory.size().await;
    let synced = directory.synced(None).map(|synced| {
        json!({
            "at": rfc3339(synced.at),
            "with": { "id": synced.with, "name": directory.name_of(synced.with) },
            "differences": synced.got,
            "bytes": synced.traffic.overhead + synced.traffic.deltas,
        })
    });
    json!({
        "nodes": size.nodes,
        "entries": size.entries,
        "expired": size.expired,
        "bytes": directory.bytes(),
        "refused": directory.refused().iter().map(|(_, count)| count).sum::<u64>(),
        "last_sync": synced,
    })
}

/// How much of the network this node knows to ask, and keeps for others.
pub(super) fn lookup(state: &NodeState) -> Value {
    let size = state.lookup.size();
    json!({ "members": size.members, "words": size.words, "provided": size.provided })
}

/// The relays that this node uses, or would, and how it stands with each.
pub(super) fn relays(state: &NodeState) -> Vec<Value> {
    let shown = |relay: RelayInfo| {
        let (word, why) = relay.state.word();
        json!({
            "id": relay.node,
            "name": state.members.name_of(relay.node),
            "addresses": relay.addresses,
            "configured": relay.is_configured,
            "state": word,
            "reason": why,
        })
    };
    state.mesh.relays().into_iter().map(shown).collect()
}

/// The control plane, where there is one.
fn control(state: &NodeState) -> Option<Value> {
    let standing = state.control.standing()?;
    Some(json!({
        "url": state.control.url(),
        "state": standing.state,
        "reachable": standing.reachable,
        "last_beat": standing.last_beat.map(rfc3339),
        "authorised_until": standing.authorised_until.map(rfc3339),
        "authorisation_ends": standing.authorised_until.is_some_and(crate::control::looking::is_ending),
        "error": standing.error.as_ref().map(|error| json!({ "code": error.code(), "message": error.to_string(), "next": error.next() })),
    }))
}

/// Where MCP over WebSocket is served, and how.
fn websocket(state: &NodeState) -> Value {
    let settings = state.gateway.websocket();
    json!({
        "address": format!("{}/ws", state.api_url().replacen("http", "ws", 1)),
        "plain": settings.plain,
        "members": settings.members,
        "connections": state.gateway.sockets(),
    })
}

/// Resident memory of this process; absent where the system does not tell.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"))?;
    kib.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

pub(super) async fn shutdown(State(state): State<NodeState>) -> StatusCode {
    state.ask_to_stop();
    StatusCode::ACCEPTED
}

pub(super) async fn reload(State(state): State<NodeState>) -> Result<Json<Value>, super::ApiError> {
    let (changed, later) = state.reload().await.map_err(|error| {
        super::ApiError::from(error)
            .next("mend config.toml, then `dawn reload`; until then what was read before stays in force")
    })?;
    Ok(Json(json!({
        "exposed": state.exposed().map(|(_, resources)| resources),
        "agents": changed,
        "groups": state.gateway.views().groups(),
        "needs_restart": later,
        "doubts": state.doubts(),
    })))
}
