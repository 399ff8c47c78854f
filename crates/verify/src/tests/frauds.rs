//! The set of records: the same for all, whatever came in which order, and filled by nobody.

use proptest::prelude::*;

use super::record::{confirmation, convicting, record};
use super::*;
use crate::frauds::{BYTES_OF_ONE, CONFIRMATIONS_OF_ONE, KEPT, MAX_FRAUD_BYTES, RECORDS_OF_ONE, Reader, Taken};

/// Everybody is a member but one.
const STRANGER: u8 = 66;

fn is_member(other: &NodeId) -> bool {
    *other != node(STRANGER)
}

fn at(now: UnixTime) -> Reader<'static> {
    Reader {
        is_member: &is_member,
        now,
        skew: SKEW,
    }
}

fn now() -> Reader<'static> {
    at(NOW + Duration::from_secs(3600))
}

fn with(records: &[Record]) -> Frauds {
    let mut frauds = Frauds::new(network());
    for record in records {
        frauds.add(record.clone(), &now()).unwrap();
    }
    frauds
}

#[test]
fn who_has_less_is_given_it_and_has_the_same_then() {
    let (one, other) = (convicting(REQUESTER, 1), convicting(REQUESTER, 2));
    let mut frauds = with(&[one.clone(), other]);
    assert_eq!(frauds.confirm(confirmation(30, &one, &[1]), &now()), Ok(true));
    assert_eq!(frauds.since(&frauds.head()), None);
    let mut empty = Frauds::new(network());
    assert_eq!(empty.head(), Vec::<u8>::new());
    assert_eq!(empty.since(&frauds.head()), None);
    let document = frauds.since(&empty.head()).unwrap();
    let taken = Taken {
        is_new: true,
        refused: None,
    };
    assert_eq!(empty.take(&document, &now()), taken);
    assert_eq!(empty.head(), frauds.head());
    assert_eq!(empty.take(&document, &now()), Taken::default());
    assert_eq!(empty.records().count(), 2);
    assert_eq!(empty.confirmations(&one.id()).count(), 1);
}

#[test]
fn strangers_the_future_and_the_distant_past_are_refused_and_blame_nobody() {
    let mut frauds = Frauds::new(network());
    let record = convicting(REQUESTER, 1);
    let refused = |frauds: &mut Frauds, record: &Record, now| {
        let refused = frauds.add(record.clone(), &at(now)).unwrap_err();
        assert!(refused.is_innocent());
        refused
    };
    let of_stranger = convicting(REQUESTER, STRANGER);
    assert_eq!(
        refused(&mut frauds, &of_stranger, NOW),
        Refused::NoMember(node(STRANGER))
    );
    let by_stranger = convicting(STRANGER, 1);
    assert_eq!(
        refused(&mut frauds, &by_stranger, NOW),
        Refused::NoMember(node(STRANGER))
    );
    let early = UnixTime(NOW.0 - 60);
    assert_eq!(
        refused(&mut frauds, &record, early),
        Refused::FromTheFuture(record.at())
    );
    let late = record.at() + KEPT;
    assert_eq!(refused(&mut frauds, &record, late), Refused::TooOld(record.at()));
    let unknown = frauds.confirm(confirmation(30, &record, &[1]), &now());
    assert_eq!(unknown, Err(Refused::UnknownRecord(record.id())));
    frauds.add(record.clone(), &now()).unwrap();
    let stranger = frauds.confirm(confirmation(STRANGER, &record, &[1]), &now());
    assert_eq!(stranger, Err(Refused::NoMember(node(STRANGER))));
    let early = frauds.confirm(confirmation(200, &record, &[1]), &at(NOW));
    assert!(matches!(early, Err(Refused::FromTheFuture(_))));
    // And goes by itself.
    frauds.keep(UnixTime(late.0 - 1));
    assert_eq!(frauds.records().count(), 1);
    frauds.keep(late);
    assert_eq!(frauds.records().count(), 0);
}

#[test]
fn what_is_no_set_of_records_is_refused() {
    let mut frauds = Frauds::new(network());
    let record = convicting(REQUESTER, 1);
    let mut bad = record.bytes().to_vec();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let document = |records: &[&[u8]]| {
        let items = |items: &[&[u8]]| {
            let items = items.iter().map(|item| ciborium::Value::Bytes(item.to_vec()));
            ciborium::Value::Array(items.collect())
        };
        let mut bytes = Vec::new();
        let value = ciborium::Value::Array(vec![items(records), items(&[])]);
        ciborium::into_writer(&value, &mut bytes).unwrap();
        bytes
    };
    // What is well is taken beside what an honest node may give, and nothing behind what none does.
    let (of_stranger, other) = (convicting(REQUESTER, STRANGER), convicting(REQUESTER, 2));
    let taken = frauds.take(
        &document(&[of_stranger.bytes(), record.bytes(), &bad, other.bytes()]),
        &now(),
    );
    assert!(taken.is_new);
    assert!(taken.refused.is_some_and(|refused| !refused.is_innocent()));
    assert_eq!(frauds.records().map(Record::id).collect::<Vec<_>>(), [record.id()]);
    for bytes in [&[][..], &[0x80], &[0x82, 0x80, 0x00], &vec![0; MAX_FRAUD_BYTES + 1]] {
        assert!(matches!(
            frauds.take(bytes, &now()).refused,
            Some(Refused::Malformed(_))
        ));
    }
}

