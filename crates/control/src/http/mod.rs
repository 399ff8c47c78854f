//! Requests: what can be asked, and how it is answered.

mod answer;
mod changes;
mod devices;
mod documents;
mod door;
mod extract;
pub(crate) mod gate;
mod headers;
mod invites;
mod networks;
mod people;
mod records;
mod register;
mod service;
mod tokens;
mod view;

use axum::Router;
use axum::routing::{delete, get, post};

pub use service::OPENAPI;

use crate::control::Control;

/// Everything that can be asked.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/metrics", get(service::metrics))
        .route("/v1/info", get(service::info))
        .route("/v1/openapi.json", get(service::openapi))
        .route("/v1/audit", get(records::whole_audit))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{token}", delete(tokens::revoke))
        .route("/v1/networks", get(networks::list).post(networks::create))
        .nest("/v1/networks/{network}", network())
        .fallback(service::nowhere)
        .method_not_allowed_fallback(service::not_so)
        .layer(axum::middleware::from_fn_with_state(control.clone(), gate::gate))
        .with_state(control)
}

/// What can be asked of one network.
fn network() -> Router<Control> {
    Router::new()
        .route("/", get(networks::get).patch(networks::patch).delete(networks::remove))
        .route("/issuer", get(networks::issuer).put(networks::authorise))
        .route("/people", get(people::list).post(people::create))
        .route(
            "/people/{person}",
            get(people::get).patch(people::patch).delete(people::remove),
        )
        .route("/challenges", post(register::challenge))
        .route("/devices", get(devices::list).post(register::register))
        .route(
            "/devices/{node}",
            get(devices::get).patch(devices::patch).delete(devices::remove),
        )
        .route("/devices/{node}/registration", get(register::registration))
        .route("/devices/{node}/heartbeat", post(register::heartbeat))
        .route("/devices/{node}/certificate", post(register::renew))
        .route("/devices/{node}/approve", post(devices::approve))
        .route("/devices/{node}/deny", post(devices::deny))
        .route("/devices/{node}/revoke", post(devices::revoke))
        .route("/certificates", get(records::certificates))
        .route("/revocations", get(records::revocations).post(records::revoke))
        .route("/invites", get(invites::list).post(invites::create))
        .route("/invites/{invite}", get(invites::get).delete(invites::revoke))
        .route(
            "/policy",
            get(documents::read_policy)
                .put(documents::put_policy)
                .delete(documents::remove_policy),
        )
        .route("/relays", get(documents::read_relays).put(documents::put_relays))
        .route(
            "/bootstrap",
            get(documents::read_bootstrap).put(documents::put_bootstrap),
        )
        .route("/changes", get(changes::changes))
        .route("/audit", get(records::audit))
}
