//! Real networks of real processes for the end-to-end tests.
//!
//! [`Network::start`] makes one in a line: each node is a `dawn` process with a home folder of its own and free ports
//! on loopback. The binaries come from `DAWN_BIN` and `DAWN_TEST_AGENT`, or from beside the test's own binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails the test"
)]

pub mod client;
pub mod control;
pub mod gossip;
pub mod issuer;
pub mod lab;
pub mod load;
pub mod member;
pub mod nat;
pub mod plane;
pub mod proxy;
pub mod registry;
pub mod relay;
pub mod sockets;
pub mod sse;
pub mod stdio;
pub mod terminal;
pub mod websocket;

use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

pub use client::{Legacy, Modern, Reply};
pub use issuer::Issuer;
pub use lab::Lab;
pub use load::PairLoad;
pub use member::Member;
pub use nat::Internet;
pub use plane::Plane;
pub use proxy::Proxy;
pub use relay::Relay;
pub use sse::Events;
pub use stdio::{Load, Stdio};
pub use websocket::WebSocket;

/// How long any single expectation may take before it counts as not met.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The `dawn` binary under test.
#[must_use]
pub fn dawn() -> PathBuf {
    binary("DAWN_BIN", "dawn")
}

/// The test agent's binary.
#[must_use]
pub fn test_agent() -> PathBuf {
    binary("DAWN_TEST_AGENT", "dawn-test-agent")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    let beside = || {
        let own = std::env::current_exe().expect("a test has a path");
        own.ancestors().nth(2).expect("target/debug/deps").join(name)
    };
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: run `make e2e`, which builds it",
        path.display()
    );
    path
}

/// Which transport the nodes of a network listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
    /// WebSocket over TCP.
    WebSocket,
}

impl Transport {
    fn multiaddr(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
            Self::WebSocket => "/ip4/127.0.0.1/tcp/0/ws",
        }
    }

    /// Its name in `dawn peers`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
        }
    }
}

/// What a running node says on standard output, a line of JSON each.
pub type Said = Lines<BufReader<ChildStdout>>;

/// What a node says when it is ready; `None` if it ends before.
pub async fn ready(said: &mut Said) -> Option<Value> {
    loop {
        let line = said.next_line().await.expect("readable")?;
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if event["event"] == "ready" {
            return Some(event);
        }
    }
}

/// A node: a home folder and, while it is up, a process.
#[derive(Debug)]
pub struct Node {
    home: tempfile::TempDir,
    /// Its name in the network.
    pub name: String,
    transport: Transport,
    /// What `dawn up --json` said when it was ready.
    pub ready: Value,
    process: Option<Child>,
    environment: Vec<(String, String)>,
    listen: Vec<String>,
    /// The network namespace that everything of it runs in.
    space: Option<String>,
}

/// What a finished command said.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Its standard output as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Itself, after checking that the command succeeded.
    #[must_use]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// Runs a command to its end.
