//! The log without forks: what it takes to change it, and what is refused.

use super::*;

#[test]
fn a_change_counts_when_as_many_keys_voted_as_the_quorum_asks() {
    let mut lock = lock(&[1, 2, 3], 2);
    assert_eq!(vote(&mut lock, 1, add(4)), Ok(true));
    assert_eq!(trusted(&lock), [1, 2, 3]);
    let [proposal] = &lock.proposals()[..] else {
        panic!("one proposal")
    };
    assert_eq!((proposal.votes.len(), proposal.needed), (1, 2));
    assert_eq!(vote(&mut lock, 2, add(4)), Ok(true));
    assert_eq!(trusted(&lock), [1, 2, 3, 4]);
    assert!(lock.proposals().is_empty());
    let heights: Vec<u32> = lock.log().iter().map(|entry| entry.height).collect();
    assert_eq!(heights, [0, 1]);
}

#[test]
fn one_key_votes_once_however_often_it_signs() {
    let mut lock = lock(&[1, 2, 3], 2);
    for _ in 0..5 {
        assert_eq!(vote(&mut lock, 1, add(4)), Ok(true), "with a greater number it is news");
    }
    assert_eq!(trusted(&lock), [1, 2, 3]);
}

#[test]
fn a_greater_quorum_has_to_agree_on_itself() {
    let mut lock = lock(&[1, 2, 3], 2);
    vote(&mut lock, 1, Change::Quorum(3)).unwrap();
    vote(&mut lock, 2, Change::Quorum(3)).unwrap();
    assert_eq!(lock.state().unwrap().quorum, 2);
    vote(&mut lock, 3, Change::Quorum(3)).unwrap();
    assert_eq!(lock.state().unwrap().quorum, 3);
    for voter in [1, 2, 3] {
        vote(&mut lock, voter, Change::Quorum(1)).unwrap();
    }
    assert_eq!(lock.state().unwrap().quorum, 1, "a smaller one needs the present one");
}

#[test]
fn how_many_have_to_sign_is_changed_by_quorum_and_never_more_than_there_are_keys() {
    let mut lock = lock(&[1, 2, 3], 2);
    vote(&mut lock, 1, Change::Signatures(3)).unwrap();
    assert_eq!(lock.state().unwrap().signatures, 1);
    vote(&mut lock, 2, Change::Signatures(3)).unwrap();
    assert_eq!(lock.state().unwrap().signatures, 3);
    let refused = Refused::Change(ChangeError::TooFewToSign(3));
    assert_eq!(lock.vote(&key(1), remove(3), NOW), Err(refused));
    for wanted in [0, 4] {
        let refused = Refused::Change(ChangeError::NoSignatures { wanted, keys: 3 });
        assert_eq!(lock.vote(&key(1), Change::Signatures(wanted), NOW), Err(refused));
    }
    let refused = Refused::Change(ChangeError::IsSignatures(3));
    assert_eq!(lock.vote(&key(1), Change::Signatures(3), NOW), Err(refused));
}

