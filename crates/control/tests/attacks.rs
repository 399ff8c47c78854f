//! What strangers and thieves get: a status and a clear body, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Client, Database, Plane, conform};
use dawn_control::config::{Config, Limits, Rate};
use dawn_control_api::limits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

on_both_databases! {
    a_replayed_request_is_refused,
    a_request_that_was_altered_is_refused,
    a_device_does_not_act_for_another,
    a_challenge_is_answered_once_by_whom_it_was_for,
    sql_in_whatever_is_sent_is_only_text,
    who_shows_nothing_gets_nothing,
}

/// What came back over a bare connection: status, headers and body.
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Raw {
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.head);
        conform::check("GET", "/", status, "application/problem+json", &self.body);
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["code"], code);
    }
}

/// Writes to the control plane and reads until it closes.
async fn raw(plane: &Plane, bytes: &[u8]) -> Raw {
    let mut stream = connect(plane).await;
    stream.write_all(bytes).await.unwrap();
    read(stream).await
}

async fn connect(plane: &Plane) -> TcpStream {
    TcpStream::connect(plane.url.split_once("://").unwrap().1)
        .await
        .unwrap()
}

async fn read(mut stream: TcpStream) -> Raw {
    let mut bytes = Vec::new();
    // A connection that is reset after the answer has told everything.
    let _ = stream.read_to_end(&mut bytes).await;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Raw {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an answer");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Raw {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: bytes[end + 4..].to_vec(),
    }
}

async fn a_replayed_request_is_refused(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let beat = device.signed("POST", &device.own("/heartbeat"), &[], Some(&json!({})));
    device.send(&beat).await.is(200);
    device.send(&beat).await.is_problem(401, "replayed");
    let renew = device.signed("POST", &device.own("/certificate"), &[], None);
    device.send(&renew).await.is(200);
    device.send(&renew).await.is_problem(401, "replayed");
}

async fn a_request_that_was_altered_is_refused(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let signed = || {
        device.signed(
            "POST",
            &device.own("/heartbeat"),
            &[("idempotency-key", "k")],
            Some(&json!({})),
        )
    };
    let mut body = signed();
    body.body = br#"{"leaving":true}"#.to_vec();
    device.send(&body).await.is_problem(401, "bad_digest");
    let mut method = signed();
    method.method = "PUT".to_owned();
    device.send(&method).await.is_problem(401, "bad_signature");
    let mut path = signed();
    path.target = device.own("/certificate");
    device.send(&path).await.is_problem(401, "bad_signature");
    let mut query = signed();
    query.target.push_str("?a=b");
    device.send(&query).await.is_problem(401, "bad_signature");
    let mut key = signed();
    key.covered = vec![("idempotency-key".to_owned(), "other".to_owned())];
    device.send(&key).await.is_problem(401, "bad_signature");
    let mut uncovered = signed();
    uncovered.covered.push(("if-match".to_owned(), "\"1\"".to_owned()));
    assert_eq!(device.send(&uncovered).await.status, 401);
    let mut digest = signed();
    digest.headers.content_digest = None;
    assert_eq!(device.send(&digest).await.status, 401);
    let mut garbage = signed();
    garbage.headers.signature_input = "dawn=(".to_owned();
    device.send(&garbage).await.is_problem(401, "malformed_signature");
    let mut elsewhere = device.clone();
    elsewhere.authority = "control.example".to_owned();
    elsewhere.beat(json!({})).await.is_problem(401, "bad_signature");
    device.send(&signed()).await.is(200);
}

async fn a_device_does_not_act_for_another(database: Database) {
    let plane = Plane::start(database).await;
    let (device, other) = (plane.member(7, "laptop").await, plane.member(8, "other").await);
    for rest in ["/heartbeat", "/certificate"] {
        device
            .ask("POST", &other.own(rest), None)
            .await
            .is_problem(403, "other_device");
    }
    device
        .ask("GET", &other.own("/registration"), None)
        .await
        .is_problem(403, "other_device");
    for rest in ["/approve", "/deny", "/revoke"] {
        device
            .ask("POST", &other.own(rest), Some(json!({})))
            .await
            .is_problem(403, "forbidden");
    }
    device.ask("GET", "/v1/tokens", None).await.is_problem(403, "forbidden");
    let stranger = plane.device(50);
    stranger.beat(json!({})).await.is_problem(403, "not_registered");
    stranger.changes(0, 0).await.is_problem(403, "not_registered");
    stranger
        .ask("GET", &stranger.path("/devices"), None)
        .await
        .is_problem(403, "not_registered");
    // Somebody else's key in the name of the first one.
    let mut forged = stranger.signed("POST", &device.own("/heartbeat"), &[], None);
    let (theirs, his) = (stranger.node().to_string(), device.node().to_string());
    forged.headers.signature_input = forged.headers.signature_input.replace(&theirs, &his);
    device.send(&forged).await.is_problem(401, "bad_signature");
}

