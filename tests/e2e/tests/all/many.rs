//! Many nodes on one machine: what all of them know becomes the same, whatever happens to some.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, which tells how long it took"
)]

use std::collections::BTreeSet;
use std::time::Instant;

use dawn_e2e::registry::agree;
use dawn_e2e::{Network, Node, Transport, eventually};
use futures::future::join_all;

/// Nodes of the network.
const NODES: usize = 25;
/// Of these are killed.
const KILLED: usize = 8;
/// Of these stand still for a while.
const STOPPED: usize = 5;
/// Nodes that join, or start, at once.
const AT_ONCE: usize = 4;

/// Waits until each of `nodes` sees exactly the nodes called `there` online, beside itself.
async fn see_online(nodes: &[&Node], there: &[&Node]) {
    let names: BTreeSet<&str> = there.iter().map(|node| node.name.as_str()).collect();
    for node in nodes {
        eventually(
            &format!("{} sees {} nodes online", node.name, names.len()),
            async || {
                let peers = node.get("/api/peers").await;
                let peers = peers["peers"].as_array().expect("peers");
                let online = peers.iter().filter(|peer| peer["online"] == true);
                let online: BTreeSet<&str> = online.filter_map(|peer| peer["name"].as_str()).collect();
                online == names
            },
        )
        .await;
    }
}

/// Shares an agent that nobody can reach: what the registry says of it is what matters.
async fn share(node: &Node, agent: &str) {
    let request = dawn_e2e::http()
        .post(format!("{}/api/agents", node.api()))
        .bearer_auth(node.token())
        .header("content-type", "application/json")
        .body(format!(r#"{{"name":"{agent}","url":"http://127.0.0.1:9/mcp"}}"#));
    let status = request.send().await.expect("answered").status();
    assert!(status.is_success(), "{status}");
}

fn all(nodes: &[Node]) -> Vec<&Node> {
    nodes.iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_five_nodes_agree_after_their_start_after_a_third_was_killed_and_after_some_stood_still() {
    let begun = Instant::now();
    let mut network = Network::start(Transport::Tcp, &["home"]).await;
    let uses = NODES.to_string();
    let ticket = &network.ticket(&["--uses", &uses]).await;
    let mut later: Vec<Node> = (1..NODES)
        .map(|at| Node::new(&format!("node-{at}"), Transport::Tcp))
        .collect();
    for some in later.chunks_mut(AT_ONCE) {
        join_all(some.iter_mut().map(async |node| {
            let name = node.name.clone();
            let _joined = node.dawn(&["join", ticket, "--name", &name]).await.success();
            node.up().await;
        }))
        .await;
    }
    network.nodes.extend(later);
    let nodes = &mut network.nodes;
    println!("{NODES} nodes are up after {:.1?}", begun.elapsed());

    let took = agree(&all(nodes)).await;
    println!("and agree {took:.1?} later");
    see_online(&all(nodes), &all(nodes)).await;

    // A third dies, the owner of the network among them; the rest goes on, and changes.
    let begun = Instant::now();
    for node in &mut nodes[..KILLED] {
        node.kill().await;
    }
    let alive = &nodes[KILLED..];
    see_online(&all(alive), &all(alive)).await;
    println!("that {KILLED} are dead is known after {:.1?}", begun.elapsed());
    for node in &alive[..3] {
        share(node, "meanwhile").await;
    }
    let took = agree(&all(alive)).await;
    println!("what changed meanwhile is known to the rest after {took:.1?}");
    let begun = Instant::now();
    for some in nodes[..KILLED].chunks_mut(AT_ONCE) {
        join_all(some.iter_mut().map(Node::up)).await;
    }
    agree(&all(nodes)).await;
    see_online(&all(nodes), &all(nodes)).await;
    println!("the dead are back and know it after {:.1?}", begun.elapsed());

    // Some stand still, without an end of their connections.
    let begun = Instant::now();
    let (still, moving) = nodes.split_at(STOPPED);
    still.iter().for_each(Node::pause);
    see_online(&all(moving), &all(moving)).await;
    println!("that {STOPPED} stand still is known after {:.1?}", begun.elapsed());
    for node in &moving[..3] {
        share(node, "while-they-stood").await;
    }
    let took = agree(&all(moving)).await;
    println!("what changed meanwhile is known to the rest after {took:.1?}");
    let begun = Instant::now();
    still.iter().for_each(Node::go_on);
    agree(&all(nodes)).await;
    see_online(&all(nodes), &all(nodes)).await;
    println!("all move and agree again after {:.1?}", begun.elapsed());
    for node in nodes.iter() {
        let refused = node.metrics().await;
        let lied = refused.get("dawn_registry_refused_total{code=\"lied\"}");
        assert!(lied.is_none_or(|lied| *lied == 0), "{}: {refused:?}", node.name);
    }
}
