//! The authorization server that an exposed gateway trusts: its metadata, its keys, and what it says about a token.
//! Source: RFC 8414 and OpenID Connect Discovery (metadata), RFC 7517 (keys), RFC 7662 (introspection).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use url::Url;

use super::refusal::Refusal;
use super::token::{Claims, Expected, Header, Token, signed};

/// How long metadata and keys are used before they are fetched again.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// The least time between two fetches of the same.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest answer of the server that is read, bytes.
const LONGEST: usize = 1 << 20;
/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions about tokens that are open at the server at once; more are told to come again.
const ASKING: usize = 32;
/// Answers about tokens that are remembered.
const REMEMBERED: usize = 10_000;
/// Keys of a server that are looked at.
const KEYS: usize = 32;

/// As whom to ask the server about tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// The client's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// How long an answer is used: so long a revoked token may still be taken.
    pub remember: Duration,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    #[serde(default)]
    jwks_uri: Option<Url>,
    #[serde(default)]
    introspection_endpoint: Option<Url>,
}

/// Keys and their ids.
type Keys = Vec<(Option<String>, Jwk)>;

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// Something fetched, and when it was tried last.
#[derive(Debug)]
struct Fetched<T> {
    value: Option<(Arc<T>, Instant)>,
    tried: Option<Instant>,
}

impl<T> Default for Fetched<T> {
    fn default() -> Self {
        Self {
            value: None,
            tried: None,
        }
    }
}

impl<T> Fetched<T> {
    fn fresh(&self) -> Option<Arc<T>> {
        let (value, at) = self.value.as_ref()?;
        (at.elapsed() < FRESH).then(|| Arc::clone(value))
    }

    fn may_try(&self) -> bool {
        self.tried.is_none_or(|tried| tried.elapsed() >= PAUSE)
    }

    fn keep(&mut self, fetched: Result<T, String>) -> Result<Arc<T>, Refusal> {
        self.tried = Some(Instant::now());
        let value = Arc::new(fetched.map_err(|why| {
            tracing::warn!(%why, "the authorization server cannot be asked");
            unavailable()
        })?);
        self.value = Some((Arc::clone(&value), Instant::now()));
        Ok(value)
    }
}

fn unavailable() -> Refusal {
    Refusal::Unavailable("the authorization server cannot be asked just now".to_owned())
}

type Verdict = Result<Claims, Refusal>;

/// One authorization server.
#[derive(Debug)]
pub(super) struct Issuer {
    client: reqwest::Client,
    name: String,
    introspection: Option<Introspection>,
    metadata: tokio::sync::Mutex<Fetched<Metadata>>,
    keys: tokio::sync::Mutex<Fetched<Keys>>,
    verdicts: Mutex<HashMap<[u8; 32], (Instant, Verdict)>>,
    asking: Semaphore,
}

