//! Messages of a handshake, and the key bindings in them: read within bounds or refused; nobody completes one by chance.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dawn_channel::handshake::{Accept, Answer, Initiator, Responder};
use dawn_channel::{Binding, Context, Limits, Party, StaticKey};
use dawn_identity::{Keypair, UnixTime};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn party(seed: u8) -> Arc<Party> {
    let (identity, key) = (Keypair::from_seed([seed; 32]), StaticKey::from_bytes([seed + 1; 32]));
    Arc::new(Party::new(identity, key, NOW, Duration::from_secs(86_400)).expect("a party"))
}

fuzz_target!(|data: &[u8]| {
    static PARTIES: LazyLock<[Arc<Party>; 2]> = LazyLock::new(|| [party(1), party(3)]);
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let [a, b] = PARTIES.clone();
    let context = Context::new(Keypair::from_seed([9; 32]).network_id(), *b"fuzz");
    let limits = Limits::default();
    let mut rng = StdRng::seed_from_u64(1);
    if let Ok(binding) = Binding::decode(data) {
        assert_eq!(binding.encode(), data);
        let _ = binding.verify(NOW, Duration::from_secs(60));
    }
    let responder = || Responder::new(b.clone(), Accept::Either, None, context.clone(), limits);
    // A first message of XX is any key; it must not be more than that.
    match responder().read(data, NOW, *START, &mut rng) {
        Ok(Answer::Reply(..)) => assert_eq!(data.len(), 2 + 32),
        Ok(Answer::Channel(channel)) => assert!(!channel.is_confirmed()),
        Err(_) => {}
    }
    let ik = Initiator::ik(a.clone(), b.known(), context.clone(), limits, &mut rng).expect("a first message");
    assert!(ik.read(data, NOW, *START).is_err());
    let xx = Initiator::xx(a, None, context.clone(), limits, &mut rng).expect("a first message");
    if let Ok(Answer::Reply(_, waiting)) = responder().read(xx.message(), NOW, *START, &mut rng) {
        assert!(waiting.read(data, NOW, *START, &mut rng).is_err());
    }
    assert!(xx.read(data, NOW, *START).is_err());
});
