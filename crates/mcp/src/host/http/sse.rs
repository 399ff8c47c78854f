//! Servers of the transport before Streamable HTTP: one event stream that brings everything, and an address for
//! messages that its first event names.
//! Source: MCP 2024-11-05, "HTTP with SSE".

use std::sync::Arc;

use futures::StreamExt as _;
use http::HeaderMap;
use sse_stream::SseStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::events::bounded;
use super::{FromClient, ToClient, Upstream, shown};
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::Message;

impl Upstream {
    /// Carries a session, from its `initialize` on.
    pub(super) async fn sse(
        self: Arc<Self>,
        initialize: Message,
        mut from_client: FromClient,
        to_client: ToClient,
    ) -> Result<(), Fault> {
        let response = self.get(HeaderMap::new(), None).await?;
        let kind = response
            .headers()
            .get("content-type")
            .and_then(|kind| kind.to_str().ok());
        if !response.status().is_success() || !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let words = format!(
                "its server at {} speaks neither Streamable HTTP nor the older HTTP with SSE (it answers GET with {})",
                shown(&self.url),
                response.status()
            );
            return Err(self.agent.failed(words));
        }
        let mut events = SseStream::from_bytes_stream(bounded(response, self.limits.message_bytes));
        let first = tokio::time::timeout(self.limits.probe, events.next()).await;
        let endpoint = match first {
            Ok(Some(Ok(event))) if event.event.as_deref() == Some("endpoint") => {
                self.endpoint(event.data.as_deref())?
            }
            _ => {
                return Err(self
                    .agent
                    .failed("its event stream does not begin by naming an address for messages"));
            }
        };
        let (outgoing, posted) = mpsc::channel(self.limits.queue_messages);
        let _queued = outgoing.send(initialize).await;
        let mut posting = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).post_all(endpoint, posted)));
        let mut is_open = true;
        loop {
            tokio::select! {
                frame = from_client.recv(), if is_open => match frame {
                    Some(Ok(frame)) => {
                        // What posts ends only with a failure, which is answered below.
                        let _queued = outgoing.send(frame.message).await;
                    }
                    Some(Err(_)) | None => is_open = false,
                },
                posted = &mut posting => {
                    return Err(posted.unwrap_or_else(|_| self.agent.failed("nothing more can be sent to its server")));
                }
                () = to_client.closed() => return Ok(()),
                event = events.next() => {
                    let Some(Ok(event)) = event else {
                        return Err(self.agent.failed("its event stream ended, and the session with it"));
                    };
                    let Some(data) = event.data.filter(|data| !data.trim().is_empty()) else { continue };
                    if data.len() > self.limits.message_bytes {
                        let words = format!("agent {} sent a message of {} bytes", self.agent.address, data.len());
                        return Err(Fault::new(FaultCode::TooLarge, words));
                    }
                    let frame = Frame { message: Message::new(data.into()), related: None };
                    if to_client.send(Ok(frame)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The address for messages: of the server itself, so that nobody is sent elsewhere.
    fn endpoint(&self, data: Option<&str>) -> Result<Url, Fault> {
        let named = data.and_then(|data| self.url.join(data.trim()).ok());
        let named = named.filter(|named| named.origin() == self.url.origin());
        named.ok_or_else(|| {
            self.agent
                .failed("its event stream names an address for messages that is not its own")
        })
    }

    /// Posts messages in their order, until one cannot be.
    async fn post_all(self: Arc<Self>, endpoint: Url, mut messages: mpsc::Receiver<Message>) -> Fault {
        while let Some(message) = messages.recv().await {
            let body = message.into_bytes();
            let request = || {
                let request = self.client.post(endpoint.clone()).headers(self.headers.clone());
                request.header("content-type", "application/json").body(body.clone())
            };
            match self.authorised(request).await {
                Ok(response) if response.status().is_success() => {}
                Ok(response) => {
                    let words = format!("its server does not take a message ({})", response.status());
                    return self.agent.failed(words);
                }
                Err(fault) => return fault,
            }
        }
        std::future::pending().await
    }
}
