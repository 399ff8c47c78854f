//! MCP over WebSocket at a node: plain and in a secure channel, in both eras, and who is refused how.
#![allow(clippy::expect_used, clippy::panic, reason = "a test helper fails the test")]

use dawn_channel::Signing;
use dawn_e2e::websocket::{Refusal, Secure};
use dawn_e2e::{Network, Node, Transport, WebSocket, eventually};
use dawn_identity::{NetworkId, NodeId};
use serde_json::{Value, json};

fn ws(node: &Node, path: &str) -> String {
    format!("{}{path}", node.api())
}

async fn ids(node: &Node) -> (NetworkId, NodeId) {
    let status = node.get("/api/status").await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (
        text(&status["network"]["id"]).parse().expect("a network id"),
        text(&status["node"]["id"]).parse().expect("a node id"),
    )
}

async fn ended(node: &Node, reason: &str) -> u64 {
    let metrics = dawn_e2e::http().get(ws(node, "/metrics")).bearer_auth(node.token());
    let metrics = metrics.send().await.expect("answered").text().await.expect("text");
    let line = format!("dawn_mcp_sockets_ended_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|each| each.strip_prefix(&line));
    count.expect("counted").parse().expect("a number")
}

async fn one(settings: &str) -> Network {
    let mut network = Network::start(Transport::Tcp, &["lab"]).await;
    let lab = &mut network.nodes[0];
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    if !settings.is_empty() {
        assert_eq!(lab.down().await, 0);
        let file = lab.home().join("config.toml");
        let config = std::fs::read_to_string(&file).expect("a configuration");
        std::fs::write(&file, format!("{settings}\n{config}")).expect("written");
        lab.up().await;
    }
    lab.sees("lab:probe").await;
    network
}

async fn refused(address: &str, headers: &[(&'static str, &str)]) -> Refusal {
    match WebSocket::open(address, headers).await {
        Ok(opened) => panic!("{opened:?} was not to be"),
        Err(refusal) => refusal,
    }
}

/// Exercises everything that a session has, in both eras.
async fn exercise(client: &mut WebSocket, prefix: &str) {
    let tool = |name: &str| format!("{prefix}{name}");
    let initialized = client.initialize().await;
    assert_eq!(initialized["result"]["protocolVersion"], "2025-11-25");
    let listed = client.request(1, "tools/list", json!({})).await;
    assert!(
        listed["result"]["tools"].to_string().contains(&tool("echo")),
        "{listed}"
    );
    let echo = client.call(2, &tool("echo"), json!({ "text": "grüße" })).await;
    assert_eq!(echo["result"]["content"][0]["text"], "grüße", "{echo}");
    let large = "x".repeat(700_000);
    let echo = client.call(3, &tool("echo"), json!({ "text": large })).await;
    assert_eq!(echo["result"]["content"][0]["text"], large.as_str());

    let params = json!({
        "name": tool("slow"), "arguments": { "seconds": 0.3, "steps": 3 }, "_meta": { "progressToken": "p" },
    });
    let slow = client.request(4, "tools/call", params).await;
    assert_eq!(slow["result"]["content"][0]["text"], "finished", "{slow}");
    let progress = client
        .heard
        .iter()
        .filter(|message| message["method"] == "notifications/progress");
    assert!(progress.count() >= 2, "{:?}", client.heard);

    let asking = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": tool("ask_elicitation"), "arguments": {} } });
    client.send(&asking).await;
    let question = client.next().await.expect("a question");
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "accept", "content": { "name": "Ada" } } });
    client.send(&answer).await;
    assert!(client.answer(5).await["result"].to_string().contains("Ada"));

    let modern = client
        .modern(
            6,
            "tools/call",
            json!({ "name": tool("echo"), "arguments": { "text": "now" } }),
        )
        .await;
    assert_eq!(modern["result"]["content"][0]["text"], "now", "{modern}");
    let discovered = client.modern(7, "server/discover", json!({})).await;
    assert!(discovered["result"]["supportedVersions"].is_array(), "{discovered}");
}

#[tokio::test]
async fn both_eras_are_spoken_side_by_side_with_one_agent_and_with_all() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let mut client = WebSocket::plain(&ws(home, "/ws/lab/probe"), &home.token()).await;
    exercise(&mut client, "").await;
    let mut client = WebSocket::plain(&ws(home, "/ws"), &home.token()).await;
    exercise(&mut client, "lab__probe__").await;
    let mut client = WebSocket::plain(&ws(home, "/ws?tools=search"), &home.token()).await;
    client.initialize().await;
    let listed = client.request(1, "tools/list", json!({})).await;
    assert!(listed["result"]["tools"].to_string().contains("find_tools"), "{listed}");
    // What is no JSON-RPC is told so, and the session goes on.
    client.send_text("{").await;
    let error = client.next().await.expect("an answer");
    assert_eq!(error["error"]["code"], -32700, "{error}");
    client.request(2, "ping", json!({})).await;
    // The calls of a client are its node's.
    eventually("the calls are recorded", async || {
        let lines = lab.dawn(&["audit", "--caller", "home"]).await.success().json();
        lines.as_array().is_some_and(|lines| lines.len() >= 6)
    })
    .await;
}

