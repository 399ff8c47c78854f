//! The same tool call on every way.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::network::{Node, resident};
use crate::peers::{Mcpmesh, Pair, Programs, Proxy};
use crate::report::Report;

const SIZES: [(&str, usize); 3] = [("64 B", 64), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];
const IN_FLIGHT: [usize; 3] = [1, 32, 128];
/// How long all rest before what they still hold is measured.
const REST: Duration = Duration::from_secs(10);
/// How long another program may take for one case.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether all is done to train the compiler and not to be measured.
static IS_TRAINING: AtomicBool = AtomicBool::new(false);

/// Everything is done as always, for a short time each: what a build is to learn from.
pub(crate) fn train() {
    IS_TRAINING.store(true, Ordering::Relaxed);
}

fn is_training() -> bool {
    IS_TRAINING.load(Ordering::Relaxed)
}

/// How long one case is measured, after a warm-up of a quarter of it.
fn span() -> Duration {
    Duration::from_millis(if is_training() { 200 } else { 1500 })
}

/// What one case gave.
pub(crate) struct Figures {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) per_second: f64,
}

pub(crate) fn figures(mut latencies: Vec<f64>, elapsed: Duration) -> Figures {
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] * 1e3;
    Figures {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
    }
}

pub(crate) fn request(id: u64, tool: &str, text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{text}"}}}}}}"#
    )
}

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A client over standard I/O: one process, many requests in flight.
pub(crate) struct Stdio0 {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    buffer: Vec<u8>,
}

