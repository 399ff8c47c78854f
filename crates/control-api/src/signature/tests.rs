//! Signed requests: the vectors of RFC 9421, what is accepted, and all that is not.

use std::time::Duration;

use dawn_identity::{Keypair, UnixTime};
use proptest::prelude::*;

use super::base::{Component, base};
use super::*;
use crate::challenge::Nonce;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(120);

fn key() -> Keypair {
    Keypair::from_seed([7; 32])
}

fn parts() -> Parts<'static> {
    Parts {
        method: "POST",
        authority: "control.example:7440",
        path: "/v1/networks/N/devices",
        query: Some("a=b&c=%20"),
        headers: &[("idempotency-key", "k1")],
        body: b"{\"hello\": \"world\"}\n",
    }
}

fn signed() -> Headers {
    sign(&parts(), &key(), NOW, Nonce::from_bytes([1; 16])).unwrap()
}

fn check(parts: &Parts<'_>, headers: &Headers) -> Result<Verified, SignatureError> {
    verify(parts, &headers.as_ref(), NOW, SKEW)
}

/// The headers with one text in `Signature-Input` replaced by another, signed over what they then say.
fn resigned(from: &str, to: &str) -> Headers {
    let mut headers = signed();
    assert!(headers.signature_input.contains(from), "{}", headers.signature_input);
    headers.signature_input = headers.signature_input.replacen(from, to, 1);
    let input = headers.signature_input.strip_prefix("dawn=").unwrap().to_owned();
    let digest = headers.content_digest.clone();
    let all = base::components(&parts(), digest.as_deref()).unwrap();
    let covered: Vec<Component<'_>> = all
        .into_iter()
        .filter(|component| input.contains(&format!("\"{}\"", component.name)))
        .collect();
    let signature = key().sign(base(&covered, &input).as_bytes());
    headers.signature = format!("dawn=:{}:", data_encoding::BASE64.encode(&signature));
    headers
}

