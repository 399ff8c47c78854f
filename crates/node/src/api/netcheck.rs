//! `/api/netcheck`: how this node stands in the network, as far as it and its neighbours can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::State;
use dawn_identity::NodeId;
use dawn_mesh::nat::{Nat, Ports};
use dawn_mesh::{PeerInfo, PunchOutcome, Reach, ReachVerdict, Route, Transport};
use serde_json::{Value, json};

use super::peers::{Way, ago, transport_name};
use crate::directory::NodeView;
use crate::netcheck::{self, Kind, Told};
use crate::node::NodeState;

const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::Tcp, Transport::WebSocket];
/// Members without a connection that are shown.
const UNCONNECTED: usize = 32;
/// Clocks that differ by more are a reason for members to refuse what this node signs, milliseconds.
const CLOCK_MS: f64 = 120_000.0;

/// The transport of an address to listen on.
fn transport_of(address: &str) -> Transport {
    match address {
        _ if address.contains("/quic") => Transport::Quic,
        _ if address.ends_with("/ws") || address.ends_with("/wss") => Transport::WebSocket,
        _ => Transport::Tcp,
    }
}

/// Whether nobody is in between.
fn is_straight(peer: &PeerInfo) -> bool {
    matches!(peer.route, Route::Direct | Route::Punched)
}

fn member(state: &NodeState, peer: &PeerInfo, told: Option<&Result<Told, String>>, nodes: &[NodeView]) -> Value {
    let way = Way::of(peer.node, state.node_id(), std::slice::from_ref(peer), nodes);
    let answer = told.and_then(|told| told.as_ref().ok());
    // What a member sees that is reached through another is that one's address.
    let seen = answer.filter(|_| is_straight(peer));
    json!({
        "node": { "id": peer.node, "name": peer.membership.name },
        "route": way.route,
        "via": way.via,
        "transport": way.transport,
        "address": peer.address,
        "latency_ms": answer.map(|told| (told.round_trip.as_secs_f64() * 1e6).round() / 1e3),
        "dialled": peer.dialled.map(|dialled| if dialled { "by_us" } else { "by_them" }),
        "online": true,
        "last_seen": null,
        "sees_us_at": seen.and_then(|told| told.seen.address.as_deref()).map(place),
        "clock_ms": answer.map(|told| told.clock_ms),
        "error": told.and_then(|told| told.as_ref().err()),
        "punch": punched(state, peer.node),
    })
}

/// What became of the last try to punch a hole to a member.
fn punched(state: &NodeState, node: NodeId) -> Option<&'static str> {
    state.mesh.punched(node).map(PunchOutcome::word)
}

/// What is between this node and others.
fn nat_value(nat: &Nat, kind: &Kind) -> Value {
    let ports = match nat.ports {
        Ports::Unknown => json!(null),
        Ports::Preserved => json!("preserved"),
        Ports::Steps(step) => json!({ "steps": step }),
        Ports::Random => json!("random"),
    };
    json!({
        "guess": kind.guess,
        "because": kind.because,
        "mapping": nat.mapping.word(),
        "ports": ports,
        "seen": nat.seen,
        "double": nat.is_double,
        "shared": nat.is_shared,
        "udp": nat.udp,
    })
}

/// What is known of a public address of this node.
fn reach_value(state: &NodeState, reach: &Reach) -> Value {
    json!({
        "address": reach.address,
        "source": reach.source.word(),
        "verdict": reach.verdict.word(),
        "by": reach.by.map(|by| json!({ "id": by, "name": state.directory.name_of(by) })),
    })
}

/// Whether others can dial this node: a member has, or they have tried every public address in vain.
fn is_reachable(reach: &[Reach], peers: &[PeerInfo]) -> Option<bool> {
    let is = |verdict| move |reach: &Reach| reach.verdict == verdict;
    let is_dialled = |peer: &PeerInfo| peer.dialled == Some(false) && peer.route == Route::Direct;
    match () {
        () if reach.iter().any(is(ReachVerdict::Reached)) || peers.iter().any(is_dialled) => Some(true),
        () if !reach.is_empty() && reach.iter().all(is(ReachVerdict::NotReached)) => Some(false),
        () => None,
    }
}

/// An address without whose it is.
fn place(address: &str) -> &str {
    address.split_once("/p2p/").map_or(address, |(place, _)| place)
}

/// A member that this node has no way to, or has needed none.
fn unconnected(state: &NodeState, view: &NodeView) -> Value {
    json!({
        "node": { "id": view.said.node, "name": view.said.name },
        "route": "none",
        "via": null,
        "transport": null,
        "address": null,
        "latency_ms": null,
        "dialled": null,
        "online": view.online,
        "last_seen": state.directory.silent_for(view).map(ago),
        "sees_us_at": null,
        "clock_ms": null,
        "error": null,
        "punch": punched(state, view.said.node),
    })
}

