//! Several agents as one endpoint: all of them, groups of them, and tools that are found by search.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use dawn_e2e::{Network, Node, Transport, eventually};
use serde_json::{Value, json};

const GROUPS: &str = r#"
[groups.work]
agents = ["lab:*"]
hide = ["*__test_*"]
rename = { lab__probe__echo = "say" }
describe = { lab__probe__echo = "Says it again" }

[groups.wide]
tools = "search"
"#;

/// `home` with two groups, and `lab` with an agent.
async fn network() -> Network {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let file = home.home().join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, format!("{text}{GROUPS}")).expect("the configuration is written");
    let reloaded = home.dawn(&["reload"]).await.success().json();
    assert_eq!(reloaded["groups"], json!(["wide", "work"]), "{reloaded}");
    network
}

fn group(node: &Node, name: &str) -> dawn_e2e::Modern {
    dawn_e2e::Modern::new(&format!("{}/mcp/groups/{name}", node.api()), &node.token())
}

fn names(listed: &Value) -> Vec<&str> {
    let tools = listed["result"]["tools"].as_array().expect("a list of tools");
    tools.iter().filter_map(|tool| tool["name"].as_str()).collect()
}

#[tokio::test]
async fn a_group_shows_what_its_configuration_says_and_nothing_else() {
    let network = network().await;
    let home = &network.nodes[0];
    let client = group(home, "work");
    let listed = client.request(1, "tools/list", json!({})).await.body;
    let tools = names(&listed);
    assert!(tools.contains(&"say"), "{tools:?}");
    assert!(
        !tools
            .iter()
            .any(|name| name.contains("__test_") || name.starts_with("home__")),
        "{tools:?}"
    );
    let said = listed["result"]["tools"].as_array().unwrap();
    let said = said.iter().find(|tool| tool["name"] == "say").unwrap();
    assert_eq!(said["description"], "Says it again");

    let called = client.call(2, "say", json!({ "text": "here" })).await.body;
    assert_eq!(called["result"]["content"][0]["text"], "here", "{called}");
    // What is hidden or of another agent cannot be called by its name either.
    for hidden in ["lab__probe__test_simple_text", "home__memory__list"] {
        let refused = client.call(3, hidden, json!({})).await.body;
        assert_eq!(refused["error"]["code"], -31003, "{hidden}: {refused}");
    }
    let all = home.modern(None).request(4, "tools/list", json!({})).await.body;
    assert!(names(&all).contains(&"home__memory__list"), "{all}");

    let session = dawn_e2e::Legacy::open(&format!("{}/mcp/groups/work", home.api()), &home.token()).await;
    assert_eq!(session.text(1, "say", json!({ "text": "again" })).await, "again");
    let none = group(home, "none").request(5, "tools/list", json!({})).await;
    assert_eq!(
        (none.status, &none.body["error"]["data"]["dawn"]["code"]),
        (404, &json!("unknown_agent"))
    );
}

#[tokio::test]
async fn tools_are_found_by_search_where_the_client_or_the_group_wants_it() {
    let network = network().await;
    let home = &network.nodes[0];
    let client = group(home, "wide");
    let listed = client.request(1, "tools/list", json!({})).await.body;
    assert_eq!(names(&listed), ["find_tools", "call_tool"]);
    let found = client
        .call(2, "find_tools", json!({ "query": "remember a note", "limit": 3 }))
        .await
        .body;
    let tools = found["result"]["structuredContent"]["tools"].as_array().unwrap();
    assert!(!tools.is_empty() && tools.len() <= 3, "{found}");
    assert!(
        tools.iter().any(|tool| tool["name"] == "home__memory__remember"),
        "{found}"
    );
    let call = json!({ "name": "lab__probe__echo", "arguments": { "text": "found" } });
    let called = client.call(3, "call_tool", call).await.body;
    assert_eq!(called["result"]["content"][0]["text"], "found", "{called}");

    // The client's own choice, and a session that lists what it found.
    let address = format!("{}/mcp?tools=search", home.api());
    let session = dawn_e2e::Legacy::open(&address, &home.token()).await;
    let listed = session.request(1, "tools/list", json!({})).await.body;
    assert_eq!(names(&listed), ["find_tools", "call_tool"]);
    let _found = session
        .call(2, "find_tools", json!({ "query": "echo", "limit": 1 }))
        .await;
    let listed = session.request(3, "tools/list", json!({})).await.body;
    assert!(names(&listed).contains(&"lab__probe__echo"), "{listed}");
    assert_eq!(
        session.text(4, "lab__probe__echo", json!({ "text": "listed" })).await,
        "listed"
    );
    let unclear = session.call(5, "find_tools", json!({})).await.body;
    assert_eq!(unclear["result"]["isError"], true, "{unclear}");
}

#[tokio::test]
async fn a_reload_adds_and_removes_agents() {
    let network = network().await;
    let home = &network.nodes[0];
    let file = home.home().join("config.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let agent = dawn_e2e::test_agent();
    let added = format!(
        "{before}\n[agents.extra]\ncommand = [{:?}, \"--stdio\"]\n",
        agent.to_str().unwrap()
    );
    std::fs::write(&file, added).unwrap();
    let reloaded = home.dawn(&["reload"]).await.success().json();
    // The node may have noticed the change by itself meanwhile.
    assert!(
        reloaded["agents"] == json!(["extra"]) || reloaded["agents"] == json!([]),
        "{reloaded}"
    );
    home.sees("home:extra").await;
    let client = home.modern(None);
    eventually("the agent is called", async || {
        let called = client.call(1, "home__extra__echo", json!({ "text": "x" })).await;
        called.body["result"]["content"][0]["text"] == "x"
    })
    .await;
    std::fs::write(&file, "[groups.work]\nrename = { a = \"no good name\" }\n").unwrap();
    let refused = home.dawn(&["reload"]).await;
    assert_ne!(refused.code, 0);
    assert!(
        (refused.stdout + &refused.stderr).contains("no good name"),
        "the error says what is wrong"
    );
    std::fs::write(&file, before).unwrap();
    let _reloaded = home.dawn(&["reload"]).await.success();
    home.misses("home:extra").await;
}

#[tokio::test]
async fn a_changed_configuration_is_noticed() {
    let network = network().await;
    let home = &network.nodes[0];
    let file = home.home().join("config.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{text}\n[groups.late]\nagents = [\"lab:probe\"]\n")).expect("written");
    eventually("the new group is served", async || {
        let listed = group(home, "late").request(1, "tools/list", json!({})).await;
        listed.body["result"]["tools"].is_array()
    })
    .await;
    // What cannot be is not used, and what was there stays.
    std::fs::write(&file, "[groups.late\n").expect("written");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let listed = group(home, "late").request(1, "tools/list", json!({})).await.body;
    assert!(listed["result"]["tools"].is_array(), "{listed}");
}
