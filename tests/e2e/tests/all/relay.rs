//! Nodes that cannot dial each other reach each other through `dawn relay`: real processes in network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which tell how long a pause was"
)]

use std::time::Instant;

use dawn_e2e::{Lab, Load, Node, Output, Relay, Transport, eventually};

/// The relays, and the last byte but one of their addresses.
const RELAYS: [(&str, u8); 2] = [("r", 1), ("s", 2)];

/// a and c, each with a cable to every relay and none to each other. a is the network's owner, and not up yet.
struct Apart {
    // End before the namespaces do.
    a: Node,
    c: Node,
    relays: Vec<Relay>,
    network: String,
    _lab: Lab,
}

impl Apart {
    /// So many relays, with these lines in their files after what lets the network in.
    async fn new(count: usize, lines: &str) -> Option<Self> {
        let lab = Lab::open(&["a", "c", "r", "s"])?;
        for (relay, at) in RELAYS {
            let address = format!("10.99.{at}.1");
            let set = |space: &str, args: &[&str]| lab.ip(space, args).unwrap();
            set(relay, &["addr", "add", &address, "dev", "lo"]);
            for (near, number) in [("a", 2 * at - 1), ("c", 2 * at)] {
                lab.cable(number, near, relay);
                set(near, &["route", "add", &address, "via", &format!("10.98.{number}.2")]);
            }
        }
        lab.settle();
        let a = Node::inside(&lab, "a", Transport::Tcp);
        let made = a.dawn(&["init", "--name", "a"]).await.success().json();
        let network = made["network"]["id"].as_str().unwrap().to_owned();
        let lines = format!("networks = [\"{network}\"]\n{lines}");
        let mut relays = Vec::new();
        for (name, at) in RELAYS.into_iter().take(count) {
            let listen = ["/ip4/0.0.0.0/tcp/7440".to_owned()];
            let external = [format!("/ip4/10.99.{at}.1/tcp/7440")];
            relays.push(Relay::start(&lab, name, &listen, &external, &lines).await);
        }
        let addresses: Vec<String> = relays.iter().flat_map(Relay::addresses).collect();
        let a = a.relays(&addresses);
        let c = Node::inside(&lab, "c", Transport::Tcp).relays(&addresses);
        Some(Self {
            a,
            c,
            relays,
            network,
            _lab: lab,
        })
    }

    /// The same, with both up, everywhere reserved, and a that sees c's agent.
    async fn start(count: usize, lines: &str) -> Option<Self> {
        let mut apart = Self::new(count, lines).await?;
        apart.a.up().await;
        apart.a.reserves(count).await;
        apart.join().await;
        apart.c.up().await;
        apart.c.reserves(count).await;
        apart.c.add_test_agent("probe", &[], &["--stdio"]).await;
        apart.a.sees("c:probe").await;
        Some(apart)
    }

    /// Lets c join, through a relay.
    async fn join(&self) {
        let invite = self.a.dawn(&["invite"]).await.success().json();
        let ticket = invite["ticket"].as_str().unwrap();
        let _joined = self.c.dawn(&["join", ticket, "--name", "c"]).await.success();
    }

    async fn call(&self, text: &str) -> Output {
        self.a.dawn(&["call", "c:probe", "echo", &format!("text={text}")]).await
    }

    /// Has a text echoed by c's agent.
    async fn echoes(&self, text: &str) {
        let called = self.call(text).await.success().json();
        assert_eq!(called["result"]["content"][0]["text"], text);
    }

    /// The relay that carries a's connection to c.
    async fn used(&self) -> usize {
        let peer = self.a.peer("c").await;
        assert_eq!(peer["route"], "relayed", "{peer}");
        let via = &peer["via"][0]["id"];
        let at = self
            .relays
            .iter()
            .position(|relay| relay.peer() == via.as_str().unwrap());
        at.expect("one of the relays")
    }
}

#[tokio::test]
async fn a_node_joins_and_is_called_through_a_relay() {
    let Some(apart) = Apart::start(1, "").await else { return };
    apart.echoes("through a relay").await;
    assert_eq!(apart.used().await, 0);
    let netcheck = apart.a.get("/api/netcheck").await;
    assert_eq!(netcheck["relays"][0]["state"], "reserved", "{netcheck}");
    // What c sees is the relay's address.
    let c = &netcheck["members"][0];
    assert_eq!(
        (&c["route"], &c["sees_us_at"]),
        (&"relayed".into(), &serde_json::Value::Null),
        "{netcheck}"
    );
    assert_eq!(c["via"][0]["id"], apart.relays[0].peer(), "{netcheck}");
    let relay = &apart.relays[0];
    assert!(relay.metric("circuits").await >= 1);
    assert!(relay.metric("carried_bytes_total").await > 0);
    let checked = relay.run("check").await.success().json();
    assert_eq!(checked["valid"], true);
}

