//! `/api/peers`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dawn_identity::{NodeId, NodeRef};
use dawn_mesh::{PeerInfo, Route, Transport};
use dawn_registry::Place;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::directory::NodeView;
use crate::members::Known;
use crate::node::NodeState;
use crate::time::rfc3339;

pub(super) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "quic",
        Transport::Tcp => "tcp",
        Transport::WebSocket => "websocket",
        Transport::Memory => "memory",
    }
}

/// How long ago, as a point in time.
pub(super) fn ago(elapsed: std::time::Duration) -> String {
    let now = jiff::Timestamp::now();
    jiff::SignedDuration::try_from(elapsed)
        .ok()
        .and_then(|elapsed| now.checked_sub(elapsed).ok())
        .unwrap_or(now)
        .to_string()
}

/// The way to a node, and who is in between.
pub(super) struct Way {
    pub(super) route: &'static str,
    pub(super) via: Option<Vec<Value>>,
    pub(super) transport: Option<&'static str>,
}

impl Way {
    pub(super) fn of(node: NodeId, this: NodeId, connected: &[PeerInfo], nodes: &[NodeView]) -> Self {
        let peer = connected.iter().find(|peer| peer.node == node);
        let named = |id: &NodeId| {
            let said = nodes.iter().find(|view| view.said.node == *id);
            // Of a neighbour the registry may not know anything yet.
            let shown = || connected.iter().find(|peer| peer.node == *id);
            let name = said.map(|view| &view.said.name);
            json!({ "id": id, "name": name.or_else(|| Some(&shown()?.membership.name)) })
        };
        let (route, via) = match peer.map(|peer| &peer.route) {
            _ if node == this => ("this", None),
            Some(Route::Direct) => ("direct", None),
            Some(Route::Punched) => ("punched", None),
            Some(Route::Relayed { relay }) => ("relayed", Some(vec![named(relay)])),
            Some(Route::Forwarded { via }) => ("forwarded", Some(via.iter().map(named).collect())),
            None => ("none", None),
        };
        Self {
            route,
            via,
            transport: peer.and_then(|peer| peer.transport).map(transport_name),
        }
    }
}

/// Through whom a node talks.
fn host(place: Place, nodes: &[NodeView]) -> Option<Value> {
    let host = place.host()?;
    let said = nodes.iter().find(|view| view.said.node == host);
    Some(json!({ "id": host, "name": said.map(|view| &view.said.name) }))
}

/// The host of a centralized node, where it is away: without it nobody else is reached.
fn lost_host(place: Place, this: NodeId, connected: &[PeerInfo], nodes: &[NodeView]) -> Option<Value> {
    let Place::Centralized { host: node } = place else {
        return None;
    };
    let is_online = match nodes.iter().find(|view| view.said.node == node) {
        Some(view) => view.online,
        None => connected.iter().any(|peer| peer.node == node),
    };
    if node == this || is_online {
        return None;
    }
    host(place, nodes)
}

/// When the registries were compared with a node's last.
fn synced(state: &NodeState, node: NodeId) -> Option<String> {
    state.directory.synced(Some(node)).map(|synced| rfc3339(synced.at))
}

