//! Members that have links with one host alone.

use std::collections::BTreeSet;

use dawn_identity::NodeId;

use super::harness::{Network, SECOND, id, small};
use crate::{Event, Presence};

/// A star: all nodes but the host have links with the host alone, and everybody knows it.
fn make_star(network: &mut Network, host: NodeId) {
    let now = network.now;
    network.with(host, |gossip| gossip.set_hub(true));
    for node in network.order.clone().into_iter().filter(|node| *node != host) {
        network.with(node, |gossip| gossip.set_only(Some(host), now));
    }
}

fn links(network: &Network, node: NodeId) -> BTreeSet<NodeId> {
    network.nodes[&node].gossip.links().collect()
}

#[test]
fn in_a_star_of_any_size_each_has_the_host_alone_and_hears_everything() {
    for (size, seed) in [(8, 1), (60, 2)] {
        let mut network = Network::new(size, seed, &small());
        network.run(30 * SECOND);
        let host = id(0);
        make_star(&mut network, host);
        network.run(120 * SECOND);
        assert_eq!(links(&network, host).len(), size - 1);
        for node in &network.order[1..] {
            assert_eq!(links(&network, *node), BTreeSet::from([host]));
        }
        let begun = network.now;
        let news = network.publish(id(3), 1);
        network.run(2 * SECOND);
        let took = network.took(&news, begun);
        assert!(took.iter().all(Option::is_some), "{took:?}");
        let suspected = network.nodes.values().flat_map(|node| &node.events);
        let suspected = suspected.filter(|(at, event)| *at > begun && matches!(event, Event::Suspected(_)));
        assert_eq!(suspected.count(), 0, "who gives links up says so");
    }
}

#[test]
fn the_end_of_one_that_only_the_host_has_is_known_to_all() {
    let mut network = Network::new(8, 3, &small());
    network.run(20 * SECOND);
    make_star(&mut network, id(0));
    network.run(20 * SECOND);
    network.crash(id(5), true);
    network.run(20 * SECOND);
    assert_eq!(network.seen_as(id(5)), BTreeSet::from([Some(Presence::Offline)]));
    network.start(id(5));
    let now = network.now;
    network.with(id(5), |gossip| gossip.set_only(Some(id(0)), now));
    network.run(60 * SECOND);
    assert_eq!(network.seen_as(id(5)), BTreeSet::from([Some(Presence::Online)]));
}

#[test]
fn when_the_host_is_back_all_come_back_to_it() {
    let mut network = Network::new(8, 4, &small());
    network.run(20 * SECOND);
    make_star(&mut network, id(0));
    network.run(20 * SECOND);
    network.crash(id(0), true);
    network.run(60 * SECOND);
    assert!(network.order[1..].iter().all(|node| links(&network, *node).is_empty()));
    network.start(id(0));
    network.with(id(0), |gossip| gossip.set_hub(true));
    network.run(90 * SECOND);
    assert_eq!(links(&network, id(0)).len(), 7);
}

#[test]
fn who_is_apart_is_not_tried_until_it_is_so_no_more() {
    let mut network = Network::new(6, 5, &small());
    network.run(20 * SECOND);
    let (apart, host, now) = (id(5), id(0), network.now);
    for node in network.order.clone() {
        match node {
            node if node == apart => network.with(node, |gossip| gossip.set_only(Some(host), now)),
            node if node == host => {}
            node => network.with(node, |gossip| gossip.set_apart(apart, true, now)),
        }
    }
    network.run(60 * SECOND);
    let tried = |network: &Network| {
        let dials = network.dials.iter().filter(|(at, ..)| *at > now);
        dials.filter(|(_, from, to)| *to == apart && *from != host).count()
    };
    assert_eq!((links(&network, apart), tried(&network)), (BTreeSet::from([host]), 0));
    let now = network.now;
    network.with(apart, |gossip| gossip.set_only(None, now));
    for node in network.order.clone() {
        network.with(node, |gossip| gossip.set_apart(apart, false, now));
    }
    network.run(60 * SECOND);
    assert_eq!(links(&network, apart).len(), 5);
}
