//! Attacks on a control plane that is a process of its own: each is refused with its status and a problem as the OpenAPI
//! document has it, and what was refused once stays refused when the process is killed and comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "../../../../crates/control/tests/common/conform.rs"]
#[allow(unreachable_pub, reason = "shared with the tests of the control plane itself")]
mod conform;

use std::time::Duration;

use dawn_control_api::signature::Headers;
use dawn_control_api::{BearerToken, Register, paths};
use dawn_e2e::control::{Answer, Client, ControlPlane, Owned, now};
use dawn_e2e::{PATIENCE, eventually};
use dawn_identity::{CertificateChain, Revocations, Role};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HOUR: Duration = Duration::from_secs(3_600);

/// Makes sure that it is this problem, in words, and as the document has it.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    let (method, path) = &answer.asked;
    let is = (answer.status, answer.body["code"].as_str());
    assert_eq!(is, (status, Some(code)), "{answer:?}");
    conform::check(method, path, status, answer.kind(), &answer.bytes);
    assert!(answer.body["title"].as_str().unwrap().contains(' '), "{answer:?}");
}

/// A control plane, a network of the test's own, and a device that is a member.
async fn with_a_device() -> (ControlPlane, Owned, Client) {
    let plane = ControlPlane::start("").await;
    let served = dawn_e2e::control::answer(
        &Method::GET,
        "/v1/openapi.json",
        dawn_e2e::http().get(format!("{}/v1/openapi.json", plane.url)),
    );
    assert_eq!(&served.await.body, conform::document());
    let owned = plane.network().await;
    let client = Client::new(&plane);
    let invite = plane.invite(&owned.id(), json!({})).await;
    let registered = client.register(&owned.id(), "lab", Some(invite), None).await.is(201);
    let chain: CertificateChain = serde_json::from_value(registered.body["membership"]["chain"].clone()).unwrap();
    let verified = chain.verify(&owned.id(), now(), Duration::ZERO, &Revocations::new());
    assert_eq!(verified.unwrap().node, client.node());
    let _beaten = client.beat(&owned.id()).await.is(200);
    (plane, owned, client)
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing_once_it_is_withdrawn() {
    let mut plane = ControlPlane::start("").await;
    let create = json!({ "name": "stolen", "scopes": ["networks:read"] });
    let made = plane.ask(Method::POST, paths::TOKENS, Some(&create)).await.is(201);
    let (token, id) = (made.body["token"].as_str().unwrap(), made.body["id"].as_str().unwrap());
    let networks =
        async |plane: &ControlPlane, token: &str| plane.ask_with(token, Method::GET, paths::NETWORKS, None).await;
    let _works = networks(&plane, token).await.is(200);
    // Meanwhile it does what it is for, and makes nobody mightier.
    let more = json!({ "name": "more", "scopes": ["networks:write"] });
    let asked = plane.ask_with(token, Method::POST, paths::TOKENS, Some(&more)).await;
    refused(&asked, 403, "forbidden");
    let path = format!("{}/{id}", paths::TOKENS);
    let _gone = plane.ask(Method::DELETE, &path, None).await.is(204);
    refused(&networks(&plane, token).await, 401, "bad_token");
    plane.kill().await;
    plane.up().await;
    refused(&networks(&plane, token).await, 401, "bad_token");
    let made_up = BearerToken::from_bytes([1; 32]).to_string();
    for unknown in [made_up.as_str(), "nonsense", "' OR 1=1 --"] {
        refused(&networks(&plane, unknown).await, 401, "bad_token");
    }
}

#[tokio::test]
async fn a_signed_request_is_taken_once_and_not_again_after_a_crash() {
    let (mut plane, owned, client) = with_a_device().await;
    let path = paths::heartbeat(&owned.id(), &client.node());
    let body = b"{}".to_vec();
    let send = async |signed: &Headers| client.send(Method::POST, &path, body.clone(), signed).await;
    let at = now();
    let signed = client.sign_at(&Method::POST, &path, &body, at);
    let _taken = send(&signed).await.is(200);
    refused(&send(&signed).await, 401, "replayed");
    // Whether it came before is not known any more: it is refused all the same, but within the second of the start.
    plane.kill().await;
    eventually("the second is over", async || now() > at).await;
    plane.up().await;
    refused(&send(&signed).await, 401, "bad_time");
    for at in [now() - HOUR, now() + HOUR] {
        let signed = client.sign_at(&Method::POST, &path, &body, at);
        refused(&send(&signed).await, 401, "bad_time");
    }
    let _taken = client.beat(&owned.id()).await.is(200);
}

#[tokio::test]
async fn an_expired_certificate_and_whatever_else_is_no_membership_registers_nobody() {
    let (plane, owned, member) = with_a_device().await;
    let (client, other) = (Client::new(&plane), Owned::random());
    let (node, role) = (client.node(), Role::Member);
    let expired = owned.issue(node, "desk", role, now() - HOUR * 2, HOUR);
    let foreign = other.issue(node, "desk", role, now(), HOUR);
    let issuers = owned.issue(node, "desk", Role::Issuer, now(), HOUR);
    let anothers = owned.issue(member.node(), "desk", role, now(), HOUR);
    for chain in [expired, foreign, issuers, anothers] {
        let asked = client.register(&owned.id(), "desk", None, Some(chain)).await;
        refused(&asked, 403, "bad_certificate");
    }
    let valid = owned.issue(node, "desk", role, now(), HOUR);
    let registered = client.register(&owned.id(), "desk", None, Some(valid)).await;
    assert_eq!(registered.body["device"]["state"], "approved", "{registered:?}");
}

#[tokio::test]
async fn a_revoked_device_gets_nothing_any_more_also_after_a_crash() {
    let (mut plane, owned, client) = with_a_device().await;
    let network = owned.id();
    let path = paths::revoke(&network, &client.node());
    let _revoked = plane.ask(Method::POST, &path, Some(&json!({}))).await.is(200);
    let certificate = paths::certificate(&network, &client.node());
    for _ in 0..2 {
        refused(&client.beat(&network).await, 403, "revoked");
        let renewed = client.ask(Method::POST, &certificate, None::<&Value>).await;
        refused(&renewed, 403, "revoked");
        let changes = client.ask(Method::GET, &paths::changes(&network), None::<&Value>).await;
        refused(&changes, 403, "revoked");
        let invite = plane.invite(&network, json!({})).await;
        let again = client.register(&network, "lab", Some(invite), None).await;
        refused(&again, 403, "revoked");
        plane.kill().await;
        plane.up().await;
    }
}

#[tokio::test]
async fn a_device_that_claims_anothers_key_is_refused() {
    let (plane, owned, client) = with_a_device().await;
    let (network, thief) = (owned.id(), Client::new(&plane));
    // Under its own signature it acts for itself only.
    let path = paths::heartbeat(&network, &client.node());
    let asked = thief.ask(Method::POST, &path, Some(&json!({}))).await;
    refused(&asked, 403, "other_device");
    // Under the other's name its signature fits nothing.
    let mut signed = thief.sign_at(&Method::POST, &path, b"{}", now());
    let (own, others) = (thief.node().to_string(), client.node().to_string());
    signed.signature_input = signed.signature_input.replace(&own, &others);
    let asked = thief.send(Method::POST, &path, b"{}".to_vec(), &signed).await;
    refused(&asked, 401, "bad_signature");
    // Nor does it answer the other's challenge.
    let mut challenge = thief.challenge(&network, "thief").await;
    challenge.node = client.node();
    let register = Register {
        signature: challenge.sign(&thief.key),
        challenge,
        invite: Some(plane.invite(&network, json!({})).await),
        chain: None,
        software: None,
        addresses: Vec::new(),
    };
    let asked = thief
        .ask(Method::POST, &paths::devices(&network), Some(&register))
        .await;
    refused(&asked, 403, "bad_challenge");
}

#[tokio::test]
async fn sql_in_a_request_is_text_like_any_other() {
    let (plane, owned, _client) = with_a_device().await;
    let network = owned.id();
    let text = "'); DROP TABLE devices; --";
    let body = json!({ "name": text, "note": "\" OR \"\"=\"" });
    let made = plane.ask(Method::POST, &paths::people(&network), Some(&body)).await;
    assert_eq!(made.is(201).body["name"], text);
    let devices = paths::devices(&network);
    for query in ["name=%27%20OR%201%3D1%20--", "name=%25", "name=_%27"] {
        let page = plane.ask(Method::GET, &format!("{devices}?{query}"), None).await;
        assert_eq!(page.is(200).body["items"], json!([]), "{query}");
    }
    for rest in [
        "?cursor=%27%20OR%201",
        "?limit=1;DROP",
        "?state=approved%27--",
        "?order=name",
        "/%27%20OR%201%3D1",
    ] {
        let asked = plane.ask(Method::GET, &format!("{devices}{rest}"), None).await;
        refused(&asked, 400, "malformed");
    }
    let page = plane.ask(Method::GET, &devices, None).await.is(200);
    assert_eq!(page.body["items"].as_array().unwrap().len(), 1, "{page:?}");
}

/// What comes back over a connection until its end.
async fn heard(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes));
    // A reset after an answer is an end, too.
    let _ = reading.await.expect("the connection ends");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let (first, lines) = head.split_once("\r\n").unwrap();
    let headers = lines.split("\r\n").map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse().unwrap(), value.parse().unwrap())
    });
    Answer {
        asked: ("GET".to_owned(), "/".to_owned()),
        status: first.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.collect(),
        body: serde_json::from_str(body).unwrap_or_default(),
        bytes: body.as_bytes().to_vec(),
    }
}

