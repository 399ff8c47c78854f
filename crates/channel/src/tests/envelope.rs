//! Envelopes: only the receiver opens them, only the sender sealed them, and each counts once.

use coset::cwt::{ClaimName, ClaimsSet};
use dawn_identity::statement::{Kind, Signed};
use proptest::collection::vec;
use proptest::prelude::*;

use super::exchange::agreed;
use super::*;
use crate::envelope::*;

pub(super) fn draft(payload: &[u8]) -> Draft<'_> {
    Draft {
        id: EnvelopeId::from_bytes([9; 16]),
        network: network(),
        sent: NOW,
        expires: NOW + DAY,
        payload,
    }
}

/// An envelope of node 1 for node 2, or for everybody, of each kind.
pub(super) fn envelopes(payload: &[u8]) -> Vec<(&'static str, Envelope)> {
    let [key, _] = agreed();
    let peer = party(2).known();
    [
        ("asymmetric", Sealing::Asymmetric(&peer)),
        ("symmetric", Sealing::Symmetric(&key)),
        ("readable", Sealing::None(Some(node(2)))),
        ("public", Sealing::None(None)),
    ]
    .into_iter()
    .map(|(name, sealing)| {
        let envelope = Envelope::seal(&identity(1), &draft(payload), sealing, &mut rng(5)).unwrap();
        assert_eq!(envelope.encryption(), sealing.encryption());
        (name, envelope)
    })
    .collect()
}

struct Keys {
    node: NodeId,
    static_keys: Vec<StaticKey>,
    shared_keys: Vec<SharedKey>,
}

impl Keys {
    fn of(seed: u8) -> Self {
        let [_, shared] = agreed();
        Self {
            node: node(seed),
            static_keys: vec![static_key(99), static_key(seed)],
            shared_keys: vec![shared],
        }
    }

    fn opener(&self, readable: bool) -> Opener<'_> {
        Opener {
            node: self.node,
            static_keys: &self.static_keys,
            shared_keys: &self.shared_keys,
            readable,
        }
    }
}

fn verified(bytes: &[u8], now: UnixTime) -> Result<VerifiedEnvelope, EnvelopeError> {
    Envelope::decode(bytes)?.verify(&network(), now, SKEW)
}

#[test]
fn the_receiver_opens_what_the_sender_sealed() {
    for payload in [&b""[..], b"good morning", &[7; 100_000]] {
        for (name, envelope) in envelopes(payload) {
            assert_eq!(Envelope::decode(envelope.bytes()), Ok(envelope.clone()));
            let verified = verified(envelope.bytes(), NOW).unwrap();
            let cover = verified.cover();
            assert_eq!((cover.sender, cover.sent), (node(1), NOW));
            assert_eq!(cover.receiver, (name != "public").then(|| node(2)));
            assert_eq!(verified.open(&Keys::of(2).opener(true)).unwrap(), payload);
            let hidden = !envelope.bytes().windows(12).any(|window| window == b"good morning");
            assert!(hidden || !matches!(name, "asymmetric" | "symmetric"));
        }
    }
}

#[test]
fn nobody_else_opens_an_envelope() {
    for (name, envelope) in envelopes(b"for node 2") {
        let verified = verified(envelope.bytes(), NOW).unwrap();
        let opened = verified.open(&Keys::of(3).opener(true));
        if name == "public" {
            assert_eq!(opened.unwrap(), b"for node 2");
        } else {
            assert_eq!(opened, Err(EnvelopeOpenError::NotForThisNode));
        }
        let without = Opener {
            node: node(2),
            static_keys: &[static_key(3)],
            shared_keys: &[],
            readable: true,
        };
        let opened = verified.open(&without);
        match name {
            "asymmetric" => assert_eq!(opened, Err(EnvelopeOpenError::UnknownStaticKey)),
            "symmetric" => assert_eq!(opened, Err(EnvelopeOpenError::UnknownSharedKey(agreed()[0].id()))),
            _ => assert!(opened.is_ok()),
        }
    }
}

#[test]
fn what_is_not_encrypted_is_not_opened_unless_it_is_wanted() {
    for (name, envelope) in envelopes(b"for all to read") {
        let opened = verified(envelope.bytes(), NOW)
            .unwrap()
            .open(&Keys::of(2).opener(false));
        let readable = matches!(name, "readable" | "public");
        assert_eq!(opened == Err(EnvelopeOpenError::NotEncrypted), readable);
        assert_eq!(opened.is_ok(), !readable);
    }
}

