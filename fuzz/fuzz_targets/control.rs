//! What the control plane reads of a request before it knows who asks, and what a device reads of its answers. The input
//! is cut into headers by zero bytes: `Signature-Input`, `Signature`, `Content-Digest`, then a body.
#![no_main]

use std::sync::LazyLock;

use dawn_control_api::challenge::Nonce;
use dawn_control_api::signature::{Headers, HeadersRef, Parts, sign, verify};
use dawn_control_api::{BearerToken, Changes, Cursor, Heartbeat, InviteCode, Problem, Register, Registered, limits};
use dawn_identity::{Keypair, UnixTime};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn parts(body: &[u8]) -> Parts<'_> {
    Parts {
        method: "POST",
        authority: "control.example",
        path: "/v1/networks/N/devices",
        query: Some("a=b"),
        headers: &[("idempotency-key", "k1")],
        body,
    }
}

/// What the device's key has really signed.
static SIGNED: LazyLock<Headers> = LazyLock::new(|| {
    let key = Keypair::from_seed([7; 32]);
    sign(&parts(b"{}"), &key, NOW, Nonce::from_bytes([1; 16])).expect("signed")
});

fuzz_target!(|data: &[u8]| {
    let mut pieces = data.splitn(4, |byte| *byte == 0);
    let mut text = || std::str::from_utf8(pieces.next().unwrap_or_default()).unwrap_or_default();
    let (signature_input, signature, digest) = (text(), text(), text());
    let body = pieces.next().unwrap_or_default();
    let headers = HeadersRef {
        content_digest: (!digest.is_empty()).then_some(digest),
        signature_input,
        signature,
    };
    if let Ok(verified) = verify(&parts(body), &headers, NOW, limits::CLOCK_SKEW) {
        // Nobody here signs anything but that one request, under whatever label, or has the key of the fuzzer's own.
        if verified.node == Keypair::from_seed([7; 32]).node_id() {
            let value = |text: &str| text.split_once('=').map(|(_, value)| value.to_owned());
            assert_eq!(value(signature), value(&SIGNED.signature));
            assert_eq!(body, b"{}");
        }
    }
    let _ = serde_json::from_slice::<Register>(body);
    let _ = serde_json::from_slice::<Heartbeat>(body);
    let _ = serde_json::from_slice::<Registered>(body);
    let _ = serde_json::from_slice::<Changes>(body);
    let _ = serde_json::from_slice::<Problem>(body);
    if let Ok(text) = std::str::from_utf8(body) {
        if let Ok(code) = text.parse::<InviteCode>() {
            assert_eq!(code.to_string(), text.trim());
        }
        if let Ok(token) = text.parse::<BearerToken>() {
            assert_eq!(token.to_string(), text);
        }
        if let Ok(cursor) = text.parse::<Cursor>() {
            assert_eq!(cursor.as_str(), text);
        }
    }
});
