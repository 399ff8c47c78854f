//! The control plane's server as a real process: with real nodes, killed while it writes, and from the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "../../../crates/control/tests/common/postgres.rs"]
mod postgres;

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_e2e::{Network, Node, PATIENCE, Transport, eventually, ready};
use dawn_identity::Keypair;
use postgres::Postgres;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How often it is killed.
const KILLS: u32 = 8;
/// Who writes at once.
const WRITERS: usize = 8;

/// A control plane: a data folder, maybe a PostgreSQL server, and while it is up a process.
struct Server {
    data: tempfile::TempDir,
    database: Option<Postgres>,
    process: Option<Child>,
    listen: String,
    url: String,
    issuer: String,
}

impl Server {
    fn new(database: Option<Postgres>) -> Self {
        Self {
            data: tempfile::tempdir().unwrap(),
            database,
            process: None,
            listen: "127.0.0.1:0".to_owned(),
            url: String::new(),
            issuer: String::new(),
        }
    }

    /// `dawn control VERB` of this one.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(dawn_e2e::dawn());
        command.args(["--json", "control"]).args(args);
        command.arg("--data").arg(self.data.path());
        if let Some(database) = &self.database {
            command.args(["--database", &database.url("postgres")]);
        }
        command.env_remove("DAWN_HOME");
        command
    }

    async fn said(&self, args: &[&str]) -> Value {
        dawn_e2e::run(&mut self.command(args)).await.success().json()
    }

    async fn up(&mut self) {
        let mut process = self
            .command(&["serve", "--listen", &self.listen])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(PATIENCE, ready(&mut said))
            .await
            .expect("ready in time");
        let ready = ready.expect("it ends before it is ready");
        self.url = ready["url"].as_str().unwrap().to_owned();
        self.issuer = ready["issuer"].as_str().unwrap().to_owned();
        self.listen = ready["listen"].as_str().unwrap().to_owned();
        self.process = Some(process);
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    }

    async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().await.unwrap();
    }

    /// Ends it as an operator does, and waits until it has.
    async fn down(&mut self) {
        let mut process = self.process.take().unwrap();
        let id = nix::unistd::Pid::from_raw(process.id().unwrap().cast_signed());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = tokio::time::timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
        assert!(status.success());
    }
}

fn http() -> reqwest::Client {
    // A second time is no different from the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn loses_nothing_when_it_is_killed(database: Option<Postgres>) {
    let mut server = Server::new(database);
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
    loses_nothing_when_it_is_killed(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_control_plane_loses_no_acknowledged_write_on_postgres() {
    if let Some(database) = Postgres::start() {
        loses_nothing_when_it_is_killed(Some(database)).await;
    }
}

#[tokio::test]
async fn real_nodes_join_through_it_and_are_put_out_by_it() {
    let network = Network::start(Transport::Quic, &["home"]).await;
    let home = &network.nodes[0];
    let status = home.get("/api/status").await;
    let id = status["network"]["id"].as_str().unwrap();
    let mut server = Server::new(None);
    server.up().await;
    let added = server.said(&["network", "add", id, "--name", "home"]).await;
    assert!(added["command"].as_str().unwrap().contains(&server.issuer));
    let (url, issuer) = (server.url.clone(), server.issuer.clone());
    let _said = home
        .dawn(&["control", "authorize", &url, "--issuer", &issuer])
        .await
        .success();
    let _said = home
        .dawn(&["control", "join", &url, "--issuer", &issuer])
        .await
        .success();
    assert_eq!(server.said(&["network", "list"]).await[0]["authorised"], true);

    // By an invite at once, and by hand.
    let invite = server.said(&["invite", "create"]).await;
    let mut lab = Node::new("lab", Transport::Quic);
    let code = invite["code"].as_str().unwrap();
    let _said = lab
        .dawn(&["join", "--control", &url, "--invite", code, "--name", "lab"])
        .await
        .success();
    lab.up().await;
    let desk = Node::new("desk", Transport::Quic);
    let joining = {
        let mut command = desk.command(&["join", "--control", &url, "--name", "desk"]);
        tokio::spawn(async move { dawn_e2e::run(&mut command).await })
    };
    eventually("it waits", async || {
        let waiting = server.said(&["device", "list", "--state", "pending"]).await;
        waiting[0]["name"] == "desk" && waiting[0]["words"].is_string()
    })
    .await;
    server.said(&["device", "approve", "desk"]).await;
    let _said = joining.await.unwrap().success();

    home.sees("lab:memory").await;
    let inspected = home.dawn(&["agent", "inspect", "lab:memory", "--list"]).await;
    assert_eq!(inspected.code, 0, "{inspected:?}");
    eventually("both are seen to be there", async || {
        let devices = server.said(&["device", "list"]).await;
        let online = devices
            .as_array()
            .unwrap()
            .iter()
            .filter(|device| device["presence"] == "online");
        online.count() == 2
    })
    .await;

    server.said(&["device", "revoke", "lab", "--reason", "lost"]).await;
    eventually("the owner's node hears that it was put out", async || {
        let gone = home.dawn(&["agent", "inspect", "lab:memory", "--list"]).await;
        gone.code != 0
    })
    .await;
    let audit = server.said(&["audit"]).await;
    let actions: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert!(
        actions.contains(&"device.revoke") && actions.contains(&"device.approve"),
        "{actions:?}"
    );
    server.down().await;
    // Without it the command line says so, and what to do.
    let silent = dawn_e2e::run(&mut server.command(&["device", "list"])).await;
    assert_eq!(
        (silent.code, &silent.json()["error"]["code"]),
        (3, &json!("not_running"))
    );
}

#[tokio::test]
async fn one_command_backs_it_up_and_one_restores_it() {
    let mut server = Server::new(None);
    server.up().await;
    let network = Keypair::from_seed([1; 32]).network_id().to_string();
    server.said(&["network", "add", &network, "--name", "home"]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.backup");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    server.said(&["backup", &path(&file)]).await;
    let refused = dawn_e2e::run(&mut server.command(&["restore", &path(&file)])).await;
    assert_ne!(refused.code, 0);
    server.down().await;
    let mut other = Server::new(Postgres::start());
    other.said(&["restore", &path(&file)]).await;
    other.up().await;
    assert_eq!(other.issuer, server.issuer);
    assert_eq!(other.said(&["network", "list"]).await[0]["id"], network.as_str());
}