#[test]
fn the_ed25519_vector_of_rfc_9421_comes_out() {
    // Appendix B.2.6, with the key of B.1.4.
    let component = |name: &'static str, value: &'static str| Component {
        name,
        value: value.into(),
    };
    let covered = [
        component("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        component("@method", "POST"),
        component("@path", "/foo"),
        component("@authority", "example.com"),
        component("content-type", "application/json"),
        component("content-length", "18"),
    ];
    let input = r#"("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
    let seed = data_encoding::BASE64URL_NOPAD
        .decode(b"n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU")
        .unwrap();
    let key = Keypair::from_seed(seed.try_into().unwrap());
    let signature = key.sign(base(&covered, input).as_bytes());
    assert_eq!(
        data_encoding::BASE64.encode(&signature),
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    );
}

#[test]
fn a_signed_request_is_verified_and_says_who_signed_it_and_when() {
    let verified = check(&parts(), &signed()).unwrap();
    assert_eq!(verified.node, key().node_id());
    assert_eq!(verified.nonce, Nonce::from_bytes([1; 16]));
    assert_eq!((verified.created, verified.expires), (NOW, NOW + SIGNATURE_VALIDITY));
    assert_eq!(verified.remember_until, NOW + SIGNATURE_VALIDITY + SKEW);
}

#[test]
fn the_headers_of_a_signed_request_keep_their_form() {
    let headers = signed();
    assert_eq!(
        headers.signature_input,
        format!(
            r#"dawn=("@method" "@authority" "@path" "@query" "content-digest" "idempotency-key");created=1800000000;expires=1800000060;nonce="AQEBAQEBAQEBAQEBAQEBAQ";keyid="{}";alg="ed25519";tag="dawn-control""#,
            key().node_id()
        )
    );
    assert_eq!(
        headers.content_digest.as_deref(),
        Some("sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:")
    );
}

#[test]
fn a_request_that_was_changed_is_refused() {
    let headers = signed();
    let bad = Err(SignatureError::BadSignature);
    let is = parts();
    assert_eq!(check(&Parts { method: "PUT", ..is }, &headers), bad);
    let authority = "other.example";
    assert_eq!(check(&Parts { authority, ..is }, &headers), bad);
    let path = "/v1/networks/M/devices";
    assert_eq!(check(&Parts { path, ..is }, &headers), bad);
    let query = Some("a=b");
    assert_eq!(check(&Parts { query, ..is }, &headers), bad);
    assert_eq!(check(&Parts { query: None, ..is }, &headers), bad);
    let other: &[(&str, &str)] = &[("idempotency-key", "k2")];
    assert_eq!(check(&Parts { headers: other, ..is }, &headers), bad);
    let body = b"{}";
    let mismatch = Err(SignatureError::Digest(DigestError::Mismatch));
    assert_eq!(check(&Parts { body, ..is }, &headers), mismatch);
    // Nor with a digest that fits the changed body.
    let content_digest = Some(crate::digest_of(body));
    let mended = Headers {
        content_digest,
        ..headers.clone()
    };
    assert_eq!(check(&Parts { body, ..is }, &mended), bad);
    // Nor in the name of another.
    let other = Keypair::from_seed([8; 32]).node_id().to_string();
    let mut claimed = headers;
    claimed.signature_input = claimed.signature_input.replace(&key().node_id().to_string(), &other);
    assert_eq!(check(&is, &claimed), bad);
}

#[test]
fn what_is_not_covered_is_not_accepted() {
    for name in [
        "@method",
        "@authority",
        "@path",
        "@query",
        "content-digest",
        "idempotency-key",
    ] {
        let quoted = format!("\"{name}\"");
        let (from, to) = match name {
            "@method" => (format!("{quoted} "), String::new()),
            _ => (format!(" {quoted}"), String::new()),
        };
        let headers = resigned(&from, &to);
        assert_eq!(check(&parts(), &headers), Err(SignatureError::NotCovered(name)));
    }
    // A header that was put on afterwards.
    let headers: &[(&str, &str)] = &[("idempotency-key", "k1"), ("if-match", "\"3\"")];
    let parts = Parts { headers, ..parts() };
    assert_eq!(check(&parts, &signed()), Err(SignatureError::NotCovered("if-match")));
    // A body that has no digest.
    let empty = Parts { body: b"", ..parts };
    let headers = sign(&empty, &key(), NOW, Nonce::from_bytes([1; 16])).unwrap();
    assert_eq!(headers.content_digest, None);
    assert!(check(&empty, &headers).is_ok());
    let full = Parts { body: b"{}", ..empty };
    assert_eq!(
        check(&full, &headers),
        Err(SignatureError::NotCovered("content-digest"))
    );
}

#[test]
fn a_signature_counts_within_its_time_give_or_take_the_skew() {
    let headers = signed();
    let at = |now| verify(&parts(), &headers.as_ref(), now, SKEW).map(|_| ());
    let expires = NOW + SIGNATURE_VALIDITY;
    assert_eq!(at(NOW - SKEW), Ok(()));
    assert_eq!(
        at(NOW - SKEW - Duration::from_secs(1)),
        Err(SignatureError::FromTheFuture(NOW))
    );
    assert_eq!(at(expires + SKEW), Ok(()));
    assert_eq!(
        at(expires + SKEW + Duration::from_secs(1)),
        Err(SignatureError::Expired(expires))
    );
}

#[test]
fn nobody_signs_for_longer_than_five_minutes_or_for_no_time() {
    let nonce = Nonce::from_bytes([1; 16]);
    for (seconds, is_valid) in [(0, false), (1, true), (300, true), (301, false), (86_400, false)] {
        let headers = sign_for(&parts(), &key(), NOW, Duration::from_secs(seconds), nonce).unwrap();
        let verified = check(&parts(), &headers);
        assert_eq!(verified.is_ok(), is_valid, "{seconds}");
        assert!(is_valid || verified == Err(SignatureError::Validity));
    }
    let backwards = resigned("expires=1800000060", "expires=1799999999");
    assert_eq!(check(&parts(), &backwards), Err(SignatureError::Validity));
    for time in ["-1", "1.5", "\"1800000000\"", "999999999999999"] {
        assert!(check(&parts(), &resigned("created=1800000000", &format!("created={time}"))).is_err());
    }
}

#[test]
fn what_is_not_exactly_as_it_has_to_be_is_malformed() {
    let node = key().node_id().to_string();
    for (from, to) in [
        (";alg=\"ed25519\"", ""),
        ("ed25519", "rsa-v1_5-sha256"),
        (";tag=\"dawn-control\"", ""),
        ("dawn-control", "dawn-relay"),
        (";nonce=\"AQEBAQEBAQEBAQEBAQEBAQ\"", ""),
        ("AQEBAQEBAQEBAQEBAQEBAQ", "AQE"),
        ("created=1800000000;", ""),
        ("expires=1800000060;", ""),
        (node.as_str(), "somebody"),
        (";tag=", ";water=1;tag="),
        ("\"@path\"", "\"@path\";req"),
        ("\"@path\"", "\"@path\" \"@path\""),
        ("\"@path\"", "\"@path\" \"@status\""),
        ("\"@path\"", "\"@path\" \"x-other\""),
        ("\"@path\"", "path"),
    ] {
        let refused = check(&parts(), &resigned(from, to));
        assert!(
            matches!(refused, Err(SignatureError::Malformed(_))),
            "{from} {to}: {refused:?}"
        );
    }
    let headers = signed();
    let two = Headers {
        signature_input: format!("{}, other=()", headers.signature_input),
        ..headers.clone()
    };
    assert!(matches!(check(&parts(), &two), Err(SignatureError::Malformed(_))));
    for signature in [
        "",
        "dawn",
        "dawn=1",
        "dawn=:AAAA:",
        "other=:AAAA:",
        "dawn=:AAAA:;a",
        "dawn=()",
        "☃",
    ] {
        let headers = Headers {
            signature: signature.to_owned(),
            ..headers.clone()
        };
        assert!(matches!(check(&parts(), &headers), Err(SignatureError::Malformed(_))));
    }
    let long = Headers {
        signature_input: format!("{}{}", headers.signature_input, " ".repeat(2_000)),
        ..headers
    };
    assert!(matches!(check(&parts(), &long), Err(SignatureError::Malformed(_))));
}

#[test]
fn there_is_one_way_to_write_a_signature() {
    let headers = signed();
    // The last character before the padding carries four bits that decode to nothing.
    let (text, padding) = headers.signature.split_at(headers.signature.len() - "==:".len());
    let (text, last) = text.split_at(text.len() - 1);
    let others = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for other in others.chars().filter(|other| !last.starts_with(*other)) {
        let headers = Headers {
            signature: format!("{text}{other}{padding}"),
            ..headers.clone()
        };
        assert!(check(&parts(), &headers).is_err(), "{other}");
    }
    let unpadded = Headers {
        signature: headers.signature.replace("==", ""),
        ..headers
    };
    assert!(matches!(check(&parts(), &unpadded), Err(SignatureError::Malformed(_))));
}

#[test]
fn what_is_no_part_of_a_request_is_neither_signed_nor_verified() {
    let is = parts();
    for changed in [
        Parts { method: "", ..is },
        Parts { method: "GET\n", ..is },
        Parts { authority: "", ..is },
        Parts {
            authority: "Control.example",
            ..is
        },
        Parts { path: "v1", ..is },
        Parts { path: "/a?b", ..is },
        Parts {
            path: "/a\n\"@query\": ?",
            ..is
        },
        Parts {
            query: Some("a\r\nb"),
            ..is
        },
        Parts {
            headers: &[("if-match", "a\nb")],
            ..is
        },
        Parts {
            headers: &[("if-match", "a"), ("if-match", "b")],
            ..is
        },
        Parts {
            headers: &[("x-other", "a")],
            ..is
        },
    ] {
        let signed_anyway = sign(&changed, &key(), NOW, Nonce::from_bytes([1; 16]));
        assert!(matches!(signed_anyway, Err(SignatureError::Unsignable(_))));
        let verified_anyway = check(&changed, &signed());
        assert!(matches!(verified_anyway, Err(SignatureError::Unsignable(_))));
    }
}

proptest! {
    #[test]
    fn whatever_is_signed_is_verified(
        method in "[A-Z]{1,10}",
        authority in "[a-z0-9.-]{1,30}(:[0-9]{1,5})?",
        path in "/[!-\"$->@-~]{0,60}",
        query in proptest::option::of("[!-\"$-~]{0,60}"),
        value in "[!-~]([ -~]{0,20}[!-~])?",
        body in proptest::collection::vec(any::<u8>(), 0..100),
        seed: [u8; 32],
        nonce: [u8; 16],
    ) {
        let headers = [("if-match", value.as_str())];
        let parts = Parts {
            method: &method,
            authority: &authority,
            path: &path,
            query: query.as_deref(),
            headers: &headers,
            body: &body,
        };
        let key = Keypair::from_seed(seed);
        let signed = sign(&parts, &key, NOW, Nonce::from_bytes(nonce)).unwrap();
        let verified = verify(&parts, &signed.as_ref(), NOW, SKEW).unwrap();
        prop_assert_eq!(verified.node, key.node_id());
        prop_assert_eq!(verified.nonce, Nonce::from_bytes(nonce));
    }

    #[test]
    fn no_damage_is_verified_and_none_makes_a_reader_panic(
        which in 0usize..3,
        at in any::<prop::sample::Index>(),
        byte in 0x20u8..0x7f,
    ) {
        let mut headers = signed();
        let text = match which {
            0 => &mut headers.signature_input,
            1 => &mut headers.signature,
            _ => headers.content_digest.as_mut().unwrap(),
        };
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        let before = bytes[at];
        bytes[at] = byte;
        *text = String::from_utf8(bytes).unwrap();
        let verified = check(&parts(), &headers);
        // The label is nobody's business, as long as it is the same in both.
        prop_assert!(before == byte || verified.is_err());
    }

    #[test]
    fn no_text_makes_a_reader_panic(input in "\\PC{0,200}", signature in "\\PC{0,100}", digest in "\\PC{0,100}") {
        let headers = HeadersRef {
            content_digest: Some(&digest),
            signature_input: &input,
            signature: &signature,
        };
        prop_assert!(verify(&parts(), &headers, NOW, SKEW).is_err());
    }
}
