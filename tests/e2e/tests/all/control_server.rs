//! The control plane's server as a real process: with real nodes, killed while it writes, and from the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "../../../../crates/control/tests/common/postgres.rs"]
mod postgres;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_e2e::control::ControlPlane;
use dawn_e2e::{Network, Node, Transport, eventually, http};
use dawn_identity::Keypair;
use postgres::Postgres;
use rand::RngExt as _;
use serde_json::{Value, json};

/// How often it is killed.
const KILLS: u32 = 8;
/// Who writes at once.
const WRITERS: usize = 8;

/// The line of a configuration that names a database.
fn on(database: &Postgres) -> String {
    format!("database = \"{}\"\n", database.url("postgres"))
}

async fn loses_nothing_when_it_is_killed(configuration: &str) {
    let mut server = ControlPlane::new(configuration);
    server.up().await;
    let network = Keypair::from_seed([1; 32]).network_id().to_string();
    server.said(&["network", "add", &network, "--name", "home"]).await;
    let made = server
        .said(&[
            "token",
            "create",
            "test",
            "--scope",
            "people:write",
            "--scope",
            "people:read",
        ])
        .await;
    let token = made["token"].as_str().unwrap().to_owned();
    // Whoever was told that it was written: name and id.
    let acknowledged = Arc::new(Mutex::new(Vec::<(String, String)>::new()));
    for round in 0..KILLS {
        let writing: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (acknowledged, token) = (Arc::clone(&acknowledged), token.clone());
                let people = format!("{}/v1/networks/{network}/people", server.url);
                tokio::spawn(async move {
                    let client = http();
                    for number in 0.. {
                        let name = format!("{round}-{writer}-{number}");
                        let asked = client
                            .post(&people)
                            .bearer_auth(&token)
                            .header("content-type", "application/json")
                            .body(json!({ "name": name }).to_string())
                            .send();
                        // It was killed.
                        let Ok(answer) = asked.await else { return };
                        if answer.status().as_u16() != 201 {
                            assert_eq!(answer.status().as_u16(), 429);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                        let Ok(body) = answer.text().await else { return };
                        let body: Value = serde_json::from_str(&body).unwrap();
                        acknowledged
                            .lock()
                            .unwrap()
                            .push((name, body["id"].as_str().unwrap().to_owned()));
                    }
                })
            })
            .collect();
        let so_far = acknowledged.lock().unwrap().len();
        eventually("something is written", async || {
            acknowledged.lock().unwrap().len() > so_far + 20
        })
        .await;
        let moment = rand::rng().random_range(0..50);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.kill().await;
        for writer in writing {
            writer.await.unwrap();
        }
        server.up().await;
    }
    let client = http();
    let mut kept = std::collections::HashMap::new();
    let mut cursor = String::new();
    loop {
        let page = format!("{}/v1/networks/{network}/people?limit=1000{cursor}", server.url);
        let page = client
            .get(page)
            .bearer_auth(&token)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let page: Value = serde_json::from_str(&page).unwrap();
        for person in page["items"].as_array().unwrap() {
            let (name, id) = (person["name"].as_str().unwrap(), person["id"].as_str().unwrap());
            assert!(
                kept.insert(name.to_owned(), id.to_owned()).is_none(),
                "{name} is there twice"
            );
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    for (name, id) in acknowledged {
        assert_eq!(kept.get(&name), Some(&id), "{name} was acknowledged and is lost");
    }
    server.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_control_plane_loses_no_acknowledged_write_on_sqlite() {
    loses_nothing_when_it_is_killed("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_control_plane_loses_no_acknowledged_write_on_postgres() {
    if let Some(database) = Postgres::start() {
        loses_nothing_when_it_is_killed(&on(&database)).await;
    }
}

/// What the control plane says of a device.
async fn device(server: &ControlPlane, name: &str) -> Value {
    let devices = server.said(&["device", "list"]).await;
    let devices = devices.as_array().unwrap();
    devices
        .iter()
        .find(|device| device["name"] == name)
        .cloned()
        .unwrap_or_default()
}

/// Waits until one node sees another's agent, and uses it.
async fn calls(from: &Node, to: &str) {
    let agent = format!("{to}:memory");
    from.sees(&agent).await;
    let inspected = from.dawn(&["agent", "inspect", &agent, "--list"]).await;
    assert_eq!(inspected.code, 0, "{inspected:?}");
}

/// An owner's node, and a control plane that serves its network and that it is registered at.
async fn with_an_owner(configuration: &str) -> (Network, ControlPlane) {
    served(configuration, &["authorize", "join"]).await
}

/// An owner's node, and a control plane that serves its network and where the owner has done this much.
async fn served(configuration: &str, verbs: &[&str]) -> (Network, ControlPlane) {
    let network = Network::start(Transport::Quic, &["home"]).await;
    let home = &network.nodes[0];
    let status = home.get("/api/status").await;
    let id = status["network"]["id"].as_str().unwrap();
    let mut server = ControlPlane::new(configuration);
    server.up().await;
    let added = server.said(&["network", "add", id, "--name", "home"]).await;
    assert!(added["command"].as_str().unwrap().contains(&server.issuer));
    for &verb in verbs {
        let said = home
            .dawn(&["control", verb, &server.url, "--issuer", &server.issuer])
            .await;
        assert_eq!(said.code, 0, "{said:?}");
    }
    assert_eq!(server.said(&["network", "list"]).await[0]["authorised"], true);
    (network, server)
}

/// The code of an invite for so many devices.
async fn invite(server: &ControlPlane, uses: &str) -> String {
    let invite = server.said(&["invite", "create", "--uses", uses]).await;
    invite["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_network_lives_by_it_without_it_and_with_it_again() {
    let (network, mut server) = with_an_owner("").await;
    let home = &network.nodes[0];
    // Two come by an invite, and no third one.
    let (url, code) = (server.url.clone(), invite(&server, "2").await);
    let join = ["join", "--control", &url, "--invite", &code, "--name"];
    let [mut lab, mut desk, mut attic] = ["lab", "desk", "attic"].map(|name| Node::new(name, Transport::Quic));
    for node in [&lab, &desk] {
        let joined = node.dawn(&[&join[..], &[&node.name]].concat()).await.success();
        assert_eq!(joined.json()["node"]["name"], node.name.as_str());
        // Nobody compared the words before, so they can be compared still.
        assert_eq!(device(&server, &node.name).await["words"], joined.json()["words"]);
    }
    let late = attic.dawn(&[&join[..], &["late"]].concat()).await;
    assert_eq!(late.json()["error"]["code"], "invite_used_up", "{late:?}");
    // One waits until a person lets it in, who sees the same three words.
    let by_hand = async {
        eventually("it waits", async || {
            device(&server, "attic").await["state"] == "pending"
        })
        .await;
        let words = device(&server, "attic").await["words"].clone();
        server.said(&["device", "approve", "attic"]).await;
        words
    };
    let joining = ["join", "--control", &url, "--name", "attic"];
    let (joined, words) = tokio::join!(attic.dawn(&joining), by_hand);
    assert_eq!(joined.success().json()["words"], words);
    for node in [&mut lab, &mut desk, &mut attic] {
        node.up().await;
    }
    for (from, to) in [(&lab, "desk"), (&desk, "attic"), (&attic, "home"), (home, "lab")] {
        from.knows(to).await;
        calls(from, to).await;
    }
    for name in ["lab", "desk", "attic"] {
        eventually("it is there", async || {
            device(&server, name).await["presence"] == "online"
        })
        .await;
    }
    // People go by name, as devices do.
    let ada = server.said(&["people", "add", "Ada"]).await["id"].clone();
    server.said(&["device", "give", "desk", "Ada"]).await;
    assert_eq!(device(&server, "desk").await["person"], ada);
    // One is put out, and all hear of it.
    server.said(&["device", "revoke", "lab", "--reason", "lost"]).await;
    for node in [home, &desk, &attic] {
        node.sees_online("lab", false).await;
    }
    eventually("it knows that it is out", async || {
        lab.get("/api/status").await["member"] == false
    })
    .await;
    // The control plane dies, and the others go on, also when they start anew.
    server.kill().await;
    calls(&desk, "attic").await;
    assert_eq!(attic.down().await, 0);
    attic.up().await;
    calls(&desk, "attic").await;
    calls(&attic, "home").await;
    eventually("it is missed", async || {
        attic.get("/api/control").await["error"]["code"] == "control_unreachable"
    })
    .await;
    let silent = dawn_e2e::run(&mut server.command(&["device", "list"])).await;
    let error = silent.json()["error"]["code"].clone();
    assert_eq!((silent.code, error), (3, json!("not_running")));
    // It returns, with all that it had acknowledged.
    server.up().await;
    for node in [&desk, &attic] {
        eventually("it beats again", async || {
            let control = node.get("/api/control").await;
            control["reachable"] == true && control["error"].is_null()
        })
        .await;
        assert_eq!(device(&server, &node.name).await["presence"], "online");
    }
    assert_eq!(device(&server, "lab").await["state"], "revoked");
    assert_eq!(desk.down().await, 0);
    eventually("who goes says so", async || {
        device(&server, "desk").await["presence"] == "offline"
    })
    .await;
    let audit = server.said(&["audit"]).await;
    for action in [
        "device.register",
        "device.approve",
        "device.revoke",
        "network.authorise",
    ] {
        let is_it = |entry: &Value| entry["action"] == action;
        assert!(audit.as_array().unwrap().iter().any(is_it), "{action}: {audit}");
    }
    server.down().await;
}

#[tokio::test]
async fn a_device_that_comes_before_anybody_is_registered_says_so() {
    let (network, server) = served("", &["authorize"]).await;
    let home = &network.nodes[0];
    let mut lab = Node::new("lab", Transport::Quic);
    let code = invite(&server, "1").await;
    let arguments = ["join", "--control", &server.url, "--invite", &code, "--name", "lab"];
    let _joined = lab.dawn(&arguments).await.success();
    lab.up().await;
    let next = format!("dawn control join {}", server.url);
    let peers = lab.words(&["peers"]).await.success();
    assert!(peers.stderr.contains(&next), "{peers:?}");
    let doctor = lab.dawn(&["doctor"]).await.success().json();
    let checks = doctor["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == "peers").unwrap();
    assert!(
        found["state"] == "warning" && found["next"].as_str().unwrap().contains(&next),
        "{doctor}"
    );
    let _registered = home.dawn(&["control", "join", &server.url]).await.success();
    lab.knows("home").await;
}

#[tokio::test]
async fn certificates_are_renewed_before_they_end() {
    let (network, server) = with_an_owner("[limits]\ncertificate = \"10s\"\n").await;
    let mut lab = Node::new("lab", Transport::Quic);
    let code = invite(&server, "1").await;
    let arguments = ["join", "--control", &server.url, "--invite", &code, "--name", "lab"];
    let _joined = lab.dawn(&arguments).await.success();
    lab.up().await;
    let ends = async || device(&server, "lab").await["expires"].as_u64().unwrap();
    let first = ends().await;
    eventually("it is renewed, and again", async || ends().await > first + 10).await;
    assert_eq!(lab.get("/api/status").await["member"], true);
    calls(&network.nodes[0], "lab").await;
}

#[tokio::test]
async fn one_command_backs_it_up_and_one_restores_it() {
    let mut server = ControlPlane::new("");
    server.up().await;
    let network = Keypair::from_seed([1; 32]).network_id().to_string();
    server.said(&["network", "add", &network, "--name", "home"]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.backup");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    server.said(&["backup", &path(&file)]).await;
    let refused = dawn_e2e::run(&mut server.command(&["restore", &path(&file)])).await;
    assert_ne!(refused.code, 0);
    for (args, step) in [
        (["backup", &path(&file)], "--force"),
        (["restore", "nowhere"], "name the file"),
    ] {
        let refused = dawn_e2e::run(&mut server.command(&args)).await;
        let next = refused.json()["error"]["next"].clone();
        assert!(next.as_str().is_some_and(|next| next.contains(step)), "{refused:?}");
    }
    server.down().await;
    let database = Postgres::start();
    let mut other = ControlPlane::new(&database.as_ref().map(on).unwrap_or_default());
    other.said(&["restore", &path(&file)]).await;
    other.up().await;
    assert_eq!(other.issuer, server.issuer);
    assert_eq!(other.said(&["network", "list"]).await[0]["id"], network.as_str());
}

#[tokio::test]
async fn whom_it_admits_is_kept_out_where_a_lock_is_until_a_lock_key_signs() {
    let (network, server) = with_an_owner("").await;
    let home = &network.nodes[0];
    let mut desk = Node::new("desk", Transport::Quic);
    let code = invite(&server, "2").await;
    let url = server.url.clone();
    let join = ["join", "--control", &url, "--invite", &code, "--name"];
    let _joined = desk.dawn(&[&join[..], &["desk"]].concat()).await.success();
    desk.up().await;
    home.knows("desk").await;
    let _begun = home.dawn(&["lock", "init", "--yes", "--quorum", "1"]).await.success();
    eventually("desk has the lock", async || {
        let (first, other) = (home.get("/api/lock").await, desk.get("/api/lock").await);
        first["last"].is_string() && first["last"] == other["last"]
    })
    .await;
    // Whoever runs the control plane, or has broken into it, lets somebody in: for it, and for nobody else.
    let mut lab = Node::new("lab", Transport::Quic);
    let _joined = lab.dawn(&[&join[..], &["lab"]].concat()).await.success();
    lab.up().await;
    let waits = |lock: &Value| {
        lock["waiting"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["name"] == "lab"))
    };
    for node in [home, &desk] {
        eventually("it is kept out", async || waits(&node.get("/api/lock").await)).await;
        assert!(node.peer("lab").await.is_null(), "{} knows it", node.name);
    }
    eventually("it knows why", async || {
        let own = lab.get("/api/status").await;
        let why = own["not_member_because"].as_str();
        why.is_some_and(|why| why.contains("dawn lock sign"))
    })
    .await;
    assert_eq!(device(&server, "lab").await["state"], "approved");
    let _signed = home.dawn(&["lock", "sign", "lab", "--yes"]).await.success();
    for node in [home, &desk] {
        node.knows("lab").await;
        calls(node, "lab").await;
    }
}

#[tokio::test]
async fn a_policy_that_a_member_applies_is_passed_on_by_it() {
    let (network, server) = with_an_owner("").await;
    let home = &network.nodes[0];
    let none = dawn_e2e::run(&mut server.command(&["policy", "show"])).await;
    assert_eq!(none.json()["error"]["code"], "not_found", "{none:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    let text = "[[deny]]\nname = \"nobody relays\"\nwho = [\"*\"]\nwhat = [\"relay\"]\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let _applied = home.dawn(&["policy", "apply", path]).await.success();
    eventually("it has the policy", async || {
        let shown = dawn_e2e::run(&mut server.command(&["policy", "show"])).await;
        shown.code == 0 && shown.json()["version"] == 1 && shown.json()["text"] == text
    })
    .await;
    // The operator makes none, and an older one does not come back.
    let older = folder.path().join("signed.json");
    std::fs::write(&older, home.dawn(&["policy", "log"]).await.success().stdout).unwrap();
    std::fs::write(&file, format!("# Again.\n{text}")).unwrap();
    let _applied = home.dawn(&["policy", "apply", path]).await.success();
    eventually("it has the next one", async || {
        server.said(&["policy", "show"]).await["version"] == 2
    })
    .await;
    let refused = dawn_e2e::run(&mut server.command(&["policy", "put", older.to_str().unwrap()])).await;
    assert_eq!(refused.json()["error"]["code"], "conflict", "{refused:?}");
    server.said(&["policy", "remove"]).await;
}

#[tokio::test]
async fn its_operator_keeps_people_relays_and_bootstrap_nodes_and_checks_its_log() {
    let (network, server) = with_an_owner("").await;
    let home = &network.nodes[0];
    let person = server.said(&["people", "add", "Ada", "--note", "of the lab"]).await;
    let id = person["id"].as_str().unwrap();
    server.said(&["device", "give", "home", id]).await;
    assert_eq!(device(&server, "home").await["person"], id);
    let people = server.said(&["people", "list"]).await;
    assert_eq!((&people[0]["name"], &people[0]["devices"]), (&json!("Ada"), &json!(1)));
    let kept = dawn_e2e::run(&mut server.command(&["people", "remove", id])).await;
    assert_eq!(kept.json()["error"]["code"], "conflict", "{kept:?}");
    server.said(&["device", "give", "home"]).await;
    server.said(&["people", "change", id, "--name", "Ada L."]).await;
    server.said(&["people", "remove", id]).await;
    let node = Keypair::from_seed([5; 32]).node_id().to_string();
    for list in ["relays", "bootstrap"] {
        for port in [1, 2] {
            let address = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{node}");
            server.said(&[list, "add", &address]).await;
        }
        let listed = server.said(&[list, "list"]).await;
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed[0]["addresses"].as_array().unwrap().len(), 2, "{listed}");
        eventually("the device hears of it", async || {
            home.get("/api/control").await[list][0]["node"] == node.as_str()
        })
        .await;
        server.said(&[list, "remove", &node]).await;
        eventually("and that it is gone", async || {
            home.get("/api/control").await[list] == json!([])
        })
        .await;
        let again = dawn_e2e::run(&mut server.command(&[list, "remove", &node])).await;
        assert_eq!(again.json()["error"]["code"], "not_found", "{again:?}");
    }
    let noted = server.said(&["audit", "verify"]).await["noted"]
        .as_str()
        .unwrap()
        .to_owned();
    server.said(&["people", "add", "Bob"]).await;
    let later = server.said(&["audit", "verify", "--noted", &noted]).await;
    assert!(later["entries"].as_u64() > noted.split(':').next().unwrap().parse().ok());
    let number = noted.split(':').next().unwrap();
    let other = format!("{number}:{}", "0".repeat(64));
    let broken = dawn_e2e::run(&mut server.command(&["audit", "verify", "--noted", &other])).await;
    assert_eq!(broken.json()["error"]["code"], "audit_broken", "{broken:?}");
}
