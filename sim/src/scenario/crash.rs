//! Nodes crash right after they said something, before it is stored, and begin again with clocks that are wrong.

use std::time::Duration;

use rand::RngExt as _;

use super::{Size, running};
use crate::link::Weather;
use crate::network::Network;
use crate::report::{Bound, Report};

const SETTLES: Duration = Duration::from_secs(300);

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (nodes, crashes) = match size {
        Size::Full => (200, 150),
        Size::Small => (30, 40),
    };
    let mut network = running(nodes, 3, Weather::FAIR, seed);
    let mut unstored = 0;
    for number in 0..crashes {
        let place = network.any();
        let version = number as u64 + 1;
        network.changes(place, 0, version);
        let pause = Duration::from_millis(network.chance.random_range(0..1_500));
        network.run(pause);
        unstored += usize::from(network.nodes[place].disk.is_behind());
        network.crash(place);
        let away = Duration::from_millis(network.chance.random_range(0..3_000));
        network.run(away);
        // A clock that was set back or ahead; never farther than others bear.
        network.nodes[place].skew = network.chance.random_range(-50..=50);
        network.start(place);
    }
    let took = network.until_equal(SETTLES);
    let case = format!("{nodes} nodes, {crashes} crashes");
    report.add(
        &case,
        "crashes that lost something",
        "",
        unstored as f64,
        Bound::AtLeast(1.0),
    );
    report.add(
        &case,
        "dots used twice",
        "",
        network.dots_used_twice as f64,
        Bound::AtMost(0.0),
    );
    report.add(
        &case,
        "proofs that an honest node lied",
        "",
        network.lies.len() as f64,
        Bound::AtMost(0.0),
    );
    let seconds = took.map_or(f64::INFINITY, |took| took.as_secs_f64());
    report.add(
        &case,
        "until all replicas are equal",
        "s",
        seconds,
        Bound::AtMost(SETTLES.as_secs_f64()),
    );
    report.add(
        &case,
        "agents that somebody lacks",
        "",
        lacking(&network) as f64,
        Bound::AtMost(0.0),
    );
    report.ran(&network);
}

fn lacking(network: &Network) -> usize {
    let all = || network.up();
    all().flat_map(|by| all().map(move |of| network.lacks(by, of))).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_crash_loses_nothing_that_the_node_still_has_and_no_dot_is_used_twice() {
        super::super::tests::keeps("crash", 1);
    }
}
