//! The control plane, as this node speaks with it: requests signed with its key, answers of bounded length.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dawn_control_api::challenge::Nonce;
use dawn_control_api::signature::{self, Parts};
use dawn_control_api::{CONTENT_DIGEST, Info, Problem, limits, paths};
use dawn_identity::{Keypair, NodeId};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::ControlError;
use crate::config::ControlConfig;
use crate::error::NodeError;
use crate::members::now;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take, beside the time for which it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest `Retry-After` that is heeded.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A control plane at an address. Clones share its connections.
#[derive(Clone)]
pub struct Plane {
    http: reqwest::Client,
    url: Url,
    authority: String,
    key: Keypair,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

fn unreachable(error: &reqwest::Error) -> ControlError {
    // The reason lies at the end of the chain: "error sending request" says nothing.
    let mut source: &dyn std::error::Error = error;
    while let Some(next) = source.source() {
        source = next;
    }
    ControlError::Unreachable(source.to_string())
}

fn not_understood(error: impl std::fmt::Display) -> ControlError {
    ControlError::Answer(error.to_string())
}

impl Plane {
    /// The control plane of a configuration. Nothing is sent yet.
    ///
    /// # Errors
    /// The address is none, or the certificates cannot be read.
    pub fn new(config: &ControlConfig, key: Keypair) -> Result<Self, NodeError> {
        let url = config.address()?;
        // A second installation only says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &config.ca {
            let pem = std::fs::read(path).map_err(|source| NodeError::File {
                path: path.clone(),
                source,
            })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| ControlError::Certificates(format!("{}: {error}", path.display())))?;
            if certificates.is_empty() {
                let words = format!("there is no certificate in {}", path.display());
                return Err(ControlError::Certificates(words).into());
            }
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder
            .build()
            .map_err(|error| ControlError::Certificates(error.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            http,
            url,
            authority,
            key,
        })
    }

    /// Its address, without a slash at its end.
    #[must_use]
    pub fn address(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.key.node_id()
    }

    pub(super) fn key(&self) -> &Keypair {
        &self.key
    }

    /// What it is.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn info(&self) -> Result<Info, ControlError> {
        self.get(paths::INFO).await
    }

    /// `GET` of a value.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        self.get_within(path, Duration::ZERO).await
    }

    /// `GET` of a value that may take as long as it was asked to wait.
    pub(super) async fn get_within<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, ControlError> {
        read(&self.send(Method::GET, path, None, wait).await?)
    }

    /// `POST`, with an answer that is a value.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ControlError> {
        read(
            &self
                .send(Method::POST, path, Some(encoded(body)?), Duration::ZERO)
                .await?,
        )
    }

    /// `POST` without a body, with an answer that is a value.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        read(&self.send(Method::POST, path, None, Duration::ZERO).await?)
    }

    /// `POST` or `PUT` whose answer is not read.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn tell(&self, method: Method, path: &str, body: &impl Serialize) -> Result<(), ControlError> {
        self.send(method, path, Some(encoded(body)?), Duration::ZERO).await?;
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        wait: Duration,
    ) -> Result<Bytes, ControlError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let body = body.unwrap_or_default();
        let parts = Parts {
            method: method.as_str(),
            authority: &self.authority,
            path,
            query,
            headers: &[],
            body: &body,
        };
        let nonce = Nonce::from_bytes(rand::random());
        let signed = signature::sign(&parts, &self.key, now(), nonce).map_err(not_understood)?;
        let url = self.url.join(target).map_err(not_understood)?;
        let mut request = self
            .http
            .request(method, url)
            .timeout(PATIENCE + wait)
            .header(header::ACCEPT, "application/json, application/problem+json")
            .header(header::USER_AGENT, super::SOFTWARE)
            .header(signature::SIGNATURE_INPUT, &signed.signature_input)
            .header(signature::SIGNATURE, &signed.signature);
        if let Some(digest) = &signed.content_digest {
            request = request.header(CONTENT_DIGEST, digest);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(seconds);
        let mut answer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if answer.len() + chunk.len() > limits::MAX_ANSWER_BYTES {
                return Err(ControlError::Answer("it is too long".to_owned()));
            }
            answer.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(answer.freeze());
        }
        Err(problem(status, &answer, retry_after))
    }
}

/// `Retry-After` in seconds; a date is passed over.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

fn problem(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> ControlError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => ControlError::Problem {
            problem: Box::new(problem),
            retry_after,
        },
        // A proxy in between, or none of ours.
        Err(_) if status.is_server_error() => ControlError::Unreachable(format!("status {status}")),
        Err(_) => ControlError::Answer(format!("status {status} without a problem that is understood")),
    }
}

fn encoded(body: &impl Serialize) -> Result<Vec<u8>, ControlError> {
    serde_json::to_vec(body).map_err(not_understood)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(not_understood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_problem_is_told_apart_from_an_outage() {
        let of = |status: u16, body: &[u8]| problem(StatusCode::from_u16(status).unwrap(), body, None);
        assert!(matches!(of(502, b"<html>"), ControlError::Unreachable(_)));
        assert!(matches!(of(404, b"<html>"), ControlError::Answer(_)));
        let known = serde_json::to_vec(&Problem::new(dawn_control_api::Code::Replayed)).unwrap();
        assert_eq!(of(401, &known).problem(), Some(dawn_control_api::Code::Replayed));
    }

    #[test]
    fn a_pause_that_is_asked_for_is_bounded() {
        let of = |text: &str| seconds(&HeaderValue::from_str(text).unwrap());
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("999999999"), Some(LONGEST_PAUSE));
        assert_eq!(of("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(of("-1"), None);
    }
}
