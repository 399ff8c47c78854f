//! Jobs and results: what is read, what is refused, and what a result has to fit.

use ciborium::Value;
use coset::CborSerializable as _;
use coset::cwt::{ClaimName, ClaimsSet};
use dawn_identity::statement::{Kind, Signed};
use proptest::prelude::*;

use super::*;

const INPUTS: [&str; 3] = ["one", "two", "three"];

fn pair() -> (Job, JobResult) {
    let job = job(1, &INPUTS);
    let result = result(1, &job, &INPUTS, &honest(&INPUTS));
    (job, result)
}

#[test]
fn a_job_and_its_result_come_back() {
    let (job, result) = pair();
    assert_eq!(Job::decode(job.bytes()), Ok(job.clone()));
    assert_eq!(JobResult::decode(result.bytes()), Ok(result.clone()));
    assert_eq!(result.fits(&job), Ok(()));
    let free = Asked {
        hold: None,
        ..asked(1, &INPUTS)
    };
    let free = Job::sign(free, &key(REQUESTER)).unwrap();
    assert_eq!(Job::decode(free.bytes()), Ok(free.clone()));
    assert_ne!(free.hash(), job.hash());
}

#[test]
fn a_job_is_for_one_worker_of_one_network_in_its_time() {
    let (job, _) = pair();
    let (deadline, early) = (job.asked().deadline, UnixTime(NOW.0 - 61));
    assert_eq!(job.is_for(&node(1), &network(), NOW, SKEW), Ok(()));
    assert!(job.is_for(&node(2), &network(), NOW, SKEW).is_err());
    assert!(job.is_for(&node(1), &key(9).network_id(), NOW, SKEW).is_err());
    assert_eq!(
        job.is_for(&node(1), &network(), early, SKEW),
        Err(Refused::FromTheFuture(NOW))
    );
    assert_eq!(
        job.is_for(&node(1), &network(), deadline, SKEW),
        Err(Refused::DeadlinePassed(deadline))
    );
}

#[test]
fn nobody_signs_for_another() {
    assert_eq!(Job::sign(asked(1, &INPUTS), &key(1)), Err(Refused::BadSignature));
    let (job, result) = pair();
    assert_eq!(
        JobResult::sign(result.given().clone(), &key(2)),
        Err(Refused::BadSignature)
    );
    for bytes in [job.bytes(), result.bytes()] {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(
            Job::decode(&bytes),
            Err(Refused::BadSignature | Refused::Malformed(_))
        ));
        assert!(matches!(
            JobResult::decode(&bytes),
            Err(Refused::BadSignature | Refused::Malformed(_))
        ));
    }
}

#[test]
fn what_cannot_be_asked_is_not_signed() {
    let refuses = |change: &dyn Fn(&mut Asked)| {
        let mut asked = asked(1, &INPUTS);
        change(&mut asked);
        Job::sign(asked, &key(REQUESTER)).unwrap_err()
    };
    assert!(matches!(refuses(&|asked| asked.part.index = 1), Refused::Malformed(_)));
    assert!(matches!(refuses(&|asked| asked.deadline = NOW), Refused::Malformed(_)));
    assert!(matches!(
        refuses(&|asked| asked.deadline = NOW + LONGEST + Duration::from_secs(1)),
        Refused::Malformed(_)
    ));
    assert_eq!(refuses(&|asked| asked.part.of = MAX_PARTS + 1), Refused::TooLarge);
    assert_eq!(
        refuses(&|asked| asked.spec.options = vec![0; MAX_OPTION_BYTES + 1]),
        Refused::TooLarge
    );
    assert_eq!(
        refuses(&|asked| asked.input.bytes = MAX_INPUT_BYTES + 1),
        Refused::TooLarge
    );
    let odd = Precision::Int8 {
        scheme: "a@b".to_owned(),
        family: "c".to_owned(),
    };
    assert!(matches!(
        refuses(&|asked| asked.spec.class.precision = odd.clone()),
        Refused::Malformed(_)
    ));
}

#[test]
fn the_longest_job_is_read() {
    let mut asked = asked(1, &INPUTS);
    asked.spec.options = vec![0xff; MAX_OPTION_BYTES];
    asked.spec.class.precision = format!("int8:a@{}", "b".repeat(MAX_PRECISION_BYTES - 7))
        .parse()
        .unwrap();
    asked.part = Part {
        index: MAX_PARTS - 1,
        of: MAX_PARTS,
    };
    (asked.most, asked.input.bytes) = (u64::MAX, MAX_INPUT_BYTES);
    asked.limits = Limits {
        seconds: u32::MAX,
        memory: u32::MAX,
        tokens: u32::MAX,
    };
    let job = Job::sign(asked, &key(REQUESTER)).unwrap();
    assert_eq!(Job::decode(job.bytes()), Ok(job));
    assert_eq!(Job::decode(&[0; MAX_JOB_BYTES + 1]), Err(Refused::TooLarge));
    assert_eq!(JobResult::decode(&[0; MAX_RESULT_BYTES + 1]), Err(Refused::TooLarge));
}

