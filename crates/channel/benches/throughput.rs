//! How fast a channel seals and opens, and how many handshakes a core makes: `cargo bench -p dawn-channel`.
//!
//! Next to it: `openssl speed -evp aes-256-gcm -bytes 65536`, the cipher alone.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for a person")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dawn_channel::handshake::{Accept, Answer, Initiator, Responder};
use dawn_channel::transport::{HEADER_BYTES, MAX_OVERHEAD_BYTES, Opened};
use dawn_channel::{Channel, Context, Limits, Party, Signing, StaticKey, Terms};
use dawn_identity::{Keypair, UnixTime};

const TIME: UnixTime = UnixTime(1_800_000_000);
/// How long each case is measured.
const SPAN: Duration = Duration::from_millis(1000);

fn party(seed: u8) -> Arc<Party> {
    let (identity, key) = (Keypair::from_seed([seed; 32]), StaticKey::from_bytes([seed; 32]));
    Arc::new(Party::new(identity, key, TIME, Duration::from_secs(86_400)).unwrap())
}

/// Two channels after a whole handshake.
fn handshake(parties: &[Arc<Party>; 2], terms: Terms, known: bool) -> [Channel; 2] {
    let (now, mut rng, [a, b]) = (Instant::now(), rand::rng(), parties.clone());
    let limits = Limits {
        rekey_after_messages: u64::MAX,
        rekey_after_bytes: u64::MAX,
        reject_after_messages: u64::MAX,
        reject_after_bytes: u64::MAX,
        ..Limits::default()
    };
    let context = Context::new(Keypair::from_seed([9; 32]).network_id(), *b"bench").with_terms(terms);
    let initiator = if known {
        Initiator::ik(a, b.known(), context.clone(), limits, &mut rng).unwrap()
    } else {
        Initiator::xx(a, None, context.clone(), limits, &mut rng).unwrap()
    };
    let responder = Responder::new(b, Accept::Either, None, context, limits);
    let (mut a, mut b) = match responder.read(initiator.message(), TIME, now, &mut rng).unwrap() {
        Answer::Channel(mut b) => {
            let second = b.poll_transmit(now).unwrap();
            (initiator.read(&second, TIME, now).unwrap(), b)
        }
        Answer::Reply(second, waiting) => {
            let mut a = initiator.read(&second, TIME, now).unwrap();
            let third = a.poll_transmit(now).unwrap();
            let Answer::Channel(b) = waiting.read(&third, TIME, now, &mut rng).unwrap() else {
                unreachable!("three messages are a handshake")
            };
            (a, b)
        }
    };
    for _ in 0..2 {
        while let Some(mut frame) = a.poll_transmit(now) {
            b.open(&mut frame, now).unwrap();
        }
        while let Some(mut frame) = b.poll_transmit(now) {
            a.open(&mut frame, now).unwrap();
        }
    }
    [a, *b]
}

/// Seals and opens one message again and again, where it is. Bytes a second of each.
fn throughput(parties: &[Arc<Party>; 2], signing: Signing, length: usize) -> [f64; 2] {
    let terms = Terms {
        signing,
        ..Terms::default()
    };
    let [mut a, mut b] = handshake(parties, terms, true);
    let mut buffer = Vec::with_capacity(length + MAX_OVERHEAD_BYTES);
    buffer.resize(HEADER_BYTES + length, 7);
    let (mut sealing, mut opening, mut rounds) = (Duration::ZERO, Duration::ZERO, 0u32);
    while sealing + opening < SPAN {
        let begin = Instant::now();
        a.seal(&mut buffer, begin).unwrap();
        let between = Instant::now();
        let Opened::Message(message) = b.open(black_box(&mut buffer), between).unwrap() else {
            unreachable!("a message was sealed")
        };
        black_box(message);
        opening += between.elapsed();
        sealing += between - begin;
        buffer.truncate(HEADER_BYTES + length);
        rounds += 1;
    }
    [sealing, opening].map(|time| f64::from(rounds) * length as f64 / time.as_secs_f64())
}

fn per_second(mut work: impl FnMut()) -> f64 {
    let (begin, mut rounds) = (Instant::now(), 0u32);
    while begin.elapsed() < SPAN {
        work();
        rounds += 1;
    }
    f64::from(rounds) / begin.elapsed().as_secs_f64()
}

fn main() {
    let parties = [party(1), party(2)];
    println!(
        "{:>9} {:>8} {:>12} {:>12}",
        "message", "signed", "seal MB/s", "open MB/s"
    );
    for length in [1 << 10, 1 << 16, 1 << 20] {
        for (signing, name) in [(Signing::ChannelOnly, "no"), (Signing::EachMessage, "yes")] {
            let [seal, open] = throughput(&parties, signing, length).map(|rate| rate / 1e6);
            println!("{length:>9} {name:>8} {seal:>12.0} {open:>12.0}");
        }
    }
    for (name, known) in [("IK", true), ("XX", false)] {
        let terms = Terms {
            signing: Signing::ChannelOnly,
            ..Terms::default()
        };
        let rate = per_second(|| drop(black_box(handshake(&parties, terms, known))));
        println!("handshakes {name}: {rate:.0} a second, both sides on one core");
    }
    let [mut a, mut b] = handshake(&parties, Terms::default(), true);
    let mut rng = rand::rng();
    let rate = per_second(|| {
        let now = Instant::now();
        a.start_rekey(now);
        for _ in 0..4 {
            for (from, to) in [(0, 1), (1, 0)] {
                let ends = [&mut a, &mut b];
                let [from, to] = if from < to {
                    ends
                } else {
                    let [a, b] = ends;
                    [b, a]
                };
                from.handle_timeout(now, &mut rng);
                while let Some(mut frame) = from.poll_transmit(now) {
                    to.open(&mut frame, now).unwrap();
                }
            }
        }
    });
    println!(
        "rekeys, signed: {rate:.0} a second, both sides on one core; epoch {}",
        a.epoch()
    );
}
