//! Claims that a member gone mad has signed, as every kind of statement: past the check of the signature all of them are
//! read within bounds or refused, and none makes a key with an honest peer.
#![no_main]

use std::time::Duration;

use coset::CborSerializable;
use coset::cwt::ClaimsSet;
use dawn_channel::envelope::{Envelope, GuardLimits, Opener, ReplayGuard};
use dawn_channel::exchange::{Acceptor, KeyRequest, KeyRevocation, Offer, Requester};
use dawn_channel::{Binding, StaticKey};
use dawn_identity::statement::{Kind, Signed};
use dawn_identity::{Keypair, UnixTime};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fuzz_target!(|data: &[u8]| {
    let Ok(claims) = ClaimsSet::from_slice(data) else {
        return;
    };
    let [a, b] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]));
    let network = Keypair::from_seed([200; 32]).network_id();
    let mut rng = StdRng::seed_from_u64(1);
    let signed = |kind, key| Signed::sign(Kind::new(kind), claims.clone(), key).map(|signed| signed.bytes().to_vec());
    if let Ok(bytes) = signed("application/dawn-key-binding+cwt", &a)
        && let Ok(binding) = Binding::decode(&bytes)
    {
        assert_eq!(binding.encode(), bytes);
        let _ = binding.verify(NOW, SKEW);
    }
    if let Ok(bytes) = signed("application/dawn-envelope+cwt", &a)
        && let Ok(envelope) = Envelope::decode(&bytes)
        && let Ok(envelope) = envelope.verify(&network, NOW, SKEW)
    {
        let mut guard = ReplayGuard::new(GuardLimits::default(), NOW - DAY);
        let _ = guard.admit(&envelope, NOW);
        assert!(guard.admit(&envelope, NOW).is_err());
        let opener = Opener {
            node: b.node_id(),
            static_keys: &[StaticKey::from_bytes([0x57; 32])],
            shared_keys: &[],
            readable: true,
        };
        let _ = envelope.open(&opener);
    }
    if let Ok(bytes) = signed("application/dawn-key-revocation+cwt", &a) {
        let _ = KeyRevocation::read(&bytes, &network, NOW, SKEW);
    }
    if let Ok(bytes) = signed("application/dawn-key-request+cwt", &a)
        && let Ok(request) = KeyRequest::read(&bytes, &network, &b.node_id(), NOW, SKEW)
    {
        let _ = Acceptor::accept(&b, request, None, NOW + DAY, NOW, &mut rng);
    }
    // What answers something needs a proof, which takes a secret.
    let offer = Offer {
        network,
        peer: b.node_id(),
        deadline: NOW + DAY,
        key_expires: NOW + DAY,
    };
    let requester = Requester::begin(&a, offer, None, NOW, &mut rng).expect("a request");
    if let Ok(bytes) = signed("application/dawn-key-acceptance+cwt", &b) {
        assert!(requester.read(&a, &bytes, NOW, SKEW).is_err());
    }
    if let Ok(bytes) = signed("application/dawn-key-confirmation+cwt", &a) {
        let acceptor = Acceptor::accept(&b, requester.request().clone(), None, NOW + DAY, NOW, &mut rng);
        assert!(acceptor.expect("an acceptance").read(&bytes, NOW, SKEW).is_err());
    }
});