impl Issuer {
    pub(super) fn new(client: reqwest::Client, name: &str, introspection: Option<Introspection>) -> Self {
        Self {
            client,
            name: name.to_owned(),
            introspection,
            metadata: tokio::sync::Mutex::default(),
            keys: tokio::sync::Mutex::default(),
            verdicts: Mutex::default(),
            asking: Semaphore::new(ASKING),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is asked about each token; then what grants something can end before its time.
    pub(super) fn is_asked(&self) -> bool {
        self.introspection.is_some()
    }

    /// What a token grants.
    ///
    /// # Errors
    /// Nothing, and why; or that cannot be found out now.
    pub(super) async fn grant(&self, token: &str, expected: Expected<'_>) -> Result<Token, Refusal> {
        let claims = match &self.introspection {
            Some(introspection) => self.introspect(token, introspection).await?,
            None => self.verify(token).await?,
        };
        claims.grant(expected)
    }

    /// The claims of a JSON Web Token that this issuer signed.
    async fn verify(&self, token: &str) -> Verdict {
        let no = |why: &str| Refusal::Invalid(why.to_owned());
        let header = Header::read(token).ok_or_else(|| {
            no("the token is no JSON Web Token with a public key's signature; if the issuer's tokens are opaque, [gateway.introspection] is needed")
        })?;
        // Others are made for other uses: identity tokens have no `typ` or JWT, and another audience.
        if !matches!(header.kind().as_deref(), None | Some("at+jwt" | "jwt")) {
            return Err(no("the token is no access token"));
        }
        let mut keys = self.keys(false).await?;
        let is_known = |keys: &Keys| header.key.is_none() || keys.iter().any(|(id, _)| *id == header.key);
        if !is_known(&keys) {
            keys = self.keys(true).await?;
        }
        let named = keys
            .iter()
            .filter(|(id, _)| header.key.is_none() || *id == header.key)
            .map(|(_, key)| key);
        let claims = signed::<Claims>(token, &header, named);
        claims
            .filter(Claims::names_issuer)
            .ok_or_else(|| no("the token's signature is by none of the issuer's keys, or it names no issuer"))
    }

    /// What the issuer says about a token, now or a moment ago.
    async fn introspect(&self, token: &str, introspection: &Introspection) -> Verdict {
        let id: [u8; 32] = Sha256::digest(token).into();
        let known = |verdicts: &mut HashMap<[u8; 32], (Instant, Verdict)>| {
            let (at, verdict) = verdicts.get(&id)?;
            (at.elapsed() < introspection.remember).then(|| verdict.clone())
        };
        if let Some(verdict) = known(&mut self.lock()) {
            return verdict;
        }
        let Ok(_asking) = self.asking.try_acquire() else {
            return Err(unavailable());
        };
        let metadata = self.metadata().await?;
        let endpoint = metadata.introspection_endpoint.clone().ok_or_else(|| {
            tracing::warn!(
                issuer = self.name,
                "the issuer's metadata names no introspection_endpoint"
            );
            unavailable()
        })?;
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let body = format!("token={}&token_type_hint=access_token", encoded(token));
        let request = self
            .client
            .post(endpoint)
            // Both parts are form encoded first (RFC 6749, 2.3.1).
            .basic_auth(
                encoded(&introspection.client_id),
                Some(encoded(&introspection.client_secret)),
            )
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(body);
        let verdict = match read::<Claims>(request).await {
            Ok(claims) if claims.active == Some(true) => Ok(claims),
            Ok(_) => Err(Refusal::Invalid(
                "the token is not active: it ended or was revoked".to_owned(),
            )),
            // So some servers answer what is no token of theirs, or of a kind that they do not know by asking.
            Err(Unread::Status(StatusCode::BAD_REQUEST)) => {
                tracing::info!(issuer = self.name, "the issuer does not take a token as one");
                Err(Refusal::Invalid("the issuer does not take this as a token".to_owned()))
            }
            Err(why) => {
                tracing::warn!(%why, issuer = self.name, "the issuer says nothing about a token");
                return Err(unavailable());
            }
        };
        let mut verdicts = self.lock();
        if verdicts.len() >= REMEMBERED {
            verdicts.retain(|_, (at, _)| at.elapsed() < introspection.remember);
        }
        if verdicts.len() < REMEMBERED {
            verdicts.insert(id, (Instant::now(), verdict.clone()));
        }
        verdict
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], (Instant, Verdict)>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, Refusal> {
        let mut metadata = self.metadata.lock().await;
        if let Some(fresh) = metadata.fresh() {
            return Ok(fresh);
        }
        if !metadata.may_try() {
            return Err(unavailable());
        }
        let fetched = self.discover().await;
        metadata.keep(fetched)
    }

    /// The issuer's metadata, which has to name the very issuer (RFC 8414, 3.3).
    async fn discover(&self) -> Result<Metadata, String> {
        let mut last = "the issuer is no address".to_owned();
        for address in metadata_addresses(&self.name) {
            match read::<Metadata>(self.client.get(address.clone())).await {
                Ok(metadata) if metadata.issuer == self.name => {
                    let named = metadata.jwks_uri.iter().chain(&metadata.introspection_endpoint);
                    return match named.into_iter().find(|url| !is_private(url)) {
                        Some(url) => Err(format!("{url} is neither https nor on this machine")),
                        None => Ok(metadata),
                    };
                }
                Ok(metadata) => last = format!("{address} is the metadata of another issuer, {:?}", metadata.issuer),
                Err(why) => last = format!("{address}: {why}"),
            }
        }
        Err(last)
    }

    /// The issuer's keys; `anew` fetches them also where they are fresh, though not in quick succession.
    async fn keys(&self, anew: bool) -> Result<Arc<Keys>, Refusal> {
        let mut keys = self.keys.lock().await;
        if let Some(fresh) = keys.fresh().filter(|_| !anew || !keys.may_try()) {
            return Ok(fresh);
        }
        if !keys.may_try() {
            return Err(unavailable());
        }
        let metadata = self.metadata().await?;
        let fetched = match metadata.jwks_uri.clone() {
            Some(address) => read::<KeySet>(self.client.get(address.clone()))
                .await
                .map(known)
                .map_err(|why| format!("{address}: {why}")),
            None => Err("the issuer's metadata names no jwks_uri".to_owned()),
        };
        keys.keep(fetched)
    }
}

/// The keys of a set; what is of a kind that is not known signs nothing here.
fn known(set: KeySet) -> Keys {
    let key = |key: Value| {
        let id = key["kid"].as_str().map(str::to_owned);
        Some((id, serde_json::from_value(key).ok()?))
    };
    set.keys.into_iter().filter_map(key).take(KEYS).collect()
}

/// Where an issuer's metadata may be, in the order of MCP's "Authorization".
fn metadata_addresses(issuer: &str) -> Vec<Url> {
    let Ok(base) = issuer.parse::<Url>() else {
        return Vec::new();
    };
    let path = base.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut address = base.clone();
        address.set_path(&path);
        address.set_query(None);
        address
    };
    let mut addresses = vec![
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("/.well-known/openid-configuration{path}")),
    ];
    if !path.is_empty() {
        addresses.push(at(format!("{path}/.well-known/openid-configuration")));
    }
    addresses
}

