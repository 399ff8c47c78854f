//! Lookups of what nodes provide, in networks that grew one node after the other, with all alive and with some dead whom
//! nobody has noticed yet.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_kademlia::{Event, Key, LookupId};
use rand::RngExt as _;

use super::Size;
use crate::event::Time;
use crate::link::Weather;
use crate::member::Place;
use crate::network::Network;
use crate::report::{Bound, Report, mean, percentile};

/// How much more hops each doubling may cost between the second size and the third than between the first and the second:
/// the means of a thousand lookups vary by some hundredths.
const MARGIN: f64 = 1.25;
/// Lookups that are under way at once, each from another node.
const AT_ONCE: usize = 50;

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (sizes, lookups): (&[usize], usize) = match size {
        Size::Full => (&[100, 1_000, 5_000], 1_000),
        Size::Small => (&[20, 40, 80], 50),
    };
    let mut hops = Vec::new();
    for nodes in sizes {
        let mut network = grown(*nodes, seed);
        let keys = provided(&mut network, lookups / 5);
        for dead in [0, 10, 20] {
            let gone = nodes * dead / 100 - network.nodes.iter().filter(|node| !node.is_up).count();
            for _ in 0..gone {
                let place = network.any();
                network.nodes[place].is_up = false;
            }
            let found = look(&mut network, &keys, lookups);
            let case = match dead {
                0 => format!("{nodes} nodes"),
                dead => format!("{nodes} nodes, {dead} % of them dead unnoticed"),
            };
            tell(&case, &found, lookups, report);
            if dead == 0 {
                hops.push((*nodes as f64, report.last()));
            }
        }
        report.ran(&network);
    }
    // Hops that each doubling of the network costs: the same everywhere if hops grow as the logarithm, more and more if
    // they grow faster.
    let slope = |from: (f64, f64), to: (f64, f64)| (to.1 - from.1) / (to.0 / from.0).log2();
    // A few dozen nodes all know each other.
    if let (Size::Full, [a, b, c]) = (size, &hops[..]) {
        let (a, b, c) = (*a, *b, *c);
        let (before, after) = (slope(a, b), slope(b, c));
        let case = |from: (f64, f64), to: (f64, f64)| format!("from {} to {} nodes", from.0, to.0);
        report.add(&case(a, b), "hops of each doubling", "", before, Bound::AtMost(1.0));
        report.add(
            &case(b, c),
            "hops of each doubling",
            "",
            after,
            Bound::AtMost(before * MARGIN),
        );
    }
}

/// A network into which one node after the other came, each knowing one that was there.
fn grown(nodes: usize, seed: u64) -> Network {
    let mut network = Network::new(nodes, Weather::FAIR, seed);
    for place in 0..nodes {
        let known = (place > 0).then(|| network.chance.random_range(..place));
        network.nodes[place].is_up = true;
        if let Some(known) = known {
            network.discovers(place, known);
        }
        network.run(Duration::from_millis(200));
    }
    network.run(Duration::from_secs(60));
    network
}

/// Things that nodes provide, each by one.
fn provided(network: &mut Network, count: usize) -> Vec<Key> {
    let keys: Vec<Key> = (0..count)
        .map(|number| Key::capability(&format!("model-{number}")))
        .collect();
    for key in &keys {
        let (place, now) = (network.any(), network.now());
        network.nodes[place].kademlia.provide(*key, now);
        network.settle_discovery(place);
        network.run(Duration::from_millis(20));
    }
    network.run(Duration::from_secs(20));
    network
        .nodes
        .iter_mut()
        .for_each(|node| while node.kademlia.poll_event().is_some() {});
    keys
}

/// A lookup that came to its end.
struct Found {
    is_found: bool,
    hops: f64,
    asked: f64,
    took: f64,
}

fn look(network: &mut Network, keys: &[Key], count: usize) -> Vec<Found> {
    /// Longer than a lookup with some slow members takes.
    const PATIENCE: Duration = Duration::from_secs(30);
    const STEP: Duration = Duration::from_millis(25);
    let mut found = Vec::new();
    for begun in (0..count).step_by(AT_ONCE) {
        let mut open: BTreeMap<(Place, LookupId), Time> = BTreeMap::new();
        for number in begun..count.min(begun + AT_ONCE) {
            let (place, now) = (network.any(), network.now());
            let node = &mut network.nodes[place];
            let wall = node.wall(now);
            let lookup = node.kademlia.find_providers(keys[number % keys.len()], 1, now, wall);
            open.insert((place, lookup.expect("few are under way")), now);
            network.settle_discovery(place);
        }
        let until = network.now() + PATIENCE;
        while network.now() < until && !open.is_empty() {
            network.run(STEP);
            let now = network.now();
            let places: Vec<Place> = open.keys().map(|(place, _)| *place).collect();
            for place in places {
                while let Some(event) = network.nodes[place].kademlia.poll_event() {
                    let Event::Found(lookup, outcome) = event else {
                        continue;
                    };
                    let Some(since) = open.remove(&(place, lookup)) else {
                        continue;
                    };
                    found.push(Found {
                        is_found: !outcome.providers.is_empty(),
                        hops: f64::from(outcome.hops),
                        asked: f64::from(outcome.asked),
                        took: (now - since).as_secs_f64() * 1e3,
                    });
                }
            }
        }
    }
    found
}

fn tell(case: &str, found: &[Found], lookups: usize, report: &mut Report) {
    let successes = found.iter().filter(|found| found.is_found).count();
    let rate = successes as f64 / lookups as f64 * 100.0;
    let of = |figure: fn(&Found) -> f64| found.iter().map(figure).collect::<Vec<f64>>();
    report.add(case, "lookups that found it", "%", rate, Bound::AtLeast(99.0));
    report.add(
        case,
        "members asked, mean",
        "",
        mean(&of(|found| found.asked)),
        Bound::None,
    );
    report.add(
        case,
        "time, p99",
        "ms",
        percentile(&mut of(|found| found.took), 99.0),
        Bound::None,
    );
    report.add(
        case,
        "hops, p99",
        "",
        percentile(&mut of(|found| found.hops), 99.0),
        Bound::None,
    );
    report.add(case, "hops, mean", "", mean(&of(|found| found.hops)), Bound::None);
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_provided_is_found_in_a_small_network_also_with_dead_members() {
        let report = super::super::tests::keeps("kademlia", 1);
        assert!(report.value("80 nodes", "hops, mean").unwrap() >= 0.5);
    }
}
