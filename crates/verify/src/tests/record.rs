//! Records: what is one, and whom it convicts.

use proptest::prelude::*;

use super::*;
use crate::draw::place;
use crate::vrf::Proof;

/// The item that is disputed: the second of what the first was asked.
const ITEM: &str = "two";
const INPUTS: [&str; 3] = ["one", "two", "three"];

/// What a node gives for the item: right, or wrong with the right units.
fn output(is_right: bool) -> Output {
    let right = embedded(ITEM);
    if is_right {
        return right;
    }
    Output {
        units: right.units,
        ..embedded("wrong")
    }
}

/// What `worker` gave when it was asked for these inputs, of which one is the item.
fn testimony(requester: u8, worker: u8, inputs: &[&str], is_right: bool, change: &dyn Fn(&mut Asked)) -> Testimony {
    let mut asked = asked(worker, inputs);
    asked.requester = node(requester);
    change(&mut asked);
    let job = Job::sign(asked, &key(requester)).unwrap();
    let index = inputs.iter().position(|text| *text == ITEM).unwrap();
    let mut outputs = honest(inputs);
    outputs[index] = output(is_right);
    let commitment = Commitment::to_outputs(output_salt(worker), inputs, &outputs).unwrap();
    Testimony {
        result: JobResult::sign(given(&job, &commitment), &key(worker)).unwrap(),
        job,
        output: output(is_right),
        asked: Commitment::to_inputs(input_salt(worker), inputs)
            .unwrap()
            .open(index as u32)
            .unwrap(),
        given: commitment.open(index as u32).unwrap(),
    }
}

fn draw(first: &Testimony, requester: u8) -> Draw {
    Draw::make(&key(requester), &network(), &first.result.id(), Rate::ALWAYS).unwrap()
}

/// The parts of a record: the first is the worker, the others stand in the order of its draw.
fn parts(requester: u8, first: (u8, bool), others: &[(u8, bool)]) -> (Proof, Vec<Testimony>) {
    let first = testimony(requester, first.0, &INPUTS, first.1, &|_| {});
    let draw = draw(&first, requester);
    let mut others = others.to_vec();
    others.sort_by_key(|(seed, _)| place(draw.beta(), &node(*seed)));
    let others = others
        .iter()
        .map(|(seed, is_right)| testimony(requester, *seed, &[ITEM], *is_right, &|_| {}));
    let testimony = [first].into_iter().chain(others).collect();
    (*draw.proof(), testimony)
}

fn made(proof: Proof, testimony: Vec<Testimony>) -> Result<Record, Refused> {
    Record::new(&network(), proof, ITEM.into(), testimony)
}

/// A record of a dispute in which nodes gave the right output or not.
pub(super) fn record(requester: u8, first: (u8, bool), others: &[(u8, bool)]) -> Record {
    let (proof, testimony) = parts(requester, first, others);
    made(proof, testimony).unwrap()
}

/// One node lies, and four that were asked do not.
pub(super) fn convicting(requester: u8, liar: u8) -> Record {
    record(
        requester,
        (liar, false),
        &[(21, true), (22, true), (23, true), (24, true)],
    )
}

pub(super) fn confirmation(seed: u8, record: &Record, wrong: &[u8]) -> Confirmation {
    let mut wrong: Vec<NodeId> = wrong.iter().map(|seed| node(*seed)).collect();
    wrong.sort();
    let said = Said {
        node: node(seed),
        network: network(),
        record: record.id(),
        wrong,
        at: NOW + Duration::from_secs(u64::from(seed)),
    };
    Confirmation::sign(said, &key(seed)).unwrap()
}

fn wrong(seeds: &[u8], by: Basis) -> Finding {
    let nodes = seeds.iter().map(|seed| node(*seed)).collect();
    Finding::Wrong { nodes, by }
}

