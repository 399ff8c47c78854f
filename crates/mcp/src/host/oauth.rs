//! OAuth 2.1 towards HTTP servers: a person logs in once, tokens are kept sealed by the node and renewed by themselves.
//!
//! Discovery, registration, PKCE, issuer checks and refresh are `rmcp`'s; here is what a node adds: where the
//! credentials of an agent are kept, which client they belong to, and what a refusal means.
//! Source: MCP 2026-07-28 "Authorization", RFC 9728, RFC 8414, RFC 7591, RFC 9207.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::AgentName;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use rmcp::transport::auth::{
    AuthError, AuthorizationCallback, AuthorizationManager, AuthorizationMetadata, AuthorizationMetadataSource,
    CredentialStore, OAuthClientConfig, StoredCredentials, WWWAuthenticateParams,
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::lock;
use crate::fault::{Fault, FaultCode};

/// How long a person has to log in.
const LOGIN: Duration = Duration::from_secs(10 * 60);

/// Where credentials are kept. What it is given is plain: it seals.
pub trait Vault: Send + Sync + 'static {
    /// What was kept for an agent.
    fn load(&self, agent: AgentName) -> BoxFuture<'static, Result<Option<Vec<u8>>, String>>;
    /// Keeps it.
    fn save(&self, agent: AgentName, secret: Vec<u8>) -> BoxFuture<'static, Result<(), String>>;
    /// Forgets it.
    fn clear(&self, agent: AgentName) -> BoxFuture<'static, Result<(), String>>;
}

/// As which client a node presents itself, where it does not register by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OauthClient {
    /// The id of a client that was registered beforehand.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<String>,
    /// Address of a client id metadata document.
    pub metadata_url: Option<String>,
    /// Scopes to ask for beside those that the server names.
    pub scopes: Vec<String>,
}

/// A login that waits for its person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// What to open in a browser.
    pub url: Url,
    /// The `state` by which the answer is known.
    pub state: String,
}

/// What is known of an agent's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginState {
    /// Nobody logged in.
    None,
    /// A login waits for its person.
    Pending,
    /// The last login failed.
    Failed(String),
    /// Logged in, with these scopes.
    Done(Vec<String>),
}

/// Everything that is kept of an account.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    metadata: AuthorizationMetadata,
    client_id: String,
    client_secret: Option<String>,
    redirect_uri: String,
    scopes: Vec<String>,
    credentials: Option<StoredCredentials>,
}

/// Keeps what `rmcp` learns within the record.
struct Kept {
    agent: AgentName,
    vault: Arc<dyn Vault>,
    record: Mutex<Record>,
}

fn store_error(error: impl std::fmt::Display) -> AuthError {
    AuthError::CredentialStoreError(error.to_string())
}

impl Kept {
    async fn write(&self) -> Result<(), AuthError> {
        let bytes = serde_json::to_vec(&*lock(&self.record)).map_err(store_error)?;
        self.vault.save(self.agent.clone(), bytes).await.map_err(store_error)
    }
}

struct Store(Arc<Kept>);

#[async_trait::async_trait]
impl CredentialStore for Store {
    async fn load(&self) -> Result<Option<StoredCredentials>, AuthError> {
        Ok(lock(&self.0.record).credentials.clone())
    }

    async fn save(&self, credentials: StoredCredentials) -> Result<(), AuthError> {
        lock(&self.0.record).credentials = Some(credentials);
        self.0.write().await
    }

    async fn clear(&self) -> Result<(), AuthError> {
        lock(&self.0.record).credentials = None;
        self.0.write().await
    }
}

struct Live {
    manager: AuthorizationManager,
    kept: Arc<Kept>,
}

struct Pending {
    live: Live,
    state: String,
    since: Instant,
}

#[derive(Default)]
struct State {
    is_loaded: bool,
    live: Option<Live>,
    pending: Option<Pending>,
    failed: Option<String>,
}

/// One agent's account at its server.
pub(super) struct Account {
    agent: AgentName,
    url: Url,
    client: OauthClient,
    vault: Arc<dyn Vault>,
    state: tokio::sync::Mutex<State>,
    /// The last challenge of the server.
    challenge: Mutex<Option<String>>,
    /// What a server wants that answers 401, in words.
    asks: &'static str,
}

