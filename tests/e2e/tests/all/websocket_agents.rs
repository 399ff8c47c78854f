//! Agents at `ws://` addresses: other nodes in a secure channel, with somebody in between.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use dawn_e2e::websocket::Secure;
use dawn_e2e::{Network, Node, Proxy, Transport, WebSocket, eventually};
use serde_json::json;

async fn id_of(node: &Node) -> String {
    let status = node.get("/api/status").await;
    status["node"]["id"].as_str().expect("an id").to_owned()
}

/// `lab` owns the network and hosts the agent; `home` reaches it through a proxy, as its own agent `far`.
async fn far() -> (Network, Proxy) {
    let network = Network::start(Transport::Quic, &["lab", "home"]).await;
    let [lab, home] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    let proxy = Proxy::start(lab.api()).await;
    let url = format!("ws://{}/ws/lab/probe", proxy.address);
    home.add_agent("far", &["--url", &url, "--node", &id_of(lab).await], &[])
        .await;
    home.sees("home:far").await;
    (network, proxy)
}

#[tokio::test]
async fn a_node_uses_an_agent_of_another_in_the_secure_channel_as_itself_and_nobody_in_between_reads_it() {
    let (network, proxy) = far().await;
    let [lab, home] = &network.nodes[..] else {
        unreachable!()
    };
    let session = home.legacy(Some("home:far")).await;
    assert_eq!(
        session.text(1, "echo", json!({ "text": "a secret word" })).await,
        "a secret word"
    );
    let modern = home.modern(Some("home:far"));
    let called = modern.call(2, "echo", json!({ "text": "another secret" })).await.body;
    assert_eq!(called["result"]["content"][0]["text"], "another secret", "{called}");
    // A third member uses it through both.
    lab.sees("home:far").await;
    let called = lab
        .modern(Some("home:far"))
        .call(3, "echo", json!({ "text": "third" }))
        .await
        .body;
    assert_eq!(called["result"]["content"][0]["text"], "third", "{called}");
    for word in ["a secret word", "another secret", "tools/call", "\"echo\""] {
        assert!(!proxy.saw(word.as_bytes()), "{word}");
    }
    assert!(proxy.saw(b"dawn-secure.v1"));
    // The caller is the node that came, by its certificate.
    eventually("the calls are recorded", async || {
        let lines = lab
            .dawn(&["audit", "--caller", "home", "--what", "echo"])
            .await
            .success()
            .json();
        lines.as_array().is_some_and(|lines| lines.len() == 3)
    })
    .await;
    // Rules of the agent hold for that node, also in sessions that are open.
    let file = lab.home().join("config.toml");
    let config = std::fs::read_to_string(&file).expect("a configuration");
    let rule = "[[agents.probe.access]]\nwho = [\"home\"]\nwhat = [\"echo\"]\nthen = \"deny\"\n";
    std::fs::write(&file, format!("{config}\n{rule}")).expect("written");
    let _reloaded = lab.dawn(&["reload"]).await.success();
    let denied = session.call(4, "echo", json!({ "text": "x" })).await.body;
    assert_eq!(denied["error"]["data"]["dawn"]["code"], "denied", "{denied}");
    assert!(session.call(5, "greet", json!({ "name": "x" })).await.body["result"].is_object());
}

