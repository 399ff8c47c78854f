//! `make soak`: 200 clients with sessions that connect, call and drop for an hour, through two nodes. Memory and
//! descriptors of both nodes have to stay flat, and no child process may be left at the end.
//!
//! `SOAK_SECONDS` sets how long, `SOAK_CLIENTS` how many.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a test program that stops at the first failure"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dawn_e2e::client::{Legacy, Modern};
use dawn_e2e::{Network, Node, Transport, test_agent};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// Sessions that clients leave behind end after this.
const IDLE: &str = "20s";
/// How much memory of the last quarter may be above that of the second.
const GROWTH: f64 = 1.10;
/// Descriptors that may be open at the end beyond those at the beginning.
const DESCRIPTORS: usize = 16;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What the clients did.
#[derive(Default)]
struct Counts {
    sessions: AtomicU64,
    calls: AtomicU64,
    dropped: AtomicU64,
    processes: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The ways of one client to this node.
struct Client {
    api: String,
    token: String,
    home: PathBuf,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Client {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.api)
    }

    async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(1..=most_ms))).await;
    }

    async fn session(&self, path: &str) -> Legacy {
        count(&self.counts.sessions);
        Legacy::open(&self.at(path), &self.token).await
    }

    async fn echo(&self, session: &Legacy, tool: &str) {
        let text = "x".repeat(rand::random_range(1..5000));
        for id in 1..=rand::random_range(1..5) {
            assert_eq!(session.text(id, tool, json!({ "text": text })).await, text);
            count(&self.counts.calls);
        }
    }

    /// A session with a process of its own, ended in order.
    async fn orderly(&self) {
        let session = self.session("/mcp/lab/each").await;
        self.echo(&session, "echo").await;
        session.end().await;
    }

    /// A session that its client forgets.
    async fn forgetful(&self) {
        let session = self.session("/mcp/lab/shared").await;
        self.echo(&session, "echo").await;
        count(&self.counts.dropped);
    }

    /// Modern requests, some given up while they are worked on; the last agent speaks only the older era.
    async fn modern(&self) {
        for path in ["/mcp/lab/shared", "/mcp/lab/http", "/mcp/lab/old"] {
            let client = Modern::new(&self.at(path), &self.token);
            let answer = client.call(1, "echo", json!({ "text": "modern" })).await;
            assert_eq!(
                answer.body["result"]["content"][0]["text"], "modern",
                "{path}: {answer:?}"
            );
            count(&self.counts.calls);
            let slow = client.call(2, "slow", json!({ "seconds": 5, "steps": 50 }));
            let given_up = tokio::time::timeout(Duration::from_millis(rand::random_range(1..300)), slow).await;
            assert!(given_up.is_err(), "{given_up:?}");
            count(&self.counts.dropped);
        }
    }

    /// All agents as one server, with a stream that is open until the client drops it.
    async fn whole(&self) {
        let session = self.session("/mcp").await;
        let events = session.listen().await;
        let listed = session.request(1, "tools/list", json!({})).await;
        assert!(
            listed.body["result"]["tools"]
                .as_array()
                .is_some_and(|tools| tools.len() > 100),
            "{listed:?}"
        );
        self.echo(&session, "lab__http__echo").await;
        drop(events);
        if rand::random() {
            session.end().await;
        } else {
            count(&self.counts.dropped);
        }
    }

    /// `dawn mcp` as a process, ended by closing its input or killed.
    async fn bridge(&self) {
        count(&self.counts.processes);
        let mut child = tokio::process::Command::new(dawn_e2e::dawn())
            .arg("--home")
            .arg(&self.home)
            .args(["mcp", "lab:each"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "soak", "version": "1" } } });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "echo", "arguments": { "text": "over stdio" } } });
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        for (message, answers) in [(initialize, true), (initialized, false), (call, true)] {
            stdin
                .write_all(format!("{message}\n").as_bytes())
                .await
                .expect("written");
            if answers {
                let line = lines.next_line().await.expect("readable").expect("an answer");
                let answer: Value = serde_json::from_str(&line).expect("JSON");
                assert!(answer["result"].is_object(), "{answer}");
            }
        }
        count(&self.counts.calls);
        if rand::random() {
            drop(stdin);
            let status = child.wait().await.expect("it ends");
            assert!(status.success(), "{status}");
        } else {
            child.kill().await.expect("killed");
            count(&self.counts.dropped);
        }
    }

    async fn run(self, kind: usize) {
        while self.goes_on() {
            match kind % 5 {
                0 => self.orderly().await,
                1 => self.forgetful().await,
                2 => self.modern().await,
                3 => self.whole().await,
                _ => self.bridge().await,
            }
            self.pause(4000).await;
        }
    }
}

/// What a node holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident_mib: f64,
    descriptors: usize,
}

