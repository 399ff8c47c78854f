//! A new node comes into a running network with an invite: it knows one member.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Size;
use crate::event::Time;
use crate::link::Weather;
use crate::member::{Place, agent, summary};
use crate::network::Network;
use crate::report::{Bound, Report};

/// Milliseconds until it knows everything.
const COMPLETE: Bound = Bound::AtMost(10_000.0);
/// Milliseconds until all know it, after it began.
const KNOWN: Bound = Bound::AtMost(5_000.0);
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let nodes = match size {
        Size::Full => 1_000,
        Size::Small => 50,
    };
    let mut network = Network::new(nodes + 1, Weather::FAIR, seed);
    network.settled(nodes, 3);
    network.start_settled(0..nodes, Duration::from_secs(30));
    network.run(Duration::from_secs(60));
    let newcomer = nodes;
    let names = (0..3).map(agent);
    network.nodes[newcomer].agents = names.map(|name| (name.clone(), summary(&name, 0))).collect();
    let before: u64 = network.nodes.iter().map(|node| node.sent.sync).sum();
    let known = network.any();
    let began = network.now();
    network.heard = Some(Vec::new());
    network.join(newcomer, known);
    let id = network.nodes[newcomer].member.id;
    let is_complete = |network: &Network| (0..nodes).all(|of| network.lacks(newcomer, of) == 0);
    while !is_complete(&network) && network.now() < began + PATIENCE {
        network.run(Duration::from_millis(50));
    }
    let complete = network.now() - began;
    network.run(Duration::from_secs(30));
    let after: u64 = network.nodes.iter().map(|node| node.sent.sync).sum();
    let heard = network.heard.take().unwrap_or_default();
    let mut first: BTreeMap<Place, Time> = BTreeMap::new();
    for heard in heard.iter().filter(|heard| heard.of == id) {
        first.entry(heard.by).or_insert(heard.at - began);
    }
    let by_all = first.into_values().max();
    let lack = |by: &Place| network.lacks(*by, newcomer) > 0;
    let case = format!("{nodes} nodes");
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    report.add(
        &case,
        "until it knows everything",
        "ms",
        milliseconds(complete),
        COMPLETE,
    );
    let by_all = by_all.map_or(f64::INFINITY, milliseconds);
    report.add(&case, "until the last has heard of it", "ms", by_all, KNOWN);
    let lacking = network.up().filter(lack).count() as f64;
    report.add(&case, "nodes that do not know it", "", lacking, Bound::AtMost(0.0));
    let held = network.nodes[newcomer].replica.bytes() as f64 / 1024.0;
    report.add(
        &case,
        "comparisons of all, sent",
        "KiB",
        (after - before) as f64 / 1024.0,
        Bound::None,
    );
    report.add(&case, "what it then holds", "KiB", held, Bound::None);
    report.ran(&network);
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_newcomer_is_complete_soon_and_known_to_all() {
        super::super::tests::keeps("join", 1);
    }
}
