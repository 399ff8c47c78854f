//! Who may call what, with the owner's word where he wants to be asked, and how much.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use std::process::Stdio;

use dawn_e2e::{Events, Network, Node, PATIENCE, Transport, eventually};
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
    // Both are in flight before the third comes, their progress says: it would take one's place.
    let mut slow = Vec::new();
    for id in 0..2 {
        let params = json!({
            "name": "slow", "arguments": { "seconds": 5, "steps": 100 }, "_meta": { "progressToken": id },
        });
        let mut events = Events::new(client.post(id, "tools/call", params).await);
        let progress = events.next().await.expect("told");
        assert_eq!(progress["method"], "notifications/progress", "{progress}");
        slow.push(events);
    }
    let third = client.call(9, "echo", json!({ "text": "x" })).await.body;
    assert_eq!(third["error"]["data"]["dawn"]["code"], "busy", "{third}");
    // Another node has its own share.
    let other = den
        .modern(Some("lab:probe"))
        .call(1, "echo", json!({ "text": "x" }))
        .await;
    assert!(other.body["result"].is_object(), "{other:?}");
    for mut events in slow {
        let result = events.response().await;
        assert!(result["result"].is_object(), "{result}");
    }
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

/// Replaces the configuration of a node, and says what the reload said.
async fn configure(node: &Node, text: &str) -> Value {
    std::fs::write(node.home().join("config.toml"), text).expect("the configuration is written");
    node.dawn(&["reload"]).await.success().json()
}

#[tokio::test]
async fn changed_rules_and_limits_hold_for_open_sessions_and_end_none() {
    let network = network("").await;
    let [home, lab, _den] = &network.nodes[..] else {
        unreachable!()
    };
    let before = std::fs::read_to_string(lab.home().join("config.toml")).expect("the configuration");
    let session = home.legacy(Some("lab:probe")).await;
    let notes = home.legacy(Some("lab:memory")).await;
    let own = lab.legacy(Some("lab:probe")).await;
    let pid = own.text("pid", "pid", json!({})).await;
    let mine = session.text("pid", "pid", json!({})).await;
    let denied = |body: &Value| body["error"]["data"]["dawn"]["code"] == "denied";
    let names = |body: &Value| body["result"]["tools"].to_string();

    // A call that is under way is answered, and a subscription goes on.
    let slow = session.clone();
    let slow = tokio::spawn(async move { slow.call("slow", "slow", json!({ "seconds": 3 })).await });
    let mut events = session.listen().await;
    let _subscribed = session
        .request(
            "watch",
            "resources/subscribe",
            json!({ "uri": "test://watched-resource" }),
        )
        .await;
    let rules = "[[agents.probe.access]]\nwhat = [\"echo\"]\nthen = \"deny\"\n[[memory.access]]\nwhat = [\"remember\"]\nthen = \"deny\"\n";
    let told = configure(lab, &format!("{before}{rules}")).await;
    assert_eq!(told["needs_restart"], json!([]), "{told}");
    let refused = session.call(1, "echo", json!({ "text": "x" })).await.body;
    assert!(denied(&refused), "{refused}");
    let listed = session.request(2, "tools/list", json!({})).await.body;
    assert!(
        !names(&listed).contains("\"echo\"") && names(&listed).contains("\"slow\""),
        "{listed}"
    );
    let refused = notes.call(1, "remember", json!({ "text": "x" })).await.body;
    assert!(denied(&refused), "{refused}");
    assert!(notes.call(2, "list", json!({})).await.body["result"].is_object());
    assert!(slow.await.expect("called").body["result"].is_object());
    let touched = session
        .call(3, "touch_resource", json!({ "uri": "test://watched-resource" }))
        .await;
    assert!(touched.body["result"].is_object(), "{touched:?}");
    let event = events.next().await.expect("told");
    assert_eq!(event["method"], "notifications/resources/updated", "{event}");
    // It is the same session with the same process, and nobody else's has changed.
    assert_eq!(session.text(4, "pid", json!({})).await, mine);
    assert_eq!(own.text(1, "echo", json!({ "text": "own" })).await, "own");
    assert_eq!(own.text(2, "pid", json!({})).await, pid);

    // A modern client's next request as well; and back again.
    let client = home.modern(Some("lab:probe"));
    assert!(denied(&client.call(1, "echo", json!({ "text": "x" })).await.body));
    let limits = "[agents.probe.limits]\nin_flight = 1\n[memory.limits]\nrequests_per_second = 1\n";
    let told = configure(lab, &format!("{before}{limits}")).await;
    assert_eq!(told["needs_restart"], json!([]), "{told}");
    assert_eq!(session.text(5, "echo", json!({ "text": "again" })).await, "again");
    // Its progress says that the one call is under way.
    let slow = json!({
        "jsonrpc": "2.0", "id": "slow", "method": "tools/call",
        "params": { "name": "slow", "arguments": { "seconds": 60, "steps": 600 }, "_meta": { "progressToken": "slow" } },
    });
    let mut slow = Events::new(session.post(&slow).await);
    let progress = slow.next().await.expect("told");
    assert_eq!(progress["method"], "notifications/progress", "{progress}");
    let refused = session.call("more", "echo", json!({ "text": "x" })).await.body;
    assert_eq!(refused["error"]["data"]["dawn"]["code"], "busy", "{refused}");
    session
        .notify("notifications/cancelled", json!({ "requestId": "slow" }))
        .await;
    let mut refused = 0;
    for id in 10..20 {
        refused += usize::from(notes.call(id, "list", json!({})).await.body["error"].is_object());
    }
    assert!(refused > 0, "ten requests in a row are more than one a second");
    let _told = configure(lab, &before).await;
    for id in 20..30 {
        assert!(notes.call(id, "list", json!({})).await.body["result"].is_object());
    }
    assert_eq!(session.text(6, "pid", json!({})).await, mine);

    // What is not only of rules and limits begins the agent anew.
    let other = before.replace("[agents.probe]", "[agents.probe]\nenv = { A = \"1\" }");
    let told = configure(lab, &other).await;
    let _noticed = told["agents"].as_array().expect("agents");
    home.sees("lab:probe").await;
    eventually("the agent is begun anew", async || {
        let anew = home
            .modern(Some("lab:probe"))
            .call(1, "env", json!({ "name": "A" }))
            .await;
        anew.body["result"]["content"][0]["text"] == "1"
    })
    .await;
}
