//! What this control plane is, how it is, and what can be asked.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use dawn_control_api::{Code, Info};

use super::answer::{Outcome, ok};
use crate::control::{Control, locked, now};
use crate::refusal::Refusal;

/// How often is looked at what anybody may ask for as often as it likes.
const AGAIN: Duration = Duration::from_secs(1);

/// The OpenAPI document.
pub const OPENAPI: &str = include_str!("openapi.json");

/// `GET /v1/info`
pub(super) async fn info(State(control): State<Control>) -> Outcome {
    let networks = control.live.networks();
    let network = match networks.as_slice() {
        [(network, _)] => Some(*network),
        _ => None,
    };
    ok(&Info {
        software: format!("dawn/{}", env!("CARGO_PKG_VERSION")),
        url: control.url.clone(),
        issuer: control.key.node_id(),
        network,
        time: now(),
    })
}

/// `GET /v1/openapi.json`
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: it serves, and its database answers.
pub(super) async fn readyz(State(control): State<Control>) -> Outcome {
    if *control.ending.borrow() {
        return Err(Refusal::new(Code::Draining).into());
    }
    control.certain()?;
    if !answers(&control).await {
        return Err(Refusal::because(Code::Busy, "the database does not answer")
            .after(5)
            .into());
    }
    Ok("ready\n".into_response())
}

/// Whether the database answers. Anybody may ask, so it is asked once a second.
async fn answers(control: &Control) -> bool {
    let mut last = control.answers.lock().await;
    match *last {
        Some((at, answers)) if at.elapsed() < AGAIN => answers,
        _ => {
            let answers = control.store.answers().await;
            *last = Some((Instant::now(), answers));
            answers
        }
    }
}

/// How many devices are there, counted once a second.
fn census(control: &Control) -> [usize; 3] {
    let mut last = locked(&control.census);
    match *last {
        Some((at, all)) if at.elapsed() < AGAIN => all,
        _ => {
            let (mut all, now) = ([0; 3], now());
            for (_, network) in control.live.networks() {
                for (sum, more) in all.iter_mut().zip(network.census(now)) {
                    *sum += more;
                }
            }
            *last = Some((Instant::now(), all));
            all
        }
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(control): State<Control>) -> Outcome {
    control.metrics.devices(census(&control));
    let text = control.metrics.text().map_err(|_| Refusal::new(Code::Internal))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response())
}

/// A path that is none.
pub(super) async fn nowhere() -> Refusal {
    Refusal::new(Code::NoSuchPath).next("see /v1/openapi.json")
}

/// A method that a path does not take.
pub(super) async fn not_so(method: Method, uri: Uri) -> Refusal {
    let mut words = format!("{} does not take {method}", uri.path());
    words.truncate(words.floor_char_boundary(200));
    Refusal::because(Code::MethodNotAllowed, words).next("see /v1/openapi.json")
}
