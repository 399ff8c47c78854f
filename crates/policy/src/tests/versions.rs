//! Signed versions, and which of them count.

use std::time::Duration;

use data_encoding::HEXLOWER;
use dawn_identity::{
    Authority, CertificateChain, Keypair, NetworkId, NodeId, Request, Revocations, Role, Roles, Serial, UnixTime,
};
use proptest::prelude::*;

use crate::{Author, Log, LogError, Policy, SignedError, SignedPolicy, Taken};

const NOW: UnixTime = UnixTime(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const SKEW: Duration = Duration::from_secs(300);
const EMPTY: &str = "";
const BY_MEMBERS: &str = "[[allow]]\nname = \"all may\"\nwho = [\"role:member\"]\nwhat = [\"administer policy\"]\n";
const NOT_BY_ADMINS: &str = "[[deny]]\nname = \"owner only\"\nwho = [\"role:admin\"]\nwhat = [\"administer policy\"]\n";

fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn root() -> Keypair {
    key(200)
}

fn network() -> NetworkId {
    root().network_id()
}

fn chain(seed: u8, role: Role) -> CertificateChain {
    let request = Request {
        subject: key(seed).node_id(),
        name: format!("node-{seed}").parse().unwrap(),
        roles: Roles::from(role),
        admitted_at: NOW - HOUR,
        not_before: NOW - HOUR,
        expires: NOW + HOUR * 24,
        serial: Serial::from_bytes([seed; 16]),
    };
    Authority::Root { key: root() }.issue(request, NOW - HOUR).unwrap()
}

fn put_out(node: NodeId) -> Revocations {
    let revocation = Authority::Root { key: root() }.revoke(node, NOW).unwrap();
    [revocation.verify(&network(), NOW, SKEW).unwrap()]
        .into_iter()
        .collect()
}

/// Applies a text as the owner, or as a node with this role.
fn apply(log: &mut Log, text: &str, author: Option<(u8, Role)>) -> Result<u64, LogError> {
    let none = Revocations::new();
    let applied = match author {
        None => log.apply(text, &Author::Network(&root()), NOW, &none),
        Some((seed, role)) => log.apply(text, &Author::Member(&key(seed), &chain(seed, role)), NOW, &none),
    };
    applied.map(SignedPolicy::version)
}

fn take(log: &mut Log, bytes: &[u8]) -> Result<Taken, LogError> {
    log.take(bytes, NOW, SKEW, &Revocations::new())
}

fn log() -> Log {
    Log::new(network())
}

/// A log with the owner's first version.
fn begun(text: &str) -> Log {
    let mut log = log();
    assert_eq!(apply(&mut log, text, None), Ok(1));
    log
}

#[test]
fn the_bytes_of_signed_versions_and_heads_stay() {
    let owners = SignedPolicy::sign(&network(), (1, [0; 32]), NOW, BY_MEMBERS, &Author::Network(&root())).unwrap();
    insta::assert_snapshot!("signed_by_the_network_key", HEXLOWER.encode(&owners.encode()));
    let (member, its) = (key(1), chain(1, Role::Admin));
    let author = Author::Member(&member, &its);
    let next = SignedPolicy::sign(&network(), (2, owners.hash()), NOW, EMPTY, &author).unwrap();
    insta::assert_snapshot!("signed_by_an_admin", HEXLOWER.encode(&next.encode()));
    for signed in [owners, next] {
        assert_eq!(SignedPolicy::decode(&signed.encode()), Ok(signed));
    }
    let mut log = begun(BY_MEMBERS);
    apply(&mut log, EMPTY, Some((1, Role::Admin))).unwrap();
    insta::assert_snapshot!("log", HEXLOWER.encode(&log.encode()));
    insta::assert_snapshot!("head", HEXLOWER.encode(&log.head()));
}

#[test]
fn a_node_that_was_away_is_given_what_it_lacks_and_no_more() {
    let mut here = begun(EMPTY);
    let mut there = log();
    assert_eq!(take(&mut there, &here.since(&[]).unwrap()), Ok(Taken::New));
    for _ in 0..3 {
        apply(&mut here, BY_MEMBERS, Some((1, Role::Admin))).unwrap();
    }
    let missing = here.since(&there.head()).unwrap();
    assert!(missing.len() < here.encode().len());
    assert_eq!(take(&mut there, &missing), Ok(Taken::New));
    assert_eq!((there.head(), Log::version_of(&there.head())), (here.head(), 4));
    assert_eq!(here.since(&there.head()), None);
    assert_eq!(take(&mut there, &missing), Ok(Taken::Known));
    let kept = Log::load(network(), &there.encode()).unwrap();
    assert_eq!(kept.head(), here.head());
    assert_eq!(kept.policy(), &Policy::parse(BY_MEMBERS).unwrap());
}

#[test]
fn only_who_the_policy_in_force_lets_administer_it_signs_the_next() {
    let mut log = begun(EMPTY);
    let refused = apply(&mut log, BY_MEMBERS, Some((1, Role::Member)));
    assert!(matches!(refused, Err(LogError::NotAllowed(_))), "{refused:?}");
    assert_eq!(apply(&mut log, BY_MEMBERS, Some((2, Role::Admin))), Ok(2));
    assert_eq!(apply(&mut log, NOT_BY_ADMINS, Some((1, Role::Member))), Ok(3));
    for role in [Role::Member, Role::Admin, Role::Guest] {
        let refused = apply(&mut log, EMPTY, Some((1, role)));
        assert!(matches!(refused, Err(LogError::NotAllowed(_))), "{role}");
    }
    assert_eq!(apply(&mut log, EMPTY, None), Ok(4), "nobody locks the owner out");
    assert_eq!(
        apply(&mut log, "[[deny]]\nwho = [\"*\"]\nwhat = [\"*\"]\n", None),
        Ok(5)
    );
    assert_eq!(apply(&mut log, EMPTY, Some((3, Role::Owner))), Ok(6));
}

#[test]
fn what_a_member_without_right_signed_is_refused_by_who_receives_it() {
    let mut log = begun(EMPTY);
    let (member, its) = (key(1), chain(1, Role::Member));
    let previous = log.current().unwrap().hash();
    let signed = |version, previous, at, text, author: &Author<'_>| {
        // What an honest node would not sign.
        let signed = SignedPolicy::sign(&network(), (version, previous), at, text, author).unwrap();
        [
            &[0x81, 0x59][..],
            &u16::try_from(signed.encode().len()).unwrap().to_be_bytes(),
            &signed.encode(),
        ]
        .concat()
    };
    let by_member = Author::Member(&member, &its);
    let refused = take(&mut log, &signed(2, previous, NOW, EMPTY, &by_member)).unwrap_err();
    assert_eq!(refused.code(), "not_allowed", "{refused}");
    // A chain that is not that of who signs.
    let (other, admins) = (key(2), chain(3, Role::Admin));
    let refused = take(
        &mut log,
        &signed(2, previous, NOW, EMPTY, &Author::Member(&other, &admins)),
    )
    .unwrap_err();
    assert_eq!(refused.code(), "bad_signature");
    // Whoever else has a network key.
    let refused = take(&mut log, &signed(2, previous, NOW, EMPTY, &Author::Network(&key(9)))).unwrap_err();
    assert_eq!(refused.code(), "bad_signature");
    let (admin, its) = (key(3), chain(3, Role::Admin));
    let author = Author::Member(&admin, &its);
    for (version, previous, at, code) in [
        (3, previous, NOW, "gap"),
        (2, [7; 32], NOW, "gap"),
        (2, previous, NOW - HOUR / 2, "wrong_time"),
        (2, previous, NOW + HOUR, "wrong_time"),
        (2, previous, NOW + HOUR * 48, "no_member"),
    ] {
        let refused = take(&mut log, &signed(version, previous, at, EMPTY, &author)).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    assert_eq!(
        take(&mut log, &signed(2, previous, NOW, BY_MEMBERS, &author)),
        Ok(Taken::New)
    );
}

#[test]
fn an_older_version_is_refused_and_changes_nothing() {
    let mut log = begun(EMPTY);
    let before = log.encode();
    apply(&mut log, BY_MEMBERS, None).unwrap();
    let head = log.head();
    assert_eq!(take(&mut log, &before), Err(LogError::Older(1)));
    assert_eq!(log.head(), head);
    // Also one that says otherwise.
    let other = begun(NOT_BY_ADMINS);
    assert_eq!(take(&mut log, &other.encode()), Err(LogError::Older(1)));
}

#[test]
fn the_owners_next_word_ends_every_fork_however_long() {
    let base = begun(EMPTY);
    let mut fork = base.clone();
    for _ in 0..5 {
        apply(&mut fork, BY_MEMBERS, Some((1, Role::Admin))).unwrap();
    }
    let mut owners = base;
    apply(&mut owners, NOT_BY_ADMINS, None).unwrap();
    let word = owners.since(&fork.head()).expect("it goes before");
    assert_eq!(fork.since(&owners.head()), None);
    let mut on_fork = fork.clone();
    assert_eq!(take(&mut on_fork, &word), Ok(Taken::New));
    assert_eq!(on_fork.head(), owners.head());
    assert!(matches!(take(&mut owners, &fork.encode()), Err(LogError::Older(6))));
}

#[test]
fn of_two_versions_with_one_number_all_nodes_keep_the_same() {
    let base = begun(BY_MEMBERS);
    let (mut one, mut two) = (base.clone(), base);
    apply(&mut one, EMPTY, Some((1, Role::Admin))).unwrap();
    apply(&mut two, NOT_BY_ADMINS, Some((2, Role::Member))).unwrap();
    let (from_one, from_two) = (one.encode(), two.encode());
    let _ = take(&mut one, &from_two);
    let _ = take(&mut two, &from_one);
    assert_eq!(one.head(), two.head());
}

#[test]
fn who_was_put_out_signs_nothing_that_would_be_in_force_now_but_others_may_have_built_upon_it() {
    let mut here = begun(EMPTY);
    let mut there = here.clone();
    apply(&mut here, BY_MEMBERS, Some((1, Role::Admin))).unwrap();
    let out = put_out(key(1).node_id());
    let late = here.since(&there.head()).unwrap();
    let refused = there.take(&late, NOW, SKEW, &out).unwrap_err();
    assert_eq!(refused.code(), "author_revoked");
    apply(&mut here, NOT_BY_ADMINS, Some((2, Role::Admin))).unwrap();
    let late = here.since(&there.head()).unwrap();
    assert_eq!(there.take(&late, NOW, SKEW, &out), Ok(Taken::New));
}

#[test]
fn what_goes_before_the_last_word_of_somebody_who_is_out_is_taken() {
    let mut here = begun(NOT_BY_ADMINS);
    let first = here.head();
    let mut lenient = begun(EMPTY);
    apply(&mut lenient, BY_MEMBERS, Some((1, Role::Admin))).unwrap();
    let out = put_out(key(1).node_id());
    let mut new = log();
    assert_eq!(new.take(&lenient.encode(), NOW, SKEW, &out), Ok(Taken::New));
    assert_eq!((new.versions().count(), new.head()), (1, begun(EMPTY).head()));
    assert_eq!(new.take(&lenient.encode(), NOW, SKEW, &out), Ok(Taken::Known));
    // Nor is it anybody's fault where more is known.
    apply(&mut here, EMPTY, None).unwrap();
    assert_ne!(here.head(), first);
    assert_eq!(here.take(&lenient.encode(), NOW, SKEW, &out), Ok(Taken::Known));
}

#[test]
fn the_text_of_who_may_not_administer_is_not_even_read() {
    let mut log = begun(EMPTY);
    let previous = log.current().unwrap().hash();
    let version = |seed: u8, role: Role| {
        let claims = coset::cwt::ClaimsSetBuilder::new()
            .issuer(key(seed).node_id().to_string())
            .audience(network().to_string())
            .issued_at(dawn_identity::statement::date(NOW).unwrap())
            .private_claim(-65_560, ciborium::Value::Integer(2.into()))
            .private_claim(-65_561, ciborium::Value::Bytes(previous.to_vec()))
            .private_claim(-65_562, ciborium::Value::Text("no TOML at all".to_owned()))
            .build();
        let kind = dawn_identity::statement::Kind::new("application/dawn-policy+cwt");
        let signed = dawn_identity::statement::Signed::sign(kind, claims, &key(seed)).unwrap();
        let list = |parts: Vec<Vec<u8>>| {
            let mut bytes = Vec::new();
            let parts = parts.into_iter().map(ciborium::Value::Bytes).collect();
            ciborium::into_writer(&ciborium::Value::Array(parts), &mut bytes).unwrap();
            bytes
        };
        list(vec![list(vec![signed.bytes().to_vec(), chain(seed, role).encode()])])
    };
    assert_eq!(
        take(&mut log, &version(1, Role::Guest)).unwrap_err().code(),
        "not_allowed"
    );
    assert_eq!(take(&mut log, &version(2, Role::Admin)).unwrap_err().code(), "invalid");
}

#[test]
fn many_versions_are_kept_from_an_owners_on() {
    let mut log = begun(EMPTY);
    for _ in 0..62 {
        apply(&mut log, EMPTY, Some((1, Role::Admin))).unwrap();
    }
    assert_eq!(apply(&mut log, EMPTY, Some((1, Role::Admin))), Ok(64));
    assert_eq!(apply(&mut log, EMPTY, Some((1, Role::Admin))), Err(LogError::TooMany));
    assert_eq!(apply(&mut log, EMPTY, None), Ok(65));
    assert_eq!(log.versions().count(), 1, "what came before an owner's is not needed");
    assert_eq!(apply(&mut log, EMPTY, Some((1, Role::Admin))), Ok(66));
    let mut fresh = Log::new(network());
    assert_eq!(take(&mut fresh, &log.since(&[]).unwrap()), Ok(Taken::New));
    assert_eq!(fresh.head(), log.head());
    assert!(
        fresh.policy_at(NOW - HOUR).is_none(),
        "what held then is not known here"
    );
}

#[test]
fn what_held_at_a_time_is_known() {
    let mut log = log();
    let none = Revocations::new();
    let texts = [EMPTY, BY_MEMBERS, NOT_BY_ADMINS];
    for (at, text) in texts.into_iter().enumerate() {
        let at = NOW + HOUR * u32::try_from(at).unwrap();
        log.apply(text, &Author::Network(&root()), at, &none).unwrap();
    }
    let at = |time| log.policy_at(time).unwrap();
    assert_eq!(at(NOW - HOUR), &Policy::default());
    assert_eq!(at(NOW + HOUR), &Policy::parse(BY_MEMBERS).unwrap());
    assert_eq!(at(NOW + HOUR * 9), &Policy::parse(NOT_BY_ADMINS).unwrap());
}

#[test]
fn a_text_that_is_no_policy_is_not_signed_and_not_taken() {
    let mut log = log();
    let refused = apply(&mut log, "nonsense", None).unwrap_err();
    assert!(matches!(
        refused,
        LogError::Version {
            error: SignedError::Text(_),
            ..
        }
    ));
    assert!(log.current().is_none() && log.head().is_empty() && log.since(&[]).is_none());
}

proptest! {
    #[test]
    fn whatever_comes_is_taken_or_refused_and_an_altered_log_is_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut log = begun(EMPTY);
        let _ = take(&mut log, &bytes);
        let _ = log.since(&bytes);
        apply(&mut log, BY_MEMBERS, Some((1, Role::Admin))).unwrap();
        let mut altered = log.encode();
        let at = at.index(altered.len());
        altered[at] ^= 1 << bit;
        prop_assert!(take(&mut Log::new(network()), &altered).is_err());
    }
}
