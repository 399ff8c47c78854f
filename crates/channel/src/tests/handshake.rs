//! Handshakes: whoever has another idea of the conversation never has it.

use proptest::prelude::*;

use super::*;
use crate::handshake::MAX_HANDSHAKE_BYTES;
use crate::noise::{Noise, Pattern, Role, Setup};

const BOTH: [How; 2] = [How::Ik, How::Xx];

fn sides() -> [Side; 2] {
    [1, 2].map(|seed| Side::new(seed, Terms::default()))
}

/// Whether a handshake comes to two channels that carry a message both ways.
fn completes(how: How, a: &Side, b: &Side, peer: KnownPeer, alter: impl FnMut(usize, Vec<u8>) -> Vec<u8>) -> bool {
    let Ok((mut a, mut b)) = shake(how, a, b, peer, alter) else {
        return false;
    };
    // Only those frames that say that the handshake is complete.
    for _ in 0..2 {
        let from_a: Vec<_> = std::iter::from_fn(|| a.poll_transmit(*START)).collect();
        let from_b: Vec<_> = std::iter::from_fn(|| b.poll_transmit(*START)).collect();
        for mut frame in from_a {
            let _ = b.open(&mut frame, *START);
        }
        for mut frame in from_b {
            let _ = a.open(&mut frame, *START);
        }
    }
    let both = a.is_confirmed() && b.is_confirmed();
    // One side may have the last word of the handshake; it is never the one that waits for a confirmation.
    if !both {
        let waiting = if how == How::Ik { &mut b } else { &mut a };
        assert!(!waiting.is_confirmed());
        assert_eq!(waiting.seal_message(b"?", *START), Err(SealError::Unconfirmed));
    }
    both
}

#[test]
fn two_nodes_get_a_channel_and_know_each_other() {
    for how in BOTH {
        for terms in all_terms() {
            let (mut a, mut b) = pair_of(how, terms, Limits::default());
            assert_eq!((a.peer().node, b.peer().node), (node(2), node(1)));
            assert_eq!(a.peer().key, static_key(2).public());
            assert_eq!(a.peer().bound_until, NOW + DAY);
            assert_eq!(a.session(), b.session());
            assert_eq!((a.terms(), b.terms()), (terms, terms));
            let frame = a.seal_message(b"hello", *START).unwrap();
            assert_eq!(read(&mut b, &frame).unwrap(), b"hello");
            let frame = b.seal_message(b"", *START).unwrap();
            assert_eq!(read(&mut a, &frame).unwrap(), b"");
        }
    }
}

#[test]
fn no_two_handshakes_have_the_same_session() {
    let [a, b] = sides();
    let mut sessions = std::collections::HashSet::new();
    for how in BOTH {
        for seed in 0..8 {
            let begun = a.initiator(how, b.party.known(), seed).unwrap();
            let responder = b.responder(Accept::Either);
            let channel = match responder.read(begun.message(), NOW, *START, &mut rng(2)).unwrap() {
                Answer::Channel(mut channel) => begun.read(&channel.poll_transmit(*START).unwrap(), NOW, *START),
                Answer::Reply(second, _) => begun.read(&second, NOW, *START),
            };
            sessions.insert(channel.unwrap().session());
        }
    }
    assert_eq!(sessions.len(), 16);
}

