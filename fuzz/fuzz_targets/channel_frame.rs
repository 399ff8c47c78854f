//! Frames of a secure channel: those that anybody can send, and authentic ones of a peer gone mad, over a carrier that
//! loses, repeats and reorders. Whatever comes is opened or refused, and what is opened was sealed and is opened once.
#![no_main]

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dawn_channel::handshake::{Accept, Answer, Initiator, Responder};
use dawn_channel::transport::{Close, CloseCode, Opened};
use dawn_channel::{Channel, Context, Delivery, Limits, Party, Signing, StaticKey, Terms};
use dawn_identity::{Keypair, UnixTime};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

const NOW: UnixTime = UnixTime(1_800_000_000);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn party(seed: u8) -> Arc<Party> {
    let (identity, key) = (Keypair::from_seed([seed; 32]), StaticKey::from_bytes([seed + 1; 32]));
    Arc::new(Party::new(identity, key, NOW, Duration::from_secs(86_400)).expect("a party"))
}

fn pair(terms: Terms) -> [Channel; 2] {
    static PARTIES: LazyLock<[Arc<Party>; 2]> = LazyLock::new(|| [party(1), party(3)]);
    let [a, b] = PARTIES.clone();
    let context = Context::new(Keypair::from_seed([9; 32]).network_id(), *b"fuzz").with_terms(terms);
    let limits = Limits {
        max_message_bytes: 4096,
        rekey_after_messages: 8,
        reject_after_messages: 24,
        ..Limits::default()
    };
    let mut rng = StdRng::seed_from_u64(1);
    let peer = b.known();
    let initiator = Initiator::ik(a, peer, context.clone(), limits, &mut rng).expect("a first message");
    let responder = Responder::new(b, Accept::Ik, None, context, limits);
    let answer = responder.read(initiator.message(), NOW, *START, &mut rng);
    let Ok(Answer::Channel(mut b)) = answer else {
        unreachable!("two messages are a handshake")
    };
    let second = b.poll_transmit(*START).expect("a second message");
    let mut a = initiator.read(&second, NOW, *START).expect("a channel");
    let mut confirm = a.poll_transmit(*START).expect("a confirmation");
    b.open(&mut confirm, *START).expect("the confirmation");
    [a, *b]
}

/// A frame on its way, with the message in it if it has one.
#[derive(Clone)]
struct Carried {
    to: usize,
    frame: Vec<u8>,
    message: Option<Vec<u8>>,
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else {
        return;
    };
    let terms = Terms {
        delivery: if choice & 1 == 0 {
            Delivery::Ordered
        } else {
            Delivery::Window
        },
        signing: if choice & 2 == 0 {
            Signing::ChannelOnly
        } else {
            Signing::EachMessage
        },
    };
    let (mut ends, mut now) = (pair(terms), *START);
    let mut rng = StdRng::seed_from_u64(2);
    let mut carried: Vec<Carried> = Vec::new();
    // To whom, and the number of the frame.
    let mut read: HashSet<(usize, [u8; 8])> = HashSet::new();
    while let Some(([act, length], behind)) = rest.split_first_chunk() {
        let (bytes, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        let end = usize::from(act & 1);
        match act >> 1 & 7 {
            // Bytes of anybody.
            0 => {
                let _ = ends[end].open(&mut bytes.to_vec(), now);
            }
            // A frame of a peer gone mad.
            1 => {
                if let Some((kind, content)) = bytes.split_first()
                    && let Some(mut frame) = ends[1 - end].seal_any(0x10 + kind % 6, content)
                {
                    let _ = ends[end].open(&mut frame, now);
                }
            }
            2 => {
                if let Ok(frame) = ends[end].seal_message(bytes, now) {
                    let (to, message) = (1 - end, Some(bytes.to_vec()));
                    carried.push(Carried { to, frame, message });
                }
            }
            // The carrier hands over something, once or not for the last time.
            3 if !carried.is_empty() => {
                let place = usize::from(length >> 1) % carried.len();
                let Carried { to, mut frame, message } = if length & 1 == 0 {
                    carried.swap_remove(place)
                } else {
                    carried[place].clone()
                };
                let number = frame.get(5..13).and_then(|number| number.try_into().ok());
                if let Ok(Opened::Message(opened)) = ends[to].open(&mut frame, now) {
                    assert_eq!(message.as_deref(), Some(&*opened));
                    assert!(read.insert((to, number.expect("a header"))));
                }
            }
            4 => ends[end].start_rekey(now),
            5 => ends[end].handle_timeout(now, &mut rng),
            6 => now += Duration::from_secs(u64::from(*length)),
            _ => ends[end].close(Close::new(CloseCode::Done, &String::from_utf8_lossy(bytes))),
        }
        for end in 0..2 {
            while let Some(frame) = ends[end].poll_transmit(now) {
                let (to, message) = (1 - end, None);
                carried.push(Carried { to, frame, message });
            }
            let _ = (ends[end].poll_timeout(), ends[end].carrier_ended());
        }
        carried.truncate(64);
    }
});
