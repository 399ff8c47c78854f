//! The Noise patterns in use against the published vectors of `cacophony`.

use zeroize::Zeroizing;

use super::primitives::{hex, hex32};
use crate::aead::AeadKey;
use crate::dh::StaticKey;
use crate::noise::{Noise, Pattern, Role, Setup};

/// The keys and the prologue of all vectors.
const PROLOGUE: &str = "4a6f686e2047616c74";
const INITIATOR: &str = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
const INITIATOR_EPHEMERAL: &str = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
const RESPONDER: &str = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
const RESPONDER_EPHEMERAL: &str = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
const PSK: &str = "54686973206973206d7920417573747269616e20706572737065637469766521";
/// The payloads of all vectors.
const PAYLOADS: [&str; 6] = [
    "4c756477696720766f6e204d69736573",
    "4d757272617920526f746862617264",
    "462e20412e20486179656b",
    "4361726c204d656e676572",
    "4a65616e2d426170746973746520536179",
    "457567656e2042f6686d20766f6e2042617765726b",
];

struct Vector {
    pattern: Pattern,
    handshake_messages: usize,
    hash: &'static str,
    ciphertexts: [&'static str; 6],
}

fn noise(pattern: Pattern, role: Role) -> Noise {
    let [initiator, responder] = [INITIATOR, RESPONDER].map(|key| StaticKey::from_bytes(hex32(key)));
    let (local, remote, ephemeral) = match role {
        Role::Initiator => (initiator, responder.public(), INITIATOR_EPHEMERAL),
        Role::Responder => (responder, initiator.public(), RESPONDER_EPHEMERAL),
    };
    let knows = match pattern {
        Pattern::Ik => role == Role::Initiator,
        Pattern::Xx => false,
        Pattern::KkPsk0 => true,
    };
    let psk = Zeroizing::new(hex32(PSK));
    Noise::new(Setup {
        pattern,
        role,
        prologue: &hex(PROLOGUE),
        local: &local,
        remote: knows.then_some(&remote),
        psk: (pattern == Pattern::KkPsk0).then_some(&psk),
        ephemeral: Zeroizing::new(hex32(ephemeral)),
    })
    .unwrap()
}

fn check(vector: &Vector) {
    let mut sides = [Role::Initiator, Role::Responder].map(|role| noise(vector.pattern, role));
    let messages = || PAYLOADS.into_iter().zip(vector.ciphertexts).enumerate();
    for (number, (payload, ciphertext)) in messages().take(vector.handshake_messages) {
        let message = sides[number % 2].write(&[], &hex(payload)).unwrap();
        assert_eq!(message, hex(ciphertext), "{:?}, message {number}", vector.pattern);
        assert_eq!(sides[1 - number % 2].read(&message), Ok(hex(payload)));
    }
    let [initiator, responder] = sides.map(|side| side.finish().unwrap());
    assert_eq!(initiator.hash, hex32(vector.hash));
    assert_eq!(responder.hash, initiator.hash);
    assert_eq!(
        (&responder.initiator, &responder.responder),
        (&initiator.initiator, &initiator.responder)
    );
    let keys = [initiator.initiator, initiator.responder].map(|key| AeadKey::new(&key).unwrap());
    let mut numbers = [0; 2];
    for (number, (payload, ciphertext)) in messages().skip(vector.handshake_messages) {
        let mut text = hex(payload);
        let tag = keys[number % 2].seal(numbers[number % 2], &[], &mut text).unwrap();
        numbers[number % 2] += 1;
        assert_eq!([&text[..], &tag].concat(), hex(ciphertext), "{:?}", vector.pattern);
    }
}

#[test]
fn ik_is_as_published() {
    check(&Vector {
        pattern: Pattern::Ik,
        handshake_messages: 2,
        hash: "669c8640d9e42a3cda2f232f78597ceefb01daa6e3df81181ccce6fc6b5026bf",
        ciphertexts: [
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444e417bc55c7a8166c993356c1be41ef67818a292426f301556c7f26b21d25ddb097153891a9a956cff47b83e63ad8d701c1342c209cff1ca5ecd43402762ac249e3bd3a4c0a145fe07cb5dae28ea13a3",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843af2ccf9972e22afc67aeafcd25162f7f98c363b7762e3e4cb7d272e39f27a5",
            "66acfc92e3197de166809e6d4d5d003dcc819a84bc3522ca53c9d9",
            "71f89aa6533a6de70b0826864dd75f60806ee40170c16290189eb3",
            "4795a3423550c8bf00386bd496a3e2c76c10669d2a75ab8f79b5094c5412a25705",
            "aa0bb39097555c918e40be82abc2b909eb79d9eb87adb07e268fc37323a6cf904fd01fb391",
        ],
    });
}

#[test]
fn xx_is_as_published() {
    check(&Vector {
        pattern: Pattern::Xx,
        handshake_messages: 3,
        hash: "1b7aefb1125762aa21a252890d00af54519638b76437444538f9a52f21e2e0dc",
        ciphertexts: [
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843757117acceb05bd7a45733bc22015c97a9d0cbaf41b80446d5988ff5127235d76b79eade70f473d6a4ef521fdcbeda5340d01e028ba793fc059f2724a83af05f12dda0448a7621a926b379a92477fd",
            "c90f1cf77eba4e50edb038991565e36c9758943a989229b6051244dc4fbecb6946744b401af2ee1a5881b65fbb87fd07cb6a328ececc9ce6ce84c399dc332d4fd521fa4bb7f467ce909395",
            "bc3fa77f6aca3e8466d7dc6bea10013e88a6a29add5132b461806c",
            "250b01074cdfe0df2ecf8ccbf1737b15a2ddb5b52fd9a396604e9c793cee3b3bb9",
            "449d4d433b3cdc3d02bf6fc881774b9df54366ebcffb9689bb13f14709822cd7ef42bcdb4d",
        ],
    });
}

#[test]
fn the_pattern_of_rekeys_is_as_published() {
    check(&Vector {
        pattern: Pattern::KkPsk0,
        handshake_messages: 2,
        hash: "574508da75f9e5a1c25707190adc49e63c754ec27a4183d9e6acc312e076613a",
        ciphertexts: [
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79441f33bde990995eea7167375d6b68e2a7fa07887dd4f0f21023317d7b04fb0a67",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843e3502578269a63176a4e59632b20df3393996180e261048266e49c0c0d9240",
            "a08f4d4f142f605e9b30daa66784552576b30265889139b97f15cf",
            "5871e43af881754e8ba7def42a69c23bfc9f7d47c3c1009f8ed986",
            "9e20a696864cb0e321197abcd721538c2155073c14313c3fa243a65fef13eb0e79",
            "c4fa90a3f3e7524bdf5dce131ad0b67a0fa1eedd30f717a42596bef8f53d369b5dc94ce508",
        ],
    });
}
