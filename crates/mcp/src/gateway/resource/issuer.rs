//! The authorization server that an exposed gateway trusts: its metadata, its keys, and what it says about a token.
//! Source: RFC 8414 and OpenID Connect Discovery (metadata), RFC 7517 (keys), RFC 7662 (introspection).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use jsonwebtoken::jwk::Jwk;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::refusal::Refusal;
use super::token::{Claims, Expected, Header, Token, signed};

/// How long metadata and keys are used before they are fetched again.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// How long they are used where the server cannot be asked.
const STALE: Duration = Duration::from_secs(60 * 60);
/// The least time between two fetches of the same.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest answer of the server that is read, bytes.
const LONGEST: usize = 1 << 20;
/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions about tokens that are open at the server at once; more are told to come again.
const ASKING: usize = 32;
/// Questions of one address that are open at the server at once.
const ASKING_EACH: usize = 4;
/// Answers about tokens that are remembered: about good ones, and about others.
const REMEMBERED: usize = 10_000;
/// Keys of a server that are looked at.
const KEYS: usize = 32;

/// A text that is shown nowhere; it is written where it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// As whom to ask the server about tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// The client's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
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

/// What is known of the server.
#[derive(Debug, Default)]
struct Known {
    metadata: Option<(Arc<Metadata>, Instant)>,
    keys: Option<(Arc<Keys>, Instant)>,
    /// When it was asked last for either.
    tried: Option<Instant>,
}

fn since<T>(known: Option<&(Arc<T>, Instant)>, most: Duration) -> Option<Arc<T>> {
    let (value, at) = known?;
    (at.elapsed() < most).then(|| Arc::clone(value))
}

fn unavailable() -> Refusal {
    Refusal::Unavailable("the authorization server cannot be asked just now".to_owned())
}

type Verdict = Result<Claims, Refusal>;

/// Answers about tokens, by the hash of each.
type Verdicts = HashMap<[u8; 32], (Instant, Verdict)>;

/// One authorization server. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Issuer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: reqwest::Client,
    name: String,
    introspection: Option<Introspection>,
    known: Mutex<Known>,
    /// One asks at a time.
    asking_for_keys: tokio::sync::Mutex<()>,
    good: Mutex<Verdicts>,
    others: Mutex<Verdicts>,
    asking: Semaphore,
    asking_each: Mutex<HashMap<IpAddr, usize>>,
}

/// A question of one address that is open at the server.
struct Asking<'a> {
    inner: &'a Inner,
    address: Option<IpAddr>,
    _permit: SemaphorePermit<'a>,
}

