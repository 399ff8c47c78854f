//! Rekeys, in a simulated world: whoever begins, whenever, over whatever carrier, no message is lost or comes twice.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use rand::RngExt;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What a carrier does with the next frame.
#[derive(Clone, Copy, Debug)]
struct Fate {
    delay: u64,
    lost: bool,
    repeated: bool,
}

/// Two channels, a carrier between them, and a clock.
struct World {
    ends: [Channel; 2],
    /// Frames on their way to each end, by when they arrive and when they were sent.
    way: [BTreeMap<(Instant, u64), Vec<u8>>; 2],
    last_arrival: [Instant; 2],
    /// The number that the next frame of each end has at least: a number is a nonce.
    numbers: [u64; 2],
    now: Instant,
    frames: u64,
    fates: Vec<Fate>,
    sent: [Vec<u64>; 2],
    got: [Vec<u64>; 2],
    lost: [Vec<u64>; 2],
}

impl World {
    fn new(terms: Terms, limits: Limits, fates: Vec<Fate>) -> Self {
        let (a, b) = pair_of(How::Ik, terms, limits);
        Self {
            ends: [a, b],
            way: Default::default(),
            last_arrival: [*START; 2],
            numbers: [0; 2],
            now: *START,
            frames: 0,
            fates,
            sent: Default::default(),
            got: Default::default(),
            lost: Default::default(),
        }
    }

    /// Gives a frame to the carrier, which loses and reorders where the channel says that it may.
    fn carry(&mut self, from: usize, frame: Vec<u8>) -> bool {
        let to = 1 - from;
        let number = u64::from_be_bytes(frame[5..13].try_into().unwrap());
        assert!(number >= self.numbers[from], "a number that was used before");
        self.numbers[from] = number + 1;
        // Scattered, so that no frame meets the same fate each time it is repeated.
        let fate = self.fates[rng(self.frames).random_range(..self.fates.len())];
        let mut arrival = self.now + MILLISECOND * fate.delay as u32;
        if self.ends[0].terms().delivery == Delivery::Ordered {
            arrival = arrival.max(self.last_arrival[to]);
            self.last_arrival[to] = arrival;
        } else if fate.lost {
            self.frames += 1;
            return false;
        } else if fate.repeated {
            let again = arrival + MILLISECOND * 3 * fate.delay as u32;
            self.way[to].insert((again, self.frames), frame.clone());
            self.frames += 1;
        }
        self.way[to].insert((arrival, self.frames), frame);
        self.frames += 1;
        true
    }

    fn transmit(&mut self) {
        for end in 0..2 {
            while let Some(frame) = self.ends[end].poll_transmit(self.now) {
                self.carry(end, frame);
            }
        }
    }

    /// Seals and sends a message, unless the channel says that it must not now.
    fn send(&mut self, end: usize) -> Result<(), SealError> {
        let number = self.sent[end].len() as u64;
        let frame = self.ends[end].seal_message(&number.to_be_bytes(), self.now)?;
        self.sent[end].push(number);
        if !self.carry(end, frame) {
            self.lost[end].push(number);
        }
        self.transmit();
        Ok(())
    }

    fn rekey(&mut self, end: usize) {
        self.ends[end].start_rekey(self.now);
        self.wait(Duration::ZERO);
    }

