//! Statements: none of a kind is read as one of another kind, whoever signed it.

use dawn_identity::{Authority, CertificateChain, Request, Revocation, Role, Serial};

use super::*;
use crate::exchange::{KeyRequest, KeyRevocation};

/// The head of a list of one byte string, as certificates and revocations have it.
fn listed(statement: &[u8]) -> Vec<u8> {
    let length = u16::try_from(statement.len()).unwrap().to_be_bytes();
    match length {
        [0, short] => [&[0x81, 0x58, short], statement].concat(),
        [long, rest] => [&[0x81, 0x59, long, rest], statement].concat(),
    }
}

/// The statement in such a list.
fn inner(list: &[u8]) -> Vec<u8> {
    let place = list.windows(2).position(|pair| pair == [0xd2, 0x84]).unwrap();
    list[place..].to_vec()
}

/// One of each kind, by node 1 or about it.
fn statements() -> Vec<(&'static str, Vec<u8>)> {
    let authority = Authority::Root { key: identity(1) };
    let chain = authority.issue(
        Request {
            subject: node(2),
            name: "node-2".parse().unwrap(),
            roles: Role::Member.into(),
            admitted_at: NOW,
            not_before: NOW,
            expires: NOW + DAY,
            serial: Serial::from_bytes([2; 16]),
        },
        NOW,
    );
    let revocation = authority.revoke(node(2), NOW).unwrap();
    let mut all = vec![
        ("certificate", inner(&chain.unwrap().encode())),
        ("revocation", inner(&revocation.encode())),
        ("binding", party(1).binding().encode()),
    ];
    let (_, envelope) = envelope::envelopes(b"").swap_remove(2);
    all.push(("envelope", envelope.bytes().to_vec()));
    let names = ["request", "acceptance", "confirmation"];
    let [key, _] = exchange::exchange(None, |number, message| {
        all.push((names[number], message.clone()));
        message
    })
    .unwrap();
    let revoked = KeyRevocation::sign(&identity(1), &network(), key.id(), NOW).unwrap();
    all.push(("key revocation", revoked.bytes().to_vec()));
    all
}

/// As what this statement is read, by every reader there is.
fn read_as(statement: &[u8]) -> Vec<&'static str> {
    let requester = exchange::begin(None);
    let acceptor = exchange::accept(requester.request().bytes(), None, 2).unwrap();
    let list = listed(statement);
    let readers = [
        ("certificate", CertificateChain::decode(&list).is_ok()),
        ("revocation", Revocation::decode(&list).is_ok()),
        ("binding", Binding::decode(statement).is_ok()),
        ("envelope", Envelope::decode(statement).is_ok()),
        (
            "request",
            KeyRequest::read(statement, &network(), &node(2), NOW, SKEW).is_ok(),
        ),
        ("acceptance", requester.read(&identity(1), statement, NOW, SKEW).is_ok()),
        ("confirmation", acceptor.read(statement, NOW, SKEW).is_ok()),
        (
            "key revocation",
            KeyRevocation::read(statement, &network(), NOW, SKEW).is_ok(),
        ),
    ];
    readers
        .into_iter()
        .filter(|(_, read)| *read)
        .map(|(kind, _)| kind)
        .collect()
}

#[test]
fn no_statement_is_read_as_one_of_another_kind() {
    let all = statements();
    assert_eq!(all.len(), 8);
    for (kind, statement) in all {
        assert_eq!(read_as(&statement), [kind]);
    }
}