#[test]
fn who_sends_rubbish_is_not_listened_to_for_long() {
    let mut lock = lock(&[1, 2], 1);
    let good = lock.vote(&key(1), add(3), NOW).unwrap();
    let forged = {
        let mut bytes = good.bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    for rubbish in [forged, vec![7; 300]] {
        let many = std::iter::repeat_n(rubbish.as_slice(), 1_000);
        let outcome = lock.take(many.chain([good.bytes()]), NOW, SKEW);
        assert!(
            outcome.new.is_empty() && outcome.refused.len() < 20,
            "{}",
            outcome.refused.len()
        );
    }
    assert_eq!(give(&mut lock, good.bytes()), Ok(true));
}

#[test]
fn what_cannot_be_changed_is_refused_with_its_reason() {
    let lock = lock(&[1, 2], 2);
    let node = |seed: u8| key(seed).node_id();
    for (change, why) in [
        (add(2), ChangeError::IsKey(node(2))),
        (remove(3), ChangeError::IsNoKey(node(3))),
        (remove(2), ChangeError::TooFewKeys(2)),
        (Change::Quorum(3), ChangeError::NoQuorum { wanted: 3, keys: 2 }),
        (Change::Quorum(0), ChangeError::NoQuorum { wanted: 0, keys: 2 }),
        (Change::Quorum(2), ChangeError::IsQuorum(2)),
        (
            Change::Rotate {
                from: node(1),
                to: node(2),
            },
            ChangeError::IsKey(node(2)),
        ),
        (
            Change::Rotate {
                from: node(1),
                to: node(1),
            },
            ChangeError::IsKey(node(1)),
        ),
    ] {
        assert_eq!(lock.vote(&key(1), change, NOW), Err(Refused::Change(why)));
        let forced = vote_at(1, lock.last().unwrap(), change, 0);
        assert_eq!(give(&mut lock.clone(), forced.bytes()), Err(Refused::Change(why)));
    }
}

#[test]
fn there_are_no_more_keys_than_a_lock_may_have() {
    let seeds: Vec<u8> = (1..=64).collect();
    let lock = lock(&seeds, 1);
    let refused = Refused::Change(ChangeError::TooManyKeys);
    assert_eq!(lock.vote(&key(65), add(66), NOW), Err(refused.clone()));
    assert_eq!(lock.vote(&key(1), add(66), NOW), Err(refused));
    assert!(genesis(&seeds, 64).bytes().len() <= MAX_STATEMENT_BYTES);
}

#[test]
fn the_votes_of_strangers_and_of_removed_keys_do_not_count() {
    let mut lock = lock(&[1, 2, 3], 2);
    let stranger = vote_at(9, lock.last().unwrap(), add(9), 0);
    assert_eq!(
        give(&mut lock, stranger.bytes()),
        Err(Refused::NotAKey(key(9).node_id()))
    );
    vote(&mut lock, 1, remove(3)).unwrap();
    vote(&mut lock, 2, remove(3)).unwrap();
    assert_eq!(trusted(&lock), [1, 2]);
    let late = vote_at(3, lock.last().unwrap(), add(9), 7);
    assert_eq!(give(&mut lock, late.bytes()), Err(Refused::NotAKey(key(3).node_id())));
}

#[test]
fn a_rotated_key_hands_its_place_over() {
    let mut lock = lock(&[1, 2], 2);
    let rotate = Change::Rotate {
        from: key(1).node_id(),
        to: key(7).node_id(),
    };
    vote(&mut lock, 1, rotate).unwrap();
    vote(&mut lock, 2, rotate).unwrap();
    assert_eq!(trusted(&lock), [2, 7]);
}

#[test]
fn nothing_altered_and_nothing_of_another_network_is_taken() {
    let first = genesis(&[1, 2], 1);
    let mut empty = Lock::new(key(9).network_id());
    assert_eq!(give(&mut empty, first.bytes()), Err(Refused::WrongNetwork(network())));
    let mut lock = lock(&[1, 2], 1);
    let vote = lock.vote(&key(1), add(3), NOW).unwrap();
    for at in 0..vote.bytes().len() {
        let mut bytes = vote.bytes().to_vec();
        bytes[at] ^= 1;
        assert!(give(&mut lock, &bytes).is_err(), "byte {at}");
    }
    assert_eq!(
        give(&mut lock, &vec![0; MAX_STATEMENT_BYTES + 1]),
        Err(Refused::TooLarge)
    );
    assert_eq!(trusted(&lock), [1, 2]);
}

#[test]
fn a_second_genesis_by_a_stolen_network_key_is_refused_by_who_has_one() {
    let mut lock = lock(&[1, 2, 3], 2);
    let before = lock.head();
    let other = genesis(&[9], 1);
    assert_eq!(
        give(&mut lock, other.bytes()),
        Err(Refused::OtherGenesis(other.terms.id()))
    );
    assert_eq!(give(&mut lock, genesis(&[1, 2, 3], 2).bytes()), Ok(false));
    assert_eq!(lock.head(), before);
}

#[test]
fn a_genesis_that_could_lock_everybody_out_cannot_be_signed() {
    let good = genesis(&[1, 2], 2).terms;
    let broken = [
        Terms {
            quorum: 3,
            ..good.clone()
        },
        Terms {
            quorum: 0,
            ..good.clone()
        },
        Terms {
            keys: Default::default(),
            quorum: 0,
            ..good.clone()
        },
        Terms {
            recovery: Default::default(),
            ..good.clone()
        },
        Terms {
            generation: 1,
            ..good.clone()
        },
        Terms {
            signatures: 3,
            ..good.clone()
        },
        Terms {
            signatures: 0,
            ..good.clone()
        },
    ];
    for terms in broken {
        assert!(matches!(
            Opening::sign(terms, &network_key()),
            Err(Refused::Malformed(_))
        ));
    }
    assert!(matches!(Opening::sign(good, &key(1)), Err(Refused::Malformed(_))));
}

#[test]
fn one_key_cannot_fill_the_log_with_proposals() {
    let mut lock = lock(&[1, 2, 3], 2);
    let parent = lock.last().unwrap();
    for number in 0..200_u32 {
        let change = Change::Add(Keypair::from_seed([200 + (number % 50) as u8; 32]).node_id());
        let change = if number < 50 {
            change
        } else {
            Change::Add(dawn_identity::NodeId::from_bytes([number as u8; 32]))
        };
        let _ = give(&mut lock, vote_at(1, parent, change, number).bytes());
    }
    assert_eq!(lock.proposals().len(), MAX_VOTES_OF_KEY);
    vote(&mut lock, 2, remove(1)).unwrap();
    vote(&mut lock, 3, remove(1)).unwrap();
    assert_eq!(trusted(&lock), [2, 3], "the others go on");
}

#[test]
fn what_is_kept_comes_back_the_same() {
    let mut lock = lock(&[1, 2, 3], 2);
    for (voter, change) in [
        (1, add(4)),
        (2, add(4)),
        (3, remove(1)),
        (4, remove(1)),
        (2, Change::Quorum(1)),
    ] {
        vote(&mut lock, voter, change).unwrap();
    }
    let kept = lock.statements();
    let (read, refused) = Lock::load(network(), kept.iter().map(|bytes| &bytes[..]));
    assert_eq!(refused, []);
    assert_eq!(read.head(), lock.head());
    assert_eq!(read.state(), lock.state());
    assert_eq!(read.proposals(), lock.proposals());
    assert_eq!(read.log(), lock.log());
}

#[test]
fn who_lacks_the_last_statements_gets_those_alone() {
    let mut ahead = lock(&[1, 2, 3], 2);
    let behind = ahead.clone();
    vote(&mut ahead, 1, add(4)).unwrap();
    vote(&mut ahead, 2, add(4)).unwrap();
    let news = ahead.since(&behind.head()).unwrap();
    assert_eq!(news.len(), 2);
    let mut caught_up = behind;
    caught_up.take(news.iter().map(|bytes| &bytes[..]), NOW, SKEW);
    assert_eq!(caught_up.head(), ahead.head());
    assert_eq!(ahead.since(&caught_up.head()), None);
    assert_eq!(
        ahead.since(&[0; 32]).unwrap().len(),
        3,
        "who is unknown gets everything"
    );
}
