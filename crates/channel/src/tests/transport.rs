//! Channels: nothing that happens to a frame on its way goes unnoticed.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::transport::{HEADER_BYTES, MAX_OVERHEAD_BYTES, WINDOW_FRAMES};

fn signed() -> Terms {
    Terms::default()
}

fn terms_of(delivery: Delivery) -> Vec<Terms> {
    all_terms()
        .into_iter()
        .filter(|terms| terms.delivery == delivery)
        .collect()
}

#[test]
fn a_message_is_sealed_and_opened_where_it_is() {
    for terms in all_terms() {
        let (mut a, mut b) = pair(terms);
        let mut buffer = Vec::with_capacity(5 + MAX_OVERHEAD_BYTES);
        buffer.resize(HEADER_BYTES, 0);
        buffer.extend_from_slice(b"hello");
        let place = buffer.as_ptr();
        a.seal(&mut buffer, *START).unwrap();
        assert_eq!(buffer.as_ptr(), place);
        let signature = if terms.signing == Signing::EachMessage { 64 } else { 0 };
        assert_eq!(buffer.len(), HEADER_BYTES + 5 + signature + 16);
        assert!(!buffer.windows(5).any(|window| window == b"hello"));
        assert_eq!(
            b.open(&mut buffer, *START),
            Ok(Opened::Message(&mut b"hello".to_owned()))
        );
        assert_eq!(&buffer[HEADER_BYTES..HEADER_BYTES + 5], b"hello");
    }
}

#[test]
fn messages_within_the_bound_pass_and_longer_ones_do_not() {
    let limits = Limits {
        max_message_bytes: 1000,
        ..Limits::default()
    };
    for terms in all_terms() {
        let (mut a, mut b) = pair_of(How::Ik, terms, limits);
        let frame = a.seal_message(&[1; 1000], *START).unwrap();
        assert_eq!(read(&mut b, &frame).unwrap(), [1; 1000]);
        let refused = a.seal_message(&[1; 1001], *START);
        assert_eq!(
            refused,
            Err(SealError::TooLarge {
                length: 1001,
                limit: 1000
            })
        );
        let mut long = vec![0x10; 1000 + MAX_OVERHEAD_BYTES + 1];
        assert!(matches!(b.open(&mut long, *START), Err(OpenError::TooLarge { .. })));
    }
    let (mut a, _) = pair(signed());
    assert_eq!(a.seal(&mut vec![0; HEADER_BYTES - 1], *START), Err(SealError::NoRoom));
}

#[test]
fn any_flipped_bit_in_a_frame_is_noticed() {
    for terms in all_terms() {
        let (mut a, mut b) = pair(terms);
        let frame = a.seal_message(b"some words", *START).unwrap();
        for bit in 0..frame.len() * 8 {
            assert!(b.open(&mut flipped(&frame, bit), *START).is_err(), "bit {bit}");
            assert_eq!(b.is_failed(), terms.delivery == Delivery::Ordered);
            b.forgive();
        }
        assert_eq!(read(&mut b, &frame).unwrap(), b"some words");
    }
}

#[test]
fn a_frame_of_another_session_or_of_the_other_direction_is_noticed() {
    for terms in all_terms() {
        let (mut a, mut b) = pair(terms);
        let mut frame = a.seal_message(b"to the responder", *START).unwrap();
        // The same two nodes, the same numbers, another session.
        let (_, mut other) = pair_of(How::Xx, terms, Limits::default());
        assert!(other.open(&mut frame.clone(), *START).is_err());
        // The same session, back to its sender: there are as many frames in both directions.
        b.seal_message(b"", *START).unwrap();
        assert_eq!(a.open(&mut frame, *START), Err(OpenError::NotAuthentic));
    }
}

#[test]
fn a_signature_is_bound_to_session_direction_and_number() {
    for delivery in [Delivery::Ordered, Delivery::Window] {
        // With the keys of the channel in hand, the receiver can seal what the sender said once more, under the next number.
        let (mut a, mut b) = pair(Terms {
            delivery,
            ..Terms::default()
        });
        let mut frame = a.seal_message(b"I owe you one", *START).unwrap();
        let sequence = 1;
        let header: [u8; HEADER_BYTES] = frame[..HEADER_BYTES].try_into().unwrap();
        assert_eq!(header[12], sequence);
        let mut forged = header;
        forged[12] = sequence + 1;
        let forged = b.forge(&header, &mut frame[HEADER_BYTES..], forged);
        assert_eq!(b.open(&mut forged.clone(), *START), Err(OpenError::BadSignature));
        assert!(b.is_failed());
        assert_eq!(b.open(&mut forged.clone(), *START), Err(OpenError::Failed));
        assert_eq!(b.seal_message(b"?", *START), Err(SealError::Failed));
    }
}

