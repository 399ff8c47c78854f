//! The key exchange: both have the same key, or neither has one.

use proptest::prelude::*;

use super::*;
use crate::exchange::*;

const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn offer() -> Offer {
    Offer {
        network: network(),
        peer: node(2),
        deadline: NOW + MINUTE * 10,
        key_expires: NOW + DAY * 30,
    }
}

fn begin(former: Option<SharedKey>) -> Requester {
    Requester::begin(&identity(1), offer(), former, NOW, &mut rng(1)).unwrap()
}

fn accept(request: &[u8], former: Option<&SharedKey>, seed: u64) -> Result<Acceptor, ExchangeError> {
    let request = KeyRequest::read(request, &network(), &node(2), NOW, SKEW)?;
    Acceptor::accept(&identity(2), request, former, NOW + DAY * 20, NOW, &mut rng(seed))
}

/// An exchange of nodes 1 and 2 whose messages pass through `alter`, with the number of each. Both keys.
pub(super) fn exchange(
    former: Option<&[SharedKey; 2]>,
    mut alter: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Result<[SharedKey; 2], ExchangeError> {
    let requester = begin(former.map(|former| former[0].clone()));
    let request = alter(0, requester.request().bytes().to_vec());
    let acceptor = accept(&request, former.map(|former| &former[1]), 2)?;
    let acceptance = alter(1, acceptor.acceptance().to_vec());
    let (ours, confirmation) = requester.read(&identity(1), &acceptance, NOW, SKEW)?;
    let theirs = acceptor.read(&alter(2, confirmation), NOW, SKEW)?;
    Ok([ours, theirs])
}

/// The same key, as each of the two has it.
pub(super) fn same([ours, theirs]: &[SharedKey; 2]) -> bool {
    assert_eq!((ours.peer(), theirs.peer()), (node(2), node(1)));
    let all_but_peer = |key: &SharedKey| {
        let bytes = key.to_bytes();
        [&bytes[..17], &bytes[49..]].concat()
    };
    all_but_peer(ours) == all_but_peer(theirs)
}

pub(super) fn agreed() -> [SharedKey; 2] {
    exchange(None, |_, message| message).unwrap()
}

pub(super) fn pre_shared() -> [SharedKey; 2] {
    let key = |local, peer| {
        let secret = b"32 bytes that nobody else knows.";
        SharedKey::pre_shared(secret, &network(), &node(local), &node(peer), NOW, NOW + DAY).unwrap()
    };
    [key(1, 2), key(2, 1)]
}

#[test]
fn two_nodes_agree_on_a_key() {
    let keys = agreed();
    assert!(same(&keys));
    assert_eq!((keys[0].created(), keys[0].generation()), (NOW, 1));
    // The acceptor wanted it to end sooner.
    assert_eq!(keys[0].expires(), NOW + DAY * 20);
    let other = exchange(None, |_, message| message).unwrap();
    assert_eq!(other[0], keys[0], "the same randomness makes the same key");
}

#[test]
fn each_exchange_makes_another_key() {
    let requester = begin(None);
    let keys: Vec<_> = (2..4)
        .map(|seed| {
            let acceptor = accept(requester.request().bytes(), None, seed).unwrap();
            requester
                .read(&identity(1), acceptor.acceptance(), NOW, SKEW)
                .unwrap()
                .0
        })
        .collect();
    assert_ne!(keys[0].id(), keys[1].id());
    assert_ne!(keys[0].key, keys[1].key);
}

#[test]
fn a_rotation_needs_the_former_key_at_both_ends() {
    let former = agreed();
    let keys = exchange(Some(&former), |_, message| message).unwrap();
    assert!(same(&keys));
    assert_eq!(keys[0].generation(), 2);
    assert_ne!(keys[0].id(), former[0].id());
    // The same exchange without the former key would be another key: it is mixed in.
    assert_ne!(keys[0].key, agreed()[0].key);
    let requester = begin(Some(former[0].clone()));
    let unknown = ExchangeError::UnknownFormerKey(former[0].id());
    let request = requester.request().bytes();
    assert_eq!(accept(request, None, 2).unwrap_err(), unknown);
    assert_eq!(accept(request, Some(&keys[1]), 2).unwrap_err(), unknown);
    // A former key of the same name and of other bytes makes no agreement.
    let mut wrong = former[1].clone();
    wrong.key[0] ^= 1;
    let acceptor = accept(request, Some(&wrong), 2).unwrap();
    let refused = requester.read(&identity(1), acceptor.acceptance(), NOW, SKEW);
    assert_eq!(refused.unwrap_err(), ExchangeError::WrongProof);
}

#[test]
fn a_pre_shared_key_is_the_same_at_both_ends_and_can_be_rotated() {
    let keys = pre_shared();
    assert!(same(&keys));
    assert_eq!(keys[0].generation(), 0);
    let rotated = exchange(Some(&keys), |_, message| message).unwrap();
    assert!(same(&rotated));
    assert_eq!(rotated[0].generation(), 1);
    let with = |secret: &[u8], network, local, peer| {
        SharedKey::pre_shared(secret, &network, &node(local), &node(peer), NOW, NOW + DAY)
    };
    let secret = &b"32 bytes that nobody else knows."[..];
    let other_network = with(secret, identity(201).network_id(), 1, 2).unwrap();
    let other_peer = with(secret, network(), 1, 3).unwrap();
    for other in [other_network, other_peer] {
        assert_ne!((other.id(), &other.key), (keys[0].id(), &keys[0].key));
    }
    assert_eq!(with(&secret[..15], network(), 1, 2), Err(SharedKeyError::TooShort));
    assert_eq!(with(secret, network(), 1, 1), Err(SharedKeyError::Oneself));
    let never = SharedKey::pre_shared(secret, &network(), &node(1), &node(2), NOW, NOW);
    assert_eq!(never, Err(SharedKeyError::NeverValid));
}

#[test]
fn any_flipped_bit_in_an_exchange_ends_it() {
    let requester = begin(None);
    let request = requester.request().bytes();
    let acceptor = accept(request, None, 2).unwrap();
    let acceptance = acceptor.acceptance();
    let (_, confirmation) = requester.read(&identity(1), acceptance, NOW, SKEW).unwrap();
    for bit in 0..request.len() * 8 {
        let read = KeyRequest::read(&flipped(request, bit), &network(), &node(2), NOW, SKEW);
        assert!(read.is_err(), "request, bit {bit}");
    }
    for bit in 0..acceptance.len() * 8 {
        let read = requester.read(&identity(1), &flipped(acceptance, bit), NOW, SKEW);
        assert!(read.is_err(), "acceptance, bit {bit}");
    }
    for bit in 0..confirmation.len() * 8 {
        let read = acceptor.read(&flipped(&confirmation, bit), NOW, SKEW);
        assert!(read.is_err(), "confirmation, bit {bit}");
    }
    assert!(acceptor.read(&confirmation, NOW, SKEW).is_ok());
}

#[test]
fn a_message_of_another_exchange_does_not_fit() {
    let (one, two) = (
        begin(None),
        Requester::begin(&identity(1), offer(), None, NOW, &mut rng(7)).unwrap(),
    );
    let acceptors = [&one, &two].map(|requester| accept(requester.request().bytes(), None, 2).unwrap());
    let refused = one.read(&identity(1), acceptors[1].acceptance(), NOW, SKEW);
    assert_eq!(refused.unwrap_err(), ExchangeError::WrongExchange);
    let (_, confirmation) = one.read(&identity(1), acceptors[0].acceptance(), NOW, SKEW).unwrap();
    assert_eq!(
        acceptors[1].read(&confirmation, NOW, SKEW).unwrap_err(),
        ExchangeError::WrongExchange
    );
    // Another acceptance of the same request.
    let again = accept(one.request().bytes(), None, 3).unwrap();
    assert_eq!(
        again.read(&confirmation, NOW, SKEW).unwrap_err(),
        ExchangeError::WrongExchange
    );
    assert!(acceptors[0].read(&confirmation, NOW, SKEW).is_ok());
    // One message is not read as another.
    assert!(accept(acceptors[0].acceptance(), None, 2).is_err());
    assert!(one.read(&identity(1), one.request().bytes(), NOW, SKEW).is_err());
}

#[test]
fn a_request_is_for_one_node_in_one_network_for_a_while() {
    let requester = begin(None);
    let bytes = requester.request().bytes();
    let read = |network, local, now| KeyRequest::read(bytes, &network, &local, now, SKEW);
    assert!(read(network(), node(2), NOW).is_ok());
    assert_eq!(
        read(network(), node(3), NOW),
        Err(ExchangeError::NotForThisNode(node(2)))
    );
    assert_eq!(
        read(identity(201).network_id(), node(2), NOW),
        Err(ExchangeError::WrongNetwork)
    );
    let late = ExchangeError::TooLate(offer().deadline);
    assert_eq!(read(network(), node(2), offer().deadline + SKEW), Err(late.clone()));
    assert_eq!(
        read(network(), node(2), NOW - SKEW - SECOND),
        Err(ExchangeError::FromTheFuture(NOW))
    );
    // So are the answers.
    let acceptor = accept(bytes, None, 2).unwrap();
    let end = offer().deadline + SKEW;
    let refused = requester.read(&identity(1), acceptor.acceptance(), end, SKEW);
    assert_eq!(refused.unwrap_err(), late);
    let (_, confirmation) = requester.read(&identity(1), acceptor.acceptance(), NOW, SKEW).unwrap();
    assert_eq!(acceptor.read(&confirmation, end, SKEW), Err(late));
}

#[test]
fn what_makes_no_sense_is_not_asked() {
    let begin = |offer, former| Requester::begin(&identity(1), offer, former, NOW, &mut rng(1)).unwrap_err();
    let oneself = Offer {
        peer: node(1),
        ..offer()
    };
    assert_eq!(begin(oneself, None), ExchangeError::Oneself);
    let over = Offer {
        deadline: NOW,
        ..offer()
    };
    assert_eq!(begin(over, None), ExchangeError::WrongTimes);
    let ended = Offer {
        key_expires: NOW,
        ..offer()
    };
    assert_eq!(begin(ended, None), ExchangeError::WrongTimes);
    let of_another = Offer {
        peer: node(3),
        ..offer()
    };
    let [former, _] = agreed();
    assert_eq!(begin(of_another, Some(former)), ExchangeError::WrongPeer(node(2)));
    let request = KeyRequest::read(
        super::exchange::begin(None).request().bytes(),
        &network(),
        &node(2),
        NOW,
        SKEW,
    )
    .unwrap();
    let ended = Acceptor::accept(&identity(2), request.clone(), None, NOW, NOW, &mut rng(2));
    assert_eq!(ended.unwrap_err(), ExchangeError::WrongTimes);
    let another = Acceptor::accept(&identity(3), request, None, NOW + DAY, NOW, &mut rng(2));
    assert_eq!(another.unwrap_err(), ExchangeError::NotForThisNode(node(2)));
}

#[test]
fn either_of_the_two_can_revoke_a_key_and_nobody_else() {
    let [ours, theirs] = agreed();
    for (issuer, counts) in [(1, true), (2, true), (3, false)] {
        let made = KeyRevocation::sign(&identity(issuer), &network(), ours.id(), NOW).unwrap();
        let read = KeyRevocation::read(made.bytes(), &network(), NOW, SKEW).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.revokes(&ours, &node(1)), counts);
        assert_eq!(read.revokes(&theirs, &node(2)), counts);
        assert!(!read.revokes(&pre_shared()[0], &node(1)));
        for bit in 0..made.bytes().len() * 8 {
            let read = KeyRevocation::read(&flipped(made.bytes(), bit), &network(), NOW, SKEW);
            assert!(read.is_err(), "bit {bit}");
        }
    }
    let made = KeyRevocation::sign(&identity(1), &network(), ours.id(), NOW).unwrap();
    let read = |network, now| KeyRevocation::read(made.bytes(), &network, now, SKEW).unwrap_err();
    assert_eq!(read(identity(201).network_id(), NOW), KeyRevocationError::WrongNetwork);
    assert_eq!(
        read(network(), NOW - SKEW - SECOND),
        KeyRevocationError::FromTheFuture(NOW)
    );
}

