//! Owners that lie, and those that pass deltas on and alter them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, Dot};
use crate::delta::{self, MAX_DELTA_BYTES, MIN_DELTA_BYTES};
use crate::head::{Draft, digest_of};
use crate::set::{Dots, Rest};

/// A delta that a node of any honesty signs: any clock, any elements, any times.
fn forged(key: &Keypair, clock: &Clock, elements: &[Element], time: UnixTime, expires: UnixTime) -> Vec<u8> {
    let head = signed(key, clock, elements, time, expires);
    delta::encode(&head, elements.iter(), &Rest::Only(Dots::default()))
}

pub(super) fn signed(key: &Keypair, clock: &Clock, elements: &[Element], time: UnixTime, expires: UnixTime) -> Head {
    let draft = Draft {
        network: &network(),
        clock,
        time,
        expires,
        digest: digest_of(elements.len(), elements.iter()),
    };
    Head::sign(draft, key).unwrap()
}

fn element(key: Key, epoch: u64, sequence: u64, value: &str) -> Element {
    Element {
        key,
        dot: Dot { epoch, sequence },
        value: Value::new(value.as_bytes()),
    }
}

pub(super) fn up_to(epoch: u64, sequence: u64) -> Clock {
    Clock::up_to(Dot { epoch, sequence })
}

#[test]
fn who_passes_a_delta_on_can_add_nothing_and_leave_nothing_out() {
    let mut a = Member::up(1, 100);
    a.set_agent(1, "one");
    a.set_agent(2, "two");
    let owner = a.replica.owner(&a.id()).unwrap();
    let stored = &owner.heads[0];
    let whole = Rest::Only(Dots::default());
    let encode = |elements: &[&Element], rest: &Rest| delta::encode(&stored.head, elements.iter().copied(), rest);
    let all: Vec<&Element> = stored.elements.iter().collect();
    let foreign = element(Key::Agent(name(3)), 100, 1, "foreign");
    let other_value = element(all[1].key.clone(), 100, all[1].dot.sequence, "other");
    let mut b = Member::up(2, 100);
    let before = b.ids();
    assert_eq!(b.apply(&encode(&all[..2], &whole)), Err(Refusal::NotSigned));
    assert_eq!(
        b.apply(&encode(&[all[0], all[1], all[2], &foreign], &whole)),
        Err(Refusal::NotSigned)
    );
    assert_eq!(
        b.apply(&encode(&[all[0], &other_value, all[2]], &whole)),
        Err(Refusal::NotSigned)
    );
    assert_eq!(b.apply(&encode(&[], &whole)), Err(Refusal::NotSigned));
    let other_dot = element(all[1].key.clone(), 100, 1, "one");
    assert_eq!(
        b.apply(&encode(&[all[0], &other_dot, all[2]], &whole)),
        Err(Refusal::NotSigned)
    );
    let other_key = element(Key::Agent(name(0)), 100, all[1].dot.sequence, "one");
    assert_eq!(
        b.apply(&encode(&[all[0], &other_key, all[2]], &whole)),
        Err(Refusal::NotSigned)
    );
    // Where it may be that something is missing, the sender cannot be told from an honest one.
    let kept = Rest::Only([all[0].dot].into_iter().collect());
    assert_eq!(b.apply(&encode(&all[1..], &kept)), Err(Refusal::Gap(a.id())));
    assert_eq!(
        b.apply(&encode(&all[1..], &Rest::Without(Dots::default()))),
        Err(Refusal::Gap(a.id()))
    );
    // Out of order, twice, or not covered: that is no delta at all.
    for elements in [vec![all[1], all[0], all[2]], vec![all[0], all[0], all[1], all[2]]] {
        assert!(matches!(
            b.apply(&encode(&elements, &whole)),
            Err(Refusal::Malformed(_))
        ));
    }
    let beyond = element(Key::Agent(name(3)), 100, 9, "beyond");
    let beyond = encode(&[all[0], all[1], all[2], &beyond], &whole);
    assert!(matches!(b.apply(&beyond), Err(Refusal::Malformed(_))));
    assert_eq!(b.ids(), before);
    assert_eq!(b.apply(&encode(&all, &whole)), Ok(Applied::New));
}

