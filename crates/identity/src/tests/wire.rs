//! The bytes on the wire, from fixed seeds: a change of a format shows here and nowhere else.

use data_encoding::HEXLOWER;

use super::*;

/// Hexadecimal in lines of 32 bytes.
fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(32)
        .map(|line| HEXLOWER.encode(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn certificates_and_chains_keep_their_bytes() {
    let [by_root, by_admin] = chains();
    insta::assert_snapshot!("certificate", hex(&by_root.leaf.encode()));
    insta::assert_snapshot!("chain_by_network_key", hex(&by_root.encode()));
    insta::assert_snapshot!("chain_by_admin", hex(&by_admin.encode()));
}

#[test]
fn revocations_keep_their_bytes() {
    let [by_root, by_admin] = revocations();
    insta::assert_snapshot!("revocation_by_network_key", hex(&by_root.encode()));
    insta::assert_snapshot!("revocation_by_admin", hex(&by_admin.encode()));
}

#[test]
fn relay_tokens_keep_their_bytes() {
    let [by_root, by_admin] = relay_tokens();
    insta::assert_snapshot!("relay_token_by_network_key", hex(&by_root.encode()));
    insta::assert_snapshot!("relay_token_by_admin", hex(&by_admin.encode()));
}

#[test]
fn tickets_keep_their_text() {
    insta::assert_snapshot!("ticket", ticket().to_string());
}

#[test]
fn admission_messages_keep_their_bytes() {
    for (name, message) in messages() {
        insta::assert_snapshot!(format!("admission_{name}"), hex(&message.encode().unwrap()));
    }
}

#[test]
fn the_safety_words_of_an_admission_stay_the_same() {
    let (mut joiner, _) = Joiner::start(&ticket(), node(1), "node-1".parse().unwrap(), nonce(1));
    joiner
        .on_challenge(AdmissionMessage::Challenge(Challenge { nonce: nonce(2) }))
        .unwrap();
    insta::assert_snapshot!("safety_words", joiner.words().unwrap().to_string());
}

#[test]
fn a_certificate_is_a_cwt_in_a_cose_sign1() {
    let [chain, _] = chains();
    let value: ciborium::Value = ciborium::from_reader(&chain.leaf.encode()[..]).unwrap();
    let (tag, message) = value.as_tag().unwrap();
    let parts = message.as_array().unwrap();
    assert_eq!((tag, parts.len()), (18, 4));
    let claims: ciborium::Value = ciborium::from_reader(&parts[2].as_bytes().unwrap()[..]).unwrap();
    let claim = |label: i64| {
        let wanted = ciborium::Value::from(label);
        claims
            .as_map()
            .unwrap()
            .iter()
            .find(|(key, _)| *key == wanted)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(claim(1).as_text().unwrap(), network().to_string());
    assert_eq!(claim(2).as_text().unwrap(), node(1).to_string());
    assert_eq!(claim(3).as_text().unwrap(), network().to_string());
    assert_eq!(claim(4), ciborium::Value::from((NOW + DAY).as_secs()));
    assert_eq!(claim(5), ciborium::Value::from(NOW.as_secs()));
    assert_eq!(claim(6), ciborium::Value::from(NOW.as_secs()));
    assert_eq!(claim(7).as_bytes().unwrap(), &[1; 16]);
}
