//! What a member sends its neighbour: taken or refused, in any order and at any time, and never more of it is held than
//! there are bounds for. The input is cut into messages: two bytes of length, one for how much time passes before.
#![no_main]

use std::time::Duration;

use dawn_gossip::{Action, Config, Event, Gossip, SIGNATURE_BYTES, Verdict, Voice};
use dawn_identity::{NetworkId, NodeId};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Signatures of zeros count: what is behind them is to be reached too.
#[derive(Debug)]
struct Credulous;

impl Voice for Credulous {
    fn sign(&self, _: &[u8]) -> [u8; SIGNATURE_BYTES] {
        [0; SIGNATURE_BYTES]
    }

    fn verify(&self, _: &NodeId, _: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        *signature == [0; SIGNATURE_BYTES]
    }
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

/// Small enough for an input to reach them.
fn config() -> Config {
    Config {
        full: 4,
        wanted: 2,
        most: 3,
        kept: 8,
        kept_bytes: 1 << 14,
        pending: 4,
        ids: 16,
        announced: 32,
        members: 8,
        early: 4,
        refused_a_minute: 1000,
        ..Config::default()
    }
}

fn drive(gossip: &mut Gossip<Credulous>, now: Duration, bounds: &Config) {
    let mut held = 0;
    while let Some(event) = gossip.poll_event() {
        if let Event::News { id, bytes, .. } = event {
            let verdict = match bytes.first().map_or(0, |first| first % 5) {
                0 => Verdict::Known,
                1 => Verdict::Refused,
                2 => Verdict::Ignored,
                // It waits.
                3 if held < 2 => {
                    held += 1;
                    continue;
                }
                _ => Verdict::New,
            };
            gossip.accept(&id, verdict, now);
        }
    }
    while let Some(action) = gossip.poll_action() {
        if let Action::Send { bytes, .. } = action {
            assert!(bytes.len() <= dawn_gossip::MAX_MESSAGE_BYTES);
        }
    }
    let size = gossip.size();
    assert!(size.members <= bounds.members && size.early <= bounds.early, "{size:?}");
    assert!(size.ids <= bounds.ids && size.announced <= bounds.announced, "{size:?}");
    assert!(size.kept <= bounds.kept && size.kept_bytes <= bounds.kept_bytes, "{size:?}");
    assert!(size.pending <= bounds.pending && size.pending_bytes <= bounds.kept_bytes, "{size:?}");
}

fuzz_target!(|data: &[u8]| {
    let bounds = config();
    let (mut now, mut rng) = (Duration::from_secs(1), StdRng::seed_from_u64(1));
    let network = NetworkId::from_bytes([9; 32]);
    let mut gossip = Gossip::new(node(0), network, 1, bounds.clone(), Credulous);
    (1..6).for_each(|member| gossip.add_member(node(member), now));
    let mut rest = data;
    let mut from = 1;
    while let [high, low, wait, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (message, tail) = tail.split_at(length);
        rest = tail;
        // The highest bits say who sends it, the others how much later.
        from = wait >> 6;
        now += Duration::from_millis(u64::from(wait & 0x3f) * 100);
        if gossip.links().all(|link| link != node(from)) {
            gossip.link_up(node(from), now);
        }
        let refused = gossip.refusals().total();
        if gossip.receive(node(from), message, now).is_err() {
            assert!(gossip.refusals().total() > refused);
        }
        drive(&mut gossip, now, &bounds);
        if gossip.poll_timeout().is_some_and(|at| at <= now) {
            gossip.handle_timeout(now, &mut rng);
            drive(&mut gossip, now, &bounds);
        }
    }
    gossip.link_down(node(from), now);
    gossip.leave(now);
    drive(&mut gossip, now, &bounds);
});