async fn a_challenge_is_answered_once_by_whom_it_was_for(database: Database) {
    let plane = Plane::start(database).await;
    let (device, thief) = (plane.device(7), plane.device(8));
    let (challenge, signature) = device.challenge("laptop").await;
    let body = json!({ "challenge": challenge, "signature": signature });
    let answer = |body: &Value| (plane.path("/devices"), body.clone());
    let (path, stolen) = answer(&body);
    thief
        .ask("POST", &path, Some(stolen))
        .await
        .is_problem(403, "bad_challenge");
    // A device that claims another's key.
    let forged = json!({ "challenge": challenge, "signature": challenge.sign(&thief.key) });
    device
        .ask("POST", &path, Some(forged))
        .await
        .is_problem(403, "bad_challenge");
    // One that it made itself.
    let mut own = challenge.clone();
    own.nonce = dawn_control_api::challenge::Nonce::from_bytes([1; 16]);
    let made_up = json!({ "challenge": own, "signature": own.sign(&device.key) });
    device
        .ask("POST", &path, Some(made_up))
        .await
        .is_problem(409, "challenge_expired");
    device.ask("POST", &path, Some(body.clone())).await.is(202);
    device
        .ask("POST", &path, Some(body))
        .await
        .is_problem(409, "challenge_expired");
}

async fn sql_in_whatever_is_sent_is_only_text(database: Database) {
    let plane = Plane::start(database).await;
    let evil = "Robert'); DROP TABLE devices;--";
    let made = plane
        .admin
        .post(&plane.path("/people"), json!({ "name": evil, "note": "' OR '1'='1" }))
        .await;
    assert_eq!(made.is(201).body["name"], evil);
    let listed = plane.admin.get(&plane.path("/people")).await;
    assert_eq!(listed.body["items"][0]["name"], evil);
    for path in [
        plane.path("/devices?name=%27%20OR%20%271%27=%271"),
        plane.path("/audit?action=%27%3B%20DROP%20TABLE%20audit%3B--"),
    ] {
        assert_eq!(plane.admin.get(&path).await.is(200).body["items"], json!([]));
    }
    for path in [
        plane.path("/devices/1%20OR%201=1"),
        plane.path("/people/%27%20OR%20%27"),
        plane.path("/invites/x%27--"),
        "/v1/networks/%27%3B--/devices".to_owned(),
        plane.path("/devices?cursor=%27%3B--"),
    ] {
        plane.admin.get(&path).await.is_problem(400, "malformed");
    }
    // What PostgreSQL does not keep in a text.
    plane
        .admin
        .post(&plane.path("/people"), json!({ "name": "a\0b" }))
        .await
        .is_problem(422, "invalid");
    for query in ["/devices?name=a%00b", "/audit?subject=%00"] {
        plane.admin.get(&plane.path(query)).await.is_problem(400, "malformed");
    }
}

