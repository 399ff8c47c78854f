//! The gateway beyond this machine: an OAuth 2.1 resource server whose endpoints are the gateway's own, for people whom
//! an authorization server vouches for.
//!
//! Each exposed endpoint is a resource of its own, and its address the only audience that is accepted, so that a token
//! for one opens no other. Nothing is served but the endpoints that are listed and their metadata.
//! Source: MCP "Authorization"; RFC 9728 (metadata), RFC 6750 and RFC 9449 (how tokens are shown), RFC 8707 (audience).

mod dpop;
mod issuer;
mod refusal;
mod token;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dawn_policy::Pattern;
use futures::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

pub use self::issuer::{Introspection, Secret};
use self::issuer::{Issuer, is_confidential};
use self::refusal::{Challenge, PROOF_ALGORITHMS, Refusal};
use self::token::{Expected, Token};
use super::era::header as text_header;
use super::{Counters, Gateway, Guest};
use crate::host::access::Access;
use crate::host::{CallerLimits, Rule};

/// Where metadata of protected resources is (RFC 9728, 3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// Longest token, bytes.
const LONGEST: usize = 16 << 10;
/// Bytes that one piece of room for bodies stands for, and how many there are: 256 MiB.
const UNIT: usize = 64 << 10;
const BODIES: usize = 4096;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a stream that goes on asks whether its token still holds.
const RECHECK: Duration = Duration::from_secs(15);

/// Everything about an exposed gateway.
#[derive(Debug, Clone)]
pub struct ResourceConfig {
    /// Its address as clients write it, without a path: `https://mcp.example.org`.
    pub url: String,
    /// The authorization server, exactly as its metadata names itself.
    pub issuer: String,
    /// As whom to ask the issuer about tokens; without it they have to be JSON Web Tokens.
    pub introspection: Option<Introspection>,
    /// The claim that names a person.
    pub user_claim: String,
    /// Whether only tokens that are bound to a key are taken.
    pub bound_only: bool,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// Origins of web pages that may use it.
    pub origins: Vec<String>,
    /// What is exposed.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint that is exposed.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its path: `/mcp`, `/mcp/groups/NAME` or `/mcp/NODE/AGENT`.
    pub path: String,
    /// The scopes that a token needs, all of them.
    pub scopes: Vec<String>,
    /// Who may use it, by subject; none means everybody whom the issuer gives a token for it.
    pub users: Vec<Pattern>,
    /// Who may call what of it.
    pub rules: Vec<Rule>,
    /// How much each person may ask of it.
    pub limits: CallerLimits,
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// An address does not do.
    #[error("{0:?} is not https, nor http on this machine, or has more than scheme, name and port")]
    Url(String),
    /// The issuer does not do.
    #[error(
        "{0:?} is no address of an authorization server: https, or http on this machine, without query and fragment"
    )]
    Issuer(String),
    /// A path is none of the gateway's.
    #[error("{0:?} is no path of the gateway: /mcp, /mcp/groups/NAME or /mcp/NODE/AGENT")]
    Path(String),
    /// A path comes twice.
    #[error("{0} is exposed twice")]
    Twice(String),
    /// A scope holds what no scope may.
    #[error("{0:?} is no scope: printable ASCII without spaces, quotes and backslashes")]
    Scope(String),
    /// An origin is none.
    #[error("{0:?} is no origin, such as https://app.example.org")]
    Origin(String),
}

/// An endpoint as it is served.
#[derive(Debug)]
pub(super) struct Exposed {
    pub(super) path: String,
    /// Its address: the audience of its tokens.
    resource: String,
    /// Where its metadata is.
    metadata: String,
    scopes: Vec<String>,
    users: Vec<Pattern>,
    pub(super) access: Arc<Access>,
}

/// A configuration that will do.
#[derive(Debug)]
struct Settings {
    issuer: Issuer,
    user_claim: String,
    bound_only: bool,
    /// Seconds.
    leeway: u64,
    origins: Vec<String>,
    endpoints: Vec<Arc<Exposed>>,
    cors: CorsLayer,
}

