//! What a member that lies can do, and cannot.

use std::collections::BTreeSet;

use dawn_identity::{Keypair, NodeId};
use serde_bytes::ByteBuf;

use super::harness::{Hashing, Network, SECOND, id, network, small};
use crate::message::{MAX_IDS, Message, NewsId};
use crate::word::{Said, Says, Word};
use crate::{Config, Event, Gossip, Presence, Refused, Voice};

const ONLINE: Option<Presence> = Some(Presence::Online);

fn settled(size: usize, seed: u64) -> Network {
    let mut network = Network::new(size, seed, &small());
    network.run(40 * SECOND);
    network.nodes.values_mut().for_each(|node| node.events.clear());
    network
}

/// Two neighbours: one of them lies.
fn pair(network: &Network) -> (NodeId, NodeId) {
    let liar = network.order[0];
    let honest = network.nodes[&liar].gossip.links().next().unwrap();
    (liar, honest)
}

fn said(node: NodeId, incarnation: u64, says: Says, by: NodeId) -> Said {
    let word = Word {
        node,
        incarnation,
        says,
    };
    word.sign(&network(), &Hashing(by))
}

fn incarnation(network: &Network, of: NodeId) -> u64 {
    let table = &network.nodes[&of].gossip.table;
    table.get(&of).unwrap().said().unwrap().word.incarnation
}

/// Gives a node a message of a neighbour.
fn give(network: &mut Network, from: NodeId, to: NodeId, message: &Message) -> Result<(), Refused> {
    let now = network.now;
    network.with(to, |gossip| gossip.receive(from, &message.encode(), now))
}

fn told(network: &Network, is_such: impl Fn(&Event) -> bool) -> usize {
    let events = network.nodes.values().flat_map(|node| &node.events);
    events.filter(|(_, event)| is_such(event)).count()
}

/// Lets a node send another what no honest one does until it is not heard any more.
fn mute(network: &mut Network, liar: NodeId, honest: NodeId) {
    for number in 0..33u8 {
        let news = ByteBuf::from([b"bad".as_slice(), &[number]].concat());
        give(network, liar, honest, &Message::News(news)).unwrap();
    }
    assert!(network.nodes[&honest].gossip.links().all(|node| node != liar));
}

#[test]
fn what_is_not_signed_by_its_author_is_refused_and_counted() {
    let mut network = settled(20, 1);
    let (liar, honest) = pair(&network);
    let victim = network.order[9];
    let next = incarnation(&network, victim);
    for word in [
        said(victim, next + 1, Says::Alive, liar),
        said(victim, next, Says::Leaving, liar),
        said(victim, next, Says::Suspect(honest), liar),
        said(victim, u64::MAX, Says::Alive, liar),
    ] {
        let refused = give(&mut network, liar, honest, &Message::Word(word.clone()));
        assert_eq!(refused, Err(Refused::NotSigned));
        let refused = give(&mut network, liar, honest, &Message::Words(vec![word]));
        assert_eq!(refused, Err(Refused::NotSigned));
    }
    network.run(60 * SECOND);
    assert_eq!(network.seen_as(victim), BTreeSet::from([ONLINE]));
    assert_eq!(
        told(&network, |event| matches!(
            event,
            Event::Suspected(_) | Event::Offline(_)
        )),
        0
    );
    let refusals = network.nodes[&honest].gossip.refusals();
    assert!(refusals.by_code().any(|count| count == ("not_signed", 8)));
    assert!(refusals.by_sender().any(|count| count == (&liar, 8)));
}

#[test]
fn who_accuses_the_living_is_refuted_and_may_do_so_a_few_times_only() {
    let mut network = settled(20, 2);
    let (liar, honest) = pair(&network);
    // All, every second, for a minute and a half; first those that it does not even know to be there under this incarnation.
    for _ in 0..90 {
        for victim in network.order.clone() {
            let next = incarnation(&network, victim);
            for incarnation in [next + 7, next] {
                let word = said(victim, incarnation, Says::Suspect(liar), liar);
                // What is too often is refused, and what is about nothing that is known waits.
                let _refused = give(&mut network, liar, honest, &Message::Word(word));
            }
        }
        network.run(SECOND);
    }
    assert_eq!(told(&network, |event| matches!(event, Event::Offline(_))), 0);
    let suspected = told(&network, |event| matches!(event, Event::Suspected(_)));
    let most = 3 * 16 * 20;
    assert!((20..=most).contains(&suspected), "{suspected} of {most}");
    let refusals = network.nodes[&honest].gossip.refusals();
    assert!(
        refusals
            .by_code()
            .any(|(code, count)| code == "too_often" && count > 1000)
    );
    for node in network.order.clone() {
        assert_eq!(network.seen_as(node), BTreeSet::from([ONLINE]));
    }
}

