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
            [key(7).node_id()].into(),
            1,
            [secret(4).key(&network()).node_id()].into(),
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
        ("endorsement_member", Statement::Endorsement(endorse(member))),
        (
            "endorsement_issuer",
            Statement::Endorsement(endorse(Subject::Issuer(node(40)))),
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
fn one_kind_of_statement_is_not_read_as_another() {
    let keys = [1, 2];
    let root = genesis(&keys, 1).terms.id();
    let vote = vote_at(1, root, add(3), 0);
    assert!(matches!(Statement::decode(vote.bytes()), Ok(Statement::Vote(_))));
    assert!(Opening::decode(vote.bytes()).is_err());
    assert!(Endorsement::decode(vote.bytes()).is_err());
}
