//! Bad input gets its clear error, is counted, and stops nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use dawn_e2e::{Network, Node, Transport, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Raw {
    endpoint: String,
    token: String,
}

impl Raw {
    fn of(node: &Node, agent: &str) -> Self {
        Self {
            endpoint: node.endpoint(Some(agent)),
            token: node.token(),
        }
    }

    async fn post(&self, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> (u16, Value) {
        let mut all = reqwest::header::HeaderMap::new();
        all.insert("content-type", "application/json".parse().unwrap());
        all.insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        for (key, value) in headers {
            all.insert(
                reqwest::header::HeaderName::from_bytes(key.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let builder = dawn_e2e::http().post(&self.endpoint).headers(all);
        let response = builder.body(body).send().await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null),
        )
    }
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

#[tokio::test]
async fn each_kind_of_bad_request_gets_its_error_and_the_node_goes_on() {
    let mut network = Network::start_with(
        Transport::Tcp,
        &["home", "lab"],
        &[("DAWN_LIMITS__MESSAGE_BYTES", "1000000")],
    )
    .await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[0].sees("lab:probe").await;
    let home = &network.nodes[0];
    let raw = Raw::of(home, "lab:probe");

    for (body, status, code) in [
        ("{\"jsonrpc\":", 400, -32700),
        ("not json", 400, -32700),
        ("\u{0}\u{1}", 400, -32700),
        ("[]", 400, -32600),
        ("17", 400, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, 400, -32600),
    ] {
        let (got, answer) = raw.post(&[], body).await;
        assert_eq!(
            (got, answer["error"]["code"].as_i64()),
            (status, Some(code)),
            "{body}: {answer}"
        );
    }
    let (status, answer) = raw
        .post(
            &[("mcp-session-id", "never-was")],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        )
        .await;
    assert_eq!((status, &answer["id"]), (404, &json!(1)), "{answer}");
    let (status, answer) = raw.post(&[], vec![b' '; 2_000_000]).await;
    assert_eq!(
        (status, &answer["error"]["data"]["dawn"]["code"]),
        (413, &json!("too_large")),
        "{answer}"
    );
    let (status, _) = raw.post(&[("content-type", "text/plain")], INITIALIZE).await;
    assert!(status == 415 || status == 400, "{status}");
    let (status, _) = raw.post(&[("authorization", "Bearer wrong")], INITIALIZE).await;
    assert_eq!(status, 401);
    let (status, _) = raw.post(&[("authorization", "")], INITIALIZE).await;
    assert_eq!(status, 401);
    let (status, _) = raw.post(&[("origin", "https://evil.example")], INITIALIZE).await;
    assert_eq!(status, 403);
    let (status, _) = raw.post(&[("host", "evil.example")], INITIALIZE).await;
    assert_eq!(status, 403);
    for (agent, code) in [("lab:nothing", "unknown_agent"), ("nowhere:probe", "unknown_node")] {
        let (status, answer) = Raw::of(home, agent).post(&[], INITIALIZE).await;
        assert_eq!(answer["error"]["data"]["dawn"]["code"], code, "{status} {answer}");
        assert_eq!(answer["id"], 1);
    }
    network.nodes[1].kill().await;
    network.nodes[0].sees_online("lab", false).await;
    let (_, answer) = Raw::of(&network.nodes[0], "lab:probe").post(&[], INITIALIZE).await;
    assert_eq!(answer["error"]["data"]["dawn"]["code"], "node_offline", "{answer}");
    network.nodes[1].up().await;
    network.nodes[0].sees("lab:probe").await;
    assert_eq!(
        network.nodes[0]
            .legacy(Some("lab:probe"))
            .await
            .text(1, "echo", json!({ "text": "alive" }))
            .await,
        "alive"
    );
}

#[tokio::test]
async fn every_api_route_asks_for_the_token() {
    let network = Network::start(Transport::Tcp, &["home"]).await;
    let home = &network.nodes[0];
    for path in [
        "/api/status",
        "/api/peers",
        "/api/agents",
        "/api/invites",
        "/api/events",
        "/metrics",
        "/mcp",
        "/mcp/home/memory",
    ] {
        let response = dawn_e2e::http()
            .get(format!("{}{path}", home.api()))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 401, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        let response = dawn_e2e::http()
            .get(format!("{}{path}", home.api()))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
}

/// Host, port and whether it is UDP, of a multiaddr on loopback.
fn socket(multiaddr: &str) -> (String, bool) {
    let parts: Vec<&str> = multiaddr.split('/').collect();
    (format!("{}:{}", parts[2], parts[4]), parts[3] == "udp")
}

#[tokio::test]
async fn garbage_on_every_listening_port_stops_nothing() {
    for transport in [Transport::Quic, Transport::Tcp, Transport::WebSocket] {
        let network = Network::start(transport, &["home", "lab"]).await;
        let [home, lab] = &network.nodes[..] else {
            unreachable!()
        };
        lab.add_test_agent("probe", &[], &["--stdio"]).await;
        home.sees("lab:probe").await;
        let mut ports: Vec<(String, bool)> = lab.listens().iter().map(|address| socket(address)).collect();
        ports.push((lab.api().trim_start_matches("http://").to_owned(), false));
        for round in 0..50_u32 {
            let garbage: Vec<u8> = (0..2000_u32)
                .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(round * 97) >> 13) as u8)
                .collect();
            for (address, udp) in &ports {
                if *udp {
                    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
                    let _sent = socket.send_to(&garbage[..1200], address).await.unwrap();
                } else {
                    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    let prefix: &[u8] = match round % 4 {
                        0 => b"\x13/multistream/1.0.0\n",
                        1 => b"GET / HTTP/1.1\r\n",
                        2 => b"POST /mcp HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                        _ => b"",
                    };
                    // The node may close the connection while garbage is still being written.
                    let _ = stream.write_all(prefix).await;
                    let _ = stream.write_all(&garbage).await;
                    let _ = stream.shutdown().await;
                    let mut answer = Vec::new();
                    let _ = tokio::time::timeout(Duration::from_millis(20), stream.read_to_end(&mut answer)).await;
                }
            }
        }
        let session = home.legacy(Some("lab:probe")).await;
        assert_eq!(session.text(1, "echo", json!({ "text": "unmoved" })).await, "unmoved");
    }
}

struct NoMember;

#[async_trait::async_trait]
impl dawn_mesh::Gate for NoMember {
    fn own_chain(&self) -> Vec<u8> {
        b"not a certificate".to_vec()
    }

    fn verify(
        &self,
        _peer: dawn_identity::NodeId,
        _chain: &[u8],
    ) -> Result<dawn_identity::Membership, dawn_mesh::Refusal> {
        Err(dawn_mesh::Refusal {
            code: "stranger".into(),
            message: "trusts nobody".into(),
            evidence: bytes::Bytes::new(),
        })
    }

    fn verify_key(
        &self,
        _peer: dawn_identity::NodeId,
        _key: &dawn_channel::StaticPublic,
    ) -> Result<(), dawn_mesh::Refusal> {
        Ok(())
    }

    async fn refused(&self, _: dawn_identity::NodeId, _: &[u8]) {}
}

#[tokio::test]
async fn a_stranger_gets_nothing_but_a_refusal() {
    let network = Network::start(Transport::Tcp, &["home"]).await;
    let home = &network.nodes[0];
    let id: dawn_identity::NodeId = home.get("/api/status").await["node"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let config = dawn_mesh::MeshConfig {
        listen: Vec::new(),
        mdns: false,
        ..dawn_mesh::MeshConfig::new([7; 32])
    };
    let stranger = dawn_mesh::Mesh::start(config, std::sync::Arc::new(NoMember))
        .await
        .unwrap();
    for protocol in ["/dawn/mcp/1", "/dawn/pubsub/1", "/dawn/registry/1"] {
        // Whether it cannot even dial, or its stream is closed unread, it reads nothing.
        let _ = stranger.dial_stranger(home.listens(), id).await;
        if let Ok(mut stream) = stranger.open_stranger(id, dawn_mesh::Protocol(protocol)).await {
            let _ = stream.write_all(b"{\"agent\":\"memory\",\"mode\":\"session\"}\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}\n").await;
            let _ = stream.flush().await;
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await;
            assert!(answer.is_empty(), "{protocol}: {}", String::from_utf8_lossy(&answer));
        }
    }
    eventually("home is unmoved", async || {
        home.get("/api/status").await["peers"]["online"].is_number()
    })
    .await;
    let peers = home.get("/api/peers").await;
    assert!(
        !peers.to_string().contains(&stranger.node_id().to_string()),
        "a stranger is no peer"
    );
}

#[tokio::test]
async fn a_damaged_ticket_is_told_apart_from_a_foreign_text() {
    let network = Network::start(Transport::Tcp, &["home"]).await;
    let ticket = network.ticket(&[]).await;
    let node = Node::new("lab", Transport::Tcp);
    let mut damaged = ticket.clone();
    let last = damaged.pop().unwrap();
    damaged.push(if last == 'a' { 'b' } else { 'a' });
    for text in [damaged.as_str(), "hello"] {
        let output = node.dawn(&["join", text]).await;
        assert_ne!(output.code, 0);
        let error = output.json();
        assert!(
            error["error"]["code"]
                .as_str()
                .is_some_and(|code| code.starts_with("ticket")),
            "{error}"
        );
    }
}
