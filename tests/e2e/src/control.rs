//! A real control plane, a process of `dawn control serve`, and clients that ask it as a device or with a token.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use dawn_control_api::challenge::{Challenge, Nonce};
use dawn_control_api::signature::{self, Headers, Parts};
use dawn_control_api::{CONTENT_DIGEST, ChallengeRequest, CreateNetwork, Info, InviteCode, Register, Scope, paths};
use dawn_identity::{
    Authority, CertificateChain, Keypair, NetworkId, NodeId, NodeName, Request, Role, Roles, Serial, UnixTime,
};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{Output, PATIENCE, dawn, eventually, http, run};

/// The time now.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// An answer: its status and its body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, null where it is no JSON.
    pub body: Value,
    /// Its headers, as text.
    pub headers: String,
}

impl Answer {
    /// The value, after checking that it is a success.
    #[must_use]
    pub fn value<T: DeserializeOwned>(self) -> T {
        assert!(self.status < 300, "{self:?}");
        serde_json::from_value(self.body).expect("what the API says")
    }

    /// Checks that it is this problem, with words.
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert!(self.headers.contains("application/problem+json"), "{self:?}");
        assert!(
            self.body["title"].as_str().is_some_and(|title| title.len() > 5),
            "{self:?}"
        );
        assert_eq!(self.body["status"], status, "{self:?}");
    }
}

/// A control plane: a data folder and, while it is up, a process.
#[derive(Debug)]
pub struct ControlPlane {
    folder: tempfile::TempDir,
    process: Option<Child>,
    /// Its address, `http://127.0.0.1:PORT`.
    pub url: String,
    /// An admin token with every scope.
    pub token: String,
}

impl ControlPlane {
    /// Starts one with SQLite, with these lines in its configuration.
    pub async fn start(configuration: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dawn-e2e-")
            .tempdir()
            .expect("a folder");
        let mut plane = Self {
            folder,
            process: None,
            url: String::new(),
            token: String::new(),
        };
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let text = format!(
            "listen = \"{address}\"\ndata = \"{}\"\n{configuration}",
            plane.folder.path().join("data").display()
        );
        std::fs::write(plane.file(), text).expect("written");
        plane.url = format!("http://{address}");
        plane.up().await;
        let made = plane
            .dawn(&["token", "create", "--name", "tests", "--all"])
            .await
            .success()
            .json();
        plane.token = made["token"].as_str().expect("a token").to_owned();
        plane
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("control.toml")
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(dawn());
        command
            .args(["--json", "control"])
            .args(args)
            .arg("--config")
            .arg(self.file());
        command.env_remove("DAWN_HOME");
        command
    }

    /// Runs `dawn control …` where it runs.
    pub async fn dawn(&self, args: &[&str]) -> Output {
        run(&mut self.command(args)).await
    }

