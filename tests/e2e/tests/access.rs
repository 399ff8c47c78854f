//! Who may call what, with the owner's word where he wants to be asked, and how much.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use std::process::Stdio;
use std::time::Duration;

use dawn_e2e::{Network, PATIENCE, Transport, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// `home`, `lab` and `den`; `lab` hosts an agent with these rules or limits.
async fn network(settings: &str) -> Network {
    let network = Network::start(Transport::Quic, &["home", "lab", "den"]).await;
    let lab = &network.nodes[1];
    let agent = dawn_e2e::test_agent();
    let command = format!(
        "[agents.probe]\ncommand = [{:?}, \"--stdio\"]\n{settings}",
        agent.to_str().expect("a path")
    );
    std::fs::write(lab.home().join("config.toml"), command).expect("the configuration is written");
    let _reloaded = lab.dawn(&["reload"]).await.success();
    for node in &network.nodes {
        node.sees("lab:probe").await;
    }
    network
}

const RULES: &str = r#"
[[agents.probe.access]]
who = ["home"]
what = ["slow"]
then = "ask"

[[agents.probe.access]]
who = ["den", "role:guest"]
what = ["echo", "test_*"]
then = "deny"
"#;

#[tokio::test]
async fn what_a_rule_denies_is_refused_and_not_listed_and_nobody_else_is_touched() {
    let network = network(RULES).await;
    let [home, lab, den] = &network.nodes[..] else {
        unreachable!()
    };
    let names = |listed: &Value| listed["result"]["tools"].to_string();
    for (node, may) in [(home, true), (lab, true), (den, false)] {
        let client = node.modern(Some("lab:probe"));
        let called = client.call(1, "echo", json!({ "text": "x" })).await.body;
        let listed = client.request(2, "tools/list", json!({})).await.body;
        assert_eq!(called["result"].is_object(), may, "{}: {called}", node.name);
        assert_eq!(names(&listed).contains("\"echo\""), may, "{}", node.name);
        if !may {
            assert_eq!(called["error"]["data"]["dawn"]["code"], "denied", "{called}");
            let session = node.legacy(Some("lab:probe")).await;
            let called = session.call(1, "test_simple_text", json!({})).await.body;
            assert_eq!(called["error"]["code"], -31007, "{called}");
            let told = node.dawn(&["call", "lab:probe", "echo", "text=x"]).await;
            assert_eq!(
                (told.code, told.json()["error"]["code"].clone()),
                (4, json!("denied")),
                "{told:?}"
            );
            // A name that comes twice hides nothing.
            let twice = r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"slow","name":"echo","arguments":{"text":"x"}}}"#;
            let answer = session.post_raw(twice).await.text().await.expect("an answer");
            assert!(answer.contains("-31007") || answer.contains("-32600"), "{answer}");
            assert!(session.call(2, "slow", json!({ "seconds": 0.1 })).await.body["result"].is_object());
        }
    }
    eventually("the refusals are recorded", async || {
        let failed = lab.dawn(&["audit", "--failed", "--caller", "den"]).await;
        let failed = failed.success().json();
        let failed = failed.as_array().expect("calls");
        failed.len() == 4 && failed.iter().any(|call| call["outcome"] == "denied")
    })
    .await;
}

#[tokio::test]
async fn the_owner_is_asked_and_decides() {
    let network = network(RULES).await;
    let [home, lab, _den] = &network.nodes[..] else {
        unreachable!()
    };
    for (answer, outcome) in [("allow", "result"), ("deny", "error")] {
        let client = home.modern(Some("lab:probe"));
        let calling = tokio::spawn(async move { client.call(1, "slow", json!({ "seconds": 0.1 })).await });
        let mut id = String::new();
        eventually("the call waits", async || {
            let waiting = lab.dawn(&["calls"]).await.success().json();
            id = waiting["calls"][0]["id"].as_str().unwrap_or_default().to_owned();
            waiting["calls"][0]["what"] == "slow" && waiting["calls"][0]["caller"]["name"] == "home"
        })
        .await;
        let _answered = lab.dawn(&["calls", answer, &id]).await.success();
        let body = calling.await.expect("called").body;
        assert!(body[outcome].is_object(), "{answer}: {body}");
    }
    // A person who calls is told what is waited for.
    let mut calling = home.command(&["call", "lab:probe", "slow"]);
    calling.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut calling = calling.spawn().expect("dawn starts");
    let mut notes = BufReader::new(calling.stderr.take().expect("piped")).lines();
    let note = tokio::time::timeout(PATIENCE, notes.next_line()).await;
    let note = note.expect("in time").expect("readable").expect("a note");
    assert_eq!(note, "waiting for the owner of lab:probe to allow this call");
    let waiting = lab.dawn(&["calls"]).await.success().json();
    let id = waiting["calls"][0]["id"].as_str().expect("an id");
    let _answered = lab.dawn(&["calls", "allow", id]).await.success();
    assert!(calling.wait().await.expect("ended").success());
    // A caller that leaves takes its question back.
    let client = home.modern(Some("lab:probe"));
    let calling = tokio::spawn(async move { client.call(1, "slow", json!({})).await });
    let waiting = async || lab.get("/api/calls").await["calls"].as_array().map_or(0, Vec::len);
    eventually("the call waits", async || waiting().await == 1).await;
    calling.abort();
    eventually("the question is taken back", async || waiting().await == 0).await;
    // One answer is one answer.
    let again = lab.dawn(&["calls", "allow", "00000000"]).await;
    assert_ne!(again.code, 0);
}

#[tokio::test]
async fn each_other_node_may_ask_only_so_much() {
    let network = network("[agents.probe.limits]\nrequests_per_second = 20\nin_flight = 2\nsessions = 3\n").await;
    let [home, lab, den] = &network.nodes[..] else {
        unreachable!()
    };
    let client = home.modern(Some("lab:probe"));
    let slow: Vec<_> = (0..2)
        .map(|id| {
            let client = client.clone();
            tokio::spawn(async move { client.call(id, "slow", json!({ "seconds": 5 })).await })
        })
        .collect();
    // Both are in flight before the third comes: it would take one's place.
    tokio::time::sleep(Duration::from_secs(1)).await;
    eventually("a third request is refused", async || {
        let body = client.call(9, "echo", json!({ "text": "x" })).await.body;
        body["error"]["data"]["dawn"]["code"] == "busy"
    })
    .await;
    // Another node has its own share.
    let other = den
        .modern(Some("lab:probe"))
        .call(1, "echo", json!({ "text": "x" }))
        .await;
    assert!(other.body["result"].is_object(), "{other:?}");
    for call in slow {
        assert!(call.await.expect("called").body["result"].is_object());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut refused = 0;
    for id in 0..60 {
        let body = client.call(id, "echo", json!({ "text": "x" })).await.body;
        refused += usize::from(body["error"]["data"]["dawn"]["code"] == "busy");
    }
    assert!(refused > 0, "60 requests in a row are more than 20 a second");
    // The owner's own node is not limited.
    let own = lab.modern(Some("lab:probe"));
    for id in 0..60 {
        assert!(own.call(id, "echo", json!({ "text": "x" })).await.body["result"].is_object());
    }
}
