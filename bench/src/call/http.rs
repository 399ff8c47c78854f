//! The client over Streamable HTTP.

use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::{Figures, INITIALIZE, INITIALIZED, figures, request, span};

/// A client over Streamable HTTP: a connection for each request in flight.
pub(crate) struct Http {
    authority: String,
    path: String,
    token: Option<String>,
    session: Option<String>,
    tool: &'static str,
}

impl Http {
    /// Opens a session with what is to answer.
    pub(crate) async fn open(url: &str, token: Option<&str>) -> Self {
        let opened = Self::try_open(url, token).await;
        opened.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Opens a session with what may fail.
    pub(crate) async fn try_open(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").expect("an http address");
        let (authority, path) = rest.split_once('/').expect("a path");
        let mut client = Self {
            authority: authority.into(),
            path: format!("/{path}"),
            token: token.map(str::to_owned),
            session: None,
            tool: "echo",
        };
        let mut connection = client.connect().await?;
        let (session, _) = client.post(&mut connection, INITIALIZE.to_owned()).await?;
        client.session = session;
        let _accepted = client.post(&mut connection, INITIALIZED.to_owned()).await?;
        Ok(client)
    }

    /// The same, calling the tool under another name.
    pub(super) fn calling(self, tool: &'static str) -> Self {
        Self { tool, ..self }
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = tokio::net::TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn post(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        body: String,
    ) -> anyhow::Result<(Option<String>, Bytes)> {
        let mut builder = hyper::Request::post(&self.path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(token) = &self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        if let Some(session) = &self.session {
            builder = builder
                .header("mcp-session-id", session)
                .header("mcp-protocol-version", "2025-11-25");
        }
        connection.ready().await?;
        let request = builder.body(Full::new(Bytes::from(body)))?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let session = response.headers().get("mcp-session-id");
        let session = session.map(|value| value.to_str().map(str::to_owned)).transpose()?;
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(
            status.is_success(),
            "{}{} answered {status}: {:.500}",
            self.authority,
            self.path,
            String::from_utf8_lossy(&body)
        );
        Ok((session, body))
    }

    /// Measures what is to answer.
    pub(crate) async fn measure(&self, size: usize, in_flight: usize) -> Figures {
        self.try_measure(size, in_flight)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Measures what may fail.
    pub(crate) async fn try_measure(&self, size: usize, in_flight: usize) -> anyhow::Result<Figures> {
        let text = "x".repeat(size);
        let begun = Instant::now();
        let mut workers = Vec::new();
        for worker in 0..in_flight as u64 {
            let text = &text;
            workers.push(async move {
                let mut connection = self.connect().await?;
                let mut latencies = Vec::new();
                let mut id = (worker + 1) * 1_000_000;
                loop {
                    id += 1;
                    let sent = Instant::now();
                    let (_, body) = self.post(&mut connection, request(id, self.tool, text)).await?;
                    anyhow::ensure!(body.len() > size, "{:.500}", String::from_utf8_lossy(&body));
                    let since = begun.elapsed();
                    if since > span() / 4 {
                        latencies.push(sent.elapsed().as_secs_f64());
                    }
                    if since > span() / 4 + span() {
                        return anyhow::Ok(latencies);
                    }
                }
            });
        }
        let parts: anyhow::Result<Vec<Vec<f64>>> = join_all(workers).await.into_iter().collect();
        Ok(figures(parts?.into_iter().flatten().collect(), span()))
    }
}
