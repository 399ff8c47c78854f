//! A network is cut in two for ten minutes. Both sides change; then it heals.

use std::time::Duration;

use rand::RngExt as _;

use super::{Size, running};
use crate::link::Weather;
use crate::member::Place;
use crate::network::Network;
use crate::report::{Bound, Report};

const CUT: Duration = Duration::from_secs(600);
/// How long the two halves may take to be one again.
const HEALS: Duration = Duration::from_secs(600);

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (nodes, changes) = match size {
        Size::Full => (400, 60),
        Size::Small => (40, 10),
    };
    let mut network = running(nodes, 3, Weather::FAIR, seed);
    network.cut((0..nodes).map(|place| u8::from(place % 2 == 1)).collect());
    let mut version = 0;
    for _ in 0..changes {
        for side in 0..2 {
            version += 1;
            let place = side + 2 * network.chance.random_range(..nodes / 2);
            network.changes(place, network.nodes[place].agents.len() - 1, version);
        }
        network.run(CUT / changes);
    }
    let case = format!("{nodes} nodes, {changes} changes on each side");
    report.add(
        &case,
        "states of all while cut",
        "",
        network.states() as f64,
        Bound::AtLeast(2.0),
    );
    let offline = thought_gone(&network);
    report.add(
        &case,
        "pairs that think each other gone",
        "",
        offline as f64,
        Bound::None,
    );
    network.heal();
    let took = network.until_equal(HEALS);
    let seconds = took.map_or(f64::INFINITY, |took| took.as_secs_f64());
    report.add(
        &case,
        "until all replicas are equal",
        "s",
        seconds,
        Bound::AtMost(HEALS.as_secs_f64()),
    );
    let mut waited = Duration::ZERO;
    while thought_gone(&network) > 0 && waited < HEALS {
        network.run(Duration::from_secs(5));
        waited += Duration::from_secs(5);
    }
    report.add(
        &case,
        "pairs that think each other gone, then",
        "",
        thought_gone(&network) as f64,
        Bound::AtMost(0.0),
    );
    report.add(
        &case,
        "and until nobody is, more",
        "s",
        waited.as_secs_f64(),
        Bound::None,
    );
    report.add(
        &case,
        "states of all in the end",
        "",
        network.states() as f64,
        Bound::AtMost(1.0),
    );
    report.ran(&network);
}

/// How many pairs there are of which one thinks the other gone, while both are up.
pub(super) fn thought_gone(network: &Network) -> usize {
    let up: Vec<Place> = network.up().collect();
    let thinks = |by: Place| up.iter().filter(move |of| network.thinks_gone(by, **of)).count();
    up.iter().map(|by| thinks(*by)).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_halves_become_one_state() {
        super::super::tests::keeps("partition", 1);
    }
}
