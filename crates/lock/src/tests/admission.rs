//! Who is admitted, and by whose word.

use dawn_identity::NodeName;

use super::*;

fn endorsed(lock: &mut Lock, by: u8, member: &Membership, at: UnixTime) -> Result<bool, Refused> {
    let subject = Subject::Member {
        node: member.node,
        name: member.name.clone(),
        roles: member.roles,
    };
    let endorsement = Endorsement::sign(&key(by), network(), subject, at).unwrap();
    give(lock, endorsement.bytes())
}

#[test]
fn without_a_lock_everybody_with_a_certificate_is_in() {
    assert_eq!(
        Lock::new(network()).admits(&member(30, Role::Member, NOW, None)),
        Ok(())
    );
}

#[test]
fn a_certificate_by_the_network_key_or_by_an_admin_without_a_lock_key_is_not_enough() {
    let lock = lock(&[1, 2], 1);
    for issuer in [None, Some(40)] {
        assert_eq!(lock.admits(&member(30, Role::Member, NOW, issuer)), Err(Why::NotSigned));
    }
    assert_eq!(
        lock.admits(&member(1, Role::Admin, NOW, None)),
        Ok(()),
        "a lock key stands for itself"
    );
    assert_eq!(
        lock.admits(&member(30, Role::Member, NOW, Some(2))),
        Ok(()),
        "and for whom it admits"
    );
}

#[test]
fn an_endorsement_covers_one_admission_under_one_name_with_no_more_roles() {
    let mut lock = lock(&[1, 2], 1);
    let guest = member(30, Role::Guest, NOW, None);
    assert_eq!(endorsed(&mut lock, 1, &guest, NOW), Ok(true));
    assert_eq!(lock.admits(&guest), Ok(()));
    let renewed = Membership {
        issuer: Some(key(40).node_id()),
        expires: guest.expires + Duration::from_secs(9),
        ..guest.clone()
    };
    assert_eq!(lock.admits(&renewed), Ok(()), "whoever renews it");
    let other = Err(Why::OtherTerms(key(1).node_id()));
    let admin = member(30, Role::Admin, NOW, None);
    assert_eq!(lock.admits(&admin), other);
    let later = Membership {
        admitted_at: UnixTime(NOW.0 + 1),
        ..guest.clone()
    };
    assert_eq!(lock.admits(&later), other, "who was put out does not come back by it");
    let named: NodeName = "files".parse().unwrap();
    assert_eq!(lock.admits(&Membership { name: named, ..guest }), other);
}

#[test]
fn what_a_removed_key_stood_for_counts_no_more() {
    let mut lock = lock(&[1, 2, 3], 2);
    let (signed, issued) = (
        member(30, Role::Member, NOW, None),
        member(31, Role::Member, NOW, Some(3)),
    );
    endorsed(&mut lock, 3, &signed, NOW).unwrap();
    assert_eq!((lock.admits(&signed), lock.admits(&issued)), (Ok(()), Ok(())));
    let after = lock.state().unwrap().with(&remove(3)).unwrap();
    assert!(!lock.admits_at(&after, &signed) && !lock.admits_at(&after, &issued));
    vote(&mut lock, 1, remove(3)).unwrap();
    vote(&mut lock, 2, remove(3)).unwrap();
    assert_eq!(lock.admits(&signed), Err(Why::KeyGone(key(3).node_id())));
    assert_eq!(lock.admits(&issued), Err(Why::NotSigned));
    endorsed(&mut lock, 1, &signed, NOW).unwrap();
    assert_eq!(lock.admits(&signed), Ok(()));
}

#[test]
fn an_endorsed_admin_admits_and_its_endorsement_is_its_own() {
    let mut lock = lock(&[1, 2], 1);
    let issuer = Endorsement::sign(&key(1), network(), Subject::Issuer(key(40).node_id()), NOW).unwrap();
    give(&mut lock, issuer.bytes()).unwrap();
    assert_eq!(lock.admits(&member(30, Role::Member, NOW, Some(40))), Ok(()));
    assert_eq!(
        lock.admits(&member(30, Role::Member, NOW, Some(41))),
        Err(Why::NotSigned)
    );
    assert_eq!(
        lock.admits(&member(40, Role::Admin, NOW, None)),
        Err(Why::NotSigned),
        "it is not let in itself by that"
    );
}

#[test]
fn a_member_needs_as_many_keys_as_the_lock_says_and_each_counts_once() {
    let mut lock = Lock::new(network());
    give(&mut lock, genesis_with(&[1, 2, 3], 2, 2).bytes()).unwrap();
    let guest = member(30, Role::Guest, NOW, None);
    let few = Err(Why::TooFew { have: 1, needed: 2 });
    endorsed(&mut lock, 1, &guest, NOW).unwrap();
    assert_eq!(lock.admits(&guest), few);
    endorsed(&mut lock, 1, &guest, UnixTime(NOW.0 + 1)).unwrap();
    assert_eq!(lock.admits(&guest), few, "a key signs as often as it likes");
    endorsed(&mut lock, 2, &guest, NOW).unwrap();
    assert_eq!(lock.admits(&guest), Ok(()));
    // Who issued it stands behind it, and signs for it to no further effect.
    let issued = member(31, Role::Guest, NOW, Some(1));
    assert_eq!(lock.admits(&issued), few);
    endorsed(&mut lock, 1, &issued, NOW).unwrap();
    assert_eq!(lock.admits(&issued), few);
    endorsed(&mut lock, 3, &issued, NOW).unwrap();
    assert_eq!(lock.admits(&issued), Ok(()));
    // A key that goes takes its signature along.
    for voter in [1, 2] {
        vote(&mut lock, voter, remove(3)).unwrap();
    }
    assert_eq!((lock.admits(&issued), lock.admits(&guest)), (few, Ok(())));
    assert_eq!(
        lock.admits(&member(1, Role::Admin, NOW, None)),
        Ok(()),
        "the keys admitted it together"
    );
}