#[test]
fn one_may_accuse_as_many_at_once_as_a_fully_linked_network_has() {
    for (full, most) in [(8, 16), (24, 24)] {
        let config = Config { full, ..small() };
        let mut network = Network::new(30, 14, &config);
        network.run(40 * SECOND);
        let (author, other) = pair(&network);
        let mut taken = 0;
        for gone in network.order.clone() {
            if ![author, other].contains(&gone) {
                let word = said(gone, incarnation(&network, gone), Says::Suspect(author), author);
                taken += u32::from(give(&mut network, author, other, &Message::Word(word)).is_ok());
            }
        }
        assert_eq!((taken, config.accusations_a_minute()), (most, most));
    }
}

#[test]
fn one_that_all_neighbours_accuse_without_end_stays_online() {
    let mut network = settled(20, 3);
    let victim = network.order[5];
    let liars: Vec<NodeId> = network
        .order
        .iter()
        .copied()
        .filter(|node| *node != victim)
        .take(8)
        .collect();
    for _ in 0..200 {
        for liar in &liars {
            let heard = network.nodes[liar]
                .gossip
                .table
                .get(&victim)
                .unwrap()
                .said()
                .unwrap()
                .word
                .incarnation;
            let word = said(victim, heard, Says::Suspect(*liar), *liar);
            for to in network.nodes[liar].gossip.links().collect::<Vec<_>>() {
                let _refused = give(&mut network, *liar, to, &Message::Word(word.clone()));
            }
        }
        network.run(SECOND / 5);
    }
    assert_eq!(told(&network, |event| matches!(event, Event::Offline(_))), 0);
    network.run(10 * SECOND);
    assert_eq!(network.seen_as(victim), BTreeSet::from([ONLINE]));
}

#[test]
fn what_is_said_again_later_changes_nothing() {
    let mut network = settled(20, 4);
    let (liar, honest) = pair(&network);
    let victim = network.order[9];
    let first = incarnation(&network, victim);
    network.leave(victim);
    network.run(5 * SECOND);
    let left = said(victim, first, Says::Leaving, victim);
    network.start(victim);
    network.run(20 * SECOND);
    // An old farewell, an old accusation, and for the one that is really gone an old sign of life.
    for word in [
        left,
        said(victim, first, Says::Suspect(liar), liar),
        said(victim, first, Says::Alive, victim),
    ] {
        assert_eq!(give(&mut network, liar, honest, &Message::Word(word)), Ok(()));
    }
    network.run(20 * SECOND);
    assert_eq!(network.seen_as(victim), BTreeSet::from([ONLINE]));
    let last = incarnation(&network, victim);
    network.crash(victim, true);
    network.run(20 * SECOND);
    let alive = said(victim, last, Says::Alive, victim);
    assert_eq!(give(&mut network, liar, honest, &Message::Word(alive)), Ok(()));
    network.run(20 * SECOND);
    assert_eq!(network.seen_as(victim), BTreeSet::from([Some(Presence::Offline)]));
}

#[test]
fn who_begins_one_incarnation_after_the_other_is_heard_so_often_only() {
    let mut network = settled(20, 5);
    let (liar, honest) = pair(&network);
    let first = incarnation(&network, liar);
    let taken = (1..1000).filter(|next| {
        let word = said(liar, first + next, Says::Alive, liar);
        give(&mut network, liar, honest, &Message::Word(word)).is_ok()
    });
    assert!(taken.count() <= 40);
}

#[test]
fn a_flood_of_news_is_bounded_and_ends_with_its_sender_being_muted() {
    let bounds = Config {
        messages_a_second: 32,
        kept: 100,
        ids: 300,
        ..small()
    };
    let mut network = Network::new(8, 6, &bounds);
    network.run(20 * SECOND);
    let (liar, honest) = pair(&network);
    let mut taken = 0;
    for second in 0..40u64 {
        for number in 0..200u64 {
            let news = [second.to_be_bytes(), number.to_be_bytes()].concat();
            taken += usize::from(give(&mut network, liar, honest, &Message::News(ByteBuf::from(news))).is_ok());
        }
        network.run(SECOND);
    }
    assert!(taken < 128 + 32 * 36, "{taken}");
    let muted = network.nodes[&honest].events.iter();
    assert_eq!(muted.filter(|(_, event)| *event == Event::Muted(liar)).count(), 1);
    assert!(network.nodes[&honest].gossip.links().all(|node| node != liar));
    let size = network.nodes[&honest].gossip.size();
    let bounds = small();
    assert!(
        size.kept <= bounds.kept && size.kept_bytes <= bounds.kept_bytes && size.ids <= bounds.ids,
        "{size:?}"
    );
    // Those who only passed on what was new are heard as before.
    assert_eq!(
        told(&network, |event| matches!(event, Event::Muted(node) if *node != liar)),
        0
    );
}

