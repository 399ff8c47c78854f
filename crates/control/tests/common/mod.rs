//! A control plane of its own for each test, on SQLite or on a real PostgreSQL server, and clients that hold every answer
//! against the OpenAPI document.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
    missing_debug_implementations,
    reason = "not every test uses everything"
)]

pub mod client;
pub mod conform;
pub mod postgres;

use std::time::Duration;

use dawn_control::config::{Config, Limits, Rate};
use dawn_control::server::Server;
use dawn_identity::{Authority, CertificateChain, Keypair, NetworkId, NodeId, Request, Role, Roles, Serial, UnixTime};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use client::{Asked, Client, Device};
pub use postgres::Postgres;

/// Makes a test of each function for both databases: `sqlite::NAME` and `postgres::NAME`.
#[macro_export]
macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::common::Database::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(database) = $crate::common::Database::postgres() {
                    super::$name(database).await;
                }
            })*
        }
    };
}

/// Where a control plane keeps what it keeps.
pub struct Database {
    /// Its data folder.
    pub data: tempfile::TempDir,
    /// The server, where it is one.
    pub server: Option<Postgres>,
}

impl Database {
    /// A file.
    pub fn sqlite() -> Self {
        Self {
            data: tempfile::tempdir().unwrap(),
            server: None,
        }
    }

    /// A server of its own; nothing where there is none on this machine.
    pub fn postgres() -> Option<Self> {
        Some(Self {
            data: tempfile::tempdir().unwrap(),
            server: Some(Postgres::start()?),
        })
    }

    /// How it is named.
    pub fn url(&self) -> String {
        match &self.server {
            Some(server) => server.url("postgres"),
            None => format!("sqlite:{}", self.data.path().join("control.db").display()),
        }
    }

    /// A configuration with it, and with limits that no test meets by accident.
    pub fn config(&self) -> Config {
        let rate = Rate {
            burst: 100_000,
            per_second: 100_000.0,
        };
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            database: Some(self.url()),
            data: self.data.path().to_owned(),
            limits: Limits {
                per_address: rate,
                per_device: rate,
                per_token: rate,
                sweep: Duration::from_millis(50),
                drain: Duration::from_secs(2),
                ..Limits::default()
            },
            ..Config::default()
        }
    }
}

/// A control plane that runs, with one network that its owner has authorised it for.
pub struct Plane {
    /// Asks as the operator does not have to: with a token of all scopes.
    pub admin: Client,
    /// Its database.
    pub database: Database,
    /// The network's key.
    pub root: Keypair,
    end: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    /// Its address.
    pub url: String,
    /// The key with which it issues.
    pub issuer: NodeId,
}

/// What time it is.
pub fn now() -> UnixTime {
    UnixTime::from(std::time::SystemTime::now())
}

/// The certificate by which a network lets an issuer issue.
pub fn authorise(root: &Keypair, issuer: NodeId, expires: UnixTime) -> CertificateChain {
    let authority = Authority::Root { key: root.clone() };
    let request = Request {
        subject: issuer,
        name: "control".parse().unwrap(),
        roles: Roles::from(Role::Issuer),
        admitted_at: now() - Duration::from_secs(1),
        not_before: now() - Duration::from_secs(1),
        expires,
        serial: Serial::from_bytes([9; 16]),
    };
    authority.issue(request, now()).unwrap()
}

/// A membership that the network key itself has issued.
pub fn issue(root: &Keypair, subject: NodeId, name: &str, role: Role) -> CertificateChain {
    let request = Request {
        subject,
        name: name.parse().unwrap(),
        roles: Roles::from(role).with(Role::Member),
        admitted_at: now(),
        not_before: now(),
        expires: now() + Duration::from_secs(3_600),
        serial: Serial::from_bytes([3; 16]),
    };
    Authority::Root { key: root.clone() }.issue(request, now()).unwrap()
}

impl Plane {
    /// Starts one with the usual limits.
    pub async fn start(database: Database) -> Self {
        let config = database.config();
        Self::with(database, config).await
    }

