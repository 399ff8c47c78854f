//! The secure channel by itself, in this process: handshakes, sealing and opening beside OpenSSL's own measurement of the
//! same cipher, rekeys, envelopes.
//!
//! All of it runs on one core; a rate counts the work of one side, but for handshakes, rekeys and key exchanges, of which
//! both sides are done here.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dawn_channel::envelope::{Draft, Envelope, EnvelopeId, Opener, Sealing};
use dawn_channel::exchange::{Acceptor, KeyRequest, Offer, Requester};
use dawn_channel::handshake::{Accept, Answer, Initiator, Responder};
use dawn_channel::transport::{HEADER_BYTES, MAX_OVERHEAD_BYTES, Opened};
use dawn_channel::{Channel, Context, Limits, Party, SharedKey, Signing, StaticKey, Terms};
use dawn_identity::{Keypair, NetworkId, UnixTime};

use crate::report::Report;
use crate::start::median;

const TIME: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const SKEW: Duration = Duration::from_secs(60);
/// How long each case is measured in a round; OpenSSL takes whole seconds.
const SPAN: Duration = Duration::from_millis(500);
/// Rounds, of which the median counts: what else the machine does comes and goes.
const ROUNDS: usize = 3;
const LENGTHS: [(usize, &str); 3] = [(1 << 10, "1 KiB"), (1 << 16, "64 KiB"), (1 << 20, "1 MiB")];
const MODES: [(Signing, &str); 2] = [
    (Signing::ChannelOnly, "channel only"),
    (Signing::EachMessage, "each signed"),
];
/// Of OpenSSL's rate, what a channel that signs nothing reaches at 64 KiB.
const PROMISED: f64 = 0.8;

