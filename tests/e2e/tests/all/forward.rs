//! Forwarded routes between real processes in network namespaces that are really apart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which tell how long a pause was"
)]

use std::time::{Duration, Instant};

use dawn_e2e::lab::in_memory;
use dawn_e2e::{Lab, Node, Stdio, Transport, eventually};
use serde_json::{Value, json};

/// The first node of a network in a lab.
async fn first(lab: &Lab, name: &str, transport: Transport) -> Node {
    let mut node = Node::inside(lab, name, transport);
    let _made = node.dawn(&["init", "--name", name]).await.success();
    node.up().await;
    node
}

/// Lets a node of a lab join, by an invite of `host`.
async fn join(lab: &Lab, host: &Node, name: &str, transport: Transport, role: &str) -> Node {
    let invite = host.dawn(&["invite", "--role", role]).await.success().json();
    let mut node = Node::inside(lab, name, transport);
    let ticket = invite["ticket"].as_str().unwrap();
    let _joined = node.dawn(&["join", ticket, "--name", name]).await.success();
    node.up().await;
    node
}

/// What a node says of another in `dawn peers`.
async fn peer(node: &Node, name: &str) -> Value {
    let peers = node.dawn(&["peers"]).await.success().json();
    let peers = peers["peers"].as_array().cloned().unwrap_or_default();
    peers
        .into_iter()
        .find(|peer| peer["name"] == name)
        .unwrap_or(Value::Null)
}

/// The names of the members in between.
fn via(peer: &Value) -> Vec<&str> {
    let via = peer["via"].as_array().into_iter().flatten();
    via.filter_map(|via| via["name"].as_str()).collect()
}

async fn sees(node: &Node, address: &str) {
    eventually(&format!("{} sees {address}", node.name), async || {
        let agents = node.dawn(&["agent", "list"]).await.success().json();
        let agents = agents["agents"].as_array().cloned().unwrap_or_default();
        agents
            .iter()
            .any(|agent| agent["address"] == address && agent["state"] == "ready")
    })
    .await;
}

/// a – b – c: a and c have no network in common. c hosts an agent.
async fn chain(lab: &Lab, transport: Transport) -> [Node; 3] {
    lab.cable(1, "a", "b");
    lab.cable(2, "b", "c");
    let b = first(lab, "b", transport).await;
    let a = join(lab, &b, "a", transport, "member").await;
    let c = join(lab, &b, "c", transport, "member").await;
    c.add_test_agent("probe", &[], &["--stdio"]).await;
    sees(&a, "c:probe").await;
    [a, b, c]
}

async fn echo(node: &Node, agent: &str, text: &str) -> Value {
    let text = format!("text={text}");
    let called = node.dawn(&["call", agent, "echo", &text]).await.success().json();
    called["result"]["content"][0]["text"].clone()
}

async fn calls_over(transport: Transport) {
    let Some(lab) = Lab::open(&["a", "b", "c"]) else { return };
    let [a, b, c] = chain(&lab, transport).await;
    let reached = lab.command("a", "ping").args(["-c1", "-W1", "10.98.2.2"]).output();
    assert!(
        reached.is_ok_and(|ping| !ping.status.success()),
        "a has no way to c of its own"
    );
    assert_eq!(echo(&a, "c:probe", "over b").await, "over b");
    let known = peer(&a, "c").await;
    assert_eq!((known["route"].as_str(), via(&known)), (Some("forwarded"), vec!["b"]));
    assert_eq!(
        (known["online"].as_bool(), known["address"].as_str()),
        (Some(true), None)
    );
    let known = peer(&c, "a").await;
    assert_eq!((known["route"].as_str(), via(&known)), (Some("forwarded"), vec!["b"]));
    assert_eq!(peer(&b, "c").await["route"], "direct");
    let pinged = a.dawn(&["ping", "c"]).await.success().json();
    assert_eq!((pinged["route"].as_str(), via(&pinged)), (Some("forwarded"), vec!["b"]));
    let words = a.words(&["ping", "c"]).await.success();
    assert!(words.stdout.contains("forwarded via b"), "{words:?}");
    let listed = a.words(&["peers"]).await.success();
    assert!(listed.stdout.contains("forwarded via b"), "{listed:?}");
    // Back over the same tunnel.
    a.add_test_agent("back", &[], &["--stdio"]).await;
    sees(&c, "a:back").await;
    assert_eq!(echo(&c, "a:back", "and back").await, "and back");
}

