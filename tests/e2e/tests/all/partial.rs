//! A network in which each node has links with few of the others: what one says all hear, and all can call each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, which tells how long it took"
)]

use std::time::Instant;

use dawn_e2e::registry::agree;
use dawn_e2e::{Network, Node, Transport, eventually};

/// Nodes of the network.
const NODES: usize = 14;
/// Links that a node chooses, and links that it has at most while it gives some up for others.
const LINKS: (u64, u64) = (3, 9);
/// Up to three members all are linked with all; beyond that each chooses three, and has six. What nothing uses is closed
/// soon.
const CONFIGURED: [(&str, &str); 4] = [
    ("DAWN_GOSSIP__FULL", "3"),
    ("DAWN_GOSSIP__LINKS", "3"),
    ("DAWN_GOSSIP__MOST", "6"),
    ("DAWN_LIMITS__CONNECTION_IDLE", "5s"),
];

async fn links(node: &Node) -> u64 {
    node.metric("dawn_gossip_neighbours").await
}

/// The names of those that a node sees online and has no connection with.
async fn far(node: &Node) -> Vec<String> {
    let peers = node.get("/api/peers").await;
    let far = peers["peers"].as_array().expect("peers").iter();
    let far = far.filter(|peer| peer["online"] == true && peer["route"] == "none");
    let names = far.filter_map(|peer| peer["name"].as_str());
    names.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_few_links_each_all_know_the_same_notice_who_dies_and_call_whom_they_have_no_link_with() {
    let names: Vec<String> = (0..NODES).map(|at| format!("node-{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let mut network = Network::start_with(Transport::Tcp, &names, &CONFIGURED).await;
    println!("{NODES} nodes are up and see each other after {:.1?}", begun.elapsed());
    let nodes = &network.nodes;
    let took = agree(&nodes.iter().collect::<Vec<_>>()).await;
    println!("and agree {took:.1?} later");
    for node in nodes {
        let what = format!("{} has some links, and not all", node.name);
        eventually(&what, async || (LINKS.0..=LINKS.1).contains(&links(node).await)).await;
    }
    let told = nodes[0].dawn(&["netcheck"]).await.success().json();
    assert_eq!(told["gossip"]["members"], NODES, "{told}");

    // A connection that nothing uses is closed, and a call makes one anew.
    let mut callee = String::new();
    eventually("somebody is there without a connection", async || {
        let far = far(&nodes[0]).await;
        callee = far.first().cloned().unwrap_or_default();
        !callee.is_empty()
    })
    .await;
    let at = nodes.iter().find(|node| node.name == callee).expect("one of them");
    let begun = Instant::now();
    at.add_test_agent("probe", &[], &["--stdio"]).await;
    let address = format!("{callee}:probe");
    for node in nodes {
        node.sees(&address).await;
    }
    println!(
        "an agent is known everywhere {:.1?} after it was added",
        begun.elapsed()
    );
    let called = nodes[0].dawn(&["call", &address, "echo", "text=far"]).await.success();
    assert_eq!(called.json()["result"]["content"][0]["text"], "far");

    // Who goes is told, and who dies is noticed, everywhere.
    let mut gone = network.nodes.pop().expect("a node");
    assert_eq!(gone.down().await, 0);
    for node in &network.nodes {
        node.sees_online(&gone.name, false).await;
    }
    let mut dead = network.nodes.pop().expect("a node");
    dead.kill().await;
    let begun = Instant::now();
    for node in &network.nodes {
        node.sees_online(&dead.name, false).await;
    }
    println!("that one is dead is known everywhere after {:.1?}", begun.elapsed());
    dead.up().await;
    for node in &network.nodes {
        node.sees_online(&dead.name, true).await;
        dead.sees_online(&node.name, true).await;
    }
    for node in &network.nodes {
        let lied = node.metric("dawn_registry_refused_total{code=\"lied\"}").await;
        assert_eq!(lied, 0, "{}", node.name);
    }
}
