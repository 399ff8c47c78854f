//! Records, beats and digests of other nodes: read within bounds or refused.
#![no_main]

use dawn_registry::{Beat, Digest, NodeRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = NodeRecord::open(data);
    let _ = Beat::open(data);
    if let Ok(digest) = Digest::decode(data) {
        assert_eq!(Digest::decode(&digest.encode()), Ok(digest));
    }
});