#[test]
fn a_removal_that_is_left_out_or_made_up_is_noticed() {
    let mut a = Member::up(1, 100);
    a.set_agent(1, "one");
    a.set_agent(2, "two");
    let mut b = Member::up(2, 100);
    b.learn(&a, a.id());
    let dots: Vec<Dot> = a.replica.owner(&a.id()).unwrap().heads[0]
        .elements
        .iter()
        .map(|e| e.dot)
        .collect();
    a.remove_agent(1);
    let head = a.replica.heads(&a.id()).next().unwrap();
    let with = |gone: Vec<Dot>| delta::encode(head, [].iter(), &Rest::Without(gone.into_iter().collect()));
    assert_eq!(b.apply(&with(vec![])), Err(Refusal::Gap(a.id())));
    assert_eq!(b.apply(&with(vec![dots[1], dots[2]])), Err(Refusal::Gap(a.id())));
    assert_eq!(b.apply(&with(vec![dots[1]])), Ok(Applied::New));
}

#[test]
fn an_old_head_brings_nothing_back() {
    let mut a = Member::up(1, 100);
    a.set_agent(1, "one");
    let old = a.replica.states(&a.id());
    a.remove_agent(1);
    let mut b = Member::up(2, 100);
    b.learn(&a, a.id());
    assert_eq!(b.apply(&old[0]), Ok(Applied::Known));
    assert_eq!(b.said(a.id()).len(), 1);
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut a = Member::up(1, 100);
    a.set_agent(1, "one");
    let delta = a.replica.states(&a.id()).remove(0);
    let mut b = Member::up(2, 100);
    let before = b.ids();
    for place in 0..delta.len() {
        let mut bytes = delta.clone();
        bytes[place] ^= 1 << (place % 8);
        assert!(b.apply(&bytes).is_err(), "byte {place}");
        assert!(b.apply(&delta[..place]).is_err(), "{place} bytes");
    }
    assert!(b.apply(&[&delta[..], &[0]].concat()).is_err());
    assert!(b.apply(&vec![1; MAX_DELTA_BYTES + 1]).is_err());
    assert_eq!(b.ids(), before);
    assert_eq!(b.apply(&delta), Ok(Applied::New));
}

#[test]
fn a_head_is_of_this_network_signed_by_its_node_and_of_this_time() {
    let key = key(1);
    let node = key.node_id();
    let here = [element(Key::Node, 5, 1, "here")];
    let limits = Limits::default();
    let mut b = Member::up(2, 100);
    let clock = up_to(5, 1);
    let future = NOW + limits.skew + Duration::from_secs(1);
    let ahead = forged(&key, &clock, &here, future, future + DAY);
    assert_eq!(b.apply(&ahead), Err(Refusal::FromTheFuture(future)));
    let forever = forged(&key, &clock, &here, NOW, UnixTime(i64::MAX as u64));
    assert_eq!(b.apply(&forever), Err(Refusal::TooLong(UnixTime(i64::MAX as u64))));
    let long_ago = NOW - DAY * 40;
    let old = forged(&key, &clock, &here, long_ago, long_ago + DAY);
    assert_eq!(b.apply(&old), Err(Refusal::Expired(long_ago + DAY)));
    let timeless = Draft {
        network: &network(),
        clock: &clock,
        time: NOW,
        expires: NOW,
        digest: digest_of(here.len(), here.iter()),
    };
    assert!(Head::sign(timeless, &key).is_err());
    // Of another network.
    let elsewhere = Keypair::from_seed([8; 32]).network_id();
    let draft = Draft {
        network: &elsewhere,
        clock: &clock,
        time: NOW,
        expires: NOW + DAY,
        digest: digest_of(here.len(), here.iter()),
    };
    let head = Head::sign(draft, &key).unwrap();
    let bytes = delta::encode(&head, here.iter(), &Rest::Only(Dots::default()));
    assert_eq!(b.apply(&bytes), Err(Refusal::BadSignature));
    // Signed by another: the signature is the end of the head.
    let good = signed(&key, &clock, &here, NOW, NOW + DAY);
    let stolen = delta::encode(&good, here.iter(), &Rest::Only(Dots::default()));
    let forger = signed(&super::key(3), &clock, &here, NOW, NOW + DAY);
    let place = stolen
        .windows(64)
        .position(|bytes| bytes == &good.bytes()[good.bytes().len() - 64..])
        .unwrap();
    let mut bytes = stolen;
    bytes[place..place + 64].copy_from_slice(&forger.bytes()[forger.bytes().len() - 64..]);
    assert_eq!(b.apply(&bytes), Err(Refusal::BadSignature));
    // Says nothing of itself.
    let mute = [element(Key::Agent(name(1)), 5, 1, "one")];
    assert_eq!(
        b.apply(&forged(&key, &clock, &mute, NOW, NOW + DAY)),
        Err(Refusal::NoNode)
    );
    // Passes the certificate of another as its own.
    let borrowed = forged(&key, &clock, &here, NOW, NOW + DAY);
    let applied = b.replica.apply(&borrowed, NOW, |_, _| Ok(membership(b.key.node_id())));
    assert!(matches!(applied, Err(Refusal::NoMember(_))));
    assert!(b.replica.node(&node, NOW).is_none());
}

