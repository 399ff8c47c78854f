//! What a session promises: that both sides know the same in the end, in few bytes and rounds, whatever the other sends.

mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;

use dawn_identity::NodeId;
use proptest::prelude::*;

use super::*;
use crate::delta::Delta;
use crate::replica::tests::{Member, NOW, key, verify};
use crate::replica::{Applied, Limits, Replica};
use crate::set::Rest;

/// How a session went.
#[derive(Debug, Default, Clone, Copy)]
struct Course {
    /// There and back again.
    rounds: usize,
    overhead: u64,
    deltas: u64,
    /// Deltas and entries that came to either side.
    received: usize,
    entries: usize,
    longest: usize,
}

fn snapshot(replica: &Replica) -> Arc<Snapshot> {
    Arc::new(Snapshot::of(replica, NOW).unwrap())
}

fn session(member: &Member) -> Session {
    Session::initiate(snapshot(&member.replica))
}

fn converse(a: &mut Member, b: &mut Member, first: Session) -> Course {
    let second = Session::respond(snapshot(&b.replica));
    let mut sides = [(a, first), (b, second)];
    let mut course = Course::default();
    let mut flights = 0;
    while !(sides[0].1.is_done() && sides[1].1.is_done()) {
        let [from, to] = &mut sides;
        let mut said = 0;
        while let Some(message) = from.1.transmit(&from.0.replica).unwrap() {
            said += 1;
            course.longest = course.longest.max(message.len());
            for delta in to.1.receive(&to.0.replica, &message).unwrap() {
                course.received += 1;
                course.entries += Delta::decode(&delta).unwrap().added().len();
                assert_eq!(to.0.apply(&delta), Ok(Applied::New));
            }
        }
        assert!(
            said > 0,
            "nobody says anything: {:?}",
            sides.map(|(_, session)| session)
        );
        flights += 1;
        sides.swap(0, 1);
    }
    course.rounds = usize::div_ceil(flights, 2);
    let traffic = sides[0].1.traffic();
    assert_eq!(traffic, sides[1].1.traffic());
    (course.overhead, course.deltas) = (traffic.overhead, traffic.deltas);
    course
}

fn sync(a: &mut Member, b: &mut Member) -> Course {
    let first = session(a);
    let course = converse(a, b, first);
    assert_eq!(a.ids(), b.ids());
    assert!(course.longest <= MAX_MESSAGE_BYTES);
    course
}

/// Owners with so many agents each.
struct World(Vec<Member>);

impl World {
    fn new(owners: u32, agents: u32) -> Self {
        let owner = |node: u32| {
            let mut owner = Member::up(node + 1000, 100);
            let all = (0..agents).map(|agent| {
                crate::replica::Change::Set(
                    crate::delta::Key::Agent(crate::replica::tests::name(agent)),
                    vec![agent as u8; 200],
                )
            });
            owner.replica.change(all, &owner.key, NOW).unwrap();
            owner
        };
        Self((0..owners).map(owner).collect())
    }

    /// A replica that knows the owners of this range.
    fn known_to(&self, node: u32, owners: std::ops::Range<usize>) -> Member {
        let limits = Limits {
            heads_a_minute: u32::MAX,
            ..Limits::default()
        };
        let mut member = Member::limited(node, 100, limits);
        for owner in &self.0[owners] {
            member.learn(owner, owner.id());
        }
        member
    }

    /// Lets `d` owners, spread over all, say something of which one of the two hears.
    fn differ(&mut self, a: &mut Member, b: &mut Member, d: usize) {
        let every = self.0.len() / d;
        for (number, owner) in self.0.iter_mut().step_by(every).take(d).enumerate() {
            let delta = owner.set_agent(1, &format!("{d} {number}"));
            let heard = if number % 2 == 0 { &mut *a } else { &mut *b };
            assert_eq!(heard.apply(&delta), Ok(Applied::New));
        }
    }
}

