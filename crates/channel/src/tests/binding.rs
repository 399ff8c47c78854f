//! Bindings: whose key is whose.

use proptest::prelude::*;

use super::*;

fn binding() -> Binding {
    Binding::sign(&identity(1), static_key(1).public(), Validity::of(NOW, DAY), NOW).unwrap()
}

fn verified(bytes: &[u8], now: UnixTime) -> Result<Bound, BindingError> {
    Binding::decode(bytes)?.verify(now, SKEW)
}

#[test]
fn a_binding_says_whose_key_it_is_and_until_when() {
    let bound = verified(&binding().encode(), NOW).unwrap();
    assert_eq!(
        bound,
        Bound {
            node: node(1),
            key: static_key(1).public(),
            expires: NOW + DAY
        }
    );
}

#[test]
fn a_binding_holds_within_its_time_only() {
    let bytes = binding().encode();
    assert!(verified(&bytes, NOW - SKEW).is_ok());
    assert_eq!(
        verified(&bytes, NOW - SKEW - SECOND),
        Err(BindingError::NotYetValid(NOW))
    );
    assert!(verified(&bytes, NOW + DAY + SKEW - SECOND).is_ok());
    assert_eq!(
        verified(&bytes, NOW + DAY + SKEW),
        Err(BindingError::Expired(NOW + DAY))
    );
    let never = Validity {
        not_before: NOW,
        expires: NOW,
    };
    let signed = Binding::sign(&identity(1), static_key(1).public(), never, NOW);
    assert_eq!(signed, Err(BindingError::NeverValid));
}

#[test]
fn a_binding_does_not_hold_before_it_was_made() {
    let early = Validity {
        not_before: NOW - DAY,
        expires: NOW + DAY,
    };
    let made = Binding::sign(&identity(1), static_key(1).public(), early, NOW).unwrap();
    let before = made.verify(NOW - SKEW - SECOND, SKEW);
    assert_eq!(before, Err(BindingError::NotYetValid(NOW)));
    assert!(made.verify(NOW - SKEW, SKEW).is_ok());
}

#[test]
fn a_binding_is_of_a_key_of_x25519() {
    let made = binding().encode();
    // The curve, behind the label -1: 4 is X25519, 6 would be Ed25519.
    let place = made.windows(3).position(|part| part == [0x20, 0x04, 0x21]).unwrap();
    let mut other = made.clone();
    other[place + 1] = 0x06;
    assert_eq!(Binding::decode(&other), Err(BindingError::Malformed("no valid cnf")));
    assert!(Binding::decode(&made).is_ok());
}

#[test]
fn any_flipped_bit_in_a_binding_is_refused() {
    let bytes = binding().encode();
    for bit in 0..bytes.len() * 8 {
        assert!(verified(&flipped(&bytes, bit), NOW).is_err(), "bit {bit}");
    }
    assert_eq!(
        Binding::decode(&vec![0; MAX_BINDING_BYTES + 1]),
        Err(BindingError::TooLarge)
    );
}

#[test]
fn another_statement_of_the_same_node_is_no_binding() {
    let authority = dawn_identity::Authority::Root { key: identity(1) };
    let revocation = authority.revoke(node(2), NOW).unwrap().encode();
    // A list of one statement: the statement itself is behind its head.
    for front in 0..8 {
        assert!(Binding::decode(&revocation[front..]).is_err());
    }
}

proptest! {
    #[test]
    fn bindings_come_back_from_their_bytes(seed: [u8; 32], key: [u8; 32], begin in 0..1u64 << 40, length in 1..1u64 << 40) {
        let identity = Keypair::from_seed(seed);
        let validity = Validity::of(UnixTime(begin), Duration::from_secs(length));
        let binding = Binding::sign(&identity, StaticPublic::from_bytes(key), validity, UnixTime(begin)).unwrap();
        prop_assert_eq!(Binding::decode(&binding.encode()), Ok(binding));
    }

    #[test]
    fn no_bytes_make_the_reader_of_bindings_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Binding::decode(&bytes).is_err());
    }
}
