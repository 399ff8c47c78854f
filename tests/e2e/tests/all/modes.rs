//! The three modes, and the way from one to another, with real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which tell how many calls there were"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dawn_e2e::lab::in_memory;
use dawn_e2e::sockets::connected;
use dawn_e2e::{Network, Node, PairLoad, Transport, eventually};
use serde_json::{Value, json};

const NAMES: [&str; 5] = ["owner", "a", "b", "c", "server"];
const SERVER: usize = 4;
/// So that what is quiet does not keep a connection for long.
const QUIET: [(&str, &str); 1] = [("DAWN_NETWORK__DRAIN_QUIET", "2s")];

/// Nodes with an agent `probe` each, of which all know.
async fn network(names: &[&str]) -> Network {
    let network = Network::start_with(Transport::Tcp, names, &QUIET).await;
    for node in &network.nodes {
        node.add_test_agent("probe", &["--isolation", "shared"], &["--stdio"])
            .await;
    }
    for node in &network.nodes {
        for other in names {
            node.sees(&format!("{other}:probe")).await;
        }
    }
    network
}

async fn migrate(owner: &Node, to: &str, options: &[&str]) -> Value {
    let mut args = vec!["migrate", "plan", "--to", to];
    args.extend(options);
    let planned = owner.dawn(&args).await.success().json();
    assert_eq!(planned["state"], "planned", "{planned}");
    let applied = owner.dawn(&["migrate", "apply"]).await.success().json();
    assert_eq!(applied["state"], "done", "{applied}");
    applied
}

/// The names of the nodes in the steps of a migration.
fn names(migration: &Value) -> Vec<&str> {
    let steps = migration["steps"].as_array().unwrap();
    steps
        .iter()
        .map(|step| step["node"]["name"].as_str().unwrap())
        .collect()
}

async fn mode(node: &Node) -> String {
    let status = node.get("/api/status").await;
    status["mode"]["mode"].as_str().unwrap().to_owned()
}

async fn echo(node: &Node, to: &str, text: &str) -> Value {
    let reply = node
        .modern(Some(&format!("{to}:probe")))
        .call(1, "echo", json!({ "text": text }))
        .await;
    reply.body
}