#[test]
fn what_was_missed_of_one_node_is_fetched_without_a_comparison() {
    let (mut a, mut b) = (Member::up(1, 100), Member::up(2, 100));
    (0..20).for_each(|agent| drop(a.set_agent(agent, &"x".repeat(500))));
    sync(&mut a, &mut b);
    a.set_agent(3, "lost");
    let late = a.set_agent(4, "late");
    assert!(b.apply(&late).is_err());
    let wanted: Vec<NodeId> = b.replica.wanted().collect();
    let fetch = Session::fetch(snapshot(&b.replica), wanted);
    let course = converse(&mut b, &mut a, fetch);
    assert_eq!((course.received, course.entries), (1, 2));
    assert!(course.deltas < 600 && course.overhead < 100, "{course:?}");
    assert_eq!(a.ids(), b.ids());
    assert_eq!(b.replica.wanted().count(), 0);
}

#[test]
fn where_the_difference_does_not_fit_the_whole_is_sent() {
    // B holds another value under a dot that A's delta leans on: only a liar's set is so.
    let (mut a, mut b) = (Member::up(1, 100), Member::up(2, 100));
    a.set_agent(1, "one");
    b.learn(&a, a.id());
    let delta = a.set_agent(2, "two");
    let read = Delta::decode(&delta).unwrap();
    let wrong = crate::delta::encode(read.head(), [].iter(), &Rest::Only(vec![read.added()[0].dot]));
    assert!(b.apply(&wrong).is_err());
    let course = sync(&mut b, &mut a);
    assert_eq!((course.received, course.entries), (2, 4));
}

#[test]
fn a_large_set_comes_in_pieces() {
    let limits = Limits {
        owner_bytes: 400 << 10,
        ..Limits::default()
    };
    let mut a = Member::limited(1, 100, limits);
    a.set_node("here");
    (0..12).for_each(|agent| drop(a.set_agent(agent, &"x".repeat(30_000))));
    let mut b = Member::limited(2, 100, limits);
    let course = sync(&mut b, &mut a);
    assert!(
        course.deltas > 360_000 && course.longest == MAX_MESSAGE_BYTES,
        "{course:?}"
    );
}

/// Two sides in the middle of something, for the other to be lied to.
fn messages_of(a: &mut Member, b: &mut Member) -> Vec<(bool, Vec<u8>)> {
    let (mut first, mut second) = (session(a), Session::respond(snapshot(&b.replica)));
    let mut all = Vec::new();
    let mut to_second = true;
    while !(first.is_done() && second.is_done()) {
        let (from, to) = if to_second {
            (&mut first, &mut second)
        } else {
            (&mut second, &mut first)
        };
        let (here, there) = if to_second {
            (&a.replica, &b.replica)
        } else {
            (&b.replica, &a.replica)
        };
        while let Some(message) = from.transmit(here).unwrap() {
            to.receive(there, &message).unwrap();
            all.push((to_second, message));
        }
        to_second = !to_second;
    }
    all
}

#[test]
fn altered_messages_end_a_session_or_change_nothing_that_is_not_signed() {
    let mut world = World::new(80, 2);
    let (mut a, mut b) = (world.known_to(1, 0..80), world.known_to(2, 0..80));
    world.differ(&mut a, &mut b, 8);
    let all = messages_of(&mut a, &mut b);
    assert!(all.len() >= 6);
    let signed: BTreeMap<_, _> = world.0.iter().map(|owner| (owner.id(), owner.ids())).collect();
    for (place, (to_second, message)) in all.iter().enumerate() {
        for at in (0..message.len()).step_by(7) {
            let mut altered = message.clone();
            altered[at] ^= 1 << (at % 8);
            // The session up to this message, as it went, then the altered one.
            let (mut first, mut second) = (session(&a), Session::respond(snapshot(&b.replica)));
            for (to_second, message) in &all[..place] {
                let (from, to) = if *to_second {
                    (&mut first, &mut second)
                } else {
                    (&mut second, &mut first)
                };
                let (here, there) = if *to_second {
                    (&a.replica, &b.replica)
                } else {
                    (&b.replica, &a.replica)
                };
                from.transmit(here).unwrap();
                to.receive(there, message).unwrap();
            }
            let (to, replica) = if *to_second {
                (&mut second, &a.replica)
            } else {
                (&mut first, &b.replica)
            };
            let Ok(deltas) = to.receive(replica, &altered) else {
                assert!(to.is_done());
                continue;
            };
            let mut c = world.known_to(3, 0..0);
            for delta in deltas {
                let _ = c.replica.apply(&delta, key(0).node_id(), NOW, verify);
            }
            for view in c.replica.nodes(NOW) {
                assert!(
                    c.replica
                        .heads(&view.node)
                        .all(|head| signed[&view.node].contains(&head.id()))
                );
            }
            // What it says after that is within bounds.
            let mut said = 0;
            while let Ok(Some(message)) = to.transmit(replica) {
                said += message.len();
            }
            assert!(said < 200_000, "{said}");
        }
    }
}