#[tokio::test]
async fn who_may_not_is_refused_before_the_upgrade() {
    let network = one("").await;
    let lab = &network.nodes[0];
    let (token, address) = (lab.token(), ws(lab, "/ws/lab/probe"));
    let bearer = format!("Bearer {token}");
    let authorization = ("authorization", bearer.as_str());
    let cases: [(&[(&'static str, &str)], u16); 8] = [
        (&[], 401),
        (&[("authorization", "Bearer wrong")], 401),
        (
            &[
                ("authorization", "Bearer wrong"),
                ("sec-websocket-protocol", "dawn-secure.v1"),
            ],
            401,
        ),
        (&[("sec-websocket-protocol", "mcp, bearer.wrong")], 401),
        (&[authorization, ("origin", "https://evil.example")], 403),
        (&[authorization, ("host", "evil.example")], 403),
        (&[authorization, ("sec-websocket-protocol", "graphql-ws")], 400),
        (&[authorization, ("sec-websocket-version", "12")], 400),
    ];
    for (headers, status) in cases {
        let refusal = refused(&address, headers).await;
        assert_eq!(refusal.status, status, "{headers:?}: {refusal:?}");
        assert!(refusal.body["error"]["message"].is_string(), "{refusal:?}");
    }
    let not_found = refused(&ws(lab, "/ws/groups/none"), &[authorization]).await;
    assert_eq!(not_found.status, 404, "{not_found:?}");
    // Several agents as one are the owner's, whatever a member can prove.
    let refusal = refused(&ws(lab, "/ws"), &[("sec-websocket-protocol", "dawn-secure.v1")]).await;
    assert_eq!(refusal.status, 401, "{refusal:?}");
    let no_upgrade = dawn_e2e::http()
        .get(&address)
        .bearer_auth(&token)
        .send()
        .await
        .expect("answered");
    assert_eq!(no_upgrade.status(), 426);

    // A browser shows the token as a subprotocol, which nobody repeats; others in the address.
    let browser = format!("mcp, bearer.{token}");
    let opened = WebSocket::open(&address, &[("sec-websocket-protocol", browser.as_str())]).await;
    assert_eq!(opened.expect("let in").protocol.as_deref(), Some("mcp"));
    let opened = WebSocket::open(&format!("{address}?token={token}"), &[]).await;
    let mut opened = opened.expect("let in");
    assert_eq!(opened.protocol, None);
    assert!(opened.initialize().await["result"].is_object());
}

#[tokio::test]
async fn in_the_secure_channel_both_eras_are_spoken_and_who_expects_something_else_is_refused() {
    let network = one("").await;
    let lab = &network.nodes[0];
    let (token, address) = (lab.token(), ws(lab, "/ws/lab/probe"));
    let (id, node) = ids(lab).await;
    let right = Secure::stranger(id, node, "/ws/lab/probe");
    let mut client = WebSocket::secure(&address, Some(&token), &right)
        .await
        .expect("a channel");
    exercise(&mut client, "").await;

    let elsewhere = dawn_identity::Keypair::from_seed([9; 32]);
    for wrong in [
        Secure {
            node: elsewhere.node_id(),
            ..right.clone()
        },
        Secure {
            network: elsewhere.network_id(),
            ..right.clone()
        },
        Secure {
            path: "/ws/lab/other".into(),
            ..right.clone()
        },
        Secure {
            signing: Signing::ChannelOnly,
            ..right.clone()
        },
    ] {
        assert!(
            WebSocket::secure(&address, Some(&token), &wrong).await.is_err(),
            "{wrong:?}"
        );
    }
    // In a first contact it is the client that notices; what is no handshake, the node.
    eventually("they are counted", async || ended(lab, "broken").await == 4).await;
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-protocol", "dawn-secure.v1"),
    ];
    let mut client = WebSocket::open(&address, &headers).await.expect("let in");
    client.send_bytes(vec![9; 50]).await;
    assert_eq!(client.end().await.expect("closed with a reason").0, 1008);
    eventually("it is counted", async || ended(lab, "handshake").await == 1).await;

    // Without the token somebody who is no member gets nothing.
    let mut client = WebSocket::secure(&address, None, &right).await.expect("a channel");
    client
        .send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }))
        .await;
    let (code, reason) = client.end().await.expect("closed with a reason");
    assert_eq!(code, 1008, "{reason}");
    eventually("it is counted", async || ended(lab, "refused").await == 1).await;
}

