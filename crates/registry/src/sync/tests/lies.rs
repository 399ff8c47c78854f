//! Other sides that say what they should not, or never end.

use super::*;

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
                from.transmit(here);
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
                let _ = c.replica.apply(&delta, NOW, verify);
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
            while let Some(message) = to.transmit(replica) {
                said += message.len();
            }
            assert!(said < 200_000, "{said}");
        }
    }
}

fn said(said: Said<'_>) -> Vec<u8> {
    Message { is_last: false, said }.encode()
}

fn last(said: Said<'_>) -> Vec<u8> {
    Message { is_last: true, said }.encode()
}

fn stream(is_packed: bool, bytes: &[u8]) -> Vec<u8> {
    said(Said::Stream { is_packed, bytes })
}

/// A stream of so many bytes that is one delta, by its length.
fn no_delta(bytes: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    crate::wire::put_number(&mut stream, bytes as u64 - 3);
    stream.resize(bytes, 0);
    stream
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
    let has = |from: u64| {
        let has = (from..from + 100).map(|place| Has {
            place,
            heads: Vec::new(),
        });
        said(Said::Has(has.collect()))
    };
    let mut giver = Session::respond(snapshot(&a.replica));
    // A hundred nodes of four heads each, and a wish for each: beyond that nobody has anything to list.
    (0..10).for_each(|turn| drop(giver.receive(&a.replica, &has(turn * 100)).unwrap()));
    assert_eq!(giver.receive(&a.replica, &has(1000)), Err(SyncError::TooMuch));
    // What says nothing, too, ends some time.
    let until_refused = |mut session: Session, message: &[u8]| {
        let mut turns = 0;
        while session.receive(&a.replica, message).is_ok() {
            turns += 1;
            assert!(turns < 1_000_000);
        }
        assert!(session.is_done());
    };
    let giver = || Session::respond(snapshot(&a.replica));
    let asker = || {
        let mut asker = Session::fetch(snapshot(&a.replica), [a.id()]);
        asker.transmit(&a.replica);
        asker
    };
    for nothing in [
        Said::Has(Vec::new()),
        Said::Want(Vec::new()),
        Said::End,
        Said::Step(&[]),
    ] {
        until_refused(giver(), &said(nothing));
    }
    until_refused(asker(), &stream(false, &[]));
    until_refused(asker(), &stream(true, &[0, 0]));
    let refused = |mut session: Session, message: &[u8]| {
        let error = session.receive(&a.replica, message).unwrap_err();
        assert!(session.is_done());
        assert_eq!(session.receive(&a.replica, message), Err(SyncError::OutOfTurn));
        error
    };
    let is_malformed = |error| assert!(matches!(error, SyncError::Malformed(_)), "{error:?}");
    // A step of a comparison that was not begun, or one that is too long; a beginning where one has begun.
    assert_eq!(refused(giver(), &said(Said::Step(&[0; 4]))), SyncError::OutOfTurn);
    assert_eq!(refused(asker(), &said(Said::All)), SyncError::OutOfTurn);
    let begun = || {
        let mut begun = session(&a);
        begun.transmit(&a.replica);
        begun
    };
    assert_eq!(refused(begun(), &said(Said::Step(&[0; 4_000]))), SyncError::OutOfTurn);
    is_malformed(refused(begun(), &last(Said::Step(&[0; 3]))));
    is_malformed(refused(begun(), &last(Said::Step(&[0; 5]))));
    is_malformed(refused(begun(), &last(Said::Step(&[0x55; 40]))));
    assert_eq!(begun().receive(&a.replica, &last(Said::Step(&[0; 4]))), Ok(Vec::new()));
    // More than a registry holds, whether it is packed or not.
    let mut flooded = asker();
    let piece = stream(false, &no_delta(60_000));
    assert!(flooded.receive(&a.replica, &piece).is_ok());
    assert_eq!(flooded.receive(&a.replica, &piece), Err(SyncError::TooMuch));
    let mut flooded = asker();
    let packed = |length: usize| {
        let mut packed = Vec::new();
        crate::wire::put_number(&mut packed, length as u64);
        packed.extend(lz4_flex::block::compress(&no_delta(length)));
        stream(true, &packed)
    };
    assert!(packed(60_000).len() < 400);
    assert!(flooded.receive(&a.replica, &packed(60_000)).is_ok());
    assert_eq!(flooded.unpacked(), 60_000, "whatever it was packed into");
    assert_eq!(flooded.receive(&a.replica, &packed(60_000)), Err(SyncError::TooMuch));
    // What is packed is never more than a message holds, whatever it says.
    is_malformed(refused(asker(), &packed(MAX_MESSAGE_BYTES)));
    is_malformed(refused(asker(), &stream(true, &[9, 0x10, 1])));
    is_malformed(refused(asker(), &stream(true, &[0xff, 0xff, 0xff, 0xff, 0xff, 1, 0])));
    is_malformed(refused(asker(), &stream(false, &[0xff, 0xff, 0xff, 0xff, 0x0f])));
    is_malformed(refused(asker(), &stream(false, &[0xff; 12])));
    // Deltas of nothing: one message would be tens of thousands of them.
    is_malformed(refused(asker(), &stream(false, &[0; 60_000])));
    let mut cut = asker();
    assert_eq!(cut.receive(&a.replica, &stream(false, &[0xff, 1, 1])), Ok(Vec::new()));
    is_malformed(cut.receive(&a.replica, &last(Said::End)).unwrap_err());
}