#[test]
fn any_flipped_bit_in_an_envelope_is_refused() {
    for (name, envelope) in envelopes(b"as it was written") {
        let bytes = envelope.bytes();
        for bit in 0..bytes.len() * 8 {
            assert!(verified(&flipped(bytes, bit), NOW).is_err(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_content_opens_in_its_envelope_only() {
    // Node 3 signs what node 1 sealed as its own, with another time, or with another id.
    for (name, envelope) in envelopes(b"by node 1") {
        let changes: [fn(&mut Cover); 4] = [
            |cover| cover.sent = NOW + SECOND,
            |cover| cover.expires = NOW + DAY + DAY,
            |cover| cover.id = EnvelopeId::from_bytes([8; 16]),
            |cover| cover.network = identity(201).network_id(),
        ];
        let other = identity(201).network_id();
        for (thief, change) in changes.map(|change| (1, change)).into_iter().chain([(3, changes[0])]) {
            let stolen = envelope.resigned(&identity(thief), change);
            let network = if stolen.cover().network == other {
                other
            } else {
                network()
            };
            let verified = Envelope::decode(stolen.bytes()).unwrap();
            let verified = verified.verify(&network, NOW, SKEW).unwrap();
            let opened = verified.open(&Keys::of(2).opener(true));
            match (name, thief) {
                ("readable" | "public", _) => assert!(opened.is_ok()),
                ("symmetric", 3) => assert!(matches!(opened, Err(EnvelopeOpenError::UnknownSharedKey(_)))),
                _ => assert_eq!(opened, Err(EnvelopeOpenError::NotAuthentic)),
            }
        }
    }
}

#[test]
fn an_envelope_that_makes_no_sense_is_not_read() {
    type Change = fn(&mut ClaimsSet);
    let signed = |which: usize, change: Change| {
        let kind = Kind::new("application/dawn-envelope+cwt");
        let (_, envelope) = envelopes(b"some words").swap_remove(which);
        let (_, mut set) = Signed::parse(kind, envelope.bytes()).unwrap();
        change(&mut set);
        let signed = Signed::sign(kind, set, &identity(1)).unwrap();
        Envelope::decode(signed.bytes()).map(|_| ())
    };
    let malformed = |why| Err(EnvelopeError::Malformed(why));
    for which in 0..4 {
        assert_eq!(signed(which, |_| {}), Ok(()));
        let never: Change = |set| set.expiration_time.clone_from(&set.issued_at);
        assert_eq!(signed(which, never), malformed("expires before it is sent"));
        let nameless: Change = |set| set.cwt_id = Some(vec![9; 15]);
        assert_eq!(signed(which, nameless), malformed("no valid cti"));
    }
    // What is encrypted is for somebody, what is not has no key.
    for which in 0..2 {
        assert_eq!(
            signed(which, |set| set.subject = None),
            malformed("encrypted to nobody")
        );
        let keyless: Change = |set| {
            let key = ClaimName::PrivateUse(crate::claims::KEY_ID);
            set.rest.retain(|(name, _)| *name != key);
        };
        assert_eq!(signed(which, keyless), malformed("no valid key id"));
    }
    let keyed: Change = |set| {
        let key = ClaimName::PrivateUse(crate::claims::KEY_ID);
        set.rest.push((key, vec![7u8; 8].into()));
    };
    assert_eq!(signed(2, keyed), malformed("no valid key id"));
}

#[test]
fn an_envelope_counts_in_its_network_and_time() {
    for (_, envelope) in envelopes(b"") {
        let bytes = envelope.bytes();
        let wrong = Envelope::decode(bytes)
            .unwrap()
            .verify(&identity(201).network_id(), NOW, SKEW);
        assert_eq!(wrong, Err(EnvelopeError::WrongNetwork));
        assert!(verified(bytes, NOW - SKEW).is_ok());
        assert_eq!(
            verified(bytes, NOW - SKEW - SECOND),
            Err(EnvelopeError::FromTheFuture(NOW))
        );
        assert_eq!(
            verified(bytes, NOW + DAY + SKEW),
            Err(EnvelopeError::Expired(NOW + DAY))
        );
    }
}

#[test]
fn what_makes_no_sense_is_not_sealed() {
    let [key, _] = agreed();
    let seal = |draft: &Draft<'_>, sealing| Envelope::seal(&identity(1), draft, sealing, &mut rng(5));
    let never = Draft {
        expires: NOW,
        ..draft(b"")
    };
    assert_eq!(seal(&never, Sealing::None(None)), Err(EnvelopeSealError::NeverValid));
    let late = Draft {
        sent: key.expires(),
        expires: key.expires() + DAY,
        ..draft(b"")
    };
    assert_eq!(
        seal(&late, Sealing::Symmetric(&key)),
        Err(EnvelopeSealError::KeyExpired(key.id()))
    );
    let long = vec![0; MAX_PAYLOAD_BYTES + 1];
    assert_eq!(
        seal(&draft(&long), Sealing::None(None)),
        Err(EnvelopeSealError::TooLarge)
    );
    let nobody = KnownPeer {
        node: node(2),
        key: StaticPublic::from_bytes([0; 32]),
    };
    assert_eq!(
        seal(&draft(b""), Sealing::Asymmetric(&nobody)),
        Err(EnvelopeSealError::Key)
    );
}

#[test]
fn the_longest_message_fits() {
    let (payload, [key, _]) = (vec![5; MAX_PAYLOAD_BYTES], agreed());
    let envelope = Envelope::seal(&identity(1), &draft(&payload), Sealing::Symmetric(&key), &mut rng(5)).unwrap();
    let verified = verified(envelope.bytes(), NOW).unwrap();
    assert!(verified.open(&Keys::of(2).opener(false)).unwrap() == payload);
    assert_eq!(
        Envelope::decode(&vec![0; MAX_ENVELOPE_BYTES + 1]),
        Err(EnvelopeError::TooLarge)
    );
}

#[test]
fn an_envelope_sealed_after_its_key_ended_is_not_opened() {
    let [mut key, mut theirs] = agreed();
    theirs.expires = NOW;
    key.expires = NOW + DAY;
    let sealed = Envelope::seal(&identity(1), &draft(b""), Sealing::Symmetric(&key), &mut rng(5)).unwrap();
    let keys = Keys {
        shared_keys: vec![theirs],
        ..Keys::of(2)
    };
    let opened = verified(sealed.bytes(), NOW).unwrap().open(&keys.opener(true));
    assert_eq!(opened, Err(EnvelopeOpenError::KeyExpired(key.id())));
}

#[test]
fn the_encryption_is_a_word_in_a_configuration() {
    for encryption in [Encryption::Asymmetric, Encryption::Symmetric, Encryption::None] {
        let json = serde_json::to_string(&encryption).unwrap();
        assert_eq!(json, format!("\"{encryption}\""));
        assert_eq!(serde_json::from_str::<Encryption>(&json).unwrap(), encryption);
    }
    assert_eq!(Encryption::default(), Encryption::Asymmetric);
}

/// A public envelope of node `sender` with this id and these times, verified.
fn dated(sender: u8, id: u8, sent: UnixTime, expires: UnixTime) -> VerifiedEnvelope {
    let draft = Draft {
        id: EnvelopeId::from_bytes([id; 16]),
        sent,
        expires,
        ..draft(b"")
    };
    let envelope = Envelope::seal(&identity(sender), &draft, Sealing::None(None), &mut rng(5)).unwrap();
    envelope.verify(&network(), sent, SKEW).unwrap()
}

fn guard() -> ReplayGuard {
    ReplayGuard::new(GuardLimits::default(), NOW - DAY)
}

#[test]
fn an_envelope_counts_once() {
    let mut guard = guard();
    let envelope = dated(1, 1, NOW, NOW + DAY);
    assert_eq!(guard.admit(&envelope, NOW), Ok(()));
    assert_eq!(guard.admit(&envelope, NOW), Err(ReplayError::Repeated));
    // The id of another sender is another.
    assert_eq!(guard.admit(&dated(2, 1, NOW, NOW + DAY), NOW), Ok(()));
    let last = NOW + DAY + SKEW;
    assert_eq!(guard.admit(&envelope, last - SECOND), Err(ReplayError::Repeated));
    assert_eq!(guard.admit(&envelope, last), Err(ReplayError::Expired));
    assert_eq!(guard.remembered().len(), 0);
    // Not even with a clock that is set back.
    assert_eq!(guard.admit(&envelope, NOW), Err(ReplayError::Expired));
}

#[test]
fn what_cannot_be_remembered_does_not_count() {
    let mut guard = guard();
    let long = dated(1, 1, NOW, NOW + DAY * 8);
    assert_eq!(guard.admit(&long, NOW), Err(ReplayError::LivesTooLong));
    let early = dated(1, 2, NOW - DAY - SECOND, NOW + DAY);
    assert_eq!(guard.admit(&early, NOW), Err(ReplayError::BeforeMemory));
    let future = dated(1, 3, NOW + SKEW + SECOND, NOW + DAY);
    assert_eq!(guard.admit(&future, NOW), Err(ReplayError::FromTheFuture));
    let limits = GuardLimits {
        capacity: 4,
        per_sender: 2,
        ..GuardLimits::default()
    };
    let mut guard = ReplayGuard::new(limits, NOW - DAY);
    let mut admit = |sender, id, now| guard.admit(&dated(sender, id, now, now + DAY), now);
    assert_eq!(
        [1, 2, 3].map(|id| admit(1, id, NOW)),
        [Ok(()), Ok(()), Err(ReplayError::Full)]
    );
    assert_eq!([1, 2].map(|id| admit(2, id, NOW)), [Ok(()), Ok(())]);
    assert_eq!(admit(3, 1, NOW), Err(ReplayError::Full));
    // When the first are forgotten, there is room.
    assert_eq!(admit(3, 1, NOW + DAY + SKEW), Ok(()));
}

#[test]
fn a_guard_goes_on_where_it_ended() {
    let mut guard = guard();
    let envelopes: Vec<_> = (0..5).map(|id| dated(1, id, NOW, NOW + DAY)).collect();
    for envelope in &envelopes {
        guard.admit(envelope, NOW).unwrap();
    }
    let kept: Vec<_> = guard.remembered().copied().collect();
    let restore = |guard: &ReplayGuard, kept: Vec<_>| {
        ReplayGuard::restore(GuardLimits::default(), guard.since(), guard.forgotten(), kept)
    };
    let mut again = restore(&guard, kept);
    for envelope in &envelopes {
        assert_eq!(again.admit(envelope, NOW), Err(ReplayError::Repeated));
    }
    assert_eq!(again.admit(&dated(1, 9, NOW, NOW + DAY), NOW), Ok(()));
    // What was forgotten stays so, also for a clock that was set back meanwhile.
    let late = NOW + DAY + SKEW;
    assert_eq!(again.admit(&envelopes[0], late), Err(ReplayError::Expired));
    assert_eq!(again.remembered().len(), 0);
    let mut later = restore(&again, Vec::new());
    assert_eq!(later.admit(&envelopes[0], NOW), Err(ReplayError::Expired));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn envelopes_come_back_from_their_bytes(
        payload in vec(any::<u8>(), 0..2000),
        id: [u8; 16],
        sent in 0..1u64 << 40,
        length in 1..1u64 << 30,
        which in 0usize..3,
    ) {
        let (mut key, peer) = (agreed()[0].clone(), party(2).known());
        key.expires = UnixTime(u64::MAX);
        let sealing = [Sealing::Asymmetric(&peer), Sealing::Symmetric(&key), Sealing::None(None)][which];
        let draft = Draft {
            id: EnvelopeId::from_bytes(id),
            network: network(),
            sent: UnixTime(sent),
            expires: UnixTime(sent + length),
            payload: &payload,
        };
        let sealed = Envelope::seal(&identity(1), &draft, sealing, &mut rng(5)).unwrap();
        let read = Envelope::decode(sealed.bytes()).unwrap();
        prop_assert_eq!(&read, &sealed);
        let mut keys = Keys::of(2);
        keys.shared_keys[0].expires = UnixTime(u64::MAX);
        let verified = read.verify(&network(), UnixTime(sent), SKEW).unwrap();
        prop_assert_eq!(verified.open(&keys.opener(true)).unwrap(), payload);
    }

    #[test]
    fn a_guard_lets_nothing_count_twice_whatever_the_clock_does(
        steps in vec((0u8..12, -4000i64..4000), 1..80),
    ) {
        let limits = GuardLimits { capacity: 6, per_sender: 4, max_lifetime: Duration::from_secs(3000), ..GuardLimits::default() };
        let mut guard = ReplayGuard::new(limits, NOW);
        let mut counted = std::collections::BTreeSet::new();
        for (which, clock) in steps {
            let sent = NOW + Duration::from_secs(u64::from(which) * 500);
            let envelope = dated(1 + which % 3, which, sent, sent + Duration::from_secs(2000));
            let now = UnixTime(NOW.0.saturating_add_signed(clock) + 3000);
            if guard.admit(&envelope, now).is_ok() {
                prop_assert!(counted.insert(which));
            }
            prop_assert!(guard.remembered().len() <= 6);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_of_envelopes_panic(
        bytes in vec(any::<u8>(), 0..400),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        which in 0usize..4,
    ) {
        prop_assert!(Envelope::decode(&bytes).is_err());
        let (_, envelope) = envelopes(b"some words").swap_remove(which);
        let mut damaged = envelope.bytes().to_vec();
        for (place, byte) in edits {
            let place = place.index(damaged.len());
            damaged[place] = byte;
        }
        let same = damaged == envelope.bytes();
        prop_assert_eq!(verified(&damaged, NOW).is_ok(), same);
        prop_assert!(verified(&damaged[..cut.index(damaged.len())], NOW).is_err());
    }
}