async fn who_shows_nothing_gets_nothing(database: Database) {
    let plane = Plane::start(database).await;
    let anybody = Client::anybody(&plane.url);
    let document = conform::document();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let path = path
                .replace("{network}", &plane.network().to_string())
                .replace("{node}", &plane.issuer.to_string())
                .replace("{person}", &"0".repeat(32))
                .replace("{token}", &"0".repeat(32))
                .replace("{invite}", &"0".repeat(16));
            let method = method.to_uppercase();
            // What is asked is not even read before it is known who asks; what cannot be read is told to nobody else.
            let answer = anybody.ask(&method, &path, &[], None).await;
            assert!(matches!(answer.status, 400 | 401), "{method} {path}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn a_path_that_is_none_and_a_method_that_does_not_fit_are_problems() {
    let plane = Plane::start(Database::sqlite()).await;
    plane.admin.get("/v1/nothing").await.is_problem(404, "no_such_path");
    plane.admin.get("/").await.is_problem(404, "no_such_path");
    let wrong = plane.admin.delete("/v1/networks").await;
    wrong.is_problem(405, "method_not_allowed");
    assert!(wrong.headers.contains_key("allow"));
    let kind = [("content-type", "text/plain")];
    let wrong = plane.admin.ask("POST", &plane.path("/people"), &kind, None).await;
    wrong.is_problem(400, "malformed");
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = request
        .post(format!("{}{}", plane.url, plane.path("/people")))
        .bearer_auth(plane.admin.token.as_ref().unwrap())
        .body("{\"name\":\"x\"}")
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 415);
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_refused_before_it_has_come() {
    let plane = Plane::start(Database::sqlite()).await;
    let head = |length: &str| {
        format!(
            "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {}\r\n{length}\r\n\r\n",
            plane.path("/people"),
            plane.admin.token.as_ref().unwrap()
        )
    };
    raw(&plane, head("content-length: 1073741824").as_bytes())
        .await
        .is_problem(413, "too_large");
    // One that does not say how long it is.
    let mut stream = connect(&plane).await;
    stream
        .write_all(head("transfer-encoding: chunked").as_bytes())
        .await
        .unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 1 << 30 && stream.write_all(&chunk).await.is_ok() {
        sent += 0x10000;
        if sent > limits::MAX_BODY_BYTES {
            break;
        }
    }
    read(stream).await.is_problem(413, "too_large");
}

fn impatient(database: &Database) -> Config {
    let config = database.config();
    Config {
        limits: Limits {
            head: Duration::from_millis(300),
            body: Duration::from_millis(300),
            ..config.limits
        },
        ..config
    }
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let database = Database::sqlite();
    let config = impatient(&database);
    let plane = Plane::with(database, config).await;
    let began = Instant::now();
    raw(&plane, b"GET /v1/info HTTP/1.1\r\nhost:")
        .await
        .is_problem(408, "too_slow");
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\nauthorization: Bearer {}\r\n\r\n{{",
        plane.path("/people"),
        plane.admin.token.as_ref().unwrap()
    );
    raw(&plane, head.as_bytes()).await.is_problem(408, "too_slow");
    assert!(began.elapsed() < common::PATIENCE);
}

#[tokio::test]
async fn header_injection_is_impossible() {
    let plane = Plane::start(Database::sqlite()).await;
    // A line break in what comes back in a header.
    for target in [
        "/v1/networks/x%0d%0aset-cookie:%20a=b",
        "/v1/networks?cursor=%0d%0aset-cookie:%20a=b",
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
            plane.admin.token.as_ref().unwrap()
        );
        let answer = raw(&plane, request.as_bytes()).await;
        assert!(!answer.head.to_lowercase().contains("set-cookie"), "{}", answer.head);
    }
    // Headers that are there twice, and what is no header.
    let twice = "GET /v1/info HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n";
    raw(&plane, twice.as_bytes()).await.is_problem(400, "malformed");
    let both = "GET /v1/info HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer a\r\nsignature: x=:AA==:\r\nsignature-input: x=()\r\n\r\n";
    raw(&plane, both.as_bytes()).await.is_problem(400, "malformed");
    let long = format!(
        "GET /v1/info HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "a".repeat(20 << 10)
    );
    let many = format!("GET /v1/info HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: a\r\n".repeat(200));
    for (broken, status, code) in [
        ("GET /v1/info HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n", 400, "malformed"),
        ("GET /v1/info HTTP/1.1\r\nhost: x\r\nx y: a\r\n\r\n", 400, "malformed"),
        ("GET /v1/info\r\n\r\n", 400, "malformed"),
        ("\u{16}\u{3}\u{1}\u{2}", 400, "malformed"),
        (&long, 431, "headers_too_large"),
        (&many, 431, "headers_too_large"),
    ] {
        raw(&plane, broken.as_bytes()).await.is_problem(status, code);
    }
    // Also where it comes behind a request that was answered.
    let behind = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = connect(&plane).await;
    stream.write_all(behind.as_bytes()).await.unwrap();
    let mut answered = Vec::new();
    while !answered.ends_with(b"ok\n") {
        answered.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
    read(stream).await.is_problem(400, "malformed");
    let metrics = plane.admin.get("/metrics").await;
    let counted = "dawn_control_refused_total{code=\"headers_too_large\"} 2";
    assert!(metrics.body.as_str().unwrap().contains(counted));
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_back() {
    let database = Database::sqlite();
    let config = database.config();
    let few = Rate {
        burst: 12,
        per_second: 0.01,
    };
    let config = Config {
        limits: Limits {
            per_device: few,
            per_token: few,
            ..config.limits
        },
        ..config
    };
    let plane = Plane::with(database, config).await;
    let device = plane.member(7, "laptop").await;
    let mut refused = None;
    for _ in 0..20 {
        let answer = device.beat(json!({})).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("too many");
    refused.is_problem(429, "rate_limited");
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let mut last = 0;
    for _ in 0..20 {
        last = plane.admin.get("/v1/networks").await.status;
    }
    assert_eq!(last, 429);
    // Others are not touched.
    Client::anybody(&plane.url).get("/v1/info").await.is(200);
}

#[tokio::test]
async fn it_does_not_listen_where_others_can_read_along() {
    let database = Database::sqlite();
    let config = Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..database.config()
    };
    let refused = dawn_control::server::Server::open(config.clone()).await.unwrap_err();
    assert_eq!(refused.code(), "config");
    let plain = Config { plain: true, ..config };
    assert!(dawn_control::server::Server::open(plain).await.is_ok());
}

#[tokio::test]
async fn a_database_has_one_control_plane() {
    for database in [Some(Database::sqlite()), Database::postgres()].into_iter().flatten() {
        let plane = Plane::start(database).await;
        let folder = tempfile::tempdir().unwrap();
        let mut config = plane.database.config();
        if plane.database.server.is_some() {
            config.data = folder.path().to_owned();
        }
        let refused = dawn_control::server::Server::open(config).await.unwrap_err();
        assert_eq!(refused.code(), "database_in_use");
    }
}
