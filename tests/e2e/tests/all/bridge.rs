//! `dawn mcp`: the stdio bridge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Stdio;

use dawn_e2e::{Network, Node, Transport};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

struct Bridge {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Bridge {
    fn start(node: &Node, args: &[&str]) -> Self {
        let mut child = node
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, lines }
    }

    async fn say(&mut self, message: &Value) {
        self.stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let line = tokio::time::timeout(dawn_e2e::PATIENCE, self.lines.next_line())
            .await
            .unwrap()
            .unwrap();
        serde_json::from_str(&line.expect("the bridge goes on")).unwrap()
    }

    async fn ask(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
        loop {
            let message = self.hear().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    async fn initialize(&mut self) {
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        assert!(self.ask(0, "initialize", params).await["result"]["serverInfo"].is_object());
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
    }
}

async fn pair() -> Network {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[0].sees("lab:probe").await;
    network
}

#[tokio::test]
async fn one_agent_and_all_agents_are_reached_over_stdio() {
    let network = pair().await;
    for (args, tool) in [(&["mcp", "lab:probe"][..], "echo"), (&["mcp"][..], "lab__probe__echo")] {
        let mut bridge = Bridge::start(&network.nodes[0], args);
        bridge.initialize().await;
        let answer = bridge
            .ask(
                1,
                "tools/call",
                json!({ "name": tool, "arguments": { "text": "over stdio" } }),
            )
            .await;
        assert_eq!(answer["result"]["content"][0]["text"], "over stdio", "{answer}");
    }
}

#[tokio::test]
async fn a_modern_client_needs_no_session_over_stdio() {
    let network = pair().await;
    let mut bridge = Bridge::start(&network.nodes[0], &["mcp", "lab:probe"]);
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let discovered = bridge.ask(1, "server/discover", json!({ "_meta": meta })).await;
    assert!(discovered["result"]["supportedVersions"].is_array(), "{discovered}");
    let answer = bridge
        .ask(
            2,
            "tools/call",
            json!({ "name": "echo", "arguments": { "text": "modern" }, "_meta": meta }),
        )
        .await;
    assert_eq!(answer["result"]["content"][0]["text"], "modern", "{answer}");
    let tools = json!({ "_meta": meta, "notifications": { "toolsListChanged": true } });
    bridge
        .say(&json!({ "jsonrpc": "2.0", "id": "listen", "method": "subscriptions/listen", "params": tools }))
        .await;
    let acknowledged = bridge.hear().await;
    assert_eq!(
        acknowledged["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "listen",
        "{acknowledged}"
    );
}

#[tokio::test]
async fn a_crash_of_the_agent_is_answered_and_the_session_goes_on_anew() {
    let network = pair().await;
    let mut bridge = Bridge::start(&network.nodes[0], &["mcp", "lab:probe"]);
    bridge.initialize().await;
    let crashed = bridge
        .ask(1, "tools/call", json!({ "name": "crash", "arguments": {} }))
        .await;
    assert_eq!(crashed["error"]["data"]["dawn"]["code"], "agent_failed", "{crashed}");
    let answer = bridge
        .ask(
            2,
            "tools/call",
            json!({ "name": "echo", "arguments": { "text": "anew" } }),
        )
        .await;
    assert_eq!(answer["result"]["content"][0]["text"], "anew", "{answer}");
}

#[tokio::test]
async fn malformed_lines_are_answered_and_the_session_goes_on() {
    let network = pair().await;
    let mut bridge = Bridge::start(&network.nodes[0], &["mcp", "lab:probe"]);
    bridge.initialize().await;
    bridge.stdin.write_all(b"this is not json\n").await.unwrap();
    assert_eq!(bridge.hear().await["error"]["code"], -32700);
    let answer = bridge.ask(2, "ping", json!({})).await;
    assert!(answer["result"].is_object(), "{answer}");
}

#[tokio::test]
async fn what_is_piped_in_is_answered_before_the_bridge_ends() {
    let network = pair().await;
    for (args, tool) in [(&["mcp", "lab:probe"][..], "echo"), (&["mcp"][..], "lab__probe__echo")] {
        let mut bridge = Bridge::start(&network.nodes[0], args);
        bridge.initialize().await;
        for id in 1..=20 {
            let params = json!({ "name": tool, "arguments": { "text": "x" } });
            bridge
                .say(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }))
                .await;
        }
        let Bridge {
            mut child,
            stdin,
            mut lines,
        } = bridge;
        drop(stdin);
        let mut answered = 0;
        while let Ok(Ok(Some(line))) = tokio::time::timeout(dawn_e2e::PATIENCE, lines.next_line()).await {
            answered += usize::from(line.contains("\"result\""));
        }
        assert_eq!(answered, 20, "{args:?}");
        assert!(tokio::time::timeout(dawn_e2e::PATIENCE, child.wait()).await.is_ok());
    }
}

#[tokio::test]
async fn without_a_running_node_each_request_gets_a_clear_error() {
    let node = Node::new("home", Transport::Quic);
    let _made = node.dawn(&["init", "--name", "home"]).await.success();
    let mut bridge = Bridge::start(&node, &["mcp"]);
    bridge
        .say(&json!({ "jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {} }))
        .await;
    let answer = bridge.hear().await;
    assert_eq!(answer["id"], 7);
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("dawn up"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    // One process for all of its callers.
    network.nodes[1]
        .add_test_agent("probe", &["--isolation", "shared"], &["--stdio"])
        .await;
    network.nodes[0].sees("lab:probe").await;
    let mut mute = Bridge::start(&network.nodes[0], &["mcp", "lab:probe"]);
    mute.initialize().await;
    // More answers than every queue and pipe on the way holds, and nobody takes one of them.
    const MANY: u32 = 4000;
    let text = "x".repeat(64 << 10);
    let flood = async {
        for id in 1..MANY {
            let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": { "name": "echo", "arguments": { "text": text } } });
            mute.stdin.write_all(format!("{call}\n").as_bytes()).await.unwrap();
        }
    };
    // It may well be stopped short itself.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(15), flood).await;
    let session = network.nodes[0].legacy(Some("lab:probe")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "unmoved" })).await, "unmoved");
    // What it left unread was too much: it is told so when it reads on.
    let mut answered = 0;
    loop {
        let message = mute.hear().await;
        if message["error"]["data"]["dawn"]["code"] == "agent_failed" {
            break;
        }
        answered += 1;
        assert!(answered < MANY, "nothing held it up");
    }
    drop(mute);
    assert_eq!(session.text(2, "echo", json!({ "text": "still" })).await, "still");
}
