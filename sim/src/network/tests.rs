//! What the simulator itself promises.

use std::time::Duration;

use super::*;

/// A run with everything in it: changes, a crash, a cut, bad weather.
fn run(seed: u64) -> (String, u64) {
    const NODES: usize = 25;
    let mut network = Network::new(NODES, Weather::FOUL, seed);
    network.settled(NODES, 2);
    network.start_settled(0..NODES, Duration::from_secs(5));
    for version in 1..10 {
        let place = network.any();
        network.changes(place, 0, version);
        network.run(Duration::from_millis(700));
    }
    let place = network.any();
    network.crash(place);
    network.cut((0..NODES).map(|place| u8::from(place % 2 == 1)).collect());
    network.run(Duration::from_secs(30));
    network.heal();
    network.start(place);
    network.run(Duration::from_secs(60));
    (network.trace(), network.happened())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let (trace, events) = run(7);
    assert!(events > 1_000);
    assert_eq!((trace.clone(), events), run(7));
    assert_ne!(trace, run(8).0);
}

#[test]
fn nothing_comes_from_one_part_of_a_cut_network_to_another() {
    let mut network = Network::new(2, Weather::FAIR, 1);
    network.settled(2, 1);
    network.start_settled(0..2, Duration::from_secs(1));
    network.run(Duration::from_secs(10));
    network.cut(vec![0, 1]);
    network.changes(0, 0, 1);
    network.run(Duration::from_secs(60));
    assert_eq!(network.lacks(1, 0), 1);
    network.heal();
    assert!(network.until_equal(Duration::from_secs(120)).is_some());
    assert_eq!(network.lacks(1, 0), 0);
}

#[test]
fn a_crash_loses_what_was_not_stored_and_keeps_what_was() {
    let mut network = Network::new(1, Weather::FAIR, 1);
    network.settled(1, 1);
    network.start_settled([0], Duration::ZERO);
    network.changes(0, 0, 1);
    network.run(Duration::from_secs(5));
    let stored = network.nodes[0].replica.fingerprint();
    network.changes(0, 0, 2);
    let epoch = network.nodes[0].replica.epoch();
    network.crash(0);
    let node = &mut network.nodes[0];
    node.begins(&network.roll, &network.signatures, Duration::from_secs(6));
    assert_eq!(node.replica.fingerprint(), stored);
    assert!(node.replica.epoch() > epoch);
}
