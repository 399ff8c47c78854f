//! Arguments that a tool wants repeated as HTTP headers: the gateway compares them, the host sends them on.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use dawn_e2e::{Network, Node, Transport, eventually};
use serde_json::{Value, json};

/// `home` and `lab`; `lab` hosts the test agent over stdio in both eras and in the older one only, and over HTTP.
async fn network() -> (Network, tokio::process::Child) {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let lab = &network.nodes[1];
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    lab.add_test_agent("old", &[], &["--stdio", "--era", "legacy"]).await;
    let (server, url) = dawn_e2e::http_agent(&["--era", "both"]).await;
    lab.add_agent("web", &["--url", &url], &[]).await;
    for agent in ["lab:probe", "lab:old", "lab:web"] {
        network.nodes[0].sees(agent).await;
    }
    (network, server)
}

async fn call(node: &Node, endpoint: &str, tool: &str, arguments: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let request = dawn_e2e::http()
        .post(format!("{}{endpoint}", node.api()))
        .bearer_auth(node.token())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool);
    let request = headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.body(message.to_string()).send().await.expect("answered");
    let status = response.status().as_u16();
    let body = response.bytes().await.expect("a body");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn headers_and_arguments_must_agree_before_a_call_reaches_its_agent() {
    let (network, _server) = network().await;
    let home = &network.nodes[0];
    for (endpoint, tool) in [
        ("/mcp/lab/probe", "regional"),
        ("/mcp/lab/old", "regional"),
        ("/mcp/lab/web", "regional"),
        ("/mcp/any/web", "regional"),
        ("/mcp", "lab__probe__regional"),
        ("/mcp", "lab__web__regional"),
    ] {
        let try_it =
            async |arguments: Value, headers: &[(&str, &str)]| call(home, endpoint, tool, &arguments, headers).await;
        for (arguments, headers) in [
            (json!({ "region": "eu" }), &[("Mcp-Param-Region", "eu")][..]),
            (
                json!({ "region": "größe" }),
                &[("mcp-param-region", "=?base64?Z3LDtsOfZQ==?=")],
            ),
            (
                json!({ "region": "eu", "limit": 42, "urgent": true }),
                &[
                    ("mcp-param-region", "eu"),
                    ("mcp-param-limit", "42"),
                    ("mcp-param-urgent", "true"),
                ],
            ),
            (
                json!({ "region": "eu", "limit": null }),
                &[("mcp-param-region", "eu"), ("mcp-param-other", "x")],
            ),
        ] {
            let (status, body) = try_it(arguments.clone(), headers).await;
            assert_eq!(status, 200, "{endpoint} {arguments}: {body}");
            assert_eq!(
                body["result"]["content"][0]["text"], arguments["region"],
                "{endpoint}: {body}"
            );
        }
        for (arguments, headers) in [
            (json!({ "region": "eu" }), &[][..]),
            (json!({ "region": "eu" }), &[("mcp-param-region", "us")]),
            (
                json!({ "region": "Hello" }),
                &[("mcp-param-region", "=?base64?SGVsbG8?=")],
            ),
            (json!({ "region": "eu", "limit": 42 }), &[("mcp-param-region", "eu")]),
            (json!({}), &[("mcp-param-region", "eu")]),
        ] {
            let (status, body) = try_it(arguments.clone(), headers).await;
            assert_eq!(
                (status, &body["error"]["code"]),
                (400, &json!(-32020)),
                "{endpoint} {arguments}: {body}"
            );
            assert_eq!(body["id"], 1, "{body}");
        }
        // A tool that wants nothing repeated is not touched.
        let echo = tool.replace("regional", "echo");
        let (status, body) = call(
            home,
            endpoint,
            &echo,
            &json!({ "text": "x" }),
            &[("mcp-param-region", "eu")],
        )
        .await;
        assert_eq!(
            (status, &body["result"]["content"][0]["text"]),
            (200, &json!("x")),
            "{body}"
        );
    }
    // Neither a legacy session nor a client over standard I/O has such headers.
    let session = home.legacy(Some("lab:web")).await;
    assert_eq!(session.text(1, "regional", json!({ "region": "eu" })).await, "eu");
    let called = home.dawn(&["call", "lab:web", "regional", "region=eu"]).await.success();
    assert!(called.stdout.contains("eu"), "{called:?}");
}

#[tokio::test]
async fn what_a_tool_wants_is_asked_anew_when_the_tools_change() {
    let (network, _server) = network().await;
    let home = &network.nodes[0];
    let wrong = [("mcp-param-region", "us")];
    let (status, _) = call(home, "/mcp/lab/probe", "regional", &json!({ "region": "eu" }), &wrong).await;
    assert_eq!(status, 400);
    let added = home
        .modern(Some("lab:probe"))
        .call(1, "add_tool", json!({ "name": "more" }))
        .await;
    assert!(added.body["result"].is_object(), "{added:?}");
    eventually("the new tool is listed", async || {
        let listed = home.modern(Some("lab:probe")).request(2, "tools/list", json!({})).await;
        listed.body.to_string().contains("\"more\"")
    })
    .await;
    let (status, body) = call(home, "/mcp/lab/probe", "more", &json!({}), &wrong).await;
    assert_eq!(status, 200, "{body}");
    let (status, _) = call(home, "/mcp/lab/probe", "regional", &json!({ "region": "eu" }), &wrong).await;
    assert_eq!(status, 400);
}
