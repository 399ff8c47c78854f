//! The bytes on the wire, from fixed seeds: a change of a format shows here and nowhere else.

use data_encoding::HEXLOWER;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(32)
        .map(|line| HEXLOWER.encode(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn statements_keep_their_bytes() {
    for (name, entry) in statements::entries() {
        insta::assert_snapshot!(name, hex(entry.bytes()));
    }
    for (name, receipt) in statements::receipts() {
        insta::assert_snapshot!(name, hex(receipt.bytes()));
    }
}

#[test]
fn certificates_and_ids_keep_their_bytes() {
    let certified = certify(&open(1, Credits::whole(10)), 4);
    insta::assert_snapshot!("certificate", hex(&certified.certificate().encode()));
    let lines = [
        terms(4).set().to_string(),
        certified.entry().hash().to_string(),
        receipt(1, 2, None, 1, Credits::ZERO).id().to_string(),
    ];
    insta::assert_snapshot!("ids", lines.join("\n"));
}
