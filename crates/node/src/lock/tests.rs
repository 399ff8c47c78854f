//! The lock of one node, over a restart and with what others give it.

use bytes::Bytes;
use dawn_identity::{Role, Roles, Serial, UnixTime};
use dawn_lock::{Change, Why};

use super::*;
use crate::charter::Document;

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

async fn open(folder: &tempfile::TempDir, seed: u8) -> NetworkLock {
    let store = Store::open(&folder.path().join(format!("{seed}.db"))).await.unwrap();
    let root = (seed == 1).then(|| key(9));
    NetworkLock::load(store, Events::default(), key(9).network_id(), key(seed), root)
        .await
        .unwrap()
}

fn member(seed: u8) -> Membership {
    // What is signed for now covers it, however long the test takes.
    let now = UnixTime(now().0 / 86_400 * 86_400 - 86_400);
    Membership {
        network: key(9).network_id(),
        node: key(seed).node_id(),
        name: format!("node-{seed}").parse().unwrap(),
        roles: Roles::from(Role::Member),
        admitted_at: now,
        issued_at: now,
        expires: UnixTime(now.0 + 7 * 86_400),
        serial: Serial::from_bytes([0; 16]),
        issuer: None,
    }
}

fn beginning(keys: &[u8], members: &[u8]) -> Beginning {
    Beginning {
        keys: keys.iter().map(|seed| key(*seed).node_id()).collect(),
        quorum: None,
        signatures: None,
        secrets: 2,
        members: members.iter().map(|seed| member(*seed)).collect(),
    }
}

/// Gives one node what another has.
async fn sync(from: &NetworkLock, to: &NetworkLock) -> Result<bool, crate::charter::Refusal> {
    match from.since(&to.head()) {
        Some(bytes) => Document::take(to, key(8).node_id(), bytes).await,
        None => Ok(false),
    }
}

#[tokio::test]
async fn a_lock_begins_once_keeps_strangers_out_and_comes_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder, 1).await;
    assert_eq!(lock.admits(&member(5)), Ok(()));
    assert!(lock.head().is_empty());
    let begun = lock.begin(beginning(&[1, 2, 3], &[4])).await.unwrap();
    assert_eq!((begun.secrets.len(), begun.signed.len()), (2, 1));
    let again = lock.begin(beginning(&[1], &[])).await.unwrap_err();
    assert_eq!(again.code(), "lock_exists");
    for lock in [&lock, &open(&folder, 1).await] {
        assert!(lock.is_on() && lock.holds_key());
        assert_eq!(lock.admits(&member(4)), Ok(()));
        assert_eq!(lock.admits(&member(5)), Err(Why::NotSigned));
        let kept = lock.kept_out();
        assert_eq!((kept.len(), kept[0].membership.node), (1, key(5).node_id()));
    }
    lock.sign(&[member(5)]).await.unwrap();
    assert_eq!(lock.admits(&member(5)), Ok(()));
    assert!(lock.kept_out().is_empty(), "who is let in does not wait");
}

#[tokio::test]
async fn only_the_network_key_begins_and_only_a_lock_key_signs_and_votes() {
    let folder = tempfile::tempdir().unwrap();
    let (home, other) = (open(&folder, 1).await, open(&folder, 5).await);
    let refused = other.begin(beginning(&[5], &[])).await.unwrap_err();
    assert_eq!(refused.code(), "no_network_key");
    assert_eq!(other.sign(&[member(6)]).await.unwrap_err().code(), "no_lock");
    assert_eq!(
        home.begin(beginning(&[2], &[])).await.unwrap_err().code(),
        "lock_without_this"
    );
    home.begin(beginning(&[1, 2], &[])).await.unwrap();
    assert_eq!(sync(&home, &other).await, Ok(true));
    assert_eq!(other.head(), home.head());
    assert_eq!(other.sign(&[member(6)]).await.unwrap_err().code(), "no_lock_key");
    let add = Change::Add(key(5).node_id());
    assert_eq!(other.propose(add, &[]).await.unwrap_err().code(), "no_lock_key");
    let proposed = home.propose(add, &[]).await.unwrap();
    assert!(!proposed.is_made);
    assert_eq!(sync(&home, &other).await, Ok(true));
    let id = proposed.proposal.id.to_string();
    assert_eq!(other.proposal(&id[..6]).unwrap(), proposed.proposal);
    assert_eq!(other.proposal("").unwrap_err().code(), "unknown_proposal");
    let second = open(&folder, 2).await;
    assert_eq!(sync(&other, &second).await, Ok(true));
    assert!(second.propose(add, &[]).await.unwrap().is_made);
    assert_eq!(sync(&second, &home).await, Ok(true));
    assert_eq!(home.keys().len(), 3);
}

