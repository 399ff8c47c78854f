//! A control plane and the nodes of its network, real processes: a network from nothing, its end and return, and attacks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use dawn_control_api::{Code, paths};
use dawn_e2e::control::{Client, ControlPlane, Owned, now};
use dawn_e2e::{Network, Node, Transport, eventually};
use dawn_identity::{NetworkId, NodeId, Role};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DAY: Duration = Duration::from_secs(86_400);

async fn id(node: &Node) -> NodeId {
    node.get("/api/status").await["node"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// Waits until one node sees another's agent, and uses it.
async fn calls(from: &Node, to: &str) {
    let agent = format!("{to}:memory");
    from.sees(&agent).await;
    let inspected = from.dawn(&["agent", "inspect", &agent, "--list"]).await;
    assert_eq!(inspected.code, 0, "{inspected:?}");
}

/// What the control plane says of a device.
async fn device(plane: &ControlPlane, network: &NetworkId, node: NodeId) -> Value {
    let answer = plane.ask(Method::GET, &paths::device(network, &node), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

async fn is_present(plane: &ControlPlane, network: &NetworkId, node: NodeId) -> bool {
    device(plane, network, node).await["presence"] == "online"
}

#[tokio::test]
async fn a_network_is_made_lives_and_goes_on_without_its_control_plane() {
    let mut plane = ControlPlane::start("").await;
    let mut owners = Network::start(Transport::Quic, &["home"]).await;
    let home = &mut owners.nodes[0];
    let status = home.get("/api/status").await;
    let network: NetworkId = status["network"]["id"].as_str().unwrap().parse().unwrap();
    let create = json!({ "id": network, "name": status["network"]["name"] });
    let made = plane.ask(Method::POST, paths::NETWORKS, Some(&create)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let issuer = plane.info().await.issuer.to_string();
    let _authorised = home
        .dawn(&["control", "authorize", &plane.url, "--issuer", &issuer])
        .await
        .success();
    let _joined = home.dawn(&["control", "join", &plane.url]).await.success();
    // Two come by an invite, one is let in by hand.
    let code = plane.invite(&network, json!({ "max_uses": 2 })).await.to_string();
    let mut devices = Vec::new();
    for name in ["lab", "desk"] {
        let node = Node::new(name, Transport::Quic);
        let join = node.dawn(&["join", "--control", &plane.url, "--invite", &code, "--name", name]);
        assert_eq!(join.await.success().json()["node"]["name"], name);
        devices.push(node);
    }
    let late = Node::new("late", Transport::Quic);
    let used_up = late
        .dawn(&["join", "--control", &plane.url, "--invite", &code, "--name", "late"])
        .await;
    assert_eq!(used_up.json()["error"]["code"], "invite_used_up", "{used_up:?}");
    let attic = Node::new("attic", Transport::Quic);
    let by_hand = async {
        let pending = format!("{}?state=pending", paths::devices(&network));
        let mut found = Value::Null;
        eventually("it waits", async || {
            let page = plane.ask(Method::GET, &pending, None).await;
            found = page.body["items"][0].clone();
            found["name"] == "attic"
        })
        .await;
        let node: NodeId = found["node"].as_str().unwrap().parse().unwrap();
        let approved = plane
            .ask(Method::POST, &paths::approve(&network, &node), Some(&json!({})))
            .await;
        assert_eq!(approved.status, 200, "{approved:?}");
        found["words"].clone()
    };
    let arguments = ["join", "--control", &plane.url, "--name", "attic"];
    let (joined, words) = tokio::join!(attic.dawn(&arguments), by_hand);
    assert_eq!(joined.success().json()["words"], words);
    devices.push(attic);
    for node in &mut devices {
        node.up().await;
    }
    let [lab, desk, attic] = &mut devices[..] else {
        unreachable!()
    };
    for (from, to) in [(&*lab, "desk"), (&*desk, "attic"), (&*attic, "home"), (&*home, "lab")] {
        from.knows(to).await;
        calls(from, to).await;
    }
    let (lab_id, desk_id) = (id(lab).await, id(desk).await);
    eventually("they are there", async || is_present(&plane, &network, desk_id).await).await;
    // One is put out.
    let revoked = plane
        .ask(
            Method::POST,
            &paths::revoke(&network, &lab_id),
            Some(&json!({ "reason": "lost" })),
        )
        .await;
    assert!(revoked.status < 300, "{revoked:?}");
    for node in [&*home, &*desk, &*attic] {
        node.sees_online("lab", false).await;
    }
    eventually("it knows that it is out", async || {
        lab.get("/api/status").await["member"] == false
    })
    .await;
    // The control plane dies, and the others go on, also when they start anew.
    plane.kill().await;
    calls(desk, "attic").await;
    assert_eq!(attic.down().await, 0);
    attic.up().await;
    desk.knows("attic").await;
    calls(desk, "attic").await;
    calls(attic, "home").await;
    eventually("it is missed", async || {
        attic.get("/api/control").await["error"]["code"] == "control_unreachable"
    })
    .await;
    // It returns, with all that it had acknowledged.
    plane.up().await;
    let attic_id = id(attic).await;
    for node in [desk_id, attic_id] {
        eventually("beats and presence are back", async || {
            is_present(&plane, &network, node).await
        })
        .await;
    }
    assert_eq!(device(&plane, &network, lab_id).await["state"], "revoked");
    assert_eq!(desk.down().await, 0);
    eventually("who goes says so", async || {
        device(&plane, &network, desk_id).await["presence"] == "offline"
    })
    .await;
}

/// A control plane, a network of the test's own, and a device that is a member.
async fn with_a_device() -> (ControlPlane, Owned, Client) {
    let plane = ControlPlane::start("").await;
    let owned = plane.network().await;
    let client = Client::new(&plane);
    let invite = plane.invite(&owned.id(), json!({})).await;
    let registered = client.register(&owned.id(), "lab", Some(invite), None).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let chain: dawn_identity::CertificateChain =
        serde_json::from_value(registered.body["membership"]["chain"].clone()).unwrap();
    let verified = chain.verify(&owned.id(), now(), Duration::ZERO, &dawn_identity::Revocations::new());
    assert_eq!(verified.unwrap().node, client.node());
    assert_eq!(client.beat(&owned.id()).await.status, 200);
    (plane, owned, client)
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing_once_it_is_revoked() {
    let plane = ControlPlane::start("").await;
    let create = json!({ "name": "stolen", "scopes": ["networks:read"] });
    let made = plane.ask(Method::POST, paths::TOKENS, Some(&create)).await;
    let (token, which) = (made.body["token"].as_str().unwrap(), made.body["id"].as_str().unwrap());
    assert_eq!(
        plane.ask_with(token, Method::GET, paths::NETWORKS, None).await.status,
        200
    );
    // It does what it is for, and nothing else.
    let body = json!({ "name": "more", "scopes": ["networks:write"] });
    plane
        .ask_with(token, Method::POST, paths::TOKENS, Some(&body))
        .await
        .refused(403, "forbidden");
    let revoked = plane
        .ask(Method::DELETE, &format!("{}/{which}", paths::TOKENS), None)
        .await;
    assert!(revoked.status < 300, "{revoked:?}");
    plane
        .ask_with(token, Method::GET, paths::NETWORKS, None)
        .await
        .refused(401, "bad_token");
    let made_up = dawn_control_api::BearerToken::from_bytes([1; 32]).to_string();
    for unknown in [made_up.as_str(), "nonsense", "' OR 1=1 --"] {
        plane
            .ask_with(unknown, Method::GET, paths::NETWORKS, None)
            .await
            .refused(401, "bad_token");
    }
}

#[tokio::test]
async fn a_signed_request_is_taken_once_as_it_was_signed_and_in_its_time() {
    let (plane, owned, client) = with_a_device().await;
    let path = paths::heartbeat(&owned.id(), &client.node());
    let body = b"{}".to_vec();
    let signed = client.sign_at(&Method::POST, &path, &body, now());
    assert_eq!(
        client.send(Method::POST, &path, body.clone(), &signed).await.status,
        200
    );
    let again = client.send(Method::POST, &path, body.clone(), &signed).await;
    again.refused(401, Code::Replayed.as_str());
    // Nor for another path, or with another body.
    let signed = client.sign_at(&Method::POST, &path, &body, now());
    let other = paths::certificate(&owned.id(), &client.node());
    client
        .send(Method::POST, &other, body.clone(), &signed)
        .await
        .refused(401, "bad_signature");
    let signed = client.sign_at(&Method::POST, &path, &body, now());
    let changed = br#"{"leaving":true}"#.to_vec();
    client
        .send(Method::POST, &path, changed, &signed)
        .await
        .refused(401, "bad_digest");
    for at in [now() - Duration::from_secs(3_600), now() + Duration::from_secs(3_600)] {
        let signed = client.sign_at(&Method::POST, &path, &body, at);
        client
            .send(Method::POST, &path, body.clone(), &signed)
            .await
            .refused(401, "bad_time");
    }
    drop(plane);
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_another_network_register_nobody() {
    let plane = ControlPlane::start("").await;
    let owned = plane.network().await;
    let client = Client::new(&plane);
    let valid = owned.issue(client.node(), "lab", Role::Member, DAY);
    let expired = owned.issue(client.node(), "lab", Role::Member, Duration::ZERO);
    let other = Owned {
        key: dawn_identity::Keypair::from_seed([3; 32]),
    };
    let foreign = other.issue(client.node(), "lab", Role::Member, DAY);
    let issuers = owned.issue(client.node(), "lab", Role::Issuer, DAY);
    let anothers = owned.issue(Client::new(&plane).node(), "lab", Role::Member, DAY);
    for chain in [expired, foreign, issuers, anothers] {
        let refused = client.register(&owned.id(), "lab", None, Some(chain)).await;
        refused.refused(403, "bad_certificate");
    }
    let registered = client.register(&owned.id(), "lab", None, Some(valid)).await;
    assert_eq!(registered.body["device"]["state"], "approved", "{registered:?}");
}

#[tokio::test]
async fn a_revoked_device_gets_nothing_any_more() {
    let (plane, owned, client) = with_a_device().await;
    let network = owned.id();
    let revoked = plane
        .ask(Method::POST, &paths::revoke(&network, &client.node()), Some(&json!({})))
        .await;
    assert!(revoked.status < 300, "{revoked:?}");
    client.beat(&network).await.refused(403, "revoked");
    let path = paths::certificate(&network, &client.node());
    client
        .ask(Method::POST, &path, None::<&Value>)
        .await
        .refused(403, "revoked");
    client
        .ask(Method::GET, &paths::changes(&network), None::<&Value>)
        .await
        .refused(403, "revoked");
    let invite = plane.invite(&network, json!({})).await;
    client
        .register(&network, "lab", Some(invite), None)
        .await
        .refused(403, "revoked");
}

#[tokio::test]
async fn a_device_that_claims_anothers_key_is_refused() {
    let (plane, owned, client) = with_a_device().await;
    let (network, thief) = (owned.id(), Client::new(&plane));
    // Under its own signature it acts for itself only.
    let path = paths::heartbeat(&network, &client.node());
    thief
        .ask(Method::POST, &path, Some(&json!({})))
        .await
        .refused(403, "other_device");
    // Under the other's name its signature fits nothing.
    let mut signed = thief.sign_at(&Method::POST, &path, b"{}", now());
    let (own, others) = (thief.node().to_string(), client.node().to_string());
    signed.signature_input = signed.signature_input.replace(&own, &others);
    thief
        .send(Method::POST, &path, b"{}".to_vec(), &signed)
        .await
        .refused(401, "bad_signature");
    // Nor does it answer the other's challenge.
    let invite = plane.invite(&network, json!({})).await;
    let mut challenge = thief.challenge(&network, "thief").await;
    challenge.node = client.node();
    let register = dawn_control_api::Register {
        signature: challenge.sign(&thief.key),
        challenge,
        invite: Some(invite),
        chain: None,
        software: None,
        addresses: Vec::new(),
    };
    let refused = thief
        .ask(Method::POST, &paths::devices(&network), Some(&register))
        .await;
    refused.refused(403, "bad_challenge");
}

#[tokio::test]
async fn sql_in_a_request_is_text_like_any_other() {
    let (plane, owned, _client) = with_a_device().await;
    let network = owned.id();
    let text = "'); DROP TABLE devices; --";
    let people = paths::people(&network);
    let made = plane
        .ask(
            Method::POST,
            &people,
            Some(&json!({ "name": text, "note": "\" OR \"\"=\"" })),
        )
        .await;
    assert_eq!((made.status, made.body["name"].as_str()), (201, Some(text)), "{made:?}");
    let devices = paths::devices(&network);
    for query in ["name=%27%20OR%201%3D1%20--", "name=%25", "name=_%27"] {
        let page = plane.ask(Method::GET, &format!("{devices}?{query}"), None).await;
        let found = page.body["items"].as_array().map_or(0, Vec::len);
        assert!(page.status == 422 || found == 0, "{query}: {page:?}");
    }
    for query in [
        "cursor=%27%20OR%201",
        "limit=1;DROP",
        "state=approved%27--",
        "person=1%20OR%201",
        "order=name",
    ] {
        let page = plane.ask(Method::GET, &format!("{devices}?{query}"), None).await;
        assert!((400..500).contains(&page.status), "{query}: {page:?}");
        assert!(page.body["code"].is_string(), "{query}: {page:?}");
    }
    let path = format!("{devices}/%27%20OR%201%3D1");
    assert!((400..500).contains(&plane.ask(Method::GET, &path, None).await.status));
    let page = plane.ask(Method::GET, &devices, None).await;
    assert_eq!(page.body["items"].as_array().unwrap().len(), 1, "{page:?}");
}

/// Sends bytes, and gives what came back until the end of the connection.
async fn raw(plane: &ControlPlane, request: &str) -> String {
    let mut stream = TcpStream::connect(plane.url.trim_start_matches("http://"))
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(dawn_e2e::PATIENCE, stream.read_to_end(&mut answer));
    // A reset after an answer is an end, too.
    let _ = reading.await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[tokio::test]
async fn headers_that_are_injected_or_come_twice_are_refused() {
    let (plane, owned, client) = with_a_device().await;
    let host = plane.url.trim_start_matches("http://").to_owned();
    let path = paths::heartbeat(&owned.id(), &client.node());
    let signed = client.sign_at(&Method::POST, &path, b"{}", now());
    let digest = signed.content_digest.clone().unwrap();
    let request = |host: &str, more: &str, signed: &dawn_control_api::signature::Headers| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: 2\r\ncontent-digest: {digest}\r\nsignature-input: {}\r\nsignature: {}\r\n{more}\r\n{{}}",
            signed.signature_input, signed.signature
        )
    };
    // A second signature, a header that the first one does not cover, and one that is none.
    let twice = format!("signature: {}\r\n", signed.signature);
    assert_eq!(status(&raw(&plane, &request(&host, &twice, &signed)).await), 400);
    let uncovered = raw(&plane, &request(&host, "idempotency-key: k\r\n", &signed)).await;
    assert_eq!(status(&uncovered), 401, "{uncovered}");
    assert!(uncovered.contains("malformed_signature"), "{uncovered}");
    assert_eq!(
        status(&raw(&plane, &request(&host, "x-forged: a\0b\r\n", &signed)).await),
        400
    );
    // For another control plane.
    let elsewhere = raw(&plane, &request("other.example", "", &signed)).await;
    assert_eq!(status(&elsewhere), 421, "{elsewhere}");
    assert!(elsewhere.contains("wrong_authority"), "{elsewhere}");
    // Line breaks in what is said come back in no header.
    let broken = "/v1/networks/%0d%0aset-cookie:%20a=b";
    let answer = raw(
        &plane,
        &format!("GET {broken} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
    )
    .await;
    assert!((400..500).contains(&status(&answer)), "{answer}");
    let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
    assert!(!head.contains("set-cookie"), "{head}");
    // Untouched it is taken.
    let taken = raw(&plane, &request(&host, "", &signed)).await;
    assert_eq!(status(&taken), 200, "{taken}");
}

#[tokio::test]
async fn a_body_of_a_gibibyte_is_cut_early() {
    const GIBIBYTE: usize = 1 << 30;
    let plane = ControlPlane::start("").await;
    let host = plane.url.trim_start_matches("http://").to_owned();
    let before = plane.memory();
    let head = |length: &str| {
        format!(
            "POST {} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n",
            paths::NETWORKS,
            plane.token
        )
    };
    // One that says so is refused before any of it is read.
    let answer = raw(&plane, &head(&format!("content-length: {GIBIBYTE}\r\n"))).await;
    assert_eq!(status(&answer), 413, "{answer}");
    assert!(answer.contains("too_large"), "{answer}");
    // One that does not say so is cut when it has become too long.
    let mut stream = TcpStream::connect(&host).await.unwrap();
    stream
        .write_all(head("transfer-encoding: chunked\r\n").as_bytes())
        .await
        .unwrap();
    let (mut reading, mut writing) = stream.split();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    let sending = async {
        while sent < GIBIBYTE && writing.write_all(&chunk).await.is_ok() {
            sent += 0x10000;
        }
    };
    let mut answer = Vec::new();
    let hearing = async {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = reading.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(dawn_e2e::PATIENCE, async { tokio::join!(sending, hearing) })
        .await
        .expect("cut");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || status(&answer) == 413, "{answer}");
    assert!(sent < GIBIBYTE / 16, "{sent} bytes were taken");
    assert!(
        plane.memory() < before + (64 << 20),
        "{} bytes of memory",
        plane.memory()
    );
    assert_eq!(plane.ask(Method::GET, paths::NETWORKS, None).await.status, 200);
}

#[tokio::test]
async fn a_slow_client_is_told_so_and_holds_nobody_up() {
    let plane = ControlPlane::start("[limits]\nhead = \"1s\"\nbody = \"1s\"\n").await;
    let host = plane.url.trim_start_matches("http://").to_owned();
    let begun = Instant::now();
    let head = format!("GET /v1/info HTTP/1.1\r\nhost: {host}\r\nx-slow: ");
    let body = format!(
        "POST {} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{",
        paths::NETWORKS,
        plane.token
    );
    let (slow_head, slow_body, quick) = tokio::join!(raw(&plane, &head), raw(&plane, &body), plane.info());
    assert!(slow_head.is_empty() || status(&slow_head) == 408, "{slow_head}");
    assert_eq!(status(&slow_body), 408, "{slow_body}");
    assert!(slow_body.contains("too_slow"), "{slow_body}");
    assert!(begun.elapsed() < dawn_e2e::PATIENCE);
    assert_eq!(quick.url, plane.url);
}
