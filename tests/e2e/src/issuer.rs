//! A real authorization server for tests of authorization (`tests/oauth`).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::http;

/// A server that runs, until it is dropped.
#[derive(Debug)]
pub struct Issuer {
    /// Its address, and its name as an issuer.
    pub url: String,
    _process: Child,
}

impl Issuer {
    /// Starts one; the first time it is installed.
    pub async fn start() -> Self {
        /// How long installing may take.
        const INSTALLING: Duration = Duration::from_secs(300);
        // Where the checkout is now: what was built of another one may lie in the same target folder.
        let checkout = std::env::var_os("CARGO_MANIFEST_DIR").expect("tests run under cargo");
        let program = Path::new(&checkout).join("../oauth/provider");
        let mut process = Command::new(program)
            // It ends with its standard input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the authorization server starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = tokio::time::timeout(INSTALLING, lines.next_line()).await;
        let line = line.expect("in time").expect("readable").expect("a line");
        let said: Value = serde_json::from_str(&line).expect("JSON");
        let url = said["issuer"].as_str().expect("an issuer").to_owned();
        Self { url, _process: process }
    }

    async fn tell(&self, path: &str, body: &Value) -> Value {
        let request = http().post(format!("{}{path}", self.url)).body(body.to_string());
        let response = request.send().await.expect("answered");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        let text = response.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Makes it behave otherwise than it should.
    pub async fn behave(&self, behaviour: &Value) {
        let _now = self.tell("/test/behaviour", behaviour).await;
    }

    /// A token for a person, a resource and scopes; `more` may say `ttl` (seconds) and `jkt` (the key it is bound to).
    pub async fn token(&self, person: &str, resource: &str, scope: &str, more: Value) -> String {
        let mut wanted = json!({ "resource": resource, "scope": scope, "sub": person });
        for (name, value) in more.as_object().into_iter().flatten() {
            wanted[name] = value.clone();
        }
        let minted = self.tell("/test/token", &wanted).await;
        minted["access_token"].as_str().expect("a token").to_owned()
    }

    /// Takes a token back.
    pub async fn revoke(&self, token: &str) {
        let request = http()
            .post(format!("{}/token/revocation", self.url))
            .basic_auth("gateway", Some("gateway-secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"));
        let response = request.send().await.expect("answered");
        assert!(response.status().is_success(), "{:?}", response.text().await);
    }

    /// The requests that it was sent: `method`, `path`, `query`, `form`.
    pub async fn requests(&self) -> Vec<Value> {
        let request = http().get(format!("{}/test/requests", self.url));
        let text = request.send().await.expect("answered").text().await.expect("a body");
        serde_json::from_str(&text).expect("JSON")
    }
}
