//! The local API: `/api/*`, the MCP gateway, metrics and health, on one listener.
//!
//! Loopback only unless told otherwise. Everything but `/healthz`, `/readyz` and the
//! answers of authorization servers (`/oauth/callback`, known by their state) needs the token; `Host` and `Origin`
//! are checked, so that no web page can reach it by DNS rebinding or a cross-site request.

mod agents;
mod calls;
mod control;
mod error;
mod events;
mod find;
mod guard;
mod health;
mod invites;
mod keys;
mod lock;
mod login;
mod migration;
mod netcheck;
mod peers;
mod policy;
mod registry;
mod relay;
mod status;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use agents::source;
pub use error::ApiError;
pub use events::{Events, NodeEvent};
pub use guard::Guarded;

use crate::connections::{self, Upgrades};
use crate::node::NodeState;

/// Longest body of an `/api` request, bytes. Messages to agents have their own limit.
const BODY_BYTES: usize = 16 << 20;

/// All routes of the local API.
pub fn routes(state: &NodeState, guarded: Guarded) -> Router {
    let api = Router::new()
        .route("/api/status", get(status::status))
        .route("/api/peers", get(peers::list))
        .route("/api/peers/{node}/ping", post(peers::ping))
        .route("/api/peers/{node}/revoke", post(peers::revoke))
        .route("/api/agents", get(agents::list).post(agents::add))
        .route("/api/agents/{name}", delete(agents::remove))
        .route("/api/agents/{name}/restart", post(agents::restart))
        .route(
            "/api/agents/{name}/login",
            get(login::state).post(login::begin).delete(login::forget),
        )
        .route("/oauth/callback", get(login::callback))
        .route("/api/inspect/{node}/{agent}", get(agents::inspect))
        .route("/api/check/{node}/{agent}", get(agents::check))
        .route("/api/call", post(agents::call))
        .route("/api/invites", get(invites::list).post(invites::create))
        .route("/api/invites/{id}", delete(invites::revoke))
        .route("/api/relay/tokens", post(relay::token))
        .route("/api/requests", get(invites::requests))
        .route("/api/requests/{id}/approve", post(invites::approve))
        .route("/api/requests/{id}/deny", post(invites::deny))
        .route("/api/joins", get(invites::joins))
        .route("/api/calls", get(calls::list))
        .route("/api/calls/{id}/allow", post(calls::allow))
        .route("/api/calls/{id}/deny", post(calls::deny))
        .route("/api/keys", get(keys::list))
        .route("/api/keys/{target}/exchange", post(keys::exchange))
        .route("/api/keys/{target}/rotate", post(keys::rotate))
        .route("/api/keys/{target}/revoke", post(keys::revoke))
        .route("/api/keys/{target}/psk", post(keys::add))
        .route("/api/keys/{target}/approve", post(keys::approve))
        .route("/api/keys/{target}/deny", post(keys::deny))
        .route("/api/keys/{target}/pin", post(keys::pin).delete(keys::unpin))
        .route("/api/lock", get(lock::status).post(lock::begin))
        .route("/api/lock/log", get(lock::log))
        .route("/api/lock/members", get(lock::members))
        .route("/api/lock/sign", post(lock::sign))
        .route("/api/lock/changes", post(lock::change))
        .route("/api/lock/proposals/{id}/approve", post(lock::approve))
        .route("/api/lock/recover", post(lock::recover))
        .route("/api/policy", get(policy::show).post(policy::apply))
        .route("/api/policy/log", get(policy::log))
        .route("/api/registry", get(registry::dump))
        .route("/api/registry/log", get(registry::log))
        .route("/api/registry/diff", get(registry::diff))
        .route(
            "/api/control",
            get(control::show).post(control::join).delete(control::leave),
        )
        .route("/api/control/issuer", post(control::issuer))
        .route("/api/control/authorize", post(control::authorise))
        .route("/api/find", get(find::find))
        .route("/api/netcheck", get(netcheck::netcheck))
        .route("/api/mode", get(migration::mode).post(migration::set_mode))
        .route("/api/migration", get(migration::status))
        .route("/api/migration/plan", post(migration::plan))
        .route("/api/migration/apply", post(migration::apply))
        .route("/api/migration/rollback", post(migration::rollback))
        .route("/api/reload", post(status::reload))
        .route("/api/events", get(events::stream))
        .route("/api/shutdown", post(status::shutdown))
        .route("/api/openapi.json", get(health::openapi))
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .fallback(error::unknown_route)
        .with_state(state.clone());
    let gateway = state.gateway.routes();
    gateway
        .merge(api)
        .layer(axum::middleware::from_fn_with_state(guarded, guard::check))
}

/// Serves the API until `stop`. Beyond this machine connections are bounded: at most `connections` at once, each address
/// a share of them, and little time to say what each wants.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    state: NodeState,
    guarded: Guarded,
    listener: TcpListener,
    connections: usize,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let routes = routes(&state, guarded);
    if !listener.local_addr()?.ip().to_canonical().is_loopback() {
        let serve = |stream, address| {
            let (routes, stop) = (routes.clone(), stop.clone());
            connections::serve(stream, address, routes, Upgrades::Allowed, stop)
        };
        connections::accept(listener, connections, &stop, serve).await;
        return Ok(());
    }
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
    });
    // Made ready once, and not for each connection.
    axum::serve(listener, routes.into_make_service())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