    /// Lets this much time pass.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrivals = self.way.iter().filter_map(|way| way.keys().next()).map(|(at, _)| *at);
            let timers = self.ends.iter().filter_map(Channel::poll_timeout);
            let Some(next) = arrivals.chain(timers).min().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            for end in 0..2 {
                if self.ends[end].poll_timeout().is_some_and(|at| at <= self.now) {
                    let seed = self.frames << 1 | end as u64;
                    self.ends[end].handle_timeout(self.now, &mut rng(seed));
                }
                while let Some(entry) = self.way[end].first_entry().filter(|entry| entry.key().0 <= self.now) {
                    let mut frame = entry.remove();
                    match self.ends[end].open(&mut frame, self.now) {
                        Ok(Opened::Message(message)) => {
                            self.got[1 - end].push(u64::from_be_bytes((&*message).try_into().unwrap()));
                        }
                        Ok(Opened::Control) | Err(OpenError::Repeated(_)) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            self.transmit();
        }
    }

    /// Lets everything come to rest, and checks that each message came once, in order on a stream.
    fn check(mut self) -> [Channel; 2] {
        self.wait(HOUR * 5);
        for end in 0..2 {
            assert!(!self.ends[end].is_rekeying() && !self.ends[end].is_failed());
            if self.ends[end].terms().delivery == Delivery::Window {
                self.got[end].sort_unstable();
            }
            let lost = &self.lost[end];
            self.sent[end].retain(|number| !lost.contains(number));
            assert_eq!(self.got[end], self.sent[end]);
            assert!(self.ends[end].former_epochs() == 0, "former keys are kept for nothing");
        }
        assert_eq!(self.ends[0].epoch(), self.ends[1].epoch());
        self.ends
    }
}

/// No rekey but those that are asked for.
fn patient() -> Limits {
    Limits {
        rekey_after: HOUR * 10,
        reject_after: HOUR * 20,
        ..Limits::default()
    }
}

fn soon() -> Vec<Fate> {
    vec![Fate {
        delay: 20,
        lost: false,
        repeated: false,
    }]
}

fn unsigned(delivery: Delivery) -> Terms {
    Terms {
        delivery,
        signing: Signing::ChannelOnly,
    }
}

#[test]
fn either_side_can_begin_a_rekey() {
    for terms in all_terms() {
        for end in 0..2 {
            let mut world = World::new(terms, patient(), soon());
            world.send(0).unwrap();
            world.rekey(end);
            assert!(world.ends[end].is_rekeying());
            world.send(0).unwrap();
            world.send(1).unwrap();
            assert_eq!(world.check()[0].epoch(), 1);
        }
    }
}

#[test]
fn both_sides_can_begin_at_once() {
    for terms in all_terms() {
        let mut world = World::new(terms, patient(), soon());
        for end in 0..2 {
            world.ends[end].start_rekey(world.now);
            world.ends[end].handle_timeout(world.now, &mut rng(end as u64));
        }
        world.transmit();
        world.send(0).unwrap();
        world.send(1).unwrap();
        assert_eq!(world.check()[0].epoch(), 1);
    }
}

#[test]
fn keys_change_by_count_under_load() {
    let limits = Limits {
        rekey_after_messages: 150,
        reject_after_messages: 300,
        ..patient()
    };
    for terms in all_terms() {
        let mut world = World::new(terms, limits, soon());
        for _ in 0..1500 {
            world.send(0).unwrap();
            world.send(1).unwrap();
            world.wait(MILLISECOND);
        }
        let epoch = world.check()[0].epoch();
        assert!((5..10).contains(&epoch), "{epoch}");
    }
}

#[test]
fn keys_change_by_bytes() {
    let limits = Limits {
        rekey_after_bytes: 4000,
        ..patient()
    };
    let mut world = World::new(unsigned(Delivery::Ordered), limits, soon());
    for _ in 0..1000 {
        world.send(0).unwrap();
        world.wait(MILLISECOND * 10);
    }
    assert!(world.check()[0].epoch() > 3);
}

#[test]
fn keys_change_with_time_also_when_nothing_is_said() {
    for terms in all_terms() {
        let mut world = World::new(terms, Limits::default(), soon());
        world.wait(HOUR);
        assert_eq!(world.ends[0].epoch(), 5);
        world.send(1).unwrap();
        world.check();
    }
}

#[test]
fn after_a_long_sleep_the_keys_change_before_anything_is_said() {
    let mut world = World::new(Terms::default(), Limits::default(), soon());
    world.now += HOUR * 24;
    assert_eq!(world.send(0), Err(SealError::RekeyNeeded));
    world.wait(SECOND);
    assert_eq!(world.send(0), Ok(()));
    assert!(world.check()[0].epoch() >= 1);
}

#[test]
fn without_a_rekey_the_channel_refuses_to_go_on() {
    let limits = Limits {
        rekey_after_messages: 4,
        reject_after_messages: 10,
        ..patient()
    };
    for terms in all_terms() {
        let (mut a, mut b) = pair_of(How::Ik, terms, limits);
        let mut sealed = Vec::new();
        let refused = loop {
            match a.seal_message(b"on and on", *START) {
                Ok(frame) if sealed.len() < 100 => sealed.push(frame),
                Ok(_) => panic!("it goes on and on"),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SealError::RekeyNeeded);
        // Two frames of the handshake's end, and the messages.
        assert!(sealed.len() >= 8 && sealed.len() < 10);
        for frame in &sealed {
            assert_eq!(read(&mut b, frame).unwrap(), b"on and on");
        }
        // A rekey still passes, and with it everything.
        b.handle_timeout(*START, &mut rng(1));
        settle(&mut a, &mut b, *START);
        a.handle_timeout(*START, &mut rng(2));
        settle(&mut a, &mut b, *START);
        assert_eq!((a.epoch(), b.epoch()), (1, 1));
        assert!(a.seal_message(b"on and on", *START).is_ok());
    }
}

#[test]
fn a_peer_that_goes_on_under_old_keys_is_not_heard() {
    let strict = Limits {
        reject_after: HOUR,
        ..patient()
    };
    for terms in all_terms() {
        let sides = [1, 2].map(|seed| Side {
            limits: if seed == 1 { patient() } else { strict },
            ..Side::new(seed, terms)
        });
        let (mut a, mut b) = shake(How::Ik, &sides[0], &sides[1], sides[1].party.known(), |_, m| m).unwrap();
        settle(&mut a, &mut b, *START);
        let later = *START + HOUR + strict.linger;
        let mut frame = a.seal_message(b"?", later).unwrap();
        assert_eq!(b.open(&mut frame, later), Err(OpenError::EpochExpired));
    }
    let strict = Limits {
        reject_after_messages: 5,
        ..patient()
    };
    let sides = [1, 2].map(|seed| Side {
        limits: if seed == 1 { patient() } else { strict },
        ..Side::new(seed, Terms::default())
    });
    let (mut a, mut b) = shake(How::Ik, &sides[0], &sides[1], sides[1].party.known(), |_, m| m).unwrap();
    settle(&mut a, &mut b, *START);
    let frames: Vec<_> = (0..5).map(|_| a.seal_message(b"?", *START).unwrap()).collect();
    let heard: Vec<_> = frames.iter().map(|frame| read(&mut b, frame).is_ok()).collect();
    assert_eq!(heard, [true, true, true, true, false]);
}

#[test]
fn former_keys_open_nothing_when_their_time_is_over() {
    // On a stream: with the first frame under the next epoch.
    let (mut a, mut b) = pair(unsigned(Delivery::Ordered));
    let old = a.seal_message(b"old", *START).unwrap();
    read(&mut b, &old).unwrap();
    a.start_rekey(*START);
    a.handle_timeout(*START, &mut rng(1));
    let mut init = a.poll_transmit(*START).unwrap();
    b.open(&mut init, *START).unwrap();
    b.handle_timeout(*START, &mut rng(2));
    settle(&mut a, &mut b, *START);
    assert!(a.former_epochs() + b.former_epochs() == 0);
    // In a window: when later frames fill it, or with time.
    for by_time in [false, true] {
        let mut world = World::new(unsigned(Delivery::Window), patient(), soon());
        let old = world.ends[0].seal_message(&7u64.to_be_bytes(), world.now).unwrap();
        world.rekey(0);
        world.wait(SECOND);
        assert_eq!(world.ends[1].former_epochs(), 1);
        if by_time {
            world.wait(patient().linger);
        } else {
            for _ in 0..1024 {
                world.send(0).unwrap();
                world.wait(MILLISECOND * 30);
            }
        }
        assert!(world.ends[1].former_epochs() == 0);
        let refused = world.ends[1].open(&mut old.clone(), world.now).unwrap_err();
        assert!(
            matches!(refused, OpenError::UnknownEpoch(0) | OpenError::TooOld(_)),
            "{refused}"
        );
    }
}

#[test]
fn frames_of_a_former_epoch_come_before_those_of_the_next() {
    // A peer that goes back to former keys is not heard, even where frames may come late.
    let (mut a, mut b) = pair(unsigned(Delivery::Window));
    a.start_rekey(*START);
    a.handle_timeout(*START, &mut rng(1));
    let mut init = a.poll_transmit(*START).unwrap();
    b.open(&mut init, *START).unwrap();
    b.handle_timeout(*START, &mut rng(2));
    let mut response = b.poll_transmit(*START).unwrap();
    let late = a.seal_message(b"late", *START).unwrap();
    a.open(&mut response, *START).unwrap();
    settle(&mut a, &mut b, *START);
    assert_eq!(read(&mut b, &late).unwrap(), b"late");
    let sequence = a.next_sequence();
    let mut forged = b.forge_under_former(sequence);
    assert_eq!(b.open(&mut forged, *START), Err(OpenError::UnknownEpoch(0)));
}

#[test]
fn limits_without_end_are_limits() {
    let limits = Limits {
        rekey_after: Duration::MAX,
        reject_after: Duration::MAX,
        repeat_after: Duration::MAX,
        linger: Duration::MAX,
        ..Limits::default()
    };
    for terms in all_terms() {
        let mut world = World::new(terms, limits, soon());
        assert_eq!(world.ends[0].poll_timeout(), None);
        world.send(0).unwrap();
        world.rekey(1);
        world.wait(SECOND);
        world.send(1).unwrap();
        world.wait(SECOND);
        assert_eq!((world.ends[0].epoch(), world.got[1].len()), (1, 1));
        // Where former keys are never dropped by time, rekeys wait for frames that make room.
        for _ in 0..20 {
            world.rekey(0);
            world.wait(SECOND);
        }
        let reached = if terms.delivery == Delivery::Window { 8 } else { 21 };
        assert_eq!(world.ends[0].epoch(), reached);
        for _ in 0..1024 {
            world.send(0).unwrap();
            world.send(1).unwrap();
        }
        world.wait(SECOND);
        assert!(world.ends[0].epoch() > reached || terms.delivery == Delivery::Ordered);
    }
}

#[test]
fn a_wrong_answer_to_a_rekey_ends_the_channel() {
    for terms in all_terms() {
        let (mut a, mut b) = pair(terms);
        a.start_rekey(*START);
        a.handle_timeout(*START, &mut rng(1));
        let mut init = a.poll_transmit(*START).unwrap();
        b.open(&mut init, *START).unwrap();
        let mut answer = b.seal_any(0x13, &[7; 48]).unwrap();
        assert!(matches!(a.open(&mut answer, *START), Err(OpenError::Misbehaved(_))));
        assert!(a.is_failed());
        assert_eq!(a.poll_timeout(), None);
        // An answer to nothing.
        let (mut a, mut b) = pair(terms);
        let mut answer = b.seal_any(0x13, &[7; 48]).unwrap();
        assert!(matches!(a.open(&mut answer, *START), Err(OpenError::Misbehaved(_))));
    }
}

#[test]
fn a_wrong_beginning_of_a_rekey_ends_the_channel() {
    for terms in all_terms() {
        let (mut a, mut b) = pair(terms);
        let mut init = b.seal_any(0x12, &[7; 48]).unwrap();
        assert_eq!(a.open(&mut init, *START), Ok(Opened::Control));
        a.handle_timeout(*START, &mut rng(1));
        assert!(a.is_failed());
    }
}

#[test]
fn a_frame_of_the_channel_with_a_wrong_content_ends_it() {
    let contents = [
        (0x11, vec![0]),
        (0x12, vec![]),
        (0x12, vec![7; 47]),
        (0x13, vec![7; 49]),
        (0x14, vec![7]),
        (0x15, vec![7; 48]),
    ];
    for terms in all_terms() {
        for (kind, content) in &contents {
            let (mut a, mut b) = pair(terms);
            let mut frame = b.seal_any(*kind, content).unwrap();
            let refused = a.open(&mut frame, *START);
            assert!(
                matches!(refused, Err(OpenError::Misbehaved(_))),
                "{kind:#x} of {} bytes",
                content.len()
            );
            assert!(a.is_failed());
        }
    }
}

/// What happens in a random world.
#[derive(Clone, Copy, Debug)]
enum Act {
    Send(usize),
    Rekey(usize),
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0usize..2).prop_map(Act::Send),
        1 => (0usize..2).prop_map(Act::Rekey),
        3 => (0u64..400).prop_map(Act::Wait),
    ];
    vec(act, 1..150)
}