#[test]
fn who_lists_or_streams_too_much_or_never_ends_is_stopped() {
    let limits = Limits {
        nodes: 100,
        bytes: 100_000,
        ..Limits::default()
    };
    let mut a = Member::limited(1, 100, limits);
    a.set_node("here");
    let has = |from: u32| {
        let node = |node| message::Has {
            node: NodeId::from_bytes([&[0; 28][..], &u32::to_be_bytes(node)].concat().try_into().unwrap()),
            heads: Vec::new(),
        };
        (from..from + 100).map(node).collect()
    };
    let mut giver = Session::respond(snapshot(&a.replica));
    let lists = |from| {
        Message::Lists {
            asks_all: false,
            is_last: false,
            needs: Vec::new(),
            has: has(from),
        }
        .encode()
    };
    (0..4).for_each(|turn| drop(giver.receive(&a.replica, &lists(turn * 100)).unwrap()));
    assert_eq!(giver.receive(&a.replica, &lists(1000)), Err(SyncError::TooMuch));
    // Lists of nothing, too, end some time.
    let mut giver = Session::respond(snapshot(&a.replica));
    let nothing = Message::Lists {
        asks_all: false,
        is_last: false,
        needs: Vec::new(),
        has: Vec::new(),
    }
    .encode();
    let until_refused = |session: &mut Session, message: &[u8]| {
        let mut turns = 0;
        while session.receive(&a.replica, message).is_ok() {
            turns += 1;
            assert!(turns < 1_000_000);
        }
        assert!(session.is_done());
    };
    until_refused(&mut giver, &nothing);
    let piece = |is_last, bytes| {
        Message::Compare {
            heads: 1,
            is_last,
            bytes,
        }
        .encode()
    };
    let mut endless = Session::respond(snapshot(&a.replica));
    assert_eq!(
        endless.receive(&a.replica, &piece(false, &[])),
        Err(SyncError::OutOfTurn)
    );
    let mut endless = Session::respond(snapshot(&a.replica));
    until_refused(&mut endless, &piece(false, &[0; 60_000]));
    let asker = || {
        let mut asker = Session::fetch(snapshot(&a.replica), [a.id()]);
        asker.transmit(&a.replica).unwrap();
        asker
    };
    until_refused(&mut asker(), &Message::Stream(&[]).encode());
    let want = Message::Want {
        is_last: false,
        has: Vec::new(),
    };
    until_refused(&mut asker(), &want.encode());
    let mut flooded = asker();
    let piece = Message::Stream(&[0; 60_000]).encode();
    assert!(flooded.receive(&a.replica, &piece).is_ok());
    assert_eq!(flooded.receive(&a.replica, &piece), Err(SyncError::TooMuch));
    let mut long = asker();
    let endless = Message::Stream(&[0xff, 0xff, 0xff, 0xff, 0x0f]).encode();
    assert!(matches!(
        long.receive(&a.replica, &endless),
        Err(SyncError::Malformed(_))
    ));
    let mut wrong = asker();
    assert!(matches!(
        wrong.receive(&a.replica, &Message::Stream(&[0xff; 12]).encode()),
        Err(SyncError::Malformed(_))
    ));
    let mut cut = asker();
    assert!(
        cut.receive(&a.replica, &Message::Stream(&[9, 1]).encode())
            .unwrap()
            .is_empty()
    );
    let end = Message::Want {
        is_last: true,
        has: Vec::new(),
    }
    .encode();
    assert!(matches!(cut.receive(&a.replica, &end), Err(SyncError::Malformed(_))));
    let mut late = asker();
    assert_eq!(
        late.receive(&a.replica, &Message::Enumerate.encode()),
        Err(SyncError::OutOfTurn)
    );
    assert!(late.is_done());
    // A comparison that goes on and on: always another fingerprint.
    let mut turns = 0;
    let mut first = session(&a);
    let mut step = [&[0x61, 0, 0, 1][..], &[7; 16]].concat();
    let error = loop {
        first.transmit(&a.replica).unwrap();
        turns += 1;
        step[4] = turns as u8;
        if let Err(error) = first.receive(
            &a.replica,
            &Message::Compare {
                heads: 1,
                is_last: true,
                bytes: &step,
            }
            .encode(),
        ) {
            break error;
        }
        assert!(turns < 1000);
    };
    assert_eq!(error, SyncError::Endless(64));
    let mut second = Session::respond(snapshot(&a.replica));
    let error = loop {
        if let Err(error) = second.receive(
            &a.replica,
            &Message::Compare {
                heads: 1,
                is_last: true,
                bytes: &step,
            }
            .encode(),
        ) {
            break error;
        }
        second.transmit(&a.replica).unwrap();
    };
    assert_eq!(error, SyncError::Endless(64));
}

