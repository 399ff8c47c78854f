//! Clients of one era of MCP and agents that speak only the other, across two nodes.

use dawn_e2e::{Events, Network, Node, Transport, eventually};
use serde_json::{Value, json};

/// `home` and `lab`; `lab` hosts `old`, which speaks only 2025-11-25, and `new`, which speaks only 2026-07-28.
async fn network(names: &[&str]) -> Network {
    let network = Network::start(Transport::Quic, names).await;
    let lab = &network.nodes[1];
    lab.add_test_agent("old", &[], &["--stdio", "--era", "legacy"]).await;
    lab.add_test_agent("new", &[], &["--stdio", "--era", "modern"]).await;
    for node in &network.nodes {
        node.sees("lab:old").await;
        node.sees("lab:new").await;
    }
    network
}

async fn ask(node: &Node, mut params: Value) -> Value {
    let capabilities = json!({ "elicitation": { "form": {} } });
    params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": capabilities });
    let reply = node.modern(Some("lab:old")).request(1, "tools/call", params).await;
    reply.body
}

#[tokio::test]
async fn a_modern_client_uses_a_legacy_agent() {
    let network = network(&["home", "lab", "den"]).await;
    let [home, _lab, den] = &network.nodes[..] else {
        unreachable!()
    };
    let client = home.modern(Some("lab:old"));
    let discovered = client.request(1, "server/discover", json!({})).await.body;
    assert_eq!(
        discovered["result"]["supportedVersions"],
        json!(["2026-07-28"]),
        "{discovered}"
    );
    let called = client.call(2, "echo", json!({ "text": "across" })).await.body;
    assert_eq!(called["result"]["content"][0]["text"], "across", "{called}");
    assert_eq!(called["result"]["resultType"], "complete", "{called}");

    // The agent asks; the client answers by a second request with the state of the first.
    let params = json!({ "name": "test_elicitation", "arguments": { "message": "your name?" } });
    let refused = client.request(3, "tools/call", params.clone()).await.body;
    let words = "the client does not offer elicitation";
    assert_eq!(
        refused["error"]["message"], words,
        "the agent learns what the client can: {refused}"
    );
    let asked = ask(home, params.clone()).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let (key, question) = asked["result"]["inputRequests"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["message"], "your name?");
    let mut answer = params.clone();
    answer["requestState"] = asked["result"]["requestState"].clone();
    answer["inputResponses"] = json!({ key: { "action": "accept", "content": { "response": "Ada" } } });

    // Nobody else may answer, though he knows the state.
    let stolen = ask(den, answer.clone()).await;
    assert_eq!(stolen["error"]["code"], -32602, "{stolen}");
    let done = ask(home, answer.clone()).await;
    assert_eq!(done["result"]["resultType"], "complete", "{done}");
    assert!(
        done["result"]["content"][0]["text"].as_str().unwrap().contains("Ada"),
        "{done}"
    );
    // A state is used once.
    let again = ask(home, answer).await;
    assert_eq!(again["error"]["code"], -32602, "{again}");
}

#[tokio::test]
async fn a_modern_client_hears_of_changes_of_a_legacy_agent() {
    let network = network(&["home", "lab"]).await;
    let client = network.nodes[0].modern(Some("lab:old"));
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    let mut events = Events::new(client.post("listening", "subscriptions/listen", filter).await);
    let acknowledged = events.next().await.unwrap();
    assert_eq!(
        acknowledged["method"], "notifications/subscriptions/acknowledged",
        "{acknowledged}"
    );
    assert_eq!(
        acknowledged["params"]["notifications"]["toolsListChanged"], true,
        "{acknowledged}"
    );
    let said = client.call(1, "test_trigger_tool_change", json!({})).await;
    assert_eq!(said.body["result"]["content"][0]["text"], "said so", "{said:?}");
    let changed = events.next().await.unwrap();
    assert_eq!(changed["method"], "notifications/tools/list_changed", "{changed}");
    assert_eq!(
        changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "listening",
        "{changed}"
    );
}

#[tokio::test]
async fn a_legacy_client_uses_a_modern_agent() {
    let network = network(&["home", "lab"]).await;
    let session = network.nodes[0].legacy(Some("lab:new")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "across" })).await, "across");

    // The agent's need for input becomes a request to the client.
    let params = json!({ "name": "test_elicitation", "arguments": { "message": "your name?" } });
    let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params });
    let mut events = Events::new(session.post(&call).await);
    let question = events.next().await.unwrap();
    assert_eq!(question["method"], "elicitation/create", "{question}");
    assert_eq!(question["params"]["message"], "your name?", "{question}");
    let result = json!({ "action": "accept", "content": { "response": "Ada" } });
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    assert_eq!(session.post(&answer).await.status(), 202);
    let done = events.next().await.unwrap();
    assert_eq!(done["id"], 2, "{done}");
    assert!(
        done["result"]["content"][0]["text"].as_str().unwrap().contains("Ada"),
        "{done}"
    );

    // A client that refuses is heard as well.
    let mut events = Events::new(session.post(&call).await);
    let question = events.next().await.unwrap();
    let refusal = json!({ "code": -1, "message": "not now" });
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "error": refusal });
    assert_eq!(session.post(&answer).await.status(), 202);
    let done = events.next().await.unwrap();
    assert_eq!(done["error"], refusal, "{done}");
}

#[tokio::test]
async fn a_legacy_client_hears_of_changes_of_a_modern_agent() {
    let network = network(&["home", "lab"]).await;
    let session = network.nodes[0].legacy(Some("lab:new")).await;
    let mut events = session.listen().await;
    // The subscription is made in the background: changes are told from then on.
    let mut id = 0;
    let told = async {
        loop {
            let event = events.next().await.unwrap();
            if event["method"] == "notifications/tools/list_changed" {
                break;
            }
        }
    };
    let saying = async {
        loop {
            id += 1;
            session.call(id, "test_trigger_tool_change", json!({})).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = told => {}
        () = saying => {}
        () = tokio::time::sleep(std::time::Duration::from_secs(20)) => panic!("nothing was told"),
    }
}

#[tokio::test]
async fn all_agents_as_one_hide_the_eras() {
    let network = network(&["home", "lab"]).await;
    let [home, _lab] = &network.nodes[..] else {
        unreachable!()
    };
    let session = home.legacy(None).await;
    let client = home.modern(None);
    for (number, agent) in (1..).zip(["old", "new"]) {
        let tool = format!("lab__{agent}__echo");
        assert_eq!(session.text(number, &tool, json!({ "text": agent })).await, agent);
        eventually("the modern client is answered", async || {
            let called = client.call(number, &tool, json!({ "text": agent })).await;
            called.body["result"]["content"][0]["text"] == agent
        })
        .await;
    }
}
