//! Entries, receipts and certificates: read or refused.

use dawn_identity::SIGNATURE_BYTES;

use super::*;

/// One of each kind.
pub(super) fn entries() -> Vec<(&'static str, Entry)> {
    let begun = open(1, Credits::whole(10));
    let held = hold(1, 1, &begun, 2, Credits::whole(3));
    let nothing = What::Close {
        hold: held.hash(),
        receipt: None,
    };
    vec![
        ("close", close(1, 2, &held, 2, Credits::from_millionths(1_500_000))),
        ("close_nothing", entry(2, nothing, NOW)),
        ("lapse", lapse(1, &held, NOW + HOUR * 2)),
        ("mature", mature(2, &[&held, &begun])),
        ("forfeit", forfeit(3, 2, &[&held])),
        ("hold", held),
        ("open", begun),
    ]
}

pub(super) fn receipts() -> Vec<(&'static str, Receipt)> {
    let held = hold(1, 1, &open(1, Credits::whole(10)), 2, Credits::whole(3)).hash();
    let mut receipts = vec![
        ("receipt_of_a_hold", receipt(1, 2, Some(held), 1, Credits::whole(1))),
        ("receipt_for_nothing", receipt(1, 2, None, 1, Credits::ZERO)),
    ];
    for (name, outcome) in [
        ("receipt_agreed", Outcome::Agreed(ResultId::from_bytes([5; 32]))),
        ("receipt_unchecked", Outcome::Unchecked),
        ("receipt_inconclusive", Outcome::Inconclusive),
        ("receipt_wrong", Outcome::Wrong(RecordId::from_bytes([4; 32]))),
    ] {
        let before = receipt(1, 2, Some(held), 1, Credits::whole(1));
        receipts.push((name, next(&before, outcome, Credits::ZERO)));
    }
    receipts
}

/// The receipt after another.
fn next(before: &Receipt, outcome: Outcome, amount: Credits) -> Receipt {
    let said = Said {
        count: before.said().count + 1,
        total: before.said().total.checked_add(amount).unwrap(),
        previous: Some(before.id()),
        outcome,
        amount,
        ..*before.said()
    };
    Receipt::sign(&key(1), network(), before.payee(), said, NOW).unwrap()
}

#[test]
fn what_was_written_is_read() {
    for (name, entry) in entries() {
        assert_eq!(Entry::decode(entry.bytes()), Ok(entry), "{name}");
    }
    for (name, receipt) in receipts() {
        assert_eq!(Receipt::decode(receipt.bytes()), Ok(receipt), "{name}");
    }
    let certified = certify(&open(1, Credits::whole(10)), 4);
    let bytes = certified.certificate().encode();
    assert_eq!(Certificate::decode(&bytes).as_ref(), Ok(certified.certificate()));
}

#[test]
fn an_altered_bit_is_refused_wherever_it_is() {
    let (_, entry) = &entries()[0];
    let receipt = receipt(1, 2, None, 1, Credits::ZERO);
    for at in 0..entry.bytes().len() {
        let mut bytes = entry.bytes().to_vec();
        bytes[at] ^= 1 << (at % 8);
        assert!(Entry::decode(&bytes).is_err(), "byte {at}");
    }
    for at in 0..receipt.bytes().len() {
        let mut bytes = receipt.bytes().to_vec();
        bytes[at] ^= 1 << (at % 8);
        assert!(Receipt::decode(&bytes).is_err(), "byte {at}");
    }
}

#[test]
fn a_statement_in_anothers_name_is_forged() {
    let (_, entry) = &entries()[2];
    let mut bytes = entry.bytes().to_vec();
    let text = node(1).to_string().into_bytes();
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at..at + text.len()].copy_from_slice(node(3).to_string().as_bytes());
    assert_eq!(Entry::decode(&bytes), Err(Refused::Forged(node(3))));
}

#[test]
fn a_name_is_of_what_is_signed_and_not_of_the_signature() {
    let (_, entry) = &entries()[2];
    let other = lapse(1, &hold(1, 2, entry, 2, Credits::whole(1)), NOW + HOUR * 2);
    assert_ne!(entry.hash(), other.hash());
    let unsigned = &entry.bytes()[..entry.bytes().len() - SIGNATURE_BYTES];
    assert_eq!(
        *entry.hash().as_bytes(),
        crate::id::hash("dawn ledger entry 1", &[unsigned])
    );
}