#[test]
fn a_head_of_the_greatest_numbers_and_all_incarnations_is_read_and_bounded() {
    const MAX_HEAD_BYTES: usize = 512;
    let dots = (0..16).map(|epoch| Dot {
        epoch: u64::MAX - epoch,
        sequence: u64::MAX,
    });
    let clock = Clock::from_parts(u64::MAX - 16, dots.rev()).unwrap();
    let head = signed(&key(1), &clock, &[], UnixTime(1 << 62), UnixTime(u64::MAX));
    let parsed = Head::parse(head.bytes()).unwrap();
    assert_eq!(parsed.verify(&network()), Some(head.clone()));
    assert!(head.bytes().len() <= MAX_HEAD_BYTES, "{}", head.bytes().len());
}

#[test]
fn the_shortest_delta_is_as_short_as_is_said_and_whom_it_names_is_read_from_its_front() {
    let head = signed(&key(1), &Clock::default(), &[], UnixTime(0), UnixTime(1));
    let shortest = delta::encode(&head, [].iter(), &Rest::Only(Dots::default()));
    assert!(Delta::decode(&shortest).is_ok());
    assert_eq!(shortest.len(), MIN_DELTA_BYTES);
    assert_eq!(Delta::speaker(&shortest), Some(key(1).node_id()));
    assert_eq!(Delta::speaker(&shortest[1..]), None);
    let other = [&[9], &shortest[1..]].concat();
    assert_eq!(Delta::speaker(&other), None, "another version may stand otherwise");
    // It is refused, but not as if somebody had spoiled it.
    let mut b = Member::up(2, 100);
    assert_eq!(b.apply(&other), Err(Refusal::OtherVersion(9)));
    for (version, length) in [(1, shortest.len()), (200, shortest.len()), (9, 40)] {
        let refused = b.apply(&[&[version], &shortest[1..length]].concat());
        assert!(matches!(refused, Err(Refusal::Malformed(_))), "{version}");
    }
}

