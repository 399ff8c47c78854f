//! What is found through others: from member to member in few steps, over connections and over forwarded routes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use dawn_e2e::{Lab, Network, Node, Transport, eventually};
use serde_json::Value;

/// The names of nodes in an answer.
fn names(nodes: &Value) -> Vec<&str> {
    let nodes = nodes.as_array().into_iter().flatten();
    nodes.filter_map(|node| node["name"].as_str()).collect()
}

/// Who says that it has something.
fn providers(answer: &Value) -> Vec<&str> {
    let providers = answer["network"]["providers"].as_array().into_iter().flatten();
    providers
        .filter_map(|provider| provider["node"]["name"].as_str())
        .collect()
}

/// Looks through the network until a node says that it has something.
async fn found(node: &Node, word: &str, at: &str) -> Value {
    let mut answer = Value::Null;
    eventually(&format!("{} finds {word} at {at}", node.name), async || {
        let output = node.dawn(&["find", "--network", word]).await;
        answer = output.json();
        providers(&answer).contains(&at)
    })
    .await;
    answer
}

#[tokio::test]
async fn the_network_is_asked_who_has_something_and_says_how_it_was_found() {
    let network = Network::start(Transport::Quic, &["home", "lab", "desk", "shed", "barn"]).await;
    let [home, lab, others @ ..] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    home.sees("lab:probe").await;
    let answer = found(home, "echo", "lab").await;
    assert_eq!(answer["found"][0]["address"], "lab:probe", "{answer}");
    let asked = &answer["network"];
    assert!(
        asked["asked"].as_u64() >= Some(1) && asked["hops"].as_u64() >= Some(1),
        "{answer}"
    );
    assert!(!names(&asked["answered"]).is_empty(), "{answer}");
    assert_eq!(asked["providers"][0]["known"], true, "{answer}");
    for word in ["probe", "lab:probe", "lab"] {
        let answer = found(&others[2], word, "lab").await;
        assert_eq!(answer["network"]["providers"].as_array().unwrap().len(), 1, "{answer}");
        assert!(!answer["found"].as_array().unwrap().is_empty(), "{word}: {answer}");
    }
    for (node, address) in [(home, "lab:probe"), (lab, "lab:probe")] {
        let answer = node.dawn(&["find", address]).await.success().json();
        assert_eq!(answer["found"][0]["address"], address, "{answer}");
    }
    let words = home.words(&["find", "--network", "echo"]).await.success();
    assert!(
        words.stderr.contains("asked the network") && words.stderr.contains("lab"),
        "{words:?}"
    );
    // Without being told to, it is asked only where the registry knows of nothing.
    let known = home.dawn(&["find", "echo"]).await.success().json();
    assert_eq!(known["network"], Value::Null);
    let nothing = home.dawn(&["find", "nothing-like-it"]).await;
    assert_eq!(nothing.code, 5);
    assert!(nothing.json()["network"]["asked"].as_u64() >= Some(1), "{nothing:?}");
    // Who does not answer may know better.
    others[0].pause();
    let silent = home.dawn(&["find", "nothing-like-that"]).await;
    assert_eq!(silent.code, 5);
    assert_eq!(names(&silent.json()["network"]["silent"]), ["desk"], "{silent:?}");
    others[0].go_on();
    eventually("everybody is in the table", async || {
        home.metric("dawn_kademlia_members").await == 4
    })
    .await;
    let status = home.dawn(&["status"]).await.success().json();
    assert_eq!(status["lookup"]["members"], 4, "{status}");
    assert!(status["lookup"]["words"].as_u64() > Some(0) && status["lookup"]["provided"].as_u64() > Some(0));
    // What is gone is found no more, whatever its node has said before.
    let _removed = lab.dawn(&["agent", "remove", "probe"]).await.success();
    home.misses("lab:probe").await;
    let answer = home.dawn(&["find", "--network", "echo"]).await;
    assert_eq!(answer.json()["found"].as_array().map(Vec::len), Some(0), "{answer:?}");
}

#[tokio::test]
async fn members_in_a_chain_find_what_is_at_its_other_end() {
    let Some(lab) = Lab::open(&["a", "b", "c", "d"]) else {
        return;
    };
    for (number, (near, far)) in [("a", "b"), ("b", "c"), ("c", "d")].into_iter().enumerate() {
        lab.cable(u8::try_from(number).unwrap() + 1, near, far);
    }
    let mut b = Node::inside(&lab, "b", Transport::Quic);
    let _made = b.dawn(&["init", "--name", "b"]).await.success();
    b.up().await;
    let a = join(&lab, &b, "a", "member").await;
    let c = join(&lab, &b, "c", "admin").await;
    let d = join(&lab, &c, "d", "member").await;
    d.add_test_agent("probe", &[], &["--stdio"]).await;
    eventually("a sees d:probe", async || {
        let agents = a.dawn(&["agent", "list"]).await.success().json();
        let agents = agents["agents"].as_array().cloned().unwrap_or_default();
        agents
            .iter()
            .any(|agent| agent["address"] == "d:probe" && agent["state"] == "ready")
    })
    .await;
    let answer = found(&a, "probe", "d").await;
    assert_eq!(answer["found"][0]["address"], "d:probe", "{answer}");
}

async fn join(lab: &Lab, host: &Node, name: &str, role: &str) -> Node {
    let invite = host.dawn(&["invite", "--role", role]).await.success().json();
    let mut node = Node::inside(lab, name, Transport::Quic);
    let ticket = invite["ticket"].as_str().unwrap();
    let _joined = node.dawn(&["join", ticket, "--name", name]).await.success();
    node.up().await;
    node
}
