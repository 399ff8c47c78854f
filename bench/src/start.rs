//! The daemon itself: how long it takes to be ready, and what it holds while it does nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::network::Node;
use crate::report::Report;

const RUNS: usize = 11;

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures start, readiness and idle memory.
pub(crate) async fn measure(dawn: &Path, report: &mut Report) {
    let mut version = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let output = tokio::process::Command::new(dawn)
            .arg("--version")
            .output()
            .await
            .expect("dawn runs");
        assert!(output.status.success());
        version.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    report.add(
        "daemon",
        "dawn --version",
        "median",
        "ms",
        median(version),
        &[],
        Some(10.0),
    );
    let mut ready = Vec::new();
    for _ in 0..RUNS {
        let node = Node::start(dawn, "home", None, "/ip4/127.0.0.1/udp/0/quic-v1").await;
        ready.push(node.ready_in.as_secs_f64() * 1e3);
    }
    report.add(
        "daemon",
        "dawn up, until ready",
        "median",
        "ms",
        median(ready),
        &[],
        Some(150.0),
    );
    let home = Node::start(dawn, "home", None, "/ip4/127.0.0.1/udp/0/quic-v1").await;
    let lab = Node::start(dawn, "lab", Some(&home.ticket().await), "/ip4/127.0.0.1/udp/0/quic-v1").await;
    home.sees("lab:memory").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    report.add(
        "daemon",
        "an idle node with one peer",
        "resident",
        "MiB",
        home.resident().max(lab.resident()),
        &[],
        Some(35.0),
    );
}