#[tokio::test]
async fn what_others_forge_is_refused_with_its_reason_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (home, thief) = (open(&folder, 1).await, tempfile::tempdir().unwrap());
    home.begin(beginning(&[1, 2], &[])).await.unwrap();
    // A copy of the network key, and a lock of its own.
    let copy = open(&thief, 1).await;
    copy.begin(beginning(&[1], &[])).await.unwrap();
    let before = home.head();
    assert_eq!(sync(&copy, &home).await.unwrap_err().code, "other_genesis");
    let garbage = Bytes::from_static(&[0, 3, 1, 2]);
    assert_eq!(
        Document::take(&home, key(8).node_id(), garbage).await.unwrap_err().code,
        "malformed"
    );
    assert_eq!(home.head(), before);
    let refused = home.refused();
    assert!(refused.contains(&("other_genesis", 1)), "{refused:?}");
}

#[tokio::test]
async fn who_has_more_secrets_than_a_thief_takes_the_lock_back_after_the_thief_has_begun_it_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (home, thief) = (open(&folder, 1).await, open(&folder, 4).await);
    let three = Beginning {
        secrets: 3,
        ..beginning(&[1, 2], &[])
    };
    let secrets = home.begin(three).await.unwrap().secrets;
    sync(&home, &thief).await.unwrap();
    thief.recover(&secrets[..1], beginning(&[4], &[])).await.unwrap();
    assert_eq!(sync(&thief, &home).await, Ok(true));
    assert_eq!(home.keys(), [key(4).node_id()]);
    let twice = [secrets[1].clone(), secrets[1].clone()];
    let few = home.recover(&twice, beginning(&[1], &[])).await.unwrap_err();
    assert_eq!(few.code(), "lock_too_few_secrets", "{few}");
    home.recover(&secrets[1..], beginning(&[1], &[])).await.unwrap();
    assert_eq!(home.keys(), [key(1).node_id()]);
    assert_eq!(sync(&home, &thief).await, Ok(true));
    assert_eq!(thief.keys(), [key(1).node_id()]);
    let again = open(&folder, 1).await;
    assert_eq!(again.head(), home.head(), "and after a restart");
}

#[tokio::test]
async fn with_two_signatures_a_member_waits_for_the_second_key() {
    let folder = tempfile::tempdir().unwrap();
    let (home, desk) = (open(&folder, 1).await, open(&folder, 2).await);
    let begins = |signatures: u8| Beginning {
        signatures: Some(signatures),
        ..beginning(&[1, 2], &[5])
    };
    for wanted in [0, 3] {
        let refused = home.begin(begins(wanted)).await.unwrap_err();
        assert_eq!(refused.code(), "lock_signatures");
    }
    home.begin(begins(2)).await.unwrap();
    assert_eq!(home.admits(&member(5)), Err(Why::TooFew { have: 1, needed: 2 }));
    sync(&home, &desk).await.unwrap();
    desk.sign(&[member(5)]).await.unwrap();
    sync(&desk, &home).await.unwrap();
    assert_eq!(home.admits(&member(5)), Ok(()));
    assert_eq!(home.admits(&member(2)), Ok(()), "a lock key needs nobody");
}

#[tokio::test]
async fn a_kept_lock_that_has_lost_its_beginning_is_not_taken_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let home = open(&folder, 1).await;
    home.begin(beginning(&[1], &[4])).await.unwrap();
    let kept = home.0.store.document(KIND).await.unwrap().unwrap();
    let length = usize::from(u16::from_be_bytes([kept[0], kept[1]]));
    home.0.store.set_document(KIND, &kept[2 + length..]).await.unwrap();
    let (network, store) = (key(9).network_id(), home.0.store.clone());
    let loaded = NetworkLock::load(store, Events::default(), network, key(1), None).await;
    assert_eq!(loaded.unwrap_err().code(), "store");
}