pub async fn run(command: &mut Command) -> Output {
    let output = tokio::time::timeout(
        PATIENCE,
        command.stdin(process::Stdio::null()).kill_on_drop(true).output(),
    );
    let output = output
        .await
        .expect("the command ends in time")
        .expect("the command starts");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Node {
    /// A home folder without a network.
    #[must_use]
    pub fn new(name: &str, transport: Transport) -> Self {
        let home = tempfile::Builder::new()
            .prefix("dawn-e2e-")
            .tempdir()
            .expect("a temporary folder");
        Self {
            home,
            name: name.to_owned(),
            transport,
            ready: Value::Null,
            process: None,
            environment: Vec::new(),
            listen: Vec::new(),
            space: None,
        }
    }

    /// A node inside a network namespace of a lab, listening on all its addresses.
    #[must_use]
    pub fn inside(lab: &Lab, name: &str, transport: Transport) -> Self {
        let everywhere = transport.multiaddr().replace("127.0.0.1", "0.0.0.0");
        Self {
            space: Some(lab.space(name)),
            listen: vec![everywhere],
            ..Self::new(name, transport)
        }
    }

    /// Listens there instead.
    #[must_use]
    pub fn listening(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses.iter().map(|&address| address.to_owned()).collect();
        self
    }

    fn program(&self) -> Command {
        match &self.space {
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(dawn());
                command
            }
            None => Command::new(dawn()),
        }
    }

    /// Sets an environment variable of the node's process and commands.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The transport that it listens with.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Its home folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A `dawn` command on this node's home, with `--json`.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("--home").arg(self.home()).arg("--json").args(args);
        command.env_remove("DAWN_HOME").envs(self.environment.iter().cloned());
        command
    }

    /// Runs a `dawn` command on this node's home, with `--json`.
    pub async fn dawn(&self, args: &[&str]) -> Output {
        run(&mut self.command(args)).await
    }

    /// Runs a `dawn` command on this node's home, without `--json`.
    pub async fn words(&self, args: &[&str]) -> Output {
        let mut command = self.program();
        command.arg("--home").arg(self.home()).args(args);
        command.env_remove("DAWN_HOME").envs(self.environment.iter().cloned());
        run(&mut command).await
    }

    /// Starts the node and waits until it is ready.
    pub async fn up(&mut self) {
        let mut said = self.launch();
        let ready = tokio::time::timeout(PATIENCE, ready(&mut said))
            .await
            .expect("ready in time");
        self.ready = ready.unwrap_or_else(|| panic!("{} ended before it was ready", self.name));
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        if self.space.is_some() {
            // It listens on all addresses of its namespace, also on later ones.
            return;
        }
        // The next start listens where this one did, so that others find it again.
        self.listen = self.ready["listen"]
            .as_array()
            .expect("addresses")
            .iter()
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
    }

    /// Starts the node without waiting for anything; gives what it says.
    pub fn launch(&mut self) -> Said {
        assert!(self.process.is_none(), "{} is already up", self.name);
        let mut args = vec!["up", "--api", "127.0.0.1:0", "--no-mdns"];
        let listen = if self.listen.is_empty() {
            vec![self.transport.multiaddr().to_owned()]
        } else {
            self.listen.clone()
        };
        for address in &listen {
            args.extend(["--listen", address]);
        }
        let mut process = self
            .command(&args)
            .stdin(process::Stdio::null())
            .stdout(process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dawn starts");
        let said = BufReader::new(process.stdout.take().expect("piped")).lines();
        self.process = Some(process);
        said
    }

    /// The local API's address, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn api(&self) -> &str {
        self.ready["api"].as_str().expect("a node that is up")
    }

    /// Where it listens for other nodes.
    #[must_use]
    pub fn listens(&self) -> Vec<String> {
        self.listen.clone()
    }

    /// The local API's token.
    #[must_use]
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.home().join("api-token"))
            .expect("a token")
            .trim()
            .to_owned()
    }

    /// The node's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().and_then(Child::id).expect("a node that is up")
    }

    /// SIGKILL, as a crash.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("a node that is up");
        process.kill().await.expect("killed");
    }

    /// SIGSTOP: it stands still, with everything open.
    pub fn pause(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
    }

    /// SIGCONT: it goes on.
    pub fn go_on(&self) {
        self.signal(nix::sys::signal::Signal::SIGCONT);
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("signalled");
    }

    /// SIGTERM, and waits for the orderly end; returns the exit code.
    pub async fn down(&mut self) -> i32 {
        let mut process = self.process.take().expect("a node that is up");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id().expect("running")).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        let status = tokio::time::timeout(PATIENCE, process.wait())
            .await
            .expect("ends in time")
            .expect("waited for");
        status.code().unwrap_or(-1)
    }

    /// Adds an agent by command line.
    pub async fn add_agent(&self, name: &str, options: &[&str], command: &[&str]) {
        let mut args = vec!["agent", "add", name];
        args.extend(options);
        if !command.is_empty() {
            args.push("--");
            args.extend(command);
        }
        let _added = self.dawn(&args).await.success();
    }

    /// Adds the test agent over standard I/O.
    pub async fn add_test_agent(&self, name: &str, options: &[&str], agent_args: &[&str]) {
        let path = test_agent();
        let mut command = vec![path.to_str().expect("a path")];
        command.extend(agent_args);
        self.add_agent(name, options, &command).await;
    }

    /// `GET` of the local API.
    pub async fn get(&self, path: &str) -> Value {
        let request = http().get(format!("{}{path}", self.api())).bearer_auth(self.token());
        let asked = async {
            let response = request.send().await.expect("answered");
            serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
        };
        match &self.space {
            Some(space) => lab::inside(space, asked).await,
            None => asked.await,
        }
    }

    /// The address of an agent's endpoint at this node's gateway.
    #[must_use]
    pub fn endpoint(&self, agent: Option<&str>) -> String {
        match agent.and_then(|agent| agent.split_once(':')) {
            Some((node, agent)) => format!("{}/mcp/{node}/{agent}", self.api()),
            None => format!("{}/mcp", self.api()),
        }
    }

    /// A legacy session at this node's gateway.
    pub async fn legacy(&self, agent: Option<&str>) -> Legacy {
        Legacy::open(&self.endpoint(agent), &self.token()).await
    }

    /// A modern client at this node's gateway.
    #[must_use]
    pub fn modern(&self, agent: Option<&str>) -> Modern {
        Modern::new(&self.endpoint(agent), &self.token())
    }

    /// Waits until this node sees an agent as ready.
    pub async fn sees(&self, address: &str) {
        eventually(&format!("{} sees {address}", self.name), async || {
            let agents = self.get("/api/agents").await;
            agents["agents"].as_array().is_some_and(|agents| {
                agents
                    .iter()
                    .any(|agent| agent["address"] == address && agent["state"] == "ready")
            })
        })
        .await;
    }

    /// Waits until this node no longer lists an agent.
    pub async fn misses(&self, address: &str) {
        eventually(&format!("{} misses {address}", self.name), async || {
            let agents = self.get("/api/agents").await;
            agents["agents"]
                .as_array()
                .is_some_and(|agents| agents.iter().all(|agent| agent["address"] != address))
        })
        .await;
    }

    /// Waits until this node sees another as online or not.
    pub async fn sees_online(&self, name: &str, online: bool) {
        eventually(&format!("{} sees {name} online={online}", self.name), async || {
            self.peer(name).await["online"].as_bool().unwrap_or(false) == online
        })
        .await;
    }

    /// Waits until a node is online and the registry has what it says of itself, which comes a moment after it connected.
    pub async fn knows(&self, name: &str) {
        eventually(&format!("{} knows {name}", self.name), async || {
            let peer = self.peer(name).await;
            peer["online"] == true && peer["version"].is_string()
        })
        .await;
    }

    /// A peer as `GET /api/peers` tells it, or null.
    pub async fn peer(&self, name: &str) -> Value {
        let peers = self.get("/api/peers").await;
        peers["peers"]
            .as_array()
            .and_then(|peers| peers.iter().find(|peer| peer["name"] == name).cloned())
            .unwrap_or(Value::Null)
    }
}

