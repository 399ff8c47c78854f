//! How many items some CBOR is made of, counted before anything is built of it: an item of one byte takes some forty in
//! memory, so that what is bounded in bytes alone could take all there is.

/// Whether `bytes` are exactly one item of CBOR (RFC 8949, section 3), with at most `most` items in all, all of definite
/// length. What is in byte strings is not looked at.
pub(crate) fn has_at_most(most: u64, bytes: &[u8]) -> bool {
    items(most, bytes).is_some_and(<[u8]>::is_empty)
}

/// What is behind the first item of `bytes`.
fn items(most: u64, bytes: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut due, mut found) = (bytes, 1u64, 0);
    while due > 0 {
        found += 1;
        if due.saturating_add(found) > most.saturating_add(1) {
            return None;
        }
        let (&head, behind) = rest.split_first()?;
        let (argument, behind) = match head & 0x1f {
            short @ 0..=23 => (u64::from(short), behind),
            width @ 24..=27 => {
                let (argument, behind) = behind.split_at_checked(1 << (width - 24))?;
                let number = argument.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                (number, behind)
            }
            // Reserved, or of indefinite length.
            _ => return None,
        };
        due = match head >> 5 {
            4 => due.saturating_add(argument),
            5 => due.saturating_add(argument).saturating_add(argument),
            6 => due.saturating_add(1),
            _ => due,
        } - 1;
        rest = match head >> 5 {
            2 | 3 => behind.get(usize::try_from(argument).ok()?..)?,
            _ => behind,
        };
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use ciborium::Value;
    use proptest::prelude::*;

    use super::*;

    fn count(value: &Value) -> u64 {
        match value {
            Value::Array(items) => 1 + items.iter().map(count).sum::<u64>(),
            Value::Map(pairs) => 1 + pairs.iter().map(|(key, value)| count(key) + count(value)).sum::<u64>(),
            Value::Tag(_, inner) => 1 + count(inner),
            _ => 1,
        }
    }

    fn encoded(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_not_one_whole_item_is_refused() {
        for bytes in [
            &[][..],
            &[0x00, 0x00],
            &[0x58],
            &[0x42, 0],
            &[0x81],
            &[0xa1, 0],
            &[0xc1],
            &[0x1c],
        ] {
            assert!(!has_at_most(100, bytes), "{bytes:x?}");
        }
        // Of indefinite length.
        assert!(!has_at_most(100, &[0x9f, 0xff]));
        assert!(!has_at_most(100, &[0x5f, 0xff]));
        // Longer than anything.
        assert!(!has_at_most(
            u64::MAX,
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        ));
        assert!(!has_at_most(
            u64::MAX,
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        ));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
            "[a-zä]{0,40}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::vec((inner.clone(), inner.clone()), 0..8).prop_map(Value::Map),
                (6u64..100_000, inner).prop_map(|(tag, inner)| Value::Tag(tag, Box::new(inner))),
            ]
        })
    }

    proptest! {
        #[test]
        fn as_many_items_are_counted_as_there_are(value in value()) {
            let (bytes, count) = (encoded(&value), count(&value));
            prop_assert!(has_at_most(count, &bytes));
            prop_assert!(!has_at_most(count - 1, &bytes));
            prop_assert!(!has_at_most(count + 1, &[&bytes[..], &[0]].concat()));
        }
    }
}
