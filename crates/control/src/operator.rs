//! The operator of this machine: asks the running control plane over its socket, which nobody else may open.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use dawn_control_api::{Code, Problem, limits};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::server;

/// Why the control plane did not do what its operator asked.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// None runs with this data folder.
    #[error("no control plane runs with the data folder {}", .0.display())]
    NotRunning(PathBuf),
    /// It refused.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// The conversation broke off.
    #[error("the control plane broke off: {0}")]
    Broken(String),
    /// What it said was not understood.
    #[error("the control plane said something that is not understood: {0}")]
    Answer(String),
}

/// Asks a control plane on this machine.
#[derive(Debug, Clone)]
pub struct Operator {
    data: PathBuf,
}

impl Operator {
    /// Asks the one with this data folder.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    /// Asks, and reads the answer; one without a body is read as null.
    ///
    /// # Errors
    /// None runs, or it refuses, or its answer is not understood.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, OperatorError> {
        Ok(self.ask_if(method, path, body, None).await?.0)
    }

    /// The same, done only where the `ETag` of what is changed is `tag`; with the `ETag` of the answer.
    ///
    /// # Errors
    /// None runs, or it refuses, or its answer is not understood.
    pub async fn ask_if<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        tag: Option<&str>,
    ) -> Result<(T, Option<String>), OperatorError> {
        let broken = |error: &dyn std::fmt::Display| OperatorError::Broken(error.to_string());
        let socket = server::socket(&self.data);
        let stream = UnixStream::connect(&socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                OperatorError::NotRunning(self.data.clone())
            }
            _ => OperatorError::Broken(format!("{}: {error}", socket.display())),
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let driving = tokio::spawn(connection);
        let text = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| OperatorError::Answer(error.to_string()))?,
            None => Vec::new(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "control");
        if !text.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(tag) = tag {
            request = request.header(header::IF_MATCH, tag);
        }
        let request = request
            .body(Full::new(Bytes::from(text)))
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let tag = response.headers().get(header::ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), limits::MAX_ANSWER_BYTES);
        let body = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
        // Whatever is left of the connection is of no use.
        driving.abort();
        if !status.is_success() {
            let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem::new(Code::Internal));
            return Err(OperatorError::Problem(Box::new(problem)));
        }
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        let value = serde_json::from_slice(body).map_err(|error| OperatorError::Answer(error.to_string()))?;
        Ok((value, tag))
    }
}