#[tokio::test]
async fn frames_that_are_altered_repeated_or_lost_end_the_connection_and_are_counted() {
    let network = one("").await;
    let lab = &network.nodes[0];
    let (id, node) = ids(lab).await;
    let secure = Secure::stranger(id, node, "/ws");
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    for (done, meddle) in ["altered", "repeated", "lost"].iter().enumerate() {
        let mut client = WebSocket::secure(&ws(lab, "/ws"), Some(&lab.token()), &secure)
            .await
            .expect("a channel");
        client.initialize().await;
        let mut frame = client.seal(ping.as_bytes());
        match *meddle {
            "altered" => {
                frame[20] ^= 1;
                client.send_bytes(frame).await;
            }
            "repeated" => {
                client.send_bytes(frame.clone()).await;
                client.send_bytes(frame).await;
            }
            _ => {
                let next = client.seal(ping.as_bytes());
                client.send_bytes(next).await;
            }
        }
        let (code, reason) = client.end().await.expect("closed with a reason");
        assert_eq!(code, 1002, "{meddle}: {reason}");
        eventually("it is counted", async || ended(lab, "channel").await == done as u64 + 1).await;
    }
}

#[tokio::test]
async fn a_node_can_be_told_to_refuse_plain_mode_and_members_without_the_token() {
    let settings = "[api.websocket]\nplain = false\nmembers = false\nsigning = \"channel-only\"\n";
    let network = one(settings).await;
    let lab = &network.nodes[0];
    let bearer = format!("Bearer {}", lab.token());
    for protocol in [None, Some(("sec-websocket-protocol", "mcp"))] {
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(protocol);
        let refusal = refused(&ws(lab, "/ws"), &headers).await;
        assert_eq!(refusal.status, 403);
        assert!(refusal.body.to_string().contains("dawn-secure.v1"), "{refusal:?}");
    }
    let refusal = refused(
        &ws(lab, "/ws/lab/probe"),
        &[("sec-websocket-protocol", "dawn-secure.v1")],
    )
    .await;
    assert_eq!(refusal.status, 401, "{refusal:?}");
    let (id, node) = ids(lab).await;
    let secure = Secure {
        signing: Signing::ChannelOnly,
        ..Secure::stranger(id, node, "/ws/lab/probe")
    };
    let client = WebSocket::secure(&ws(lab, "/ws/lab/probe"), Some(&lab.token()), &secure).await;
    exercise(&mut client.expect("a channel"), "").await;
}

#[tokio::test]
async fn limits_hold_for_messages_and_connections_and_a_slow_reader_is_heard() {
    let network = one("[limits]\nmessage_bytes = 2000000\nsockets = 3\n").await;
    let lab = &network.nodes[0];
    let (address, token) = (ws(lab, "/ws/lab/probe"), lab.token());
    let mut large = WebSocket::plain(&address, &token).await;
    large.initialize().await;
    large.send_text(&"x".repeat(2_100_000)).await;
    let told = large.next().await.expect("an answer");
    assert_eq!(told["error"]["data"]["dawn"]["code"], "too_large", "{told}");
    assert_eq!(large.end().await.expect("closed").0, 1009);
    eventually("it is counted", async || ended(lab, "too_large").await == 1).await;

    // More than the way there and back holds, and nobody reads; what is said meanwhile is heard all the same.
    let mut slow = WebSocket::plain(&address, &token).await;
    slow.initialize().await;
    let text = "y".repeat(1_900_000);
    for id in 1..=8 {
        let params = json!({ "name": "echo", "arguments": { "text": text } });
        slow.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }))
            .await;
    }
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let answer = slow.next().await.expect("an answer");
        assert_eq!(answer["result"]["content"][0]["text"], text.as_str());
        seen.push(answer["id"].as_u64().expect("a number"));
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=8).collect::<Vec<_>>());

    let _second = WebSocket::plain(&address, &token).await;
    let _third = WebSocket::plain(&address, &token).await;
    let bearer = format!("Bearer {token}");
    let refusal = refused(&address, &[("authorization", bearer.as_str())]).await;
    assert_eq!(refusal.status, 503, "{refusal:?}");
    drop(slow);
    eventually("there is room again", async || {
        WebSocket::open(&address, &[("authorization", bearer.as_str())])
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn who_shuts_down_says_so_and_who_is_silent_is_given_up() {
    let mut network = one("[limits]\nsocket_idle = \"1s\"\n").await;
    let lab = &mut network.nodes[0];
    let address = ws(lab, "/ws/lab/probe");
    let mut client = WebSocket::plain(&address, &lab.token()).await;
    client.initialize().await;
    // A client that nobody polls answers no ping.
    eventually("it is given up", async || ended(lab, "silent").await == 1).await;
    let mut client = WebSocket::plain(&address, &lab.token()).await;
    let (end, code) = tokio::join!(client.end(), lab.down());
    assert_eq!((end.expect("a reason").0, code), (1001, 0));
}
