//! Nodes that cannot dial each other reach each other through `dawn relay`: real processes in network namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::process::Stdio;

use dawn_e2e::{Lab, Node, Output, PATIENCE, Said, Transport, dawn, eventually, ready, run};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A relay's process in a namespace of a lab.
struct Relay {
    folder: tempfile::TempDir,
    space: String,
    process: Child,
    said: Said,
    ready: Value,
}

impl Relay {
    /// Starts a relay that listens on an address and has these lines in its file.
    async fn start(lab: &Lab, name: &str, listen: &[&str], lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen: Vec<String> = listen.iter().map(|address| format!("{address:?}")).collect();
        let file = format!(
            "listen = [{}]\nobserve = \"127.0.0.1:7441\"\ndrain = \"2s\"\n{lines}",
            listen.join(", ")
        );
        write(&folder, &file);
        let space = lab.space(name);
        let mut process = command(&space, &folder, "serve")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(PATIENCE, ready(&mut said))
            .await
            .unwrap()
            .expect("the relay starts");
        Self {
            folder,
            space,
            process,
            said,
            ready,
        }
    }

    fn addresses(&self) -> Vec<String> {
        let addresses = self.ready["addresses"].as_array().unwrap();
        addresses
            .iter()
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// What it says next.
    async fn says(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.said.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Reads its file again.
    async fn reload(&mut self, lines: &str) {
        let path = self.folder.path().join("relay.toml");
        let before = std::fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = before.lines().take(3).collect();
        write(&self.folder, &format!("{}\n{lines}", kept.join("\n")));
        self.signal(nix::sys::signal::Signal::SIGHUP);
        assert_eq!(self.says().await["event"], "reloaded");
    }

    /// A metric of it.
    async fn metric(&self, name: &str) -> u64 {
        let said = run(&mut command(&self.space, &self.folder, "status"))
            .await
            .success()
            .json();
        said[name].as_u64().unwrap_or_default()
    }
}

fn write(folder: &tempfile::TempDir, file: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.path().join("relay.toml");
    std::fs::write(&path, file).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn command(space: &str, folder: &tempfile::TempDir, verb: &str) -> Command {
    let path: PathBuf = folder.path().join("relay.toml");
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", space])
        .arg(dawn())
        .args(["--json", "relay", verb, "--config"])
        .arg(path);
    command
}

/// Writes into a node's configuration which relays it uses.
fn use_relays(node: &Node, relays: &[String], token: Option<&str>) {
    let path = node.home().join("config.toml");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let quoted: Vec<String> = relays.iter().map(|relay| format!("{relay:?}")).collect();
    let token = token
        .map(|token| format!("relay_token = {token:?}\n"))
        .unwrap_or_default();
    std::fs::write(
        &path,
        format!("{before}\n[mesh]\nrelays = [{}]\n{token}", quoted.join(", ")),
    )
    .unwrap();
}

async fn reserves(node: &Node, count: usize) {
    eventually(&format!("{} has {count} reservations", node.name), async || {
        let status = node.dawn(&["status"]).await.success().json();
        let listen = status.to_string();
        let relays: std::collections::BTreeSet<&str> = listen
            .split('"')
            .filter_map(|word| word.split_once("/p2p-circuit").map(|(relay, _)| relay))
            .collect();
        relays.len() == count
    })
    .await;
}

async fn call(node: &Node, text: &str) -> Output {
    node.dawn(&["call", "c:probe", "echo", &format!("text={text}")]).await
}

/// a and c, each with a cable to both relays and none to each other.
struct Apart {
    _lab: Lab,
    relays: Vec<Relay>,
    a: Node,
    c: Node,
}

impl Apart {
    async fn start(count: usize) -> Option<Self> {
        let lab = Lab::open(&["a", "c", "r", "s"])?;
        lab.cable(1, "a", "r");
        lab.cable(2, "r", "c");
        lab.cable(3, "a", "s");
        lab.cable(4, "s", "c");
        let mut a = Node::inside(&lab, "a", Transport::Tcp);
        let made = a.dawn(&["init", "--name", "a"]).await.success().json();
        let network = made["network"]["id"]
            .as_str()
            .or(made["network"].as_str())
            .unwrap()
            .to_owned();
        let lines = format!("networks = [\"{network}\"]\n");
        let mut relays = Vec::new();
        for (name, left, right) in [("r", "10.98.1.2", "10.98.2.1"), ("s", "10.98.3.2", "10.98.4.1")]
            .into_iter()
            .take(count)
        {
            let listen = [left, right].map(|host| format!("/ip4/{host}/tcp/7440"));
            let listen: Vec<&str> = listen.iter().map(String::as_str).collect();
            relays.push(Relay::start(&lab, name, &listen, &lines).await);
        }
        let of = |side: &str| -> Vec<String> {
            let all = relays.iter().flat_map(Relay::addresses);
            all.filter(|address| side.split(' ').any(|host| address.contains(host)))
                .collect()
        };
        use_relays(&a, &of("10.98.1.2 10.98.3.2"), None);
        a.up().await;
        reserves(&a, 2 * count).await;
        let invite = a.dawn(&["invite"]).await.success().json();
        let mut c = Node::inside(&lab, "c", Transport::Tcp);
        let ticket = invite["ticket"].as_str().unwrap();
        let _joined = c.dawn(&["join", ticket, "--name", "c"]).await.success();
        use_relays(&c, &of("10.98.2.1 10.98.4.1"), None);
        c.up().await;
        c.add_test_agent("probe", &[], &["--stdio"]).await;
        eventually("a sees c:probe", async || {
            let agents = a.dawn(&["agent", "list"]).await.success().json();
            let agents = agents["agents"].as_array().cloned().unwrap_or_default();
            agents
                .iter()
                .any(|agent| agent["address"] == "c:probe" && agent["state"] == "ready")
        })
        .await;
        Some(Self {
            _lab: lab,
            relays,
            a,
            c,
        })
    }

    async fn peer(&self) -> Value {
        let peers = self.a.dawn(&["peers"]).await.success().json();
        let peers = peers["peers"].as_array().cloned().unwrap_or_default();
        peers
            .into_iter()
            .find(|peer| peer["name"] == "c")
            .unwrap_or(Value::Null)
    }
}

#[tokio::test]
async fn a_node_joins_and_is_called_through_a_relay() {
    let Some(apart) = Apart::start(1).await else { return };
    let called = call(&apart.a, "through a relay").await.success().json();
    assert_eq!(called["result"]["content"][0]["text"], "through a relay");
    let peer = apart.peer().await;
    assert_eq!(peer["route"], "relayed", "{peer}");
    assert_eq!(peer["via"][0]["id"], apart.relays[0].ready["peer"], "{peer}");
    assert!(apart.relays[0].metric("circuits").await >= 1);
    let checked = run(&mut command(&apart.relays[0].space, &apart.relays[0].folder, "check"))
        .await
        .success()
        .json();
    assert_eq!(checked["valid"], true);
}

#[tokio::test]
async fn calls_go_on_when_the_relay_under_them_is_killed_and_there_is_another() {
    let Some(mut apart) = Apart::start(2).await else { return };
    reserves(&apart.c, 4).await;
    let _first = call(&apart.a, "first").await.success();
    for round in 0..12 {
        if round == 4 {
            let used = apart.peer().await["via"][0]["id"].clone();
            let at = apart
                .relays
                .iter()
                .position(|relay| relay.ready["peer"] == used)
                .expect("a relay in use");
            apart.relays.remove(at).process.kill().await.unwrap();
        }
        let called = call(&apart.a, &round.to_string()).await.success().json();
        assert_eq!(called["result"]["content"][0]["text"], round.to_string().as_str());
    }
}

#[tokio::test]
async fn a_relay_that_is_told_to_end_drains_and_ends() {
    let Some(mut apart) = Apart::start(2).await else { return };
    let _first = call(&apart.a, "first").await.success();
    let mut relay = apart.relays.remove(0);
    relay.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = tokio::time::timeout(PATIENCE, relay.process.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(ended.success());
    let _second = call(&apart.a, "second").await.success();
    reserves(&apart.a, 2).await;
}

#[tokio::test]
async fn a_network_that_the_relay_serves_no_more_loses_its_reservations() {
    let Some(mut apart) = Apart::start(1).await else { return };
    apart.relays[0]
        .reload(&format!("[[token]]\nname = \"x\"\nsha256 = \"{}\"\n", "00".repeat(32)))
        .await;
    reserves(&apart.a, 0).await;
    assert_eq!(apart.relays[0].metric("reservations").await, 0);
}