fn identity(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn network() -> NetworkId {
    identity(9).network_id()
}

fn party(seed: u8) -> Arc<Party> {
    let key = StaticKey::from_bytes([seed; 32]);
    Arc::new(Party::new(identity(seed), key, TIME, DAY).expect("a party"))
}

/// Gives what the channels themselves have to say to the other, until they are at rest.
fn settle(ends: &mut [Channel; 2], now: Instant) {
    let [a, b] = ends;
    loop {
        let mut still = true;
        while let Some(mut frame) = a.poll_transmit(now) {
            b.open(&mut frame, now).expect("a frame of the peer");
            still = false;
        }
        while let Some(mut frame) = b.poll_transmit(now) {
            a.open(&mut frame, now).expect("a frame of the peer");
            still = false;
        }
        if still {
            return;
        }
    }
}

/// Two channels after a whole handshake: `IK` or `XX`.
fn handshake(parties: &[Arc<Party>; 2], signing: Signing, known: bool) -> [Channel; 2] {
    let (now, mut rng, [a, b]) = (Instant::now(), rand::rng(), parties.clone());
    let limits = Limits {
        rekey_after_messages: u64::MAX,
        rekey_after_bytes: u64::MAX,
        reject_after_messages: u64::MAX,
        reject_after_bytes: u64::MAX,
        ..Limits::default()
    };
    let terms = Terms {
        signing,
        ..Terms::default()
    };
    let context = Context::new(network(), *b"bench").with_terms(terms);
    let initiator = if known {
        Initiator::ik(a, b.known(), context.clone(), limits, &mut rng)
    } else {
        Initiator::xx(a, None, context.clone(), limits, &mut rng)
    };
    let initiator = initiator.expect("a first message");
    let responder = Responder::new(b, Accept::Either, None, context, limits);
    let answer = responder.read(initiator.message(), TIME, now, &mut rng);
    let (a, b) = match answer.expect("an answer") {
        Answer::Channel(mut b) => {
            let second = b.poll_transmit(now).expect("a second message");
            (initiator.read(&second, TIME, now).expect("a channel"), b)
        }
        Answer::Reply(second, waiting) => {
            let mut a = initiator.read(&second, TIME, now).expect("a channel");
            let third = a.poll_transmit(now).expect("a third message");
            match waiting.read(&third, TIME, now, &mut rng).expect("a channel") {
                Answer::Channel(b) => (a, b),
                Answer::Reply(..) => panic!("three messages are a handshake"),
            }
        }
    };
    let mut ends = [a, *b];
    settle(&mut ends, now);
    ends
}

/// Seals and opens one message again and again, where it is. Bytes a second of each.
fn throughput(parties: &[Arc<Party>; 2], signing: Signing, length: usize) -> [f64; 2] {
    let [mut a, mut b] = handshake(parties, signing, true);
    let mut buffer = Vec::with_capacity(length + MAX_OVERHEAD_BYTES);
    buffer.resize(HEADER_BYTES + length, 7);
    let (mut sealing, mut opening, mut rounds) = (Duration::ZERO, Duration::ZERO, 0u32);
    while sealing + opening < SPAN {
        let begun = Instant::now();
        a.seal(&mut buffer, begun).expect("sealed");
        let between = Instant::now();
        match b.open(black_box(&mut buffer), between).expect("opened") {
            Opened::Message(message) => black_box(message),
            other => panic!("{other:?} instead of a message"),
        };
        opening += between.elapsed();
        sealing += between - begun;
        buffer.truncate(HEADER_BYTES + length);
        rounds += 1;
    }
    [sealing, opening].map(|time| f64::from(rounds) * length as f64 / time.as_secs_f64())
}

/// Bytes a second of `openssl speed`, by the clock as everything here; `None` where there is no OpenSSL.
fn openssl(length: usize) -> Option<f64> {
    let bytes = length.to_string();
    let output = Command::new("openssl")
        .args([
            "speed",
            "-evp",
            "aes-256-gcm",
            "-seconds",
            "1",
            "-elapsed",
            "-mr",
            "-bytes",
            &bytes,
        ])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `+F:25:AES-256-GCM:5486528284.44`
    let line = text.lines().find(|line| line.starts_with("+F:"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

fn per_second(mut work: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let (begun, mut times) = (Instant::now(), 0u32);
        while begun.elapsed() < SPAN {
            work();
            times += 1;
        }
        f64::from(times) / begun.elapsed().as_secs_f64()
    });
    median(rounds.collect())
}

fn measure_throughput(parties: &[Arc<Party>; 2], report: &mut Report) {
    for (length, name) in LENGTHS {
        // In turns, so that all see the same machine.
        let mut rates: [[Vec<f64>; 2]; 2] = Default::default();
        let mut theirs = Vec::new();
        for _ in 0..ROUNDS {
            theirs.extend(openssl(length));
            for ((signing, _), rates) in MODES.into_iter().zip(&mut rates) {
                for (rates, rate) in rates.iter_mut().zip(throughput(parties, signing, length)) {
                    rates.push(rate);
                }
            }
        }
        let peer = (theirs.len() == ROUNDS).then(|| median(theirs));
        if peer.is_none() {
            println!("NOT MEASURED beside OpenSSL, as `openssl speed` gives no figure here: {name}");
        }
        for ((signing, mode), rates) in MODES.into_iter().zip(rates) {
            for (what, rates) in ["seal", "open"].into_iter().zip(rates) {
                let (case, rate) = (format!("{what} {name}, {mode}"), median(rates));
                let peers: Vec<_> = peer.iter().map(|peer| ("openssl", peer / 1e6)).collect();
                report.add("channel", &case, "throughput", "MB/s", rate / 1e6, &peers, None);
                if let Some(peer) = peer {
                    let promised = length == 1 << 16 && signing == Signing::ChannelOnly;
                    let bound = promised.then_some(PROMISED);
                    report.add("channel", &case, "of openssl", "ratio", rate / peer, &[], bound);
                }
            }
        }
    }
}

fn measure_handshakes(parties: &[Arc<Party>; 2], report: &mut Report) {
    for (name, known) in [("IK", true), ("XX", false)] {
        let rate = per_second(|| drop(black_box(handshake(parties, Signing::EachMessage, known))));
        let case = format!("handshake {name}, until both may speak");
        report.add("channel", &case, "rate", "1/s", rate, &[], None);
    }
    let (mut ends, mut rng) = (handshake(parties, Signing::EachMessage, true), rand::rng());
    let rate = per_second(|| {
        let now = Instant::now();
        ends[0].start_rekey(now);
        while ends.iter().any(Channel::is_rekeying) || ends[0].poll_timeout().is_some_and(|at| at <= now) {
            for end in &mut ends {
                end.handle_timeout(now, &mut rng);
            }
            settle(&mut ends, now);
        }
    });
    assert!(ends[0].epoch() > 0, "the keys changed");
    report.add("channel", "rekey, each signed", "time", "µs", 1e6 / rate, &[], None);
}

/// A key that nodes 1 and 2 agree on, as each has it.
fn exchange() -> [SharedKey; 2] {
    let (mut rng, [a, b]) = (rand::rng(), [identity(1), identity(2)]);
    let offer = Offer {
        network: network(),
        peer: b.node_id(),
        deadline: TIME + DAY,
        key_expires: TIME + DAY,
    };
    let requester = Requester::begin(&a, offer, None, TIME, &mut rng).expect("a request");
    let request = requester.request().bytes();
    let request = KeyRequest::read(request, &network(), &b.node_id(), TIME, SKEW).expect("a request");
    let acceptor = Acceptor::accept(&b, request, None, TIME + DAY, TIME, &mut rng).expect("an acceptance");
    let (ours, confirmation) = requester
        .read(&a, acceptor.acceptance(), TIME, SKEW)
        .expect("a confirmation");
    [ours, acceptor.read(&confirmation, TIME, SKEW).expect("a key")]
}

fn measure_envelopes(parties: &[Arc<Party>; 2], report: &mut Report) {
    let [a, b] = parties;
    let rate = per_second(|| drop(black_box(exchange())));
    report.add(
        "channel",
        "key exchange, both sides",
        "time",
        "µs",
        1e6 / rate,
        &[],
        None,
    );
    let ([ours, theirs], peer) = (exchange(), b.known());
    let opener = Opener {
        node: b.node(),
        static_keys: std::slice::from_ref(b.key()),
        shared_keys: std::slice::from_ref(&theirs),
        readable: true,
    };
    let kinds = [
        ("asymmetric", Sealing::Asymmetric(&peer)),
        ("symmetric", Sealing::Symmetric(&ours)),
        ("none", Sealing::None(Some(b.node()))),
    ];
    for (length, size) in LENGTHS {
        let payload = vec![7; length];
        for (name, sealing) in kinds {
            let mut rng = rand::rng();
            let draft = Draft {
                id: EnvelopeId::generate(&mut rng),
                network: network(),
                sent: TIME,
                expires: TIME + DAY,
                payload: &payload,
            };
            let mut seal = || Envelope::seal(a.identity(), &draft, sealing, &mut rng).expect("sealed");
            let bytes = seal().bytes().to_vec();
            let rate = per_second(|| drop(black_box(seal())));
            let case = |what: &str| format!("envelope {what} {size}, {name}");
            report.add("channel", &case("seal"), "time", "µs", 1e6 / rate, &[], None);
            let rate = per_second(|| {
                let envelope = Envelope::decode(black_box(&bytes)).expect("an envelope");
                let envelope = envelope.verify(&network(), TIME, SKEW).expect("its sender's");
                drop(black_box(envelope.open(&opener).expect("for this node")));
            });
            report.add("channel", &case("open"), "time", "µs", 1e6 / rate, &[], None);
        }
    }
}

/// Measures the crate `dawn-channel`.
pub(crate) fn measure(report: &mut Report) {
    let parties = [party(1), party(2)];
    measure_throughput(&parties, report);
    measure_handshakes(&parties, report);
    measure_envelopes(&parties, report);
}