/// Checks a configuration; the endpoints as they are to be served. Those that were served before under the same rules and
/// limits go on counting.
fn endpoints(config: &ResourceConfig, before: Option<&Settings>) -> Result<Vec<Arc<Exposed>>, ResourceError> {
    let base = config.url.parse::<Url>().ok();
    let is_bare = |url: &Url| {
        let is_origin = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        is_origin && url.username().is_empty() && url.password().is_none()
    };
    let base = base.filter(|url| is_confidential(url) && is_bare(url));
    let base = base.ok_or_else(|| ResourceError::Url(config.url.clone()))?;
    let base = base.as_str().trim_end_matches('/');
    let issuer = config.issuer.parse::<Url>().ok();
    if !issuer.is_some_and(|url| is_confidential(&url) && url.query().is_none() && url.fragment().is_none()) {
        return Err(ResourceError::Issuer(config.issuer.clone()));
    }
    let mut endpoints: Vec<Arc<Exposed>> = Vec::with_capacity(config.endpoints.len());
    for endpoint in &config.endpoints {
        if !is_path(&endpoint.path) {
            return Err(ResourceError::Path(endpoint.path.clone()));
        }
        if endpoints.iter().any(|known| known.path == endpoint.path) {
            return Err(ResourceError::Twice(endpoint.path.clone()));
        }
        // RFC 6749, 3.3.
        let is_scope = |scope: &String| {
            !scope.is_empty()
                && scope
                    .bytes()
                    .all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
        };
        if let Some(scope) = endpoint.scopes.iter().find(|scope| !is_scope(scope)) {
            return Err(ResourceError::Scope(scope.clone()));
        }
        let known = before.and_then(|before| before.endpoint(&endpoint.path));
        let known = known.filter(|known| known.access.is(&endpoint.rules, endpoint.limits));
        endpoints.push(Arc::new(Exposed {
            path: endpoint.path.clone(),
            resource: format!("{base}{}", endpoint.path),
            metadata: format!("{base}{WELL_KNOWN}{}", endpoint.path),
            scopes: endpoint.scopes.clone(),
            users: endpoint.users.clone(),
            access: known.map_or_else(
                || Access::new(endpoint.rules.clone(), endpoint.limits),
                |known| Arc::clone(&known.access),
            ),
        }));
    }
    Ok(endpoints)
}

impl Settings {
    fn new(config: ResourceConfig, client: &reqwest::Client, before: Option<&Self>) -> Result<Self, ResourceError> {
        let endpoints = endpoints(&config, before)?;
        let known = before.map(|before| &before.issuer);
        let known = known.filter(|issuer| issuer.is(&config.issuer, config.introspection.as_ref()));
        let issuer = known.cloned();
        Ok(Self {
            issuer: issuer.unwrap_or_else(|| Issuer::new(client.clone(), &config.issuer, config.introspection)),
            user_claim: config.user_claim,
            bound_only: config.bound_only,
            leeway: config.leeway.as_secs(),
            cors: cors(&config.origins)?,
            origins: config.origins,
            endpoints,
        })
    }

    fn endpoint(&self, path: &str) -> Option<&Arc<Exposed>> {
        self.endpoints.iter().find(|endpoint| endpoint.path == path)
    }

