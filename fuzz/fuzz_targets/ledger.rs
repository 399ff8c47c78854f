//! The statements of a ledger: read within bounds or refused, and written again as they came. What is read is considered by a
//! witness and counted, and the accounts sum to zero. A byte in front says what the rest is; entries may come many in one
//! input, two bytes of length before each.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use dawn_identity::{Keypair, Role, Roles, UnixTime};
use dawn_ledger::{
    Account, Ack, Certificate, Considered, Credits, Entry, MAX_CERTIFICATE_BYTES, MAX_ENTRY_BYTES, MAX_RECEIPT_BYTES,
    Receipt, Standing, Terms, Witness,
};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_800_000_000);

static WITNESS: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_seed([100; 32]));

fn terms() -> Terms {
    Terms::new(
        Keypair::from_seed([250; 32]).network_id(),
        [WITNESS.node_id()].into(),
        BTreeMap::from([(Role::Member, Credits::whole(10))]),
        BTreeMap::new(),
    )
    .expect("terms that can be")
}

/// A witness alone, whom each entry is shown: what it acknowledges is certified.
fn consider(mut rest: &[u8]) {
    let mut witness = Witness::new(terms());
    let standing = Standing {
        roles: Some(Roles::from(Role::Member)),
        is_quarantined: false,
        spent_twice: false,
        in_force: &|_, _| true,
    };
    let mut now = NOW;
    while let [high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (bytes, tail) = tail.split_at(length);
        rest = tail;
        let Ok(entry) = Entry::decode(bytes) else {
            now.0 += 1200;
            continue;
        };
        assert!(bytes.len() <= MAX_ENTRY_BYTES && entry.bytes() == bytes);
        if let Considered::Acknowledge(lock) = witness.consider(&entry, &[], &standing, now) {
            let ack = Ack::sign(&WITNESS, &lock.entry.hash(), &terms());
            let certified = Certificate::new(lock.entry, vec![ack])
                .verify(&terms())
                .expect("a quorum of one");
            witness.certified(&certified, now).expect("one entry for each place");
        }
        assert_eq!(witness.accounts().sum(), 0);
        for (account, balance) in witness.accounts().balances() {
            assert!((*account == Account::Mint) == (*balance < Credits::ZERO));
        }
    }
}

fuzz_target!(|data: &[u8]| match data {
    [0, rest @ ..] => consider(rest),
    [1, bytes @ ..] => {
        if let Ok(receipt) = Receipt::decode(bytes) {
            assert!(bytes.len() <= MAX_RECEIPT_BYTES && receipt.bytes() == bytes);
            assert!(receipt.said().amount <= receipt.said().total);
        }
    }
    [2, bytes @ ..] => {
        if let Ok(certificate) = Certificate::decode(bytes) {
            assert!(bytes.len() <= MAX_CERTIFICATE_BYTES && certificate.encode() == bytes);
            if let Ok(certified) = certificate.verify(&terms()) {
                assert!(certified.certificate().acks().len() >= terms().quorum());
            }
        }
    }
    _ => {}
});