#[test]
fn a_stream_that_loses_repeats_or_reorders_frames_has_failed() {
    for terms in terms_of(Delivery::Ordered) {
        for order in [&[1][..], &[0, 0], &[1, 0], &[0, 2]] {
            let (mut a, mut b) = pair(terms);
            let frames: Vec<_> = (0..3u8).map(|n| a.seal_message(&[n], *START).unwrap()).collect();
            let (last, before) = order.split_last().unwrap();
            let mut failed = false;
            for frame in before {
                failed |= b.open(&mut frames[*frame].clone(), *START).is_err();
            }
            failed |= b.open(&mut frames[*last].clone(), *START).is_err();
            assert!(failed && b.is_failed(), "{order:?}");
        }
    }
}

#[test]
fn the_last_word_comes_last_and_only_once() {
    for terms in all_terms() {
        let (mut a, mut b) = pair(terms);
        let before = a.seal_message(b"before", *START).unwrap();
        a.close(Close::new(CloseCode::Done, "that was all"));
        a.close(Close::new(CloseCode::Busy, "or not"));
        assert_eq!(a.seal_message(b"after", *START), Err(SealError::Closed));
        let mut last = a.poll_transmit(*START).unwrap();
        assert_eq!(a.poll_transmit(*START), None);
        assert_eq!(read(&mut b, &before).unwrap(), b"before");
        assert!(b.carrier_ended().is_err());
        let close = Close::new(CloseCode::Done, "that was all");
        assert_eq!(b.open(&mut last, *START), Ok(Opened::Closed(close)));
        assert!(b.carrier_ended().is_ok() && b.is_closed_by_peer());
        // The other direction is open still.
        let answer = b.seal_message(b"good night", *START).unwrap();
        assert_eq!(read(&mut a, &answer).unwrap(), b"good night");
    }
}

#[test]
fn in_a_window_what_was_overtaken_by_the_last_word_still_counts() {
    for terms in terms_of(Delivery::Window) {
        let (mut a, mut b) = pair(terms);
        let before = a.seal_message(b"before", *START).unwrap();
        a.close(Close::new(CloseCode::Done, ""));
        let mut last = a.poll_transmit(*START).unwrap();
        b.open(&mut last, *START).unwrap();
        assert_eq!(read(&mut b, &before).unwrap(), b"before");
        // A peer that goes on after its last word is not heard.
        a.reopen();
        let mut after = a.seal_message(b"after", *START).unwrap();
        assert_eq!(b.open(&mut after, *START), Err(OpenError::AfterClose));
    }
}

#[test]
fn the_last_sequence_number_is_never_used() {
    for terms in all_terms() {
        let (mut a, _) = pair(terms);
        a.skip_to(u64::MAX - 1);
        let frame = a.seal_message(b"the last", *START).unwrap();
        assert_eq!(frame[5..13], (u64::MAX - 1).to_be_bytes());
        for _ in 0..2 {
            assert_eq!(a.seal_message(b"?", *START), Err(SealError::Exhausted));
        }
        // Not even for a goodbye.
        a.close(Close::new(CloseCode::Done, ""));
        assert_eq!(a.poll_transmit(*START), None);
        assert!(a.is_failed());
    }
}

#[test]
fn a_carrier_that_ends_early_is_noticed() {
    for terms in all_terms() {
        let (mut a, mut b) = pair(terms);
        let frame = a.seal_message(b"hello", *START).unwrap();
        read(&mut b, &frame).unwrap();
        assert!(b.carrier_ended().is_err());
    }
}

#[test]
fn a_failed_channel_can_still_say_so() {
    let (mut a, mut b) = pair(signed());
    assert_eq!(b.open(&mut [0; 50], *START), Err(OpenError::Malformed));
    b.close(Close::new(CloseCode::Misbehaved, "that is no frame"));
    let mut last = b.poll_transmit(*START).unwrap();
    assert!(matches!(a.open(&mut last, *START), Ok(Opened::Closed(close)) if close.code() == CloseCode::Misbehaved));
}

/// What a carrier does to the frames of a test: which go missing, which come twice, and how far each is displaced.
#[derive(Clone, Debug)]
struct Mischief {
    lost: Vec<bool>,
    repeated: Vec<bool>,
    delay: Vec<usize>,
}

