//! An MCP client over `dawn mcp`, with many calls at once, and one that never stops to call.

use std::collections::BTreeMap;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::{Node, PATIENCE};

/// A legacy session over a bridge's standard input and output.
#[derive(Debug)]
pub struct Stdio {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// When each call that is not answered was made.
    open: BTreeMap<u64, Instant>,
    next: u64,
}

impl Stdio {
    /// Begins a session with an agent.
    pub async fn start(node: &Node, agent: &str) -> Self {
        let mut process = node
            .command(&["mcp", agent])
            .stdin(process::Stdio::piped())
            .stdout(process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a bridge starts");
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let mut client = Self {
            _process: process,
            input: input.expect("piped"),
            output: BufReader::new(output.expect("piped")).lines(),
            open: BTreeMap::new(),
            next: 1,
        };
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "e2e", "version": "1" } });
        client
            .say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello }))
            .await;
        let _welcome = client.line().await;
        client
            .say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
        client
    }

    async fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.input
            .write_all(line.as_bytes())
            .await
            .expect("a bridge that reads");
        self.input.flush().await.expect("a bridge that reads");
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line.expect("an answer in time").expect("readable");
        serde_json::from_str(&line.expect("the bridge goes on")).expect("JSON")
    }

    /// Calls a tool without waiting; gives the call's number.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, Instant::now());
        let params = json!({ "name": tool, "arguments": arguments });
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }))
            .await;
        id
    }

    /// Has its own number echoed.
    pub async fn echo(&mut self) -> u64 {
        let text = self.next.to_string();
        self.call("echo", json!({ "text": text })).await
    }

    /// The next answer: which call, and its text, or the whole message where it has none.
    pub async fn outcome(&mut self) -> (u64, Result<String, Value>) {
        loop {
            let message = self.line().await;
            let Some(id) = message["id"].as_u64() else { continue };
            assert!(self.open.remove(&id).is_some(), "answered once: {message}");
            let text = message["result"]["content"][0]["text"].as_str().map(str::to_owned);
            return (id, text.ok_or(message));
        }
    }

    /// The next answer, which has to be one: which call, and its text.
    pub async fn answer(&mut self) -> (u64, String) {
        let (id, outcome) = self.outcome().await;
        (
            id,
            outcome.unwrap_or_else(|message| panic!("call {id} failed: {message}")),
        )
    }

    /// Whether a call is not answered yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    /// How many calls were made.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.next - 1
    }
}

/// How many short calls of a load are under way at once, and how long a place stays free after an answer.
const AT_ONCE: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// What came of a load.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Calls that were made.
    pub calls: u64,
    /// What became of those that failed, or were answered wrongly.
    pub lost: Vec<String>,
    /// The longest time without any answer since that was asked last.
    pub longest: Duration,
}

/// A client that calls all the time: a few short calls at once, and now and then a long one.
#[derive(Debug)]
pub struct Load {
    stop: oneshot::Sender<u64>,
    task: JoinHandle<Report>,
    longest: Arc<Mutex<Duration>>,
    answered: watch::Receiver<u64>,
}

impl Load {
    /// Begins to call.
    pub async fn start(node: &Node, agent: &str) -> Self {
        let client = Stdio::start(node, agent).await;
        let (stop, stopped) = oneshot::channel();
        let longest: Arc<Mutex<Duration>> = Arc::default();
        let (answers, answered) = watch::channel(0);
        let task = tokio::spawn(work(client, stopped, Arc::clone(&longest), answers));
        Self {
            stop,
            task,
            longest,
            answered,
        }
    }

    /// Waits until so many more calls were answered.
    pub async fn goes_on(&mut self, calls: u64) {
        let wanted = *self.answered.borrow() + calls;
        let answered = self.answered.wait_for(|answered| *answered >= wanted);
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        let _count = answered.expect("calls go on").expect("the load goes on");
    }

    /// The longest time without any answer since this was asked last.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends when so many more calls were answered, and all that were made.
    pub async fn stop_after(self, calls: u64) -> Report {
        // A task that failed says so below.
        let _ = self.stop.send(calls);
        let report = self.task.await.expect("the load goes on until it is stopped");
        let longest = std::mem::take(&mut *self.longest.lock().unwrap_or_else(PoisonError::into_inner));
        Report { longest, ..report }
    }
}

async fn work(
    mut client: Stdio,
    mut stopped: oneshot::Receiver<u64>,
    longest: Arc<Mutex<Duration>>,
    answers: watch::Sender<u64>,
) -> Report {
    let mut report = Report::default();
    let mut slow = client.call("slow", json!({ "seconds": 4 })).await;
    for _ in 0..AT_ONCE {
        let _asked = client.echo().await;
    }
    let (mut last, mut left) = (Instant::now(), None);
    loop {
        match stopped.try_recv() {
            Ok(calls) => left = Some(calls),
            // Whoever would stop it is gone.
            Err(oneshot::error::TryRecvError::Closed) if left.is_none() => left = Some(0),
            Err(_) => {}
        }
        let is_over = left == Some(0);
        if is_over && !client.is_waiting() {
            report.calls = client.asked();
            return report;
        }
        let (id, outcome) = client.outcome().await;
        if !is_over {
            // At the end long calls are left, whose answers take their time.
            let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
            *longest = (*longest).max(last.elapsed());
        }
        last = Instant::now();
        answers.send_modify(|answered| *answered += 1);
        left = left.map(|left| left.saturating_sub(1));
        let expected = if id == slow {
            "finished".to_owned()
        } else {
            id.to_string()
        };
        if outcome.as_ref() != Ok(&expected) {
            report.lost.push(format!("call {id}: {outcome:?}"));
        }
        if is_over {
            continue;
        }
        if id == slow {
            slow = client.call("slow", json!({ "seconds": 4 })).await;
        } else {
            tokio::time::sleep(PAUSE).await;
            let _asked = client.echo().await;
        }
    }
}