#[test]
fn one_requester_has_a_share_of_the_room() {
    let mut frauds = Frauds::new(network());
    let own: Vec<Record> = (1..=20)
        .map(|liar| record(REQUESTER, (liar, false), &[(21, true)]))
        .collect();
    for record in &own {
        let _full = frauds.add(record.clone(), &now());
    }
    assert_eq!(frauds.records().count(), RECORDS_OF_ONE);
    // Of one requester and worker there is one record.
    let twice = record(REQUESTER, (1, false), &[(22, true)]);
    let mut frauds = with(&own[..1]);
    let kept = frauds.add(twice, &now());
    assert!(matches!(kept, Ok(true) | Err(Refused::Full)));
    assert_eq!(frauds.records().count(), 1);
    // Others have theirs.
    let mut frauds = with(&own[..RECORDS_OF_ONE]);
    for requester in 101..105 {
        assert_eq!(frauds.add(convicting(requester, 1), &now()), Ok(true));
    }
    assert!(frauds.records().map(|record| record.bytes().len()).sum::<usize>() < BYTES_OF_ONE);
}

#[test]
fn a_node_confirms_once_and_may_correct_itself() {
    let record = convicting(REQUESTER, 1);
    let mut frauds = with(std::slice::from_ref(&record));
    let said = |wrong: &[u8], later: u64| {
        let wrong = wrong.iter().map(|seed| node(*seed)).collect();
        let said = Said {
            wrong,
            at: NOW + Duration::from_secs(later),
            ..confirmation(30, &record, &[]).said().clone()
        };
        Confirmation::sign(said, &key(30)).unwrap()
    };
    assert_eq!(frauds.confirm(said(&[1], 10), &now()), Ok(true));
    assert_eq!(frauds.confirm(said(&[1], 10), &now()), Ok(false));
    assert_eq!(frauds.confirm(said(&[21], 9), &now()), Ok(false));
    let head = frauds.head();
    assert_eq!(frauds.confirm(said(&[21], 11), &now()), Ok(true));
    assert_ne!(frauds.head(), head);
    assert_eq!(frauds.confirmations(&record.id()).count(), 1);
    let more = (31..80).map(|seed| confirmation(seed, &record, &[1]));
    let kept = more
        .filter(|more| frauds.confirm(more.clone(), &now()) == Ok(true))
        .count();
    assert!(kept >= CONFIRMATIONS_OF_ONE - 1);
    assert_eq!(frauds.confirmations(&record.id()).count(), CONFIRMATIONS_OF_ONE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn two_that_gave_each_other_everything_have_the_same(
        first in prop::collection::vec((0_u8..3, 1_u8..14, any::<bool>()), 0..16),
        second in prop::collection::vec((0_u8..3, 1_u8..14, any::<bool>()), 0..16),
    ) {
        let filled = |items: &[(u8, u8, bool)]| {
            let mut frauds = Frauds::new(network());
            for (requester, liar, is_first) in items {
                let verifier = if *is_first { 21 } else { 22 };
                let record = record(REQUESTER + requester, (*liar, false), &[(verifier, true)]);
                if frauds.add(record.clone(), &now()).is_ok() {
                    frauds.confirm(confirmation(30 + liar, &record, &[*liar]), &now()).unwrap();
                }
            }
            frauds
        };
        let (mut one, mut other) = (filled(&first), filled(&second));
        for _ in 0..2 {
            if let Some(document) = one.since(&other.head()) {
                other.take(&document, &now());
            }
            if let Some(document) = other.since(&one.head()) {
                one.take(&document, &now());
            }
        }
        prop_assert_eq!(one.head(), other.head());
        // The order in which they came does not matter.
        let all: Vec<_> = first.iter().chain(&second).copied().collect();
        let turned: Vec<_> = all.iter().rev().copied().collect();
        let ids = |frauds: &Frauds| frauds.records().map(Record::id).collect::<Vec<_>>();
        prop_assert_eq!(ids(&filled(&all)), ids(&filled(&turned)));
        prop_assert_eq!(ids(&filled(&all)), ids(&one));
    }
}
