//! What nodes know of each other: a change lands everywhere, who was away gets what it missed and no more, what is not
//! renewed expires, and the commands say the truth about it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use dawn_e2e::registry::{agents, agree, holds};
use dawn_e2e::{Network, Node, PATIENCE, Transport, eventually, http, http_agent};
use dawn_node::store::Store;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Shares an agent over HTTP.
async fn share(node: &Node, agent: &str, url: &str) {
    let request = http()
        .post(format!("{}/api/agents", node.api()))
        .bearer_auth(node.token());
    let body = json!({ "name": agent, "url": url }).to_string();
    let request = request.header("content-type", "application/json").body(body);
    let status = request.send().await.unwrap().status();
    assert!(status.is_success(), "{status}");
}

async fn unshare(node: &Node, agent: &str) {
    let request = http().delete(format!("{}/api/agents/{agent}", node.api()));
    let status = request.bearer_auth(node.token()).send().await.unwrap().status();
    assert!(status.is_success(), "{status}");
}

/// The address of nobody: an agent there is in the registry, and fails.
const NOBODY: &str = "http://127.0.0.1:9/mcp";

/// The entries of a node's log that are of a kind and by a node.
async fn logged(node: &Node, kind: &str, by: &str) -> Vec<Value> {
    let args = ["registry", "log", "--limit", "1000", "--kind", kind, "--node", by];
    let log = node.dawn(&args).await.success().json();
    log["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_change_lands_at_the_others_in_the_events_and_in_the_log() {
    let network = Network::start(Transport::Quic, &["home", "lab", "desk"]).await;
    let [home, lab, desk] = &network.nodes[..] else {
        unreachable!()
    };
    let (mut at_home, mut at_desk) = (home.happenings().await, desk.happenings().await);
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    let id = lab.id().await;
    let is_probe = |data: &Value| data["address"] == "lab:probe";
    for events in [&mut at_home, &mut at_desk] {
        let added = events.until("agent.added", is_probe).await;
        assert_eq!(
            (&added["id"], &added["name"], &added["agent"]),
            (&json!(id), &json!("lab"), &json!("probe"))
        );
    }
    home.sees("lab:probe").await;
    agree(&[home, lab, desk]).await;
    assert!(home.agents_of(&id).await.contains("probe"));
    let _removed = lab.dawn(&["agent", "remove", "probe"]).await.success();
    for events in [&mut at_home, &mut at_desk] {
        let removed = events.until("agent.removed", is_probe).await;
        assert_eq!(removed["agent"], "probe", "{removed}");
    }
    for node in [home, desk] {
        let about = |entry: &Value| entry["content"]["agent"] == "probe";
        let added = logged(node, "agent.added", "lab").await;
        let removed = logged(node, "agent.removed", "lab").await;
        let (added, removed) = (added.into_iter().find(about), removed.into_iter().find(about));
        let (added, removed) = (added.expect("an entry"), removed.expect("an entry"));
        assert_eq!(
            (&added["who"]["id"], &added["who"]["name"]),
            (&json!(id), &json!("lab"))
        );
        assert!(
            added["number"].as_u64() < removed["number"].as_u64(),
            "{added} {removed}"
        );
        assert!(!node.agents_of(&id).await.contains("probe"));
    }
}

/// Everything that comparisons of registries took at a node, bytes: what it took to find out, and the deltas.
async fn compared(node: &Node) -> (u64, u64) {
    let metrics = node.metrics().await;
    let of = |code: &str| {
        let name = format!("dawn_registry_sync_bytes_total{{code=\"{code}\"}}");
        metrics.get(&name).copied().unwrap_or_default()
    };
    (of("overhead"), of("deltas"))
}

#[tokio::test]
async fn a_node_that_was_away_for_an_hour_of_changes_gets_the_difference_alone() {
    /// Agents that stay as they are, each with many tools; and agents that come and go while the other is away.
    const STAY: usize = 30;
    const GO: usize = 40;
    let (_server, url) = http_agent(&[]).await;
    let mut network = Network::start(Transport::Tcp, &["lab", "away"]).await;
    {
        let [lab, away] = &network.nodes[..] else {
            unreachable!()
        };
        for at in 0..STAY {
            share(lab, &format!("stays-{at}"), &url).await;
        }
        for at in 0..STAY {
            lab.sees(&format!("lab:stays-{at}")).await;
        }
        agree(&[lab, away]).await;
    }
    let id = network.nodes[0].id().await;
    let [lab, away] = &mut network.nodes[..] else {
        unreachable!()
    };
    assert_eq!(away.down().await, 0);
    // Each comes, and most go again; one of those that stayed goes, too.
    for at in 0..GO {
        share(lab, &format!("comes-{at}"), NOBODY).await;
        if at % 10 != 0 {
            unshare(lab, &format!("comes-{at}")).await;
        }
    }
    unshare(lab, "stays-7").await;
    let wanted: BTreeSet<String> = (0..STAY)
        .filter(|at| *at != 7)
        .map(|at| format!("stays-{at}"))
        .chain((0..GO).step_by(10).map(|at| format!("comes-{at}")))
        .chain(["memory".to_owned()])
        .collect();
    holds(lab, &id, &wanted).await;
    let settled = async || {
        let dump = lab.holds_of(&id).await;
        let entries = dump["entries"].as_array().unwrap().clone();
        let come = entries
            .iter()
            .filter(|entry| entry["key"].as_str().unwrap().contains("comes"));
        let failed = come.filter(|entry| entry["value"]["state"] == "failed").count();
        failed == GO / 10
    };
    eventually("what came is as it stays", settled).await;
    let whole: u64 = {
        let dump = lab.holds_of(&id).await;
        let entries = dump["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["bytes"].as_u64().unwrap()).sum()
    };
    let before = compared(lab).await;
    away.up().await;
    holds(away, &id, &wanted).await;
    agree(&[lab, away]).await;
    let (here, there) = (compared(away).await, compared(lab).await);
    let there = (there.0 - before.0, there.1 - before.1);
    let (least, most) = (100, whole / 6);
    for (node, (overhead, deltas)) in [("away", here), ("lab", there)] {
        assert!(
            (least..most).contains(&deltas) && overhead < most,
            "{node}: {overhead} bytes to find out and {deltas} of deltas, of {whole} that there are"
        );
    }
    assert!(whole > 30_000, "{whole} bytes are too few for this to say something");
}

#[tokio::test]
async fn what_is_not_renewed_expires_and_returns_with_its_node() {
    let network = Network::start_with(Transport::Tcp, &["home", "lab"], &[("DAWN_REGISTRY__VALIDITY", "12s")]);
    let mut network = network.await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[0].sees("lab:probe").await;
    let id = network.nodes[1].id().await;
    let mut events = network.nodes[0].happenings().await;
    network.nodes[1].kill().await;
    let is_lab = |data: &Value| data["id"] == id.as_str();
    let _expired = events.until("node.expired", is_lab).await;
    let held = network.nodes[0].holds_of(&id).await;
    assert_eq!(held["expired"], true, "{held}");
    let agents = network.nodes[0].get("/api/agents").await;
    assert!(!agents.to_string().contains("lab:probe"), "{agents}");
    let found = network.nodes[0].dawn(&["find", "test_simple_text"]).await;
    assert_eq!(found.code, 5, "{found:?}");
    network.nodes[1].up().await;
    let _returned = events.until("node.returned", is_lab).await;
    network.nodes[0].sees("lab:probe").await;
    for kind in ["node.expired", "node.returned"] {
        assert_eq!(logged(&network.nodes[0], kind, &id).await.len(), 1, "{kind}");
    }
    // One that is up says it anew in time.
    let held = async || network.nodes[0].holds_of(&id).await["heads"][0]["id"].clone();
    let first = held().await;
    eventually("lab signs anew", async || held().await != first).await;
    assert_eq!(logged(&network.nodes[0], "node.expired", &id).await.len(), 1);
}

#[tokio::test]
async fn the_log_is_a_chain_which_is_compacted_and_shows_when_it_was_altered() {
    const KEPT: u64 = 20;
    let kept = KEPT.to_string();
    let mut node = Node::new("home", Transport::Tcp).env("DAWN_REGISTRY__LOG_ENTRIES", &kept);
    let _made = node.dawn(&["init", "--name", "home"]).await.success();
    node.up().await;
    let id = node.id().await;
    for at in 0..KEPT {
        share(&node, &format!("agent-{at}"), NOBODY).await;
    }
    eventually("all of it is written", async || {
        let added = logged(&node, "agent.added", "home").await;
        added.len() > usize::try_from(KEPT).unwrap()
    })
    .await;
    let log = node
        .dawn(&["registry", "log", "--limit", "1000"])
        .await
        .success()
        .json();
    assert_eq!((&log["whole"], &log["first"]), (&json!(true), &json!(0)), "{log}");
    let entries = log["entries"].as_array().unwrap();
    for pair in entries.windows(2) {
        assert_eq!(pair[1]["previous"], pair[0]["hash"], "{pair:?}");
    }
    assert_eq!(
        (&entries[0]["kind"], &entries[0]["who"]["id"]),
        (&json!("node.started"), &json!(id))
    );
    assert_eq!(log["last"], entries.last().unwrap()["hash"]);
    // It is compacted at the next start at the latest.
    assert_eq!(node.down().await, 0);
    node.up().await;
    let log = async || {
        node.dawn(&["registry", "log", "--limit", "1000"])
            .await
            .success()
            .json()
    };
    eventually("the oldest entries are given up", async || log().await["first"] != 0).await;
    let compacted = logged(&node, "log.compacted", "home").await;
    let [compacted] = &compacted[..] else {
        panic!("{compacted:?}")
    };
    let after = log().await;
    let (until, first) = (compacted["content"]["until"].as_u64(), after["first"].as_u64());
    assert_eq!(
        (until.map(|until| until + 1), &after["whole"]),
        (first, &json!(true)),
        "{after}"
    );
    // Someone edits the file, and keeps every length.
    for agent in ["quarry", "later"] {
        share(&node, agent, NOBODY).await;
        eventually("it is written", async || {
            let added = logged(&node, "agent.added", "home").await;
            added.iter().any(|entry| entry["content"]["agent"] == agent)
        })
        .await;
    }
    assert_eq!(node.down().await, 0);
    let path = node.home().join("dawn.db");
    // Connections that close at once may leave what they wrote beside the file: whoever opens and closes it alone does not.
    Store::open(&path).await.unwrap().close().await;
    let bytes = std::fs::read(&path).unwrap();
    let altered = replaced(&bytes, br#""agent":"quarry""#, br#""agent":"quarrx""#);
    assert_ne!(altered, bytes, "the log is in the file");
    std::fs::write(&path, altered).unwrap();
    // What is given up at the start cannot show it.
    let mut node = node.env("DAWN_REGISTRY__LOG_ENTRIES", "10000");
    node.up().await;
    let altered = node.dawn(&["registry", "log"]).await;
    let told = altered.json();
    assert_eq!((altered.code, &told["whole"]), (1, &json!(false)), "{altered:?}");
    assert!(
        told["broken"].as_str().is_some_and(|why| why.contains("entry")),
        "{told}"
    );
    let words = node.words(&["registry", "log"]).await;
    assert_eq!(words.code, 1);
    assert!(words.stderr.contains("the log was altered"), "{words:?}");
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut altered = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            altered[at..at + to.len()].copy_from_slice(to);
        }
    }
    altered
}

#[tokio::test]
async fn find_knows_agents_by_their_tools_and_nodes_by_their_names() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let found = home.dawn(&["find", "TEST_simple", "text"]).await.success().json();
    let first = &found["found"][0];
    assert_eq!(
        (&first["kind"], &first["address"]),
        (&json!("agent"), &json!("lab:probe")),
        "{found}"
    );
    assert_eq!(
        (&first["online"], &first["this"], &first["state"]),
        (&json!(true), &json!(false), &json!("ready"))
    );
    let matches = first["matches"].as_array().unwrap();
    assert!(
        matches
            .iter()
            .any(|found| found["in"] == "tool" && found["text"] == "test_simple_text"),
        "{first}"
    );
    let by_name = home.dawn(&["find", "lab"]).await.success().json();
    let nodes = by_name["found"].as_array().unwrap().iter();
    assert!(
        nodes
            .clone()
            .any(|found| found["kind"] == "node" && found["name"] == "lab"),
        "{by_name}"
    );
    let words = home.words(&["find", "test_simple_text"]).await.success();
    assert!(
        words.stdout.contains("lab:probe") && words.stdout.contains("test_simple_text"),
        "{words:?}"
    );
    // All words have to be found.
    let none = home.dawn(&["find", "test_simple_text", "nowhere-to-be-found"]).await;
    assert_eq!((none.code, &none.json()["found"]), (5, &json!([])), "{none:?}");
    let none = home.words(&["find", "nowhere-to-be-found"]).await;
    assert!(none.code == 5 && none.stderr.contains("dawn agent list"), "{none:?}");
    let empty = home.dawn(&["find", " "]).await;
    assert_eq!(
        (empty.code, &empty.json()["error"]["code"]),
        (2, &json!("usage")),
        "{empty:?}"
    );
}

