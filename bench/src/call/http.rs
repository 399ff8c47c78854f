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
    pub(crate) async fn open(url: &str, token: Option<&str>) -> Self {
        let rest = url.strip_prefix("http://").expect("an http address");
        let (authority, path) = rest.split_once('/').expect("a path");
        let mut client = Self {
            authority: authority.into(),
            path: format!("/{path}"),
            token: token.map(str::to_owned),
            session: None,
            tool: "echo",
        };
        let mut connection = client.connect().await;
        let (session, _) = client.post(&mut connection, INITIALIZE.to_owned()).await;
        client.session = session;
        let _accepted = client.post(&mut connection, INITIALIZED.to_owned()).await;
        client
    }

    /// The same, calling the tool under another name.
    pub(super) fn calling(self, tool: &'static str) -> Self {
        Self { tool, ..self }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = tokio::net::TcpStream::connect(&self.authority)
            .await
            .expect("connected");
        stream.set_nodelay(true).expect("no delay");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(async move { drop(connection.await) });
        sender
    }

    async fn post(&self, connection: &mut SendRequest<Full<Bytes>>, body: String) -> (Option<String>, Bytes) {
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
        connection.ready().await.expect("an open connection");
        let response = connection
            .send_request(builder.body(Full::new(Bytes::from(body))).expect("a request"))
            .await
            .expect("answered");
        assert!(response.status().is_success(), "{}", response.status());
        let session = response
            .headers()
            .get("mcp-session-id")
            .map(|value| value.to_str().expect("text").to_owned());
        (
            session,
            response.into_body().collect().await.expect("a body").to_bytes(),
        )
    }

    pub(crate) async fn measure(&self, size: usize, in_flight: usize) -> Figures {
        let text = "x".repeat(size);
        let begun = Instant::now();
        let mut workers = Vec::new();
        for worker in 0..in_flight as u64 {
            let text = &text;
            workers.push(async move {
                let mut connection = self.connect().await;
                let mut latencies = Vec::new();
                let mut id = (worker + 1) * 1_000_000;
                loop {
                    id += 1;
                    let sent = Instant::now();
                    let (_, body) = self.post(&mut connection, request(id, self.tool, text)).await;
                    assert!(body.len() > size, "{}", String::from_utf8_lossy(&body));
                    let since = begun.elapsed();
                    if since > span() / 4 {
                        latencies.push(sent.elapsed().as_secs_f64());
                    }
                    if since > span() / 4 + span() {
                        return latencies;
                    }
                }
            });
        }
        let parts = join_all(workers).await;
        figures(parts.into_iter().flatten().collect(), span())
    }
}