#[test]
fn one_key_signs_for_an_admin_and_another_for_whom_it_admits() {
    let mut lock = Lock::new(network());
    give(&mut lock, genesis_with(&[1, 2, 3], 2, 2).bytes()).unwrap();
    let issuer = Endorsement::sign(&key(1), network(), Subject::Issuer(key(40).node_id()), NOW).unwrap();
    give(&mut lock, issuer.bytes()).unwrap();
    let guest = member(30, Role::Guest, NOW, Some(40));
    assert_eq!(lock.admits(&guest), Err(Why::TooFew { have: 1, needed: 2 }));
    endorsed(&mut lock, 2, &guest, NOW).unwrap();
    assert_eq!(lock.admits(&guest), Ok(()));
}

#[test]
fn who_signed_for_an_admin_takes_it_back() {
    let mut lock = lock(&[1, 2], 1);
    let admin = key(40).node_id();
    let guest = member(30, Role::Member, NOW, Some(40));
    let mut sign = |subject: Subject, at: u64| {
        let signed = Endorsement::sign(&key(1), network(), subject, UnixTime(NOW.0 + at)).unwrap();
        give(&mut lock, signed.bytes()).unwrap();
        lock.admits(&guest)
    };
    assert_eq!(sign(Subject::Issuer(admin), 0), Ok(()));
    assert_eq!(
        sign(Subject::NoIssuer(admin), 1),
        Err(Why::OtherTerms(key(1).node_id()))
    );
    assert!(
        sign(Subject::Issuer(admin), 0).is_err(),
        "the former signature does not come back"
    );
    assert_eq!(sign(Subject::Issuer(admin), 2), Ok(()));
}

#[test]
fn fewer_keys_than_the_quorum_never_take_all_the_room_for_signatures() {
    let mut lock = lock(&[1, 2, 3], 2);
    let somebody = |number: u32| {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Subject::Member {
            node: Keypair::from_seed(seed).node_id(),
            name: "somebody".parse().unwrap(),
            roles: Roles::from(Role::Member),
        }
    };
    let signed = |by: u8, number: u32| {
        let endorsement = Endorsement::sign(&key(by), network(), somebody(number), NOW).unwrap();
        endorsement.bytes().to_vec()
    };
    let all: Vec<Vec<u8>> = (0..2_000).map(|number| signed(1, number)).collect();
    let outcome = lock.take(all.iter().map(Vec::as_slice), NOW, SKEW);
    assert!(outcome.refused.iter().all(|refused| *refused == Refused::Full) && !outcome.refused.is_empty());
    assert_eq!(give(&mut lock, &signed(2, 5_000)), Ok(true));
    // When it is no key any more there is room for what the others sign, also while its vote could still matter.
    for voter in [2, 3] {
        vote(&mut lock, voter, remove(1)).unwrap();
    }
    let rest: Vec<Vec<u8>> = (10_000..11_000)
        .map(|number| signed(if number % 2 == 0 { 2 } else { 3 }, number))
        .collect();
    let outcome = lock.take(rest.iter().map(Vec::as_slice), NOW, SKEW);
    assert_eq!((outcome.new.len(), outcome.refused), (1_000, vec![]));
}

#[test]
fn strangers_endorse_nobody_and_nobody_endorses_the_future() {
    let mut lock = lock(&[1, 2], 1);
    let guest = member(30, Role::Guest, NOW, None);
    assert_eq!(
        endorsed(&mut lock, 9, &guest, NOW),
        Err(Refused::NotAKey(key(9).node_id()))
    );
    let future = NOW + SKEW + Duration::from_secs(1);
    assert_eq!(
        endorsed(&mut lock, 1, &guest, future),
        Err(Refused::FromTheFuture(future))
    );
    assert_eq!(lock.admits(&guest), Err(Why::NotSigned));
}

#[test]
fn the_last_endorsement_of_a_key_for_a_node_is_the_one_that_is_kept() {
    let mut lock = lock(&[1, 2], 1);
    let (guest, admin) = (member(30, Role::Guest, NOW, None), member(30, Role::Admin, NOW, None));
    assert_eq!(endorsed(&mut lock, 1, &admin, UnixTime(NOW.0 + 5)), Ok(true));
    assert_eq!(endorsed(&mut lock, 1, &guest, NOW), Ok(false));
    assert_eq!(lock.endorsements().count(), 1);
    assert_eq!(lock.admits(&admin), Ok(()));
}