#[tokio::test]
async fn a_call_crosses_a_member_in_between_over_quic() {
    calls_over(Transport::Quic).await;
}

#[tokio::test]
async fn a_call_crosses_a_member_in_between_over_tcp() {
    calls_over(Transport::Tcp).await;
}

#[tokio::test]
async fn neither_the_wires_nor_the_one_in_between_hold_anything_of_a_call() {
    const TOOL: &str = "test_simple_text";
    const RESULT: &str = "This is a simple text response for testing.";
    let Some(lab) = Lab::open(&["a", "b", "c"]) else { return };
    let [a, b, _c] = chain(&lab, Transport::Tcp).await;
    let wires = lab.capture("b");
    let argument = format!("secret-{:032x}", rand::random::<u128>());
    for _ in 0..5 {
        assert_eq!(echo(&a, "c:probe", &argument).await, argument);
        let called = a.dawn(&["call", "c:probe", TOOL]).await.success().json();
        assert_eq!(called["result"]["content"][0]["text"], RESULT);
    }
    assert!(wires.length() > 10_000, "{} bytes were captured", wires.length());
    for secret in [argument.as_str(), TOOL, RESULT, "tools/call"] {
        assert!(!wires.holds(secret.as_bytes()), "{secret:?} went over a wire");
    }
    // The names of tools are in every member's directory: of these, the bytes that are carried are looked at in the tests
    // of the mesh.
    for secret in [argument.as_str(), RESULT] {
        assert!(
            !in_memory(b.pid(), secret.as_bytes()),
            "{secret:?} is in the memory of b"
        );
    }
    // Both would have found it: what goes over the wire in clear, and what b handles of its own.
    let clear = format!("clear-{argument}");
    let said = lab
        .command("a", "bash")
        .args(["-c", &format!("echo {clear} > /dev/udp/10.98.1.2/9")])
        .status();
    assert!(said.unwrap().success());
    eventually("the capture holds what is sent in clear", async || {
        wires.holds(clear.as_bytes())
    })
    .await;
    b.add_test_agent("own", &[], &["--stdio"]).await;
    sees(&a, "b:own").await;
    let own = format!("own-{:032x}", rand::random::<u128>());
    eventually("b's memory holds what it is asked itself", async || {
        assert_eq!(echo(&a, "b:own", &own).await, own.as_str());
        in_memory(b.pid(), own.as_bytes())
    })
    .await;
}

/// a reaches d over b or over c; the one that carries is killed while calls are under way.
async fn no_call_is_lost_over(transport: Transport) {
    let Some(lab) = Lab::open(&["a", "b", "c", "d"]) else {
        return;
    };
    lab.cable(1, "a", "b");
    lab.cable(2, "a", "c");
    lab.cable(3, "b", "d");
    lab.cable(4, "c", "d");
    let a = first(&lab, "a", transport).await;
    let mut b = join(&lab, &a, "b", transport, "admin").await;
    let mut c = join(&lab, &a, "c", transport, "member").await;
    let d = join(&lab, &b, "d", transport, "member").await;
    d.add_test_agent("probe", &[], &["--stdio"]).await;
    eventually("d has both its neighbours", async || {
        peer(&d, "b").await["route"] == "direct" && peer(&d, "c").await["route"] == "direct"
    })
    .await;
    sees(&a, "d:probe").await;
    let mut client = Stdio::start(&a, "d:probe").await;
    let slow = client.call("slow", json!({ "seconds": 4 })).await;
    for _ in 0..16 {
        let _asked = client.echo().await;
    }
    for _ in 0..200 {
        let (id, text) = client.answer().await;
        assert_eq!(text, id.to_string());
        let _asked = client.echo().await;
    }
    let known = peer(&a, "d").await;
    let carries = via(&known)[0].to_owned();
    let between = if carries == "b" { &mut b } else { &mut c };
    between.kill().await;
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let mut slow_answered = false;
    for _ in 0..400 {
        let (id, text) = client.answer().await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if id == slow {
            assert_eq!(text, "finished");
            slow_answered = true;
        } else {
            assert_eq!(text, id.to_string());
            let _asked = client.echo().await;
        }
    }
    // What is left is answered as well, also what was asked long before.
    while client.is_waiting() {
        let (id, text) = client.answer().await;
        slow_answered |= id == slow && text == "finished";
    }
    assert!(slow_answered);
    let known = peer(&a, "d").await;
    assert_eq!(known["route"], "forwarded");
    assert_ne!(via(&known)[0], carries);
    println!(
        "{transport:?}: of {} calls none was lost; the longest pause was {longest:?}",
        client.asked()
    );
}

