//! The statements of a network lock: read or refused, taken or refused, in any order; and whatever is taken leaves a lock
//! that comes back the same from what is kept. The input is cut into statements: two bytes of length each. A byte in front
//! says whether they are as they are, or are signed by one of the keys first.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use dawn_identity::{Keypair, NodeId, UnixTime};
use dawn_lock::{
    Beginning, Change, Endorsement, Lock, MAX_KEYS, MAX_LOCK_BYTES, Opening, Statement, StatementId, Subject, Terms, Vote,
};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_800_000_000);

static KEYS: LazyLock<Vec<Keypair>> = LazyLock::new(|| (1..=5).map(|seed| Keypair::from_seed([seed; 32])).collect());
static NETWORK: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_seed([9; 32]));

fn genesis() -> Opening {
    let terms = Terms {
        network: NETWORK.network_id(),
        generation: 0,
        parent: None,
        keys: KEYS[..3].iter().map(Keypair::node_id).collect(),
        quorum: 2,
        signatures: 1,
        recovery: [KEYS[4].node_id()].into(),
        at: NOW,
    };
    Opening::sign(terms, &NETWORK).expect("terms that can be")
}

/// What a few bytes stand for, signed.
fn signed(lock: &Lock, bytes: &[u8]) -> Option<Vec<u8>> {
    let [voter, what, about, behind, number, ..] = *bytes else {
        return None;
    };
    let key = &KEYS[usize::from(voter) % KEYS.len()];
    let node = |byte: u8| NodeId::from_bytes(KEYS.get(usize::from(byte)).map_or([byte; 32], Keypair::public));
    let log = lock.log();
    let parent: StatementId = log.get(usize::from(behind) % log.len().max(1))?.id;
    let change = match what % 8 {
        0 => Change::Add(node(about)),
        1 => Change::Remove(node(about)),
        2 => Change::Rotate {
            from: node(about),
            to: node(number),
        },
        3 => Change::Quorum(about),
        4 => {
            let beginning = Beginning {
                keys: [node(about)].into(),
                quorum: about % 2,
                signatures: about % 2,
                recovery: [node(number)].into(),
            };
            let behind = lock.recoverable(&[key.node_id()].into())?.parent;
            let terms = lock.next_terms(behind, beginning, NOW)?;
            return Some(Opening::sign(terms, key).ok()?.bytes().to_vec());
        }
        5 => Change::Signatures(about),
        what => {
            let subject = match what {
                6 => Subject::Issuer(node(about)),
                _ => Subject::NoIssuer(node(about)),
            };
            return Some(
                Endorsement::sign(key, lock.network(), subject, NOW)
                    .ok()?
                    .bytes()
                    .to_vec(),
            );
        }
    };
    let vote = Vote::sign(key, lock.network(), parent, change, number.into(), NOW).ok()?;
    Some(vote.bytes().to_vec())
}

fuzz_target!(|data: &[u8]| {
    let mut lock = Lock::new(NETWORK.network_id());
    let first = genesis();
    assert!(lock.take([first.bytes()], NOW, Duration::ZERO).refused.is_empty());
    let mut rest = data;
    while let [how, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (bytes, tail) = tail.split_at(length);
        rest = tail;
        if let Ok(statement) = Statement::decode(bytes) {
            assert_eq!(statement.bytes(), bytes);
        }
        let offered = if how % 2 == 0 {
            Some(bytes.to_vec())
        } else {
            signed(&lock, bytes)
        };
        if let Some(offered) = offered {
            let before = lock.head();
            let outcome = lock.take([offered.as_slice()], NOW, Duration::ZERO);
            assert!(!outcome.new.is_empty() || lock.head() == before);
        }
        let state = lock.state().expect("a lock that began goes on");
        let keys = state.keys.len();
        assert!(keys <= MAX_KEYS && usize::from(state.quorum.max(state.signatures)) <= keys);
    }
    let kept = lock.statements();
    assert!(kept.iter().map(|bytes| bytes.len()).sum::<usize>() <= MAX_LOCK_BYTES);
    let (read, refused) = Lock::load(lock.network(), kept.iter().map(|bytes| &bytes[..]));
    assert!(refused.is_empty() && read.head() == lock.head() && read.state() == lock.state());
});
