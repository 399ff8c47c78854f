//! What strangers take from those who are known: nothing, however many keys and connections they have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use std::time::Duration;

use common::{Client, Database, Device, Plane};
use dawn_control::config::{Limits, Rate};
use dawn_identity::Keypair;
use serde_json::json;
use tokio::net::TcpSocket;

/// A plane with limits of its own.
async fn plane(change: impl FnOnce(&mut Limits)) -> Plane {
    let database = Database::sqlite();
    let mut config = database.config();
    change(&mut config.limits);
    Plane::with(database, config).await
}

fn few(burst: u32) -> Rate {
    Rate {
        burst,
        per_second: 0.01,
    }
}

/// Somebody with a key that nobody knows.
fn stranger(plane: &Plane) -> Device {
    Device::new(&plane.url, plane.network(), Keypair::from_seed(rand::random()))
}

#[tokio::test]
async fn strangers_of_one_address_ask_only_so_often_and_shut_nobody_out_who_is_known() {
    let plane = plane(|limits| limits.per_address = few(6)).await;
    let device = plane.member(7, "laptop").await;
    let anybody = Client::anybody(&plane.url);
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(anybody.get("/v1/info").await.status);
    }
    assert_eq!((statuses[0], statuses[9]), (200, 429), "{statuses:?}");
    // What shows a made-up key or token is a stranger's, too.
    stranger(&plane).beat(json!({})).await.is_problem(429, "rate_limited");
    let token = format!("dawnt1_{}", "A".repeat(43));
    let guess = anybody.clone().bearing(Some(token)).get("/v1/networks").await;
    guess.is_problem(429, "rate_limited");
    // So is what says that it is a device, and is not: it is told what it is.
    let mut forged = device.signed("POST", &device.own("/heartbeat"), &[], None);
    forged.headers.signature = device.signed("GET", "/v1/info", &[], None).headers.signature;
    device.send(&forged).await.is_problem(401, "bad_signature");
    for _ in 0..20 {
        device.beat(json!({})).await.is(200);
        plane.admin.get("/v1/networks").await.is(200);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        anybody.get(path).await.is(200);
    }
}

#[tokio::test]
async fn made_up_keys_fill_no_memory_of_devices() {
    let plane = plane(|limits| {
        limits.nonces = 100;
        limits.nonces_of_strangers = 100;
        limits.challenges = 10;
    })
    .await;
    let device = plane.member(7, "laptop").await;
    let mut last = 0;
    for _ in 0..200 {
        last = stranger(&plane).beat(json!({})).await.status;
    }
    assert_eq!(last, 503);
    for _ in 0..50 {
        device.beat(json!({})).await.is(200);
    }
}

#[tokio::test]
async fn challenges_of_strangers_keep_no_new_device_out() {
    let plane = plane(|limits| limits.challenges = 10).await;
    for _ in 0..20 {
        stranger(&plane).challenge("laptop").await;
    }
    let device = plane.device(7);
    // It asked before: the newest counts.
    device.challenge("laptop").await;
    device.register("laptop", None).await.is(202);
}

#[tokio::test]
async fn a_stranger_sends_no_large_body() {
    let plane = plane(|limits| limits.stranger_body = 2_000).await;
    let device = plane.member(7, "laptop").await;
    let large = json!({ "software": "x".repeat(3_000) });
    let stranger = stranger(&plane);
    stranger.beat(large.clone()).await.is_problem(413, "too_large");
    device.beat(large).await.is_problem(422, "invalid");
}

#[tokio::test]
async fn behind_a_trusted_proxy_every_client_has_its_own_share() {
    let database = Database::sqlite();
    let mut config = database.config();
    config.limits.per_address = few(6);
    config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let plane = Plane::with(database, config).await;
    let anybody = Client::anybody(&plane.url);
    let asks = async |from: &str| {
        let headers = [("x-forwarded-for", from)];
        anybody.ask("GET", "/v1/info", &headers, None).await.status
    };
    for _ in 0..6 {
        asks("198.51.100.7, 203.0.113.1").await;
    }
    assert_eq!(asks("203.0.113.1").await, 429);
    assert_eq!(asks("203.0.113.2").await, 200);
    // What a client says of itself, before the proxy adds its word, buys it nothing.
    assert_eq!(asks("203.0.113.9, 203.0.113.1").await, 429);
    // All of one /64 are one.
    for host in 0..6 {
        asks(&format!("2001:db8::{host}")).await;
    }
    assert_eq!(asks("2001:db8::ffff").await, 429);
    let (people, from) = (plane.path("/people"), [("x-forwarded-for", "203.0.113.5")]);
    let made = plane.admin.ask("POST", &people, &from, Some(json!({ "name": "Ada" })));
    made.await.is(201);
    let audit = plane.admin.get(&plane.path("/audit?action=person.create")).await;
    assert_eq!(audit.is(200).body["items"][0]["from"], "203.0.113.5");
}

#[tokio::test]
async fn one_address_does_not_take_all_connections() {
    let plane = plane(|limits| limits.connections = 32).await;
    let device = plane.member(7, "laptop").await;
    let target = plane.url.split_once("://").unwrap().1.parse().unwrap();
    let mut idle = Vec::new();
    for _ in 0..31 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        idle.push(socket.connect(target).await.unwrap());
    }
    device.beat(json!({})).await.is(200);
    plane.admin.get("/v1/networks").await.is(200);
}

#[tokio::test]
async fn a_connection_of_strangers_does_not_last() {
    use tokio::io::AsyncReadExt as _;
    let plane = plane(|limits| limits.stranger = Duration::from_millis(200)).await;
    let device = plane.member(7, "laptop").await;
    let target = plane.url.split_once("://").unwrap().1;
    let mut idle = tokio::net::TcpStream::connect(target).await.unwrap();
    let mut bytes = Vec::new();
    // It ends without a word: nothing was asked.
    let _ = idle.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty());
    // That of a device goes on.
    let feed = device.changes(0, 0).await.is(200).body.clone();
    let waits = device.changes(feed["next"].as_u64().unwrap(), 1).await;
    assert_eq!(waits.is(200).body["changes"], json!([]));
}

#[tokio::test]
async fn a_repeated_registration_with_its_key_gets_its_answer() {
    let plane = plane(|_| {}).await;
    let code = plane.invite(json!({})).await;
    let device = plane.device(7);
    let (challenge, signature) = device.challenge("laptop").await;
    let body = json!({ "challenge": challenge, "signature": signature, "invite": code });
    let ask = async || {
        let key = [("idempotency-key", "once")];
        let signed = device.signed("POST", &device.path("/devices"), &key, Some(&body));
        device.send(&signed).await
    };
    let first = ask().await;
    assert_eq!(ask().await.is(201).body, first.is(201).body);
}

#[tokio::test]
async fn a_precondition_belongs_to_what_was_asked() {
    let plane = plane(|_| {}).await;
    let ask = async |headers: &[(&str, &str)]| {
        let body = Some(json!({ "nodes": [] }));
        plane.admin.ask("PUT", &plane.path("/bootstrap"), headers, body).await
    };
    let made = ask(&[("idempotency-key", "k")]).await;
    let tag = made.is(200).etag();
    ask(&[("idempotency-key", "k"), ("if-match", &tag)])
        .await
        .is_problem(422, "idempotency_mismatch");
    ask(&[("if-none-match", "*")]).await.is_problem(422, "invalid");
}
