//! Instances of one agent on several nodes, under one name.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails")]

use std::collections::BTreeSet;

use dawn_e2e::{Network, Transport, eventually};
use serde_json::json;

#[tokio::test]
async fn an_agent_of_several_nodes_goes_on_when_one_of_them_dies() {
    let mut network = Network::start(Transport::Quic, &["home", "lab", "den"]).await;
    for name in ["lab", "den"] {
        let node = network.nodes.iter().find(|node| node.name == name).unwrap();
        let place = format!("WHERE={name}");
        node.add_test_agent("probe", &["--env", &place], &["--stdio"]).await;
        network.nodes[0].sees(&format!("{name}:probe")).await;
    }
    let client = network.nodes[0].modern(Some("any:probe"));
    let place = async |id: u64| {
        let body = client.call(id, "env", json!({ "name": "WHERE" })).await.body;
        body["result"]["content"][0]["text"].as_str().map(str::to_owned)
    };
    // Two long calls at once are not both given to one of them.
    let busy: Vec<_> = (1..=2)
        .map(|id| {
            let client = client.clone();
            tokio::spawn(async move { client.call(id, "slow", json!({ "seconds": 2 })).await })
        })
        .collect();
    for call in busy {
        assert!(call.await.unwrap().body["result"].is_object());
    }
    let first = place(3).await.unwrap();
    let answer = network.nodes[0]
        .dawn(&["call", "any:probe", "env", "name=WHERE"])
        .await
        .success();
    assert!(
        ["lab", "den"].iter().any(|name| answer.stdout.contains(name)),
        "{answer:?}"
    );
    let session = network.nodes[0].legacy(Some("any:probe")).await;
    assert!(["lab", "den"].contains(&session.text(1, "env", json!({ "name": "WHERE" })).await.as_str()));

    let dying = network.nodes.iter_mut().find(|node| node.name == first).unwrap();
    dying.kill().await;
    let mut places = BTreeSet::new();
    eventually("the other one answers", async || {
        let place = place(4).await;
        let is_other = place.as_ref().is_some_and(|place| *place != first);
        places.extend(place);
        is_other
    })
    .await;
    let none = network.nodes[0]
        .modern(Some("any:nothing"))
        .call(5, "x", json!({}))
        .await;
    assert_eq!(none.body["error"]["data"]["dawn"]["code"], "unknown_agent", "{none:?}");
}

#[tokio::test]
async fn what_one_instance_alone_knows_is_asked_of_that_one() {
    let network = Network::start(Transport::Quic, &["home", "lab", "den"]).await;
    for node in &network.nodes[1..] {
        // The bridge keeps what waits for input, and a process of its own keeps tasks.
        node.add_test_agent("old", &[], &["--stdio", "--era", "legacy"]).await;
        network.nodes[0].sees(&format!("{}:old", node.name)).await;
    }
    let client = network.nodes[0].modern(Some("any:old"));
    let capabilities = json!({ "elicitation": { "form": {} }, "extensions": { "io.modelcontextprotocol/tasks": {} } });
    let meta = json!({ "io.modelcontextprotocol/clientCapabilities": capabilities });
    let ask = async |method: &str, mut params: serde_json::Value| {
        params["_meta"] = meta.clone();
        client.request(1, method, params).await.body
    };
    // Links that are open make the one that was nearest the other one.
    let busy: Vec<_> = (1..=3)
        .map(|id| {
            let client = client.clone();
            tokio::spawn(async move { client.call(id, "slow", json!({ "seconds": 5 })).await })
        })
        .collect();
    for _ in 0..6 {
        let created = ask(
            "tools/call",
            json!({ "name": "slow_compute", "arguments": { "seconds": 60 } }),
        )
        .await;
        let id = created["result"]["taskId"]
            .as_str()
            .unwrap_or_else(|| panic!("{created}"));
        let got = ask("tasks/get", json!({ "taskId": id })).await;
        assert_eq!(got["result"]["status"], "working", "{got}");
        let call = json!({ "name": "test_input_required_result_elicitation", "arguments": {} });
        let asked = ask("tools/call", call.clone()).await;
        let mut answer = call;
        answer["requestState"] = asked["result"]["requestState"].clone();
        let keys = asked["result"]["inputRequests"].as_object().expect("questions").keys();
        let answers = keys.map(|key| (key.clone(), json!({ "action": "accept", "content": { "name": "Ada" } })));
        answer["inputResponses"] = answers.collect::<serde_json::Map<_, _>>().into();
        let slow = {
            let client = client.clone();
            tokio::spawn(async move { client.call(9, "slow", json!({ "seconds": 1 })).await })
        };
        let done = ask("tools/call", answer).await;
        assert_eq!(done["result"]["content"][0]["text"], "Hello, Ada!", "{asked} {done}");
        let cancelled = ask("tasks/cancel", json!({ "taskId": id })).await;
        assert!(cancelled["result"].is_object(), "{cancelled}");
        slow.abort();
    }
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}
