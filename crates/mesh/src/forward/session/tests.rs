//! Whatever becomes of the paths, both ends read what the other wrote, once and in order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: fn() -> SessionLimits = || SessionLimits {
    window: 100,
    record: 16,
    acknowledge_bytes: 30,
    ..SessionLimits::default()
};

/// What is under way on a path in one direction.
#[derive(Debug, Clone)]
enum Said {
    /// Both begin with how much came before.
    Received(u64),
    Record(Record),
}

/// One way of one path: in order, and possibly repeated by a transport gone mad.
#[derive(Debug, Default)]
struct Way(VecDeque<Said>);

struct End {
    session: Session,
    written: Vec<u8>,
    read: Vec<u8>,
}

impl End {
    fn new() -> Self {
        Self {
            session: Session::new(LIMITS(), usize::MAX),
            written: Vec::new(),
            read: Vec::new(),
        }
    }

    fn write(&mut self, length: u8, seed: u8) {
        let bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(31).wrapping_add(seed)).collect();
        let taken = self.session.write(&bytes);
        self.written.extend_from_slice(&bytes[..taken]);
    }

    fn read(&mut self, length: usize, now: Instant) {
        let mut buffer = vec![0; length];
        let read = self.session.read(&mut buffer, now);
        self.read.extend_from_slice(&buffer[..read]);
    }
}

/// Two ends and the paths between them. End 0 makes the paths.
struct World {
    ends: [End; 2],
    /// What is on its way to end 0 and to end 1.
    paths: BTreeMap<PathId, [Way; 2]>,
    now: Instant,
    made: u32,
}

#[derive(Debug, Clone)]
enum Act {
    Write(usize, u8, u8),
    Read(usize, usize),
    Transmit(usize),
    /// The n-th path delivers one thing to an end.
    Deliver(usize, usize),
    /// The same, and delivers it once more.
    Repeat(usize, usize),
    Die(usize),
    Connect,
    Wait(u64),
    Busy(usize, bool),
}

impl World {
    fn new() -> Self {
        Self {
            ends: [End::new(), End::new()],
            paths: BTreeMap::new(),
            now: Instant::now(),
            made: 0,
        }
    }

    fn connect(&mut self) {
        let id = PathId(self.made);
        self.made += 1;
        let mut ways = [Way::default(), Way::default()];
        ways[1].0.push_back(Said::Received(self.ends[0].session.received()));
        self.paths.insert(id, ways);
    }

    fn transmit(&mut self, end: usize) -> bool {
        let Some(record) = self.ends[end].session.poll_transmit(self.now) else {
            return false;
        };
        let id = self.ends[end].session.path().unwrap();
        // A record for a path that has died is lost with it.
        if let Some(ways) = self.paths.get_mut(&id) {
            ways[1 - end].0.push_back(Said::Record(record));
        }
        true
    }