    /// Starts its process and waits until it answers.
    pub async fn up(&mut self) {
        let mut process = self
            .command(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dawn starts");
        let mut said = BufReader::new(process.stdout.take().expect("piped")).lines();
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        self.process = Some(process);
        let url = format!("{}/readyz", self.url);
        eventually("the control plane is ready", async || {
            http()
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// SIGKILL, as a crash.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("it is up");
        process.kill().await.expect("killed");
    }

    /// Its bytes of resident memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let process = self.process.as_ref().and_then(Child::id).expect("it is up");
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("its memory");
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .expect("a number")
            * 1024
    }

    /// Asks with a token.
    pub async fn ask_with(&self, token: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = http().request(method, format!("{}{path}", self.url)).bearer_auth(token);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        answer(request).await
    }

    /// Asks with the token that has every scope.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.ask_with(&self.token, method, path, body).await
    }

    /// What it is.
    pub async fn info(&self) -> Info {
        answer(http().get(format!("{}{}", self.url, paths::INFO))).await.value()
    }

    /// A network that the test itself owns, authorised.
    pub async fn network(&self) -> Owned {
        let key = Keypair::from_seed(rand::random());
        let owned = Owned { key };
        let certificate = owned.issue(
            self.info().await.issuer,
            "control",
            Role::Issuer,
            Duration::from_secs(86_400),
        );
        let create = CreateNetwork {
            id: owned.id(),
            name: "tests".parse().expect("a name"),
            certificate: Some(certificate),
        };
        let body = serde_json::to_value(create).expect("JSON");
        let made = self.ask(Method::POST, paths::NETWORKS, Some(&body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        owned
    }

    /// An invite to a network.
    pub async fn invite(&self, network: &NetworkId, body: Value) -> InviteCode {
        let made: dawn_control_api::CreatedInvite = self
            .ask(Method::POST, &paths::invites(network), Some(&body))
            .await
            .value();
        made.code
    }
}

/// Sends a request and reads its answer.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let sent = tokio::time::timeout(PATIENCE, request.send()).await.expect("in time");
    let response = sent.expect("answered");
    let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
    let bytes = response.bytes().await.expect("a body");
    Answer {
        status,
        headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    }
}

/// A network whose key the test holds.
#[derive(Debug)]
pub struct Owned {
    /// The network key.
    pub key: Keypair,
}

impl Owned {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.key.network_id()
    }

    /// A certificate by the network key, valid from now on; for no time, it has expired an hour ago.
    #[must_use]
    pub fn issue(&self, node: NodeId, name: &str, role: Role, lifetime: Duration) -> CertificateChain {
        let begins = if lifetime.is_zero() {
            now() - Duration::from_secs(7_200)
        } else {
            now()
        };
        let request = Request {
            subject: node,
            name: name.parse().expect("a name"),
            roles: Roles::from(role),
            admitted_at: begins,
            not_before: begins,
            expires: begins + lifetime.max(Duration::from_secs(60)),
            serial: Serial::from_bytes(rand::random()),
        };
        let authority = Authority::Root { key: self.key.clone() };
        authority.issue(request, begins).expect("may issue")
    }
}

/// A device that the test plays.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its key.
    pub key: Keypair,
    url: String,
}

impl Client {
    /// One with a new key.
    #[must_use]
    pub fn new(plane: &ControlPlane) -> Self {
        Self {
            key: Keypair::from_seed(rand::random()),
            url: plane.url.clone(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.key.node_id()
    }

    /// The headers of a request that it signs at a time.
    #[must_use]
    pub fn sign_at(&self, method: &Method, path: &str, body: &[u8], at: UnixTime) -> Headers {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let parts = Parts {
            method: method.as_str(),
            authority: self.url.trim_start_matches("http://"),
            path,
            query,
            headers: &[],
            body,
        };
        signature::sign(&parts, &self.key, at, Nonce::from_bytes(rand::random())).expect("signed")
    }

    /// Sends a request with these headers, whatever they are.
    pub async fn send(&self, method: Method, path: &str, body: Vec<u8>, signed: &Headers) -> Answer {
        let mut request = http()
            .request(method, format!("{}{path}", self.url))
            .header(signature::SIGNATURE_INPUT, &signed.signature_input)
            .header(signature::SIGNATURE, &signed.signature);
        if let Some(digest) = &signed.content_digest {
            request = request.header(CONTENT_DIGEST, digest);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        answer(request).await
    }

    /// Asks, signed as it should be.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Answer {
        let body = body
            .map(|body| serde_json::to_vec(body).expect("JSON"))
            .unwrap_or_default();
        let signed = self.sign_at(&method, path, &body, now());
        self.send(method, path, body, &signed).await
    }

    /// Beats.
    pub async fn beat(&self, network: &NetworkId) -> Answer {
        let body = serde_json::json!({});
        self.ask(Method::POST, &paths::heartbeat(network, &self.node()), Some(&body))
            .await
    }

    /// Asks for a challenge under a name.
    pub async fn challenge(&self, network: &NetworkId, name: &str) -> Challenge {
        let name: NodeName = name.parse().expect("a name");
        let asked = self
            .ask(
                Method::POST,
                &paths::challenges(network),
                Some(&ChallengeRequest { name }),
            )
            .await;
        asked.value()
    }

    /// Registers, with an invite or a chain where it has one.
    pub async fn register(
        &self,
        network: &NetworkId,
        name: &str,
        invite: Option<InviteCode>,
        chain: Option<CertificateChain>,
    ) -> Answer {
        let challenge = self.challenge(network, name).await;
        let register = Register {
            signature: challenge.sign(&self.key),
            challenge,
            invite,
            chain,
            software: None,
            addresses: Vec::new(),
        };
        self.ask(Method::POST, &paths::devices(network), Some(&register)).await
    }
}