#[tokio::test]
async fn a_member_gets_no_further_than_the_agents_of_that_node_and_not_at_all_once_it_is_revoked() {
    let (network, proxy) = far().await;
    let [lab, home] = &network.nodes[..] else {
        unreachable!()
    };
    home.add_test_agent("own", &[], &["--stdio"]).await;
    lab.sees("home:own").await;
    let node = id_of(lab).await;
    let url = format!("ws://{}/ws/home/own", proxy.address);
    let added = home
        .dawn(&["agent", "add", "round", "--url", &url, "--node", &node])
        .await;
    assert_eq!(added.code, 1, "{added:?}");
    assert!(added.stdout.contains("agents of this node"), "{added:?}");
    // With another node's id there is no channel.
    let url = format!("ws://{}/ws/lab/probe", proxy.address);
    let other = id_of(home).await;
    let added = home
        .dawn(&["agent", "add", "wrong", "--url", &url, "--node", &other])
        .await;
    assert_eq!(added.code, 1, "{added:?}");
    let session = home.legacy(Some("home:far")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
    let _revoked = lab.dawn(&["peers", "revoke", "home"]).await.success();
    eventually("it is shut out", async || {
        let answer = session.call(2, "echo", json!({ "text": "x" })).await.body;
        answer["error"]["data"]["dawn"]["code"] == "denied"
    })
    .await;
}

#[tokio::test]
async fn an_agent_comes_back_with_its_server_and_sessions_go_on() {
    let (mut network, proxy) = far().await;
    let session = network.nodes[1].legacy(Some("home:far")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
    // A connection that was cut is made anew, and the session begun again in it.
    proxy.cut();
    eventually("the session goes on", async || {
        let answer = session.call(2, "echo", json!({ "text": "y" })).await.body;
        answer["result"]["content"][0]["text"] == "y"
    })
    .await;
    assert_eq!(network.nodes[0].down().await, 0);
    let failed = session.call(3, "echo", json!({ "text": "x" })).await.body;
    assert_eq!(failed["error"]["data"]["dawn"]["code"], "agent_failed", "{failed}");
    let modern = network.nodes[1].modern(Some("home:far"));
    let failed = modern.call(4, "echo", json!({ "text": "x" })).await.body;
    assert_eq!(failed["error"]["data"]["dawn"]["code"], "agent_failed", "{failed}");
    network.nodes[0].up().await;
    proxy.lead_to(network.nodes[0].api());
    for id in [5, 6] {
        eventually("it comes back", async || {
            let answer = if id == 5 {
                session.call(5, "echo", json!({ "text": "z" })).await.body
            } else {
                modern.call(6, "echo", json!({ "text": "z" })).await.body
            };
            answer["result"]["content"][0]["text"] == "z"
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_altered_on_the_way_is_never_taken_for_what_was_said() {
    let (network, proxy) = far().await;
    let home = &network.nodes[1];
    let session = home.legacy(Some("home:far")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
    let text = "pay 100 to Ada ".repeat(30);
    for (id, towards_server) in [(2, true), (3, false)] {
        proxy.flip(towards_server);
        let answer = session.call(id, "echo", json!({ "text": text })).await.body;
        assert!(!proxy.is_flipping(), "the bit was flipped");
        assert_eq!(answer["error"]["data"]["dawn"]["code"], "agent_failed", "{answer}");
        eventually("the session goes on", async || {
            let answer = session.call(id + 10, "echo", json!({ "text": text })).await.body;
            answer["result"]["content"][0]["text"] == text.as_str()
        })
        .await;
    }
}

#[tokio::test]
async fn a_plain_websocket_server_is_an_agent_too_and_the_token_makes_its_holder_the_owner() {
    let network = Network::start(Transport::Quic, &["lab", "home"]).await;
    let [lab, home] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    lab.sees("lab:probe").await;
    let url = format!("{}/ws/lab/probe", lab.api().replacen("http", "ws", 1));
    let authorization = format!("Authorization: Bearer {}", lab.token());
    home.add_agent("plain", &["--url", &url, "--header", &authorization], &[])
        .await;
    lab.sees("home:plain").await;
    for node in [home, lab] {
        let session = node.legacy(Some("home:plain")).await;
        assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
        let called = node
            .modern(Some("home:plain"))
            .call(2, "echo", json!({ "text": "y" }))
            .await
            .body;
        assert_eq!(called["result"]["content"][0]["text"], "y", "{called}");
    }
    // With the token it is in the secure channel what the owner is: it reaches others through that node.
    home.add_test_agent("own", &[], &["--stdio"]).await;
    lab.sees("home:own").await;
    let node = id_of(lab).await;
    let round = format!("{}/ws/home/own", lab.api().replacen("http", "ws", 1));
    let options = ["--url", &round, "--header", &authorization, "--node", &node];
    home.add_agent("round", &options, &[]).await;
    home.sees("home:round").await;
    let session = home.legacy(Some("home:round")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
    // Without token and channel there is nothing.
    let added = home.dawn(&["agent", "add", "none", "--url", &url]).await;
    assert_eq!(added.json()["error_code"], "login_required", "{added:?}");
    assert!(
        added.stdout.contains("if it is a Dawn node, for its token"),
        "{added:?}"
    );
    let listed = home.get("/api/agents").await.to_string();
    assert!(!listed.contains(&lab.token()), "headers are nobody's business");
}

/// Ends TLS in front of a node's API, on a port of loopback.
async fn tls_front(pair: &rcgen::CertifiedKey, target: &str) -> u16 {
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.key_pair.serialize_der()).expect("a key");
    let config =
        rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .expect("a certificate with its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let target = target.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                // Who does not trust the certificate leaves here.
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let mut server = tokio::net::TcpStream::connect(target).await.expect("the node is there");
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn over_tls_an_agent_is_reached_where_its_certificate_is_trusted_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = folder.path().join("trusted.pem");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&trusted, pair.cert.pem()).expect("written");
    let environment = [("SSL_CERT_FILE", trusted.to_str().expect("text"))];
    let network = Network::start_with(Transport::Quic, &["lab", "home"], &environment).await;
    let [lab, home] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    lab.sees("lab:probe").await;
    let port = tls_front(&pair, lab.api()).await;
    let authorization = format!("Authorization: Bearer {}", lab.token());
    let url = format!("wss://localhost:{port}/ws/lab/probe");
    home.add_agent("plain", &["--url", &url, "--header", &authorization], &[])
        .await;
    home.add_agent("sealed", &["--url", &url, "--node", &id_of(lab).await], &[])
        .await;
    for agent in ["home:plain", "home:sealed"] {
        home.sees(agent).await;
        let session = home.legacy(Some(agent)).await;
        assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
        let called = home
            .modern(Some(agent))
            .call(2, "echo", json!({ "text": "y" }))
            .await
            .body;
        assert_eq!(called["result"]["content"][0]["text"], "y", "{called}");
    }
    // The certificate is not that of this name; nor is it trusted where nobody said so.
    let other = format!("wss://127.0.0.1:{port}/ws/lab/probe");
    let strangers = Network::start(Transport::Quic, &["alone"]).await;
    for (node, url) in [(home, &other), (&strangers.nodes[0], &url)] {
        let _added = node
            .dawn(&["agent", "add", "other", "--url", url, "--header", &authorization])
            .await;
        eventually("it is told why", async || {
            let listed = node.get("/api/agents").await.to_string();
            listed.contains("certificate") && !listed.contains("\"other\",\"state\":\"ready\"")
        })
        .await;
        let called = node.dawn(&["call", "other", "echo", "text=x"]).await;
        assert_ne!(called.code, 0, "{called:?}");
    }
}

#[tokio::test]
async fn a_stranger_learns_nothing_but_who_the_node_is() {
    let (network, proxy) = far().await;
    let lab = &network.nodes[0];
    let status = lab.get("/api/status").await;
    let network_id = status["network"]["id"].as_str().expect("an id").parse().expect("an id");
    let node = id_of(lab).await.parse().expect("an id");
    // Whether there is such an agent or not, the answer is the same.
    for path in ["/ws/lab/probe", "/ws/lab/none", "/ws/none/none"] {
        let stranger = Secure::stranger(network_id, node, path);
        let address = format!("http://{}{path}", proxy.address);
        let mut client = WebSocket::secure(&address, None, &stranger).await.expect("a channel");
        let frame = client.seal(&[0x82; 500]);
        client.send_bytes(frame).await;
        let (code, reason) = client.end().await.expect("closed with a reason");
        assert_eq!(code, 1008, "{path}: {reason}");
        assert!(!reason.contains("probe") && !reason.contains("none"), "{reason}");
    }
}

/// How many connections a node ended because it accepts the other end no more.
async fn refused(node: &Node) -> u64 {
    let metrics = dawn_e2e::http()
        .get(format!("{}/metrics", node.api()))
        .bearer_auth(node.token());
    let metrics = metrics.send().await.expect("answered").text().await.expect("text");
    let line = "dawn_mcp_sockets_ended_total{reason=\"refused\"} ";
    let count = metrics.lines().find_map(|each| each.strip_prefix(line));
    count.expect("counted").parse().expect("a number")
}

async fn new_static_key(node: &Node, name: &str) -> String {
    let rotated = node.dawn(&["keys", "rotate", name]).await.success().json();
    rotated["static_key"]["public"].as_str().expect("a key").to_owned()
}

#[tokio::test]
async fn another_static_key_than_the_pinned_one_is_not_spoken_with_nor_any_longer() {
    let (network, proxy) = far().await;
    let [lab, home] = &network.nodes[..] else {
        unreachable!()
    };
    let session = home.legacy(Some("home:far")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
    assert_eq!(refused(lab).await, 0);
    // The connection that is open was made with the former key.
    let key = new_static_key(home, "home").await;
    eventually("the new key is pinned", async || {
        let pinned = lab.dawn(&["keys", "pin", "home", "--static-key"]).await;
        pinned.code == 0 && pinned.json()["pin"]["static_key"] == key.as_str()
    })
    .await;
    eventually("the connection is ended", async || refused(lab).await > 0).await;
    eventually("with the new key there is another", async || {
        let answer = session.call(2, "echo", json!({ "text": "y" })).await.body;
        answer["result"]["content"][0]["text"] == "y"
    })
    .await;
    // What is not pinned is not let in.
    new_static_key(home, "home").await;
    proxy.cut();
    eventually("it is shut out", async || {
        let answer = session.call(3, "echo", json!({ "text": "z" })).await.body;
        answer["error"]["data"]["dawn"]["code"] == "denied"
    })
    .await;
}

#[tokio::test]
async fn who_uses_a_node_that_is_put_out_leaves_it_also_with_a_token() {
    let network = Network::start(Transport::Quic, &["lab", "home", "desk"]).await;
    let [lab, home, desk] = &network.nodes[..] else {
        unreachable!()
    };
    desk.add_test_agent("probe", &[], &["--stdio"]).await;
    let proxy = Proxy::start(desk.api()).await;
    let node = id_of(desk).await;
    let url = format!("ws://{}/ws/desk/probe", proxy.address);
    home.add_agent("member", &["--url", &url, "--node", &node], &[]).await;
    let with_token = format!("{url}?token={}", desk.token());
    home.add_agent("owner", &["--url", &with_token, "--node", &node], &[])
        .await;
    for agent in ["member", "owner"] {
        home.sees(&format!("home:{agent}")).await;
    }
    let sessions = [
        home.legacy(Some("home:member")).await,
        home.legacy(Some("home:owner")).await,
    ];
    for session in &sessions {
        assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
    }
    let _revoked = lab.dawn(&["peers", "revoke", "desk"]).await.success();
    for session in &sessions {
        eventually("it is left", async || {
            let answer = session.call(2, "echo", json!({ "text": "x" })).await.body;
            answer["error"]["data"]["dawn"]["code"] == "denied"
        })
        .await;
    }
    // The token in the address is nobody's business, neither here nor in what callers are told.
    drop(proxy);
    let listed = home.get("/api/agents").await.to_string();
    let answer = sessions[1]
        .call(3, "echo", json!({ "text": "x" }))
        .await
        .body
        .to_string();
    for told in [listed, answer] {
        assert!(!told.contains(&desk.token()), "{told}");
    }
}
