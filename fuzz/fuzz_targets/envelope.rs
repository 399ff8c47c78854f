//! Envelopes and messages of the key exchange: read within bounds or refused.
#![no_main]

use std::time::Duration;

use dawn_channel::envelope::{Envelope, GuardLimits, Opener, ReplayGuard};
use dawn_channel::exchange::{Acceptor, KeyRequest, KeyRevocation, Offer, Requester};
use dawn_channel::{SharedKey, StaticKey};
use dawn_identity::{Keypair, UnixTime};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fuzz_target!(|data: &[u8]| {
    let [a, b] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]));
    let network = Keypair::from_seed([200; 32]).network_id();
    if let Ok(envelope) = Envelope::decode(data) {
        assert_eq!(envelope.bytes(), data);
        if let Ok(verified) = envelope.verify(&network, NOW, SKEW) {
            let mut guard = ReplayGuard::new(GuardLimits::default(), NOW - DAY);
            let _ = guard.admit(&verified, NOW);
            assert!(guard.admit(&verified, NOW).is_err());
            let opener = Opener {
                node: b.node_id(),
                static_keys: &[StaticKey::from_bytes([0x57; 32])],
                shared_keys: &[],
                readable: true,
            };
            let _ = verified.open(&opener);
        }
    }
    if let Ok(key) = SharedKey::from_bytes(data) {
        assert_eq!(key.to_bytes().as_slice(), data);
    }
    let _ = KeyRevocation::read(data, &network, NOW, SKEW);
    let mut rng = StdRng::seed_from_u64(1);
    if let Ok(request) = KeyRequest::read(data, &network, &b.node_id(), NOW, SKEW) {
        let _ = Acceptor::accept(&b, request, None, NOW + DAY, NOW, &mut rng);
    }
    let offer = Offer {
        network,
        peer: b.node_id(),
        deadline: NOW + DAY,
        key_expires: NOW + DAY,
    };
    let requester = Requester::begin(&a, offer, None, NOW, &mut rng).expect("a request");
    assert!(requester.read(&a, data, NOW, SKEW).is_err());
    let acceptor = Acceptor::accept(&b, requester.request().clone(), None, NOW + DAY, NOW, &mut rng);
    assert!(acceptor.expect("an acceptance").read(data, NOW, SKEW).is_err());
});