fn mischief(frames: usize, reach: usize) -> impl Strategy<Value = Mischief> {
    (
        vec(prop::bool::weighted(0.1), frames),
        vec(prop::bool::weighted(0.1), frames),
        vec(0..reach, frames),
    )
        .prop_map(|(lost, repeated, delay)| Mischief { lost, repeated, delay })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_come_as_they_were_sent(messages in vec(vec(any::<u8>(), 0..300), 1..20), xx: bool, which in 0usize..4) {
        let how = if xx { How::Xx } else { How::Ik };
        let (mut a, mut b) = pair_of(how, all_terms()[which], Limits::default());
        for (number, message) in messages.iter().enumerate() {
            let (from, to) = if number % 3 == 0 { (&mut b, &mut a) } else { (&mut a, &mut b) };
            let frame = from.seal_message(message, *START).unwrap();
            prop_assert_eq!(&read(to, &frame).unwrap(), message);
        }
    }

    #[test]
    fn in_a_window_each_frame_counts_once_whatever_the_carrier_does(mischief in mischief(60, 30)) {
        let terms = Terms { delivery: Delivery::Window, signing: Signing::ChannelOnly };
        let (mut a, mut b) = pair(terms);
        let mut carried = Vec::new();
        for number in 0..60usize {
            let frame = a.seal_message(&number.to_be_bytes(), *START).unwrap();
            if mischief.lost[number] {
                continue;
            }
            carried.push((number + mischief.delay[number], frame.clone()));
            if mischief.repeated[number] {
                carried.push((number + mischief.delay[59 - number], frame));
            }
        }
        carried.sort_by_key(|(at, _)| *at);
        let mut got: Vec<usize> = Vec::new();
        for (_, frame) in carried {
            match read(&mut b, &frame) {
                Ok(message) => got.push(usize::from_be_bytes(message.try_into().unwrap())),
                Err(error) => prop_assert!(matches!(error, OpenError::Repeated(_)), "{}", error),
            }
        }
        got.sort_unstable();
        let sent: Vec<usize> = (0..60).filter(|number| !mischief.lost[*number]).collect();
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn on_a_stream_any_mischief_is_noticed(mischief in mischief(20, 4), signed: bool) {
        let signing = if signed { Signing::EachMessage } else { Signing::ChannelOnly };
        let (mut a, mut b) = pair(Terms { delivery: Delivery::Ordered, signing });
        let mut carried = Vec::new();
        let mut frames: Vec<_> = (0..19u8).map(|number| a.seal_message(&[number], *START).unwrap()).collect();
        a.close(Close::new(CloseCode::Done, ""));
        frames.push(a.poll_transmit(*START).unwrap());
        for (number, frame) in frames.iter().enumerate() {
            let copies = if mischief.lost[number] { 0 } else { 1 + usize::from(mischief.repeated[number]) };
            carried.extend(std::iter::repeat_n((number + mischief.delay[number], frame.clone()), copies));
        }
        carried.sort_by_key(|(at, _)| *at);
        let untouched = carried.iter().map(|(_, frame)| frame).eq(&frames);
        let mut sound = true;
        for (number, (_, mut frame)) in carried.into_iter().enumerate() {
            match b.open(&mut frame, *START) {
                // What is read before anything is noticed is what was sent.
                Ok(Opened::Message(message)) => prop_assert_eq!(message, &mut [number as u8]),
                Ok(_) => prop_assert_eq!(number, 19),
                Err(_) => sound = false,
            }
        }
        prop_assert_eq!(sound && b.carrier_ended().is_ok(), untouched);
    }

    #[test]
    fn damage_to_a_frame_is_noticed(
        message in vec(any::<u8>(), 0..100),
        edits in vec((any::<Index>(), any::<u8>()), 1..5),
        cut in any::<Index>(),
        more in vec(any::<u8>(), 1..40),
        which in 0usize..4,
    ) {
        let terms = all_terms()[which];
        let (mut a, _) = pair(terms);
        let frame = a.seal_message(&message, *START).unwrap();
        let mut edited = frame.clone();
        for (place, byte) in edits {
            let place = place.index(frame.len());
            edited[place] = byte;
        }
        for damaged in [edited, frame[..cut.index(frame.len())].to_vec(), [&frame[..], &more].concat()] {
            let (_, mut b) = pair(terms);
            let opened = b.open(&mut damaged.clone(), *START).is_ok();
            prop_assert_eq!(opened, damaged == frame);
        }
    }

    #[test]
    fn no_bytes_make_a_channel_panic(mut bytes in vec(any::<u8>(), 0..200), kind in 0x0fu8..0x18, which in 0usize..4) {
        let (_, mut b) = pair(all_terms()[which]);
        prop_assert!(b.open(&mut bytes.clone(), *START).is_err());
        let (_, mut b) = pair(all_terms()[which]);
        if let Some(front) = bytes.first_chunk_mut() {
            *front = [kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        }
        prop_assert!(b.open(&mut bytes, *START).is_err());
    }
}

#[test]
fn a_window_holds_through_more_frames_than_it_has() {
    let terms = Terms {
        delivery: Delivery::Window,
        signing: Signing::ChannelOnly,
    };
    let (mut a, mut b) = pair(terms);
    let frames: Vec<_> = (0..3 * WINDOW_FRAMES)
        .map(|number| a.seal_message(&number.to_be_bytes(), *START).unwrap())
        .collect();
    let last = frames.last().unwrap();
    read(&mut b, last).unwrap();
    let mut taken = 0;
    for frame in &frames {
        taken += u64::from(read(&mut b, frame).is_ok());
    }
    assert_eq!(taken, WINDOW_FRAMES - 1);
}
