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

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

pub use self::issuer::Introspection;
use self::issuer::{Issuer, is_private};
use self::refusal::{Challenge, PROOF_ALGORITHMS, Refusal};
use self::token::{Expected, Token};
use super::{Counters, Gateway, Guest};
use crate::aggregate::Pattern;
use crate::host::access::Access;
use crate::host::{CallerLimits, Rule};

/// Where metadata of protected resources is (RFC 9728, 3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// Longest token, bytes.
const LONGEST: usize = 16 << 10;
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

impl Exposed {
    fn is_for(&self, user: &str) -> bool {
        self.users.is_empty() || self.users.iter().any(|pattern| pattern.fits(user))
    }
}

#[derive(Debug)]
struct Settings {
    config: ResourceConfig,
    issuer: Issuer,
    endpoints: Vec<Arc<Exposed>>,
    cors: CorsLayer,
}

impl Settings {
    fn new(config: ResourceConfig, client: reqwest::Client) -> Result<Self, ResourceError> {
        let base = config.url.parse::<Url>().ok();
        let base = base
            .filter(|url| is_private(url) && url.path() == "/" && url.query().is_none() && url.fragment().is_none());
        let base = base.ok_or_else(|| ResourceError::Url(config.url.clone()))?;
        let base = base.as_str().trim_end_matches('/');
        let issuer = config.issuer.parse::<Url>().ok();
        if !issuer.is_some_and(|url| is_private(&url) && url.query().is_none() && url.fragment().is_none()) {
            return Err(ResourceError::Issuer(config.issuer));
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
            endpoints.push(Arc::new(Exposed {
                path: endpoint.path.clone(),
                resource: format!("{base}{}", endpoint.path),
                metadata: format!("{base}{WELL_KNOWN}{}", endpoint.path),
                scopes: endpoint.scopes.clone(),
                users: endpoint.users.clone(),
                access: Access::new(endpoint.rules.clone(), endpoint.limits),
            }));
        }
        Ok(Self {
            issuer: Issuer::new(client, &config.issuer, config.introspection.clone()),
            cors: cors(&config.origins)?,
            endpoints,
            config,
        })
    }

    fn endpoint(&self, path: &str) -> Option<&Arc<Exposed>> {
        self.endpoints.iter().find(|endpoint| endpoint.path == path)
    }

    fn leeway(&self) -> u64 {
        self.config.leeway.as_secs()
    }

    /// Who sends a request, and with which token.
    async fn authorize(
        &self,
        endpoint: &Exposed,
        request: &Asked<'_>,
        proofs: &dpop::Proofs,
    ) -> Result<Token, Refusal> {
        let (is_bound, shown) = shown_token(request)?;
        let now = now();
        let expected = self.expected(endpoint, now);
        let token = self.issuer.grant(shown, expected).await?;
        match (&token.bound_to, is_bound) {
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
            (None, false) if self.config.bound_only => {
                return Err(Refusal::Invalid(
                    "only tokens that are bound to a key are taken here (DPoP)".to_owned(),
                ));
            }
            (None, false) => {}
            (Some(thumbprint), true) => {
                let mut sent = request.headers.get_all("dpop").iter();
                let (Some(proof), None) = (sent.next(), sent.next()) else {
                    return Err(Refusal::InvalidProof("one header DPoP has to be there"));
                };
                let request = dpop::Request {
                    method: request.method.as_str(),
                    resource: &endpoint.resource,
                    token: shown,
                    thumbprint,
                    leeway: self.leeway(),
                    now,
                };
                proofs.check(proof.to_str().unwrap_or_default(), request)?;
            }
        }
        if !endpoint.scopes.iter().all(|scope| token.scopes.contains(scope)) {
            return Err(Refusal::InsufficientScope);
        }
        let user = token.user.to_string();
        if !endpoint.is_for(&user) {
            return Err(Refusal::Forbidden(user));
        }
        Ok(token)
    }

    fn expected<'a>(&'a self, endpoint: &'a Exposed, now: u64) -> Expected<'a> {
        Expected {
            issuer: self.issuer.name(),
            resource: &endpoint.resource,
            user_claim: &self.config.user_claim,
            leeway: self.leeway(),
            now,
        }
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
            "dpop_bound_access_tokens_required": self.config.bound_only,
        })
    }
}

/// What of a request decides who sends it.
struct Asked<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    query: &'a str,
}

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
        let settings = RwLock::new(Arc::new(Settings::new(config, client.clone())?));
        let inner = Inner {
            routes: gateway.routes(),
            gateway,
            client,
            settings,
            proofs: dpop::Proofs::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether a configuration would do.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(config: ResourceConfig) -> Result<(), ResourceError> {
        Settings::new(config, crate::host::http_client()).map(drop)
    }

    /// Serves another configuration from now on. Streams that are open go on until their token ends.
    ///
    /// # Errors
    /// What is wrong with the configuration; nothing is changed then.
    pub fn set(&self, config: ResourceConfig) -> Result<(), ResourceError> {
        let settings = Arc::new(Settings::new(config, self.inner.client.clone())?);
        *self.inner.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
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
            .config
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

async fn admit(
    server: ResourceServer,
    settings: Arc<Settings>,
    endpoint: Arc<Exposed>,
    mut request: Request,
) -> Response {
    let asked = Asked {
        method: request.method(),
        headers: request.headers(),
        query: request.uri().query().unwrap_or_default(),
    };
    let counters = server.inner.gateway.counters();
    let token = match settings.authorize(&endpoint, &asked, &server.inner.proofs).await {
        Ok(token) => token,
        Err(refusal) => {
            Counters::count(&counters.challenged);
            tracing::debug!(%refusal, path = endpoint.path, "a request from beyond this machine is not let in");
            return refusal.response(Challenge {
                metadata: &endpoint.metadata,
                scope: &endpoint.scopes.join(" "),
                bound_only: settings.config.bound_only,
            });
        }
    };
    Counters::count(&counters.admitted);
    let shown = shown_token(&asked)
        .map(|(_, shown)| shown.to_owned())
        .unwrap_or_default();
    // What the token opens is this endpoint; nobody behind it is to see it.
    request.headers_mut().remove(header::AUTHORIZATION);
    request.headers_mut().remove("dpop");
    request.extensions_mut().insert(Guest {
        user: token.user.clone(),
        endpoint: Arc::clone(&endpoint),
    });
    let Ok(response) = server.inner.routes.clone().oneshot(request).await;
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return response;
    }
    let (parts, body) = response.into_parts();
    let ended = until_ended(server, endpoint, shown, token);
    Response::from_parts(parts, Body::from_stream(body.into_data_stream().take_until(ended)))
}

/// Waits until a token grants nothing more: it expires, is revoked, or the endpoint is no longer for its person.
async fn until_ended(server: ResourceServer, endpoint: Arc<Exposed>, shown: String, token: Token) {
    loop {
        let settings = server.settings();
        let left = token.expires.saturating_add(settings.leeway()).saturating_sub(now());
        if left == 0 {
            return;
        }
        tokio::time::sleep(RECHECK.min(Duration::from_secs(left))).await;
        let settings = server.settings();
        let Some(current) = settings.endpoint(&endpoint.path) else {
            return;
        };
        if !current.is_for(&token.user.to_string()) {
            return;
        }
        if settings.issuer.is_asked() {
            let granted = settings.issuer.grant(&shown, settings.expected(current, now())).await;
            // An issuer that cannot be asked just now has taken nothing back.
            if matches!(granted, Err(refusal) if !matches!(refusal, Refusal::Unavailable(_))) {
                return;
            }
        }
    }
}