#[test]
fn what_is_behind_a_head_is_read_only_where_the_head_is_news_and_signed() {
    let (mut a, mut b) = (Member::up(1, 100), Member::up(2, 100));
    let old = a.replica.states(&a.id()).remove(0);
    a.set_agent(0, "nought");
    b.learn(&a, a.id());
    let new = a.set_agent(1, "one");
    let front = |delta: &[u8]| 1 + Delta::decode(delta).unwrap().head().bytes().len();
    let mut forged = new[..front(&new)].to_vec();
    let altered = [&forged[..], &[0xff; 9]].concat();
    assert!(matches!(b.apply(&altered), Err(Refusal::Malformed(_))));
    *forged.last_mut().unwrap() ^= 1;
    forged.extend([0xff; 9]);
    let mut stale = old[..front(&old)].to_vec();
    *stale.last_mut().unwrap() ^= 1;
    stale.extend([0xff; 9]);
    let both = [forged, stale];
    let singly = both.each_ref().map(|delta| b.apply(delta));
    assert_eq!(singly, [Err(Refusal::BadSignature), Ok(Applied::Known)]);
    let together = b.replica.apply_all(&both, NOW, verify);
    assert_eq!(together, singly);
    assert_eq!(b.apply(&new), Ok(Applied::New));
}

#[test]
fn two_heads_of_one_clock_are_proven_and_all_keep_the_same_one() {
    let key = key(1);
    let make = |value: &str| {
        let here = [element(Key::Node, 5, 1, value)];
        forged(&key, &up_to(5, 1), &here, NOW, NOW + DAY)
    };
    let (one, other) = (make("one"), make("other"));
    let (mut b, mut c) = (Member::up(2, 100), Member::up(3, 100));
    b.replica.events();
    for delta in [&one, &other, &one, &other] {
        b.apply(delta).unwrap();
    }
    for delta in [&other, &one] {
        c.apply(delta).unwrap();
    }
    assert_eq!(b.said(key.node_id()), c.said(key.node_id()));
    let head = |member: &Member| member.replica.heads(&key.node_id()).map(Head::id).collect::<Vec<_>>();
    assert_eq!((head(&b).len(), head(&b)), (1, head(&c)));
    let told: Vec<Box<Equivocation>> = b
        .replica
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Lied(proof) => Some(proof),
            Event::Changed(_) => None,
        })
        .collect();
    let [proof] = &told[..] else {
        panic!("told once, not {} times", told.len())
    };
    let [first, second] = proof.heads();
    assert_eq!(Equivocation::verify(first, second, &network()), Ok((**proof).clone()));
    assert!(Equivocation::verify(first, first, &network()).is_err());
    assert_eq!(proof.node(), key.node_id());
}

#[test]
fn numbers_as_great_as_there_are_harm_only_their_owner() {
    let (key, mut b) = (key(1), Member::up(2, 100));
    let greatest = Dot {
        epoch: u64::MAX,
        sequence: u64::MAX,
    };
    let clock = Clock::from_parts(u64::MAX, vec![greatest]).unwrap();
    let here = [
        element(Key::Node, u64::MAX, u64::MAX, "here"),
        element(Key::Agent(name(1)), 3, 4, "one"),
    ];
    assert_eq!(b.apply(&forged(&key, &clock, &here, NOW, NOW + DAY)), Ok(Applied::New));
    assert_eq!(b.said(key.node_id()).len(), 2);
    // It has said its last word; to itself that is an error, and nothing breaks.
    let mut liar = Member::new(1, u64::MAX);
    liar.learn(&b, key.node_id());
    let spent = liar.replica.set_node(b"more", membership(liar.id()), &liar.key, NOW);
    assert!(matches!(spent, Err(LocalError::Spent(_))));
    assert!(matches!(
        liar.replica.refresh(&liar.key, NOW + DAY),
        Err(LocalError::Spent(_))
    ));
    // Too many incarnations at once are no head.
    let dots = (1..18).map(|epoch| Dot { epoch, sequence: 1 });
    let clock = Clock::from_parts(0, dots).unwrap();
    let here = [element(Key::Node, 1, 1, "here")];
    let many = forged(&super::key(4), &clock, &here, NOW, NOW + DAY);
    assert!(matches!(b.apply(&many), Err(Refusal::Malformed(_))));
}

