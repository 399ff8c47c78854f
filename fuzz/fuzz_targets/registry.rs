//! Records, beats and digests of other nodes: read within bounds or refused; what was taken is passed on as it came.
#![no_main]

use std::time::Duration;

use dawn_identity::{Keypair, Membership, Role, Roles, Serial, UnixTime};
use dawn_registry::{Beat, Digest, Limits, NodeRecord, RecordError, Registry};
use libfuzzer_sys::fuzz_target;

/// What a node would make of the chain of any member.
fn member(record: &NodeRecord) -> Result<Membership, RecordError> {
    Ok(Membership {
        network: record.network,
        node: record.node,
        name: record.name.clone(),
        roles: Roles::from(Role::Member),
        admitted_at: UnixTime(0),
        issued_at: UnixTime(0),
        expires: UnixTime(1000),
        serial: Serial::from_bytes([0; 16]),
        issuer: None,
    })
}

fuzz_target!(|data: &[u8]| {
    let network = Keypair::from_seed([9; 32]).network_id();
    let mut registry = Registry::new(network, Keypair::from_seed([1; 32]).node_id(), Limits::default());
    if NodeRecord::open(data).is_ok() && registry.apply_record(data, member).is_ok() {
        assert_eq!(registry.missing_for(&Digest::default()), [data]);
    }
    if Beat::open(data).is_ok() {
        let _ = registry.apply_beat(data, Duration::ZERO, |_| true);
    }
    if let Ok(digest) = Digest::decode(data) {
        let _ = (registry.lacks(&digest), registry.missing_for(&digest));
        assert_eq!(Digest::decode(&digest.encode()), Ok(digest));
    }
    assert!(registry.view().len() <= 1);
});
