//! Messages across nodes: what goes in comes out, over every transport, at any size, until it is cancelled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use dawn_e2e::{Events, Network, Transport, eventually};
use serde_json::{Value, json};

async fn pair(transport: Transport) -> Network {
    let network = Network::start(transport, &["home", "lab"]).await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[0].sees("lab:probe").await;
    network
}

async fn calls_over(transport: Transport) {
    let network = pair(transport).await;
    let home = &network.nodes[0];
    assert_eq!(home.peer("lab").await["transport"], transport.name());
    let session = home.legacy(Some("lab:probe")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "grüße" })).await, "grüße");
    let modern = home
        .modern(Some("lab:probe"))
        .call("a", "echo", json!({ "text": "modern" }))
        .await;
    assert_eq!(modern.body["result"]["content"][0]["text"], "modern", "{modern:?}");
    let called = home
        .dawn(&["call", "lab:probe", "echo", "text=cli"])
        .await
        .success()
        .json();
    assert_eq!(called["result"]["content"][0]["text"], "cli");
}

#[tokio::test]
async fn calls_cross_nodes_over_quic() {
    calls_over(Transport::Quic).await;
}

#[tokio::test]
async fn calls_cross_nodes_over_tcp() {
    calls_over(Transport::Tcp).await;
}

#[tokio::test]
async fn calls_cross_nodes_over_websocket() {
    calls_over(Transport::WebSocket).await;
}

/// Messages that a typed round trip would change, with the id the answer must carry.
const ODD: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":1,"method":"raw/reply","params":{"line":"{\"jsonrpc\":\"2.0\",\"id\":@id@,\"result\":{}}"},"unknown":[1.0,1e400]}"#,
    r#"{"params":{"line":"{\"result\":{\"z\":1.0,\"a\":123456789012345678901234567890.000100,\"e\":1E+2},\"id\":\"@id@\",\"jsonrpc\":\"2.0\"}"},"method":"raw/reply","id":1.50,"jsonrpc":"2.0"}"#,
    r#"{ "jsonrpc" : "2.0" , "id" : "\u0061/\"quoted\"" , "method" : "raw/reply" , "params" : { "line" : "{\"jsonrpc\":\"2.0\",\"id\":@id@,\"result\":{\"\\u00e9\":\"\\ud83d\\ude00\",\"nested\":[[[[[]]]]]}}" } }"#,
    r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"raw/reply","params":[{"deep":{"x":-0.0}},null,true]}"#,
    r#"{"jsonrpc":"2.0","id":-7,"method":"tools/call","params":{"name":"x","arguments":{"dup":1,"big":18446744073709551616,"small":5e-324},"_meta":{"progressToken":12345678901234567890,"vendor/thing":{"a":[]}}},"extra":{"b":1,"a":2}}"#,
];

#[tokio::test]
async fn odd_messages_cross_two_nodes_byte_for_byte() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("raw", &[], &["--raw-echo"]).await;
    home.sees("lab:raw").await;
    let direct = direct(ODD).await;
    let session = home.legacy(Some("lab:raw")).await;
    for (odd, expected) in ODD.iter().zip(&direct) {
        let response = dawn_e2e::http()
            .post(home.endpoint(Some("lab:raw")))
            .bearer_auth(home.token())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-session-id", &session.session)
            .body((*odd).to_owned())
            .send()
            .await
            .unwrap();
        let through = response.text().await.unwrap();
        assert_eq!(&through, expected, "sent {odd}");
    }
}

/// What the agent answers without any node in between.
async fn direct(messages: &[&str]) -> Vec<String> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut agent = tokio::process::Command::new(dawn_e2e::test_agent())
        .arg("--raw-echo")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = agent.stdin.take().unwrap();
    let mut stdout = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut answers = Vec::new();
    for message in messages {
        stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        answers.push(stdout.next_line().await.unwrap().unwrap());
    }
    answers
}

#[tokio::test]
async fn a_thousand_concurrent_calls_are_each_answered_once() {
    let network = pair(Transport::Quic).await;
    let session = network.nodes[0].legacy(Some("lab:probe")).await;
    let calls = (1..=1000).map(|at| {
        let session = session.clone();
        async move { session.text(at, "echo", json!({ "text": format!("call {at}") })).await == format!("call {at}") }
    });
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|right| **right).count(), 1000);
}

#[tokio::test]
async fn a_ten_mebibyte_result_arrives_whole() {
    let network = pair(Transport::Quic).await;
    let session = network.nodes[0].legacy(Some("lab:probe")).await;
    let text = session.text(1, "payload", json!({ "bytes": 10 << 20 })).await;
    assert_eq!(text.len(), 10 << 20);
}

