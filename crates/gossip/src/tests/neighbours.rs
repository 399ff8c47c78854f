//! With whom nodes keep links, and how they come back.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::NodeId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::harness::{Hashing, Network, SECOND, id, network, small};
use crate::message::Message;
use crate::word::{Says, Word};
use crate::{Action, Config, Event, Gossip};

fn links(network: &Network) -> Vec<usize> {
    network.live().map(|(_, node)| node.gossip.links().count()).collect()
}

/// Most dials of one node within a second.
fn most_dials(network: &Network, to: NodeId, since: Duration) -> usize {
    let mut by_second: BTreeMap<u64, usize> = BTreeMap::new();
    let dials = network.dials.iter().filter(|(at, _, node)| *node == to && *at >= since);
    dials.for_each(|(at, ..)| *by_second.entry(at.as_secs()).or_default() += 1);
    by_second.into_values().max().unwrap_or_default()
}

/// How often one node dialled another.
fn dials(network: &Network, from: NodeId, to: NodeId, since: Duration) -> usize {
    let dials = network.dials.iter().filter(|(at, ..)| *at >= since);
    dials.filter(|(_, one, two)| (*one, *two) == (from, to)).count()
}

/// One more member, which all others know at once.
fn join(network: &mut Network, new: NodeId) {
    network.order.push(new);
    for node in network.order.clone() {
        let now = network.now;
        if network.nodes.contains_key(&node) {
            network.with(node, |gossip| gossip.add_member(new, now));
        }
    }
    network.start(new);
}

#[test]
fn few_members_are_all_linked_and_each_link_is_dialled_once() {
    let mut network = Network::new(16, 1, &small());
    network.run(20 * SECOND);
    assert_eq!(links(&network), [15; 16]);
    assert!(network.dials.len() <= 16 * 15 / 2 + 24, "{}", network.dials.len());
    let dials = network.dials.len();
    network.run(100 * SECOND);
    assert_eq!((links(&network), network.dials.len()), (vec![15; 16], dials));
}

#[test]
fn many_members_have_some_links_each_and_keep_mixing() {
    let config = Config {
        rotate: 30 * SECOND,
        ..small()
    };
    let mut network = Network::new(40, 2, &config);
    network.run(40 * SECOND);
    let check = |network: &Network| {
        let links = links(network);
        let within = config.wanted..=config.most + config.wanted;
        assert!(links.iter().all(|links| within.contains(links)), "{links:?}");
    };
    check(&network);
    let before: Vec<Vec<NodeId>> = network.live().map(|(_, node)| node.gossip.links().collect()).collect();
    network.run(180 * SECOND);
    check(&network);
    let after: Vec<Vec<NodeId>> = network.live().map(|(_, node)| node.gossip.links().collect()).collect();
    let same = before
        .iter()
        .zip(&after)
        .map(|(before, after)| before.iter().filter(|node| after.contains(node)).count());
    let (same, all) = (same.sum::<usize>(), before.iter().map(Vec::len).sum::<usize>());
    assert!(same < all / 2, "{same} of {all} links are still there");
    let suspected = network.nodes.values().flat_map(|node| &node.events);
    let suspected = suspected.filter(|(_, event)| matches!(event, Event::Suspected(_)));
    assert_eq!(suspected.count(), 0, "who gives a link up says so");
}

#[test]
fn a_network_that_grows_keeps_its_links_within_bounds() {
    let mut network = Network::new(16, 3, &small());
    network.run(20 * SECOND);
    for number in 100..115 {
        join(&mut network, id(number));
        network.run(3 * SECOND);
    }
    network.run(60 * SECOND);
    assert!(
        links(&network).iter().all(|links| (4..=16).contains(links)),
        "{:?}",
        links(&network)
    );
}

#[test]
fn who_returns_is_not_dialled_by_all_at_once() {
    // Everybody knows everybody and can reach one node only, which is away for a while.
    let config = Config { most: 64, ..small() };
    let mut network = Network::new(40, 4, &config);
    network.reaches = |from, to| [from, to].contains(&id(0));
    let hub = id(0);
    for node in network.order.clone() {
        if node != hub {
            network.introduce(node, hub);
            for other in network.order.clone().into_iter().filter(|other| *other != hub) {
                network.cut(node, other);
            }
        }
    }
    network.run(20 * SECOND);
    assert_eq!(network.nodes[&hub].gossip.links().count(), 39);
    network.crash(hub, true);
    network.run(400 * SECOND);
    let since = network.now;
    network.start(hub);
    let mut most = 0;
    for _ in 0..150 {
        network.run(SECOND);
        most = most.max(most_dials(&network, hub, network.now - SECOND));
    }
    assert!(most <= 12, "{most} dials in a second");
    let linked = network.nodes[&hub].gossip.links().count();
    assert!(linked >= 36, "{linked} of 39 are back");
    assert!(most_dials(&network, hub, since) >= 1);
}

#[test]
fn who_has_no_other_link_gets_the_place_of_one_that_has_some() {
    let config = Config {
        full: 2,
        wanted: 1,
        most: 3,
        reach: 10_000 * SECOND,
        ..small()
    };
    let mut network = Network::new(12, 5, &config);
    network.run(60 * SECOND);
    let popular = network.order[0];
    let lonely = id(100);
    network.order.push(lonely);
    let now = network.now;
    for node in network.order.clone() {
        if node != lonely {
            network.with(node, |gossip| gossip.add_member(lonely, now));
        }
    }
    network.reaches = |from, to| from != id(100) || to == id(0);
    network.start(lonely);
    network.run(120 * SECOND);
    assert!(network.nodes[&lonely].gossip.links().any(|node| node == popular));
}

