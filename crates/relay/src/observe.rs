//! What an operator sees of a relay: `/metrics`, `/healthz`, `/readyz`.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::server::Server;

/// Serves them until it is stopped; returns where.
pub(crate) async fn serve(address: SocketAddr, server: Server, stop: CancellationToken) -> io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let of_metrics = server.clone();
    let router = Router::new()
        .route("/metrics", get(move || async move { metrics(&of_metrics) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if server.is_ready() {
                    (StatusCode::OK, "ready\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
                }
            }),
        );
    tokio::spawn(async move {
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "metrics and health are not served any more");
        }
    });
    Ok(bound)
}

/// The metrics, in the text format of Prometheus.
fn metrics(server: &Server) -> String {
    let (reservations, circuits, bytes) = server.usage();
    let counters = server.counters();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "# HELP dawn_relay_{name} {help}\n# TYPE dawn_relay_{name} {kind}\ndawn_relay_{name} {value}"
        );
    };
    one("reservations", "gauge", "Reservations now.", reservations as u64);
    one("circuits", "gauge", "Circuits now.", circuits as u64);
    one("connections", "gauge", "Connections now.", server.connections() as u64);
    one(
        "ready",
        "gauge",
        "1 while it takes reservations, 0 while it drains.",
        u64::from(server.is_ready()),
    );
    one("carried_bytes_total", "counter", "Bytes carried, both ways.", bytes);
    one(
        "reserved_total",
        "counter",
        "Reservations made or renewed.",
        read(&counters.reserved),
    );
    one("circuits_total", "counter", "Circuits made.", read(&counters.circuits));
    one(
        "circuits_failed_total",
        "counter",
        "Circuits that the target did not take.",
        read(&counters.failed),
    );
    one(
        "shown_total",
        "counter",
        "Tokens, memberships and revocations accepted.",
        read(&counters.accepted),
    );
    // As above.
    let _ = writeln!(
        text,
        "# HELP dawn_relay_refused_total What was refused.\n# TYPE dawn_relay_refused_total counter"
    );
    for (code, count) in counters.refused() {
        // As above.
        let _ = writeln!(text, "dawn_relay_refused_total{{code=\"{code}\"}} {count}");
    }
    text
}