#[test]
fn who_sends_what_the_driver_refuses_is_muted_and_what_it_sent_does_not_travel() {
    let mut network = settled(20, 7);
    let (liar, honest) = pair(&network);
    for number in 0..40u8 {
        let news = ByteBuf::from([b"bad".as_slice(), &[number]].concat());
        let given = give(&mut network, liar, honest, &Message::News(news));
        assert_eq!(given.is_ok(), number <= 32, "{number}");
    }
    network.run(5 * SECOND);
    assert_eq!(told(&network, |event| *event == Event::Muted(liar)), 1);
    let others = network.live().filter(|(node, _)| **node != honest);
    assert!(others.into_iter().all(|(_, node)| node.received_news == 0));
    // Ten minutes later it is heard again.
    network.run(660 * SECOND);
    assert!(network.nodes[&honest].gossip.size().pauses < 20);
    let now = network.now;
    network.with(honest, |gossip| gossip.link_up(liar, now));
    assert_eq!(
        network.nodes[&honest].gossip.size().links,
        network.nodes[&honest].gossip.links().count() + 1
    );
}

#[test]
fn who_is_not_heard_is_told_so_and_tries_ever_more_seldom() {
    let mut network = settled(10, 11);
    let (liar, honest) = pair(&network);
    mute(&mut network, liar, honest);
    let since = network.now;
    network.run(60 * SECOND);
    let dials = network.dials.iter().filter(|(at, ..)| *at >= since);
    let dials = dials.filter(|(_, from, to)| (*from, *to) == (liar, honest)).count();
    assert!((2..=12).contains(&dials), "{dials} dials in a minute");
    let suspected = |event: &Event| matches!(event, Event::Suspected(_));
    assert_eq!(told(&network, suspected), 0, "whoever refuses a link is there");
}

#[test]
fn who_is_not_heard_is_not_tried_whatever_is_said_of_it() {
    let mut network = settled(10, 12);
    let (liar, honest) = pair(&network);
    mute(&mut network, liar, honest);
    let since = network.now;
    let third = network.nodes[&honest].gossip.links().next().unwrap();
    for _ in 0..10 {
        // Somebody accuses it, so that it says that it is there; and there is another way to it.
        let accused = said(liar, incarnation(&network, liar), Says::Suspect(third), third);
        assert_eq!(give(&mut network, third, honest, &Message::Word(accused)), Ok(()));
        let now = network.now;
        network.with(honest, |gossip| gossip.reachable(&liar, now));
        network.run(10 * SECOND);
        assert_eq!(network.nodes[&honest].gossip.presence(&liar), ONLINE);
    }
    let is_tried = |(at, from, to): &&(_, NodeId, NodeId)| *at >= since && (*from, *to) == (honest, liar);
    assert_eq!(network.dials.iter().filter(is_tried).count(), 0);
}

#[test]
fn a_try_of_who_is_not_heard_is_over_when_its_link_is_refused() {
    let mut network = settled(10, 13);
    let (liar, honest) = pair(&network);
    mute(&mut network, liar, honest);
    // It is let in anew, and so the pause is forgotten.
    let now = network.now;
    network.with(honest, |gossip| {
        gossip.remove_member(&liar, now);
        gossip.add_member(liar, now);
    });
    network.reaches = |_, _| false;
    let tries = |network: &Network| network.nodes[&honest].gossip.size().tries;
    while tries(&network) == 0 {
        network.run(SECOND / 100);
    }
    let now = network.now;
    network.with(honest, |gossip| gossip.link_up(liar, now));
    assert_eq!(tries(&network), 0);
    assert!(network.nodes[&honest].gossip.size().pauses > 0, "it has failed");
}