    /// Who sends a request, and with which token.
    async fn authorize<'a>(
        &self,
        endpoint: &Exposed,
        request: &Asked<'a>,
        proofs: &dpop::Proofs,
    ) -> Result<(Token, &'a str), Refusal> {
        let (is_bound, shown) = shown_token(request)?;
        let now = now();
        let token = self.grant(endpoint, shown, now, request.address).await?;
        let thumbprint = match (&token.bound_to, is_bound) {
            (Some(_), false) => {
                return Err(Refusal::Invalid(
                    "the token is bound to a key: show it as DPoP, with a proof".to_owned(),
                ));
            }
            (None, true) => {
                return Err(Refusal::Invalid(
                    "the token is bound to no key: show it as Bearer".to_owned(),
                ));
            }
            (None, false) => return Ok((token, shown)),
            (Some(thumbprint), true) => thumbprint,
        };
        let mut sent = request.headers.get_all("dpop").iter();
        let (Some(proof), None) = (sent.next(), sent.next()) else {
            return Err(Refusal::InvalidProof("one header DPoP has to be there"));
        };
        let wanted = dpop::Request {
            method: request.method.as_str(),
            resource: &endpoint.resource,
            token: shown,
            thumbprint,
            leeway: self.leeway,
            now,
        };
        proofs.check(proof.to_str().unwrap_or_default(), wanted)?;
        Ok((token, shown))
    }

    /// What a token grants at an endpoint, whoever shows it.
    async fn grant(
        &self,
        endpoint: &Exposed,
        shown: &str,
        now: u64,
        address: Option<IpAddr>,
    ) -> Result<Token, Refusal> {
        let expected = Expected {
            issuer: self.issuer.name(),
            resource: &endpoint.resource,
            user_claim: &self.user_claim,
            is_scoped: !endpoint.scopes.is_empty(),
            leeway: self.leeway,
            now,
        };
        let token = self.issuer.grant(shown, expected, address).await?;
        if self.bound_only && token.bound_to.is_none() {
            return Err(Refusal::Invalid(
                "only tokens that are bound to a key are taken here (DPoP)".to_owned(),
            ));
        }
        if !endpoint.scopes.iter().all(|scope| token.scopes.contains(scope)) {
            return Err(Refusal::InsufficientScope);
        }
        let user = token.user.to_string();
        if !endpoint.users.is_empty() && !endpoint.users.iter().any(|pattern| pattern.fits(&user)) {
            return Err(Refusal::Forbidden(user));
        }
        Ok(token)
    }

    /// The metadata of an endpoint (RFC 9728, 2).
    fn metadata(&self, endpoint: &Exposed) -> serde_json::Value {
        serde_json::json!({
            "resource": endpoint.resource,
            "resource_name": format!("Dawn {}", endpoint.path),
            "authorization_servers": [self.issuer.name()],
            "scopes_supported": endpoint.scopes,
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": PROOF_ALGORITHMS.split(' ').collect::<Vec<_>>(),
            "dpop_bound_access_tokens_required": self.bound_only,
        })
    }
}

/// What of a request decides who sends it.
struct Asked<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    query: &'a str,
    address: Option<IpAddr>,
}

/// Where a request comes from, as the listener knows it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The token that a request shows, and whether it says that it is bound to a key.
fn shown_token<'a>(request: &Asked<'a>) -> Result<(bool, &'a str), Refusal> {
    // Addresses end up in logs (RFC 6750, 5.3; MCP forbids it).
    let in_query = |pair: &str| {
        pair.split('=')
            .next()
            .is_some_and(|name| matches!(name, "access_token" | "token"))
    };
    if request.query.split('&').any(in_query) {
        return Err(Refusal::Malformed("a token must not be part of the address"));
    }
    let mut shown = request.headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = shown.next() else {
        return Err(Refusal::Missing);
    };
    if shown.next().is_some() {
        return Err(Refusal::Malformed("there has to be one header Authorization"));
    }
    let value = value.to_str().unwrap_or_default();
    let Some((scheme, token)) = value.split_once(' ') else {
        return Err(Refusal::Malformed(
            "Authorization has to be Bearer or DPoP, and a token",
        ));
    };
    let token = token.trim();
    if token.is_empty() || token.len() > LONGEST {
        return Err(Refusal::Invalid("the token is empty or too long".to_owned()));
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok((false, token))
    } else if scheme.eq_ignore_ascii_case("dpop") {
        Ok((true, token))
    } else {
        Err(Refusal::Missing)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn is_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["", "mcp"] => true,
        ["", "mcp", node, agent] => super::target(node, agent).is_ok(),
        _ => false,
    }
}

fn cors(origins: &[String]) -> Result<CorsLayer, ResourceError> {
    let origin = |text: &String| {
        let parsed = text.parse::<Url>().ok();
        let is_origin = parsed.is_some_and(|url| url.origin().ascii_serialization() == *text);
        let value = text.parse::<HeaderValue>().ok().filter(|_| is_origin);
        value.ok_or_else(|| ResourceError::Origin(text.clone()))
    };
    let origins = origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?;
    Ok(CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // What clients of either era send; `Mcp-Param-*` cannot be listed, so what is asked for is allowed.
        .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
        .expose_headers([
            header::WWW_AUTHENTICATE,
            header::HeaderName::from_static("mcp-session-id"),
            header::HeaderName::from_static("mcp-protocol-version"),
        ])
        .max_age(Duration::from_secs(600)))
}

/// Serves what a gateway exposes. Clones share everything.
#[derive(Clone)]
pub struct ResourceServer {
    inner: Arc<Inner>,
}

