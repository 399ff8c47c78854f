//! Recovery: when keys are lost or stolen, and when a secret is.

use std::collections::BTreeSet;

use super::*;

fn recovered(lock: &Lock, keys: &[u8], quorum: u8, at: u64) -> Terms {
    let keys = keys.iter().map(|seed| key(*seed).node_id()).collect();
    let recovery: BTreeSet<_> = [4, 5].map(|number| secret(number).key(&network()).node_id()).into();
    let beginning = Beginning {
        signatures: u8::from(quorum > 0),
        keys,
        quorum,
        recovery,
    };
    lock.next_terms(lock.terms().unwrap().id(), beginning, UnixTime(at))
        .unwrap()
}

fn keys_of(secrets: &[u8]) -> BTreeSet<dawn_identity::NodeId> {
    let key = |number: &u8| secret(*number).key(&network()).node_id();
    secrets.iter().map(key).collect()
}

fn sign(terms: &Terms, number: u8) -> Opening {
    Opening::sign(terms.clone(), &secret(number).key(&network())).unwrap()
}

#[test]
fn a_recovery_secret_begins_the_lock_anew_whatever_the_keys_say() {
    let mut lock = lock(&[1, 2], 1);
    vote(&mut lock, 1, add(9)).unwrap();
    let former = lock.last().unwrap();
    let terms = recovered(&lock, &[7, 8], 2, 5);
    assert_eq!(give(&mut lock, sign(&terms, 2).bytes()), Ok(true));
    assert_eq!(trusted(&lock), [7, 8]);
    assert_eq!(lock.state().unwrap().generation, 1);
    let late = vote_at(1, former, add(10), 3);
    assert!(give(&mut lock, late.bytes()).is_err());
    let early = vote_at(1, genesis(&[1, 2], 1).terms.id(), add(10), 3);
    assert_eq!(give(&mut lock, early.bytes()), Err(Refused::FormerGeneration));
    assert_eq!(lock.statements().len(), 2, "the former log is put aside");
}

#[test]
fn only_a_recovery_key_of_the_generation_before_counts() {
    let mut lock = lock(&[1, 2], 1);
    let terms = recovered(&lock, &[9], 1, 5);
    for number in [4, 9] {
        let opening = sign(&terms, number);
        let dawn_identity::Issuer::Node(signer) = opening.signer else {
            panic!("a recovery key")
        };
        assert_eq!(give(&mut lock, opening.bytes()), Err(Refused::NotARecoveryKey(signer)));
    }
    let by_network = Opening::sign(terms, &network_key()).unwrap();
    assert!(give(&mut lock, by_network.bytes()).is_err());
    assert_eq!(trusted(&lock), [1, 2]);
}

#[test]
fn who_has_more_recovery_secrets_than_a_thief_wins_however_far_the_thief_went() {
    let mut lock = lock(&[1, 2], 1);
    let honest = recovered(&lock, &[7], 1, 10);
    let thief = recovered(&lock, &[9], 1, 5);
    give(&mut lock, sign(&thief, 1).bytes()).unwrap();
    vote(&mut lock, 9, add(10)).unwrap();
    let further = recovered(&lock, &[11], 1, 6);
    give(&mut lock, sign(&further, 4).bytes()).unwrap();
    assert_eq!(trusted(&lock), [11]);
    give(&mut lock, sign(&honest, 2).bytes()).unwrap();
    give(&mut lock, sign(&honest, 3).bytes()).unwrap();
    assert_eq!(trusted(&lock), [7]);
    assert_eq!(lock.state().unwrap().generation, 1);
}

#[test]
fn where_a_thief_has_begun_anew_the_others_find_what_to_begin_behind() {
    let mut lock = lock(&[1, 2], 1);
    let first = lock.terms().unwrap().id();
    assert_eq!(lock.recoverable(&keys_of(&[9])), None);
    assert_eq!(lock.recoverable(&keys_of(&[1, 3])).unwrap().needed, 1);
    let thief = recovered(&lock, &[9], 1, 5);
    give(&mut lock, sign(&thief, 1).bytes()).unwrap();
    let found = lock.recoverable(&keys_of(&[2, 3, 8])).unwrap();
    assert_eq!((found.parent, found.generation, found.needed), (first, 0, 2));
    assert_eq!(found.keys, keys_of(&[2, 3]));
    assert_eq!(
        lock.recoverable(&keys_of(&[4])).unwrap().generation,
        1,
        "the thief's own"
    );
}

