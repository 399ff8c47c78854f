//! A network that loses a tenth of everything, holds up a tenth, and is never equally fast.

use std::time::Duration;

use super::{Size, running, spread};
use crate::link::Weather;
use crate::report::{Bound, Report};

const SETTLES: Duration = Duration::from_secs(300);
/// Milliseconds: a round trip more for what is lost, several times on the way.
const SPREADS: Bound = Bound::AtMost(5_000.0);

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (nodes, changes) = match size {
        Size::Full => (200, 100),
        Size::Small => (40, 15),
    };
    let mut network = running(nodes, 3, Weather::FOUL, seed);
    network.wrongly_gone = 0;
    let case = format!("{nodes} nodes, 10 % lost, 10 % held up");
    spread::measure(&mut network, changes, &case, SPREADS, report);
    network.run(SETTLES);
    report.add(
        &case,
        "states of all in the end",
        "",
        network.states() as f64,
        Bound::AtMost(1.0),
    );
    report.add(
        &case,
        "times a live node was thought gone",
        "",
        network.wrongly_gone as f64,
        Bound::AtMost(0.0),
    );
    report.ran(&network);
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_lost_comes_in_the_end() {
        super::super::tests::keeps("lossy", 1);
    }
}
