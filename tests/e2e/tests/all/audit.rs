//! The audit log: who called what, and nothing of what was said.

use dawn_e2e::{Events, Network, Transport, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn calls_are_recorded_with_their_caller_and_outcome_but_not_their_content() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let session = home.legacy(Some("lab:probe")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "a secret" })).await, "a secret");
    let unknown = session.call(2, "no_such_tool", json!({})).await;
    assert!(unknown.body["error"].is_object(), "{unknown:?}");
    let local = lab.modern(Some("lab:probe"));
    let _said = local.call(3, "echo", json!({ "text": "a secret" })).await;

    let mut lines = Value::Null;
    eventually("three calls are recorded", async || {
        lines = lab.dawn(&["audit"]).await.success().json();
        lines.as_array().is_some_and(|lines| lines.len() == 3)
    })
    .await;
    let of = |at: usize, key: &str| lines[at][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (of(0, "name"), of(0, "agent"), of(0, "what"), of(0, "outcome")),
        ("home".into(), "probe".into(), "echo".into(), "result".into())
    );
    assert_eq!(
        (of(1, "what"), of(1, "outcome")),
        ("no_such_tool".into(), "error".into())
    );
    assert_eq!(of(2, "name"), "lab");
    assert_eq!(of(0, "arguments").len(), 64);
    assert_eq!(
        of(0, "arguments"),
        of(2, "arguments"),
        "the same arguments have the same hash"
    );
    assert!(!lines.to_string().contains("a secret"), "contents are not kept");

    let failed = lab.dawn(&["audit", "--failed"]).await.success().json();
    assert_eq!(failed.as_array().map(Vec::len), Some(1));
    let of_home = lab
        .dawn(&["audit", "--caller", "home", "--what", "echo"])
        .await
        .success()
        .json();
    assert_eq!(of_home.as_array().map(Vec::len), Some(1));
    // The caller's own node hosts nothing that was called.
    assert_eq!(home.dawn(&["audit"]).await.success().json(), json!([]));

    // A call that never ends is recorded when its caller leaves.
    let params = json!({
        "name": "slow", "arguments": { "seconds": 60, "steps": 600 }, "_meta": { "progressToken": 4 },
    });
    let mut events = Events::new(home.modern(Some("lab:probe")).post(4, "tools/call", params).await);
    let progress = events.next().await.expect("told");
    assert_eq!(progress["method"], "notifications/progress", "{progress}");
    drop(events);
    eventually("the unanswered call is recorded", async || {
        let lines = lab.dawn(&["audit", "--what", "slow"]).await.success().json();
        lines[0]["outcome"] == "unanswered"
    })
    .await;
}