#[tokio::test]
async fn of_a_relay_that_refuses_or_does_not_answer_it_is_said_and_why() {
    let Some(apart) = Apart::new(1, "").await else { return };
    let Apart {
        a, mut relays, _lab, ..
    } = apart;
    let mut a = a.env("DAWN_MESH__RELAY_TOKEN", "not-the-one");
    a.up().await;
    let state = async || a.get("/api/netcheck").await["relays"][0].clone();
    eventually("it is refused", async || state().await["state"] == "refused").await;
    let refused = state().await;
    assert_eq!(refused["reason"], "the token is not known here", "{refused}");
    assert_eq!(
        (&refused["id"], &refused["configured"]),
        (&relays[0].peer().into(), &true.into())
    );
    for command in ["netcheck", "doctor"] {
        let said = a.words(&[command]).await;
        let words = [&said.stdout[..], &said.stderr].concat();
        assert!(words.contains("refused: the token is not known here"), "{said:?}");
        assert!(words.contains("mesh.relay_token"), "{said:?}");
    }
    relays[0].kill().await;
    eventually("it does not answer", async || state().await["state"] == "no_answer").await;
    relays[0].up().await;
    eventually("it is refused again", async || state().await["state"] == "refused").await;
}

#[tokio::test]
async fn no_call_is_lost_when_the_relay_under_it_is_killed_and_there_is_another() {
    let Some(mut apart) = Apart::start(2, "").await else {
        return;
    };
    apart.echoes("first").await;
    let load = Load::start(&apart.a, "c:probe").await;
    let dead = apart.used().await;
    let before = load.longest_pause();
    let (killed, other) = (Instant::now(), 1 - dead);
    apart.relays[dead].kill().await;
    eventually("the other relay carries", async || {
        let peer = apart.a.peer("c").await;
        peer["route"] == "relayed" && peer["via"][0]["id"] == apart.relays[other].peer()
    })
    .await;
    let moved = killed.elapsed();
    let report = load.stop_after(40).await;
    println!(
        "{} calls, {} lost; the other relay carried after {:.2} s, the longest time without an answer {:.2} s ({:.2} s before)",
        report.calls,
        report.lost.len(),
        moved.as_secs_f64(),
        report.longest.as_secs_f64(),
        before.as_secs_f64(),
    );
    assert_eq!(report.lost, Vec::<String>::new());
    assert_eq!(apart.used().await, other);
}

#[tokio::test]
async fn no_call_is_lost_when_a_relay_drains_and_ends() {
    let Some(mut apart) = Apart::start(2, "").await else {
        return;
    };
    apart.echoes("first").await;
    let load = Load::start(&apart.a, "c:probe").await;
    let draining = apart.used().await;
    apart.relays[draining].terminate();
    // Nothing new is taken; what is carried has its time.
    apart.relays[draining].counts("ready", |ready| ready == 0).await;
    assert!(apart.relays[draining].metric("circuits").await >= 1);
    let code = apart.relays[draining].ended().await;
    let report = load.stop_after(40).await;
    println!(
        "{} calls, {} lost, the longest time without an answer {:.2} s",
        report.calls,
        report.lost.len(),
        report.longest.as_secs_f64()
    );
    assert_eq!((report.lost, code), (Vec::new(), 0));
    assert_eq!(apart.used().await, 1 - draining);
}

#[tokio::test]
async fn a_relay_that_was_killed_and_started_again_has_its_reservations_and_carries_again() {
    let Some(mut apart) = Apart::start(1, "").await else {
        return;
    };
    apart.echoes("first").await;
    apart.relays[0].kill().await;
    apart.a.reserves(0).await;
    apart.c.reserves(0).await;
    assert_ne!(apart.call("nobody carries").await.code, 0);
    let id = apart.relays[0].peer().to_owned();
    apart.relays[0].up().await;
    assert_eq!(apart.relays[0].peer(), id, "it has its key still");
    let up = Instant::now();
    apart.a.reserves(1).await;
    apart.c.reserves(1).await;
    let reserved = up.elapsed();
    eventually("calls are answered again", async || apart.call("again").await.code == 0).await;
    println!(
        "both have reserved {:.2} s after the relay is up again, and a call is answered after {:.2} s",
        reserved.as_secs_f64(),
        up.elapsed().as_secs_f64()
    );
}

/// What a's node does with a relay for which it has this token, or none but its membership.
async fn with_token(apart: &mut Apart, token: Option<&str>) {
    let a = std::mem::replace(&mut apart.a, Node::new("-", Transport::Tcp));
    apart.a = match token {
        Some(token) => a.env("DAWN_MESH__RELAY_TOKEN", token),
        None => a,
    };
    apart.a.up().await;
}

