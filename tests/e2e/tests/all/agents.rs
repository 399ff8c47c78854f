//! Agents: started, crashed, told who calls, never left behind; and all of them as one server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use dawn_e2e::{Network, Transport, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_crashed_agent_is_an_error_for_its_callers_and_works_for_the_next() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let session = home.legacy(Some("lab:probe")).await;
    let crashed = session.call(1, "crash", json!({})).await;
    assert_eq!(
        crashed.body["error"]["data"]["dawn"]["code"], "agent_failed",
        "{crashed:?}"
    );
    assert_eq!(crashed.body["id"], 1);
    let next = home.legacy(Some("lab:probe")).await;
    assert_eq!(next.text(1, "echo", json!({ "text": "again" })).await, "again");
    let modern = home.modern(Some("lab:probe"));
    let crashed = modern.call(1, "crash", json!({})).await;
    assert_eq!(
        crashed.body["error"]["data"]["dawn"]["code"], "agent_failed",
        "{crashed:?}"
    );
    eventually("the shared process is started again", async || {
        modern.call(2, "echo", json!({ "text": "again" })).await.body["result"]["content"][0]["text"] == "again"
    })
    .await;
    // Its owner sees both crashes, that of the session's process and that of the shared one.
    eventually("the crashes are counted", async || {
        let agents = lab.get("/api/agents").await;
        let agents = agents["agents"].as_array().cloned().unwrap_or_default();
        let probe = agents.iter().find(|agent| agent["address"] == "lab:probe");
        probe.is_some_and(|probe| probe["crashes"] == 2 && probe["last_crash"].is_string())
    })
    .await;
    let doctor = lab.words(&["doctor"]).await;
    assert!(doctor.stdout.contains("lab:probe crashed 2 times"), "{doctor:?}");
    assert!(
        crashed.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("agent lab:probe"),
        "{crashed:?}"
    );
}

#[tokio::test]
async fn an_agent_learns_who_calls_and_a_client_cannot_pretend() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let session = home.legacy(Some("lab:probe")).await;
    let id = home.get("/api/status").await["node"]["id"].as_str().unwrap().to_owned();
    assert_eq!(session.text(1, "env", json!({ "name": "DAWN_CALLER_NODE" })).await, id);
    assert_eq!(
        session.text(2, "env", json!({ "name": "DAWN_CALLER_NAME" })).await,
        "home"
    );
    let modern = home.modern(Some("lab:probe"));
    let forged = json!({ "name": "caller", "arguments": {}, "_meta": { "io.dawn/caller": { "node": "forged", "name": "forged" } } });
    let told = modern.request(3, "tools/call", forged).await;
    let told: Value = serde_json::from_str(told.body["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(told["node"], id.as_str());
    assert_eq!(told["name"], "home");
}

/// Processes whose command line holds a text.
fn processes(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    })
    .collect()
}

#[tokio::test]
async fn no_agent_process_outlives_its_node_even_when_the_node_is_killed() {
    let mut network = Network::start(Transport::Tcp, &["home"]).await;
    let mark = format!("dawn-e2e-orphan-{}", std::process::id());
    // A shell that ignores SIGTERM and has a child of its own, neither of which reads standard input.
    let script = format!(
        "trap '' TERM; : {mark}; sh -c 'trap \"\" TERM; : {mark}; sleep 1000 & wait' & exec {} --stdio",
        dawn_e2e::test_agent().display()
    );
    network.nodes[0]
        .add_agent("stubborn", &[], &["sh", "-c", &script])
        .await;
    network.nodes[0].sees("home:stubborn").await;
    let session = network.nodes[0].legacy(Some("home:stubborn")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "up" })).await, "up");
    assert!(!processes(&mark).is_empty());
    network.nodes[0].kill().await;
    eventually("all processes are gone", async || processes(&mark).is_empty()).await;
}

#[tokio::test]
async fn a_streamable_http_server_is_an_agent_like_any_other() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let mut server = tokio::process::Command::new(dawn_e2e::test_agent())
        .args(["--http", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let url = line.split_whitespace().last().unwrap();
    lab.add_agent("web", &["--url", url], &[]).await;
    home.sees("lab:web").await;
    let session = home.legacy(Some("lab:web")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "legacy" })).await, "legacy");
    let modern = home
        .modern(Some("lab:web"))
        .call(1, "echo", json!({ "text": "modern" }))
        .await;
    assert_eq!(modern.body["result"]["content"][0]["text"], "modern", "{modern:?}");
}

