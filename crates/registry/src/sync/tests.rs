//! What a session promises: that both sides know the same in the end, in few bytes and rounds, whatever the other sends.

mod lies;
mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;

use dawn_identity::NodeId;
use proptest::prelude::*;

use super::*;
use crate::delta::Delta;
use crate::replica::tests::{Member, NOW, verify};
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
    messages: u64,
}

impl Course {
    /// Everything that was sent, each message with a length of four bytes in front.
    fn bytes(&self) -> u64 {
        self.overhead + self.deltas + 4 * self.messages
    }
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
        while let Some(message) = from.1.transmit(&from.0.replica) {
            said += 1;
            course.longest = course.longest.max(message.len());
            let deltas = to.1.receive(&to.0.replica, &message).unwrap();
            course.received += deltas.len();
            course.entries += deltas
                .iter()
                .map(|delta| Delta::decode(delta).unwrap().added().len())
                .sum::<usize>();
            let applied = to.0.replica.apply_all(&deltas, NOW, verify);
            assert!(
                applied.iter().all(|applied| *applied == Ok(Applied::New)),
                "{applied:?}"
            );
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
    (course.overhead, course.deltas, course.messages) = (traffic.overhead, traffic.deltas, traffic.messages);
    course
}

fn sync(a: &mut Member, b: &mut Member) -> Course {
    let first = session(a);
    let course = converse(a, b, first);
    assert_eq!(a.ids(), b.ids());
    assert!(course.longest <= MAX_MESSAGE_BYTES);
    course
}

/// Text of which nothing is said twice, so that packing does not make it shorter.
fn noise(seed: usize, length: usize) -> String {
    let mut state = seed as u64;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 33) as u8 % 95)
    };
    (0..length).map(letter).collect()
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
            let delta = owner.set_agent(1, &noise(d * 10_000 + number, 200));
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
    let wrong = crate::delta::encode(
        read.head(),
        [].iter(),
        &Rest::Only([read.added()[0].dot].into_iter().collect()),
    );
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
    for agent in 0..12 {
        a.set_agent(agent, &noise(agent as usize, 30_000));
    }
    let mut b = Member::limited(2, 100, limits);
    let course = sync(&mut b, &mut a);
    assert!(
        course.deltas > 360_000 && course.longest > MAX_MESSAGE_BYTES - 64,
        "{course:?}"
    );
    // What says the same again and again is packed.
    (0..12).for_each(|agent| drop(a.set_agent(agent, &"again ".repeat(5_000))));
    let course = sync(&mut b, &mut a);
    assert!(course.entries == 12 && course.deltas < 36_000, "{course:?}");
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
        while let Some(message) = from.transmit(here) {
            to.receive(there, &message).unwrap();
            all.push((to_second, message));
        }
        to_second = !to_second;
    }
    all
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