#[test]
fn who_sent_the_last_message_waits_for_the_other() {
    for how in BOTH {
        let [a, b] = sides();
        let (mut a, mut b) = shake(how, &a, &b, b.party.known(), |_, message| message).unwrap();
        let (first, last) = if how == How::Ik {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        assert!(first.is_confirmed() && !last.is_confirmed());
        assert_eq!(last.seal_message(b"early", *START), Err(SealError::Unconfirmed));
        // Goodbye waits too.
        last.close(Close::new(CloseCode::Busy, "not now"));
        assert_eq!(last.poll_transmit(*START), None);
        let mut confirm = first.poll_transmit(*START).unwrap();
        assert_eq!(last.open(&mut confirm, *START), Ok(Opened::Control));
        assert!(last.is_confirmed());
    }
}

#[test]
fn any_flipped_bit_in_a_handshake_ends_it() {
    let [a, b] = sides();
    for how in BOTH {
        let mut lengths = Vec::new();
        assert!(completes(how, &a, &b, b.party.known(), |_, message| {
            lengths.push(message.len());
            message
        }));
        for (number, length) in lengths.into_iter().enumerate() {
            // Each bit of the keys and tags; one of each byte of the payload.
            for bit in (0..length * 8).filter(|bit| *bit < 100 * 8 || bit % 8 == bit / 8 % 8) {
                let alter = |at: usize, message: Vec<u8>| if at == number { flipped(&message, bit) } else { message };
                assert!(
                    !completes(how, &a, &b, b.party.known(), alter),
                    "{how:?}, message {number}, bit {bit}"
                );
            }
        }
    }
}

#[test]
fn a_handshake_cut_short_or_lengthened_ends() {
    let [a, b] = sides();
    for how in BOTH {
        for number in 0..if how == How::Ik { 2 } else { 3 } {
            for change in [-200isize, -17, -16, -1, 1, 16, 2000] {
                let alter = |at: usize, mut message: Vec<u8>| {
                    if at == number {
                        message.resize(message.len().saturating_add_signed(change), 0);
                    }
                    message
                };
                assert!(
                    !completes(how, &a, &b, b.party.known(), alter),
                    "{how:?} {number} {change}"
                );
            }
        }
    }
}

/// Everything that two sides can have different ideas of.
fn differences() -> Vec<(&'static str, Side)> {
    let base = Side::new(2, Terms::default());
    let mut all = vec![];
    let mut other = base.clone();
    other.context.network = identity(201).network_id();
    all.push(("network", other));
    for carrier in [&b"Test"[..], b"", b"test "] {
        let mut other = base.clone();
        other.context.carrier = carrier.to_vec();
        all.push(("carrier", other));
    }
    for terms in all_terms().into_iter().filter(|terms| *terms != Terms::default()) {
        all.push(("terms", Side::new(2, terms)));
    }
    let expected = Some(node(3));
    all.push(("expected initiator", Side { expected, ..base }));
    all
}

#[test]
fn two_sides_with_different_ideas_never_complete() {
    let a = Side::new(1, Terms::default());
    for how in BOTH {
        for (what, b) in differences() {
            assert!(!completes(how, &a, &b, b.party.known(), |_, m| m), "{how:?}: {what}");
        }
        // Whom the initiator means.
        let b = Side::new(2, Terms::default());
        let expecting = Side {
            expected: Some(node(3)),
            ..a.clone()
        };
        let stranger = KnownPeer {
            node: node(3),
            key: static_key(2).public(),
        };
        assert!(!completes(how, &expecting, &b, stranger, |_, m| m), "{how:?}: peer");
        // And the key it means.
        let other_key = KnownPeer {
            node: node(2),
            key: static_key(3).public(),
        };
        assert_eq!(completes(how, &a, &b, other_key, |_, m| m), how == How::Xx);
        // All as it should be.
        let expecting = Side {
            expected: Some(node(2)),
            ..a.clone()
        };
        assert!(completes(how, &expecting, &b, b.party.known(), |_, m| m));
    }
}

#[test]
fn a_pattern_that_is_not_accepted_is_refused() {
    let [a, b] = sides();
    for (how, accept) in [(How::Ik, Accept::Xx), (How::Xx, Accept::Ik)] {
        let begun = a.initiator(how, b.party.known(), 1).unwrap();
        let refused = b.responder(accept).read(begun.message(), NOW, *START, &mut rng(2));
        assert_eq!(refused.unwrap_err(), HandshakeError::NotAccepted);
    }
    // One pattern's message does not pass for the other's.
    let begun = a.initiator(How::Ik, b.party.known(), 1).unwrap();
    let mut message = begun.message().to_vec();
    message[0] = 3;
    let read = b.responder(Accept::Either).read(&message, NOW, *START, &mut rng(2));
    assert!(read.is_err());
}

#[test]
fn the_key_of_another_is_not_believed() {
    // Node 3 shows the binding of node 2.
    let [a, b] = sides();
    let thief = Party::new(identity(2), static_key(2), NOW, DAY).unwrap();
    let stolen = Party::with_binding(identity(3), static_key(3), thief.binding().clone());
    let thief = Side {
        party: Arc::new(stolen),
        ..b
    };
    for how in BOTH {
        let peer = KnownPeer {
            node: node(2),
            key: static_key(3).public(),
        };
        let failed = shake(how, &a, &thief, peer, |_, message| message).unwrap_err();
        assert!(
            matches!(failed, HandshakeError::WrongKey | HandshakeError::NotAuthentic),
            "{failed:?}"
        );
        let failed = shake(how, &thief, &a, a.party.known(), |_, message| message).unwrap_err();
        assert_eq!(failed, HandshakeError::WrongKey);
    }
}

#[test]
fn to_claim_the_key_of_another_is_of_no_use() {
    // Node 3 signs that the key of node 2 is its own, and hopes that what is said to node 2 is taken as said to it, or that
    // what node 2 says is taken for its own.
    let [a, b] = sides();
    let claimed = Binding::sign(&identity(3), static_key(2).public(), Validity::of(NOW, DAY), NOW).unwrap();
    let peer = KnownPeer::from(claimed.verify(NOW, SKEW).unwrap());
    assert!(!completes(How::Ik, &a, &b, peer, |_, message| message));
    let thief = Side {
        party: Arc::new(Party::with_binding(identity(3), static_key(3), claimed)),
        ..b
    };
    for how in BOTH {
        let failed = shake(how, &thief, &a, a.party.known(), |_, message| message).unwrap_err();
        assert_eq!(failed, HandshakeError::WrongKey);
    }
}

#[test]
fn who_has_the_static_key_of_another_is_not_that_other() {
    // Node 3 holds the static key of node 2, and has signed that it is its own; it answers as if it were meant.
    let [a, b] = sides();
    let begun = a.initiator(How::Ik, b.party.known(), 1).unwrap();
    let mut noise = Noise::new(Setup {
        pattern: Pattern::Ik,
        role: Role::Responder,
        prologue: &a.context.prologue(Pattern::Ik, Some(&node(2))),
        local: b.party.key(),
        remote: None,
        psk: None,
        ephemeral: zeroize::Zeroizing::new([7; 32]),
    })
    .unwrap();
    noise.read(&begun.message()[2..]).unwrap();
    let own = Binding::sign(&identity(3), static_key(2).public(), Validity::of(NOW, DAY), NOW).unwrap();
    let answer = noise.write(&[2, PROTOCOL_VERSION], &own.encode()).unwrap();
    let wrong = HandshakeError::WrongPeer {
        expected: node(2),
        found: node(3),
    };
    assert_eq!(begun.read(&answer, NOW, *START).unwrap_err(), wrong);
}

#[test]
fn a_first_contact_says_nothing_but_a_key() {
    let [a, b] = sides();
    let mut noise = Noise::new(Setup {
        pattern: Pattern::Xx,
        role: Role::Initiator,
        prologue: &a.context.prologue(Pattern::Xx, None),
        local: a.party.key(),
        remote: None,
        psk: None,
        ephemeral: zeroize::Zeroizing::new([7; 32]),
    })
    .unwrap();
    let message = noise.write(&[3, PROTOCOL_VERSION], b"and more").unwrap();
    let read = b.responder(Accept::Either).read(&message, NOW, *START, &mut rng(2));
    assert_eq!(read.unwrap_err(), HandshakeError::Unexpected);
}

#[test]
fn nothing_secret_is_printed() {
    // All bytes of a secret key are the same here.
    let [a, b] = sides();
    let begun = a.initiator(How::Ik, b.party.known(), 1).unwrap();
    let responder = b.responder(Accept::Either);
    let mut shown = format!("{begun:?} {responder:?} {:?}", b.party);
    let (mut one, two) = pair(Terms::default());
    one.start_rekey(*START);
    one.handle_timeout(*START, &mut rng(1));
    shown.push_str(&format!("{one:?} {two:?}"));
    let secrets = [1, 2].map(|seed| static_key(seed).to_bytes()[0]);
    for secret in secrets.into_iter().chain([1, 2]) {
        let (decimal, hexadecimal) = (
            vec![secret.to_string(); 8].join(", "),
            format!("{secret:02x}").repeat(8),
        );
        assert!(!shown.contains(&decimal) && !shown.contains(&hexadecimal), "{shown}");
    }
}

#[test]
fn an_expired_binding_is_not_believed() {
    let [a, b] = sides();
    let old = Party::new(identity(2), static_key(2), NOW - DAY - DAY, DAY).unwrap();
    let old = Side {
        party: Arc::new(old),
        ..b
    };
    for how in BOTH {
        for failed in [
            shake(how, &a, &old, old.party.known(), |_, message| message).unwrap_err(),
            shake(how, &old, &a, a.party.known(), |_, message| message).unwrap_err(),
        ] {
            let expired = HandshakeError::Binding(BindingError::Expired(NOW - DAY));
            assert_eq!(failed, expired);
        }
    }
}

#[test]
fn a_node_does_not_talk_to_itself() {
    let [a, _] = sides();
    for how in BOTH {
        let failed = shake(how, &a, &a, a.party.known(), |_, message| message).unwrap_err();
        assert_eq!(failed, HandshakeError::Oneself);
    }
}

#[test]
fn another_version_is_known_as_such() {
    let [a, b] = sides();
    let begun = a.initiator(How::Ik, b.party.known(), 1).unwrap();
    let mut message = begun.message().to_vec();
    message[1] = 9;
    let read = b.responder(Accept::Either).read(&message, NOW, *START, &mut rng(2));
    assert_eq!(read.unwrap_err(), HandshakeError::UnsupportedVersion(9));
}

#[test]
fn a_message_that_is_too_long_is_not_read() {
    let [a, b] = sides();
    for how in BOTH {
        let begun = a.initiator(how, b.party.known(), 1).unwrap();
        let mut long = begun.message().to_vec();
        long.resize(MAX_HANDSHAKE_BYTES + 1, 0);
        let read = b.responder(Accept::Either).read(&long, NOW, *START, &mut rng(2));
        assert_eq!(read.unwrap_err(), HandshakeError::TooLarge);
        assert_eq!(begun.read(&long, NOW, *START).unwrap_err(), HandshakeError::TooLarge);
    }
}

#[test]
fn a_key_of_small_order_is_nobodys() {
    let [a, _] = sides();
    for point in [0u8, 1] {
        let mut bytes = [0; 32];
        bytes[0] = point;
        let peer = KnownPeer {
            node: node(2),
            key: StaticPublic::from_bytes(bytes),
        };
        assert_eq!(a.initiator(How::Ik, peer, 1).unwrap_err(), HandshakeError::Setup);
    }
}

#[test]
fn a_repeated_first_message_completes_nothing() {
    let [a, b] = sides();
    let begun = a.initiator(How::Ik, b.party.known(), 1).unwrap();
    for seed in 2..4 {
        let answer = b
            .responder(Accept::Either)
            .read(begun.message(), NOW, *START, &mut rng(seed));
        let Answer::Channel(mut channel) = answer.unwrap() else {
            panic!("two messages are a whole handshake");
        };
        assert!(!channel.is_confirmed());
        assert_eq!(channel.seal_message(b"?", *START), Err(SealError::Unconfirmed));
    }
}

/// What one side thinks of the conversation: network, carrier, terms, and whom it expects (nobody in particular, the other,
/// or a third).
type Idea = (u8, Vec<u8>, Terms, Option<bool>);

fn idea() -> impl Strategy<Value = Idea> {
    let carrier = prop::sample::select(vec![b"".to_vec(), b"a".to_vec(), b"ab".to_vec()]);
    let terms = prop::sample::select(all_terms());
    (
        200u8..202,
        carrier,
        terms,
        prop::option::weighted(0.4, prop::bool::weighted(0.7)),
    )
}

fn side_with(seed: u8, other: u8, (network, carrier, terms, expects): &Idea) -> Side {
    let mut side = Side::new(seed, *terms);
    side.context.network = identity(*network).network_id();
    side.context.carrier.clone_from(carrier);
    side.expected = expects.map(|right| node(if right { other } else { 3 }));
    side
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn two_sides_complete_exactly_if_they_agree(
        ours in idea(),
        theirs in prop::option::weighted(0.5, idea()),
        how in prop::sample::select(BOTH.to_vec()),
        [right_peer, right_key] in [prop::bool::weighted(0.8), prop::bool::weighted(0.8)],
    ) {
        // Often the other side has the same idea.
        let theirs = theirs.unwrap_or_else(|| ours.clone());
        let (a, b) = (side_with(1, 2, &ours), side_with(2, 1, &theirs));
        let peer = KnownPeer {
            node: node(if right_peer { 2 } else { 3 }),
            key: static_key(if right_key { 2 } else { 3 }).public(),
        };
        let same_context = (ours.0, &ours.1, ours.2) == (theirs.0, &theirs.1, theirs.2);
        // Whom it begins to talk to, it says to `ik`; whom it expects, to `xx`.
        let right_initiator = match how {
            How::Ik => right_peer && right_key,
            How::Xx => ours.3 != Some(false),
        };
        let agree = same_context && right_initiator && theirs.3 != Some(false);
        prop_assert_eq!(completes(how, &a, &b, peer, |_, message| message), agree);
    }

    #[test]
    fn no_bytes_make_a_handshake_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..700),
        kind in 0u8..8,
        plausible: bool,
        how in prop::sample::select(BOTH.to_vec()),
    ) {
        if plausible && bytes.len() > 1 {
            bytes[0] = kind;
            bytes[1] = PROTOCOL_VERSION;
        }
        let [a, b] = sides();
        let begun = a.initiator(how, b.party.known(), 1).unwrap();
        let first = begun.message().to_vec();
        prop_assert!(begun.read(&bytes, NOW, *START).is_err());
        // A first message of XX is any key at all.
        if let Ok(answer) = b.responder(Accept::Either).read(&bytes, NOW, *START, &mut rng(2)) {
            prop_assert!(matches!(answer, Answer::Reply(..)));
        }
        if let Ok(Answer::Reply(_, waiting)) = b.responder(Accept::Either).read(&first, NOW, *START, &mut rng(2)) {
            prop_assert!(waiting.read(&bytes, NOW, *START, &mut rng(2)).is_err());
        }
    }
}
