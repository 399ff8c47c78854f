//! Jobs, results and outputs made in a line.

mod class;
mod commit;
mod compare;
mod draw;
mod frauds;
mod jury;
mod record;
mod statements;
mod trust;
mod vrf;
mod wire;

use std::time::Duration;

use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::*;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(60);
/// Who asks, in all tests.
const REQUESTER: u8 = 100;

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn node(seed: u8) -> NodeId {
    key(seed).node_id()
}

fn network() -> NetworkId {
    key(250).network_id()
}

fn model() -> ModelDigest {
    ModelDigest::from_bytes([0xd0; 32])
}

fn class(precision: &str) -> Class {
    Class {
        model: model(),
        precision: precision.parse().unwrap(),
    }
}

/// A vector that a text stands for, the same from everybody who computes it.
fn embedded(text: &str) -> Output {
    let numbers = id::hash("test", &[text.as_bytes()]);
    let numbers = numbers
        .chunks(2)
        .map(|pair| f32::from(pair[0]) - f32::from(pair[1]) + 0.5);
    Output {
        bytes: numbers.flat_map(f32::to_le_bytes).collect(),
        units: Units {
            input: text.len() as u64,
            output: 0,
        },
    }
}

fn asked(worker: u8, inputs: &[&str]) -> Asked {
    let input = Commitment::to_inputs(input_salt(worker), inputs).unwrap();
    Asked {
        requester: node(REQUESTER),
        worker: node(worker),
        network: network(),
        id: JobId::from_bytes([worker; 16]),
        part: Part { index: 0, of: 1 },
        spec: Spec {
            workload: Workload::Embed,
            class: class("f32"),
            options: vec![0xa0],
        },
        input: input.committed(),
        limits: Limits {
            seconds: 60,
            memory: 2048,
            tokens: 100_000,
        },
        most: 5_000,
        rate: Rate::of(0.05),
        hold: Some([0x4d; 32]),
        at: NOW,
        deadline: NOW + Duration::from_secs(600),
    }
}

fn input_salt(worker: u8) -> Salt {
    Salt::from_bytes([worker; 32])
}

fn output_salt(worker: u8) -> Salt {
    Salt::from_bytes([worker | 0x80; 32])
}

fn job(worker: u8, inputs: &[&str]) -> Job {
    Job::sign(asked(worker, inputs), &key(REQUESTER)).unwrap()
}

fn given(job: &Job, commitment: &Commitment) -> Given {
    let asked = job.asked();
    Given {
        worker: asked.worker,
        requester: asked.requester,
        network: asked.network,
        job: job.hash(),
        output: commitment.committed(),
        units: commitment.units(),
        precision: asked.spec.class.precision.clone(),
        amount: 3_000,
        at: NOW + Duration::from_secs(5),
    }
}

/// What a worker gives for a job over these inputs.
fn result(worker: u8, job: &Job, inputs: &[&str], outputs: &[Output]) -> JobResult {
    let commitment = Commitment::to_outputs(output_salt(worker), inputs, outputs).unwrap();
    JobResult::sign(given(job, &commitment), &key(worker)).unwrap()
}

fn honest(inputs: &[&str]) -> Vec<Output> {
    inputs.iter().map(|text| embedded(text)).collect()
}