pub(super) async fn netcheck(State(state): State<NodeState>) -> Json<Value> {
    let mut peers = state.mesh.peers();
    peers.sort_by(|a, b| a.membership.name.cmp(&b.membership.name));
    let told = netcheck::ask_all(&state.mesh, &peers).await;
    let listen = state.mesh.listen_addresses();
    let own: BTreeSet<IpAddr> = listen
        .iter()
        .filter_map(|address| netcheck::socket(address))
        .map(|(ip, _)| ip)
        .collect();
    let answers: Vec<&Told> = told.values().filter_map(|told| told.as_ref().ok()).collect();
    let is_udp = |address: &str| address.contains("/udp/");
    // Whoever dialled this node sees it at the address that it dialled: that says nothing of what is in between.
    let ours = told
        .iter()
        .filter_map(|(node, told)| Some((node, told.as_ref().ok()?)))
        .filter(|(_, told)| told.seen.dialled == Some(false));
    let observed = |by: &NodeId, told: &Told| {
        let at = |address: &str| netcheck::socket(address).map(SocketAddr::from);
        let by = peers.iter().find(|peer| peer.node == *by && is_straight(peer))?;
        let by = by.address.as_deref()?;
        let seen = told.seen.address.as_deref()?;
        Some((at(by)?, at(seen)?, is_udp(seen)))
    };
    let seen: Vec<(SocketAddr, SocketAddr, bool)> = ours.filter_map(|(by, told)| observed(by, told)).collect();
    let nat = state.mesh.nat();
    let kind = netcheck::kind(&nat, &own, &seen);
    let mut observed: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (_, at, _) in &seen {
        *observed.entry(at.ip()).or_default() += 1;
    }
    let transports: serde_json::Map<String, Value> = TRANSPORTS
        .into_iter()
        .map(|transport| {
            let listens = listen.iter().any(|address| transport_of(address) == transport);
            let connections = peers.iter().filter(|peer| peer.transport == Some(transport)).count();
            let value = json!({ "listens": listens, "connections": connections });
            (transport_name(transport).to_owned(), value)
        })
        .collect();
    let listens_udp = listen.iter().any(|address| is_udp(address));
    let udp = match peers.iter().any(|peer| peer.transport == Some(Transport::Quic)) {
        true => Some(true),
        false => (!listens_udp).then_some(false),
    };
    let worst = answers.iter().map(|told| told.clock_ms.abs()).max_by(f64::total_cmp);
    let addresses: Vec<Value> = listen
        .iter()
        .map(|address| {
            json!({
                "address": address,
                "transport": transport_name(transport_of(address)),
                "scope": netcheck::socket(address).map(|(ip, _)| netcheck::scope(ip)),
            })
        })
        .collect();
    let linked = state.directory.linked();
    let gossip = json!({
        "members": linked.size.members,
        "neighbours": linked.neighbours.len(),
        "eager": linked.eager,
        "tries": linked.size.tries,
    });
    let nodes = state.directory.nodes();
    let mut others: Vec<&NodeView> = nodes.iter().collect();
    others.retain(|view| {
        let node = view.said.node;
        node != state.node_id() && peers.iter().all(|peer| peer.node != node)
    });
    // Who is away is what is looked for here; in a large network most have no connection.
    others.sort_by(|a, b| (a.online, &a.said.name).cmp(&(b.online, &b.said.name)));
    let connected = peers
        .iter()
        .map(|peer| member(&state, peer, told.get(&peer.node), &nodes));
    let away = others.iter().take(UNCONNECTED).map(|view| unconnected(&state, view));
    let members: Vec<Value> = connected.chain(away).collect();
    let observed: Vec<Value> = observed
        .iter()
        .map(|(ip, by)| json!({ "address": ip, "by": by }))
        .collect();
    let mapped: Vec<Value> = state
        .mesh
        .port_mappings()
        .iter()
        .map(|mapping| {
            json!({
                "transport": if mapping.is_udp { "udp" } else { "tcp" },
                "local": mapping.local,
                "external": mapping.external,
                "by": mapping.by.word(),
            })
        })
        .collect();
    let reach = state.mesh.public_addresses();
    Json(json!({
        "node": { "id": state.node_id(), "name": state.node_name() },
        "mode": state.modes.shown(),
        "listen": addresses,
        "announced": state.members.addresses(),
        "transports": transports,
        "udp": udp,
        "mdns": { "enabled": state.uses_mdns(), "found": state.directory.discovered() },
        "members": members,
        "not_shown": others.len().saturating_sub(UNCONNECTED),
        "not_member_because": state.members.standing().err(),
        "gossip": gossip,
        "observed": observed,
        "lookup": super::status::lookup(&state),
        "reachable": is_reachable(&reach, &peers),
        "reach": reach.iter().map(|reach| reach_value(&state, reach)).collect::<Vec<Value>>(),
        "clock": { "worst_ms": worst, "ok": worst.is_none_or(|worst| worst <= CLOCK_MS) },
        "nat": nat_value(&nat, &kind),
        "punching": state.uses_punching(),
        "port_mapping": { "enabled": state.maps_ports(), "ports": mapped },
        "external": state.mesh.external_addresses(),
        "relays": super::status::relays(&state),
    }))
}
