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
    let now = now();
    Membership {
        network: key(9).network_id(),
        node: key(seed).node_id(),
        name: format!("node-{seed}").parse().unwrap(),
        roles: Roles::from(Role::Member),
        admitted_at: now,
        issued_at: now,
        expires: UnixTime(now.0 + 86_400),
        serial: Serial::from_bytes([0; 16]),
        issuer: None,
    }
}

fn beginning(keys: &[u8], members: &[u8]) -> Beginning {
    Beginning {
        keys: keys.iter().map(|seed| key(*seed).node_id()).collect(),
        quorum: None,
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
        "lock_other_secret"
    );
    desk.recover(&again.secrets, beginning(&[], &[])).await.unwrap();
    assert!(!desk.is_on());
    assert_eq!(desk.admits(&member(7)), Ok(()));
}
