//! A real control plane, a process of `dawn control serve`, and clients that ask it as a device or with a token.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use dawn_control_api::challenge::{Challenge, Nonce};
use dawn_control_api::signature::{self, Headers, Parts};
use dawn_control_api::{CONTENT_DIGEST, ChallengeRequest, CreateNetwork, InviteCode, Register, Scope, paths};
use dawn_identity::{
    Authority, CertificateChain, Keypair, NetworkId, NodeId, NodeName, Request, Role, Roles, Serial, UnixTime,
};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{PATIENCE, dawn, http, ready, run};

/// The time now.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked: method and path.
    pub asked: (String, String),
    /// The status.
    pub status: u16,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body, as it came.
    pub bytes: Vec<u8>,
    /// The body, null where it is no JSON.
    pub body: Value,
}

impl Answer {
    /// Its `Content-Type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        let kind = self.headers.get("content-type");
        kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default()
    }

    /// Itself, after checking its status.
    #[must_use]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The value, after checking that it is a success.
    #[must_use]
    pub fn value<T: DeserializeOwned>(self) -> T {
        assert!(self.status < 300, "{self:?}");
        serde_json::from_value(self.body).expect("what the API says")
    }
}

/// A control plane: a data folder and, while it is up, a process.
#[derive(Debug)]
pub struct ControlPlane {
    folder: tempfile::TempDir,
    process: Option<Child>,
    listen: String,
    /// Its address, `http://127.0.0.1:PORT`.
    pub url: String,
    /// The key with which it issues.
    pub issuer: String,
    /// An admin token with every scope.
    pub token: String,
}

impl ControlPlane {
    /// One with these lines in its configuration; it is not up yet.
    #[must_use]
    pub fn new(configuration: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dawn-e2e-")
            .tempdir()
            .expect("a folder");
        let text = format!("data = \"{}\"\n{configuration}", folder.path().join("data").display());
        std::fs::write(folder.path().join("control.toml"), text).expect("written");
        Self {
            folder,
            process: None,
            listen: "127.0.0.1:0".to_owned(),
            url: String::new(),
            issuer: String::new(),
            token: String::new(),
        }
    }

    /// Starts one with SQLite, and makes a token.
    pub async fn start(configuration: &str) -> Self {
        let mut plane = Self::new(configuration);
        plane.up().await;
        let mut args = vec!["token", "create", "tests"];
        for scope in Scope::ALL {
            args.extend(["--scope", scope.as_str()]);
        }
        plane.token = plane.said(&args).await["token"].as_str().expect("a token").to_owned();
        plane
    }

    /// `dawn control VERB` of this one.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(dawn());
        command.args(["--json", "control"]).args(args);
        command.arg("--config").arg(self.folder.path().join("control.toml"));
        command.env_remove("DAWN_HOME");
        command
    }

    /// What `dawn control VERB` says.
    pub async fn said(&self, args: &[&str]) -> Value {
        run(&mut self.command(args)).await.success().json()
    }

    /// Starts its process and waits until it is ready; from the second time on at the same address.
    pub async fn up(&mut self) {
        let mut process = self
            .command(&["serve", "--listen", &self.listen])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dawn starts");
        let mut said = BufReader::new(process.stdout.take().expect("piped")).lines();
        let ready = tokio::time::timeout(PATIENCE, ready(&mut said)).await;
        let ready = ready.expect("ready in time").expect("it ends before it is ready");
        let text = |name: &str| ready[name].as_str().expect("told").to_owned();
        (self.url, self.issuer, self.listen) = (text("url"), text("issuer"), text("listen"));
        self.process = Some(process);
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    }

    /// SIGKILL, as a crash.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("it is up");
        process.kill().await.expect("killed");
    }

    /// Ends it as an operator does, and waits until it has.
    pub async fn down(&mut self) {
        let mut process = self.process.take().expect("it is up");
        let id = nix::unistd::Pid::from_raw(process.id().expect("runs").cast_signed());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        let status = tokio::time::timeout(PATIENCE, process.wait()).await;
        assert!(status.expect("ends in time").expect("ends").success());
    }

    /// Its bytes of resident memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let process = self.process.as_ref().and_then(Child::id).expect("it is up");
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.expect("its memory").trim().trim_end_matches("kB").trim();
        kilobytes.parse::<u64>().expect("a number") * 1024
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Asks with a token.
    pub async fn ask_with(&self, token: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = http()
            .request(method.clone(), format!("{}{path}", self.url))
            .bearer_auth(token);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        answer(&method, path, request).await
    }

    /// Asks with the token that has every scope.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.ask_with(&self.token, method, path, body).await
    }

    /// A network that the test itself owns, authorised.
    pub async fn network(&self) -> Owned {
        let owned = Owned::random();
        let issuer = self.issuer.parse().expect("a key");
        let certificate = owned.issue(issuer, "control", Role::Issuer, now(), Duration::from_secs(86_400));
        let create = CreateNetwork {
            id: owned.id(),
            name: "tests".parse().expect("a name"),
            certificate: Some(certificate),
        };
        let body = serde_json::to_value(create).expect("JSON");
        let _made = self.ask(Method::POST, paths::NETWORKS, Some(&body)).await.is(201);
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
pub async fn answer(method: &Method, path: &str, request: reqwest::RequestBuilder) -> Answer {
    let sent = tokio::time::timeout(PATIENCE, request.send()).await.expect("in time");
    let response = sent.expect("answered");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.expect("a body").to_vec();
    Answer {
        asked: (method.to_string(), path.to_owned()),
        status,
        headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        bytes,
    }
}

/// A network whose key the test holds.
#[derive(Debug)]
pub struct Owned {
    /// The network key.
    pub key: Keypair,
}

impl Owned {
    /// One with a new key.
    #[must_use]
    pub fn random() -> Self {
        Self {
            key: Keypair::from_seed(rand::random()),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.key.network_id()
    }

    /// A certificate by the network key, valid from then on.
    #[must_use]
    pub fn issue(
        &self,
        node: NodeId,
        name: &str,
        role: Role,
        begins: UnixTime,
        lifetime: Duration,
    ) -> CertificateChain {
        let request = Request {
            subject: node,
            name: name.parse().expect("a name"),
            roles: Roles::from(role),
            admitted_at: begins,
            not_before: begins,
            expires: begins + lifetime,
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
            .request(method.clone(), format!("{}{path}", self.url))
            .header(signature::SIGNATURE_INPUT, &signed.signature_input)
            .header(signature::SIGNATURE, &signed.signature);
        if let Some(digest) = &signed.content_digest {
            request = request.header(CONTENT_DIGEST, digest);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body);
        }
        answer(&method, path, request).await
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