async fn connect(plane: &ControlPlane) -> TcpStream {
    TcpStream::connect(plane.authority()).await.unwrap()
}

/// Sends bytes, and gives what comes back.
async fn raw(plane: &ControlPlane, request: &str) -> Answer {
    let mut stream = connect(plane).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    heard(stream).await
}

#[tokio::test]
async fn headers_that_are_injected_or_come_twice_are_refused() {
    let (plane, owned, client) = with_a_device().await;
    let path = paths::heartbeat(&owned.id(), &client.node());
    let signed = client.sign_at(&Method::POST, &path, b"{}", now());
    let digest = signed.content_digest.clone().unwrap();
    let request = |host: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: 2\r\ncontent-digest: {digest}\r\nsignature-input: {}\r\nsignature: {}\r\n{more}\r\n{{}}",
            signed.signature_input, signed.signature
        )
    };
    let host = plane.authority();
    // A second signature, a header that the first one does not cover, and one that is none.
    let twice = format!("signature: {}\r\n", signed.signature);
    refused(&raw(&plane, &request(host, &twice)).await, 400, "malformed");
    let uncovered = raw(&plane, &request(host, "idempotency-key: k\r\n")).await;
    refused(&uncovered, 401, "malformed_signature");
    // For another control plane.
    let elsewhere = raw(&plane, &request("other.example", "")).await;
    refused(&elsewhere, 421, "wrong_authority");
    // Line breaks in what is said come back in no header.
    let broken = format!(
        "GET /v1/networks/%0d%0aset-cookie:%20a=b HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         authorization: Bearer {}\r\n\r\n",
        plane.token
    );
    let answer = raw(&plane, &broken).await;
    refused(&answer, 400, "malformed");
    assert!(!answer.headers.contains_key("set-cookie"), "{answer:?}");
    // Untouched it is taken.
    let _taken = raw(&plane, &request(host, "")).await.is(200);
}

