//! A node with many links stops and returns, and then a tenth of the network does at once: how many try to reach one node
//! within a second.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Size, running};
use crate::event::Time;
use crate::link::Weather;
use crate::member::Place;
use crate::network::Network;
use crate::report::{Bound, Report};

/// How long they are away.
const AWAY: Duration = Duration::from_secs(120);
const AFTER: Duration = Duration::from_secs(120);
/// Tries to reach one node within a second: no more than the links it may have, twice.
const STAMPEDE: Bound = Bound::AtMost(24.0);

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let nodes = match size {
        Size::Full => 400,
        Size::Small => 60,
    };
    let mut network = running(nodes, 3, Weather::FAIR, seed);
    let popular = network.up().max_by_key(|place| network.links_of(*place)).unwrap_or(0);
    let links = network.links_of(popular);
    let case = format!("{nodes} nodes, one with {links} links");
    returns(&mut network, &[popular], &case, report);
    let tenth: Vec<Place> = (0..nodes / 10).collect();
    let case = format!("{nodes} nodes, {} of them at once", tenth.len());
    returns(&mut network, &tenth, &case, report);
    report.ran(&network);
}

fn returns(network: &mut Network, places: &[Place], case: &str, report: &mut Report) {
    places.iter().for_each(|place| network.crash(*place));
    network.dialled = Some(Vec::new());
    network.run(AWAY);
    let away = most_in_a_second(&network.dialled.replace(Vec::new()).unwrap_or_default());
    report.add(case, "tries a second, while away", "", away as f64, STAMPEDE);
    places.iter().for_each(|place| network.start(*place));
    network.run(AFTER);
    let back = most_in_a_second(&network.dialled.take().unwrap_or_default());
    report.add(case, "tries a second, after return", "", back as f64, STAMPEDE);
    let fewest = places
        .iter()
        .map(|place| network.links_of(*place))
        .min()
        .unwrap_or_default();
    report.add(case, "links again, fewest", "", fewest as f64, Bound::AtLeast(1.0));
}

/// The most tries to reach one node within any second.
fn most_in_a_second(dialled: &[(Time, Place)]) -> usize {
    let mut seconds: BTreeMap<(Place, u64), usize> = BTreeMap::new();
    for (at, place) in dialled {
        *seconds.entry((*place, at.as_secs())).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_stampedes_when_nodes_return() {
        super::super::tests::keeps("popular", 1);
    }
}