impl Account {
    pub(super) fn new(agent: AgentName, url: Url, client: OauthClient, vault: Arc<dyn Vault>) -> Self {
        Self {
            agent,
            url,
            client,
            vault,
            state: tokio::sync::Mutex::default(),
            challenge: Mutex::default(),
            asks: "asks for a login",
        }
    }

    fn fault(&self, code: FaultCode, why: impl std::fmt::Display) -> Fault {
        Fault::new(code, format!("agent {}: {why}", self.agent))
    }

    fn login_required(&self, why: &str) -> Fault {
        let words = format!("its server {why}; on its node: dawn agent login {}", self.agent);
        self.fault(FaultCode::LoginRequired, words)
    }

    /// The same at a WebSocket, which may be that of another node: it lets nobody log in.
    pub(super) fn at_websocket(self) -> Self {
        Self {
            asks: "asks for a login or, if it is a Dawn node, for its token (`--header 'Authorization: Bearer …'`) or a secure channel (`--node NODE-ID`)",
            ..self
        }
    }

    async fn manager(&self) -> Result<AuthorizationManager, AuthError> {
        // The shared client is what installs the provider of TLS.
        let _client = super::http::client();
        AuthorizationManager::new(self.url.clone()).await
    }

    /// A manager with what is kept; the record's client is configured.
    async fn restore(&self, record: Record) -> Result<Live, AuthError> {
        let mut manager = self.manager().await?;
        manager.set_metadata(record.metadata.clone());
        let kept = Arc::new(Kept {
            agent: self.agent.clone(),
            vault: Arc::clone(&self.vault),
            record: Mutex::new(record.clone()),
        });
        manager.set_credential_store(Store(Arc::clone(&kept)));
        manager.configure_client(client_config(&record))?;
        Ok(Live { manager, kept })
    }

    async fn load(&self, state: &mut State) -> Result<(), AuthError> {
        if state.is_loaded {
            return Ok(());
        }
        let bytes = self.vault.load(self.agent.clone()).await.map_err(store_error)?;
        if let Some(bytes) = bytes {
            let record: Record = serde_json::from_slice(&bytes).map_err(store_error)?;
            state.live = Some(self.restore(record).await?);
        }
        state.is_loaded = true;
        Ok(())
    }

    /// The token to send, renewed when it is about to expire; `None` when nobody logged in.
    pub(super) async fn token(&self) -> Result<Option<String>, Fault> {
        let mut state = self.state.lock().await;
        let loaded = self.load(&mut state).await;
        loaded.map_err(|error| self.fault(FaultCode::AgentFailed, error))?;
        let Some(live) = &state.live else { return Ok(None) };
        match live.manager.get_access_token().await {
            Ok(token) => Ok(Some(token)),
            // The server says what it thinks of a request without one.
            Err(AuthError::AuthorizationRequired) => Ok(None),
            Err(error) => Err(self.fault(FaultCode::AgentFailed, format!("its token is not renewed: {error}"))),
        }
    }