#[tokio::test]
async fn a_recovery_secret_begins_anew_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (home, desk) = (open(&folder, 1).await, open(&folder, 2).await);
    let begun = home.begin(beginning(&[1, 3], &[2])).await.unwrap();
    sync(&home, &desk).await.unwrap();
    let none = [dawn_lock::RecoverySecret::from_bytes([0; 20])];
    let wrong = desk.recover(&none, beginning(&[2], &[1]));
    assert_eq!(wrong.await.unwrap_err().code(), "lock_other_secret");
    let first = &begun.secrets[..1];
    let again = desk.recover(first, beginning(&[2], &[1])).await.unwrap();
    assert_eq!(desk.keys(), [key(2).node_id()]);
    assert_eq!(sync(&desk, &home).await, Ok(true));
    assert_eq!(home.admits(&member(1)), Ok(()));
    assert_eq!(
        desk.recover(first, beginning(&[5], &[])).await.unwrap_err().code(),
        "lock_too_few_secrets"
    );
    desk.recover(&again.secrets, beginning(&[], &[])).await.unwrap();
    assert!(!desk.is_on());
    assert_eq!(desk.admits(&member(7)), Ok(()));
}

#[tokio::test]
async fn who_certifies_without_end_drives_nobody_out_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder, 1).await;
    lock.begin(beginning(&[1], &[])).await.unwrap();
    let certified = |number: u32, issuer: Option<u8>| {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Membership {
            node: Keypair::from_seed(seed).node_id(),
            issuer: issuer.map(|issuer| key(issuer).node_id()),
            ..member(5)
        }
    };
    let honest = certified(1, Some(7));
    lock.admits(&honest).unwrap_err();
    for number in 2..600 {
        lock.admits(&certified(number, None)).unwrap_err();
    }
    let later = certified(601, Some(8));
    lock.admits(&later).unwrap_err();
    let kept: Vec<NodeId> = lock.kept_out().iter().map(|kept| kept.membership.node).collect();
    assert!(kept.contains(&honest.node) && kept.contains(&later.node) && kept.len() <= 256);
}

#[tokio::test]
async fn two_that_keep_each_other_out_come_to_the_same_by_what_they_say_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (home, desk) = (open(&folder, 1).await, open(&folder, 2).await);
    let three = Beginning {
        secrets: 3,
        ..beginning(&[1], &[2])
    };
    let secrets = home.begin(three).await.unwrap().secrets;
    sync(&home, &desk).await.unwrap();
    let thief = open(&folder, 4).await;
    sync(&home, &thief).await.unwrap();
    thief.recover(&secrets[..1], beginning(&[4], &[2])).await.unwrap();
    sync(&thief, &desk).await.unwrap();
    home.recover(&secrets[1..], beginning(&[1], &[2])).await.unwrap();
    assert!(home.admits(&member(4)).is_err() && desk.admits(&member(1)).is_err());
    // Home is refused by the desk, and objects.
    let said = home.objection(&desk.evidence());
    assert!(!said.is_empty());
    desk.hear(key(1).node_id(), &said).await;
    assert_eq!(desk.keys(), [key(1).node_id()]);
    assert_eq!((desk.admits(&member(1)), home.admits(&member(2))), (Ok(()), Ok(())));
    // Somebody without a lock takes none from a stranger, nor has anything to say.
    let new = open(&folder, 6).await;
    new.hear(key(1).node_id(), &said).await;
    assert!(new.head().is_empty() && new.objection(&desk.evidence()).is_empty());
    assert!(new.refused_by(key(1).node_id(), &desk.evidence()).await);
    assert!(new.head().is_empty() && new.locked_out_by().is_some());
    // And what is no lock's is no occasion to say anything.
    assert!(home.objection(b"").is_empty() && home.objection(&[0, 100]).is_empty());
    assert!(!home.refused_by(key(4).node_id(), b"revoked").await);
}