#[test]
fn of_too_many_heads_at_once_everybody_keeps_the_newest() {
    let key = key(1);
    let make = |epoch: u64| {
        let here = [element(Key::Node, epoch, 1, &format!("{epoch}"))];
        forged(&key, &up_to(epoch, 1), &here, NOW, NOW + DAY)
    };
    let (mut b, mut c) = (Member::up(2, 100), Member::up(3, 100));
    for epoch in 1..=10 {
        assert_eq!(b.apply(&make(epoch)), Ok(Applied::New));
    }
    for epoch in (1..=10).rev() {
        let applied = c.apply(&make(epoch));
        let expected = if epoch > 6 {
            Ok(Applied::New)
        } else {
            Err(Refusal::TooManyHeads)
        };
        assert_eq!(applied, expected, "{epoch}");
    }
    let ids = |member: &Member| member.replica.heads(&key.node_id()).map(Head::id).collect::<Vec<_>>();
    assert_eq!((ids(&b).len(), ids(&b)), (4, ids(&c)));
    assert_eq!(b.said(key.node_id()), said(&[("", "10")]));
}

#[test]
fn a_node_that_never_stops_is_slowed_and_one_with_too_much_is_refused() {
    let limits = Limits {
        heads_a_minute: 5,
        entries: 4,
        owner_bytes: 2000,
        nodes: 2,
        ..Limits::default()
    };
    let mut b = Member::limited(2, 100, limits);
    b.set_node("here");
    let mut a = Member::new(1, 100);
    b.apply(&a.set_node("here")).unwrap();
    for agent in 1..5 {
        let said = a.set_agent(1, &format!("{agent}"));
        assert_eq!(b.apply(&said), Ok(Applied::New));
    }
    let sixth = a.set_agent(1, "sixth");
    assert_eq!(b.apply(&sixth), Err(Refusal::TooOften));
    let later = NOW + Duration::from_secs(60);
    assert_eq!(b.replica.apply(&sixth, later, verify), Ok(Applied::New));
    let long = a.set_agent(1, &"x".repeat(3000));
    assert!(matches!(
        b.replica.apply(&long, later, verify),
        Err(Refusal::TooLarge(_))
    ));
    a.set_agent(1, "short");
    (2..5).for_each(|agent| drop(a.set_agent(agent, "x")));
    let many = a.replica.states(&a.id());
    assert_eq!(b.replica.apply(&many[0], later, verify), Err(Refusal::TooMany(5)));
    let third = Member::up(3, 100);
    let states = third.replica.states(&third.id());
    assert_eq!(b.apply(&states[0]), Err(Refusal::Full));
}

#[test]
fn a_set_that_holds_one_write_twice_is_none_though_it_is_signed() {
    let key = key(1);
    let mut b = Member::up(2, 100);
    let one = |value| element(Key::Agent(name(1)), 5, 2, value);
    let before = [element(Key::Node, 5, 1, "here"), one("one")];
    b.apply(&forged(&key, &up_to(5, 2), &before, NOW, NOW + DAY)).unwrap();
    let [here, first] = before;
    let twice = [here, first, one("two")];
    let head = signed(&key, &up_to(5, 3), &twice, NOW, NOW + DAY);
    let added = delta::encode(&head, twice[2..].iter(), &Rest::Without(Dots::default()));
    assert_eq!(b.apply(&added), Err(Refusal::Gap(key.node_id())));
    assert!(matches!(
        b.apply(&forged(&key, &up_to(5, 3), &twice, NOW, NOW + DAY)),
        Err(Refusal::Malformed(_))
    ));
}

#[test]
fn when_the_registry_is_full_those_that_are_known_go_on() {
    let limits = Limits {
        bytes: 3000,
        ..Limits::default()
    };
    let mut b = Member::limited(2, 100, limits);
    b.set_node("here");
    let (mut a, mut c) = (Member::new(1, 100), Member::new(3, 100));
    b.apply(&a.set_node(&"x".repeat(1200))).unwrap();
    assert_eq!(b.apply(&c.set_node(&"x".repeat(1200))), Err(Refusal::Full));
    assert_eq!(b.apply(&a.set_node(&"y".repeat(1200))), Ok(Applied::New));
    assert!(b.replica.bytes() < 3000);
    // Another incarnation of it says as much beside that.
    let mut other = Member::new(1, 99);
    assert_eq!(b.apply(&other.set_node(&"z".repeat(1200))), Err(Refusal::Full));
    assert!(b.replica.bytes() < 3000);
    b.set_agent(1, "one");
    b.replica.retain(|_, _| false);
    b.learn(&c, c.id());
}