/// An HTTP client without surprises.
#[must_use]
pub fn http() -> reqwest::Client {
    // A second installation only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// Starts the test agent as a Streamable HTTP server; ends with what is returned. The address is that of its endpoint.
pub async fn http_agent(args: &[&str]) -> (Child, String) {
    let mut command = Command::new(test_agent());
    command.args(["--http", "127.0.0.1:0"]).args(args);
    let mut server = command
        .stdin(process::Stdio::null())
        .stdout(process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the agent starts");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("an address");
    let url = line.rsplit(' ').next().expect("an address").to_owned();
    (server, url)
}

/// Asks until the answer is yes; fails the test when it stays no.
pub async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A network whose first node is its owner.
#[derive(Debug)]
pub struct Network {
    /// Its nodes, all up.
    pub nodes: Vec<Node>,
}

impl Network {
    /// Starts a network of nodes with these names.
    pub async fn start(transport: Transport, names: &[&str]) -> Self {
        Self::start_with(transport, names, &[]).await
    }

    /// Starts a network whose processes have these environment variables.
    pub async fn start_with(transport: Transport, names: &[&str], environment: &[(&str, &str)]) -> Self {
        let (owner, others) = names.split_first().expect("at least one node");
        let make = |name: &str| {
            environment
                .iter()
                .fold(Node::new(name, transport), |node, (key, value)| node.env(key, value))
        };
        let mut first = make(owner);
        let _made = first.dawn(&["init", "--name", owner]).await.success();
        first.up().await;
        let mut network = Self { nodes: vec![first] };
        for name in others {
            network.join(make(name)).await;
        }
        network
    }

    /// Lets a node join by an invite of the owner; returns what `dawn join` said.
    pub async fn join(&mut self, mut node: Node) -> Value {
        let ticket = self.ticket(&[]).await;
        let name = node.name.clone();
        let joined = node.dawn(&["join", &ticket, "--name", &name]).await.success().json();
        node.up().await;
        for other in &self.nodes {
            other.knows(&name).await;
            node.knows(&other.name).await;
        }
        self.nodes.push(node);
        joined
    }

    /// A ticket made by the owner.
    pub async fn ticket(&self, options: &[&str]) -> String {
        let mut args = vec!["invite"];
        args.extend(options);
        let invite = self.nodes[0].dawn(&args).await.success().json();
        invite["ticket"].as_str().expect("a ticket").to_owned()
    }
}