#[test]
fn a_thief_that_goes_on_to_the_last_generation_is_put_aside_all_the_same() {
    let mut lock = lock(&[1, 2], 1);
    let honest = recovered(&lock, &[7], 1, 10);
    // As large as openings can be, by the recovery keys of the thief's own.
    let many: BTreeSet<_> = (0..64).map(|seed| key(100 + seed).node_id()).collect();
    let recovery: BTreeSet<_> = (0..16)
        .map(|number| secret(50 + number).key(&network()).node_id())
        .collect();
    let mut with = 1;
    for generation in 1..MAX_GENERATIONS {
        let beginning = Beginning {
            keys: many.clone(),
            quorum: 1,
            signatures: 1,
            recovery: recovery.clone(),
        };
        let terms = lock
            .next_terms(lock.terms().unwrap().id(), beginning, UnixTime(generation.into()))
            .unwrap();
        let _ = give(&mut lock, sign(&terms, with).bytes());
        with = 50;
    }
    let kept = |lock: &Lock| lock.statements().iter().map(|bytes| bytes.len()).sum::<usize>();
    assert!(kept(&lock) <= MAX_LOCK_BYTES, "{}", kept(&lock));
    assert!(lock.state().unwrap().generation > 10);
    give(&mut lock, sign(&honest, 2).bytes()).unwrap();
    give(&mut lock, sign(&honest, 3).bytes()).unwrap();
    assert_eq!(trusted(&lock), [7]);
    assert_eq!(lock.log().len(), 2);
    assert!(kept(&lock) < 8 << 10, "what the thief built is gone: {}", kept(&lock));
    // And what is kept comes back the same.
    let statements = lock.statements();
    let (read, refused) = Lock::load(network(), statements.iter().map(|bytes| &bytes[..]));
    assert_eq!((read.head(), refused), (lock.head(), vec![]));
}

#[test]
fn a_thief_that_has_signed_all_it_may_with_a_secret_keeps_nobody_from_using_it_with_others() {
    let mut lock = lock(&[1, 2], 1);
    let honest = recovered(&lock, &[7], 1, 10);
    let all: Vec<Terms> = (20..30).map(|at| recovered(&lock, &[9], 1, at)).collect();
    for terms in &all {
        let _ = give(&mut lock, sign(terms, 1).bytes());
        let _ = give(&mut lock, sign(terms, 2).bytes());
    }
    assert_eq!(trusted(&lock), [9]);
    let signed = [1, 2, 3].map(|number| sign(&honest, number));
    let outcome = lock.take(signed.iter().map(Opening::bytes), NOW, SKEW);
    assert_eq!((outcome.new.len(), outcome.refused), (3, vec![]));
    assert_eq!(trusted(&lock), [7]);
}

#[test]
fn what_stands_on_an_opening_that_does_not_count_is_not_kept() {
    let mut lock = lock(&[1, 2], 1);
    let (honest, thief) = (recovered(&lock, &[7], 1, 10), recovered(&lock, &[9], 1, 5));
    give(&mut lock, sign(&thief, 1).bytes()).unwrap();
    vote(&mut lock, 9, add(10)).unwrap();
    give(&mut lock, sign(&honest, 2).bytes()).unwrap();
    give(&mut lock, sign(&honest, 3).bytes()).unwrap();
    let before = lock.statements().len();
    let late = vote_at(9, thief.id(), add(11), 7);
    assert_eq!(give(&mut lock, late.bytes()), Err(Refused::FormerGeneration));
    let guest = Subject::Issuer(key(40).node_id());
    let endorsement = Endorsement::sign(&key(9), network(), guest, NOW).unwrap();
    assert_eq!(
        give(&mut lock, endorsement.bytes()),
        Err(Refused::NotAKey(key(9).node_id()))
    );
    assert_eq!(lock.statements().len(), before);
    assert_eq!(before, 4, "the genesis, the rival, and two that count");
}

#[test]
fn a_lock_can_be_switched_off_and_on_again() {
    let mut lock = lock(&[1, 2], 1);
    let stranger = member(30, Role::Member, NOW, None);
    assert_eq!(lock.admits(&stranger), Err(Why::NotSigned));
    let off = recovered(&lock, &[], 0, 5);
    give(&mut lock, sign(&off, 1).bytes()).unwrap();
    assert!(!lock.state().unwrap().is_on());
    assert_eq!(lock.admits(&stranger), Ok(()));
    assert!(lock.vote(&key(1), add(3), NOW).is_err());
    let on = recovered(&lock, &[7], 1, 6);
    give(&mut lock, sign(&on, 5).bytes()).unwrap();
    assert_eq!(lock.admits(&stranger), Err(Why::NotSigned));
}

#[test]
fn one_recovery_key_cannot_fill_the_lock_with_generations() {
    let mut lock = lock(&[1], 1);
    let all: Vec<Terms> = (0..10).map(|at| recovered(&lock, &[9], 1, at)).collect();
    let taken = all
        .iter()
        .filter(|terms| give(&mut lock, sign(terms, 1).bytes()) == Ok(true))
        .count();
    assert_eq!(taken, 4);
}

#[test]
fn a_secret_reads_back_from_its_text_and_a_slip_is_seen() {
    let secret = RecoverySecret::from_bytes(*b"twenty bytes chance!");
    let text = secret.to_text();
    insta::assert_snapshot!("recovery_secret", text.as_str());
    assert_eq!(text.parse::<RecoverySecret>().unwrap(), secret);
    let sloppy = text.to_lowercase().replace('-', " ");
    assert_eq!(sloppy.parse::<RecoverySecret>().unwrap(), secret);
    assert_eq!(format!("{secret:?}"), "RecoverySecret(…)");
    for (at, character) in text.char_indices().filter(|(_, character)| *character != '-') {
        let other = if character == 'A' { 'B' } else { 'A' };
        let mut wrong = text.to_string();
        wrong.replace_range(at..=at, &other.to_string());
        assert_eq!(wrong.parse::<RecoverySecret>(), Err(ParseSecretError::Check), "{wrong}");
    }
    for none in ["", "AAAAA", "1", &"A".repeat(41), &"A".repeat(10_000)] {
        assert_eq!(none.parse::<RecoverySecret>(), Err(ParseSecretError::Shape));
    }
}