#[tokio::test]
async fn a_minute_of_progress_streams_and_can_be_cancelled() {
    let network = pair(Transport::Quic).await;
    let home = &network.nodes[0];
    let session = home.legacy(Some("lab:probe")).await;
    let params =
        json!({ "name": "slow", "arguments": { "seconds": 120, "steps": 120 }, "_meta": { "progressToken": "p" } });
    let mut events = Events::new(
        session
            .post(&json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params }))
            .await,
    );
    let begun = std::time::Instant::now();
    let mut steps = 0;
    while begun.elapsed() < Duration::from_secs(60) {
        let message = events.next().await.expect("progress goes on");
        assert_eq!(message["method"], "notifications/progress", "{message}");
        assert_eq!(message["params"]["progressToken"], "p");
        steps += 1;
    }
    assert!(steps >= 50, "{steps} steps in a minute");
    session
        .notify("notifications/cancelled", json!({ "requestId": 5, "reason": "enough" }))
        .await;
    eventually("the agent noticed the cancellation", async || {
        let stats: Value = serde_json::from_str(&session.text("stats", "stats", json!({})).await).unwrap();
        stats["cancelled"] == 1
    })
    .await;
}

#[tokio::test]
async fn a_modern_client_that_disconnects_mid_call_cancels_the_call() {
    let network = pair(Transport::Quic).await;
    let modern = network.nodes[0].modern(Some("lab:probe"));
    let params =
        json!({ "name": "slow", "arguments": { "seconds": 50, "steps": 50 }, "_meta": { "progressToken": 1 } });
    let mut events = Events::new(modern.post(1, "tools/call", params).await);
    assert_eq!(events.next().await.unwrap()["method"], "notifications/progress");
    drop(events);
    eventually("the agent noticed the cancellation", async || {
        let stats = modern.call(2, "stats", json!({})).await;
        let stats: Value = serde_json::from_str(stats.body["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
        stats["cancelled"] == 1
    })
    .await;
}

#[tokio::test]
async fn a_legacy_client_that_disconnects_mid_call_harms_nobody() {
    let network = pair(Transport::Tcp).await;
    let session = network.nodes[0].legacy(Some("lab:probe")).await;
    let params =
        json!({ "name": "slow", "arguments": { "seconds": 50, "steps": 50 }, "_meta": { "progressToken": 1 } });
    let mut events = Events::new(
        session
            .post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
            .await,
    );
    assert!(events.next().await.is_some());
    drop(events);
    assert_eq!(
        session.text(2, "echo", json!({ "text": "still here" })).await,
        "still here"
    );
}

#[tokio::test]
async fn sampling_elicitation_and_roots_are_asked_of_the_client_and_answered() {
    let network = pair(Transport::Quic).await;
    let session = network.nodes[0].legacy(Some("lab:probe")).await;
    for (tool, method, answer) in [
        (
            "ask_sampling",
            "sampling/createMessage",
            json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "sampled" } }),
        ),
        (
            "ask_elicitation",
            "elicitation/create",
            json!({ "action": "accept", "content": { "name": "elicited" } }),
        ),
        (
            "ask_roots",
            "roots/list",
            json!({ "roots": [{ "uri": "file:///rooted", "name": "r" }] }),
        ),
    ] {
        let call = json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": { "name": tool, "arguments": {} } });
        let mut events = Events::new(session.post(&call).await);
        let question = events.next().await.unwrap();
        assert_eq!(question["method"], method, "{question}");
        let accepted = session
            .post(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": answer }))
            .await;
        assert_eq!(accepted.status(), 202);
        let result = events.next().await.unwrap();
        let text = result["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{result}"));
        assert!(
            text.contains("sampled") || text.contains("elicited") || text.contains("rooted"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn list_changes_and_resource_updates_reach_the_get_stream() {
    let network = pair(Transport::Quic).await;
    let session = network.nodes[0].legacy(Some("lab:probe")).await;
    let mut events = session.listen().await;
    let _added = session.call(1, "add_tool", json!({ "name": "fresh" })).await;
    let _events_before = loop {
        let event = events.next().await.unwrap();
        if event["method"] == "notifications/tools/list_changed" {
            break event;
        }
    };
    let tools = session.request(2, "tools/list", json!({})).await;
    assert!(tools.body.to_string().contains("\"fresh\""));
}

#[tokio::test]
async fn hundreds_of_sessions_are_open_between_two_nodes_at_once() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &["--isolation", "shared"], &["--stdio"])
        .await;
    home.sees("lab:probe").await;
    let mut sessions = Vec::new();
    for _ in 0..400 {
        sessions.push(home.legacy(Some("lab:probe")).await);
    }
    for session in &sessions {
        assert_eq!(
            session.text(1, "echo", json!({ "text": "one of many" })).await,
            "one of many"
        );
    }
}
