//! Jobs, results, draws, records and confirmations: read within bounds or refused, and written as they were read. Nothing
//! passes for anything that its author did not sign.
#![no_main]

use std::time::Duration;

use dawn_identity::{Keypair, UnixTime};
use dawn_verify::frauds::Reader;
use dawn_verify::vrf::{PROOF_BYTES, Proof};
use dawn_verify::{
    Confirmation, Draw, Frauds, Job, JobResult, MAX_CONFIRMATION_BYTES, MAX_JOB_BYTES, MAX_RECORD_BYTES,
    MAX_RESULT_BYTES, Precision, Record, ResultId,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (node, network) = (
        Keypair::from_seed([1; 32]).node_id(),
        Keypair::from_seed([250; 32]).network_id(),
    );
    if let Ok(job) = Job::decode(data) {
        assert!(data.len() <= MAX_JOB_BYTES);
        assert_eq!(job.bytes(), data);
        let asked = job.asked();
        assert!(asked.at < asked.deadline && asked.part.index < asked.part.of);
        let now = UnixTime(1_800_000_000);
        if job.is_for(&node, &network, now, Duration::from_secs(60)).is_ok() {
            assert!(asked.worker == node && asked.network == network && now < asked.deadline);
        }
    }
    if let Ok(result) = JobResult::decode(data) {
        assert!(data.len() <= MAX_RESULT_BYTES);
        assert_eq!(result.bytes(), data);
    }
    if let Ok(record) = Record::decode(data, &network) {
        assert!(data.len() <= MAX_RECORD_BYTES);
        assert_eq!(record.bytes(), data);
        assert!(record.testimony().len() >= 2);
        let _ = record.judge(None, &|_| true, []);
    }
    if let Ok(confirmation) = Confirmation::decode(data) {
        assert!(data.len() <= MAX_CONFIRMATION_BYTES);
        assert_eq!(confirmation.bytes(), data);
    }
    let mut frauds = Frauds::new(network);
    let reader = Reader {
        is_member: &|_| true,
        now: UnixTime(1_800_003_600),
        skew: Duration::from_secs(60),
    };
    let taken = frauds.take(data, &reader);
    assert_eq!(taken.is_new, !frauds.head().is_empty());
    if let Some(proof) = data.first_chunk::<PROOF_BYTES>() {
        let id = ResultId::from_bytes([7; 32]);
        let of = |proof| Draw::beta_of(&proof, &node, &network, &id).is_ok();
        assert!(!of(Proof::from_bytes(*proof)));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(precision) = text.parse::<Precision>()
    {
        assert_eq!(precision.to_string(), text);
    }
});