#[tokio::test]
async fn a_member_in_between_that_dies_costs_no_call_over_quic() {
    no_call_is_lost_over(Transport::Quic).await;
}

#[tokio::test]
async fn a_member_in_between_that_dies_costs_no_call_over_tcp() {
    no_call_is_lost_over(Transport::Tcp).await;
}

#[tokio::test]
async fn a_direct_route_takes_over_when_there_is_one() {
    let Some(lab) = Lab::open(&["a", "b", "c"]) else { return };
    let [a, _b, c] = chain(&lab, Transport::Quic).await;
    let mut client = Stdio::start(&a, "c:probe").await;
    let _asked = client.echo().await;
    assert_eq!(client.answer().await.1, "1");
    assert_eq!(peer(&a, "c").await["route"], "forwarded");
    lab.cable(3, "a", "c");
    // Whoever is first: a dial, or the probes that look for a hole and find none to be needed.
    let straight = async |from: &Node, to: &str| {
        ["direct", "punched"]
            .map(Value::from)
            .contains(&peer(from, to).await["route"])
    };
    eventually("a connection of the two", async || {
        straight(&a, "c").await && straight(&c, "a").await
    })
    .await;
    // The session that was open before goes on.
    let _asked = client.echo().await;
    assert_eq!(client.answer().await.1, "2");
    assert_eq!(echo(&a, "c:probe", "directly").await, "directly");
}

#[tokio::test]
async fn another_static_key_than_the_pinned_one_is_told_of_as_that() {
    let Some(lab) = Lab::open(&["a", "b", "c"]) else { return };
    let [mut a, _b, c] = chain(&lab, Transport::Quic).await;
    eventually("c is pinned with its static key", async || {
        a.dawn(&["keys", "pin", "c", "--static-key"]).await.code == 0
    })
    .await;
    assert_eq!(echo(&a, "c:probe", "as pinned").await, "as pinned");
    let _new = c.dawn(&["keys", "rotate", "c"]).await.success();
    eventually("a hears of the new key", async || {
        let listed = a.dawn(&["keys"]).await.success().json();
        listed["pins"][0]["violation"]["code"] == "other_static_key"
    })
    .await;
    // The channel whose end has shown the pinned key goes on; a new one does not come to be.
    assert_eq!(echo(&a, "c:probe", "goes on").await, "goes on");
    assert_eq!(a.down().await, 0);
    a.up().await;
    eventually("a knows c", async || peer(&a, "c").await["online"] == true).await;
    for command in [&["call", "c:probe", "echo", "text=x"][..], &["ping", "c"]] {
        let refused = a.dawn(command).await;
        assert_eq!(refused.json()["error"]["code"], "pin_mismatch", "{refused:?}");
    }
    let _pinned = a.dawn(&["keys", "pin", "c", "--static-key"]).await.success();
    eventually("c is reached again", async || {
        a.dawn(&["call", "c:probe", "echo", "text=x"]).await.code == 0
    })
    .await;
}

#[tokio::test]
async fn a_member_that_does_not_carry_carries_nothing() {
    let Some(lab) = Lab::open(&["a", "b", "c"]) else { return };
    let [a, mut b, c] = chain(&lab, Transport::Tcp).await;
    assert_eq!(echo(&a, "c:probe", "it does").await, "it does");
    let _ended = b.down().await;
    std::fs::write(b.home().join("config.toml"), "[forwarding]\ncarry = false\n").unwrap();
    b.up().await;
    eventually("b is back", async || {
        peer(&a, "b").await["route"] == "direct" && peer(&c, "b").await["route"] == "direct"
    })
    .await;
    eventually("the tunnel is over", async || peer(&a, "c").await["route"] == "none").await;
    let called = a.dawn(&["call", "c:probe", "echo", "text=x"]).await;
    assert_ne!(called.code, 0, "{called:?}");
    // b itself is reached, and reaches both.
    assert_eq!(echo(&b, "c:probe", "of its own").await, "of its own");
}
