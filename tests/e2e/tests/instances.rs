//! Instances of one agent on several nodes, under one name.

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