impl<'a> Asking<'a> {
    /// `None` where as many are open as may be. Who comes from this machine is a proxy for many.
    fn begin(inner: &'a Inner, address: Option<IpAddr>) -> Option<Self> {
        let permit = inner.asking.try_acquire().ok()?;
        let address = address.filter(|address| !address.is_loopback());
        if let Some(address) = address {
            let mut each = lock(&inner.asking_each);
            let open = each.entry(address).or_default();
            if *open >= ASKING_EACH {
                return None;
            }
            *open += 1;
        }
        Some(Self {
            inner,
            address,
            _permit: permit,
        })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut each = lock(&self.inner.asking_each);
        if let Some(open) = each.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                each.remove(&address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Issuer {
    pub(super) fn new(client: reqwest::Client, name: &str, introspection: Option<Introspection>) -> Self {
        Self(Arc::new(Inner {
            client,
            name: name.to_owned(),
            introspection,
            known: Mutex::default(),
            asking_for_keys: tokio::sync::Mutex::default(),
            good: Mutex::default(),
            others: Mutex::default(),
            asking: Semaphore::new(ASKING),
            asking_each: Mutex::default(),
        }))
    }

    /// Whether it is this very server, asked in this way.
    pub(super) fn is(&self, name: &str, introspection: Option<&Introspection>) -> bool {
        self.0.name == name && self.0.introspection.as_ref() == introspection
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it is asked about each token; then what grants something can end before its time.
    pub(super) fn is_asked(&self) -> bool {
        self.0.introspection.is_some()
    }

    /// What a token grants; `address` is where it comes from.
    ///
    /// # Errors
    /// Nothing, and why; or that cannot be found out now.
    pub(super) async fn grant(
        &self,
        token: &str,
        expected: Expected<'_>,
        address: Option<IpAddr>,
    ) -> Result<Token, Refusal> {
        let claims = match &self.0.introspection {
            Some(introspection) => self.introspect(token, introspection, address).await?,
            None => self.verify(token, expected.is_scoped).await?,
        };
        claims.grant(expected)
    }

    /// The claims of a JSON Web Token that this issuer signed.
    async fn verify(&self, token: &str, is_scoped: bool) -> Verdict {
        let no = |why: &str| Refusal::Invalid(why.to_owned());
        let header = Header::read(token).ok_or_else(|| {
            no(
                "the token is no JSON Web Token with a public key's signature; if the issuer's tokens are opaque, [gateway.introspection] is needed",
            )
        })?;
        // Not every issuer names the type as RFC 9068 wants it; an identity token has no scope.
        match header.kind().as_deref() {
            Some("at+jwt") => {}
            None | Some("jwt") if is_scoped => {}
            _ => return Err(no("the token does not say that it is an access token (typ at+jwt)")),
        }
        let is_known = |keys: &Keys| header.key.is_none() || keys.iter().any(|(id, _)| *id == header.key);
        let fresh = since(lock(&self.0.known).keys.as_ref(), FRESH);
        let mut keys = match fresh {
            Some(fresh) => fresh,
            None => self.keys().await?,
        };
        if !is_known(&keys) {
            keys = self.keys().await?;
        }
        let named = keys.iter().filter(|(id, _)| header.key.is_none() || *id == header.key);
        let claims = signed::<Claims>(token, &header, named.map(|(_, key)| key));
        claims
            .filter(Claims::names_issuer)
            .ok_or_else(|| no("the token's signature is by none of the issuer's keys, or it names no issuer"))
    }

    /// What the issuer says about a token, now or a moment ago.
    async fn introspect(&self, token: &str, introspection: &Introspection, address: Option<IpAddr>) -> Verdict {
        let inner = &*self.0;
        // RFC 6750, 2.1.
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(is_token) {
            return Err(Refusal::Invalid("the token holds what no token does".to_owned()));
        }
        let id: [u8; 32] = Sha256::digest(token).into();
        for verdicts in [&inner.good, &inner.others] {
            let known = lock(verdicts).get(&id).cloned();
            if let Some((_, verdict)) = known.filter(|(at, _)| at.elapsed() < introspection.remember) {
                return verdict;
            }
        }
        let _asking = Asking::begin(inner, address).ok_or_else(unavailable)?;
        let metadata = self.metadata().await?;
        let endpoint = metadata.introspection_endpoint.clone().ok_or_else(|| {
            tracing::warn!(
                issuer = inner.name,
                "the issuer's metadata names no introspection_endpoint"
            );
            unavailable()
        })?;
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let body = format!("token={}&token_type_hint=access_token", encoded(token));
        let request = inner
            .client
            .post(endpoint)
            // Both parts are form encoded first (RFC 6749, 2.3.1).
            .basic_auth(
                encoded(&introspection.client_id),
                Some(encoded(introspection.client_secret.expose())),
            )
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(body);
        let (verdict, verdicts) = match read::<Claims>(request).await {
            Ok(claims) if claims.active == Some(true) => (Ok(claims), &inner.good),
            Ok(_) => {
                let why = "the token is not active: it ended or was revoked";
                (Err(Refusal::Invalid(why.to_owned())), &inner.others)
            }
            // So some servers answer what is no token of theirs, or of a kind that they do not know by asking.
            Err(Unread::Status(StatusCode::BAD_REQUEST)) => {
                tracing::debug!(issuer = inner.name, "the issuer does not take a token as one");
                let why = "the issuer does not take this as a token";
                (Err(Refusal::Invalid(why.to_owned())), &inner.others)
            }
            Err(why) => {
                tracing::debug!(%why, issuer = inner.name, "the issuer says nothing about a token");
                return Err(unavailable());
            }
        };
        let mut verdicts = lock(verdicts);
        if verdicts.len() >= REMEMBERED {
            verdicts.retain(|_, (at, _)| at.elapsed() < introspection.remember);
        }
        if verdicts.len() < REMEMBERED {
            verdicts.insert(id, (Instant::now(), verdict.clone()));
        }
        verdict
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, Refusal> {
        if let Some(fresh) = since(lock(&self.0.known).metadata.as_ref(), FRESH) {
            return Ok(fresh);
        }
        self.renew().await;
        since(lock(&self.0.known).metadata.as_ref(), STALE).ok_or_else(unavailable)
    }

    /// The issuer's keys as they are now, though not fetched in quick succession.
    async fn keys(&self) -> Result<Arc<Keys>, Refusal> {
        self.renew().await;
        since(lock(&self.0.known).keys.as_ref(), STALE).ok_or_else(unavailable)
    }

    /// Asks the server for its metadata and keys, unless that was done a moment ago. Who waits may leave: it goes on.
    async fn renew(&self) {
        let issuer = self.clone();
        let asking = tokio::spawn(async move {
            let _one = issuer.0.asking_for_keys.lock().await;
            {
                let mut known = lock(&issuer.0.known);
                if known.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
                    return;
                }
                known.tried = Some(Instant::now());
            }
            if let Err(why) = issuer.fetch().await {
                tracing::warn!(%why, issuer = issuer.0.name, "the authorization server cannot be asked");
            }
        });
        // It does not panic, and what it found is looked for where it puts it.
        let _ = asking.await;
    }

    async fn fetch(&self) -> Result<(), String> {
        let metadata = Arc::new(self.discover().await?);
        lock(&self.0.known).metadata = Some((Arc::clone(&metadata), Instant::now()));
        if self.is_asked() {
            return Ok(());
        }
        let address = metadata.jwks_uri.clone().ok_or("its metadata names no jwks_uri")?;
        let set = read::<KeySet>(self.0.client.get(address.clone())).await;
        let set = set.map_err(|why| format!("{address}: {why}"))?;
        lock(&self.0.known).keys = Some((Arc::new(known(set)), Instant::now()));
        Ok(())
    }

    /// The issuer's metadata, which has to name the very issuer (RFC 8414, 3.3).
    async fn discover(&self) -> Result<Metadata, String> {
        let name = &self.0.name;
        let mut last = "it is no address".to_owned();
        for address in metadata_addresses(name) {
            match read::<Metadata>(self.0.client.get(address.clone())).await {
                Ok(metadata) if metadata.issuer == *name => {
                    let named = metadata.jwks_uri.iter().chain(&metadata.introspection_endpoint);
                    return match named.into_iter().find(|url| !is_confidential(url)) {
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
pub(super) fn is_confidential(url: &Url) -> bool {
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
            assert_eq!(is_confidential(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