#[test]
fn what_one_asks_for_again_and_again_is_given_within_bounds() {
    const LONG: usize = 60 << 10;
    let mut network = settled(10, 15);
    let (liar, honest) = pair(&network);
    let now = network.now;
    let id = network.with(honest, |gossip| gossip.publish(&[7; LONG], now).unwrap());
    network.run(SECOND);
    let given = |network: &mut Network, ids: usize| {
        let before = network.nodes[&honest].sent.1;
        let graft = Message::Graft(vec![id; ids].iter().collect());
        assert_eq!(give(network, liar, honest, &graft), Ok(()));
        (network.nodes[&honest].sent.1 - before) / LONG
    };
    assert_eq!(given(&mut network, MAX_IDS), 1, "once, however often it is named");
    // Neither does a new link for the rest begin anew.
    let now = network.now;
    let hello = Message::Hello(0, said(liar, incarnation(&network, liar), Says::Alive, liar));
    let mut all = 1;
    for _ in 0..8 {
        network.with(honest, |gossip| gossip.link_up(liar, now));
        assert_eq!(give(&mut network, liar, honest, &hello), Ok(()));
        all += (0..100).map(|_| given(&mut network, 1)).sum::<usize>();
    }
    let most = 4 * usize::try_from(small().bytes_a_second).unwrap() / LONG;
    assert!((most - 2..=most).contains(&all), "{all} of {most}");
}

#[test]
fn announcements_of_what_is_never_given_are_bounded() {
    let mut network = settled(20, 8);
    let (liar, honest) = pair(&network);
    for round in 0..50u64 {
        let ids: Vec<NewsId> = (0..MAX_IDS as u64)
            .map(|number| NewsId::of_news(&[round.to_be_bytes(), number.to_be_bytes()].concat()))
            .collect();
        assert_eq!(
            give(&mut network, liar, honest, &Message::Have(ids.iter().collect())),
            Ok(())
        );
        assert!(network.nodes[&honest].gossip.size().announced <= 4096 / 8);
        network.run(SECOND / 10);
    }
    network.run(5 * SECOND);
    assert_eq!(network.nodes[&honest].gossip.size().announced, 0);
    let refusals = network.nodes[&honest].gossip.refusals();
    assert!(
        refusals
            .by_code()
            .any(|(code, count)| code == "not_given" && count >= 512)
    );
}

#[test]
fn words_of_strangers_take_a_bounded_place() {
    let mut network = settled(5, 9);
    let (liar, honest) = pair(&network);
    for number in 1000..2000 {
        let stranger = id(number);
        let word = said(stranger, 1, Says::Alive, stranger);
        assert_eq!(give(&mut network, liar, honest, &Message::Word(word)), Ok(()));
    }
    let size = network.nodes[&honest].gossip.size();
    assert_eq!((size.early, size.members), (64, 5));
}

#[test]
fn comparisons_without_end_are_not_answered() {
    let mut network = settled(20, 10);
    let (liar, honest) = pair(&network);
    let theirs = network.nodes[&liar].gossip.table.fingerprint();
    let compare = Message::Compare(
        crate::message::Fingerprints {
            known: serde_bytes::ByteArray::new([8; 32]),
            presence: serde_bytes::ByteArray::new(theirs),
        },
        true,
    );
    let taken = (0..1000)
        .filter(|_| give(&mut network, liar, honest, &compare).is_ok())
        .count();
    assert!(taken <= 30, "{taken}");
    assert!(told(&network, |event| matches!(event, Event::Differs(_))) <= 30);
}

#[test]
fn real_keys_sign_and_are_checked() {
    let [one, two] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]));
    let of_network = Keypair::from_seed([9; 32]).network_id();
    let gossip = |key: &Keypair, network| Gossip::new(key.node_id(), network, 1, small(), key.clone());
    let mut honest = gossip(&one, of_network);
    let now = SECOND;
    honest.add_member(two.node_id(), now);
    honest.link_up(two.node_id(), now);
    let mut hello = |incarnation, network, key: &Keypair| {
        let word = Word {
            node: two.node_id(),
            incarnation,
            says: Says::Alive,
        };
        honest.link_up(two.node_id(), now);
        let hello = Message::Hello(0, word.sign(&network, key)).encode();
        let received = honest.receive(two.node_id(), &hello, now);
        (received, honest.presence(&two.node_id()))
    };
    assert_eq!(
        hello(1, of_network, &one),
        (Err(Refused::NotSigned), None),
        "another key"
    );
    assert_eq!(
        hello(1, one.network_id(), &two),
        (Err(Refused::NotSigned), None),
        "another network"
    );
    assert_eq!(hello(1, of_network, &two), (Ok(()), ONLINE));
    let signature = Voice::sign(&two, b"statement");
    assert!(Voice::verify(&one, &two.node_id(), b"statement", &signature));
}