#[test]
fn a_record_comes_back_and_names_its_nodes() {
    let record = convicting(REQUESTER, 1);
    assert_eq!(Record::decode(record.bytes(), &network()), Ok(record.clone()));
    assert_eq!(record.requester(), Some(node(REQUESTER)));
    assert_eq!(record.nodes(), [1, 21, 22, 23, 24, REQUESTER].map(node).into());
    assert_eq!(record.input(), ITEM.as_bytes());
    assert_eq!(record.at(), NOW + Duration::from_secs(5));
    let elsewhere = Record::decode(record.bytes(), &key(9).network_id());
    assert!(matches!(elsewhere, Err(Refused::NotForThis(_))));
    assert_ne!(convicting(REQUESTER, 2).id(), record.id());
}

#[test]
fn who_has_the_model_knows_who_lies_the_accuser_included() {
    let nobody = |_: &NodeId| false;
    let judge = |record: &Record| record.judge(Some((&class("f32"), &output(true))), &nobody, []);
    assert_eq!(judge(&convicting(REQUESTER, 1)), wrong(&[1], Basis::Recomputed));
    // The verifier lies.
    let accused = record(REQUESTER, (1, true), &[(2, false)]);
    assert_eq!(judge(&accused), wrong(&[2], Basis::Recomputed));
    // Everybody but the accused colludes, however many they are.
    let framed = record(REQUESTER, (1, true), &[(2, false), (3, false), (4, false), (5, false)]);
    let Finding::Wrong { nodes, .. } = judge(&framed) else {
        panic!("not judged");
    };
    assert_eq!(nodes.len(), 4);
    assert!(!nodes.contains(&node(1)));
    let nothing = record(REQUESTER, (1, true), &[(2, true)]);
    assert_eq!(judge(&nothing), wrong(&[], Basis::Recomputed));
    // Another class than theirs says nothing.
    let other = accused.judge(Some((&class("int8:a@1"), &output(true))), &nobody, []);
    assert_eq!(other, Finding::Pending);
    let near = accused.judge(Some((&class("bf16"), &output(true))), &nobody, []);
    assert_eq!(near, wrong(&[2], Basis::Recomputed));
}

#[test]
fn a_lead_of_three_is_believed_where_three_of_it_are() {
    let record = convicting(REQUESTER, 1);
    let judge = |believed: &[u8]| {
        let believed: Vec<NodeId> = believed.iter().map(|seed| node(*seed)).collect();
        record.judge(None, &|node| believed.contains(node), [])
    };
    assert_eq!(judge(&[21, 22, 23]), wrong(&[1], Basis::Led));
    assert_eq!(judge(&[21, 22]), Finding::Pending);
    assert_eq!(judge(&[1, 21, 22, REQUESTER]), Finding::Pending);
    // A lead of two convicts nobody, whoever is believed.
    let close = super::record::record(REQUESTER, (1, false), &[(21, true), (22, true), (23, true)]);
    assert_eq!(close.judge(None, &|_| true, []), Finding::Pending);
}

#[test]
fn three_believed_nodes_that_ran_it_convict_and_acquit() {
    let framed = record(REQUESTER, (1, true), &[(2, false), (3, false), (4, false), (5, false)]);
    let liars = [2, 3, 4, 5];
    let judge = |confirmed: &[Confirmation]| framed.judge(None, &|_| true, confirmed);
    // By the lead alone the framed one would be convicted.
    assert_eq!(judge(&[]), wrong(&[1], Basis::Led));
    let ran = |seeds: &[u8]| {
        seeds
            .iter()
            .map(|seed| confirmation(*seed, &framed, &liars))
            .collect::<Vec<_>>()
    };
    let Finding::Wrong { mut nodes, by } = judge(&ran(&[30, 31, 32])) else {
        panic!("not judged");
    };
    nodes.sort();
    let mut expected = liars.map(node);
    expected.sort();
    assert_eq!((&nodes[..], by), (&expected[..], Basis::Confirmed));
    // Two are not enough, nor one that says it three times, nor parties, nor who speaks of another record.
    for few in [ran(&[30, 31]), ran(&[30, 30, 30]), ran(&[2, 3, 4, REQUESTER])] {
        assert_eq!(judge(&few), wrong(&[1], Basis::Led));
    }
    let other = convicting(REQUESTER, 6);
    let others: Vec<_> = [30, 31, 32].map(|seed| confirmation(seed, &other, &liars)).into();
    assert_eq!(judge(&others), wrong(&[1], Basis::Led));
    // Who is not believed does not count.
    let unbelieved = framed.judge(None, &|node| *node == super::node(30), &ran(&[30, 31, 32]));
    assert_eq!(unbelieved, Finding::Pending);
    // Where they contradict each other, a lead of three decides.
    let mut divided = ran(&[30, 31, 32]);
    divided.push(confirmation(33, &framed, &[1]));
    assert_eq!(judge(&divided), wrong(&[1], Basis::Led));
    divided.push(confirmation(34, &framed, &liars));
    assert!(matches!(
        judge(&divided),
        Finding::Wrong {
            by: Basis::Confirmed,
            ..
        }
    ));
    // Three to whom all are right acquit everybody.
    let right = convicting(REQUESTER, 1);
    let clear: Vec<_> = [30, 31, 32].map(|seed| confirmation(seed, &right, &[])).into();
    assert_eq!(right.judge(None, &|_| true, &clear), wrong(&[], Basis::Confirmed));
}

