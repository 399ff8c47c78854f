//! The Noise patterns in use against all published vectors of them: those of `cacophony`, and those that go with `snow`.

use zeroize::Zeroizing;

use super::primitives::{hex, hex32};
use crate::aead::AeadKey;
use crate::dh::StaticKey;
use crate::noise::{Noise, Pattern, Role, Setup};

/// What both parties of a vector begin with.
struct Keys {
    prologue: &'static str,
    initiator: &'static str,
    initiator_ephemeral: &'static str,
    responder: &'static str,
    responder_ephemeral: &'static str,
}

/// Those of all vectors of `cacophony`.
const CACOPHONY: Keys = Keys {
    prologue: "4a6f686e2047616c74",
    initiator: "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
    initiator_ephemeral: "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    responder: "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
    responder_ephemeral: "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
};
const PSK: &str = "54686973206973206d7920417573747269616e20706572737065637469766521";

struct Vector {
    pattern: Pattern,
    keys: &'static Keys,
    handshake_messages: usize,
    /// The hash of the handshake, where it was published.
    hash: Option<&'static str>,
    /// Payloads with their ciphertexts, the initiator's and the responder's by turns.
    messages: &'static [(&'static str, &'static str)],
}

fn noise(vector: &Vector, role: Role) -> Noise {
    let (pattern, keys) = (vector.pattern, vector.keys);
    let [initiator, responder] = [keys.initiator, keys.responder].map(|key| StaticKey::from_bytes(hex32(key)));
    let (local, remote, ephemeral) = match role {
        Role::Initiator => (initiator, responder.public(), keys.initiator_ephemeral),
        Role::Responder => (responder, initiator.public(), keys.responder_ephemeral),
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
        prologue: &hex(keys.prologue),
        local: &local,
        remote: knows.then_some(&remote),
        psk: (pattern == Pattern::KkPsk0).then_some(&psk),
        ephemeral: Zeroizing::new(hex32(ephemeral)),
    })
    .unwrap()
}

fn check(vector: &Vector) {
    let mut sides = [Role::Initiator, Role::Responder].map(|role| noise(vector, role));
    let (handshake, transport) = vector.messages.split_at(vector.handshake_messages);
    for (number, (payload, ciphertext)) in handshake.iter().enumerate() {
        let message = sides[number % 2].write(&[], &hex(payload)).unwrap();
        assert_eq!(message, hex(ciphertext), "{:?}, message {number}", vector.pattern);
        assert_eq!(sides[1 - number % 2].read(&message), Ok(hex(payload)));
    }
    let [initiator, responder] = sides.map(|side| side.finish().unwrap());
    assert_eq!(initiator.hash, vector.hash.map_or(initiator.hash, hex32));
    assert_eq!(responder.hash, initiator.hash);
    assert_eq!(
        (&responder.initiator, &responder.responder),
        (&initiator.initiator, &initiator.responder)
    );
    let keys = [initiator.initiator, initiator.responder].map(|key| AeadKey::new(&key).unwrap());
    let mut numbers = [0; 2];
    for (number, (payload, ciphertext)) in (vector.handshake_messages..).zip(transport) {
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
        keys: &CACOPHONY,
        hash: Some("669c8640d9e42a3cda2f232f78597ceefb01daa6e3df81181ccce6fc6b5026bf"),
        messages: &[
            (
                "4c756477696720766f6e204d69736573",
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444e417bc55c7a8166c993356c1be41ef67818a292426f301556c7f26b21d25ddb097153891a9a956cff47b83e63ad8d701c1342c209cff1ca5ecd43402762ac249e3bd3a4c0a145fe07cb5dae28ea13a3",
            ),
            (
                "4d757272617920526f746862617264",
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843af2ccf9972e22afc67aeafcd25162f7f98c363b7762e3e4cb7d272e39f27a5",
            ),
            (
                "462e20412e20486179656b",
                "66acfc92e3197de166809e6d4d5d003dcc819a84bc3522ca53c9d9",
            ),
            (
                "4361726c204d656e676572",
                "71f89aa6533a6de70b0826864dd75f60806ee40170c16290189eb3",
            ),
            (
                "4a65616e2d426170746973746520536179",
                "4795a3423550c8bf00386bd496a3e2c76c10669d2a75ab8f79b5094c5412a25705",
            ),
            (
                "457567656e2042f6686d20766f6e2042617765726b",
                "aa0bb39097555c918e40be82abc2b909eb79d9eb87adb07e268fc37323a6cf904fd01fb391",
            ),
        ],
    });
}

