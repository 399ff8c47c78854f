//! `dawn relay` as a process of its own, in a namespace of a lab.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{Lab, Node, Output, PATIENCE, Said, dawn, eventually, ready, run};

/// A relay: a folder with its file and its key and, while it is up, a process.
#[derive(Debug)]
pub struct Relay {
    folder: tempfile::TempDir,
    space: String,
    /// What its file begins with, whatever is reloaded.
    head: String,
    process: Option<(Child, Said)>,
    /// What `dawn relay serve --json` said when it was ready.
    pub ready: Value,
}

impl Relay {
    /// Starts a relay in a namespace. It listens at these addresses, is dialled at `external` where there is any, and has
    /// `lines` in its file.
    pub async fn start(lab: &Lab, name: &str, listen: &[String], external: &[String], lines: &str) -> Self {
        let head =
            format!("listen = {listen:?}\nexternal = {external:?}\nobserve = \"127.0.0.1:7441\"\ndrain = \"5s\"\n");
        let mut relay = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            space: lab.space(name),
            head,
            process: None,
            ready: Value::Null,
        };
        relay.write(lines);
        relay.up().await;
        relay
    }

    /// The file of its configuration.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("relay.toml")
    }

    fn write(&self, lines: &str) {
        std::fs::write(self.file(), format!("{}{lines}", self.head)).expect("the file is written");
        std::fs::set_permissions(self.file(), std::fs::Permissions::from_mode(0o600)).expect("its rights are set");
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.space])
            .arg(dawn())
            .args(["--json", "relay", verb, "--config"])
            .arg(self.file());
        command
    }

    /// Runs `dawn relay VERB --config FILE`.
    pub async fn run(&self, verb: &str) -> Output {
        run(&mut self.command(verb)).await
    }

    /// Starts it, with the key that it had.
    pub async fn up(&mut self) {
        assert!(self.process.is_none(), "the relay is already up");
        let mut process = self
            .command("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a relay starts");
        let mut said = BufReader::new(process.stdout.take().expect("piped")).lines();
        let ready = tokio::time::timeout(PATIENCE, ready(&mut said)).await;
        self.ready = ready.expect("ready in time").expect("the relay goes on");
        self.process = Some((process, said));
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// SIGKILL, as a crash.
    pub async fn kill(&mut self) {
        let (mut process, _) = self.process.take().expect("a relay that is up");
        process.kill().await.expect("killed");
    }

    /// SIGTERM: it takes nothing new, and ends when its circuits have.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits until it has ended by itself; gives its exit code.
    pub async fn ended(&mut self) -> i32 {
        let (mut process, _) = self.process.take().expect("a relay that was up");
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await;
        ended.expect("ends in time").expect("waited for").code().unwrap_or(-1)
    }

    fn signal(&self, signal: Signal) {
        let (process, _) = self.process.as_ref().expect("a relay that is up");
        let pid = i32::try_from(process.id().expect("running")).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }

    /// Other lines in its file, which it reads again.
    pub async fn reload(&mut self, lines: &str) {
        self.write(lines);
        self.signal(Signal::SIGHUP);
        let (_, said) = self.process.as_mut().expect("a relay that is up");
        let line = tokio::time::timeout(PATIENCE, said.next_line()).await;
        let line = line.expect("in time").expect("readable").expect("the relay goes on");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(event["event"], "reloaded");
    }

    /// Its peer id.
    #[must_use]
    pub fn peer(&self) -> &str {
        self.ready["peer"].as_str().expect("a peer id")
    }

    /// Where it is dialled.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.ready["addresses"].as_array().into_iter().flatten();
        addresses
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect()
    }

    /// One of its metrics, by its name in `dawn relay status`.
    pub async fn metric(&self, name: &str) -> u64 {
        let status = self.run("status").await.success().json();
        status[name].as_u64().unwrap_or_default()
    }

    /// Waits until one of its metrics is as it has to be.
    pub async fn counts(&self, name: &str, is_so: impl Fn(u64) -> bool) {
        eventually(&format!("the relay's {name}"), async || is_so(self.metric(name).await)).await;
    }
}

impl Node {
    /// Uses these relays, from its next start on; with none, those of members alone.
    #[must_use]
    pub fn relays(self, relays: &[String]) -> Self {
        self.env("DAWN_MESH__RELAYS", &format!("{relays:?}"))
    }

    /// The relays at which it has a reservation, by their ids.
    pub async fn reservations(&self) -> Vec<String> {
        let status = self.get("/api/status").await;
        let listen = status["listen"].as_array().into_iter().flatten();
        let circuits = listen.filter_map(|address| address.as_str()?.split_once("/p2p-circuit"));
        let mut relays: Vec<String> = circuits
            .filter_map(|(relay, _)| relay.rsplit('/').next().map(str::to_owned))
            .collect();
        relays.sort_unstable();
        relays.dedup();
        relays
    }

    /// Waits until it has so many reservations.
    pub async fn reserves(&self, count: usize) {
        eventually(&format!("{} has {count} reservations", self.name), async || {
            self.reservations().await.len() == count
        })
        .await;
    }
}