impl Stdio0 {
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut client = Self {
            child,
            stdin,
            stdout,
            buffer: Vec::new(),
        };
        client.write(&[INITIALIZE.to_owned()]).await;
        client.read(&mut |_| {}).await;
        client.write(&[INITIALIZED.to_owned()]).await;
        client
    }

    async fn write(&mut self, lines: &[String]) {
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        self.stdin.write_all(&bytes).await.expect("written");
        self.stdin.flush().await.expect("flushed");
    }

    /// Reads until at least one line came; hands each line over and returns how many.
    async fn read(&mut self, line: &mut impl FnMut(&[u8])) -> usize {
        let mut seen = 0;
        let mut scanned = 0;
        while seen == 0 {
            self.buffer.reserve(256 << 10);
            assert!(
                self.stdout.read_buf(&mut self.buffer).await.expect("readable") > 0,
                "the server ended"
            );
            let mut start = 0;
            while let Some(at) = self.buffer[scanned..].iter().position(|byte| *byte == b'\n') {
                line(&self.buffer[start..scanned + at]);
                start = scanned + at + 1;
                scanned = start;
                seen += 1;
            }
            scanned = self.buffer.len() - start;
            self.buffer.drain(..start);
        }
        seen
    }

    pub(crate) async fn measure(&mut self, size: usize, in_flight: usize) -> Figures {
        let text = "x".repeat(size);
        let mut latencies = Vec::new();
        let start = Instant::now();
        let mut counted_from = None;
        let mut next = 1_u64;
        let mut open: std::collections::HashMap<u64, Instant> = std::collections::HashMap::new();
        let mut pending: Vec<String> = Vec::new();
        for _ in 0..in_flight {
            open.insert(next, Instant::now());
            pending.push(request(next, "echo", &text));
            next += 1;
        }
        loop {
            let mut answered = Vec::new();
            self.exchange(&pending, 1, &mut |id| answered.push(id)).await;
            let now = Instant::now();
            if counted_from.is_none() && now - start > span() / 4 {
                counted_from = Some(now);
                latencies.clear();
            }
            pending = Vec::with_capacity(answered.len());
            for id in answered {
                latencies.push((now - open.remove(&id).expect("asked once")).as_secs_f64());
                open.insert(next, Instant::now());
                pending.push(request(next, "echo", &text));
                next += 1;
            }
            if let Some(from) = counted_from
                && now - from > span()
            {
                let elapsed = now - from;
                let rest = open.len() - pending.len();
                self.exchange(&[], rest, &mut |_| {}).await;
                return figures(latencies, elapsed);
            }
        }
    }

    /// Writes lines while it reads, until at least `want` answers came.
    async fn exchange(&mut self, lines: &[String], want: usize, answer: &mut impl FnMut(u64)) {
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        let mut written = 0;
        let mut came = 0;
        let mut scanned = 0;
        while came < want || written < bytes.len() {
            self.buffer.reserve(256 << 10);
            tokio::select! {
                sent = self.stdin.write(&bytes[written..]), if written < bytes.len() => written += sent.expect("written"),
                read = self.stdout.read_buf(&mut self.buffer) => {
                    assert!(read.expect("readable") > 0, "the server ended");
                    let mut start = 0;
                    while let Some(at) = memchr(&self.buffer[scanned..]) {
                        answer(id_of(&self.buffer[start..scanned + at]));
                        start = scanned + at + 1;
                        scanned = start;
                        came += 1;
                    }
                    self.buffer.drain(..start);
                    scanned = self.buffer.len();
                }
            }
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// The number after `"id":` near the start of an answer.
pub(crate) fn id_of(line: &[u8]) -> u64 {
    let head = &line[..line.len().min(64)];
    let at = head
        .windows(5)
        .position(|window| window == b"\"id\":")
        .expect("an id near the start")
        + 5;
    let digits = head[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// A client over Streamable HTTP: a connection for each request in flight.
pub(crate) struct Http {
    authority: String,
    path: String,
    token: Option<String>,
    session: Option<String>,
    tool: &'static str,
}

impl Http {
    pub(crate) async fn open(url: &str, token: Option<&str>) -> Self {
        let rest = url.strip_prefix("http://").expect("an http address");
        let (authority, path) = rest.split_once('/').expect("a path");
        let mut client = Self {
            authority: authority.into(),
            path: format!("/{path}"),
            token: token.map(str::to_owned),
            session: None,
            tool: "echo",
        };
        let mut connection = client.connect().await;
        let (session, _) = client.post(&mut connection, INITIALIZE.to_owned()).await;
        client.session = session;
        let _accepted = client.post(&mut connection, INITIALIZED.to_owned()).await;
        client
    }

    /// The same, calling the tool under another name.
    fn calling(self, tool: &'static str) -> Self {
        Self { tool, ..self }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = tokio::net::TcpStream::connect(&self.authority)
            .await
            .expect("connected");
        stream.set_nodelay(true).expect("no delay");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(async move { drop(connection.await) });
        sender
    }

    async fn post(&self, connection: &mut SendRequest<Full<Bytes>>, body: String) -> (Option<String>, Bytes) {
        let mut builder = hyper::Request::post(&self.path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(token) = &self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        if let Some(session) = &self.session {
            builder = builder
                .header("mcp-session-id", session)
                .header("mcp-protocol-version", "2025-11-25");
        }
        connection.ready().await.expect("an open connection");
        let response = connection
            .send_request(builder.body(Full::new(Bytes::from(body))).expect("a request"))
            .await
            .expect("answered");
        assert!(response.status().is_success(), "{}", response.status());
        let session = response
            .headers()
            .get("mcp-session-id")
            .map(|value| value.to_str().expect("text").to_owned());
        (
            session,
            response.into_body().collect().await.expect("a body").to_bytes(),
        )
    }

    pub(crate) async fn measure(&self, size: usize, in_flight: usize) -> Figures {
        let text = "x".repeat(size);
        let begun = Instant::now();
        let mut workers = Vec::new();
        for worker in 0..in_flight as u64 {
            let text = &text;
            workers.push(async move {
                let mut connection = self.connect().await;
                let mut latencies = Vec::new();
                let mut id = (worker + 1) * 1_000_000;
                loop {
                    id += 1;
                    let sent = Instant::now();
                    let (_, body) = self.post(&mut connection, request(id, self.tool, text)).await;
                    assert!(body.len() > size, "{}", String::from_utf8_lossy(&body));
                    let since = begun.elapsed();
                    if since > span() / 4 {
                        latencies.push(sent.elapsed().as_secs_f64());
                    }
                    if since > span() / 4 + span() {
                        return latencies;
                    }
                }
            });
        }
        let parts = join_all(workers).await;
        figures(parts.into_iter().flatten().collect(), span())
    }
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut open = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => open = true,
                }
            }
        }
        if open {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// Adds the rows of a way; `peers` are others that did the same.
fn add(
    report: &mut Report,
    way: &str,
    size: (&str, usize),
    in_flight: usize,
    ours: &Figures,
    peers: &[(&str, &Figures)],
) {
    let of = |metric: fn(&Figures) -> f64| -> Vec<(&str, f64)> {
        peers.iter().map(|(name, figures)| (*name, metric(figures))).collect()
    };
    let case = format!("{way}, {}, {in_flight} in flight", size.0);
    let promised = way.contains("two nodes") && size.1 == 64;
    let p50 = (promised && in_flight == 1).then_some(0.3);
    let p99 = (promised && in_flight == 32).then_some(5.0);
    let rate = (promised && in_flight == 32).then_some(20_000.0);
    report.add(
        "calls",
        &case,
        "p50",
        "ms",
        ours.p50_ms,
        &of(|figures| figures.p50_ms),
        p50,
    );
    report.add(
        "calls",
        &case,
        "p99",
        "ms",
        ours.p99_ms,
        &of(|figures| figures.p99_ms),
        p99,
    );
    report.add(
        "calls",
        &case,
        "rate",
        "call/s",
        ours.per_second,
        &of(|figures| figures.per_second),
        rate,
    );
    let megabytes = |per_second: f64| per_second * size.1 as f64 / 1e6;
    let of_peers: Vec<(&str, f64)> = peers
        .iter()
        .map(|(name, figures)| (*name, megabytes(figures.per_second)))
        .collect();
    report.add(
        "calls",
        &case,
        "throughput",
        "MB/s",
        megabytes(ours.per_second),
        &of_peers,
        None,
    );
}

/// What is held when the calls are over, and after a rest.
type Held = [Pair; 2];

/// Takes it, of whatever `resident` looks at, which goes on running meanwhile.
async fn held(resident: impl Fn() -> Pair) -> Held {
    let after = resident();
    tokio::time::sleep(REST).await;
    [after, resident()]
}

/// The rows of what is held.
fn add_held(report: &mut Report, way: &str, size: (&str, usize), ours: &Held, peer: Option<&Held>) {
    for (at, when) in ["after", "10 s after"].into_iter().enumerate() {
        let case = format!("{when} {way}, {}", size.0);
        let of = |end: fn(&Pair) -> f64| -> Vec<(&str, f64)> {
            peer.map(|held| ("mcpmesh", end(&held[at]))).into_iter().collect()
        };
        let peers = [of(|pair| pair.client), of(|pair| pair.agent)];
        report.add("calls", &case, "client node", "MiB", ours[at].client, &peers[0], None);
        report.add("calls", &case, "agent node", "MiB", ours[at].agent, &peers[1], None);
    }
}

/// The same through mcpmesh. Its daemons were held since the last time and may have lost each other: it has two tries.
async fn beside_mcpmesh(mesh: &Mcpmesh, size: (&str, usize), in_flight: usize) -> (Option<Figures>, Option<Held>) {
    mesh.run_daemons(true);
    let mut figures = None;
    for _ in 0..2 {
        let measuring = async {
            let mut client = Stdio0::start(mesh.connect()).await;
            client.measure(size.1, in_flight).await
        };
        figures = tokio::time::timeout(PATIENCE, measuring).await.ok();
        if figures.is_some() {
            break;
        }
    }
    let is_last = in_flight == IN_FLIGHT[2] && figures.is_some();
    let held = match is_last {
        true => Some(held(|| mesh.resident()).await),
        false => None,
    };
    mesh.run_daemons(false);
    if figures.is_none() {
        println!("mcpmesh did not finish with {} and {in_flight} in flight", size.0);
    }
    (figures, held)
}

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// A node by itself, with the agent `echo`.
async fn alone(dawn: &Path, agent: &str) -> Node {
    let lab = Node::start(dawn, "lab", None, QUIC).await;
    add_echo(&lab, agent).await;
    lab.sees("lab:echo").await;
    lab
}

/// Two nodes, one of them with the agent `echo`.
struct Two {
    home: Node,
    lab: Node,
}

impl Two {
    async fn start(dawn: &Path, agent: &str, listen: &str) -> Self {
        let home = Node::start(dawn, "home", None, listen).await;
        let lab = Node::start(dawn, "lab", Some(&home.ticket().await), listen).await;
        add_echo(&lab, agent).await;
        home.sees("lab:echo").await;
        Self { home, lab }
    }

    fn resident(&self) -> Pair {
        Pair {
            client: self.home.resident(),
            agent: self.lab.resident(),
        }
    }
}

async fn add_echo(node: &Node, agent: &str) {
    let _added = node.run(&["agent", "add", "echo", "--", agent, "--raw-echo"]).await;
}

/// Measures every way, size and number in flight.
pub(crate) async fn measure(dawn: &Path, agent: &Path, programs: &Programs, report: &mut Report) {
    let mut http_server = Command::new(agent)
        .args(["--raw-echo", "--http", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(http_server.stdout.take().expect("piped")));
    let line = lines.next_line().await.expect("readable").expect("an address");
    let url = line.split_whitespace().last().expect("an address").to_owned();
    let agent_path = agent.to_str().expect("a path");
    let mesh = Mcpmesh::start(programs, agent_path).await;
    let proxies = Proxy::start_all(programs, agent_path).await;
    // Who is not measured does not run.
    mesh.iter().for_each(|mesh| mesh.run_daemons(false));
    proxies.iter().for_each(|proxy| proxy.run(false));
    // Each way has nodes of its own, as each of the others does one kind of work.
    let stdio_one = alone(dawn, agent_path).await;
    let http_one = alone(dawn, agent_path).await;
    for listen in [QUIC, TCP] {
        let transport = if listen == QUIC { "QUIC" } else { "TCP" };
        let over_stdio = Two::start(dawn, agent_path, listen).await;
        let over_http = Two::start(dawn, agent_path, listen).await;
        for size in SIZES {
            for in_flight in IN_FLIGHT {
                let mut command = Command::new(agent);
                command.arg("--raw-echo");
                let direct = Stdio0::start(command).await.measure(size.1, in_flight).await;
                let direct_http = Http::open(&url, None).await.measure(size.1, in_flight).await;
                if transport == "QUIC" {
                    let mut one = Stdio0::start(stdio_one.command(&["mcp", "lab:echo"])).await;
                    add(
                        report,
                        "stdio, one node",
                        size,
                        in_flight,
                        &one.measure(size.1, in_flight).await,
                        &[("direct", &direct)],
                    );
                    let mut theirs = Vec::new();
                    for proxy in &proxies {
                        proxy.run(true);
                        let measuring = async {
                            let client = Http::open(&proxy.url, None).await.calling(proxy.tool);
                            client.measure(size.1, in_flight).await
                        };
                        match tokio::time::timeout(PATIENCE, measuring).await {
                            Ok(figures) => theirs.push((proxy.name, figures, proxy.resident())),
                            Err(_) => println!(
                                "{} did not finish with {} and {in_flight} in flight",
                                proxy.name, size.0
                            ),
                        }
                        proxy.run(false);
                    }
                    let mut beside = vec![("direct", &direct_http)];
                    beside.extend(theirs.iter().map(|(name, figures, _)| (*name, figures)));
                    let one = Http::open(&format!("{}/mcp/lab/echo", http_one.api), Some(&http_one.token)).await;
                    add(
                        report,
                        "HTTP, one node",
                        size,
                        in_flight,
                        &one.measure(size.1, in_flight).await,
                        &beside,
                    );
                    if in_flight == IN_FLIGHT[2] {
                        let beside: Vec<(&str, f64)> = theirs.iter().map(|(name, _, held)| (*name, *held)).collect();
                        let case = format!("after HTTP, one node, {}", size.0);
                        report.add("calls", &case, "the node", "MiB", http_one.resident(), &beside, None);
                    }
                }
                let (theirs, they_hold) = match &mesh {
                    Some(mesh) => beside_mcpmesh(mesh, size, in_flight).await,
                    None => (None, None),
                };
                let mut beside = vec![("direct", &direct)];
                beside.extend(theirs.iter().map(|figures| ("mcpmesh", figures)));
                let mut two = Stdio0::start(over_stdio.home.command(&["mcp", "lab:echo"])).await;
                add(
                    report,
                    &format!("stdio, two nodes, {transport}"),
                    size,
                    in_flight,
                    &two.measure(size.1, in_flight).await,
                    &beside,
                );
                if in_flight == IN_FLIGHT[2] {
                    let bridge = two.child.id().map_or(f64::NAN, resident);
                    let way = format!("stdio, two nodes, {transport}");
                    let held = held(|| over_stdio.resident()).await;
                    add_held(report, &way, size, &held, they_hold.as_ref());
                    report.add(
                        "calls",
                        &format!("after {way}, {}", size.0),
                        "dawn mcp",
                        "MiB",
                        bridge,
                        &[],
                        None,
                    );
                }
                drop(two);
                let home = &over_http.home;
                let two = Http::open(&format!("{}/mcp/lab/echo", home.api), Some(&home.token)).await;
                add(
                    report,
                    &format!("HTTP, two nodes, {transport}"),
                    size,
                    in_flight,
                    &two.measure(size.1, in_flight).await,
                    &[("direct", &direct_http)],
                );
                if in_flight == IN_FLIGHT[2] {
                    let way = format!("HTTP, two nodes, {transport}");
                    add_held(report, &way, size, &held(|| over_http.resident()).await, None);
                }
            }
        }
    }
}