/// Whether what is said there stays between the two: TLS, or the same machine.
pub(super) fn is_private(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

/// Why an answer of the server was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it answered more than {LONGEST} bytes")]
    TooLong,
    #[error("it did not answer in {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("it cannot be reached: {0}")]
    Broken(#[from] reqwest::Error),
    #[error("its answer is not what it has to be: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Sends a request and reads the JSON it is answered with.
async fn read<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, Unread> {
    let reading = async {
        let mut response = request.send().await?;
        if !response.status().is_success() {
            return Err(Unread::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > LONGEST {
                return Err(Unread::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(serde_json::from_slice(&body)?)
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.unwrap_or(Err(Unread::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_specifications_say() {
        let texts = |issuer| {
            let addresses = metadata_addresses(issuer).into_iter();
            addresses.map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(
            texts("https://auth.example/tenant"),
            [
                "https://auth.example/.well-known/oauth-authorization-server/tenant",
                "https://auth.example/.well-known/openid-configuration/tenant",
                "https://auth.example/tenant/.well-known/openid-configuration",
            ]
        );
        assert_eq!(texts("https://auth.example/").len(), 2);
        assert_eq!(texts("auth.example"), Vec::<String>::new());
    }

    #[test]
    fn what_travels_in_the_open_is_not_private() {
        for (url, expected) in [
            ("https://auth.example", true),
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://auth.example", false),
            ("http://localhost.example", false),
            ("ftp://127.0.0.1", false),
        ] {
            assert_eq!(is_private(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