#[test]
fn of_a_node_that_nobody_knows_nothing_is_remembered() {
    let mut b = Member::up(2, 100);
    for node in 10..30 {
        let mut stranger = Member::up(node, 100);
        let late = stranger.set_agent(1, "one");
        assert_eq!(b.apply(&late), Err(Refusal::Gap(stranger.id())));
    }
    assert_eq!(b.replica.wanted().count(), 0);
}

#[test]
fn a_write_with_two_values_ends_in_the_whole_being_wanted() {
    // The owner changes what its first write said, and signs both. Deltas that lean on it cannot fit.
    let key = key(1);
    let mut b = Member::up(2, 100);
    let before = [
        element(Key::Node, 5, 1, "here"),
        element(Key::Agent(name(1)), 5, 2, "one"),
    ];
    b.apply(&forged(&key, &up_to(5, 2), &before, NOW, NOW + DAY)).unwrap();
    let after = [
        element(Key::Node, 5, 1, "lie"),
        element(Key::Agent(name(1)), 5, 2, "one"),
    ];
    let head = signed(&key, &up_to(5, 3), &after, NOW, NOW + DAY);
    let published = delta::encode(&head, [].iter(), &Rest::Without(Dots::default()));
    assert_eq!(b.apply(&published), Err(Refusal::Gap(key.node_id())));
    assert_eq!(b.replica.known(&key.node_id()).len(), 1);
    let kept: BTreeSet<Dot> = after.iter().map(|element| element.dot).collect();
    let leaning = delta::encode(&head, [].iter(), &Rest::Only(kept.into_iter().collect()));
    assert_eq!(b.apply(&leaning), Err(Refusal::Gap(key.node_id())));
    assert!(b.replica.known(&key.node_id()).is_empty());
    b.apply(&delta::encode(&head, after.iter(), &Rest::Only(Dots::default())))
        .unwrap();
    assert_eq!(b.replica.known(&key.node_id()).len(), 1);
    assert_eq!(b.said(key.node_id())[0].1, "lie");
}

proptest! {
    #[test]
    fn dots_come_back_and_have_one_encoding(
        dots in prop::collection::btree_set((0..6u64, 1..9u64), 0..40),
        is_whole: bool,
        rest in prop::collection::vec(0..4u8, 0..30),
    ) {
        let last = (3..6).map(|epoch| Dot { epoch, sequence: 9 });
        let head = signed(&key(1), &Clock::from_parts(3, last).unwrap(), &[], NOW, NOW + DAY);
        let dots = dots.into_iter().map(|(epoch, sequence)| Dot { epoch, sequence }).collect();
        let rest_of = if is_whole { Rest::Only(dots) } else { Rest::Without(dots) };
        let bytes = delta::encode(&head, [].iter(), &rest_of);
        let read = Delta::decode(&bytes).unwrap();
        prop_assert_eq!(read.rest(), &rest_of);
        // No other bytes say the same.
        let bytes = [&[2], head.bytes(), &[0, 0], &rest].concat();
        if let Ok(delta) = Delta::decode(&bytes) {
            prop_assert_eq!(delta::encode(&head, [].iter(), delta.rest()), bytes);
        }
    }

    #[test]
    fn no_bytes_are_more_than_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in any::<prop::sample::Index>()) {
        let mut a = Member::up(1, 100);
        a.set_agent(1, "one");
        let delta = a.replica.states(&a.id()).remove(0);
        let mut b = Member::up(2, 100);
        prop_assert!(b.apply(&bytes).is_err());
        let (front, _) = delta.split_at(cut.index(delta.len()));
        prop_assert!(b.apply(&[front, &bytes].concat()).is_err() || delta.starts_with(front) && delta.ends_with(&bytes));
    }
}