fn held(node: &Node) -> Held {
    let pid = node.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running node");
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<f64>()
            .ok()
    });
    Held {
        resident_mib: kib.expect("a size") / 1024.0,
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("a running node")
            .count(),
    }
}

/// Running processes of a program.
fn processes(program: &Path) -> usize {
    let running = std::fs::read_dir("/proc").expect("/proc").flatten();
    running
        .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program))
        .count()
}

#[tokio::main]
async fn main() {
    let (seconds, clients) = (setting("SOAK_SECONDS", 3600), setting("SOAK_CLIENTS", 200));
    let limits = [
        ("DAWN_LIMITS__SESSION_IDLE", IDLE),
        ("DAWN_LIMITS__PROCESSES_PER_AGENT", "512"),
    ];
    let network = Network::start_with(Transport::Quic, &["home", "lab"], &limits).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    // A copy of its own, so that its processes can be told from those of others.
    let folder = tempfile::tempdir().expect("a folder");
    let agent = folder.path().join("soak-agent");
    std::fs::copy(test_agent(), &agent).expect("copied");
    let agent = agent.canonicalize().expect("there");
    let program = agent.to_str().expect("text");
    lab.add_agent("each", &[], &[program, "--stdio"]).await;
    lab.add_agent("shared", &["--isolation", "shared"], &[program, "--stdio"])
        .await;
    lab.add_agent(
        "old",
        &["--isolation", "shared"],
        &[program, "--stdio", "--era", "legacy"],
    )
    .await;
    let mut server = tokio::process::Command::new(program)
        .args(["--http", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(server.stdout.take().expect("piped")).lines();
    let line = said.next_line().await.expect("readable").expect("an address");
    let url = line.split_whitespace().last().expect("an address").to_owned();
    lab.add_agent("http", &["--url", &url], &[]).await;
    for name in ["each", "shared", "old", "http"] {
        home.sees(&format!("lab:{name}")).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let at_first = (held(home), held(lab), processes(&agent));
    println!(
        "{clients} clients for {seconds} s; at first home {:?}, lab {:?}, {} processes of agents",
        at_first.0, at_first.1, at_first.2
    );

    let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let tasks: Vec<_> = (0..clients)
        .map(|at| {
            let client = Client {
                api: home.api().to_owned(),
                token: home.token(),
                home: home.home().to_owned(),
                stop: Arc::clone(&stop),
                counts: Arc::clone(&counts),
            };
            tokio::spawn(client.run(usize::try_from(at).expect("few")))
        })
        .collect();
    let begun = Instant::now();
    let mut samples: Vec<(Held, Held)> = Vec::new();
    let every = Duration::from_secs_f64(seconds as f64 / 60.0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(every).await;
        let now = (held(home), held(lab));
        println!(
            "{:>5} s  home {:6.1} MiB {:4} descriptors   lab {:6.1} MiB {:4} descriptors   {:3} agents   {} calls, {} sessions, {} dawn mcp, {} dropped",
            begun.elapsed().as_secs(),
            now.0.resident_mib,
            now.0.descriptors,
            now.1.resident_mib,
            now.1.descriptors,
            processes(&agent),
            counts.calls.load(Ordering::Relaxed),
            counts.sessions.load(Ordering::Relaxed),
            counts.processes.load(Ordering::Relaxed),
            counts.dropped.load(Ordering::Relaxed),
        );
        samples.push(now);
        assert!(tasks.iter().all(|task| !task.is_finished()), "a client failed");
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("a client that met what it expected");
    }
    let calm = |at: (Held, Held, usize)| {
        at.0.descriptors <= at_first.0.descriptors + DESCRIPTORS
            && at.1.descriptors <= at_first.1.descriptors + DESCRIPTORS
            && at.2 <= at_first.2
    };
    let mut last = (held(home), held(lab), processes(&agent));
    let waited = Instant::now();
    while !calm(last) && waited.elapsed() < Duration::from_secs(120) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        last = (held(home), held(lab), processes(&agent));
    }
    println!(
        "at last home {:?}, lab {:?}, {} processes of agents",
        last.0, last.1, last.2
    );
    let quarter = samples.len() / 4;
    let mean = |part: &[(Held, Held)], of: fn(&(Held, Held)) -> Held| {
        part.iter().map(|sample| of(sample).resident_mib).sum::<f64>() / part.len() as f64
    };
    let mut is_flat = true;
    for (name, of) in [
        ("home", (|sample| sample.0) as fn(&(Held, Held)) -> Held),
        ("lab", |sample| sample.1),
    ] {
        let before = mean(&samples[quarter..2 * quarter], of);
        let after = mean(&samples[samples.len() - quarter..], of);
        println!(
            "{name}: second quarter {before:.1} MiB, last quarter {after:.1} MiB (×{:.3})",
            after / before
        );
        is_flat &= after <= before * GROWTH;
    }
    assert!(calm(last), "descriptors or processes are left");
    assert!(is_flat, "memory grew");
    println!("flat, and nothing left");
}
