//! Two replicas of ten thousand items that differ in some of them: what it takes until they agree. Every byte that either
//! says is counted, the deltas themselves too.

use std::sync::Arc;

use dawn_registry::delta::Key;
use dawn_registry::replica::{Applied, Change, Limits, Replica};
use dawn_registry::sync::{Session, Snapshot};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::Size;
use crate::member::{Member, Roll, START, agent, summary};
use crate::report::{Bound, Report};

const ROUNDS: Bound = Bound::AtMost(4.0);
const EQUAL: Bound = Bound::AtMost(512.0);

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    // What each costs was promised of ten thousand items.
    let (cases, differences, promised): (&[(usize, usize)], &[usize], Bound) = match size {
        Size::Full => (&[(10_000, 0), (2_500, 3)], &[1, 10, 100, 1_000], Bound::AtMost(1024.0)),
        Size::Small => (&[(300, 0), (75, 3)], &[10, 30], Bound::None),
    };
    for (owners, agents) in cases {
        let mut world = World::new(*owners, *agents, seed);
        let items = match agents {
            0 => format!("{owners} nodes"),
            agents => format!("{owners} nodes with {agents} agents each"),
        };
        let [a, b] = [0, 1].map(|place| world.replica_of(place));
        let (mut a, mut b) = (a, b);
        let equal = settle(&mut a, &mut b, &world.roll);
        let case = format!("{items}, equal");
        report.add(&case, "rounds", "", equal.rounds as f64, ROUNDS);
        report.add(&case, "bytes in all", "B", equal.bytes as f64, EQUAL);
        for d in differences {
            world.differ(&mut a, &mut b, *d);
            let course = settle(&mut a, &mut b, &world.roll);
            let case = format!("{items}, {d} differ");
            report.add(&case, "rounds", "", course.rounds as f64, ROUNDS);
            report.add(
                &case,
                "deltas that were new",
                "",
                course.new as f64,
                Bound::AtLeast(*d as f64),
            );
            report.add(&case, "bytes for each", "B", course.bytes as f64 / *d as f64, promised);
            let deltas = course.deltas as f64 / *d as f64;
            report.add(&case, "of which the delta", "B", deltas, Bound::None);
        }
    }
}

/// Owners, each with the replica that knows itself alone.
struct World {
    roll: Roll,
    owners: Vec<(Member, Replica)>,
    changes: u64,
}

impl World {
    fn new(owners: usize, agents: usize, seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut roll = Roll::new(&mut chance);
        let owner = |_| {
            let member = roll.admit(&mut chance);
            let mut replica = Replica::new(member.membership.clone(), 1, limits());
            let names = (0..agents).map(agent);
            let agents = names.map(|name| Change::Set(Key::Agent(name.clone()), summary(&name, 0)));
            let own = Change::Set(Key::Node, member.element.clone());
            let changes = std::iter::once(own).chain(agents);
            let said = replica.change(changes, &member.key, START);
            said.expect("a node may say what it is");
            (member, replica)
        };
        let owners = (0..owners).map(owner).collect();
        Self {
            owners,
            roll,
            changes: 0,
        }
    }

    /// The replica of one of them that knows all of them.
    fn replica_of(&self, place: usize) -> Replica {
        let (member, _) = &self.owners[place];
        let mut replica = Replica::new(member.membership.clone(), 2, limits());
        for (owner, own) in &self.owners {
            for state in own.states(&owner.id) {
                assert_eq!(takes(&mut replica, &state, &self.roll), Some(Applied::New));
            }
        }
        replica
    }

    /// Lets so many owners, spread over all, say something of which one of the two hears.
    fn differ(&mut self, a: &mut Replica, b: &mut Replica, d: usize) {
        self.changes += 1;
        let every = self.owners.len() / d;
        for (number, (member, replica)) in self.owners.iter_mut().step_by(every).take(d).enumerate() {
            let name = agent(0);
            let value = summary(&name, self.changes);
            let said = replica.set_agent(name, &value, &member.key, START);
            let delta = said.expect("a node may say what its agents are").expect("it is new");
            let heard = if number % 2 == 0 { &mut *a } else { &mut *b };
            assert_eq!(takes(heard, &delta, &self.roll), Some(Applied::New));
        }
    }
}

fn limits() -> Limits {
    Limits {
        heads_a_minute: u32::MAX,
        ..Limits::default()
    }
}

fn takes(replica: &mut Replica, delta: &[u8], roll: &Roll) -> Option<Applied> {
    replica.apply(delta, START, |_, value| roll.verify(value, START)).ok()
}

/// How a conversation went.
struct Course {
    /// There and back again.
    rounds: usize,
    bytes: u64,
    deltas: u64,
    new: usize,
}

fn settle(a: &mut Replica, b: &mut Replica, roll: &Roll) -> Course {
    let snapshot = |replica: &Replica| Arc::new(Snapshot::of(replica, START).expect("ids of heads are not too many"));
    let first = Session::initiate(snapshot(a));
    let second = Session::respond(snapshot(b));
    let mut sides = [(&mut *a, first), (&mut *b, second)];
    let (mut flights, mut bytes, mut new) = (0_usize, 0, 0);
    while sides.iter().any(|(_, session)| !session.is_done()) {
        let [(from, speaker), (to, hearer)] = &mut sides;
        while let Some(message) = speaker.transmit(from) {
            bytes += message.len() as u64;
            let deltas = hearer.receive(to, &message).expect("an honest message");
            let taken = deltas.iter().map(|delta| takes(to, delta, roll));
            new += taken.filter(|applied| *applied == Some(Applied::New)).count();
        }
        flights += 1;
        assert!(flights < 1_000, "the conversation does not end");
        sides.swap(0, 1);
    }
    let [(_, session), _] = &sides;
    let deltas = session.traffic().deltas;
    assert_eq!(a.fingerprint(), b.fingerprint(), "both know the same in the end");
    Course {
        rounds: flights.div_ceil(2),
        bytes,
        deltas,
        new,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_small_replicas_settle_within_the_bounds() {
        super::super::tests::keeps("difference", 1);
    }
}