/// The test agent over HTTP on this address, and its URL.
async fn serve(address: &str) -> (tokio::process::Child, String) {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut server = tokio::process::Command::new(dawn_e2e::test_agent())
        .args(["--http", address])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    (server, line.split_whitespace().last().unwrap().to_owned())
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_added_all_the_same_and_fails_the_command() {
    let network = Network::start(Transport::Quic, &["home"]).await;
    let home = &network.nodes[0];
    // A port that was free a moment ago.
    let (mut server, url) = serve("127.0.0.1:0").await;
    server.kill().await.unwrap();
    let added = home.dawn(&["agent", "add", "web", "--url", &url]).await;
    assert_eq!(
        (added.code, added.json()["state"].clone()),
        (1, json!("failed")),
        "{added:?}"
    );
    assert_eq!(added.json()["error_code"], "agent_failed");
    let address = url.trim_start_matches("http://").split('/').next().unwrap();
    let (_server, _) = serve(address).await;
    home.sees("home:web").await;
    // A program that speaks no MCP never worked, and callers are told so.
    let never = home.dawn(&["agent", "add", "never", "--", "true"]).await;
    assert_eq!(never.code, 1, "{never:?}");
    let called = home.dawn(&["call", "home:never", "x"]).await.json();
    let message = called["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("agent home:never has not worked since it was added"),
        "{called}"
    );
    // A server that asks for no login says nothing about one.
    let login = home.dawn(&["agent", "login", "web", "--no-wait"]).await;
    let error = login.json()["error"].clone();
    assert_eq!(login.code, 1, "{login:?}");
    assert!(
        error["message"].as_str().unwrap().contains("asks for no login"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_asks_for_a_login_has_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const ANSWER: &[u8] =
        b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let network = Network::start(Transport::Quic, &["home"]).await;
    let home = &network.nodes[0];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _asked = stream.read(&mut [0; 4096]).await;
                let _answered = stream.write_all(ANSWER).await;
            });
        }
    });
    let added = home.dawn(&["agent", "add", "board", "--url", &url]).await.success();
    assert_eq!(added.json()["error_code"], "login_required", "{added:?}");
    let login = home.dawn(&["agent", "login", "board", "--no-wait"]).await;
    let error = login.json()["error"].clone();
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("does not say where to log in"),
        "{error}"
    );
}