#[test]
fn the_wire_format_stays_as_it_is() {
    let (mut a, mut b) = (Member::up(1, 100), Member::up(2, 100));
    a.set_agent(1, "one");
    b.learn(&a, a.id());
    a.remove_agent(1);
    let mut lines = String::new();
    for (_, message) in messages_of(&mut a, &mut b) {
        message.iter().for_each(|byte| lines += &format!("{byte:02x}"));
        lines.push('\n');
    }
    insta::assert_snapshot!("session", lines);
}

#[derive(Debug, Clone)]
enum Happens {
    Says { node: u32, agent: u32, heard: [bool; 2] },
    Restarts { node: u32 },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0..40u32, 0..3u32, any::<[bool; 2]>()).prop_map(|(node, agent, heard)| Happens::Says { node, agent, heard }),
        1 => (0..40u32).prop_map(|node| Happens::Restarts { node }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_two_have_heard_after_one_session_both_know_the_same(history in prop::collection::vec(happens(), 0..120)) {
        let mut nodes: BTreeMap<u32, Member> = BTreeMap::new();
        let (mut a, mut b) = (Member::up(1, 100), Member::up(2, 100));
        let mut epoch = 100;
        for (number, event) in history.iter().enumerate() {
            match event {
                Happens::Says { node, agent, heard } => {
                    let member = nodes.entry(*node).or_insert_with(|| Member::up(node + 1000, epoch));
                    member.set_agent(*agent, &number.to_string());
                    let id = member.id();
                    for (heard, other) in heard.iter().zip([&mut a, &mut b]) {
                        if *heard {
                            other.learn(member, id);
                        }
                    }
                }
                Happens::Restarts { node } => {
                    epoch += 1;
                    nodes.insert(*node, Member::up(node + 1000, epoch));
                }
            }
        }
        let course = sync(&mut a, &mut b);
        prop_assert!(course.rounds <= 4, "{course:?}");
        let again = sync(&mut b, &mut a);
        prop_assert_eq!(again.received, 0);
    }

    #[test]
    fn messages_come_back_as_they_were(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), &bytes[..]);
        }
        let a = Member::up(1, 100);
        for mut session in [session(&a), Session::respond(snapshot(&a.replica))] {
            let _ = session.transmit(&a.replica);
            let _ = session.receive(&a.replica, &bytes);
            let _ = session.transmit(&a.replica);
        }
    }
}
