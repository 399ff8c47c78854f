//! Ledgers made in a line.

mod accounts;
mod copies;
mod model;
mod paying;
mod properties;
mod quests;
mod statements;
mod wire;
mod witness;

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{Authority, CertificateChain, Keypair, NetworkId, NodeId, Request, Role, Roles, Serial, UnixTime};

use crate::*;

const NOW: UnixTime = UnixTime(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn node(seed: u8) -> NodeId {
    key(seed).node_id()
}

fn network() -> NetworkId {
    key(250).network_id()
}

/// The keys of so many witnesses.
fn witness_keys(count: u8) -> Vec<Keypair> {
    (0..count).map(|seed| key(100 + seed)).collect()
}

fn terms(witnesses: u8) -> Terms {
    let grants = BTreeMap::from([(Role::Member, Credits::whole(10)), (Role::Owner, Credits::whole(100))]);
    let prices = BTreeMap::from([("embed".to_owned(), Credits::whole(1))]);
    let witnesses = witness_keys(witnesses).iter().map(Keypair::node_id).collect();
    Terms::new(network(), witnesses, grants, prices).unwrap()
}

/// The membership of a node, by the network key.
fn chain(seed: u8) -> CertificateChain {
    let request = Request {
        subject: node(seed),
        name: format!("node-{seed}").parse().unwrap(),
        roles: Roles::from(Role::Member),
        admitted_at: NOW,
        not_before: NOW,
        expires: NOW + HOUR * 1000,
        serial: Serial::from_bytes([seed; 16]),
    };
    Authority::Root { key: key(250) }.issue(request, NOW).unwrap()
}

fn entry(author: u8, what: What, at: UnixTime) -> Entry {
    Entry::sign(&key(author), network(), what, at).unwrap()
}

pub(crate) fn open(author: u8, grant: Credits) -> Entry {
    let chain = chain(author);
    entry(author, What::Open { grant, chain }, NOW)
}

fn hold(payer: u8, number: u64, previous: &Entry, payee: u8, amount: Credits) -> Entry {
    hold_at(payer, number, previous.hash(), payee, amount, NOW)
}

/// A hold of an hour.
fn hold_at(payer: u8, number: u64, previous: EntryHash, payee: u8, amount: Credits, at: UnixTime) -> Entry {
    let hold = Hold {
        number,
        previous,
        payee: node(payee),
        amount,
        expires: at + HOUR,
    };
    entry(payer, What::Hold(hold), at)
}

/// A receipt that says that so many results came to so much.
fn receipt(payer: u8, payee: u8, hold: Option<EntryHash>, count: u64, total: Credits) -> Receipt {
    let said = Said {
        hold,
        count,
        total,
        previous: (count > 1).then_some(ReceiptId::from_bytes([8; 32])),
        result: ResultId::from_bytes([7; 32]),
        draw: Draw([9; 80]),
        outcome: Outcome::Plain,
        amount: if count == 1 { total } else { Credits::ZERO },
    };
    Receipt::sign(&key(payer), network(), node(payee), said, NOW).unwrap()
}

fn close(payer: u8, payee: u8, hold: &Entry, count: u64, total: Credits) -> Entry {
    let hold = hold.hash();
    let receipt = Some(receipt(payer, payee, Some(hold), count, total));
    entry(payee, What::Close { hold, receipt }, NOW)
}

fn lapse(payer: u8, hold: &Entry, at: UnixTime) -> Entry {
    entry(payer, What::Lapse { hold: hold.hash() }, at)
}

fn sorted(holds: &[&Entry]) -> Vec<EntryHash> {
    let mut rewards: Vec<EntryHash> = holds.iter().map(|hold| hold.hash()).collect();
    rewards.sort();
    rewards
}

fn mature(payee: u8, holds: &[&Entry]) -> Entry {
    entry(payee, What::Mature { rewards: sorted(holds) }, NOW)
}

fn forfeit(author: u8, subject: u8, holds: &[&Entry]) -> Entry {
    let what = What::Forfeit {
        subject: node(subject),
        record: RecordId::from_bytes([6; 32]),
        rewards: sorted(holds),
    };
    entry(author, what, NOW)
}

/// The entry with acknowledgements of the first witnesses, as many as a quorum takes.
pub(crate) fn certify(entry: &Entry, witnesses: u8) -> Certified {
    let terms = terms(witnesses);
    let keys = witness_keys(witnesses);
    let acks = keys
        .iter()
        .take(terms.quorum())
        .map(|key| Ack::sign(key, &entry.hash(), &terms));
    Certificate::new(entry.clone(), acks.collect()).verify(&terms).unwrap()
}

/// A member in good standing, and records against everybody.
fn member() -> Standing<'static> {
    Standing {
        roles: Some(Roles::from(Role::Member)),
        is_quarantined: false,
        spent_twice: false,
        in_force: &|_, _| true,
    }
}

/// Sums to zero, and nobody owes.
fn check_balances(accounts: &Accounts) {
    assert_eq!(accounts.sum(), 0);
    for (account, balance) in accounts.balances() {
        assert!(
            (*account == Account::Mint) == (*balance < Credits::ZERO),
            "{account:?} has {balance}"
        );
    }
}
