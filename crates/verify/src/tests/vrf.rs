//! The function itself: vectors of RFC 9381, and what is no proof.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::clamp_integer;
use curve25519_dalek::traits::Identity as _;
use curve25519_dalek::{EdwardsPoint, Scalar};
use data_encoding::HEXLOWER;
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};
use vrf_rfc9381::ec::edwards25519::EdVrfProof;
use vrf_rfc9381::ec::edwards25519::tai::EdVrfEdwards25519TaiPublicKey;
use vrf_rfc9381::{Proof as _, Verifier as _};

use super::*;
use crate::vrf::{BadProof, PROOF_BYTES, Proof, prove};

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

/// Secret key, input, proof and output of RFC 9381, appendix B.3, examples 16 to 18.
const VECTORS: [[&str; 4]; 3] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "",
        "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee1b190bed1f479d97\
         27d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805",
        "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff\
         66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "72",
        "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3ed7f2fea45c92a465\
         301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02",
        "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb\
         5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "af82",
        "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c362d8628ee9f9ea3c0\
         e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e",
        "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45\
         2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
    ],
];

#[test]
fn the_vectors_of_rfc_9381_come_out() {
    for [secret, alpha, pi, beta] in VECTORS {
        let key = Keypair::from_seed(bytes(secret));
        let alpha = HEXLOWER.decode(alpha.as_bytes()).unwrap();
        let (proof, output) = prove(&key, &alpha).unwrap();
        assert_eq!(HEXLOWER.encode(proof.as_bytes()), pi);
        assert_eq!(HEXLOWER.encode(output.as_bytes()), beta);
        assert_eq!(Proof::from_bytes(bytes(pi)).verify(&key.node_id(), &alpha), Ok(output));
    }
}

#[test]
fn a_proof_with_any_bit_flipped_is_none() {
    let (proof, _) = prove(&key(1), b"dawn").unwrap();
    for bit in 0..PROOF_BYTES * 8 {
        let mut bytes = *proof.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            Proof::from_bytes(bytes).verify(&node(1), b"dawn"),
            Err(BadProof),
            "bit {bit}"
        );
    }
    assert_eq!(proof.verify(&node(2), b"dawn"), Err(BadProof));
    assert_eq!(proof.verify(&node(1), b"dusk"), Err(BadProof));
}

/// Adds the order of the group to `s`, little-endian.
fn plus_order(proof: &Proof) -> [u8; PROOF_BYTES] {
    let order: [u8; 32] = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut bytes = *proof.as_bytes();
    let mut carry = 0;
    for (byte, more) in bytes[48..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    bytes
}

#[test]
fn a_proof_has_one_encoding() {
    let (proof, beta) = prove(&key(1), b"dawn").unwrap();
    let other = plus_order(&proof);
    // The library takes it for the same proof.
    let library = EdVrfEdwards25519TaiPublicKey::from_slice(node(1).as_bytes()).unwrap();
    let taken = library.verify(b"dawn", EdVrfProof::decode_pi(&other).unwrap()).unwrap();
    assert_eq!(taken[..], beta.as_bytes()[..]);
    assert_eq!(Proof::from_bytes(other).verify(&node(1), b"dawn"), Err(BadProof));
    // A y beyond the prime: one again, which is read as the neutral element.
    let mut beyond = *proof.as_bytes();
    beyond[..32].fill(0xff);
    (beyond[0], beyond[31]) = (0xee, 0x7f);
    assert!(EdVrfProof::decode_pi(&beyond).is_ok());
    assert_eq!(Proof::from_bytes(beyond).verify(&node(1), b"dawn"), Err(BadProof));
}

/// The point of the curve that an input stands for under a key (RFC 9381, section 5.4.1.1).
fn point_of(key: &NodeId, alpha: &[u8]) -> EdwardsPoint {
    let candidate = |counter: u8| {
        let hash = Sha512::new_with_prefix([3, 1])
            .chain_update(key.as_bytes())
            .chain_update(alpha)
            .chain_update([counter, 0])
            .finalize();
        CompressedEdwardsY::from_slice(&hash[..32]).unwrap().decompress()
    };
    (0..255).find_map(candidate).unwrap().mul_by_cofactor()
}

/// The challenge over five points (RFC 9381, section 5.4.3).
fn challenge(points: [EdwardsPoint; 5]) -> [u8; 16] {
    let mut hash = Sha512::new_with_prefix([3, 2]);
    for point in points {
        hash.update(point.compress().as_bytes());
    }
    hash.update([0]);
    hash.finalize()[..16].try_into().unwrap()
}

fn written(gamma: &EdwardsPoint, challenge: &[u8; 16], s: &Scalar) -> Proof {
    let bytes = [&gamma.compress().as_bytes()[..], challenge, s.as_bytes()].concat();
    Proof::from_bytes(bytes.try_into().unwrap())
}

#[test]
fn a_key_of_small_order_proves_nothing() {
    // The neutral element: its proofs would be there for everybody to make.
    let neutral = EdwardsPoint::identity();
    let key = NodeId::from_bytes(neutral.compress().to_bytes());
    let c = challenge([neutral, point_of(&key, b"dawn"), neutral, neutral, neutral]);
    let proof = written(&neutral, &c, &Scalar::ZERO);
    assert_eq!(proof.verify(&key, b"dawn"), Err(BadProof));
    let none = NodeId::from_bytes([0xff; 32]);
    assert_eq!(proof.verify(&none, b"dawn"), Err(BadProof));
}

#[test]
fn who_makes_a_proof_can_make_another_and_the_output_stays() {
    let (proof, beta) = prove(&key(1), b"dawn").unwrap();
    let secret = Sha512::digest([1; 32])[..32].try_into().unwrap();
    let x = Scalar::from_bytes_mod_order(clamp_integer(secret));
    let (y, h) = (EdwardsPoint::mul_base(&x), point_of(&node(1), b"dawn"));
    assert_eq!(y.compress().as_bytes(), node(1).as_bytes());
    let gamma = x * h + EIGHT_TORSION[1];
    // What was added is gone where the challenge is a multiple of eight.
    let (k, c) = (1_u64..)
        .map(|k| {
            (
                Scalar::from(k),
                challenge([y, h, gamma, EdwardsPoint::mul_base(&k.into()), Scalar::from(k) * h]),
            )
        })
        .find(|(_, c)| c[0] % 8 == 0)
        .unwrap();
    let other = written(&gamma, &c, &(k + Scalar::from(u128::from_le_bytes(c)) * x));
    assert_ne!(other, proof);
    assert_eq!(other.verify(&node(1), b"dawn"), Ok(beta));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_proven_is_verified_and_comes_out_the_same_again(seed: [u8; 32], alpha: Vec<u8>) {
        let key = Keypair::from_seed(seed);
        let (proof, beta) = prove(&key, &alpha).unwrap();
        prop_assert_eq!(prove(&key, &alpha).unwrap(), (proof, beta));
        prop_assert_eq!(proof.verify(&key.node_id(), &alpha), Ok(beta));
        prop_assert_eq!(proof.verify(&node(1), &alpha), Err(BadProof));
    }
}
