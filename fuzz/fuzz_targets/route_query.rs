//! What members send each other to find routes.
#![no_main]

use std::time::Duration;

use dawn_identity::{Keypair, UnixTime};
use dawn_mesh::forward::wire::{Answer, Query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let network = Keypair::from_seed([200; 32]).network_id();
    let (time, skew) = (UnixTime(1_800_000_000), Duration::from_secs(300));
    if let Ok(query) = Query::decode(bytes) {
        let _ = query.verify(&network, time, skew);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        let _ = answer.verify(&network, time, skew);
    }
});