    /// Starts one as it is told.
    pub async fn with(database: Database, config: Config) -> Self {
        let mut plane = Self::bare(database, config).await;
        let root = plane.root.network_id();
        let made = plane
            .admin
            .post("/v1/networks", json!({ "id": root, "name": "home" }))
            .await;
        made.is(201);
        plane.authorise(now() + Duration::from_secs(3_600 * 24 * 365)).await;
        plane.admin.network = Some(root);
        plane
    }

    /// One without any network.
    pub async fn bare(database: Database, config: Config) -> Self {
        let (url, issuer, end, running, token) = run(config).await;
        Self {
            admin: Client::with_token(&url, &token),
            database,
            root: Keypair::from_seed([1; 32]),
            end: Some(end),
            running: Some(running),
            url,
            issuer,
        }
    }

    /// The owner's word that it may issue until then.
    pub async fn authorise(&self, expires: UnixTime) {
        let chain = authorise(&self.root, self.issuer, expires);
        let path = format!("/v1/networks/{}/issuer", self.network());
        let anybody = Client::anybody(&self.url);
        anybody.put(&path, json!({ "certificate": chain })).await.is(200);
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.root.network_id()
    }

    /// A path of the network.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/networks/{}{rest}", self.network())
    }

    /// A device of this key.
    pub fn device(&self, seed: u8) -> Device {
        Device::new(&self.url, self.network(), Keypair::from_seed([seed; 32]))
    }

    /// A device that an invite has let in.
    pub async fn member(&self, seed: u8, name: &str) -> Device {
        let code = self.invite(json!({})).await;
        let device = self.device(seed);
        device.register(name, Some(&code)).await.is(201);
        device
    }

    /// The code of a new invite.
    pub async fn invite(&self, wanted: serde_json::Value) -> String {
        let made = self.admin.post(&self.path("/invites"), wanted).await;
        made.is(201);
        made.body["code"].as_str().unwrap().to_owned()
    }

    /// A client with a token of these scopes.
    pub async fn token(&self, scopes: &[&str], network: Option<NetworkId>) -> Client {
        let wanted = json!({ "name": "test", "scopes": scopes, "network": network });
        let made = self.admin.post("/v1/tokens", wanted).await;
        made.is(201);
        Client::with_token(&self.url, made.body["token"].as_str().unwrap())
    }

    /// Ends it and gives back the database.
    pub async fn stop(mut self) -> Database {
        drop(self.end.take());
        self.running.take().unwrap().await.unwrap();
        let empty = Database {
            data: tempfile::tempdir().unwrap(),
            server: None,
        };
        std::mem::replace(&mut self.database, empty)
    }

    /// Ends it and starts it anew at the same address on the same database; tokens, devices and networks are as before.
    pub async fn restart(self) -> Self {
        let (root, token, self_url) = (self.root.clone(), self.admin.token.clone(), self.url.clone());
        let database = self.stop().await;
        let config = Config {
            listen: self_url.split_once("://").unwrap().1.parse().unwrap(),
            ..database.config()
        };
        let (url, issuer, end, running, _) = run(config).await;
        Self {
            admin: Client::anybody(&url).bearing(token),
            database,
            root,
            end: Some(end),
            running: Some(running),
            url,
            issuer,
        }
    }
}

async fn run(config: Config) -> (String, NodeId, oneshot::Sender<()>, JoinHandle<()>, String) {
    let data = config.data.clone();
    let server = Server::open(config).await.unwrap();
    let url = server.control().url.clone();
    let issuer = server.control().key.node_id();
    let (end, ended) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        server
            .serve(async {
                // The sender is dropped to end it.
                let _ = ended.await;
            })
            .await
            .unwrap();
    });
    let operator = dawn_control::operator::Operator::new(&data);
    let scopes: Vec<_> = dawn_control_api::Scope::ALL
        .iter()
        .map(|scope| scope.as_str())
        .collect();
    let body = json!({ "name": "all", "scopes": scopes });
    let made: serde_json::Value = operator.ask("POST", "/v1/tokens", Some(&body)).await.unwrap();
    (url, issuer, end, running, made["token"].as_str().unwrap().to_owned())
}

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until it is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
