//! News reach all, along a tree that mends itself.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use sha2::Digest as _;

use super::harness::{Network, SECOND, small};
use crate::{MAX_NEWS_BYTES, TooLong};

fn milliseconds(took: &[Option<Duration>]) -> Vec<u128> {
    let mut took: Vec<u128> = took.iter().map(|took| took.expect("all have it").as_millis()).collect();
    took.sort_unstable();
    took
}

/// News that came, for each that were needed.
fn copies(network: &mut Network, count: u32, from: u32) -> f64 {
    for node in network.nodes.values_mut() {
        node.received_news = 0;
        node.sent = (0, 0);
    }
    for number in from..from + count {
        let node = network.pick();
        network.publish(node, number);
        network.run(2 * SECOND);
    }
    let bytes: usize = network.nodes.values().map(|node| node.sent.1).sum();
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let needed = f64::from(count) * (network.order.len() - 1) as f64 * 200.0;
    bytes as f64 / needed
}

#[test]
fn news_reach_all_soon_and_each_hardly_more_than_twice() {
    let mut network = Network::new(60, 1, &small());
    network.run(20 * SECOND);
    copies(&mut network, 20, 1);
    // Each has some eight links; without pruning, as many copies less one.
    let later = copies(&mut network, 20, 21);
    assert!((1.0..2.6).contains(&later), "{later}");
    for number in 100..120 {
        let (node, since) = (network.pick(), network.now);
        let news = network.publish(node, number);
        network.run(SECOND);
        let took = milliseconds(&network.took(&news, since));
        assert!(took[59] <= 500, "{took:?}");
    }
}

#[test]
fn what_an_eager_link_no_longer_brings_is_got_on_a_lazy_one() {
    let mut network = Network::new(40, 2, &small());
    network.is_without_sessions = true;
    network.run(20 * SECOND);
    copies(&mut network, 10, 0);
    for number in 100..112 {
        // Somebody dies at the very time, and nobody is told: all that were to get the news through it must ask others.
        let dead = network.pick();
        network.crash(dead, false);
        let (node, since) = (network.pick(), network.now);
        let news = network.publish(node, number);
        network.run(2 * SECOND);
        let took = milliseconds(&network.took(&news, since));
        assert!(took[took.len() - 1] <= 1500, "{took:?}");
        network.start(dead);
        network.run(20 * SECOND);
    }
}

#[test]
fn who_joins_late_learns_what_was_said_before() {
    let mut network = Network::new(30, 3, &small());
    let late = network.order[7];
    network.crash(late, true);
    network.run(20 * SECOND);
    let news: Vec<Vec<u8>> = (0..5)
        .map(|number| {
            let node = network.pick();
            network.publish(node, number)
        })
        .collect();
    network.run(90 * SECOND);
    network.start(late);
    network.run(10 * SECOND);
    assert!(news.iter().all(|news| network.nodes[&late].has.contains_key(news)));
}

#[test]
fn long_news_do_not_travel_and_are_compared_for() {
    let mut network = Network::new(5, 4, &small());
    network.run(10 * SECOND);
    let node = network.order[0];
    let now = network.now;
    let long = vec![1; MAX_NEWS_BYTES + 1];
    let refused = network.with(node, |gossip| gossip.publish(&long, now));
    assert_eq!(refused, Err(TooLong(MAX_NEWS_BYTES + 1)));
    network.hold(node, &long);
    network.run(5 * SECOND);
    assert!(network.live().all(|(_, node)| node.has.contains_key(&long)));
    let sessions = network.sessions;
    assert!((1..=12).contains(&sessions), "{sessions}");
}

#[test]
fn nodes_that_know_the_same_send_little_and_begin_no_session() {
    let mut network = Network::new(40, 5, &small());
    network.run(40 * SECOND);
    let sessions = network.sessions;
    network.nodes.values_mut().for_each(|node| node.sent = (0, 0));
    network.run(200 * SECOND);
    assert_eq!(network.sessions, sessions);
    let most = network.nodes.values().map(|node| node.sent.1).max().unwrap() / 200;
    assert!(most <= 40, "{most} B/s");
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = |seed| {
        let mut network = Network::new(25, seed, &small());
        network.loss = 20;
        for number in 0..20 {
            let node = network.pick();
            network.publish(node, number);
            network.run(3 * SECOND);
            if number % 5 == 0 {
                network.crash(node, number % 2 == 0);
            }
        }
        network.run(60 * SECOND);
        network.hash.finalize()
    };
    assert_eq!(run(6), run(6));
    assert_ne!(run(6), run(7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn news_reach_all_whatever_is_lost(size in 3usize..30, loss in 0u32..150, seed: u64) {
        let mut network = Network::new(size, seed, &small());
        network.run(20 * SECOND);
        network.loss = loss;
        let news: Vec<Vec<u8>> = (0..10).map(|number| {
            let node = network.pick();
            let news = network.publish(node, number);
            network.run(SECOND / 5);
            news
        }).collect();
        network.run(90 * SECOND);
        let all: BTreeSet<usize> = network.live().map(|(_, node)| node.has.len()).collect();
        prop_assert_eq!(all, BTreeSet::from([news.len()]));
    }
}