#[tokio::test]
async fn a_body_of_a_gibibyte_is_cut_early_and_takes_no_memory() {
    const GIBIBYTE: usize = 1 << 30;
    let plane = ControlPlane::start("").await;
    let before = plane.memory();
    let head = |length: &str| {
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n\r\n",
            paths::NETWORKS,
            plane.authority(),
            plane.token
        )
    };
    // One that says so is refused before any of it is read.
    let answer = raw(&plane, &head(&format!("content-length: {GIBIBYTE}"))).await;
    refused(&answer, 413, "too_large");
    // One that does not say so is cut when it has become too long, whatever else its sender would send.
    let mut stream = connect(&plane).await;
    let begun = head("transfer-encoding: chunked");
    stream.write_all(begun.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    let sending = async {
        while sent < GIBIBYTE && stream.write_all(&chunk).await.is_ok() {
            sent += 0x10000;
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("cut");
    assert!(sent < GIBIBYTE / 16, "{sent} bytes were taken");
    let now = plane.memory();
    assert!(now < before + (64 << 20), "{before} bytes of memory became {now}");
    let _goes_on = plane.ask(Method::GET, paths::NETWORKS, None).await.is(200);
}

#[tokio::test]
async fn slow_clients_are_told_so_and_hold_nobody_up() {
    /// Slow clients at once, of each kind.
    const SLOW: usize = 100;
    let plane = ControlPlane::start("[limits]\nhead = \"2s\"\nbody = \"2s\"\n").await;
    let head = format!("GET /v1/info HTTP/1.1\r\nhost: {}\r\nx-slow: ", plane.authority());
    let body = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100000\r\n\r\n",
        paths::NETWORKS,
        plane.authority(),
        plane.token
    );
    let mut slow = tokio::task::JoinSet::new();
    for begun in [head, body].iter().flat_map(|begun| std::iter::repeat_n(begun, SLOW)) {
        let mut stream = connect(&plane).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        slow.spawn(async move {
            // A byte now and then keeps nothing open.
            let (mut reading, mut writing) = stream.split();
            let drip = async {
                while writing.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let mut first = [0];
            tokio::select! {
                () = drip => {}
                _ = reading.peek(&mut first) => {}
            }
            heard(stream).await
        });
    }
    eventually("others are served meanwhile", async || {
        plane.ask(Method::GET, paths::NETWORKS, None).await.status == 200
    })
    .await;
    while let Some(answer) = slow.join_next().await {
        refused(&answer.unwrap(), 408, "too_slow");
    }
}