#[test]
fn a_claim_too_many_is_refused() {
    let claims = |padded: bool| {
        let builder = coset::cwt::ClaimsSetBuilder::new()
            .issuer(node(1).to_string())
            .audience(network().to_string())
            .issued_at(coset::cwt::Timestamp::WholeSeconds(NOW.0 as i64))
            .private_claim(
                -65_602,
                ciborium::Value::Array(vec![3.into(), ciborium::Value::Bytes(vec![1; 32])]),
            );
        let builder = if padded {
            builder.private_claim(-70_000, true.into())
        } else {
            builder
        };
        builder.build()
    };
    let kind = dawn_identity::statement::Kind::new("application/dawn-entry+cwt");
    let signed = |padded| dawn_identity::statement::Signed::sign(kind, claims(padded), &key(1)).unwrap();
    assert!(Entry::decode(signed(false).bytes()).is_ok());
    let refused = Refused::Malformed("not in the one encoding of what it says");
    assert_eq!(Entry::decode(signed(true).bytes()), Err(refused));
}

#[test]
fn what_no_entry_says_is_not_signed() {
    let begun = open(1, Credits::whole(10));
    let sign = |what| Entry::sign(&key(1), network(), what, NOW);
    let held = Hold {
        number: 1,
        previous: begun.hash(),
        payee: node(2),
        amount: Credits::whole(1),
        expires: NOW + HOUR,
    };
    assert!(sign(What::Hold(held)).is_ok());
    let wrong = [
        Hold { number: 0, ..held },
        Hold { payee: node(1), ..held },
        Hold {
            amount: Credits::ZERO,
            ..held
        },
        Hold {
            amount: Credits::from_millionths(-1),
            ..held
        },
        Hold {
            expires: NOW + MINUTE * 9,
            ..held
        },
        Hold {
            expires: NOW + HOUR * 25,
            ..held
        },
    ];
    for hold in wrong {
        assert!(matches!(sign(What::Hold(hold)), Err(Refused::Malformed(_))), "{hold:?}");
    }
    let others = chain(2);
    let grant = Credits::whole(1);
    assert!(sign(What::Open { grant, chain: others }).is_err());
    let many: Vec<EntryHash> = (0..=64).map(|byte| EntryHash::from_bytes([byte; 32])).collect();
    for rewards in [vec![], vec![many[1], many[0]], vec![many[1], many[1]], many.clone()] {
        assert!(sign(What::Mature { rewards }).is_err());
    }
    let rewards = many[..64].to_vec();
    let longest = sign(What::Mature { rewards }).unwrap();
    assert_eq!(Entry::decode(longest.bytes()), Ok(longest));
    let (hold, other) = (begun.hash(), EntryHash::from_bytes([1; 32]));
    for (payee, of) in [(1, other), (3, hold)] {
        let receipt = Some(receipt(2, payee, Some(of), 1, Credits::ZERO));
        assert!(sign(What::Close { hold, receipt }).is_err());
    }
}

#[test]
fn what_no_receipt_says_is_not_signed() {
    let right = *receipt(1, 2, Some(EntryHash::from_bytes([1; 32])), 1, Credits::whole(1)).said();
    let sign = |said, payee| Receipt::sign(&key(1), network(), node(payee), said, NOW);
    assert!(sign(right, 2).is_ok());
    assert!(sign(right, 1).is_err());
    let wrong = [
        Said { count: 0, ..right },
        Said { count: 2, ..right },
        Said {
            previous: Some(ReceiptId::from_bytes([1; 32])),
            ..right
        },
        Said {
            amount: Credits::ZERO,
            ..right
        },
        Said { hold: None, ..right },
        Said {
            outcome: Outcome::Wrong(RecordId::from_bytes([1; 32])),
            ..right
        },
        Said {
            amount: Credits::from_millionths(-1),
            total: Credits::from_millionths(-1),
            ..right
        },
    ];
    for said in wrong {
        assert!(matches!(sign(said, 2), Err(Refused::Malformed(_))), "{said:?}");
    }
}

#[test]
fn receipts_follow_each_other_in_one_order() {
    let hold = Some(EntryHash::from_bytes([1; 32]));
    let first = receipt(1, 2, hold, 1, Credits::whole(1));
    let second = next(&first, Outcome::Plain, Credits::whole(2));
    let third = next(&second, Outcome::Unchecked, Credits::ZERO);
    assert_eq!(first.follows(None), Ok(()));
    assert_eq!(second.follows(Some(&first)), Ok(()));
    assert_eq!(third.follows(Some(&second)), Ok(()));
    assert_eq!(third.said().total, Credits::whole(3));
    assert!(third.follows(Some(&first)).is_err());
    assert!(second.follows(None).is_err());
    assert!(first.follows(Some(&first)).is_err());
    let other = receipt(1, 2, None, 1, Credits::ZERO);
    assert!(second.follows(Some(&other)).is_err());
    let wrong_total = Said {
        total: Credits::whole(9),
        ..*second.said()
    };
    let wrong_total = Receipt::sign(&key(1), network(), node(2), wrong_total, NOW).unwrap();
    assert!(wrong_total.follows(Some(&first)).is_err());
}

