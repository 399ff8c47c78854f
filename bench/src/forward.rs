//! The same tool call directly, over one member in between, and over three: nodes in a row of network namespaces, each of
//! which has a cable to the next only.

use std::path::Path;

use crate::call::{Figures, Stdio0};
use crate::network::Node;
use crate::report::Report;

const SIZES: [(&str, usize); 3] = [("64 B", 64), ("1 KiB", 1 << 10), ("64 KiB", 64 << 10)];
const IN_FLIGHT: [usize; 2] = [1, 32];
/// Who is measured from the first: how far away, in members in between.
const HOPS: [(usize, &str); 2] = [(1, "one hop"), (3, "three hops")];

/// Network namespaces in a row.
struct Row(Vec<String>);

fn ip(args: &[&str]) -> bool {
    let output = std::process::Command::new("ip").args(args).output();
    output.is_ok_and(|output| output.status.success())
}

impl Row {
    /// `None` where no namespaces can be made.
    fn lay(count: usize) -> Option<Self> {
        let mut row = Self(Vec::new());
        for at in 0..count {
            let space = format!("dawn-bench{}-{at}", std::process::id());
            if !ip(&["netns", "add", &space]) {
                return None;
            }
            row.0.push(space.clone());
            assert!(ip(&["-n", &space, "link", "set", "lo", "up"]), "a loopback");
        }
        for at in 1..count {
            row.cable("row", at - 1, at);
        }
        Some(row)
    }

    fn cable(&self, name: &str, a: usize, b: usize) {
        let ends = [
            (&self.0[a], format!("{name}{b}"), 1),
            (&self.0[b], format!("{name}{a}"), 2),
        ];
        let [(near, device, _), (far, other, _)] = &ends;
        let made = ip(&[
            "-n", near, "link", "add", device, "type", "veth", "peer", "name", other, "netns", far,
        ]);
        assert!(made, "a cable");
        let net = if name == "row" { 97 } else { 96 };
        for (space, device, end) in &ends {
            let address = format!("10.{net}.{b}.{end}/24");
            assert!(ip(&["-n", space, "addr", "add", &address, "dev", device]), "an address");
            assert!(ip(&["-n", space, "link", "set", device, "up"]), "a device");
        }
    }

    /// Takes a cable from the first away.
    fn unplug(&self, name: &str, b: usize) {
        assert!(ip(&["-n", &self.0[0], "link", "del", &format!("{name}{b}")]), "a cable");
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        for space in &self.0 {
            // What is gone already is as good.
            let _gone = ip(&["netns", "del", space]);
        }
    }
}

fn add(report: &mut Report, case: &str, ours: &Figures, direct: &Figures) {
    let mut row = |metric, unit, of: fn(&Figures) -> f64| {
        report.add("forward", case, metric, unit, of(ours), &[("direct", of(direct))], None);
    };
    row("p50", "ms", |figures| figures.p50_ms);
    row("p99", "ms", |figures| figures.p99_ms);
    row("rate", "call/s", |figures| figures.per_second);
}

/// Measures every transport, distance, size and number in flight.
pub(crate) async fn measure(dawn: &Path, agent: &Path, report: &mut Report) {
    let agent_path = agent.to_str().expect("a path");
    for (transport, listen) in [("QUIC", "/ip4/0.0.0.0/udp/0/quic-v1"), ("TCP", "/ip4/0.0.0.0/tcp/0")] {
        let Some(row) = Row::lay(HOPS[1].0 + 2) else {
            println!("forward: left out, as no network namespaces can be made here");
            return;
        };
        let mut nodes: Vec<Node> = Vec::new();
        for (at, space) in row.0.iter().enumerate() {
            // Who is far away joins over a cable to the first, which is then taken away.
            let is_far = at > 1;
            if is_far {
                row.cable("join", 0, at);
            }
            let ticket = match nodes.first() {
                Some(first) => Some(first.ticket().await),
                None => None,
            };
            let node = Node::start_in(dawn, &format!("n{at}"), ticket.as_deref(), listen, Some(space), "").await;
            if is_far {
                node.is_direct(&format!("n{}", at - 1), true).await;
                row.unplug("join", at);
                nodes[0].is_direct(&format!("n{at}"), false).await;
            }
            nodes.push(node);
        }
        let first = &nodes[0];
        for (at, node) in nodes.iter().enumerate().skip(1) {
            let _added = node
                .run(&["agent", "add", "echo", "--", agent_path, "--raw-echo"])
                .await;
            first.sees(&format!("n{at}:echo")).await;
        }
        for size in SIZES {
            for in_flight in IN_FLIGHT {
                let mut client = Stdio0::start(first.command(&["mcp", "n1:echo"])).await;
                let direct = client.measure(size.1, in_flight).await;
                for (hops, words) in HOPS {
                    let agent = format!("n{}:echo", hops + 1);
                    let mut client = Stdio0::start(first.command(&["mcp", &agent])).await;
                    let figures = client.measure(size.1, in_flight).await;
                    let pinged = first.run(&["ping", &format!("n{}", hops + 1)]).await;
                    let via = pinged["via"].as_array().map_or(0, Vec::len);
                    assert_eq!(via, hops, "{pinged}");
                    let case = format!("{words}, {transport}, {}, {in_flight} in flight", size.0);
                    add(report, &case, &figures, &direct);
                }
            }
        }
    }
}
