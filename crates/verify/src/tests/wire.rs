//! The bytes on the wire, from fixed seeds: a change of a format shows here and nowhere else.

use data_encoding::HEXLOWER;

use super::record::{confirmation, record};
use super::*;

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| HEXLOWER.encode(line));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn statements_keep_their_bytes() {
    let inputs = ["one", "two", "three"];
    let paid = job(1, &inputs);
    let mut asked = asked(1, &inputs);
    (asked.hold, asked.rate) = (None, Rate::ALWAYS);
    asked.spec.workload = Workload::Rerank;
    asked.spec.class = class("int8:q8_0@dawn-1.2");
    let free = Job::sign(asked, &key(REQUESTER)).unwrap();
    let result = result(1, &paid, &inputs, &honest(&inputs));
    insta::assert_snapshot!("job_paid", hex(paid.bytes()));
    insta::assert_snapshot!("job_free", hex(free.bytes()));
    insta::assert_snapshot!("result", hex(result.bytes()));
}

#[test]
fn records_and_confirmations_keep_their_bytes() {
    let record = record(REQUESTER, (1, false), &[(2, true)]);
    let confirmation = confirmation(3, &record, &[1]);
    insta::assert_snapshot!("record", hex(record.bytes()));
    insta::assert_snapshot!("confirmation", hex(confirmation.bytes()));
    insta::assert_snapshot!("record_id", record.id());
}

#[test]
fn ids_roots_and_draws_stay_the_same() {
    let inputs = ["one", "two", "three"];
    let job = job(1, &inputs);
    let result = result(1, &job, &inputs, &honest(&inputs));
    let draw = Draw::make(&key(REQUESTER), &network(), &result.id(), job.asked().rate).unwrap();
    let opening = Commitment::to_outputs(output_salt(1), &inputs, &honest(&inputs))
        .unwrap()
        .open(2)
        .unwrap();
    let nodes: Vec<NodeId> = (1..=3).map(node).collect();
    let lines = [
        format!("job {}", job.hash()),
        format!("result {}", result.id()),
        format!("input {}", job.asked().input.root),
        format!("output {}", result.given().output.root),
        format!("blind {}", HEXLOWER.encode(&opening.blind)),
        format!(
            "path {}",
            opening
                .path
                .iter()
                .map(|hash| HEXLOWER.encode(hash))
                .collect::<Vec<_>>()
                .join(" ")
        ),
        format!("draw {}", hex(draw.proof().as_bytes())),
        format!("beta {}", hex(draw.beta().as_bytes())),
        format!("order {:?}", draw.order(&nodes)),
    ];
    insta::assert_snapshot!("ids", lines.join("\n"));
}
