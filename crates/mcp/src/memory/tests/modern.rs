use serde_json::json;

use super::{Raw, agent, at, draft, modern};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

#[tokio::test]
async fn a_request_with_modern_metadata_needs_no_session() {
    let mut raw = Raw::connect(&agent().await);
    let kept = raw
        .modern(
            1,
            "tools/call",
            json!({
                "name": "remember",
                "arguments": { "text": "tea at five" },
                "_meta": { "io.dawn/caller": { "name": "den" } },
            }),
        )
        .await;
    assert_eq!(kept["result"]["resultType"], "complete");
    assert_eq!(kept["result"]["structuredContent"]["note"]["author"], "den");
    let found = raw
        .modern(
            2,
            "tools/call",
            json!({ "name": "recall", "arguments": { "query": "tea" } }),
        )
        .await;
    assert_eq!(
        found["result"]["structuredContent"]["hits"][0]["snippet"],
        "**tea** at five"
    );
}

#[tokio::test]
async fn discovery_and_lists_say_how_long_they_are_fresh() {
    let mut raw = Raw::connect(&agent().await);
    let discovered = raw.modern(1, "server/discover", json!({})).await;
    let versions = discovered["result"]["supportedVersions"].as_array().unwrap().clone();
    assert!(versions.contains(&json!("2026-07-28")) && versions.contains(&json!("2025-11-25")));
    assert_eq!(discovered["result"]["capabilities"]["resources"]["subscribe"], true);
    for (id, method) in [(2, "tools/list"), (3, "resources/list"), (4, "prompts/list")] {
        let listed = raw.modern(id, method, json!({})).await;
        assert_eq!(
            (&listed["result"]["ttlMs"], &listed["result"]["cacheScope"]),
            (&json!(300_000), &json!("public"))
        );
    }
    let read = raw
        .modern(5, "resources/read", json!({ "uri": "memory://stats" }))
        .await;
    assert_eq!(
        (&read["result"]["ttlMs"], &read["result"]["cacheScope"]),
        (&json!(0), &json!("private"))
    );
    let unknown = raw.modern(6, "resources/read", json!({ "uri": "memory://x" })).await;
    assert_eq!(unknown["error"]["code"], -32602);
}

#[tokio::test]
async fn a_request_of_no_era_is_refused_and_the_connection_goes_on() {
    let mut raw = Raw::connect(&agent().await);
    raw.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
        .await;
    let refused = raw.bare(1, "tools/list", json!({})).await;
    assert_eq!(refused["error"]["code"], -32602);
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`initialize` first")
    );
    assert!(raw.bare(2, "ping", json!({})).await["result"].is_object());
    let future = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2099-01-01" } });
    assert!(raw.bare(3, "server/discover", future).await["error"].is_object());
    assert!(raw.modern(4, "tools/list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn both_eras_work_on_one_connection_in_any_order() {
    let mut raw = Raw::connect(&agent().await);
    assert_eq!(
        raw.modern(1, "tools/list", json!({})).await["result"]["resultType"],
        "complete"
    );
    let hello = json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    assert_eq!(
        raw.bare(2, "initialize", hello).await["result"]["protocolVersion"],
        "2025-06-18"
    );
    let legacy = raw.bare(3, "tools/list", json!({})).await;
    assert_eq!(legacy["result"]["tools"].as_array().unwrap().len(), 4);
    assert_eq!(legacy["result"].get("resultType"), None);
    assert!(raw.bare(4, "ping", json!({})).await["result"].is_object());
    assert_eq!(raw.modern(5, "ping", json!({})).await["error"]["code"], -32601);
    let subscribe = json!({ "uri": "memory://stats" });
    assert_eq!(
        raw.modern(6, "resources/subscribe", subscribe.clone()).await["error"]["code"],
        -32601
    );
    assert!(raw.bare(7, "resources/subscribe", subscribe).await["result"].is_object());
    let listen = json!({ "notifications": {} });
    assert_eq!(
        raw.bare(8, "subscriptions/listen", listen).await["error"]["code"],
        -32601
    );
}

#[tokio::test]
async fn a_session_that_asks_for_a_stateless_revision_gets_the_last_one_with_sessions() {
    let mut raw = Raw::connect(&agent().await);
    let hello = json!({
        "protocolVersion": "2026-07-28",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    assert_eq!(
        raw.bare(1, "initialize", hello).await["result"]["protocolVersion"],
        "2025-11-25"
    );
    assert_eq!(
        raw.bare(2, "tools/list", json!({})).await["result"].get("resultType"),
        None
    );
    assert!(raw.bare(3, "ping", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_subscription_is_acknowledged_then_told_of_every_change_after_that() {
    let agent = agent().await;
    let mut raw = Raw::connect(&agent);
    let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["memory://recent", "memory://x"] });
    raw.send(modern(7, "subscriptions/listen", json!({ "notifications": filter })))
        .await;
    let acknowledged = raw.next().await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(acknowledged["params"]["_meta"][SUBSCRIPTION], 7);
    assert_eq!(
        acknowledged["params"]["notifications"],
        json!({ "resourceSubscriptions": ["memory://recent"] })
    );
    for n in 0..3 {
        agent.store().remember(&draft("x"), None, at(n)).await.unwrap();
        let update = raw.next().await;
        assert_eq!(update["method"], "notifications/resources/updated");
        assert_eq!(update["params"]["uri"], "memory://recent");
        assert_eq!(update["params"]["_meta"][SUBSCRIPTION], 7);
    }
}

#[tokio::test]
async fn subscriptions_end_with_their_cancellation_or_the_connection() {
    let agent = agent().await;
    let mut raw = Raw::connect(&agent);
    for id in [1, 2] {
        let filter = json!({ "resourceSubscriptions": ["memory://stats"] });
        raw.send(modern(id, "subscriptions/listen", json!({ "notifications": filter })))
            .await;
        assert_eq!(raw.next().await["params"]["_meta"][SUBSCRIPTION], id);
    }
    raw.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }))
        .await;
    assert!(raw.modern(3, "tools/list", json!({})).await["result"].is_object());
    agent.store().remember(&draft("x"), None, at(0)).await.unwrap();
    assert_eq!(raw.next().await["params"]["_meta"][SUBSCRIPTION], 2);

    let rest = raw.finish().await;
    assert_eq!(rest.len(), 1);
    assert_eq!(
        (&rest[0]["id"], &rest[0]["result"]["resultType"]),
        (&json!(2), &json!("complete"))
    );
    assert_eq!(rest[0]["result"]["_meta"][SUBSCRIPTION], 2);
}

#[tokio::test]
async fn requests_under_way_are_answered_after_the_client_closed_its_side() {
    let mut raw = Raw::connect(&agent().await);
    for id in 0..20 {
        raw.send(modern(
            id,
            "tools/call",
            json!({ "name": "remember", "arguments": { "text": "x" } }),
        ))
        .await;
    }
    assert_eq!(raw.finish().await.len(), 20);
}