#[tokio::test]
async fn a_session_that_its_server_lost_is_begun_anew_unnoticed() {
    const WATCHED: &str = "test://watched-resource";
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let (mut server, url) = serve("127.0.0.1:0").await;
    lab.add_agent("web", &["--url", &url], &[]).await;
    home.sees("lab:web").await;
    let session = home.legacy(Some("lab:web")).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "before" })).await, "before");
    let mut events = session.listen().await;
    let subscribed = session
        .request(2, "resources/subscribe", json!({ "uri": WATCHED }))
        .await;
    assert!(subscribed.body["result"].is_object(), "{subscribed:?}");
    server.kill().await.unwrap();
    let during = session.call(3, "echo", json!({ "text": "during" })).await;
    assert_eq!(
        during.body["error"]["data"]["dawn"]["code"], "agent_failed",
        "{during:?}"
    );
    let address = url.trim_start_matches("http://").split('/').next().unwrap();
    let (_server, again) = serve(address).await;
    assert_eq!(again, url);
    assert_eq!(session.text(4, "echo", json!({ "text": "after" })).await, "after");
    // The subscription is made anew, and the stream on which it is heard.
    let heard = async {
        loop {
            let event = events.next().await.unwrap();
            if event["method"] == "notifications/resources/updated" {
                return event;
            }
        }
    };
    let touching = async {
        for id in 5.. {
            let _touched = session.call(id, "touch_resource", json!({ "uri": WATCHED })).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let event = tokio::select! {
        event = heard => event,
        () = touching => unreachable!(),
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("no update is heard"),
    };
    assert_eq!(event["params"]["uri"], WATCHED);
}

#[tokio::test]
async fn all_agents_are_one_server_whose_lists_follow_what_comes_and_goes() {
    let mut network = Network::start(Transport::Quic, &["home", "lab"]).await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[0].sees("lab:probe").await;
    network.nodes[0].sees("lab:memory").await;
    let session = network.nodes[0].legacy(None).await;
    let mut events = session.listen().await;
    let names = async || -> Vec<String> {
        let tools = session.request("list", "tools/list", json!({})).await;
        let tools = tools.body["result"]["tools"]
            .as_array()
            .unwrap_or_else(|| panic!("{tools:?}"))
            .clone();
        tools
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let listed = names().await;
    for expected in ["lab__probe__echo", "lab__memory__remember", "home__memory__recall"] {
        assert!(listed.iter().any(|name| name == expected), "{expected} in {listed:?}");
    }
    assert_eq!(
        session
            .text(1, "lab__probe__echo", json!({ "text": "through all" }))
            .await,
        "through all"
    );
    let stored = session
        .call(2, "home__memory__remember", json!({ "text": "the kettle is blue" }))
        .await;
    assert!(stored.body["result"]["isError"] != true, "{stored:?}");
    let unknown = session.call(3, "lab__nothing__echo", json!({})).await;
    assert_eq!(
        unknown.body["error"]["data"]["dawn"]["code"], "unknown_agent",
        "{unknown:?}"
    );

    network.nodes[1].kill().await;
    loop {
        let event = events.next().await.expect("the stream goes on");
        if event["method"] == "notifications/tools/list_changed"
            && !names().await.iter().any(|name| name.starts_with("lab__"))
        {
            break;
        }
    }
    assert!(
        names().await.iter().any(|name| name == "home__memory__recall"),
        "a dead node does not fail the whole"
    );
    network.nodes[1].up().await;
    loop {
        let event = events.next().await.expect("the stream goes on");
        if event["method"] == "notifications/tools/list_changed"
            && names().await.iter().any(|name| name == "lab__probe__echo")
        {
            break;
        }
    }
    assert_eq!(
        session.text(4, "lab__probe__echo", json!({ "text": "back" })).await,
        "back"
    );
}

#[tokio::test]
async fn the_whole_speaks_the_modern_era_too() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let modern = home.modern(None);
    let discovered = modern.request(1, "server/discover", json!({})).await;
    assert_eq!(discovered.body["result"]["supportedVersions"][0], "2026-07-28");
    let tools = modern.request(2, "tools/list", json!({})).await;
    assert!(tools.body.to_string().contains("lab__probe__echo"), "{tools:?}");
    let called = modern.call(3, "lab__probe__echo", json!({ "text": "whole" })).await;
    assert_eq!(called.body["result"]["content"][0]["text"], "whole", "{called:?}");
}

#[tokio::test]
async fn an_idle_pair_of_nodes_keeps_its_sessions() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let session = home.legacy(Some("lab:probe")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(session.text(1, "echo", json!({ "text": "awake" })).await, "awake");
}

#[tokio::test]
async fn an_agent_is_checked_in_every_era_that_it_speaks() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    lab.add_test_agent("raw", &[], &["--raw-echo"]).await;
    home.sees("lab:probe").await;
    home.sees("lab:raw").await;
    let sound = home.dawn(&["agent", "check", "lab:probe"]).await.success().json();
    assert_eq!(sound["ok"], true, "{sound}");
    let eras = |checked: &Value| -> Vec<String> {
        let checks = checked["checks"].as_array().expect("checks");
        checks.iter().map(|check| check["era"].to_string()).collect()
    };
    assert!(eras(&sound).contains(&"\"legacy\"".to_owned()) && eras(&sound).contains(&"\"modern\"".to_owned()));
    // It answers whatever it is asked with a result.
    let odd = home.dawn(&["agent", "check", "lab:raw"]).await;
    assert_eq!(odd.code, 1, "{odd:?}");
    assert_eq!(odd.json()["ok"], false);
    let nobody = home.dawn(&["agent", "check", "lab:nobody"]).await;
    assert_eq!(
        (nobody.code, nobody.json()["error"]["code"].clone()),
        (5, json!("unknown_agent")),
        "{nobody:?}"
    );
}
