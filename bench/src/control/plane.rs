//! A control plane that runs, and connections on which devices ask it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

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

use super::DEVICES;
use super::postgres::Postgres;

/// A control plane that runs.
pub(super) struct Plane {
    _process: Child,
    _data: tempfile::TempDir,
    _server: Option<Postgres>,
    pub(super) authority: String,
    pub(super) network: NetworkId,
    /// Lets anybody in.
    pub(super) code: String,
    /// Allows to change documents.
    token: String,
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

pub(super) fn device(number: usize) -> Keypair {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Keypair::from_seed(seed)
}

impl Plane {
    pub(super) async fn start(dawn: &Path, server: Option<Postgres>) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        // Ten thousand devices at one address, which register over few connections and then wait for their turn.
        let rate = "{ burst = 1000000, per_second = 1000000.0 }";
        let config = data.path().join("control.toml");
        let rates = format!("per_address = {rate}\nper_device = {rate}\nper_token = {rate}");
        let limits = format!("[limits]\nhead = \"10m\"\nstranger = \"10m\"\n{rates}\n");
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
        let (url, issuer) = (text_of(&ready, "url"), text_of(&ready, "issuer"));
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
        let token = ask(&["token", "create", "bench", "--scope", "policy:write"]).await;
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
            code: text_of(&invite, "code"),
            token: text_of(&token, "token"),
        };
        let mut line = Line::open(&plane.authority).await;
        let path = format!("/v1/networks/{network}/issuer");
        line.plain("PUT", &path, &json!({ "certificate": chain })).await;
        plane
    }

    /// Changes a document, of which all devices are to hear.
    pub(super) async fn change(&self, line: &mut Line, number: usize) {
        let address = format!("/ip4/192.0.2.1/udp/{}/quic-v1", 1024 + number);
        let relay = json!({ "node": device(0).node_id(), "addresses": [address] });
        let request = Request::builder()
            .method("PUT")
            .uri(format!("/v1/networks/{}/relays", self.network))
            .header("host", &self.authority)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(json!({ "relays": [relay] }).to_string())))
            .expect("a request");
        line.send(request).await;
    }

    /// How many wait for changes.
    pub(super) async fn waiting(&self, line: &mut Line) -> usize {
        let request = Request::builder()
            .uri("/metrics")
            .header("host", &self.authority)
            .body(Full::default())
            .expect("a request");
        let text = line.bytes(request).await;
        let text = String::from_utf8(text.to_vec()).expect("a text");
        let found = text.lines().find_map(|line| line.strip_prefix("dawn_control_waiting "));
        found.expect("how many wait").trim().parse().expect("a number")
    }
}

fn text_of(value: &Value, key: &str) -> String {
    value[key].as_str().expect("a text").to_owned()
}

/// A connection.
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Line {
    pub(super) async fn open(authority: &str) -> Self {
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
        serde_json::from_slice(&self.bytes(request).await).expect("JSON")
    }

    async fn bytes(&mut self, request: Request<Full<Bytes>>) -> Bytes {
        self.sender.ready().await.expect("a connection");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
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

    /// What changed since a number; waits for it where nothing has.
    pub(super) async fn changes(&mut self, key: &Keypair, network: NetworkId, since: u64) -> Bytes {
        let (path, query) = (
            format!("/v1/networks/{network}/changes"),
            format!("since={since}&wait=55"),
        );
        let parts = Parts {
            method: "GET",
            authority: &self.authority,
            path: &path,
            query: Some(&query),
            headers: &[],
            body: &[],
        };
        let headers = sign(&parts, key, now(), Nonce::from_bytes(rand::random())).expect("signed");
        let request = Request::builder()
            .uri(format!("{path}?{query}"))
            .header("host", &self.authority)
            .header("signature-input", headers.signature_input)
            .header("signature", headers.signature)
            .body(Full::default())
            .expect("a request");
        self.bytes(request).await
    }

    pub(super) async fn register(&mut self, network: NetworkId, number: usize, code: &str) {
        let key = device(number);
        let base = format!("/v1/networks/{network}");
        let asked = json!({ "name": format!("device-{number}") });
        let challenge = self.signed(&key, &format!("{base}/challenges"), &asked).await;
        let challenge: Challenge = serde_json::from_value(challenge).expect("a challenge");
        let signature = challenge.sign(&key);
        let body = json!({ "challenge": challenge, "signature": signature, "invite": code });
        self.signed(&key, &format!("{base}/devices"), &body).await;
    }

    pub(super) async fn beat(&mut self, network: NetworkId, number: usize) {
        let key = device(number);
        let path = format!("/v1/networks/{network}/devices/{}/heartbeat", key.node_id());
        self.signed(&key, &path, &json!({})).await;
    }
}
