//! Each primitive in use, as this crate uses it, against what was published of it: RFC 8032, 7748, 5869, and Wycheproof.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use dawn_identity::{SIGNATURE_BYTES, verify};
use hmac::{Hmac, Mac};
use wycheproof::TestResult;

use super::*;
use crate::aead::AeadKey;
use crate::dh::Agreement;
use crate::kdf::Derivation;

pub(super) fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

pub(super) fn hex32(text: &str) -> [u8; 32] {
    hex(text).try_into().unwrap()
}

/// RFC 8032, section 7.1: secret, public, message, signature.
const ED25519: [[&str; 4]; 4] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ],
    [
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ],
];

/// The same of the section's vector with a message of 1,023 bytes, which is long: Wycheproof has it too.
const ED25519_1024: [&str; 2] = [
    "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
    "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
];

fn check_ed25519(secret: &str, public: &str, message: &[u8], signature: &[u8]) {
    let key = Keypair::from_seed(hex32(secret));
    assert_eq!(key.public(), hex32(public));
    assert_eq!(key.sign(message)[..], *signature);
    assert!(verify(&key.public(), message, &key.sign(message)).is_ok());
}

#[test]
fn ed25519_is_that_of_rfc_8032() {
    for [secret, public, message, signature] in ED25519 {
        check_ed25519(secret, public, &hex(message), &hex(signature));
    }
    let [secret, public] = ED25519_1024;
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let groups = set.test_groups.into_iter();
    let mut its = groups.filter(|group| group.key.pk[..] == hex(public)[..]);
    let test = its.find_map(|group| group.tests.into_iter().find(|test| test.msg.len() == 1023));
    let test = test.unwrap();
    check_ed25519(secret, public, &test.msg, &test.sig);
}

fn x25519(secret: [u8; 32], public: [u8; 32]) -> [u8; 32] {
    *Agreement::new(&secret).unwrap().with(&public).unwrap()
}