#[test]
fn ik_is_as_published_with_other_keys() {
    check(&Vector {
        pattern: Pattern::Ik,
        handshake_messages: 2,
        keys: &Keys {
            prologue: "5468657265206973206e6f20726967687420616e642077726f6e672e2054686572652773206f6e6c792066756e20616e6420626f72696e672e",
            initiator: "98faebfdc44a30b111d755708980f247e06f6fd40909fec3d675508952a3f615",
            initiator_ephemeral: "01fed814d96619ca317a6011dab28db5f32cb9a29d9bdad0eaca9eb48d7b57c4",
            responder: "bf6aaf9bc0cd92c4c5f93ef0797f02b3bec9498cfb4a3b338f34b4d682112154",
            responder_ephemeral: "9af33ff27f261005a3e57f7a32a6abd17f57834b74b22bb7b7633abe80cd1f95",
        },
        hash: None,
        messages: &[
            (
                "8cb1797838a7e55bee256343e843befa874c504eb42eabcc843d26707fb3f051",
                "c3b79ee926435e045ffe4b100c9b7fd2548df6dbe26cdaf9ba7672e094abd46944b359dc54c040932dc7a5797b0efb1624fefa0161ef1fce7c196d06ae9ad1925c1d1127ae542bf18e8f5a4e3c0b7ba242e47b9dd5779de7ed251fac157c5957d33db53bb9e8d6f31ec0b0dc8f79855a139129acacdcea89ee8e29943c8fcde9",
            ),
            (
                "43365623b9d678439fe922abb9b75c2ded28fbaaa0ef2c0155b650bb3eca706d",
                "24ad0a9c3e786b299f8d2bd2edb4af785d5ffa432cb278a66234cf8e8f0a902c09a740060f734f0be6b91f563e4384a8da2e34bcc077ab29a017407dfae20a8386bb50d3df38dbfd2b57d39e6f7f667f",
            ),
            (
                "b9eed3d18bae1234e8180140025344e29b72d32db52ca89b142a1ac47295c91e",
                "1bb7ca95b86a472beac1fe0a203b3b1f0f0238669e89ac18819674ea34f158bd613721e58ea4339772aaff3f060086db",
            ),
            (
                "8a0724a71789f642fc06a2af90be6dded6bf2b5ab1a32e210ef19945cd0b9b68",
                "c57711be5a672510e6025bc0089a60d8abe47f6ae56bc7f794b8ec3d632f7a4378450ba76584ca1f23b9ae92cb72a1e0",
            ),
        ],
    });
}

#[test]
fn xx_is_as_published() {
    check(&Vector {
        pattern: Pattern::Xx,
        handshake_messages: 3,
        keys: &CACOPHONY,
        hash: Some("1b7aefb1125762aa21a252890d00af54519638b76437444538f9a52f21e2e0dc"),
        messages: &[
            (
                "4c756477696720766f6e204d69736573",
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573",
            ),
            (
                "4d757272617920526f746862617264",
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843757117acceb05bd7a45733bc22015c97a9d0cbaf41b80446d5988ff5127235d76b79eade70f473d6a4ef521fdcbeda5340d01e028ba793fc059f2724a83af05f12dda0448a7621a926b379a92477fd",
            ),
            (
                "462e20412e20486179656b",
                "c90f1cf77eba4e50edb038991565e36c9758943a989229b6051244dc4fbecb6946744b401af2ee1a5881b65fbb87fd07cb6a328ececc9ce6ce84c399dc332d4fd521fa4bb7f467ce909395",
            ),
            (
                "4361726c204d656e676572",
                "bc3fa77f6aca3e8466d7dc6bea10013e88a6a29add5132b461806c",
            ),
            (
                "4a65616e2d426170746973746520536179",
                "250b01074cdfe0df2ecf8ccbf1737b15a2ddb5b52fd9a396604e9c793cee3b3bb9",
            ),
            (
                "457567656e2042f6686d20766f6e2042617765726b",
                "449d4d433b3cdc3d02bf6fc881774b9df54366ebcffb9689bb13f14709822cd7ef42bcdb4d",
            ),
        ],
    });
}

