//! The bytes on the wire, from fixed seeds: a change of a format shows here and nowhere else.

use data_encoding::HEXLOWER;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(32)
        .map(|line| HEXLOWER.encode(line))
        .collect::<Vec<_>>()
        .join("\n")
}

fn statements() -> Vec<(&'static str, Statement)> {
    let first = genesis(&[1, 2], 2);
    let root = first.terms.id();
    let lock = lock(&[1, 2], 2);
    let next = lock
        .next_terms(
            root,
            Beginning {
                keys: [key(7).node_id()].into(),
                quorum: 1,
                signatures: 1,
                recovery: [secret(4).key(&network()).node_id()].into(),
            },
            NOW,
        )
        .unwrap();
    let node = |seed: u8| key(seed).node_id();
    let rotate = Change::Rotate {
        from: node(1),
        to: node(3),
    };
    let member = Subject::Member {
        node: node(30),
        name: "lab".parse().unwrap(),
        roles: Roles::from(Role::Member),
    };
    let endorse = |subject| Endorsement::sign(&key(1), network(), subject, NOW).unwrap();
    vec![
        ("genesis", Statement::Opening(first)),
        (
            "recovery",
            Statement::Opening(Opening::sign(next, &secret(1).key(&network())).unwrap()),
        ),
        ("vote_add", Statement::Vote(vote_at(1, root, add(3), 0))),
        ("vote_remove", Statement::Vote(vote_at(1, root, remove(2), 1))),
        ("vote_rotate", Statement::Vote(vote_at(1, root, rotate, 2))),
        ("vote_quorum", Statement::Vote(vote_at(1, root, Change::Quorum(1), 300))),
        (
            "vote_signatures",
            Statement::Vote(vote_at(1, root, Change::Signatures(2), 3)),
        ),
        ("endorsement_member", Statement::Endorsement(endorse(member))),
        (
            "endorsement_issuer",
            Statement::Endorsement(endorse(Subject::Issuer(node(40)))),
        ),
        (
            "endorsement_no_issuer",
            Statement::Endorsement(endorse(Subject::NoIssuer(node(40)))),
        ),
    ]
}

#[test]
fn statements_keep_their_bytes() {
    for (name, statement) in statements() {
        insta::assert_snapshot!(name, hex(statement.bytes()));
        assert_eq!(Statement::decode(statement.bytes()), Ok(statement));
    }
}

#[test]
fn ids_and_heads_stay_the_same() {
    let mut lock = lock(&[1, 2], 2);
    vote(&mut lock, 1, add(3)).unwrap();
    let lines = [
        lock.genesis().unwrap().to_string(),
        lock.proposals()[0].id.to_string(),
        HEXLOWER.encode(&lock.head()),
    ];
    insta::assert_snapshot!("ids_and_head", lines.join("\n"));
    assert_eq!(lines[0].parse(), Ok(lock.genesis().unwrap()));
}

#[test]
fn the_longest_votes_and_endorsements_are_read_and_what_is_padded_is_not() {
    let far = UnixTime(u64::from(u32::MAX) * 4);
    let rotate = Change::Rotate {
        from: key(1).node_id(),
        to: key(3).node_id(),
    };
    let root = genesis(&[1, 2], 1).terms.id();
    let vote = Vote::sign(&key(1), network(), root, rotate, u32::MAX, far).unwrap();
    let member = Subject::Member {
        node: key(30).node_id(),
        name: "n".repeat(32).parse().unwrap(),
        roles: Role::ALL.into_iter().collect(),
    };
    let endorsement = Endorsement::sign(&key(1), network(), member, far).unwrap();
    for bytes in [vote.bytes(), endorsement.bytes()] {
        assert!(bytes.len() <= MAX_SHORT_BYTES, "{}", bytes.len());
        assert!(Statement::decode(bytes).is_ok());
    }
    // Claims that nobody asked for are signed like any others, and would take room.
    let claims = coset::cwt::ClaimsSetBuilder::new()
        .issuer(key(1).node_id().to_string())
        .audience(network().to_string())
        .text_claim("padding".to_owned(), ciborium::Value::Text("x".repeat(MAX_SHORT_BYTES)))
        .build();
    let kind = dawn_identity::statement::Kind::new("application/dawn-lock-vote+cwt");
    let padded = dawn_identity::statement::Signed::sign(kind, claims, &key(1)).unwrap();
    assert_eq!(Statement::decode(padded.bytes()), Err(Refused::TooLarge));
}

#[test]
fn one_kind_of_statement_is_not_read_as_another() {
    let keys = [1, 2];
    let root = genesis(&keys, 1).terms.id();
    let vote = vote_at(1, root, add(3), 0);
    assert!(matches!(Statement::decode(vote.bytes()), Ok(Statement::Vote(_))));
    assert!(Opening::parse(vote.bytes()).is_err());
    assert!(Endorsement::parse(vote.bytes()).is_err());
}
