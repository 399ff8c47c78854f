//! Who is there is known everywhere, and who is stopped, lost or lied about.

use std::collections::BTreeSet;

use super::harness::{Network, ONE_WAY, SECOND, small};
use crate::{Event, Presence};

const ONLINE: Option<Presence> = Some(Presence::Online);
const OFFLINE: Option<Presence> = Some(Presence::Offline);

/// A network in which everybody has heard of everybody.
fn settled(size: usize, seed: u64) -> Network {
    let mut network = Network::new(size, seed, &small());
    network.run(40 * SECOND);
    for node in network.order.clone() {
        assert_eq!(network.seen_as(node), BTreeSet::from([ONLINE]));
    }
    forget(&mut network);
    network
}

fn forget(network: &mut Network) {
    network.nodes.values_mut().for_each(|node| node.events.clear());
}

/// How many times somebody was told such a thing.
fn told(network: &Network, is_such: impl Fn(&Event) -> bool) -> usize {
    let events = network.nodes.values().flat_map(|node| &node.events);
    events.filter(|(_, event)| is_such(event)).count()
}

#[test]
fn a_node_that_stops_without_a_word_is_offline_everywhere() {
    for (size, is_noticed, within) in [(3, true, 10), (3, false, 16), (24, true, 12), (24, false, 20)] {
        let mut network = settled(size, 1);
        let gone = network.pick();
        network.crash(gone, is_noticed);
        network.run(within * SECOND);
        assert_eq!(network.seen_as(gone), BTreeSet::from([OFFLINE]), "{size} {is_noticed}");
        let others = told(&network, |event| matches!(event, Event::Offline(node) if *node != gone));
        assert_eq!(others, 0);
        // It comes back, and that is known as fast as news are.
        network.start(gone);
        network.run(8 * SECOND);
        assert_eq!(network.seen_as(gone), BTreeSet::from([ONLINE]));
        network.run(20 * SECOND);
        let sees: BTreeSet<_> = network
            .order
            .iter()
            .map(|node| network.nodes[&gone].gossip.presence(node))
            .collect();
        assert_eq!(sees, BTreeSet::from([ONLINE]));
    }
}

#[test]
fn a_node_that_leaves_is_offline_at_once_and_suspected_by_nobody() {
    let mut network = settled(24, 2);
    let gone = network.pick();
    network.leave(gone);
    network.run(SECOND);
    assert_eq!(network.seen_as(gone), BTreeSet::from([OFFLINE]));
    network.run(30 * SECOND);
    assert_eq!(told(&network, |event| matches!(event, Event::Suspected(_))), 0);
    network.start(gone);
    network.run(8 * SECOND);
    assert_eq!(network.seen_as(gone), BTreeSet::from([ONLINE]));
}

#[test]
fn a_link_that_breaks_and_comes_back_makes_nobody_suspected() {
    let mut network = settled(10, 3);
    let [one, two] = [network.order[0], network.order[1]];
    for _ in 0..3 {
        network.cut(one, two);
        network.run(30 * SECOND);
        assert!(network.nodes[&one].gossip.links().any(|node| node == two));
    }
    assert_eq!(told(&network, |event| matches!(event, Event::Suspected(_))), 0);
}

#[test]
fn a_link_that_stays_broken_makes_its_ends_suspected_and_both_refute_it() {
    let mut network = settled(10, 4);
    let [one, two] = [network.order[0], network.order[1]];
    network.reaches = |from, to| {
        let pair = [super::harness::id(0), super::harness::id(1)];
        !(pair.contains(&from) && pair.contains(&to))
    };
    network.cut(one, two);
    network.run(60 * SECOND);
    let suspected = told(
        &network,
        |event| matches!(event, Event::Suspected(node) if [one, two].contains(node)),
    );
    assert!(suspected > 0);
    assert_eq!(told(&network, |event| matches!(event, Event::Offline(_))), 0);
    for node in [one, two] {
        assert_eq!(network.seen_as(node), BTreeSet::from([ONLINE]));
    }
}

#[test]
fn a_node_that_was_asleep_refutes_what_was_said_and_accuses_nobody() {
    for size in [5, 24] {
        let mut network = settled(size, 5);
        let asleep = network.pick();
        network.stop(asleep, 60 * SECOND);
        network.run(50 * SECOND);
        assert_eq!(network.seen_as(asleep), BTreeSet::from([OFFLINE]));
        network.run(40 * SECOND);
        assert_eq!(network.seen_as(asleep), BTreeSet::from([ONLINE]));
        let others = told(
            &network,
            |event| matches!(event, Event::Suspected(node) if *node != asleep),
        );
        assert_eq!(others, 0, "{size}");
        // A short sleep is hardly noticed.
        forget(&mut network);
        network.stop(asleep, 4 * SECOND);
        network.run(30 * SECOND);
        assert_eq!(told(&network, |event| matches!(event, Event::Offline(_))), 0);
    }
}

#[test]
fn lost_messages_make_nobody_offline() {
    let mut network = settled(24, 6);
    network.loss = 50;
    network.run(200 * SECOND);
    assert_eq!(told(&network, |event| matches!(event, Event::Offline(_))), 0);
}

#[test]
fn a_network_that_was_cut_in_two_finds_together() {
    for size in [8, 30] {
        let mut network = settled(size, 7);
        let part: Vec<_> = network.order.iter().copied().skip(size / 2).collect();
        for node in &part {
            network.nodes.get_mut(node).unwrap().part = 1;
        }
        for number in 0..4 {
            let node = network.pick();
            network.publish(node, number);
        }
        network.run(120 * SECOND);
        assert_eq!(network.nodes[&network.order[0]].gossip.presence(&part[0]), OFFLINE);
        for node in &part {
            network.nodes.get_mut(node).unwrap().part = 0;
        }
        network.run(120 * SECOND);
        for node in network.order.clone() {
            assert_eq!(network.seen_as(node), BTreeSet::from([ONLINE]), "{size}");
        }
        assert!(network.nodes.values().all(|node| node.has.len() == 4));
    }
}

#[test]
fn a_word_of_a_node_that_is_no_member_yet_counts_when_it_is_one() {
    let mut network = settled(3, 8);
    let new = super::harness::id(100);
    let old = network.order.clone();
    network.order.push(new);
    network.start(new);
    network.run(10 * SECOND);
    assert!(
        old.iter()
            .all(|node| network.nodes[node].gossip.presence(&new).is_none())
    );
    assert!(old.iter().any(|node| network.nodes[node].gossip.size().early == 1));
    for node in old {
        let now = network.now;
        network.with(node, |gossip| gossip.add_member(new, now));
    }
    network.run(2 * ONE_WAY);
    assert_eq!(network.seen_as(new), BTreeSet::from([ONLINE]));
    let now = network.now;
    let node = network.order[0];
    network.with(node, |gossip| gossip.remove_member(&new, now));
    assert_eq!(network.nodes[&node].gossip.presence(&new), None);
    assert!(network.nodes[&node].gossip.links().all(|node| node != new));
}
