//! The control plane on SQLite and on PostgreSQL: ten thousand devices register, beat every 30 s, and ask as fast as they
//! can. All processes share this machine, those that stand for the devices too.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dawn_control_api::challenge::{Challenge, Nonce};
use dawn_control_api::signature::{Parts, sign};
use dawn_identity::{Authority, Keypair, NetworkId, Request as Wanted, Role, Roles, Serial, UnixTime};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::report::Report;

#[path = "../../crates/control/tests/common/postgres.rs"]
mod postgres;

use postgres::Postgres;

/// Devices.
const DEVICES: usize = 10_000;
/// Connections that they share.
const CONNECTIONS: usize = 64;
/// Between two beats of a device.
const BEAT: Duration = Duration::from_secs(30);
/// How long as many beats as can be are sent.
const FULL: Duration = Duration::from_secs(10);

/// A control plane that runs.
struct Plane {
    _process: Child,
    _data: tempfile::TempDir,
    _server: Option<Postgres>,
    authority: String,
    network: NetworkId,
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn device(number: usize) -> Keypair {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Keypair::from_seed(seed)
}

impl Plane {
    async fn start(dawn: &Path, server: Option<Postgres>) -> (Self, String) {
        let data = tempfile::tempdir().expect("a folder");
        // Ten thousand devices at one address.
        let rate = "{ burst = 1000000, per_second = 1000000.0 }";
        let config = data.path().join("control.toml");
        let limits = format!("[limits]\nper_address = {rate}\nper_device = {rate}\nper_token = {rate}\n");
        std::fs::write(&config, limits).expect("a file");
        let place = |command: &mut Command| {
            command.args(["--json", "control"]);
        };
        let mut command = Command::new(dawn);
        place(&mut command);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(data.path());
        if let Some(server) = &server {
            command.args(["--database", &server.url("postgres")]);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dawn runs");
        let mut said = BufReader::new(process.stdout.take().expect("piped")).lines();
        let ready = said.next_line().await.expect("readable").expect("it is ready");
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        let text = |key: &str| ready[key].as_str().expect("a text").to_owned();
        let (url, issuer) = (text("url"), text("issuer"));
        let root = Keypair::from_seed([1; 32]);
        let network = root.network_id();
        let ask = async |args: &[&str]| -> Value {
            let mut command = Command::new(dawn);
            place(&mut command);
            let output = command
                .args(args)
                .arg("--data")
                .arg(data.path())
                .output()
                .await
                .expect("dawn runs");
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice(&output.stdout).expect("JSON")
        };
        ask(&["network", "add", &network.to_string(), "--name", "bench"]).await;
        let uses = DEVICES.to_string();
        let invite = ask(&["invite", "create", "--uses", &uses]).await;
        let authority = url.split_once("://").expect("a URL").1.to_owned();
        let chain = Authority::Root { key: root }
            .issue(
                Wanted {
                    subject: issuer.parse().expect("a key"),
                    name: "control".parse().expect("a name"),
                    roles: Roles::from(Role::Issuer),
                    admitted_at: now(),
                    not_before: now(),
                    expires: now() + Duration::from_secs(86_400),
                    serial: Serial::from_bytes([1; 16]),
                },
                now(),
            )
            .expect("a certificate");
        let plane = Self {
            _process: process,
            _data: data,
            _server: server,
            authority,
            network,
        };
        let mut line = Line::open(&plane.authority).await;
        let path = format!("/v1/networks/{network}/issuer");
        line.plain("PUT", &path, &json!({ "certificate": chain })).await;
        (plane, invite["code"].as_str().expect("a code").to_owned())
    }
}

/// A connection.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Line {
    async fn open(authority: &str) -> Self {
        let stream = TcpStream::connect(authority).await.expect("connected");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        Self {
            sender,
            authority: authority.to_owned(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Value {
        self.sender.ready().await.expect("a connection");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&body).expect("JSON");
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    async fn plain(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        self.send(request).await
    }

    async fn signed(&mut self, key: &Keypair, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let parts = Parts {
            method: "POST",
            authority: &self.authority,
            path,
            query: None,
            headers: &[],
            body: body.as_bytes(),
        };
        let headers = sign(&parts, key, now(), Nonce::from_bytes(rand::random())).expect("signed");
        let request = Request::builder()
            .method("POST")
            .uri(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("content-digest", headers.content_digest.expect("a body"))
            .header("signature-input", headers.signature_input)
            .header("signature", headers.signature)
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        self.send(request).await
    }

    async fn register(&mut self, network: NetworkId, number: usize, code: &str) {
        let key = device(number);
        let base = format!("/v1/networks/{network}");
        let asked = json!({ "name": format!("device-{number}") });
        let challenge = self.signed(&key, &format!("{base}/challenges"), &asked).await;
        let challenge: Challenge = serde_json::from_value(challenge).expect("a challenge");
        let signature = challenge.sign(&key);
        let body = json!({ "challenge": challenge, "signature": signature, "invite": code });
        self.signed(&key, &format!("{base}/devices"), &body).await;
    }

    async fn beat(&mut self, network: NetworkId, number: usize) {
        let key = device(number);
        let path = format!("/v1/networks/{network}/devices/{}/heartbeat", key.node_id());
        self.signed(&key, &path, &json!({})).await;
    }
}

fn percentile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share) as usize]
}

/// Measures both databases.
pub(crate) async fn measure(dawn: &Path, train: bool, report: &mut Report) {
    database(dawn, "SQLite", None, train, report).await;
    match Postgres::start() {
        Some(server) => database(dawn, "PostgreSQL", Some(server), train, report).await,
        None => println!("control: PostgreSQL is left out: it is not installed"),
    }
}

async fn database(dawn: &Path, name: &str, server: Option<Postgres>, train: bool, report: &mut Report) {
    let devices = if train { DEVICES / 20 } else { DEVICES };
    let (plane, code) = Plane::start(dawn, server).await;
    let (network, code) = (plane.network, Arc::new(code));
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        lines.push(Line::open(&plane.authority).await);
    }

