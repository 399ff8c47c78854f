//! The protocol, played through.

use super::*;
use crate::admission::{AdmissionError, Answer, Commitment, MAX_MESSAGE_BYTES, Verified};

/// Both sides, up to the point where the admitter knows whom it deals with.
fn play() -> (Joiner, Verified) {
    let (mut joiner, commit) = Joiner::start(&ticket(), node(1), "node-1".parse().unwrap(), nonce(1));
    let mut admitter = Admitter::new(network(), node(2));
    let challenge = admitter.on_commit(commit, node(1), nonce(2)).unwrap();
    assert_eq!(admitter.invite(), Some(ticket().invite));
    let reveal = joiner.on_challenge(challenge).unwrap();
    let verified = admitter.on_reveal(reveal, &ticket().secret).unwrap();
    (joiner, verified)
}

#[test]
fn a_holder_of_the_ticket_is_admitted() {
    let (mut joiner, verified) = play();
    assert_eq!(verified.node, node(1));
    assert_eq!(verified.invite, ticket().invite);
    assert_eq!(verified.name.as_str(), "node-1");
    assert_eq!(Some(verified.words), joiner.words());
    let answer = joiner.on_answer(AdmissionMessage::Admitted(Box::new(admitted())), NOW, SKEW);
    let Ok(Answer::Admitted(welcome)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(welcome.membership.node, node(1));
    assert_eq!(welcome.contacts, admitted().contacts);
    assert_eq!(welcome.revocations.len(), 2);
    assert_eq!(joiner.words(), None);
}

#[test]
fn an_answer_may_follow_a_wait() {
    let (mut joiner, _) = play();
    let words = joiner.words();
    for _ in 0..3 {
        assert_eq!(
            joiner.on_answer(AdmissionMessage::Pending {}, NOW, SKEW),
            Ok(Answer::Pending)
        );
        assert_eq!(joiner.words(), words);
    }
    let refused = Refused {
        code: RefusalCode::Denied,
        message: "not today".to_owned(),
    };
    assert_eq!(
        joiner.on_answer(AdmissionMessage::Refused(refused.clone()), NOW, SKEW),
        Err(AdmissionError::Refused(refused))
    );
}

#[test]
fn a_refusal_may_come_in_place_of_the_challenge() {
    let (mut joiner, _) = Joiner::start(&ticket(), node(1), "a".parse().unwrap(), nonce(1));
    let refused = Refused {
        code: RefusalCode::UnknownInvite,
        message: String::new(),
    };
    assert_eq!(
        joiner.on_challenge(AdmissionMessage::Refused(refused.clone())),
        Err(AdmissionError::Refused(refused))
    );
}

#[test]
fn who_does_not_know_the_secret_is_refused() {
    let guess = Ticket {
        secret: InviteSecret::from_bytes([9; 16]),
        ..ticket()
    };
    let (mut joiner, commit) = Joiner::start(&guess, node(1), "a".parse().unwrap(), nonce(1));
    let mut admitter = Admitter::new(network(), node(2));
    let challenge = admitter.on_commit(commit, node(1), nonce(2)).unwrap();
    let reveal = joiner.on_challenge(challenge).unwrap();
    assert_eq!(
        admitter.on_reveal(reveal.clone(), &ticket().secret),
        Err(AdmissionError::BadProof)
    );
    // There is no second try, not even with the right secret.
    assert_eq!(
        admitter.on_reveal(reveal, &guess.secret),
        Err(AdmissionError::OutOfOrder)
    );
}

#[test]
fn a_party_that_differs_in_anything_agreed_on_is_refused() {
    let refused_by = |admitter: Admitter, joiner: NodeId, alter: fn(&mut Commit)| {
        let (mut side, commit) = Joiner::start(&ticket(), node(1), "node-1".parse().unwrap(), nonce(1));
        let AdmissionMessage::Commit(mut commit) = commit else {
            unreachable!()
        };
        alter(&mut commit);
        let mut admitter = admitter;
        let challenge = admitter
            .on_commit(AdmissionMessage::Commit(commit), joiner, nonce(2))
            .unwrap();
        let reveal = side.on_challenge(challenge).unwrap();
        admitter.on_reveal(reveal, &ticket().secret) == Err(AdmissionError::BadProof)
    };
    let honest = || Admitter::new(network(), node(2));
    assert!(!refused_by(honest(), node(1), |_| {}));
    assert!(refused_by(honest(), node(3), |_| {}), "another joiner");
    assert!(
        refused_by(Admitter::new(network(), node(4)), node(1), |_| {}),
        "another admitter"
    );
    assert!(
        refused_by(Admitter::new(key(201).network_id(), node(2)), node(1), |_| {}),
        "another network"
    );
    assert!(refused_by(honest(), node(1), |commit| commit.name = "other".parse().unwrap()));
    assert!(refused_by(honest(), node(1), |commit| commit.invite = InviteId::from_bytes([1; 8])));
    assert!(refused_by(honest(), node(1), |commit| {
        commit.commitment = Commitment::from_bytes([1; 32]);
    }));
}

#[test]
fn a_man_in_the_middle_ends_up_with_other_words_on_each_side() {
    // It knows the ticket, and poses as the admitter to the joiner and as the joiner to the admitter.
    let (mut joiner, _) = Joiner::start(&ticket(), node(1), "node-1".parse().unwrap(), nonce(1));
    joiner
        .on_challenge(AdmissionMessage::Challenge(Challenge { nonce: nonce(66) }))
        .unwrap();
    let (mut middle, commit) = Joiner::start(&ticket(), node(66), "node-1".parse().unwrap(), nonce(67));
    let mut admitter = Admitter::new(network(), node(2));
    let challenge = admitter.on_commit(commit, node(66), nonce(2)).unwrap();
    let reveal = middle.on_challenge(challenge).unwrap();
    let verified = admitter.on_reveal(reveal, &ticket().secret).unwrap();
    assert_ne!(joiner.words(), Some(verified.words));
}

#[test]
fn a_joiner_does_not_take_a_certificate_that_members_would_not() {
    let answer_to = |admitted: Admitted| {
        let (mut joiner, _) = play();
        joiner
            .on_answer(AdmissionMessage::Admitted(Box::new(admitted)), NOW, SKEW)
            .unwrap_err()
    };
    let other_network = Authority::Root { key: key(201) };
    assert_eq!(
        answer_to(Admitted {
            chain: other_network.issue(request(1, Role::Member), NOW).unwrap(),
            ..admitted()
        }),
        AdmissionError::Certificate(CertificateError::WrongNetwork(other_network.network()))
    );
    assert_eq!(
        answer_to(Admitted {
            chain: root().issue(request(3, Role::Member), NOW).unwrap(),
            ..admitted()
        }),
        AdmissionError::NotForThisNode(node(3))
    );
    assert_eq!(
        answer_to(Admitted {
            revocations: vec![root().revoke(node(1), NOW).unwrap()],
            ..admitted()
        }),
        AdmissionError::Certificate(CertificateError::Revoked(node(1)))
    );
    assert_eq!(
        answer_to(Admitted {
            revocations: vec![other_network.revoke(node(1), NOW).unwrap()],
            ..admitted()
        }),
        AdmissionError::Revocation(RevocationError::WrongNetwork(other_network.network()))
    );
}

#[test]
fn messages_out_of_order_end_the_admission() {
    for (name, message) in messages() {
        let mut admitter = Admitter::new(network(), node(2));
        let before_commit = admitter.on_reveal(message.clone(), &ticket().secret);
        assert_eq!(before_commit, Err(AdmissionError::OutOfOrder), "{name}");
        let after_the_end = admitter.on_commit(message.clone(), node(1), nonce(2));
        assert_eq!(after_the_end, Err(AdmissionError::OutOfOrder), "{name}");

        let (mut joiner, commit) = Joiner::start(&ticket(), node(1), "a".parse().unwrap(), nonce(1));
        let early = joiner.on_answer(message.clone(), NOW, SKEW);
        assert_eq!(early, Err(AdmissionError::OutOfOrder), "{name}");

        let mut admitter = Admitter::new(network(), node(2));
        admitter.on_commit(commit.clone(), node(1), nonce(2)).unwrap();
        assert_eq!(
            admitter.on_commit(commit, node(1), nonce(2)),
            Err(AdmissionError::OutOfOrder)
        );
        assert_eq!(admitter.invite(), None);
    }
    for wrong in ["commit", "reveal", "renew", "challenge"] {
        let (_, message) = messages().into_iter().find(|(name, _)| *name == wrong).unwrap();
        let (mut joiner, _) = play();
        assert_eq!(
            joiner.on_answer(message, NOW, SKEW),
            Err(AdmissionError::OutOfOrder),
            "{wrong}"
        );
    }
}

#[test]
fn a_message_of_another_version_is_known_as_such() {
    // {"v": 2, "m": {"greeting": [1]}}
    let bytes = b"\xa2\x61v\x02\x61m\xa1\x68greeting\x81\x01";
    assert_eq!(
        AdmissionMessage::decode(bytes),
        Err(AdmissionError::UnsupportedVersion(2))
    );
}

#[test]
fn messages_have_a_bound_both_ways() {
    let crowded = AdmissionMessage::Admitted(Box::new(Admitted {
        contacts: vec![(node(1), vec!["x".repeat(200); 100])],
        ..admitted()
    }));
    assert_eq!(crowded.encode(), Err(AdmissionError::TooLarge));
    assert_eq!(
        AdmissionMessage::decode(&vec![0; MAX_MESSAGE_BYTES + 1]),
        Err(AdmissionError::TooLarge)
    );
}

#[test]
fn text_that_would_steer_a_terminal_is_refused() {
    let refused = AdmissionMessage::Refused(Refused {
        code: RefusalCode::Denied,
        message: "\u{1b}[2J".to_owned(),
    });
    let admitted = AdmissionMessage::Admitted(Box::new(Admitted {
        contacts: vec![(node(1), vec!["/ip4/\n".to_owned()])],
        ..admitted()
    }));
    for message in [refused, admitted] {
        let bytes = message.encode().unwrap();
        assert_eq!(AdmissionMessage::decode(&bytes), Err(AdmissionError::Malformed));
    }
}

#[test]
fn a_proof_cannot_be_replayed_against_another_challenge() {
    let (mut joiner, commit) = Joiner::start(&ticket(), node(1), "a".parse().unwrap(), nonce(1));
    let mut first = Admitter::new(network(), node(2));
    let challenge = first.on_commit(commit.clone(), node(1), nonce(2)).unwrap();
    let reveal = joiner.on_challenge(challenge).unwrap();
    let mut second = Admitter::new(network(), node(2));
    second.on_commit(commit, node(1), nonce(3)).unwrap();
    assert_eq!(
        second.on_reveal(reveal, &ticket().secret),
        Err(AdmissionError::BadProof)
    );
    let AdmissionMessage::Reveal(Reveal { proof, .. }) = messages()[2].1 else {
        unreachable!()
    };
    assert_ne!(proof, Proof::from_bytes([0; 32]));
}