#[tokio::test]
async fn a_token_that_the_network_has_signed_lets_one_peer_reserve_and_no_other() {
    let Some(mut apart) = Apart::new(1, "").await else {
        return;
    };
    apart.a.up().await;
    let id = apart.a.ready["node"]["id"].as_str().unwrap().to_owned();
    let token = |peer: String| {
        let a = &apart.a;
        async move {
            let made = a.dawn(&["relay", "token", "--for", &peer, "--expires", "1h"]).await;
            made.success().json()
        }
    };
    let other = apart.relays[0].peer().to_owned();
    let (own, stolen) = (token(id).await, token(other).await);
    let _ended = apart.a.down().await;
    with_token(&mut apart, stolen["token"].as_str()).await;
    apart.relays[0].counts("refused_token", |count| count > 0).await;
    assert_eq!(apart.a.reservations().await, Vec::<String>::new());
    let _ended = apart.a.down().await;
    with_token(&mut apart, own["token"].as_str()).await;
    apart.a.reserves(1).await;
    // The operator takes back this one token: the reservation ends, and is not made again.
    let serial = own["serial"].as_str().unwrap();
    let refused = apart.relays[0].metric("refused_token").await;
    let lines = format!("networks = [\"{}\"]\nrefused_serials = [\"{serial}\"]\n", apart.network);
    apart.relays[0].reload(&lines).await;
    apart.a.reserves(0).await;
    apart.relays[0].counts("refused_token", |count| count > refused).await;
}

#[tokio::test]
async fn a_relay_without_a_network_takes_its_operators_token_and_no_membership() {
    let Some(mut apart) = Apart::new(1, "").await else {
        return;
    };
    let made = dawn_e2e::run(
        tokio::process::Command::new(dawn_e2e::dawn()).args(["--json", "relay", "secret", "--name", "lab"]),
    )
    .await
    .success()
    .json();
    let entry = format!("[[token]]\nname = \"lab\"\nsha256 = {}\n", made["sha256"]);
    apart.relays[0].reload(&entry).await;
    with_token(&mut apart, None).await;
    apart.relays[0].counts("refused_network", |count| count > 0).await;
    assert_eq!(apart.a.reservations().await, Vec::<String>::new());
    let _ended = apart.a.down().await;
    with_token(&mut apart, Some("no such token is known here")).await;
    apart.relays[0].counts("refused_unknown_token", |count| count > 0).await;
    assert_eq!(apart.a.reservations().await, Vec::<String>::new());
    let _ended = apart.a.down().await;
    with_token(&mut apart, made["token"].as_str()).await;
    apart.a.reserves(1).await;
    // The token goes: who has shown it is out.
    let other = format!("[[token]]\nname = \"other\"\nsha256 = \"{}\"\n", "00".repeat(32));
    apart.relays[0].reload(&other).await;
    apart.a.reserves(0).await;
}

#[tokio::test]
async fn a_network_that_the_relay_serves_no_more_loses_its_reservations_and_circuits() {
    let Some(mut apart) = Apart::start(1, "").await else {
        return;
    };
    apart.echoes("first").await;
    let nobody = format!("[[token]]\nname = \"x\"\nsha256 = \"{}\"\n", "00".repeat(32));
    apart.relays[0].reload(&nobody).await;
    apart.a.reserves(0).await;
    apart.c.reserves(0).await;
    for gauge in ["reservations", "circuits"] {
        apart.relays[0].counts(gauge, |count| count == 0).await;
    }
    assert_ne!(apart.call("nobody carries").await.code, 0);
}

#[tokio::test]
async fn a_member_that_is_put_out_loses_its_reservation_and_its_circuits_at_once() {
    let Some(apart) = Apart::start(1, "").await else { return };
    apart.echoes("first").await;
    let relay = &apart.relays[0];
    assert_eq!(relay.metric("reservations").await, 2);
    let _revoked = apart.a.dawn(&["peers", "revoke", "c"]).await.success();
    let revoked = Instant::now();
    relay.counts("reservations", |count| count == 1).await;
    relay.counts("circuits", |count| count == 0).await;
    println!("cut after {:.2} s", revoked.elapsed().as_secs_f64());
    apart.c.reserves(0).await;
    relay.counts("refused_membership", |count| count > 0).await;
    assert_eq!(apart.a.reservations().await, [relay.peer()]);
}

#[tokio::test]
async fn what_a_quota_does_not_allow_is_refused_and_counted() {
    let Some(mut apart) = Apart::new(1, "[quotas.total]\nreservations = 1\n").await else {
        return;
    };
    apart.a.up().await;
    apart.a.reserves(1).await;
    apart.join().await;
    apart.c.up().await;
    apart.relays[0].counts("refused_full", |count| count > 0).await;
    assert_eq!(apart.c.reservations().await, Vec::<String>::new());
    // More of them: c has its own by itself.
    let lines = format!("networks = [\"{}\"]\n[quotas.peer]\nbytes = 1000000\n", apart.network);
    apart.relays[0].reload(&lines).await;
    apart.c.reserves(1).await;
    apart.c.add_test_agent("probe", &[], &["--stdio"]).await;
    apart.a.sees("c:probe").await;
    apart.echoes("little").await;
    // Circuits to one peer carry so many bytes in a period, and then no more.
    let mut call = apart.a.command(&["call", "c:probe", "payload", "bytes:=2000000"]);
    let _cut = call
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    apart.relays[0].counts("refused_bytes", |count| count > 0).await;
    assert!(apart.relays[0].metric("carried_bytes_total").await <= 2_100_000);
}
