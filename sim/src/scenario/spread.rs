//! How long a change takes to reach everybody.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::NodeId;
use rand::seq::SliceRandom as _;

use super::{Size, running};
use crate::event::Time;
use crate::link::Weather;
use crate::member::Place;
use crate::network::Network;
use crate::report::{Bound, Report, percentile};

/// One second.
const PROMISED: Bound = Bound::AtMost(1_000.0);

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (nodes, changes) = match size {
        Size::Full => (1_000, 300),
        Size::Small => (60, 30),
    };
    let mut network = running(nodes, 3, Weather::FAIR, seed);
    let case = format!("{nodes} nodes, {changes} changes, 50 ms one way");
    measure(&mut network, changes, &case, PROMISED, report);
    report.ran(&network);
}

/// Lets so many nodes say something new, one after the other, and tells how long it took to be everywhere.
pub(super) fn measure(network: &mut Network, changes: usize, case: &str, bound: Bound, report: &mut Report) {
    const PAUSE: Duration = Duration::from_millis(330);
    const PATIENCE: Duration = Duration::from_secs(60);
    let before: Vec<_> = network.nodes.iter().map(|node| node.sent).collect();
    let mut places: Vec<Place> = network.up().collect();
    let hearers = places.len();
    places.shuffle(&mut network.chance);
    network.heard = Some(Vec::new());
    let mut said: BTreeMap<NodeId, (Time, Vec<Time>)> = BTreeMap::new();
    for place in places.into_iter().take(changes) {
        said.insert(network.nodes[place].member.id, (network.now(), Vec::new()));
        network.changes(place, 0, 1);
        network.run(PAUSE);
    }
    network.run(PATIENCE);
    for heard in network.heard.take().unwrap_or_default() {
        if let Some((at, heards)) = said.get_mut(&heard.of) {
            heards.push(heard.at - *at);
        }
    }
    let (mut each, mut last) = (Vec::new(), Vec::new());
    let mut missing = 0;
    for (_, heards) in said.values() {
        let times = heards.iter().map(|time| time.as_secs_f64() * 1e3);
        each.extend(times.clone());
        missing += hearers.saturating_sub(heards.len());
        last.push(times.fold(0.0, f64::max));
    }
    let bytes: u64 = network
        .nodes
        .iter()
        .zip(before)
        .map(|(node, before)| node.sent.gossip - before.gossip)
        .sum();
    report.add(case, "nodes that did not hear", "", missing as f64, Bound::AtMost(0.0));
    report.add(
        case,
        "heard by one, p50",
        "ms",
        percentile(&mut each, 50.0),
        Bound::None,
    );
    report.add(case, "heard by one, p99", "ms", percentile(&mut each, 99.0), bound);
    report.add(
        case,
        "heard by all, p50",
        "ms",
        percentile(&mut last, 50.0),
        Bound::None,
    );
    report.add(case, "heard by all, p99", "ms", percentile(&mut last, 99.0), bound);
    let each = bytes as f64 / (changes * hearers) as f64;
    report.add(case, "gossip sent, per change and node", "B", each, Bound::None);
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_change_reaches_everybody_within_a_second() {
        super::super::tests::keeps("spread", 1);
    }
}
