//! What a node sends while nobody says anything: pings, comparisons, and what the discovery does for its table.

use std::time::Duration;

use super::{Size, running};
use crate::link::Weather;
use crate::node::Sent;
use crate::report::{Bound, Report, mean, percentile};

const PROMISED: Bound = Bound::AtMost(1_024.0);

/// Some of what a node sent.
type Part = fn(&Sent) -> u64;

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (nodes, span) = match size {
        Size::Full => (1_000, Duration::from_secs(3_600)),
        Size::Small => (40, Duration::from_secs(300)),
    };
    let mut network = running(nodes, 3, Weather::FAIR, seed);
    network.run(Duration::from_secs(120));
    network.nodes.iter_mut().for_each(|node| node.sent = Sent::default());
    let events = network.happened();
    network.run(span);
    let case = format!("{nodes} nodes, {} s", span.as_secs());
    let rate = |bytes: u64| bytes as f64 / span.as_secs_f64();
    let of = |part: Part| {
        network
            .nodes
            .iter()
            .map(|node| rate(part(&node.sent)))
            .collect::<Vec<f64>>()
    };
    let mut all = of(Sent::total);
    report.add(
        &case,
        "sent by a node, p50",
        "B/s",
        percentile(&mut all, 50.0),
        PROMISED,
    );
    report.add(
        &case,
        "sent by a node, most",
        "B/s",
        percentile(&mut all, 100.0),
        PROMISED,
    );
    let parts: [(&str, Part); 4] = [
        ("of which gossip, mean", |sent| sent.gossip),
        ("of which comparisons, mean", |sent| sent.sync),
        ("of which discovery, mean", |sent| sent.discovery),
        ("of which handshakes, mean", |sent| sent.handshakes),
    ];
    for (name, part) in parts {
        report.add(&case, name, "B/s", mean(&of(part)), Bound::None);
    }
    let mut links: Vec<f64> = network.up().map(|place| network.links_of(place) as f64).collect();
    report.add(
        &case,
        "links of a node, p50",
        "",
        percentile(&mut links, 50.0),
        Bound::None,
    );
    report.add(
        &case,
        "links of a node, most",
        "",
        percentile(&mut links, 100.0),
        Bound::None,
    );
    let events = (network.happened() - events) as f64;
    report.add(&case, "events simulated", "", events, Bound::None);
    report.ran(&network);
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_idle_node_sends_little() {
        super::super::tests::keeps("idle", 1);
    }
}