pub(super) async fn list(State(state): State<NodeState>) -> Result<Json<Value>, ApiError> {
    let connected = state.mesh.peers();
    let this = state.node_id();
    let mut nodes = state.directory.nodes();
    nodes.sort_by(|a, b| a.said.name.cmp(&b.said.name));
    let shown = |view: &NodeView| {
        let node = view.said.node;
        let peer = connected.iter().find(|peer| peer.node == node);
        let is_this = node == this;
        let membership = peer.map_or(&view.said.membership, |peer| &peer.membership);
        let roles: Vec<String> = membership.roles.iter().map(|role| role.to_string()).collect();
        let way = Way::of(node, this, &connected, &nodes);
        json!({
            "id": node,
            "name": view.said.name,
            "roles": roles,
            "online": view.online,
            "this": is_this,
            "route": way.route,
            "via": way.via,
            "transport": way.transport,
            "mode": view.said.place.mode().as_str(),
            "host": host(view.said.place, &nodes),
            "address": peer.and_then(|peer| peer.address.clone()),
            "latency_ms": state.latency_ms(node),
            "agents": view.said.agents.len(),
            "since": peer.map(|peer| ago(peer.since.elapsed())),
            "last_seen": if is_this { Some(ago(std::time::Duration::ZERO)) } else { state.directory.silent_for(view).map(ago) },
            "expires": rfc3339(membership.expires),
            "version": view.said.software,
            "pinned": state.members.pins().of_node(node).is_some(),
            "synced": synced(&state, node),
            "expired": false,
        })
    };
    let mut peers: Vec<Value> = nodes.iter().map(shown).collect();
    // Members that have said nothing of themselves yet.
    let known = state.members.known().await?;
    let silent = known
        .iter()
        .filter(|member| !nodes.iter().any(|view| view.said.node == member.node));
    peers.extend(silent.map(|member| {
        let peer = connected.iter().find(|peer| peer.node == member.node);
        let way = Way::of(member.node, this, &connected, &nodes);
        let roles: Vec<String> = member.roles.iter().map(|role| role.to_string()).collect();
        json!({
            "id": member.node,
            "name": member.name,
            "roles": roles,
            "online": peer.is_some(),
            "this": member.node == this,
            "route": way.route,
            "via": way.via,
            "transport": way.transport,
            "mode": null,
            "host": null,
            "address": peer.and_then(|peer| peer.address.clone()),
            "latency_ms": state.latency_ms(member.node),
            "agents": 0,
            "since": peer.map(|peer| ago(peer.since.elapsed())),
            "last_seen": null,
            "expires": rfc3339(member.expires),
            "version": null,
            "pinned": state.members.pins().of_node(member.node).is_some(),
            "synced": synced(&state, member.node),
            "expired": state.directory.has_expired(member.node),
        })
    }));
    let not_member_because = state.members.standing().err();
    Ok(Json(json!({
        "peers": peers,
        "not_member_because": not_member_because,
        "may_invite": state.members.may_admit(),
        "lost_host": lost_host(state.modes.place(), this, &connected, &nodes),
    })))
}

fn reference(node: &str) -> Result<NodeRef, ApiError> {
    node.parse()
        .map_err(|error| ApiError::bad_request(format!("{node:?} is neither a node's name nor its id ({error})")))
}

fn find(state: &NodeState, node: &str) -> Result<NodeView, ApiError> {
    Ok(state.directory.find(&reference(node)?)?)
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ping {
    count: u32,
}

impl Default for Ping {
    fn default() -> Self {
        Self { count: 1 }
    }
}

pub(super) async fn ping(
    State(state): State<NodeState>,
    Path(node): Path<String>,
    body: Option<Json<Ping>>,
) -> Result<Json<Value>, ApiError> {
    const MOST: u32 = 100;
    let mut view = find(&state, &node);
    if view.is_err() && state.lookup.seek_node(&reference(&node)?).await {
        view = find(&state, &node);
    }
    let view = view?;
    let count = body.map_or(1, |Json(ping)| ping.count).clamp(1, MOST);
    let id = view.said.node;
    let mut times = Vec::new();
    for _ in 0..count {
        let time = if id == state.node_id() {
            std::time::Duration::ZERO
        } else {
            let name = NodeRef::Name(view.said.name.clone());
            state.router.reach(id, &name, state.mesh.ping(id)).await?
        };
        times.push((time.as_secs_f64() * 1e6).round() / 1e3);
    }
    let peers = state.mesh.peers();
    let way = Way::of(id, state.node_id(), &peers, &state.directory.nodes());
    Ok(Json(json!({
        "node": { "id": id, "name": view.said.name },
        "route": way.route,
        "via": way.via,
        "transport": way.transport,
        "times_ms": times,
    })))
}

pub(super) async fn revoke(State(state): State<NodeState>, Path(node): Path<String>) -> Result<Json<Value>, ApiError> {
    let wanted = reference(&node)?;
    let known = state.members.known().await?;
    let mut found = known.iter().filter(|member| match &wanted {
        NodeRef::Id(id) => member.node == *id,
        NodeRef::Name(name) => member.name == *name,
        NodeRef::Any => false,
    });
    // One that has never been heard of here can be revoked by its id.
    let unheard = match &wanted {
        NodeRef::Id(id) => Some(Known::unheard(*id)),
        NodeRef::Name(_) | NodeRef::Any => None,
    };
    let member = found
        .next()
        .or(unheard.as_ref())
        .ok_or_else(|| ApiError::not_found("unknown_node", format!("there is no node {node} in this network")))
        .map_err(|error| error.next("dawn peers"))?;
    if found.next().is_some() {
        let words = format!("several nodes are called {node}; name the one by its id");
        return Err(ApiError::new(StatusCode::CONFLICT, "ambiguous", words).next("dawn peers -v"));
    }
    state.members.revoke(member).await?;
    state.directory.drop_revoked().await;
    Ok(Json(
        json!({ "node": { "id": member.node, "name": member.name }, "revoked": true }),
    ))
}