    fn deliver(&mut self, path: usize, end: usize, again: bool) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let id = *self.paths.keys().nth(path % self.paths.len()).unwrap();
        let Some(said) = self.paths.get_mut(&id).and_then(|ways| ways[end].0.pop_front()) else {
            return false;
        };
        for _ in 0..=u8::from(again) {
            match said.clone() {
                Said::Received(received) => {
                    self.ends[end].session.attach(id, received, self.now).unwrap();
                    if end == 1 && !again {
                        let received = self.ends[1].session.received();
                        self.paths.get_mut(&id).unwrap()[0]
                            .0
                            .push_back(Said::Received(received));
                    } else if end == 1 {
                        // Repeating concerns records: the channel of a path lets nothing of its beginning be repeated.
                        let received = self.ends[1].session.received();
                        self.paths.get_mut(&id).unwrap()[0]
                            .0
                            .push_back(Said::Received(received));
                        return true;
                    } else {
                        // Its maker has ended the paths before.
                        self.paths.retain(|known, _| *known >= id);
                        return true;
                    }
                }
                Said::Record(record) => self.ends[end].session.receive(id, record, self.now).unwrap(),
            }
        }
        true
    }

    fn die(&mut self, path: usize) {
        if self.paths.is_empty() {
            return;
        }
        let id = *self.paths.keys().nth(path % self.paths.len()).unwrap();
        self.paths.remove(&id);
        self.ends.iter_mut().for_each(|end| end.session.detach(id));
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Write(end, length, seed) => self.ends[end].write(length, seed),
            Act::Read(end, length) => {
                let now = self.now;
                self.ends[end].read(length, now);
            }
            Act::Transmit(end) => drop(self.transmit(end)),
            Act::Deliver(path, end) => drop(self.deliver(path, end, false)),
            Act::Repeat(path, end) => drop(self.deliver(path, end, true)),
            Act::Die(path) => self.die(path),
            Act::Connect => self.connect(),
            Act::Wait(ms) => self.now += Duration::from_millis(ms),
            Act::Busy(end, busy) => self.ends[end].session.set_busy(busy),
        }
    }

    /// Over one last path, everything arrives.
    fn settle(&mut self) {
        while !self.paths.is_empty() {
            self.die(0);
        }
        self.connect();
        let mut quiet = 0;
        while quiet < 3 {
            let mut moved = false;
            for end in 0..2 {
                while self.deliver(0, end, false) {
                    moved = true;
                }
                let now = self.now;
                self.ends[end].read(1000, now);
                while self.transmit(end) {
                    moved = true;
                }
            }
            self.now += Duration::from_millis(50);
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let end = 0_usize..2;
    let act = prop_oneof![
        4 => (end.clone(), 0_u8..120, any::<u8>()).prop_map(|(end, length, seed)| Act::Write(end, length, seed)),
        3 => (end.clone(), 0_usize..60).prop_map(|(end, length)| Act::Read(end, length)),
        8 => end.clone().prop_map(Act::Transmit),
        8 => (0_usize..4, end.clone()).prop_map(|(path, end)| Act::Deliver(path, end)),
        1 => (0_usize..4, end.clone()).prop_map(|(path, end)| Act::Repeat(path, end)),
        1 => (0_usize..4).prop_map(Act::Die),
        1 => Just(Act::Connect),
        2 => (0_u64..500).prop_map(Act::Wait),
        1 => (end, any::<bool>()).prop_map(|(end, busy)| Act::Busy(end, busy)),
    ];
    proptest::collection::vec(act, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_becomes_of_the_paths_both_read_what_the_other_wrote(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
            for end in 0..2 {
                // At any time, what was read is the beginning of what was written.
                let (read, written) = (&world.ends[end].read, &world.ends[1 - end].written);
                prop_assert!(written.starts_with(read));
                prop_assert!(world.ends[end].session.kept.len() <= 100);
                prop_assert!(world.ends[end].session.inbox.len() <= 100);
            }
        }
        world.ends.iter_mut().for_each(|end| end.session.set_busy(false));
        world.settle();
        for end in 0..2 {
            prop_assert_eq!(&world.ends[end].read, &world.ends[1 - end].written);
            prop_assert!(world.ends[end].session.is_settled());
        }
    }

    #[test]
    fn no_record_of_a_peer_gone_mad_breaks_a_session(records in proptest::collection::vec(
        (0_u8..3, 0_u64..300, 0_u64..300, 0_usize..120), 0..50
    )) {
        let mut session = Session::new(LIMITS(), usize::MAX);
        let now = Instant::now();
        session.attach(PathId(0), 0, now).unwrap();
        session.write(&[1; 80]);
        for (kind, offset, acknowledged, length) in records {
            let record = match kind {
                0 => Record::Data { offset, acknowledged, bytes: vec![0; length].into() },
                1 => Record::Acknowledge { acknowledged },
                _ => Record::Probe { acknowledged },
            };
            let _ = session.receive(PathId(0), record, now);
            let _ = session.poll_transmit(now);
            prop_assert!(session.inbox.len() <= 100);
        }
    }
}

fn attached() -> (Session, Instant) {
    let mut session = Session::new(LIMITS(), usize::MAX);
    let now = Instant::now();
    session.attach(PathId(0), 0, now).unwrap();
    let _acknowledgement = session.poll_transmit(now);
    (session, now)
}

#[test]
fn a_path_that_does_not_answer_is_suspect_and_then_dead() {
    let (mut session, now) = attached();
    session.write(b"hello");
    assert!(matches!(session.poll_transmit(now), Some(Record::Data { .. })));
    let suspect = session.poll_timeout(now).unwrap();
    assert_eq!(suspect, now + Duration::from_millis(300));
    assert_eq!(session.health(now), Some(Health::Good));
    assert_eq!(session.health(suspect), Some(Health::Suspect));
    assert_eq!(session.health(now + Duration::from_secs(10)), Some(Health::Dead));
    session
        .receive(PathId(0), Record::Acknowledge { acknowledged: 5 }, suspect)
        .unwrap();
    assert_eq!(session.health(now + Duration::from_secs(20)), Some(Health::Good));
    assert!(session.is_settled());
}

#[test]
fn a_path_is_probed_while_somebody_waits_and_otherwise_left_alone() {
    let (mut session, now) = attached();
    let later = now + Duration::from_secs(60);
    assert_eq!(session.poll_transmit(later), None);
    assert_eq!(session.poll_timeout(now), None);
    session.set_busy(true);
    assert!(matches!(session.poll_transmit(later), Some(Record::Probe { .. })));
    assert_eq!(session.poll_transmit(later), None);
    assert_eq!(
        session.health(later + Duration::from_millis(300)),
        Some(Health::Suspect)
    );
    let mut peer = Session::new(LIMITS(), usize::MAX);
    peer.attach(PathId(0), 0, later).unwrap();
    let _acknowledgement = peer.poll_transmit(later);
    peer.receive(PathId(0), Record::Probe { acknowledged: 0 }, later)
        .unwrap();
    assert!(matches!(peer.poll_transmit(later), Some(Record::Acknowledge { .. })));
}

#[test]
fn who_writes_more_than_the_window_waits_until_it_is_read() {
    let mut world = World::new();
    world.connect();
    assert_eq!(world.ends[0].session.write(&[7; 500]), 100);
    assert_eq!(world.ends[0].session.write(&[7; 500]), 0);
    for _ in 0..3 {
        world.deliver(0, 1, false);
        world.deliver(0, 0, false);
    }
    while world.transmit(0) {}
    while world.deliver(0, 1, false) {}
    while world.transmit(1) {}
    while world.deliver(0, 0, false) {}
    assert_eq!(world.ends[0].session.write(&[7; 500]), 0);
    let now = world.now;
    world.ends[1].read(1000, now);
    assert!(world.transmit(1));
    while world.deliver(0, 0, false) {}
    assert_eq!(world.ends[0].session.write(&[7; 500]), 100);
}

#[test]
fn a_session_ends_when_the_peer_leaves_something_out_or_speaks_of_what_never_was() {
    let (mut session, now) = attached();
    let data = |offset| Record::Data {
        offset,
        acknowledged: 0,
        bytes: Bytes::from_static(&[0; 60]),
    };
    assert_eq!(session.receive(PathId(0), data(1), now), Err(Violation::Gap(1)));
    session.receive(PathId(0), data(0), now).unwrap();
    session.receive(PathId(0), data(0), now).unwrap();
    assert_eq!(session.received(), 60);
    assert_eq!(session.receive(PathId(0), data(60), now), Err(Violation::Overrun));
    let never = Record::Acknowledge { acknowledged: 1 };
    assert_eq!(session.receive(PathId(0), never, now), Err(Violation::NeverSent(1)));
    assert_eq!(session.attach(PathId(1), 1, now), Err(Violation::NeverSent(1)));
}
