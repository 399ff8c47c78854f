//! Many agents as one server: 300 of them with 3,000 tools, listed and searched.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::network::Node;
use crate::report::Report;
use crate::start::median;

const AGENTS: usize = 300;
const TOOLS_EACH: usize = 10;
const RUNS: usize = 21;

/// A client of `dawn mcp`.
struct Client {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Client {
    async fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut client = Self {
            _child: child,
            stdin,
            lines: BufReader::with_capacity(1 << 20, stdout).lines(),
            next: 0,
        };
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "bench", "version": "1" } });
        let _server = client.ask("initialize", &params).await;
        client
            .say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
        client
    }

    async fn say(&mut self, message: &Value) {
        self.stdin
            .write_all(format!("{message}\n").as_bytes())
            .await
            .expect("written");
    }

    /// The answer to a request, as text: reading it is not part of what is measured.
    async fn ask(&mut self, method: &str, params: &Value) -> String {
        self.next += 1;
        let id = self.next;
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
        let mark = format!("\"id\":{id},");
        loop {
            let line = self.lines.next_line().await.expect("readable").expect("an answer");
            if line[..line.len().min(64)].contains(&mark) {
                return line;
            }
        }
    }

    /// Lists every tool, page by page; returns how many there are.
    async fn list(&mut self) -> (usize, f64) {
        let (mut count, mut milliseconds, mut params) = (0, 0.0, json!({}));
        loop {
            let begun = Instant::now();
            let page = self.ask("tools/list", &params).await;
            milliseconds += begun.elapsed().as_secs_f64() * 1e3;
            let page: Value = serde_json::from_str(&page).expect("JSON");
            count += page["result"]["tools"].as_array().expect("tools").len();
            match page["result"]["nextCursor"].as_str() {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return (count, milliseconds),
            }
        }
    }
}

/// Measures listing and searching.
pub(crate) async fn measure(dawn: &Path, agent: &Path, report: &mut Report) {
    let mut server = Command::new(agent)
        .args([
            "--raw-echo",
            "--tools",
            &(TOOLS_EACH - 1).to_string(),
            "--http",
            "127.0.0.1:0",
        ])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("an address");
    let url = line.split_whitespace().last().expect("an address").to_owned();
    let listen = "/ip4/127.0.0.1/udp/0/quic-v1";
    let home = Node::start(dawn, "home", None, listen).await;
    let lab = Node::start(dawn, "lab", Some(&home.ticket().await), listen).await;
    lab.configure(|config| {
        for at in 0..AGENTS {
            config.push_str(&format!("[agents.agent-{at:03}]\nurl = \"{url}\"\n"));
        }
    })
    .await;
    for at in 0..AGENTS {
        if at % 50 == 49 {
            home.sees(&format!("lab:agent-{at:03}")).await;
        }
    }
    // Both nodes have their own `memory`, too.
    let mut client = Client::start(home.command(&["mcp"])).await;
    let expected = AGENTS * TOOLS_EACH;
    for _ in 0..600 {
        if client.list().await.0 >= expected {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let mut listed = Vec::new();
    for _ in 0..RUNS {
        let (count, milliseconds) = client.list().await;
        assert!(count >= expected, "{count} tools of {expected}");
        listed.push(milliseconds);
    }
    let case = format!("{AGENTS} agents, {expected} tools");
    report.add("catalogue", &case, "list all", "ms", median(listed), &[], Some(20.0));
    let mut searching = Client::start(home.command(&["mcp", "--tools", "search"])).await;
    let mut found = Vec::new();
    for at in 0..RUNS {
        let query = [
            "export an invoice",
            "delete customer",
            "search the reports",
            "read_file",
        ][at % 4];
        let params = json!({ "name": "find_tools", "arguments": { "query": query } });
        let begun = Instant::now();
        let answer = searching.ask("tools/call", &params).await;
        found.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(answer.contains("inputSchema"), "{answer}");
    }
    report.add("catalogue", &case, "search", "ms", median(found), &[], Some(5.0));
    report.add("catalogue", &case, "client node", "MiB", home.resident(), &[], None);
    report.add("catalogue", &case, "agents' node", "MiB", lab.resident(), &[], None);
}
