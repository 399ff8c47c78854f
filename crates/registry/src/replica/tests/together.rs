//! Deltas that come together are taken as they are one by one.

use proptest::prelude::*;

use super::lies::{signed, up_to};
use super::*;
use crate::signature;

#[test]
fn a_head_is_taken_alone_where_it_is_taken_among_others() {
    // A key of order eight, and signatures with it that fit the letter of RFC 8032 for one message of eight: the reason
    // for ZIP 215, by which all fit.
    let order_eight = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let byte = |place: usize| u8::from_str_radix(&order_eight[2 * place..2 * place + 2], 16).unwrap();
    let node = NodeId::from_bytes(std::array::from_fn(byte));
    let neutral: [u8; 64] = std::array::from_fn(|place| u8::from(place == 0));
    let mut heads = Vec::new();
    for epoch in 1..=16 {
        let good = signed(&key(1), &up_to(epoch, 1), &[], NOW, NOW + DAY);
        let said = &good.bytes()[32..good.bytes().len() - 64];
        heads.push(Head::parse(&[node.as_bytes(), said, &neutral].concat()).unwrap());
    }
    assert!(heads.iter().all(|head| head.is_signed(&network())));
    assert!(signature::are_signed(heads.iter(), &network()));
    let elsewhere = Keypair::from_seed([8; 32]).network_id();
    let other = Head::parse(signed(&key(1), &up_to(1, 1), &[], NOW, NOW + DAY).bytes()).unwrap();
    assert!(other.is_signed(&network()) && !other.is_signed(&elsewhere));
    assert!(!signature::are_signed(heads.iter().chain([&other]), &elsewhere));
}

/// What happens to a delta on its way.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Comes,
    Twice,
    /// One bit is another, wherever that is.
    Altered(prop::sample::Index),
    Lost,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Comes),
        1 => Just(Fate::Twice),
        1 => any::<prop::sample::Index>().prop_map(Fate::Altered),
        1 => Just(Fate::Lost),
    ]
}

proptest! {
    #[test]
    fn several_at_once_are_taken_as_one_by_one(fates in prop::collection::vec(fate(), 0..200)) {
        let mut owners: Vec<Member> = (10..15).map(|node| Member::new(node, 100)).collect();
        let mut deltas = Vec::new();
        for (number, fate) in fates.iter().enumerate() {
            let owner = &mut owners[number % 5];
            let mut delta = match number / 5 {
                0 => owner.set_node("here"),
                some => owner.set_agent(some as u32 % 3, &number.to_string()),
            };
            match fate {
                Fate::Comes => {}
                Fate::Twice => deltas.push(delta.clone()),
                Fate::Altered(place) => {
                    let place = place.index(delta.len() * 8);
                    delta[place / 8] ^= 1 << (place % 8);
                }
                Fate::Lost => continue,
            }
            deltas.push(delta);
        }
        let (mut one, mut all) = (Member::up(1, 100), Member::up(1, 100));
        let singly: Vec<_> = deltas.iter().map(|delta| one.apply(delta)).collect();
        let together = all.replica.apply_all(&deltas, NOW, verify);
        prop_assert_eq!(singly, together);
        prop_assert_eq!(one.ids(), all.ids());
    }
}