/// Waits until all but the server have connections with the server alone, as they say and as the kernel says.
async fn is_a_star(network: &Network) {
    let pids: Vec<u32> = network.nodes.iter().map(Node::pid).collect();
    let star: BTreeSet<(usize, usize)> = (0..SERVER).map(|at| (at, SERVER)).collect();
    eventually("nobody has a connection but with the host", async || {
        connected(&pids) == star
    })
    .await;
    for node in &network.nodes[..SERVER] {
        eventually(&format!("{} says so, too", node.name), async || {
            let peers = node.get("/api/peers").await;
            let peers = peers["peers"].as_array().cloned().unwrap_or_default();
            let direct = peers.iter().filter(|peer| peer["route"] == "direct");
            direct
                .map(|peer| peer["name"].as_str().unwrap_or_default().to_owned())
                .eq(["server".to_owned()])
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_go_from_mode_to_mode_and_back_under_load_and_no_call_fails() {
    let network = network(&NAMES).await;
    let owner = &network.nodes[0];
    let load = PairLoad::start(&network.nodes);
    let more = async |what: &str, wanted: u64| {
        let before = load.calls();
        eventually(what, async || load.calls() >= before + wanted).await;
    };
    more("calls in the decentralized network", 200).await;
    let applied = migrate(owner, "hybrid", &["--host", "server"]).await;
    assert_eq!(names(&applied), ["server", "a", "b", "c", "owner"]);
    more("calls in the hybrid network", 200).await;
    let applied = migrate(owner, "centralized", &["--host", "server"]).await;
    assert_eq!(names(&applied), ["server", "a", "b", "c", "owner"]);
    more("calls in the centralized network", 200).await;
    is_a_star(&network).await;
    for node in &network.nodes {
        assert_eq!(mode(node).await, "centralized");
    }
    let words = owner.words(&["status"]).await.success();
    assert!(words.stdout.contains("centralized, through server"), "{words:?}");
    let words = owner.words(&["peers"]).await.success();
    assert!(words.stdout.contains("forwarded via server"), "{words:?}");
    let doctor = owner.words(&["doctor"]).await;
    assert!(doctor.stdout.contains("through server"), "{doctor:?}");
    more("more calls in the centralized network", 200).await;
    let applied = migrate(owner, "decentralized", &[]).await;
    assert_eq!(names(&applied), ["a", "b", "c", "owner", "server"]);
    more("calls in the decentralized network again", 200).await;
    eventually("they talk with each other again", async || {
        let pids: Vec<u32> = network.nodes.iter().map(Node::pid).collect();
        connected(&pids).len() == 10
    })
    .await;
    more("calls over connections of their own", 200).await;
    let (calls, sessions, failed) = load.stop().await;
    println!(
        "{calls} calls in 20 pairs, {sessions} sessions, {} failed",
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "{} of {calls} calls failed, such as: {:?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_of_a_centralized_network_holds_nothing_of_what_it_carries() {
    let network = network(&["owner", "a", "server"]).await;
    let [owner, a, server] = &network.nodes[..] else {
        panic!("three")
    };
    migrate(owner, "centralized", &["--host", "server"]).await;
    eventually("it goes through the server", async || {
        assert_eq!(echo(owner, "a", "hello").await["result"]["content"][0]["text"], "hello");
        owner.peer("a").await["route"] == "forwarded"
    })
    .await;
    let secret = format!("secret-{:032x}", rand::random::<u128>());
    for _ in 0..5 {
        assert_eq!(
            echo(owner, "a", &secret).await["result"]["content"][0]["text"],
            secret.as_str()
        );
    }
    assert!(
        !in_memory(server.pid(), secret.as_bytes()),
        "the host can read what it carries"
    );
    // It would have been found.
    assert!(in_memory(owner.pid(), secret.as_bytes()) || in_memory(a.pid(), secret.as_bytes()));
    // Who is no member yet comes to the host, and not to others.
    let refused = owner.dawn(&["invite"]).await;
    assert_eq!(refused.json()["error"]["code"], "behind_host", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hybrid_network_bridges_nodes_of_both_kinds_and_a_rollback_ends_that() {
    let network = network(&["owner", "a", "b", "server"]).await;
    let [owner, a, b, server] = &network.nodes[..] else {
        panic!("four")
    };
    migrate(owner, "hybrid", &["--host", "server"]).await;
    let applied = migrate(owner, "centralized", &["--host", "server", "--nodes", "b"]).await;
    assert_eq!(names(&applied), ["server", "b"]);
    for (node, wanted) in [
        (owner, "hybrid"),
        (a, "hybrid"),
        (b, "centralized"),
        (server, "centralized"),
    ] {
        assert_eq!(mode(node).await, wanted, "{}", node.name);
    }
    let pids: Vec<u32> = network.nodes.iter().map(Node::pid).collect();
    let bridged: BTreeSet<(usize, usize)> = [(0, 1), (0, 3), (1, 3), (2, 3)].into();
    eventually(
        "b talks with the server alone, the others with each other",
        async || connected(&pids) == bridged,
    )
    .await;
    // Each sees and uses the agents of both kinds.
    for from in &network.nodes {
        for to in network.nodes.iter().filter(|to| to.name != from.name) {
            from.sees(&format!("{}:probe", to.name)).await;
            let answer = echo(from, &to.name, "bridged").await;
            assert_eq!(
                answer["result"]["content"][0]["text"], "bridged",
                "{} to {}",
                from.name, to.name
            );
        }
    }
    // An agent that is new is seen across the bridge, too.
    b.add_test_agent("new", &[], &["--stdio"]).await;
    a.sees("b:new").await;
    eventually("a knows in which mode b is", async || {
        let peer = a.peer("b").await;
        peer["mode"] == "centralized" && peer["host"]["name"] == "server"
    })
    .await;
    let back = owner.dawn(&["migrate", "rollback"]).await.success().json();
    assert_eq!(back["state"], "rolled_back", "{back}");
    assert_eq!(mode(b).await, "hybrid");
    assert_eq!(echo(a, "b", "direct").await["result"]["content"][0]["text"], "direct");
    eventually("b talks with the others itself", async || connected(&pids).len() == 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_orders_a_migration_is_killed_in_the_middle_of_it_and_goes_on_when_it_is_back() {
    let mut network = network(&["owner", "a", "b", "server"]).await;
    let planned = network.nodes[0]
        .dawn(&["migrate", "plan", "--to", "centralized", "--host", "server"])
        .await
        .success()
        .json();
    // One stands still, so that the migration is in the middle for as long as it does.
    network.nodes[2].pause();
    let begun = network.nodes[0]
        .dawn(&["migrate", "apply", "--no-wait"])
        .await
        .success()
        .json();
    assert_eq!(
        (&begun["id"], begun["state"].as_str()),
        (&planned["id"], Some("running"))
    );
    let state = async |node: &Node, name: &str| {
        let status = node.get("/api/migration").await;
        let steps = status["migration"]["steps"].as_array().cloned().unwrap_or_default();
        let step = steps
            .into_iter()
            .find(|step| step["node"]["name"] == name)
            .unwrap_or_default();
        step["state"].as_str().unwrap_or_default().to_owned()
    };
    eventually("the first have taken their place", async || {
        let owner = &network.nodes[0];
        state(owner, "a").await == "done" && ["sent", "away"].contains(&state(owner, "b").await.as_str())
    })
    .await;
    network.nodes[0].kill().await;
    network.nodes[2].go_on();
    network.nodes[0].up().await;
    let owner = &network.nodes[0];
    eventually("it has gone on by itself", async || {
        owner.get("/api/migration").await["migration"]["state"] == "done"
    })
    .await;
    for node in &network.nodes {
        assert_eq!(mode(node).await, "centralized", "{}", node.name);
    }
    // Where it began is known after the crash, too.
    let back = owner.dawn(&["migrate", "rollback"]).await.success().json();
    assert_eq!(back["state"], "rolled_back", "{back}");
    for node in &network.nodes {
        assert_eq!(mode(node).await, "decentralized", "{}", node.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_away_gets_its_order_when_it_is_back_and_a_host_that_is_not_there_is_no_host() {
    let mut network = network(&["owner", "a", "b", "server"]).await;
    assert_eq!(network.nodes[2].down().await, 0);
    network.nodes[0].sees_online("b", false).await;
    let planned = network.nodes[0]
        .words(&["migrate", "plan", "--to", "centralized", "--host", "server"])
        .await
        .success();
    assert!(planned.stdout.contains("when they are back: b."), "{planned:?}");
    let begun = network.nodes[0].dawn(&["migrate", "apply"]).await.success().json();
    assert_eq!(
        (begun["state"].as_str(), &begun["counts"]["away"]),
        (Some("running"), &json!(1)),
        "{begun}"
    );
    network.nodes[2].up().await;
    eventually("it is told", async || {
        network.nodes[0].get("/api/migration").await["migration"]["state"] == "done"
    })
    .await;
    assert_eq!(mode(&network.nodes[2]).await, "centralized");
    // It is so after a restart.
    assert_eq!(network.nodes[2].down().await, 0);
    network.nodes[2].up().await;
    assert_eq!(mode(&network.nodes[2]).await, "centralized");
    eventually("it is reached through the server", async || {
        echo(&network.nodes[1], "b", "again").await["result"]["content"][0]["text"] == "again"
    })
    .await;
    // A host that is away is found out before anybody lets go of anything.
    let owner = &network.nodes[0];
    migrate(owner, "decentralized", &[]).await;
    network.nodes[1].sees_online("b", true).await;
    assert_eq!(network.nodes[2].down().await, 0);
    let owner = &network.nodes[0];
    owner.sees_online("b", false).await;
    let _planned = owner
        .dawn(&["migrate", "plan", "--to", "centralized", "--host", "b", "--nodes", "a"])
        .await
        .success();
    let halted = owner.dawn(&["migrate", "apply"]).await;
    let halted = halted.json();
    assert_eq!(halted["state"], "halted", "{halted}");
    let step = &halted["steps"][1];
    assert_eq!(
        (step["node"]["name"].as_str(), step["why"]["code"].as_str()),
        (Some("a"), Some("host_unreachable"))
    );
    assert_eq!(mode(&network.nodes[1]).await, "decentralized");
    let _back = network.nodes[0].dawn(&["migrate", "rollback"]).await.success();
    // Nobody but an admin orders.
    let refused = network.nodes[1]
        .dawn(&["migrate", "plan", "--to", "decentralized"])
        .await;
    assert_eq!(refused.json()["error"]["code"], "not_allowed", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_away_is_in_the_way_of_no_other_plan_and_who_was_put_out_is_left_out() {
    let mut network = network(&["owner", "a", "b", "server"]).await;
    let state = async |owner: &Node, state: &str, of_b: &str| {
        eventually(&format!("it is {state}, and b {of_b}"), async || {
            let migration = owner.get("/api/migration").await["migration"].take();
            let steps = migration["steps"].as_array().unwrap();
            let b = steps.iter().find(|step| step["node"]["name"] == "b").unwrap();
            migration["state"] == state && b["state"] == of_b
        })
        .await;
    };
    assert_eq!(network.nodes[2].down().await, 0);
    let owner = &network.nodes[0];
    owner.sees_online("b", false).await;
    let _planned = owner
        .dawn(&["migrate", "plan", "--to", "hybrid", "--host", "server"])
        .await
        .success();
    let _begun = owner.dawn(&["migrate", "apply"]).await.success();
    state(owner, "running", "away").await;
    // From there on: b has not heard of the one before, and never does.
    let planned = owner
        .words(&["migrate", "plan", "--to", "centralized", "--host", "server"])
        .await
        .success();
    for part in [
        "which waited for b",
        "when they are back: b.",
        "WARNING: nobody can join",
    ] {
        assert!(planned.stdout.contains(part), "{part}: {planned:?}");
    }
    let _begun = owner.dawn(&["migrate", "apply"]).await.success();
    state(owner, "running", "away").await;
    network.nodes[2].up().await;
    let owner = &network.nodes[0];
    state(owner, "done", "done").await;
    assert_eq!(mode(&network.nodes[2]).await, "centralized");
    // How long orders count can be said anew, and a later apply gives new ones.
    assert_eq!(network.nodes[2].down().await, 0);
    let owner = &network.nodes[0];
    owner.sees_online("b", false).await;
    let _planned = owner
        .dawn(&["migrate", "plan", "--to", "decentralized"])
        .await
        .success();
    let _begun = owner.dawn(&["migrate", "apply"]).await.success();
    state(owner, "running", "away").await;
    let _same = owner.dawn(&["migrate", "apply", "--expires", "1s"]).await.success();
    state(owner, "done", "expired").await;
    let _again = owner.dawn(&["migrate", "apply"]).await.success();
    state(owner, "running", "away").await;
    let _out = owner.dawn(&["peers", "revoke", "b"]).await.success();
    state(owner, "done", "skipped").await;
    let back = owner.dawn(&["migrate", "rollback"]).await.success().json();
    assert_eq!(back["state"], "rolled_back", "{back}");
    let over = owner.dawn(&["migrate", "apply"]).await;
    assert_eq!(over.json()["error"]["code"], "migration_over", "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_host_is_lost_for_good_each_node_is_told_so_and_they_find_each_other_again() {
    let mut network = network(&["owner", "a", "b", "server"]).await;
    migrate(&network.nodes[0], "centralized", &["--host", "server"]).await;
    let reaches = async |from: &Node, to: &str| {
        eventually(&format!("{} reaches {to}", from.name), async || {
            echo(from, to, "here").await["result"]["content"][0]["text"] == "here"
        })
        .await;
    };
    reaches(&network.nodes[0], "a").await;
    // What they have of each other is on the disk, too.
    assert_eq!(network.nodes[1].down().await, 0);
    network.nodes[1].up().await;
    reaches(&network.nodes[1], "owner").await;
    network.nodes[3].kill().await;
    for node in &network.nodes[..2] {
        let now = node
            .words(&["migrate", "here", "--to", "decentralized"])
            .await
            .success();
        assert!(now.stdout.contains("looks for the others where they were"), "{now:?}");
    }
    let [owner, a] = [&network.nodes[0], &network.nodes[1]];
    reaches(owner, "a").await;
    reaches(a, "owner").await;
    eventually("over a connection of their own", async || {
        owner.peer("a").await["route"] == "direct" && owner.peer("a").await["mode"] == "decentralized"
    })
    .await;
    // One that was not told is behind the lost host still, and is left there.
    assert_eq!(
        echo(owner, "b", "lost").await["error"]["data"]["dawn"]["code"],
        "host_away"
    );
    // Another host instead.
    assert_eq!(network.nodes[2].down().await, 0);
    network.nodes[2].up().await;
    let b = &network.nodes[2];
    let _now = b
        .dawn(&["migrate", "here", "--to", "centralized", "--host", "a"])
        .await
        .success();
    let owner = &network.nodes[0];
    reaches(b, "owner").await;
    reaches(owner, "b").await;
    eventually("through it", async || owner.peer("b").await["host"]["name"] == "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_host_dies_calls_fail_within_seconds_by_its_name_and_work_again_when_it_is_back() {
    let mut network = network(&["owner", "a", "server"]).await;
    migrate(&network.nodes[0], "centralized", &["--host", "server"]).await;
    eventually("it goes through the server", async || {
        let answer = echo(&network.nodes[0], "a", "hello").await;
        answer["result"].is_object() && network.nodes[0].peer("a").await["route"] == "forwarded"
    })
    .await;
    network.nodes[2].kill().await;
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    eventually("calls fail by the host's name", async || {
        let asked = Instant::now();
        let answer = echo(&network.nodes[0], "a", "lost").await;
        longest = longest.max(asked.elapsed());
        answer["error"]["data"]["dawn"]["code"] == "host_away"
    })
    .await;
    println!("typed after {:?}; the longest call took {longest:?}", begun.elapsed());
    assert!(longest < Duration::from_secs(30), "{longest:?}");
    let called = network.nodes[0].dawn(&["call", "a:probe", "echo", "text=x"]).await;
    assert_eq!(called.json()["error"]["code"], "host_away", "{called:?}");
    let called = network.nodes[0].words(&["call", "a:probe", "echo", "text=x"]).await;
    assert!(called.stderr.contains("through its host server alone"), "{called:?}");
    assert_eq!(called.code, 5, "{called:?}");
    eventually("nobody is said to be offline for that", async || {
        let peers = network.nodes[0].words(&["peers"]).await;
        peers.stdout.contains("out of reach")
    })
    .await;
    let doctor = network.nodes[0].words(&["doctor"]).await;
    assert!(doctor.stdout.contains("server, which is away"), "{doctor:?}");
    let peers = network.nodes[0].get("/api/peers").await;
    assert_eq!(peers["lost_host"]["name"], "server", "{peers}");
    assert_eq!(network.nodes[0].get("/api/status").await["mode"]["lost"], true);
    network.nodes[2].up().await;
    let begun = Instant::now();
    eventually("calls work again", async || {
        echo(&network.nodes[0], "a", "back").await["result"]["content"][0]["text"] == "back"
    })
    .await;
    println!("back after {:?}", begun.elapsed());
    eventually("the host is not said to be lost any more", async || {
        let (peers, status) = (
            network.nodes[0].get("/api/peers").await,
            network.nodes[0].get("/api/status").await,
        );
        peers["lost_host"].is_null() && status["mode"]["lost"] == false
    })
    .await;
    // Who may invite is said by the node, not worked out by who asks it.
    assert_eq!(network.nodes[0].get("/api/peers").await["may_invite"], true);
    assert_eq!(network.nodes[1].get("/api/peers").await["may_invite"], false);
}