#[test]
fn x25519_is_that_of_rfc_7748() {
    // Section 5.2: scalar, coordinate, product.
    for [scalar, point, product] in [
        [
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ],
        [
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ],
    ] {
        assert_eq!(x25519(hex32(scalar), hex32(point)), hex32(product));
    }
    // The same section: a thousand times, each result the next scalar.
    let mut base = [0; 32];
    base[0] = 9;
    let (mut scalar, mut point) = (base, base);
    for round in 1..=1000 {
        (scalar, point) = (x25519(scalar, point), scalar);
        if round == 1 {
            assert_eq!(
                scalar,
                hex32("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
            );
        }
    }
    assert_eq!(
        scalar,
        hex32("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
    );
    // Section 6.1: two parties.
    let alice = StaticKey::from_bytes(hex32(
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    ));
    let bob = StaticKey::from_bytes(hex32(
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    ));
    let public = [alice.public(), bob.public()];
    assert_eq!(
        public.map(|key| HEXLOWER.encode(key.as_bytes())),
        [
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
        ]
    );
    let shared = hex32("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(x25519(**alice.secret(), *bob.public().as_bytes()), shared);
    assert_eq!(x25519(**bob.secret(), *alice.public().as_bytes()), shared);
}

#[test]
fn both_implementations_of_x25519_make_the_same_public_key() {
    for seed in 0..32 {
        let key = StaticKey::from_bytes([seed; 32]);
        let other = Agreement::new(key.secret()).unwrap();
        assert_eq!(other.public(), key.public().as_bytes());
    }
}

#[test]
fn hkdf_is_that_of_rfc_5869() {
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    // Appendix A.1 to A.3: input, salt, info, output.
    let vectors = [
        (
            vec![0x0b; 22],
            range(0, 0x0c),
            range(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            range(0, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            vec![0x0b; 22],
            vec![],
            vec![],
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for (input, salt, info, output) in vectors {
        let output = hex(output);
        let (front, back) = input.split_at(input.len() / 2);
        let derivation = Derivation::new(&salt, &[front, back]);
        let mut expanded = vec![0; output.len()];
        derivation.expand(&info, &mut expanded);
        assert_eq!(expanded, output);
    }
}

#[test]
fn sha_256_is_that_of_fips_180() {
    let hash = digest::digest(&digest::SHA256, b"abc");
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hash.as_ref(), hex(expected));
}

#[test]
fn wycheproof_finds_nothing_wrong_with_ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut tried = 0;
    for group in set.test_groups {
        let public: [u8; 32] = group.key.pk.as_slice().try_into().unwrap();
        for test in group.tests {
            let signature: Result<[u8; SIGNATURE_BYTES], _> = test.sig.as_slice().try_into();
            let valid = signature.is_ok_and(|signature| verify(&public, &test.msg, &signature).is_ok());
            assert_eq!(
                valid,
                test.result == TestResult::Valid,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            tried += 1;
        }
    }
    assert!(tried > 100);
}

/// The agreement of the implementation behind HPKE; that of handshakes and exchanges is [`Agreement`].
fn x25519_of_hpke(secret: [u8; 32], public: [u8; 32]) -> Option<[u8; 32]> {
    let shared = x25519_dalek::StaticSecret::from(secret).diffie_hellman(&public.into());
    shared.was_contributory().then(|| shared.to_bytes())
}

#[test]
fn wycheproof_finds_nothing_wrong_with_x25519() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let mut tried = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let secret: [u8; 32] = test.private_key.as_slice().try_into().unwrap();
        let public: [u8; 32] = test.public_key.as_slice().try_into().unwrap();
        let shared = Agreement::new(&secret).unwrap().with(&public).ok();
        // Zeros are no secret; all else comes out as published.
        let secret_at_all = test.shared_secret.iter().any(|byte| *byte != 0);
        let expected = secret_at_all.then(|| test.shared_secret.to_vec());
        assert_eq!(
            shared.map(|shared| shared.to_vec()),
            expected,
            "{}: {}",
            test.tc_id,
            test.comment
        );
        assert_eq!(
            x25519_of_hpke(secret, public).map(|shared| shared.to_vec()),
            expected,
            "{}",
            test.tc_id
        );
        tried += 1;
    }
    assert!(tried > 500, "{tried}");
}

/// Seals with the implementation behind HPKE; that of channels and envelopes is [`AeadKey`].
fn seal_of_hpke(key: [u8; 32], nonce: [u8; 12], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sealed = text.to_vec();
    let cipher = Aes256Gcm::new(&key.into());
    let tag = cipher.encrypt_inout_detached(&nonce.into(), aad, sealed.as_mut_slice().into());
    sealed.extend_from_slice(&tag.unwrap());
    sealed
}

fn open_of_hpke(key: [u8; 32], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (text, tag) = sealed.split_last_chunk::<16>()?;
    let (mut text, cipher) = (text.to_vec(), Aes256Gcm::new(&key.into()));
    let opened = cipher.decrypt_inout_detached(&nonce.into(), aad, text.as_mut_slice().into(), &(*tag).into());
    opened.ok().map(|()| text)
}

#[test]
fn wycheproof_finds_nothing_wrong_with_aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let (mut tried, mut other_nonces) = (0, 0);
    for group in set.test_groups.into_iter().filter(|group| group.key_size == 256) {
        // Noise's nonces begin with four zeros; the cipher behind them takes all of 96 bits.
        if group.nonce_size != 96 || group.tag_size != 128 {
            other_nonces += group.tests.len();
            continue;
        }
        for test in group.tests {
            let bytes: [u8; 32] = test.key.as_slice().try_into().unwrap();
            let nonce: [u8; 12] = test.nonce.as_slice().try_into().unwrap();
            let key = AeadKey::new(&bytes).unwrap();
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let mut in_place = sealed.clone();
            let opened = key.open_with(nonce, &test.aad, &mut in_place).ok();
            let expected = (test.result == TestResult::Valid).then(|| test.pt.to_vec());
            assert_eq!(
                opened.map(|text| text.to_vec()),
                expected,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            assert_eq!(
                open_of_hpke(bytes, nonce, &test.aad, &sealed),
                expected,
                "{}",
                test.tc_id
            );
            if let Some(mut text) = expected {
                assert_eq!(seal_of_hpke(bytes, nonce, &test.aad, &text), sealed, "{}", test.tc_id);
                let tag = key.seal_with(nonce, &test.aad, &mut text).unwrap();
                assert_eq!([&text[..], &tag].concat(), sealed, "{}", test.tc_id);
            }
            tried += 1;
        }
    }
    assert!(tried > 60 && other_nonces > 0, "{tried}");
}

#[test]
fn wycheproof_finds_nothing_wrong_with_hkdf() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut tried = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        // More than there is; nothing here asks for so much.
        if test.size > 255 * 32 {
            assert_eq!(test.result, TestResult::Invalid);
            continue;
        }
        let mut expanded = vec![0; test.size];
        Derivation::new(&test.salt, &[&test.ikm]).expand(&test.info, &mut expanded);
        assert_eq!(expanded, test.okm[..], "{}: {}", test.tc_id, test.comment);
        tried += 1;
    }
    assert!(tried > 80, "{tried}");
}

#[test]
fn wycheproof_finds_nothing_wrong_with_hmac() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let mut tried = 0;
    for group in set.test_groups {
        // The proofs of a key exchange are whole.
        for test in group.tests.iter().filter(|_| group.tag_size == 256) {
            let mac = Hmac::<Sha256>::new_from_slice(&test.key).unwrap();
            let valid = mac.chain_update(&test.msg[..]).verify_slice(&test.tag).is_ok();
            let expected = test.result == TestResult::Valid;
            assert_eq!(valid, expected, "{}: {}", test.tc_id, test.comment);
            tried += 1;
        }
    }
    assert!(tried > 80, "{tried}");
}