#[test]
fn what_was_not_asked_alike_is_not_compared() {
    let (proof, testimony) = parts(REQUESTER, (1, true), &[]);
    let with = |change: &dyn Fn(&mut Asked)| {
        let other = super::record::testimony(REQUESTER, 2, &[ITEM], false, change);
        made(proof, vec![testimony[0].clone(), other])
    };
    assert!(with(&|_| {}).is_ok());
    assert!(with(&|asked| asked.spec.class.precision = Precision::Bf16).is_ok());
    for change in [
        &(|asked: &mut Asked| asked.spec.options = vec![0xa1, 0, 0]) as &dyn Fn(&mut Asked),
        &|asked| asked.spec.workload = Workload::Rerank,
        &|asked| asked.spec.class = class("int8:a@1"),
        &|asked| asked.spec.class.model = ModelDigest::from_bytes([1; 32]),
        &|asked| asked.network = key(9).network_id(),
    ] {
        assert!(matches!(with(change), Err(Refused::NotForThis(_))));
    }
    // Texts convict nobody.
    let generated = |worker, inputs: &[&str]| {
        super::record::testimony(REQUESTER, worker, inputs, true, &|asked| {
            asked.spec.workload = Workload::Generate;
        })
    };
    let (first, second) = (generated(1, &INPUTS), generated(2, &[ITEM]));
    let proof = *draw(&first, REQUESTER).proof();
    assert!(matches!(made(proof, vec![first, second]), Err(Refused::Malformed(_))));
}

#[test]
fn a_record_shows_what_was_signed_in_the_order_of_the_draw() {
    let (proof, right) = parts(REQUESTER, (1, false), &[(2, true), (3, true), (4, true)]);
    let refuses = |change: &dyn Fn(&mut Vec<Testimony>)| {
        let mut changed = right.clone();
        change(&mut changed);
        made(proof, changed).unwrap_err()
    };
    assert_eq!(refuses(&|all| all.swap(1, 2)), Refused::BadDraw);
    assert_eq!(refuses(&|all| all.swap(0, 1)), Refused::BadDraw);
    assert!(matches!(refuses(&|all| all.truncate(1)), Refused::Malformed(_)));
    assert!(matches!(
        refuses(&|all| all.push(all[1].clone())),
        Refused::Malformed(_)
    ));
    assert_eq!(refuses(&|all| all[1].output = output(false)), Refused::BadOpening);
    assert_eq!(refuses(&|all| all[1].output.units.input += 1), Refused::BadOpening);
    assert_eq!(refuses(&|all| all[0].given.index = 0), Refused::BadOpening);
    assert_eq!(refuses(&|all| all[0].asked.blind = [0; 32]), Refused::BadOpening);
    assert!(matches!(
        refuses(&|all| all[1].result = all[2].result.clone()),
        Refused::NotForThis(_)
    ));
    // One that another requester asked.
    let other = testimony(101, 5, &[ITEM], true, &|_| {});
    assert!(matches!(
        refuses(&|all| all.push(other.clone())),
        Refused::NotForThis(_)
    ));
    // A proof of another result.
    let (other, _) = parts(REQUESTER, (9, true), &[]);
    assert_eq!(made(other, right.clone()), Err(Refused::BadDraw));
    // The requester's own stands anywhere behind the first, and is no dispute of its own result.
    let own = testimony(REQUESTER, REQUESTER, &[ITEM], true, &|_| {});
    let mut with_own = right.clone();
    with_own.insert(1, own.clone());
    assert!(made(proof, with_own).is_ok());
    let own_proof = *draw(&own, REQUESTER).proof();
    assert!(matches!(
        made(own_proof, vec![own, right[1].clone()]),
        Err(Refused::Malformed(_))
    ));
}