struct Inner {
    gateway: Gateway,
    routes: axum::Router,
    client: reqwest::Client,
    settings: RwLock<Arc<Settings>>,
    proofs: dpop::Proofs,
    /// Room for bodies, in units of [`UNIT`].
    bodies: Semaphore,
}

impl std::fmt::Debug for ResourceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceServer")
            .field("settings", &self.settings())
            .finish_non_exhaustive()
    }
}

impl ResourceServer {
    /// Exposes a gateway.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(gateway: Gateway, config: ResourceConfig) -> Result<Self, ResourceError> {
        let client = crate::host::http_client();
        let settings = RwLock::new(Arc::new(Settings::new(config, &client, None)?));
        let inner = Inner {
            routes: gateway.guest_routes(),
            gateway,
            client,
            settings,
            proofs: dpop::Proofs::default(),
            bodies: Semaphore::new(BODIES),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether a configuration would do.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(config: &ResourceConfig) -> Result<(), ResourceError> {
        endpoints(config, None)?;
        cors(&config.origins).map(drop)
    }

    /// Serves another configuration from now on. Sessions and streams go on where they may under it.
    ///
    /// # Errors
    /// What is wrong with the configuration; nothing is changed then.
    pub fn set(&self, config: ResourceConfig) -> Result<(), ResourceError> {
        let before = self.settings();
        let settings = Arc::new(Settings::new(config, &self.inner.client, Some(&before))?);
        *self.inner.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    /// Serves nothing from now on.
    pub fn withdraw(&self) {
        let mut settings = self.inner.settings.write().unwrap_or_else(PoisonError::into_inner);
        *settings = Arc::new(Settings {
            issuer: settings.issuer.clone(),
            user_claim: settings.user_claim.clone(),
            bound_only: settings.bound_only,
            leeway: settings.leeway,
            origins: Vec::new(),
            endpoints: Vec::new(),
            cors: CorsLayer::new(),
        });
    }

    /// The addresses of what is served.
    #[must_use]
    pub fn resources(&self) -> Vec<String> {
        let settings = self.settings();
        settings
            .endpoints
            .iter()
            .map(|endpoint| endpoint.resource.clone())
            .collect()
    }

    fn settings(&self) -> Arc<Settings> {
        let settings = self.inner.settings.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    /// Everything that is served beyond this machine.
    pub fn routes(&self) -> axum::Router {
        axum::Router::new().fallback(serve).with_state(self.clone())
    }
}

async fn serve(State(server): State<ResourceServer>, request: Request) -> Response {
    let settings = server.settings();
    let path = request.uri().path();
    if let Some(of) = path.strip_prefix(WELL_KNOWN) {
        return match settings.endpoint(of) {
            Some(endpoint) if matches!(*request.method(), Method::GET | Method::HEAD) => {
                let mut response = Json(settings.metadata(endpoint)).into_response();
                // It is public: any web page may read it.
                let headers = response.headers_mut();
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                response
            }
            Some(_) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            None => nothing(),
        };
    }
    let Some(endpoint) = settings.endpoint(path).cloned() else {
        return nothing();
    };
    // MCP, "Streamable HTTP: Security": the origin is checked, whatever the token.
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    let is_allowed = |origin: &HeaderValue| {
        settings
            .origins
            .iter()
            .any(|known| known.as_bytes() == origin.as_bytes())
    };
    if !origins.all(is_allowed) {
        let body = Json(serde_json::json!({
            "error": "origin_not_allowed",
            "error_description": "web pages of this origin may not use this endpoint (gateway.allowed_origins)",
        }));
        return (StatusCode::FORBIDDEN, body).into_response();
    }
    let served = {
        let (server, settings) = (server.clone(), Arc::clone(&settings));
        tower::service_fn(move |request: Request| {
            let (server, settings, endpoint) = (server.clone(), Arc::clone(&settings), Arc::clone(&endpoint));
            async move { Ok::<_, std::convert::Infallible>(admit(server, settings, endpoint, request).await) }
        })
    };
    let served = tower::Layer::layer(&settings.cors, served).oneshot(request).await;
    let Ok(response) = served;
    response
}

fn nothing() -> Response {
    let body = Json(serde_json::json!({
        "error": "not_found",
        "error_description": "nothing is exposed here",
    }));
    (StatusCode::NOT_FOUND, body).into_response()
}

async fn admit(server: ResourceServer, settings: Arc<Settings>, endpoint: Arc<Exposed>, request: Request) -> Response {
    let address = request.extensions().get::<Peer>().map(|peer| peer.0);
    let asked = Asked {
        method: request.method(),
        headers: request.headers(),
        query: request.uri().query().unwrap_or_default(),
        address,
    };
    let counters = server.inner.gateway.counters();
    let (token, shown) = match settings.authorize(&endpoint, &asked, &server.inner.proofs).await {
        Ok((token, shown)) => (token, shown.to_owned()),
        Err(refusal) => {
            Counters::count(&counters.challenged);
            tracing::debug!(%refusal, path = endpoint.path, "a request from beyond this machine is not let in");
            return refusal.response(Challenge {
                metadata: &endpoint.metadata,
                scope: &endpoint.scopes.join(" "),
                bound_only: settings.bound_only,
            });
        }
    };
    Counters::count(&counters.admitted);
    let (mut parts, body) = request.into_parts();
    // What the token opens is this endpoint; nobody behind it is to see it.
    parts.headers.remove(header::AUTHORIZATION);
    parts.headers.remove("dpop");
    parts.extensions.insert(Guest {
        user: token.user.clone(),
        endpoint: Arc::clone(&endpoint),
    });
    let (body, _room) = match server.body(&parts.headers, body).await {
        Ok(read) => read,
        Err(response) => return *response,
    };
    let request = Request::from_parts(parts, Body::from(body));
    let Ok(response) = server.inner.routes.clone().oneshot(request).await;
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return response;
    }
    let (parts, body) = response.into_parts();
    let ended = until_ended(server.clone(), endpoint, shown, token);
    Response::from_parts(parts, Body::from_stream(body.into_data_stream().take_until(ended)))
}

impl ResourceServer {
    /// Reads a body, in its time and where there is room for it; the room is free again when it is dropped.
    async fn body(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, SemaphorePermit<'_>), Box<Response>> {
        let refuse = |status, error: &str, words: &str| {
            Counters::count(&self.inner.gateway.counters().refused);
            let body = serde_json::json!({ "error": error, "error_description": words });
            Err(Box::new((status, Json(body)).into_response()))
        };
        let most = self.inner.gateway.limits().message_bytes;
        let declared = text_header(headers, header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let size = declared.unwrap_or(most);
        if size > most {
            let words = format!("the message is larger than the limit of {most} bytes");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &words);
        }
        let reading = async {
            let room = u32::try_from(size.div_ceil(UNIT).min(BODIES)).unwrap_or(u32::MAX);
            let room = self.inner.bodies.acquire_many(room).await.ok()?;
            Some((axum::body::to_bytes(body, most).await, room))
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Some((Ok(body), room))) => Ok((body, room)),
            Ok(Some((Err(_), _))) => {
                let words = format!("the body broke off, or is larger than the limit of {most} bytes");
                refuse(StatusCode::BAD_REQUEST, "invalid_request", &words)
            }
            Ok(None) | Err(_) => {
                let words = format!("the body did not come within {} s", PATIENCE.as_secs());
                refuse(StatusCode::REQUEST_TIMEOUT, "timeout", &words)
            }
        }
    }
}

/// Waits until a token grants nothing more here: it expires, is revoked, or the endpoint has other rules or is no longer
/// for its person.
async fn until_ended(server: ResourceServer, endpoint: Arc<Exposed>, shown: String, token: Token) {
    loop {
        let settings = server.settings();
        let left = token.expires.saturating_add(settings.leeway).saturating_sub(now());
        tokio::time::sleep(RECHECK.min(Duration::from_secs(left))).await;
        let settings = server.settings();
        let Some(current) = settings.endpoint(&endpoint.path) else {
            return;
        };
        if !Arc::ptr_eq(&current.access, &endpoint.access) {
            return;
        }
        // An issuer that cannot be asked just now has taken nothing back.
        match settings.grant(current, &shown, now(), None).await {
            Ok(_) | Err(Refusal::Unavailable(_)) => {}
            Err(_) => return,
        }
        if left == 0 {
            return;
        }
    }
}