#[test]
fn a_key_is_not_printed_and_comes_back_from_where_it_was_kept() {
    let [key, _] = agreed();
    let kept = key.to_bytes();
    assert_eq!(SharedKey::from_bytes(&kept), Ok(key.clone()));
    assert_eq!(key.id().to_string().parse(), Ok(key.id()));
    for wrong in [&kept[1..], &kept[..kept.len() - 1], &[], &[2; 77]] {
        assert_eq!(SharedKey::from_bytes(wrong), Err(SharedKeyError::Malformed));
    }
    let shown = format!("{key:?} {:?}", begin(Some(key.clone())));
    let secret: Vec<String> = key.key.iter().take(4).map(u8::to_string).collect();
    assert!(!shown.contains(&secret.join(", ")));
    assert!("+123456789012345678901234567890".parse::<KeyId>().is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_an_exchange_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let requester = begin(None);
        prop_assert!(KeyRequest::read(&bytes, &network(), &node(2), NOW, SKEW).is_err());
        prop_assert!(requester.read(&identity(1), &bytes, NOW, SKEW).is_err());
        prop_assert!(accept(requester.request().bytes(), None, 2).unwrap().read(&bytes, NOW, SKEW).is_err());
        prop_assert!(KeyRevocation::read(&bytes, &network(), NOW, SKEW).is_err());
        drop(SharedKey::from_bytes(&bytes));
    }
}