#[test]
fn a_record_has_a_bound() {
    let everybody: Vec<(u8, bool)> = (20..40).map(|seed| (seed, true)).collect();
    let (proof, all) = parts(REQUESTER, (1, false), &everybody[..9]);
    assert!(made(proof, all).is_ok());
    let (proof, all) = parts(REQUESTER, (1, false), &everybody[..10]);
    assert_eq!(made(proof, all), Err(Refused::TooLarge));
    assert_eq!(
        Record::decode(&vec![0; MAX_RECORD_BYTES + 1], &network()),
        Err(Refused::TooLarge)
    );
}

#[test]
fn a_confirmation_comes_back_and_is_its_nodes() {
    let record = convicting(REQUESTER, 1);
    let confirmation = confirmation(30, &record, &[1, 2, 3]);
    assert_eq!(Confirmation::decode(confirmation.bytes()), Ok(confirmation.clone()));
    let said = |change: &dyn Fn(&mut Said)| {
        let mut said = confirmation.said().clone();
        change(&mut said);
        Confirmation::sign(said, &key(30))
    };
    assert_eq!(said(&|said| said.node = node(31)), Err(Refused::BadSignature));
    assert!(matches!(said(&|said| said.wrong.reverse()), Err(Refused::Malformed(_))));
    assert!(matches!(
        said(&|said| said.wrong.push(said.wrong[2])),
        Err(Refused::Malformed(_))
    ));
    let longest = said(&|said| {
        said.wrong = (0..10).map(node).collect();
        said.wrong.sort();
    });
    let longest = longest.unwrap();
    assert_eq!(Confirmation::decode(longest.bytes()), Ok(longest.clone()));
    assert_eq!(
        said(&|said| {
            said.wrong = (0..11).map(node).collect();
            said.wrong.sort();
        }),
        Err(Refused::TooLarge)
    );
    assert_eq!(
        Confirmation::decode(&[0; MAX_CONFIRMATION_BYTES + 1]),
        Err(Refused::TooLarge)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_byte_of_a_record_or_confirmation_can_be_changed(at: prop::sample::Index, to: u8, other: Vec<u8>) {
        let record = record(REQUESTER, (1, false), &[(2, true)]);
        let mut changed = record.bytes().to_vec();
        let place = at.index(changed.len());
        changed[place] = to;
        prop_assert_eq!(Record::decode(&changed, &network()).is_ok(), changed == record.bytes());
        prop_assert!(Record::decode(&other, &network()).is_err());
        let confirmation = confirmation(3, &record, &[1]);
        let mut changed = confirmation.bytes().to_vec();
        let place = at.index(changed.len());
        changed[place] = to;
        prop_assert_eq!(Confirmation::decode(&changed).is_ok(), changed == confirmation.bytes());
    }

    #[test]
    fn nobody_honest_is_ever_convicted_by_who_has_the_model(
        first: bool,
        others in prop::collection::vec(any::<bool>(), 1..9),
    ) {
        let others: Vec<(u8, bool)> = (20..).zip(others).collect();
        let record = record(REQUESTER, (1, first), &others);
        let Finding::Wrong { nodes, .. } = record.judge(Some((&class("f32"), &output(true))), &|_| true, []) else {
            panic!("not judged");
        };
        let mut liars: Vec<NodeId> = [(1, first)]
            .iter()
            .chain(&others)
            .filter(|(_, is_right)| !is_right)
            .map(|(seed, _)| node(*seed))
            .collect();
        liars.sort();
        let mut found = nodes;
        found.sort();
        prop_assert_eq!(found, liars);
    }
}