#[test]
fn quorums_are_as_in_the_table_and_share_an_honest_witness() {
    let figures = [
        (1, 0, 1),
        (2, 0, 2),
        (3, 0, 2),
        (4, 1, 3),
        (5, 1, 4),
        (6, 1, 4),
        (7, 2, 5),
        (10, 3, 7),
        (13, 4, 9),
    ];
    for (witnesses, faults, quorum) in figures {
        let terms = terms(witnesses);
        assert_eq!((terms.faults(), terms.quorum()), (faults, quorum), "{witnesses}");
    }
    for witnesses in 1..=64 {
        let terms = terms(witnesses);
        assert!(2 * terms.quorum() > usize::from(witnesses) + terms.faults());
        assert!(terms.quorum() + terms.faults() <= usize::from(witnesses) || terms.faults() == 0);
    }
}

#[test]
fn a_certificate_has_acknowledgements_of_a_quorum_and_of_nobody_else() {
    let terms = terms(4);
    let keys = witness_keys(5);
    let begun = open(1, Credits::whole(10));
    let ack = |of: usize| Ack::sign(&keys[of], &begun.hash(), &terms);
    let certificate = |acks: Vec<Ack>| Certificate::new(begun.clone(), acks).verify(&terms);
    assert!(certificate(vec![ack(0), ack(1), ack(2)]).is_ok());
    let no_quorum = Refused::NoQuorum { found: 2, needed: 3 };
    assert_eq!(certificate(vec![ack(0), ack(1), ack(1)]), Err(no_quorum));
    let stranger = certificate(vec![ack(0), ack(1), ack(4)]);
    assert_eq!(stranger, Err(Refused::NotAWitness(keys[4].node_id())));
    let other = Ack::sign(&keys[2], &open(2, Credits::whole(10)).hash(), &terms);
    let forged = Err(Refused::Forged(keys[2].node_id()));
    assert_eq!(certificate(vec![ack(0), ack(1), other]), forged);
    // Of the same witnesses and one more: another set.
    let other = Ack::sign(&keys[2], &begun.hash(), &self::terms(5));
    assert_eq!(certificate(vec![ack(0), ack(1), other]), forged);
}

#[test]
fn a_certificate_has_one_encoding() {
    let certified = certify(&open(1, Credits::whole(10)), 4);
    let bytes = certified.certificate().encode();
    assert!(Certificate::decode(&[&bytes[..], &[0]].concat()).is_err());
    let mut swapped = bytes.clone();
    let (first, last) = (bytes.len() - 2 * (ACK_BYTES + 2), bytes.len() - (ACK_BYTES + 2));
    swapped[first..last].copy_from_slice(&bytes[last..]);
    swapped[last..].copy_from_slice(&bytes[first..last]);
    assert_eq!(
        Certificate::decode(&swapped),
        Err(Refused::Malformed("acknowledgements out of order"))
    );
    assert_eq!(
        Certificate::decode(&vec![0; MAX_CERTIFICATE_BYTES + 1]),
        Err(Refused::TooLarge)
    );
}

#[test]
fn terms_have_witnesses_and_amounts_that_can_be_said() {
    let witnesses = |count: u8| (0..count).map(node).collect();
    let grants = |grant| BTreeMap::from([(Role::Member, grant)]);
    let make = |count, grant| Terms::new(network(), witnesses(count), grants(grant), BTreeMap::new());
    assert!(make(64, Credits::MOST).is_some());
    assert!(make(0, Credits::ZERO).is_none());
    assert!(make(65, Credits::ZERO).is_none());
    assert!(make(1, Credits::from_millionths(-1)).is_none());
    let terms = make(1, Credits::whole(5)).unwrap();
    assert_eq!(
        terms.grant(Roles::from(Role::Member).with(Role::Guest)),
        Credits::whole(5)
    );
    assert_eq!(terms.grant(Roles::from(Role::Guest)), Credits::ZERO);
    assert_eq!(
        self::terms(1).price("embed", 1500),
        Some(Credits::from_millionths(1_500_000))
    );
    assert_eq!(terms.price("embed", 1), None);
}