#[test]
fn of_a_place_no_more_is_kept_than_of_a_node_however_often_it_is_listed() {
    let a = Member::up(1, 100);
    let known = |id: u8| crate::owner::Known {
        clock: crate::clock::Clock::default(),
        id: [id; 8],
    };
    let mut all = BTreeMap::new();
    for turn in 0..10 {
        let heads = vec![known(turn), known(turn)];
        session::put(&mut all, vec![Has { place: 7, heads }]);
    }
    assert_eq!(all[&7].len(), crate::owner::MAX_HEADS);
    // Heads are counted, not places, and in proportion to what is here.
    let heads = || vec![known(1), known(2), known(3), known(4)];
    let list: Vec<Has> = (0..1000).map(|place| Has { place, heads: heads() }).collect();
    let list = said(Said::Has(list));
    let mut giver = Session::respond(snapshot(&a.replica));
    let taken = (0..100)
        .take_while(|_| giver.receive(&a.replica, &list).is_ok())
        .count();
    assert_eq!(taken, 4);
}

#[test]
fn who_is_told_that_everything_differs_lists_what_is_there_and_ends() {
    let world = World::new(300, 1);
    let a = world.known_to(1, 0..300);
    let mut session = session(&a);
    let (mut open, mut said, mut step) = (1, 0, 0);
    for turn in 0..20u8 {
        while let Some(message) = session.transmit(&a.replica) {
            said += message.len();
            if let Said::Step(bytes) = Message::decode(&message).unwrap().said {
                step += bytes.len();
            }
        }
        if turn > 0 {
            // Four bytes of verdicts for each range that came, then six for each part of what it says to differ.
            open = (std::mem::take(&mut step) - 4 * 16 * open) / (16 * 6);
        }
        if session.is_done() || open == 0 {
            assert!(turn > 0 && said < 300 * 40, "{turn}: {said}");
            return;
        }
        let all = [&[0x55; 4][..], &vec![turn; 16 * 16 * 6]].concat().repeat(open);
        for (place, piece) in all.chunks(60_000).enumerate() {
            let is_last = (place + 1) * 60_000 >= all.len();
            let said = Said::Step(piece);
            session
                .receive(&a.replica, &Message { is_last, said }.encode())
                .unwrap();
        }
    }
    panic!("it goes on and on");
}