#[test]
fn a_result_fits_its_own_job_its_class_and_its_price() {
    let (job, result) = pair();
    let other = super::job(2, &INPUTS);
    assert!(matches!(result.fits(&other), Err(Refused::NotForThis(_))));
    let says = |change: &dyn Fn(&mut Given)| {
        let mut given = result.given().clone();
        change(&mut given);
        JobResult::sign(given, &key(1)).unwrap().fits(&job).unwrap_err()
    };
    assert!(matches!(says(&|given| given.output.items = 2), Refused::NotForThis(_)));
    assert_eq!(says(&|given| given.precision = Precision::Bf16), Refused::OtherClass);
    assert_eq!(
        says(&|given| given.amount = 5_001),
        Refused::Price {
            amount: 5_001,
            most: 5_000
        }
    );
    assert!(matches!(
        says(&|given| given.requester = node(3)),
        Refused::NotForThis(_)
    ));
    assert!(matches!(
        says(&|given| given.network = key(9).network_id()),
        Refused::NotForThis(_)
    ));
    // Another worker may not sell somebody's result as its own.
    let mut given = result.given().clone();
    given.worker = node(2);
    let copied = JobResult::sign(given, &key(2)).unwrap();
    assert!(matches!(copied.fits(&job), Err(Refused::NotForThis(_))));
}

#[test]
fn a_result_commits_to_its_outputs_and_claims_their_units() {
    let (_, result) = pair();
    let of = |salt, outputs: &[Output]| Commitment::to_outputs(salt, &INPUTS, outputs).unwrap();
    let right = honest(&INPUTS);
    assert_eq!(result.commits_to(&of(output_salt(1), &right)), Ok(()));
    let mut other = right.clone();
    other[0] = embedded("another");
    assert_eq!(result.commits_to(&of(output_salt(1), &other)), Err(Refused::BadOpening));
    assert_eq!(result.commits_to(&of(output_salt(2), &right)), Err(Refused::BadOpening));
    // More in all than for the items.
    let mut given = result.given().clone();
    given.units.input += 1;
    let more = JobResult::sign(given, &key(1)).unwrap();
    assert_eq!(more.commits_to(&of(output_salt(1), &right)), Err(Refused::BadOpening));
}

/// The same claims, changed, under the same requester's signature.
fn signed_again(job: &Job, change: &dyn Fn(&mut ClaimsSet)) -> Vec<u8> {
    let kind = Kind::new("application/dawn-job+cwt");
    let (_, mut claims) = Signed::parse(kind, job.bytes()).unwrap();
    change(&mut claims);
    Signed::sign(kind, claims, &key(REQUESTER)).unwrap().bytes().to_vec()
}

#[test]
fn a_job_says_nothing_twice_nothing_more_and_in_one_order() {
    let (job, _) = pair();
    assert_eq!(signed_again(&job, &|_| {}), job.bytes());
    let refused = |change: &dyn Fn(&mut ClaimsSet)| {
        let refused = Job::decode(&signed_again(&job, change));
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{refused:?}");
    };
    refused(&|claims| claims.rest.push((ClaimName::PrivateUse(-70_000), Value::Null)));
    // More at its end, which ends as what is meant does.
    refused(&|claims| {
        let meant = Value::Bytes(claims.clone().to_vec().unwrap());
        claims.rest.push((ClaimName::PrivateUse(-70_000), meant));
    });
    refused(&|claims| claims.rest.swap(0, 1));
    refused(&|claims| claims.rest.extend(claims.rest.last().cloned()));
    refused(&|claims| claims.not_before = claims.issued_at.clone());
    refused(&|claims| claims.rest.retain(|(name, _)| *name != ClaimName::PrivateUse(-65_625)));
}

#[test]
fn the_id_of_a_statement_is_not_of_its_signature() {
    let (job, result) = pair();
    for (bytes, domain, id) in [
        (job.bytes(), "dawn job 1", job.hash().as_bytes()),
        (result.bytes(), "dawn result 1", result.id().as_bytes()),
    ] {
        assert_eq!(&id::hash(domain, &[&bytes[..bytes.len() - 64]]), id);
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_a_statement_or_refused(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
        prop_assert!(Job::decode(&bytes).is_err());
        prop_assert!(JobResult::decode(&bytes).is_err());
        let (job, result) = pair();
        let mut changed = job.bytes().to_vec();
        let place = at.index(changed.len());
        changed[place] = to;
        prop_assert_eq!(Job::decode(&changed).is_ok(), changed == job.bytes());
        let mut changed = result.bytes().to_vec();
        let place = at.index(changed.len());
        changed[place] = to;
        prop_assert_eq!(JobResult::decode(&changed).is_ok(), changed == result.bytes());
    }
}
