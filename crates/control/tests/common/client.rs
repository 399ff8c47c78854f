//! Who asks: with a token, with a device's signature, or with nothing.

use dawn_control_api::challenge::{Challenge, Nonce};
use dawn_control_api::signature::{Headers, Parts, sign};
use dawn_identity::{Keypair, NetworkId, NodeId};
use serde_json::{Value, json};

use super::{conform, now};

/// An answer.
#[derive(Debug)]
pub struct Asked {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its body; null for none, a string for what is no JSON.
    pub body: Value,
}

impl Asked {
    /// Makes sure of its status.
    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    /// Makes sure that it is this problem.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{:#}",
            self.body
        );
        self
    }

    /// Its `ETag`.
    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

fn http() -> reqwest::Client {
    // A second time is no different from the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Whoever asks with a token, or nothing.
#[derive(Clone)]
pub struct Client {
    /// The address of the control plane.
    pub url: String,
    /// The token.
    pub token: Option<String>,
    /// The network it asks about.
    pub network: Option<NetworkId>,
    http: reqwest::Client,
}

impl Client {
    /// Somebody who shows nothing.
    pub fn anybody(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            token: None,
            network: None,
            http: http(),
        }
    }

    /// Somebody with a token.
    pub fn with_token(url: &str, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..Self::anybody(url)
        }
    }

    /// The same with another token, or none.
    #[must_use]
    pub fn bearing(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// Asks.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Asked {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        answered(method, path, request.send().await.unwrap()).await
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Asked {
        self.ask("GET", path, &[], None).await
    }

    /// `POST`
    pub async fn post(&self, path: &str, body: Value) -> Asked {
        self.ask("POST", path, &[], Some(body)).await
    }

    /// `PUT`
    pub async fn put(&self, path: &str, body: Value) -> Asked {
        self.ask("PUT", path, &[], Some(body)).await
    }

    /// `PATCH`
    pub async fn patch(&self, path: &str, body: Value) -> Asked {
        self.ask("PATCH", path, &[], Some(body)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Asked {
        self.ask("DELETE", path, &[], None).await
    }
}

async fn answered(method: &str, path: &str, response: reqwest::Response) -> Asked {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let kind = headers
        .get("content-type")
        .map(|kind| kind.to_str().unwrap().to_owned());
    let body = response.bytes().await.unwrap();
    conform::check(method, path, status, kind.as_deref().unwrap_or_default(), &body);
    let body = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into())),
    };
    Asked { status, headers, body }
}

/// A device, which signs what it asks.
#[derive(Clone)]
pub struct Device {
    /// Its key.
    pub key: Keypair,
    /// Its network.
    pub network: NetworkId,
    /// The address of the control plane.
    pub url: String,
    /// The authority that it signs for.
    pub authority: String,
    http: reqwest::Client,
}

/// A signed request that was not sent yet.
pub struct Signed {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The body.
    pub body: Vec<u8>,
    /// The signature.
    pub headers: Headers,
    /// Headers that are covered by it.
    pub covered: Vec<(String, String)>,
}

impl Device {
    /// A device that holds this key.
    pub fn new(url: &str, network: NetworkId, key: Keypair) -> Self {
        Self {
            key,
            network,
            url: url.to_owned(),
            authority: url.split_once("://").unwrap().1.to_owned(),
            http: http(),
        }
    }

    /// Its id.
    pub fn node(&self) -> NodeId {
        self.key.node_id()
    }

    /// A path of its own.
    pub fn own(&self, rest: &str) -> String {
        format!("/v1/networks/{}/devices/{}{rest}", self.network, self.node())
    }

    /// A path of its network.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/networks/{}{rest}", self.network)
    }

    /// Signs a request.
    pub fn signed(&self, method: &str, target: &str, covered: &[(&str, &str)], body: Option<&Value>) -> Signed {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let parts = Parts {
            method,
            authority: &self.authority,
            path,
            query,
            headers: covered,
            body: &body,
        };
        let nonce = Nonce::from_bytes(rand::random());
        let headers = sign(&parts, &self.key, now(), nonce).unwrap();
        Signed {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body,
            covered: covered
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// Sends a signed request.
    pub async fn send(&self, signed: &Signed) -> Asked {
        let mut request = self
            .http
            .request(signed.method.parse().unwrap(), format!("{}{}", self.url, signed.target))
            .header("signature-input", &signed.headers.signature_input)
            .header("signature", &signed.headers.signature);
        if let Some(digest) = &signed.headers.content_digest {
            request = request.header("content-digest", digest);
        }
        for (name, value) in &signed.covered {
            request = request.header(name, value);
        }
        if !signed.body.is_empty() {
            request = request
                .header("content-type", "application/json")
                .body(signed.body.clone());
        }
        answered(&signed.method, &signed.target, request.send().await.unwrap()).await
    }

    /// Signs and sends.
    pub async fn ask(&self, method: &str, target: &str, body: Option<Value>) -> Asked {
        self.send(&self.signed(method, target, &[], body.as_ref())).await
    }

    /// Asks for a challenge and signs it.
    pub async fn challenge(&self, name: &str) -> (Challenge, Value) {
        let asked = self
            .ask("POST", &self.path("/challenges"), Some(json!({ "name": name })))
            .await;
        asked.is(201);
        let challenge: Challenge = serde_json::from_value(asked.body).unwrap();
        let signature = serde_json::to_value(challenge.sign(&self.key)).unwrap();
        (challenge, signature)
    }

    /// Registers.
    pub async fn register(&self, name: &str, invite: Option<&str>) -> Asked {
        let (challenge, signature) = self.challenge(name).await;
        let mut body = json!({ "challenge": challenge, "signature": signature });
        if let Some(invite) = invite {
            body["invite"] = invite.into();
        }
        self.ask("POST", &self.path("/devices"), Some(body)).await
    }

    /// Beats.
    pub async fn beat(&self, body: Value) -> Asked {
        self.ask("POST", &self.own("/heartbeat"), Some(body)).await
    }

    /// Asks what is new.
    pub async fn changes(&self, since: u64, wait: u64) -> Asked {
        let target = self.path(&format!("/changes?since={since}&wait={wait}"));
        self.ask("GET", &target, None).await
    }
}
