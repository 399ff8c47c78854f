//! Locks made in a line, and members with certificates.

mod admission;
mod forks;
mod log;
mod properties;
mod recovery;
mod wire;

use std::time::Duration;

use dawn_identity::{Authority, Keypair, Membership, NetworkId, Request, Revocations, Role, Roles, Serial, UnixTime};

use crate::*;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(300);

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn network_key() -> Keypair {
    key(250)
}

fn network() -> NetworkId {
    network_key().network_id()
}

fn secret(number: u8) -> RecoverySecret {
    RecoverySecret::from_bytes([number; 20])
}

fn genesis(keys: &[u8], quorum: u8) -> Opening {
    genesis_with(keys, quorum, 1)
}

/// One in which a member needs so many signatures.
fn genesis_with(keys: &[u8], quorum: u8, signatures: u8) -> Opening {
    let terms = Terms {
        network: network(),
        generation: 0,
        parent: None,
        keys: keys.iter().map(|seed| key(*seed).node_id()).collect(),
        quorum,
        signatures,
        recovery: [1, 2, 3].map(|number| secret(number).key(&network()).node_id()).into(),
        at: NOW,
    };
    Opening::sign(terms, &network_key()).unwrap()
}

/// A lock that begins with these keys.
fn lock(keys: &[u8], quorum: u8) -> Lock {
    let mut lock = Lock::new(network());
    give(&mut lock, genesis(keys, quorum).bytes()).unwrap();
    lock
}

/// Gives one statement to a lock; whether it was news.
fn give(lock: &mut Lock, bytes: &[u8]) -> Result<bool, Refused> {
    let mut outcome = lock.take([bytes], NOW, SKEW);
    match outcome.refused.pop() {
        Some(refused) => Err(refused),
        None => Ok(!outcome.new.is_empty()),
    }
}

/// A vote for a change behind the last statement, taken.
fn vote(lock: &mut Lock, voter: u8, change: Change) -> Result<bool, Refused> {
    let vote = lock.vote(&key(voter), change, NOW)?;
    give(lock, vote.bytes())
}

/// A vote of which everything is said.
fn vote_at(voter: u8, parent: StatementId, change: Change, number: u32) -> Vote {
    Vote::sign(&key(voter), network(), parent, change, number, NOW).unwrap()
}

/// The change that adds a key.
fn add(seed: u8) -> Change {
    Change::Add(key(seed).node_id())
}

/// The change that removes a key.
fn remove(seed: u8) -> Change {
    Change::Remove(key(seed).node_id())
}

fn trusted(lock: &Lock) -> Vec<u8> {
    let keys = &lock.state().unwrap().keys;
    let mut seeds: Vec<u8> = (0..=255).filter(|seed| keys.contains(&key(*seed).node_id())).collect();
    seeds.sort_unstable();
    seeds
}

/// A membership that the network key issued, or an admin.
fn member(seed: u8, role: Role, admitted: UnixTime, issuer: Option<u8>) -> Membership {
    let request = |seed: u8, role: Role| Request {
        subject: key(seed).node_id(),
        name: format!("node-{seed}").parse().unwrap(),
        roles: Roles::from(role),
        admitted_at: admitted,
        not_before: admitted,
        expires: admitted + Duration::from_secs(86_400),
        serial: Serial::from_bytes([seed; 16]),
    };
    let root = Authority::Root { key: network_key() };
    let authority = match issuer {
        None => root,
        Some(admin) => Authority::Delegated {
            key: key(admin),
            chain: Box::new(root.issue(request(admin, Role::Admin), admitted).unwrap()),
        },
    };
    let chain = authority.issue(request(seed, role), admitted).unwrap();
    chain.verify(&network(), admitted, SKEW, &Revocations::new()).unwrap()
}