#[tokio::test]
async fn dump_and_diff_say_what_each_node_holds() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    agree(&[home, lab]).await;
    let dump = home.dawn(&["registry", "dump", "lab"]).await.success().json();
    let [only] = &dump["nodes"].as_array().unwrap()[..] else {
        panic!("{dump}")
    };
    assert_eq!(
        (&only["name"], &only["this"], &only["expired"]),
        (&json!("lab"), &json!(false), &json!(false))
    );
    assert_eq!(agents(only), BTreeSet::from(["memory", "probe"].map(str::to_owned)));
    let keys: Vec<&str> = only["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["key"].as_str())
        .collect();
    assert_eq!(keys, ["node", "agent:memory", "agent:probe"]);
    let (id, dump) = (lab.id().await, &dump["nodes"][0]);
    let there = lab.holds_of(&id).await;
    assert_eq!((&dump["heads"], &dump["entries"]), (&there["heads"], &there["entries"]));
    let words = home.words(&["registry", "dump"]).await.success();
    assert!(
        words.stdout.contains("agent:probe") && words.stdout.contains("this node"),
        "{words:?}"
    );
    let same = home.dawn(&["registry", "diff", "lab"]).await.success().json();
    assert_eq!(
        (&same["same"], &same["differences"]),
        (&json!(true), &json!([])),
        "{same}"
    );
    assert_eq!(same["heads"], json!({ "here": 2, "there": 2 }));
    let words = home.words(&["registry", "diff", "lab"]).await.success();
    assert!(words.stdout.contains("lab knows the same"), "{words:?}");
    for (args, exit, code) in [
        (["registry", "dump", "nobody"], 5, "unknown_node"),
        (["registry", "diff", "nobody"], 5, "unknown_node"),
        (["registry", "diff", "home"], 2, "bad_request"),
    ] {
        let refused = home.dawn(&args).await;
        assert_eq!(
            (refused.code, &refused.json()["error"]["code"]),
            (exit, &json!(code)),
            "{args:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn diff_with_a_node_that_is_away_says_so() {
    let mut network = Network::start(Transport::Tcp, &["home", "lab"]).await;
    agree(&[&network.nodes[0], &network.nodes[1]]).await;
    network.nodes[1].kill().await;
    network.nodes[0].sees_online("lab", false).await;
    let away = network.nodes[0].dawn(&["registry", "diff", "lab"]).await;
    assert_eq!(
        (away.code, &away.json()["error"]["code"]),
        (5, &json!("node_offline")),
        "{away:?}"
    );
}

#[tokio::test]
async fn netcheck_tells_of_listening_of_members_and_of_clocks() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let checked = home.dawn(&["netcheck"]).await.success().json();
    let listens: BTreeSet<&str> = checked["listen"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|on| on["address"].as_str())
        .collect();
    let wanted = home.listens();
    assert_eq!(listens, wanted.iter().map(String::as_str).collect());
    assert!(
        checked["listen"]
            .as_array()
            .unwrap()
            .iter()
            .all(|on| on["scope"] == "loopback" && on["transport"] == "quic")
    );
    assert_eq!(
        checked["transports"]["quic"],
        json!({ "listens": true, "connections": 1 }),
        "{checked}"
    );
    assert_eq!(
        (&checked["udp"], &checked["mdns"]["enabled"]),
        (&json!(true), &json!(false))
    );
    let [member] = &checked["members"].as_array().unwrap()[..] else {
        panic!("{checked}")
    };
    assert_eq!(
        (&member["node"]["name"], &member["route"], &member["error"]),
        (&json!("lab"), &json!("direct"), &Value::Null)
    );
    assert!(
        member["latency_ms"]
            .as_f64()
            .is_some_and(|ms| (0.0..1000.0).contains(&ms)),
        "{member}"
    );
    // Both have the clock of this machine.
    assert!(
        member["clock_ms"].as_f64().is_some_and(|ms| ms.abs() < 500.0),
        "{member}"
    );
    assert_eq!(checked["clock"]["ok"], true);
    assert!(
        member["sees_us_at"]
            .as_str()
            .is_some_and(|at| at.starts_with("/ip4/127.0.0.1/udp/")),
        "{member}"
    );
    let there = lab.dawn(&["netcheck"]).await.success().json();
    let [us] = &there["members"].as_array().unwrap()[..] else {
        panic!("{there}")
    };
    // One of the two dialled; where members see it, is where it comes from.
    let (dialler, dialled) = match member["dialled"].as_str() {
        Some("by_us") => (&checked, &there),
        _ => (&there, &checked),
    };
    let by = |checked: &Value| checked["members"][0]["dialled"].clone();
    assert_eq!(
        (by(dialler), by(dialled)),
        (json!("by_us"), json!("by_them")),
        "{member} {us}"
    );
    assert_eq!(dialler["observed"], json!([{ "address": "127.0.0.1", "by": 1 }]));
    assert_eq!(
        (&dialled["observed"], &dialled["reachable"]),
        (&json!([]), &json!(true))
    );
    let words = home.words(&["netcheck"]).await.success();
    assert!(
        words.stdout.contains("lab") && words.stdout.contains("QUIC"),
        "{words:?}"
    );
    assert!(
        words.stderr.contains("only this machine reaches this node"),
        "{words:?}"
    );
}

#[tokio::test]
async fn the_watch_prints_a_line_for_each_change_as_it_lands() {
    let mut network = Network::start(Transport::Quic, &["home", "lab"]).await;
    network.nodes[0].sees("lab:memory").await;
    let mut watch = network.nodes[0]
        .command(&["agent", "list", "--watch"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async |event: &str, address: &str| {
        let seen = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it goes on");
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["event"] == event && line["address"] == address {
                    return line;
                }
            }
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.unwrap_or_else(|_| panic!("{event} of {address} is told in time"))
    };
    next("agent.listed", "lab:memory").await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    next("agent.added", "lab:probe").await;
    let _removed = network.nodes[1].dawn(&["agent", "remove", "probe"]).await.success();
    next("agent.removed", "lab:probe").await;
    network.nodes[1].kill().await;
    next("agent.offline", "lab:memory").await;
    network.nodes[1].up().await;
    next("agent.online", "lab:memory").await;
    // What goes for good is removed.
    let _revoked = network.nodes[0].dawn(&["peers", "revoke", "lab"]).await.success();
    let removed = next("agent.removed", "lab:memory").await;
    assert_eq!(removed["node"]["name"], "lab", "{removed}");
    assert_eq!(network.nodes[0].down().await, 0);
    let ended = tokio::time::timeout(PATIENCE, watch.wait())
        .await
        .expect("it ends in time")
        .unwrap();
    assert_eq!(ended.code(), Some(3), "the node that it watched is gone");
}

#[tokio::test]
async fn status_and_peers_say_when_registries_were_compared() {
    let network = Network::start(Transport::Tcp, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    agree(&[home, lab]).await;
    eventually("a comparison went through", async || {
        let status = home.get("/api/status").await;
        status["registry"]["last_sync"]["with"]["name"] == "lab"
    })
    .await;
    let status = home.get("/api/status").await;
    let registry: BTreeMap<&str, u64> = ["nodes", "entries", "expired"]
        .into_iter()
        .map(|name| (name, status["registry"][name].as_u64().unwrap()))
        .collect();
    assert_eq!(
        registry,
        BTreeMap::from([("nodes", 2), ("entries", 4), ("expired", 0)]),
        "{status}"
    );
    let words = home.words(&["status"]).await.success();
    assert!(words.stdout.contains("2 nodes, 4 entries"), "{words:?}");
    let peer = home.peer("lab").await;
    assert!(peer["synced"].is_string(), "{peer}");
}