    /// What a refusal means: a token to try once more with, or the fault to answer with; `None` when it is no refusal.
    pub(super) async fn refused(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        sent: Option<&str>,
    ) -> Option<Result<String, Fault>> {
        let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|value| value.to_str().ok()).find(|value| {
            value
                .get(..6)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"))
        });
        let params = challenge.map(|challenge| WWWAuthenticateParams::parse(challenge, &self.url));
        let lacks_scope = params
            .as_ref()
            .is_some_and(WWWAuthenticateParams::is_insufficient_scope);
        match status {
            StatusCode::UNAUTHORIZED => {}
            StatusCode::FORBIDDEN if lacks_scope => {
                *lock(&self.challenge) = challenge.map(str::to_owned);
                return Some(Err(self.login_required("asks for more rights than it was given")));
            }
            _ => return None,
        }
        *lock(&self.challenge) = challenge.map(str::to_owned);
        let Some(sent) = sent else {
            return Some(Err(self.login_required(self.asks)));
        };
        Some(self.renewed(sent).await)
    }

    async fn renewed(&self, sent: &str) -> Result<String, Fault> {
        let state = self.state.lock().await;
        let over = || self.login_required("does not accept its token any more");
        let live = state.live.as_ref().ok_or_else(over)?;
        // Another request may have renewed it meanwhile.
        if let Ok(current) = live.manager.get_access_token().await
            && current != sent
        {
            return Ok(current);
        }
        match live.manager.refresh_token().await {
            Ok(_) => {
                let token = live.manager.get_access_token().await;
                token.map_err(|error| self.fault(FaultCode::AgentFailed, error))
            }
            Err(AuthError::AuthorizationRequired | AuthError::TokenRefreshRejected(_)) => {
                lock(&live.kept.record).credentials = None;
                if let Err(error) = live.kept.write().await {
                    tracing::warn!(agent = %self.agent, %error, "a token that is no longer accepted was not forgotten");
                }
                Err(over())
            }
            Err(error) => Err(self.fault(FaultCode::AgentFailed, format!("its token is not renewed: {error}"))),
        }
    }

    /// Begins a login whose answer goes to `redirect_uri`. `works` says that the agent answers as it is.
    ///
    /// # Errors
    /// The server offers no login that this node can use.
    pub(super) async fn begin(&self, redirect_uri: &str, works: bool) -> Result<Login, Fault> {
        let mut state = self.state.lock().await;
        state.failed = None;
        let begun = self.begin_with(&mut state, redirect_uri).await;
        begun.map_err(|error| {
            let words = match error {
                AuthError::NoAuthorizationSupport if works => {
                    "its server asks for no login; it works as it is, see `dawn agent list`".to_owned()
                }
                AuthError::NoAuthorizationSupport => {
                    "its server does not say where to log in (it has no authorization server metadata); if it wants a \
                     token, add it anew with --header 'Authorization: Bearer TOKEN'"
                        .to_owned()
                }
                error => format!("a login is not possible: {error}"),
            };
            self.fault(FaultCode::AgentFailed, words)
        })
    }

    async fn begin_with(&self, state: &mut State, redirect_uri: &str) -> Result<Login, AuthError> {
        // Credentials that cannot be read are no reason not to log in anew.
        if let Err(error) = self.load(state).await {
            tracing::warn!(agent = %self.agent, %error, "the kept credentials are of no use");
            state.is_loaded = true;
        }
        let before = state.live.as_ref().map(|live| lock(&live.kept.record).clone());
        let mut manager = self.manager().await?;
        let challenge = lock(&self.challenge).clone();
        let found = manager.resolve_metadata_from_challenge(challenge.as_deref()).await?;
        // The addresses that revision 2025-03-26 has servers without metadata use.
        let is_guessed = found.source == AuthorizationMetadataSource::LegacyEndpointFallback;
        let metadata = found.metadata;
        // MCP, "Authorization": a server that does not say that it supports PKCE is refused. What it says instead of S256
        // the manager refuses.
        if !is_guessed && metadata.code_challenge_methods_supported.is_none() {
            return Err(AuthError::MetadataError(
                "the authorization server does not say that it supports PKCE with S256".into(),
            ));
        }
        manager.set_metadata(metadata.clone());
        // What was granted by another server says nothing to this one.
        let before = before.filter(|before| before.metadata.issuer == metadata.issuer);
        let mut scopes = match &before {
            Some(before) => {
                let mut scopes = before.scopes.clone();
                scopes.extend(manager.select_scopes(None, &[]));
                scopes
            }
            None => manager.select_initial_scopes(&[]).await,
        };
        scopes.extend(self.client.scopes.iter().cloned());
        let mut known = std::collections::BTreeSet::new();
        scopes.retain(|scope| known.insert(scope.clone()));
        let borrowed: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let supports_documents = metadata.additional_fields.get("client_id_metadata_document_supported")
            == Some(&serde_json::Value::Bool(true));
        let registered = before.filter(|before| before.redirect_uri == redirect_uri);
        let (client_id, client_secret) = match (&self.client.client_id, &self.client.metadata_url, registered) {
            (Some(id), _, _) => (id.clone(), self.client.client_secret.clone()),
            (None, Some(document), _) if supports_documents => (document.clone(), None),
            (None, _, Some(before)) => (before.client_id, before.client_secret),
            (None, _, None) => {
                let registered = manager.register_client("Dawn", redirect_uri, &borrowed).await;
                let config = registered.map_err(|error| match error {
                    AuthError::RegistrationFailed(_) if is_guessed => AuthError::NoAuthorizationSupport,
                    error => error,
                })?;
                (config.client_id, config.client_secret)
            }
        };
        let record = Record {
            metadata,
            client_id,
            client_secret,
            redirect_uri: redirect_uri.to_owned(),
            scopes: scopes.clone(),
            credentials: None,
        };
        let kept = Arc::new(Kept {
            agent: self.agent.clone(),
            vault: Arc::clone(&self.vault),
            record: Mutex::new(record.clone()),
        });
        manager.set_credential_store(Store(Arc::clone(&kept)));
        manager.configure_client(client_config(&record))?;
        let url: Url = manager.get_authorization_url(&borrowed).await?.parse()?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(AuthError::MetadataError(format!(
                "its authorization endpoint is no web address but {}:",
                url.scheme()
            )));
        }
        let known = url.query_pairs().find(|(key, _)| key == "state");
        let known = known.map(|(_, value)| value.into_owned());
        let known = known.ok_or_else(|| AuthError::InternalError("a login without a state".into()))?;
        state.pending = Some(Pending {
            live: Live { manager, kept },
            state: known.clone(),
            since: Instant::now(),
        });
        Ok(Login { url, state: known })
    }

    /// Whether a login under this state waits.
    pub(super) async fn awaits(&self, known: &str) -> bool {
        let state = self.state.lock().await;
        state
            .pending
            .as_ref()
            .is_some_and(|pending| pending.state == known && pending.since.elapsed() < LOGIN)
    }

    /// Ends a login with where the browser was sent.
    ///
    /// # Errors
    /// It was refused, or the answer is not the authorization server's.
    pub(super) async fn finish(&self, callback: &Url) -> Result<(), Fault> {
        let mut state = self.state.lock().await;
        let Some(pending) = state.pending.take() else {
            return Err(self.fault(FaultCode::Denied, "no login is under way"));
        };
        match exchange(&pending.live.manager, callback).await {
            Ok(()) => {
                state.live = Some(pending.live);
                *lock(&self.challenge) = None;
                Ok(())
            }
            Err(error) => {
                state.failed = Some(error.to_string());
                Err(self.fault(FaultCode::Denied, format!("the login failed: {error}")))
            }
        }
    }

    /// Forgets every credential.
    pub(super) async fn forget(&self) -> Result<(), Fault> {
        let mut state = self.state.lock().await;
        *state = State {
            is_loaded: true,
            ..State::default()
        };
        let cleared = self.vault.clear(self.agent.clone()).await;
        cleared.map_err(|error| self.fault(FaultCode::AgentFailed, error))
    }

    pub(super) async fn login_state(&self) -> LoginState {
        let mut state = self.state.lock().await;
        if let Err(error) = self.load(&mut state).await {
            return LoginState::Failed(error.to_string());
        }
        if let Some(pending) = &state.pending {
            if pending.since.elapsed() < LOGIN {
                return LoginState::Pending;
            }
            return LoginState::Failed("nobody logged in in time".into());
        }
        if let Some(error) = &state.failed {
            return LoginState::Failed(error.clone());
        }
        let credentials = state
            .live
            .as_ref()
            .and_then(|live| lock(&live.kept.record).credentials.clone());
        credentials.map_or(LoginState::None, |credentials| {
            LoginState::Done(credentials.granted_scopes)
        })
    }
}

fn client_config(record: &Record) -> OAuthClientConfig {
    let config = OAuthClientConfig::new(record.client_id.clone(), record.redirect_uri.clone())
        .with_scopes(record.scopes.clone())
        .with_application_type("native");
    match &record.client_secret {
        Some(secret) => config.with_client_secret(secret.clone()),
        None => config,
    }
}

/// Turns the answer of an authorization server into credentials.
async fn exchange(manager: &AuthorizationManager, callback: &Url) -> Result<(), AuthError> {
    if let Some((_, error)) = callback.query_pairs().find(|(key, _)| key == "error") {
        let words = callback.query_pairs().find(|(key, _)| key == "error_description");
        let words = words.map_or_else(String::new, |(_, words)| format!(" ({words})"));
        return Err(AuthError::AuthorizationFailed(format!("{error}{words}")));
    }
    let answer = AuthorizationCallback::from_redirect_url(callback.as_str())?;
    let _token = manager
        .exchange_code_for_token_with_issuer(&answer.code, &answer.csrf_token, answer.issuer.as_deref())
        .await?;
    Ok(())
}
