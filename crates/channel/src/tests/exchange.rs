//! The key exchange: both have the same key, or neither has one.

use ciborium::Value;
use coset::cwt::{ClaimName, ClaimsSet};
use dawn_identity::statement::{self, Kind, Signed};
use proptest::prelude::*;

use super::*;
use crate::claims;
use crate::exchange::*;

const REQUEST: &str = "application/dawn-key-request+cwt";
const ACCEPTANCE: &str = "application/dawn-key-acceptance+cwt";
const CONFIRMATION: &str = "application/dawn-key-confirmation+cwt";
const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn offer() -> Offer {
    Offer {
        network: network(),
        peer: node(2),
        deadline: NOW + MINUTE * 10,
        key_expires: NOW + DAY * 30,
    }
}

pub(super) fn begin(former: Option<SharedKey>) -> Requester {
    Requester::begin(&identity(1), offer(), former, NOW, &mut rng(1)).unwrap()
}

pub(super) fn accept(request: &[u8], former: Option<&SharedKey>, seed: u64) -> Result<Acceptor, ExchangeError> {
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
    // Later than the requester wants, it never ends.
    let request = KeyRequest::read(begin(None).request().bytes(), &network(), &node(2), NOW, SKEW).unwrap();
    let late = Acceptor::accept(&identity(2), request, None, NOW + DAY * 40, NOW, &mut rng(2)).unwrap();
    let read = begin(None).read(&identity(1), late.acceptance(), NOW, SKEW);
    assert_eq!(read.unwrap().0.expires(), offer().key_expires);
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

/// A change to the claims of a statement.
type Lie = fn(&mut ClaimsSet);

/// The statement that node `signer` would sign with these claims changed.
fn lied(kind: &'static str, genuine: &[u8], signer: u8, lie: Lie) -> Vec<u8> {
    let kind = Kind::new(kind);
    let (_, mut set) = Signed::parse(kind, genuine).unwrap();
    lie(&mut set);
    Signed::sign(kind, set, &identity(signer)).unwrap().bytes().to_vec()
}

fn set_private(set: &mut ClaimsSet, label: i64, value: Value) {
    let place = set
        .rest
        .iter()
        .position(|(name, _)| *name == ClaimName::PrivateUse(label));
    set.rest[place.unwrap()].1 = value;
}

fn until(set: &mut ClaimsSet, end: UnixTime) {
    set_private(set, claims::KEY_EXPIRES, Value::from(end.0));
}

#[test]
fn a_peer_that_lies_in_its_acceptance_gets_no_key() {
    let requester = begin(None);
    let acceptor = accept(requester.request().bytes(), None, 2).unwrap();
    let read = |signer, lie| {
        let acceptance = lied(ACCEPTANCE, acceptor.acceptance(), signer, lie);
        requester.read(&identity(1), &acceptance, NOW, SKEW).map(|_| ())
    };
    assert_eq!(read(2, |_| {}), Ok(()));
    assert_eq!(read(3, |_| {}), Err(ExchangeError::BadSignature));
    let from_another: Lie = |set| set.issuer = Some(node(3).to_string());
    assert_eq!(read(3, from_another), Err(ExchangeError::WrongPeer(node(3))));
    let to_another: Lie = |set| set.subject = Some(node(3).to_string());
    assert_eq!(read(2, to_another), Err(ExchangeError::NotForThisNode(node(3))));
    let elsewhere: Lie = |set| set.audience = Some(identity(201).network_id().to_string());
    assert_eq!(read(2, elsewhere), Err(ExchangeError::WrongNetwork));
    let another: Lie = |set| set.cwt_id = Some(vec![0; 16]);
    assert_eq!(read(2, another), Err(ExchangeError::WrongExchange));
    let to_nothing: Lie = |set| set_private(set, claims::ANSWERS, Value::Bytes(vec![0; 32]));
    assert_eq!(read(2, to_nothing), Err(ExchangeError::WrongExchange));
    let longer: Lie = |set| until(set, offer().key_expires + SECOND);
    assert_eq!(read(2, longer), Err(ExchangeError::WrongTimes));
    assert_eq!(read(2, |set| until(set, NOW)), Err(ExchangeError::WrongTimes));
    let before: Lie = |set| set.issued_at = Some(statement::date(NOW - SKEW - SECOND).unwrap());
    assert_eq!(read(2, before), Err(ExchangeError::WrongTimes));
    let future: Lie = |set| set.issued_at = Some(statement::date(NOW + SKEW + SECOND).unwrap());
    assert_eq!(read(2, future), Err(ExchangeError::FromTheFuture(NOW + SKEW + SECOND)));
    // Whoever signs without the secret of an ephemeral key shows nothing.
    let no_proof: Lie = |set| set_private(set, claims::PROOF, Value::Bytes(vec![0; 32]));
    assert_eq!(read(2, no_proof), Err(ExchangeError::WrongProof));
    let key_of_another: Lie = |set| set_private(set, claims::EPHEMERAL, Value::Bytes(vec![9; 32]));
    assert_eq!(read(2, key_of_another), Err(ExchangeError::WrongProof));
    assert_eq!(
        read(2, |set| until(set, NOW + DAY)),
        Err(ExchangeError::WrongProof),
        "times are proven too"
    );
    let small: Lie = |set| set_private(set, claims::EPHEMERAL, Value::Bytes(vec![0; 32]));
    assert_eq!(read(2, small), Err(ExchangeError::NoAgreement));
}

#[test]
fn a_peer_that_lies_in_its_confirmation_gets_no_key() {
    let requester = begin(None);
    let acceptor = accept(requester.request().bytes(), None, 2).unwrap();
    let (_, confirmation) = requester.read(&identity(1), acceptor.acceptance(), NOW, SKEW).unwrap();
    let read = |signer, lie| {
        let confirmation = lied(CONFIRMATION, &confirmation, signer, lie);
        acceptor.read(&confirmation, NOW, SKEW).map(|_| ())
    };
    assert_eq!(read(1, |_| {}), Ok(()));
    assert_eq!(read(3, |_| {}), Err(ExchangeError::BadSignature));
    let from_another: Lie = |set| set.issuer = Some(node(3).to_string());
    assert_eq!(read(3, from_another), Err(ExchangeError::WrongPeer(node(3))));
    let to_another: Lie = |set| set.subject = Some(node(3).to_string());
    assert_eq!(read(1, to_another), Err(ExchangeError::NotForThisNode(node(3))));
    let elsewhere: Lie = |set| set.audience = Some(identity(201).network_id().to_string());
    assert_eq!(read(1, elsewhere), Err(ExchangeError::WrongNetwork));
    let to_nothing: Lie = |set| set_private(set, claims::ANSWERS, Value::Bytes(vec![0; 32]));
    assert_eq!(read(1, to_nothing), Err(ExchangeError::WrongExchange));
    let no_proof: Lie = |set| set_private(set, claims::PROOF, Value::Bytes(vec![0; 32]));
    assert_eq!(read(1, no_proof), Err(ExchangeError::WrongProof));
    // The acceptor's own proof is none of the requester's.
    let (_, set) = Signed::parse(Kind::new(ACCEPTANCE), acceptor.acceptance()).unwrap();
    let proof = statement::claims::private(&set, claims::PROOF).unwrap().clone();
    let (_, mut set) = Signed::parse(Kind::new(CONFIRMATION), &confirmation).unwrap();
    set_private(&mut set, claims::PROOF, proof);
    let reflected = Signed::sign(Kind::new(CONFIRMATION), set, &identity(1)).unwrap();
    assert_eq!(
        acceptor.read(reflected.bytes(), NOW, SKEW),
        Err(ExchangeError::WrongProof)
    );
}

#[test]
fn a_request_that_makes_no_sense_is_not_read() {
    let genuine = begin(None).request().bytes().to_vec();
    let read = |signer, lie| {
        let request = lied(REQUEST, &genuine, signer, lie);
        KeyRequest::read(&request, &network(), &node(2), NOW, SKEW).map(|_| ())
    };
    assert_eq!(read(1, |_| {}), Ok(()));
    assert_eq!(read(3, |_| {}), Err(ExchangeError::BadSignature));
    let to_itself: Lie = |set| set.issuer = Some(node(2).to_string());
    assert_eq!(read(2, to_itself), Err(ExchangeError::Oneself));
    assert_eq!(read(1, |set| until(set, NOW)), Err(ExchangeError::WrongTimes));
    // An ephemeral key of small order makes no secret.
    let small: Lie = |set| set_private(set, claims::EPHEMERAL, Value::Bytes(vec![0; 32]));
    assert_eq!(
        accept(&lied(REQUEST, &genuine, 1, small), None, 2).unwrap_err(),
        ExchangeError::NoAgreement
    );
}

#[test]
fn a_rotation_goes_on_from_the_key_of_this_peer_in_its_turn() {
    let former = agreed();
    let rotation = begin(Some(former[0].clone())).request().bytes().to_vec();
    let unknown = ExchangeError::UnknownFormerKey(former[0].id());
    // A key of that name, but of another peer, or renewed more often meanwhile.
    for change in [
        |key: &mut SharedKey| key.peer = node(3),
        |key: &mut SharedKey| key.generation += 1,
    ] {
        let mut other = former[1].clone();
        change(&mut other);
        assert_eq!(accept(&rotation, Some(&other), 2).unwrap_err(), unknown);
    }
    assert!(accept(&rotation, Some(&former[1]), 2).is_ok());
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
fn a_message_that_is_too_long_is_not_read() {
    let long = vec![0; MAX_EXCHANGE_MESSAGE_BYTES + 1];
    let requester = begin(None);
    let acceptor = accept(requester.request().bytes(), None, 2).unwrap();
    assert_eq!(accept(&long, None, 2).unwrap_err(), ExchangeError::TooLarge);
    let read = requester.read(&identity(1), &long, NOW, SKEW);
    assert_eq!(read.unwrap_err(), ExchangeError::TooLarge);
    assert_eq!(acceptor.read(&long, NOW, SKEW), Err(ExchangeError::TooLarge));
    let read = KeyRevocation::read(&long[..=MAX_KEY_REVOCATION_BYTES], &network(), NOW, SKEW);
    assert_eq!(read, Err(KeyRevocationError::TooLarge));
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