#[test]
fn xx_is_as_published_with_other_keys() {
    check(&Vector {
        pattern: Pattern::Xx,
        handshake_messages: 3,
        keys: &Keys {
            prologue: "5468657265206973206e6f20726967687420616e642077726f6e672e2054686572652773206f6e6c792066756e20616e6420626f72696e672e",
            initiator: "67a147237ca2e511a5328abf44fc049e725d23ac193f1d5e8da60d543670cd39",
            initiator_ephemeral: "b4dbfea92d1afb2ce4a508bd5e014d21ee95ced8d12346d226985d40b2da95e7",
            responder: "0e64a9143ba4c2bb79a25cd1c12575a9da949b52338b32fe1208e4b598c9acc0",
            responder_ephemeral: "c3142e465cafd8356330d7f910146c5428a524e723df165d76a2d5a697aa7e6d",
        },
        hash: None,
        messages: &[
            (
                "09f6721fa79e976f05d523c07e4818bfad6903108a05734e3163cec30442fcf5",
                "c8a324f41408be37f760130b5a8f2c4e9c92bab229e9b78007aa43b7c7656b3409f6721fa79e976f05d523c07e4818bfad6903108a05734e3163cec30442fcf5",
            ),
            (
                "af62581a26fc31c4b722c1f04d73d845eb6daf35bcd64fc805a46a74bd747d90",
                "4e935a4c1dccaf91b78062590be1e790f984eeff2ab9a219e491387a99dbfe53b9ea4a0a1b78a30056a0615ef4cfcc5d5bcfa087abd07df701c08b2410ab385c490a43cd853a15a1d1e8162c25b78d362ff84afd1f02e0d0e8d25ada33fe5f8e8856cc49e9a896c1c10616508f52387ca29d35a037c7d1c968a45d07daf01667",
            ),
            (
                "bae081c11b0a050d08a48d4a2dd387bd927e18d12c1f2758ae712ec4e3948dc8",
                "72eb5f83ef7773b38886a657b2216368f76f51e90855aaec0c9cd65c7750c531b3ef8a9261065b9b73009e698c3e0e1e7153c64e842d877db5f0953c2a43f12bdee99b360ebc11ee64a2989bf8f486a45267753caf35ad5900224e9b04c4b5b2",
            ),
            (
                "062b027afab93baa74c7cdc1ac71b3486636bed142caec9f70f4dd672dbe120d",
                "9953df9aa4294b12364dd6896de6e705564a5583c67ed86f0b985054d63f4381bdb99faa8633893643d6ee3ba987344f",
            ),
            (
                "3000ff396f68e4d00ac10c97a4c14e5901e3245dc29f9a801427babd59bfc2a3",
                "d9ea28203c96f5ac9024541d8f05e5e9bbfedccf701d2a2130ddeada49446a546d03c3ed440558782120b95e537a229e",
            ),
        ],
    });
}

#[test]
fn the_pattern_of_rekeys_is_as_published() {
    check(&Vector {
        pattern: Pattern::KkPsk0,
        handshake_messages: 2,
        keys: &CACOPHONY,
        hash: Some("574508da75f9e5a1c25707190adc49e63c754ec27a4183d9e6acc312e076613a"),
        messages: &[
            (
                "4c756477696720766f6e204d69736573",
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79441f33bde990995eea7167375d6b68e2a7fa07887dd4f0f21023317d7b04fb0a67",
            ),
            (
                "4d757272617920526f746862617264",
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843e3502578269a63176a4e59632b20df3393996180e261048266e49c0c0d9240",
            ),
            (
                "462e20412e20486179656b",
                "a08f4d4f142f605e9b30daa66784552576b30265889139b97f15cf",
            ),
            (
                "4361726c204d656e676572",
                "5871e43af881754e8ba7def42a69c23bfc9f7d47c3c1009f8ed986",
            ),
            (
                "4a65616e2d426170746973746520536179",
                "9e20a696864cb0e321197abcd721538c2155073c14313c3fa243a65fef13eb0e79",
            ),
            (
                "457567656e2042f6686d20766f6e2042617765726b",
                "c4fa90a3f3e7524bdf5dce131ad0b67a0fa1eedd30f717a42596bef8f53d369b5dc94ce508",
            ),
        ],
    });
}