fn fates(lossy: bool) -> impl Strategy<Value = Vec<Fate>> {
    let chance = |p: f64| prop::bool::weighted(if lossy { p } else { 0.0 });
    let fate = (0u64..400, chance(0.2), chance(0.2)).prop_map(|(delay, lost, repeated)| Fate { delay, lost, repeated });
    vec(fate, 1..40)
}

fn play(terms: Terms, limits: Limits, acts: &[Act], fates: Vec<Fate>) {
    let mut world = World::new(terms, limits, fates);
    let (mut asked, mut refused) = (false, 0);
    for act in acts {
        match *act {
            Act::Send(end) => refused += u32::from(world.send(end).is_err()),
            Act::Rekey(end) => {
                asked = true;
                world.rekey(end);
            }
            Act::Wait(time) => world.wait(MILLISECOND * time as u32),
        }
    }
    assert_eq!(refused, 0);
    let [a, _] = world.check();
    assert!(!asked || a.epoch() > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn on_a_stream_rekeys_neither_lose_nor_repeat(
        acts in acts(),
        fates in fates(false),
        often in prop::option::of(3u64..30),
        signed: bool,
    ) {
        let signing = if signed { Signing::EachMessage } else { Signing::ChannelOnly };
        let limits = Limits { rekey_after_messages: often.unwrap_or(1 << 20), ..patient() };
        play(Terms { delivery: Delivery::Ordered, signing }, limits, &acts, fates);
    }

    #[test]
    fn in_a_window_rekeys_neither_lose_nor_repeat(
        acts in acts(),
        fates in fates(false),
        often in prop::option::of(10u64..50),
    ) {
        let limits = Limits { rekey_after_messages: often.unwrap_or(1 << 20), ..patient() };
        play(unsigned(Delivery::Window), limits, &acts, fates);
    }

    #[test]
    fn on_a_carrier_that_loses_and_repeats_a_rekey_does_neither(acts in acts(), fates in fates(true)) {
        // A carrier that loses everything carries no rekey either.
        prop_assume!(fates.iter().any(|fate| !fate.lost));
        play(unsigned(Delivery::Window), patient(), &acts, fates);
    }
}