    let begun = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let registering = lines.into_iter().map(|mut line| {
        let (next, code) = (Arc::clone(&next), Arc::clone(&code));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= devices {
                    return line;
                }
                line.register(network, number, &code).await;
            }
        })
    });
    let mut lines = Vec::new();
    for done in futures::future::join_all(registering).await {
        lines.push(done.expect("a task"));
    }
    let rate = devices as f64 / begun.elapsed().as_secs_f64();
    report.add(
        "control",
        &format!("{name}, registrations with an invite"),
        "rate",
        "/s",
        rate,
        &[],
        None,
    );

    // Each device beats at its own time within the 30 s, whatever became of the beats of others: who waits, waits since
    // its time had come.
    let over = if train { Duration::from_secs(2) } else { BEAT + BEAT };
    let begun = tokio::time::Instant::now();
    let gap = BEAT.as_secs_f64() / devices as f64;
    let all = (over.as_secs_f64() / gap) as usize;
    let beating = lines.into_iter().enumerate().map(|(place, mut line)| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            for number in (place..all).step_by(CONNECTIONS) {
                let due = begun + Duration::from_secs_f64(number as f64 * gap);
                tokio::time::sleep_until(due).await;
                // The timer of the runtime counts whole milliseconds: its lateness is not the control plane's.
                let sent = tokio::time::Instant::now().max(due);
                line.beat(network, number % devices).await;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            (line, times)
        })
    });
    let (mut lines, mut times) = (Vec::new(), Vec::new());
    for done in futures::future::join_all(beating).await {
        let (line, more) = done.expect("a task");
        lines.push(line);
        times.extend(more);
    }
    let case = format!("{name}, {devices} devices beat every 30 s");
    report.add("control", &case, "p50", "ms", percentile(&mut times, 0.5), &[], None);
    report.add(
        "control",
        &case,
        "p99",
        "ms",
        percentile(&mut times, 0.99),
        &[],
        Some(20.0),
    );

    let until = Instant::now() + if train { Duration::from_secs(1) } else { FULL };
    let begun = Instant::now();
    let asking = lines.into_iter().enumerate().map(|(place, mut line)| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            let mut number = place;
            while Instant::now() < until {
                let sent = Instant::now();
                line.beat(network, number % devices).await;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
                number += CONNECTIONS;
            }
            times
        })
    });
    let mut times = Vec::new();
    for done in futures::future::join_all(asking).await {
        times.extend(done.expect("a task"));
    }
    let case = format!("{name}, beats at full speed, {CONNECTIONS} at once");
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    report.add("control", &case, "rate", "/s", rate, &[], None);
    report.add("control", &case, "p99", "ms", percentile(&mut times, 0.99), &[], None);
}
