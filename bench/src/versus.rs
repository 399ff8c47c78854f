//! Builds of Dawn beside each other: they take turns, so that a machine whose speed changes changes it for all.

use std::path::{Path, PathBuf};

use crate::call::{Http, Stdio0};
use crate::network::Node;
use crate::report::Report;

const ROUNDS: usize = 7;
/// Ways that are compared: over HTTP or not, payload, in flight.
const CASES: [(bool, usize, usize); 8] = [
    (true, 64, 1),
    (true, 64, 32),
    (false, 64, 32),
    (true, 64 << 10, 32),
    (true, 1 << 20, 16),
    (false, 1 << 20, 16),
    (true, 1 << 20, 128),
    (false, 1 << 20, 128),
];

/// Two nodes of one build.
struct Pair {
    name: String,
    home: Node,
    lab: Node,
}

/// Measures `dawn` beside other builds through two nodes: medians of rounds in turn.
pub(crate) async fn measure(dawn: &Path, others: &[PathBuf], agent: &Path, report: &mut Report) {
    let agent_path = agent.to_str().expect("a path");
    for listen in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
        let transport = if listen.contains("quic") { "QUIC" } else { "TCP" };
        let mut pairs = Vec::new();
        for build in std::iter::once(dawn).chain(others.iter().map(PathBuf::as_path)) {
            let home = Node::start(build, "home", None, listen).await;
            let lab = Node::start(build, "lab", Some(&home.ticket().await), listen).await;
            let _added = lab.run(&["agent", "add", "echo", "--", agent_path, "--raw-echo"]).await;
            home.sees("lab:echo").await;
            pairs.push(Pair {
                name: build.display().to_string(),
                home,
                lab,
            });
        }
        for (http, size, in_flight) in CASES {
            let mut rates = vec![Vec::new(); pairs.len()];
            for round in 0..ROUNDS {
                for turn in 0..pairs.len() {
                    let index = if round % 2 == 0 { turn } else { pairs.len() - 1 - turn };
                    let pair = &pairs[index];
                    let figures = if http {
                        let url = format!("{}/mcp/lab/echo", pair.home.api);
                        let client = Http::open(&url, Some(&pair.home.token)).await;
                        client.measure(size, in_flight).await
                    } else {
                        let mut client = Stdio0::start(pair.home.command(&["mcp", "lab:echo"])).await;
                        client.measure(size, in_flight).await
                    };
                    rates[index].push(figures.per_second);
                }
            }
            let medians: Vec<f64> = rates.into_iter().map(median).collect();
            let way = if http { "HTTP" } else { "stdio" };
            let case = format!("{way}, two nodes, {transport}, {size} B, {in_flight} in flight");
            let beside: Vec<(&str, f64)> = named(&pairs, &medians[1..]);
            report.add("versus", &case, "rate", "call/s", medians[0], &beside, None);
            for (metric, node) in [("client node", true), ("agent node", false)] {
                let resident: Vec<f64> = pairs
                    .iter()
                    .map(|pair| if node { &pair.home } else { &pair.lab }.resident())
                    .collect();
                report.add(
                    "versus",
                    &format!("after {case}"),
                    metric,
                    "MiB",
                    resident[0],
                    &named(&pairs, &resident[1..]),
                    None,
                );
            }
        }
    }
}

fn named<'a>(pairs: &'a [Pair], values: &[f64]) -> Vec<(&'a str, f64)> {
    let names = pairs[1..].iter().map(|pair| pair.name.as_str());
    names.zip(values.iter().copied()).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