#[test]
fn churn_leaves_nobody_without_links() {
    let mut network = Network::new(40, 6, &small());
    network.run(30 * SECOND);
    for number in 0..6 {
        let gone = network.pick();
        network.crash(gone, false);
        network.run(30 * SECOND);
        network.start(gone);
        network.run(30 * SECOND);
        let since = network.now;
        let news = network.publish(gone, number);
        network.run(2 * SECOND);
        assert!(network.took(&news, since).iter().all(Option::is_some));
        assert!(links(&network).iter().all(|links| *links >= 2), "{:?}", links(&network));
    }
}

#[test]
fn who_drops_links_unread_is_tried_ever_more_seldom_and_is_suspected() {
    let mut network = Network::new(10, 7, &small());
    network.run(40 * SECOND);
    // It keeps one link, over which it says that it is there.
    let (liar, friend) = (id(0), id(1));
    network.drops = |by, from| by == id(0) && from != id(1);
    network.reaches = |from, _| from != id(0);
    network.nodes.values_mut().for_each(|node| node.events.clear());
    let since = network.now;
    let others = network
        .order
        .iter()
        .copied()
        .filter(|node| ![liar, friend].contains(node));
    let others: Vec<NodeId> = others.collect();
    others.iter().for_each(|node| network.cut(liar, *node));
    network.run(60 * SECOND);
    for node in others {
        let dials = dials(&network, node, liar, since);
        assert!((2..=20).contains(&dials), "{dials} dials in a minute");
    }
    let told = &network.nodes[&friend].events;
    assert!(told.iter().any(|(_, event)| *event == Event::Suspected(liar)));
}

#[test]
fn a_link_that_breaks_whenever_it_is_there_is_not_tried_without_a_pause() {
    let mut network = Network::new(10, 8, &small());
    network.run(40 * SECOND);
    let (one, two) = (id(0), id(1));
    let since = network.now;
    for _ in 0..300 {
        network.cut(one, two);
        network.run(SECOND / 5);
    }
    let dials = dials(&network, one, two, since) + dials(&network, two, one, since);
    assert!((4..=120).contains(&dials), "{dials} dials in a minute");
    network.run(60 * SECOND);
    assert!(network.nodes[&one].gossip.links().any(|node| node == two));
}

/// What a node without links says first.
fn hello(node: NodeId) -> Vec<u8> {
    let word = Word {
        node,
        incarnation: 1,
        says: Says::Alive,
    };
    Message::Hello(0, word.sign(&network(), &Hashing(node))).encode()
}

#[test]
fn who_begins_its_link_anew_gets_it_where_there_is_no_room_for_others() {
    let config = Config {
        full: 1,
        wanted: 1,
        most: 1,
        ..small()
    };
    let now = 10 * SECOND;
    let mut gossip = Gossip::new(id(0), network(), 1, config, Hashing(id(0)));
    (1..20).for_each(|node| gossip.add_member(id(node), now));
    // What a link that begins leads to.
    let begin = |gossip: &mut Gossip<Hashing>, node, now| {
        gossip.link_up(node, now);
        std::iter::from_fn(|| gossip.poll_action()).collect::<Vec<Action>>()
    };
    begin(&mut gossip, id(1), now);
    gossip.receive(id(1), &hello(id(1)), now).unwrap();
    for node in 2..10 {
        begin(&mut gossip, id(node), now);
    }
    let goodbye = Message::Bye.encode();
    let refused = [
        Action::Send {
            to: id(10),
            bytes: goodbye,
        },
        Action::Disconnect(id(10)),
    ];
    assert_eq!(begin(&mut gossip, id(10), now), refused);
    let anew = begin(&mut gossip, id(1), now + SECOND);
    assert!(
        matches!(anew.as_slice(), [Action::Send { to, .. }] if *to == id(1)),
        "{anew:?}"
    );
    gossip.receive(id(1), &hello(id(1)), now + SECOND).unwrap();
    assert_eq!((gossip.links().count(), gossip.size().links), (1, 9));
}

#[test]
fn who_begins_its_link_anew_and_says_nothing_on_it_is_suspected() {
    let now = 10 * SECOND;
    let mut gossip = Gossip::new(id(0), network(), 1, small(), Hashing(id(0)));
    gossip.add_member(id(1), now);
    gossip.link_up(id(1), now);
    gossip.receive(id(1), &hello(id(1)), now).unwrap();
    gossip.link_up(id(1), now + SECOND);
    gossip.link_down(id(1), now + SECOND);
    let mut rng = StdRng::seed_from_u64(1);
    while let Some(at) = gossip.poll_timeout().filter(|at| *at < now + 4 * SECOND) {
        gossip.handle_timeout(at, &mut rng);
    }
    let told: Vec<Event> = std::iter::from_fn(|| gossip.poll_event()).collect();
    assert_eq!(told, [Event::Online(id(1)), Event::Suspected(id(1))]);
}

#[test]
fn where_all_places_are_wanted_nobody_is_left_with_few_links() {
    // Each chooses three and has six in all: there is not one place more than is asked for.
    let config = Config {
        full: 3,
        wanted: 3,
        most: 6,
        ..Config::default()
    };
    for seed in 0..100 {
        let mut network = Network::new(2, seed, &config);
        for number in 2..14 {
            join(&mut network, id(number));
            network.run(SECOND);
        }
        let is_within = (0..20).any(|_| {
            network.run(SECOND);
            links(&network).iter().all(|links| (3..=9).contains(links))
        });
        assert!(is_within, "{seed}: {:?}", links(&network));
    }
}
